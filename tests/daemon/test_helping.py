"""The helper process: it vouches for what is in order and for nothing else, and when it fails nothing is lost."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from harness.devices import Device, mesh
from meshd.daemon.checker import Keys, Lot, checked
from meshd.daemon.helping import Helper
from meshd.daemon.receiving import MANY, Intake
from meshd.daemon.verifying import check
from meshd.profile.claim import Kind
from meshd.profile.version import Version
from meshd.profile.vouched import restore, vouch
from meshd.store import versions
from meshd.sync.events import PeerItem

ITEMS = 40
READY = "import sys; sys.stdout.buffer.write(bytes(4)); sys.stdout.flush(); "


async def verified(device: Device) -> list[Version]:
    """Everything that a device with some items holds, checked as it is here."""
    for place in range(ITEMS):
        await device.add(f"{place}.example", "alice", "secret")
    connection = device.daemon.reader.connection
    kinds = (Kind.PERSONAL, Kind.CONTAINER, Kind.ITEM)
    raws = [versions.raw(connection, row.vid) or b"" for kind in kinds for row in versions.of_kind(connection, kind)]
    found = check(raws, [None] * len(raws), device.daemon.replica.directory)
    assert not found.refused
    assert not found.unknown
    return list(found.versions)


def altered(raw: bytes) -> bytes:
    return raw[:-1] + bytes([raw[-1] ^ 1])  # the last byte of the signature


async def test_it_vouches_for_items_and_leaves_the_rest_to_the_daemon(home: Path) -> None:
    async with mesh(home, "laptop", run=False) as (_, (laptop,)):
        held = await verified(laptop)
        keys = {key.udf: key.public for key in laptop.daemon.replica.directory.all()}
        found = checked(Lot([one.raw for one in held], [one.vid for one in held], keys), Keys())
        assert [one is not None for one in found] == [one.kind is Kind.ITEM for one in held]
        item = next(one for one in held if one.kind is Kind.ITEM)
        lot = Lot([altered(item.raw), item.raw, b"", item.raw], [item.vid, held[0].vid, item.vid, item.vid], {})
        assert checked(lot, Keys()) == [None] * 4  # bad, another one than announced, empty, an unknown signer
        (vouched,) = checked(Lot([item.raw], [b""], keys), Keys())  # a portal's feed announces nothing
        assert vouched is not None
        assert vouched.vid == item.vid


async def test_a_version_that_was_vouched_for_is_the_one_that_was_verified(home: Path) -> None:
    async with mesh(home, "laptop", run=False) as (_, (laptop,)):
        for one in await verified(laptop):
            found = vouch(one)
            if one.kind is not Kind.ITEM:
                assert found is None
                continue
            assert found is not None
            again = restore(found, one.raw)
            assert (again.claim, again.raw, again.digest, again.token) == (one.claim, one.raw, one.digest, one.token)
            assert (again.tag, again.updated, again.embedded) == (one.tag, one.updated, ())
            assert again.signed is not None


async def test_a_helper_answers_several_lots_in_order(home: Path) -> None:
    async with mesh(home, "laptop", run=False) as (_, (laptop,)):
        held = [one for one in await verified(laptop) if one.kind is Kind.ITEM]
        helper = Helper(laptop.daemon.replica.directory)
        answers: dict[int, list[Version | None]] = {}

        async def ask(place: int) -> None:
            part = held[place * 10 : place * 10 + 10]
            answers[place] = await helper.check([one.raw for one in part], [one.vid for one in part])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(helper.run)
            with trio.fail_after(30):
                while not helper.ready:
                    await trio.sleep(0.01)
                async with trio.open_nursery() as asking:
                    for place in range(4):
                        asking.start_soon(ask, place)
            nursery.cancel_scope.cancel()
        found = [one for place in range(4) for one in answers[place]]
        assert [one.vid if one else None for one in found] == [one.vid for one in held[:40]]
        assert not helper.ready


@pytest.mark.parametrize(
    "command",
    [
        ["/nonexistent/python"],
        [sys.executable, "-c", "pass"],
        [sys.executable, "-c", "print('what is this?')"],
        [sys.executable, "-c", READY + "sys.stdin.buffer.read(10)"],
        [sys.executable, "-c", READY + "sys.stdin.buffer.read(10); sys.stdout.buffer.write(b'garbage' * 9)"],
        [sys.executable, "-c", READY + "sys.stdin.buffer.read(10); sys.stdout.buffer.write(bytes([0, 0, 0, 1, 0x90]))"],
        [sys.executable, "-c", READY + "sys.stdin.buffer.read(10); sys.stdout.buffer.write(b'\\xff' * 9)"],
    ],
    ids=["absent", "ends at once", "other words", "ends when asked", "garbage", "too few", "too much"],
)
async def test_when_it_fails_everything_is_checked_here(home: Path, command: Sequence[str]) -> None:
    async with mesh(home, "laptop", run=False) as (_, (laptop,)):
        held = await verified(laptop)
        helper = Helper(laptop.daemon.replica.directory, command)
        ended: list[bool] = []

        async def keep() -> None:
            ended.append(await helper.run())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep)
            with trio.fail_after(30):
                while not helper.ready and not ended:
                    await trio.sleep(0.01)
                assert await helper.check([held[-1].raw], [held[-1].vid]) == [None]
                while not ended:
                    await trio.sleep(0.01)
        assert ended == [False]
        assert not helper.ready


async def test_a_lot_with_good_and_bad_comes_out_the_same_with_a_helper_and_without(home: Path) -> None:
    async with mesh(home, "laptop", run=False) as (_, (laptop,)):
        held = await verified(laptop)
        directory = laptop.daemon.replica.directory
        items = [PeerItem(one.vid, int(one.kind), one.raw) for one in held]
        items[-1] = PeerItem(held[-1].vid, int(Kind.ITEM), altered(held[-1].raw))
        items.append(PeerItem(bytes(32), int(Kind.ITEM), b""))  # no longer there
        expected = check([one.raw for one in items[:-1]], [one.vid for one in items[:-1]], directory)
        for helped in (False, True):
            intake = Intake(directory)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(intake.run)
                if helped:
                    intake.expect(MANY)
                    with trio.fail_after(30):
                        while not intake.helped:
                            await trio.sleep(0.01)
                for one in items:
                    intake.put(one)
                brought, found = await intake.next()
                nursery.cancel_scope.cancel()
            assert brought == items
            assert {one.vid for one in found.versions} == {one.vid for one in expected.versions}
            assert (found.refused, found.unknown) == (expected.refused, expected.unknown)
            intake.settle(brought)
            assert (intake.items, intake.bytes) == (0, 0)
