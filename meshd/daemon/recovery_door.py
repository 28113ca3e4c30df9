"""The recovery door: what a device that holds the ciphertext of a mesh gives to who comes back with the shares.

Whoever can name a recovery entry may knock (formats.md F10, mode 3) and is given that entry; whoever then proves to
hold the master key that is in it is given all profiles, and the containers of the vaults as they are. With these a new
device becomes one of the mesh, and gets the rest as a device does. Locked or not, any device and any relay serves it.

    server → client   challenge (32 bytes)
    server → client   profile 1    the entry that was knocked for
    client → server   signature (64 bytes) of the master key over label, SHA-256 of the certificate, challenge
    server → client   profile *    profiles, oldest first, then containers
    server → client   close
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from meshd.crypto.keys import SigningKey, VerifyKey
from meshd.daemon.context import Daemon
from meshd.daemon.introduction import Frames
from meshd.errors import Denied, NetworkError, RemoteProtocolError
from meshd.net import streams, tls
from meshd.net.lan import Network
from meshd.profile import version
from meshd.profile.claim import Kind, State
from meshd.store import versions
from meshd.sync import knock, messages
from meshd.sync.messages import Close, CloseCode, Profiles

CHALLENGE, SIGNATURE = 32, 64
SECONDS = 120.0
KNOCK_SECONDS = 10.0
_LABEL = b"mmm-recovery/1 master\0"
_SERVED = (Kind.PERSONAL, Kind.CONTAINER)


def doors(daemon: Daemon) -> list[tuple[bytes, str]]:
    """(knock key, Identifier) of every recovery entry that counts and is held here."""
    listed = set(daemon.snapshot.escrow)
    rows = versions.of_kind(daemon.reader.connection, Kind.OFFLINE_ESCROW, tuple(State))
    names = {row.identifier for row in rows if row.identifier in listed}
    return [(knock.recovery_key(name), name) for name in sorted(names)]


class Door:
    """The server's side: one caller at a time."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._busy = False

    async def serve(self, stream: tls.TlsStream, certificate: bytes, entry: str) -> None:
        """One caller who knocked for this entry. Denied, NetworkError, RemoteProtocolError."""
        if self._busy:
            raise Denied("somebody else has come for a recovery entry")
        self._busy = True
        try:
            with trio.move_on_after(SECONDS) as scope:
                await self._serve(stream, certificate, entry)
            if scope.cancelled_caught:
                raise NetworkError("who came for a recovery entry took too long")
        finally:
            self._busy = False

    async def _serve(self, stream: tls.TlsStream, certificate: bytes, entry: str) -> None:
        daemon = self._daemon
        raws = [raw for _, raw in _rows(daemon.reader.connection, Kind.OFFLINE_ESCROW, entry)]
        if not raws:
            raise Denied("the recovery entry is not held any more")
        await daemon.event("recovery", {"state": "fetched"})
        daemon.log.warning("somebody fetched the recovery entry from this device: was it you?")
        challenge = daemon.rng(CHALLENGE)
        await streams.send(stream, challenge + messages.encode(Profiles((raws[0],))))
        signature = await streams.receive_exactly(stream, SIGNATURE)
        _master_of(daemon).verify(signature, _signed(certificate, challenge))
        for kind in _SERVED:
            for _, raw in _rows(daemon.reader.connection, kind):
                await streams.send(stream, messages.encode(Profiles((raw,))))
        await streams.send(stream, messages.encode(Close(CloseCode.DONE, "")))
        await daemon.event("recovery", {"state": "handed-over"})


@dataclass(frozen=True, slots=True)
class Given:
    """What one device gave. `certificate` tells which one it is, once the profiles are believed."""

    raws: tuple[bytes, ...] = field(repr=False)
    certificate: bytes = field(repr=False)
    address: str


async def fetch(
    network: Network,
    address: str,
    identifier: str,
    rng: Callable[[int], bytes],
    open_entry: Callable[[bytes], SigningKey],
) -> Given:
    """The client's side at one address; `open_entry` finds the master key in an entry. NetworkError where nobody there
    holds it; DecryptError, RemoteProtocolError."""
    stream = await network.dial(address)
    try:
        with trio.move_on_after(SECONDS):
            return await _fetch(stream, address, identifier, rng, open_entry)
        raise NetworkError("the other device took too long")
    finally:
        await trio.aclose_forcefully(stream)


async def _fetch(
    stream: trio.abc.Stream,
    address: str,
    identifier: str,
    rng: Callable[[int], bytes],
    open_entry: Callable[[bytes], SigningKey],
) -> Given:
    with trio.move_on_after(KNOCK_SECONDS) as scope:
        server16 = await streams.receive_exactly(stream, knock.CHALLENGE_SIZE)
        key = knock.recovery_key(identifier)
        await streams.send(stream, knock.answer(knock.Mode.RECOVERY, key, server16, rng(knock.NONCE_SIZE)))
    if scope.cancelled_caught:
        raise NetworkError("whoever listens there does not speak our language")
    # Whoever answers proves nothing, and need not: the entry opens with the shares alone, the rest is signed.
    secured = await tls.wrap_client(stream, tls.recovery_client_context())
    certificate = tls.peer_certificate(secured) or b""
    challenge = await streams.receive_exactly(secured, CHALLENGE)
    frames = Frames(secured)
    frames.allow_long()
    first = await frames.next()
    if not isinstance(first, Profiles) or len(first.raws) != 1:
        raise RemoteProtocolError("the other device gave no recovery entry")
    master = open_entry(first.raws[0])
    await streams.send(secured, master.sign(_signed(certificate, challenge)))
    raws = list(first.raws)
    while isinstance(message := await frames.next(), Profiles):
        raws += message.raws
    if not isinstance(message, Close):
        raise NetworkError("the other device hung up before the end")
    return Given(tuple(raws), certificate, address)


def _signed(certificate: bytes, challenge: bytes) -> bytes:
    return _LABEL + hashlib.sha256(certificate).digest() + challenge


def _master_of(daemon: Daemon) -> VerifyKey:
    for _, raw in _rows(daemon.reader.connection, Kind.MASTER):
        return version.master_key(version.parse(raw).body)
    raise Denied("the profile of this mesh has not come here yet")


def _rows(connection: sqlite3.Connection, kind: Kind, identifier: str | None = None) -> list[tuple[int, bytes]]:
    """(seq, bytes) of what is held of a kind, in the order in which it came; what fell too, for others judge anew."""
    return [
        (seq, raw)
        for seq, raw in connection.execute(
            "SELECT seq, raw FROM versions WHERE kind = ? AND (? IS NULL OR identifier = ?) AND raw IS NOT NULL"
            " ORDER BY gen, seq",
            (int(kind), identifier, identifier),
        )
    ]
