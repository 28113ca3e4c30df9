"""What the machine does while something is measured, and what it can do at best: the other half of every ratio."""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from meshd.crypto.keys import SigningKey

TICKS = os.sysconf("SC_CLK_TCK")
FLOOR_ROUNDS = 300


def percentile(values: Iterable[float], percent: float) -> float:
    """Linear between the nearest ranks."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def median(values: Iterable[float]) -> float:
    return percentile(values, 50)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its helpers, those included that it has waited for."""
    processes = _processes()
    return sum(processes[one].used for one in _family(pid, processes))


def memory(pid: int, field: str = "VmRSS") -> float:
    """MiB of VmRSS now, or of VmHWM, the most it ever was; of a process and its helpers."""
    total = 0.0
    for one in _family(pid, _processes()):
        for line in Path(f"/proc/{one}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                total += int(line.split()[1]) / 1024
    return total


def favour(pid: int, nice: int) -> None:
    """Let a process and its session go first on a machine that others use too; the scheduler groups by sessions."""
    if nice:
        os.setpriority(os.PRIO_PROCESS, pid, nice)
        with contextlib.suppress(OSError):
            Path(f"/proc/{pid}/autogroup").write_text(str(nice))


def wake_ups(pid: int) -> int:
    """How often its threads went to sleep by themselves."""
    count = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches:"):
                count += int(line.split()[1])
    return count


@dataclass
class Foreign:
    """CPU used by processes that we did not start, in cores: above 0.2 the machine was busy with other things."""

    cores: float = 0.0
    _start: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __enter__(self) -> Self:
        self._start = self._read()
        return self

    def __exit__(self, *_: object) -> None:
        wall, busy, own = (after - before for after, before in zip(self._read(), self._start, strict=True))
        self.cores = round(max(0.0, (busy - own) / wall), 2) if wall else 0.0

    @staticmethod
    def _read() -> tuple[float, float, float]:
        fields = [int(part) for part in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
        busy = sum(fields[:3] + fields[5:7]) / TICKS  # without idle, waiting for disks, and steal
        return time.monotonic(), busy, _own_cpu()


def _own_cpu() -> float:
    return cpu_seconds(os.getpid())


@dataclass(frozen=True)
class _Process:
    parent: int
    used: float  # seconds, with the children that it waited for


def _processes() -> dict[int, _Process]:
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it ended
            found[int(entry.name)] = _Process(int(fields[1]), sum(int(part) for part in fields[11:15]) / TICKS)
    return found


def _family(pid: int, processes: dict[int, _Process]) -> list[int]:
    found = [pid]
    for one in found:
        found += [child for child, process in processes.items() if process.parent == one]
    return found


def describe() -> dict[str, Any]:
    """What a reader of the figures must know of the machine."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": sys.version.split()[0],
        "sqlite": sqlite3.sqlite_version,
        "load": os.getloadavg()[0],
        "disk": _file_system(tempfile.gettempdir()),
    }


def _file_system(path: str) -> str:
    best, kind = "", "?"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, found = line.split()[:3]
        if os.path.realpath(path).startswith(mount) and len(mount) > len(best):
            best, kind = mount, found
    return kind


def floors() -> dict[str, float]:
    """Medians in milliseconds: one durable append, one signature and one verification of an item, one small commit."""
    key = SigningKey.generate(secrets.token_bytes)
    data = secrets.token_bytes(2600)  # what the signature of an item of 1 KB covers
    signature = key.sign(data)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        with (
            (path / "log").open("ab", buffering=0) as log,
            contextlib.closing(sqlite3.connect(path / "db", isolation_level=None)) as db,
        ):
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("CREATE TABLE t (k BLOB PRIMARY KEY, v BLOB)")

            def append() -> None:
                log.write(data[:1024])
                os.fdatasync(log.fileno())

            def commit() -> None:
                db.execute("INSERT INTO t VALUES (?, ?)", (secrets.token_bytes(32), data))

            return {
                "fsync": _median_ms(append),
                "sign": _median_ms(lambda: key.sign(data)),
                "verify": _median_ms(lambda: key.verify_key.verify(signature, data)),
                "commit": _median_ms(commit),
            }


def _median_ms(work: Callable[[], object]) -> float:
    times = []
    for _ in range(FLOOR_ROUNDS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return median(times) * 1000


def rate_of_fifths(points: Sequence[tuple[float, int]], total: int) -> list[float]:
    """Items per second in each fifth of `total`, from (time, count so far)."""
    rates, at = [], points[0][0]
    for part in range(1, 6):
        reached = next((time for time, count in points if count >= total * part / 5), points[-1][0])
        rates.append(total / 5 / (reached - at) if reached > at else 0.0)
        at = reached
    return rates
