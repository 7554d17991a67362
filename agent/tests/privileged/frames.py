"""Counts every frame that the `websockets` package writes and parses in this process.

Importing it is enough. `COUNTS` is side -> direction -> count; a count of nothing may be absent.
"""

import struct

from websockets.frames import Frame
from websockets.protocol import Protocol, Side

NAMES = {0: "continuation", 1: "text", 2: "binary", 8: "close", 9: "ping", 10: "pong"}
COUNTS = {side: {"sent": {}, "received": {}} for side in ("server", "client")}


def count(side, direction, wire):
    """Counts one frame as it is on the wire: masked by a client, compressed where that was negotiated."""
    opcode, length, header = wire[0] & 15, wire[1] & 127, 2
    if length == 126:
        length, header = struct.unpack("!H", wire[2:4])[0], 4
    elif length == 127:
        length, header = struct.unpack("!Q", wire[2:10])[0], 10
    header += 4 if wire[1] & 128 else 0
    assert len(wire) == header + length
    payload = "control_bytes" if opcode & 8 else "payload_bytes"
    amounts = {"frames": 1, NAMES[opcode]: 1, payload: length, "header_bytes": header}
    amounts["compressed_frames"] = 1 if wire[0] & 64 else 0
    counts = COUNTS[side][direction]
    for name, amount in amounts.items():
        counts[name] = counts.get(name, 0) + amount


original_serialize, original_parse, original_discard = Frame.serialize, Frame.parse, Protocol.discard


def serialize(self, *, mask, extensions=None):
    wire = original_serialize(self, mask=mask, extensions=extensions)
    count("client" if mask else "server", "sent", wire)
    return wire


def parse(read_exact, *, mask, max_size=None, extensions=None):
    pieces = []

    def read(length):
        piece = yield from read_exact(length)
        pieces.append(bytes(piece))
        return piece

    frame = yield from original_parse(read, mask=mask, max_size=max_size, extensions=extensions)
    # What comes in masked comes from a client.
    count("server" if mask else "client", "received", b"".join(pieces))
    return frame


def discard(self):
    """There are peers that say something more behind their own close frame, which the package drops unparsed."""
    try:
        while self.close_rcvd is not None and not (yield from self.reader.at_eof()):
            mask = self.side is Side.SERVER
            yield from Frame.parse(self.reader.read_exact, mask=mask, extensions=self.extensions)
    except EOFError:
        pass
    yield from original_discard(self)


# Below everything else of the package, so that keepalives and automatic pongs are seen too.
Frame.serialize, Frame.parse, Protocol.discard = serialize, staticmethod(parse), discard
