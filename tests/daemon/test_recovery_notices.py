"""Whoever asks for the recovery entry is noticed: by every device that is left, wherever he asked."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from harness import devices as harness
from harness.devices import Device, mesh
from harness.lan import MemoryLan
from harness.local_api import serving
from harness.portal_http import HttpPortal
from meshd.daemon import drilling, masterkeys, notices, recovering, recovery_door, searching
from meshd.daemon.portals.following import TOLD_SECONDS, told_events
from meshd.daemon.portals.roster import Portals, where_of
from meshd.net.srv import Found, Services
from meshd.portal.structures import Noticed
from meshd.profile import shares
from meshd.profile.shares import Scheme
from meshd.store import events
from meshd.store.events import Event

pytestmark = pytest.mark.draft("Master profile recovery")

ACCOUNT = "alice@example.net"


async def no_dns(name: str) -> Found:
    return Found()


async def new_shares(device: Device) -> bytes:
    master = await masterkeys.unseal(device.daemon, "master passphrase")
    prepared, told, letters = await recovering.prepare(device.daemon, master, recovering.Wish(Scheme.simple(2, 2)))
    await device.daemon.write(lambda pen: recovering.commit(pen, master, prepared))
    return await drilling.combine(told, "", letters)


def told(device: Device, kind: str = "recovery") -> list[Event]:
    found = events.since(device.daemon.reader.connection, 0, 1000)
    return [one for one in found if one.type == kind and one.data.get("state") in ("looked-up", "fetched", "published")]


@contextlib.asynccontextmanager
async def at_a_portal(home: Path) -> AsyncIterator[tuple[list[Device], list[Portals], HttpPortal, bytes]]:
    """Two devices that follow a portal where their recovery entry is."""
    async with mesh(home, "laptop", "desktop") as (_, (laptop, desktop)), trio.open_nursery() as nursery:
        await laptop.until_connected(desktop)
        portal = HttpPortal(now=lambda: int(time.time()))
        await nursery.start(portal.run)
        key = await new_shares(laptop)
        there = [Portals(one.daemon, portal.client(), Services(no_dns)) for one in (laptop, desktop)]
        for one in there:
            await nursery.start(one.run)
        await there[0].add(ACCOUNT, "", None, plain=True)
        for device, one in zip((laptop, desktop), there, strict=True):
            await device.until(lambda one=one: ACCOUNT in one.running and one.running[ACCOUNT].in_step)
        yield [laptop, desktop], there, portal, key
        nursery.cancel_scope.cancel()


async def look_up(home: Path, portal: HttpPortal, key: bytes) -> searching.Found:
    """What a stranger with the shares does."""
    thief = harness.blank(home, MemoryLan(), "thief")
    try:
        portals = Portals(thief.daemon, portal.client(), Services(no_dns))
        return await searching.from_portal(portals, where_of(ACCOUNT, plain=True), key)
    finally:
        thief.daemon.close()


async def test_a_look_up_at_a_portal_reaches_every_device_at_once_and_once(home: Path) -> None:
    async with at_a_portal(home) as (devices, there, portal, key):
        assert [told(one) for one in devices] == [[], []]
        await look_up(home, portal, key)
        for device in devices:
            await device.until(lambda device=device: bool(told(device)))  # a waiting feed is answered
            (event,) = told(device)
            assert (event.data["state"], event.data["name"]) == ("looked-up", ACCOUNT)
        async with serving(devices[1]) as here:
            (said,) = [one for one in (await here.get("/v1/status"))["announcements"] if one["type"] == "recovery"]
            assert said["text"].startswith(f"the recovery entry was looked up at {ACCOUNT} on 20")
            assert "recovery refresh" in said["text"]
        await look_up(home, portal, key)  # so soon after the first it is in the portal's log alone
        for device, one in zip(devices, there, strict=True):
            await device.add("later.example", "alice", "later")
            await device.until(lambda one=one: one.running[ACCOUNT].in_step)
            assert len(told(device)) == 1


async def test_a_device_that_begins_to_follow_does_not_hear_what_was_told_before(home: Path) -> None:
    async with at_a_portal(home) as (devices, there, portal, key):
        await look_up(home, portal, key)
        for device in devices:
            await device.until(lambda device=device: bool(told(device)))
        there[1].running[ACCOUNT].page_key = ""
        there[1].running[ACCOUNT].nudge()
        await devices[1].until(lambda: there[1].running[ACCOUNT].in_step)
        assert len(told(devices[1])) == 1


def test_what_a_portal_tells_is_bounded_and_read_with_care() -> None:
    at, later = "2026-11-24T12:00:00Z", "2026-11-24T13:00:00Z"
    many = [Noticed(at, "escrow-read", "x")] * 500 + [Noticed(later, "escrow-read", "x")]
    assert told_events(many) == {("recovery", "looked-up"): later}
    odd = [Noticed("\n", "escrow-read", "x"), Noticed(at, "from a later release", "x")]
    assert told_events(odd) == {}
    assert told_events([Noticed(at, "published-by-master-key", "x")]) == {("master", "published"): at}
    assert TOLD_SECONDS >= 60


async def test_a_fetch_on_the_network_is_told_on_every_device(home: Path) -> None:
    async with mesh(home, "laptop", "desktop") as (lan, (laptop, desktop)), serving(desktop) as here:
        await laptop.until_connected(desktop)
        key = await new_shares(laptop)
        await desktop.until_same(laptop)
        await fetch(lan, laptop, key)
        await notices.pay(laptop.daemon)
        await desktop.until_same(laptop)
        await notices.catch_up(desktop.daemon)
        (event,) = told(desktop)
        assert (event.data["state"], event.data["device"]) == ("fetched", laptop.udf)
        (said,) = [one for one in (await here.get("/v1/status"))["announcements"] if one["type"] == "recovery"]
        assert "was fetched from" in said["text"]
        before = laptop.holds()
        await fetch(lan, laptop, key)
        await notices.pay(laptop.daemon)
        assert laptop.holds() == before  # once an hour is told


async def test_what_a_locked_device_gave_away_it_tells_when_it_is_unlocked(home: Path) -> None:
    async with mesh(home, "laptop", "desktop") as (lan, (laptop, desktop)):
        await laptop.until_connected(desktop)
        key = await new_shares(laptop)
        await desktop.until_same(laptop)
        laptop.daemon.lock()
        await fetch(lan, laptop, key)
        await notices.pay(laptop.daemon)
        (event,) = told(laptop)
        assert event.data == {"state": "fetched"}
        await laptop.daemon.unlock(None)
        await notices.pay(laptop.daemon)
        await desktop.until_same(laptop)
        (notice,) = await notices.catch_up(desktop.daemon)
        assert (notice.kind, notice.device) == ("fetched", laptop.udf)
        assert abs(notice.at - laptop.now_ms() // 1000) < 60


async def fetch(lan: MemoryLan, device: Device, key: bytes) -> None:
    assert device.siblings is not None
    address = f"{device.host.ip}:{device.siblings.port}"
    found = await searching.from_lan(lan.host("somebody"), key, harness.secrets.token_bytes, address)
    assert shares.identifier(key) == found.entry.identifier
    assert recovery_door.doors(device.daemon)
