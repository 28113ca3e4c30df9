"""meshctl and portals: accounts, devices that ask, joining at a distance."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.fake_daemon import DESKTOP, MESH, NOW, FakeDaemon
from harness.shell import Shell
from meshd.errors import NotFound

ACCOUNT = "alice@example.net"
WORDS = "orbit walnut garden emerald legend"


class FakePortals(FakeDaemon):
    """A daemon that has portals, too."""

    accounts: dict[str, dict[str, Any]]
    asking: list[dict[str, Any]]
    told: list[tuple[str, str, Any]]
    remote: list[dict[str, Any]]
    slow = False

    def do_status(self, match: Any, body: Any) -> Any:
        return super().do_status(match, body) | {"portals": list(self.accounts.values())}

    def do_portals(self, match: Any, body: Any) -> Any:
        return {"portals": list(self.accounts.values())}

    def do_add_portal(self, match: Any, body: Any) -> Any:
        made = {"account": body["account"], "state": "connecting", "last_success": None, "behind": 3, "error": None}
        self.accounts[body["account"]] = made
        self.told.append(("add", body["account"], body))
        return made

    def do_remove_portal(self, match: Any, body: Any) -> Any:
        if match.params["account"] not in self.accounts:
            raise NotFound("no such account")
        return self.accounts.pop(match.params["account"])

    def do_close_portal(self, match: Any, body: Any) -> Any:
        self.told.append(("close", match.params["account"], body))
        return self.accounts.pop(match.params["account"])

    def do_pending(self, match: Any, body: Any) -> Any:
        return {"pending": self.asking, "unreached": []}

    def do_accept_pending(self, match: Any, body: Any) -> Any:
        self.told.append(("accept", match.params["device"], body))
        role = body.get("role", "member")
        return {"id": DESKTOP, "name": "new MDDES", "role": role, "account": ACCOUNT, "delivered": True}

    def do_reject_pending(self, match: Any, body: Any) -> Any:
        self.told.append(("reject", match.params["device"], body))
        return {"id": DESKTOP, "account": ACCOUNT, "delivered": True}

    def do_invite_remote(self, match: Any, body: Any) -> Any:
        self.told.append(("invite", "", body))
        first = {
            "id": "far1",
            "account": ACCOUNT,
            "uri": f"mesh-pair:?a=alice%40example.net&m={MESH}&s=AAAAAAAAAAAAAAAAAAAAAA",
            "state": "open",
            "role": body.get("role", "member"),
            "expires": "2126-11-24T06:46:00Z",
        }
        end = {"state": "admitted", "device": {"id": DESKTOP, "name": "phone"}}
        self._resources["far1"] = (first, [end])
        return first

    def do_remote_invitation(self, match: Any, body: Any) -> Any:
        return self._poll(match, "far1")

    def do_connect_remote(self, match: Any, body: Any) -> Any:
        self.told.append(("connect", body.get("account", ""), body))
        first = {"id": "con1", "state": "searching", "account": ACCOUNT}
        self._resources["con1"] = (first, [*self.remote])
        return first

    def do_remote_connection(self, match: Any, body: Any) -> Any:
        return self._poll(match, "con1")

    def do_answer_remote_connection(self, match: Any, body: Any) -> Any:
        self.answers.append(body["accept"])
        now, _ = self._resources["con1"]
        if self.slow:
            return now
        error = {"code": "refused", "message": "You said that the fingerprints differ", "hint": None}
        now.update({"state": "requested"} if body["accept"] else {"state": "failed", "error": error})
        return now


@pytest.fixture
def daemon(home: Path) -> Iterator[FakePortals]:
    made = FakePortals(str(home / "meshd.sock"))
    made.accounts, made.told, made.remote = {}, [], []
    made.asking = [{"id": DESKTOP, "fingerprint": DESKTOP, "fingerprint_words": WORDS, "account": ACCOUNT, "seen": NOW}]
    with made as running:
        yield running  # type: ignore[misc]


@pytest.fixture
def meshctl(home: Path) -> Shell:
    return Shell(home)


def test_an_account_is_added_listed_shown_and_given_up(meshctl: Shell, daemon: FakePortals) -> None:
    run = meshctl("portal", "add", ACCOUNT, "--address", "127.0.0.1:8080", "--insecure-http")
    assert run.code == 0
    assert daemon.told == [("add", ACCOUNT, {"account": ACCOUNT, "address": "127.0.0.1:8080", "plain": True})]
    assert ACCOUNT in meshctl("portal", "list").out
    assert "3 versions to publish" in meshctl("portal", "status").out
    assert "3 versions to publish" in meshctl("status").out
    assert meshctl("portal", "status", ACCOUNT, "--json").json["portals"][0]["account"] == ACCOUNT
    assert meshctl("portal", "status", "bob@example.net").code == 1
    assert meshctl("portal", "remove", ACCOUNT, "--yes").code == 0
    assert daemon.accounts == {}
    assert meshctl("portal", "remove", ACCOUNT, "--yes").code == 1


def test_a_mesh_without_portals_is_told_how_to_add_one(meshctl: Shell, daemon: FakePortals) -> None:
    for command in ("list", "status"):
        run = meshctl("portal", command)
        assert (run.code, run.out) == (0, "")
        assert "meshctl portal add" in run.err


def test_closing_has_the_portal_close_the_account(meshctl: Shell, daemon: FakePortals) -> None:
    meshctl("portal", "add", ACCOUNT)
    assert "is closed" in meshctl("portal", "close", ACCOUNT, "--yes").err
    assert daemon.told[-1] == ("close", ACCOUNT, {})
    assert daemon.accounts == {}


def test_what_is_wrong_with_a_portal_is_told_with_its_hint(meshctl: Shell, daemon: FakePortals) -> None:
    meshctl("portal", "add", ACCOUNT)
    problem = {"code": "network", "message": "nothing listens there", "hint": "look at the cable"}
    daemon.accounts[ACCOUNT] |= {"state": "offline", "error": problem, "last_success": NOW}
    run = meshctl("portal", "status")
    assert "nothing listens there" in run.out
    assert "look at the cable" in run.out
    assert "nothing listens there" in meshctl("status").out


def test_pending_shows_both_fingerprints_in_words(meshctl: Shell, daemon: FakePortals) -> None:
    run = meshctl("pending")
    assert run.code == 0
    assert DESKTOP in run.out
    assert WORDS in run.out
    assert MESH in run.out
    assert meshctl("pending", "--json").json["pending"][0]["id"] == DESKTOP
    (one,), daemon.asking = daemon.asking, []
    assert "no device asks" in meshctl("pending").err
    daemon.asking = [{**one, "asked": NOW, "sealed": False}]
    assert "asked " in meshctl("pending").out
    assert "without a passphrase" in meshctl("pending").out


def test_accept_asks_unless_told_that_it_was_compared(meshctl: Shell, daemon: FakePortals) -> None:
    run = meshctl("accept", "MDDES", "--yes", "--role", "relay")
    assert run.code == 0
    assert daemon.told[-1] == ("accept", "MDDES", {"role": "relay"})
    assert meshctl("accept", "mddes", tty=True, stdin="y\n").code == 0
    assert daemon.told[-1] == ("accept", DESKTOP, {"role": "member"})
    before = len(daemon.told)
    assert meshctl("accept", "mddes", tty=True, stdin="n\n").code == 8
    assert meshctl("accept", "MXXXX", tty=True, stdin="y\n").code == 1
    assert meshctl("accept", "MDDES", "--json").code == 2
    short = meshctl("accept", "mdd", tty=True)
    assert (short.code, "4 characters" in short.err) == (2, True)
    assert len(daemon.told) == before
    assert meshctl("reject", "MDDES").code == 0
    assert daemon.told[-1][0] == "reject"


def test_connect_by_fingerprint_asks_nothing(meshctl: Shell, daemon: FakePortals) -> None:
    daemon.mesh = False
    device = {"id": DESKTOP, "name": "phone", "role": "member"}
    asking = {"state": "requested", "own": DESKTOP, "own_words": "other words"}
    daemon.remote = [asking, {"state": "syncing"}, {"state": "done", "mesh": MESH, "device": device}]
    run = meshctl(
        *("connect", ACCOUNT, "--fingerprint", MESH, "--name", "phone", "--no-passphrase", "--insecure-http"),
        *("--address", "127.0.0.1:8080"),
    )
    assert run.code == 0, run.err
    assert "connected as phone (member)" in run.out
    assert f"This device is {DESKTOP}\n  other words\n" in run.err  # for the person at the admin's device
    assert daemon.told[-1][2] == {
        "name": "phone",
        "account": ACCOUNT,
        "fingerprint": MESH,
        "plain": True,
        "address": "127.0.0.1:8080",
        "no_passphrase": True,
    }


@pytest.mark.parametrize(("typed", "code"), [("y\n", 0), ("n\n", 8)])
def test_connect_shows_both_fingerprints_and_asks(meshctl: Shell, daemon: FakePortals, typed: str, code: int) -> None:
    daemon.mesh = False
    shown = {"mesh": MESH, "mesh_words": WORDS, "own": DESKTOP, "own_words": "other words"}
    device = {"id": DESKTOP, "name": "phone", "role": "member"}
    daemon.remote = [{"state": "comparing"} | shown, {"state": "done", "device": device}]
    run = meshctl("connect", ACCOUNT, "--name", "phone", "--no-passphrase", tty=True, stdin=typed)
    assert run.code == code, run.err
    assert daemon.answers == [code == 0]
    assert WORDS in run.err
    assert "other words" in run.err


def test_a_no_that_the_daemon_takes_a_moment_to_hear_is_not_asked_for_again(
    meshctl: Shell, daemon: FakePortals
) -> None:
    daemon.mesh, daemon.slow = False, True
    shown = {"mesh": MESH, "mesh_words": WORDS, "own": DESKTOP, "own_words": "other words"}
    error = {"code": "refused", "message": "You said that the fingerprints differ", "hint": None}
    daemon.remote = [{"state": "comparing"} | shown, {"state": "failed", "error": error}]
    assert meshctl("connect", ACCOUNT, "--name", "phone", "--no-passphrase", tty=True, stdin="n\n").code == 8
    assert daemon.answers == [False]


def test_a_script_must_say_which_mesh_it_means(meshctl: Shell, daemon: FakePortals) -> None:
    daemon.mesh = False
    for option in ("--json", "--no-wait"):
        assert meshctl("connect", ACCOUNT, option, "--no-passphrase").code == 2
    assert meshctl("connect", "7-orbit-walnut", "--fingerprint", MESH, "--no-passphrase").code == 2


def test_an_invitation_through_the_portal_prints_its_uri_alone(meshctl: Shell, daemon: FakePortals) -> None:
    run = meshctl("invite", "--portal")
    assert run.code == 0, run.err
    assert run.out.splitlines()[0].startswith("mesh-pair:?a=alice%40example.net&m=")
    assert "phone joined as member" in run.out
    assert meshctl("invite", "--portal", "--words", "3").code == 2


def test_wait_asks_for_portals(meshctl: Shell, daemon: FakePortals) -> None:
    assert meshctl("wait", "--synced", "--portal").code == 0
    assert "portal=1" in daemon.requests[-1][1]
