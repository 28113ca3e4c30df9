"""What goes into a transaction of the replica, and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from meshd.profile import links
from meshd.profile.claim import Kind, State


@dataclass(slots=True)
class Outcome:
    """What a transaction did. `entries` are those whose heads may have changed."""

    added: list[tuple[int, bytes]] = field(default_factory=list)  # (seq, vid)
    entries: set[tuple[int, str]] = field(default_factory=set)
    rejected: list[tuple[bytes, str]] = field(default_factory=list)  # (vid, why): malformed, never applied, counted
    strangers: list[bytes] = field(default_factory=list)  # by signers whom no profile lists; forgotten unless one does
    deferred: list[bytes] = field(default_factory=list)  # not taken for want of room: to be asked for again
    turned_away: list[str] = field(default_factory=list)  # signers, once for each version that found no room aside
    quarantined: set[bytes] = field(default_factory=set)
    profiles: bool = False  # devices, rights or removals may have changed
    forks: list[tuple[str, int]] = field(default_factory=list)
    restored: bool = False  # versions of our own arrived that this store did not hold
    renumbered: bool = False  # this store's numbering began anew; what was said of the old one is void
    cloned: bool = False  # … and they can't be what was lost with a restore: somebody else writes with our key

    def note(self, vid: bytes, state: State) -> None:
        """A version was judged anew."""
        if state is State.QUARANTINED:
            self.quarantined.add(vid)
        else:
            self.quarantined.discard(vid)


@dataclass(frozen=True, slots=True)
class Draft:
    """A version to be written: everything but the links that the chain and the authority decide."""

    kind: Kind
    identifier: str
    tag: str
    body: Mapping[str, Any] = field(repr=False)
    parents: tuple[bytes, ...] = ()
    escrow: tuple[tuple[str, bytes], ...] = ()
    confirm: tuple[str, ...] = ()
    cuts: tuple[links.Cut, ...] = ()
