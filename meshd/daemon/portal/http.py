"""HTTP/1.1 for a portal: strict, bounded, and quick enough that signatures are what a request costs.

The local API's server (`net.http`) keeps every rule through h11 and gives each request a task of its own; that is most
of the time of a small request. A portal's requests have one shape, so this one reads a request with two regular
expressions and refuses whatever they do not match: no line folding, no bare line feeds, no two ways to say where a body
ends. tests hold it against h11: what it takes, h11 takes, and reads the same.

One connection is one task; a request is answered before the next is read. The only thing that waits long is the handler
of a feed, and that one watches for the client's going (`Request.gone`).
"""

from __future__ import annotations

import logging
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus

import trio

from meshd.net.streams import STREAM_ERRORS

_REQUEST_LINE = re.compile(rb"([A-Z]{1,16}) (/[\x21-\x7e]*) HTTP/1\.([01])\r\n")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\t\x20-\x7e\x80-\xff]*)\r\n")
_LENGTH = re.compile(rb"[0-9]{1,10}\Z")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[\t\x20-\x7e]*)?\r\n")
_HANDSHAKE = b"\x16\x03"  # how TLS begins: its client would wait for us, and we for the end of its line
_READ = 64 * 1024
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_ONCE = frozenset({"host", "content-length", "content-type", "content-digest", "transfer-encoding", "expect"})
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """What connections may cost. Sizes in bytes, times in seconds."""

    head: int = 16 * 1024
    fields: int = 64
    body: int = 4 * 1024 * 1024
    bodies: int = 256 * 1024 * 1024  # of all connections together, beyond SMALL each
    connections: int = 12_000
    connections_each: int = 512  # from one address
    idle_seconds: float = 75.0
    request_seconds: float = 30.0  # from the first byte to the last of a small request
    slowest: float = 16 * 1024  # bytes a second: what a larger body gets more time for
    write_seconds: float = 30.0
    linger_seconds: float = 1.0


SMALL = 16 * 1024  # bytes of a body that count as nothing


@dataclass(frozen=True, slots=True)
class Request:
    """A whole request. Header names in lower case; what came twice is joined by commas."""

    method: str
    target: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    address: str
    local: str  # the address at which it arrived
    gone: Callable[[], Awaitable[None]] = field(repr=False)  # returns when the client has closed


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    body: bytes = field(default=b"", repr=False)
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()
    close: bool = False


Handler = Callable[[Request], Awaitable[Response]]


