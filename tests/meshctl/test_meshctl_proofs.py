"""meshctl and proofs: written where a daemon is, checked where none is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.fake_daemon import FakeDaemon
from harness.log_world import Log
from harness.shell import Shell
from meshd.tlog.leaf import Leaf
from meshd.tlog.proof import Proof

ACCOUNT = "alice@example.net"
LEAF = Leaf("TID:2", None, "New", "MDEV-ICE", 1_790_000_000, bytes([6]) * 32, bytes(32), bytes(32))
LOG = Log(origin="example.net/mmm-log")
LOG.publish(b"first")
PROOF = LOG.publish(LEAF.encode())
TEXT = Proof(PROOF.index, PROOF.hashes, PROOF.checkpoint, bytes(16) + LEAF.encode()).encode().decode()
KEYS = [*(one.vkey for one in LOG.keys), LOG.witness.vkey]


class Proving(FakeDaemon):
    asked: list[Any]
    slow = False
    looks = 0
    watched: threading.Event

    def do_portals(self, match: Any, body: Any) -> Any:
        self.looks += 1
        if self.looks > 1:
            self.watched.set()
        if self.slow:
            far = {"done": 1000, "of": 4000}
            return {"portals": [{"account": ACCOUNT, "state": "connected", "last_success": None, "behind": 0,
                                 "error": None, "verifying": far}]}  # fmt: skip
        return {
            "portals": [{"account": ACCOUNT, "state": "connected", "last_success": None, "behind": 0, "error": None}]
        }

    def do_verify_portal(self, match: Any, body: Any) -> Any:
        self.asked.append(body)
        if self.slow:
            assert self.watched.wait(20)
        log = {"state": "verified", "origin": LOG.origin, "size": 2, "keys": KEYS}
        said = {"account": ACCOUNT, "verdict": "verified", "message": "all of it", "log": log, "siblings": 0}
        shown = {"proof": TEXT, "entry": "MDEV-ICE"} if body.get("proof") and body.get("item") != "unproved" else {}
        return {**said, "evidence": None, "proof": None, **shown}


@pytest.fixture
def daemon(home: Path) -> Iterator[Proving]:
    made = Proving(str(home / "meshd.sock"))
    made.asked, made.watched = [], threading.Event()
    with made as running:
        yield running  # type: ignore[misc]


@pytest.fixture
def meshctl(home: Path) -> Shell:
    return Shell(home)


def test_a_proof_is_written_with_the_command_that_checks_it(meshctl: Shell, daemon: Proving, home: Path) -> None:
    where = home / "proof"
    run = meshctl("portal", "verify", "--proof", str(where), "--item", "x")
    assert run.code == 0 and daemon.asked == [{"proof": True, "item": "x"}]
    assert where.read_text() == TEXT
    assert f"check-proof {where} --key '{KEYS[0]}'" in run.out
    assert meshctl("portal", "verify", "--proof", str(where)).code == 1  # never over what is there


def test_where_nothing_is_proved_no_proof_is_written(meshctl: Shell, daemon: Proving, home: Path) -> None:
    assert meshctl("portal", "verify", "--proof", str(home / "none"), "--item", "unproved").code == 1
    assert not (home / "none").exists()
    assert meshctl("portal", "verify", "--item", "x").code == 2


def test_on_a_terminal_it_is_shown_how_far_a_verify_is(meshctl: Shell, daemon: Proving) -> None:
    daemon.slow = True
    run = meshctl("portal", "verify", tty=True)
    assert run.code == 0 and "verified" in run.out
    assert "1000 of about 4000 versions proved" in run.err


def test_a_proof_is_checked_without_a_daemon(meshctl: Shell, home: Path) -> None:
    (home / "proof").write_text(TEXT)
    run = meshctl("portal", "check-proof", str(home / "proof"), "--key", KEYS[0], "--key", KEYS[1])
    assert run.code == 0
    assert run.out.startswith("proven: entry 1 of the log example.net/mmm-log")
    assert "MDEV-ICE" in run.out and f"cosigned by {KEYS[1]} at 2026-" in run.out
    assert meshctl("portal", "check-proof", str(home / "proof"), "--key", KEYS[0], "--json").json["holds"] is True


def test_without_a_key_nothing_is_proven_and_it_says_what_to_give(meshctl: Shell, home: Path) -> None:
    (home / "proof").write_text(TEXT)
    run = meshctl("portal", "check-proof", str(home / "proof"))
    assert run.code == 10
    assert run.out.startswith("NOT proven") and "--key" in run.err


def test_a_policy_file_takes_the_place_of_keys(meshctl: Shell, home: Path) -> None:
    (home / "proof").write_text(TEXT)
    (home / "policy").write_text(f"log {KEYS[0]}\nwitness own {KEYS[1]}\nquorum own\n")
    assert meshctl("portal", "check-proof", str(home / "proof"), "--policy", str(home / "policy")).code == 0
    (home / "policy").write_text("quorum nobody\n")
    run = meshctl("portal", "check-proof", str(home / "proof"), "--policy", str(home / "policy"))
    assert run.code == 2 and "line 1" in run.err


def test_what_is_no_proof_fails_to_verify_and_a_file_that_is_not_there_is_bad_usage(meshctl: Shell, home: Path) -> None:
    (home / "proof").write_text("nothing of the sort")
    assert meshctl("portal", "check-proof", str(home / "proof"), "--key", KEYS[0]).code == 10
    assert meshctl("portal", "check-proof", str(home / "absent")).code == 2
