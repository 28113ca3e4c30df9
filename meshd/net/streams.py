"""The pump between a core and a stream, and the one place where trio's errors become ours.

A core (sync, pairing) is bytes in, events out; a `Link` reads the stream into it and writes out what it wants said.
A driver is: `flush`, then loop `match core.next_event(): case None: await link.fill()`.
"""

from __future__ import annotations

import errno
import ssl
from typing import Protocol, TypeVar

import trio

from meshd.errors import MeshError, NetworkError, Refused, RemoteProtocolError

MAX_READ = 64 * 1024  # bytes that one `fill` hands to the core
CLOSE_SECONDS = 2.0  # for the farewell of an orderly close

EventT_co = TypeVar("EventT_co", covariant=True)

# What trio and the operating system raise when a connection is no more, or never was.
STREAM_ERRORS = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


class Core(Protocol[EventT_co]):
    """The shape of every protocol core; none of its methods waits."""

    def receive_data(self, data: bytes) -> None:
        """Store what arrived; b"" is the peer's end of stream."""
        ...

    def next_event(self) -> EventT_co | None:
        """The next thing that happened, or None when more bytes are needed."""
        ...

    def data_to_send(self) -> bytes:
        """Bytes for the wire, each of them returned once."""
        ...


class Wire(Protocol):
    """The half of a core that a Link needs."""

    def receive_data(self, data: bytes) -> None: ...

    def data_to_send(self) -> bytes: ...


class Link:
    """Joins a core and a stream. One task may `fill` while others `flush`."""

    def __init__(self, core: Wire, stream: trio.abc.Stream, *, max_read: int = MAX_READ) -> None:
        self.core = core
        self.stream = stream
        self._max_read = max_read
        self._sending = trio.Lock()
        self._broken = False

    async def fill(self) -> None:
        """Wait for bytes and hand them to the core; b"" at the end of the stream. NetworkError, Refused."""
        try:
            data = await self.stream.receive_some(self._max_read)
        except STREAM_ERRORS as exc:
            raise stream_error(exc) from exc
        self.core.receive_data(bytes(data))

    async def flush(self) -> None:
        """Put on the wire what the core has to say. After a cancelled flush the stream is out of step and closed."""
        async with self._sending:
            if self._broken:
                raise NetworkError("the connection was given up in the middle of a message")
            # Taken under the lock: two tasks that flush must not swap the order of what the core said.
            data = self.core.data_to_send()
            if not data:
                return
            try:
                await self.stream.send_all(data)
            except STREAM_ERRORS as exc:
                self._broken = True
                raise stream_error(exc) from exc
            except BaseException:
                self._broken = True
                await trio.aclose_forcefully(self.stream)
                raise

    async def aclose(self) -> None:
        """Close in good order if the peer lets us, and anyhow within two seconds."""
        with trio.move_on_after(CLOSE_SECONDS):
            try:
                await self.stream.aclose()
            except STREAM_ERRORS:
                pass  # it is gone already, which is what was wanted
        await trio.aclose_forcefully(self.stream)


async def receive_exactly(stream: trio.abc.Stream, size: int) -> bytes:
    """`size` bytes and not one more: what follows belongs to the next layer (the knock before TLS, formats.md F10).

    RemoteProtocolError if the stream ends before, NetworkError if it breaks.
    """
    received = bytearray()
    while len(received) < size:
        try:
            data = await stream.receive_some(size - len(received))
        except STREAM_ERRORS as exc:
            raise stream_error(exc) from exc
        if not data:
            raise RemoteProtocolError(f"the other side stopped after {len(received)} of {size} bytes")
        received += data
    return bytes(received)


async def send(stream: trio.abc.Stream, data: bytes) -> None:
    """`send_all` with our errors."""
    try:
        await stream.send_all(data)
    except STREAM_ERRORS as exc:
        raise stream_error(exc) from exc


def stream_error(exc: BaseException) -> MeshError:
    """The error of ours that says what went wrong with a stream.

    Refused when the other side sent a TLS alert about our certificate: under TLS 1.3 the handshake of a client succeeds
    before the server has looked at its certificate, and the refusal arrives with the first read (RFC 8446, 4.4.2.4).
    """
    cause = exc.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return RemoteProtocolError("the other side shows a certificate that is not one of those expected")
    if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
        reason = cause.reason or ""
        if "ALERT" in reason and any(word in reason for word in ("CERT", "UNKNOWN_CA", "ACCESS_DENIED")):
            return Refused("the other side does not accept this device's certificate")
        if "EOF" not in reason:
            return RemoteProtocolError(f"the other side broke the rules of TLS ({reason.lower().replace('_', ' ')})")
    if isinstance(exc, trio.ClosedResourceError):
        return NetworkError("the connection was closed on this side")
    return NetworkError(f"the connection broke: {os_words(cause if isinstance(cause, OSError) else exc)}")


_WORDS = {
    errno.ECONNREFUSED: "nothing listens there",
    errno.ECONNRESET: "the other side went away",
    errno.EPIPE: "the other side went away",
    errno.EHOSTUNREACH: "there is no way to that machine",
    errno.ENETUNREACH: "there is no way to that network",
    errno.EADDRNOTAVAIL: "that address is not to be had here",
    errno.EADDRINUSE: "another program uses that address and port",
    errno.ETIMEDOUT: "there is no answer",
    errno.EACCES: "not permitted",
    errno.EPERM: "not permitted",
}


def os_words(exc: BaseException) -> str:
    """A few words for a person, without an errno where there are better ones."""
    if isinstance(exc, OSError) and exc.errno in _WORDS and not isinstance(exc, ssl.SSLError):
        return _WORDS[exc.errno]
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror.lower()
    return "the other side went away"
