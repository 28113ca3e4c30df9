"""The drill: would these shares bring the mesh back? Everything that a recovery needs is done, and nothing is changed.

The shares are combined in memory; the entry that they name is fetched from this device, from every portal and from
every other device that can be asked, each by itself; what comes must open, and hold the keys that the mesh's profile
names; and every vault, with all keys that its items are under, must open with the master escrow key out of it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import trio

from meshd.crypto.keys import DecryptKey, SigningKey
from meshd.daemon import authoring, exposure, recovering, recovery_door
from meshd.daemon.background import with_pen
from meshd.daemon.context import Daemon
from meshd.daemon.pen import Pen
from meshd.daemon.portals import proving
from meshd.daemon.portals.link import Overloaded
from meshd.daemon.portals.state import Portal
from meshd.errors import DecryptError, FormatError, MeshError, NotFound
from meshd.net.lan import Network
from meshd.portal.messages import GetRequest, GetResponse
from meshd.profile import master, recovery, shares, vault, version
from meshd.profile.apps import of_tag
from meshd.profile.claim import Kind, State
from meshd.profile.recovery import Escrowed
from meshd.profile.shares import Share
from meshd.profile.version import Parsed
from meshd.store import versions

ASK_SECONDS = 30.0  # for one portal
PEER_SECONDS = 15.0  # for one address of another device
MOST_ADDRESSES = 4

# What came of a place.
FOUND, MISSING, WRONG, BUSY, UNREACHED = "found", "missing", "wrong", "busy", "unreached"


@dataclass(frozen=True, slots=True)
class Source:
    """A place that was asked for the entry. `kind`: device, portal or peer."""

    kind: str
    where: str
    what: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Peer:
    """Another device: where it may be reached, and what is known without asking."""

    name: str
    addresses: tuple[str, ...]
    connected: bool
    holds: bool  # as it acknowledged


@dataclass(frozen=True, slots=True)
class VaultFound:
    """A vault, and whether the master escrow key opens it with all that is in it."""

    id: str
    application: str
    opens: bool
    keys: int
    why: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """What a drill showed."""

    entry: str
    sources: tuple[Source, ...]
    vaults: tuple[VaultFound, ...]
    keys_fit: bool
    why: str = field(default="")

    @property
    def success(self) -> bool:
        """The keys fit, every vault opens, this device holds the entry, and nobody who answered lacks it."""
        asked = [source for source in self.sources if source.what not in (BUSY, UNREACHED)]
        return (
            self.keys_fit
            and all(one.opens for one in self.vaults)
            and bool(asked)
            and all(source.what == FOUND for source in asked)
        )


async def combine(given: Sequence[Share], passphrase: str, check: str) -> bytes:
    """K, in a thread: a passphrase takes a while. ShareError, WrongPassphrase."""
    return await trio.to_thread.run_sync(shares.combine, given, passphrase, check)


async def drill(
    daemon: Daemon, key: bytes, portals: Sequence[Portal], peers: Sequence[Peer], network: Network | None = None
) -> Found:
    """Rehearse with K, against these portals and, where there is a network, these other devices.

    NotFound where the entry is none that counts: the shares were replaced, or are another mesh's."""
    name = shares.identifier(key)
    expected = (await with_pen(daemon, authoring.recovery_entries)).get(name)
    if expected is None:
        known = {one.entry for one in recovering.noted(daemon.reader.connection, daemon.unlocked())}
        if name in known:
            raise NotFound("These shares were replaced by newer ones; they are not current.", hint="throw them away")
        raise NotFound("These shares fit together, but they are not shares of this mesh, or the passphrase is wrong.")
    escrowed: Escrowed | None = None
    sources = []
    raw = versions.raw(daemon.reader.connection, expected)
    here, opened = _judge("device", "this device", version.parse(raw) if raw else None, expected, key)
    escrowed = opened
    sources.append(here)
    for portal in portals:
        found, opened = await _from_portal(portal, name, expected, key)
        escrowed = escrowed or opened
        sources.append(found)
    for peer in peers:
        found, opened = await _from_peer(daemon, network, peer, name, expected, key)
        escrowed = escrowed or opened
        sources.append(found)
    if escrowed is None:
        return Found(name, tuple(sources), (), False, "nobody who was asked has an entry that these shares open")
    keys = escrowed.escrow
    why = await with_pen(daemon, lambda pen: _keys_fault(pen, escrowed))
    vaults = await with_pen(daemon, lambda pen: _vaults(pen, keys))
    return Found(name, tuple(sources), tuple(vaults), not why, why)


def _judge(kind: str, where: str, parsed: Parsed | None, expected: bytes, key: bytes) -> tuple[Source, Escrowed | None]:
    if parsed is None:
        return Source(kind, where, MISSING, "it does not have the entry"), None
    try:
        opened = recovery.open_entry(parsed, key)
    except (DecryptError, FormatError):
        return Source(kind, where, WRONG, "what it gives is not the entry, or was altered"), None
    if parsed.claim.vid != expected:
        return Source(kind, where, WRONG, "it gives another entry than the one that counts"), opened
    return Source(kind, where, FOUND), opened


