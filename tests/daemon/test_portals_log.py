"""Devices and the log of their portal: what is proved, what makes it suspect, and what freezes it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from harness import devices as harness
from harness.lan import MemoryLan
from harness.portal_http import HttpPortal
from harness.portal_logged import LoggedPortal, logged
from meshd.daemon.portals import verify
from meshd.daemon.portals.link import Link
from meshd.daemon.portals.roster import Portals
from meshd.daemon.portals.state import Portal
from meshd.daemon.portals.watch import Contradicted
from meshd.net.srv import Found, Services
from meshd.store import portal_pins
from meshd.store.portal_pins import PinRow

ACCOUNT = "alice@example.net"


async def no_dns(name: str) -> Found:
    return Found()


class World:
    def __init__(self, home: Path, *, keeps_log: bool) -> None:
        self.lan = MemoryLan()
        self.device = harness.blank(home, self.lan, "laptop")
        self.portal = HttpPortal(now=lambda: int(time.time()))
        if keeps_log:
            self.log: LoggedPortal = logged(self.portal)
        self.portals: Portals

    async def start(self, nursery: trio.Nursery) -> None:
        self.portals = Portals(self.device.daemon, self.portal.client(), Services(no_dns))
        await nursery.start(self.portals.run)

    @property
    def one(self) -> Portal:
        return self.portals.running[ACCOUNT]

    @property
    def pin(self) -> PinRow:
        pin = portal_pins.get(self.device.daemon.reader.connection, ACCOUNT)
        assert pin is not None
        return pin

    async def until_in_step(self) -> None:
        await self.device.until(lambda: ACCOUNT in self.portals.running and self.one.in_step)

    def receipts(self) -> set[bytes]:
        return {one.vid for one in portal_pins.receipts(self.device.daemon.reader.connection, ACCOUNT)}


@asynccontextmanager
async def world(home: Path, *, keeps_log: bool = True) -> AsyncIterator[World]:
    made = World(home, keeps_log=keeps_log)
    try:
        await harness.found(made.device)
        async with trio.open_nursery() as nursery:
            await nursery.start(made.portal.run)
            await made.start(nursery)
            await made.portals.add(ACCOUNT, "", None, plain=True)
            await made.until_in_step()
            yield made
            nursery.cancel_scope.cancel()
    finally:
        made.device.daemon.close()


async def test_what_is_published_is_proved_and_the_receipt_is_kept(home: Path) -> None:
    async with world(home) as found:
        item = await found.device.add("example.net", "alice", "secret")
        await found.until_in_step()
        assert item.vid in found.receipts()
        assert found.pin.size == found.log.entries.tree.size
        assert found.one.view()["log"]["state"] == "verified"


async def test_a_portal_that_gives_no_receipts_is_suspect_until_it_proves_what_it_owes(home: Path) -> None:
    async with world(home) as found:
        found.log.receipts = False
        await found.device.add("example.net", "alice", "secret")
        await found.device.until(lambda: found.pin.suspect > 0)
        assert found.one.view()["log"]["state"] == "suspect"


async def test_a_receipt_for_another_place_makes_the_portal_suspect(home: Path) -> None:
    async with world(home) as found:
        found.log.spoil = True
        item = await found.device.add("example.net", "alice", "secret")
        await found.device.until(lambda: found.pin.suspect > 0)
        assert item.vid not in found.receipts()


async def test_a_portal_that_shows_less_than_before_is_suspect_and_the_pin_stays(home: Path) -> None:
    async with world(home) as found:
        await found.device.add("example.net", "alice", "secret")
        await found.until_in_step()
        before = found.pin
        found.log.entries = found.log.entries.fork(at=2, instead=[])
        assert await found.one.watch.look() is None
        assert found.pin.suspect and found.pin.size == before.size
        assert found.one.view()["log"]["state"] == "suspect"


async def test_a_portal_that_rewrites_its_history_is_frozen_with_evidence(home: Path) -> None:
    async with world(home) as found:
        await found.device.add("example.net", "alice", "secret")
        await found.until_in_step()
        entries = found.log.entries.entries
        found.log.entries = found.log.entries.fork(at=0, instead=[b"another past", *entries[1:], b"more"])
        with pytest.raises(Contradicted):
            await found.one.watch.look()
        assert found.pin.frozen and found.pin.evidence
        assert found.one.view()["log"]["state"] == "contradicted"


async def test_an_honest_portal_that_grows_and_rotates_its_key_is_not_accused(home: Path) -> None:
    async with world(home) as found:
        for place in range(6):
            await found.device.add(f"{place}.example", "alice", "secret")
            if place == 3:
                found.log.entries.rotate()
            await found.until_in_step()
        assert not found.pin.suspect and not found.pin.frozen
        assert found.one.view()["log"]["state"] == "verified"


async def test_a_sibling_that_knows_only_a_key_that_was_replaced_accuses_nobody(home: Path) -> None:
    async with world(home) as found:
        old, origin = found.pin.note, found.pin.origin
        for _ in range(2):  # the second time the first key signs no more
            found.log.entries.rotate()
            await found.one.watch.settle(await found.one.watch.look())
        daemon = found.device.daemon
        await daemon.transact(lambda connection, outcome: portal_pins.hear(connection, origin, "phone", old))
        assert await found.one.watch.compare_siblings()
        assert not found.pin.suspect


async def test_an_honest_portal_that_grows_whenever_it_is_looked_at_is_not_accused(home: Path) -> None:
    async with world(home) as found:
        found.log.busy = True
        item = await found.device.add("example.net", "alice", "secret")
        await found.until_in_step()
        assert item.vid in found.receipts() and not found.pin.suspect
        assert (await verify.verify(found.one))["verdict"] == "verified"


async def test_everything_that_was_published_is_verified(home: Path) -> None:
    async with world(home) as found:
        await found.device.add("example.net", "alice", "secret")
        await found.until_in_step()
        said = await verify.verify(found.one)
        assert said["verdict"] == "verified", said
        assert said["proved"] == len(found.log.leaves)


async def test_a_verify_says_how_far_it_is(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(home) as found:
        await found.device.add("example.net", "alice", "secret")
        await found.until_in_step()
        seen: list[dict[str, int] | None] = []
        real = Link.ask

        async def ask(link: Link, transaction: str, *rest: Any, **more: Any) -> Any:
            seen.append(found.one.view()["verifying"])
            return await real(link, transaction, *rest, **more)

        monkeypatch.setattr(verify, "PAGE", 5)
        monkeypatch.setattr(Link, "ask", ask)
        await verify.verify(found.one)
        assert [one["done"] for one in seen if one is not None][-3:] >= [5, 10, 11]
        assert all(one["of"] >= 10 for one in seen if one is not None)
        assert found.one.view()["verifying"] is None


async def test_a_record_beside_the_receipt_of_another_is_found_out(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(home) as found:
        await found.device.add("example.net", "alice", "secret")
        await found.until_in_step()
        real = Link.ask

        async def ask(link: Link, transaction: str, *rest: Any, **more: Any) -> Any:
            answer = await real(link, transaction, *rest, **more)
            if transaction == "GetRecords" and answer.data_items:
                *others, last = answer.data_items
                shown = msgspec.structs.replace(last, data=others[-1].data)  # every receipt is there, and holds
                answer = msgspec.structs.replace(answer, data_items=[*others, shown])
            return answer

        monkeypatch.setattr(Link, "ask", ask)
        said = await verify.verify(found.one)
        assert said["verdict"] == "suspect" and "another record" in said["message"]


async def test_a_portal_that_withholds_the_newest_version_is_found_out(home: Path) -> None:
    async with world(home) as found:
        item = await found.device.add("example.net", "alice", "secret")
        await found.until_in_step()
        del found.log.versions[item.vid]
        said = await verify.verify(found.one)
        assert (said["verdict"], said["withheld"]) == ("suspect", 1)
        assert found.pin.suspect


async def test_after_a_contradiction_nothing_is_believed_until_a_person_decides(home: Path) -> None:
    async with world(home) as found:
        await found.until_in_step()
        past = found.log.entries.entries
        found.log.entries = found.log.entries.fork(at=0, instead=[b"another past", *past[1:], b"more"])
        said = await verify.verify(found.one)
        assert said["verdict"] == "contradicted" and said["evidence"]
        before = found.receipts()
        await found.device.add("example.net", "alice", "secret")
        await found.device.until(lambda: isinstance(found.one.error, Contradicted))
        assert found.receipts() == before
        found.log.entries = found.log.entries.fork(at=0, instead=found.log.leaves)
        await verify.trust_anew(found.one)
        await found.until_in_step()
        assert found.one.view()["log"]["state"] == "verified"


async def test_a_portal_without_a_log_is_shown_as_unverifiable(home: Path) -> None:
    async with world(home, keeps_log=False) as found:
        said = await verify.verify(found.one)
        assert said["verdict"] == "unverifiable"
        assert found.one.view()["log"] == {"state": "none"}
