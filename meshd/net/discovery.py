"""Finding the other devices on the LAN: what is announced, what is seen, and the port that both real and fake LANs fit.

Everything here comes from anybody on the network: names, texts and addresses are bounded and checked before they reach
the daemon, which recognises its siblings by keyed labels and believes nothing else (formats.md F10).
`mdns.py` is the implementation for real networks.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

import trio

from meshd.errors import BadRequest

SYNC_TYPE = "_mmm-sync._tcp.local."
PAIR_TYPE = "_mmm-pair._tcp.local."
TYPES = (SYNC_TYPE, PAIR_TYPE)

MAX_INSTANCES = 256  # per type
MAX_ADDRESSES = 16
MAX_TXT = 512  # bytes, keys and values together
MAX_TXT_ITEMS = 16
_INSTANCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}\Z")
_TXT_KEY = re.compile(rb"[a-z0-9-]{1,9}\Z")


@dataclass(frozen=True, slots=True)
class Service:
    """What a device announces. Addresses and host label are the LAN's business, and no label tells who this is."""

    service_type: str  # SYNC_TYPE or PAIR_TYPE
    instance: str  # one DNS label of letters, digits, "-", "_"
    port: int
    txt: Mapping[str, bytes] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Seen:
    """Somebody announces this, or announces it differently now."""

    service_type: str
    instance: str
    addresses: tuple[str, ...]  # without port; link-local IPv6 with its scope
    port: int
    txt: Mapping[str, bytes] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Gone:
    """It was withdrawn, timed out, or can't be heard any more."""

    service_type: str
    instance: str


Sighting = Seen | Gone


class DiscoveryPort(Protocol):
    """What the daemon needs of a LAN. Nothing here waits for the network or fails because of it."""

    async def announce(self, name: str, service: Service) -> None:
        """Announce `service` as soon as and wherever that is possible, instead of what `name` stood for so far.

        `name` is the caller's own word ("sync", "pair-7") and never leaves the program. BadRequest for a bad service.
        """
        ...

    async def withdraw(self, name: str) -> None:
        """Take back what was announced as `name`, if anything."""
        ...

    def subscribe(self) -> Subscription:
        """Everything seen now, and what changes from now on; own announcements are left out."""
        ...

    async def update_interfaces(self) -> None:
        """Look at the network now instead of when the kernel says so."""
        ...

    @property
    def problem(self) -> str | None:
        """Why nothing is announced or heard at present, in words for a person; None when all is well."""
        ...


class Subscription:
    """An async iterator of sightings. A slow reader gets the latest state of each instance, not a growing queue."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._pending: dict[tuple[str, str], Sighting] = dict(board.seen)
        self._wake = trio.Event()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Sighting:
        await trio.lowlevel.checkpoint()
        while not self._pending:
            self._wake = trio.Event()
            await self._wake.wait()
        key = next(iter(self._pending))
        return self._pending.pop(key)

    def close(self) -> None:
        """Stop listening."""
        self._board.subscriptions.discard(self)

    def offer(self, sighting: Sighting) -> None:
        """Called by the board. Keeps at most one sighting an instance, and forgets old farewells under a flood."""
        key = (sighting.service_type, sighting.instance)
        self._pending.pop(key, None)
        if len(self._pending) >= 4 * MAX_INSTANCES:
            gone = next((old for old, event in self._pending.items() if isinstance(event, Gone)), None)
            self._pending.pop(gone if gone is not None else next(iter(self._pending)))
        self._pending[key] = sighting
        self._wake.set()


class Board:
    """Who is seen at present, and who wants to know. Bounded: beyond 256 instances of a type the oldest falls off."""

    def __init__(self) -> None:
        self.seen: dict[tuple[str, str], Seen] = {}
        self.subscriptions: set[Subscription] = set()

    def subscribe(self) -> Subscription:
        subscription = Subscription(self)
        self.subscriptions.add(subscription)
        return subscription

    def put(self, seen: Seen) -> None:
        key = (seen.service_type, seen.instance)
        if self.seen.get(key) == seen:
            return
        if key not in self.seen:
            same = [old for old in self.seen if old[0] == seen.service_type]
            if len(same) >= MAX_INSTANCES:
                # The newest stays: a flood may push out siblings whose addresses the daemon knows by now, but must not
                # keep a sibling that comes later from being found.
                self.remove(*same[0])
        self.seen[key] = seen
        self._tell(seen)

    def remove(self, service_type: str, instance: str) -> None:
        if self.seen.pop((service_type, instance), None) is not None:
            self._tell(Gone(service_type, instance))

    def clear(self) -> None:
        for service_type, instance in list(self.seen):
            self.remove(service_type, instance)

    def _tell(self, sighting: Sighting) -> None:
        for subscription in self.subscriptions:
            subscription.offer(sighting)


def check_service(service: Service) -> None:
    """BadRequest for what could not be announced or would not be seen by others."""
    txt = {key.encode(): value for key, value in service.txt.items()}
    if (
        service.service_type not in TYPES
        or not _INSTANCE.match(service.instance)
        or not 0 < service.port < 65536
        or read_txt(txt) is None
    ):
        raise BadRequest("a service that can't be announced")


def read_sighting(
    service_type: str,
    instance: str,
    addresses: Iterable[str],
    port: int | None,
    txt: Mapping[bytes, bytes | None],
    *,
    loopback: bool,
) -> Seen | None:
    """A sighting of what came over the network, or None if it is not of our kind.

    Loopback addresses are dropped unless `loopback` says that we look on the loopback interface ourselves: a stranger
    must not send us to the services of our own machine.
    """
    checked = read_txt(txt)
    if service_type not in TYPES or not _INSTANCE.match(instance) or checked is None:
        return None
    good = tuple(text for text in addresses if _reachable(text, loopback))[:MAX_ADDRESSES]
    if not good or port is None or not 0 < port < 65536:
        return None
    return Seen(service_type, instance, good, port, MappingProxyType(checked))


def read_txt(txt: Mapping[bytes, bytes | None]) -> dict[str, bytes] | None:
    """Key and value pairs (RFC 6763, 6), or None if they are too many, too long or oddly named."""
    if len(txt) > MAX_TXT_ITEMS or sum(len(key) + len(value or b"") for key, value in txt.items()) > MAX_TXT:
        return None
    if not all(_TXT_KEY.match(key) for key in txt):
        return None
    return {key.decode("ascii"): value or b"" for key, value in txt.items()}


def _reachable(text: str, loopback: bool) -> bool:
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (ip.is_unspecified or ip.is_multicast or (ip.is_loopback and not loopback))
