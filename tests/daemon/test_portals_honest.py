"""Honest portals over HTTP are never accused: restarts, other keys, slow witnesses, backups that come back."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from harness.portal_liar import Den, One, Past, lying
from meshd.daemon.portal.log import Log
from meshd.daemon.portals import state, watch
from meshd.store import portal_log_rows as log_rows
from meshd.tlog.note import Verifier

NOWHERE = "http://127.0.0.1:9/.well-known/mmm-witness"
WITNESS = "slow.example/mmm-witness"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "TRY_PAUSE", 0.05)
    monkeypatch.setattr(state, "FIRST_PAUSE", 0.05)


def log_of(past: Past) -> Log:
    assert past.running is not None
    log = past.running.portal.sequencer.log
    assert log is not None
    return log


async def rotate(past: Past) -> None:
    assert past.running is not None
    await past.running.portal.sequencer.change(log_of(past).rotate)


async def believed(one: One) -> None:
    await one.contact()
    await one.in_step()
    assert one.state == "verified", one.pin
    run = await one.meshctl("portal", "verify")
    assert run.code == 0, run


async def write(one: One, name: str) -> None:
    await one.device.add(f"{name}.example", "alice", "secret")
    await one.in_step()


async def test_a_portal_that_restarts_and_changes_its_key_is_believed(home: Path) -> None:
    async with lying(home, "laptop", "phone") as den:
        await den.joined()
        one, other = den["laptop"], den["phone"]
        await write(one, "a")
        await den.restart(den.honest)
        await believed(one)
        await rotate(den.honest)
        await write(other, "b")
        await den.restart(den.honest)
        for each in (one, other):
            await believed(each)
            assert sum(Verifier.parse(key).name.endswith("mmm-log") for key in each.pin.keys) == 2


async def test_a_backup_that_lost_nothing_is_believed(home: Path) -> None:
    async with lying(home, "laptop") as den:
        await den.joined()
        one = den["laptop"]
        await write(one, "a")
        await den.restart(den.copied(den.honest))
        await write(one, "b")
        await believed(one)


async def test_a_portal_that_lost_entries_and_says_so_by_a_new_name_convicts_nobody(home: Path) -> None:
    async with lying(home, "laptop") as den:
        await den.joined()
        one = den["laptop"]
        backup = den.copied(den.honest)
        await write(one, "a")
        await den.close(den.honest)
        await den.open(backup)
        assert backup.running is not None
        await backup.running.portal.sequencer.change(log_of(backup).begin_anew)
        await one.led(backup)
        await one.contact()
        assert one.state == "suspect" and "mmm-log/2" in one.pin.why
        assert (await one.meshctl("portal", "trust", "alice@example.net", "--anew", "--yes")).code == 0
        await believed(one)
        assert one.pin.origin == "example.net/mmm-log/2"


async def test_a_witness_that_never_answers_delays_and_accuses_nobody(home: Path) -> None:
    async with lying(home, "laptop") as den:
        assert den.honest.running is not None
        await den.honest.running.portal.sequencer.change(
            lambda connection: log_rows.put_peer(connection, WITNESS, NOWHERE, [], [])
        )
        await den.joined()
        await write(den["laptop"], "a")
        await believed(den["laptop"])


@pytest.mark.parametrize("seed", range(3))
async def test_no_honest_life_makes_anybody_doubt(home: Path, seed: int) -> None:
    async with lying(home, "laptop", "phone") as den:
        await den.joined()
        await life(den, random.Random(seed))


async def life(den: Den, rng: random.Random, steps: int = 12) -> None:
    """Whatever happens to an honest portal and to devices that come and go."""
    for step in range(steps):
        one = rng.choice(list(den.ones.values()))
        match rng.choice(("write", "write", "restart", "rotate", "away", "beat", "backup", "contact")):
            case "write":
                await one.device.add(f"s{step}.example", "alice", "secret")
            case "restart":
                await den.restart(den.honest)
            case "rotate":
                for each in den.ones.values():  # who has not seen the key before last for a month is asked to decide
                    await each.led(den.honest)
                    await each.contact()
                await rotate(den.honest)
            case "away":
                await one.led(None)
            case "beat":
                assert den.honest.running is not None
                await den.honest.running.portal.sequencer.change(log_of(den.honest).heartbeat)
            case "backup":
                await den.close(den.honest)  # a copy from before its last entry would make a second history
                den.honest = den.copied(den.honest)
                await den.restart(den.honest)
            case "contact":
                await one.led(den.honest)
                await one.contact()
        assert all(each.state == "verified" for each in den.ones.values()), f"step {step}"
    for each in den.ones.values():
        await each.led(den.honest)
        await believed(each)
