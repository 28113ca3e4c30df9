"""Who may be the device that shows a code: what discovery sees of pairing windows, and the way to one of them.

Nothing here is believed: anybody may announce any slot, and whoever answers has yet to prove that it knows the code.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import trio

from meshd.crypto import base64url
from meshd.errors import FormatError, MeshError, NetworkError, RemoteProtocolError
from meshd.net import tls
from meshd.net.discovery import PAIR_TYPE, Seen, Subscription
from meshd.net.lan import Network, format_address
from meshd.pairing.code import MAX_SLOT, Code, PairingUri

STAGGER = 0.25  # seconds between the addresses of one candidate
DIAL_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """Somebody who may be the device that shows the code."""

    addresses: tuple[str, ...]
    token: bytes = field(default=b"", repr=False)
    certificate_hash: bytes | None = None


def read_slot(sighting: Seen) -> int | None:
    """The slot that a pairing service announces; None where it is no service of this release."""
    text = sighting.txt.get("s", b"")
    if sighting.txt.get("v") != b"1" or not text.isdigit() or len(text) > 2:
        return None
    return int(text) if 1 <= int(text) <= MAX_SLOT else None


def of_uri(uri: PairingUri, addresses: tuple[str, ...]) -> Candidate:
    """The device of a URI, at these addresses."""
    return Candidate(addresses, uri.token, uri.certificate_hash)


class Sightings:
    """The candidates that discovery sees: those with the slot of the code or the token of the URI, each once."""

    def __init__(self, subscription: Subscription, code: Code | None, uri: PairingUri | None) -> None:
        self._subscription = subscription
        self._code = code
        self._uri = uri
        self._seen: set[tuple[str, tuple[str, ...], int]] = set()

    async def next(self, within: float) -> Candidate | None:
        """The next one, None if there is none in time. A candidate at another address is another one."""
        with trio.move_on_after(within):
            async for sighting in self._subscription:
                if not isinstance(sighting, Seen) or sighting.service_type != PAIR_TYPE:
                    continue
                key = (sighting.instance, sighting.addresses, sighting.port)
                candidate = self._fits(sighting)
                if candidate is not None and key not in self._seen:
                    self._seen.add(key)
                    return candidate
        return None

    def _fits(self, sighting: Seen) -> Candidate | None:
        try:
            token = base64url.decode(sighting.txt.get("at", b"").decode("ascii"))
        except (FormatError, UnicodeDecodeError):
            return None
        addresses = tuple(format_address(host, sighting.port) for host in sighting.addresses)
        if self._uri is not None:
            return of_uri(self._uri, addresses) if self._uri.token and self._uri.token == token else None
        fits = self._code is not None and read_slot(sighting) == self._code.slot
        return Candidate(addresses, token) if fits else None

    def close(self) -> None:
        self._subscription.close()


async def reach(network: Network, candidate: Candidate) -> tls.TlsStream:
    """A TLS connection to a candidate by whichever of its addresses answers first; NetworkError, RemoteProtocolError.

    Where the URI tells the certificate, whoever shows another one is hung up on before anything is said.
    """
    failures: list[MeshError] = []
    winner: tls.TlsStream | None = None

    async def attempt(address: str, delay: float, scope: trio.CancelScope) -> None:
        nonlocal winner
        try:
            await trio.sleep(delay)
            secured = await tls.wrap_client(await network.dial(address, DIAL_SECONDS), tls.pairing_client_context())
        except MeshError as exc:
            failures.append(exc)
            return
        shown = hashlib.sha256(tls.peer_certificate(secured) or b"").digest()
        if candidate.certificate_hash not in (None, shown):
            failures.append(RemoteProtocolError("another device answers at the address of the invitation"))
            await trio.aclose_forcefully(secured)
        elif winner is None:
            winner = secured
            scope.cancel()
        else:
            await trio.aclose_forcefully(secured)

    try:
        async with trio.open_nursery() as nursery:
            for place, address in enumerate(candidate.addresses):
                nursery.start_soon(attempt, address, place * STAGGER, nursery.cancel_scope)
    except BaseException:
        if winner is not None:
            await trio.aclose_forcefully(winner)
        raise
    if winner is None:
        raise failures[0] if failures else NetworkError("the other device has no address")
    return winner
