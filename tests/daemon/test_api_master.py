"""The master key, renewing a device's keys, and wiping, over the socket."""

from __future__ import annotations

from pathlib import Path

from harness import devices
from harness.devices import mesh
from harness.local_api import Answer, Device, good, running, serving
from meshd.daemon import authoring, names, renewal, wiping
from meshd.daemon.context import wait

MASTER = "master passphrase"


async def called(*those: devices.Device) -> None:
    for one in those:
        if (saved := names.refresh(one.daemon)) is not None:
            await wait(saved)


async def change(device: Device, old: str, new: str) -> Answer:
    return await device.ask("PUT", "/v1/master/passphrase", {"master_passphrase": old, "new": new})


async def role(device: Device, who: str, what: str, **members: object) -> Answer:
    return await device.ask("PUT", f"/v1/devices/{who}/role", {"role": what, **members})


async def test_the_master_passphrase_is_changed(home: Path) -> None:
    async with mesh(home, "laptop", "desktop", run=False) as (_, (laptop, _)), serving(laptop) as here:
        await called(laptop)
        assert (await change(here, "wrong", "new")).code == "wrong-passphrase"
        assert good(await change(here, MASTER, "new")) == {"schema": 1, "state": "online"}
        assert (await role(here, "desktop", "admin", master_passphrase=MASTER)).code == "wrong-passphrase"
        assert (await role(here, "desktop", "admin", master_passphrase="new")).status == 200
        asked = await here.ask("PUT", "/v1/master/passphrase", {"new": "x"})
        assert asked.body["error"]["needs"] == "master_passphrase"


async def test_the_master_key_is_kept_in_a_file_alone_and_brought_back(home: Path) -> None:
    async with mesh(home, "laptop", "desktop", run=False) as (_, (laptop, _)), serving(laptop) as here:
        await called(laptop)
        wrong = await here.ask("POST", "/v1/master/file", {"master_passphrase": "wrong"})
        assert wrong.code == "wrong-passphrase"
        file = good(await here.ask("POST", "/v1/master/file", {"master_passphrase": MASTER}))["text"]
        body = {"text": file, "master_passphrase": MASTER}
        assert (await here.ask("POST", "/v1/master/online", body)).code == "exists"
        damaged = body | {"text": file.replace('"Sealed":"', '"Sealed":"AAAA')}
        assert (await here.ask("POST", "/v1/master/offline", damaged)).status in (403, 409, 422)
        assert good(await here.ask("POST", "/v1/master/offline", body))["state"] == "offline"
        assert await laptop.daemon.write(authoring.held_master) is None
        without = await role(here, "desktop", "admin", master_passphrase=MASTER)
        assert (without.code, "--master-file" in without.body["error"]["hint"]) == ("denied", True)
        told = good(await role(here, "desktop", "admin", master_passphrase=MASTER, master_file=file))
        assert told["role"] == "admin"
        assert (await change(here, MASTER, "new")).code == "denied"
        good(await here.ask("POST", "/v1/master/online", body))
        assert await laptop.daemon.write(authoring.held_master) is not None
        assert (await role(here, "desktop", "member", master_passphrase=MASTER)).status == 200


async def test_a_file_of_another_mesh_is_refused(home: Path) -> None:
    async with mesh(home / "a", "laptop", run=False) as (_, (laptop,)), serving(laptop) as here:
        file = good(await here.ask("POST", "/v1/master/file", {"master_passphrase": MASTER}))["text"]
        async with mesh(home / "b", "tower", run=False) as (_, (tower,)), serving(tower) as there:
            body = {"text": file, "master_passphrase": MASTER}
            assert (await there.ask("POST", "/v1/master/offline", body)).code == "trust"
            assert (await there.ask("POST", "/v1/master/offline", body | {"text": "{}"})).code == "format"
            assert (await there.ask("POST", "/v1/master/offline", body | {"text": "no"})).code == "format"


