"""Removing devices with everybody that can be reached: catch up with them first, cut, and see who has heard.

A cut names what this store had seen of a device, so what siblings have still to bring is waited for, some seconds.
After that one transaction does it all (`removal`), sync carries it, and each device's acknowledgement is its word that
it holds the removal and the new keys on disk. Nothing here has to go well: whoever was away learns it when it comes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import trio

from meshd.crypto.keys import SigningKey
from meshd.daemon import exposure, removal
from meshd.daemon.context import Daemon
from meshd.daemon.pen import Pen
from meshd.daemon.progress import Progress, acked
from meshd.daemon.removal import Removed
from meshd.daemon.status import in_step, newest_seq
from meshd.errors import NotFound, Refused
from meshd.profile import links, version
from meshd.profile import vault as vaults
from meshd.profile.claim import Kind, State
from meshd.profile.links import SCOPE_REMOVED
from meshd.store import peers, versions
from meshd.store.db import Reader

CATCH_UP_SECONDS = 10.0
ACK_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """Who holds a removal and the new keys, and who does not yet, with when it was last met (ms since 1970, 0 =
    never)."""

    acknowledged: tuple[str, ...]
    pending: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What `device remove` tells."""

    removed: tuple[str, ...]
    rotated: tuple[str, ...]
    left: tuple[str, ...]  # vaults that await another admin
    acknowledgement: Acknowledgement
    exposed: int
    unchanged: int
    in_step: bool  # every connected sibling had brought what it knew before the cut


async def remove_device(
    daemon: Daemon,
    connections: Mapping[str, Progress],
    devices: Iterable[str],
    *,
    since_ms: int | None = None,
    master_key: SigningKey | None = None,
    keep_removed: Collection[str] = (),
    readmit: Collection[str] = (),
    confirm: Collection[str] = (),
    leave_no_admin: bool = False,
    catch_up: float = CATCH_UP_SECONDS,
    acknowledge: float = ACK_SECONDS,
) -> Report:
    """Remove devices as `removal.remove` does. `connections` are those of `Siblings`. Never waits for who is away."""
    chosen = tuple(devices)
    others = {udf for udf in connections if udf not in chosen}
    together = await _until(daemon, catch_up, lambda: _caught_up(daemon, connections, others & connections.keys()))

    def do(pen: Pen) -> Removed:
        if pen.replica.authority.undecided() - set(chosen):
            raise Refused(
                "Not all has come that a removed admin wrote, so it is open which devices it had rightly taken in; they"
                " would be removed as well.",
                hint="wait until meshctl status says that this device is in step, or name them, too",
            )
        return removal.remove(
            pen,
            chosen,
            since_ms=since_ms,
            master_key=master_key,
            keep_removed=keep_removed,
            readmit=readmit,
            confirm=confirm,
            leave_no_admin=leave_no_admin,
        )

    done = await daemon.write(do)

    def heard() -> bool:
        told = acknowledgement(daemon, done, connections)
        return not any(udf in connections for udf, _ in told.pending)

    await _until(daemon, acknowledge, heard)
    exposed, unchanged = await _exposed(daemon, done.removed)
    return Report(
        done.removed,
        done.rotated,
        done.left,
        acknowledgement(daemon, done, connections),
        exposed,
        unchanged,
        together,
    )


def acknowledgement(daemon: Daemon, removed: Removed | str, connections: Mapping[str, Progress]) -> Acknowledgement:
    """Which devices have committed a removal and its new keys, by their own word; for a device's UDF, whoever removed
    it.

    NotFound where it was not removed. Nobody has acknowledged what is not finished."""
    connection = daemon.reader.connection
    seq = removed.seq if isinstance(removed, Removed) else finished(connection, removed)
    acknowledged, pending = [], []
    now = daemon.now_ms()
    for udf in sorted(daemon.snapshot.siblings):
        known, progress = peers.get(connection, udf), connections.get(udf)
        connected = progress is not None and progress.connected
        if seq is not None and acked(known, progress) >= seq:
            acknowledged.append(udf)
        else:
            pending.append((udf, now if connected else known.last_seen))
    return Acknowledgement(tuple(acknowledged), tuple(pending))


def finished(connection: sqlite3.Connection, device: str) -> int | None:
    """This store's seq by which the removal of a device and the new keys for all that it read are complete; None while
    some vault still lacks them. NotFound where it was not removed."""
    carried = [
        row.seq
        for kind in (Kind.MASTER, Kind.PERSONAL)
        for row in versions.of_kind(connection, kind)
        if any(cut.udf == device and cut.scope == SCOPE_REMOVED for cut in links.parse(row.token).x)
    ]
    if not carried:
        raise NotFound("That device was not removed.")
    seq = min(carried)
    owners = exposure.key_owners(connection)
    containers: dict[str, list[_Wrapped]] = {}
    for row in versions.of_kind(connection, Kind.CONTAINER, tuple(State)):
        raw = versions.raw(connection, row.vid)
        if raw is not None:
            parsed = version.parse(raw)
            wrapped = _Wrapped(row, vaults.container_kids(parsed), vaults.container_recipients(parsed))
            containers.setdefault(row.identifier, []).append(wrapped)
    for found in containers.values():
        standing = [one for one in found if one.row.state is State.APPLIED]
        handed = _handed(found, standing, owners, device)
        if any(one.kids & handed for one in standing):
            fresh = [one.row.seq for one in standing if one.kids - handed]
            if not fresh:
                return None
            seq = max(seq, min(fresh))
    return seq


@dataclass(frozen=True, slots=True)
class _Wrapped:
    row: versions.Row
    kids: frozenset[str]
    recipients: frozenset[str]


def _handed(
    found: Iterable[_Wrapped], standing: Collection[_Wrapped], owners: Mapping[str, str], device: str
) -> set[str]:
    """The keys of a vault that a device was given. What does not stand gives nothing that its author was not given
    himself, for its header may name anything, and no removal would ever be finished."""

    def given(one: _Wrapped, udf: str) -> bool:
        return any(owners.get(key) == udf for key in one.recipients)

    known = {kid for one in standing for kid in one.kids}
    handed = {kid for one in standing if given(one, device) for kid in one.kids}
    for one in found:
        if one.row.state is not State.APPLIED and given(one, device):
            held = {kid for each in standing if given(each, one.row.signer) for kid in each.kids}
            handed |= one.kids - known | one.kids & held
    return handed


def _caught_up(daemon: Daemon, connections: Mapping[str, Progress], others: Iterable[str]) -> bool:
    newest = newest_seq(daemon.reader.connection)
    return all(in_step(connections[udf], newest) for udf in others if udf in connections)


async def _exposed(daemon: Daemon, devices: Iterable[str]) -> tuple[int, int]:
    found = await list_exposed(daemon, devices)
    return exposure.counts(found)


async def list_exposed(daemon: Daemon, devices: Iterable[str]) -> list[exposure.Exposed]:
    """The work-list for one device or several, in a worker thread. Locked, NotConnected."""
    index, keyring = await daemon.fresh_index(), daemon.unlocked()
    chosen, titles = tuple(devices), exposure.titles_of(index)

    def look() -> list[exposure.Exposed]:
        reader = Reader(daemon.paths.store)
        try:
            return exposure.exposure(reader.connection, keyring, chosen, titles)
        finally:
            reader.close()

    return await trio.to_thread.run_sync(look)


async def _until(daemon: Daemon, seconds: float, true: Callable[[], bool]) -> bool:
    with trio.move_on_after(seconds):
        while True:
            seen = daemon.changed.count
            if true():
                return True
            await daemon.changed.after(seen)
    return true()
