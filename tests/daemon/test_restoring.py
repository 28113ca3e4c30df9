"""The way back, step by step: whatever it is interrupted at, it can be gone to its end, and nothing is half there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from harness import devices as harness
from harness.devices import Device
from harness.faulty import Faults, Injected, Interrupts, spread
from harness.lan import MemoryLan
from meshd.crypto.keys import SigningKey
from meshd.crypto.sealing import LEAST_KDF
from meshd.daemon import drilling, masterkeys, recovering, removal, removing, restoring, searching
from meshd.daemon.background import with_pen
from meshd.daemon.portals.link import Where
from meshd.daemon.restoring import Restored
from meshd.daemon.searching import Found
from meshd.daemon.verifying import check
from meshd.errors import MeshError, Refused, TrustError
from meshd.portal.names import AccountName
from meshd.profile import escrow, vault
from meshd.profile.claim import Kind, Role
from meshd.profile.shares import Scheme
from meshd.store import portals_client as store
from meshd.store import versions

pytestmark = pytest.mark.draft("Master profile recovery")

MASTER, DEVICE = "master passphrase", "device secret"
SCHEME = Scheme.simple(2, 3)
PORTAL = Where(AccountName("alice", "example.net"), "", plain=True)


@dataclass
class World:
    """A mesh whose one device is lost at any moment, and what others would give of it."""

    home: Path
    lan: MemoryLan
    laptop: Device
    key: bytes  # of the shares that count
    secrets: set[str]

    def found(self, where: Where | None = None) -> Found:
        """What somebody who holds all ciphertext gives to who has the shares."""
        here = searching.held(self.laptop.daemon, self.key)
        assert here is not None
        return replace(here, raws=self.raws(Kind.PERSONAL, Kind.CONTAINER), where=where)

    def raws(self, *kinds: Kind) -> tuple[bytes, ...]:
        connection = self.laptop.daemon.reader.connection
        rows = [row for kind in kinds for row in versions.of_kind(connection, kind)]
        return tuple(raw for row in rows if (raw := versions.raw(connection, row.vid)) is not None)

    def blank(self, name: str) -> Device:
        return harness.blank(self.home, self.lan, name)

    async def sync(self, device: Device) -> None:
        """What sync brings to a device that is in the mesh."""
        raws = self.raws(Kind.PERSONAL, Kind.CONTAINER, Kind.ITEM)
        verified = check(raws, [None] * len(raws), device.daemon.replica.directory)
        assert not verified.refused and not verified.unknown
        daemon = device.daemon
        await daemon.transact(lambda c, o: daemon.replica.accept(c, verified.versions, device.now_ms(), o))

    async def whole(self, device: Device) -> None:
        """The mesh is back on a device: an admin that reads all there is, whose shares count, and that writes."""
        await self.sync(device)
        daemon = device.daemon
        assert daemon.snapshot.mesh == self.laptop.daemon.snapshot.mesh
        assert daemon.snapshot.own in daemon.replica.authority.admins()
        assert set(device.passwords().values()) == self.secrets
        assert await with_pen(daemon, wrapped_for_all)
        assert (await drilling.drill(daemon, self.key, (), ())).success
        await device.add("later.example", "me", "later")
        assert "later" in device.passwords().values()


def wrapped_for_all(pen: Any) -> bool:
    """Does every vault open for this device by itself, without the master escrow key?"""
    own = pen.keyring.device.dek.udf
    heads = [head for opened in pen.keyring.vaults.values() for head in (*opened.heads, *opened.unopened)]
    return bool(heads) and all(own in vault.container_recipients(head) for head in heads)


async def new_shares(device: Device, passphrase: str = MASTER, *, replaces: bool = False) -> bytes:
    key = await masterkeys.unseal(device.daemon, passphrase)
    prepared, told, letters = await recovering.prepare(device.daemon, key, recovering.Wish(SCHEME, replaces=replaces))
    await device.daemon.write(lambda pen: recovering.commit(pen, key, prepared))
    return await drilling.combine(told[1:], "", letters)


@asynccontextmanager
async def world(home: Path) -> AsyncIterator[World]:
    lan = MemoryLan()
    laptop = harness.blank(home, lan, "laptop")
    try:
        await harness.found(laptop)
        await laptop.add("github.com", "alice", "first")
        key = await new_shares(laptop)
        await laptop.add("example.org", "alice", "second")
        yield World(home, lan, laptop, key, {"first", "second"})
    finally:
        laptop.daemon.close()


def sealed(key: SigningKey, passphrase: str = "another master passphrase") -> bytes:
    return escrow.seal_master(key, passphrase, harness.secrets.token_bytes, LEAST_KDF)


async def restored(device: Device, found: Found) -> Restored:
    """As `recovery restore` does it, on a device in no mesh or on one that is in it."""
    daemon, blob = device.daemon, sealed(found.escrowed.master)
    if daemon.snapshot.connected:
        if daemon.locked:
            await daemon.unlock(DEVICE)
        return await restoring.promote(daemon, found, blob, device.name)
    return await restoring.restore(daemon, found, DEVICE, device.name, blob, LEAST_KDF, lambda: True)


async def test_a_restore_that_crashes_at_any_step_is_gone_to_its_end_by_the_same_shares(home: Path) -> None:
    async with world(home) as there:
        found = there.found(PORTAL)
        number, states = 0, set()
        while True:
            device, fault = there.blank(f"new{number}"), Faults(None)
            try:
                fault.at = number
                device.fault = fault
                device.reopen()
                try:
                    await restored(device, found)
                except Injected:
                    pass
                device.fault = None
                device.reopen()
                states.add(device.daemon.snapshot.connected)
                # Either it never was in the mesh, or it is, with all that belongs to that.
                assert device.daemon.snapshot.connected or not device.holds()
                assert not device.daemon.cloned
                assert (await restored(device, found)).missing == 0
                assert [row.account for row in store.every(device.daemon.reader.connection)] == [str(PORTAL.account)]
                await there.whole(device)
                assert (await masterkeys.unseal(device.daemon, "another master passphrase")).udf == found.mesh
            finally:
                device.daemon.close()
            if fault.struck is None:
                break
            number += 1
        assert number >= 9
        assert states == {False, True}


async def test_a_restore_that_is_stopped_inside_a_transaction_leaves_nothing_half_done(home: Path) -> None:
    async with world(home) as there:
        found = there.found(PORTAL)

        async def life(name: str, stop: Interrupts, *, dies: bool) -> int:
            """Of one device; how many lots its first attempt took."""
            device = there.blank(name)
            try:
                await device.daemon.transact(lambda c, o: stop.arm(c))
                try:
                    await restored(device, found)
                except MeshError:
                    assert stop.at is not None
                lots, stop.at = stop.lots, None
                if dies:
                    device.reopen()
                assert device.daemon.snapshot.connected or not device.holds()
                assert (await restored(device, found)).missing == 0
                await there.whole(device)
                return lots
            finally:
                device.daemon.close()

        for place in spread(await life("free", Interrupts(None), dies=False), 5):
            await life(f"dies{place}", Interrupts(place), dies=True)
            await life(f"lives{place}", Interrupts(place, once=True), dies=False)


async def test_vaults_that_come_after_a_crash_are_opened_when_the_shares_are_given_again(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restoring, "SYNC_SECONDS", 0.05)
    async with world(home) as there:
        few = replace(there.found(), raws=there.raws(Kind.PERSONAL))
        device = there.blank("new")
        try:
            assert (await restored(device, few)).missing == 7
            device.reopen()
            await there.sync(device)
            await device.daemon.unlock(DEVICE)
            assert not device.daemon.unlocked().vaults
            for number in range(20):
                device.fault = fault = Faults(number)
                device.reopen()
                fault.at = number
                try:
                    assert (await restored(device, few)).missing == 0
                except Injected:
                    pass
                if fault.struck is None:
                    break
            device.fault = None
            device.reopen()
            await device.daemon.unlock(DEVICE)
            await there.whole(device)
        finally:
            device.daemon.close()


async def test_a_member_becomes_the_admin_of_a_mesh_whose_admins_are_lost_whatever_it_is_stopped_at(home: Path) -> None:
    async with world(home) as there:
        found = there.found()
        number = 0
        while True:
            device, fault = there.blank(f"phone{number}"), Faults()
            try:
                await harness.admit(there.laptop, device, Role.MEMBER)
                await there.sync(device)
                device.fault = fault
                device.reopen()
                await device.daemon.unlock(None)
                fault.at = len(fault.points) + number
                try:
                    await restoring.promote(device.daemon, found, sealed(found.escrowed.master), device.name)
                except Injected:
                    pass
                struck, device.fault = fault.struck, None
                device.reopen()
                await device.daemon.unlock(None)
                assert set(device.passwords().values()) == there.secrets
                assert (await restoring.promote(device.daemon, found, sealed(found.escrowed.master), "x")).missing == 0
                await there.whole(device)
            finally:
                device.daemon.close()
            if struck is None:
                break
            number += 1
        assert number >= 6


async def test_a_member_that_was_away_takes_in_what_was_found_before_it_judges_the_shares(home: Path) -> None:
    async with world(home) as there:
        device = there.blank("phone")
        try:
            await harness.admit(there.laptop, device, Role.MEMBER)
            await there.sync(device)
            there.key = await new_shares(there.laptop, replaces=True)  # while it is away
            found = there.found()
            assert (await restoring.promote(device.daemon, found, sealed(found.escrowed.master), "x")).missing == 0
            await there.whole(device)
        finally:
            device.daemon.close()


async def test_a_second_restore_keeps_the_devices_that_a_lost_admin_had_taken_in(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restoring, "SYNC_SECONDS", 0.1)
    async with world(home) as there:
        phone, first, second = (there.blank(name) for name in ("phone", "first", "second"))
        try:
            await harness.admit(there.laptop, phone, Role.MEMBER)
            await there.laptop.add("example.com", "alice", "third")  # its chain ends beyond its profiles
            there.secrets.add("third")
            assert (await restored(first, there.found())).missing == 0
            await there.sync(first)
            master = await masterkeys.unseal(first.daemon, "another master passphrase")
            laptop, there.laptop = there.laptop, first
            await first.daemon.write(lambda pen: removal.remove(pen, [laptop.udf], master_key=master))
            # With profiles and containers alone it can't be told what of the laptop's stands.
            back = await restored(second, there.found())
            assert not back.complete
            assert phone.udf in second.daemon.snapshot.undecided
            assert second.daemon.snapshot.removed == {laptop.udf}
            gone = [first.daemon.snapshot.own]
            master = await masterkeys.unseal(second.daemon, "another master passphrase")
            with pytest.raises(Refused, match="Not all has come"):
                await removing.remove_device(second.daemon, {}, gone, master_key=master)
            await there.sync(second)
            assert second.daemon.snapshot.devices.keys() == {
                phone.udf,
                *(one.daemon.snapshot.own for one in (first, second)),
            }
            assert second.daemon.snapshot.roles[phone.udf] is Role.MEMBER
            assert (await restored(second, there.found())).missing == 0
            assert phone.udf in second.daemon.snapshot.devices
            await there.whole(second)
        finally:
            laptop.daemon.close()
            phone.daemon.close()
            second.daemon.close()


async def test_shares_that_were_replaced_change_nothing_on_a_new_device(home: Path) -> None:
    async with world(home) as there:
        old = there.found()
        there.key = await new_shares(there.laptop, replaces=True)
        device = there.blank("new")
        try:
            with pytest.raises(TrustError, match="replaced"):
                await restored(device, replace(old, raws=there.raws(Kind.PERSONAL, Kind.CONTAINER)))
            assert not device.daemon.snapshot.connected and not device.holds()
            assert (await restored(device, there.found())).missing == 0
            await there.whole(device)
        finally:
            device.daemon.close()
