"""Recovery shares over the local API: made in two steps, checked one by one, rehearsed, replaced, given up."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import devices
from harness.devices import mesh
from harness.lan import MemoryLan
from harness.local_api import MASTER, NOW, Device, good, running, serving
from meshd.daemon import authoring, drilling, names, recovering, recovery_state
from meshd.daemon.background import with_pen
from meshd.daemon.context import wait
from meshd.profile import master, recovery, shares, vault, version
from meshd.profile.claim import Kind, Role
from meshd.store import versions

pytestmark = pytest.mark.draft("Master profile recovery")

Json = dict[str, Any]
RECOVERY = "/v1/recovery"


async def prepared(device: Device, **wish: object) -> Json:
    body = {"master_passphrase": MASTER, "threshold": 2, "shares": 3} | wish
    found: Json = await device.post(f"{RECOVERY}/shares", body)
    return found


async def created(device: Device, **wish: object) -> Json:
    told = await prepared(device, **wish)
    good(await device.ask("POST", f"{RECOVERY}/commit", {"token": told["token"], "master_passphrase": MASTER}))
    return told


async def check(device: Device, words: str) -> Json:
    found: Json = await device.post(f"{RECOVERY}/check", words=words)
    return found


def words(told: Json) -> list[str]:
    return [share["words"] for share in told["shares"]]


async def escrow_recipients(device: Device) -> list[bool]:
    """Of every vault: is it wrapped for each master escrow key that there is?"""

    def look(pen: Any) -> list[bool]:
        heads = pen.load(pen.replica.authority.heads(Kind.MASTER))
        keys = {key.udf for head in heads for key in master.escrow_keys(head)}
        containers = [
            vid
            for identifier in pen.keyring.vaults
            for vid in versions.heads(pen.connection, Kind.CONTAINER, identifier)
        ]
        return [keys <= vault.container_recipients(one) and bool(keys) for one in pen.load(containers)]

    return await with_pen(device.daemon, look)


async def drill(device: Device, given: list[str]) -> Json:
    for one in given:
        assert good(await device.ask("POST", f"{RECOVERY}/drill/shares", {"words": one}))["ok"]
    found: Json = await device.post(f"{RECOVERY}/drill", {})
    return found


async def test_shares_that_were_told_and_committed_open_the_master_key_and_every_vault(
    home: Path, rng: Callable[[int], bytes]
) -> None:
    async with running(home, rng) as device:
        await device.init()
        await device.add("a.example")
        told = await created(device, labels=["mum", "safe", "lawyer"])
        assert [share["label"] for share in told["shares"]] == ["mum", "safe", "lawyer"]
        for pair in itertools.combinations(words(told), 2):
            key = shares.combine([shares.read(one) for one in pair])
            (vid,) = (await with_pen(device.daemon, authoring.recovery_entries)).values()
            raw = versions.raw(device.daemon.reader.connection, vid)
            assert raw is not None
            opened = recovery.open_entry(version.parse(raw), key)
            assert opened.master.udf == device.daemon.snapshot.mesh
            assert opened.info.labels == ("mum", "safe", "lawyer")
        assert await escrow_recipients(device) and all(await escrow_recipients(device))
        good(await device.ask("POST", "/v1/vaults", {"application": "ssh", "name": "later"}))
        good(await device.ask("POST", "/v1/rotations", {}))
        assert all(await escrow_recipients(device))
        found = await drill(device, words(told)[1:])
        assert found["success"], found
        assert all(one["opens"] for one in found["vaults"])


async def test_until_the_commit_nothing_is_changed(home: Path, rng: Callable[[int], bytes]) -> None:
    async with running(home, rng) as device:
        await device.init()
        before = set(versions_held(device))
        told = await prepared(device)
        assert set(versions_held(device)) == before
        wrong = await device.ask("POST", f"{RECOVERY}/commit", {"token": "no", "master_passphrase": MASTER})
        assert wrong.code == "not-found"
        again = await device.ask("POST", f"{RECOVERY}/commit", {"token": told["token"], "master_passphrase": MASTER})
        assert again.code == "not-found"
        told = await prepared(device)
        device.daemon.lock()
        good(await device.ask("POST", "/v1/unlock", {"passphrase": "device secret"}))
        lost = await device.ask("POST", f"{RECOVERY}/commit", {"token": told["token"], "master_passphrase": MASTER})
        assert lost.code == "not-found"
        assert (await device.get(RECOVERY))["entries"] == []
        asked = await device.ask("POST", f"{RECOVERY}/shares", {})
        assert asked.body["error"]["needs"] == "master_passphrase"


def versions_held(device: Device) -> list[bytes]:
    return [row[0] for row in device.daemon.reader.query("SELECT vid FROM versions")]


async def test_a_refresh_makes_the_old_shares_stale_and_erases_their_entry(
    home: Path, rng: Callable[[int], bytes]
) -> None:
    async with running(home, rng) as device:
        await device.init()
        old = await created(device)
        assert (await device.ask("POST", f"{RECOVERY}/shares", {"master_passphrase": MASTER})).code == "exists"
        (before,) = (await with_pen(device.daemon, authoring.recovery_entries)).values()
        new = await created(device, replace=True)
        (after,) = (await with_pen(device.daemon, authoring.recovery_entries)).values()
        assert before != after
        assert versions.raw(device.daemon.reader.connection, before) is None
        assert versions.raw(device.daemon.reader.connection, after) is not None
        seen = await check(device, words(old)[0])
        assert (seen["ok"], seen["current"], seen["fault"]) == (False, False, "stale")
        seen = await check(device, words(new)[1])
        assert seen["message"] == "Share 2 of 3 of this mesh (share 2), current."
        refused = good(await device.ask("POST", f"{RECOVERY}/drill/shares", {"words": words(old)[0]}))
        assert (refused["ok"], refused["fault"]) == (False, "stale")
        assert (await drill(device, words(new)[:2]))["success"]
        status = await device.get(RECOVERY)
        assert [one["set"] for one in status["old"]] == [old["set"]]
        assert status["entries"][0]["drill"]["success"]
        assert all(await escrow_recipients(device))


async def test_revoked_shares_count_no_more_and_no_vault_is_wrapped_for_them(
    home: Path, rng: Callable[[int], bytes]
) -> None:
    async with running(home, rng) as device:
        await device.init()
        told = await created(device)
        good(await device.ask("POST", f"{RECOVERY}/revoke", {"master_passphrase": MASTER}))
        assert (await device.get(RECOVERY))["entries"] == []
        assert (await check(device, words(told)[0]))["fault"] == "stale"
        assert not any(await escrow_recipients(device))
        assert (await device.ask("POST", f"{RECOVERY}/revoke", {"master_passphrase": MASTER})).code == "not-found"


async def test_a_share_is_checked_before_connecting_and_while_locked(home: Path, rng: Callable[[int], bytes]) -> None:
    (made,) = shares.split(bytes(32), shares.Scheme.simple(2, 3))
    async with running(home, rng) as device:
        seen = await check(device, made[0].mnemonic)
        assert (seen["ok"], seen["current"]) == (True, None)
        assert "no mesh" in seen["message"]
        await device.init()
        told = await created(device)
        assert (await check(device, made[0].mnemonic))["fault"] == "unknown"
        device.daemon.lock()
        assert "locked" in (await check(device, words(told)[0]))["message"]
        typed = words(told)[0].split()
        mistyped = " ".join(["zzz", *typed[1:]])
        seen = await check(device, mistyped)
        assert (seen["fault"], seen["misread"]) == ("words", [{"place": 1, "likely": [typed[0]]}])


async def test_a_drill_takes_shares_one_by_one_and_names_what_is_wrong(home: Path, rng: Callable[[int], bytes]) -> None:
    (strange,) = shares.split(bytes(32), shares.Scheme.simple(2, 3))
    async with running(home, rng) as device:
        await device.init()
        told = await created(device)
        give = f"{RECOVERY}/drill/shares"
        early = await device.ask("POST", f"{RECOVERY}/drill", {})
        assert early.code == "share"
        first = await device.post(give, words=words(told)[2])
        assert (first["given"], first["lacking"]) == (1, "1 more")
        assert (await device.post(give, words=words(told)[2]))["fault"] == "duplicate"
        assert (await device.post(give, words=strange[0].mnemonic))["fault"] == "other-set"
        assert (await device.ask("POST", f"{RECOVERY}/drill", {})).code == "share"
        assert (await device.get(RECOVERY))["drill_given"] == 1
        device.daemon.lock()
        assert words(told)[2].split()[9] not in str(vars(device.app.recovering.drill)), "sealed, whoever looks"
        good(await device.ask("POST", "/v1/unlock", {"passphrase": "device secret"}))
        assert (await device.get(RECOVERY))["drill_given"] == 1
        assert (await device.post(give, words=words(told)[0]))["lacking"] == ""
        good(await device.ask("DELETE", f"{RECOVERY}/drill"))
        assert (await device.get(RECOVERY))["drill_given"] == 0


async def test_shares_for_a_restore_wait_before_there_is_a_mesh_and_in_it(
    home: Path, rng: Callable[[int], bytes]
) -> None:
    (made,) = shares.split(bytes(32), shares.Scheme.simple(2, 3))
    where = f"{RECOVERY}/restore"
    async with running(home, rng) as device:
        assert (await device.post(f"{where}/shares", words=made[0].mnemonic))["lacking"] == "1 more"
        await device.init()
        assert (await device.post(f"{where}/shares", words=made[0].mnemonic))["fault"] == "duplicate"
        device.daemon.lock()
        assert (await device.ask("GET", where)).code == "locked"
        assert (await device.ask("POST", f"{where}/shares", {"words": made[1].mnemonic})).code == "locked"
        assert made[0].mnemonic.split()[9] not in str(vars(device.app.recovering.restore))
        good(await device.ask("POST", "/v1/unlock", {"passphrase": "device secret"}))
        assert (await device.post(f"{where}/shares", words=made[1].mnemonic))["given"] == 2
        good(await device.ask("DELETE", where))
        assert (await device.get(where)) == {"schema": 1, "given": 0, "lacking": "any share"}


async def test_a_drill_notices_a_missing_entry_and_a_vault_that_does_not_open(
    home: Path, rng: Callable[[int], bytes]
) -> None:
    async with running(home, rng) as device:
        await device.init()
        told = await created(device)
        (vid,) = (await with_pen(device.daemon, authoring.recovery_entries)).values()
        container = next(iter(device.daemon.keyring.vaults)) if device.daemon.keyring else ""

        def spoil(connection: Any, outcome: Any) -> None:
            (head,) = versions.heads(connection, Kind.CONTAINER, container)
            connection.execute("UPDATE versions SET head = 0 WHERE vid = ?", (head,))

        await device.daemon.transact(spoil)
        found = await drill(device, words(told)[:2])
        assert not found["success"]
        assert [one["id"] for one in found["vaults"] if not one["opens"]] == [container]
        await device.daemon.transact(lambda c, o: c.execute("UPDATE versions SET raw = NULL WHERE vid = ?", (vid,)))
        found = await drill(device, words(told)[:2])
        assert not found["success"]
        assert [one["what"] for one in found["sources"]] == ["missing"]


async def test_after_180_days_a_drill_is_due(home: Path, rng: Callable[[int], bytes]) -> None:
    now = [NOW]
    async with running(home, rng, clock=lambda: now[0]) as device:
        await device.init()
        told = await created(device)
        assert not recovery_state.due(device.daemon)
        now[0] += 181 * 86_400_000
        assert recovery_state.due(device.daemon)
        assert "recovery" in [problem["code"] for problem in (await device.get("/v1/status"))["health"]]
        await drill(device, words(told)[:2])
        assert not recovery_state.due(device.daemon)


async def test_no_secret_of_the_shares_is_in_any_file_or_log(
    home: Path, rng: Callable[[int], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    async with running(home, rng) as device:
        await device.init()
        told = await created(device, share_passphrase="a share passphrase")
        for one in words(told):
            await check(device, one)
            await check(device, one.replace(one.split()[7], "zzz", 1))
        for one in words(told)[:2]:
            await device.post(f"{RECOVERY}/drill/shares", words=one)
        await device.post(f"{RECOVERY}/drill", share_passphrase="a share passphrase", check=told["check"])
        events = str(await device.events(since=0))
        assert "recovery" in events
    key = shares.combine([shares.read(one) for one in words(told)[:2]], "a share passphrase")
    secrets = [key, b"a share passphrase", *(" ".join(one.split()[4:8]).encode() for one in words(told))]
    for path in home.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not [secret for secret in secrets if secret in data], path
    for secret in secrets[1:]:
        assert secret.decode() not in caplog.text + events


async def test_other_devices_get_the_entry_and_the_commitments(home: Path) -> None:
    async with mesh(home, "laptop", "desktop") as (_, (laptop, desktop)):
        await laptop.until_connected(desktop)
        key = await master_of(laptop)
        wish = recovering.Wish(shares.Scheme.simple(2, 3))
        made, told, _ = await recovering.prepare(laptop.daemon, key, wish)
        await laptop.daemon.write(lambda pen: recovering.commit(pen, key, made))
        await desktop.until(lambda: made.entry.vid in desktop.holds())
        await desktop.until_same(laptop)
        (noted,) = recovering.noted(desktop.daemon.reader.connection, desktop.daemon.unlocked())
        assert noted.find(told[1]) == noted.shares[1]
        wish = recovering.Wish(shares.Scheme.simple(2, 3), replaces=True)
        newer, _, _ = await recovering.prepare(laptop.daemon, key, wish)
        await laptop.daemon.write(lambda pen: recovering.commit(pen, key, newer))
        await desktop.until_same(laptop)
        raw = versions.raw
        await desktop.until(lambda: raw(desktop.daemon.reader.connection, made.entry.vid) is None)
        assert raw(desktop.daemon.reader.connection, newer.entry.vid) == newer.entry.raw


async def test_a_removal_keeps_the_shares_and_wraps_new_keys_for_them(home: Path) -> None:
    async with mesh(home, "laptop", "desktop", run=False) as (_, (laptop, _)), serving(laptop) as here:
        if (saved := names.refresh(laptop.daemon)) is not None:
            await wait(saved)
        body = {"master_passphrase": "master passphrase", "threshold": 2, "shares": 2}
        told = await here.post(f"{RECOVERY}/shares", body)
        await here.post(f"{RECOVERY}/commit", {"token": told["token"], "master_passphrase": "master passphrase"})
        await here.post("/v1/removals", {"devices": ["desktop"], "wait": 0})
        assert all(await escrow_recipients(here))
        assert (await drill(here, words(told)))["success"]
        promoted = {"master_passphrase": "master passphrase", "new": "another"}
        good(await here.ask("PUT", "/v1/master/passphrase", promoted))
        assert (await drill(here, words(told)))["success"]


async def test_a_new_admin_keeps_the_shares(home: Path) -> None:
    lan = MemoryLan()
    laptop, tower = devices.blank(home, lan, "laptop"), devices.blank(home, lan, "tower")
    try:
        master_key = await devices.found(laptop)
        wish = recovering.Wish(shares.Scheme.simple(2, 2))
        made, told, check = await recovering.prepare(laptop.daemon, master_key, wish)
        await laptop.daemon.write(lambda pen: recovering.commit(pen, master_key, made))
        await devices.admit(laptop, tower, Role.ADMIN, master_key)
        key = await drilling.combine(told, "", check)
        assert (await drilling.drill(laptop.daemon, key, (), ())).success
    finally:
        laptop.daemon.close()
        tower.daemon.close()


async def master_of(device: Any) -> Any:
    from meshd.daemon import masterkeys

    return await masterkeys.unseal(device.daemon, "master passphrase")
