"""Roles, rights, vaults and taking back, over the socket."""

from __future__ import annotations

from pathlib import Path

from harness import devices
from harness.devices import mesh
from harness.local_api import Answer, Device, good, serving
from meshd.daemon import names
from meshd.daemon.context import wait
from meshd.localapi.http import quote
from meshd.profile.claim import Role

MASTER = "master passphrase"


async def called(*those: devices.Device) -> None:
    for one in those:
        if (saved := names.refresh(one.daemon)) is not None:
            await wait(saved)


async def role(device: Device, who: str, what: str, **members: object) -> Answer:
    return await device.ask("PUT", f"/v1/devices/{who}/role", {"role": what, **members})


async def rights(device: Device, who: str, **members: object) -> Answer:
    return await device.ask("PATCH", f"/v1/devices/{who}/rights", members)


# --- roles ------------------------------------------------------------------------------------------------------------


async def test_to_and_from_admin_takes_the_master_passphrase(home: Path) -> None:
    async with mesh(home, "laptop", "desktop", run=False) as (_, (laptop, desktop)), serving(laptop) as here:
        await called(laptop)
        asked = await role(here, "desktop", "admin")
        assert (asked.code, asked.body["error"]["needs"]) == ("denied", "master_passphrase")
        told = good(await role(here, "desktop", "admin", master_passphrase=MASTER))
        assert (told["role"], told["grants"], told["name"]) == ("admin", [], "desktop")
        assert desktop.udf in laptop.daemon.snapshot.admins
        assert (await role(here, "desktop", "member")).body["error"]["needs"] == "master_passphrase"
        told = good(await role(here, "desktop", "member", master_passphrase=MASTER))
        assert told["grants"] == [{"vault": "*", "level": "write"}]
        last = await role(here, "laptop", "member", master_passphrase=MASTER)
        assert last.code == "refused"


async def test_a_relay_loses_its_vaults_and_a_member_can_be_narrow(home: Path) -> None:
    async with mesh(home, "laptop", "desktop", run=False) as (_, (laptop, _)), serving(laptop) as here:
        await called(laptop)
        told = good(await role(here, "desktop", "relay"))
        assert (told["role"], len(told["rotated"])) == ("relay", 5)
        told = good(await role(here, "desktop", "member", grant=["ssh:read"]))
        assert [(one["application"], one["level"]) for one in told["grants"]] == [("ssh", "read")]
        assert (await role(here, "desktop", "relay", grant=["ssh:read"])).code == "usage"
        assert (await role(here, "nobody", "relay")).code == "not-found"


async def test_a_role_is_an_admins_business(home: Path) -> None:
    async with mesh(home, "laptop", "desktop") as (_, (laptop, desktop)), serving(desktop) as there:
        await desktop.until_same(laptop)
        await called(desktop)
        answer = await role(there, "desktop", "relay")
        assert (answer.status, answer.code) == (403, "denied")
        assert "needs" not in answer.body["error"]


# --- rights -----------------------------------------------------------------------------------------------------------


async def test_rights_are_granted_and_revoked_and_shown(home: Path) -> None:
    async with mesh(home, "laptop", "desktop", run=False) as (_, (laptop, _)), serving(laptop) as here:
        await called(laptop)
        shown = await here.get("/v1/devices/desktop")
        assert shown["grants"] == [{"vault": "*", "level": "write"}]
        told = good(await rights(here, "desktop", revoke=["*"]))
        assert (told["grants"], len(told["rotated"])) == ([], 5)
        told = good(await rights(here, "desktop", grant=["ssh:read", "password:write"]))
        assert [(one["application"], one["level"]) for one in told["grants"]] == [
            ("password", "write"),
            ("ssh", "read"),
        ]
        told = good(await rights(here, "desktop", revoke=["password"], keep_read=True))
        assert ("password", "read") in [(one["application"], one["level"]) for one in told["grants"]]
        assert told["rotated"] == []
        told = good(await rights(here, "desktop", revoke=["ssh"]))
        assert [one["application"] for one in told["rotated"]] == ["ssh"]
        assert [one["application"] for one in (await here.get("/v1/devices/desktop"))["grants"]] == ["password"]
        assert "grants" not in await here.get("/v1/devices/laptop")


