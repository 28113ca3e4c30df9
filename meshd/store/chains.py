"""Each signer's chain: its ends, its gaps, its forks, and when this device heals its own (formats.md F1).

A device's writes are one hash chain. Two versions with one `n` are a fork: a store restored from a backup, a cloned
home, or a stolen key. A device heals — names all ends in `q` — only after a restore that it noticed, once per
store-id. A branch that grows past its healing, and any other fork, stays visible as evidence.

`Book` keeps the ends and gaps in memory, so that the next link of a chain costs no look-up; its rows follow with
`flush`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from meshd.profile import links
from meshd.profile.claim import Claim
from meshd.store import peers, versions
from meshd.store.db import get_meta, set_meta

_ALLOWED = "heal_allowed"  # meta: the store-id under which one healing write may be made
_HEALED = "healed"  # meta: the store-id under which it was made
_LAST = "last_own"  # meta: the version that this store wrote last
_DOUBTED = "doubted"  # meta: the store-id under which a sibling knew other versions than are here
_WROTE = "wrote"  # meta: the store-id under which, a restore noticed, this store has written
_TOLD = "restore_told"  # meta: the store-id whose beginning was told as an event
_FOREIGN = "foreign"  # meta: the store-id under which, its healing write made, more of our own came from outside


@dataclass(frozen=True, slots=True)
class Extended:
    """What a new link of a chain showed."""

    fills: bool  # a later version of the signer, which came before, names it
    forks: bool  # another version of the signer has the same n, or goes past a healing
    miscounted: tuple[bytes, ...] = ()  # versions whose n is not one after their predecessors', all of these known


# A thief could make any number of all these; the alarm and its evidence need few.
_OPEN_FORKS = 64  # noted of a signer that are not healed
_GROWN = 4  # noted of a signer that went on past a healing
_JOINS = 16  # remembered for each version that healings follow
_LOOKED = 64  # versions looked at to find which one a healing stands beside
_HEALS = 16  # ends that one version joins
_PLAIN = Extended(fills=False, forks=False)


@dataclass(frozen=True, slots=True)
class Next:
    """The chain links of a device's next version. `heals`: it joins a branch that was lost in a restore."""

    tips: tuple[bytes, ...]
    n: int
    heals: bool = False


@dataclass(frozen=True, slots=True)
class _Follower:
    vid: bytes
    signer: str
    n: int
    single: bool  # it names one predecessor


