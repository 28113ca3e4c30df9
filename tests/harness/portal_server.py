"""A portal that listens on loopback, in this process, and a client that speaks raw HTTP to it.

async with portal_server(home) as running:
    client = running.client(alice.first)
    answer = await client.ask("Publish", m.PublishRequest(entry=…))
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import trio

from harness.portal_people import PaperDevice
from meshd.daemon.portal.app import Portal
from meshd.daemon.portal.config import Config, check
from meshd.portal import codec, headers, httpsig
from meshd.portal.codec import Dialect
from meshd.portal.messages import Request, Response

DOMAIN = "example.net"
_nonces = itertools.count(int(time.time() * 1000) << 20)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


async def read_answer(stream: trio.abc.ReceiveStream, buffer: bytearray) -> Answer:
    """One HTTP response with a Content-Length; what follows stays in `buffer`."""
    while (end := buffer.find(b"\r\n\r\n")) < 0:
        data = await stream.receive_some(65536)
        if not data:
            raise EOFError(bytes(buffer))
        buffer += data
    lines = bytes(buffer[:end]).decode("latin-1").split("\r\n")
    del buffer[: end + 4]
    found = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    status = int(lines[0].split(" ")[1])
    if status == 100:
        return await read_answer(stream, buffer)
    length = int(found.get("content-length", "0"))
    while len(buffer) < length:
        data = await stream.receive_some(65536)
        if not data:
            raise EOFError(bytes(buffer))
        buffer += data
    body = bytes(buffer[:length])
    del buffer[:length]
    return Answer(status, found, body)


def signed(
    body: bytes, by: PaperDevice | None, *, host: str, now: float | None = None, more: Mapping[str, str] | None = None,
    content_type: str = codec.JSON,
) -> dict[str, str]:  # fmt: skip
    """The headers of a request of ours, signed by a device."""
    found = {"host": host, "content-type": content_type, "mesh-extensions": "auth, batch", **(more or {})}
    if by is not None:
        message = httpsig.Signable("POST", host, headers.PATH, found)
        nonce = next(_nonces).to_bytes(16, "big")
        found |= httpsig.sign(message, body, by.keys.dak, now=int(time.time() if now is None else now), nonce=nonce)
    return found


def request_bytes(body: bytes, found: Mapping[str, str]) -> bytes:
    head = "".join(f"{name}: {value}\r\n" for name, value in found.items())
    return f"POST {headers.PATH} HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode("latin-1") + body


@dataclass
class Client:
    """One keep-alive connection; opened when it is used first."""

    connect: Callable[[], Any]
    by: PaperDevice | None = None
    host: str = DOMAIN
    stream: trio.abc.Stream | None = None
    buffer: bytearray = field(default_factory=bytearray)
    last: Answer | None = None

    async def send(self, data: bytes) -> Answer:
        if self.stream is None:
            self.stream = await self.connect()
        await self.stream.send_all(data)
        self.last = await read_answer(self.stream, self.buffer)
        return self.last

    async def ask(self, transaction: str, message: Request, *, content_type: str = codec.JSON, **more: str) -> Response:
        """As a client of ours; what it answers, whatever its status."""
        body = codec.encode_request(transaction, message, Dialect.OURS, content_type)
        extra = {name.replace("_", "-"): value for name, value in more.items()}
        answer = await self.send(
            request_bytes(body, signed(body, self.by, host=self.host, more=extra, content_type=content_type))
        )
        return codec.decode_response(answer.body, transaction, answer.headers["content-type"])

    async def close(self) -> None:
        if self.stream is not None:
            await trio.aclose_forcefully(self.stream)
            self.stream = None


@dataclass
class Running:
    portal: Portal
    port: int
    nursery: trio.Nursery
    clients: list[Client] = field(default_factory=list)

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    def client(self, by: PaperDevice | None = None) -> Client:
        self.clients.append(Client(self.connect, by))
        return self.clients[-1]


@contextlib.asynccontextmanager
async def portal_server(
    directory: Path, *, fault: Callable[[str], None] | None = None, **settings: Any
) -> AsyncIterator[Running]:
    """A portal over `directory`, by these settings."""
    base = Config(domain=DOMAIN, listen=("127.0.0.1:0",), insecure_http=True)
    config = msgspec.structs.replace(base, **settings)
    portal = Portal(check(config), directory, fault=fault)
    async with trio.open_nursery() as nursery:
        await nursery.start(portal.run)
        running = Running(portal, int(portal.addresses[0].rpartition(":")[2]), nursery)
        try:
            yield running
            await portal.stop(grace=1.0)
        finally:
            for client in running.clients:
                await client.close()
