"""`python -m tests.hostile.idle_clients PORT COUNT`: that many connections that do nothing, in a process of their own.

Every second one asks once before it falls silent. Writes `open N` when all are open, and `closed N` when the server has
closed them all; ends when its standard input does.
"""

from __future__ import annotations

import resource
import select
import socket
import sys

ASKED = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"
SPARE = 64
CONNECT_S_MAX = 30.0


def main(port: int, count: int) -> None:
    """See the module."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(count + SPARE, hard), hard))
    clients: dict[int, socket.socket] = {}
    for number in range(count):
        client = socket.create_connection(("127.0.0.1", port), CONNECT_S_MAX)
        if number % 2:
            client.sendall(ASKED)
        clients[client.fileno()] = client
    for client in list(clients.values())[1::2]:
        assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
    sys.stdout.write(f"open {len(clients)}\n")
    sys.stdout.flush()
    poll = select.epoll()
    poll.register(sys.stdin.fileno(), select.EPOLLIN)
    for descriptor in clients:
        poll.register(descriptor, select.EPOLLIN)
    while clients:
        for descriptor, _event in poll.poll():
            if descriptor == sys.stdin.fileno():
                return
            if not clients[descriptor].recv(4096):
                poll.unregister(descriptor)
                clients.pop(descriptor).close()
    sys.stdout.write("closed all\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
