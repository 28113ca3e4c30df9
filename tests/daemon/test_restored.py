"""Restored backups and cloned homes: whatever was acknowledged or written apart, in the end all stores hold it."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from harness import devices
from harness.devices import Device, mesh
from harness.lan import MemoryLan
from meshd.daemon import repair
from meshd.daemon.status import in_step, newest_seq
from meshd.store import chains, peers
from meshd.sync.messages import Feed


@asynccontextmanager
async def running(*those: Device) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        for one in those:
            await nursery.start(one.run)
        yield
        nursery.cancel_scope.cancel()


def synced(one: Device, other: Device) -> bool:
    """What `wait --synced` looks at."""
    assert one.siblings is not None
    progress = one.siblings.connections.get(other.udf)
    return progress is not None and in_step(progress, newest_seq(one.daemon.reader.connection))


async def all_synced(*those: Device) -> None:
    """Wait until everybody says that it is in step; then all must hold the same."""
    pairs = [(one, other) for one in those for other in those if one is not other]
    while not all(synced(*pair) for pair in pairs):  # each while it waits for the next may fall behind again
        for one, other in pairs:
            await one.until(lambda one=one, other=other: synced(one, other))  # type: ignore[misc]
    assert all(one.holds() == those[0].holds() for one in those)


def back_up(device: Device, to: Path) -> None:
    device.daemon.database.backup(to)


async def restore(device: Device, backup: Path) -> None:
    store = device.daemon.paths.store
    device.daemon.close()
    for suffix in ("-wal", "-shm"):
        store.with_name(store.name + suffix).unlink(missing_ok=True)
    shutil.copy(backup, store)
    device.daemon = devices._open(device)
    await device.daemon.unlock(None)


@pytest.mark.parametrize("lost, apart", [(3, 3), (5, 2), (2, 5), (3, 0)])
async def test_a_restored_store_is_heard_however_much_it_wrote_before_it_met_anybody(
    home: Path, lost: int, apart: int
) -> None:
    async with mesh(home, "laptop", "desktop", "phone", run=False) as (_, (laptop, desktop, phone)):
        everybody = (laptop, desktop, phone)
        for time in range(2):
            async with running(*everybody):
                await desktop.add(f"kept-{time}.example", "alice", "kept")
                await all_synced(*everybody)
            backup = home / f"backup-{time}.db"
            back_up(desktop, backup)
            async with running(*everybody):
                for number in range(lost):
                    await desktop.add(f"lost-{time}-{number}.example", "alice", "lost")
                await all_synced(*everybody)
            before = laptop.holds()
            await restore(desktop, backup)
            for number in range(apart):
                await desktop.add(f"apart-{time}-{number}.example", "alice", "apart")
            apart_of_it = desktop.holds()
            async with running(*everybody):
                await all_synced(*everybody)
                assert desktop.holds() >= before | apart_of_it
                assert not desktop.daemon.cloned, "a backup was taken for a clone"
                await desktop.add(f"again-{time}.example", "alice", "again")
                await all_synced(*everybody)


async def test_a_restored_device_heals_by_itself_and_every_alarm_ends(home: Path) -> None:
    async with mesh(home, "laptop", "desktop", run=False) as (_, (laptop, desktop)):
        async with running(laptop, desktop):
            await all_synced(laptop, desktop)
        backup = home / "backup.db"
        back_up(desktop, backup)
        async with running(laptop, desktop):
            await desktop.add("lost.example", "alice", "lost")
            await all_synced(laptop, desktop)
        await restore(desktop, backup)
        await desktop.add("apart.example", "alice", "apart")

        def forks(one: Device) -> int:
            return len(chains.unhealed_forks(one.daemon.reader.connection))

        async with running(laptop, desktop):
            await all_synced(laptop, desktop)
            assert forks(laptop) == forks(desktop) == 1
            connection = desktop.daemon.reader.connection
            assert not chains.second_writer(connection, desktop.udf), "it is known to be restored, and no alarm"
            async with trio.open_nursery() as nursery:
                nursery.start_soon(repair.repair, desktop.daemon)
                await desktop.until(lambda: forks(desktop) == 0)
                await laptop.until(lambda: forks(laptop) == 0)
                nursery.cancel_scope.cancel()
            assert not desktop.daemon.cloned and not chains.second_writer(connection, desktop.udf)
            await all_synced(laptop, desktop)


async def test_what_others_wrote_at_the_same_places_of_the_numbering_hides_nothing(home: Path) -> None:
    """The restored store numbers its own new version where a sibling's was, and gets what stood behind from a third:
    the version at the cursor is the same, and what is before it is not."""
    async with mesh(home, "laptop", "desktop", "phone", run=False) as (_, (laptop, desktop, phone)):
        async with running(laptop, desktop, phone):
            await all_synced(laptop, desktop, phone)
        backup = home / "backup.db"
        back_up(desktop, backup)
        one = await laptop.add("one.example", "alice", "1")
        async with running(laptop, desktop):
            await all_synced(laptop, desktop)
        two = await phone.add("two.example", "alice", "2")
        async with running(desktop, phone):
            await desktop.until(lambda: two.vid in desktop.holds())
        async with running(laptop, desktop):
            await all_synced(laptop, desktop)
        await restore(desktop, backup)
        three = await desktop.add("three.example", "alice", "3")
        async with running(desktop, phone):
            await desktop.until(lambda: two.vid in desktop.holds())
        async with running(laptop, desktop, phone):
            await all_synced(laptop, desktop, phone)
            assert {one.vid, two.vid, three.vid} <= laptop.holds()


async def test_a_home_that_is_copied_while_it_is_used_loses_nothing_of_either(home: Path) -> None:
    async with mesh(home, "laptop", "desktop", run=False) as (lan, (laptop, desktop)):
        async with running(laptop, desktop):
            await all_synced(laptop, desktop)
        copy = await clone(lan, desktop, home)
        try:
            written = set()
            for time in range(3):
                for one in (desktop, copy):
                    written.add((await one.add(f"{time}.{one.name}.example", "alice", "x")).vid)
                    async with running(laptop, one):
                        await all_synced(laptop, one)
            for one in (desktop, copy):
                async with running(laptop, one):
                    await all_synced(laptop, one)
                    assert written <= one.holds() == laptop.holds()
            assert desktop.daemon.cloned or copy.daemon.cloned
        finally:
            copy.daemon.close()


async def clone(lan: MemoryLan, device: Device, home: Path) -> Device:
    """A second device with the same home."""
    where = home / f"copy of {device.name}"
    where.mkdir(mode=0o700)
    device.daemon.database.backup(where / device.daemon.paths.store.name)
    for file in (device.daemon.paths.keystore, device.daemon.paths.keystore.with_name("host.key")):
        shutil.copy(file, where / file.name)
    copy = Device("copy", where, lan.host("copy"), None, device.keys, device.cache_key)  # type: ignore[arg-type]
    copy.daemon = devices._open(copy)
    await copy.daemon.unlock(None)
    return copy


async def test_a_cursor_holds_only_where_the_store_said_so(home: Path) -> None:
    async with mesh(home, "laptop", "desktop", run=False) as (_, (laptop, desktop)):
        async with running(laptop, desktop):
            await all_synced(laptop, desktop)
        holds: Callable[[peers.Cursor], bool] = lambda cursor: peers.holds(desktop.daemon.reader.connection, cursor)  # noqa: E731
        given = peers.place(laptop.daemon.reader.connection, desktop.udf, desktop.daemon.store_id())
        assert given.seq and holds(given) and holds(peers.Cursor())
        assert not holds(peers.Cursor(given.seq, given.run, bytes(32)))
        assert not holds(peers.Cursor(given.seq, bytes(8), given.vid))
        assert not holds(peers.Cursor(2**63 - 1, given.run, given.vid))
        desktop.daemon.close()
        desktop.daemon = devices._open(desktop)
        assert holds(given), "an ordinary restart costs nobody anything"


async def test_a_cursor_beyond_everything_is_told_everything_and_changes_no_numbering(home: Path) -> None:
    async with mesh(home, "laptop", "desktop", run=False) as (_, (laptop, desktop)):
        async with running(laptop, desktop):
            await all_synced(laptop, desktop)
        before = desktop.daemon.store_id()

        def absurd(connection: object) -> None:
            peers.set_cursor(connection, desktop.udf, before, 2**63 - 1, bytes(8), bytes(32))  # type: ignore[arg-type]

        laptop.daemon.writer.submit(absurd).result()
        async with running(laptop, desktop):
            made = await desktop.add("more.example", "alice", "x")
            await laptop.until(lambda: made.vid in laptop.holds())
            await all_synced(laptop, desktop)
        assert desktop.daemon.store_id() == before
    assert Feed(before, 5, bytes(8), bytes(32)).fields() == {0: before, 1: 5, 2: bytes(8), 3: bytes(32)}


async def test_a_copy_that_runs_beside_its_original_is_heard_and_everybody_is_alarmed(home: Path) -> None:
    async with mesh(home, "laptop", "desktop", run=False) as (lan, (laptop, desktop)):
        async with running(laptop, desktop):
            await all_synced(laptop, desktop)
        copy = await clone(lan, desktop, home)
        try:
            async with running(laptop, desktop, copy):
                written = set()
                for time in range(3):
                    written |= {(await one.add(f"{time}.{one.name}.example", "x", "x")).vid for one in (desktop, copy)}
                    for one in (laptop, desktop, copy):
                        await one.until(lambda one=one, vids=frozenset(written): vids <= one.holds())  # type: ignore[misc]
                await laptop.until(lambda: bool(chains.unhealed_forks(laptop.daemon.reader.connection)))
                assert desktop.daemon.cloned or copy.daemon.cloned
        finally:
            copy.daemon.close()
