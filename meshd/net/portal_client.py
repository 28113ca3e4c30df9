"""HTTP/1.1 from the client's side: send a body, get an answer, keep the connection for the next one.

h11 parses and keeps the rules; this file moves the bytes and keeps the clock. Everything that a portal may send is
bounded, in size and in time, and nothing is retried here: requests are signed once each, so whoever asks again signs
anew. TLS trusts the authorities of the system and demands the name of the account's domain.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import h11
import trio

from meshd.errors import NetworkError, RemoteProtocolError
from meshd.net import lan
from meshd.net.lan import format_address
from meshd.net.streams import STREAM_ERRORS, stream_error

MAX_HEADERS = 32 * 1024
MAX_IDLE = 2  # connections kept for each place
KEPT_SECONDS = 50.0  # that a connection is kept without use; servers give up after a minute or so
HANDSHAKE_SECONDS = 10.0
ANSWER_SECONDS = 30.0  # until an answer begins
PIECE_SECONDS = 30.0  # for each piece of it
BODY_SECONDS = 300.0  # for all of it
_READ = 32 * 1024  # no more than MAX_HEADERS: h11 looks at that limit only while a header is incomplete
_READ_BODY = 256 * 1024

Dial = Callable[[str], Awaitable[trio.abc.Stream]]  # "host:port" to a stream; NetworkError


@dataclass(frozen=True, slots=True)
class Place:
    """Where a service is reached, and what it is called: `authority` goes into Host, and `name` is what TLS proves."""

    host: str
    port: int
    secure: bool
    authority: str

    @property
    def name(self) -> str:
        """The host that the certificate must be for."""
        return self.authority.rpartition(":")[0] if _has_port(self.authority) else self.authority

    @property
    def text(self) -> str:
        return format_address(self.host, self.port)


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A whole answer. Header names in lower case; of several headers of one name the first."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


class ConnectionLost(NetworkError):
    """A connection that was kept turned out to be closed; a new one may work."""


@dataclass(slots=True)
class _Kept:
    stream: trio.abc.Stream
    http: h11.Connection
    until: float = 0.0


class HttpClient:
    """A few connections to a few places. `dial` makes streams, `trust` is the TLS context; the system's if None."""

    def __init__(self, dial: Dial = lan.dial, trust: ssl.SSLContext | None = None) -> None:
        self._dial = dial
        self._trust = trust
        self._idle: dict[Place, list[_Kept]] = {}

    async def post(
        self,
        place: Place,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        most: int,
        within: float = ANSWER_SECONDS,
    ) -> HttpAnswer:
        """One exchange. `most`: bytes of the answer's body; `within`: seconds until the answer begins.

        NetworkError, ConnectionLost (worth another try); RemoteProtocolError for what is no HTTP, or too much of it.
        """
        return await self._exchanged("POST", place, path, headers, body, most, within)

    async def get(self, place: Place, path: str, *, most: int, within: float = ANSWER_SECONDS) -> HttpAnswer:
        """As `post`, without a body."""
        return await self._exchanged("GET", place, path, {}, b"", most, within)

    async def _exchanged(
        self, method: str, place: Place, path: str, headers: Mapping[str, str], body: bytes, most: int, within: float
    ) -> HttpAnswer:
        kept = self._take(place)
        reused = kept is not None
        if kept is None:
            kept = _Kept(await self._connect(place), h11.Connection(h11.CLIENT, MAX_HEADERS))
        begun = False

        def answered() -> None:
            nonlocal begun
            begun = True

        try:
            answer = await _exchange(kept, method, place, path, headers, body, most, within, answered)
        except STREAM_ERRORS as exc:
            await trio.aclose_forcefully(kept.stream)
            error = stream_error(exc)
            raise ConnectionLost(str(error)) if reused and not begun else error from exc
        except h11.RemoteProtocolError as exc:
            await trio.aclose_forcefully(kept.stream)
            if reused and not begun:
                raise ConnectionLost("the connection was closed") from exc
            hint = None if place.secure else "if it speaks TLS, leave out --insecure-http"
            raise RemoteProtocolError(f"what answers at {place.text} does not speak HTTP", hint=hint) from exc
        except trio.TooSlowError as exc:
            await trio.aclose_forcefully(kept.stream)
            raise NetworkError(f"{place.text} did not answer in time") from exc
        except BaseException:
            await trio.aclose_forcefully(kept.stream)
            raise
        await self._keep(place, kept)
        return answer

    async def aclose(self) -> None:
        """Close what is kept."""
        for kept in [one for found in self._idle.values() for one in found]:
            await trio.aclose_forcefully(kept.stream)
        self._idle.clear()

    def _take(self, place: Place) -> _Kept | None:
        found = self._idle.get(place, [])
        while found:
            kept = found.pop()
            if kept.until > trio.current_time():
                return kept
        return None

    async def _keep(self, place: Place, kept: _Kept) -> None:
        found = self._idle.setdefault(place, [])
        done = kept.http.our_state is h11.DONE and kept.http.their_state is h11.DONE
        if done and not kept.http.trailing_data[0] and len(found) < MAX_IDLE:
            kept.http.start_next_cycle()
            kept.until = trio.current_time() + KEPT_SECONDS
            found.append(kept)
        else:
            await trio.aclose_forcefully(kept.stream)

    async def _connect(self, place: Place) -> trio.abc.Stream:
        stream = await self._dial(place.text)
        if not place.secure:
            return stream
        if self._trust is None:
            self._trust = ssl.create_default_context()
        secured = trio.SSLStream(stream, self._trust, server_hostname=place.name, https_compatible=True)
        try:
            with trio.fail_after(HANDSHAKE_SECONDS):
                await secured.do_handshake()
        except trio.TooSlowError as exc:
            await trio.aclose_forcefully(secured)
            raise NetworkError(f"{place.text} did not finish the TLS handshake in time") from exc
        except STREAM_ERRORS as exc:
            await trio.aclose_forcefully(secured)
            raise _tls_error(place, exc) from exc
        except BaseException:
            await trio.aclose_forcefully(secured)
            raise
        return secured


