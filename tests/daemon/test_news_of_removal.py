"""How a device hears that it is none of the mesh: by the profiles that it is shown, and by nothing else."""

from __future__ import annotations

import secrets
import sqlite3
from pathlib import Path

import trio

from harness.devices import Device as DaemonDevice
from harness.devices import admit, blank, mesh
from harness.devices import found as found_device
from harness.lan import MemoryLan
from harness.mesh_world import Device, device_keys, found, seeded
from meshd.daemon import authoring, removal, renewal, roles
from meshd.daemon.verifying import check
from meshd.profile import device, version
from meshd.profile.claim import Kind, Role
from meshd.profile.links import Cut
from meshd.profile.trust import REMOVAL_UNDONE
from meshd.store import aside
from meshd.store.lineage import Link
from meshd.store.replica import Outcome, Replica
from meshd.store.waiting import Limits


def shown(one: Device, by: Device) -> None:
    """What an introduction brings: profiles alone."""
    raws = [raw for raw in one.lacking(by) if version.parse(raw).claim.kind is Kind.PERSONAL]
    one.take(raws)


def removed_by_an_admin_who_wrote_on() -> tuple[Device, Device, Device]:
    """(laptop, desktop, phone): the desktop removed the phone, and wrote more after that; the phone did not hear."""
    laptop = found()
    desktop, phone = laptop.admit("desktop", Role.ADMIN), laptop.admit("phone")
    desktop.pull(laptop)
    phone.pull(laptop)
    desktop.write(lambda pen: removal.remove(pen, [phone.udf]))
    desktop.add("later.example")
    laptop.pull(desktop)
    return laptop, desktop, phone


def knows(phone: Device, laptop: Device) -> bool:
    shown(phone, laptop)
    authority = phone.replica.authority
    assert not [one for one in authority.health() if one[0] == REMOVAL_UNDONE]
    return phone.udf in authority.removed() and phone.udf not in authority.devices()


def test_a_removed_device_learns_it_although_the_admin_who_removed_it_is_removed_too() -> None:
    laptop, desktop, phone = removed_by_an_admin_who_wrote_on()
    laptop.write(lambda pen: removal.remove(pen, [desktop.udf], master_key=laptop.master_key))
    assert knows(phone, laptop)


def test_a_removed_device_learns_it_although_the_admin_who_removed_it_is_admin_no_more() -> None:
    laptop, desktop, phone = removed_by_an_admin_who_wrote_on()
    laptop.write(lambda pen: roles.set_role(pen, desktop.udf, Role.MEMBER, master_key=laptop.master_key))
    assert knows(phone, laptop)


