"""`meshctl doctor`: a line for all that should be right, what to do where it is not, and an exit code."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import trio

from harness import devices as harness
from harness.lan import MemoryLan
from harness.local_api import MASTER, NOW, Device, running
from harness.portal_http import HttpPortal
from harness.shell import Run, Shell
from harness.whole import alive
from meshd.localapi.errors import ERROR, OK


async def doctor(home: Path, *argv: str) -> Run:
    return await trio.to_thread.run_sync(partial(Shell(home), "doctor", *argv))


async def checks(home: Path) -> dict[str, dict[str, Any]]:
    """The lines, by what they are about."""
    seen = await doctor(home, "--json")
    assert seen.json["schema"] == 1
    levels = [one["level"] for one in seen.json["checks"]]
    worst = next(level for level in ("fail", "warn", "ok") if level in levels)
    assert (seen.json["level"], seen.code) == (worst, ERROR if worst == "fail" else OK)
    return {one["check"]: one for one in seen.json["checks"]}


async def with_shares(device: Device) -> list[str]:
    told = await device.post("/v1/recovery/shares", master_passphrase=MASTER, threshold=2, shares=2)
    await device.post("/v1/recovery/commit", token=told["token"], master_passphrase=MASTER)
    return [share["words"] for share in told["shares"]]


def test_without_a_daemon_it_says_how_to_start_it(home: Path) -> None:
    seen = Shell(home)("doctor")
    assert seen.code == ERROR
    assert "fail  daemon" in seen.out
    assert "systemctl --user start meshd" in seen.out


async def test_a_new_device_is_told_how_to_get_into_a_mesh(home: Path, rng: Callable[[int], bytes]) -> None:
    async with running(home, rng):
        found = await checks(home)
        assert found["daemon"]["level"] == found["files"]["level"] == "ok"
        assert (found["mesh"]["level"], "meshctl init" in found["mesh"]["hint"]) == ("warn", True)
        assert set(found) == {"files", "daemon", "mesh"}


async def test_files_that_others_may_read_fail(home: Path, rng: Callable[[int], bytes]) -> None:
    async with running(home, rng) as device:
        await device.init()
        for file, mode in ((device.daemon.paths.keystore, 0o644), (home, 0o755)):
            before = file.stat().st_mode
            file.chmod(mode)
            found = await checks(home)
            assert found["files"]["level"] == "fail"
            assert found["files"]["hint"] == f"chmod {'700' if file == home else '600'} {file}"
            file.chmod(before & 0o777)
        assert (await checks(home))["files"]["level"] == "ok"


async def test_it_nags_until_there_are_shares_that_were_tried(home: Path, rng: Callable[[int], bytes]) -> None:
    now = [NOW]
    async with running(home, rng, clock=lambda: now[0]) as device:
        await device.init()
        found = await checks(home)
        assert (found["recovery"]["level"], found["recovery"]["hint"]) == ("warn", "meshctl recovery create")
        assert found["portal"]["level"] == "warn"
        words = await with_shares(device)
        assert "on this device alone" in (await doctor(home)).out
        assert (await checks(home))["recovery"]["level"] == "ok"
        now[0] += 181 * 86_400_000
        found = await checks(home)
        assert (found["recovery"]["level"], found["recovery"]["hint"]) == ("warn", "meshctl recovery drill")
        for one in words:
            await device.post("/v1/recovery/drill/shares", words=one)
        await device.post("/v1/recovery/drill")
        assert (await checks(home))["recovery"]["level"] == "ok"
        device.daemon.lock()
        found = await checks(home)
        assert found["locked"]["hint"] == "meshctl unlock"
        assert "locked" in found["recovery"]["message"]


async def test_a_portal_that_is_reached_is_fine_and_one_that_is_not_is_named(home: Path) -> None:
    portal = HttpPortal(now=lambda: int(time.time()))
    laptop = harness.blank(home, MemoryLan(), "laptop")
    try:
        await harness.found(laptop)
        async with trio.open_nursery() as nursery:
            await nursery.start(portal.run)
            async with alive(laptop, portal) as api:
                await api.post("/v1/portals", account="alice@example.net", plain=True)
                assert api.app.online is not None
                portals = api.app.online.portals.running
                await laptop.until(lambda: all(one.in_step for one in portals.values()))
                found = await checks(laptop.home)
                assert "alice@example.net: connected" in found["portal"]["message"]
                assert found["network"]["message"] == "devices are announced and looked for: no other devices yet"
                portal.go_down()
                await laptop.until(lambda: any(one.view()["state"] == "offline" for one in portals.values()))
                found = await checks(laptop.home)
                assert found["portal"]["level"] == "warn"
                assert "alice@example.net: offline, last reached" in found["portal"]["message"]
            nursery.cancel_scope.cancel()
    finally:
        laptop.daemon.close()
