"""Removing devices over the socket: what is said before, what happens, who has heard, what is left to change."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from harness import devices
from harness.devices import mesh
from harness.local_api import Answer, Device, good, item_path, serving
from meshd.daemon import announce, membership, names
from meshd.daemon.context import wait
from meshd.daemon.handlers import wishes
from meshd.errors import BadRequest
from meshd.profile.claim import Role

MASTER = "master passphrase"


async def called(*those: devices.Device) -> None:
    """Let everybody know everybody's name, which the local API's own task does otherwise."""
    for one in those:
        if (saved := names.refresh(one.daemon)) is not None:
            await wait(saved)


async def remove(device: Device, *who: str, **members: object) -> Answer:
    return await device.ask("POST", "/v1/removals", {"devices": list(who), "wait": 5, **members})


async def test_a_removal_reports_what_it_did_and_who_has_heard(home: Path) -> None:
    async with mesh(home, "laptop", "desktop", "phone") as (_, (laptop, desktop, phone)), serving(laptop) as here:
        await laptop.until_connected(desktop, phone)
        for site in ("a.example", "b.example"):
            await here.add(site)
        await called(laptop)
        plan = await here.post("/v1/removals/plan", {"devices": ["phone"]})
        assert [(one["name"], one["role"], one["removed"]) for one in plan["devices"]] == [("phone", "member", False)]
        assert {one["application"] for one in plan["vaults"]} == {"password", "ssh", "mail", "network", "note"}
        assert (plan["needs_master"], plan["last_admin"], plan["undone"], plan["adds"]) == (False, False, [], [])
        told = good(await remove(here, "phone"))
        assert (told["removed"], told["rotated"]) == (["phone"], 5)
        assert (told["acknowledged"], told["pending"]) == (["desktop"], [])
        assert (told["exposed"], told["unchanged"]) == (2, 2)
        assert [(one["name"], one["acknowledged"]) for one in told["others"]] == [("desktop", True)]
        assert [one["name"] for one in (await here.get("/v1/devices"))["devices"]] == ["laptop", "desktop"]


async def test_who_is_away_is_pending_and_heard_of_later(home: Path) -> None:
    async with mesh(home, "laptop", "desktop", "phone") as (_, (laptop, desktop, phone)), serving(laptop) as here:
        await laptop.until_connected(desktop, phone)
        await called(laptop)
        desktop.stop()
        await laptop.until(lambda: desktop.udf not in laptop.siblings.connections)
        told = good(await remove(here, "phone"))
        assert (told["acknowledged"], told["pending"]) == ([], ["desktop"])
        assert told["others"][0]["last_seen"]
        (removed,) = (await here.get("/v1/removals"))["removed"]
        assert (removed["name"], removed["pending"], removed["acknowledged"]) == ("phone", ["desktop"], [])
        assert removed["removed"]


async def test_the_exposure_ticks_off_what_was_changed(home: Path) -> None:
    async with mesh(home, "laptop", "phone") as (_, (laptop, phone)), serving(laptop) as here:
        await laptop.until_connected(phone)
        first = await here.add("bücher.example", "alice")
        await here.add("b.example", "bob")
        await called(laptop)
        good(await remove(here, "phone"))
        await here.add("new.example")
        told = await here.get("/v1/devices/phone/exposure")
        assert [(one["title"], one["username"], one["changed"]) for one in told["items"]] == [
            ("b.example", "bob", False),
            ("bücher.example", "alice", False),
        ]
        assert {one["application"] for one in told["items"]} == {"password"}
        good(await here.ask("PATCH", item_path(first), {"password": "another"}))
        told = await here.get("/v1/devices/phone/exposure")
        assert [(one["id"] == first, one["changed"]) for one in told["items"]] == [(False, False), (True, True)]
        assert (told["exposed"], told["unchanged"], told["device"]["name"]) == (2, 1, "phone")


async def test_a_device_that_is_there_has_an_exposure_too(home: Path) -> None:
    async with mesh(home, "laptop", "phone", run=False) as (_, (laptop, _)), serving(laptop) as here:
        await here.add("a.example")
        await called(laptop)
        assert (await here.get("/v1/devices/phone/exposure"))["exposed"] == 1
        assert (await here.ask("GET", "/v1/devices/nobody/exposure")).code == "not-found"


async def test_a_removed_device_is_not_removed_again_by_accident(home: Path) -> None:
    async with mesh(home, "laptop", "phone", run=False) as (_, (laptop, phone)), serving(laptop) as here:
        await called(laptop)
        good(await remove(here, "phone"))
        again = await remove(here, "phone")
        assert (again.status, again.code) == (403, "denied")
        assert "phone was removed already" in again.body["error"]["message"]
        assert (await remove(here, "laptop")).code == "denied"
        assert (await remove(here, phone.udf[:11])).code == "denied"


async def test_what_needs_the_master_passphrase_says_so_and_takes_it(home: Path) -> None:
    async with mesh(home, "laptop", "desktop", "phone", run=False) as (_, (laptop, *_)), serving(laptop) as here:
        await called(laptop)
        admin = await here.ask("PUT", "/v1/devices/desktop/role", {"role": "admin", "master_passphrase": MASTER})
        assert admin.status == 200
        plan = await here.post("/v1/removals/plan", {"devices": ["desktop"]})
        assert plan["needs_master"] is True
        asked = await remove(here, "desktop")
        assert (asked.code, asked.body["error"]["needs"]) == ("denied", "master_passphrase")
        assert (await remove(here, "desktop", master_passphrase="wrong")).code == "wrong-passphrase"
        since = await remove(here, "phone", since="2026-11-20")
        assert since.body["error"]["needs"] == "master_passphrase"
        told = good(await remove(here, "desktop", master_passphrase=MASTER))
        assert told["removed"] == ["desktop"]


async def test_what_fell_with_an_admin_is_listed_and_taken_back_later(home: Path) -> None:
    async with (
        mesh(home, "laptop", "desktop") as (_, (laptop, desktop)),
        serving(laptop) as here,
        serving(desktop) as it,
    ):
        await laptop.until_connected(desktop)
        await called(laptop)
        good(await here.ask("PUT", "/v1/devices/desktop/role", {"role": "admin", "master_passphrase": MASTER}))
        await laptop.until_same(desktop)
        laptop.clock_ms = 3_600_000
        since = datetime.fromtimestamp(laptop.now_ms() / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        laptop.clock_ms += 60_000
        good(await it.ask("POST", "/v1/vaults", {"application": "password", "name": "loot"}))
        await laptop.until_same(desktop)
        good(await remove(here, "desktop", since=since, master_passphrase=MASTER))
        (fell,) = (await here.get("/v1/quarantine"))["fell"]
        assert (fell["name"], fell["text"]) == ("password/loot", "the vault password/loot")
        assert (await here.ask("POST", "/v1/quarantine/confirm", {"names": ["other"]})).code == "not-found"
        assert good(await here.ask("POST", "/v1/quarantine/confirm", {"names": ["password/loot"]}))["confirmed"] == [
            fell
        ]
        assert (await here.get("/v1/quarantine"))["fell"] == []
        assert "loot" in [one["name"] for one in (await here.get("/v1/applications"))["applications"]]


async def test_a_removal_that_fell_is_said_with_what_to_do(home: Path) -> None:
    async with (
        mesh(home, "laptop", "desktop", "phone") as (_, (laptop, desktop, _)),
        serving(laptop) as here,
        serving(desktop) as there,
    ):
        await laptop.until_connected(desktop)
        await called(laptop)
        await called(desktop)
        good(await here.ask("PUT", "/v1/devices/desktop/role", {"role": "admin", "master_passphrase": MASTER}))
        await laptop.until_same(desktop)
        desktop.stop()
        await laptop.until(lambda: desktop.udf not in laptop.siblings.connections)
        good(await there.ask("POST", "/v1/removals", {"devices": ["phone"], "wait": 0}))
        good(await remove(here, "desktop", master_passphrase=MASTER))
        raws = [row[0] for row in desktop.daemon.reader.query("SELECT raw FROM versions WHERE kind = 1")]
        found = devices.check(raws, [None] * len(raws), laptop.daemon.replica.directory)
        await laptop.daemon.transact(
            lambda connection, outcome: laptop.daemon.replica.accept(
                connection, found.versions, laptop.now_ms(), outcome
            )
        )
        (told,) = [one for one in (await here.get("/v1/status"))["health"] if one["code"] == "removal-undone"]
        assert told["message"].startswith("phone: the removal by desktop fell")
        assert "meshctl quarantine confirm phone" in told["hint"]
        good(await here.ask("POST", "/v1/quarantine/confirm", {"names": ["phone"]}))
        assert "removal-undone" not in [one["code"] for one in (await here.get("/v1/status"))["health"]]


async def test_since_a_moment_what_was_received_after_it_falls(home: Path) -> None:
    async with mesh(home, "laptop", "phone") as (_, (laptop, phone)), serving(laptop) as here, serving(phone) as there:
        await laptop.until_connected(phone)
        await called(laptop)
        await there.add("before.example")
        await laptop.until_same(phone)
        laptop.clock_ms = 3_600_000  # an hour later, by the clock of who removes
        moment = datetime.fromtimestamp(laptop.now_ms() / 1000, UTC)
        laptop.clock_ms += 60_000
        await there.add("after.example")
        await laptop.until_same(phone)
        since = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
        plan = await here.post("/v1/removals/plan", {"devices": ["phone"], "since": since})
        assert (plan["needs_master"], plan["since"], plan["quarantined"] > 0) == (True, since, True)
        assert plan["known_since"] < since
        good(await remove(here, "phone", since=since, master_passphrase=MASTER))
        titles = [one["title"] for one in (await here.get("/v1/items"))["items"]]
        assert titles == ["before.example"]
        listed = (await here.get("/v1/quarantine"))["quarantine"]
        assert "after.example" in [one["title"] for one in listed]


async def test_what_an_admin_removed_and_added_is_told_before_it_falls(home: Path) -> None:
    async with (
        mesh(home, "laptop", "desktop", "phone") as (lan, (laptop, desktop, phone)),
        serving(laptop) as here,
        serving(desktop) as there,
    ):
        await laptop.until_connected(desktop, phone)
        await called(laptop)
        body = {"role": "admin", "master_passphrase": MASTER}
        good(await here.ask("PUT", "/v1/devices/desktop/role", body))
        await desktop.until(lambda: desktop.udf in desktop.daemon.snapshot.admins)
        await laptop.until_same(desktop)
        laptop.clock_ms = 3_600_000
        moment = datetime.fromtimestamp(laptop.now_ms() / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        laptop.clock_ms += 60_000
        await called(desktop)
        good(await remove(there, "phone"))
        evil = devices.blank(home, lan, "evil")
        try:
            await devices.admit(desktop, evil)
            await there.post("/v1/vaults", {"application": "password", "name": "theirs"})
            await laptop.until_same(desktop)
            await called(laptop)
            plan = await here.post("/v1/removals/plan", {"devices": ["desktop"], "since": moment})
            assert [(one["name"], one["remover"]) for one in plan["undone"]] == [("phone", "desktop")]
            told = {one["text"] for one in plan["adds"]}
            assert {"the device evil", "the right of evil to all vaults", "the vault password/theirs"} <= told
            refused = await remove(here, "desktop", since=moment, master_passphrase=MASTER)
            assert refused.code == "refused"
            good(await remove(here, "desktop", since=moment, master_passphrase=MASTER, keep_removed=["phone"]))
            assert set(laptop.daemon.snapshot.devices) == {laptop.udf}
            assert laptop.daemon.snapshot.removed >= {desktop.udf, phone.udf}
        finally:
            evil.daemon.close()


async def test_removals_are_an_admins_business(home: Path) -> None:
    async with mesh(home, "laptop", "desktop", "phone") as (_, (laptop, desktop, _)), serving(desktop) as there:
        await desktop.until_same(laptop)
        await called(desktop)
        answer = await remove(there, "phone")
        assert (answer.status, answer.code) == (403, "denied")
        assert "needs" not in answer.body["error"]


async def test_a_removed_device_learns_it_stops_and_says_wipe(home: Path) -> None:
    async with mesh(home, "laptop", "phone") as (_, (laptop, phone)), serving(laptop) as here, serving(phone) as there:
        await laptop.until_connected(phone)
        await called(laptop, phone)
        good(await remove(here, "phone"))
        await phone.until(lambda: phone.udf in phone.daemon.snapshot.removed)
        now = await there.get("/v1/status")
        assert now["health"][0]["code"] == "removed"
        assert "meshctl wipe" in now["health"][0]["hint"]
        denied = await there.ask("POST", "/v1/items", {"application": "password", "sites": ["a"], "password": "x"})
        assert (denied.code, "wipe" in denied.body["error"]["hint"]) == ("denied", True)


async def test_who_came_and_went_is_told_in_status_and_events(home: Path) -> None:
    async with mesh(home, "laptop", "phone", run=False) as (_, (laptop, _)), serving(laptop) as here:
        await called(laptop)
        await announce.catch_up(laptop.daemon)
        good(await remove(here, "phone"))
        good(await here.ask("POST", "/v1/removals/plan", {"devices": ["laptop"]}))
        await announce.catch_up(laptop.daemon)
        (told,) = (await here.get("/v1/status"))["announcements"]
        assert (told["type"], told["text"], told["name"]) == ("removed", "phone was removed", "phone")
        told = [event for event in await here.events(since=0) if event.get("state") == "removed"]
        assert [(event["type"], event["name"]) for event in told] == [("device", "phone")]


async def test_the_log_says_which_role_a_device_has_now(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with mesh(home, "laptop", "phone", run=False) as (_, (laptop, _)), serving(laptop) as here:
        await called(laptop)
        await announce.catch_up(laptop.daemon)
        good(await here.ask("PUT", "/v1/devices/phone/role", {"role": "relay"}))
        await announce.catch_up(laptop.daemon)
        assert "device phone: role relay" in caplog.text


async def test_a_burnt_invitation_is_told(home: Path) -> None:
    async with mesh(home, "laptop", run=False) as (_, (laptop,)), serving(laptop) as here:
        await laptop.daemon.event("invitation", {"id": "x", "state": "open"})
        await laptop.daemon.event("invitation", {"id": "x", "state": "burned"})
        (told,) = (await here.get("/v1/status"))["announcements"]
        assert (told["type"], "guessed" in told["text"]) == ("burned", True)
        laptop.clock_ms = 25 * 3_600_000
        assert (await here.get("/v1/status"))["announcements"] == []


async def test_every_key_changes_with_a_relay_that_could_read_none_of_them(home: Path) -> None:
    async with mesh(home, "laptop", run=False) as (lan, (laptop,)), serving(laptop) as here:
        server = devices.blank(home, lan, "server")
        try:
            await devices.admit(laptop, server, Role.RELAY)
            await called(laptop)
            await here.add("a.example")
            told = good(await remove(here, "server"))
            assert (told["rotated"], told["exposed"], told["removed"]) == (5, 0, ["server"])
        finally:
            server.daemon.close()


async def test_a_removed_device_and_the_present_one_of_its_name_are_told_apart(home: Path) -> None:
    async with (
        mesh(home, "laptop", "phone", "tablet", run=False) as (_, (laptop, phone, tablet)),
        serving(laptop) as here,
    ):
        await called(laptop)
        good(await remove(here, "phone"))
        await laptop.daemon.write(lambda pen: membership.name_device(pen, tablet.udf, "phone"))
        await called(laptop)
        planned = good(await here.ask("POST", "/v1/removals/plan", {"devices": ["phone"]}))
        assert [one["id"] for one in planned["devices"]] == [tablet.udf]
        told = await here.ask("GET", "/v1/devices/phone/exposure")  # a list for the wrong one would calm somebody
        assert (told.status, told.code) == (409, "ambiguous")
        assert (await here.get(f"/v1/devices/{phone.udf[:11]}/exposure"))["device"]["id"] == phone.udf


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-11-20T08:00:00Z", "2026-11-20T08:00:00+00:00"),
        ("2026-11-20T08:00:00+02:00", "2026-11-20T06:00:00+00:00"),
        ("2026-11-20T08:00:00.250Z", "2026-11-20T08:00:00.250000+00:00"),
    ],
)
def test_a_time_is_a_moment(text: str, utc: str) -> None:
    assert datetime.fromtimestamp(wishes.moment(text) / 1000, UTC).isoformat() == utc


def test_a_date_is_its_local_midnight() -> None:
    found = datetime.fromtimestamp(wishes.moment("2026-11-20") / 1000)  # noqa: DTZ006  (local time is what is meant)
    assert found.isoformat() == "2026-11-20T00:00:00"


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "20", "2026-11-20T25:00:00Z", "0001-01-01x", "9" * 30])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        wishes.moment(text)
