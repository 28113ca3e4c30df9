"""Looking for a mesh with nothing but shares: at a portal, and at every device on this network that holds ciphertext.

Several who answer are no matter of choice: what they hold is taken together, and the links between the versions say
what counts. What a portal gives is held to its log first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import trio

from meshd.crypto.keys import Rng, SigningKey
from meshd.daemon import recovery_door
from meshd.daemon.context import Daemon
from meshd.daemon.introduction import Room
from meshd.daemon.portals import proving
from meshd.daemon.portals.link import Where, personal_records, records
from meshd.daemon.portals.proving import Given, Proof
from meshd.daemon.portals.roster import Portals
from meshd.errors import DecryptError, FormatError, MeshError, NotFound, Refused, RemoteProtocolError, TrustError
from meshd.net.discovery import SYNC_TYPE, Seen
from meshd.net.lan import Network, format_address
from meshd.portal import names
from meshd.portal.codec import Dialect
from meshd.portal.messages import GetRecordsResponse, GetRequest
from meshd.portal.names import AccountName
from meshd.profile import recovery, shares, version
from meshd.profile.claim import Kind
from meshd.profile.recovery import Escrowed
from meshd.profile.version import Version
from meshd.store import portal_pins, versions

SEARCH_SECONDS = 8.0  # for devices on this network; a second or two more than they need to be seen
LATE_SECONDS, OTHERS_SECONDS = 1.0, 30.0  # for others to answer once one did; to end once one has ended
MAX_PEERS = 64


@dataclass(frozen=True, slots=True)
class Found:
    """What came of looking: the opened entry, and what was given by how many places."""

    entry: Version
    escrowed: Escrowed = field(repr=False)
    raws: tuple[bytes, ...] = field(repr=False)
    where: Where | None = None
    peers: tuple[recovery_door.Given, ...] = field(default=(), repr=False)
    proof: Proof | None = None  # where a portal gave it

    @property
    def mesh(self) -> str:
        return self.escrowed.master.udf


def _opened(raw: bytes, key: bytes) -> tuple[Version, Escrowed]:
    parsed = version.parse(raw)
    return version.verify(parsed), recovery.open_entry(parsed, key)


def held(daemon: Daemon, key: bytes) -> Found | None:
    """The entry of these shares as this device's own store holds it."""
    rows = versions.of_entry(daemon.reader.connection, Kind.OFFLINE_ESCROW, shares.identifier(key))
    for row in rows:
        raw = versions.raw(daemon.reader.connection, row.vid)
        if raw is None:
            continue
        try:
            return Found(*_opened(raw, key), ())
        except (DecryptError, FormatError):
            continue
    return None


def together(found: Sequence[Found]) -> Found:
    """What several places gave, as one."""
    first, raws = found[0], dict.fromkeys(raw for one in found for raw in one.raws)
    where = next((one.where for one in found if one.where is not None), None)
    proof = next((one.proof for one in found if one.proof is not None), None)
    peers = tuple(peer for one in found for peer in one.peers)
    return Found(first.entry, first.escrowed, tuple(raws), where, peers, proof)


# --- at a portal ------------------------------------------------------------------------------------------------------


