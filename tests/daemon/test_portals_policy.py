"""Policy files: whose signatures a portal's log has to have, and what a device says where they are missing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import pytest

from harness.log_world import Log as OtherLog
from harness.portal_liar import ACCOUNT, Den, One, Past, lying
from meshd.daemon import config
from meshd.daemon.portal import witness
from meshd.daemon.portals import quorum, state, watch
from meshd.store import portal_log_rows as log_rows
from meshd.tlog.policy import Policy

DAY_MS = 24 * 3600 * 1000


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "TRY_PAUSE", 0.01)
    monkeypatch.setattr(state, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(quorum, "PAUSE", 0.5)


def keys_of(past: Past) -> list[str]:
    """The log's, then the witness's."""
    assert past.running is not None and past.running.portal.sequencer.log is not None
    return past.running.portal.sequencer.log.vkeys


def demand(ones: Iterable[One], *lines: str) -> None:
    """The settings of these devices say so."""
    policy = Policy.parse("\n".join((*lines, "")).encode())
    for one in ones:
        daemon = one.device.daemon
        daemon.config = dataclasses.replace(daemon.config, policies={"example.net": policy})


async def witnessed(den: Den) -> Past:
    """Another portal, which cosigns the log of the first."""
    other = await den.open(domain="other.example")
    assert other.running is not None and den.honest.running is not None
    url = f"http://127.0.0.1:{other.running.port}{witness.PREFIX.rstrip('/')}"
    log, own = keys_of(den.honest)[:1], keys_of(other)[-1:]
    await other.running.portal.sequencer.change(
        lambda connection: log_rows.put_peer(connection, "example.net/mmm-log", "", log, [])
    )
    await den.honest.running.portal.sequencer.change(
        lambda connection: log_rows.put_peer(connection, "other.example/mmm-log", url, [], own)
    )
    return other


async def test_a_portal_whose_witness_cosigns_meets_the_policy(home: Path) -> None:
    async with lying(home, "laptop") as den:
        other = await witnessed(den)
        demand(den.ones.values(), f"witness other {keys_of(other)[-1]}", "quorum other")
        await den.joined()
        run = await den["laptop"].meshctl("portal", "verify")
        assert run.code == 0, run
        assert den["laptop"].state == "verified"


async def test_without_the_quorum_verify_says_so_and_status_once_it_is_overdue(home: Path) -> None:
    async with lying(home, "laptop") as den:
        own = keys_of(den.honest)[-1]
        absent = OtherLog(origin="absent.example/mmm-log").witness.vkey
        demand(
            den.ones.values(),
            f"witness own {own}",
            f"witness absent {absent}",
            "group both all own absent",
            "quorum both",
        )
        await den.joined()
        one = den["laptop"]
        assert one.state == "verified"  # witnesses may be slow
        run = await one.meshctl("portal", "verify")
        assert run.code == 10 and "uncosigned" in run.out and "own cosigned" in run.out
        one.device.clock_ms += DAY_MS
        await one.contact()
        assert one.state == "stale"
        assert "cosigned is old" in (await one.meshctl("status")).out
        demand([one], "quorum none")
        one.device.clock_ms -= DAY_MS
        await one.contact()
        assert one.state == "verified" and (await one.meshctl("portal", "verify")).code == 0


async def test_a_log_key_that_the_policy_does_not_list_is_not_believed_from_the_first_contact_on(home: Path) -> None:
    async with lying(home, "laptop") as den:
        another = OtherLog(seed="another", origin="example.net/mmm-log").keys[0].vkey
        one = den["laptop"]
        demand([one], f"log {another}", "quorum none")
        await one.online.portals.add(ACCOUNT, "", None, plain=True)
        await one.until(lambda: ACCOUNT in one.online.portals.running and one.state == "suspect")
        run = await one.meshctl("portal", "verify")
        assert run.code == 10 and "no known key of the log" in run.out
        assert f"! {ACCOUNT}: no known key" in (await one.meshctl("status")).out
        demand([one], f"log {keys_of(den.honest)[0]}", "quorum none")
        await one.contact()
        assert (await one.meshctl("portal", "verify")).code == 0  # receipts that it could not check are proved now
        assert one.state == "verified"


async def test_a_log_key_of_the_policy_stands_over_one_that_was_pinned(home: Path) -> None:
    async with lying(home, "laptop") as den:
        await den.joined()
        one, size = den["laptop"], den["laptop"].pin.size
        demand([one], f"log {OtherLog(seed='x', origin='example.net/mmm-log').keys[0].vkey}", "quorum none")
        await one.contact()
        assert one.state == "suspect" and one.pin.size == size


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[policies]\n"example.net" = 3', "is the name of a file"),
        ('[policies]\n"example.net" = "absent"', "can't be read"),
        ('[policies]\n"exam ple" = "good"', "not a domain name"),
        ('[policies]\n"example.net" = "bad"', "policy, line 2"),
        ('[policies]\n"example.net" = "."', "can't be read"),
        ('[policies]\n"example.net" = "a\\u0000"', "can't be read"),
    ],
    ids=["number", "absent", "domain", "mistake", "directory", "zero"],
)
def test_what_is_wrong_with_a_policy_stops_the_start_and_names_its_place(home: Path, text: str, said: str) -> None:
    (home / "good").write_text("quorum none\n")
    (home / "bad").write_text("quorum none\nquorum nobody\n")
    (home / "meshd.toml").write_text(text)
    with pytest.raises(config.BadRequest, match=said):
        config.load(home / "meshd.toml")


def test_policies_are_found_beside_the_settings_and_by_the_domain(home: Path) -> None:
    (home / "good").write_text("quorum none\n")
    (home / "meshd.toml").write_text('[policies]\n"Example.NET" = "good"')
    assert config.load(home / "meshd.toml").policies == {"example.net": Policy()}
