"""Connections that are no WebSockets, between this process and itself.

Usage: impostors.py SECONDS

Opens one connection for each protocol, prints `listening PORT NAME` for each and `ready`, waits for a line on stdin, talks
for that long, and prints as JSON: name -> packets sent by either side (at least; TCP may cut them further).
"""

import json
import random
import socket
import ssl
import string
import struct
import sys
import threading
import time

import trustme
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived

AUTHORITY = trustme.CA()
CERTIFICATE = AUTHORITY.issue_cert("localhost")


class Protocol:
    """Both ends as byte machines: what is asked, what is answered. Either may be nothing."""

    def __init__(self, rng):
        self.rng = rng

    def ask(self):
        return b""

    def answer(self, asked):
        return b""

    def take(self, answered):
        pass


class Http2(Protocol):
    """Requests with and without bodies, bodies of many sizes, pings, window updates."""

    def __init__(self, rng):
        super().__init__(rng)
        self.client = H2Connection(H2Configuration(client_side=True))
        self.server = H2Connection(H2Configuration(client_side=False))
        self.client.initiate_connection()
        self.server.initiate_connection()

    def ask(self):
        kind = self.rng.random()
        if kind < 0.1:
            self.client.ping(self.rng.randbytes(8))
        else:
            stream = self.client.get_next_available_stream_id()
            body = self.rng.randbytes(self.rng.choice([0, 0, 1, 2, 65, 66, 129, 130, self.rng.randrange(1, 4000)]))
            method = "POST" if body else "GET"
            path = "/" + "x" * self.rng.randrange(20)
            headers = [(":method", method), (":path", path), (":scheme", "http"), (":authority", "localhost")]
            self.client.send_headers(stream, headers, end_stream=not body)
            if body:
                self.client.send_data(stream, body, end_stream=True)
        return self.client.data_to_send()

    def answer(self, asked):
        for event in self.server.receive_data(asked):
            if isinstance(event, RequestReceived):
                body = self.rng.randbytes(self.rng.choice([1, 2, 65, 66, 129, 130, self.rng.randrange(1, 4000)]))
                self.server.send_headers(event.stream_id, [(":status", "200")])
                self.server.send_data(event.stream_id, body, end_stream=True)
            elif isinstance(event, DataReceived) and event.flow_controlled_length:
                self.server.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        if self.rng.random() < 0.1:
            self.server.ping(self.rng.randbytes(8))
        return self.server.data_to_send()

    def take(self, answered):
        for event in self.client.receive_data(answered):
            if isinstance(event, DataReceived) and event.flow_controlled_length:
                self.client.acknowledge_received_data(event.flow_controlled_length, event.stream_id)


class Tls(Protocol):
    """TLS records of many sizes, echoed."""

    def __init__(self, rng):
        super().__init__(rng)
        server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        CERTIFICATE.configure_cert(server)
        AUTHORITY.configure_trust(client)
        bios = [ssl.MemoryBIO() for _ in range(4)]
        self.to_server, self.from_server, self.to_client, self.from_client = bios
        self.server = server.wrap_bio(self.to_server, self.from_server, server_side=True)
        self.client = client.wrap_bio(self.to_client, self.from_client, server_hostname="localhost")
        self.shaken = {self.client: False, self.server: False}

    def shake(self, side):
        try:
            side.do_handshake()
            self.shaken[side] = True
        except ssl.SSLWantReadError:
            pass

    def ask(self):
        if not self.shaken[self.client]:
            self.shake(self.client)
        else:
            self.client.write(self.rng.randbytes(self.rng.choice([1, 40, self.rng.randrange(1, 16384)])))
        return self.from_client.read()

    def answer(self, asked):
        self.to_server.write(asked)
        if not self.shaken[self.server]:
            self.shake(self.server)
        else:
            self.echo()
        return self.from_server.read()

    def echo(self):
        try:
            while True:
                self.server.write(self.server.read(1 << 16))
        except ssl.SSLWantReadError:
            pass

    def take(self, answered):
        self.to_client.write(answered)
        if not self.shaken[self.client]:
            # Its answer goes out with the next question.
            return
        try:
            while self.client.read(1 << 16):
                pass
        except ssl.SSLWantReadError:
            pass


class Mqtt(Protocol):
    """MQTT 3.1.1: CONNECT, then SUBSCRIBE in runs of thirty, PUBLISH of QoS 0 and 1 both ways, PINGREQ."""

    def __init__(self, rng):
        super().__init__(rng)
        self.turn = -1

    @staticmethod
    def packet(first, body):
        length, size = b"", len(body)
        while True:
            size, low = divmod(size, 128)
            length += bytes([low | (128 if size else 0)])
            if not size:
                return bytes([first]) + length + body

    @staticmethod
    def text(value):
        return struct.pack("!H", len(value)) + value

    def topic(self):
        return self.text(b"sensors/" + bytes(self.rng.choices(b"abcdefgh/", k=self.rng.randrange(1, 90))))

    def ask(self):
        self.turn += 1
        number = struct.pack("!H", self.turn % 65535 + 1)
        if self.turn == 0:
            return self.packet(0x10, self.text(b"MQTT") + b"\x04\x02\x00\x3c" + self.text(b"client"))
        phase = self.turn % 60
        if phase < 30:
            return self.packet(0x82, number + self.topic() + bytes([self.rng.randrange(2)]))
        if phase < 40:
            return self.packet(0x30, self.topic() + self.rng.randbytes(self.rng.randrange(1, 2000)))
        if phase < 50:
            return self.packet(0x32, self.topic() + number + self.rng.randbytes(self.rng.randrange(1, 200)))
        return self.packet(0xC0, b"")

    def answer(self, asked):
        number = struct.pack("!H", self.turn % 65535 + 1)
        if self.turn == 0:
            return self.packet(0x20, b"\x00\x00")
        phase = self.turn % 60
        if phase < 30:
            return self.packet(0x90, number + b"\x01")
        if phase < 40:
            return self.packet(0x30, self.topic() + self.rng.randbytes(self.rng.randrange(1, 300)))
        if phase < 50:
            return self.packet(0x40, number)
        return self.packet(0xD0, b"")


