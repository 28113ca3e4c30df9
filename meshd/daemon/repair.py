"""What a device puts right by itself while it is unlocked, so that nothing waits for a person.

An admin merges profile heads, wraps vaults for exactly who reads them, and gives new keys where the old ones are not
fit any more: what a crash, a partition or an admin without a vault's keys has left behind. Any device writes anew what
somebody wrote under old keys because he had not heard, and sends out its own drafts once there is a key.

Several devices see the same thing to do at the same time. So each waits a moment first, admins in the order of their
names and with some chance in it, and looks again; and what two of them do all the same says the same, which ends it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import trio

from meshd.daemon import authoring, drafts, membership, pairing_wire, renewal, rotation, surplus
from meshd.daemon.background import with_pen
from meshd.daemon.context import Daemon
from meshd.daemon.names import moved_past
from meshd.daemon.pen import Pen
from meshd.errors import Locked, MeshError
from meshd.profile.claim import Kind
from meshd.profile.version import Parsed
from meshd.store import chains, versions

SPREAD = 3.0  # seconds that devices spread out over
LAST_PAUSE = 600.0  # after something went wrong again and again
AT_ONCE = 500  # items in one transaction
_LINKS = ("NotaryToken", "Updated")


@dataclass(frozen=True, slots=True)
class Mended:
    """What one round did. `more`: there is more of it to do."""

    merged: bool = False  # profile heads
    rotated: tuple[str, ...] = ()
    wrapped: bool = False  # containers were written
    rewritten: int = 0  # items that were under old keys
    flushed: int = 0  # drafts
    more: bool = False

    def __bool__(self) -> bool:
        return self.merged or self.wrapped or self.rewritten > 0 or self.flushed > 0


async def repair(daemon: Daemon, *, spread: float = SPREAD) -> None:
    """Look after this device until cancelled. Errors are logged, and what they kept from being done is tried again."""
    watch, pause = Watch(), spread
    while True:
        moved, changed = daemon.moved.count, daemon.changed.count
        try:
            await _heal(daemon)
            if await _look(daemon, watch):
                await trio.sleep(_turn(daemon, spread))
                mended = await with_pen(daemon, watch.mend)
                if mended:
                    daemon.log.info("put right: %s", mended)
                pause = spread
                if mended.more:
                    continue
            await renewal.forget_old(daemon)
        except Locked:
            pass  # meanwhile
        except MeshError as exc:
            daemon.log.warning("something could not be put right: %s", exc)
            watch, pause = Watch(), min(pause * 2 + 1, LAST_PAUSE)
            await trio.sleep(pause)
        await moved_past(daemon, moved, changed)
        await trio.sleep(spread / 3)  # a first sync commits many times in that


async def _heal(daemon: Daemon) -> None:
    """Join what a restored device lost and what it wrote since, so that nobody takes it for a clone for longer than it
    must: by saying its name once more. Not before it has heard what those who are there hold, for what comes of the
    lost branch afterwards would look like a second writer."""
    connection, own = daemon.reader.connection, daemon.snapshot.own
    if daemon.keyring is None or not daemon.snapshot.is_member or not chains.to_heal(connection, own):
        return
    if daemon.heard_all() and await with_pen(daemon, heal):
        daemon.log.info("joined what was lost in a restore with what was written since")


def heal(pen: Pen) -> bool:
    """Write a version that changes nothing, if it joins the ends of this device's chain; in the writer's thread."""
    own = pen.replica.own
    name = pairing_wire.device_names(pen.connection, pen.keyring).get(own)
    if name is None or not chains.to_heal(pen.connection, own):
        return False
    membership.name_device(pen, own, name)
    return True


async def _look(daemon: Daemon, watch: Watch) -> bool:
    """Is there something to do? Nearly every commit is of items alone, and costs one look at an index."""
    if daemon.keyring is None or not daemon.snapshot.is_member or not watch.suspects(daemon):
        return False
    return await with_pen(daemon, watch.finds)


def _turn(daemon: Daemon, spread: float) -> float:
    """How long to wait: admins one after the other, the rest later still."""
    admins = sorted(daemon.snapshot.admins)
    place = admins.index(daemon.snapshot.own) if daemon.snapshot.own in admins else len(admins)
    return spread * (min(place, 4) + random.random()) / 3  # noqa: S311  (only spreads the work)


class Watch:
    """What was looked at already, so that the next look is short. Of one keyring: locking begins it anew."""

    def __init__(self) -> None:
        self._keyring: object = None
        self._begin()

    def _begin(self) -> None:
        self._state: object = None
        self._structure = True  # profiles, containers or drafts are to be looked at
        self._fresh: dict[str, str] = {}  # vault → the write key under which its stale items were looked for
        self._seq = 0  # … and up to where in the store
        self._seen = 0

    def suspects(self, daemon: Daemon) -> bool:
        """May there be something? By what is committed, on the trio thread: profiles, containers, drafts, new items."""
        if daemon.keyring is not self._keyring:
            self._begin()
            self._keyring = daemon.keyring
        connection = daemon.reader.connection
        (aside,) = connection.execute("SELECT count(*) FROM versions WHERE state = 3 AND kind = 2").fetchone()
        state = (
            daemon.snapshot.heads,
            daemon.snapshot.admins,
            {udf: profile.dek.udf for udf, profile in daemon.snapshot.devices.items()},
            connection.execute("SELECT vid FROM versions WHERE kind = 2 AND head = 1").fetchall(),
            drafts.count(connection),
            aside,
        )
        items = connection.execute(
            "SELECT 1 FROM versions WHERE seq > ? AND kind = 8 AND head = 1 AND signer <> ? LIMIT 1",
            (self._seen, daemon.snapshot.own),
        ).fetchone()
        self._seen = versions.last_seq(connection)
        if state != self._state or (aside and items):  # what stands may be under the key of what does not
            self._state, self._structure = state, True
        return self._structure or items is not None

    def finds(self, pen: Pen) -> bool:
        """Is there something? In the writer's thread."""
        structure = self._structure and (_unsettled(pen) or (drafts.count(pen.connection) > 0 and _can_flush(pen)))
        if structure or self._stale(pen):
            return True
        self._looked(pen)
        return False

    def mend(self, pen: Pen) -> Mended:
        """Do it, as far as it is still to be done; in the writer's thread."""
        decided = not pen.replica.authority.undecided()
        merged = decided and merge(pen)
        wrapped = decided and bool(rotation.unsettled(pen))
        rotated = rotation.settle(pen) if wrapped else ()
        stale = self._stale(pen)
        rewritten = rotation.rewrite(pen, stale[:AT_ONCE])
        flushed = drafts.flush(pen)
        more = len(stale) > AT_ONCE
        if more:
            self._structure = True  # whatever is committed meanwhile, the next look goes on
        else:
            self._looked(pen)
        return Mended(merged, rotated, wrapped, len(rewritten), len(flushed), more)

    def _stale(self, pen: Pen) -> list[rotation.Stale]:
        """Items under old keys: in vaults with a new write key all, in others those that came since the last look."""
        anew = {vault for vault, kid in _write_keys(pen).items() if self._fresh.get(vault) != kid}
        rest = pen.keyring.vaults.keys() - anew
        return rotation.stale(pen, anew) + rotation.stale(pen, rest, after_seq=self._seq)

    def _looked(self, pen: Pen) -> None:
        self._structure = False
        self._fresh = _write_keys(pen)
        self._seq = versions.last_seq(pen.connection)


