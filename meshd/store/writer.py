"""The one thread that writes a store: many callers, one commit (group commit).

The idea is compute, commit, then tell: functions that wait in the queue run in one transaction, each in a savepoint of
its own, and no future is resolved before the COMMIT that holds its work has returned. Whatever a function raises undoes
that function alone. Functions may keep memory in step with the database (the replica does); so after anything was
rolled back, `on_reset` runs before the next function does, and rebuilds that memory from what the connection then says.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from meshd.errors import StoreError
from meshd.store.db import Database, mapped, rollback

T = TypeVar("T")
# Bounds of one transaction: how long the first function in it may wait for the last.
MAX_BATCH = 256
MAX_SECONDS = 0.05
# Where a fault hook is called. What it raises there is treated as the failure of that step.
POINTS = ("before-fn", "before-commit", "after-commit")


@dataclass(frozen=True, slots=True)
class _Job:
    fn: Callable[[sqlite3.Connection], Any]
    future: Future[Any]


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What a function came to; told when that is on disk."""

    future: Future[Any]
    result: Any = None
    error: BaseException | None = None

    def tell(self, failure: BaseException | None = None) -> None:
        """Resolve the future; `failure` is what the whole batch came to."""
        error = self.error or failure
        if error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(error)


class Writer:
    """Runs functions on the writing connection, in the order in which they were submitted.

    From here until `close`, the database's connection belongs to the writer's thread. Read elsewhere through a Reader.

    `on_reset` is called without arguments, in the writer's thread. It must read through the database's own connection:
    in the middle of a batch only that one sees what the functions before it wrote. If it raises, memory can't be
    trusted any more: the writer stops for good, and everything submitted fails.

    A function should check its input before it changes anything, in the database or in memory: what it raises costs a
    reset. It must not commit, roll back, or wait for another submitted function.

    `last` is called with the connection as the last thing in each transaction; what it raises undoes all of it.
    `durable` is called when the COMMIT has returned, before any future is told; it must not raise.
    """

    def __init__(
        self,
        database: Database,
        on_reset: Callable[[], None] = lambda: None,
        *,
        fault: Callable[[str], None] | None = None,
        last: Callable[[sqlite3.Connection], None] = lambda connection: None,
        durable: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._connection = database.connection
        self._on_reset = on_reset
        self._fault = fault or (lambda point: None)
        self._last, self._durable = last, durable
        self._jobs: deque[_Job] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._broken: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def submit(self, fn: Callable[[sqlite3.Connection], T]) -> Future[T]:
        """Queue `fn`; any thread. The future resolves when its work is durable, or raises what `fn` or the commit did.

        Errors of SQLite come as StoreErrors. A future that fails says nothing durable happened — except after a failed
        COMMIT or a fault after it, where it may have; whoever repeats the work must find it idempotent (by vid).
        """
        future: Future[T] = Future()
        with self._wake:
            if self._closing:
                raise StoreError("the store is closed")
            if self._broken is not None:
                raise StoreError(f"the store stopped writing: {self._broken}")
            self._jobs.append(_Job(fn, future))
            self._wake.notify()
        return future

    def run(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Submit and wait: durable when this returns. Not from the writer's own thread."""
        if threading.current_thread() is self._thread:
            raise RuntimeError("a function in the writer waits for the writer")
        return self.submit(fn).result()

    def close(self) -> None:
        """Finish what was submitted, then end the thread. The database stays open; it is its owner's to close."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        while jobs := self._next_batch():
            batch = [job for job in jobs if job.future.set_running_or_notify_cancel()]
            while batch and self._broken is None:
                batch = self._commit(batch)
            for job in batch:
                job.future.set_exception(StoreError(f"the store stopped writing: {self._broken}"))

    def _next_batch(self) -> list[_Job]:
        """What is waiting, at most MAX_BATCH; waits for the first. Empty when closed and drained."""
        with self._wake:
            while not self._jobs and not self._closing:
                self._wake.wait()
            return [self._jobs.popleft() for _ in range(min(len(self._jobs), MAX_BATCH))]

    def _commit(self, batch: list[_Job]) -> list[_Job]:
        """Run a batch in one transaction and tell its futures. Returns what has not run, to be run in the next one."""
        rest = deque(batch)
        outcomes: list[_Outcome] = []
        failure: BaseException | None = None
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except BaseException as exc:
            for job in rest:
                job.future.set_exception(_told(exc))
            return []
        try:
            self._run_until_full(rest, outcomes)
            self._last(self._connection)
            self._fault("before-commit")
            self._connection.execute("COMMIT")
        except BaseException as exc:
            failure = _told(exc)
            rollback(self._connection)
            self._reset()
        else:
            try:
                self._durable()
                self._fault("after-commit")
            except BaseException as exc:
                failure = exc
        for outcome in outcomes:
            outcome.tell(failure)
        return list(rest)

    def _run_until_full(self, rest: deque[_Job], outcomes: list[_Outcome]) -> None:
        """Run functions until none is left or the time is up; raises when the transaction is lost."""
        alone = len(rest) == 1
        until = time.monotonic() + MAX_SECONDS
        while rest and self._broken is None and (not outcomes or time.monotonic() < until):
            job = rest.popleft()
            try:
                outcomes.append(_Outcome(job.future, self._attempt(job, alone)))
            except BaseException as exc:
                outcomes.append(_Outcome(job.future, error=_told(exc)))
                # SQLite gives up a whole transaction by itself after some errors (disk full, I/O).
                if alone or not self._connection.in_transaction:
                    raise
                self._connection.execute("ROLLBACK TO job")
                self._connection.execute("RELEASE job")
                self._reset()

    def _attempt(self, job: _Job, alone: bool) -> Any:
        # A savepoint copies every page before its first change, half as much work again. A function that has the
        # transaction to itself is undone with it and needs none.
        if not alone:
            self._connection.execute("SAVEPOINT job")
        self._fault("before-fn")
        result = job.fn(self._connection)
        if not alone:
            self._connection.execute("RELEASE job")
        return result

    def _reset(self) -> None:
        try:
            self._on_reset()
        except BaseException as exc:
            with self._wake:
                self._broken = exc


def _told(exc: BaseException) -> BaseException:
    """What a future raises for `exc`."""
    if isinstance(exc, sqlite3.Error):
        error = mapped(exc)
        error.__cause__ = exc
        return error
    return exc
