"""Making, replacing and giving up shares, interrupted at every step: the shares so far count, or the new ones do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness import devices as harness
from harness.faulty import Faults, Interrupts, spread
from harness.lan import MemoryLan
from harness.local_api import Device as Api
from harness.local_api import good, serving

pytestmark = pytest.mark.draft("Master profile recovery")

MASTER, RECOVERY = "master passphrase", "/v1/recovery"
PROOF = {"master_passphrase": MASTER}


@dataclass
class Told:
    """The shares of a set as their holders got them; none before they were told."""

    words: list[str] = field(default_factory=list)


async def make(here: Api, told: Told, *, replace: bool) -> None:
    body = PROOF | {"threshold": 2, "shares": 3, "replace": replace}
    shown = await here.post(f"{RECOVERY}/shares", body)
    told.words = [share["words"] for share in shown["shares"]]
    await here.post(f"{RECOVERY}/commit", {"token": shown["token"]} | PROOF)


async def counting(here: Api, *sets: Told) -> Told | None:
    """The set that counts: all of its shares are current and bring everything back, and no share of another one is."""
    found: list[Told] = []
    for one in sets:
        seen = [await here.post(f"{RECOVERY}/check", {"words": words}) for words in one.words]
        current = {answer["current"] for answer in seen}
        assert len(current) < 2, seen
        assert all(answer["message"] for answer in seen)
        if current == {True}:
            found.append(one)
    entries = (await here.get(RECOVERY))["entries"]
    assert len(entries) == len(found) < 2
    if not found:
        return None
    for words in found[0].words[:2]:
        assert (await here.post(f"{RECOVERY}/drill/shares", {"words": words}))["ok"]
    assert (drill := await here.post(f"{RECOVERY}/drill", {}))["success"], drill
    return found[0]


DEEDS: dict[str, tuple[bool, Callable[[Api, Told], Any]]] = {
    "create": (False, lambda here, told: make(here, told, replace=False)),
    "refresh": (True, lambda here, told: make(here, told, replace=True)),
    "revoke": (True, lambda here, told: here.post(f"{RECOVERY}/revoke", PROOF)),
}


class Life:
    """One device that does a deed and is stopped in it."""

    def __init__(self, home: Path, name: str, deed: str) -> None:
        self.device = harness.blank(home, MemoryLan(), name)
        self.before, self.do = DEEDS[deed]
        self.old, self.new = Told(), Told()
        self.deed = deed

    async def begin(self) -> None:
        device = self.device
        await harness.found(device)
        await device.add("github.com", "alice", "first")
        async with serving(device) as here:
            if self.before:
                await make(here, self.old, replace=False)

    async def attempt(self, dies: Callable[[], None]) -> None:
        """The deed, whatever comes of it."""
        async with serving(self.device) as here:
            dies()
            try:
                await self.do(here, self.new)
            except AssertionError as exc:  # the answer was an error
                assert "error" in str(exc)

    async def holds(self) -> bool:
        """All is as before or as after, and the deed can be done anew; was it done?"""
        device = self.device
        if device.daemon.locked:
            await device.daemon.unlock(None)
        async with serving(device) as here:
            counts = await counting(here, self.old, self.new)
            done = counts is (None if self.deed == "revoke" else self.new)
            assert done or counts is (self.old if self.before else None)
            assert list(device.passwords().values()) == ["first"]
            await device.add("later.example", "alice", "later")
            last = Told()
            await make(here, last, replace=counts is not None)
            assert await counting(here, self.old, self.new, last) is last
            assert set(device.passwords().values()) == {"first", "later"}
        return done

    def close(self) -> None:
        self.device.daemon.close()


@pytest.mark.parametrize("deed", DEEDS)
async def test_a_crash_at_any_step_leaves_the_shares_so_far_or_the_new_ones(home: Path, deed: str) -> None:
    number, ends = 0, set()
    while True:
        life, fault = Life(home, f"laptop{number}", deed), Faults()

        def dies(fault: Faults = fault, at: int = number) -> None:
            fault.at = len(fault.points) + at

        try:
            await life.begin()
            life.device.fault = fault
            life.device.reopen()
            await life.device.daemon.unlock(None)
            await life.attempt(dies)
            struck, life.device.fault = fault.struck, None
            life.device.reopen()
            ends.add(await life.holds())
        finally:
            life.close()
        if struck is None:
            break
        number += 1
    assert ends == {False, True}


@pytest.mark.parametrize("deed", DEEDS)
async def test_what_stops_inside_the_transaction_changes_nothing(home: Path, deed: str) -> None:
    async def life(name: str, stop: Interrupts, *, reopens: bool) -> int:
        one = Life(home, name, deed)
        try:
            await one.begin()
            await one.device.daemon.transact(lambda c, o: stop.arm(c))
            await one.attempt(lambda: None)
            lots, stop.at = stop.lots, None
            if reopens:
                one.device.reopen()
            await one.holds()
            return lots
        finally:
            one.close()

    for place in spread(await life("free", Interrupts(None), reopens=False), 4):
        await life(f"dies{place}", Interrupts(place), reopens=True)
        await life(f"lives{place}", Interrupts(place, once=True), reopens=False)


async def test_shares_that_were_told_before_a_crash_are_no_shares_afterwards(home: Path) -> None:
    device = harness.blank(home, MemoryLan(), "laptop")
    try:
        await harness.found(device)
        async with serving(device) as here:
            shown = await here.post(f"{RECOVERY}/shares", PROOF | {"threshold": 2, "shares": 3})
        device.reopen()
        await device.daemon.unlock(None)
        async with serving(device) as here:
            late = await here.ask("POST", f"{RECOVERY}/commit", {"token": shown["token"]} | PROOF)
            assert late.code == "not-found"
            assert "worth nothing" in late.body["error"]["message"]
            assert (await here.get(RECOVERY))["entries"] == []
            good(await here.ask("POST", f"{RECOVERY}/shares", PROOF | {"threshold": 2, "shares": 3}))
    finally:
        device.daemon.close()
