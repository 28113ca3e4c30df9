"""The recovery door: what a device that holds the ciphertext of a mesh gives to who comes back with the shares.

Whoever can name a recovery entry may knock (formats.md F10, mode 3) and is given that entry; whoever then proves to
hold the master key that is in it is given all profiles, and the containers of the vaults as they are. With these a new
device becomes one of the mesh, and gets the rest as a device does. Locked or not, any device and any relay serves it.

    server → client   challenge (32 bytes)
    server → client   profile 1    the entry that was knocked for
    client → server   signature (64 bytes) of the master key over label, SHA-256 of the certificate, challenge
    server → client   profile *    profiles, oldest first, then containers
    server → client   close

A door that is asked by too many, or too often, gives `close` (busy) in place of the entry (`door_limits`).
"""

from __future__ import annotations

import hashlib
import math
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import trio

from meshd.crypto.keys import SigningKey, VerifyKey
from meshd.daemon import notices
from meshd.daemon.context import Daemon, wait
from meshd.daemon.door_limits import Visits
from meshd.daemon.introduction import Frames, Room
from meshd.errors import Denied, NetworkError, Refused, RemoteProtocolError
from meshd.net import streams, tls
from meshd.net.lan import Network
from meshd.profile import version
from meshd.profile.claim import Kind, State
from meshd.store import events, versions
from meshd.sync import codec, knock
from meshd.sync.messages import Close, CloseCode, Profiles

CHALLENGE, SIGNATURE = 32, 64
KNOCK_SECONDS = 10.0
PROOF_SECONDS = 20.0  # until the master key has signed
SECONDS = 900.0  # for everything
AT_ONCE = 4  # callers; one of each source
MAX_BYTES = 256 * 1024 * 1024  # that a search takes, from all who answer
_LABEL = b"mmm-recovery/1 master\0"
_SERVED = (Kind.PERSONAL, Kind.CONTAINER)


def doors(daemon: Daemon) -> list[tuple[bytes, str]]:
    """(knock key, Identifier) of every recovery entry that counts and is held here."""
    listed = set(daemon.snapshot.escrow)
    rows = versions.of_kind(daemon.reader.connection, Kind.OFFLINE_ESCROW, tuple(State))
    names = {row.identifier for row in rows if row.identifier in listed}
    return [(knock.recovery_key(name), name) for name in sorted(names)]


