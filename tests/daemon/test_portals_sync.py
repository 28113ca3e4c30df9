"""Devices in step through a portal, without a LAN: opening the account, publishing, following, what may go wrong."""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import trio

from harness import devices as harness
from harness.devices import Device
from harness.lan import MemoryLan
from harness.portal_http import HttpPortal
from meshd.daemon import authoring, removal
from meshd.daemon.api import App
from meshd.daemon.portals.roster import Portals
from meshd.daemon.status import all_peer_views
from meshd.daemon.verifying import check
from meshd.errors import Denied
from meshd.net.srv import Found, Services
from meshd.portal.view import CLOSED
from meshd.profile.claim import Role
from meshd.profile.links import Cut
from meshd.store import aside
from meshd.store.replica import Outcome, Replica
from meshd.store.waiting import Limits

pytestmark = pytest.mark.draft("Create account", "Publish", "GetRecords")

ACCOUNT = "alice@example.net"


async def no_dns(name: str) -> Found:
    return Found()


@dataclass
class Online:
    """Devices that reach a portal, and nothing else."""

    portal: HttpPortal
    devices: list[Device]
    portals: dict[str, Portals]
    nursery: trio.Nursery

    async def start(self, device: Device) -> Portals:
        made = Portals(device.daemon, self.portal.client(), Services(no_dns))
        self.portals[device.name] = made
        await self.nursery.start(made.run)
        return made

    def of(self, device: Device) -> SimpleNamespace:
        return SimpleNamespace(portals=self.portals[device.name])

    async def until_in_step(self, *devices: Device) -> None:
        for device in devices or self.devices:
            portals = self.portals[device.name]
            await device.until(lambda portals=portals: bool(portals.running))
            for portal in portals.running.values():
                await device.until(lambda portal=portal: portal.in_step)


@contextlib.asynccontextmanager
async def online(home: Path, *names: str) -> AsyncIterator[Online]:
    lan = MemoryLan()
    found = [harness.blank(home, lan, name) for name in names]
    portal = HttpPortal(now=lambda: int(time.time()))
    try:
        await harness.found(found[0])
        for one in found[1:]:
            await harness.admit(found[0], one)
        async with trio.open_nursery() as nursery:
            await nursery.start(portal.run)
            made = Online(portal, found, {}, nursery)
            for one in found:
                await made.start(one)
            yield made
            nursery.cancel_scope.cancel()
    finally:
        for one in found:
            one.daemon.close()


async def test_what_one_device_writes_reaches_another_through_the_portal_alone(home: Path) -> None:
    async with online(home, "laptop", "phone") as net:
        laptop, phone = net.devices
        before = await laptop.add("example.net", "alice", "first")
        await net.portals["laptop"].add(ACCOUNT, "", None, plain=True)
        await net.until_in_step(laptop)
        # The phone has no way to learn of the account but the item, which a LAN or an admission brings.
        await give(laptop, phone)
        await net.until_in_step(laptop, phone)
        assert phone.passwords() == {before.identifier: "first"}

        await phone.edit(before.identifier, "second")
        await laptop.until(lambda: laptop.passwords() == {before.identifier: "second"})
        await net.until_in_step()
        assert laptop.holds() == phone.holds()

        app = SimpleNamespace(daemon=laptop.daemon, siblings=None, online=net.of(laptop))
        (shown,) = all_peer_views(cast(App, app))
        assert (shown["connected"], shown["last_seen"], shown["through"]) == (False, None, ACCOUNT)
        assert shown["heard"] is not None


async def give(one: Device, other: Device) -> None:
    """Hand over by hand what a LAN would: here it is how the account becomes known."""
    from meshd.daemon.verifying import verify
    from meshd.store import versions

    connection = one.daemon.reader.connection
    rows = versions.changes(connection, 0, 10000)
    raws = [versions.raw(connection, row.vid) or b"" for row in rows if row.kind != 8 or not phone_lacks(one, row)]
    verified = await verify(raws, [None] * len(raws), other.daemon.replica.directory)
    await other.daemon.transact(
        lambda connection, outcome: other.daemon.replica.accept(connection, verified.versions, other.now_ms(), outcome)
    )


