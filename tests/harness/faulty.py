"""Faults made to order: a hook that fails at its n-th call, every fault of a piece of work in turn, and crash images.

The code under test calls its `fault` hook at named points. A run without faults counts the calls; after that each of
them gets a run of its own in which it, and everything after it, fails: as if the process had died there.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path


class Injected(Exception):
    """The fault that a test asked for."""


class Faults:
    """A fault hook. Fails at call number `at` (from 0) and, unless `once`, at every later one; records its calls."""

    def __init__(self, at: int | None = None, *, once: bool = False) -> None:
        self.at = at
        self.once = once
        self.points: list[str] = []

    def __call__(self, point: str) -> None:
        number = len(self.points)
        self.points.append(point)
        if self.at is not None and (number == self.at if self.once else number >= self.at):
            raise Injected(f"{point}, call {number}")

    @property
    def struck(self) -> str | None:
        """The point at which it failed first, if it did."""
        return None if self.at is None or len(self.points) <= self.at else self.points[self.at]


class FaultAt:
    """A fault hook that fails at one named point, `times` times, after `skip` calls that it lets pass."""

    def __init__(self, point: str, *, skip: int = 0, times: int = 1, error: BaseException | None = None) -> None:
        self.point = point
        self.skip = skip
        self.left = times
        self.error = error or Injected(point)

    def __call__(self, point: str) -> None:
        if point != self.point:
            return
        if self.skip:
            self.skip -= 1
        elif self.left:
            self.left -= 1
            raise self.error


class Interrupts:
    """Stops SQLite in the middle of what it does: at the `at`-th lot of its machine's steps, and from then on, or
    `once`."""

    def __init__(self, at: int | None, *, once: bool = False, steps: int = 200) -> None:
        self.at = at
        self.once = once
        self.lots = 0
        self._steps = steps

    def arm(self, connection: sqlite3.Connection) -> None:
        """On this connection, in the thread that it belongs to."""
        connection.set_progress_handler(self._lot, self._steps)

    def _lot(self) -> bool:
        self.lots += 1
        return self.at is not None and (self.lots == self.at if self.once else self.lots >= self.at)


def spread(lots: int, places: int) -> list[int]:
    """So many places between the first lot and the last."""
    return sorted({1 + place * (lots - 1) // (places - 1) for place in range(places)})


def every_fault(work: Callable[[Faults], None], *, once: bool = False) -> Iterator[Faults]:
    """Run `work` without a fault, then once for each fault point that it passed; yields after each run, for the checks.

    `work` must swallow what the faults cause, as a crash leaves nobody to tell; it begins anew each time.
    """
    free = Faults()
    work(free)
    yield free
    for number in range(len(free.points)):
        faults = Faults(number, once=once)
        work(faults)
        yield faults


def crash_image(database: Path, target: Path) -> Path:
    """Copy a store as a killed process leaves it: the file and its log, without the index in shared memory."""
    shutil.copyfile(database, target)
    log = database.with_name(database.name + "-wal")
    copy = target.with_name(target.name + "-wal")
    copy.unlink(missing_ok=True)
    if log.exists():
        shutil.copyfile(log, copy)
    return target


def flip(path: Path, offset: int, length: int = 1) -> None:
    """Invert bytes of a file in place."""
    data = bytearray(path.read_bytes())
    data[offset : offset + length] = bytes(byte ^ 0xFF for byte in data[offset : offset + length])
    path.write_bytes(data)