async def _exchange(
    kept: _Kept,
    method: str,
    place: Place,
    path: str,
    headers: Mapping[str, str],
    body: bytes,
    most: int,
    within: float,
    answered: Callable[[], None],
) -> HttpAnswer:
    listed = [("Host", place.authority), *headers.items()]
    if method == "POST":
        listed.append(("Content-Length", str(len(body))))
    head = h11.Request(method=method, target=path, headers=listed)
    data = kept.http.send(head) or b""
    if body:
        data += kept.http.send(h11.Data(data=body)) or b""
    data += kept.http.send(h11.EndOfMessage()) or b""
    with trio.fail_after(within):
        await kept.stream.send_all(data)
        response = await _event(kept)
        while isinstance(response, h11.InformationalResponse):
            response = await _event(kept)
    if not isinstance(response, h11.Response):
        raise RemoteProtocolError(f"what answers at {place.text} hung up instead")
    answered()
    found: dict[str, str] = {}
    for name, value in response.headers:
        found.setdefault(name.decode("ascii"), value.decode("latin-1"))
    if int(found.get("content-length", "0")) > most:
        raise RemoteProtocolError(f"an answer of more than {most} bytes")
    received = bytearray()
    with trio.fail_after(BODY_SECONDS), trio.fail_after(PIECE_SECONDS) as piece:
        while True:
            event = await _event(kept, _READ_BODY)
            piece.deadline = trio.current_time() + PIECE_SECONDS
            if isinstance(event, h11.EndOfMessage):
                return HttpAnswer(response.status_code, found, bytes(received))
            if not isinstance(event, h11.Data):
                raise RemoteProtocolError(f"an answer from {place.text} that ends too early")
            received += event.data
            if len(received) > most:
                raise RemoteProtocolError(f"an answer of more than {most} bytes")


async def _event(kept: _Kept, size: int = _READ) -> object:
    while True:
        event = kept.http.next_event()
        if event is not h11.NEED_DATA:
            return event
        kept.http.receive_data(bytes(await kept.stream.receive_some(size)))


def _tls_error(place: Place, exc: BaseException) -> NetworkError | RemoteProtocolError:
    cause = exc.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return NetworkError(
            f"{place.text} shows no certificate for {place.name} that this machine trusts ({cause.verify_message})",
            hint="somebody may be in between; if the portal has an authority of its own, this machine must know it",
        )
    if isinstance(cause, ssl.SSLError) and cause.reason in (
        "WRONG_VERSION_NUMBER",
        "HTTP_REQUEST",
        "RECORD_LAYER_FAILURE",
    ):
        hint = "for a portal without TLS, which is for tests on one machine: --insecure-http"
        return NetworkError(f"{place.text} does not speak TLS", hint=hint)
    error = stream_error(exc)
    return error if isinstance(error, RemoteProtocolError) else NetworkError(str(error))


def _has_port(authority: str) -> bool:
    host, colon, port = authority.rpartition(":")
    return bool(colon) and port.isdecimal() and not (":" in host and not host.endswith("]"))
