"""What one device saw, every device tells: once, and for a day."""

from __future__ import annotations

from pathlib import Path

from harness.devices import check, mesh
from harness.local_api import serving
from meshd.daemon import names, notices, pairing_window
from meshd.daemon.context import wait
from meshd.daemon.notices import Notice
from meshd.daemon.pairing_window import Invitation, Terms, Window
from meshd.profile.apps import GROUP
from meshd.profile.claim import Role
from meshd.profile.vault import Item


async def test_a_burnt_invitation_is_told_on_every_device_once(home: Path) -> None:
    async with mesh(home, "laptop", "desktop") as (_, (laptop, desktop)), serving(desktop) as there:
        await laptop.until_connected(desktop)
        if (saved := names.refresh(desktop.daemon)) is not None:
            await wait(saved)
        invitation = Invitation("id", "7-orbit-walnut", 7, Role.MEMBER, laptop.now_ms() + 1000, 3)
        window = Window(invitation, Terms(Role.MEMBER), (), b"", None, None)
        await pairing_window.move(laptop.daemon, window, "burned")
        await desktop.until_same(laptop)
        (told,) = await notices.catch_up(desktop.daemon)
        assert (told.device, told.kind) == (laptop.udf, "burned")
        assert await notices.catch_up(desktop.daemon) == []
        assert await notices.catch_up(laptop.daemon) == []
        (said,) = (await there.get("/v1/status"))["announcements"]
        assert said["text"] == "an invitation on laptop was burnt: its code was guessed wrongly too often"
        (event,) = [one for one in await there.events(since=0) if one["type"] == "invitation"]
        assert (event["state"], event["device"]) == ("burned", laptop.udf)


async def test_notices_that_were_given_apart_are_all_told(home: Path) -> None:
    async with mesh(home, "laptop", "desktop", "tower") as (_, (laptop, desktop, tower)):
        await laptop.until_connected(desktop, tower)
        await desktop.until_same(laptop)
        await tower.until_same(laptop)
        laptop.stop()
        desktop.stop()
        await tower.until(lambda: not tower.siblings.connections)
        await notices.burnt(laptop.daemon)
        await notices.burnt(desktop.daemon)
        versions = [
            row[0]
            for one in (laptop, desktop)
            for row in one.daemon.reader.query("SELECT raw FROM versions WHERE kind = 8 ORDER BY seq DESC LIMIT 1")
        ]
        verified = check(versions, [None] * 2, tower.daemon.replica.directory)
        await tower.daemon.transact(
            lambda connection, outcome: tower.daemon.replica.accept(
                connection, verified.versions, tower.now_ms(), outcome
            )
        )
        # Two items, for neither had heard of the other's.
        assert {one.device for one in await notices.catch_up(tower.daemon)} == {laptop.udf, desktop.udf}
        await notices.burnt(tower.daemon)
        assert await notices.catch_up(tower.daemon) == []


async def test_old_notices_are_no_news(home: Path) -> None:
    async with mesh(home, "laptop", "desktop") as (_, (laptop, desktop)):
        await laptop.until_connected(desktop)
        await notices.burnt(laptop.daemon)
        await desktop.until_same(laptop)
        desktop.clock_ms = 25 * 3_600_000
        assert await notices.catch_up(desktop.daemon) == []


async def test_a_locked_device_gives_no_notice_and_says_so_in_the_log(home: Path, caplog) -> None:
    async with mesh(home, "laptop", run=False) as (_, (laptop,)):
        laptop.daemon.lock()
        await notices.burnt(laptop.daemon)
        assert "not told of a burnt invitation" in caplog.text
        assert await notices.catch_up(laptop.daemon) == []


def test_what_is_malformed_is_no_notice() -> None:
    good = {"Notice": "burned", "Device": "MDLAP", "At": "2026-11-24T06:41:00Z"}
    bad = [
        7,
        {},
        good | {"At": "yesterday"},
        good | {"At": None},
        good | {"Device": 7},
        good | {"Notice": ""},
        good | {"Notice": "x" * 33},
        {"Device": "MDLAP", "Name": "laptop"},
    ]
    item = Item({GROUP.private: {"Entries": [*bad, good]}}, {})
    assert notices.read(item) == [Notice(1795502460, "MDLAP", "burned")]
    for broken in ({}, {GROUP.private: 7}, {GROUP.private: {"Entries": 7}}):
        assert notices.read(Item(broken, {})) == []