async def test_what_makes_no_sense_changes_no_rights(home: Path) -> None:
    async with mesh(home, "laptop", "desktop", run=False) as (_, (laptop, _)), serving(laptop) as here:
        await called(laptop)
        heads = laptop.daemon.snapshot.heads
        assert (await rights(here, "desktop")).code == "usage"
        assert (await rights(here, "desktop", grant=["ssh"])).code == "usage"
        assert (await rights(here, "desktop", grant=["ssh:own"])).code == "usage"
        assert (await rights(here, "desktop", grant=["gopher:read"])).code == "usage"
        assert (await rights(here, "desktop", grant=["ssh/none:read"])).code == "not-found"
        assert (await rights(here, "desktop", revoke=["ssh:read"])).code == "usage"
        assert (await rights(here, "laptop", grant=["ssh:read"])).code == "usage"
        good(await role(here, "desktop", "relay"))
        assert (await rights(here, "desktop", grant=["ssh:read"])).code == "denied"
        assert laptop.daemon.snapshot.heads != heads


# --- vaults -----------------------------------------------------------------------------------------------------------


async def vaults(device: Device, **query: object) -> list[str]:
    found = (await device.get("/v1/applications", **query))["applications"]
    return [f"{one['application']}/{one['name']}" for one in found if one["application"] == "password"]


async def test_several_vaults_of_one_application_keep_their_items_apart(home: Path) -> None:
    async with mesh(home, "laptop", run=False) as (_, (laptop,)), serving(laptop) as here:
        made = await here.post("/v1/vaults", {"application": "password", "name": "work"})
        assert (made["name"], made["items"], made["writable"]) == ("work", 0, True)
        assert await vaults(here) == ["password/password", "password/work"]
        first = await here.add("a.example", "alice", "one")
        second = await here.add("a.example", "alice", "two", vault="work")
        assert (await here.lookup("a.example")).code == "ambiguous"
        assert good(await here.lookup("a.example", vault="work"))["id"] == second
        assert good(await here.lookup("a.example", vault="password"))["id"] == first
        listed = await here.get("/v1/items", vault="password/work")
        assert [one["id"] for one in listed["items"]] == [second]
        assert second.startswith(made["id"])
        again = {"application": "password", "sites": ["a.example"], "username": "alice", "password": "x"}
        assert (await here.ask("POST", "/v1/items", again | {"vault": "work"})).code == "exists"
        assert (await here.ask("POST", "/v1/items", again | {"vault": "none"})).code == "not-found"


async def test_a_vault_is_renamed_hidden_and_brought_back(home: Path) -> None:
    async with mesh(home, "laptop", run=False) as (_, (laptop,)), serving(laptop) as here:
        made = await here.post("/v1/vaults", {"application": "password", "name": "work"})
        item = await here.add("a.example", vault="work")
        where = f"/v1/vaults/{quote('password/work')}"
        assert good(await here.ask("PATCH", where, {"name": "office"}))["name"] == "office"
        assert (await here.ask("PATCH", "/v1/vaults/office", {"name": "password"})).code == "exists"
        assert (await here.ask("PATCH", "/v1/vaults/office", {"name": "a/b"})).code == "usage"
        assert (await here.ask("PATCH", "/v1/vaults/office", {})).code == "usage"
        assert (await here.ask("PATCH", "/v1/vaults/office", {"deleted": True})).code == "usage"
        gone = good(await here.ask("DELETE", "/v1/vaults/office"))
        assert (gone["deleted"], gone["id"]) == (True, made["id"])
        assert await vaults(here) == ["password/password"]
        assert await vaults(here, deleted=True) == ["password/office", "password/password"]
        assert (await here.get("/v1/items"))["items"] == []
        assert (await here.ask("GET", f"/v1/items/{quote(item)}")).code == "not-found"
        assert (await here.lookup("a.example")).code == "not-found"
        assert (await here.get("/v1/status"))["items"] == {}
        assert (await here.ask("DELETE", "/v1/vaults/office")).code == "not-found"
        back = good(await here.ask("PATCH", "/v1/vaults/office", {"deleted": False}))
        assert (back["items"], back["deleted"]) == (1, False)
        assert good(await here.lookup("a.example"))["id"] == item
        told = [(one["name"], one["state"]) for one in await here.events(since=0) if one["type"] == "vault"]
        assert told == [("work", "created"), ("office", "renamed"), ("office", "deleted"), ("office", "restored")]