class Book:
    """The ends and gaps of all chains. What it says is the connection's rows and what `extend` was told since
    `flush`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._tips: dict[str, dict[bytes, int]] = {}
        self._holes: dict[bytes, list[_Follower]] = {}
        self._joins: dict[bytes, set[bytes]] = {}
        self._highest: dict[str, int] = {}
        self._forked = {
            row[0] for row in connection.execute("SELECT DISTINCT signer FROM forks WHERE joined = 0 AND grown = 0")
        }
        self._doubtful: set[str] = set()  # signers of these whose forks may be healed now
        # row → is it there now?; rows that came and went since the last flush are in neither
        self._tip_rows: dict[tuple[str, bytes], bool] = {}
        self._hole_rows: dict[tuple[bytes, bytes], bool] = {}
        for signer, vid, n in connection.execute(
            "SELECT t.signer, t.vid, v.n FROM tips t JOIN versions v ON v.vid = t.vid"
        ):
            self._tips.setdefault(signer, {})[vid] = n
        for need, vid, signer, n, token in connection.execute(
            "SELECT h.need, h.vid, v.signer, v.n, v.token FROM holes h JOIN versions v ON v.vid = h.vid"
        ):
            follower = _Follower(vid, signer, n, len(links.parse(token).q) == 1)
            self._holes.setdefault(need, []).append(follower)
        for tip, vid in connection.execute("SELECT tip, vid FROM joins"):
            self._joins.setdefault(tip, set()).add(vid)

    def extend(self, connection: sqlite3.Connection, claim: Claim) -> Extended:
        """Put a stored version on its signer's chain."""
        signer, vid, n, q = claim.signer, claim.vid, claim.links.n, claim.links.q
        tips = self._tips.get(signer)
        if tips is None:
            tips = self._tips[signer] = {}
        reached, complete, wrong = 0, True, False
        followed: list[bytes] = []  # predecessors that another version of the signer follows already
        for before in q:
            at = tips.pop(before, None)
            if at is not None:
                _set(self._tip_rows, (signer, before), False)
                reached = max(reached, at)
                continue
            waiting = self._holes.get(before)
            if waiting is None:
                row = connection.execute("SELECT signer, n FROM versions WHERE vid = ?", (before,)).fetchone()
                if row is not None:
                    if row[0] != signer:
                        wrong = True
                    else:
                        reached = max(reached, row[1])
                        followed.append(before)
                    continue
                waiting = self._holes[before] = []
            elif any(other.signer == signer for other in waiting):
                followed.append(before)
            complete = False
            waiting.append(_Follower(vid, signer, n, len(q) == 1))
            _set(self._hole_rows, (before, vid), True)
        miscounted = [vid] if wrong or (complete and n != reached + 1) else []
        fills = self._fill(connection, claim, miscounted)
        if not fills:
            tips[vid] = n
            _set(self._tip_rows, (signer, vid), True)
        forks = self._same_place(connection, claim)
        if len(q) > 1 or (self._joins and any(before in self._joins for before in q)):
            forks = self._past_a_healing(connection, claim, followed) or forks
        if signer in self._forked and (forks or fills or len(q) > 1):
            self._doubtful.add(signer)
        return Extended(fills, forks, tuple(miscounted)) if fills or forks or miscounted else _PLAIN

    def _fill(self, connection: sqlite3.Connection, claim: Claim, miscounted: list[bytes]) -> bool:
        """Close the gap that `claim` was, if it was one; True when a version of its signer follows it."""
        followers = self._holes.pop(claim.vid, None)
        if followers is None:
            return False
        fills = False
        for follower in followers:
            _set(self._hole_rows, (claim.vid, follower.vid), False)
            if follower.signer != claim.signer:
                miscounted.append(follower.vid)
                continue
            fills = True
            if not (follower.n == claim.links.n + 1 if follower.single else _counted(connection, follower)):
                miscounted.append(follower.vid)
        return fills

    def _same_place(self, connection: sqlite3.Connection, claim: Claim) -> bool:
        """Note the fork if another version of the signer has the same n."""
        signer, n = claim.signer, claim.links.n
        highest = self._highest.get(signer)
        if highest is None:
            (highest,) = connection.execute("SELECT max(n) FROM versions WHERE signer = ?", (signer,)).fetchone()
            highest = max(highest or 0, n)
        elif n > highest:
            self._highest[signer] = n
            return False
        self._highest[signer] = highest
        # One of them is enough: each is noted with one that was here, so the notes connect them all.
        other = connection.execute(
            "SELECT vid FROM versions WHERE signer = ? AND n = ? AND vid <> ? LIMIT 1", (signer, n, claim.vid)
        ).fetchone()
        if other is None:
            return False
        if _count(connection, signer, joined=0, grown=0) < _OPEN_FORKS:
            _note(connection, signer, n, other[0], claim.vid, grown=False)
            self._forked.add(signer)
        return True

    def _past_a_healing(self, connection: sqlite3.Connection, claim: Claim, followed: list[bytes]) -> bool:
        """Note it if a healing and another version follow one version: a branch that did not end where it was
        joined."""
        healing = len(claim.links.q) > 1
        found = False
        for before in claim.links.q:
            others = self._joins.get(before, set())
            if healing and len(others) < _JOINS:
                self._joins.setdefault(before, set()).add(claim.vid)
                connection.execute("INSERT OR IGNORE INTO joins VALUES (?, ?)", (before, claim.vid))
            other = min(others - {claim.vid}, default=None)
            if other is None and healing and before in followed:
                other = self._another_after(connection, claim, before)
            if other is not None:
                if _count(connection, claim.signer, joined=0, grown=1) < _GROWN:
                    _note(connection, claim.signer, claim.links.n, other, claim.vid, grown=True)
                found = True
        return found

    def _another_after(self, connection: sqlite3.Connection, claim: Claim, before: bytes) -> bytes:
        """A version other than `claim` that follows `before`; `before` itself where it can't be found by its count."""
        for follower in self._holes.get(before, ()):
            if follower.signer == claim.signer and follower.vid != claim.vid:
                return follower.vid
        rows = connection.execute(
            "SELECT v.vid, v.token FROM versions v JOIN versions b ON b.vid = ?"
            " WHERE v.signer = b.signer AND v.n = b.n + 1 AND v.vid <> ? LIMIT ?",
            (before, claim.vid, _LOOKED),
        )
        return next((vid for vid, token in rows if before in links.parse(token).q), before)

    def tips(self, signer: str) -> tuple[bytes, ...]:
        """The versions of a signer that none of his versions follows: what a cut names."""
        return tuple(sorted(self._tips.get(signer, ())))

    def next_link(self, connection: sqlite3.Connection, own: str) -> Next:
        """q and n of the next version that `own` signs. Joins a foreign branch of ours only when it may be healed."""
        ends = self._tips.get(own, {})
        if len(ends) <= 1:
            return Next(tuple(ends), 1 + max(ends.values(), default=0))
        if any(follower.signer == own for followers in self._holes.values() for follower in followers):
            # What is missing may be all there is between two ends, so this is no fork yet.
            return _after(ends, max(ends, key=lambda vid: (ends[vid], vid)))
        if may_heal(connection):
            mine = get_meta(connection, _LAST)
            first = sorted(ends, key=lambda vid: (vid != mine, -ends[vid], vid))[:_HEALS]
            return Next(tuple(sorted(first)), 1 + max(ends[vid] for vid in first), heals=True)
        # Not ours to join: go on from what this store wrote last, or where another went on from that, from the longest.
        last = get_meta(connection, _LAST)
        return _after(ends, last if last in ends else max(ends, key=lambda vid: (ends[vid], vid)))

    def flush(self, connection: sqlite3.Connection) -> None:
        """Write down what `extend` changed, and which forks are healed by that."""
        for signer in self._doubtful:
            if not self._look_for_healing(connection, signer):
                self._forked.discard(signer)
        self._doubtful.clear()
        if self._tip_rows:
            gone, new = _sorted_out(self._tip_rows)
            connection.executemany("DELETE FROM tips WHERE signer = ? AND vid = ?", gone)
            connection.executemany("INSERT OR IGNORE INTO tips VALUES (?, ?)", new)
        if self._hole_rows:
            gone, new = _sorted_out(self._hole_rows)
            connection.executemany("DELETE FROM holes WHERE need = ? AND vid = ?", gone)
            connection.executemany("INSERT OR IGNORE INTO holes VALUES (?, ?)", new)

    def _look_for_healing(self, connection: sqlite3.Connection, signer: str) -> bool:
        """Mark the forks of a signer whose sides one end of his chain reaches both; True while one is left that no end
        does. Walks a chain at most as often as it has few ends, and down to the first such fork."""
        ends = self._tips.get(signer, {})
        if len(ends) > _HEALS:
            return True
        found = connection.execute(
            "SELECT n, first, second FROM forks WHERE signer = ? AND joined = 0 AND grown = 0"
            " ORDER BY n, first, second",
            (signer,),
        ).fetchall()
        healed = found
        if len(ends) > 1 and found:
            reached = _reached(connection, signer, list(ends), found[0][0])
            healed = [fork for fork in found if any(fork[1] in inside and fork[2] in inside for inside in reached)]
            if len(found) >= _OPEN_FORKS and len(healed) == len(found):
                healed.pop()  # there were more than were noted: while he has several ends one may be open
        connection.executemany(
            "UPDATE forks SET joined = 1 WHERE signer = ? AND n = ? AND first = ? AND second = ?",
            [(signer, *fork) for fork in healed],
        )
        if _count(connection, signer, joined=1, grown=0) > _OPEN_FORKS:
            connection.execute(
                "DELETE FROM forks WHERE signer = ? AND joined = 1 AND grown = 0 AND n > (SELECT min(n) FROM forks f"
                " WHERE f.signer = forks.signer AND joined = 1)",
                (signer,),
            )
        return len(healed) < len(found)

    def memory(self) -> object:
        """What must equal the memory of a store that was opened anew."""
        holes = {need: sorted(map(repr, followers)) for need, followers in self._holes.items()}
        return {signer: ends for signer, ends in self._tips.items() if ends}, holes, self._joins


