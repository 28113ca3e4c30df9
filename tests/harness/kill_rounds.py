"""kill -9 in the middle of writing, again and again, and then the books are checked.

Two paired devices write all the time, through their local sockets, several writers each. A round ends with SIGKILL for
one of them or both, at an instant that the seed chooses, and a new start. What a writer was told is done goes into its
ledger, and must be on both devices for good. What it was doing when the daemon died may have happened or not, but
whole: a login's title says its password, so that a listing tells both. No two devices write one login, so there must be
no conflict, and no device's chain may be forked.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from harness.daemons import Device, Household
from meshctl.answers import number, records, text
from meshctl.client import Client, path
from meshd.errors import MeshError
from meshd.localapi.errors import NotRunning
from meshd.store import chains
from meshd.store.db import open_database

WRITERS = 2  # on each device
LONGEST = 0.35  # seconds of writing before a kill
EDITS = 0.3  # of the writes; the rest are new logins
HARMLESS = {"disk-low", "no-network", "clock-skew"}  # said by status of the machine that tests, not of the devices


@dataclass
class Ledger:
    """What one writer was told. `maybe`: what it was doing when the daemon died."""

    done: dict[str, str] = field(default_factory=dict)  # id → password
    maybe: dict[str, set[str]] = field(default_factory=dict)  # id → passwords that it may have instead
    unnamed: set[str] = field(default_factory=set)  # passwords of logins that were perhaps added
    writes: int = 0


class Writer(threading.Thread):
    """Adds and edits logins until the daemon is gone, or `stopping` is set."""

    def __init__(self, client: Client, ledger: Ledger, label: str, seed: int, stopping: threading.Event) -> None:
        super().__init__(name=label)
        self._client, self._ledger, self._label, self._stopping = client, ledger, label, stopping
        self._random = random.Random(seed)
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._write()
        except NotRunning:
            pass  # killed, as planned
        except BaseException as exc:
            self.failure = exc

    def _write(self) -> None:
        ledger = self._ledger
        password = f"{self._label}-{ledger.writes}"
        ledger.writes += 1
        if ledger.done and self._random.random() < EDITS:
            identifier = self._random.choice(list(ledger.done))
            ledger.maybe.setdefault(identifier, set()).add(password)
            self._client.patch(path("items", identifier), {"password": password, "title": password})
            ledger.done[identifier] = password
            del ledger.maybe[identifier]
            return
        ledger.unnamed.add(password)
        answer = self._client.post(
            path("items"),
            {
                "application": "password",
                "sites": [f"{password}.example"],
                "title": password,
                "username": "me",
                "password": password,
            },
        )
        ledger.done[text(answer, "id")] = password
        ledger.unnamed.discard(password)


def play(
    rounds: int, seed: int, *, told: Callable[[int], bool] = lambda done: True, check_every: int = 10
) -> dict[str, int]:
    """Play so many rounds, or until `told(rounds done)` says no; an AssertionError names the seed and the round.

    Returns what happened: rounds, kills, writes. Each killed device's own acknowledged writes are looked at after each
    restart; both devices, whole, every `check_every` rounds and at the end.
    """
    chooser = random.Random(seed)
    ledgers = {name: [Ledger() for _ in range(WRITERS)] for name in ("one", "two")}
    tally = {"rounds": 0, "kills": 0, "writes": 0}
    with Household() as house:
        one, two = house.pair(("one", "two"))
        for count in range(1, rounds + 1):
            try:
                doomed = _round([one, two], ledgers, chooser)
                for device in doomed:
                    device.start()
                    _holds(device, ledgers[device.name], sample=chooser)
                tally["rounds"] = count
                tally["kills"] += len(doomed)
                if count % check_every == 0 or count == rounds:
                    _agree(one, two, ledgers)
            except Exception as exc:
                exc.add_note(f"kill -9 rounds: seed {seed}, round {count} of {rounds}")
                raise
            if not told(count):
                break
        _agree(one, two, ledgers)
        for device in (one, two):
            device.stop()
            _store_is_sound(device)
    tally["writes"] = sum(ledger.writes for both in ledgers.values() for ledger in both)
    return tally


def _round(devices: list[Device], ledgers: dict[str, list[Ledger]], chooser: random.Random) -> list[Device]:
    """Write on all devices, kill some; returns those."""
    stopping = threading.Event()
    writers = [
        Writer(device.client, ledger, f"{device.name}-{place}", chooser.randrange(2**32), stopping)
        for device in devices
        for place, ledger in enumerate(ledgers[device.name])
    ]
    doomed = chooser.choice([devices[:1], devices[1:], devices])
    for writer in writers:
        writer.start()
    stopping.wait(chooser.uniform(0.0, LONGEST))  # nobody sets it yet: this is the instant of the kill
    for device in doomed:
        device.kill()
    stopping.set()
    for writer in writers:
        writer.join()
        if writer.failure is not None:
            raise writer.failure
    return doomed


def _holds(device: Device, ledgers: list[Ledger], *, sample: random.Random) -> None:
    """What this device acknowledged before it was killed is there: the newest and some of the others."""
    for ledger in ledgers:
        written = list(ledger.done)
        for identifier in {*written[-5:], *sample.sample(written, min(5, len(written)))}:
            try:
                found = device.client.get(path("items", identifier))
            except MeshError as exc:
                raise AssertionError(f"{device.name} lost {identifier}, which it had acknowledged: {exc}") from exc
            assert found["title"] == found["password"], f"half of a write: {found}"
            _fits(device, ledger, identifier, text(found, "password"))


def _agree(one: Device, two: Device, ledgers: dict[str, list[Ledger]]) -> None:
    """Both are in step, hold everything acknowledged anywhere and nothing else, and know of no conflict or alarm."""
    one.in_step_with(two)
    two.in_step_with(one)
    held = one.titles()
    other = two.titles()
    assert held == other, f"the devices differ: one alone {_beyond(held, other)}, two alone {_beyond(other, held)}"
    named: set[str] = set()
    for ledger in (ledger for both in ledgers.values() for ledger in both):
        for identifier in ledger.done:
            assert identifier in held, f"{identifier} was acknowledged and is gone"
            _fits(one, ledger, identifier, held[identifier])
        named.update(ledger.done)
    perhaps = {password for both in ledgers.values() for ledger in both for password in ledger.unnamed}
    assert {held[identifier] for identifier in set(held) - named} <= perhaps, "a login that nobody wrote"
    for device in (one, two):
        status = device.status()
        assert number(status, "conflicts") == 0, f"{device.name} sees conflicts that nobody made"
        alarms = [problem for problem in records(status, "health") if problem["code"] not in HARMLESS]
        assert not alarms, f"{device.name}: {alarms}"


def _beyond(held: dict[str, str], other: dict[str, str]) -> dict[str, str]:
    return {identifier: title for identifier, title in held.items() if other.get(identifier) != title}


def _fits(device: Device, ledger: Ledger, identifier: str, found: str) -> None:
    allowed = {ledger.done[identifier], *ledger.maybe.get(identifier, ())}
    assert found in allowed, f"{device.name} has {found!r} for {identifier}, acknowledged was {allowed}"
    if found != ledger.done[identifier]:  # the write that was cut off did happen
        ledger.done[identifier] = found


def _store_is_sound(device: Device) -> None:
    database = open_database(device.home / "meshd.db")
    try:
        assert database.check() == [], f"{device.name}: {database.check()}"
        assert not chains.unhealed_forks(database.connection), f"{device.name}: a device's chain is forked"
        assert not database.query("SELECT 1 FROM forks"), f"{device.name}: a device's chain was forked"
        assert not database.query("SELECT 1 FROM versions WHERE state <> 1"), f"{device.name}: versions wait for others"
    finally:
        database.close()
