"""Quarantine and drafts over the socket: what is kept aside and taken over by hand, what waits for a key by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness import devices
from harness.devices import mesh
from harness.local_api import Answer, Device, good, item_path, serving
from meshd.daemon import authoring, drafts, names, surplus
from meshd.daemon.context import wait
from meshd.daemon.pen import Pen
from meshd.profile.links import Cut


async def called(*those: devices.Device) -> None:
    for one in those:
        if (saved := names.refresh(one.daemon)) is not None:
            await wait(saved)


# --- quarantine -------------------------------------------------------------------------------------------------------


async def cut_off(home: Path, laptop: devices.Device, phone: devices.Device, here: Device, there: Device) -> str:
    """The phone, away and not having heard that it was removed, changes a login and adds another; then it all comes to
    the laptop. Returns the id of the login that was changed."""
    item = await here.add("a.example", "alice", "mine")
    await laptop.until_same(phone)
    await called(laptop)
    phone.stop()
    await laptop.until(lambda: not laptop.siblings.connections)
    good(await there.ask("PATCH", item_path(item), {"password": "theirs"}))
    await there.add("new.example", "bob", "new")
    removed = await here.ask("POST", "/v1/removals", {"devices": ["phone"], "wait": 0})
    assert good(removed)["removed"] == ["phone"]
    held = {row[0]: row[1] for row in phone.daemon.reader.query("SELECT vid, raw FROM versions WHERE kind = 8")}
    lacking = [raw for vid, raw in held.items() if vid not in laptop.holds()]
    verified = devices.check(lacking, [None] * len(lacking), laptop.daemon.replica.directory)
    await laptop.daemon.transact(
        lambda connection, outcome: laptop.daemon.replica.accept(
            connection, verified.versions, laptop.now_ms(), outcome
        )
    )
    return item


async def test_what_a_removed_device_wrote_is_listed_shown_and_imported(home: Path) -> None:
    async with mesh(home, "laptop", "phone") as (_, (laptop, phone)), serving(laptop) as here, serving(phone) as there:
        await laptop.until_connected(phone)
        item = await cut_off(home, laptop, phone, here, there)
        assert (await here.item(item))["password"] == "mine"
        listed = (await here.get("/v1/quarantine"))["quarantine"]
        assert {one["title"] for one in listed} == {"a.example", "new.example"}
        assert {(one["kind"], one["device"], one["application"]) for one in listed} == {("item", "phone", "password")}
        assert all("removed" in one["why"] for one in listed)
        (entry,) = [one for one in listed if one["item"] == item]
        shown = await here.get(f"/v1/quarantine/{entry['id'][:10]}")
        assert (shown["content"]["password"], shown["now"]["password"]) == ("theirs", "mine")
        told = good(await here.ask("POST", "/v1/quarantine/import", {"ids": [entry["id"]]}))
        assert told["imported"] == [{"id": entry["id"], "item": item}]
        found = await here.item(item)
        assert (found["password"], found["conflicts"], found["device"]) == ("theirs", 0, "laptop")
        again = good(await here.ask("POST", "/v1/quarantine/import", {"ids": [entry["id"]]}))
        assert (again["imported"], again["unchanged"]) == ([], 1)
        assert [one["title"] for one in (await here.get("/v1/quarantine"))["quarantine"]] == ["new.example"]
        everything = (await here.get("/v1/quarantine", all=True))["quarantine"]
        assert sum(one["imported"] for one in everything) == 1
        (line,) = [one for one in (await here.get("/v1/status"))["health"] if one["code"] == "quarantine"]
        assert line["message"].startswith("1 version is in quarantine")  # as many as are listed
        await wait(
            laptop.daemon.writer.submit(lambda c: c.execute("INSERT INTO turned_away VALUES (?, 7)", (phone.udf,)))
        )
        (line,) = [one for one in (await here.get("/v1/status"))["health"] if one["code"] == "quarantine-full"]
        assert "Of phone" in line["message"] and "7 were turned away" in line["message"]


async def test_a_removed_device_says_what_it_wrote_that_counts_nowhere(home: Path) -> None:
    async with mesh(home, "laptop", "phone") as (_, (laptop, phone)), serving(laptop) as here, serving(phone) as there:
        await laptop.until_connected(phone)
        await cut_off(home, laptop, phone, here, there)
        assert not [one for one in (await there.get("/v1/status"))["health"] if one["code"] == "unshared"]
        raws = laptop.daemon.profiles_beyond(phone.daemon.snapshot.heads)
        found = devices.check(raws, [None] * len(raws), phone.daemon.replica.directory)
        await phone.daemon.transact(
            lambda connection, outcome: phone.daemon.replica.accept(connection, found.versions, phone.now_ms(), outcome)
        )
        told = {one["code"]: one["message"] for one in (await there.get("/v1/status"))["health"]}
        assert "removed" in told and told["unshared"].startswith("2 items were written on this device")
        listed = (await there.get("/v1/quarantine"))["quarantine"]
        assert {one["title"] for one in listed} == {"a.example", "new.example"}
        assert all(one["why"].startswith("this device wrote it") for one in listed)
        shown = await there.get(f"/v1/quarantine/{listed[0]['id'][:10]}")
        assert shown["content"]["password"] in ("theirs", "new")


async def test_everything_of_one_device_is_imported_at_once(home: Path) -> None:
    async with mesh(home, "laptop", "phone") as (_, (laptop, phone)), serving(laptop) as here, serving(phone) as there:
        await laptop.until_connected(phone)
        await cut_off(home, laptop, phone, here, there)
        told = good(await here.ask("POST", "/v1/quarantine/import", {"device": "phone"}))
        assert (len(told["imported"]), told["rejected"]) == (2, [])
        assert good(await here.lookup("new.example"))["password"] == "new"
        assert (await here.get("/v1/quarantine"))["quarantine"] == []
        assert [one["count"] for one in await here.events(since=0) if one["type"] == "import"] == [2]


async def test_a_locked_device_lists_quarantine_without_titles(home: Path) -> None:
    async with mesh(home, "laptop", "phone") as (_, (laptop, phone)), serving(laptop) as here, serving(phone) as there:
        await laptop.until_connected(phone)
        await cut_off(home, laptop, phone, here, there)
        await here.post("/v1/lock", {})
        listed = (await here.get("/v1/quarantine"))["quarantine"]
        assert [one["title"] for one in listed] == ["", ""]


async def test_what_is_not_in_quarantine_is_not_imported(home: Path) -> None:
    async with mesh(home, "laptop", run=False) as (_, (laptop,)), serving(laptop) as here:
        assert (await here.get("/v1/quarantine"))["quarantine"] == []
        assert (await here.ask("GET", "/v1/quarantine/unknown-one")).code == "not-found"
        assert (await here.ask("POST", "/v1/quarantine/import", {"ids": ["unknown-one"]})).code == "not-found"
        assert (await here.ask("POST", "/v1/quarantine/import", {})).code == "usage"
        both = {"ids": ["unknown-one"], "device": "laptop"}
        assert (await here.ask("POST", "/v1/quarantine/import", both)).code == "usage"


# --- drafts -----------------------------------------------------------------------------------------------------------


async def spoil(laptop: devices.Device, phone: devices.Device) -> None:
    """Remove the phone as a crash would: without the new keys that follow."""

    def cut(pen: Pen) -> None:
        wanted = authoring.state(pen)
        wanted.drop(phone.udf)
        authoring.write_profile(pen, wanted, cuts=[Cut(phone.udf, surplus.tips(pen, phone.udf))])

    await laptop.daemon.write(cut)


async def written(device: Device, site: str, **members: Any) -> Answer:
    body = {"application": "password", "sites": [site], "username": "alice", "password": "s3cret"} | members
    return await device.ask("POST", "/v1/items", body)


async def test_without_a_key_a_members_write_is_kept_shown_and_goes_out_later(home: Path) -> None:
    async with (
        mesh(home, "laptop", "desktop", "phone") as (_, (laptop, desktop, phone)),
        serving(laptop) as here,
        serving(desktop) as there,
    ):
        await laptop.until_connected(desktop, phone)
        old = await here.add("old.example", "alice", "before")
        await desktop.until_same(laptop)
        await spoil(laptop, phone)
        await desktop.until_same(laptop)
        told = good(await written(there, "new.example"))
        assert (told["pending"], "vid" in told) == (True, False)
        assert (await written(there, "new.example")).code == "exists"
        changed = good(await there.ask("PATCH", item_path(old), {"password": "after"}))
        assert changed["pending"] is True
        listed = {one["title"]: one for one in (await there.get("/v1/items"))["items"]}
        assert {title: one.get("pending", False) for title, one in listed.items()} == {
            "new.example": True,
            "old.example": True,
        }
        assert good(await there.lookup("new.example"))["password"] == "s3cret"
        found = await there.item(old)
        assert (found["password"], found["pending"]) == ("after", True)
        status = await there.get("/v1/status")
        assert status["drafts"] == 2
        assert [(one["code"], one["message"][:14]) for one in status["health"]] == [("drafts", "2 writes wait ")]
        assert [one["state"] for one in await there.events(since=0) if one["type"] == "draft"] == ["kept", "kept"]
        good(await here.ask("POST", "/v1/rotations", {}))
        await desktop.until(lambda: len(desktop.daemon.unlocked().find("password").container.keys) > 1)
        await desktop.daemon.write(drafts.flush)
        assert (await there.get("/v1/status"))["drafts"] == 0
        await laptop.until_same(desktop)
        assert good(await here.lookup("new.example"))["password"] == "s3cret"
        assert (await here.item(old))["password"] == "after"


async def test_a_removed_device_says_which_writes_never_left_it(home: Path) -> None:
    async with (
        mesh(home, "laptop", "desktop", "phone") as (_, (laptop, desktop, phone)),
        serving(desktop) as there,
    ):
        await laptop.until_connected(desktop, phone)
        await spoil(laptop, phone)
        await desktop.until_same(laptop)
        good(await written(there, "new.example"))
        await spoil(laptop, desktop)
        await desktop.until(lambda: desktop.udf in desktop.daemon.snapshot.removed)
        told = {one["code"]: one for one in (await there.get("/v1/status"))["health"]}
        assert told["drafts"]["message"].startswith("1 item was written here and never given to any other device")
        assert "wipe" in told["drafts"]["hint"]


async def test_a_draft_that_nobody_has_heard_of_is_given_up(home: Path) -> None:
    async with (
        mesh(home, "laptop", "desktop", "phone") as (_, (laptop, desktop, phone)),
        serving(desktop) as there,
    ):
        await laptop.until_connected(desktop, phone)
        await spoil(laptop, phone)
        await desktop.until_same(laptop)
        draft = good(await written(there, "new.example"))["id"]
        edited = good(await there.ask("PATCH", item_path(draft), {"username": "bob"}))
        assert (edited["id"], edited["pending"]) == (draft, True)
        assert (await there.item(draft))["username"] == "bob"
        assert good(await there.ask("DELETE", item_path(draft)))["deleted"] is True
        assert (await there.get("/v1/items"))["items"] == []
        assert (await there.ask("GET", item_path(draft))).code == "not-found"


async def test_an_import_waits_for_a_key_too(home: Path) -> None:
    async with (
        mesh(home, "laptop", "desktop", "phone") as (_, (laptop, desktop, phone)),
        serving(desktop) as there,
    ):
        await laptop.until_connected(desktop, phone)
        await spoil(laptop, phone)
        await desktop.until_same(laptop)
        text = "name,url,username,password\na,https://a.example/,alice,one\nb,https://b.example/,bob,two\n"
        body = {"application": "password", "format": "chrome-csv", "text": text}
        told = await there.post("/v1/imports", body)
        assert (told["added"], told["pending"]) == (2, 2)
        again = await there.post("/v1/imports", body)
        assert (again["added"], again["unchanged"]) == (0, 2)


async def test_an_admin_makes_new_keys_and_writes(home: Path) -> None:
    async with mesh(home, "laptop", "phone", run=False) as (_, (laptop, phone)), serving(laptop) as here:
        await spoil(laptop, phone)
        told = good(await written(here, "new.example"))
        assert ("pending" in told, bool(told["vid"])) == (False, True)