class Redis(Protocol):
    """RESP: arrays, inline commands, pipelines."""

    @staticmethod
    def bulk(value):
        return b"$%d\r\n%s\r\n" % (len(value), value)

    def command(self, *words):
        return b"*%d\r\n" % len(words) + b"".join(map(self.bulk, words))

    def value(self):
        return self.rng.randbytes(self.rng.choice([0, 1, 10, self.rng.randrange(3000)]))

    def ask(self):
        kind = self.rng.randrange(5)
        key = b"key:%d" % self.rng.randrange(1000)
        if kind == 0:
            return b"PING\r\n"
        if kind == 1:
            return b"GET " + key + b"\r\n"
        if kind == 2:
            return self.command(b"SET", key, self.value())
        if kind == 3:
            return self.command(b"GET", key)
        return b"".join(self.command(b"SET", key, self.value()) for _ in range(self.rng.randrange(2, 12)))

    def answer(self, asked):
        if asked.startswith(b"PING"):
            return b"+PONG\r\n"
        if b"GET" in asked[:20]:
            return b"$-1\r\n" if self.rng.random() < 0.3 else self.bulk(self.value())
        return b"+OK\r\n" * max(1, asked.count(b"SET"))


class Noise(Protocol):
    """Random bytes in packets of random sizes, short ones above all."""

    def piece(self):
        return self.rng.randbytes(self.rng.randrange(1, self.rng.choice([4, 16, 130, 3000])))

    def ask(self):
        return self.piece()

    def answer(self, asked):
        return self.piece()


class Lines(Protocol):
    """ASCII lines, many of them beginning with letters that would do as the first byte of a frame."""

    def line(self):
        first = self.rng.choice("AB" + string.ascii_letters)
        rest = self.rng.choices(string.ascii_letters + string.digits + "      ", k=self.rng.randrange(1, 120))
        return (first + "".join(rest) + "\r\n").encode()

    def ask(self):
        return self.line()

    def answer(self, asked):
        return self.line()


class Prefixed(Protocol):
    """Records behind their length in WIDTH bytes, short ones, in one direction only."""

    def __init__(self, rng, width):
        super().__init__(rng)
        self.width = width

    def ask(self):
        body = self.rng.randbytes(self.rng.randrange(1, 120))
        return len(body).to_bytes(self.width, "big") + body


class Mirrored(Protocol):
    """Another protocol's client and server in each other's place."""

    def __init__(self, inner):
        super().__init__(inner.rng)
        self.inner = inner

    def answer(self, asked):
        return self.inner.ask()


PROTOCOLS = {
    "http2": Http2,
    "tls": Tls,
    "mqtt": Mqtt,
    "redis": Redis,
    "noise": Noise,
    "lines": Lines,
    "prefixed by 2 bytes": lambda rng: Prefixed(rng, 2),
    "prefixed by 4 bytes": lambda rng: Prefixed(rng, 4),
    "prefixed by 4 bytes, from the server": lambda rng: Mirrored(Prefixed(rng, 4)),
}


class Conversation:
    def __init__(self, name, seed):
        self.protocol = PROTOCOLS[name](random.Random(seed))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
            self.client = socket.create_connection(listener.getsockname())
            self.server, _ = listener.accept()
        for end in (self.client, self.server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.packets = 0

    def carry(self, source, target, data):
        """Sends `data` and waits until it is there, so that it is a packet of its own."""
        if not data:
            return b""
        source.sendall(data)
        self.packets += 1
        arrived = b""
        while len(arrived) < len(data):
            piece = target.recv(len(data) - len(arrived))
            assert piece
            arrived += piece
        return arrived

    def turn(self):
        asked = self.carry(self.client, self.server, self.protocol.ask())
        self.protocol.take(self.carry(self.server, self.client, self.protocol.answer(asked)))

    def talk(self, until):
        while time.monotonic() < until:
            for _ in range(20):
                self.turn()


def main(seconds):
    conversations = {name: Conversation(name, index) for index, name in enumerate(PROTOCOLS)}
    for name, conversation in conversations.items():
        # Handshakes, while nobody watches.
        for _ in range(5):
            conversation.turn()
        conversation.packets = 0
        print(f"listening {conversation.port} {name}", flush=True)
    print("ready", flush=True)
    sys.stdin.readline()
    until = time.monotonic() + seconds
    threads = [threading.Thread(target=each.talk, args=(until,)) for each in conversations.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({name: conversation.packets for name, conversation in conversations.items()}), flush=True)


main(float(sys.argv[1]))
