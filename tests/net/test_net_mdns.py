"""Real mDNS on the loopback interface, with real threads: the clock is the wall's."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psutil
import pytest
import trio

from meshd.errors import BadRequest
from meshd.net.discovery import PAIR_TYPE, SYNC_TYPE, Gone, Seen, Service, Sighting, Subscription
from meshd.net.interfaces import Address, Interfaces, usable
from meshd.net.mdns import Discovery, _binds, _renumbered, _scoped

SECONDS = 10.0
LOOPBACK = usable(["lo"])

pytestmark = pytest.mark.skipif(not LOOPBACK, reason="there is no loopback interface here")


def label() -> str:
    """An instance that no other run on this machine announces."""
    return "t" + secrets.token_hex(8)


@asynccontextmanager
async def running(*interfaces: Interfaces) -> AsyncIterator[list[Discovery]]:
    async with trio.open_nursery() as nursery:
        found = [Discovery(watched, secrets.token_bytes) for watched in interfaces]
        for discovery in found:
            await nursery.start(discovery.run)
        yield found
        nursery.cancel_scope.cancel()


async def until(subscription: Subscription, instance: str, kind: type[Sighting]) -> Sighting:
    """The next sighting of that instance and kind; other programs on this machine may be about."""
    with trio.fail_after(SECONDS):
        async for sighting in subscription:
            if sighting.instance == instance and isinstance(sighting, kind):
                return sighting
    raise AssertionError("the subscription ended")


async def test_two_daemons_on_one_machine_find_each_other_and_say_goodbye() -> None:
    async with running(Interfaces(["lo"]), Interfaces(["lo"])) as (laptop, desktop):
        names = label(), label()
        seen = laptop.subscribe(), desktop.subscribe()
        await laptop.announce("sync", Service(SYNC_TYPE, names[0], 7001, {"v": b"1", "d": b"\xff\x00\x01"}))
        await desktop.announce("sync", Service(SYNC_TYPE, names[1], 7002, {"v": b"1"}))
        found = await until(seen[1], names[0], Seen)
        assert isinstance(found, Seen)
        assert (found.port, dict(found.txt)) == (7001, {"v": b"1", "d": b"\xff\x00\x01"})
        assert "127.0.0.1" in found.addresses
        found = await until(seen[0], names[1], Seen)
        assert isinstance(found, Seen)
        assert found.port == 7002
        assert laptop.problem is None
        assert laptop.names == ("lo",)

        await laptop.withdraw("sync")
        await until(seen[1], names[0], Gone)


async def test_one_who_comes_later_finds_who_was_there() -> None:
    async with running(Interfaces(["lo"])) as (laptop,):
        name = label()
        await laptop.announce("sync", Service(SYNC_TYPE, name, 7001))
        async with running(Interfaces(["lo"])) as (desktop,):
            await until(desktop.subscribe(), name, Seen)
        second = desktop.subscribe()
        with trio.move_on_after(0.05) as waited:
            await anext(second)
        assert waited.cancelled_caught  # a discovery that has ended remembers nobody


async def test_a_daemon_that_ends_is_gone() -> None:
    async with running(Interfaces(["lo"])) as (laptop,):
        seen, name = laptop.subscribe(), label()
        async with running(Interfaces(["lo"])) as (desktop,):
            await desktop.announce("sync", Service(SYNC_TYPE, name, 7001))
            await until(seen, name, Seen)
        await until(seen, name, Gone)


async def test_a_new_label_replaces_the_old_one_and_windows_come_and_go_beside_it() -> None:
    async with running(Interfaces(["lo"]), Interfaces(["lo"])) as (laptop, desktop):
        seen, names = desktop.subscribe(), [label() for _ in range(3)]
        await laptop.announce("sync", Service(SYNC_TYPE, names[0], 7001))
        await laptop.announce("pair-7", Service(PAIR_TYPE, names[1], 7002, {"s": b"7"}))
        await until(seen, names[1], Seen)
        with pytest.raises(BadRequest):
            await laptop.announce("other", Service(PAIR_TYPE, names[1], 7003))
        await laptop.announce("sync", Service(SYNC_TYPE, names[2], 7001))
        with trio.fail_after(SECONDS):
            wanted: set[tuple[type[Sighting], str]] = {(Seen, names[2]), (Gone, names[0])}
            while wanted:
                sighting = await anext(seen)
                wanted.discard((type(sighting), sighting.instance))
        await laptop.withdraw("pair-7")
        await until(seen, names[1], Gone)


async def test_a_changed_text_is_seen_again() -> None:
    async with running(Interfaces(["lo"]), Interfaces(["lo"])) as (laptop, desktop):
        seen, name = desktop.subscribe(), label()
        await laptop.announce("sync", Service(SYNC_TYPE, name, 7001, {"v": b"1"}))
        await until(seen, name, Seen)
        await laptop.announce("sync", Service(SYNC_TYPE, name, 7002, {"v": b"2"}))
        with trio.fail_after(SECONDS):
            while True:
                found = await until(seen, name, Seen)
                if isinstance(found, Seen) and found.port == 7002 and found.txt["v"] == b"2":
                    break


async def test_without_a_network_it_waits_and_with_one_it_is_there() -> None:
    now: list[Address] = []
    coming = Interfaces(["lo"], read=lambda names: tuple(now))
    async with running(coming, Interfaces(["lo"])) as (laptop, desktop):
        seen, heard, names = desktop.subscribe(), laptop.subscribe(), (label(), label())
        await laptop.announce("sync", Service(SYNC_TYPE, names[0], 7001))
        await desktop.announce("sync", Service(SYNC_TYPE, names[1], 7002))
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert laptop.problem == "no address on lo"
        assert laptop.names == ()

        for _ in range(2):  # and a second time, after it was gone
            now[:] = LOOPBACK
            await laptop.update_interfaces()
            await until(seen, names[0], Seen)
            await until(heard, names[1], Seen)
            assert laptop.problem is None
            now.clear()
            await laptop.update_interfaces()
            await until(seen, names[0], Gone)
            await until(heard, names[1], Gone)
            assert laptop.problem == "no address on lo"


async def test_an_address_that_no_longer_exists_is_a_problem_and_no_end() -> None:
    stale = Interfaces(["lo"], read=lambda names: (Address("eth7", 4242, "fd00:dead::1", False),))
    async with running(stale) as (laptop,):
        await laptop.announce("sync", Service(SYNC_TYPE, label(), 7001))
        with trio.fail_after(SECONDS):
            while laptop.problem is None or not laptop.problem.startswith("mDNS does not work"):
                await trio.testing.wait_all_tasks_blocked(0.02)


async def test_the_end_takes_at_most_three_seconds() -> None:
    async with running(*(Interfaces(["lo"]) for _ in range(3))) as daemons:
        for discovery in daemons:
            await discovery.announce("sync", Service(SYNC_TYPE, label(), 7001))
        await trio.testing.wait_all_tasks_blocked(0.2)
        started = time.monotonic()
    assert time.monotonic() - started < 3.5


async def test_waiting_costs_next_to_nothing() -> None:
    async with running(Interfaces(["lo"]), Interfaces(["lo"])) as (laptop, desktop):
        await laptop.announce("sync", Service(SYNC_TYPE, label(), 7001))
        await desktop.announce("sync", Service(SYNC_TYPE, label(), 7002))
        await trio.sleep(2.5)  # until probing, announcing and the first questions are over
        process = psutil.Process()
        before = process.cpu_times()
        await trio.sleep(2)
        after = process.cpu_times()
    spent = after.user + after.system - before.user - before.system
    assert spent < 0.06  # of 2 s, for two daemons in one process that also runs the test


def test_one_address_of_each_family_is_bound_on_an_interface() -> None:
    addresses = [
        Address("eth0", 2, "192.0.2.1", False),
        Address("eth0", 2, "192.0.2.2", False),
        Address("eth0", 2, "169.254.3.4", False),
        Address("eth0", 2, "fd00::1", False),
        Address("eth0", 2, "fe80::1", False),
        Address("lo", 1, "127.0.0.1", True),
        Address("lo", 1, "::1", True),
    ]
    for order in itertools.islice(itertools.permutations(addresses), 0, 5040, 97):
        choice, version = _binds(order)
        assert len(choice) == 3
        assert {"fe80::1", "127.0.0.1"} < set(choice)
        assert {"192.0.2.1", "192.0.2.2"} & set(choice)
        assert version.name == "All"
    assert _binds(addresses[:1])[1].name == "V4Only"
    assert _binds(addresses[3:4])[1].name == "V6Only"


def test_a_link_local_address_says_where() -> None:
    own = [
        Address("eth0", 2, "fe80::1", False),
        Address("wlan0", 3, "fe80::2", False),
        Address("eth0", 2, "192.0.2.1", False),
        Address("lo", 1, "::1", True),
    ]
    heard = ["192.0.2.9", "fd00::9", "fe80::9%3", "fe80::9%9", "fe80::8", "fe80::7%eth0"]
    assert _scoped(heard, own) == [
        "192.0.2.9",
        "fd00::9",
        "fe80::9%wlan0",
        "fe80::9%9",
        "fe80::8%eth0",
        "fe80::8%wlan0",
        "fe80::7%eth0",
    ]


def test_an_address_that_moved_to_another_interface_is_noticed() -> None:
    before = [Address("eth0", 2, "192.0.2.1", False)]
    assert _renumbered(before, [Address("eth0", 7, "192.0.2.1", False)])
    assert not _renumbered(before, [*before, Address("wlan0", 3, "192.0.2.9", False)])
    assert not _renumbered(before, [])
