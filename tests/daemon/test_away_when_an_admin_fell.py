"""The admin who took everybody in is removed while others are away: they come back, and so do newcomers.

A removal of an admin names the end of his chain. Profiles go first in every conversation, so a device that was away
holds the cut before it holds the chain, and everything that admin ever signed falls for that moment, the listing of
this very device and of whom it talks with among it. It has to go on talking until it knows better.
"""

from __future__ import annotations

from pathlib import Path

import trio

from harness.devices import Device, admit, blank
from harness.devices import found as found_device
from harness.lan import MemoryLan
from harness.mesh_world import Device as Store
from harness.mesh_world import found
from meshd.daemon import removal, snapshot
from meshd.profile import version
from meshd.profile.claim import Kind, Role


def only(one: Store, other: Store, *kinds: Kind) -> list[bytes]:
    return [raw for raw in one.lacking(other) if version.parse(raw).claim.kind in kinds]


def test_a_device_that_hears_of_the_cut_before_the_chain_is_undecided_and_then_a_device_again() -> None:
    laptop = found()
    desktop, phone = laptop.admit("desktop", Role.ADMIN), laptop.admit("phone")
    laptop.add("one.example", secret="while the phone was away")
    desktop.pull(laptop)
    desktop.write(lambda pen: removal.remove(pen, [laptop.udf], master_key=laptop.master_key))
    phone.take(only(phone, desktop, Kind.PERSONAL))
    authority = phone.replica.authority
    assert phone.udf not in authority.devices() and authority.undecided() == {phone.udf}
    assert not authority.can_write(phone.udf, phone.vault()) if phone.keyring.vaults else True
    seen = snapshot.take(phone.connection, phone.replica)
    assert seen.undecided == {phone.udf}
    assert seen.is_member and set(seen.devices) == {desktop.udf, phone.udf} and not seen.gone - {laptop.udf}
    phone.pull(desktop)
    assert phone.replica.authority.undecided() == frozenset()
    assert phone.replica.authority.devices() == {desktop.udf, phone.udf}
    phone.add("two.example")


def test_what_a_thief_listed_beyond_the_cut_is_undecided_no_longer_than_the_chain_is_missing() -> None:
    laptop = found()
    stolen, desktop = laptop.admit("stolen", Role.ADMIN), laptop.admit("desktop")
    stolen.pull(laptop)
    stolen.add("one.example")
    laptop.pull(stolen)
    laptop.write(lambda pen: removal.remove(pen, [stolen.udf], master_key=laptop.master_key))
    rogue = stolen.admit("rogue")
    desktop.take(only(desktop, laptop, Kind.PERSONAL))
    desktop.take(only(desktop, stolen, Kind.PERSONAL))
    assert desktop.replica.authority.undecided() == {rogue.udf}  # he could have been within the cut
    assert desktop.take(desktop.lacking(laptop)).profiles  # whoever looks at the snapshot is told to look again
    assert desktop.replica.authority.undecided() == frozenset()
    assert rogue.udf in snapshot.take(desktop.connection, desktop.replica).fallen
    stolen.add("without-end.example")
    desktop.take(only(desktop, stolen, Kind.ITEM)[1:])  # a hole beyond the cut changes nothing
    assert desktop.replica.authority.undecided() == frozenset()


async def test_a_device_that_was_away_when_the_founder_was_removed_comes_back(home: Path) -> None:
    lan = MemoryLan()
    laptop, desktop, phone = (blank(home, lan, name) for name in ("laptop", "desktop", "phone"))
    try:
        master = await found_device(laptop)
        await admit(laptop, desktop, Role.ADMIN, master)
        await admit(laptop, phone)
        async with trio.open_nursery() as nursery:
            for one in (laptop, desktop):
                await nursery.start(one.run)
            made = await laptop.add("one.example", "alice", "while the phone was away")
            await desktop.until_same(laptop)
            laptop.stop()
            await desktop.daemon.write(lambda pen: removal.remove(pen, [laptop.udf], master_key=master))
            await nursery.start(phone.run)
            await in_step(phone, desktop)
            assert phone.passwords() == {made.identifier: "while the phone was away"}
            await phone.edit(made.identifier, "and back")
            await in_step(desktop, phone)
            nursery.cancel_scope.cancel()
    finally:
        for one in (laptop, desktop, phone):
            one.daemon.close()


async def in_step(one: Device, other: Device) -> None:
    await one.until_same(other)
    await one.until(lambda: other.udf in one.daemon.snapshot.devices and one.udf in one.daemon.snapshot.devices)
