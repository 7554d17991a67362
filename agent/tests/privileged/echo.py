"""An echo server on the `websockets` package.

Usage: echo.py HOST PORT COMPRESSION FLOOD

COMPRESSION is `none` or `deflate`; to each connection it first sends FLOOD bytes. Prints `listening PORT` and serves until
it is killed.
"""

import asyncio
import os
import socket
import sys

from websockets.asyncio.server import serve


async def main(host, port, compression, flood):
    async def echo(connection):
        if flood:
            # Without waiting for a peer that does not read.
            asyncio.create_task(connection.send(os.urandom(flood)))
        async for message in connection:
            await connection.send(message)

    listener = socket.create_server((host, port), backlog=1024)
    compression = None if compression == "none" else compression
    async with serve(echo, sock=listener, ping_interval=None, compression=compression):
        print(f"listening {listener.getsockname()[1]}", flush=True)
        await asyncio.Future()


asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
