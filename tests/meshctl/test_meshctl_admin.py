"""The commands about who belongs to the mesh, whole: what they ask, send and say, and the exit code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.fake_admin import SEALED, change, quarantined, vault
from harness.fake_daemon import DESKTOP, NOW, FakeDaemon, device, item, peer
from harness.shell import Shell, secret_file

PHONE = "MDPHO-NECCC-CCCCC-CCCCC-CCCCC"
SERVER = "MDSER-VERDD-DDDDD-DDDDD-DDDDD"


@pytest.fixture
def daemon(home: Path) -> Iterator[FakeDaemon]:
    """A mesh of four devices, and a phone that could read three items."""
    with FakeDaemon(str(home / "meshd.sock")) as running:
        running.devices += [device(PHONE, "phone", "member"), device(SERVER, "server", "relay")]
        running.exposed = [
            {"id": "v/1", "title": "a.example", "changed": False, "username": "alice", "application": "password"},
            {"id": "v/2", "title": "b.example", "changed": False},
            {"id": "v/3", "title": "c.example", "changed": True},
        ]
        yield running


@pytest.fixture
def meshctl(home: Path) -> Shell:
    return Shell(home)


@pytest.fixture
def master(home: Path) -> str:
    return secret_file(home, "m", "master secret\n")


def sent(daemon: FakeDaemon, route: str) -> list[Any]:
    return [body for name, _, body in daemon.requests if name == route]


# ---------------------------------------------------------------- device remove


def test_a_removal_says_what_will_happen_asks_and_says_what_happened(meshctl: Shell, daemon: FakeDaemon) -> None:
    daemon.pending = ["server"]
    run = meshctl("device", "remove", "phone", stdin="y\n", tty=True)
    assert run.code == 0
    assert "phone (member) is cut off for good" in run.err
    assert "new keys for 2 vaults: password, ssh" in run.err
    assert "Remove phone? [y/N]" in run.err
    assert run.out.splitlines()[0].startswith(
        "removed phone · new keys for 2 vaults · desktop acknowledged · server pending (last seen "
    )
    assert run.out.splitlines()[1] == "phone could read 3 items; 2 unchanged since: meshctl exposure phone"
    assert daemon.removed == ["phone"]


def test_where_one_of_that_name_was_removed_before_the_id_says_whose_list_is_meant(
    meshctl: Shell, daemon: FakeDaemon
) -> None:
    daemon.removed = ["phone"]
    run = meshctl("device", "remove", "phone", "--yes")
    assert run.out.splitlines()[1].endswith(f"meshctl exposure {PHONE[:11]}")


def test_a_removal_says_what_nobody_could_open_any_more(meshctl: Shell, daemon: FakeDaemon) -> None:
    daemon.lost = [{"id": "MDSSH", "application": "ssh", "name": "ssh"}]
    assert "nobody who stays can open ssh" in meshctl("device", "remove", "phone", "--yes").err


def test_who_says_no_removes_nothing(meshctl: Shell, daemon: FakeDaemon) -> None:
    assert meshctl("device", "remove", "phone", stdin="n\n", tty=True).code == 8
    assert meshctl("device", "remove", "phone", stdin="\n", tty=True).code == 8
    assert daemon.removed == []


def test_where_nobody_can_be_asked_a_removal_needs_yes(meshctl: Shell, daemon: FakeDaemon) -> None:
    run = meshctl("device", "remove", "phone")
    assert (run.code, daemon.removed) == (2, [])
    assert "--yes" in run.err
    assert meshctl("device", "remove", "phone", "--yes").code == 0
    assert daemon.removed == ["phone"]


def test_a_removal_as_json_has_what_scripts_rely_on(meshctl: Shell, daemon: FakeDaemon) -> None:
    daemon.pending = ["server"]
    told = meshctl("device", "remove", "phone", "--yes", "--json").json
    assert told["schema"] == 1
    assert (told["removed"], told["rotated"]) == (["phone"], 2)
    assert (told["acknowledged"], told["pending"]) == (["desktop"], ["server"])
    assert (told["exposed"], told["unchanged"]) == (3, 2)


def test_several_devices_go_at_once(meshctl: Shell, daemon: FakeDaemon) -> None:
    run = meshctl("device", "remove", "phone", "server", stdin="y\n", tty=True)
    assert "Remove phone and server?" in run.err
    assert run.out.startswith("removed phone, server")
    assert "meshctl exposure phone; meshctl exposure server" in run.out


def test_a_member_goes_without_the_master_passphrase_and_an_admin_with_it(
    meshctl: Shell, daemon: FakeDaemon, master: str
) -> None:
    assert meshctl("device", "remove", "phone", "--yes").asked == []
    daemon.devices[1]["role"] = "admin"
    run = meshctl("device", "remove", "desktop", "--yes", types=("master secret",))
    assert (run.code, run.asked) == (0, ["Master passphrase: "])
    daemon.devices.append(device(DESKTOP, "desktop", "admin"))
    assert meshctl("device", "remove", "desktop", "--yes", "--master-passphrase-file", master).code == 0
    daemon.devices.append(device(DESKTOP, "desktop", "admin"))
    assert meshctl("device", "remove", "desktop", "--yes", types=("wrong",)).code == 8


def test_since_is_sent_as_it_was_typed_and_told_with_what_falls(meshctl: Shell, daemon: FakeDaemon) -> None:
    daemon.undone = [{"id": "MDTAB", "name": "tablet", "remover": "phone"}]
    daemon.adds = [
        {"key": "D:MDEVIL", "text": "the device evil", "name": "evil"},
        {"key": "X:MBEVIL", "text": "the vault password/evil", "name": "password/evil"},
    ]
    argv = ["device", "remove", "phone", "--since", "2026-11-20"]
    run = meshctl(*argv, stdin="y\n", tty=True, types=("master secret",))
    assert run.code == 0
    assert "what it wrote after 2026-11-20" in run.err
    assert "record begins at 2026-11-22" in run.err
    assert "12 versions that count now go into quarantine" in run.err
    assert "tablet, which phone removed after that, stays removed (--readmit tablet)" in run.err
    assert "falls with it: the device evil (--keep evil)" in run.err
    (body,) = sent(daemon, "remove")
    assert (body["since"], body["keep_removed"], body["readmit"]) == ("2026-11-20", ["MDTAB"], [])
    assert body["confirm"] == []


def test_what_would_fall_is_kept_and_taken_back_by_name(meshctl: Shell, daemon: FakeDaemon, master: str) -> None:
    daemon.undone = [{"id": "MDTAB", "name": "tablet", "remover": "phone"}]
    daemon.adds = [{"key": "D:MDNEW", "text": "the device new", "name": "new"}]
    argv = ["device", "remove", "phone", "--since", "2026-11-20", "--yes", "--master-passphrase-file", master]
    run = meshctl(*argv, "--keep", "new", "--readmit", "tablet")
    assert run.code == 0
    assert "tablet, which phone removed after that, is taken back" in run.err
    (body,) = sent(daemon, "remove")
    assert (body["confirm"], body["readmit"], body["keep_removed"]) == (["D:MDNEW"], ["MDTAB"], [])
    assert meshctl(*argv, "--keep", "nobody").code == 1
    assert meshctl(*argv, "--readmit", "nobody").code == 1


def test_vaults_that_another_admin_has_to_rotate_are_named(meshctl: Shell, daemon: FakeDaemon) -> None:
    daemon.left = [{"id": "v", "application": "password", "name": "work"}]
    assert "another admin has to make new keys for password/work" in meshctl("device", "remove", "phone", "--yes").out


def test_removed_devices_are_listed_with_who_has_heard(meshctl: Shell, daemon: FakeDaemon) -> None:
    daemon.removed, daemon.pending = ["phone"], ["server"]
    (line,) = meshctl("device", "list", "--removed").out.splitlines()
    assert line.split("\t") == ["phone", "2026-11-24 06:41", "desktop", "server", "MDGON"]
    assert meshctl("device", "list", "--removed", "--json").json["removed"][0]["pending"] == ["server"]


# ---------------------------------------------------------------- exposure


def test_exposure_is_a_list_that_ticks_itself_off(meshctl: Shell, daemon: FakeDaemon) -> None:
    daemon.removed = ["phone"]
    run = meshctl("exposure", "phone")
    assert [line.split("\t")[:3] for line in run.out.splitlines()] == [
        ["to change", "a.example", "alice"],
        ["to change", "b.example", ""],
        ["changed", "c.example", ""],
    ]
    assert run.err == "phone could read 3 items; 2 still to change\n"
    assert len(meshctl("exposure", "phone", "--unchanged").out.splitlines()) == 2
    for one in daemon.exposed:
        one["changed"] = True
    assert "all changed since" in meshctl("exposure", "phone").err


def test_exposure_as_json_has_what_scripts_rely_on(meshctl: Shell, daemon: FakeDaemon) -> None:
    told = meshctl("exposure", "desktop", "--json").json
    assert told["schema"] == 1
    assert told["items"][1] == {"id": "v/2", "title": "b.example", "changed": False}
    assert meshctl("exposure", "nobody", "--json").error["code"] == "not-found"


# ---------------------------------------------------------------- roles and rights


def test_to_and_from_admin_the_master_passphrase_is_asked_for_and_only_then(meshctl: Shell, daemon: FakeDaemon) -> None:
    run = meshctl("device", "role", "server", "member")
    assert (run.code, run.asked) == (0, [])
    assert run.err == "server is a member · may write all vaults\n"
    assert meshctl("device", "role", "server", "admin", types=("master secret",)).asked == ["Master passphrase: "]
    assert daemon.devices[3]["role"] == "admin"
    assert meshctl("device", "role", "server", "admin", "--json").json["role"] == "admin"
    assert meshctl("device", "role", "server", "relay", types=("wrong",)).code == 8
    assert "carries what it can't read" in meshctl("device", "role", "server", "relay", types=("master secret",)).err


def test_while_the_master_key_is_offline_its_file_is_asked_for(
    meshctl: Shell, daemon: FakeDaemon, home: Path, master: str
) -> None:
    daemon.offline = True
    argv = ["device", "role", "desktop", "admin", "--master-passphrase-file", master]
    run = meshctl(*argv)
    assert run.code == 8
    assert "--master-file" in run.err
    assert meshctl(*argv, "--master-file", secret_file(home, "sealed", SEALED)).code == 0
    assert sent(daemon, "set-role")[-1]["master_file"] == SEALED
    argv[2] = "server"
    assert meshctl(*argv, "--master-file", str(home / "missing")).code == 2


def test_rights_are_granted_and_revoked(meshctl: Shell, daemon: FakeDaemon) -> None:
    run = meshctl("device", "grant", "desktop", "ssh:read", "mail:write")
    assert run.err.startswith("desktop · may read ssh, write ssh")
    assert sent(daemon, "change-rights") == [{"grant": ["ssh:read", "mail:write"]}]
    run = meshctl("device", "revoke", "desktop", "ssh")
    assert run.err == "desktop · may read no vault · new keys for 1 vault: ssh\n"
    meshctl("device", "revoke", "desktop", "ssh", "--keep-read", "--json")
    assert sent(daemon, "change-rights")[1:] == [{"revoke": ["ssh"]}, {"revoke": ["ssh"], "keep_read": True}]
    assert meshctl("device", "grant", "desktop").code == 2


def test_a_device_shows_what_it_may(meshctl: Shell, daemon: FakeDaemon) -> None:
    daemon.devices[1]["grants"] = [{"vault": "*", "level": "read"}]
    assert "may         read all vaults" in meshctl("device", "show", "desktop").out


def test_a_device_that_only_a_portal_joins_with_this_one_is_shown_so(meshctl: Shell, daemon: FakeDaemon) -> None:
    away = {"connected": False, "last_seen": None, "heard": NOW, "behind": 3, "through": "alice@example.net"}
    daemon.devices[1] |= away
    run = meshctl("device", "show", "desktop")
    assert "in step     by alice@example.net" in run.out and "behind" not in run.out
    assert f"last seen   {NOW[:10]}" in run.out
    assert NOW[:10] in meshctl("device", "list").out
    del daemon.devices[1]["through"]
    assert "behind      3 versions" in meshctl("device", "show", "desktop").out


# ---------------------------------------------------------------- vaults


def test_vaults_are_made_named_deleted_and_taken_back(meshctl: Shell, daemon: FakeDaemon) -> None:
    assert meshctl("vault", "create", "work").code == 0
    assert meshctl("vault", "create", "ssh/work").code == 0
    assert meshctl("vault", "create", "home", "--application", "ssh").code == 0
    names = [line.split("\t")[0] for line in meshctl("vault", "list").out.splitlines()]
    assert names == ["password", "ssh", "password/work", "ssh/work", "ssh/home"]
    assert meshctl("vault", "create", "work").code == 1
    assert meshctl("vault", "rename", "ssh/home", "attic").err == "renamed to ssh/attic\n"
    assert meshctl("vault", "delete", "attic", stdin="n\n", tty=True).code == 8
    run = meshctl("vault", "delete", "attic", "--yes")
    assert (run.code, "vault restore attic" in run.err) == (0, True)
    assert "attic" not in meshctl("vault", "list").out
    assert "deleted" in meshctl("vault", "list", "--deleted").out
    assert meshctl("vault", "restore", "attic").code == 0
    assert "ssh/attic" in meshctl("vault", "list").out


def test_the_list_of_vaults_as_json(meshctl: Shell, daemon: FakeDaemon) -> None:
    told = meshctl("vault", "list", "--json").json
    assert set(told["vaults"][0]) >= {"id", "application", "name", "items", "readable", "writable"}


def test_keys_are_rotated_for_one_vault_or_all(meshctl: Shell, daemon: FakeDaemon) -> None:
    assert meshctl("rotate").err == "new keys for 2 vaults: password, ssh\n"
    assert [one["name"] for one in meshctl("rotate", "--vault", "ssh", "--json").json["rotated"]] == ["ssh"]
    assert meshctl("rotate", "--vault", "none").code == 1


def test_logins_are_kept_in_the_vault_that_is_named(meshctl: Shell, daemon: FakeDaemon, home: Path) -> None:
    daemon.vaults.append(vault("password", "work"))
    add = ["password", "add", "--site", "a.example", "--username"]
    assert meshctl(*add, "alice", stdin="one\n").code == 0
    assert meshctl(*add, "bob", "--vault", "work", stdin="two\n").code == 0
    assert meshctl("password", "get", "a.example", "--vault", "work").out == "two\n"
    assert len(meshctl("password", "list", "--vault", "work").out.splitlines()) == 1
    export = secret_file(home, "e.csv", "name,url,username,password\na,b,c,d\n")
    assert meshctl("password", "import", export, "--vault", "work").code == 0
    assert sent(daemon, "import")[-1]["vault"] == "work"


def test_what_waits_for_a_key_is_said_and_listed_as_pending(meshctl: Shell, daemon: FakeDaemon) -> None:
    daemon.drafting = True
    run = meshctl("password", "add", "--site", "a.example", "--username", "alice", stdin="one\n")
    assert (run.code, "pending" in run.err) == (0, True)
    assert meshctl("password", "list").out.split("\t")[3] == "pending"
    assert "pending" in meshctl("password", "show", "a.example").out
    told = meshctl("password", "add", "--site", "b.example", "--username", "a", "--generate", "--json").json
    assert told["pending"] is True


# ---------------------------------------------------------------- quarantine


def test_quarantine_lists_items_and_counts_the_rest(meshctl: Shell, daemon: FakeDaemon) -> None:
    daemon.quarantine = [quarantined(), quarantined("ppppqqqqrrrr", "profile"), quarantined("x" * 20, title="")]
    run = meshctl("quarantine", "list")
    rows = [line.split("\t") for line in run.out.splitlines()]
    assert [row[:3] for row in rows] == [
        ["aaaabbbbcccc", "phone", "a.example"],
        ["xxxxxxxxxxxx", "phone", "password item"],
    ]
    assert "1 profile or vault" in run.err
    assert len(meshctl("quarantine", "list", "--all").out.splitlines()) == 3
    assert len(meshctl("quarantine", "list", "--json").json["quarantine"]) == 3


def test_what_fell_with_an_admin_is_listed_and_taken_back(meshctl: Shell, daemon: FakeDaemon) -> None:
    daemon.fell = [{"key": "X:MDLOO", "name": "password/loot", "text": "the vault password/loot"}]
    assert "the vault password/loot" in meshctl("quarantine", "list").err
    run = meshctl("quarantine", "confirm", "password/loot")
    assert run.code == 0 and run.err.startswith("taken back: the vault password/loot")
    assert "loot" not in meshctl("quarantine", "list").err
    assert meshctl("quarantine", "confirm", "password/loot").code == 1


def test_a_quarantined_item_is_shown_beside_what_counts_now(meshctl: Shell, daemon: FakeDaemon) -> None:
    daemon.quarantine = [quarantined()]
    run = meshctl("quarantine", "show", "aaaabbbbcccc")
    assert "a removed device wrote it" in run.out
    assert "his" not in run.out.replace("this", "")
    assert "mine" not in run.out
    revealed = meshctl("quarantine", "show", "aaaabbbbcccc", "--reveal").out
    assert revealed.index("his") < revealed.index("mine")
    told = meshctl("quarantine", "show", "aaaabbbbcccc", "--json").json
    assert "password" not in json.dumps(told["content"]) + json.dumps(told["now"])


def test_quarantine_is_imported_by_id_or_by_device(meshctl: Shell, daemon: FakeDaemon) -> None:
    daemon.quarantine = [quarantined("aaaa"), quarantined("bbbb"), quarantined("cccc", "profile")]
    assert meshctl("quarantine", "import", "aaaa").err == "imported 1 item\n"
    assert meshctl("quarantine", "import", "--device", "phone").code == 1
    assert daemon.quarantine[1]["imported"]
    run = meshctl("quarantine", "import", "cccc", "--json")
    assert (run.code, run.json["rejected"][0]["id"]) == (1, "cccc")
    assert meshctl("quarantine", "import").code == 2
    assert meshctl("quarantine", "import", "aaaa", "--device", "phone").code == 2


# ---------------------------------------------------------------- undo


def test_changes_of_the_last_day_are_listed_and_taken_back(meshctl: Shell, daemon: FakeDaemon) -> None:
    daemon.changes = [change(), change("eeeeffffgggg", needs_master=True, text="x became admin (was member)")]
    rows = [line.split("\t") for line in meshctl("undo").out.splitlines()]
    assert rows[0][:3] == ["ccccddddeeee", "desktop became relay (was member)", "laptop"]
    assert rows[1][4] == "master passphrase"
    assert meshctl("undo", "list", "--json").json["undo"][0]["id"] == "ccccddddeeee.MDDES"
    run = meshctl("undo", "ccccddddeeee")
    assert (run.code, run.err) == (0, "taken back: desktop became relay (was member)\n")
    assert meshctl("undo", "eeeeffffgggg", types=("master secret",)).code == 0
    assert meshctl("undo", "zzzz").code == 1


# ---------------------------------------------------------------- the master key, renewal


def test_the_master_passphrase_is_changed(meshctl: Shell, daemon: FakeDaemon, home: Path, master: str) -> None:
    assert meshctl("master", "passphrase", types=("master secret", "two", "two")).code == 0
    assert daemon.master == "two"
    old, new = secret_file(home, "old", "two\n"), secret_file(home, "new", "three\n")
    run = meshctl("master", "passphrase", "--master-passphrase-file", old, "--new-passphrase-file", new, "--json")
    assert (run.json["state"], daemon.master) == ("online", "three")
    assert meshctl("master", "passphrase", types=("wrong", "x", "x")).code == 8
    assert meshctl("master", "passphrase", types=("three", "x", "y")).code == 2


def test_the_master_key_goes_offline_into_a_private_file_and_comes_back(
    meshctl: Shell, daemon: FakeDaemon, home: Path, master: str
) -> None:
    where, options = home / "sealed", ["--master-passphrase-file", master]
    assert meshctl("master", "offline", str(where), *options).code == 0
    assert daemon.offline
    assert where.read_text() == SEALED
    assert where.stat().st_mode & 0o777 == 0o600
    assert meshctl("master", "offline", str(where), *options).code == 2
    assert meshctl("master", "online", str(where), *options).code == 0
    assert not daemon.offline


def test_a_file_that_was_written_in_vain_is_gone_again(
    meshctl: Shell, daemon: FakeDaemon, home: Path, master: str
) -> None:
    daemon.offline = True
    where = home / "sealed"
    assert meshctl("master", "offline", str(where), "--master-passphrase-file", master).code == 8
    assert not where.exists()


def test_the_sealed_master_key_is_kept_in_a_file_too(
    meshctl: Shell, daemon: FakeDaemon, home: Path, master: str
) -> None:
    where = home / "copy"
    run = meshctl("master", "export", str(where), "--master-passphrase-file", master, "--json")
    assert (run.json["file"], where.read_text(), daemon.offline) == (str(where), SEALED, False)
    nowhere = meshctl("master", "export", str(home / "none" / "copy"), "--master-passphrase-file", master)
    assert nowhere.code == 2


def test_a_device_renews_its_keys(meshctl: Shell, daemon: FakeDaemon) -> None:
    run = meshctl("device", "renew", types=("master secret",))
    assert (run.code, "laptop has new keys" in run.err) == (0, True)


# ---------------------------------------------------------------- a removed device, wiping, status

REMOVED = {"code": "removed", "message": "This device was removed from its mesh.", "hint": "meshctl wipe"}


def test_a_removed_device_says_so_first_and_offers_to_wipe(meshctl: Shell, daemon: FakeDaemon) -> None:
    daemon.health, daemon.peers = [REMOVED], [peer()]
    run = meshctl("status")
    assert run.out.splitlines()[0] == "laptop · removed from its mesh: meshctl wipe"
    assert "desktop" not in run.out
    assert meshctl("status", "--json").json["health"][0]["code"] == "removed"
    assert meshctl("status", "--check").code == 4


def test_a_removed_device_is_wiped_after_a_question(meshctl: Shell, daemon: FakeDaemon) -> None:
    daemon.health = [REMOVED]
    assert meshctl("wipe", stdin="n\n", tty=True).code == 8
    assert meshctl("wipe").code == 2
    assert not daemon.wiped
    assert meshctl("wipe", stdin="y\n", tty=True).code == 0
    assert daemon.wiped


def test_a_device_that_still_belongs_is_wiped_only_by_force(meshctl: Shell, daemon: FakeDaemon) -> None:
    assert meshctl("wipe", "--yes").code == 8
    assert not daemon.wiped
    daemon.items["a"] = item("a", "a.example", "alice", "x") | {"pending": True}
    run = meshctl("wipe", "--force", stdin="y\n", tty=True)
    assert "EVERYTHING" in run.err
    assert "1 writes that wait here are lost" in run.err
    assert daemon.wiped
    daemon.mesh = True
    assert meshctl("wipe", "--force", "--yes", "--json").json == {"schema": 1, "wiped": True}
    assert sent(daemon, "wipe")[-1] == {"force": True}


def test_a_new_identity_is_wiping_and_joining_in_anothers_place(meshctl: Shell, daemon: FakeDaemon, home: Path) -> None:
    own = secret_file(home, "own", "device secret\n")
    argv = ["device", "renew", "--new-identity", "7-orbit-walnut", "--passphrase-file", own]
    assert meshctl(*argv, "--yes").code == 8, "no other admin could let it in"
    daemon.peers = [peer() | {"role": "admin"}]
    assert meshctl(*argv).code == 2
    assert meshctl(*argv, stdin="n\n", tty=True).code == 8
    assert not daemon.wiped
    daemon.connection_script = [
        {"state": "done", "mesh": "M", "device": {"id": "D", "name": "laptop", "role": "member"}}
    ]
    assert meshctl(*argv, "--yes").code == 0
    (body,) = sent(daemon, "connect")
    assert body == {"name": "laptop", "passphrase": "device secret", "code": "7-orbit-walnut"}
    assert sent(daemon, "wipe") == [{"force": True}]


def test_an_invitation_can_be_for_anothers_place(meshctl: Shell, daemon: FakeDaemon) -> None:
    assert meshctl("invite", "--replaces", "phone", "--no-wait", "--no-qr").code == 0
    assert sent(daemon, "invite") == [{"role": "member", "replaces": "phone"}]


def test_a_device_in_no_mesh_has_nothing_to_wipe(meshctl: Shell, daemon: FakeDaemon) -> None:
    daemon.mesh = False
    assert meshctl("wipe", "--yes").code == 4


def test_status_tells_who_came_and_went_in_the_last_day(meshctl: Shell, daemon: FakeDaemon) -> None:
    daemon.announcements = [{"time": "2026-11-24T06:41:00Z", "type": "removed", "text": "phone was removed"}]
    daemon.stale = 2
    lines = meshctl("status").out.splitlines()
    assert lines[1].startswith("· 2 items written by who had not heard of a removal")
    assert lines[2].startswith("· phone was removed (")
    assert meshctl("status", "--json").json["announcements"][0]["type"] == "removed"


def test_names_from_the_mesh_do_not_reach_the_terminal_as_they_are(meshctl: Shell, daemon: FakeDaemon) -> None:
    evil = "ev\x1b[2Jil"
    daemon.devices[2]["name"] = evil
    daemon.announcements = [{"time": "2026-11-24T06:41:00Z", "type": "added", "text": f"{evil} joined"}]
    daemon.quarantine = [quarantined(title=evil)]
    daemon.changes = [change(text=evil)]
    for argv in (["status"], ["quarantine", "list"], ["undo"], ["device", "remove", PHONE]):
        run = meshctl(*argv, stdin="y\n", tty=True)
        assert "\x1b[2J" not in run.out + run.err.replace("\r\x1b[K", ""), argv
        assert "ev\\x1b[2Jil" in run.out, argv
