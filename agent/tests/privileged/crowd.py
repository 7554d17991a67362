"""Connections to a WebSocket server, opened one after the other at a steady rate and kept. It speaks the protocol by itself:
a client of the `websockets` package costs more than most servers, and reads what it should leave in the socket.

Usage: crowd.py HOST PORT CONNECTIONS RATE BEHAVIOUR

BEHAVIOUR is `deflate` (offer compression, send one compressed message, wait for the answer), `talk` (send 8 KiB and read them
back, every few seconds) or `stall` (never read). On
SIGTERM prints {"connections": {"opened": N}}.
"""

import asyncio
import base64
import json
import os
import random
import resource
import signal
import socket
import struct
import sys
import zlib

TALK, PAUSE = 8192, 4.0
WORDS = [b"alpha", b"beta", b"gamma", b"delta", b"omega", b"sigma"]


def message(compressed):
    payload = b" ".join(random.choice(WORDS) for _ in range(60))
    if compressed:
        deflate = zlib.compressobj(wbits=-12)
        payload = (deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]
    mask = os.urandom(4)
    first = 0xC1 if compressed else 0x81
    length = struct.pack(">BB", first, 0x80 | len(payload)) if len(payload) < 126 else struct.pack(
        ">BBH", first, 0x80 | 126, len(payload)
    )
    return length + mask + bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))


class Crowd:
    def __init__(self, host, port, behaviour):
        self.host, self.port, self.behaviour = host, port, behaviour
        self.opened, self.kept = 0, []

    def local(self, number):
        return (f"127.0.{1 + number // 250 % 250}.{1 + number % 250}", 0) if self.host.startswith("127.") else None

    def request(self):
        offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
        return (
            "GET /echo HTTP/1.1\r\nHost: crowd\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\nSec-WebSocket-Version: 13\r\n"
            f"{offer if self.behaviour == 'deflate' else ''}\r\n".encode()
        )

    async def stall(self, number):
        """A stream's reader would take a quarter of a megabyte out of the socket at once."""
        loop, client = asyncio.get_running_loop(), socket.socket()
        self.kept.append(client)
        client.setblocking(False)
        if local := self.local(number):
            client.bind(local)
        await loop.sock_connect(client, (self.host, self.port))
        await loop.sock_sendall(client, self.request())
        self.opened += b" 101 " in await loop.sock_recv(client, 20)

    async def open(self, number):
        reader, writer = await asyncio.open_connection(self.host, self.port, local_addr=self.local(number))
        self.kept.append((reader, writer))
        writer.write(self.request())
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 101 " not in head:
            return
        self.opened += 1
        if self.behaviour == "deflate":
            writer.write(message(b"permessage-deflate" in head))
            await reader.read(1)
        while self.behaviour == "talk":
            # A mask of zeros masks nothing.
            writer.write(struct.pack(">BBH4x", 0x82, 0x80 | 126, TALK) + bytes(TALK))
            await reader.readexactly(4 + TALK)
            await asyncio.sleep(PAUSE)


async def main(host, port, connections, rate, behaviour):
    crowd = Crowd(host, port, behaviour)
    done = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, done.set)
    tasks = []
    for number in range(connections):
        if done.is_set():
            break
        open_one = crowd.stall if behaviour == "stall" else crowd.open
        tasks.append(asyncio.create_task(open_one(number)))
        await asyncio.sleep(1 / rate)
    await done.wait()
    print(json.dumps({"connections": {"opened": crowd.opened}}), flush=True)
    # Tasks that wait for a server that is gone are not waited for.
    os._exit(0)


resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), sys.argv[5]))
