"""TLS 1.3 between devices: the trust store of a connection is a handful of pinned, self-signed certificates.

No certificate authority, no names, no dates: a peer is whoever holds the key of one of the certificates that the caller
expects (protocol-and-security.md 0.2, D3.2). Removal makes a new `Trust`; live streams are the daemon's to re-check
with `peer_certificate`. Pairing uses certificates that nobody knows yet and binds them through the PAKE (formats.md
F11).

A server that refuses a client's certificate does so after the client's handshake returned: a link is up once the first
message of the peer has arrived, not before.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable
from dataclasses import dataclass, field

import trio

from meshd.errors import FormatError, NetworkError, RemoteProtocolError
from meshd.net.streams import STREAM_ERRORS, stream_error

ALPN_SYNC = "mmm-sync/1"
ALPN_INTRO = "mmm-intro/1"
ALPN_RECOVERY = "mmm-recovery/1"
ALPN_PAIR = "mmm-pair/1"
HANDSHAKE_SECONDS = 10.0
_ALERT_SECONDS = 1.0

Stream = trio.abc.Stream
TlsStream = trio.SSLStream[trio.abc.Stream]


@dataclass(frozen=True, slots=True)
class Trust:
    """A TLS context, the protocol it speaks and whom it accepts: `pins` are DER certificates, None accepts anybody."""

    context: ssl.SSLContext = field(repr=False)
    alpn: str
    pins: frozenset[bytes] | None = field(repr=False)


def server_context(certificate: bytes, key_pem: bytes, pins: Iterable[bytes], *, alpn: str = ALPN_SYNC) -> Trust:
    """Serve the devices whose certificates are pinned, and nobody else. Certificates are DER, the key PKCS#8 PEM."""
    return _mutual(ssl.PROTOCOL_TLS_SERVER, certificate, key_pem, pins, alpn)


def client_context(certificate: bytes, key_pem: bytes, pins: Iterable[bytes], *, alpn: str = ALPN_SYNC) -> Trust:
    """Reach one of the devices whose certificates are pinned, showing our own certificate."""
    return _mutual(ssl.PROTOCOL_TLS_CLIENT, certificate, key_pem, pins, alpn)


def pairing_server_context(certificate: bytes, key_pem: bytes) -> Trust:
    """Serve anybody, with the certificate of one pairing window; no client certificate is asked for."""
    return _one_sided_server(certificate, key_pem, ALPN_PAIR)


def pairing_client_context() -> Trust:
    """Reach anybody; the caller binds `peer_certificate` into the PAKE, or it knows nothing about the other end."""
    context = _bare(ssl.PROTOCOL_TLS_CLIENT, ALPN_PAIR)
    context.verify_mode = ssl.CERT_NONE
    return Trust(context, ALPN_PAIR, None)


def intro_server_context(certificate: bytes, key_pem: bytes) -> Trust:
    """Serve an introduction: the caller may be a device that we do not know yet, and gets nothing but our ear."""
    return _one_sided_server(certificate, key_pem, ALPN_INTRO)


def intro_client_context(pins: Iterable[bytes]) -> Trust:
    """Introduce news to one of the devices pinned, without showing a certificate."""
    return _pinned(_bare(ssl.PROTOCOL_TLS_CLIENT, ALPN_INTRO), pins, ALPN_INTRO)


def recovery_server_context(certificate: bytes, key_pem: bytes) -> Trust:
    """Serve whoever can name a recovery entry; what he may have he proves inside."""
    return _one_sided_server(certificate, key_pem, ALPN_RECOVERY)


def recovery_client_context() -> Trust:
    """Reach anybody: what comes is believed for what is signed and sealed in it, and not for who sends it."""
    context = _bare(ssl.PROTOCOL_TLS_CLIENT, ALPN_RECOVERY)
    context.verify_mode = ssl.CERT_NONE
    return Trust(context, ALPN_RECOVERY, None)


async def wrap_server(stream: Stream, trust: Trust, *, within: float = HANDSHAKE_SECONDS) -> TlsStream:
    """The server's half of the handshake. On NetworkError (gone, silent) or RemoteProtocolError `stream` is closed."""
    return await _handshake(trio.SSLStream(stream, trust.context, server_side=True), trust, within)


async def wrap_client(stream: Stream, trust: Trust, *, within: float = HANDSHAKE_SECONDS) -> TlsStream:
    """The client's half. Its success says nothing about whether the server accepts us: see the head of this file."""
    return await _handshake(trio.SSLStream(stream, trust.context), trust, within)


