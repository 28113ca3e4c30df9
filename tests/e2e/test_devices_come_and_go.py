"""Real daemons: a device is removed and finds out, what it could read is changed, it is wiped and comes back anew."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from harness.daemons import PASSPHRASE, Device, Household

pytestmark = pytest.mark.e2e


@pytest.fixture
def master(home: Path) -> str:
    path = home / "master"
    path.write_text(PASSPHRASE + "\n")
    path.chmod(0o600)
    return str(path)


def until_removed(device: Device) -> None:
    device.until(lambda: "removed" in device.health(), "learns that it was removed")


def test_a_lost_phone_is_removed_everywhere_and_comes_back_as_a_new_device() -> None:
    with Household() as house:
        laptop, desktop, phone = house.pair(("laptop", "desktop", "phone"))
        server = house.device("server")
        server.start()
        laptop.admits(server, invite=("--role", "relay"), wait=False)  # a relay knows nobody by name
        laptop.add("a.example", "one")
        laptop.add("b.example", "two")
        laptop.in_step_with(desktop, phone, server)
        server.stop()
        told = laptop.json("device", "remove", "phone", "--yes")
        assert (told["removed"], told["rotated"]) == (["phone"], 5)
        assert (told["acknowledged"], told["pending"]) == (["desktop"], ["server"])
        assert (told["exposed"], told["unchanged"]) == (2, 2)
        until_removed(phone)
        assert "removed" in phone.run("status").stdout.splitlines()[0]
        assert phone.fails(8, "password", "add", "--site", "c.example", given="x\n")["code"] == "denied"
        assert laptop.fails(8, "device", "remove", "phone", "--yes")["code"] == "denied"
        laptop.edit("a.example", "changed")
        desktop.until(lambda: desktop.password("a.example") == "changed", "hears of the new password")
        listed = desktop.json("exposure", "phone")["items"]
        assert [(item["title"], item["changed"]) for item in listed] == [("b.example", False), ("a.example", True)]
        assert phone.password("a.example") == "one", "it decrypts what was written after it was removed"
        server.start()
        laptop.in_step_with(server)
        (removed,) = laptop.json("device", "list", "--removed")["removed"]
        assert (removed["acknowledged"], removed["pending"]) == (["desktop", "server"], [])
        assert phone.json("wipe", "--yes")["wiped"] is True
        assert phone.status()["mesh"] is None
        assert not (phone.home / "keystore.cbor").exists()
        laptop.admits(phone)
        assert phone.password("a.example") == "changed"


def test_a_stolen_admin_falls_with_what_it_did_and_its_work_is_imported(master: str) -> None:
    with Household() as house:
        laptop, desktop, phone = house.pair(("laptop", "desktop", "phone"))
        with_master = ("--master-passphrase-file", master)
        laptop.run("device", "role", "desktop", "admin", *with_master)
        laptop.add("a.example", "mine")
        laptop.in_step_with(desktop, phone)
        desktop.until(lambda: desktop.status()["device"]["role"] == "admin", "is an admin")
        laptop.run("wait", "--synced")
        since = datetime.now(UTC).isoformat()
        desktop.edit("a.example", "theirs")
        desktop.add("new.example", "new")
        desktop.run("device", "remove", "phone", "--yes")
        laptop.until(lambda: laptop.password("a.example") == "theirs", "has what the desktop wrote")
        laptop.fails(2, "device", "remove", "desktop", "--since", since, "--yes")  # nobody to ask for the passphrase
        told = laptop.json("device", "remove", "desktop", "--since", since, "--yes", "--readmit", "phone", *with_master)
        assert told["removed"] == ["desktop"]
        assert laptop.password("a.example") == "mine"
        assert {device["name"] for device in laptop.json("device", "list")["devices"]} == {"laptop", "phone"}
        listed = laptop.json("quarantine", "list")["quarantine"]
        assert {"a.example", "new.example"} <= {entry["title"] for entry in listed}
        (chosen,) = [entry["id"] for entry in listed if entry["title"] == "new.example"]
        laptop.run("quarantine", "import", chosen)
        assert laptop.password("new.example") == "new"


def test_rights_are_narrowed_and_a_relay_reads_nothing() -> None:
    with Household() as house:
        laptop, work = house.device("laptop"), house.device("work")
        for device in (laptop, work):
            device.start()
        laptop.init()
        laptop.add("a.example", "one")
        laptop.json("vault", "create", "private")
        laptop.run("password", "add", "--site", "p.example", "--username", "p", "--vault", "private", given="two\n")
        laptop.admits(work, invite=("--role", "member", "--grant", "password:read"))
        assert work.password("a.example") == "one"
        assert work.fails(8, "password", "edit", "a.example", given="x\n")["code"] == "denied"
        told = laptop.json("device", "revoke", "work", "password/private")
        assert [vault["name"] for vault in told["rotated"]] == ["private"]
        laptop.edit("p.example", "three")
        laptop.in_step_with(work)
        assert work.run("password", "get", "p.example", "--vault", "private", code=None).stdout != "three\n"
        laptop.run("device", "grant", "work", "password/password:write")
        laptop.in_step_with(work)
        work.until(
            lambda: work.run("password", "edit", "a.example", given="x\n", code=None).returncode == 0, "may write"
        )
        (change, *_) = laptop.json("undo")["undo"]
        laptop.run("undo", change["id"])
        laptop.run("device", "role", "work", "relay")
        laptop.in_step_with(work)
        work.until(lambda: work.status()["device"]["role"] == "relay", "is a relay")
        laptop.edit("a.example", "last")
        laptop.in_step_with(work)
        assert work.run("password", "get", "a.example", code=None).stdout != "last\n"
