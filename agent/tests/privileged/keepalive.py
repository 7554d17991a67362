"""A server and its clients on the `websockets` package, which count every frame they write and parse.

Usage: keepalive.py CONNECTIONS SECONDS none|deflate

Prints `listening PORT`, waits for a line on stdin, exchanges messages and keepalives for SECONDS, closes every
connection with the closing handshake, and prints its counts as JSON: side -> direction -> count.
"""

import asyncio
import json
import os
import random
import sys

from frames import COUNTS
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve


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