class _Refusal(Exception):
    """A request that can't be taken; the connection ends with the answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class _Gone(Exception):
    """The client has closed, or stopped in the middle."""


class Server:
    """All connections of a portal. `stop` lets what is being answered finish."""

    def __init__(self, handler: Handler, limits: Limits | None = None) -> None:
        self.handler = handler
        self.limits = limits or Limits()
        self.stopping = False
        self.bodies = 0  # bytes that large bodies may take now
        self.refused = 0
        self._each: dict[str, int] = {}
        self._open: set[_Connection] = set()
        self._idle: OrderedDict[_Connection, None] = OrderedDict()
        self.drained = trio.Event()  # stopping, and no connection is left
        self._second = 0
        self._date = b""

    @property
    def connections(self) -> int:
        return len(self._open)

    @property
    def idle(self) -> int:
        return len(self._idle)

    async def serve(self, stream: trio.abc.Stream, address: str, local: str) -> None:
        """Answer the requests of one connection, then close it. Raises nothing but cancellation."""
        limits = self.limits
        if self.stopping or self._each.get(address, 0) >= limits.connections_each:
            self.refused += 1
            await trio.aclose_forcefully(stream)
            return
        if len(self._open) >= limits.connections:
            self._make_room()
        connection = _Connection(self, stream, address, local)
        self._each[address] = self._each.get(address, 0) + 1
        self._open.add(connection)
        try:
            await connection.run()
        except (*STREAM_ERRORS, _Gone):
            pass
        except Exception:
            _log.exception("a connection ended by mistake")
        finally:
            self._open.discard(connection)
            self._idle.pop(connection, None)
            left = self._each[address] - 1
            if left:
                self._each[address] = left
            else:
                del self._each[address]
            if self.stopping and not self._open:
                self.drained.set()
            await trio.aclose_forcefully(stream)

    def stop(self) -> None:
        """No new requests: idle connections close, busy ones with their next answer."""
        self.stopping = True
        if not self._open:
            self.drained.set()
        for connection in list(self._idle):
            connection.scope.cancel()

    def _make_room(self) -> None:
        """The connection that has been idle longest makes room; if all are busy, the new one may stay."""
        for connection in self._idle:
            connection.scope.cancel()
            del self._idle[connection]
            return

    def rests(self, connection: _Connection, yes: bool) -> None:
        if yes:
            self._idle[connection] = None
            if self.stopping:
                connection.scope.cancel()
        else:
            self._idle.pop(connection, None)

    def date(self) -> bytes:
        """The value of Date, made once a second."""
        second = int(time.time())
        if second != self._second:
            self._second, self._date = second, formatdate(second, usegmt=True).encode()
        return self._date


class _Connection:
    __slots__ = ("_buffer", "_server", "_stream", "address", "local", "scope")

    def __init__(self, server: Server, stream: trio.abc.Stream, address: str, local: str) -> None:
        self._server, self._stream = server, stream
        self._buffer = bytearray()
        self.address, self.local = address, local
        self.scope = trio.CancelScope()

    async def run(self) -> None:
        limits = self._server.limits
        with self.scope:
            while not self._server.stopping:
                try:
                    request, keep = await self._read()
                except _Refusal as refusal:
                    await self._refuse(refusal)
                    return
                if request is None:
                    return
                self.scope.deadline = float("inf")
                try:
                    response = await self._server.handler(request)
                except Exception:
                    # Neither target nor body go to the log: both may hold what must not be there.
                    _log.exception("the handler of a request failed")
                    response = Response(500, b"meshd made a mistake\n", close=True)
                keep = keep and not response.close and not self._server.stopping
                self.scope.deadline = trio.current_time() + limits.write_seconds
                await self._stream.send_all(self._render(response, keep, head=request.method == "HEAD"))
                if not keep:
                    break
            # In good order, which under TLS is a message of its own.
            self.scope.deadline = trio.current_time() + limits.linger_seconds
            await self._linger()

    # --- reading ------------------------------------------------------------------------------------------------------

    async def _read(self) -> tuple[Request | None, bool]:
        """The next request and whether the connection may stay; None at the end of the stream."""
        server, limits = self._server, self._server.limits
        if not self._buffer:
            self.scope.deadline = trio.current_time() + limits.idle_seconds
            server.rests(self, True)
            try:
                data = await self._stream.receive_some(_READ)
            finally:
                server.rests(self, False)
            if not data:
                return None, False
            self._buffer += data
        self.scope.deadline = trio.current_time() + limits.request_seconds
        head = await self._head()
        method, target, minor, headers = _parse(head, limits.fields)
        length, chunked = _framing(headers, minor)
        if length > limits.body:
            raise _Refusal(413, f"the body is longer than {limits.body} bytes")
        if headers.get("expect", "").lower() not in ("", "100-continue"):
            raise _Refusal(417, "nothing but 100-continue is expected here")
        body = b""
        if length or chunked:
            counted = limits.body if chunked else length
            counted = counted if counted > SMALL else 0
            if counted and server.bodies + counted > limits.bodies:
                raise _Refusal(503, "too many large requests at once")
            server.bodies += counted
            self.scope.deadline += (limits.body if chunked else length) / limits.slowest
            try:
                if "expect" in headers and minor and len(self._buffer) < max(length, 1):
                    await self._stream.send_all(_CONTINUE)
                body = await (self._chunks() if chunked else self._exactly(length))
            finally:
                server.bodies -= counted
        keep = minor == 1 and "close" not in headers.get("connection", "").lower()
        if minor == 0:
            keep = "keep-alive" in headers.get("connection", "").lower()
        return Request(method, target, headers, body, self.address, self.local, self._gone), keep

    async def _head(self) -> bytes:
        buffer, limits = self._buffer, self._server.limits
        if buffer.startswith(b"\r\n"):  # one empty line before a request is ignored (RFC 9112 §2.2)
            del buffer[:2]
        if buffer.startswith(_HANDSHAKE):
            raise _Refusal(400, "TLS where there is none")
        start = 0
        while True:
            end = buffer.find(b"\r\n\r\n", start)
            if end >= 0:
                break
            if len(buffer) > limits.head:
                raise _Refusal(431, f"the headers are longer than {limits.head} bytes")
            start = max(0, len(buffer) - 3)
            await self._more()
        if end + 4 > limits.head:
            raise _Refusal(431, f"the headers are longer than {limits.head} bytes")
        head = bytes(buffer[: end + 2])
        del buffer[: end + 4]
        return head

    async def _more(self) -> None:
        data = await self._stream.receive_some(_READ)
        if not data:
            raise _Gone
        self._buffer += data

    async def _exactly(self, size: int) -> bytes:
        buffer = self._buffer
        while len(buffer) < size:
            await self._more()
        data = bytes(buffer[:size])
        del buffer[:size]
        return data

    async def _chunks(self) -> bytes:
        body = bytearray()
        while True:
            while (end := self._buffer.find(b"\r\n")) < 0:
                if len(self._buffer) > 256:
                    raise _Refusal(400, "a chunk without its size")
                await self._more()
            found = _CHUNK.match(self._buffer)
            if found is None or found.end() != end + 2:
                raise _Refusal(400, "a chunk without its size")
            size = int(found[1], 16)
            del self._buffer[: end + 2]
            if len(body) + size > self._server.limits.body:
                raise _Refusal(413, f"the body is longer than {self._server.limits.body} bytes")
            data = await self._exactly(size + 2)  # with the last one: no trailers
            if data[size:] != b"\r\n":
                raise _Refusal(400, "a chunk of another length than it says, or trailers")
            if not size:
                return bytes(body)
            body += data[:size]

    async def _gone(self) -> None:
        """Wait for the end of the client's stream. What it pipelines meanwhile is kept, within bounds."""
        while len(self._buffer) < self._server.limits.head:
            try:
                data = await self._stream.receive_some(_READ)
            except STREAM_ERRORS:
                return
            if not data:
                return
            self._buffer += data
        await trio.sleep_forever()

    # --- answering ----------------------------------------------------------------------------------------------------

    def _render(self, response: Response, keep: bool, *, head: bool = False) -> bytes:
        more = b"".join(f"{name}: {value}\r\n".encode("latin-1") for name, value in response.headers)
        start = (
            b"HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n"
            b"Cache-Control: no-store\r\n%s%s\r\n"
            % (
                response.status,
                _phrase(response.status),
                self._server.date(),
                response.content_type.encode("latin-1"),
                len(response.body),
                more,
                b"" if keep else b"Connection: close\r\n",
            )
        )
        return start if head else start + response.body

    async def _refuse(self, refusal: _Refusal) -> None:
        limits = self._server.limits
        headers = (("Retry-After", "5"),) if refusal.status == 503 else ()
        response = Response(refusal.status, f"{refusal}\n".encode(), headers=headers)
        self.scope.deadline = trio.current_time() + limits.linger_seconds + 1
        await self._stream.send_all(self._render(response, False))
        await self._linger()

    async def _linger(self) -> None:
        """Closing over unread bytes resets the connection, and the reset overtakes the answer: let them be read."""
        if isinstance(self._stream, trio.abc.HalfCloseableStream):
            await self._stream.send_eof()
            for _ in range(64):
                if not await self._stream.receive_some(_READ):
                    return
        else:
            await self._stream.aclose()