def _set(rows: dict[Any, bool], row: Any, there: bool) -> None:
    if rows.get(row, there) is there:
        rows[row] = there
    else:
        del rows[row]  # back to what the table says


def _sorted_out(rows: dict[Any, bool]) -> tuple[list[Any], list[Any]]:
    """The rows to delete and those to insert; none of them is pending afterwards."""
    gone = [row for row, there in rows.items() if not there]
    new = [row for row, there in rows.items() if there]
    rows.clear()
    return gone, new


def _after(ends: dict[bytes, int], vid: bytes) -> Next:
    return Next((vid,), 1 + ends[vid])


def _counted(connection: sqlite3.Connection, follower: _Follower) -> bool:
    """Is the n of a version that joins branches right, as far as all of them are known?"""
    row = versions.get(connection, follower.vid)
    assert row is not None  # it is on the chain
    found = [versions.get(connection, vid) for vid in links.parse(row.token).q]
    known = [before.n for before in found if before is not None and before.signer == row.signer]
    return len(known) < len(found) or row.n == 1 + max(known)


def _note(connection: sqlite3.Connection, signer: str, n: int, one: bytes, other: bytes, *, grown: bool) -> None:
    first, second = sorted((bytes(one), other))
    connection.execute(
        "INSERT INTO forks (signer, n, first, second, grown) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET grown = max(grown, excluded.grown)",
        (signer, n, first, second, int(grown)),
    )


