"""Publishing to a portal: everything that this store holds, in the order in which it can be judged, and kept so.

A cursor on our own numbering says what the portal holds; it moves in the transaction after its answer. What can't be
published in its turn, a version that waits for others, or one that the portal refuses, goes to the outbox and is tried
again. What the portal's own feed showed is not sent back to it, and what another device wrote waits a moment, because
its author is about to publish it.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterable, Iterator, Sequence

import trio

from meshd.crypto import base64url
from meshd.daemon.context import Daemon
from meshd.daemon.portals import receipts
from meshd.daemon.portals.account import chain_rows
from meshd.daemon.portals.link import refusal
from meshd.daemon.portals.state import Portal
from meshd.daemon.portals.watch import check, settle
from meshd.errors import FormatError, LocalProtocolError, MeshError, NotFound, Refused
from meshd.portal.messages import (
    ConnectCompleteRequest,
    ConnectCompleteResponse,
    PublishRequest,
    PublishResponse,
)
from meshd.portal.statuses import SUCCESSES, Status
from meshd.portal.structures import ChainRow, Outcome
from meshd.profile import version
from meshd.profile.claim import Kind, State
from meshd.store import portal_pins, versions
from meshd.store import portals_client as store
from meshd.store.portal_pins import PinRow, Receipt
from meshd.store.portals_client import ToPublish
from meshd.store.replica import Outcome as Taken

ROWS = 400  # versions looked at together
LOT = 200  # entries of one Publish
LOT_BYTES = 2_500_000  # of their signed bytes; a body has at most 4 MiB
ROUNDS = 64  # of "that is missing" about one lot
FOREIGN_SECONDS = 2.0
PENDING_MS = 60_000
RETRY_MS, MOST_RETRY_MS = 60_000, 24 * 3600 * 1000
_ORDER = {
    Kind.PERSONAL: 0,
    Kind.OFFLINE_ESCROW: 1,
    Kind.ONLINE_ESCROW: 1,
    Kind.CONTAINER: 2,
    Kind.ITEM: 3,
}
_PARALLEL = 16  # so many entries are rewritten to JSON at once without a thread


class Publishing:
    """The task that keeps one portal in step with the store."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal
        self._daemon: Daemon = portal.daemon
        self._rows: dict[bytes, ChainRow] = {}
        self._heads: tuple[bytes, ...] = ()

    async def run(self) -> None:
        """Publish until cancelled; whatever goes wrong is told in `status` and tried again."""
        portal, daemon, failures = self._portal, self._daemon, 0
        await portal.entered.wait()
        while True:
            seen = daemon.moved.count
            try:
                await self._reconsider()
                await self._drain()
                await self._answer()
            except MeshError as exc:
                failures += 1
                portal.went(follow=False, error=exc)
                await portal.pause(failures, exc)
                continue
            failures = 0
            if portal.publish_error is not None and store.next_due(daemon.reader.connection, portal.name) is None:
                portal.went(follow=False, error=None)
            if portal.published != seen:
                portal.published = seen
                daemon.changed.bump()
            await self._until_news(seen)

    async def _until_news(self, seen: int) -> None:
        due = store.next_due(self._daemon.reader.connection, self._portal.name)
        patience = math.inf if due is None else max((due - self._daemon.now_ms()) / 1000, 1.0)
        wake = self._portal.wake

        async def woken() -> None:
            await wake.wait()
            nursery.cancel_scope.cancel()

        with trio.move_on_after(patience):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(woken)
                await self._daemon.moved.after(seen)
                nursery.cancel_scope.cancel()

    async def _reconsider(self) -> None:
        """A newer personal profile may list the key or the right for lack of which the portal refused something."""
        heads, name = self._daemon.snapshot.heads, self._portal.name
        if self._heads and heads != self._heads:
            now = self._daemon.now_ms()
            await self._daemon.transact(lambda connection, outcome: store.again(connection, name, now))
        self._heads = heads

    # --- one pass -----------------------------------------------------------------------------------------------------

    async def _drain(self) -> None:
        """Publish all that there is. MeshError: not all of it."""
        portal, daemon = self._portal, self._daemon
        connection = daemon.reader.connection
        while True:
            portal.watch.check()
            life = portal.life
            at = store.cursor(connection, portal.name)
            rows = store.after(connection, at, ROWS)
            late = dict(store.due(connection, portal.name, daemon.now_ms(), ROWS))
            if not rows and not late:
                return
            todo = [row for row in [*rows, *late] if row.state is not State.PENDING and row.vid not in portal.holds]
            if portal.plain:
                heads = set(daemon.snapshot.heads)
                todo = [row for row in todo if row.vid in heads]
            own = (daemon.snapshot.own, daemon.snapshot.mesh)
            if todo and len(rows) < ROWS and not any(row.signer in own for row in todo):
                await trio.sleep(FOREIGN_SECONDS)
                todo = [row for row in todo if row.vid not in portal.holds]
            done = await self._push(todo)
            if portal.life != life:  # what it took it may have lost meanwhile
                portal.holds.clear()
                continue
            failed = {row.seq: row for row in todo if row.vid not in done}
            waiting = [row for row in [*rows, *late] if row.state is State.PENDING and row.vid not in portal.holds]
            now = daemon.now_ms()
            later = [(row.seq, now + PENDING_MS) for row in waiting]
            later += [(seq, now + _pause(late.get(row, 0))) for seq, row in failed.items()]
            gone = [row.seq for row in late if row.seq not in dict(later)]
            await self._record(rows[-1].seq if rows else at, gone, later)
            for row in rows:
                portal.holds.pop(row.vid, None)
            if not failed:
                portal.went(follow=False, error=None)

    async def _push(self, todo: Sequence[ToPublish]) -> set[bytes]:
        """Publish these, and first what the portal lacks for them; those that it has afterwards."""
        done: set[bytes] = set()
        asked: set[bytes] = set()
        waiting = _sorted(todo)
        for _ in range(ROUNDS):
            failed: list[ToPublish] = []
            missing: list[bytes] = []
            for lot in _lots(waiting, 1 if self._portal.plain else LOT):
                outcomes = await self._publish(lot)
                stored = [(row, one.receipt) for row, one in zip(lot, outcomes, strict=True) if one.status in SUCCESSES]
                await self._keep(*await receipts.prove(self._portal, stored))
                for row, outcome in zip(lot, outcomes, strict=True):
                    if outcome.status in SUCCESSES:
                        done.add(row.vid)
                        self._portal.holds[row.vid] = row.seq  # in its own turn it need not go again
                    elif outcome.status == Status.LINKS_MISSING:
                        failed.append(row)
                        missing += _vids(outcome.missing)
                    else:
                        self._refused(row, outcome)
            new = [vid for vid in dict.fromkeys(missing) if vid not in asked]
            asked.update(new)
            connection = self._daemon.reader.connection
            extra = [row for row in store.by_vid(connection, new) if row.state is not State.PENDING]
            rest = [vid for vid in new if vid not in {row.vid for row in extra}]
            rows = chain_rows(self._daemon, rest)
            self._rows |= dict(zip(rest, rows, strict=False))
            if not failed or not (extra or rows):
                break
            waiting = _sorted(row for row in extra if row.vid not in done) + failed
        self._rows.clear()
        return done

    async def _keep(self, pin: PinRow | None, receipts: Sequence[Receipt]) -> None:
        """The receipts, with the checkpoint that they were proved under."""
        name = self._portal.name

        def write(connection: sqlite3.Connection, outcome: Taken) -> None:
            settle(connection, name, pin)
            portal_pins.put_receipts(connection, name, receipts)

        if receipts:
            await self._daemon.transact(write)

    async def _record(self, seq: int, done: Sequence[int], later: Sequence[tuple[int, int]]) -> None:
        """The portal's answer is in; what it says is remembered before anything else is sent."""
        name, now = self._portal.name, self._daemon.now_ms()

        def write(connection: sqlite3.Connection, outcome: Taken) -> None:
            check(connection, name)
            store.published(connection, name, seq, done=done, later=later, now_ms=now)

        await self._daemon.transact(write)

    async def _publish(self, lot: Sequence[ToPublish]) -> list[Outcome]:
        """One Publish; an Outcome for each, in order."""
        raws = versions.raws(self._daemon.reader.connection, [row.vid for row in lot])
        entries = await _entries([raws[row.vid][1] for row in lot])
        rows = list(self._rows.values()) or None
        link = self._portal.link
        single = self._portal.plain
        request = PublishRequest(entry=entries[0]) if single else PublishRequest(entries=entries, rows=rows)
        try:
            response, status, _ = await link.attempt("Publish", request, PublishResponse)
        except LocalProtocolError as exc:
            if len(lot) == 1:
                return [Outcome(status=int(Status.TOO_LARGE))]
            raise Refused(str(exc)) from exc
        if single:
            return [Outcome(status=status)]
        outcomes = response.outcomes if isinstance(response, PublishResponse) else None
        if outcomes is None or len(outcomes) != len(lot):
            raise refusal(status, response)
        if any(one.status == Status.SUSPENDED for one in outcomes):  # which no single version is to blame for
            raise refusal(Status.SUSPENDED, response)
        return outcomes

    def _refused(self, row: ToPublish, outcome: Outcome) -> None:
        status = outcome.status or 0
        if status == Status.QUOTA:
            error: MeshError = Refused("The portal is full: a quota of the account is used up.", hint="ask who runs it")
        elif status == Status.TOO_LARGE:
            error = Refused("The portal does not take an entry as large as one that is here.")
        else:
            error = Refused(f"The portal does not take a version that stands here (status {status}).")
        self._daemon.log.info("portal %s: kind %s refused with %s", self._portal.name, row.kind, status)
        self._portal.went(follow=False, error=error)

    # --- answers to devices that asked to join ------------------------------------------------------------------------

    async def _answer(self) -> None:
        """Deliver what was decided; the profile that an acceptance speaks of has gone before it."""
        portal, daemon = self._portal, self._daemon
        for device, text in store.answers(daemon.reader.connection, portal.name):
            request = ConnectCompleteRequest(account_id=portal.name, result=json.loads(text))
            try:
                await portal.link.ask("ConnectComplete", request, ConnectCompleteResponse)
            except NotFound:
                daemon.log.info("portal %s: %s does not wait for its answer any more", portal.name, device)
            await self._delivered(device)
            daemon.changed.bump()

    async def _delivered(self, device: str) -> None:
        name = self._portal.name
        await self._daemon.transact(lambda connection, outcome: store.answered(connection, name, device))


def _pause(attempts: int) -> int:
    return int(min(RETRY_MS * 2 ** min(attempts, 12), MOST_RETRY_MS))


def _sorted(rows: Iterable[ToPublish]) -> list[ToPublish]:
    return sorted(rows, key=lambda row: (_ORDER[Kind(row.kind)], row.gen, row.seq))


def _lots(rows: Sequence[ToPublish], most: int) -> Iterator[list[ToPublish]]:
    lot: list[ToPublish] = []
    size = 0
    for row in rows:
        if lot and (len(lot) >= most or size + row.size > LOT_BYTES):
            yield lot
            lot, size = [], 0
        lot.append(row)
        size += row.size
    if lot:
        yield lot


def _vids(texts: Iterable[str] | None) -> list[bytes]:
    found = []
    for text in texts or ():
        try:
            found.append(base64url.decode(text))
        except FormatError:
            continue
    return [vid for vid in found if len(vid) == 32]


async def _entries(raws: Sequence[bytes]) -> list[dict[str, object]]:
    def convert() -> list[dict[str, object]]:
        return [version.stored_json(raw) for raw in raws]

    return convert() if len(raws) <= _PARALLEL else await trio.to_thread.run_sync(convert)
