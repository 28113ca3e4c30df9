"""Logins: adding, finding, changing, deleting; lists that hold no secret; conflicts that hide nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.devices import mesh
from harness.local_api import Device, good, item_path, running, serving, shown
from meshd.localapi import bodies
from meshd.localapi.shapes import check_answer


async def change(device: Device, identifier: str, **members: object) -> dict:
    return good(await device.ask("PATCH", item_path(identifier), members))


async def titles(device: Device, **query: object) -> list[str]:
    return [item["title"] for item in (await device.get("/v1/items", **query))["items"]]


async def test_what_was_added_is_read_back_whole(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        identifier = await device.add(
            "https://GitHub.com/login",
            "alice",
            "pä\u00dfwörd",
            title="Work",
            note="two\nlines",
            totp="JBSW",
            tags=["a", "b"],
        )
        item = await device.item(identifier)
        assert (item["title"], item["sites"], item["username"]) == ("Work", ["github.com"], "alice")
        assert (item["password"], item["note"], item["totp"]) == ("pä\u00dfwörd", "two\nlines", "JBSW")
        assert (item["tags"], item["conflicts"], item["device"]) == (["a", "b"], 0, "laptop")
        assert "versions" not in item


async def test_a_list_never_holds_a_secret(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        await device.add("a.example", "alice", "very-secret", note="noted-secret", totp="TOTPSECRET")
        identifier = await device.add("b.example", "alice", "other-secret")
        await device.ask("DELETE", item_path(identifier))
        told = [
            await device.get("/v1/items"),
            await device.get("/v1/items", deleted=True),
            await device.get("/v1/conflicts"),
            await device.get("/v1/status"),
            await device.get("/v1/applications"),
            await device.events(since=0),
        ]
        for secret in ("very-secret", "noted-secret", "TOTPSECRET", "other-secret"):
            assert secret not in shown(told)


async def test_adding_the_same_login_again_says_how_to_change_it(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        await device.add("github.com", "alice")
        body = {"application": "password", "sites": ["https://github.com/"], "username": "alice", "password": "x"}
        answer = await device.ask("POST", "/v1/items", body)
        assert (answer.status, answer.code) == (409, "exists")
        assert "edit" in answer.body["error"]["hint"]
        await device.add("github.com", "bob")
        await device.add("gist.github.com", "alice")


@pytest.mark.parametrize(
    "members",
    [
        {"sites": []},
        {"sites": [" "]},
        {"sites": ["a b"]},
        {"sites": ["a.example"] * 65},
        {"password": None},
        {"generate": {}},
        {"generate": {"length": 300}},
        {"application": "ssh"},
        {"tags": [""]},
        {"colour": "blue"},
        {"username": "two\nlines"},
        {"title": "\x1b[31m"},
        {"tags": ["\x00"]},
    ],
)
async def test_an_item_that_makes_no_sense_is_refused(home: Path, rng, members: dict) -> None:
    async with running(home, rng) as device:
        await device.init()
        body = {"application": "password", "sites": ["a.example"], "password": "p"} | members
        body = {name: value for name, value in body.items() if value is not None}
        assert (await device.ask("POST", "/v1/items", body)).code == "usage"
        assert await titles(device) == []


async def test_a_vault_that_is_not_there_is_not_found(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        body = {"application": "password", "vault": "none", "sites": ["a.example"], "password": "p"}
        assert (await device.ask("POST", "/v1/items", body)).code == "not-found"


async def test_the_daemon_makes_a_password_where_it_is_asked_to(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        body = {"application": "password", "sites": ["a.example"], "generate": {"length": 32, "symbols": False}}
        identifier = (await device.post("/v1/items", body))["id"]
        first = (await device.item(identifier))["password"]
        assert len(first) == 32
        assert first.isalnum()
        await change(device, identifier, generate={})
        assert (await device.item(identifier))["password"] != first


async def test_a_change_leaves_alone_what_it_does_not_name(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        identifier = await device.add("a.example", "alice", "first", note="kept", totp="JBSW", tags=["t"])
        written = await change(device, identifier, password="second", sites=["b.example", "c.example"])
        item = await device.item(identifier)
        assert (item["password"], item["sites"], item["vid"]) == ("second", ["b.example", "c.example"], written["vid"])
        assert (item["note"], item["totp"], item["tags"], item["username"]) == ("kept", "JBSW", ["t"], "alice")
        await change(device, identifier, note=None, totp=None, tags=[])
        item = await device.item(identifier)
        assert (item["note"], item["totp"], item["tags"], item["password"]) == ("", "", [], "second")
        assert (await device.lookup("a.example")).code == "not-found"
        assert (await device.lookup("c.example")).body["id"] == identifier


@pytest.mark.parametrize(
    "members",
    [{}, {"sites": []}, {"password": "p", "generate": {}}, {"id": "other"}, {"sites": ["//"]}, {"title": "\x07"}],
)
async def test_a_change_that_makes_no_sense_is_refused(home: Path, rng, members: dict) -> None:
    async with running(home, rng) as device:
        await device.init()
        identifier = await device.add("a.example")
        before = await device.item(identifier)
        assert (await device.ask("PATCH", item_path(identifier), members)).code == "usage"
        assert await device.item(identifier) == before


async def test_a_deleted_login_is_gone_and_is_listed_as_it_was(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        identifier = await device.add("a.example", "alice", title="Old")
        await device.add("b.example", "alice")
        assert good(await device.ask("DELETE", item_path(identifier)))["deleted"] is True
        assert await titles(device) == ["b.example"]
        (deleted,) = (await device.get("/v1/items", deleted=True))["items"]
        assert (deleted["title"], deleted["sites"], deleted["username"]) == ("Old", ["a.example"], "alice")
        assert (await device.get("/v1/items", deleted=True, site="a.example"))["items"] == [deleted]
        assert (await device.lookup("a.example")).code == "not-found"
        assert (await device.item(identifier))["deleted"] is True
        assert (await device.ask("DELETE", item_path(identifier))).code == "not-found"
        assert (await device.ask("PATCH", item_path(identifier), {"title": "x"})).code == "not-found"
        assert (await device.get("/v1/status"))["items"] == {"password": 1}
        await device.add("a.example", "alice")


async def test_items_that_are_none_are_not_found(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        identifier = await device.add("a.example")
        container = identifier.partition("/")[0]
        for unknown in ("x", container, container + "/" + "a" * 26, identifier + "a", "/", "../" + identifier):
            assert (await device.ask("GET", item_path(unknown))).code == "not-found"


async def test_what_devices_are_called_is_no_item_of_a_person(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        (name,) = [
            row[0] for row in device.daemon.reader.query("SELECT identifier FROM versions WHERE kind = 8 AND head = 1")
        ]
        for method in ("GET", "DELETE"):
            assert (await device.ask(method, item_path(name))).code == "not-found"
        assert (await device.ask("PATCH", item_path(name), {"title": "x"})).code == "not-found"
        assert await titles(device) == []


# --- looking up -------------------------------------------------------------------------------------------------------


async def test_a_site_is_found_by_host_url_wildcard_and_registrable_domain(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        exact = await device.add("github.com")
        wild = await device.add("*.example.org")
        other = await device.add("login.shop.co.uk")
        umlaut = await device.add("bücher.example")
        for site, found in (
            ("github.com", exact),
            ("https://GITHUB.com:443/login?x=1", exact),
            ("gist.github.com", exact),
            ("mail.example.org", wild),
            ("example.org", wild),
            ("shop.co.uk", other),
            ("www.shop.co.uk", other),
            ("xn--bcher-kva.example", umlaut),
            ("BÜCHER.example", umlaut),
        ):
            answer = await device.lookup(site)
            assert good(answer)["id"] == found, site
        for site in ("git.hub.com", "co.uk", "example.com", "hub.com"):
            assert (await device.lookup(site)).code == "not-found", site
        assert (await device.lookup("a b")).code == "usage"


async def test_of_several_logins_the_user_name_decides_or_the_choices_are_listed(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        alice = await device.add("a.example", "alice", "secret-of-alice")
        bob = await device.add("a.example", "bob", "secret-of-bob")
        answer = await device.lookup("a.example")
        assert (answer.status, answer.code) == (409, "ambiguous")
        assert [one["username"] for one in answer.body["error"]["candidates"]] == ["alice", "bob"]
        assert "secret-of" not in shown(answer.body)
        check_answer(answer.body, bodies.ERROR)
        assert good(await device.lookup("a.example", username="bob"))["id"] == bob
        assert good(await device.lookup("www.a.example", username="alice"))["id"] == alice
        answer = await device.lookup("a.example", username="carol")
        assert answer.code == "not-found"
        assert len(answer.body["error"]["candidates"]) == 2


async def test_a_domain_with_several_hosts_is_ambiguous_and_an_exact_host_is_not(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        mail = await device.add("mail.a.example", "alice")
        await device.add("chat.a.example", "alice")
        assert (await device.lookup("a.example")).code == "ambiguous"
        assert good(await device.lookup("mail.a.example"))["id"] == mail


# --- lists ------------------------------------------------------------------------------------------------------------


async def test_a_list_comes_in_pages_by_title_without_gaps_or_repeats(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        names = [f"{letter}{number}.example" for number in range(4) for letter in "zaMb"]
        for name in names:
            await device.add(name)
        found: list[str] = []
        after: dict[str, object] = {}
        while True:
            page = await device.get("/v1/items", limit=5, **after)
            found += [item["title"] for item in page["items"]]
            if page["next"] is None:
                break
            after = {"after": page["next"]}
        assert found == sorted(name.lower() for name in names)
        assert (await device.ask("GET", "/v1/items", query={"after": "!"})).code == "usage"
        assert (await device.ask("GET", "/v1/items", query={"after": "W10"})).code == "usage"
        assert (await device.ask("GET", "/v1/items", query={"limit": 0})).code == "usage"


async def test_a_page_goes_on_after_an_item_that_was_deleted_meanwhile(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        ids = [await device.add(f"{letter}.example") for letter in "abcd"]
        page = await device.get("/v1/items", limit=2)
        await device.ask("DELETE", item_path(ids[1]))
        assert await titles(device, after=page["next"]) == ["c.example", "d.example"]


async def test_a_list_can_be_narrowed(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        await device.add("mail.a.example", "alice", title="Work mail")
        await device.add("a.example", "bob")
        await device.add("bücher.example", "alice")
        assert await titles(device, username="alice") == ["bücher.example", "Work mail"]
        assert await titles(device, query="MAIL work") == ["Work mail"]
        assert await titles(device, query="bücher") == ["bücher.example"]
        assert await titles(device, site="a.example") == ["a.example", "Work mail"]
        assert await titles(device, application="password", username="bob") == ["a.example"]
        assert (await device.ask("GET", "/v1/items", query={"vault": "none"})).code == "not-found"
        assert await titles(device, query="nothing") == []
        assert (await device.ask("GET", "/v1/items", query={"application": "ssh"})).code == "usage"


async def test_titles_however_long_make_pages(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        for number in range(3):
            await device.add(f"{number}.example", title="\U0001f511" * 1000 + str(number))
        page = await device.get("/v1/items", limit=1)
        assert len((await device.get("/v1/items", after=page["next"]))["items"]) == 2


# --- conflicts --------------------------------------------------------------------------------------------------------


async def test_a_conflict_shows_every_version_and_an_edit_settles_it(home: Path) -> None:
    async with mesh(home, "laptop", "desktop") as (_, (laptop, desktop)):
        made = await laptop.add("github.com", "alice", "first")
        await desktop.until(lambda: made.identifier in desktop.passwords())
        desktop.host.cut()
        await laptop.edit(made.identifier, "from the laptop")
        await desktop.edit(made.identifier, "from the desktop")
        desktop.host.heal()
        for one in (laptop, desktop):
            await one.until(lambda one=one: len(one.heads(made.identifier)) == 2)
        async with serving(laptop) as here, serving(desktop) as there:
            items = [await device.item(made.identifier) for device in (here, there)]
            assert items[0]["conflicts"] == 1
            assert items[0]["password"] == items[1]["password"] == items[0]["versions"][0]["password"]
            assert {head["password"] for head in items[0]["versions"]} == {"from the laptop", "from the desktop"}
            assert {head["device_id"] for head in items[0]["versions"]} == {laptop.udf, desktop.udf}
            assert [head["winner"] for head in items[0]["versions"]] == [True, False]
            (listed,) = (await here.get("/v1/conflicts"))["conflicts"]
            assert (listed["id"], listed["conflicts"]) == (made.identifier, 1)
            assert (await here.get("/v1/status"))["conflicts"] == 1
            await there.post("/v1/lock", {})
            assert (await there.get("/v1/status"))["conflicts"] == 1
            good(await here.ask("PATCH", item_path(made.identifier), {"password": "settled"}))
            assert (await here.get("/v1/conflicts"))["conflicts"] == []
            item = await here.item(made.identifier)
            assert (item["password"], item["conflicts"], "versions" in item) == ("settled", 0, False)


async def test_a_deletion_beside_an_edit_loses_nothing(home: Path) -> None:
    async with mesh(home, "laptop", "desktop") as (_, (laptop, desktop)):
        made = await laptop.add("github.com", "alice", "first")
        await desktop.until(lambda: made.identifier in desktop.passwords())
        desktop.host.cut()
        await laptop.delete(made.identifier)
        await desktop.edit(made.identifier, "still needed")
        desktop.host.heal()
        await laptop.until(lambda: len(laptop.heads(made.identifier)) == 2)
        async with serving(laptop) as here:
            item = await here.item(made.identifier)
            assert (item["password"], item["deleted"], item["conflicts"]) == ("still needed", False, 1)
            assert [head["deleted"] for head in item["versions"]] == [False, True]
            assert good(await here.lookup("github.com"))["password"] == "still needed"
