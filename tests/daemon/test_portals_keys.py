"""The keys of portals' logs, as devices of one mesh tell each other: a first contact that is none."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from harness.portal_liar import ACCOUNT, Den, One, Past, give, lying
from meshd.daemon.portal.log import Log
from meshd.daemon.portals import known_keys, listed, state, watch
from meshd.daemon.portals.known_keys import OTHERS
from meshd.profile.apps import portals as entries
from meshd.profile.apps.portals import PortalEntry
from meshd.store import portals_client


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "TRY_PAUSE", 0.01)
    monkeypatch.setattr(state, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(known_keys, "TELL_SECONDS", 0.0)


def log_of(past: Past) -> Log:
    assert past.running is not None and past.running.portal.sequencer.log is not None
    return past.running.portal.sequencer.log


def said(one: One) -> tuple[str, ...]:
    """The keys that the Discovery vault has, on this device."""
    daemon = one.device.daemon
    return listed.stated(daemon, daemon.reader.connection).live[ACCOUNT][0].log_keys


async def opened(den: Den, one: One) -> None:
    """An account, and the keys of its log told."""
    await one.online.portals.add(ACCOUNT, "", None, plain=True)
    await one.in_step()
    await one.until(lambda: bool(said(one)))
    await one.in_step()


async def replaced(past: Past) -> None:
    """The portal has another key, which signs beside the old one."""
    assert past.running is not None
    await past.running.portal.sequencer.change(log_of(past).rotate)


async def retired(past: Past) -> None:
    """The month is over: the old key signs no more."""
    assert past.running is not None
    log = log_of(past)

    def forget(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE log_keys SET until = ? WHERE until IS NOT NULL", (log.now - 1,))
        log.take_keys(connection)
        log._again(connection)

    await past.running.portal.sequencer.change(forget)
    assert len(log.vkeys) == 2


async def test_the_first_device_tells_the_keys_of_the_log_that_it_saw(home: Path) -> None:
    async with lying(home, "laptop", "phone") as den:
        one, other = den["laptop"], den["phone"]
        await opened(den, one)
        assert said(one) == tuple(log_of(den.honest).vkeys[:1])
        await give(one.device, other.device)
        await other.in_step()
        assert other.portal.told_keys == said(one) and other.state == "verified"


async def test_a_first_contact_with_another_log_under_that_name_is_not_believed(home: Path) -> None:
    async with lying(home, "laptop", "phone") as den:
        one, other = den["laptop"], den["phone"]
        await opened(den, one)
        await other.led(await den.open(den.rekeyed(den.honest)))
        await give(one.device, other.device)
        await other.until(lambda: ACCOUNT in other.online.portals.running)
        await other.until(lambda: other.portal.watch.view()["state"] == "suspect")
        run = await other.meshctl("portal", "verify")
        assert run.code == 10 and "no known key of the log" in run.out
        await other.led(den.honest)
        await other.in_step()
        assert (await other.meshctl("portal", "verify")).code == 0


async def test_a_first_contact_is_held_to_what_a_sibling_saw(home: Path) -> None:
    async with lying(home, "laptop", "phone") as den:
        one, other = den["laptop"], den["phone"]
        await opened(den, one)
        old = den.copied(den.honest)
        await one.device.add("a.example", "alice", "secret")
        await one.in_step()
        await other.led(None)
        for each in (one, other):
            await den.nursery.start(each.device.run)
        await other.device.until_same(one.device)
        await other.until(lambda: ACCOUNT in other.online.portals.running)
        await other.led(await den.open(old))
        await other.until(lambda: other.portal.watch.view()["state"] in ("suspect", "contradicted"))
        assert (await other.meshctl("portal", "verify")).code == 10


async def test_a_device_that_pinned_another_key_than_the_others_know_doubts_the_portal(home: Path) -> None:
    async with lying(home, "laptop", "phone") as den:
        one, other = den["laptop"], den["phone"]
        await opened(den, one)
        await other.led(await den.open(den.rekeyed(den.honest)))
        identifier = listed.stated(one.device.daemon, one.device.daemon.reader.connection).live[ACCOUNT][1]
        await other.device.daemon.transact(
            lambda connection, outcome: portals_client.put(connection, ACCOUNT, "", plain=True, item=identifier)
        )
        other.device.daemon.changed.bump()
        await other.until(lambda: ACCOUNT in other.online.portals.running and other.portal.watch.pin is not None)
        await give(one.device, other.device)  # only now it reads what the others know
        await other.until(lambda: other.state == "suspect")
        assert other.pin.why == OTHERS or "no known key" in other.pin.why


async def test_a_key_that_is_replaced_reaches_who_was_away_until_the_old_one_was_gone(home: Path) -> None:
    async with lying(home, "laptop", "phone") as den:
        one, other = den["laptop"], den["phone"]
        await opened(den, one)
        await give(one.device, other.device)
        await other.in_step()
        await other.led(None)
        await replaced(den.honest)
        await one.contact()
        await one.until(lambda: set(said(one)) == set(log_of(den.honest).vkeys[:2]))
        await retired(den.honest)
        await one.contact()
        await one.until(lambda: said(one) == tuple(log_of(den.honest).vkeys[:1]))
        await give(one.device, other.device)
        await other.led(den.honest)
        await other.contact()
        await other.in_step()
        await other.until(lambda: other.state == "verified")  # at the latest when it has read what the others know


async def test_trust_anew_tells_the_others_the_new_keys(home: Path) -> None:
    async with lying(home, "laptop", "phone") as den:
        one, other = den["laptop"], den["phone"]
        await opened(den, one)
        await den.honest.running.portal.sequencer.change(log_of(den.honest).begin_anew)  # type: ignore[union-attr]
        await one.contact()
        assert one.state == "suspect"
        assert (await one.meshctl("portal", "trust", ACCOUNT, "--anew", "--yes")).code == 0
        await one.until(lambda: said(one) == tuple(log_of(den.honest).vkeys[:1]))
        await one.in_step()
        await give(one.device, other.device)
        await other.in_step()
        assert other.state == "verified" and other.pin.origin.endswith("/2")


def test_an_entry_carries_its_keys_and_what_is_none_is_left_out() -> None:
    entry = PortalEntry(ACCOUNT, "portal.example:1", True, ("a+b+c", "d+e+f"))
    found = entries.item(entry, time=1, made="x")
    assert entries.read(found) == entry
    body = found.private[entries.DISCOVERY.private]["Entries"][0]
    for wrong in (3, [3, None], {"a": 1}, ["x" * 600]):
        body["LogKeys"] = wrong
        assert entries.read(found) == PortalEntry(ACCOUNT, "portal.example:1", True)
