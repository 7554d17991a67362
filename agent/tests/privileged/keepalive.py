"""A server and its clients on the `websockets` package, which count every frame they write and parse.

Usage: keepalive.py CONNECTIONS SECONDS none|deflate

Prints `listening PORT`, waits for a line on stdin, exchanges messages and keepalives for SECONDS, closes every
connection with the closing handshake, and prints its counts as JSON: side -> direction -> count.
"""

import asyncio
import json
import os
import random
import struct
import sys

from websockets import protocol
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

NAMES = {0: "continuation", 1: "text", 2: "binary", 8: "close", 9: "ping", 10: "pong"}
COUNTS = {side: {"sent": {}, "received": {}} for side in ("server", "client")}


def count(side, direction, **amounts):
    counts = COUNTS[side.name.lower()][direction]
    for name, amount in amounts.items():
        counts[name] = counts.get(name, 0) + amount


def count_wire(side, direction, wire):
    """Counts one serialized frame: what the peer's kernel will see, compression applied."""
    opcode, length, header = wire[0] & 15, wire[1] & 127, 2
    if length == 126:
        length, header = struct.unpack("!H", wire[2:4])[0], 4
    elif length == 127:
        length, header = struct.unpack("!Q", wire[2:10])[0], 10
    header += 4 if wire[1] & 128 else 0
    assert len(wire) == header + length
    count(side, direction, frames=1, header_bytes=header, **{NAMES[opcode]: 1})
    count(side, direction, **{"control_bytes" if opcode & 8 else "payload_bytes": length})
    count(side, direction, compressed_frames=1 if wire[0] & 64 else 0)


original_send, original_recv = protocol.Protocol.send_frame, protocol.Protocol.recv_frame


def send_frame(self, frame):
    original_send(self, frame)
    count_wire(self.side, "sent", self.writes[-1])


def recv_frame(self, frame):
    count(self.side, "received", frames=1, **{NAMES[int(frame.opcode)]: 1})
    if frame.opcode & 8:
        count(self.side, "received", control_bytes=len(frame.data))
    elif not self.extensions:
        # With compression the package shows the inflated payload only.
        count(self.side, "received", payload_bytes=len(frame.data))
    original_recv(self, frame)


# The package's own methods, so that keepalives and automatic pongs are seen too.
protocol.Protocol.send_frame, protocol.Protocol.recv_frame = send_frame, recv_frame


async def stop_keepalive(connection):
    """A ping sent while its connection closes is written by one side and dropped unparsed by the other."""
    if connection.keepalive_task is not None:
        connection.keepalive_task.cancel()


async def main(connections, seconds, compression):
    accepted = []

    async def echo(connection):
        accepted.append(connection)
        async for message in connection:
            await connection.send(message)

    async def client(url, until, number):
        generator = random.Random(number)
        async with connect(url, ping_interval=0.7, compression=compression, max_size=None, proxy=None) as connection:
            while asyncio.get_running_loop().time() < until:
                # The three forms of the length field, and bodies that span several TCP segments.
                size = generator.choice((0, 5, 125, 126, 3000, 65535, 65536, 200_000))
                message = "é" * (size // 2) if generator.random() < 0.5 else os.urandom(size)
                await connection.send(message)
                assert await connection.recv() == message
                if generator.random() < 0.2:
                    # An iterable is sent as one message in fragments.
                    await connection.send(["first ", "", "last"])
                    assert await connection.recv() == "first last"
                await asyncio.sleep(generator.random() / 2)
            await stop_keepalive(connection)
            await quiet.wait()

    quiet = asyncio.Event()
    server = await serve(echo, "127.0.0.1", 0, ping_interval=1, compression=compression, max_size=None)
    port = server.sockets[0].getsockname()[1]
    print(f"listening {port}", flush=True)
    await asyncio.to_thread(sys.stdin.readline)

    until = asyncio.get_running_loop().time() + seconds
    clients = [asyncio.create_task(client(f"ws://127.0.0.1:{port}", until, n)) for n in range(connections)]
    await asyncio.sleep(seconds + 1)
    for connection in accepted:
        await stop_keepalive(connection)
    await asyncio.sleep(1)
    quiet.set()
    await asyncio.gather(*clients)
    server.close()
    await server.wait_closed()
    print(json.dumps(COUNTS), flush=True)


asyncio.run(main(int(sys.argv[1]), float(sys.argv[2]), None if sys.argv[3] == "none" else sys.argv[3]))
