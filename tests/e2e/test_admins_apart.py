"""Two admins remove each other while they are apart: everybody, they too, learns what came of it."""

from __future__ import annotations

import pytest

from harness.daemons import Device, Household

pytestmark = pytest.mark.e2e


def removed(device: Device) -> bool:
    return any(line["code"] == "removed" for line in device.status()["health"])


def listed(device: Device) -> list[str]:
    return [entry["name"] for entry in device.json("device", "list")["devices"]]


def test_two_admins_who_removed_each_other_apart_both_learn_it() -> None:
    with Household(options=["--interface", "lo"]) as house:
        laptop, phone, work = (house.device(name) for name in ("laptop", "phone", "work"))
        for device in (laptop, phone, work):
            device.start()
        secret = house.directory / "master"
        secret.touch(0o600)
        secret.write_text("the master passphrase\n")
        master = ("--master-passphrase-file", secret)
        laptop.run("init", "--name", "laptop", "--no-passphrase", "--force", *master)
        for device in (phone, work):
            code = laptop.json("invite", "--no-wait", "--role", "admin", "--force", *master)["code"]
            device.run("connect", code, "--name", device.name, "--no-passphrase")
            laptop.run("wait", "--synced", "--peer", device.name)
        phone.run("wait", "--synced", "--peer", "work")

        laptop.stop()
        work.stop()
        phone.run("device", "remove", "work", "--yes", *master)
        phone.stop()
        work.start()
        work.run("device", "remove", "phone", "--yes", *master)
        phone.start()
        laptop.start()
        for device in (phone, work):
            device.until(lambda device=device: removed(device), f"{device.name} hears that it was removed")
        laptop.until(lambda: listed(laptop) == ["laptop"], "laptop hears of both")