class Door:
    """The server's side. `source` is the address that a caller comes from, without its port."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._visits = Visits()
        self._here: set[str] = set()

    def knocks(self, source: str) -> None:
        """Somebody knocks for an entry; Refused where he did so too often for none that is here."""
        if self._visits.silent(source, trio.current_time()):
            raise Refused("too many knocks for recovery entries that are not here")

    def missed(self, source: str) -> None:
        """The knock was for no entry that is here."""
        self._visits.wrong(source, trio.current_time())

    async def serve(self, stream: tls.TlsStream, certificate: bytes, entry: str, source: str) -> None:
        """One caller who knocked for this entry. Denied, NetworkError, RemoteProtocolError."""
        wait = self._visits.wait(source, trio.current_time())
        if source in self._here or len(self._here) >= AT_ONCE:
            wait = max(wait, PROOF_SECONDS)
        if wait:
            with trio.move_on_after(KNOCK_SECONDS):
                text = f"try again in {_spoken(wait)}"
                await streams.send(stream, bytes(CHALLENGE) + codec.encode(Close(CloseCode.BUSY, text)))
            raise Denied("too many came for a recovery entry, or too often")
        self._here.add(source)
        try:
            with trio.move_on_after(SECONDS) as scope:
                await self._serve(stream, certificate, entry, source)
            if scope.cancelled_caught:
                raise NetworkError("who came for a recovery entry took too long")
        finally:
            self._here.remove(source)

    async def _serve(self, stream: tls.TlsStream, certificate: bytes, entry: str, source: str) -> None:
        daemon = self._daemon
        raw = next(_raws(daemon.reader.connection, Kind.OFFLINE_ESCROW, entry), None)
        if raw is None:
            raise Denied("the recovery entry is not held any more")
        self._visits.came(source, trio.current_time())
        await _tell(daemon)
        daemon.log.warning("somebody fetched the recovery entry from this device: was it you?")
        challenge = daemon.rng(CHALLENGE)
        with trio.move_on_after(PROOF_SECONDS) as scope:
            await streams.send(stream, challenge + codec.encode(Profiles((raw,))))
            signature = await streams.receive_exactly(stream, SIGNATURE)
        if scope.cancelled_caught:
            raise NetworkError("who came for a recovery entry did not show the master key in time")
        _master_of(daemon).verify(signature, _signed(certificate, challenge))
        self._visits.proved(source)
        for kind in _SERVED:
            for raw in _raws(daemon.reader.connection, kind):
                await streams.send(stream, codec.encode(Profiles((raw,))))
        await daemon.event("recovery", {"state": "handed-over"})
        await streams.send(stream, codec.encode(Close(CloseCode.DONE, "")))


class Busy(NetworkError):
    """Who holds the recovery entry is asked by too many, or was asked too often."""


class NotHeld(NetworkError):
    """Who listens there does not know the knock: it does not hold the entry, or is of another mesh."""


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
    room: Room | None = None,
) -> Given:
    """The client's side at one address; `open_entry` finds the master key in an entry, `room` is what several searches
    may take together. NetworkError where nobody there holds it; Busy, DecryptError, RemoteProtocolError."""
    stream = await network.dial(address)
    try:
        with trio.move_on_after(SECONDS):
            return await _fetch(stream, address, identifier, rng, open_entry, room or Room(MAX_BYTES))
        raise NetworkError("the other device took too long")
    finally:
        await trio.aclose_forcefully(stream)


async def _fetch(
    stream: trio.abc.Stream,
    address: str,
    identifier: str,
    rng: Callable[[int], bytes],
    open_entry: Callable[[bytes], SigningKey],
    room: Room,
) -> Given:
    with trio.move_on_after(KNOCK_SECONDS) as scope:
        server16 = await streams.receive_exactly(stream, knock.CHALLENGE_SIZE)
        key = knock.recovery_key(identifier)
        await streams.send(stream, knock.answer(knock.Mode.RECOVERY, key, server16, rng(knock.NONCE_SIZE)))
    if scope.cancelled_caught:
        raise NetworkError("whoever listens there does not speak our language")
    # Whoever answers proves nothing, and need not: the entry opens with the shares alone, the rest is signed.
    try:
        secured = await tls.wrap_client(stream, tls.recovery_client_context())
        certificate = tls.peer_certificate(secured) or b""
        challenge = await streams.receive_exactly(secured, CHALLENGE)
    except (NetworkError, RemoteProtocolError) as exc:
        raise NotHeld(f"the device at {address} does not hold the recovery entry ({exc})") from exc
    frames = Frames(secured, room)
    first = await frames.next()
    if isinstance(first, Close) and first.code == CloseCode.BUSY:
        raise Busy(f"the device at {address} has the recovery entry, and is asked too often: {first.text}")
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


async def _tell(daemon: Daemon) -> None:
    """It is an event here, and the other devices are to hear of it."""
    now = daemon.now_ms()

    def write(connection: sqlite3.Connection) -> None:
        events.append(connection, now, "recovery", {"state": notices.FETCHED})
        notices.owe(connection, now)

    await wait(daemon.writer.submit(write))
    daemon.changed.bump()


def _spoken(seconds: float) -> str:
    return f"{math.ceil(seconds)} seconds" if seconds < 120 else f"{math.ceil(seconds / 60)} minutes"


def _master_of(daemon: Daemon) -> VerifyKey:
    for raw in _raws(daemon.reader.connection, Kind.MASTER):
        return version.master_key(version.parse(raw).body)
    raise Denied("the profile of this mesh has not come here yet")


def _raws(connection: sqlite3.Connection, kind: Kind, identifier: str | None = None) -> Iterator[bytes]:
    """What is held of a kind, oldest first, one at a time; what fell too, for others judge anew."""
    rows = connection.execute(
        "SELECT vid FROM versions WHERE kind = ? AND (? IS NULL OR identifier = ?) AND raw IS NOT NULL"
        " ORDER BY gen, seq",
        (int(kind), identifier, identifier),
    )
    for (vid,) in rows.fetchall():
        raw = versions.raw(connection, vid)
        if raw is not None:  # erased since
            yield raw