async def from_portal(portals: Portals, where: Where, key: bytes, *, unproved: bool = False) -> Found:
    """The entry of these shares and all profiles, as anybody may ask for them, and what the portal's log says of them.

    NotFound, NetworkError, DecryptError; Contradiction; TrustError where the log does not prove what it gave, unless
    that is `unproved` and will do."""
    daemon, link = portals.daemon, portals.link(where, lambda: None)
    await link.hello()
    if link.dialect is Dialect.PLAIN:
        raise Refused("That portal is one of 2016, and keeps no history to come back with.")
    request = GetRequest(identifier=shares.identifier(key))
    try:
        answer = await link.ask("GetRecords", request, GetRecordsResponse, signed=False)
    except NotFound:
        answer = GetRecordsResponse()
    listed = records(answer)[:1]
    if not listed:
        raise NotFound(
            f"{where.account.portal} has no recovery entry for these shares.",
            hint="look whether they are the newest; a wrong passphrase of the shares looks the same, and --check tells",
        )
    entry, escrowed = _opened(listed[0][0], key)
    account = _account(where.account, escrowed.info.accounts)
    if account != where.account:
        where = replace(where, account=account)
        link = portals.link(where, lambda: None)
        await link.hello()
    listed += await personal_records(link, escrowed.master.udf, signed=False)
    held = portal_pins.get(daemon.reader.connection, str(where.account))
    proof = await proving.prove(link, _given(listed), escrowed.info, held, lambda: daemon.now_ms() // 1000)
    if proof.state == proving.UNPROVED and not unproved:
        raise TrustError(
            f"What {where.account.portal} gave is not proved by its log, and nothing was taken from it: {proof.why}.",
            hint="look for a device or relay of yours: --lan; or ask who runs the portal whether its log began anew,"
            " and take it without proof: --unproved",
        )
    return Found(entry, escrowed, tuple(raw for raw, _ in listed[1:]), where, proof=proof)


def _account(asked: AccountName, named: Sequence[str]) -> AccountName:
    """The account to go on with. A portal gives an entry whatever account is asked, so a name that was mistyped is put
    right by what the entry says."""
    if str(asked) in named:
        return asked
    for account in named:
        try:
            known = names.normalise(account)
        except FormatError:
            continue
        if known.portal == asked.portal:
            return known
    return asked


def _given(listed: list[tuple[bytes, str]]) -> list[Given]:
    """What has a form at all; the rest is believed by nobody."""
    found = []
    for raw, receipt in listed:
        try:
            found.append(Given(version.parse(raw).claim.vid, raw, receipt))
        except FormatError:
            continue
    return found


# --- on this network --------------------------------------------------------------------------------------------------


async def from_lan(network: Network, key: bytes, rng: Rng, address: str = "") -> Found:
    """From every device on this network that holds the entry of these shares, or the one at an address. NotFound,
    Busy, RemoteProtocolError."""
    search = _Search(network, key, rng)
    if address:
        await search.ask(address)
    else:
        await search.everybody()
    if search.telling and not search.given:
        raise search.telling[0]
    if not search.given:
        what = f"Nobody {'at ' + address if address else 'on this network'} gave the recovery entry of these shares."
        raise NotFound(
            what, hint="is a device or relay of the mesh on and near? Are the shares the newest? Else try --account"
        )
    entry, escrowed = search.opened[0]
    raws = tuple(raw for one in search.given for raw in one.raws[1:])
    return Found(entry, escrowed, raws, peers=tuple(search.given))


class _Search:
    """Whoever holds the entry gives what he has; nobody is waited for long once another has given all."""

    def __init__(self, network: Network, key: bytes, rng: Rng) -> None:
        self.opened: list[tuple[Version, Escrowed]] = []
        self.given: list[recovery_door.Given] = []
        self.telling: list[MeshError] = []  # why those who do hold the entry did not give it
        self._network = network
        self._key = key
        self._rng = rng
        self._room = Room(recovery_door.MAX_BYTES)
        self._looking = trio.CancelScope()  # for who is there
        self._others = trio.CancelScope()
        self._silent: set[trio.CancelScope] = set()  # who were asked and have not given the entry

    async def everybody(self) -> None:
        """Ask every device that announces itself, under whatever name; once."""
        subscription = self._network.discovery.subscribe()
        tried: set[tuple[str, ...]] = set()
        try:
            async with trio.open_nursery() as nursery:
                self._others = nursery.cancel_scope
                self._looking.deadline = trio.current_time() + SEARCH_SECONDS
                with self._looking:
                    async for sighting in subscription:
                        if not isinstance(sighting, Seen) or sighting.service_type != SYNC_TYPE:
                            continue
                        addresses = tuple(format_address(host, sighting.port) for host in sighting.addresses)
                        if addresses not in tried and len(tried) < MAX_PEERS:
                            tried.add(addresses)
                            nursery.start_soon(self._one, addresses)
                for scope in self._silent:
                    scope.cancel()
        finally:
            subscription.close()

    async def _one(self, addresses: tuple[str, ...]) -> None:
        for address in addresses:
            if self._looking.cancel_called or await self.ask(address):
                return

    async def ask(self, address: str) -> bool:
        """One address; did it give all that it has?"""
        scope, identifier = trio.CancelScope(), shares.identifier(self._key)

        def open_entry(raw: bytes) -> SigningKey:
            self.opened.append(_opened(raw, self._key))
            self._silent.discard(scope)
            self._looking.deadline = min(self._looking.deadline, trio.current_time() + LATE_SECONDS)
            return self.opened[-1][1].master

        self._silent.add(scope)
        try:
            with scope:
                self.given.append(
                    await recovery_door.fetch(self._network, address, identifier, self._rng, open_entry, self._room)
                )
                self._others.deadline = min(self._others.deadline, trio.current_time() + OTHERS_SECONDS)
                return True
        except (recovery_door.Busy, RemoteProtocolError) as exc:
            self.telling.append(exc)
        except (MeshError, OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it is no device of this mesh, or does not hold the entry
        finally:
            self._silent.discard(scope)
        return False
