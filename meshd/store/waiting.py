"""What can't be judged yet: versions that wait for their ancestors, and versions of devices that no profile lists yet.

The first are rows (formats.md F1: kept durably), each signer's within bounds of its own, so that a flood from one
takes nobody else's place. The second may be anybody's: a few are remembered in memory, for the profile that lists
their signer often comes just behind them, and the oldest are forgotten first.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Container, Iterable
from dataclasses import dataclass

from meshd.profile.version import Parsed, Version
from meshd.store import versions

# By the index of parked rows: SQLite would rather walk all of them in the order of their signers.
_PARKED = """
    SELECT signer, count(*), sum(length(raw)) FROM versions INDEXED BY versions_pending WHERE state = 2 GROUP BY +signer
"""


@dataclass(frozen=True, slots=True)
class Limits:
    """What may wait or lie aside, in entries and bytes."""

    parked: int = 16_384  # of one signer
    parked_bytes: int = 64 * 1024 * 1024
    escrow: int = 64  # unsigned, so anybody's: the oldest makes room
    escrow_bytes: int = 8 * 1024 * 1024
    strangers: int = 256
    strangers_bytes: int = 4 * 1024 * 1024
    carried: int = 4096  # entries of kinds that this release does not know
    aside: int = 16_384  # quarantined, and device profiles, of one signer who is no device of the mesh
    aside_bytes: int = 64 * 1024 * 1024
    aside_all: int = 65_536  # of all together
    aside_all_bytes: int = 256 * 1024 * 1024


class Waiting:
    """The parked versions: what they need, and how many each signer has."""

    def __init__(self, connection: sqlite3.Connection, limits: Limits) -> None:
        self._limits = limits
        self.needed: set[bytes] = {row[0] for row in connection.execute("SELECT DISTINCT need FROM waits")}
        self._parked: dict[str, tuple[int, int]] = {
            signer: (count, size) for signer, count, size in connection.execute(_PARKED)
        }

    def room(self, connection: sqlite3.Connection, item: Parsed) -> bool:
        """Is there room to park `item`? For an escrow entry, which is unsigned and so anybody's, the oldest make
        room."""
        if item.signed is None:
            while not self._fits(item):
                gone = versions.drop_oldest_parked(connection, "")
                if gone is None:
                    return False
                self.needed.discard(gone[0])  # it waited for its own name to be spoken
                self._count("", -1, -gone[1])
        return self._fits(item)

    def _fits(self, item: Parsed) -> bool:
        count, size = self._parked.get(item.claim.signer, (0, 0))
        size += len(item.raw)
        if item.signed is None:
            return count < self._limits.escrow and size <= self._limits.escrow_bytes
        return count < self._limits.parked and size <= self._limits.parked_bytes

    def park(self, connection: sqlite3.Connection, item: Parsed, missing: Iterable[bytes]) -> None:
        needs = [(need, item.claim.vid) for need in missing]
        connection.executemany("INSERT INTO waits VALUES (?, ?)", needs)
        self.needed.update(need for need, _ in needs)
        self._count(item.claim.signer, 1, len(item.raw))

    def left(self, signer: str, size: int) -> None:
        """A parked version of that many bytes was judged."""
        self._count(signer, -1, -size)

    def release(self, connection: sqlite3.Connection, vid: bytes) -> list[bytes]:
        """`vid` is known now: the versions that waited for it and for nothing else."""
        if vid not in self.needed:
            return []
        self.needed.discard(vid)
        waiting = [row[0] for row in connection.execute("SELECT vid FROM waits WHERE need = ? ORDER BY vid", (vid,))]
        connection.execute("DELETE FROM waits WHERE need = ?", (vid,))
        return [child for child in waiting if not _waits(connection, child)]

    def _count(self, signer: str, count: int, size: int) -> None:
        before = self._parked.get(signer, (0, 0))
        after = (before[0] + count, before[1] + size)
        if after[0]:
            self._parked[signer] = after
        else:
            self._parked.pop(signer, None)

    def memory(self) -> object:
        """What must equal the memory of a store that was opened anew."""
        return self.needed, self._parked


def _waits(connection: sqlite3.Connection, vid: bytes) -> bool:
    return connection.execute("SELECT 1 FROM waits WHERE vid = ? LIMIT 1", (vid,)).fetchone() is not None


class Strangers:
    """Verified versions by signers whom no profile lists yet. Memory only, oldest forgotten first."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._held: OrderedDict[bytes, Version] = OrderedDict()
        self._size = 0

    def __bool__(self) -> bool:
        return bool(self._held)

    def vids(self) -> list[bytes]:
        return list(self._held)

    def add(self, item: Version) -> None:
        if item.vid in self._held or len(item.raw) > self._limits.strangers_bytes:
            return
        self._held[item.vid] = item
        self._size += len(item.raw)
        while len(self._held) > self._limits.strangers or self._size > self._limits.strangers_bytes:
            self._size -= len(self._held.popitem(last=False)[1].raw)

    def of(self, listed: Container[str]) -> list[Version]:
        """Those by signers who are listed now, in the order in which they came."""
        return [item for item in self._held.values() if item.signer in listed]

    def forget(self, vid: bytes) -> None:
        """The store holds it."""
        item = self._held.pop(vid, None)
        if item is not None:
            self._size -= len(item.raw)
