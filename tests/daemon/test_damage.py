"""A damaged store is told and left as it is; a fault in what a device does by itself ends nothing else."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest
import trio

from harness.devices import Device, mesh
from meshd import __main__ as program
from meshd.daemon import app, checking
from meshd.daemon.context import Daemon
from meshd.errors import Denied, DiskFull, StoreDamaged
from meshd.store.db import PAGE_SIZE


def damage(device: Device) -> bytes:
    """Overwrite the last pages of its store; the bytes then."""
    device.daemon.database.checkpoint()
    store = device.daemon.paths.store
    with store.open("r+b") as file:
        for page in range(8, store.stat().st_size // PAGE_SIZE):
            file.seek(page * PAGE_SIZE)
            file.write(os.urandom(PAGE_SIZE))
    return store.read_bytes()


async def test_a_page_that_the_disk_lost_is_found_and_told(home: Path) -> None:
    async with mesh(home, "laptop", run=False) as (_, (laptop,)):
        for number in range(40):
            await laptop.add(f"{number}.example", "alice", "x" * 500)
        await checking.check(laptop.daemon)
        assert laptop.daemon.damage == []
        bytes_then = damage(laptop)
        await checking.check(laptop.daemon)
        assert laptop.daemon.damage
        assert laptop.daemon.paths.store.read_bytes() == bytes_then, "a check changed the store"


async def test_a_task_with_a_fault_begins_anew_and_ends_nothing_else(home: Path, autojump_clock: object) -> None:
    async with mesh(home, "laptop", run=False) as (_, (laptop,)):
        begun = 0

        async def faulty(daemon: Daemon) -> None:
            nonlocal begun
            begun += 1
            if begun == 1:
                raise ZeroDivisionError
            if begun == 2:
                raise sqlite3.DatabaseError("database disk image is malformed")

        with trio.fail_after(60):
            await app.keep_up(laptop.daemon, faulty)
        assert begun == 3


@pytest.mark.parametrize(
    "exc, told",
    [
        (sqlite3.DatabaseError("malformed"), True),
        (ExceptionGroup("", [ExceptionGroup("", [StoreDamaged("damaged")])]), True),
        (ExceptionGroup("", [Denied("no"), ZeroDivisionError()]), False),
        (DiskFull(), True),
        (ZeroDivisionError(), False),
    ],
)
def test_a_person_is_told_of_errors_and_developers_of_faults(exc: BaseException, told: bool) -> None:
    assert (program._told(exc) is not None) is told
