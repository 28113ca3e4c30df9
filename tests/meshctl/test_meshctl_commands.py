"""Every command of meshctl, whole: arguments in, requests to a daemon on a socket, text or JSON out, an exit code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.fake_daemon import DESKTOP, LAPTOP, MESH, NOW, FakeDaemon, item, peer
from harness.shell import Shell, secret_file
from meshd.errors import Denied, DiskFull, PossibleAttack, SignatureError, StoreTooNew


@pytest.fixture
def daemon(home: Path) -> Iterator[FakeDaemon]:
    with FakeDaemon(str(home / "meshd.sock")) as running:
        yield running


@pytest.fixture
def meshctl(home: Path) -> Shell:
    return Shell(home)


# ---------------------------------------------------------------- where the daemon is


def test_without_a_daemon_the_exit_code_is_3_and_the_hint_says_how_to_start_it(meshctl: Shell) -> None:
    run = meshctl("status")
    assert run.code == 3
    assert run.out == ""
    assert "systemctl --user start meshd" in run.err


def test_a_socket_that_nobody_listens_on_is_a_daemon_not_running(meshctl: Shell, home: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(home / "meshd.sock"))
    assert meshctl("status").code == 3


def test_a_daemon_that_listens_a_moment_later_is_waited_for(meshctl: Shell, home: Path) -> None:
    with FakeDaemon(str(home / "meshd.sock"), late=0.2):
        assert meshctl("status").code == 0


@pytest.mark.parametrize("place", ["before", "after", "equals", "environment"])
def test_the_home_may_be_named_before_or_after_the_command(place: str, daemon: FakeDaemon, home: Path) -> None:
    argv = {
        "before": ["--home", str(home), "device", "list", "--json"],
        "after": ["device", "list", "--json", "--home", str(home)],
        "equals": ["device", f"--home={home}", "list", "--json"],
        "environment": ["--json", "device", "list"],
    }[place]
    environ = {"MESHD_HOME": str(home)} if place == "environment" else {}
    run = Shell(home)(*argv, environ=environ)
    assert run.code == 0
    assert [one["name"] for one in run.json["devices"]] == ["laptop", "desktop"]


def test_the_runtime_directory_is_used_without_a_home(home: Path) -> None:
    (home / "meshd").mkdir()
    with FakeDaemon(str(home / "meshd" / "meshd.sock")):
        assert Shell(home)("status", environ={"XDG_RUNTIME_DIR": str(home)}).code == 0


def test_a_daemon_of_another_api_is_refused_with_9(meshctl: Shell, daemon: FakeDaemon) -> None:
    daemon.api = 2
    run = meshctl("status", "--json")
    assert run.code == 9
    assert run.error["code"] == "version-mismatch"
    assert run.error["hint"]


def test_a_daemon_of_another_release_gets_one_warning(meshctl: Shell, daemon: FakeDaemon) -> None:
    daemon.version = "0.0.9"
    run = meshctl("unlock", types=(), stdin="")
    assert run.code == 0
    assert run.err.count("restart meshd") == 1


def test_what_is_no_daemon_is_told_as_that(meshctl: Shell, daemon: FakeDaemon) -> None:
    daemon.raw = b"SSH-2.0-OpenSSH_9.2\r\n\r\n"
    run = meshctl("status")
    assert run.code == 1
    assert "not meshd" in run.err


def test_a_daemon_that_dies_in_the_middle_is_a_daemon_not_running(meshctl: Shell, daemon: FakeDaemon) -> None:
    daemon.raw = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"
    run = meshctl("status")
    assert run.code == 3
    assert "in the middle" in run.err


# ---------------------------------------------------------------- exit codes


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DiskFull(), 1),
        (Denied(), 8),
        (StoreTooNew(), 9),
        (SignatureError(), 10),
        (PossibleAttack(), 10),
    ],
)
def test_an_error_of_the_daemon_becomes_its_exit_code(
    error: Any, code: int, meshctl: Shell, daemon: FakeDaemon
) -> None:
    daemon.fail = error
    run = meshctl("whoami")
    assert run.code == code
    assert str(error) in run.err
    told = meshctl("whoami", "--json")
    assert told.code == code
    assert told.out == ""
    assert told.error["code"] == error.code


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["device"],
        ["frobnicate"],
        ["password", "get"],
        ["password", "add"],
        ["invite", "--role", "king"],
        ["invite", "--ttl", "soon"],
        ["status", "--chek"],
        ["device", "address", "desktop"],
        ["wait", "--timeout", "-1"],
        ["password", "add", "--site", "a", "--length", "12"],
    ],
)
def test_bad_usage_is_2_and_says_where_to_look(argv: list[str], meshctl: Shell, daemon: FakeDaemon) -> None:
    run = meshctl(*argv, stdin="x\n")
    assert run.code == 2
    assert run.out == ""
    assert run.err
    assert daemon.requests == []


def test_a_usage_error_does_not_repeat_what_may_be_a_secret(meshctl: Shell) -> None:
    run = meshctl("password", "add", "--site", "a", "--username", "b", "hunter2", "--password=hunter2")
    assert run.code == 2
    assert "hunter2" not in run.err
    assert "--password" in run.err
    assert "hunter2" not in meshctl("hunter2").err
    assert "hunter2" not in meshctl("unlock", "--passphrase-fd", "hunter2").err


def test_a_device_in_no_mesh_exits_4(meshctl: Shell, daemon: FakeDaemon) -> None:
    daemon.mesh = False
    run = meshctl("password", "get", "github.com")
    assert run.code == 4
    assert "meshctl init" in run.err


def test_a_locked_device_exits_5_and_says_unlock(meshctl: Shell, daemon: FakeDaemon) -> None:
    daemon.locked = True
    run = meshctl("password", "list", "--json")
    assert run.code == 5
    assert run.error["hint"] == "run: meshctl unlock"


# ---------------------------------------------------------------- status


def test_status_leads_with_one_line_then_what_is_wrong_with_its_fix(meshctl: Shell, daemon: FakeDaemon) -> None:
    daemon.peers = [peer(), peer("server", connected=False, behind=3)]
    daemon.health = [{"code": "clock", "message": "the clock is off by a year", "hint": "set it"}]
    run = meshctl("status")
    assert run.code == 0
    lines = run.out.splitlines()
    assert lines[0] == "laptop (admin) · unlocked · 1 of 2 other devices connected · 1 not in step"
    assert lines[1:3] == ["! the clock is off by a year", "  set it"]
    assert lines[3].split("\t")[:2] == ["desktop", "member"]
    assert "3 behind" in lines[4]


def test_a_device_that_is_in_step_through_a_portal_is_shown_so(meshctl: Shell, daemon: FakeDaemon) -> None:
    away = peer("server", connected=False, behind=3) | {"last_seen": None, "heard": NOW, "through": "alice@example.net"}
    daemon.peers = [peer(), away]
    run = meshctl("status", "--check")
    assert run.code == 0
    lines = run.out.splitlines()
    assert lines[0].endswith("1 of 2 other devices connected · in step")
    seen, sync = lines[2].split("\t")[2:4]
    assert (seen[:10], sync) == (NOW[:10], "by alice@example.net")
    del away["through"]
    assert meshctl("status", "--check").code == 7


def test_status_as_json_has_what_scripts_rely_on(meshctl: Shell, daemon: FakeDaemon) -> None:
    daemon.peers = [peer()]
    told = meshctl("status", "--json").json
    assert told["schema"] == 1
    assert told["mesh"] == MESH
    assert told["device"] == {"id": LAPTOP, "name": "laptop", "role": "admin"}
    assert told["locked"] is False
    assert set(told["peers"][0]) == {"id", "name", "role", "connected", "address", "behind", "last_seen"}
    assert told["portals"] == []
    assert told["conflicts"] == 0
    assert told["health"] == []


def test_status_without_a_mesh_is_still_a_status(meshctl: Shell, daemon: FakeDaemon) -> None:
    daemon.mesh = False
    run = meshctl("status")
    assert run.code == 0
    assert "meshctl init" in run.out.splitlines()[0]
    assert meshctl("status", "--check").code == 4


def test_status_exits_0_however_things_stand_unless_asked(meshctl: Shell, daemon: FakeDaemon) -> None:
    assert meshctl("status", "--check").code == 0
    daemon.peers = [peer(behind=1)]
    assert meshctl("status", "--check").code == 7
    daemon.items["a"] = item("a", "github.com", "alice", "x", conflicts=1)
    assert meshctl("status", "--check").code == 6
    daemon.locked = True
    assert meshctl("status", "--check").code == 5
    daemon.health = [{"code": "equivocation", "message": "two chains", "hint": None}]
    assert meshctl("status", "--check", "--json").code == 10
    assert meshctl("status").code == 0


def test_control_characters_of_a_name_do_not_reach_the_terminal(meshctl: Shell, daemon: FakeDaemon) -> None:
    daemon.peers = [peer("evil\x1b[2J\u202egnp\n")]
    run = meshctl("status", tty=True)
    assert "\x1b" not in run.out
    assert "\u202e" not in run.out
    assert "evil\\x1b[2J\\u202egnp\\n" in run.out
    daemon.fail = Denied("no\x1b[31m")
    assert "\x1b" not in meshctl("status").err


# ---------------------------------------------------------------- init, keys


def test_init_asks_for_both_passphrases_and_offers_a_phrase(meshctl: Shell, daemon: FakeDaemon) -> None:
    daemon.mesh = False
    run = meshctl("init", "--name", "laptop", types=("pw", "pw", ""))
    assert run.code == 0
    assert run.out == ""
    assert "acid beam civil dive echo fact" in run.err
    assert MESH in run.err
    assert daemon.passphrase == "pw"
    assert daemon.master == "acid beam civil dive echo fact"
    assert "same" not in run.err


def test_equal_passphrases_get_a_warning(meshctl: Shell, daemon: FakeDaemon) -> None:
    daemon.mesh = False
    run = meshctl("init", "--name", "laptop", types=("pw", "pw", "pw", "pw"))
    assert run.code == 0
    assert "warning: both passphrases are the same" in run.err


def test_passphrases_that_differ_the_second_time_make_nothing(meshctl: Shell, daemon: FakeDaemon) -> None:
    daemon.mesh = False
    assert meshctl("init", "--name", "laptop", types=("pw", "wp")).code == 2
    assert meshctl("init", "--name", "laptop", types=("pw", "pw", "one", "two")).code == 2
    assert daemon.mesh is False


def test_init_reads_passphrases_from_files(meshctl: Shell, daemon: FakeDaemon, home: Path) -> None:
    daemon.mesh = False
    own = secret_file(home, "own", "with spaces \r\nsecond line\n")
    master = secret_file(home, "master", "mästér")
    run = meshctl("init", "--name", "laptop", "--passphrase-file", own, "--master-passphrase-file", master, "--json")
    assert run.code == 0
    assert run.json["schema"] == 1
    assert run.json["device"]["name"] == "laptop"
    assert (daemon.passphrase, daemon.master) == ("with spaces ", "mästér")
    assert run.asked == []
    assert "with spaces" not in run.out + run.err


def test_a_passphrase_file_that_others_can_read_gets_a_warning(meshctl: Shell, daemon: FakeDaemon, home: Path) -> None:
    path = Path(secret_file(home, "own", "device secret\n"))
    path.chmod(0o644)
    daemon.locked = True
    run = meshctl("unlock", "--passphrase-file", str(path))
    assert run.code == 0
    assert "chmod 600" in run.err


def test_init_in_a_mesh_asks_nothing_and_exits_2(meshctl: Shell, daemon: FakeDaemon) -> None:
    run = meshctl("init", "--name", "laptop")
    assert run.code == 2
    assert run.asked == []


def test_init_without_a_passphrase_needs_force(meshctl: Shell, daemon: FakeDaemon, home: Path) -> None:
    daemon.mesh = False
    master = secret_file(home, "master", "m\n")
    argv = ["init", "--name", "laptop", "--no-passphrase", "--master-passphrase-file", master]
    assert meshctl(*argv).code == 8
    assert meshctl(*argv, "--force").code == 0
    assert daemon.passphrase is None


def test_lock_and_unlock(meshctl: Shell, daemon: FakeDaemon) -> None:
    assert meshctl("lock").code == 0
    assert daemon.locked
    wrong = meshctl("unlock", types=("wrong",))
    assert wrong.code == 8
    assert daemon.locked
    assert meshctl("unlock", types=("device secret",)).code == 0
    assert not daemon.locked
    assert meshctl("unlock", "--json").json == {"schema": 1, "locked": False}


def test_a_device_without_a_passphrase_is_unlocked_where_nobody_can_be_asked(
    meshctl: Shell, daemon: FakeDaemon
) -> None:
    daemon.passphrase = None
    daemon.locked = True
    assert meshctl("unlock", types=()).code == 0
    assert not daemon.locked


def test_a_passphrase_comes_through_a_file_descriptor_and_takes_one_line_of_it(
    meshctl: Shell, daemon: FakeDaemon
) -> None:
    import os

    reading, writing = os.pipe()
    os.write(writing, b"device secret\nfor another program\n")
    os.close(writing)
    daemon.locked = True
    assert meshctl("unlock", "--passphrase-fd", str(reading)).code == 0
    assert os.read(reading, 100) == b"for another program\n"
    os.close(reading)


@pytest.mark.parametrize("content", ["", "\n", "x" * 2000])
def test_an_empty_or_endless_passphrase_is_refused(
    content: str, meshctl: Shell, daemon: FakeDaemon, home: Path
) -> None:
    assert meshctl("unlock", "--passphrase-file", secret_file(home, "f", content)).code == 2
    assert meshctl("unlock", "--passphrase-file", str(home / "missing")).code == 2


def test_the_passphrase_is_changed(meshctl: Shell, daemon: FakeDaemon, home: Path) -> None:
    assert meshctl("passphrase", types=("device secret", "new one", "new one")).code == 0
    assert daemon.passphrase == "new one"
    old, new = secret_file(home, "old", "new one\n"), secret_file(home, "new", "newer\n")
    assert (
        meshctl("passphrase", "--passphrase-file", old, "--new-passphrase-file", new, "--json").json["changed"] is True
    )
    assert daemon.passphrase == "newer"
    assert meshctl("passphrase", types=("bad", "x", "x")).code == 8


def test_whoami_and_version(meshctl: Shell, daemon: FakeDaemon) -> None:
    assert meshctl("whoami").out.splitlines()[0] == "laptop (admin)"
    assert meshctl("whoami", "--json").json["device"]["id"] == LAPTOP
    told = meshctl("version", "--json").json
    assert told["meshctl"] == told["meshd"] == daemon.version


def test_version_needs_no_daemon(meshctl: Shell) -> None:
    run = meshctl("version", "--json")
    assert run.code == 0
    assert run.json["meshd"] is None
    assert "not running" in meshctl("version").out


# ---------------------------------------------------------------- invite, connect

ADMITTED = {"state": "admitted", "device": {"id": DESKTOP, "name": "desktop", "fingerprint": "MDDES-KTOPB"}}


def test_invite_shows_the_code_and_says_who_joined(meshctl: Shell, daemon: FakeDaemon) -> None:
    daemon.invitation_script = [
        {"state": "proving"},
        {"state": "open", "attempts_left": 2},
        {"state": "proving"},
        ADMITTED,
    ]
    run = meshctl("invite")
    assert run.code == 0
    assert run.out.splitlines() == ["7-orbit-walnut", "desktop joined as member", "fingerprint MDDES-KTOPB"]
    assert "2 tries left" in run.err


def test_invite_draws_a_qr_and_a_countdown_on_a_terminal(meshctl: Shell, daemon: FakeDaemon) -> None:
    daemon.invitation_script = [ADMITTED]
    run = meshctl("invite", tty=True)
    assert run.code == 0
    assert "▄" in run.out
    assert "\x1b[1m7-orbit-walnut\x1b[0m" in run.out
    assert "left, Ctrl-C cancels" in run.err
    daemon.invitation_script = [ADMITTED]
    plain = meshctl("invite", tty=True, environ={"MESHD_HOME": str(meshctl.home), "TERM": "dumb"})
    assert plain.out.splitlines()[0] == "7-orbit-walnut"
    assert "\x1b" not in plain.out


def test_invite_as_json_prints_the_code_at_once_then_a_line_per_state(meshctl: Shell, daemon: FakeDaemon) -> None:
    daemon.invitation_script = [{"state": "proving"}, ADMITTED]
    lines = meshctl("invite", "--json", "--role", "relay", "--ttl", "60", "--remote").lines
    assert [line["state"] for line in lines] == ["open", "proving", "admitted"]
    assert all(line["schema"] == 1 for line in lines)
    assert lines[0]["code"] == "7-orbit-walnut"
    assert lines[0]["uri"].startswith("mesh-pair:")
    assert lines[0]["expires"].endswith("Z")
    assert lines[-1]["device"]["name"] == "desktop"
    assert daemon.requests[0][2] == {"role": "relay", "ttl": 60, "remote": True}


def test_invite_no_wait_returns_after_the_code(meshctl: Shell, daemon: FakeDaemon) -> None:
    assert len(meshctl("invite", "--no-wait", "--json").lines) == 1
    assert [name for name, *_ in daemon.requests] == ["invite"]
    assert daemon.deleted == []


def test_inviting_an_admin_asks_for_the_master_passphrase(meshctl: Shell, daemon: FakeDaemon, home: Path) -> None:
    assert meshctl("invite", "--role", "admin", "--no-wait", types=("master secret",)).code == 0
    assert meshctl("invite", "--role", "admin", "--no-wait", types=("wrong",)).code == 8
    file = secret_file(home, "m", "master secret\n")
    assert meshctl("invite", "--role", "admin", "--no-wait", "--master-passphrase-file", file).code == 0


@pytest.mark.parametrize(("answer", "accept"), [("y\n", True), ("n\n", False), ("", False)])
def test_invite_confirm_asks_before_it_admits(answer: str, accept: bool, meshctl: Shell, daemon: FakeDaemon) -> None:
    asked = {**ADMITTED, "state": "asked"}
    daemon.invitation_script = [asked, ADMITTED if accept else {"state": "cancelled"}]
    run = meshctl("invite", "--confirm", stdin=answer)
    assert daemon.answers == [accept]
    assert "MDDES-KTOPB" in run.err
    assert run.code == (0 if accept else 8)


@pytest.mark.parametrize(("state", "code"), [("burned", 10), ("expired", 7), ("cancelled", 8)])
def test_an_invitation_that_ends_otherwise_says_so(state: str, code: int, meshctl: Shell, daemon: FakeDaemon) -> None:
    daemon.invitation_script = [{"state": state}]
    assert meshctl("invite").code == code
    failed = {"code": "possible-attack", "message": "another certificate", "hint": None}
    daemon.invitation_script = [{"state": "failed", "error": failed}]
    run = meshctl("invite", "--json")
    assert run.code == 10
    assert run.error["message"] == "another certificate"


def test_connect_joins_and_says_whom(meshctl: Shell, daemon: FakeDaemon) -> None:
    daemon.mesh = False
    me = {"id": DESKTOP, "name": "desktop", "role": "member"}
    daemon.connection_script = [
        {"state": "found"},
        {"state": "syncing"},
        {"state": "done", "mesh": MESH, "device": me, "admin": "laptop"},
    ]
    run = meshctl("connect", "7-orbit-walnut", "--name", "desktop", types=("pw", "pw"))
    assert run.code == 0
    assert run.out.splitlines()[0] == "connected as desktop (member), admitted by laptop"
    sent = next(body for name, _, body in daemon.requests if name == "connect")
    assert sent == {"name": "desktop", "code": "7-orbit-walnut", "passphrase": "pw"}


def test_connect_takes_the_uri_of_the_qr_and_an_address(meshctl: Shell, daemon: FakeDaemon) -> None:
    daemon.mesh = False
    daemon.connection_script = [{"state": "done", "mesh": MESH, "device": None, "admin": None}]
    uri = "mesh-pair:?v=1&s=abc"
    run = meshctl("connect", uri, "--name", "d", "--no-passphrase", "--address", "10.0.0.1:4711", "--json")
    assert [line["state"] for line in run.lines] == ["searching", "done"]
    sent = next(body for name, _, body in daemon.requests if name == "connect")
    assert sent == {"name": "d", "uri": uri, "address": "10.0.0.1:4711", "no_passphrase": True}


@pytest.mark.parametrize(
    ("error", "code"), [("wrong-code", 8), ("possible-attack", 10), ("network", 1), ("not-synced", 7)]
)
def test_connect_that_fails_says_why(error: str, code: int, meshctl: Shell, daemon: FakeDaemon) -> None:
    daemon.mesh = False
    daemon.connection_script = [{"state": "failed", "error": {"code": error, "message": "so it is", "hint": "do that"}}]
    run = meshctl("connect", "1-a-b", "--name", "d", "--no-passphrase")
    assert run.code == code
    assert "so it is" in run.err
    assert "do that" in run.err


# ---------------------------------------------------------------- devices


def test_devices_are_listed_shown_renamed_and_addressed(meshctl: Shell, daemon: FakeDaemon) -> None:
    rows = [line.split("\t") for line in meshctl("device", "list").out.splitlines()]
    assert rows[0] == ["laptop", "admin", "this device", LAPTOP]
    assert meshctl("device", "show", "MDDES", "--json").json["name"] == "desktop"
    assert "last seen   2026-11-24 06:41" in meshctl("device", "show", "desktop").out
    assert meshctl("device", "address", "desktop", "[fe80::1%eth0]:4711").code == 0
    assert daemon.devices[1]["address"] == "[fe80::1%eth0]:4711"
    assert meshctl("device", "address", "desktop", "--forget", "--json").json["address"] is None
    assert meshctl("device", "rename", "desktop", "the big/one").code == 0
    assert meshctl("device", "show", "the big/one").code == 0
    assert meshctl("device", "show", "desktop").code == 1


# ---------------------------------------------------------------- passwords


@pytest.fixture
def vault(daemon: FakeDaemon) -> FakeDaemon:
    for place, (site, user, password) in enumerate(
        [("github.com", "alice", "s3cret"), ("mail.test", "alice", "one"), ("mail.test", "bob", "two")]
    ):
        daemon.items[f"vault/{place}"] = item(f"vault/{place}", site, user, password)
    return daemon


def test_get_prints_the_password_and_nothing_else(meshctl: Shell, vault: FakeDaemon) -> None:
    run = meshctl("password", "get", "github.com")
    assert (run.code, run.out, run.err) == (0, "s3cret\n", "")


def test_get_prints_other_fields_and_json(meshctl: Shell, vault: FakeDaemon) -> None:
    assert meshctl("password", "get", "github.com", "--field", "username").out == "alice\n"
    assert meshctl("password", "get", "github.com", "--field", "url").out == "github.com\n"
    assert meshctl("password", "get", "github.com", "--field", "note").code == 1
    assert meshctl("password", "get", "--id", "vault/0", "--json").json == {
        "schema": 1,
        "id": "vault/0",
        "field": "password",
        "value": "s3cret",
    }


def test_a_password_goes_into_a_pipe_as_it_is_and_escaped_onto_a_terminal(meshctl: Shell, vault: FakeDaemon) -> None:
    vault.items["vault/0"]["password"] = "a\x1b[2Jb"
    assert meshctl("password", "get", "github.com").out == "a\x1b[2Jb\n"
    assert meshctl("password", "get", "github.com", tty=True).out == "a\\x1b[2Jb\n"


def test_several_logins_of_a_site_are_listed_and_told_apart_by_user(meshctl: Shell, vault: FakeDaemon) -> None:
    run = meshctl("password", "get", "mail.test")
    assert (run.code, run.out) == (1, "")
    assert "mail.test · bob · vault/2" in run.err
    told = meshctl("password", "get", "mail.test", "--json")
    assert [one["username"] for one in told.error["candidates"]] == ["alice", "bob"]
    assert "password" not in told.error["candidates"][0]
    assert meshctl("password", "get", "mail.test", "--username", "bob").out == "two\n"
    assert meshctl("password", "get", "nowhere.test").code == 1


def test_list_shows_no_passwords_in_any_form(meshctl: Shell, vault: FakeDaemon) -> None:
    for argv in (["--json"], [], ["git"], ["--username", "alice"]):
        run = meshctl("password", "list", *argv)
        assert run.code == 0
        assert "s3cret" not in run.out
    assert {"title", "sites", "username", "updated", "made", "conflicts", "device"} <= set(
        meshctl("password", "list", "--json").json["items"][0]
    )
    assert meshctl("password", "list", "git").out.split("\t")[:3] == ["github.com", "alice", "github.com"]


def test_list_reads_every_page(meshctl: Shell, daemon: FakeDaemon) -> None:
    for place in range(12_001):
        daemon.items[str(place)] = item(str(place), f"s{place}.test", "u", "p")
    assert len(meshctl("password", "list", "--json").json["items"]) == 12_001
    assert sum(name == "items" for name, *_ in daemon.requests) == 3


def test_list_on_a_terminal_is_a_table(meshctl: Shell, vault: FakeDaemon) -> None:
    lines = meshctl("password", "list", tty=True).out.splitlines()
    assert lines[0].split() == ["TITLE", "USER", "NAME", "SITES", "CHANGED", "ID"]
    assert lines[1].startswith("github.com  alice")


def test_add_reads_the_first_line_of_stdin(meshctl: Shell, daemon: FakeDaemon) -> None:
    run = meshctl("password", "add", "--site", "github.com", "--username", "alice", stdin="pa ss\r\nmore\n")
    assert (run.code, run.out) == (0, "")
    assert daemon.items["vault/0"]["password"] == "pa ss"
    assert meshctl("password", "add", "--site", "x.test", "--username", "a", stdin="").code == 2
    again = meshctl("password", "add", "--site", "github.com", "--username", "alice", stdin="x\n")
    assert again.code == 1
    assert "password edit" in again.err


def test_add_asks_twice_on_a_terminal(meshctl: Shell, daemon: FakeDaemon) -> None:
    argv = ["password", "add", "--site", "a.test", "--site", "b.test", "--username", "u", "--title", "T", "--tag", "x"]
    assert meshctl(*argv, "--totp", types=("pw", "pw", "JBSWY"), tty=True).code == 0
    added = daemon.items["vault/0"]
    assert (added["password"], added["totp"], added["sites"]) == ("pw", "JBSWY", ["a.test", "b.test"])


def test_add_can_have_the_password_made(meshctl: Shell, daemon: FakeDaemon) -> None:
    argv = ["password", "add", "--site", "a.test", "--username", "u", "--generate", "--length", "30", "--no-symbols"]
    run = meshctl(*argv, "--json")
    assert run.json == {"schema": 1, "id": "vault/0", "updated": "2026-11-24T06:41:00Z"}
    assert daemon.requests[-1][2]["generate"] == {"length": 30, "symbols": False}
    assert daemon.items["vault/0"]["password"] not in run.out + run.err


def test_edit_changes_the_password_unless_something_else_is_asked(
    meshctl: Shell, vault: FakeDaemon, home: Path
) -> None:
    assert meshctl("password", "edit", "github.com", stdin="new\n").code == 0
    assert vault.items["vault/0"]["password"] == "new"
    note = secret_file(home, "note", "two\nlines\n")
    argv = ["password", "edit", "github.com", "--new-username", "al", "--site", "gh.test", "--note-file", note]
    assert meshctl(*argv).code == 0
    changed = vault.items["vault/0"]
    assert (changed["password"], changed["username"], changed["sites"]) == ("new", "al", ["gh.test"])
    assert changed["note"] == "two\nlines\n"
    assert meshctl("password", "edit", "--id", "vault/0", "--no-note", "--generate").code == 0
    assert (changed["password"], changed["note"]) == ("g" * 20, "")


def test_rm_asks_on_a_terminal_and_not_in_a_script(meshctl: Shell, vault: FakeDaemon) -> None:
    assert meshctl("password", "rm", "github.com", tty=True, stdin="n\n").code == 8
    assert "deleted" not in vault.items["vault/0"]
    assert meshctl("password", "rm", "github.com").code == 0
    assert vault.items["vault/0"]["deleted"] is True
    assert meshctl("password", "rm", "mail.test", "--username", "bob", "--yes", "--json").json["deleted"] is True
    assert meshctl("password", "list", "--deleted", "--json").json["items"][0]["id"] == "vault/0"


def test_generate_prints_a_password(meshctl: Shell, daemon: FakeDaemon) -> None:
    assert meshctl("password", "generate", "--length", "12").out == "g" * 12 + "\n"
    assert meshctl("password", "generate", "--words", "5", "--json").json["password"]
    assert meshctl("password", "generate", "--length", "3").code == 2


def test_show_hides_secrets_until_asked(meshctl: Shell, vault: FakeDaemon) -> None:
    assert "s3cret" not in meshctl("password", "show", "github.com").out
    assert "s3cret" in meshctl("password", "show", "github.com", "--reveal").out
    assert "password" not in meshctl("password", "show", "github.com", "--json").json
    assert meshctl("password", "show", "github.com", "--reveal", "--json").json["password"] == "s3cret"


def test_a_conflict_shows_both_versions_and_which_one_counts(meshctl: Shell, daemon: FakeDaemon) -> None:
    daemon.items["vault/0"] = item("vault/0", "github.com", "alice", "newer", conflicts=1)
    got = meshctl("password", "get", "github.com")
    assert got.out == "newer\n"
    assert "2 versions: meshctl conflicts show vault/0" in got.err
    assert meshctl("conflicts", "list").out.split("\t")[2] == "2"
    assert meshctl("conflicts", "list", "--json").json["conflicts"][0]["id"] == "vault/0"
    shown = meshctl("conflicts", "show", "vault/0", "--reveal").out
    assert "version 1 of 2, this one counts" in shown
    assert "older" in shown
    told = meshctl("conflicts", "show", "vault/0", "--json")
    assert [version["winner"] for version in told.json["versions"]] == [True, False]
    assert "older" not in told.out


CSV = "name,url,username,password\ngithub,https://github.com,alice,s3cret\n"


def test_import_sends_the_file_and_reports(meshctl: Shell, daemon: FakeDaemon, home: Path) -> None:
    file = secret_file(home, "p.csv", "\ufeff" + CSV)
    run = meshctl("password", "import", file, "--update")
    assert (run.code, run.out) == (0, "1 added, 0 updated, 0 unchanged, 0 duplicates\n")
    assert "in clear" in run.err
    sent = daemon.requests[-1][2]
    assert sent == {"application": "password", "format": "chrome-csv", "text": CSV, "update": True}
    dry = meshctl("password", "import", file, "--dry-run", "--json")
    assert dry.json["applied"] is False


def test_import_of_malformed_rows_names_them_and_exits_1(meshctl: Shell, daemon: FakeDaemon, home: Path) -> None:
    file = secret_file(home, "p.csv", CSV + "broken\n")
    run = meshctl("password", "import", file)
    assert run.code == 1
    assert "row 3: four fields are expected" in run.err
    assert "nothing was imported" in run.err
    told = meshctl("password", "import", file, "--json")
    assert told.code == 1
    assert told.json["rejected"][0]["row"] == 3


def test_import_refuses_what_is_no_text_before_it_asks_the_daemon(
    meshctl: Shell, daemon: FakeDaemon, home: Path
) -> None:
    (home / "p.csv").write_bytes(CSV.encode() + b"\xff\xfe,,,\n")
    run = meshctl("password", "import", str(home / "p.csv"))
    assert run.code == 1
    assert "row 3 is not UTF-8" in run.err
    with (home / "big.csv").open("wb") as big:
        big.truncate(33 * 1024 * 1024)
    assert meshctl("password", "import", str(home / "big.csv")).code == 1
    assert meshctl("password", "import", str(home / "missing.csv")).code == 2
    assert daemon.requests == []


# ---------------------------------------------------------------- wait, events


def test_wait_says_in_step_or_exits_7(meshctl: Shell, daemon: FakeDaemon) -> None:
    assert meshctl("wait", "--synced", "--peer", "desktop", "--timeout", "0.5").code == 0
    assert meshctl("wait", "--synced", "--json").json == {"schema": 1, "synced": True}
    daemon.synced = False
    run = meshctl("wait", "--synced", "--json")
    assert run.code == 7
    assert run.error["pending"] == ["desktop"]


def test_events_are_printed_one_a_line(meshctl: Shell, daemon: FakeDaemon) -> None:
    daemon.events = [
        {"schema": 1, "id": 1, "time": "2026-11-24T06:41:00Z", "type": "mesh"},
        {
            "schema": 1,
            "id": 2,
            "time": "2026-11-24T06:42:00Z",
            "type": "peer",
            "name": "desk\ttop",
            "state": "connected",
        },
    ]
    assert [event["id"] for event in meshctl("events", "--since", "0", "--no-follow", "--json").lines] == [1, 2]
    assert meshctl("events", "--since", "1", "--no-follow").out.startswith("2\t2026-11-24T06:42:00Z\tpeer\tname=")
    assert meshctl("events", "--no-follow").out == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completions_know_the_commands(shell: str, meshctl: Shell) -> None:
    script = meshctl("completion", shell).out
    assert "passphrase-file" in script
    assert "conflicts" in script


def test_help_lists_every_command_and_the_exit_codes(meshctl: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    assert meshctl("--help").code == 0
    out = capsys.readouterr().out
    assert "invite" in out
    assert "10 verification failed" in out
    assert meshctl("password", "get", "--help").code == 0
    assert "--field" in capsys.readouterr().out
