"""WebSockets inside TLS, both ends on the `websockets` package, in this process.

Usage: encrypted.py CONNECTIONS

Prints `listening PORT`, opens CONNECTIONS and prints `older` with their local ports; opens as many again for the line `open`
on stdin and prints `newer` likewise; exchanges messages on all of them for each line `talk`, then prints `quiet`. Ends with
its stdin.
"""

import asyncio
import socket
import ssl
import sys

import trustme
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

SIZES = [0, 1, 50, 125, 126, 3000, 16384, 100_000]


async def echo(connection):
    async for message in connection:
        await connection.send(message)


async def main(number):
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    options = {"ping_interval": None, "compression": None, "max_size": None}
    connections = []

    async def open_some(name):
        ports = []
        for _ in range(number):
            url = f"wss://localhost:{port}/"
            connection = await connect(url, ssl=client, host="127.0.0.1", proxy=None, **options)
            ports.append(str(connection.local_address[1]))
            connections.append(connection)
        print(name, *ports, flush=True)

    async def talk(connection):
        for size in SIZES:
            message = b"m" * size
            await connection.send(message)
            assert await connection.recv() == message

    async with serve(echo, sock=listener, ssl=server, **options):
        print(f"listening {port}", flush=True)
        await open_some("older")
        while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
            if line == "open":
                await open_some("newer")
            else:
                await asyncio.gather(*map(talk, connections))
                print("quiet", flush=True)
        for connection in connections:
            await connection.close()


asyncio.run(main(int(sys.argv[1])))