def _parse(head: bytes, most: int) -> tuple[str, str, int, dict[str, str]]:
    """(method, target, minor version, headers) of a request's head, its empty line left out."""
    line = _REQUEST_LINE.match(head)
    if line is None:
        if re.match(rb"[A-Z]{1,16} [^ \r\n]* HTTP/[0-9.]+\r\n", head):
            raise _Refusal(505 if b" HTTP/1." not in head[:8192] else 400, "HTTP/1.1 and a path are spoken here")
        raise _Refusal(400, "not an HTTP request")
    at, end = line.end(), len(head)
    headers: dict[str, str] = {}
    count = 0
    while at < end:
        found = _FIELD.match(head, at)
        count += 1
        if found is None or count > most:
            raise _Refusal(400 if found is None else 431, "a header that can't be read, or too many of them")
        name, value = found[1].decode("ascii").lower(), found[2].strip(b" \t").decode("latin-1")
        if name in headers:
            if name in _ONCE:
                raise _Refusal(400, f"{name} twice")
            value = f"{headers[name]}, {value}"
        headers[name] = value
        at = found.end()
    return line[1].decode("ascii"), line[2].decode("ascii"), int(line[3]), headers


def _framing(headers: Mapping[str, str], minor: int) -> tuple[int, bool]:
    """(length of the body, is it chunked). Two ways to say it smuggle requests past a proxy (RFC 9112 §6.1)."""
    if minor and "host" not in headers:
        raise _Refusal(400, "a request without Host")
    coding = headers.get("transfer-encoding")
    length = headers.get("content-length")
    if coding is not None:
        if length is not None or not minor:
            raise _Refusal(400, "Transfer-Encoding where it has no place")
        if coding.lower() != "chunked":
            raise _Refusal(501, "no transfer coding but chunked")
        return 0, True
    if length is None:
        return 0, False
    if not _LENGTH.match(length.encode("latin-1")):
        raise _Refusal(400, "a Content-Length that is no number")
    return int(length), False


def _phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b"Status"
