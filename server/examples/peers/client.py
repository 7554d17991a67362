"""A client that is not ours: client.py URL CONNECTIONS SECONDS BYTES.

Each connection sends a text message when the last came back, and checks that it is the same. Prints one JSON object.
"""

import asyncio
import json
import sys
import time

from websockets.asyncio.client import connect

url, connections, seconds, size = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])


async def converse(socket, end):
    count = 0
    while time.monotonic() < end:
        text = f"{count:<{size}}"
        await socket.send(text)
        assert await socket.recv() == text
        count += 1
    return count


async def main():
    opened = [await connect(url, compression=None, ping_interval=None) for _ in range(connections)]
    begun = time.monotonic()
    counts = await asyncio.gather(*(converse(socket, begun + seconds) for socket in opened))
    elapsed = time.monotonic() - begun
    print(json.dumps({"messages": sum(counts), "seconds": elapsed}))
    await asyncio.gather(*(socket.close() for socket in opened))


asyncio.run(main())
