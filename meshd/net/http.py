"""HTTP/1.1 on trio streams: one connection, any number of requests, all limits in one place.

h11 parses and keeps the rules; this file moves the bytes, keeps the clock and says no. The handler gets a whole request
and returns a response, so that nothing of HTTP reaches further; who is at the other end comes in as `Peer`.

While a handler works, or an answer streams, the connection is read: **the end of the client's stream cancels the
work**. So Ctrl-C in a tool undoes what it asked for without a word on the wire, and a client that wants its answer
keeps its sending side open: a half-close can't be told from a whole one before it is too late. What is pipelined
meanwhile waits its turn.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, unquote

import h11
import trio

from meshd.errors import BadRequest, MeshError
from meshd.localapi.errors import error_body, http_status
from meshd.net.streams import STREAM_ERRORS

_JSON = (("content-type", "application/json"),)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may cost. Sizes in bytes, times in seconds."""

    header: int = 16 * 1024  # request line and headers together
    body: int = 4 * 1024 * 1024
    target: int = 4096
    query_fields: int = 64
    idle_seconds: float = 75.0  # between requests
    request_seconds: float = 30.0  # from a request's first byte to its last
    write_seconds: float = 30.0  # for one piece of an answer
    linger_seconds: float = 1.0  # for a client that still sends while it is being refused


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end: the kernel's word on a Unix socket, a proven certificate under TLS, else an address."""

    kind: Literal["unix", "tcp", "tls"]
    address: str = ""
    pid: int | None = None
    uid: int | None = None
    gid: int | None = None
    certificate: bytes | None = field(default=None, repr=False)  # DER


@dataclass(frozen=True, slots=True)
class Request:
    """A whole request. `target` is as sent, `path` the part of it before the "?", percent signs and all; `query` is
    decoded, header names are in lower case."""

    method: str
    target: str
    path: str
    query: dict[str, str]
    headers: Sequence[tuple[str, str]] = field(repr=False)
    body: bytes = field(repr=False)
    peer: Peer

    def header(self, name: str) -> str | None:
        """The first header of that lower-case name."""
        return next((value for found, value in self.headers if found == name), None)

    @property
    def segments(self) -> tuple[str, ...]:
        """The path cut at its slashes and then percent-decoded, so that a name may hold a slash."""
        path = self.path.strip("/")
        return tuple(unquote(part) for part in path.split("/")) if path else ()


@dataclass(frozen=True, slots=True)
class Response:
    """An answer: `body`, or `stream` for one of unknown length (chunked; an empty piece is skipped)."""

    status: int = 200
    body: bytes = field(default=b"", repr=False)
    headers: Sequence[tuple[str, str]] = ()
    stream: AsyncIterator[bytes] | None = field(default=None, repr=False)


Handler = Callable[[Request], Awaitable[Response]]
BodyLimit = Callable[[str, str], int]  # method and target to bytes; may raise a MeshError, which becomes the answer


def error_response(error: MeshError, status: int | None = None, headers: Sequence[tuple[str, str]] = _JSON) -> Response:
    """`{"schema":1,"error":{"code","message","hint"}}` (formats.md F12), by default with the error's own status."""
    body = json.dumps(error_body(error), ensure_ascii=False).encode("utf-8")
    return Response(http_status(error) if status is None else status, body, headers)


async def serve(
    stream: trio.abc.Stream,
    handler: Handler,
    *,
    peer: Peer,
    limits: Limits | None = None,
    body_limit: BodyLimit | None = None,
    error_headers: Sequence[tuple[str, str]] = _JSON,
) -> None:
    """Answer requests until either side is done, then close `stream`. Raises nothing but cancellation.

    `body_limit` is asked before a body is read, and overrides `limits.body`. An exception of the handler becomes an
    answer: a MeshError by its own status, anything else 500 and a traceback in the log. `error_headers` go with the
    answers that are made here.
    """
    limits = limits or Limits()
    connection = _Connection(stream, handler, peer, limits, body_limit or (lambda method, target: limits.body))
    connection.error_headers = error_headers
    try:
        await connection.run()
        with trio.move_on_after(connection.limits.linger_seconds):
            await stream.aclose()  # in good order, which under TLS is a message of its own
    except (*STREAM_ERRORS, trio.TooSlowError, h11.ProtocolError):
        pass  # the client went away, or would not read: nobody is left to tell
    finally:
        await trio.aclose_forcefully(stream)