def phone_lacks(one: Device, row: object) -> bool:
    """Items of vaults: these come through the portal."""
    container = row.identifier.partition("/")[0]  # type: ignore[attr-defined]
    return one.daemon.snapshot.applications[container].tag == "PasswordProfile"


async def test_any_administrator_opens_an_account_and_the_portal_knows_the_whole_mesh(home: Path) -> None:
    lan = MemoryLan()
    laptop, phone, tablet = (harness.blank(home, lan, name) for name in ("laptop", "phone", "tablet"))
    portal = HttpPortal(now=lambda: int(time.time()))
    try:
        master = await harness.found(laptop)
        await harness.admit(laptop, phone)
        await harness.admit(laptop, tablet, Role.ADMIN, master)
        async with trio.open_nursery() as nursery:
            await nursery.start(portal.run)
            net = Online(portal, [tablet], {}, nursery)
            await net.start(tablet)
            await net.portals["tablet"].add(ACCOUNT, "", None, plain=True)
            await net.until_in_step()
            kept = portal.memory.authorities[tablet.daemon.snapshot.mesh]
            assert kept.devices() >= {laptop.udf, phone.udf, tablet.udf}
            assert not portal.memory.notices
            nursery.cancel_scope.cancel()
    finally:
        for one in (laptop, phone, tablet):
            one.daemon.close()


async def test_an_account_is_closed_at_the_portal_after_the_other_devices_were_told(home: Path) -> None:
    async with online(home, "laptop", "phone") as net:
        laptop, phone = net.devices
        await net.portals["laptop"].add(ACCOUNT, "", None, plain=True)
        await net.until_in_step(laptop)
        await give(laptop, phone)
        await net.until_in_step(laptop, phone)
        with pytest.raises(Denied, match="administrator"):
            await net.portals["phone"].close(ACCOUNT)
        await net.portals["laptop"].close(ACCOUNT)
        assert net.portal.memory.accounts[ACCOUNT].status == CLOSED
        await phone.until(lambda: not net.portals["phone"].running)

        await net.portals["laptop"].add("next@example.net", "", None, plain=True)
        await net.until_in_step(laptop)


async def test_what_found_no_room_is_fetched_from_a_portal_when_a_removal_is_moved_over_it(home: Path) -> None:
    async with online(home, "laptop", "desktop", "phone") as net:
        laptop, desktop, phone = net.devices
        raws = [(await phone.add(f"{number}.example", "alice", "secret")).raw for number in range(12)]
        await laptop.daemon.write(lambda pen: removal.remove(pen, [phone.udf]))
        late = check(raws, [None] * len(raws), laptop.daemon.replica.directory).versions
        await laptop.daemon.transact(lambda c, out: laptop.daemon.replica.accept(c, late, laptop.now_ms(), out))

        def keep_little(connection: sqlite3.Connection, _: Outcome) -> None:
            desktop.daemon.replica = Replica(connection, secrets.token_bytes, Limits(aside=5))

        await desktop.daemon.transact(keep_little)
        await net.portals["laptop"].add(ACCOUNT, "", None, plain=True)
        await net.until_in_step(laptop)
        await give(laptop, desktop)
        await net.until_in_step(laptop, desktop)
        assert aside.turned_away(desktop.daemon.reader.connection) and not desktop.passwords()
        moved = lambda pen: [Cut(phone.udf, pen.replica.tips(phone.udf))]  # noqa: E731
        await laptop.daemon.write(lambda pen: authoring.write_profile(pen, authoring.state(pen), cuts=moved(pen)))
        await desktop.until(lambda: len(desktop.passwords()) == 12)
        assert desktop.passwords() == laptop.passwords()
