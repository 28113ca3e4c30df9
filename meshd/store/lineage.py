"""Links of chains that came ahead of their versions (docs/specs/sync.md, "trace and chain").

A cut names the end of a chain, and what stands is what that end leads back to. An end comes last, so without its links
everything before it would be set aside first, and judged again when it connects. A link is what a pruned version
leaves, (signer, NotaryToken, digest): it hashes to the vid that the cut, or the link after it, names, so it can't be
made up. Links are kept until the versions of a chain are here, within a bound. They are not signed for: when all that a
peer has is here, and a version that was told of is not, the links of that chain are forgotten.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from meshd.profile import links

MOST = 262_144  # links of one signer that are kept ahead of their versions
MOST_BYTES = 64 * 1024 * 1024  # of their tokens
WIDEST = 1000  # beginnings of a chain that may be looked for at once; an honest one has as many as it has branches
PAGE = 1000  # links that are told together
LOOKS = 4  # stretches of a chain that are read for one answer; what is in none of them is looked up by itself
LINK_BYTES = 80  # of a told link beside its token, at most


class Link(NamedTuple):
    """A version's place in its author's chain; with the author's UDF it proves its vid."""

    token: str
    digest: bytes


class Lineage:
    """The links whose versions have not come. Rows in the store, vids in memory."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._coming: dict[str, set[bytes]] = {}
        for signer, vid in connection.execute(
            "SELECT signer, vid FROM lineage l WHERE NOT EXISTS (SELECT 1 FROM versions v WHERE v.vid = l.vid)"
        ):
            self._coming.setdefault(signer, set()).add(vid)
        self._sizes: dict[str, int] = dict(
            connection.execute("SELECT signer, sum(length(token)) FROM lineage GROUP BY signer").fetchall()
        )

    def room(self, signer: str) -> int:
        """How many more links of a signer are taken."""
        full = self._sizes.get(signer, 0) >= MOST_BYTES
        return 0 if full else MOST - len(self._coming.get(signer, ()))

    def keep(self, connection: sqlite3.Connection, signer: str, rows: Iterable[tuple[bytes, Link]]) -> None:
        """These versions of a signer are proven to be on his chain, and are not here."""
        found = [(signer, vid, link.token, link.digest) for vid, link in rows]
        connection.executemany("INSERT INTO lineage VALUES (?, ?, ?, ?)", found)
        self._coming.setdefault(signer, set()).update(row[1] for row in found)
        self._sizes[signer] = self._sizes.get(signer, 0) + sum(len(row[2]) for row in found)

    def came(self, connection: sqlite3.Connection, signer: str, vid: bytes) -> None:
        """A version is stored. With the last that was told of, nothing need be remembered of that chain."""
        coming = self._coming.get(signer)
        if coming is None:
            return
        coming.discard(vid)
        if not coming:
            self._forget(connection, signer)

    def end(self, connection: sqlite3.Connection) -> list[str]:
        """Nothing more is to come: forget all links; the signers of whom there were any."""
        signers = sorted(self._coming)
        for signer in signers:
            self._forget(connection, signer)
        return signers

    def _forget(self, connection: sqlite3.Connection, signer: str) -> None:
        del self._coming[signer], self._sizes[signer]
        connection.execute("DELETE FROM lineage WHERE signer = ?", (signer,))

    def memory(self) -> object:
        """What must equal the memory of a store that was opened anew."""
        return self._coming, self._sizes


def waits(connection: sqlite3.Connection) -> bool:
    """Are there links whose versions have not come?"""
    return connection.execute("SELECT 1 FROM lineage LIMIT 1").fetchone() is not None


def of_signer(connection: sqlite3.Connection, signer: str) -> Iterator[tuple[bytes, tuple[bytes, ...]]]:
    """(vid, q) of every link of a signer that came ahead."""
    for vid, token in connection.execute("SELECT vid, token FROM lineage WHERE signer = ?", (signer,)).fetchall():
        yield vid, links.before(token)


def told(connection: sqlite3.Connection, signer: str, vids: Collection[bytes], size: int) -> list[Link]:
    """The links of a signer's chain from `vids` backwards, each behind one that names it, as far as their versions are
    here: at most `PAGE`, and about `size` bytes."""
    todo, seen, looks = deque(vids), set(vids), LOOKS
    near: dict[bytes, Link] = {}
    found: list[Link] = []
    while todo and len(found) < PAGE and size > 0:
        vid = todo.popleft()
        if vid not in near:
            row = connection.execute(
                "SELECT n, token, digest FROM versions WHERE vid = ? AND signer = ?", (vid, signer)
            ).fetchone()
            if row is None:
                continue
            near[vid] = Link(*row[1:])
            if looks:  # a chain is nearly always a line: what comes before this is read with it, in its order
                looks -= 1
                rows = connection.execute(
                    "SELECT vid, token, digest FROM versions WHERE signer = ? AND n < ? ORDER BY n DESC LIMIT ?",
                    (signer, row[0], PAGE),
                )
                near |= {vid: Link(token, digest) for vid, token, digest in rows}
        link = near[vid]
        size -= len(link.token) + LINK_BYTES
        found.append(link)
        for before in links.before(link.token):
            if before not in seen:
                seen.add(before)
                todo.append(before)
    return found
