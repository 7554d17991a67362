"""Connections of the `websockets` package that offer compression in every way it can, to an echo server.

Usage: compressed.py PORT. Each speaks, listens and pauses in its own rhythm, so that the server sees it active and idle, and
checks every echo. Prints as JSON: `connections`, `messages`, and `kept`, those of the connections on which both sides
may refer to earlier messages.
"""

import asyncio
import itertools
import json
import random
import sys

from websockets.asyncio.client import connect
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

MESSAGES = 25
BITS = (None, 9, 12, 15)


def message(generator):
    words = generator.choice((0, 1, 10, 200, 5_000))
    text = " ".join(f"word-{generator.randrange(50)}" for _ in range(words))
    # Some that cannot get smaller.
    noise = generator.randbytes(generator.choice((0, 10, 3_000)))
    return text if generator.random() < 0.6 else text.encode() + noise


async def talk(port, seed, server_forgets, client_forgets, server_bits, client_bits):
    generator = random.Random(seed)
    offer = ClientPerMessageDeflateFactory(
        server_no_context_takeover=server_forgets,
        client_no_context_takeover=client_forgets,
        server_max_window_bits=server_bits,
        client_max_window_bits=True if client_bits is None else client_bits,
    )
    url = f"ws://127.0.0.1:{port}/echo"
    async with connect(url, extensions=[offer], compression=None, ping_interval=0.3) as connection:
        (agreed,) = connection.protocol.extensions
        for _ in range(MESSAGES):
            burst = [message(generator) for _ in range(generator.choice((1, 1, 1, 4)))]
            for each in burst:
                # In fragments, now and then.
                if isinstance(each, str) and generator.random() < 0.3:
                    await connection.send([each[:7], each[7:100], each[100:]])
                else:
                    await connection.send(each)
            for each in burst:
                assert await connection.recv() == each, "an echo is not what was said"
            await asyncio.sleep(generator.choice((0, 0, 0.004, 0.01, 0.03, 0.1)))
    return not (agreed.remote_no_context_takeover or agreed.local_no_context_takeover)


async def main():
    ways = itertools.product((False, True), (False, True), BITS, BITS)
    kept = await asyncio.gather(*(talk(sys.argv[1], seed, *way) for seed, way in enumerate(ways)))
    print(json.dumps({"connections": len(kept), "messages": MESSAGES * len(kept), "kept": sum(kept)}))


asyncio.run(main())