def test_a_removed_device_learns_it_although_the_admin_who_removed_it_was_replaced() -> None:
    laptop, desktop, phone = removed_by_an_admin_who_wrote_on()
    joiner = device.create(device_keys("desktop again"), laptop.now_ms // 1000, seeded("again"))
    laptop.write(
        lambda pen: renewal.replace_device(pen, desktop.udf, joiner, "desktop again", master_key=laptop.master_key)
    )
    assert knows(phone, laptop)


def test_a_removal_that_is_stated_again_leaves_standing_what_it_left_standing() -> None:
    laptop, desktop, phone = removed_by_an_admin_who_wrote_on()
    late = phone.add("late.example")
    made = laptop.add("one.example", secret="first")
    laptop.write(lambda pen: removal.remove(pen, [desktop.udf], master_key=laptop.master_key))
    laptop.pull(phone)
    assert made in laptop.passwords() and late not in laptop.passwords()


async def test_a_device_that_was_taken_in_by_a_removed_admin_is_told_that_nobody_knows_it(home: Path) -> None:
    lan = MemoryLan()
    laptop, desktop, tablet = (blank(home, lan, name) for name in ("laptop", "desktop", "tablet"))
    try:
        master = await found_device(laptop)
        await admit(laptop, desktop, Role.ADMIN, master)
        await laptop.daemon.write(lambda pen: removal.remove(pen, [desktop.udf], master_key=master))
        await admit(desktop, tablet)  # not having heard
        assert tablet.daemon.snapshot.is_member
        async with trio.open_nursery() as nursery:
            for one in (laptop, desktop, tablet):
                await nursery.start(one.run)
            await tablet.until(lambda: not tablet.daemon.snapshot.is_member)
            await desktop.until(lambda: not desktop.daemon.snapshot.is_member)
            nursery.cancel_scope.cancel()
        assert desktop.daemon.snapshot.fallen == {tablet.udf}
        assert desktop.udf in tablet.daemon.snapshot.removed
    finally:
        for one in (laptop, desktop, tablet):
            one.daemon.close()


async def test_what_a_removal_leaves_standing_is_never_set_aside_on_its_way(home: Path) -> None:
    async with mesh(home, "laptop", "desktop", "phone", run=False) as (_, (laptop, desktop, phone)):
        for number in range(20):
            await phone.add(f"{number}.example", "alice", "secret")
        async with trio.open_nursery() as nursery:
            await nursery.start(laptop.run)
            await nursery.start(phone.run)
            await laptop.until_same(phone)
            phone.host.cut()
            await laptop.daemon.write(lambda pen: removal.remove(pen, [phone.udf]))
            await nursery.start(desktop.run)
            await desktop.until_same(laptop)
            nursery.cancel_scope.cancel()
        assert desktop.passwords() == laptop.passwords() and len(desktop.passwords()) == 20
        told = desktop.daemon.reader.query("SELECT type FROM events")
        assert ("items",) in told or ("item",) in told
        assert ("quarantine",) not in told
        assert desktop.daemon.reader.query("SELECT * FROM lineage") == []


async def test_what_stands_by_a_link_alone_falls_when_a_sibling_has_told_all(home: Path) -> None:
    async with mesh(home, "laptop", "desktop", "phone", run=False) as (_, (laptop, desktop, phone)):
        hidden, ghost, end = [await phone.add(f"{name}.example", "alice", "secret") for name in ("a", "b", "c")]

        async def take(one: DaemonDevice, raws: list[bytes]) -> None:
            replica = one.daemon.replica
            versions = check(raws, [None] * len(raws), replica.directory).versions
            await one.daemon.transact(lambda c, out: replica.accept(c, versions, one.now_ms(), out))

        await take(laptop, [end.raw])
        await laptop.daemon.write(lambda pen: removal.remove(pen, [phone.udf]))
        await take(desktop, [row[0] for row in laptop.daemon.reader.query("SELECT raw FROM versions ORDER BY seq")])
        lie = [Link(ghost.token, ghost.digest)]
        await desktop.daemon.transact(lambda c, out: desktop.daemon.replica.accept_links(c, phone.udf, lie, out))
        for one in (laptop, desktop):
            await take(one, [hidden.raw])
        assert len(desktop.passwords()) == 1 + len(laptop.passwords())
        async with trio.open_nursery() as nursery:
            await nursery.start(laptop.run)
            await nursery.start(desktop.run)
            await desktop.until(lambda: desktop.passwords() == laptop.passwords())
            nursery.cancel_scope.cancel()
        assert ("quarantine",) in desktop.daemon.reader.query("SELECT type FROM events")
        assert desktop.daemon.reader.query("SELECT * FROM lineage") == []


async def test_what_found_no_room_is_fetched_when_the_removal_is_moved_over_it(home: Path) -> None:
    async with mesh(home, "laptop", "desktop", "phone", run=False) as (_, (laptop, desktop, phone)):
        raws = [(await phone.add(f"{number}.example", "alice", "secret")).raw for number in range(12)]
        await laptop.daemon.write(lambda pen: removal.remove(pen, [phone.udf]))
        late = check(raws, [None] * len(raws), laptop.daemon.replica.directory).versions
        await laptop.daemon.transact(lambda c, out: laptop.daemon.replica.accept(c, late, laptop.now_ms(), out))

        def keep_little(connection: sqlite3.Connection, _: Outcome) -> None:
            desktop.daemon.replica = Replica(connection, secrets.token_bytes, Limits(aside=5))

        await desktop.daemon.transact(keep_little)
        async with trio.open_nursery() as nursery:
            await nursery.start(laptop.run)
            await nursery.start(desktop.run)
            await desktop.until(lambda: bool(aside.turned_away(desktop.daemon.reader.connection)))
            await laptop.until_connected(desktop)
            assert not desktop.passwords()
            moved = lambda pen: [Cut(phone.udf, pen.replica.tips(phone.udf))]  # noqa: E731
            await laptop.daemon.write(lambda pen: authoring.write_profile(pen, authoring.state(pen), cuts=moved(pen)))
            await desktop.until_same(laptop)
            nursery.cancel_scope.cancel()
        assert desktop.passwords() == laptop.passwords() and len(desktop.passwords()) == 12
        assert not aside.turned_away(desktop.daemon.reader.connection)
