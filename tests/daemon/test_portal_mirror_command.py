"""`meshd portal mirror` as a person runs it: keys first, a grant, then the log; and what it says where that fails."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

import pytest
import trio

from harness.log_world import Log, key
from harness.portal_engine import DOMAIN, engine
from harness.portal_people import Person
from harness.portal_process import PortalProcess
from meshd.daemon.portal import main, mirror_main, mirrored
from meshd.daemon.portal.sequencer import Sequencer
from meshd.store.db import set_meta
from meshd.tlog.checkpoint import Checkpoint
from meshd.tlog.evidence import Evidence, check, compare
from meshd.tlog.note import Signer, Verifier

NAME = "mirror.example"


@pytest.fixture(autouse=True)
def quiet():
    """The command starts the log of a process, which is this one's."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level


def portal_of(store: Path, entries: int) -> None:
    async def make() -> None:
        with engine(store) as portal:
            alice = Person("alice")
            await portal.open(alice)
            await portal.publish(alice, alice.container())
            await portal.publish(alice, *[alice.item(f"secret {number}") for number in range(entries - 2)])

    trio.run(make)


def mirror(home: Path, *more: str) -> int:
    return main.main(["mirror", "--of", DOMAIN, "--data", str(home / "mirror"), *more])


def test_keys_a_grant_and_then_the_log(home, capsys):
    (home / "portal").mkdir()
    portal_of(home / "portal" / "portal.db", 12)
    assert mirror(home, "--name", NAME, "--keys", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["schema"], told["mirror_of"], told["name"]) == (1, f"{DOMAIN}/mmm-log", NAME)
    assert mirror(home, "--keys") == 0
    assert f"peer add {NAME} --grant full --key '{told['keys']['peer']}'" in capsys.readouterr().out
    with PortalProcess(home / "portal") as portal:
        assert portal.start() is None
        where = ["--once", "--address", f"127.0.0.1:{portal.port}", "--insecure-http"]
        assert mirror(home, *where) == 8
        assert "--grant full" in capsys.readouterr().err
        keys = ["--key", told["keys"]["peer"], "--key", told["keys"]["mirror"]]
        granted = ["admin", "peer", "add", NAME, "--grant", "full", *keys, "--data", str(home / "portal")]
        assert main.main(granted) == 0
        capsys.readouterr()
        assert mirror(home, *where, "--json") == 0
        found = json.loads(capsys.readouterr().out)["mirrored"]
        assert found["size"] == 12
    assert main.main(["log", "show", "--data", str(home / "mirror")]) == 0
    assert f"a mirror of {DOMAIN}/mmm-log\n12 entries, root {found['root']}" in capsys.readouterr().out


def test_a_portal_refuses_a_mirrors_directory_and_a_mirror_a_portals(home, capsys):
    (home / "mirror").mkdir(mode=0o700)
    portal_of(home / "mirror" / "portal.db", 2)

    async def run_once() -> None:  # a portal that ran has a name
        sequencer = Sequencer(home / "mirror" / "portal.db", create=False)
        await sequencer.change(lambda connection: set_meta(connection, "domain", DOMAIN.encode()))
        sequencer.close()

    trio.run(run_once)
    assert mirror(home, "--name", NAME, "--keys") == 2
    assert "a portal of its own" in capsys.readouterr().err
    other = home / "other"
    assert main.main(["mirror", "--of", DOMAIN, "--name", NAME, "--data", str(other), "--keys"]) == 0
    listen = ["--domain", DOMAIN, "--listen", "127.0.0.1:0", "--insecure-http"]
    assert main.main(["--data", str(other), *listen]) == 2
    assert "admin promote" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [
        ("--keys",),
        ("--name", "no name", "--keys"),
        ("--name", NAME, "--once", "--key", "x/mmm-log+1+AQ=="),
        ("--name", NAME),
    ],
    ids=["no-name", "bad-name", "bad-key", "no-listen"],
)
def test_what_can_t_be_done_is_said(home, capsys, wrong):
    assert mirror(home, *wrong) == 2
    assert "--" in capsys.readouterr().err


def test_the_evidence_is_written_for_others_to_check(home, capsys):
    assert mirror(home, "--name", NAME, "--keys") == 0
    target = home / "evidence"
    assert mirror(home, "--evidence", str(target)) == 2
    log = Log(origin=f"{DOMAIN}/mmm-log")
    for number in range(3):
        log.publish(bytes([number]))
    other = log.fork(at=1, instead=[b"x", b"y"])
    evidence = compare(log.note(), other.note(), log.keys)
    assert evidence is not None

    async def keep() -> None:
        sequencer = Sequencer(home / "mirror" / "portal.db", create=False)
        await sequencer.change(lambda connection: set_meta(connection, mirrored.EVIDENCE, evidence.encode()))
        sequencer.close()

    trio.run(keep)
    assert mirror(home, "--evidence", str(target)) == 0
    check(Evidence.decode(target.read_bytes()), log.keys)
    assert mirror(home, "--evidence", str(target)) != 0  # files stay
    where = ["--once", "--address", "127.0.0.1:1", "--insecure-http"]
    assert mirror(home, *where) == 10


def test_progress_is_shown_on_a_terminal_alone(capsys, monkeypatch):
    shown = mirror_main._Shown(as_json=False, origin="x/mmm-log")
    shown.progress(5, 10)
    assert capsys.readouterr().err == ""
    shown._tty = True
    now = time.monotonic()
    for seconds, done in ((1.0, 5), (1.05, 6), (2.0, 10)):
        monkeypatch.setattr(mirror_main.time, "monotonic", lambda seconds=seconds: now + seconds)
        shown.progress(done, 10)
    lines = capsys.readouterr().err
    assert "5 of 10 entries" in lines and "6 of 10" not in lines and lines.endswith("a second\n")
    shown.complete(Checkpoint("x/mmm-log", 10, bytes(32)))
    assert capsys.readouterr().out == "x/mmm-log: all 10 entries are here, verified.\n"


def test_a_key_of_another_log_is_no_key_of_this_one(home, capsys):
    vkey = Signer("other.example/mmm-log", key("o")).vkey
    assert Verifier.parse(vkey).name == "other.example/mmm-log"
    assert mirror(home, "--name", NAME, "--once", "--key", vkey) == 2
    assert "has its name" in capsys.readouterr().err
