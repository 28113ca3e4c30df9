"""The recovery door on the LAN: asked without end it closes for who asks, and stays open for the person."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
import trio.testing

from harness import devices as harness
from harness.devices import Device
from harness.lan import MemoryHost, MemoryLan
from meshd.crypto.keys import SigningKey
from meshd.daemon import door_limits, drilling, recovering, recovery_door, searching
from meshd.daemon.door_limits import ALL, EACH, HOUR, KEPT, WRONG, Visits
from meshd.daemon.drilling import BUSY, FOUND, Peer
from meshd.errors import RemoteProtocolError
from meshd.net import streams, tls
from meshd.net.discovery import SYNC_TYPE, Service
from meshd.profile import shares
from meshd.profile.claim import Kind
from meshd.profile.shares import Scheme
from meshd.store import events
from meshd.sync import knock

pytestmark = pytest.mark.draft("Master profile recovery")


class Told(Exception):
    """The entry has come; the caller goes without proving anything."""


def take(raw: bytes) -> SigningKey:
    raise Told


@dataclass
class There:
    """A device with its door, and who has the shares."""

    lan: MemoryLan
    device: Device
    key: bytes

    @property
    def name(self) -> str:
        return shares.identifier(self.key)

    @property
    def address(self) -> str:
        assert self.device.siblings is not None
        return f"{self.device.host.ip}:{self.device.siblings.port}"

    async def come(self, host: MemoryHost, name: str = "") -> str:
        """What comes of asking for an entry and no more."""
        await trio.testing.wait_all_tasks_blocked()  # who came before has left
        try:
            await recovery_door.fetch(host, self.address, name or self.name, secrets.token_bytes, take)
        except Told:
            return "told"
        except recovery_door.Busy:
            return "busy"
        except recovery_door.NotHeld:
            return "nothing"
        raise AssertionError("it went on")

    async def person(self, host: MemoryHost) -> bool:
        """Does somebody who holds the shares get all of it?"""
        await trio.testing.wait_all_tasks_blocked()
        try:
            found = await searching.from_lan(host, self.key, secrets.token_bytes, self.address)
        except recovery_door.Busy:
            return False
        return found.mesh == self.device.daemon.snapshot.mesh and len(found.raws) > 5

    def fetched(self) -> int:
        return sum(
            one.data.get("state") == "fetched" for one in events.since(self.device.daemon.reader.connection, 0, 10_000)
        )


@asynccontextmanager
async def door(home: Path) -> AsyncIterator[There]:
    lan = MemoryLan()
    laptop = harness.blank(home, lan, "laptop")
    try:
        key = await harness.found(laptop)
        prepared, told, letters = await recovering.prepare(laptop.daemon, key, recovering.Wish(Scheme.simple(2, 2)))
        await laptop.daemon.write(lambda pen: recovering.commit(pen, key, prepared))
        async with trio.open_nursery() as nursery:
            await nursery.start(laptop.run)
            yield There(lan, laptop, await drilling.combine(told, "", letters))
            nursery.cancel_scope.cancel()
    finally:
        laptop.daemon.close()


async def test_one_who_asks_without_end_is_told_to_wait_and_the_person_is_not(
    home: Path, mock_clock: trio.testing.MockClock
) -> None:
    async with door(home) as there:
        thief, owner = there.lan.host("thief"), there.lan.host("owner")
        assert [await there.come(thief) for _ in range(EACH + 3)] == ["told"] * EACH + ["busy"] * 3
        assert await there.person(owner)
        assert there.fetched() == EACH + 1  # a refused visit costs nothing and is no event
        mock_clock.jump(HOUR - 1)
        assert await there.come(thief) == "busy"
        mock_clock.jump(1)
        assert await there.come(thief) == "told"


async def test_many_sources_together_are_bounded_and_whoever_comes_first_in_an_hour_finds_a_place(
    home: Path, mock_clock: trio.testing.MockClock
) -> None:
    async with door(home) as there:
        thieves, told = [there.lan.host("thief") for _ in range(8)], 0
        for thief in thieves:
            while await there.come(thief) == "told":
                told += 1
        assert told == ALL - KEPT + len(thieves) - (ALL - KEPT) // EACH
        owner = there.lan.host("owner")
        for _ in range(20):  # and as often as he likes: who proves the master key is not counted
            assert await there.person(owner)


async def test_knocks_for_entries_that_are_not_there_are_not_looked_at_any_more_from_that_source(
    home: Path, mock_clock: trio.testing.MockClock
) -> None:
    async with door(home) as there:
        guesser, owner = there.lan.host("guesser"), there.lan.host("owner")
        guess = shares.identifier(bytes(32))
        assert {await there.come(guesser, guess) for _ in range(WRONG)} == {"nothing"}
        assert await there.come(guesser) == "nothing"  # a right one is no different, so nothing is learned
        assert not there.fetched()
        assert await there.person(owner)
        mock_clock.jump(HOUR)
        assert await there.come(guesser) == "told"


async def test_who_takes_the_entry_and_stays_silent_holds_up_nobody(
    home: Path, mock_clock: trio.testing.MockClock
) -> None:
    async with door(home) as there:
        staying = []
        for _ in range(recovery_door.AT_ONCE):
            staying.append(await silent(there, thief := there.lan.host("thief")))
            assert await there.come(thief) == "busy"
        owner = there.lan.host("owner")
        assert not await there.person(owner)
        mock_clock.jump(recovery_door.PROOF_SECONDS)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert await there.person(owner)
        for stream in staying:
            await trio.aclose_forcefully(stream)


async def silent(there: There, host: MemoryHost) -> trio.abc.Stream:
    """A caller who was told the entry and says nothing."""
    stream = await host.dial(there.address)
    challenge = await streams.receive_exactly(stream, knock.CHALLENGE_SIZE)
    key = knock.recovery_key(there.name)
    await streams.send(stream, knock.answer(knock.Mode.RECOVERY, key, challenge, bytes(knock.NONCE_SIZE)))
    secured = await tls.wrap_client(stream, tls.recovery_client_context())
    await streams.receive_exactly(secured, recovery_door.CHALLENGE)
    return secured


async def test_a_drill_says_that_a_door_is_busy_and_not_that_it_lacks_the_entry(home: Path) -> None:
    async with door(home) as there:
        peer = Peer("laptop", (there.address,), True, True)
        thief = there.lan.host("thief")
        for _ in range(EACH):
            await there.come(thief)
        found = await drilling.drill(there.device.daemon, there.key, (), [peer], thief)
        assert [one.what for one in found.sources] == [FOUND, BUSY]
        assert "try again in 60 minutes" in found.sources[1].why
        assert found.success
        with pytest.raises(recovery_door.Busy, match="60 minutes"):
            await searching.from_lan(thief, there.key, secrets.token_bytes, there.address)


def test_the_counts_of_an_hour_are_exact() -> None:
    visits = Visits()
    for place in range(EACH):
        assert visits.wait("a", place) == 0
        visits.came("a", place)
    assert visits.wait("a", 100) == HOUR - 100
    assert visits.wait("a", HOUR) == 0
    visits.came("a", HOUR)
    assert visits.wait("a", HOUR) == 1
    visits.proved("a")
    assert visits.wait("a", HOUR) == 0
    for place in range(ALL):
        visits.came(f"s{place}", HOUR)
    assert visits.wait("new", HOUR + 1) == HOUR - 1
    assert visits.wait("new", 2 * HOUR) == 0


def test_what_is_remembered_of_wrong_knocks_is_bounded() -> None:
    visits = Visits()
    for place in range(10_000):
        visits.wrong(f"s{place}", 0.0)
    assert len(visits._wrong) == door_limits._WRONGS


async def test_more_profiles_than_one_introduction_takes_come_through_the_door_and_not_without_end(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with door(home) as there:
        owner, large = there.lan.host("owner"), bytes(2_000_000)
        held = recovery_door._raws

        def much(connection: sqlite3.Connection, kind: Kind, identifier: str | None = None) -> Iterator[bytes]:
            yield from held(connection, kind, identifier)
            yield from [large] * (10 if kind is Kind.CONTAINER else 0)

        monkeypatch.setattr(recovery_door, "_raws", much)
        found = await searching.from_lan(owner, there.key, secrets.token_bytes, there.address)
        assert found.raws.count(large) == 10
        monkeypatch.setattr(recovery_door, "MAX_BYTES", 10_000_000)
        with pytest.raises(RemoteProtocolError, match="without end"):
            await searching.from_lan(owner, there.key, secrets.token_bytes, there.address)


async def test_who_has_given_the_entry_is_waited_for_beyond_the_search_and_who_is_silent_is_not(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "SEARCH_SECONDS", 1.0)
    monkeypatch.setattr(searching, "LATE_SECONDS", 0.1)
    async with door(home) as there:
        owner, large, send = there.lan.host("owner"), bytes(2_000_000), streams.send
        held = recovery_door._raws

        def much(connection: sqlite3.Connection, kind: Kind, identifier: str | None = None) -> Iterator[bytes]:
            yield from held(connection, kind, identifier)
            yield from [large] * (10 if kind is Kind.CONTAINER else 0)

        async def slow(stream: trio.abc.SendStream, data: bytes) -> None:
            await trio.sleep(0.15 if len(data) > len(large) else 0)
            await send(stream, data)

        async def silent(stream: trio.abc.Stream, _: str) -> None:
            await trio.sleep_forever()

        monkeypatch.setattr(recovery_door, "_raws", much)
        monkeypatch.setattr(streams, "send", slow)
        async with trio.open_nursery() as nursery:
            other = there.lan.host("another mesh's")
            port = await nursery.start(other.serve, silent)
            await other.discovery.announce("sync", Service(SYNC_TYPE, "a" * 26, port, {"v": b"1"}))
            began = trio.current_time()
            found = await searching.from_lan(owner, there.key, secrets.token_bytes)
            assert found.raws.count(large) == 10
            assert 1.0 < trio.current_time() - began < 10
            nursery.cancel_scope.cancel()