async def test_when_every_admin_is_gone_a_member_becomes_one_with_the_file_of_a_removed_one(home: Path) -> None:
    async with (
        mesh(home, "laptop", "desktop") as (_, (laptop, desktop)),
        serving(laptop) as here,
        serving(desktop) as d,
    ):
        await laptop.until_connected(desktop)
        await called(laptop, desktop)
        file = good(await here.ask("POST", "/v1/master/file", {"master_passphrase": MASTER}))["text"]
        with_master = {"master_passphrase": MASTER, "master_file": file}
        assert (await role(d, "desktop", "admin")).body["error"]["needs"] == "master_passphrase"
        assert (await role(d, "desktop", "admin", master_passphrase=MASTER)).code == "denied"
        assert good(await role(d, "desktop", "admin", **with_master))["role"] == "admin"
        gone = {"devices": ["laptop"], **with_master, "wait": 5}
        assert good(await d.ask("POST", "/v1/removals", gone))["removed"] == ["laptop"]
        await laptop.until(lambda: laptop.udf in laptop.daemon.snapshot.removed)
        assert "Sealed" in good(await here.ask("POST", "/v1/master/file", {"master_passphrase": MASTER}))["text"]


# --- renewal ----------------------------------------------------------------------------------------------------------


async def test_a_device_renews_its_keys_and_stays_connected(home: Path) -> None:
    async with mesh(home, "laptop", "desktop") as (_, (laptop, desktop)), serving(desktop) as there:
        await laptop.until_connected(desktop)
        await desktop.daemon.unlock(None)
        before = renewal.keys_of(desktop.daemon)
        await called(desktop)
        told = good(await there.ask("POST", "/v1/renewals", {}))
        assert told["device"]["id"] == desktop.udf
        assert all(old != new for old, new in zip(before, renewal.keys_of(desktop.daemon), strict=True))
        await there.add("a.example")
        await laptop.until_same(desktop)


async def test_an_admin_renews_with_the_master_passphrase(home: Path) -> None:
    async with mesh(home, "laptop", run=False) as (_, (laptop,)), serving(laptop) as here:
        asked = await here.ask("POST", "/v1/renewals", {})
        assert (asked.code, asked.body["error"]["needs"]) == ("denied", "master_passphrase")
        await laptop.daemon.unlock(None)
        before = renewal.keys_of(laptop.daemon)
        good(await here.ask("POST", "/v1/renewals", {"master_passphrase": MASTER}))
        assert renewal.keys_of(laptop.daemon) != before
        assert await laptop.daemon.write(authoring.held_master) is not None


# --- wiping -----------------------------------------------------------------------------------------------------------


async def test_a_device_that_belongs_is_wiped_only_by_force(home: Path, rng) -> None:
    async with running(home, rng) as device:
        assert (await device.ask("POST", "/v1/wipe", {})).code == "not-connected"
        await device.init()
        refused = await device.ask("POST", "/v1/wipe", {})
        assert (refused.code, "only one" in refused.body["error"]["message"]) == ("denied", True)
        paths = device.daemon.paths
        assert paths.keystore.exists()
        assert (await device.ask("POST", "/v1/wipe", {"force": True})).body == {"schema": 1, "wiped": True}
        assert not paths.keystore.exists()
        assert device.app.wiped.is_set()
        assert device.daemon.locked
        assert (await device.ask("POST", "/v1/wipe", {"force": True})).code == "not-connected"
    assert wiping.finish(paths) is True
    assert not paths.store.exists()
    assert wiping.finish(paths) is False
    async with running(home, rng) as device:
        assert (await device.get("/v1/status"))["mesh"] is None
        await device.init("again")


async def test_a_removed_device_is_wiped_without_force(home: Path) -> None:
    async with mesh(home, "laptop", "phone") as (_, (laptop, phone)), serving(laptop) as here, serving(phone) as there:
        await laptop.until_connected(phone)
        await called(laptop)
        good(await here.ask("POST", "/v1/removals", {"devices": ["phone"], "wait": 5}))
        await phone.until(lambda: phone.udf in phone.daemon.snapshot.removed)
        assert good(await there.ask("POST", "/v1/wipe", {}))["wiped"] is True
        assert not phone.daemon.paths.keystore.exists()


async def test_a_wipe_that_a_crash_broke_off_is_ended_at_the_next_start(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        paths = device.daemon.paths
    wiping.begin(paths)
    paths.keystore.write_bytes(b"written by a task that did not know")
    assert wiping.finish(paths) is True
    assert not paths.keystore.exists()
    assert not paths.store.exists()
