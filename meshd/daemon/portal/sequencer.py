"""The one place where a portal's state changes: sequence, make durable, answer (protocol D1.3).

    request ── verified outside ──► its account's queue ──► one transaction for all that wait ──► disk ──► answers

A decision is made within the transaction that commits it, on the writer's thread, so that no two of them miss each
other. Accounts take turns: who sends a thousand versions delays nobody who sends one. What only reads is decided at
once, over a connection of its own. The store behind it is used through three things — a view to read, a view within a
transaction, and `apply` — which is all that another store would have to offer.
"""

from __future__ import annotations

import sqlite3
import time
from collections import OrderedDict, deque
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
from meshd.daemon.portal.writes import Applied, Writing, merge
from meshd.errors import StoreBusy, StoreError
from meshd.portal import decide, decide_publish
from meshd.portal.checked import Checked, Publish
from meshd.portal.messages import CreateResponse, GetRecordsResponse, PublishResponse, Response
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


class Turns:
    """At most so many at work, and accounts in turn for what becomes free."""

    def __init__(self, places: int, waiting: int) -> None:
        self._free, self._most = places, waiting
        self._queues: OrderedDict[str, deque[trio.Event]] = OrderedDict()
        self._count = 0

    @property
    def waiting(self) -> int:
        return self._count

    @property
    def busy(self) -> bool:
        """Has whoever comes now to wait?"""
        return not self._free

    def turn(self, who: str) -> _Turn:
        """Hold a place within `async with`. StoreBusy when too many wait already."""
        return _Turn(self, who)

    async def take(self, who: str) -> None:
        if self._free:
            self._free -= 1
        else:
            await self._wait(who)

    async def _wait(self, who: str) -> None:
        if self._count >= self._most:
            raise StoreBusy("the portal has more to write than it can")
        event = trio.Event()
        self._queues.setdefault(who, deque()).append(event)
        self._count += 1
        try:
            await event.wait()
        except BaseException:
            if event.is_set():
                self.give()  # the place came when nobody wanted it any more
            else:
                self._remove(who, event)
            raise

    def _remove(self, who: str, event: trio.Event) -> None:
        queue = self._queues[who]
        queue.remove(event)
        self._count -= 1
        if not queue:
            del self._queues[who]

    def give(self) -> None:
        """Give a place back: to who is next."""
        if not self._queues:
            self._free += 1
            return
        who, queue = next(iter(self._queues.items()))
        event = queue.popleft()
        self._count -= 1
        if queue:
            self._queues.move_to_end(who)
        else:
            del self._queues[who]
        event.set()


class _Turn:
    __slots__ = ("_turns", "_who")

    def __init__(self, turns: Turns, who: str) -> None:
        self._turns, self._who = turns, who

    async def __aenter__(self) -> None:
        await self._turns.take(self._who)

    async def __aexit__(self, *_: object) -> None:
        self._turns.give()


@dataclass(slots=True)
class _Asked:
    """What one request wants decided, in order, and what came of it."""

    several: Sequence[Checked]
    context: Context
    done: trio.Event = field(default_factory=trio.Event)
    decisions: list[Decision] = field(default_factory=list)
    error: BaseException | None = None


@dataclass(slots=True)
class _Waiter:
    event: trio.Event
    watchers: int = 0


class Feeds:
    """Who waits for news of a mesh."""

    def __init__(self) -> None:
        self._waiters: dict[str, _Waiter] = {}

    @property
    def waiting(self) -> int:
        return sum(one.watchers for one in self._waiters.values())

    def moved(self, mesh: str) -> None:
        waiter = self._waiters.pop(mesh, None)
        if waiter is not None:
            waiter.event.set()

    def all(self) -> None:
        """Everybody: the portal stops."""
        for mesh in list(self._waiters):
            self.moved(mesh)

    def event(self, mesh: str) -> trio.Event:
        """An event that is set when something is added for this mesh. Take it before looking, wait for it after."""
        waiter = self._waiters.setdefault(mesh, _Waiter(trio.Event()))
        waiter.watchers += 1
        return waiter.event

    def leave(self, mesh: str, event: trio.Event) -> None:
        waiter = self._waiters.get(mesh)
        if waiter is not None and waiter.event is event:
            waiter.watchers -= 1
            if not waiter.watchers:
                del self._waiters[mesh]


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
        with store_errors():
            connection.execute("BEGIN")
            try:
                with self.view.deciding(context.now):
                    decision = decide.decide(checked, context, self.view)
                return self._with_receipts(decision, context)
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
            return decision

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
        if not _wants_receipts(context):
            return asked.decisions
        with store_errors():
            return [self._with_receipts(decision, context) for decision in asked.decisions]

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

    def _with_receipts(self, decision: Decision, context: Context) -> Decision:
        """What was stored, or is shown, with the proof that the log has it, for who asks for that."""
        reply = decision.reply
        if self.log is None or not isinstance(decision, Accept) or not _wants_receipts(context):
            return decision
        if isinstance(reply, PublishResponse | CreateResponse) and reply.transaction_id is not None:
            (receipt,) = self.log.receipts(self.view.connection, [place_of(reply.transaction_id) or 0])
            shown: Response = msgspec.structs.replace(reply, receipt=receipt)
        elif isinstance(reply, GetRecordsResponse) and reply.data_items:
            places = [place_of(item.transaction_id) or 0 for item in reply.data_items]
            receipts = self.log.receipts(self.view.connection, places)
            shown = msgspec.structs.replace(reply, receipts=[receipt or "" for receipt in receipts])
        else:
            return decision
        return Accept(decision.writes, shown, decision.feed)

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


def _named(decision: Accept, applied: Applied, context: Context) -> Accept:
    """The answer to a client of ours says which place of the log it got."""
    reply = decision.reply
    if context.plain or not applied.places or not isinstance(reply, PublishResponse | CreateResponse):
        return decision
    named = msgspec.structs.replace(reply, transaction_id=tid_of(applied.places[-1]))
    return Accept(decision.writes, named, decision.feed)
