"""Keep-alive HTTP clients in one process: as many requests as a server takes, and how long each answer took.

Requests are bytes that were made before, so that making them costs the server's machine nothing while it is measured.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench import machine


@dataclass
class Result:
    """Requests a second, and the times of the answers in ms."""

    answered: int
    per_second: float
    p50: float
    p99: float
    failures: int


@dataclass
class _One:
    sock: socket.socket
    queue: Sequence[bytes]
    again: bool
    at: int = 0
    sent: float = 0.0
    buffer: bytearray = field(default_factory=bytearray)

    def send(self) -> bool:
        """The next request; False when there is none left."""
        if self.at >= len(self.queue):
            if not self.again:
                return False
            self.at = 0
        self.sent = time.perf_counter()
        self.sock.sendall(self.queue[self.at])
        self.at += 1
        return True

    def complete(self) -> bool | None:
        """Is a whole answer here (True: a success, False: a failure)? None: not yet."""
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        at = self.buffer.lower().find(b"content-length:", 0, end)
        size = int(self.buffer[at + 15 : self.buffer.find(b"\r\n", at)])
        if len(self.buffer) < end + 4 + size:
            return None
        good = self.buffer[9:10] == b"2"
        del self.buffer[: end + 4 + size]
        return good


def drive(port: int, queues: Sequence[Sequence[bytes]], seconds: float, *, again: bool = False) -> Result:
    """One client for each queue, until the time is over or the queues are empty. `again`: they may be sent anew."""
    poll = select.epoll()
    clients: dict[int, _One] = {}
    for queue in queues:
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        clients[sock.fileno()] = _One(sock, queue, again)
        poll.register(sock.fileno(), select.EPOLLIN)
    times: list[float] = []
    failures, busy = 0, len(clients)
    start = time.perf_counter()
    for client in clients.values():
        client.send()
    while busy and time.perf_counter() - start < seconds:
        for number, _ in poll.poll(1.0):
            client = clients[number]
            data = client.sock.recv(262144)
            if not data:
                raise ConnectionError("the server closed")
            client.buffer += data
            good = client.complete()
            if good is None:
                continue
            times.append((time.perf_counter() - client.sent) * 1000)
            failures += not good
            if not client.send():
                busy -= 1
    spent = time.perf_counter() - start
    for client in clients.values():
        client.sock.close()
    poll.close()
    return Result(
        len(times), len(times) / spent, machine.percentile(times, 50), machine.percentile(times, 99), failures
    )
