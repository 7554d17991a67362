"""WebSockets over HTTP/2 by the h2 package: `h2.py HOST:PORT [CERTIFICATE]`. Says "passed"."""

import os
import socket
import ssl
import struct
import sys
import time

# This file has the package's name.
sys.path = [entry for entry in sys.path if os.path.abspath(entry or ".") != os.path.dirname(os.path.abspath(__file__))]
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RemoteSettingsChanged, ResponseReceived, StreamEnded, StreamReset
from h2.settings import SettingCodes

authority = sys.argv[1]
host, port = authority.rsplit(":", 1)
tcp = socket.create_connection((host, int(port)), timeout=15)
if len(sys.argv) > 2:
    context = ssl.create_default_context(cafile=sys.argv[2])
    context.set_alpn_protocols(["h2"])
    tcp = context.wrap_socket(tcp, server_hostname=host)
    assert tcp.selected_alpn_protocol() == "h2"
connection = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
connection.initiate_connection()
answers, received, ended, resets = {}, {}, set(), {}
extended = False


def pump():
    """Sends what is to be sent, and handles what comes next."""
    global extended
    tcp.sendall(connection.data_to_send())
    data = tcp.recv(65536)
    assert data, "the connection ended"
    for event in connection.receive_data(data):
        if isinstance(event, RemoteSettingsChanged):
            extended |= SettingCodes.ENABLE_CONNECT_PROTOCOL in event.changed_settings
        elif isinstance(event, ResponseReceived):
            answers[event.stream_id] = dict(event.headers)
        elif isinstance(event, DataReceived):
            received[event.stream_id] = received.get(event.stream_id, b"") + event.data
            connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamEnded):
            ended.add(event.stream_id)
        elif isinstance(event, StreamReset):
            resets[event.stream_id] = event.error_code
    tcp.sendall(connection.data_to_send())


def wait(condition):
    while not condition():
        pump()


def request(fields, end):
    stream = connection.get_next_available_stream_id()
    connection.send_headers(stream, fields, end_stream=end)
    wait(lambda: stream in answers)
    return stream, answers[stream]


def opened(path, protocol=b"websocket", version="13"):
    scheme = "https" if len(sys.argv) > 2 else "http"
    return request(
        [
            (":method", "CONNECT"), (":protocol", protocol), (":scheme", scheme), (":path", path),
            (":authority", authority), ("sec-websocket-version", version),
        ],
        False,
    )


def frame(opcode, payload):
    mask = os.urandom(4)
    length = bytes([0x80 | len(payload)]) if len(payload) < 126 else struct.pack(">BH", 0x80 | 126, len(payload))
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return bytes([0x80 | opcode]) + length + mask + masked


def send(stream, data):
    while data:
        wait(lambda: connection.local_flow_control_window(stream) > 0)
        size = min(len(data), connection.local_flow_control_window(stream), connection.max_outbound_frame_size)
        connection.send_data(stream, data[:size])
        data = data[size:]
    tcp.sendall(connection.data_to_send())


def next_frame(stream):
    while True:
        data = received.get(stream, b"")
        if len(data) >= 2:
            length, start = data[1], 2
            if length == 126 and len(data) >= 4:
                length, start = struct.unpack(">H", data[2:4])[0], 4
            if (data[1] < 126 or start == 4) and len(data) >= start + length:
                received[stream] = data[start + length:]
                return data[0] & 15, data[start:start + length]
        pump()


wait(lambda: extended)
for turn in range(3):
    stream, answer = opened("/echo")
    assert answer[":status"] == "200", answer
    for size in (0, 5, 200, 60000):
        payload = os.urandom(size)
        send(stream, frame(2, payload))
        assert next_frame(stream) == (2, payload), size
        time.sleep(0.15 if turn == 1 else 0)
    send(stream, frame(9, b"ping"))
    assert next_frame(stream) == (10, b"ping")
    page, answer = request(
        [(":method", "GET"), (":scheme", "http"), (":path", "/healthz"), (":authority", authority)], True
    )
    wait(lambda: page in ended)
    assert (answer[":status"], received[page]) == ("200", b"ok\n")
    send(stream, frame(8, b"\x03\xe8"))
    assert next_frame(stream) == (8, b"\x03\xe8")
    wait(lambda: stream in ended)
    connection.end_stream(stream)
    tcp.sendall(connection.data_to_send())
for path, protocol, version, status in (
    ("/nothing", "websocket", "13", "404"), ("/", "websocket", "7", "400"), ("/", "other", "13", "501"),
):
    _, answer = opened(path, protocol, version)
    assert answer[":status"] == status, answer
assert not [code for code in resets.values() if code], resets
print("passed")