def _write_keys(pen: Pen) -> dict[str, str]:
    return {vault: key for vault, opened in pen.keyring.vaults.items() if (key := rotation.write_kid(pen, opened))}


def _can_flush(pen: Pen) -> bool:
    admin = pen.replica.own in pen.replica.authority.admins()
    waiting = {one.container for one in drafts.every(pen.connection, pen.keyring)}
    return any(
        admin or rotation.usable(pen.connection, pen.replica, opened)
        for vault, opened in pen.keyring.vaults.items()
        if vault in waiting and pen.replica.authority.can_write(pen.replica.own, vault)
    )


def _unsettled(pen: Pen) -> bool:
    """Are profiles or containers to be written? Not while it is open whether devices stand that a removed admin took
    in: they would be cut off for good, and are decided when the rest of its chain comes."""
    return not pen.replica.authority.undecided() and (unmerged(pen) or bool(rotation.unsettled(pen)))


# --- profile heads ----------------------------------------------------------------------------------------------------


def unmerged(pen: Pen) -> bool:
    """Are there several profile heads that this admin is to merge, or rights that nothing gives and no cut ends?"""
    authority = pen.replica.authority
    if pen.replica.own not in authority.admins():
        return False
    heads = authority.heads(Kind.PERSONAL)
    if pen.replica.own not in authority.admins_at(heads):
        return False  # the profile that embeds the newest master profile has not come yet
    return bool(surplus.cuts(pen) or surplus.gaps(pen)) or (len(heads) > 1 and not _all_merges(pen.load(heads)))


def _all_merges(heads: list[Parsed]) -> bool:
    """Do all heads join the same versions and say the same? Then nothing is won by joining them: the next profile
    does."""
    parents = {frozenset(head.claim.links.p) for head in heads}
    if len(parents) > 1 or any(len(head.claim.links.p) < 2 or head.claim.links.k for head in heads):
        return False
    said: list[Callable[[str], object]] = [head.body.get for head in heads]
    members = {name for head in heads for name in head.body} - set(_LINKS)
    return all(each(name) == said[0](name) for each in said for name in members)


def merge(pen: Pen) -> bool:
    """One profile over all heads that states what is effective (formats.md F1); False where there is nothing to
    merge."""
    if not unmerged(pen):
        return False
    authoring.write_profile(pen, authoring.state(pen))
    return True
