"""How much is kept of devices that are none of the mesh (any more): enough to lose nothing, and not a disk.

What such a device signs beyond its cut is quarantined, and what it says of itself is a valid device profile, so it
could hand in both for ever. Its rows are counted from the store, once a batch. Beyond the bounds nothing more of it is
taken in or asked for again, but that there was more is remembered: when a later profile may let it stand after all,
everybody is asked for everything anew. What a cut leaves standing is never turned away. While a cut names what has not
come yet of a chain, the two look alike there: only the bound of all together holds then, for such an end may never have
existed.
"""

from __future__ import annotations

import sqlite3
from collections import Counter

from meshd.profile.trust import Authority
from meshd.store import peers, versions
from meshd.store.waiting import Limits


class Aside:
    """The account of one batch, and of whom something was turned away ever."""

    def __init__(self, connection: sqlite3.Connection, limits: Limits) -> None:
        self._limits = limits
        self._turned: set[str] = set(turned_away(connection))
        self._members: set[str] = set()  # who need not be asked about again
        self._kept: dict[str, tuple[int, int]] = {}  # signer → (entries, bytes); "" is all of them together
        self._refused: Counter[str] = Counter()  # of this batch

    def begin(self) -> None:
        """A batch begins: what was counted for the last one may have changed."""
        self._members.clear()
        self._kept.clear()
        self._refused.clear()

    def end(self, connection: sqlite3.Connection) -> None:
        """Write down what the batch brought that found no room."""
        if self._refused:
            connection.executemany(
                "INSERT INTO turned_away VALUES (?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count",
                list(self._refused.items()),
            )
            self._refused.clear()

    def look_again(self, connection: sqlite3.Connection, authority: Authority) -> None:
        """Profiles came, or another stands than before: may something stand now that was turned away? Then all siblings
        and portals are asked for everything anew, of which the rest is here."""
        back = [
            signer
            for signer in sorted(self._turned)
            if signer in authority.devices() or signer in authority.admins() or not authority.is_whole(signer)
        ]
        if back:
            self._ask(connection, back)

    def takes(self, connection: sqlite3.Connection, authority: Authority, signer: str, vid: bytes, size: int) -> bool:
        """Is there room for so many bytes more by `signer`, his version `vid`? Always, if it is a device or an
        admin."""
        if signer in self._members:
            return True
        if authority.left_standing(signer, vid):
            if signer in self._turned:  # it may connect what found no room before it
                self._ask(connection, [signer])
            return True
        if signer in authority.devices() or signer in authority.admins():
            self._members.add(signer)
            return True
        each, all_ = self._grown(connection, signer, size), self._grown(connection, "", size)
        limits = self._limits
        fits = all_[0] <= limits.aside_all and all_[1] <= limits.aside_all_bytes
        if authority.is_whole(signer):
            fits = fits and each[0] <= limits.aside and each[1] <= limits.aside_bytes
        if not fits:
            self._refused[signer] += 1
            self._turned.add(signer)
            return False
        self._kept[signer], self._kept[""] = each, all_
        return True

    def _ask(self, connection: sqlite3.Connection, back: list[str]) -> None:
        connection.executemany("DELETE FROM turned_away WHERE signer = ?", [(signer,) for signer in back])
        self._turned.difference_update(back)
        for signer in back:
            del self._refused[signer]
        peers.ask_anew(connection)

    def _grown(self, connection: sqlite3.Connection, signer: str, size: int) -> tuple[int, int]:
        count, before = self._kept.get(signer) or versions.kept_aside(connection, signer)
        return count + 1, before + size


def turned_away(connection: sqlite3.Connection) -> dict[str, int]:
    """signer → how often a version of his was offered for which there was no room, since it was last asked for."""
    return dict(connection.execute("SELECT signer, count FROM turned_away").fetchall())
