"""The one thread that writes a store: many callers, one commit (group commit).

The idea is compute, commit, then tell: functions that wait in the queue run in one transaction, each in a savepoint of its
own, and no future is resolved before the COMMIT that holds its work has returned. Whatever a function raises undoes that
function alone. Functions may keep memory in step with the database (the replica does); so after anything was rolled
back, `on_reset` runs before the next function does, and rebuilds that memory from what the connection then says.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from meshd.errors import StoreError
from meshd.store.db import Database, mapped, rollback

T = TypeVar("T")
MAX_BATCH = 256  # functions in one transaction: bounds how long the first of them waits for the last
# Where a fault hook is called. What it raises there is treated as the failure of that step.
POINTS = ("before-fn", "before-commit", "after-commit")


@dataclass(frozen=True, slots=True)
class _Job:
    fn: Callable[[sqlite3.Connection], Any]
    future: Future[Any]


@dataclass(frozen=True, slots=True)
class _Done:
    """A function that ran to its end; its result may be told once it is on disk."""

    future: Future[Any]
    result: Any


class Writer:
    """Runs functions on the writing connection, in the order in which they were submitted.

    From here until `close`, the database's connection belongs to the writer's thread. Read elsewhere through a Reader.

    `on_reset` is called without arguments, in the writer's thread. It must read through the database's own connection:
    in the middle of a batch only that one sees what the functions before it wrote. If it raises, memory can't be trusted any
    more: the writer stops for good, and everything submitted fails.

    A function should check its input before it changes anything, in the database or in memory: what it raises costs a
    reset. It must not commit, roll back, or wait for another submitted function.
    """

    def __init__(
        self,
        database: Database,
        on_reset: Callable[[], None] = lambda: None,
        *,
        fault: Callable[[str], None] | None = None,
    ) -> None:
        self._database = database
        self._connection = database.connection
        self._on_reset = on_reset
        self._fault = fault or (lambda point: None)
        self._jobs: deque[_Job] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._broken: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def submit(self, fn: Callable[[sqlite3.Connection], T]) -> Future[T]:
        """Queue `fn`; any thread. The future resolves when its work is durable, or raises what `fn` or the commit raised.

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
        while batch := self._next_batch():
            while batch and self._broken is None:
                batch = self._commit(batch)
            for job in batch:
                _fail(job.future, StoreError(f"the store stopped writing: {self._broken}"))

    def _next_batch(self) -> list[_Job]:
        """What is waiting, at most MAX_BATCH; waits for the first. Empty when closed and drained."""
        with self._wake:
            while not self._jobs and not self._closing:
                self._wake.wait()
            return [self._jobs.popleft() for _ in range(min(len(self._jobs), MAX_BATCH))]

    def _commit(self, batch: list[_Job]) -> list[_Job]:
        """Run a batch in one transaction and tell its futures. Returns what has not run, to be run in the next one."""
        done: list[_Done] = []
        rest = deque(batch)
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            while rest:
                job = rest.popleft()
                if job.future.set_running_or_notify_cancel() and not self._attempt(job, done):
                    break
            self._fault("before-commit")
            self._connection.execute("COMMIT")
        except BaseException as exc:
            rollback(self._connection)
            self._reset()
            error = _told(exc)
            for entry in done:
                _fail(entry.future, error)
            if not done and rest:  # BEGIN failed, or what broke the transaction was told already: do not try for ever
                _fail(rest.popleft().future, error)
            return list(rest)
        try:
            self._fault("after-commit")
        except BaseException as exc:
            for entry in done:
                _fail(entry.future, exc)
            return list(rest)
        for entry in done:
            entry.future.set_result(entry.result)
        return list(rest)

    def _attempt(self, job: _Job, done: list[_Done]) -> bool:
        """Run one function in its savepoint. False: the writer is broken, and the batch ends here."""
        try:
            self._connection.execute("SAVEPOINT job")
            self._fault("before-fn")
            result = job.fn(self._connection)
            self._connection.execute("RELEASE job")
        except BaseException as exc:
            error = _told(exc)
            try:
                if not self._connection.in_transaction:  # SQLite gave up the whole transaction (disk full, I/O error)
                    raise
                self._connection.execute("ROLLBACK TO job")
                self._connection.execute("RELEASE job")
            except BaseException:
                _fail(job.future, error)
                raise
            self._reset()
            _fail(job.future, error)
            return self._broken is None
        done.append(_Done(job.future, result))
        return True

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


def _fail(future: Future[Any], exc: BaseException) -> None:
    if not future.done() and not future.cancelled():
        future.set_exception(exc)