async def _from_portal(portal: Portal, name: str, expected: bytes, key: bytes) -> tuple[Source, Escrowed | None]:
    """As somebody would who has the shares and nothing else: without a signature."""
    try:
        with trio.fail_after(ASK_SECONDS):
            request = GetRequest(identifier=name)
            response = await portal.link.ask("Get", request, GetResponse, signed=False)
        entries = [entry for entry in response.entries or () if type(entry) is dict]
        parsed = version.from_json(entries[0]) if entries else None
    except NotFound:
        parsed = None
    except FormatError:
        return Source("portal", portal.name, WRONG, "what it gives can't be read"), None
    except Overloaded:
        return Source("portal", portal.name, BUSY, "it was asked too often; try again later"), None
    except (MeshError, trio.TooSlowError):
        return Source("portal", portal.name, UNREACHED, "it can't be asked now"), None
    found, opened = _judge("portal", portal.name, parsed, expected, key)
    if found.what == FOUND and opened is not None:
        found = replace(found, **_of_its_log(portal, opened))
    return found, opened


def _of_its_log(portal: Portal, opened: Escrowed) -> dict[str, str]:
    """What is to be said of a portal's log: would who comes back believe it by what the entry remembers?"""
    pin, (keys, _) = portal.watch.pin, proving.remembered(opened.info, portal.account.portal)
    if pin is None or pin.frozen:
        return {}
    if not keys:
        return {"why": "the entry does not know its log yet: meshctl recovery refresh"}
    if not {one.vkey for one in keys} & set(pin.keys):
        return {"what": WRONG, "why": "its log has another key than the entry remembers: meshctl recovery refresh"}
    return {}


class _Enough(MeshError):
    """The entry has come, which is all that is wanted."""


async def _from_peer(
    daemon: Daemon, network: Network | None, peer: Peer, name: str, expected: bytes, key: bytes
) -> tuple[Source, Escrowed | None]:
    """Through its recovery door, as a new device would come."""
    given: list[bytes] = []

    def take(raw: bytes) -> SigningKey:
        given.append(raw)
        raise _Enough

    what, why = UNREACHED, ""
    if network is not None:
        what, why = await _fetch(daemon, network, peer, name, take)
    if given:
        try:
            return _judge("peer", peer.name, version.parse(given[0]), expected, key)
        except FormatError:
            return Source("peer", peer.name, WRONG, "what it gives can't be read"), None
    if what == MISSING and peer.connected:
        return Source("peer", peer.name, MISSING, "it is connected, and does not give the entry"), None
    if what == BUSY:
        return Source("peer", peer.name, BUSY, why), None
    held = "by what it acknowledged it has the entry" if peer.holds else "it is not known to have the entry"
    return Source("peer", peer.name, UNREACHED, f"it can't be asked now; {held}"), None


async def _fetch(
    daemon: Daemon, network: Network, peer: Peer, name: str, take: Callable[[bytes], SigningKey]
) -> tuple[str, str]:
    """What came of its addresses, and why; where `take` got something that decides."""
    what, why = UNREACHED, ""
    for address in peer.addresses[:MOST_ADDRESSES]:
        try:
            with trio.move_on_after(PEER_SECONDS):
                await recovery_door.fetch(network, address, name, daemon.rng, take)
        except _Enough:
            break
        except recovery_door.Busy as exc:
            return BUSY, str(exc)
        except recovery_door.NotHeld:
            what = MISSING
        except (MeshError, OSError):
            continue
    return what, why


def _keys_fault(pen: Pen, escrowed: Escrowed) -> str:
    """Why what is in the entry is not what the mesh's profile names; empty where it is."""
    if escrowed.master.udf != pen.replica.mesh:
        return "the master key in the entry is another mesh's"
    heads = pen.load(pen.replica.authority.heads(Kind.MASTER))
    named = {key.udf for head in heads for key in master.escrow_keys(head)}
    if not named <= {key.udf for key in escrowed.escrow}:
        return "the entry lacks a master escrow key that the profile names"
    return ""


def _vaults(pen: Pen, keys: tuple[DecryptKey, ...]) -> list[VaultFound]:
    found = []
    for identifier, application in sorted(_applications(pen).items()):
        kind = of_tag(application)
        try:
            held = _keys_in(pen, identifier, keys)
        except (DecryptError, FormatError, NotFound) as exc:
            found.append(VaultFound(identifier, kind.name, False, 0, str(exc)))
            continue
        marks = {exposure.mark_of(kid) for kid in held}
        lost = sum(mark not in marks for mark in _marks(pen.connection, identifier))
        why = f"{lost} of its items are under keys that it does not hold" if lost else ""
        found.append(VaultFound(identifier, kind.name, not lost, len(held), why))
    return found


def _applications(pen: Pen) -> dict[str, str]:
    from meshd.daemon import snapshot

    listed = snapshot.applications(pen.connection, pen.replica)
    return {identifier: application.tag for identifier, application in listed.items()}


def _keys_in(pen: Pen, identifier: str, keys: tuple[DecryptKey, ...]) -> set[str]:
    heads = pen.load(versions.heads(pen.connection, Kind.CONTAINER, identifier))
    if not heads:
        raise NotFound("its container has not come here")
    kids: set[str] = set()
    for head in heads:
        for key in keys:
            if key.udf in vault.container_recipients(head):
                kids |= {one.kid for one in vault.open_container(head, key).keys}
                break
        else:
            raise DecryptError("it is not wrapped for the master escrow key yet")
    return kids


def _marks(connection: sqlite3.Connection, container: str) -> list[object]:
    """Which key each head of an item of a vault is under."""
    rows = connection.execute(
        "SELECT raw FROM versions WHERE kind = 8 AND head = 1 AND state = ? AND identifier > ? AND identifier < ?"
        " AND raw IS NOT NULL",
        (int(State.APPLIED), container + "/", container + "0"),
    )
    return [exposure.read_mark(raw) for (raw,) in rows]
