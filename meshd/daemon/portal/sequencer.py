"""The one place where a portal's state changes: sequence, make durable, answer (protocol D1.3).

    request ── verified outside ──► its account's queue ──► one transaction for all that wait ──► disk ──► answers

A decision is made within the transaction that commits it, on the writer's thread, so that no two of them miss each
other. Accounts take turns: who sends a thousand versions delays nobody who sends one. What only reads is decided at
once, over a connection of its own. The store behind it is used through three things — a view to read, a view within a
transaction, and `apply` — which is all that another store would have to offer.
"""

from __future__ import annotations

import copy
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import trio

from meshd.daemon.portal.authorities import Authorities, Moves
from meshd.daemon.portal.log import INTERVAL, Log, LogBehind
from meshd.daemon.portal.mirrored import Mirrored, mirror_of
from meshd.daemon.portal.replaying import Entry, Replaying
from meshd.daemon.portal.shown import Shown
from meshd.daemon.portal.tree import LogForked, Tree
from meshd.daemon.portal.view import SqliteView, place_of, tid_of
from meshd.daemon.portal.waiting import Feeds, Turns
from meshd.daemon.portal.writes import Applied, Writing, merge
from meshd.errors import StoreError
from meshd.portal import decide, decide_publish
from meshd.portal.checked import Checked, Publish
from meshd.portal.messages import CreateResponse, GetRecordsResponse, PublishResponse
from meshd.portal.outcomes import Accept, Context, Decision
from meshd.store import portal_rows
from meshd.store.db import Database, get_meta, store_errors
from meshd.store.portal_db import open_portal
from meshd.store.writer import Writer
from meshd.tlog.frontier import Frontier

IN_FLIGHT = 128  # decisions that the writer has at once: enough for one large commit, few enough for turns to matter
WAITING = 4096  # that wait for their turn; more are told to come again
BATCH_EACH = 100  # entries of a batch that one transaction takes
EXTENSION = "log"  # in Mesh-Extensions: receipts are wanted
ANSWERS_KEPT = 7 * 24 * 3600
NOTICES_KEPT = 100_000


@dataclass(slots=True)
class _Asked:
    """What one request wants decided, in order, and what came of it."""

    several: Sequence[Checked]
    context: Context
    done: trio.Event = field(default_factory=trio.Event)
    decisions: list[Decision] = field(default_factory=list)
    error: BaseException | None = None


