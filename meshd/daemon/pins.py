"""TLS by pinned certificates: contexts for the effective device set, made anew when it changes.

A removed device has no pin any more, and no list of revoked certificates is needed. TLS does not know who was removed
since a context was made, so `device` is asked again after every handshake.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshd.crypto import certs
from meshd.daemon.context import Daemon
from meshd.errors import NotConnected, RemoteProtocolError
from meshd.net import tls


@dataclass(frozen=True, slots=True)
class Contexts:
    """What a connection of each kind is secured with. `server` and `client` are mutual; an introduction shows one
    side.
    """

    server: tls.Trust
    client: tls.Trust
    intro_server: tls.Trust
    intro_client: tls.Trust


class Pins:
    """The certificates of this mesh's other devices, and contexts over them."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._made: tuple[tuple[bytes, frozenset[bytes]], Contexts] | None = None

    def contexts(self) -> Contexts:
        """For the devices that count now."""
        tier1 = self._daemon.tier1
        if tier1 is None:
            raise NotConnected
        own = certs.device_certificate(tier1.dak)
        pins = frozenset(profile.certificate for profile in self._daemon.snapshot.siblings.values())
        if self._made is None or self._made[0] != (own, pins):
            pem = certs.private_pem(tier1.dak)
            made = Contexts(
                tls.server_context(own, pem, pins),
                tls.client_context(own, pem, pins),
                tls.intro_server_context(own, pem),
                tls.intro_client_context(pins),
            )
            self._made = ((own, pins), made)
        return self._made[1]

    def device(self, certificate: bytes | None) -> str:
        """Whose certificate that is; RemoteProtocolError if it is no other device of the mesh now."""
        for udf, profile in self._daemon.snapshot.siblings.items():
            if profile.certificate == certificate:
                return udf
        raise RemoteProtocolError("a certificate that is not one of this mesh's devices")
