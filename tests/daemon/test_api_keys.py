"""Making a mesh, locking, unlocking, changing passphrases, and the lock that closes by itself."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from harness.local_api import MASTER, PASSPHRASE, Device, good, running, shown
from meshd.daemon import locking, status
from meshd.daemon.config import Config, Lock
from meshd.daemon.handlers import mesh
from meshd.errors import WrongPassphrase
from meshd.store.keystore import Keystore


async def unlock(device: Device, passphrase: str = PASSPHRASE) -> None:
    await device.post("/v1/unlock", {"passphrase": passphrase})


# --- init -------------------------------------------------------------------------------------------------------------


async def test_init_makes_a_mesh_whose_only_admin_this_device_is(home: Path, rng) -> None:
    async with running(home, rng) as device:
        made = await device.init("laptop")
        assert made["device"] == {"id": device.daemon.snapshot.own, "name": "laptop", "role": "admin"}
        assert (await device.get("/v1/whoami"))["mesh"] == made["mesh"]
        assert not device.daemon.locked
        vaults = (await device.get("/v1/applications"))["applications"]
        assert [vault["application"] for vault in vaults] == ["mail", "network", "note", "password", "ssh"]
        assert all(vault["readable"] and vault["writable"] for vault in vaults)


async def test_init_in_a_mesh_changes_nothing(home: Path, rng) -> None:
    async with running(home, rng) as device:
        made = await device.init()
        keystore = device.daemon.paths.keystore.read_bytes()
        body = {"name": "again", "passphrase": "other", "master_passphrase": "other"}
        answer = await device.ask("POST", "/v1/mesh", body)
        assert (answer.status, answer.code) == (409, "exists")
        assert device.daemon.paths.keystore.read_bytes() == keystore
        assert (await device.get("/v1/whoami"))["mesh"] == made["mesh"]


async def test_of_two_inits_at_once_one_makes_the_mesh(home: Path, rng) -> None:
    async with running(home, rng) as device:
        answers = []

        async def init(name: str) -> None:
            body = {"name": name, "passphrase": PASSPHRASE, "master_passphrase": MASTER}
            answers.append(await device.ask("POST", "/v1/mesh", body))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(init, "one")
            nursery.start_soon(init, "two")
        assert sorted(answer.status for answer in answers) == [201, 409]
        await device.post("/v1/lock", {})
        await unlock(device)


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"passphrase": None}, "usage"),
        ({"no_passphrase": True}, "usage"),
        ({"passphrase": None, "no_passphrase": True}, "denied"),
        ({"name": " laptop"}, "usage"),
        ({"name": "lap\ntop"}, "usage"),
        ({"name": "MB7HN-L6Y4V-A2MN6-BIHCL-AQXJM-K5GHH-HW46Y-IK36P"}, "usage"),
        ({"passphrase": ""}, "usage"),
    ],
)
async def test_an_init_that_makes_no_sense_is_refused(home: Path, rng, members: dict, code: str) -> None:
    async with running(home, rng) as device:
        body = {"name": "laptop", "passphrase": PASSPHRASE, "master_passphrase": MASTER} | members
        body = {name: value for name, value in body.items() if value is not None}
        assert (await device.ask("POST", "/v1/mesh", body)).code == code
        assert not device.daemon.paths.keystore.exists()


async def test_a_mesh_is_still_there_after_a_restart_locked_and_with_its_name(home: Path, rng) -> None:
    async with running(home, rng) as device:
        made = await device.init("laptop")
        identifier = await device.add("github.com", "alice", "s3cret")
    async with running(home, rng) as device:
        now = await device.get("/v1/status")
        assert (now["mesh"], now["locked"], now["device"]["name"]) == (made["mesh"], True, "laptop")
        await unlock(device)
        assert (await device.item(identifier))["password"] == "s3cret"


async def test_a_device_without_a_passphrase_opens_without_one(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init(passphrase=None, no_passphrase=True, force=True)
        await device.add("github.com")
    async with running(home, rng) as device:
        await device.post("/v1/unlock", {})
        assert (await device.lookup("github.com")).status == 200


async def test_a_keystore_of_an_init_that_did_not_end_is_set_aside(home: Path, rng) -> None:
    async with running(home, rng) as device:
        mesh.make_keystore(device.app, {"dak": bytes(32), "discovery": []}, {"dsk": b""}, "forgotten")
        left = device.daemon.paths.keystore.read_bytes()
    async with running(home, rng) as device:
        assert (await device.get("/v1/status"))["mesh"] is None
        await device.init()
        await device.post("/v1/lock", {})
        await unlock(device)
        aside = [path for path in home.iterdir() if ".unused-" in path.name]
        assert [path.read_bytes() for path in aside] == [left]


async def test_an_init_whose_transaction_fails_can_be_repeated(home: Path, rng) -> None:
    async with running(home, rng) as device:
        device.daemon.database.connection.execute("PRAGMA query_only = ON")
        body = {"name": "laptop", "passphrase": PASSPHRASE, "master_passphrase": MASTER}
        assert (await device.ask("POST", "/v1/mesh", body)).status == 500
        assert (await device.get("/v1/status"))["mesh"] is None
        device.daemon.database.connection.execute("PRAGMA query_only = OFF")
        await device.init()
        await device.add("github.com")


async def test_a_new_device_can_be_found_at_once(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        assert device.daemon.tier1 is not None
        kept = device.daemon.tier1.discovery
        assert len(kept) == 1
    async with running(home, rng) as device:
        assert device.daemon.tier1 is not None
        assert device.daemon.tier1.discovery == kept


# --- lock and unlock --------------------------------------------------------------------------------------------------


async def test_a_locked_device_shows_no_items_and_opens_with_its_passphrase_alone(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        identifier = await device.add("github.com", "alice", "s3cret")
        assert await device.post("/v1/lock", {}) == {"schema": 1, "locked": True}
        assert (await device.lookup("github.com")).code == "locked"
        answer = await device.ask("POST", "/v1/unlock", {"passphrase": "device secre"})
        assert (answer.status, answer.code) == (403, "wrong-passphrase")
        assert device.daemon.locked
        answer = await device.ask("POST", "/v1/unlock", {})
        assert (answer.status, answer.code) == (423, "locked")
        assert (await device.post("/v1/unlock", {"passphrase": PASSPHRASE}))["locked"] is False
        assert (await device.item(identifier))["password"] == "s3cret"


async def test_unlocking_what_is_unlocked_still_asks_for_the_right_passphrase(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        index = device.daemon.index
        assert (await device.ask("POST", "/v1/unlock", {"passphrase": "wrong"})).code == "wrong-passphrase"
        await unlock(device)
        assert device.daemon.index is index


async def test_locking_twice_is_no_error(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        for _ in range(2):
            assert (await device.post("/v1/lock", {}))["locked"]
        told = [event["state"] for event in await device.events(since=0) if event["type"] == "lock"]
        assert told == ["locked"]


async def test_each_wrong_passphrase_in_a_row_takes_longer(autojump_clock) -> None:
    guard = locking.Guard()

    async def wrong() -> None:
        raise WrongPassphrase

    pauses = []
    for _ in range(8):
        begun = trio.current_time()
        with pytest.raises(WrongPassphrase):
            await guard.tried(wrong)
        pauses.append(trio.current_time() - begun)
    assert pauses == pytest.approx([0.25, 0.5, 1, 2, 4, 8, 8, 8])

    async def right() -> str:
        return "opened"

    assert await guard.tried(right) == "opened"
    begun = trio.current_time()
    with pytest.raises(WrongPassphrase):
        await guard.tried(wrong)
    assert trio.current_time() - begun == pytest.approx(0.25)


async def test_guessing_in_parallel_is_no_faster(autojump_clock) -> None:
    guard, running_now, most = locking.Guard(), 0, 0

    async def wrong() -> None:
        nonlocal running_now, most
        running_now += 1
        most = max(most, running_now)
        await trio.sleep(1)
        running_now -= 1
        raise WrongPassphrase

    async def guess() -> None:
        with pytest.raises(WrongPassphrase):
            await guard.tried(wrong)

    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(guess)
    assert most == 1
    assert trio.current_time() - begun == pytest.approx(4 + 0.25 + 0.5 + 1 + 2)


# --- passphrases ------------------------------------------------------------------------------------------------------


async def test_a_new_passphrase_takes_the_place_of_the_old(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        good(await device.ask("PUT", "/v1/passphrase", {"old": PASSPHRASE, "new": "another"}))
        await device.post("/v1/lock", {})
        assert (await device.ask("POST", "/v1/unlock", {"passphrase": PASSPHRASE})).code == "wrong-passphrase"
        await unlock(device, "another")


async def test_a_passphrase_can_be_changed_while_locked_and_leaves_it_locked(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        await device.post("/v1/lock", {})
        good(await device.ask("PUT", "/v1/passphrase", {"old": PASSPHRASE, "new": "another"}))
        assert device.daemon.locked
        await unlock(device, "another")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"old": "wrong", "new": "another"}, "wrong-passphrase"),
        ({"new": "another"}, "usage"),
        ({"old": PASSPHRASE}, "usage"),
        ({"old": PASSPHRASE, "new": "another", "no_passphrase": True}, "usage"),
        ({"old": PASSPHRASE, "no_passphrase": True}, "denied"),
        ({"old": PASSPHRASE, "new": ""}, "usage"),
    ],
)
async def test_a_change_that_is_refused_changes_nothing(home: Path, rng, body: dict, code: str) -> None:
    async with running(home, rng) as device:
        await device.init()
        assert (await device.ask("PUT", "/v1/passphrase", body)).code == code
        assert Keystore.open(device.daemon.paths.keystore).unlock(PASSPHRASE)


async def test_an_admin_can_insist_on_no_passphrase_and_get_one_again(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        body = {"old": PASSPHRASE, "no_passphrase": True, "force": True}
        good(await device.ask("PUT", "/v1/passphrase", body))
        await device.post("/v1/lock", {})
        await device.post("/v1/unlock", {})
        good(await device.ask("PUT", "/v1/passphrase", {"new": "once more"}))
        await device.post("/v1/lock", {})
        assert (await device.ask("POST", "/v1/unlock", {})).code == "locked"
        await unlock(device, "once more")


async def test_phrases_and_passwords_are_made_before_there_is_a_mesh(home: Path, rng) -> None:
    async with running(home, rng) as device:
        phrase = (await device.post("/v1/phrase", {}))["phrase"]
        assert len(phrase.split(" ")) == 6
        assert len((await device.post("/v1/phrase", {"words": 12}))["phrase"].split(" ")) == 12
        assert len((await device.post("/v1/generate", {}))["password"]) == 20
        made = (await device.post("/v1/generate", {"length": 30, "symbols": False}))["password"]
        assert len(made) == 30
        assert made.isalnum()
        assert (await device.ask("POST", "/v1/generate", {"length": 7})).code == "usage"


async def test_no_secret_is_in_any_event_or_log(home: Path, rng, caplog) -> None:
    caplog.set_level("DEBUG")
    async with running(home, rng) as device:
        await device.init()
        await device.add("github.com", "alice", "s3cret-password")
        await device.ask("POST", "/v1/unlock", {"passphrase": "wrong-one"})
        await device.post("/v1/lock", {})
        await unlock(device)
        told = shown(await device.events(since=0)) + caplog.text
    for secret in (PASSPHRASE, MASTER, "s3cret-password", "wrong-one"):
        assert secret not in told


# --- the lock that closes by itself -----------------------------------------------------------------------------------


async def test_it_locks_some_time_after_the_last_secret_was_read(home: Path, rng) -> None:
    async with running(home, rng, config=Config(lock=Lock(timeout=1, on_suspend=False))) as device:
        await device.init()
        identifier = await device.add("github.com")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(locking.auto_lock, device.daemon)
            begun = device.daemon.secret_read
            await device.item(identifier)
            assert device.daemon.secret_read > begun
            with trio.fail_after(5):
                await until_locked(device)
                told = [event async for event in until_told(device, "lock")]
            assert trio.current_time() >= device.daemon.secret_read + 1
            assert told[-1]["state"] == "locked"
            nursery.cancel_scope.cancel()


async def test_it_locks_when_the_machine_slept(home: Path, rng) -> None:
    slept = 0.0
    async with running(home, rng, config=Config(lock=Lock(timeout=0))) as device:
        await device.init()
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                await locking.auto_lock(device.daemon, asleep=lambda: slept, tick=0.01)

            nursery.start_soon(watch)
            await trio.sleep(0.1)
            assert not device.daemon.locked
            slept = 30.0
            with trio.fail_after(5):
                await until_locked(device)
            await unlock(device)  # having slept once is no reason to lock again
            await trio.sleep(0.1)
            assert not device.daemon.locked
            nursery.cancel_scope.cancel()


async def test_without_time_limit_and_suspend_it_stays_open(home: Path, rng) -> None:
    async with running(home, rng, config=Config(lock=Lock(timeout=0, on_suspend=False))) as device:
        await device.init()
        device.daemon.secret_read -= 10_000
        async with trio.open_nursery() as nursery:
            nursery.start_soon(locking.auto_lock, device.daemon)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert not device.daemon.locked
            nursery.cancel_scope.cancel()


async def test_a_device_that_needs_no_passphrase_does_not_lock_itself(home: Path, rng) -> None:
    async with running(home, rng, config=Config(lock=Lock(timeout=1))) as device:
        await device.init(passphrase=None, no_passphrase=True, force=True)
        device.daemon.secret_read -= 10_000
        async with trio.open_nursery() as nursery:
            nursery.start_soon(locking.auto_lock, device.daemon)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert not device.daemon.locked
            nursery.cancel_scope.cancel()


def test_time_asleep_is_the_same_while_awake() -> None:
    assert locking.seconds_asleep() == pytest.approx(locking.seconds_asleep(), abs=0.1)


async def until_told(device: Device, kind: str) -> AsyncIterator[dict[str, Any]]:
    async with contextlib.aclosing(device.follow(since=0)) as events:
        async for event in events:
            yield event
            if event["type"] == kind:
                return


async def until_locked(device: Device) -> None:
    while not device.daemon.locked:
        await device.daemon.changed.after(device.daemon.changed.count)
    assert not status.connections(device.app)