def _count(connection: sqlite3.Connection, signer: str, *, joined: int, grown: int) -> int:
    (count,) = connection.execute(
        "SELECT count(*) FROM forks WHERE signer = ? AND joined = ? AND grown = ?", (signer, joined, grown)
    ).fetchone()
    return int(count)


def _reached(connection: sqlite3.Connection, signer: str, ends: list[bytes], least: int) -> list[set[bytes]]:
    """For each end what it follows, down to place `least`."""
    before = {
        vid: links.parse(token).q
        for vid, token in connection.execute(
            "SELECT vid, token FROM versions WHERE signer = ? AND n >= ?", (signer, least)
        )
    }
    found = []
    for end in ends:
        todo, inside = [end], set()
        while todo:
            vid = todo.pop()
            if vid not in inside and vid in before:
                inside.add(vid)
                todo += before[vid]
        found.append(inside)
    return found


def tips(connection: sqlite3.Connection, signer: str) -> tuple[bytes, ...]:
    """As `Book.tips`, of what is committed."""
    rows = connection.execute("SELECT vid FROM tips WHERE signer = ? ORDER BY vid", (signer,))
    return tuple(row[0] for row in rows.fetchall())


def wrote(connection: sqlite3.Connection, vid: bytes, link: Next) -> None:
    """Remember the version that this store wrote last, the end of its own branch; and that it healed, if it did."""
    set_meta(connection, _LAST, vid)
    store_id = get_meta(connection, "store_id") or b""
    if link.heals:
        set_meta(connection, _HEALED, store_id)
    if get_meta(connection, _ALLOWED) == store_id:
        set_meta(connection, _WROTE, store_id)


