from __future__ import annotations

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from harness.lan import MemoryHost, MemoryLan
from meshd.errors import BadRequest, MeshError, NetworkError
from meshd.net import interfaces, lan
from meshd.net.discovery import (
    MAX_INSTANCES,
    PAIR_TYPE,
    SYNC_TYPE,
    Board,
    Gone,
    Seen,
    Service,
    check_service,
    read_sighting,
)
from meshd.net.interfaces import Address, Interfaces

Clock = trio.testing.MockClock


def fits(host: MemoryHost, real: lan.Lan) -> tuple[lan.Network, lan.Network]:
    """For the type checker: the fake and the real LAN are one to the daemon."""
    return host, real


async def echo(stream: trio.abc.Stream, caller: str) -> None:
    async with stream:
        async for data in stream:
            await stream.send_all(data + b" from " + caller.encode())


# -- addresses


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("192.0.2.7:7000", ("192.0.2.7", 7000)),
        ("laptop.local:1", ("laptop.local", 1)),
        ("[::1]:65535", ("::1", 65535)),
        ("[fe80::1%eth0]:7000", ("fe80::1%eth0", 7000)),
    ],
)
def test_an_address_is_read_and_written(text: str, parts: tuple[str, int]) -> None:
    assert lan.parse_address(text) == parts
    assert lan.format_address(*parts) == text


