"""What devices tell each other of portals' logs on one network."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from harness.devices import Device, mesh
from harness.log_world import Log
from meshd.store import portal_pins
from meshd.store.portal_pins import PinRow

ACCOUNT = "alice@portal.example"


def pinned(log: Log) -> PinRow:
    root, size = log.tree.root(), log.tree.size
    keys = tuple(one.vkey for one in log.keys)
    return PinRow(ACCOUNT, log.origin, keys, size, root, log.note().encode().decode(), time=1)


async def pin(device: Device, log: Log) -> None:
    row = pinned(log)
    await device.daemon.transact(lambda connection, outcome: portal_pins.advance(connection, row))
    device.daemon.changed.bump()


def held(connection: sqlite3.Connection) -> PinRow:
    found = portal_pins.get(connection, ACCOUNT)
    assert found is not None
    return found


async def test_devices_that_were_shown_two_logs_find_it_out_when_they_meet(home: Path) -> None:
    async with mesh(home, "laptop", "phone") as (_, (laptop, phone)):
        log = Log()
        for data in (b"1", b"2", b"3"):
            log.publish(data)
        await pin(laptop, log)
        await pin(phone, log.fork(at=1, instead=[b"other", b"3"]))
        for device in (laptop, phone):
            connection = device.daemon.reader.connection
            await device.until(lambda connection=connection: held(connection).frozen > 0)  # type: ignore[misc]


async def test_devices_that_see_one_log_accuse_nobody(home: Path) -> None:
    async with mesh(home, "laptop", "phone") as (_, (laptop, phone)):
        log = Log()
        log.publish(b"1")
        await pin(laptop, log)
        log.publish(b"2")
        await pin(phone, log)
        connection = laptop.daemon.reader.connection
        await laptop.until(lambda: bool(portal_pins.heard(connection, log.origin)))
        assert not held(connection).frozen and not held(phone.daemon.reader.connection).frozen
