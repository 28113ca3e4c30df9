"""Devices that come and go, whole: daemons with TLS and sync over a LAN in memory, repair and announcements running."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import trio

from harness.devices import Device, admit, blank, found
from harness.faulty import FaultAt
from harness.lan import MemoryLan
from meshd.crypto.keys import SigningKey
from meshd.daemon import (
    announce,
    drafts,
    membership,
    removal,
    removing,
    renewal,
    repair,
    roles,
    rotation,
    vaults,
    wiping,
)
from meshd.daemon.keyring import Keyring
from meshd.daemon.pen import Pen
from meshd.daemon.removing import Report
from meshd.errors import Denied, MeshError, NotFound
from meshd.profile import vault, version
from meshd.profile.apps import password
from meshd.profile.claim import Kind, Role, State
from meshd.profile.device import DeviceKeys
from meshd.store import events, versions

pytestmark = pytest.mark.draft("Delete device")

QUICK = 0.05  # seconds that devices spread their repairs over


@contextlib.asynccontextmanager
async def mesh(
    home: Path, *names: str, admins: tuple[str, ...] = (), relays: tuple[str, ...] = (), run: bool = True
) -> AsyncIterator[tuple[MemoryLan, SigningKey, dict[str, Device]]]:
    """Devices of one mesh with their background tasks; the first founded it. `run` False: nothing is started."""
    lan = MemoryLan()
    made = [blank(home, lan, name) for name in names]
    try:
        master = await found(made[0])
        for one in made[1:]:
            role = Role.ADMIN if one.name in admins else Role.RELAY if one.name in relays else Role.MEMBER
            await admit(made[0], one, role, master)
        async with trio.open_nursery() as nursery:
            if run:
                for one in made:
                    await start(nursery, one)
            yield lan, master, {one.name: one for one in made}
            nursery.cancel_scope.cancel()
    finally:
        for one in made:
            one.daemon.close()


async def start(nursery: trio.Nursery, one: Device) -> None:
    await nursery.start(one.run)
    nursery.start_soon(partial(repair.repair, one.daemon, spread=QUICK))
    nursery.start_soon(announce.announcements, one.daemon)


async def remove(admin: Device, *gone: Device, **terms: object) -> Report:
    assert admin.siblings is not None
    return await removing.remove_device(
        admin.daemon,
        admin.siblings.connections,
        [one.udf for one in gone],
        **terms,  # type: ignore[arg-type]
    )


def state(device: Device, vid: bytes) -> State | None:
    row = versions.get(device.daemon.reader.connection, vid)
    return row.state if row is not None else None


def told(device: Device, type: str) -> list[dict[str, object]]:
    return [dict(one.data) for one in events.since(device.daemon.reader.connection, 0, 10_000) if one.type == type]


def opens(thief: Device, vid: bytes, holder: Device) -> bool:
    """Do the keys that the thief can unwrap, from everything that `holder` stores, open a version?"""
    connection = holder.daemon.reader.connection
    keys: dict[str, bytes] = {}
    for row in versions.of_kind(connection, Kind.CONTAINER, tuple(State)):
        raw = versions.raw(connection, row.vid)
        assert raw is not None
        with contextlib.suppress(MeshError):
            keys |= {key.kid: key.key for key in vault.open_container(version.parse(raw), thief.keys.dek).keys}
    raw = versions.raw(connection, vid)
    assert raw is not None
    with contextlib.suppress(MeshError):
        vault.open_item(version.parse(raw), vault.key_ring(keys))
        return True
    return False


async def test_a_removal_is_acknowledged_by_who_is_there_and_pending_for_who_is_not(home: Path) -> None:
    names = ("laptop", "desktop", "phone", "server")
    async with mesh(home, *names, relays=("server",)) as (_, _, d):
        laptop, desktop, phone, server = (d[name] for name in names)
        made = await laptop.add("one.example", "alice", "one")
        await laptop.until_connected(desktop, phone, server)
        for one in (desktop, phone, server):
            await one.until_same(laptop)
        server.host.cut()
        await laptop.until(lambda: True)
        report = await remove(laptop, phone, acknowledge=1.0)
        assert report.removed == (phone.udf,) and report.left == ()
        assert (report.exposed, report.unchanged) == (1, 1)
        assert desktop.udf in report.acknowledgement.acknowledged
        assert [udf for udf, _ in report.acknowledgement.pending] == [server.udf]
        assert phone.udf not in desktop.daemon.snapshot.devices
        server.host.heal()

        def all_acknowledged() -> bool:
            assert laptop.siblings is not None
            return not removing.acknowledgement(laptop.daemon, phone.udf, laptop.siblings.connections).pending

        await laptop.until(all_acknowledged)
        assert phone.udf not in server.daemon.snapshot.devices
        changed = await laptop.edit(made.identifier, "two")
        await desktop.until(lambda: desktop.passwords() == {made.identifier: "two"})
        assert not opens(phone, changed.vid, laptop)


async def test_a_removed_device_learns_it_at_once_stops_and_is_offered_to_be_wiped(home: Path) -> None:
    async with mesh(home, "laptop", "desktop", "phone") as (_, _, d):
        laptop, desktop, phone = d["laptop"], d["desktop"], d["phone"]
        await laptop.until_connected(desktop, phone)
        await phone.until_same(laptop)
        with pytest.raises(Denied):
            wiping.check(phone.daemon.snapshot)
        await remove(laptop, phone)
        await phone.until(lambda: phone.udf in phone.daemon.snapshot.removed)
        assert not phone.daemon.snapshot.is_member
        assert phone.siblings is not None
        connections = phone.siblings.connections
        await phone.until(lambda: not connections)
        made = await desktop.add("after.example", "alice", "secret")
        await laptop.until(lambda: made.identifier in laptop.passwords())
        await trio.sleep(0.5)
        assert made.vid not in phone.holds() and not connections
        with pytest.raises(Denied, match="removed"):
            await phone.add("late.example", "alice", "x")
        wiping.check(phone.daemon.snapshot)


async def test_a_removed_device_that_was_away_is_told_when_it_comes_back(home: Path) -> None:
    async with mesh(home, "laptop", "phone") as (_, _, d):
        laptop, phone = d["laptop"], d["phone"]
        await laptop.until_connected(phone)
        phone.host.cut()
        await remove(laptop, phone, catch_up=0.2)
        late = await phone.add("late.example", "alice", "x")
        phone.host.heal()
        await phone.until(lambda: phone.udf in phone.daemon.snapshot.removed)
        assert late.vid not in laptop.holds()


async def test_edits_of_a_removed_device_that_reach_an_unaware_sibling_end_in_quarantine_everywhere(
    home: Path,
) -> None:
    async with mesh(home, "laptop", "desktop", "phone") as (_, _, d):
        laptop, desktop, phone = d["laptop"], d["desktop"], d["phone"]
        made = await laptop.add("one.example", "alice", "first")
        await laptop.until_connected(desktop, phone)
        for one in (desktop, phone):
            await one.until_same(laptop)
        desktop.host.cut()
        phone.host.cut()
        await remove(laptop, phone, catch_up=0.2, acknowledge=0.1)
        late = await phone.edit(made.identifier, "from the phone")
        laptop.host.cut()
        desktop.host.heal()
        phone.host.heal()
        await desktop.until(lambda: state(desktop, late.vid) is State.APPLIED)
        phone.host.cut()
        laptop.host.heal()
        for one in (laptop, desktop):
            await one.until(lambda one=one: state(one, late.vid) is State.QUARANTINED)  # type: ignore[misc]
            await one.until(lambda one=one: one.passwords() == {made.identifier: "first"})  # type: ignore[misc]


async def test_writes_under_old_keys_are_written_anew_by_themselves_and_make_no_conflict(home: Path) -> None:
    async with mesh(home, "laptop", "desktop", "phone", "tablet") as (_, _, d):
        laptop, desktop, phone, tablet = d["laptop"], d["desktop"], d["phone"], d["tablet"]
        await laptop.until_connected(desktop, phone, tablet)
        for one in (desktop, phone, tablet):
            await one.until_same(laptop)
        desktop.host.cut()
        await remove(laptop, phone, catch_up=0.2)
        stale = await desktop.add("stale.example", "alice", "unaware")
        assert opens(phone, stale.vid, desktop)
        desktop.host.heal()

        def settled(one: Device) -> bool:
            heads = versions.heads(one.daemon.reader.connection, Kind.ITEM, stale.identifier)
            return bool(heads) and stale.vid not in heads

        for one in (laptop, desktop, tablet):
            await one.until(partial(settled, one))
            assert one.passwords() == {stale.identifier: "unaware"}
            assert len(vaults.distinct(one.heads(stale.identifier))) == 1
        assert any(told(one, "stale") for one in (laptop, desktop, tablet))


async def test_a_draft_goes_out_once_an_admin_has_made_keys(home: Path) -> None:
    async with mesh(home, "laptop", "desktop", "phone") as (_, _, d):
        laptop, desktop, phone = d["laptop"], d["desktop"], d["phone"]
        await laptop.until_connected(desktop, phone)
        await desktop.until_same(laptop)
        laptop.daemon.lock()
        ring = laptop.daemon.keyring
        assert ring is None  # what is written now is a removal without new keys
        await _cut_only(laptop, phone)
        await desktop.until(lambda: phone.udf not in desktop.daemon.snapshot.devices)
        _, waiting = await drafts.write_or_draft(
            desktop.daemon,
            lambda pen: drafts.add(
                pen,
                pen.keyring.find("password"),
                lambda t, made: password.new(["draft.example"], "a", "kept", time=t, made=made),
            ),
        )
        assert len(waiting) == 1 and desktop.passwords() == {}
        await laptop.daemon.install(laptop.keys, laptop.cache_key)
        for one in (laptop, desktop):
            await one.until(lambda one=one: list(one.passwords().values()) == ["kept"])  # type: ignore[misc]
        assert drafts.count(desktop.daemon.reader.connection) == 0


async def _cut_only(admin: Device, gone: Device) -> None:
    """A removal by an admin whose vaults are closed to it: nobody has a key for new writes until an admin helps."""
    shut = Keyring(replace(DeviceKeys.generate(secrets.token_bytes), dsk=admin.keys.dsk), admin.cache_key)
    daemon = admin.daemon
    await daemon.transact(
        lambda connection, outcome: removal.remove(
            Pen(connection, daemon.replica, shut, outcome, admin.now_ms(), secrets.token_bytes), [gone.udf]
        )
    )


async def test_a_stolen_admin_is_removed_as_of_a_moment_with_everything_that_he_did_since(home: Path) -> None:
    async with mesh(home, "laptop", "stolen", "phone", admins=("stolen",)) as (_, master, d):
        laptop, stolen, phone = d["laptop"], d["stolen"], d["phone"]
        made = await laptop.add("one.example", "alice", "first")
        await laptop.until_connected(stolen, phone)
        for one in (stolen, phone):
            await one.until_same(laptop)
        await trio.sleep(0.01)
        since = laptop.now_ms()
        bad = await stolen.edit(made.identifier, "the thief's")
        await stolen.daemon.write(lambda pen: membership.name_device(pen, laptop.udf, "gotcha"))
        for one in (laptop, phone):
            await one.until(lambda one=one: one.passwords() == {made.identifier: "the thief's"})  # type: ignore[misc]
        await phone.until_same(laptop)
        report = await remove(laptop, stolen, since_ms=since, master_key=master)
        assert report.acknowledgement.acknowledged == (phone.udf,)
        for one in (laptop, phone):
            assert one.passwords() == {made.identifier: "first"}
            assert state(one, bad.vid) is State.QUARANTINED
            assert stolen.udf not in one.daemon.snapshot.admins
        await stolen.until(lambda: stolen.udf in stolen.daemon.snapshot.removed)


async def test_new_and_removed_devices_and_roles_are_told_on_every_device_once(home: Path) -> None:
    async with mesh(home, "laptop", "desktop", "phone") as (_, master, d):
        laptop, desktop, phone = d["laptop"], d["desktop"], d["phone"]
        await laptop.until_connected(desktop, phone)
        for one in (desktop, phone):
            await one.until_same(laptop)
            await one.until(lambda one=one: bool(events.newest(one.daemon.reader.connection)))  # type: ignore[misc]
        await trio.sleep(0.1)
        await laptop.daemon.write(lambda pen: roles.set_role(pen, desktop.udf, Role.ADMIN, master_key=master))
        await remove(laptop, phone)

        def heard(one: Device) -> bool:
            said = [(each["device"], each["state"]) for each in told(one, "device") if "state" in each]
            return (desktop.udf, "role") in said and (phone.udf, "removed") in said

        for one in (laptop, desktop):
            await one.until(partial(heard, one))
            said = [(each["device"], each["state"]) for each in told(one, "device") if each.get("state") == "removed"]
            assert said == [(phone.udf, "removed")]
            assert await announce.catch_up(one.daemon) == []


async def test_a_device_renews_its_keys_and_is_known_again_by_everybody(home: Path) -> None:
    async with mesh(home, "laptop", "desktop", "phone") as (_, _, d):
        laptop, desktop, phone = d["laptop"], d["desktop"], d["phone"]
        await laptop.until_connected(desktop, phone)
        for one in (desktop, phone):
            await one.until_same(laptop)
        desktop.host.cut()
        old = phone.keys
        await phone.daemon.unlock(None)
        await renewal.renew(phone.daemon)
        assert phone.daemon.keyring is not None and phone.daemon.tier1 is not None
        fresh = phone.daemon.keyring.device
        assert fresh.dak.udf != old.dak.udf and phone.daemon.tier1.dak.udf == fresh.dak.udf
        await laptop.until(lambda: laptop.daemon.snapshot.devices[phone.udf].dek.udf == fresh.dek.recipient.udf)

        def wrapped() -> bool:
            ring = phone.daemon.keyring
            assert ring is not None
            heads = [head for opened in ring.vaults.values() for head in opened.heads]
            key = fresh.dek.recipient.udf
            return bool(heads) and all(vault.container_recipients(head).issuperset({key}) for head in heads)

        await phone.until(wrapped)
        phone.stop()
        phone.reopen()
        await phone.daemon.unlock(None)
        async with trio.open_nursery() as nursery:
            await start(nursery, phone)
            await phone.until_connected(laptop)
            laptop.host.cut()
            desktop.host.heal()  # it never heard: the phone introduces itself with its new profile
            await phone.until_connected(desktop)
            made = await phone.add("one.example", "alice", "after")
            await desktop.until(lambda: made.vid in desktop.holds())
            laptop.host.heal()
            for one in (laptop, desktop):
                await one.until(lambda one=one: made.identifier in one.passwords())  # type: ignore[misc]
            await phone.until_same(laptop)
            nursery.cancel_scope.cancel()
        assert phone.daemon.keyring is not None and phone.daemon.keyring.device.older
        assert await renewal.forget_old(phone.daemon)  # everybody has acknowledged the new ones
        assert not phone.daemon.keyring.device.older
        phone.reopen()
        await phone.daemon.unlock(None)
        assert made.identifier in phone.passwords()


async def test_a_device_whose_new_keys_nobody_takes_up_forgets_none_that_it_needs(home: Path) -> None:
    async with mesh(home, "laptop", "phone", run=False) as (_, _, those):
        phone = those["phone"]
        await phone.daemon.unlock(None)
        for _ in range(renewal.MAX_OLDER):
            await renewal.renew(phone.daemon)
        with pytest.raises(Denied, match="still needed"):
            await renewal.renew(phone.daemon)
        assert phone.daemon.keyring is not None and len(phone.daemon.keyring.device.older) == renewal.MAX_OLDER


@pytest.mark.parametrize("point", ["before-fn", "before-commit", "after-commit"])
async def test_a_renewal_that_ends_half_way_leaves_a_device_that_works(home: Path, point: str) -> None:
    async with mesh(home, "laptop", "phone", run=False) as (_, _, d):
        laptop, phone = d["laptop"], d["phone"]
        made = await phone.add("one.example", "alice", "kept")
        fault = phone.fault = FaultAt(point, times=0)
        phone.reopen()
        await phone.daemon.unlock(None)
        fault.left = 1
        with pytest.raises(Exception, match=point):
            await renewal.renew(phone.daemon)
        phone.fault = None
        phone.reopen()
        await phone.daemon.unlock(None)
        assert phone.daemon.tier1 is not None
        stated = phone.daemon.snapshot.devices[phone.udf]
        assert phone.daemon.tier1.dak.udf == stated.dak.udf
        assert phone.passwords() == {made.identifier: "kept"}
        async with trio.open_nursery() as nursery:
            for one in (laptop, phone):
                await start(nursery, one)
            await phone.until_connected(laptop)
            await laptop.until(lambda: made.identifier in laptop.passwords())
            after = await laptop.add("two.example", "alice", "after")
            await phone.until(lambda: after.identifier in phone.passwords())
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("point", ["before-fn", "before-commit", "after-commit"])
async def test_a_crash_in_a_removal_leaves_it_undone_or_whole(home: Path, point: str) -> None:
    async with mesh(home, "laptop", "desktop", "phone", run=False) as (_, _, d):
        laptop, desktop, phone = d["laptop"], d["desktop"], d["phone"]
        made = await laptop.add("one.example", "alice", "kept")
        fault = laptop.fault = FaultAt(point, times=0)
        laptop.reopen()
        await laptop.daemon.unlock(None)
        fault.left = 1
        with pytest.raises(Exception, match=point):
            await laptop.daemon.write(lambda pen: removal.remove(pen, [phone.udf]))
        laptop.reopen()
        await laptop.daemon.unlock(None)
        assert (phone.udf in laptop.daemon.snapshot.removed) is (point == "after-commit")
        async with trio.open_nursery() as nursery:
            for one in (laptop, desktop):
                await start(nursery, one)
            await laptop.until_connected(desktop)
            if point != "after-commit":
                await laptop.daemon.write(lambda pen: removal.remove(pen, [phone.udf]))
            after = await laptop.add("after.example", "alice", "new")
            expected = {made.identifier: "kept", after.identifier: "new"}
            await desktop.until(lambda: desktop.passwords() == expected)
            assert not opens(phone, after.vid, laptop)
            assert await laptop.daemon.write(rotation.unsettled) == ()
            nursery.cancel_scope.cancel()


async def test_a_device_away_for_three_rotations_reads_and_writes_when_it_is_back(home: Path) -> None:
    async with mesh(home, "laptop", "desktop", "phone", "tablet", "watch") as (_, _, d):
        laptop, desktop = d["laptop"], d["desktop"]
        made = await laptop.add("one.example", "alice", "first")
        await laptop.until_connected(*[one for one in d.values() if one is not laptop])
        for one in d.values():
            await one.until_same(laptop)
        desktop.host.cut()
        for name in ("phone", "tablet", "watch"):
            await remove(laptop, d[name], catch_up=0.1, acknowledge=0.1)
            await laptop.edit(made.identifier, f"after {name}")
        offline = await desktop.add("offline.example", "alice", "offline")
        desktop.host.heal()
        expected = {made.identifier: "after watch", offline.identifier: "offline"}
        for one in (laptop, desktop):
            await one.until(lambda one=one: one.passwords() == expected)  # type: ignore[misc]
        assert len(desktop.daemon.snapshot.devices) == 2


async def test_who_was_never_removed_has_no_acknowledgements(home: Path) -> None:
    async with mesh(home, "laptop", "phone", run=False) as (_, _, d):
        with pytest.raises(NotFound):
            removing.acknowledgement(d["laptop"].daemon, d["phone"].udf, {})


async def test_a_removal_without_its_new_keys_counts_as_acknowledged_by_nobody(home: Path) -> None:
    async with mesh(home, "laptop", "desktop", "phone", run=False) as (_, _, d):
        laptop, phone = d["laptop"], d["phone"]
        await _cut_only(laptop, phone)
        connection = laptop.daemon.reader.connection
        assert removing.finished(connection, phone.udf) is None
        assert removing.acknowledgement(laptop.daemon, phone.udf, {}).acknowledged == ()
        await laptop.daemon.write(rotation.settle)
        assert removing.finished(connection, phone.udf) == versions.last_seq(connection)


async def test_a_wiped_home_holds_nothing(home: Path) -> None:
    async with mesh(home, "laptop", "phone", run=False) as (_, _, d):
        phone = d["phone"]
        paths = phone.daemon.paths
        phone.daemon.close()
        with pytest.raises(Denied):
            wiping.wipe(paths)
        gone = wiping.wipe(paths, force=True)
        assert {path.name for path in gone} >= {"host.key", "keystore.cbor", "meshd.db"}
        assert wiping.wipe(paths) == []
        assert not paths.store.exists() and not paths.keystore.exists()
        phone.daemon = blank(home / "other", MemoryLan(), "phone").daemon
