"""An echo server that hands its first WebSocket over to another process while it is open.

Prints `listening PORT`. On the first line from stdin it passes the socket (SCM_RIGHTS), closes its own descriptor,
and prints `passed PID FD`: where the socket is from now on. After that it accepts one more connection and keeps it;
for each, `accepted FD` is printed. Ends with its stdin.
"""

import os
import socket
import subprocess
import sys
import threading

from websockets.protocol import Protocol, Side
from websockets.server import ServerProtocol


def upgrade(connection):
    """Returns what speaks WebSocket on it from now on."""
    protocol = ServerProtocol()
    while not (events := protocol.events_received()):
        protocol.receive_data(connection.recv(65536))
    protocol.send_response(protocol.accept(events[0]))
    for data in protocol.data_to_send():
        connection.sendall(data)
    return protocol


def echo(connection, protocol):
    """One message at a time, so that nothing is left in between. Returns False at the end of the stream."""
    data = connection.recv(65536)
    if not data:
        return False
    protocol.receive_data(data)
    for frame in protocol.events_received():
        protocol.send_binary(frame.data)
    for data in protocol.data_to_send():
        connection.sendall(data)
    return True


def accept(listener):
    connection, _ = listener.accept()
    protocol = upgrade(connection)
    print(f"accepted {connection.fileno()}", flush=True)
    return connection, protocol


def serve(connection, protocol):
    while echo(connection, protocol):
        pass
    connection.close()


def parent():
    ours, theirs = socket.socketpair()
    # Another program, which inherits nothing but this.
    command = [sys.executable, "-B", __file__, str(theirs.fileno())]
    child = subprocess.Popen(command, pass_fds=[theirs.fileno()])
    theirs.close()
    listener = socket.create_server(("127.0.0.1", 0))
    print(f"listening {listener.getsockname()[1]}", flush=True)
    connection, protocol = accept(listener)
    assert echo(connection, protocol)
    sys.stdin.readline()
    socket.send_fds(ours, [b"x"], [connection.fileno()])
    connection.close()
    descriptor = ours.recv(16).decode()
    print(f"passed {child.pid} {descriptor}", flush=True)
    threading.Thread(target=lambda: serve(*accept(listener)), daemon=True).start()
    sys.stdin.read()
    ours.close()
    child.wait()


def child(number):
    parent = socket.socket(fileno=number)
    _, (descriptor,), _, _ = socket.recv_fds(parent, 16, 1)
    parent.send(str(descriptor).encode())
    connection = socket.socket(fileno=descriptor)
    threading.Thread(target=serve, args=(connection, Protocol(Side.SERVER)), daemon=True).start()
    # The parent's end closes when the parent ends, whichever way.
    parent.recv(1)
    os._exit(0)


parent() if len(sys.argv) == 1 else child(int(sys.argv[1]))
