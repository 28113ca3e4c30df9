"""Events: every one once, in order, over restarts; and a way on for who comes too late."""

from __future__ import annotations

import contextlib
from pathlib import Path

import trio

from harness.devices import mesh
from harness.local_api import Device, item_path, running, serving
from meshd.daemon.handlers import events as handler
from meshd.store import events


async def first_of(device: Device, kind: str, **query: object) -> dict:
    """The first event of this type that comes."""
    async with contextlib.aclosing(device.follow(**query)) as lines:
        async for event in lines:
            if event["type"] == kind:
                return event
    raise AssertionError("the stream ended")


async def test_ids_have_no_gaps_over_a_restart(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        for number in range(3):
            await device.add(f"{number}.example")
        before = await device.events(since=0)
    async with running(home, rng) as device:
        await device.post("/v1/unlock", {"passphrase": "device secret"})
        await device.add("later.example")
        told = await device.events(since=0)
        assert [event["id"] for event in told] == list(range(1, len(told) + 1))
        assert told[: len(before)] == before
        assert [event["id"] for event in await device.events(since=before[-1]["id"])] == list(
            range(len(before) + 1, len(told) + 1)
        )
        assert (await device.get("/v1/status"))["events"] == told[-1]["id"]


async def test_a_watcher_hears_what_happens_from_then_on(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        heard: list[dict] = []

        async def watch(task_status: trio.TaskStatus[None]) -> None:
            async with contextlib.aclosing(device.follow(since=newest)) as lines:
                task_status.started()
                async for event in lines:
                    heard.append(event)
                    if event["type"] == "lock":
                        return

        newest = (await device.get("/v1/status"))["events"]
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                await nursery.start(watch)
                identifier = await device.add("a.example")
                await device.ask("PATCH", item_path(identifier), {"title": "x"})
                await device.ask("DELETE", item_path(identifier))
                await device.post("/v1/lock", {})
        assert [event["type"] for event in heard] == ["item", "item", "item", "lock"]
        assert [event["id"] for event in heard] == list(range(newest + 1, newest + 5))
        assert all(event["item"] == identifier and event["application"] == "password" for event in heard[:3])


async def test_without_since_only_new_events_come(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        assert await device.events() == []
        with trio.fail_after(10):
            async with contextlib.aclosing(device.follow()) as lines, trio.open_nursery() as nursery:
                nursery.start_soon(device.post, "/v1/lock", {})
                # The request may come in after the lock: then another event is needed to hear one.
                with trio.move_on_after(1):
                    assert (await anext(lines))["type"] == "lock"


async def test_who_comes_too_late_gets_a_reset_with_a_whole_status_and_goes_on(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        await device.add("a.example")
        newest = (await device.get("/v1/status"))["events"]
        await device.daemon.transact(
            lambda connection, outcome: connection.execute("DELETE FROM events WHERE id < ?", (newest,)) and None
        )
        (reset,) = await device.events(since=0)
        assert (reset["type"], reset["id"]) == ("reset", newest)
        assert reset["snapshot"]["items"] == {"password": 1}
        assert reset["snapshot"]["mesh"] == device.daemon.snapshot.mesh
        await device.add("b.example")
        assert [event["type"] for event in await device.events(since=reset["id"])] == ["item"]
        # The last event that is still kept is no reason for a reset.
        assert [event["id"] for event in await device.events(since=newest - 1)] == [newest, newest + 1]


async def test_a_store_that_lost_events_resets_its_watchers(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        (reset,) = await device.events(since=10_000)
        assert reset["type"] == "reset"
        assert reset["id"] == (await device.get("/v1/status"))["events"]


async def test_a_watcher_that_is_overtaken_by_pruning_is_reset(home: Path, rng, monkeypatch) -> None:
    monkeypatch.setattr(events, "KEEP", 10)
    async with running(home, rng) as device:
        await device.init()
        for number in range(30):
            await device.daemon.event("test", {"count": number})
        told = await device.events(since=1)
        assert [event["type"] for event in told] == ["reset"]
        last = await device.events(since=told[0]["id"] - 10)
        assert [event["count"] for event in last] == list(range(20, 30))


async def test_a_stream_shows_that_it_lives(home: Path, rng, monkeypatch) -> None:
    monkeypatch.setattr(handler, "KEEP_ALIVE", 0.05)
    async with running(home, rng) as device, await trio.open_unix_socket(device.socket) as stream:
        await stream.send_all(b"GET /v1/events HTTP/1.1\r\nHost: meshd\r\n\r\n")
        data = b""
        with trio.fail_after(10):
            while data.count(b"1\r\n\n\r\n") < 4:
                data += await stream.receive_some(4096)
        assert b"application/x-ndjson" in data


async def test_what_devices_are_called_is_told_as_a_device(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        newest = (await device.get("/v1/status"))["events"]
        await device.ask("PATCH", "/v1/devices/laptop", {"name": "tower"})
        told = await device.events(since=newest)
        assert {event["type"] for event in told} == {"device"}
        assert (told[-1]["name"], told[-1]["device"]) == ("tower", device.daemon.snapshot.own)


async def test_a_conflict_is_told_when_it_comes_about(home: Path) -> None:
    async with mesh(home, "laptop", "desktop") as (_, (laptop, desktop)):
        made = await laptop.add("github.com", "alice", "first")
        await desktop.until(lambda: made.identifier in desktop.passwords())
        desktop.host.cut()
        await laptop.edit(made.identifier, "from the laptop")
        await desktop.edit(made.identifier, "from the desktop")
        async with serving(laptop) as here:
            with trio.fail_after(20):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(lambda: first_of(here, "conflict", since=0))
                    desktop.host.heal()
            told = [event for event in await here.events(since=0) if event["type"] == "conflict"]
            assert told[0]["item"] == made.identifier


async def test_who_comes_and_goes_is_told(home: Path) -> None:
    async with mesh(home, "laptop", "desktop") as (_, (laptop, desktop)), serving(laptop) as here:
        with trio.fail_after(20):
            event = await first_of(here, "peer", since=0)
            assert (event["device"], event["name"], event["state"]) == (desktop.udf, "desktop", "connected")
            desktop.stop()
            event = await first_of(here, "peer", since=event["id"])
            assert event["state"] == "disconnected"


async def test_details_of_the_daemon_stay_in_the_daemon(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.daemon.event(
            "invitation", {"id": "x", "state": "open", "attempts_left": 3, "count": True, "name": 5}
        )
        await device.daemon.event("rejected", {"count": 2, "why": "what a stranger sent"})
        first, second = await device.events(since=0)
        assert {name: first[name] for name in first if name not in ("schema", "id", "time")} == {
            "type": "invitation",
            "state": "open",
        }
        assert (second["type"], second["state"], second["count"]) == ("health", "rejected", 2)
        assert "why" not in second
