"""Pairs of real devices with vaults of a given size, made once and copied.

Two daemons pair as people's do. The first one's vault is filled while it is stopped, through the same code that it
writes with, five hundred items to a transaction: 100,000 signed items take about a minute instead of ten. Its index is
saved, as that of a daemon that wrote them itself. Whatever is measured then runs on copies of the two homes.
"""

from __future__ import annotations

import functools
import queue
import secrets
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import trio

from bench import machine
from harness.daemons import Device, Household
from meshctl.answers import Json
from meshctl.client import path
from meshd.daemon import keyring, vaults
from meshd.daemon.app import now_ms
from meshd.daemon.config import Config
from meshd.daemon.context import Daemon, open_daemon, wait
from meshd.daemon.index import save
from meshd.daemon.paths import resolve
from meshd.daemon.pen import Pen
from meshd.errors import MeshError
from meshd.profile.apps import password
from meshd.profile.vault import Item
from meshd.store.db import open_database

NOTE = 620  # characters, so that the padded plaintext has 1,024 bytes
PART = 500
SYNC_SECONDS = 900.0


@dataclass(frozen=True)
class FirstSync:
    """How a first sync went: seconds from the connection on, CPU seconds and peak MiB of both ends."""

    items: int
    seconds: float
    fifths: list[float]  # items per second in each fifth
    sender_cpu: float
    receiver_cpu: float
    sender_peak: float
    receiver_peak: float

    @property
    def rate(self) -> float:
        return self.items / self.seconds


class Lab:
    """Devices and their homes, in the directory of one household."""

    def __init__(self, house: Household, nice: int = 0) -> None:
        self.house = house
        self._nice = nice
        self._made: dict[int, tuple[Path, Path]] = {}
        self._pairs: dict[int, tuple[Device, Device]] = {}
        self._count = 0

    def pair(self, size: int) -> tuple[Device, Device]:
        """Two running devices in step, with a vault of `size` items; the same ones at each call."""
        if size not in self._pairs:
            first, second = self.apart(size)
            self.start(first)
            self.start(second)
            second.in_step_with(first, seconds=SYNC_SECONDS)
            self._pairs[size] = first, second
        return self._pairs[size]

    def start(self, device: Device, *options: str) -> None:
        device.start(*options)
        assert device.process is not None
        machine.favour(device.process.pid, self._nice)

    def stop(self, size: int) -> None:
        for device in self._pairs.pop(size, ()):
            device.stop()

    def first_sync(self, size: int, *, newest_first: bool = False, keep: bool = False) -> FirstSync:
        """Let a device that has nothing meet one with `size` items. `keep`: the two become `pair(size)`."""
        sender, receiver = self.apart(size)
        if newest_first:
            _turn_round(resolve(str(sender.home)).store, size)
        self.start(receiver)
        with Listener(receiver) as listener:
            self.start(sender)
            found = _watch(listener, size, sender, receiver)
        if keep:
            self._pairs[size] = sender, receiver
        else:
            sender.stop()
            receiver.stop()
            shutil.rmtree(sender.home)
            shutil.rmtree(receiver.home)
        return found

    def apart(self, size: int) -> tuple[Device, Device]:
        """Two stopped devices of one mesh; the first holds `size` items, the second none. They are copies of the same
        two devices each time, so of one size only one pair may run."""
        first, second = self._homes(size)
        self._count += 1
        return self._copy("one", first, f"{self._count}a"), self._copy("two", second, f"{self._count}b")

    def _homes(self, size: int) -> tuple[Path, Path]:
        """A mesh of its own for every size: devices of different ones must not know each other."""
        if size not in self._made:
            first, second = self._device("one", f"{size}a"), self._device("two", f"{size}b")
            first.start()
            first.init()
            second.start()
            first.admits(second)
            first.stop()
            second.stop()
            trio.run(fill, first.home, size)
            self._made[size] = first.home, second.home
        return self._made[size]

    def _device(self, name: str, directory: str) -> Device:
        device = Device(name, self.house.directory / directory, enter=None, options=self.house.options)
        self.house.devices.append(device)
        return device

    def _copy(self, name: str, home: Path, directory: str) -> Device:
        device = self._device(name, f"copy{directory}")
        shutil.copytree(home, device.home, ignore=shutil.ignore_patterns("*.sock", "*.lock"))
        return device