class _Refusal(Exception):
    """A request that gets an error answer, after which the connection closes."""

    def __init__(self, status: int | None, error: MeshError | str) -> None:
        self.status = status
        self.error = BadRequest(error) if isinstance(error, str) else error
        super().__init__(str(self.error))


class _Connection:
    error_headers: Sequence[tuple[str, str]] = _JSON

    def __init__(
        self, stream: trio.abc.Stream, handler: Handler, peer: Peer, limits: Limits, body_limit: BodyLimit
    ) -> None:
        self._stream = stream
        self._handler = handler
        self._peer = peer
        self.limits = limits
        self._body_limit = body_limit
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.header)
        # One read is never more than the header limit: h11 looks at that limit only while a header is incomplete.
        self._read_size = min(limits.header, 64 * 1024)

    async def run(self) -> None:
        while True:
            try:
                request = await self._read_request()
            except _Refusal as refusal:
                await self._refuse(refusal)
                return
            except h11.RemoteProtocolError as exc:
                # h11 words its errors for programmers; the status says what a client needs.
                await self._refuse(_Refusal(exc.error_status_hint, f"not an acceptable HTTP request: {exc}"))
                return
            if request is None:
                return
            if not await self._answer(request):
                return
            if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                return
            self._http.start_next_cycle()

    # -- reading

    async def _read_request(self) -> Request | None:
        """The next request, or None when the client is done or silent for too long."""
        if not self._http.trailing_data[0]:
            with trio.move_on_after(self.limits.idle_seconds) as idle:
                await self._receive()
            if idle.cancelled_caught:
                return None
        try:
            with trio.fail_after(self.limits.request_seconds):
                head = await self._event()
                if not isinstance(head, h11.Request):
                    return None  # the end of the stream between two requests
                method, target, path, query, headers = self._check_head(head)
                body = await self._read_body(headers, self._most(method, target))
        except trio.TooSlowError as exc:
            raise _Refusal(408, f"the request was not complete after {self.limits.request_seconds:g} s") from exc
        return Request(method, target, path, query, headers, body, self._peer)

    async def _event(self) -> object:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            if self._http.they_are_waiting_for_100_continue:
                await self._send(h11.InformationalResponse(status_code=100, headers=[]))
            await self._receive()

    async def _receive(self) -> None:
        self._http.receive_data(bytes(await self._stream.receive_some(self._read_size)))

    def _check_head(self, head: h11.Request) -> tuple[str, str, str, dict[str, str], list[tuple[str, str]]]:
        # 14: two spaces, the version and two line ends; 4: colon, space, line end.
        size = (
            14 + len(head.method) + len(head.target) + sum(len(name) + len(value) + 4 for name, value in head.headers)
        )
        if size > self.limits.header:
            raise _Refusal(431, f"the headers are longer than {self.limits.header} bytes")
        if len(head.target) > self.limits.target:
            raise _Refusal(414, f"the target is longer than {self.limits.target} bytes")
        headers = [(name.decode("ascii"), value.decode("latin-1")) for name, value in head.headers]
        names = [name for name, _ in headers]
        # Two ways to say where a body ends: that smuggles requests past a proxy (RFC 9112, 6.1), and h11 lets both in.
        if "content-length" in names and "transfer-encoding" in names:
            raise _Refusal(400, "Content-Length and Transfer-Encoding in one request")
        if head.http_version not in (b"1.0", b"1.1"):
            raise _Refusal(505, "HTTP/1.1 is spoken here")
        target = head.target.decode("latin-1")
        path, _, query = target.partition("?")
        if not path.startswith("/"):
            raise _Refusal(400, "the target does not begin with a slash")
        return head.method.decode("ascii"), target, path, self._query(query), headers

    def _query(self, text: str) -> dict[str, str]:
        if not text:
            return {}
        try:
            pairs = parse_qsl(
                text,
                keep_blank_values=True,
                strict_parsing=True,
                errors="strict",
                max_num_fields=self.limits.query_fields,
            )
        except ValueError as exc:
            raise _Refusal(400, "the query is malformed") from exc
        query = dict(pairs)
        if len(query) != len(pairs):
            raise _Refusal(400, "the query names a field twice")
        return query

    def _most(self, method: str, target: str) -> int:
        try:
            return self._body_limit(method, target)
        except MeshError as exc:
            raise _Refusal(None, exc) from exc

    async def _read_body(self, headers: Sequence[tuple[str, str]], most: int) -> bytes:
        declared = next((value for name, value in headers if name == "content-length"), "0")
        # Before "100 Continue": a body that will be refused should not be uploaded first. h11 has checked the digits.
        if int(declared) > most:
            raise _Refusal(413, f"the body is longer than {most} bytes")
        body = bytearray()
        while True:
            event = await self._event()
            if isinstance(event, h11.EndOfMessage):
                return bytes(body)
            if not isinstance(event, h11.Data):
                raise _Refusal(400, "the request ends too early")
            body += event.data
            if len(body) > most:
                raise _Refusal(413, f"the body is longer than {most} bytes")

    # -- answering

    async def _answer(self, request: Request) -> bool:
        """Call the handler and send what it says, unless the client goes away. True: the next request may come."""
        finished = False
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, nursery.cancel_scope)
            try:
                await self._respond(request, await self._call(request))
                finished = True
            except (*STREAM_ERRORS, trio.TooSlowError, h11.ProtocolError) as exc:
                failure = exc  # kept out of the nursery, which would wrap it in a group
            except Exception:
                # The status is on the wire already; an answer cut short is all that can still be said.
                _log.exception("the answer to a %s request broke off", request.method)
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return finished

    async def _watch(self, work: trio.CancelScope) -> None:
        waiting = len(self._http.trailing_data[0])
        while waiting < self.limits.header:  # a client that pipelines more than this is not watched any further
            try:
                data = bytes(await self._stream.receive_some(self._read_size))
            except STREAM_ERRORS:
                data = b""
            if not data:
                work.cancel()
                return
            self._http.receive_data(data)
            waiting += len(data)

    async def _call(self, request: Request) -> Response:
        try:
            return await self._handler(request)
        except MeshError as exc:
            return error_response(exc, headers=self.error_headers)
        except Exception:
            # A bug that a request can reach must not end the daemon. Neither target nor body go to the log: both may
            # hold what must not be there.
            _log.exception("the handler of a %s request failed", request.method)
            return error_response(MeshError("meshd made a mistake; its log says more"), 500, self.error_headers)

    async def _respond(self, request: Request, response: Response) -> None:
        headers = list(response.headers)
        if response.stream is not None:
            # Closed explicitly: a generator that is left to the collector would run its clean-up at some other time.
            try:
                await self._send(_head(response.status, headers))
                if request.method != "HEAD":
                    async for piece in response.stream:
                        if piece:
                            await self._send(h11.Data(data=piece))
                await self._send(h11.EndOfMessage())
            finally:
                close = getattr(response.stream, "aclose", None)
                if close is not None:
                    await close()
            return
        empty = response.status in (204, 304)
        if not empty:
            headers.append(("content-length", str(len(response.body))))
        out = self._bytes(_head(response.status, headers))
        if request.method != "HEAD" and not empty:
            out += self._bytes(h11.Data(data=response.body))
        await self._write(out + self._bytes(h11.EndOfMessage()))

    async def _refuse(self, refusal: _Refusal) -> None:
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        response = error_response(refusal.error, refusal.status, self.error_headers)
        headers = [*response.headers, ("content-length", str(len(response.body))), ("connection", "close")]
        out = self._bytes(_head(response.status, headers)) + self._bytes(h11.Data(data=response.body))
        await self._write(out + self._bytes(h11.EndOfMessage()))
        # Closing over unread bytes resets the connection, and the reset overtakes the answer. So let the client finish,
        # within reason.
        with trio.move_on_after(self.limits.linger_seconds):
            if isinstance(self._stream, trio.abc.HalfCloseableStream):
                await self._stream.send_eof()
            for _ in range(64):
                if not await self._stream.receive_some(64 * 1024):
                    return

    def _bytes(self, event: h11.Event) -> bytes:
        return self._http.send(event) or b""

    async def _send(self, event: h11.Event) -> None:
        await self._write(self._bytes(event))

    async def _write(self, data: bytes) -> None:
        with trio.fail_after(self.limits.write_seconds):
            await self._stream.send_all(data)


def _head(status: int, headers: Sequence[tuple[str, str]]) -> h11.Response:
    encoded = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers]
    return h11.Response(status_code=status, headers=encoded)