@pytest.mark.parametrize(
    "text",
    "|laptop|laptop:|:7000|laptop:0|laptop:65536|laptop:7 0|::1:7000|[::1]|[laptop]:1|[::1%e h]:1|[127.0.0.1]:1|-x:1|"
    "a/b:1|a@b:1|laptop:٣|laptop:1\n|a\0b:1".split("|"),
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        lan.parse_address(text)


@given(st.text(max_size=60))
def test_no_text_whatever_makes_the_address_reader_fail_otherwise(text: str) -> None:
    try:
        host, port = lan.parse_address(text)
    except BadRequest:
        return
    assert lan.parse_address(lan.format_address(host, port)) == (host, port)


# -- the real LAN, on loopback


async def test_loopback_is_served_on_both_families_and_on_one_port() -> None:
    network = lan.Lan(["lo"], bytes)
    async with trio.open_nursery() as nursery:
        port = await nursery.start(network.serve, echo)
        for host in network.hosts():
            stream = await network.dial(lan.format_address(host, port))
            async with stream:
                await stream.send_all(b"hello")
                answer = bytes(await stream.receive_some())
                assert answer.startswith(f"hello from {'[' if ':' in host else ''}{host}".encode())
        assert "127.0.0.1" in network.hosts()
        nursery.cancel_scope.cancel()


async def test_without_a_choice_every_address_is_served() -> None:
    network = lan.Lan([], bytes)
    async with trio.open_nursery() as nursery:
        port = await nursery.start(network.serve, echo)
        async with await network.dial(f"127.0.0.1:{port}") as stream:
            await stream.send_all(b"hello")
            assert bytes(await stream.receive_some()).startswith(b"hello from 127.0.0.1:")
        nursery.cancel_scope.cancel()


async def test_an_interface_that_does_not_exist_has_a_port_already() -> None:
    network = lan.Lan(["nosuch0"], bytes)
    async with trio.open_nursery() as nursery:
        port = await nursery.start(network.serve, echo)
        assert port > 0
        assert network.hosts() == ()
        with pytest.raises(NetworkError, match="nothing listens there"):
            await network.dial(f"127.0.0.1:{port}")
        nursery.cancel_scope.cancel()


async def test_a_port_in_use_is_named() -> None:
    taken = lan.open_listeners(["127.0.0.1"], 0)
    port = taken[0].socket.getsockname()[1]
    with pytest.raises(NetworkError, match="another program"):
        lan.open_listeners(["127.0.0.1"], port)
    await taken[0].aclose()


async def test_dialling_says_what_is_wrong() -> None:
    free = lan.reserve_port(0)
    port = free.getsockname()[1]
    free.close()
    with pytest.raises(NetworkError, match=r"127.0.0.1:\d+ can't be reached: nothing listens there"):
        await lan.dial(f"127.0.0.1:{port}")
    with pytest.raises(BadRequest):
        await lan.dial("nowhere")


async def test_listeners_follow_the_addresses() -> None:
    one, two = (Address("lo", 1, ip, True) for ip in ("127.0.0.1", "127.0.0.2"))
    now = [one]
    network = lan.Lan(["lo"], bytes, read=lambda names: tuple(now))

    async def reachable(ip: str, port: int) -> bool:
        try:
            await (await network.dial(f"{ip}:{port}")).aclose()
        except NetworkError:
            return False
        return True

    async with trio.open_nursery() as nursery:
        port = await nursery.start(network.serve, echo)
        kept = await network.dial(f"127.0.0.1:{port}")
        assert not await reachable("127.0.0.2", port)
        for addresses, expected in (([one, two], (True, True)), ([two], (False, True)), ([one], (True, False))):
            now[:] = addresses
            await network.discovery.update_interfaces()
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert (await reachable("127.0.0.1", port), await reachable("127.0.0.2", port)) == expected
        await kept.send_all(b"still here")
        assert bytes(await kept.receive_some()).startswith(b"still here")
        await kept.aclose()
        nursery.cancel_scope.cancel()


# -- interfaces


def test_loopback_is_usable_only_by_name() -> None:
    assert {address.interface for address in interfaces.usable(["lo"])} == {"lo"}
    assert not any(address.loopback for address in interfaces.usable())
    assert interfaces.usable(["nosuch0"]) == ()


def test_a_link_local_address_needs_its_scope() -> None:
    assert Address("eth0", 2, "fe80::1", False).host == "fe80::1%eth0"
    assert Address("eth0", 2, "fd00::1", False).host == "fd00::1"
    assert Address("eth0", 2, "169.254.1.1", False).host == "169.254.1.1"


async def test_no_change_is_missed_however_late_one_looks() -> None:
    now: tuple[Address, ...] = ()
    watched = Interfaces(["eth0"], read=lambda names: now)
    seen = watched.version
    assert not watched.refresh()
    now = (Address("eth0", 2, "192.0.2.1", False),)
    assert watched.refresh()
    seen = await watched.after(seen)
    assert watched.addresses == now
    with trio.move_on_after(0.01) as waited:
        await watched.after(seen)
    assert waited.cancelled_caught


async def test_addresses_that_cannot_be_read_are_no_addresses() -> None:
    def fail(names: object) -> tuple[Address, ...]:
        raise NetworkError

    assert Interfaces([], read=fail).addresses == ()


# -- what strangers announce


def test_a_sighting_is_checked() -> None:
    txt = {b"v": b"1", b"d": b"\xff\0"}
    seen = read_sighting(SYNC_TYPE, "abc", ["192.0.2.1", "fe80::1%eth0"], 7000, txt, loopback=False)
    assert seen == Seen(SYNC_TYPE, "abc", ("192.0.2.1", "fe80::1%eth0"), 7000, {"v": b"1", "d": b"\xff\0"})


@pytest.mark.parametrize(
    "change",
    [
        {"service_type": "_other._tcp.local."},
        {"instance": ""},
        {"instance": "a.b"},
        {"instance": "a\x1b[2J"},
        {"instance": "x" * 64},
        {"addresses": []},
        {"addresses": ["127.0.0.1", "::1", "0.0.0.0", "::", "224.0.0.251", "ff02::fb", "localhost", "x" * 500]},
        {"port": 0},
        {"port": None},
        {"port": 65536},
        {"txt": {b"v": b"x" * 512}},
        {"txt": {str(number).encode(): b"" for number in range(17)}},
        {"txt": {b"": b"1"}},
        {"txt": {b"\xff": b"1"}},
    ],
)
def test_a_sighting_that_is_not_of_our_kind_is_none(change: dict[str, object]) -> None:
    good: dict[str, object] = {
        "service_type": SYNC_TYPE,
        "instance": "abc",
        "addresses": ["192.0.2.1"],
        "port": 7000,
        "txt": {b"v": b"1"},
    }
    assert read_sighting(**good, loopback=False) is not None  # type: ignore[arg-type]
    assert read_sighting(**(good | change), loopback=False) is None  # type: ignore[arg-type]


def test_loopback_is_an_address_only_for_those_who_look_there() -> None:
    assert read_sighting(SYNC_TYPE, "a", ["127.0.0.1", "192.0.2.1"], 1, {}, loopback=False) == Seen(
        SYNC_TYPE, "a", ("192.0.2.1",), 1
    )
    assert read_sighting(SYNC_TYPE, "a", ["127.0.0.1"], 1, {}, loopback=True) is not None


def test_no_more_than_sixteen_addresses_are_kept() -> None:
    seen = read_sighting(SYNC_TYPE, "a", [f"192.0.2.{last}" for last in range(1, 100)], 1, {}, loopback=False)
    assert seen is not None
    assert len(seen.addresses) == 16


@pytest.mark.parametrize(
    "service",
    [
        Service("_http._tcp.local.", "a", 1),
        Service(SYNC_TYPE, "a.b", 1),
        Service(SYNC_TYPE, "a", 0),
        Service(SYNC_TYPE, "a", 1, {"way-too-long": b""}),
        Service(SYNC_TYPE, "a", 1, {"d": bytes(600)}),
    ],
)
def test_what_others_would_not_see_is_not_announced(service: Service) -> None:
    with pytest.raises(BadRequest):
        check_service(service)


def here(number: int, port: int = 1) -> Seen:
    return Seen(SYNC_TYPE, f"i{number}", ("192.0.2.1",), port)


async def test_a_flood_of_instances_pushes_out_the_oldest() -> None:
    board = Board()
    for number in range(MAX_INSTANCES + 10):
        board.put(here(number))
    board.put(Seen(PAIR_TYPE, "p", ("192.0.2.1",), 1))
    assert len(board.seen) == MAX_INSTANCES + 1
    assert (SYNC_TYPE, "i0") not in board.seen
    assert (SYNC_TYPE, f"i{MAX_INSTANCES + 9}") in board.seen


async def test_a_slow_subscriber_gets_the_latest_and_holds_little() -> None:
    board = Board()
    board.put(here(1))
    slow = board.subscribe()
    board.put(here(1, port=2))
    board.put(here(1, port=3))
    assert await anext(slow) == here(1, port=3)
    for number in range(20_000):
        board.put(here(number))
    assert len(slow._pending) <= 4 * MAX_INSTANCES
    slow.close()
    assert not board.subscriptions


async def test_what_was_withdrawn_is_gone_and_said_once() -> None:
    board = Board()
    board.put(here(1))
    subscription = board.subscribe()
    assert await anext(subscription) == here(1)
    board.put(here(1))
    board.remove(SYNC_TYPE, "i1")
    board.remove(SYNC_TYPE, "i1")
    assert await anext(subscription) == Gone(SYNC_TYPE, "i1")
    with trio.move_on_after(0.01) as waited:
        await anext(subscription)
    assert waited.cancelled_caught


# -- the LAN in memory behaves as the daemon's tests need it


async def test_memory_hosts_see_and_reach_each_other(autojump_clock: Clock) -> None:
    memory = MemoryLan()
    laptop, desktop = memory.host("laptop"), memory.host("desktop")
    async with trio.open_nursery() as nursery:
        port = await nursery.start(laptop.serve, echo)
        await laptop.discovery.announce("sync", Service(SYNC_TYPE, "one", port, {"v": b"1"}))
        seen = await anext(desktop.discovery.subscribe())
        assert isinstance(seen, Seen)
        assert seen == Seen(SYNC_TYPE, "one", (laptop.ip,), port, {"v": b"1"})
        assert not laptop.discovery.board.seen
        stream = await desktop.dial(lan.format_address(seen.addresses[0], seen.port))
        await stream.send_all(b"hello")
        assert bytes(await stream.receive_some()).startswith(b"hello from " + desktop.ip.encode())
        nursery.cancel_scope.cancel()


async def test_a_memory_host_replaces_and_withdraws(autojump_clock: Clock) -> None:
    memory = MemoryLan()
    laptop, desktop = memory.host("laptop"), memory.host("desktop")
    seen = desktop.discovery.subscribe()
    await laptop.discovery.announce("sync", Service(SYNC_TYPE, "one", 1))
    assert isinstance(await anext(seen), Seen)
    await laptop.discovery.announce("sync", Service(SYNC_TYPE, "two", 1))
    assert {await anext(seen), await anext(seen)} == {
        Gone(SYNC_TYPE, "one"),
        Seen(SYNC_TYPE, "two", (laptop.ip,), 1),
    }
    with pytest.raises(BadRequest):
        await laptop.discovery.announce("other", Service(SYNC_TYPE, "two", 1))
    await laptop.discovery.withdraw("sync")
    assert await anext(seen) == Gone(SYNC_TYPE, "two")


async def test_a_memory_host_that_is_cut_off_stalls_and_comes_back(autojump_clock: Clock) -> None:
    memory = MemoryLan()
    laptop, desktop = memory.host("laptop"), memory.host("desktop")
    async with trio.open_nursery() as nursery:
        port = await nursery.start(laptop.serve, echo)
        address = lan.format_address(laptop.ip, port)
        stream = await desktop.dial(address)
        laptop.cut()
        await stream.send_all(b"wait")
        with trio.move_on_after(100) as waited:
            await stream.receive_some()
        assert waited.cancelled_caught
        with pytest.raises(NetworkError, match="does not answer"):
            await desktop.dial(address)
        laptop.heal()
        assert bytes(await stream.receive_some()).startswith(b"wait")
        seen = await desktop.changed(-1)
        before = laptop.ip
        laptop.renumber()
        assert laptop.ip != before
        with pytest.raises(MeshError):
            await desktop.dial(address)
        await desktop.dial(lan.format_address(laptop.ip, port))
        with pytest.raises(NetworkError, match="nothing listens"):
            await desktop.dial(lan.format_address(laptop.ip, 9))
        assert seen == 0
        nursery.cancel_scope.cancel()