class Sequencer:
    """The engine of one portal. Make it, and `close` it, within trio; every method belongs to its thread.

    `domain` is in whose name the log is signed; without one it is kept, and not shown. `fault` is for tests."""

    def __init__(
        self,
        path: Path,
        *,
        create: bool = True,
        domain: str = "",
        interval: int = INTERVAL,
        clock: Callable[[], float] = time.time,
        told: Callable[[Applied], None] = lambda applied: None,
        fault: Callable[[str], None] | None = None,
    ) -> None:
        self._database: Database = open_portal(path, create=create)
        try:
            self._reading: Database = open_portal(path, readonly=True)
        except BaseException:
            self._database.close()
            raise
        connection = self._database.connection
        self._moves = Moves()
        self._writing = SqliteView(connection, Authorities(connection))
        self.log: Shown | None = None
        self.mirrors = mirror_of(connection)  # the log that is mirrored here; None in a portal of its own
        try:
            self._tree = Tree(connection, clock=clock)
            self._tree.catch_up(connection)
            known = (get_meta(connection, "domain") or domain.encode()).decode()
            if self.mirrors is not None:
                self.log = Mirrored.of(connection, self._tree.edge.size, clock=clock)
            elif known and domain in ("", known):  # of another domain: whoever runs it will refuse
                self.log = Log(connection, known, self._tree.edge, interval=interval, clock=clock)
        except BaseException:
            self._reading.close()
            self._database.close()
            raise
        self._apply = Writing(self._writing, self._tree.place)
        self._replaying = Replaying(self._writing)
        self._writer = Writer(self._database, self._forget, fault=fault, last=self._seal, durable=self._sign)
        reader = self._reading.connection
        self.view = SqliteView(reader, Authorities(reader, self._moves))
        self.view.mirror = self._writing.mirror = self.mirrors is not None
        self.show(self.log)
        self.turns = Turns(IN_FLIGHT, WAITING)
        self.feeds = Feeds()
        self._asked: list[_Asked] = []  # for the writer, when this round of the loop is over
        self._told = told
        self._token = trio.lowlevel.current_trio_token()
        self._closed = False

    def _forget(self) -> None:
        """Something was rolled back; the writer's thread."""
        self._writing.forget()
        self._tree.reset(self._database.connection)

    def _seal(self, connection: sqlite3.Connection) -> None:
        """The last thing in each transaction; the writer's thread."""
        self._tree.seal(connection)
        if self._tree.growing and self.log is not None:
            self.log.keep(connection)  # the note of the checkpoint before, which costs no commit of its own

    def _sign(self) -> None:
        """The COMMIT returned, and nobody was told; the writer's thread."""
        if self._tree.sealed() and self.log is not None:
            self.log.sign(self._tree.edge)

    def show(self, log: Shown | None) -> None:
        """What Status, receipts and Transfer show from now on."""
        self.log = self.view.log = self._writing.log = log

    @property
    def own_log(self) -> Log | None:
        """The log that this portal signs; None where there is none, or another's is mirrored."""
        return self.log if isinstance(self.log, Log) else None

    @property
    def edge(self) -> Frontier:
        """The right edge of what is stored and sealed."""
        return self._tree.edge

    def close(self) -> None:
        """Finish what the writer has, and close the store."""
        if self._closed:
            return
        self._closed = True
        self._writer.close()
        self._reading.close()
        self._database.checkpoint()
        self._database.close()

    def read(self, checked: Checked, context: Context) -> Decision:
        """Decide by what is committed. Writes that come out are not made: see `decide`."""
        # One transaction for all its questions: one state of the store, and one look at the log's locks instead of ten.
        connection = self.view.connection
        self.view.authorities.look()
        # As it is signed before the store is looked at, which then holds all that was signed; not what is signed since.
        self.view.log = copy.copy(self.log)
        with store_errors():
            connection.execute("BEGIN")
            try:
                with self.view.deciding(context.now):
                    decision = decide.decide(checked, context, self.view)
                return self._page_with_receipts(decision, context)
            finally:
                connection.execute("ROLLBACK")

    async def decide(self, checked: Checked, context: Context, who: str) -> Decision:
        """Decide and commit; returns when it is on disk. `who` is whose turn it uses. StoreError: nothing happened,
        or nobody knows whether it did — all of it may be asked again. LogBehind: this store is an old copy."""
        if self.log is not None and self.log.ahead is not None:
            raise LogBehind(self.log.ahead)
        if isinstance(checked, Publish) and checked.batch:
            return await self._batch(checked, context, who)
        async with self.turns.turn(who):
            (decision,) = await self._submit([checked], context)
        with store_errors():
            return self._page_with_receipts(decision, context)  # a look-up that is noted is shown as any other

    async def _batch(self, checked: Publish, context: Context, who: str) -> Decision:
        """Entry by entry, in pieces that leave turns to others."""
        replies: list[PublishResponse] = []
        single = decide_publish.split(checked)
        for start in range(0, len(single), BATCH_EACH):
            async with self.turns.turn(who):
                for decision in await self._submit(single[start : start + BATCH_EACH], context):
                    assert isinstance(decision.reply, PublishResponse)
                    replies.append(decision.reply)
        return Accept((), decide_publish.join(replies))

    async def _submit(self, several: Sequence[Checked], context: Context) -> list[Decision]:
        """What the writer decides. Whatever is asked in one round of the loop is one function for it."""
        asked = _Asked(several, context)
        if not self._asked:
            self._token.run_sync_soon(self._hand_over)
        self._asked.append(asked)
        # Whoever asked may go away; what was decided for him is committed all the same.
        await asked.done.wait()
        if asked.error is not None:
            raise asked.error
        if self.log is None or not _wants_receipts(context):
            return asked.decisions
        with store_errors():
            return self._with_receipts(self.log, asked.decisions)

    def _hand_over(self) -> None:
        """Everything that was asked, in functions that leave a transaction its bound on time."""
        lot: list[_Asked] = []
        size = 0
        for asked in self._asked:
            if lot and size + len(asked.several) > BATCH_EACH:
                self._decide_all(lot)
                lot, size = [], 0
            lot.append(asked)
            size += len(asked.several)
        self._asked = []
        self._decide_all(lot)

    def _decide_all(self, lot: list[_Asked]) -> None:
        def work(connection: sqlite3.Connection) -> Applied:
            whole = Applied()
            for asked in lot:
                asked.decisions = [self._decide_one(checked, asked.context, whole) for checked in asked.several]
            return whole

        def told(error: BaseException | None) -> None:
            if error is not None and not isinstance(error, StoreError) and len(lot) > 1:
                for asked in lot:  # a mistake of ours, which no other request is to suffer from
                    self._decide_all([asked])
                return
            for asked in lot:
                asked.error = error
                asked.done.set()

        self._start(work, told)

    def _decide_one(self, checked: Checked, context: Context, whole: Applied) -> Decision:
        """Within the transaction; the writer's thread."""
        with self._writing.deciding(context.now):
            decision = decide.decide(checked, context, self._writing)
        if isinstance(decision, Accept) and decision.writes:
            applied = self._apply.apply(decision.writes, context.now)
            decision = _named(decision, applied, context)
            merge(whole, applied)
        return decision

    def _with_receipts(self, log: Shown, decisions: list[Decision]) -> list[Decision]:
        """What was stored, with the proofs that the log has it."""
        places = [_place_of(decision) for decision in decisions]
        receipts = iter(log.receipts(self.view.connection, [place for place in places if place]))
        return [
            _replaced(decision, receipt=next(receipts)) if place else decision
            for decision, place in zip(decisions, places, strict=True)
        ]

    def _page_with_receipts(self, decision: Decision, context: Context) -> Decision:
        """What is shown, with a proof for each record, for who asks for that."""
        reply = decision.reply
        log = self.view.log
        if log is None or not _wants_receipts(context) or not isinstance(reply, GetRecordsResponse):
            return decision
        if not reply.data_items:
            return decision
        places = [place_of(item.transaction_id) or 0 for item in reply.data_items]
        receipts = log.receipts(self.view.connection, places)
        return _replaced(decision, receipts=[receipt or "" for receipt in receipts])

    async def _run(self, work: Callable[[sqlite3.Connection], Applied]) -> None:
        done = trio.Event()
        failed: list[BaseException] = []

        def told(error: BaseException | None) -> None:
            failed.extend([error] if error is not None else [])
            done.set()

        self._start(work, told)
        await done.wait()
        if failed:
            raise failed[0]

    def _start(
        self, work: Callable[[sqlite3.Connection], Applied], told: Callable[[BaseException | None], None]
    ) -> None:
        """Let the writer do it. `told` is called when it is on disk, or with what went wrong."""

        def committed(finished: Future[Applied]) -> None:  # on the writer's thread
            error = finished.exception()
            if error is None:
                for mesh in finished.result().profiles:
                    self._moves.profile(mesh)
                for mesh in finished.result().whole:
                    self._moves.whole(mesh)
            try:
                self._token.run_sync_soon(self._finish, error, None if error is not None else finished.result(), told)
            except trio.RunFinishedError:
                pass

        try:
            future = self._writer.submit(work)
        except StoreError as exc:
            told(exc)
            return
        future.add_done_callback(committed)

    def _finish(
        self, error: BaseException | None, applied: Applied | None, told: Callable[[BaseException | None], None]
    ) -> None:
        if applied is not None:
            for mesh in applied.moved:
                self.feeds.moved(mesh)
            self._told(applied)
        told(error)

    async def change(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """Any other change, by an administrator of the portal or by the clock."""

        def wrapped(connection: sqlite3.Connection) -> Applied:
            work(connection)
            return Applied()

        await self._run(wrapped)

    async def replay(self, entries: Sequence[Entry], after: Frontier) -> None:
        """Store a verified page of a log behind what is here, all of it or nothing; `after` is the edge after it.

        NotTheEntry; LogForked where somebody else has written meanwhile."""

        def work(connection: sqlite3.Connection) -> Applied:
            if self._tree.edge.size + len(entries) != after.size:
                raise LogForked("something else was written where a page of the log belongs")
            return self._replaying.apply(entries)

        await self._run(work)
        if self._tree.edge != after:
            raise LogForked("what was stored of the log is another tree", hint="let one process write to a store")

    async def write(self, work: Callable[[sqlite3.Connection, Writing], Applied]) -> None:
        """What this portal itself puts into its log."""
        await self._run(lambda connection: work(connection, self._apply))

    async def sweep(self, now: int) -> None:
        """Forget what has expired."""
        await self.change(
            lambda connection: portal_rows.sweep(
                connection, now, answers_before=now - ANSWERS_KEPT, notices=NOTICES_KEPT
            )
        )


def _wants_receipts(context: Context) -> bool:
    return context.extensions is not None and EXTENSION in context.extensions


def _place_of(decision: Decision) -> int | None:
    """The place of the log that the answer to a Publish or CreateAccount names."""
    reply = decision.reply
    if not isinstance(decision, Accept) or not isinstance(reply, PublishResponse | CreateResponse):
        return None
    return place_of(reply.transaction_id) if reply.transaction_id is not None else None


def _replaced(decision: Decision, **members: object) -> Decision:
    """The decision with these members of its answer."""
    assert isinstance(decision, Accept)
    return Accept(decision.writes, msgspec.structs.replace(decision.reply, **members), decision.feed)


def _named(decision: Accept, applied: Applied, context: Context) -> Accept:
    """The answer to a client of ours says which place of the log it got."""
    reply = decision.reply
    if context.plain or not applied.places or not isinstance(reply, PublishResponse | CreateResponse):
        return decision
    named = msgspec.structs.replace(reply, transaction_id=tid_of(applied.places[-1]))
    return Accept(decision.writes, named, decision.feed)
