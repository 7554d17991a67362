"""Holds one WebSocket as a user of its own, and watches many sockets: ADDRESS PORT UID NUMBER."""

import os
import resource
import select
import socket
import sys

address, port, uid, number = sys.argv[1], *map(int, sys.argv[2:])
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
websocket = socket.create_connection((address, port))
websocket.sendall(
    b"GET /echo HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
head = b""
while b"\r\n\r\n" not in head:
    head += websocket.recv(4096)
assert head.startswith(b"HTTP/1.1 101 "), head

# From here on nothing more is imported: the user may not be able to read it.
os.setgroups([])
os.setresgid(uid, uid, uid)
os.setresuid(uid, uid, uid)
epoll = select.epoll()
sockets = [socket.socket() for _ in range(number)]
for one in sockets:
    epoll.register(one, select.EPOLLIN)
print("ready", flush=True)
sys.stdin.read()
