"""Connections of the `websockets` package to any server, which count every frame they write and parse.

Prints `quiet` once all that was sent was answered, waits for a line on stdin, closes every connection, and prints as
JSON: side -> direction -> count, `close_codes` by the side that sent them, and `deflate` as negotiated. Both are the
same on all connections.
"""

import argparse
import asyncio
import json
import os
import random
import sys

from frames import COUNTS
from websockets.asyncio.client import connect

# The three forms of the length field, and bodies that span several TCP segments.
SIZES = (0, 5, 125, 126, 3000, 65535, 65536, 200_000)


def message(generator, options):
    size = generator.choice([size for size in SIZES if size <= options.largest])
    if options.text or generator.random() < 0.5:
        # Two bytes each in UTF-8.
        return "é" * (size // 2)
    return os.urandom(size)


async def ping(connection, generator, options):
    await (await connection.ping(os.urandom(generator.randint(0, min(125, options.largest)))))


async def fragments(connection, generator, options):
    yield "first "
    await ping(connection, generator, options)
    yield ""
    yield "last"


async def echoes(connection, until, generator, options):
    while asyncio.get_running_loop().time() < until:
        sent = message(generator, options)
        await connection.send(sent)
        assert await connection.recv() == sent
        chance = generator.random()
        if chance < 0.2:
            await connection.send(fragments(connection, generator, options))
            assert await connection.recv() == "first last"
        elif chance < 0.5:
            await ping(connection, generator, options)
        await asyncio.sleep(generator.random() / 2)


async def statements(connection, until, generator, options):
    """For servers that answer something else than an echo."""

    async def listen():
        async for _ in connection:
            pass

    listening = asyncio.create_task(listen())
    while asyncio.get_running_loop().time() < until:
        await connection.send(message(generator, options))
        if generator.random() < 0.3:
            await connection.send(fragments(connection, generator, options))
        await asyncio.sleep(generator.random() / 2)
    # Control frames are answered in their turn: whatever the statements brought about is here after that.
    await ping(connection, generator, options)
    return listening


def codes(protocol):
    """An empty close frame has no code, which the package calls 1005."""
    code = {"client": protocol.close_sent.code, "server": protocol.close_rcvd.code}
    return {side: None if code == 1005 else code for side, code in code.items()}


def deflate(protocol):
    return [
        {
            "server_max_window_bits": extension.remote_max_window_bits,
            "client_max_window_bits": extension.local_max_window_bits,
            "server_no_context_takeover": extension.remote_no_context_takeover,
            "client_no_context_takeover": extension.local_no_context_takeover,
        }
        for extension in protocol.extensions
    ]


async def main(options):
    async def client(number):
        generator = random.Random(number)
        # Without the package's own keepalive: a ping that crosses a close would be counted on one side only.
        async with connect(
            options.url,
            ping_interval=None,
            compression="deflate" if options.deflate else None,
            subprotocols=[options.subprotocol] if options.subprotocol else None,
            max_size=None,
            proxy=None,
        ) as connection:
            assert connection.subprotocol == options.subprotocol
            talk = statements if options.statements else echoes
            listening = await talk(connection, until, generator, options)
            barrier.release()
            await go.wait()
            if options.farewell:
                await connection.send(options.farewell)
                await connection.wait_closed()
        if listening:
            await listening
        if options.farewell:
            assert connection.protocol.close_rcvd_then_sent, "the server did not close first"
        return {"close_codes": codes(connection.protocol), "deflate": deflate(connection.protocol)}

    until = asyncio.get_running_loop().time() + options.seconds
    barrier, go = asyncio.Semaphore(0), asyncio.Event()
    clients = [asyncio.create_task(client(number)) for number in range(options.connections)]
    everyone = asyncio.gather(*clients)
    all_quiet = asyncio.gather(*(barrier.acquire() for _ in clients))
    # A client that fails ends the wait.
    await asyncio.wait({everyone, all_quiet}, return_when=asyncio.FIRST_COMPLETED)
    if not everyone.done():
        print("quiet", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        go.set()
    facts = await everyone
    assert all(fact == facts[0] for fact in facts), facts
    print(json.dumps({**COUNTS, **facts[0]}), flush=True)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("url")
parser.add_argument("--connections", type=int, required=True)
parser.add_argument("--seconds", type=float, required=True)
parser.add_argument("--largest", type=int, default=SIZES[-1], help="bytes of the largest message or ping")
parser.add_argument("--text", action="store_true", help="no binary messages")
parser.add_argument("--statements", action="store_true", help="do not expect the messages back")
parser.add_argument("--deflate", action="store_true", help="offer permessage-deflate")
parser.add_argument("--subprotocol")
parser.add_argument("--farewell", help="a message upon which the server closes")
asyncio.run(main(parser.parse_args()))