async def fill(home: Path, size: int) -> None:
    """Write so many items into the vault of a stopped device."""
    daemon = open_daemon(Config(), resolve(str(home)), rng=secrets.token_bytes, now_ms=now_ms)
    try:
        await daemon.unlock(None)
        for start in range(0, size, PART):
            await _write_part(daemon, range(start, min(start + PART, size)))
        await _save_index(daemon)
        daemon.database.checkpoint()
    finally:
        daemon.close()


async def _write_part(daemon: Daemon, places: range) -> None:
    def add(pen: Pen) -> None:
        vault = pen.keyring.find("password")
        key = keyring.write_key(pen.connection, pen.replica, vault)
        for place in places:
            note = secrets.token_urlsafe(NOTE)[:NOTE]

            def build(time: int, made: str, place: int = place, note: str = note) -> Item:
                return password.new([site(place)], "alice", f"secret-{place}", time=time, made=made, note=note)

            vaults.add(pen, vault, build, key)

    await daemon.write(add)


async def _save_index(daemon: Daemon) -> None:
    index, held = await daemon.fresh_index(), daemon.unlocked()
    while rows := index.take_unsaved():
        await wait(daemon.writer.submit(functools.partial(save, keyring=held, rows=rows, rng=daemon.rng)))


def site(place: int) -> str:
    """Where the item number `place` of a vault is for."""
    return f"host{place}.example"


def _turn_round(store: Path, size: int) -> None:
    """Number the last `size` rows of a store the other way round, as if they had come newest first."""
    with open_database(store) as database, database.transaction() as connection:
        (last,) = connection.execute("SELECT max(seq) FROM versions").fetchone()
        connection.execute("UPDATE versions SET seq = -seq WHERE seq > ?", (last - size,))
        connection.execute("UPDATE versions SET seq = ? + seq WHERE seq < 0", (2 * last - size + 1,))


class Listener:
    """The events of a device as they come, each with the time at which it came; a thread of its own, so none waits."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._queue: queue.SimpleQueue[tuple[float, Json]] = queue.SimpleQueue()
        self._here = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._here.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        pass  # it ends with the daemon, or with us

    def _listen(self) -> None:
        since = int(str(self._device.client.get(path("status"))["events"]))
        lines = self._device.client.lines(path("events"), {"since": since})
        self._here.set()
        try:
            for event in lines:
                self._queue.put((time.monotonic(), event))
        except MeshError:
            pass  # the daemon ended

    def next(self, seconds: float) -> tuple[float, Json]:
        """The next event and its time; queue.Empty when none comes for so long."""
        return self._queue.get(timeout=seconds)


def _watch(listener: Listener, size: int, sender: Device, receiver: Device) -> FirstSync:
    assert sender.process is not None
    assert receiver.process is not None
    pids = sender.process.pid, receiver.process.pid
    points: list[tuple[float, int]] = []
    before = (0.0, 0.0)
    while not points or points[-1][1] < size:
        now, event = listener.next(SYNC_SECONDS)
        if event["type"] == "peer" and event["state"] == "connected" and not points:
            points.append((now, 0))
            before = machine.cpu_seconds(pids[0]), machine.cpu_seconds(pids[1])
        elif event["type"] in ("item", "conflict") and points:
            points.append((now, points[-1][1] + int(str(event.get("count", 1)))))
    after = machine.cpu_seconds(pids[0]), machine.cpu_seconds(pids[1])
    return FirstSync(
        size,
        points[-1][0] - points[0][0],
        machine.rate_of_fifths(points, size),
        after[0] - before[0],
        after[1] - before[1],
        machine.memory(pids[0], "VmHWM"),
        machine.memory(pids[1], "VmHWM"),
    )
