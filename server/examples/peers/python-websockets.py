"""The same server as ../plain.rs in Python, with websockets: python-websockets.py SECONDS, the ping interval."""

import asyncio
import logging
import resource
import sys

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed


async def echo(socket):
    try:
        async for message in socket:
            await socket.send(message)
    except ConnectionClosed:
        pass


async def main():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    logging.getLogger("websockets").setLevel(logging.CRITICAL)
    period = float(sys.argv[1])
    options = {"compression": None, "ping_interval": period, "ping_timeout": None, "open_timeout": 60, "backlog": 4096}
    async with serve(echo, "127.0.0.1", 0, **options) as server:
        port = server.sockets[0].getsockname()[1]
        print(f"listening on ws://127.0.0.1:{port}", flush=True)
        await server.serve_forever()


asyncio.run(main())