async def test_vaults_and_keys_are_an_admins_business(home: Path) -> None:
    async with mesh(home, "laptop", "desktop") as (_, (laptop, desktop)), serving(desktop) as there:
        await desktop.until_same(laptop)
        assert (await there.ask("POST", "/v1/vaults", {"application": "password", "name": "x"})).code == "denied"
        assert (await there.ask("POST", "/v1/vaults", {"application": "gopher", "name": "x"})).code == "denied"
        assert (await there.ask("POST", "/v1/rotations", {})).code == "denied"


async def test_new_keys_are_made_for_one_vault_or_for_all(home: Path) -> None:
    async with mesh(home, "laptop", run=False) as (_, (laptop,)), serving(laptop) as here:
        ring = laptop.daemon.unlocked()
        before = {identifier: len(opened.container.keys) for identifier, opened in ring.vaults.items()}
        (one,) = (await here.post("/v1/rotations", {"vault": "ssh"}))["rotated"]
        assert (one["application"], len(ring.vaults[one["id"]].container.keys)) == ("ssh", before[one["id"]] + 1)
        assert len((await here.post("/v1/rotations", {}))["rotated"]) == 5
        assert all(len(ring.vaults[name].container.keys) > count for name, count in before.items())
        assert (await here.ask("POST", "/v1/rotations", {"vault": "none"})).code == "not-found"
        assert [one["count"] for one in await here.events(since=0) if one["type"] == "rotation"] == [1, 5]


# --- taking back ------------------------------------------------------------------------------------------------------


async def test_rights_roles_and_names_are_taken_back(home: Path) -> None:
    async with mesh(home, "laptop", "desktop", run=False) as (_, (laptop, desktop)), serving(laptop) as here:
        await called(laptop)
        assert (await here.get("/v1/undo"))["undo"] == []
        good(await role(here, "desktop", "relay"))
        good(await here.ask("PATCH", "/v1/devices/desktop", {"name": "tower"}))
        renamed, demoted = (await here.get("/v1/undo"))["undo"]
        assert renamed["text"] == "the device desktop is called tower"
        assert demoted["text"] == "tower became relay (was member)"
        assert (demoted["by"], demoted["needs_master"], demoted["name"]) == ("laptop", False, "tower")
        assert demoted["until"] > demoted["time"]
        undone = good(await here.ask("POST", f"/v1/undo/{renamed['id'][:12]}", {}))
        assert undone["undone"]["id"] == renamed["id"]
        assert (await here.get("/v1/devices/desktop"))["role"] == "relay"
        good(await here.ask("POST", f"/v1/undo/{demoted['id']}", {}))
        assert laptop.daemon.snapshot.roles[desktop.udf] is Role.MEMBER
        assert (await here.ask("POST", "/v1/undo/unknown", {})).code == "not-found"
        assert [one["state"] for one in await here.events(since=0) if one["type"] == "undo"] == [
            "device-name",
            "rights",
        ]


async def test_taking_back_an_admin_takes_the_master_passphrase(home: Path) -> None:
    async with mesh(home, "laptop", "desktop", run=False) as (_, (laptop, desktop)), serving(laptop) as here:
        await called(laptop)
        good(await role(here, "desktop", "admin", master_passphrase=MASTER))
        (made,) = (await here.get("/v1/undo"))["undo"]
        assert (made["needs_master"], made["by"]) == (True, "the master key")
        asked = await here.ask("POST", f"/v1/undo/{made['id']}", {})
        assert asked.body["error"]["needs"] == "master_passphrase"
        good(await here.ask("POST", f"/v1/undo/{made['id']}", {"master_passphrase": MASTER}))
        assert laptop.daemon.snapshot.roles[desktop.udf] is Role.MEMBER