def follows_own(connection: sqlite3.Connection, before: Sequence[bytes]) -> bool:
    """Does a version of our own that came from outside, and follows `before`, follow what this store wrote after it had
    noticed a restore? What was lost with a backup can't; somebody else writes with our key."""
    store_id = get_meta(connection, "store_id") or b""
    found = (
        get_meta(connection, _WROTE) == store_id == get_meta(connection, _ALLOWED)
        and get_meta(connection, _DOUBTED) != store_id
        and get_meta(connection, _LAST) in before
    )
    if found:
        set_meta(connection, _FOREIGN, store_id)
    return found


def restore_to_tell(connection: sqlite3.Connection) -> bool:
    """Was a restore noticed that was not told yet? It counts as told from now on."""
    store_id = get_meta(connection, "store_id") or b""
    if get_meta(connection, _ALLOWED) != store_id or get_meta(connection, _TOLD) == store_id:
        return False
    set_meta(connection, _TOLD, store_id)
    return True


def noticed_restore(connection: sqlite3.Connection, rng: Callable[[int], bytes]) -> bool:
    """Versions of our own came from outside: this store is a restored backup (or a clone runs). Begin a new store-id,
    under which one healing write is allowed. False when this store-id was begun for that and has healed already, and no
    sibling knows more of it than is here: then it is no restore but a second writer with our key."""
    store_id = get_meta(connection, "store_id") or b""
    if get_meta(connection, _ALLOWED) == store_id and get_meta(connection, _DOUBTED) != store_id:
        healed = get_meta(connection, _HEALED) == store_id
        if healed:
            set_meta(connection, _FOREIGN, store_id)
        return not healed
    renumber(connection, rng)
    return True


def doubted(connection: sqlite3.Connection, rng: Callable[[int], bytes]) -> bool:
    """A sibling says that it was told of versions under this store-id that are not here. It may err; with a version of
    our own that comes from outside, whichever is seen first, it shows a restored backup. True: renumbered for that."""
    store_id = get_meta(connection, "store_id") or b""
    if get_meta(connection, _FOREIGN) == store_id:
        renumber(connection, rng)
        return True
    set_meta(connection, _DOUBTED, store_id)
    return False


def second_writer(connection: sqlite3.Connection, own: str) -> bool:
    """Does something else write with our key: did more of our own come from outside than restored backups explain?"""
    if get_meta(connection, _FOREIGN) == get_meta(connection, "store_id"):
        return True
    grown = connection.execute("SELECT max(grown) FROM forks WHERE signer = ? AND joined = 0", (own,)).fetchone()[0]
    return grown == 1 or (grown == 0 and not may_heal(connection))


def to_heal(connection: sqlite3.Connection, own: str) -> bool:
    """Are there ends of our own chain that this store may join?"""
    return may_heal(connection) and len(tips(connection, own)) > 1


def may_heal(connection: sqlite3.Connection) -> bool:
    """Was this store restored from a backup, and has not joined yet what it lost and what it wrote since?"""
    store_id = get_meta(connection, "store_id")
    return get_meta(connection, _ALLOWED) == store_id and get_meta(connection, _HEALED) != store_id


def renumber(connection: sqlite3.Connection, rng: Callable[[int], bytes]) -> bytes:
    """A restore was noticed: a new store-id, under which what siblings acknowledged is void (formats.md F8), and one
    healing write is allowed (F1)."""
    fresh = rng(8)
    set_meta(connection, "store_id", fresh)
    set_meta(connection, _ALLOWED, fresh)
    peers.forget_acks(connection)
    return fresh


def unhealed_forks(connection: sqlite3.Connection) -> list[tuple[str, int, bytes, bytes]]:
    """(signer, n, first, second), one for each signer whose branches no version of his joins, or went on past their
    joining: the evidence of a clone or a stolen key. A look at few rows."""
    found: dict[str, tuple[str, int, bytes, bytes]] = {}
    for signer, n, first, second in connection.execute(
        "SELECT signer, n, first, second FROM forks WHERE grown = 1 OR joined = 0 ORDER BY signer, grown DESC, n"
    ):
        found.setdefault(signer, (signer, n, first, second))
    return sorted(found.values())