def peer_certificate(stream: trio.abc.Stream) -> bytes | None:
    """The DER certificate that the other end proved to hold the key of; None if it showed none, or this is no TLS."""
    if not isinstance(stream, trio.SSLStream):
        return None
    certificate = stream.getpeercert(binary_form=True)
    return bytes(certificate) if certificate else None


async def _handshake(tls: TlsStream, trust: Trust, within: float) -> TlsStream:
    try:
        with trio.fail_after(within):
            await tls.do_handshake()
        _check(tls, trust)
    except trio.TooSlowError as exc:
        await trio.aclose_forcefully(tls)
        raise NetworkError(f"the other side did not finish the TLS handshake in {within:g} s") from exc
    except STREAM_ERRORS as exc:
        await _send_alert(tls)
        await trio.aclose_forcefully(tls)
        raise stream_error(exc) from exc
    except BaseException:
        await trio.aclose_forcefully(tls)
        raise
    return tls


def _check(tls: TlsStream, trust: Trust) -> None:
    if tls.selected_alpn_protocol() != trust.alpn:
        raise RemoteProtocolError(f"the other side does not speak {trust.alpn}")
    # OpenSSL accepts what a pinned certificate has issued where that one does not forbid it; only the pins are peers.
    if trust.pins is not None and peer_certificate(tls) not in trust.pins:
        raise RemoteProtocolError("the other side shows a certificate that is not one of those expected")


async def _send_alert(tls: TlsStream) -> None:
    # trio leaves the alert of a failed handshake in the outgoing buffer, so that the peer would see a bare end of
    # stream and could not say that its certificate was refused. The attribute is private: do without if it goes away.
    outgoing = getattr(tls, "_outgoing", None)
    if outgoing is None or not outgoing.pending:
        return
    with trio.move_on_after(_ALERT_SECONDS):
        try:
            await tls.transport_stream.send_all(outgoing.read())
        except (*STREAM_ERRORS, trio.BusyResourceError):
            pass  # the peer is gone, and needs no reason any more


def _bare(protocol: int, alpn: str) -> ssl.SSLContext:
    # Not `create_default_context`: it loads the system's authorities and, on newer Pythons, demands what self-signed
    # device certificates do not have.
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # devices have no names; the pins decide
    context.set_alpn_protocols([alpn])
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0  # no resumption: the certificate is shown, and judged, on every connection
    return context


def _mutual(protocol: int, certificate: bytes, key_pem: bytes, pins: Iterable[bytes], alpn: str) -> Trust:
    context = _bare(protocol, alpn)
    _load_identity(context, certificate, key_pem)
    return _pinned(context, pins, alpn)


def _one_sided_server(certificate: bytes, key_pem: bytes, alpn: str) -> Trust:
    context = _bare(ssl.PROTOCOL_TLS_SERVER, alpn)
    context.verify_mode = ssl.CERT_NONE
    _load_identity(context, certificate, key_pem)
    return Trust(context, alpn, None)


def _pinned(context: ssl.SSLContext, pins: Iterable[bytes], alpn: str) -> Trust:
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # a leaf may be an anchor
    accepted = frozenset(pins)
    # With no pin the store stays empty and everybody is refused, which is right for a mesh of one device.
    for pin in accepted:
        try:
            context.load_verify_locations(cadata=pin)
        except (ssl.SSLError, ValueError) as exc:
            raise FormatError("a pinned certificate that is not an X.509 certificate") from exc
    return Trust(context, alpn, accepted)


def _load_identity(context: ssl.SSLContext, certificate: bytes, key_pem: bytes) -> None:
    # `load_cert_chain` reads files only. A memfd is one that never touches a disk and vanishes with its descriptor.
    fd = os.memfd_create("tls-identity", os.MFD_CLOEXEC)
    try:
        content = ssl.DER_cert_to_PEM_cert(certificate).encode() + key_pem
        os.write(fd, content)
        # The password stops OpenSSL from asking for one on the terminal if the key should be encrypted.
        context.load_cert_chain(f"/proc/self/fd/{fd}", password="")
        os.pwrite(fd, bytes(len(content)), 0)
    except (ssl.SSLError, ValueError, TypeError) as exc:
        raise FormatError("this device's certificate and key do not fit together") from exc
    finally:
        os.close(fd)
