"""Status, devices and waiting: what a person is told of the mesh, also when something is wrong with it."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest
import trio

from harness.devices import Device as Home
from harness.devices import mesh
from harness.local_api import NOW, Device, StandInSiblings, good, running, serving
from meshd.daemon import health, membership, names
from meshd.daemon.context import wait
from meshd.daemon.progress import Progress
from meshd.daemon.siblings import Sibling
from meshd.daemon.verifying import check
from meshd.localapi import bodies
from meshd.localapi.shapes import check_answer
from meshd.store import peers, versions


async def codes(device: Device) -> list[str]:
    return [problem["code"] for problem in (await device.get("/v1/status"))["health"]]


async def write(device: Device, *statements: str) -> None:
    """Change the store behind the daemon's back, in the writer's thread."""
    for statement in statements:
        await wait(device.daemon.writer.submit(lambda connection, sql=statement: connection.execute(sql).fetchall()))


# --- status -----------------------------------------------------------------------------------------------------------


async def test_a_new_device_says_that_it_is_in_no_mesh(home: Path, rng) -> None:
    async with running(home, rng) as device:
        now = await device.get("/v1/status")
        assert (now["mesh"], now["device"], now["locked"], now["peers"], now["portals"]) == (None, None, True, [], [])
        assert (now["health"], now["conflicts"], now["discovery"]["state"]) == ([], 0, "off")
        assert (await device.get("/v1/version"))["api"] == now["api"] == 1


async def test_a_locked_device_knows_names_and_counts_and_no_items(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init("laptop")
        await device.add("a.example")
        assert (await device.get("/v1/status"))["items"] == {"password": 1}
        await device.post("/v1/lock", {})
        now = await device.get("/v1/status")
        assert (now["device"]["name"], now["items"], now["locked"]) == ("laptop", {}, True)
        assert await codes(device) == ["locked"]
        assert "unlock" in now["health"][0]["hint"]


async def test_two_devices_see_each_other_and_are_in_step(home: Path) -> None:
    async with (
        mesh(home, "laptop", "desktop") as (_, (laptop, desktop)),
        serving(laptop) as here,
        serving(desktop) as there,
    ):
        await here.add("github.com")
        answer = await here.get("/v1/wait", synced=True, peer="desktop", timeout=20)
        assert answer["synced"] is True
        (peer,) = answer["peers"]
        assert (peer["id"], peer["name"], peer["role"], peer["connected"]) == (
            desktop.udf,
            "desktop",
            "member",
            True,
        )
        assert (peer["behind"], bool(peer["address"])) == (0, True)
        await there.get("/v1/wait", synced=True, timeout=20)
        now = await there.get("/v1/status")
        assert (now["items"], now["synced"], now["health"]) == ({"password": 1}, True, [])
        assert now["device"] == {"id": desktop.udf, "name": "desktop", "role": "member"}
        assert now["listening"] == [f"{desktop.host.ip}:{desktop.siblings.port}"]
        assert now["discovery"]["state"] == "on"


def raws(device: Home) -> dict[bytes, bytes]:
    return {row[0]: row[1] for row in device.daemon.reader.query("SELECT vid, raw FROM versions WHERE kind = 8")}


async def test_who_is_away_is_behind_by_what_was_written_since(home: Path) -> None:
    async with mesh(home, "laptop", "desktop") as (_, (laptop, desktop)), serving(laptop) as here:
        await here.get("/v1/wait", peer="desktop", timeout=20)
        desktop.stop()
        await laptop.until(lambda: not laptop.siblings.connections)
        await here.add("a.example")
        await here.add("b.example")
        (peer,) = (await here.get("/v1/status"))["peers"]
        assert (peer["connected"], peer["behind"]) == (False, 2)
        assert peer["last_seen"]
        await desktop.add("its-own.example", "bob", "b")  # which comes by another way
        lacking = [raw for vid, raw in raws(desktop).items() if vid not in laptop.holds()]
        found = check(lacking, [None] * len(lacking), laptop.daemon.replica.directory)
        replica = laptop.daemon.replica
        await laptop.daemon.transact(lambda c, outcome: replica.accept(c, found.versions, laptop.now_ms(), outcome))
        (peer,) = (await here.get("/v1/status"))["peers"]
        assert peer["behind"] == 2
        assert (await here.get("/v1/devices/desktop"))["behind"] == 2


async def test_an_address_is_remembered_for_who_is_away(home: Path, rng) -> None:
    async with mesh(home, "laptop", "desktop", run=False) as (_, (laptop, desktop)), serving(laptop) as here:
        (peer,) = (await here.get("/v1/status"))["peers"]
        assert (peer["address"], peer["last_seen"]) == (None, None)
        when = NOW - 5000
        laptop.daemon.writer.run(lambda c: peers.seen(c, desktop.udf, when, address="192.0.2.7:4711"))
        (peer,) = (await here.get("/v1/status"))["peers"]
        assert (peer["address"], peer["last_seen"]) == ("192.0.2.7:4711", "2027-01-15T07:59:55Z")


async def test_health_names_what_is_wrong_worst_first(home: Path) -> None:
    async with mesh(home, "laptop", "desktop", run=False) as (_, (laptop, desktop)):
        laptop.host.cut()
        siblings = StandInSiblings()
        skewed = Progress(
            desktop.udf, "192.0.2.7:1", outgoing=True, connected=True, clock_skew_ms=-7 * 60_000, strikes=1
        )
        siblings.connections[desktop.udf] = skewed
        async with serving(laptop) as here:
            object.__setattr__(here.app, "siblings", siblings)
            if (saved := names.refresh(laptop.daemon)) is not None:
                await wait(saved)
            vids = [row[0] for row in laptop.daemon.reader.query("SELECT vid FROM versions WHERE kind = 8")]
            laptop.daemon.writer.run(
                lambda c: c.execute("UPDATE versions SET state = 3, head = 0 WHERE vid = ?", vids[:1])
            )
            laptop.daemon.writer.run(
                lambda c: c.execute("UPDATE versions SET state = 2, head = 0 WHERE vid = ?", vids[1:])
            )
            laptop.daemon.cloned = True
            laptop.daemon.lock()
            now = await here.get("/v1/status")
            assert [one["code"] for one in now["health"]] == [
                "possible-attack",
                "cloned",
                "quarantine",
                "pending",
                "no-network",
                "clock-skew",
                "locked",
            ]
            told = {one["code"]: one["message"] for one in now["health"]}
            assert "7 minutes behind" in told["clock-skew"]
            assert "desktop" in told["possible-attack"]
            assert now["discovery"]["state"] == "waiting"


async def test_a_fork_of_a_device_is_told(home: Path) -> None:
    async with mesh(home, "laptop", "desktop", run=False) as (_, (laptop, desktop)), serving(laptop) as here:
        for udf, code in ((desktop.udf, "fork"), (laptop.udf, "cloned")):

            def plant(connection, udf=udf):
                sql = "INSERT INTO forks (signer, n, first, second, grown) VALUES (?, 3, ?, ?, 1)"
                connection.execute(sql, (udf, b"a" * 32, b"b" * 32))

            laptop.daemon.writer.run(plant)
            assert code in await codes(here)
        good(await here.ask("POST", "/v1/removals", {"devices": [desktop.udf], "wait": 0}))
        assert "fork" not in await codes(here), "it says that a removed device is to be removed"


async def test_a_full_disk_is_told_before_it_hurts(home: Path, rng, monkeypatch) -> None:
    monkeypatch.setattr(health, "DISK_LOW", 2**62)
    async with running(home, rng) as device:
        await device.init()
        assert await codes(device) == ["disk-low"]


async def test_a_damaged_store_is_reported_and_the_status_still_comes(home: Path, rng) -> None:
    async with running(home, rng) as device:
        made = await device.init()
        await device.add("a.example")
        device.daemon.lock()
        # A table that is not there fails like a page that can't be read: as an error of SQLite in the middle of things.
        await write(device, "ALTER TABLE peers RENAME TO lost", "ALTER TABLE forks RENAME TO lost_too")
        now = await device.get("/v1/status")
        assert now["mesh"] == made["mesh"]
        assert {problem["code"] for problem in now["health"]} == {"store", "locked"}
        assert (await device.ask("GET", "/v1/devices")).code == "store"


async def test_an_unreadable_page_is_reported_as_damage(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        device.daemon.database.checkpoint()
    size = (home / "meshd.db").stat().st_size
    async with running(home, rng) as device:
        with (home / "meshd.db").open("r+b") as file:
            file.seek(2 * 4096)
            file.write(b"\xa5" * (size - 2 * 4096))
        device.daemon.reader.connection.execute("PRAGMA shrink_memory")
        now = await device.get("/v1/status")
        assert "store-damaged" in {problem["code"] for problem in now["health"]}


async def test_statuses_do_not_keep_a_device_from_locking(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        await device.add("a.example")
        await device.get("/v1/items")
        read = device.daemon.secret_read
        await device.get("/v1/status")
        assert device.daemon.secret_read == read


# --- devices ----------------------------------------------------------------------------------------------------------


async def test_devices_are_listed_this_one_first(home: Path) -> None:
    async with mesh(home, "laptop", "desktop", "attic", run=False) as (_, (laptop, _, attic)):
        async with serving(laptop) as here:
            listed = (await here.get("/v1/devices"))["devices"]
            assert [(one["name"], one["role"], one["this"]) for one in listed] == [
                ("laptop", "admin", True),
                ("attic", "member", False),
                ("desktop", "member", False),
            ]
        async with serving(attic) as here:  # no name has come yet: then the beginning of the id stands for it
            listed = (await here.get("/v1/devices"))["devices"]
            assert (listed[0]["id"], listed[0]["name"]) == (attic.udf, f"({attic.udf[:11]})")


async def test_a_device_is_found_by_name_id_and_beginning_of_its_id(home: Path) -> None:
    async with mesh(home, "laptop", "desktop", run=False) as (_, (laptop, desktop)), serving(laptop) as here:
        for text in (
            "desktop",
            "DESKTOP",
            desktop.udf,
            desktop.udf.lower(),
            desktop.udf[:11],
            desktop.udf[:8].lower(),
        ):
            assert (await here.get(f"/v1/devices/{text}"))["id"] == desktop.udf, text
        for text in ("phone", desktop.udf[:3], "M"):
            assert (await here.ask("GET", f"/v1/devices/{text}")).code == "not-found", text
        whole = await here.get("/v1/devices/desktop")
        assert (whole["addresses"], whole["address"], whole["last_error"]) == ([], None, None)
        assert whole["added"]


async def test_a_name_that_two_devices_have_is_ambiguous(home: Path) -> None:
    async with (
        mesh(home, "laptop", "box", "phone", run=False) as (_, (laptop, box, phone)),
        serving(laptop) as here,
    ):
        await laptop.daemon.write(lambda pen: membership.name_device(pen, phone.udf, "box"))
        await here.get("/v1/devices")
        if (saved := names.refresh(laptop.daemon)) is not None:
            await wait(saved)
        answer = await here.ask("GET", "/v1/devices/box")
        assert (answer.status, answer.code) == (409, "ambiguous")
        assert box.udf in answer.body["error"]["message"]


async def test_a_rename_reaches_the_others_and_what_is_remembered_locked(home: Path) -> None:
    async with (
        mesh(home, "laptop", "desktop") as (_, (laptop, desktop)),
        serving(laptop) as here,
        serving(desktop) as there,
    ):
        changed = good(await here.ask("PATCH", "/v1/devices/desktop", {"name": "tower"}))
        assert changed["name"] == "tower"
        await here.get("/v1/wait", peer="tower", timeout=20)
        while (await there.get("/v1/whoami"))["device"]["name"] != "tower":
            await desktop.daemon.changed.after(desktop.daemon.changed.count)
        assert (await there.get("/v1/whoami"))["device"]["name"] == "tower"
        await there.post("/v1/lock", {})
        assert (await there.get("/v1/whoami"))["device"]["name"] == "tower"


async def test_a_member_renames_itself_and_nobody_else(home: Path) -> None:
    async with (
        mesh(home, "laptop", "desktop") as (_, (laptop, desktop)),
        serving(laptop) as here,
        serving(desktop) as there,
    ):
        await here.get("/v1/wait", peer="desktop", timeout=20)
        answer = await there.ask("PATCH", f"/v1/devices/{laptop.udf}", {"name": "mine"})
        assert (answer.status, answer.code) == (403, "denied")
        assert good(await there.ask("PATCH", f"/v1/devices/{desktop.udf}", {"name": "tower"}))["name"] == "tower"


async def test_a_name_in_use_or_unfit_is_refused(home: Path) -> None:
    async with mesh(home, "laptop", "desktop", run=False) as (_, (laptop, _desktop)), serving(laptop) as here:
        for name, code in (("laptop", "exists"), (" x", "usage"), ("a\u2028b", "usage"), ("", "usage")):
            assert (await here.ask("PATCH", "/v1/devices/desktop", {"name": name})).code == code, name
        assert (await here.ask("PATCH", "/v1/devices/desktop", {})).code == "usage"
        await here.post("/v1/lock", {})
        assert (await here.ask("PATCH", "/v1/devices/desktop", {"name": "tower"})).code == "locked"


async def test_an_address_is_kept_here_and_tried_at_once_also_while_locked(home: Path) -> None:
    async with mesh(home, "laptop", "desktop", run=False) as (_, (laptop, desktop)), serving(laptop) as here:
        sibling = Sibling(desktop.udf)
        here.app.siblings.known[desktop.udf] = sibling
        wake = sibling.wake
        await here.post("/v1/lock", {})
        view = good(await here.ask("PATCH", "/v1/devices/desktop", {"address": "desktop.home:4711"}))
        assert view["address"] == "desktop.home:4711"
        assert wake.is_set()
        assert laptop.daemon.manual_address(desktop.udf) == "desktop.home:4711"
        for wrong in ("desktop", "desktop:", ":70000", "a b:1", "fe80::1:1", "x:0"):
            assert (await here.ask("PATCH", "/v1/devices/desktop", {"address": wrong})).code == "usage", wrong
        assert (await here.ask("PATCH", "/v1/devices/laptop", {"address": "a:1"})).code == "usage"
        assert good(await here.ask("PATCH", "/v1/devices/desktop", {"address": None}))["address"] is None
        assert laptop.daemon.manual_address(desktop.udf) is None


# --- waiting ----------------------------------------------------------------------------------------------------------


async def test_waiting_ends_with_the_mesh(home: Path, rng) -> None:
    async with running(home, rng) as device:
        answer = await device.ask("GET", "/v1/wait", query={"timeout": 0})
        assert (answer.status, answer.code) == (409, "not-connected")
        assert (await device.ask("GET", "/v1/wait", query={"synced": 1, "timeout": 60})).code == "not-connected"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(device.init)
            with trio.fail_after(10):
                assert (await device.get("/v1/wait", timeout=60))["synced"] is True


async def test_a_device_alone_is_in_step(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        begun = time.monotonic()
        assert (await device.get("/v1/wait", synced=True))["synced"] is True
        assert time.monotonic() - begun < 2


async def test_a_peer_that_does_not_come_is_named_when_the_time_is_over(home: Path) -> None:
    async with mesh(home, "laptop", "desktop", run=False) as (_, (laptop, _desktop)), serving(laptop) as here:
        answer = await here.ask("GET", "/v1/wait", query={"peer": "desktop", "timeout": 0.1})
        assert (answer.status, answer.code) == (504, "not-synced")
        assert answer.body["error"]["pending"] == ["desktop"]
        check_answer(answer.body, bodies.ERROR)
        assert (await here.ask("GET", "/v1/wait", query={"peer": "phone"})).code == "not-found"
        assert (await here.ask("GET", "/v1/wait", query={"peer": "laptop"})).code == "usage"
        # Nobody is connected: everybody who is, is in step.
        assert (await here.get("/v1/wait", synced=True, timeout=0.2))["synced"] is True


async def test_step_by_step_a_peer_comes_into_step(home: Path) -> None:
    async with mesh(home, "laptop", "desktop", run=False) as (_, (laptop, desktop)):
        newest = versions.last_seq(laptop.daemon.reader.connection)
        progress = Progress(desktop.udf, "192.0.2.7:1", outgoing=True)
        siblings = StandInSiblings(connections={desktop.udf: progress})
        async with serving(laptop) as here:
            object.__setattr__(here.app, "siblings", siblings)
            query = {"synced": True, "timeout": 0.05}

            async def in_step() -> bool:
                return (await here.ask("GET", "/v1/wait", query=query)).status == 200

            assert not await in_step()  # it has not said hello
            progress.connected = True
            assert not await in_step()
            progress.acked = newest
            assert not await in_step()  # nobody knows yet what it has
            progress.caught_up, progress.theirs = True, 7
            assert not await in_step()
            progress.ours = 7
            assert await in_step()
            await laptop.add("a.example", "alice", "new")
            assert not await in_step()


async def test_who_waits_hears_at_once(home: Path) -> None:
    async with mesh(home, "laptop", "desktop") as (_, (laptop, desktop)), serving(laptop) as here:
        await here.get("/v1/wait", peer="desktop", timeout=20)
        desktop.host.cut()
        await here.add("a.example")
        with pytest.raises(trio.TooSlowError), trio.fail_after(0.3):
            await here.get("/v1/wait", synced=True, timeout=60)
        with contextlib.suppress(trio.Cancelled):
            desktop.host.heal()
        with trio.fail_after(20):
            await here.get("/v1/wait", synced=True, timeout=60)
