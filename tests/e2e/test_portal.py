"""Real daemons, a real portal between them, and no LAN."""

from __future__ import annotations

import pytest

from harness.daemons import Household
from harness.portal_daemon import PortalDaemon
from meshctl.answers import text

pytestmark = pytest.mark.e2e
ACCOUNT = "alice@example.net"


def test_a_third_device_joins_by_fingerprint_and_everybody_keeps_in_step_through_the_portal() -> None:
    with Household(options=["--no-lan"]) as house, PortalDaemon(house.directory / "portal") as portal:
        laptop, phone = house.device("laptop"), house.device("phone")
        laptop.start()
        phone.start()
        laptop.init()
        laptop.add("github.com", "first")
        laptop.run("portal", "add", ACCOUNT, *portal.reach)
        laptop.run("wait", "--synced", "--portal")
        mesh = laptop.json("whoami")["mesh"]

        joining = phone.background(
            *("--json", "connect", ACCOUNT, *portal.reach, "--fingerprint", mesh, "--name", "phone", "--no-passphrase")
        )
        waiting: list[dict[str, object]] = []
        while not waiting:
            waiting = laptop.json("pending")["pending"]
            assert joining.poll() is None, joining.communicate()
        told = laptop.json("accept", text(waiting[0], "id")[:11], "--yes")
        assert told["delivered"]
        said, _ = joining.communicate(timeout=60)
        assert joining.returncode == 0, said
        phone.run("wait", "--synced", "--portal")
        assert phone.password("github.com") == "first"

        phone.edit("github.com", "second")
        phone.run("wait", "--synced", "--portal")
        laptop.run("wait", "--synced", "--portal")
        assert laptop.password("github.com") == "second"

        # Unplugged, everything that names no other machine works, and it goes on when the portal is back.
        portal.kill()
        laptop.edit("github.com", "third")
        assert laptop.fails(7, "wait", "--synced", "--portal", "--timeout", "3")["code"] == "not-synced"
        (state,) = laptop.status()["portals"]
        assert state["account"] == ACCOUNT
        assert state["state"] == "offline"
        assert state["behind"] == 1
        portal.start()
        laptop.run("wait", "--synced", "--portal")
        phone.run("wait", "--synced", "--portal")
        assert phone.password("github.com") == "third"

        # A restart of the device goes on where it was, locked or not.
        phone.stop()
        laptop.edit("github.com", "fourth")
        laptop.run("wait", "--synced", "--portal")
        phone.start()
        phone.run("wait", "--synced", "--portal")
        assert phone.password("github.com") == "fourth"
        (state,) = phone.status()["portals"]
        assert state["state"] == "connected"
        assert state["behind"] == 0

        laptop.run("portal", "remove", ACCOUNT, "--yes")
        assert laptop.status()["portals"] == []
        phone.until(lambda: phone.status()["portals"] == [], "the phone hears of it")
