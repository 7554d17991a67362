"""An echo server on the `websockets` package, which counts every frame it writes and parses.

Usage: server.py HOST PORT

Other processes may listen on the same port. Prints `listening PORT`, serves until a line comes on stdin, and prints its
counts as JSON: side -> direction -> count, and `accepted`, the number of connections.
"""

import asyncio
import json
import socket
import sys

from frames import COUNTS
from websockets.asyncio.server import serve

PINGS, PAUSE = 3, 0.5


async def main(host, port):
    accepted = 0

    async def keepalive(connection):
        # A few only: the last one is answered long before anybody closes.
        for number in range(PINGS):
            await asyncio.sleep(PAUSE)
            await (await connection.ping(b"p" * number))

    async def echo(connection):
        nonlocal accepted
        accepted += 1
        pinging = asyncio.create_task(keepalive(connection))
        async for message in connection:
            await connection.send(message)
        await pinging

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server(
        (host, port), family=family, backlog=1024, reuse_port=True, dualstack_ipv6=host == "::"
    )
    server = await serve(echo, sock=listener, ping_interval=None, compression=None, max_size=None)
    print(f"listening {listener.getsockname()[1]}", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    server.close()
    await server.wait_closed()
    print(json.dumps({**COUNTS, "accepted": accepted}), flush=True)


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
