"""Every device is lost, and the mesh comes back: three pages, a new computer, whoever still holds the ciphertext."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.daemons import PASSPHRASE, Device, Household
from harness.netns import Lab, netns_available
from harness.portal_daemon import PortalDaemon

pytestmark = pytest.mark.e2e
ACCOUNT = "alice@example.net"


@pytest.fixture
def lab() -> Iterator[Lab]:
    reason = netns_available()
    if reason is not None:
        pytest.skip(reason)
    with Lab(3) as made:
        yield made


def pages(device: Device, where: Path) -> list[str]:
    """Three of the five pages that were printed, as options."""
    told = device.json(
        *("recovery", "create", "--pages", where, "--text", "--yes", "--master-passphrase-file", "-"),
        given=f"{PASSPHRASE}\n",
    )
    return [word for file in told["files"][1:4] for word in ("--share-file", str(file))]


def restore(device: Device, *where: str) -> dict[str, object]:
    return device.json(
        *("recovery", "restore", *where, "--name", device.name, "--no-passphrase", "--force"),
        *("--master-passphrase-file", "-"),
        given="another master passphrase\n",
    )


def lost(*devices: Device) -> None:
    for device in devices:
        device.kill()
        shutil.rmtree(device.home)


def test_three_devices_are_destroyed_and_three_pages_bring_the_mesh_back_from_its_portal() -> None:
    with Household() as house, PortalDaemon(house.directory / "portal") as portal:
        laptop, phone, desktop = (house.device(name) for name in ("laptop", "phone", "desktop"))
        for device in (laptop, phone, desktop):
            device.start()
        laptop.init()
        laptop.admits(phone)
        laptop.admits(desktop)
        laptop.add("github.com", "first")
        laptop.run("portal", "add", ACCOUNT, *portal.reach)
        printed = pages(laptop, house.directory / "pages")
        phone.in_step_with(laptop)
        phone.add("example.org", "from the phone")
        laptop.in_step_with(phone)
        laptop.run("wait", "--synced", "--portal")
        mesh = laptop.json("whoami")["mesh"]

        # Tried beforehand: everybody gives the entry, every vault opens, and all devices hear that somebody asked.
        tried = laptop.json("recovery", "drill", *printed)
        assert tried["success"], tried
        assert [(one["kind"], one["what"]) for one in tried["sources"]] == [
            ("device", "found"),
            ("portal", "found"),
            ("peer", "found"),
            ("peer", "found"),
        ]
        for told in (f"looked up at {ACCOUNT}", "fetched from desktop"):
            phone.until(lambda told=told: told in str(phone.status()["announcements"]), told)  # type: ignore[misc]
        lost(laptop, phone, desktop)

        new = house.device("new", options=["--no-lan"])
        new.start()
        back = restore(new, "--account", ACCOUNT, *portal.reach, *printed, "--lost", "all", "--yes")
        assert back["mesh"] == mesh
        assert back["missing"] == 0
        assert back["proof"]["state"] == "proved", back["proof"]  # type: ignore[index]
        assert sorted(back["removed"]) == ["desktop", "laptop", "phone"]  # type: ignore[call-overload]
        new.run("wait", "--synced", "--portal")
        assert new.password("github.com") == "first"
        assert new.password("example.org") == "from the phone"
        assert {one["name"] for one in new.json("device", "list")["devices"]} == {"new"}

        # It is the admin, under the new passphrase, and what it writes stands.
        new.add("example.com", "later")
        new.run("wait", "--synced", "--portal")
        new.json(
            *("recovery", "refresh", "--out", house.directory / "newer", "--yes", "--master-passphrase-file", "-"),
            given="another master passphrase\n",
        )
        new.run("wait", "--synced", "--portal")

        # The old pages count no more.
        thief = house.device("thief", options=["--no-lan"])
        thief.start()
        refused = thief.fails(
            1,
            *("recovery", "restore", "--account", ACCOUNT, *portal.reach, *printed, "--no-passphrase", "--force"),
            *("--yes", "--master-passphrase-file", "-"),
            given="third\n",
        )
        assert refused["code"] in ("not-found", "trust"), refused
        assert thief.json("status")["mesh"] is None


def test_a_mesh_that_came_back_comes_back_again_with_all_devices_that_are_left() -> None:
    with Household() as house, PortalDaemon(house.directory / "portal") as portal:
        laptop, phone, first, second = (house.device(name) for name in ("laptop", "phone", "first", "second"))
        laptop.start()
        phone.start()
        laptop.init()
        laptop.admits(phone)
        laptop.run("portal", "add", ACCOUNT, *portal.reach)
        printed = pages(laptop, house.directory / "pages")
        laptop.add("github.com", "first")
        laptop.in_step_with(phone)
        laptop.run("wait", "--synced", "--portal")
        lost(laptop)
        phone.stop()
        first.start()
        assert restore(first, "--account", ACCOUNT, *portal.reach, *printed, "--lost", "laptop", "--yes")["complete"]
        first.run("wait", "--synced", "--portal")
        phone.start()
        first.in_step_with(phone)
        lost(first)
        # Who had taken the phone in was removed: by profiles alone it can't be told whether the phone stands.
        second.start()
        back = restore(second, "--lan", *printed, "--lost", "first", "--yes")
        assert (back["missing"], back["complete"], back["removed"]) == (0, True, ["first"])
        assert second.password("github.com") == "first"
        second.in_step_with(phone)
        assert {one["name"] for one in second.json("device", "list")["devices"]} == {"second", "phone"}
        assert phone.json("whoami")["mesh"] == back["mesh"]


def test_a_relay_alone_gives_the_mesh_back_to_who_has_the_shares_and_finds_it_by_no_name(lab: Lab) -> None:
    with Household(options=()) as house:
        laptop, relay, new = (
            house.device(name, enter=host.command)
            for name, host in zip(("laptop", "nas", "new"), lab.hosts, strict=True)
        )
        laptop.start()
        relay.start()
        laptop.init()
        laptop.admits(relay, invite=["--role", "relay"], wait=False)
        laptop.add("github.com", "first")
        printed = pages(laptop, house.directory / "pages")
        laptop.in_step_with(relay)  # which reads no names
        mesh = laptop.json("whoami")["mesh"]
        lost(laptop)

        new.start()
        two = printed[:4]
        few = new.fails(
            *(1, "recovery", "restore", "--lan", *two, "--no-passphrase", "--force", "--yes"),
            *("--master-passphrase-file", "-"),
            given="third\n",
        )
        assert "not enough" in str(few)
        back = restore(new, "--lan", *printed, "--lost", "laptop", "--yes")
        assert back["mesh"] == mesh
        new.in_step_with(relay)
        assert new.password("github.com") == "first"
        assert {one["name"] for one in new.json("device", "list")["devices"]} == {"new", "nas"}
        assert "somebody fetched the recovery entry" in relay.log.read_text()


def test_who_forgot_a_devices_passphrase_has_the_mesh_back_from_it_in_another_home() -> None:
    with Household() as house:
        laptop, again = house.device("laptop"), house.device("again")
        laptop.start()
        device = house.directory / "passphrase"
        device.write_text("device passphrase\n")
        laptop.run(
            *("init", "--name", "laptop", "--passphrase-file", device, "--master-passphrase-file", "-"),
            given=f"{PASSPHRASE}\n",
        )
        laptop.add("github.com", "first")
        printed = pages(laptop, house.directory / "pages")
        mesh = laptop.json("whoami")["mesh"]
        laptop.run("lock")

        # It is forgotten: what can be done is said, and nothing is asked for in vain.
        for _ in range(3):
            wrong = laptop.fails(8, "unlock", "--passphrase-file", "-", given="was it this?\n")
        assert "Nobody can reset it" in wrong["hint"]
        locked = laptop.fails(5, "recovery", "restore", *printed, "--yes")
        assert "another home" in locked["hint"]

        # A locked device has all ciphertext, and its door opens to the shares.
        again.start()
        back = restore(again, "--lan", *printed, "--lost", "laptop", "--yes")
        assert (back["mesh"], back["missing"], back["removed"]) == (mesh, 0, ["laptop"])
        again.until(lambda: list(again.titles().values()) == ["github.com"], "the login")
        assert again.password("github.com") == "first"
