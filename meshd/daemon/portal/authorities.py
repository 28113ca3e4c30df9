"""The authority of each mesh, kept in memory and made from the rows of a portal's store when it is asked for.

The writer's are the ones that judge: they follow each profile within its transaction, and are dropped when one is
rolled back. A reader has his own, of what is committed; `behind` tells how far a mesh has moved since, so that a reader
reads the new profiles only.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from meshd.errors import MeshError, StoreDamaged
from meshd.profile import version
from meshd.profile.claim import Claim
from meshd.profile.trust import Authority
from meshd.store import portal_rows

KEPT = 1024  # meshes


class Moves:
    """When the profiles of each mesh changed last, and when so that all of them must be read again.

    Times are counts of such commits. Counted by the writer after its commits, read by whoever reads.
    """

    def __init__(self) -> None:
        self.total = 0
        self._last: dict[str, tuple[int, int]] = {}

    def profile(self, mesh: str) -> None:
        self._last[mesh] = self.total + 1, self.of(mesh)[1]
        self.total += 1

    def whole(self, mesh: str) -> None:
        self._last[mesh] = self.total + 1, self.total + 1
        self.total += 1

    def of(self, mesh: str) -> tuple[int, int]:
        return self._last.get(mesh, (0, 0))


class _Chains:
    """Each signer's chain, as far as the connection shows it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def chain(self, signer: str) -> Iterable[tuple[bytes, tuple[bytes, ...]]]:
        return portal_rows.chain(self._connection, signer)


@dataclass(slots=True)
class _Held:
    authority: Authority
    part: int = 0  # the last places that were read
    place: int = 0
    at: int = 0  # everything that had moved by then has been read

    @property
    def empty(self) -> bool:
        return not self.part and not self.place


class Authorities:
    """The most recently used authorities. With `moves` of a reader, without of the writer."""

    def __init__(self, connection: sqlite3.Connection, moves: Moves | None = None) -> None:
        self._connection = connection
        self._chains = _Chains(connection)
        self._moves = moves
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._at = 0

    def look(self) -> None:
        """A reader is about to begin a transaction: what has moved by now, it will see."""
        if self._moves is not None:
            self._at = self._moves.total

    def drop(self) -> None:
        """Forget everything: a transaction was rolled back."""
        self._held.clear()

    def get(self, mesh: str) -> Authority | None:
        """The authority of a mesh; None where no profile of ours is stored."""
        held = self._find(mesh)
        return None if held.empty else held.authority

    def writing(self, mesh: str) -> Authority:
        """The authority that a profile is about to be integrated into, of a mesh that may be new."""
        return self._find(mesh).authority

    def wrote(self, mesh: str, *, part: int = 0, place: int = 0) -> None:
        """A profile was integrated and stored at this place."""
        held = self._find(mesh)
        held.part, held.place = max(held.part, part), max(held.place, place)

    def _find(self, mesh: str) -> _Held:
        held = self._held.get(mesh)
        if self._moves is None:
            if held is None:
                held = self._make(mesh, 0)
            return held
        if not self._connection.in_transaction:
            self.look()
        profiles, whole = self._moves.of(mesh)
        if held is None or whole > held.at:
            return self._make(mesh, self._at)
        if profiles > held.at:
            held.at = self._at
            self._read(mesh, held)
        self._held.move_to_end(mesh)
        return held

    def _make(self, mesh: str, at: int) -> _Held:
        held = _Held(Authority(mesh, self._chains), at=at)
        self._read(mesh, held)
        if held.empty and self._moves is not None:
            return held  # somebody asks for a name that nobody has: not worth remembering
        self._held[mesh] = held
        self._held.move_to_end(mesh)
        if len(self._held) > KEPT:
            self._held.popitem(last=False)
        return held

    def _read(self, mesh: str, held: _Held) -> None:
        masters, personal = portal_rows.profiles(self._connection, mesh, held.part, held.place)
        for place, raw in masters:
            held.authority.integrate(_claim(raw))
            held.part = place
        for place, raw in personal:
            held.authority.integrate(_claim(raw))
            held.place = place


def _claim(raw: bytes) -> Claim:
    try:
        return version.parse(raw).claim
    except MeshError as exc:
        raise StoreDamaged(f"a profile in the store can't be read: {exc}") from exc
