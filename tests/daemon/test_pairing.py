"""Devices that pair as they should: whole daemons over a LAN in memory, from the code to the mesh in the store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trio

from harness.pairing_devices import (
    MASTER_PASSPHRASE,
    PASSPHRASE,
    SYNC_PORT,
    announced,
    names,
    own,
    pairing,
    said,
)
from meshd.daemon import names as device_names
from meshd.daemon import pairing_wire, removal
from meshd.errors import (
    Ambiguous,
    BadRequest,
    Denied,
    NotFound,
    WrongPassphrase,
)
from meshd.pairing.code import parse_uri
from meshd.profile.claim import Role
from meshd.store import peers, versions

pytestmark = pytest.mark.draft("Connect device")


async def test_a_device_joins_by_a_code(home: Path) -> None:
    async with pairing(home) as (_, (laptop, desktop)):
        shown = await laptop.invitations.create({})
        assert len(announced(laptop)) == 1
        joining = await desktop.ended(await desktop.connect(shown))
        assert joining.state == "done", joining.error
        await laptop.reaches(shown, "admitted")
        daemon = desktop.device.daemon
        assert daemon.snapshot.mesh == laptop.device.daemon.snapshot.mesh == joining.mesh
        assert daemon.snapshot.roles[own(desktop)] is Role.MEMBER
        assert set(daemon.snapshot.devices) == {own(laptop), own(desktop)}
        assert not daemon.locked and daemon.unlocked().find("password").name == "password"
        assert shown.device == {"id": own(desktop), "name": "desktop", "fingerprint": own(desktop)}
        assert joining.device == {"id": own(desktop), "name": "desktop", "role": "member"}
        assert names(laptop)[own(desktop)] == "desktop"
        address = f"{laptop.device.host.ip}:{SYNC_PORT}"
        assert peers.get(daemon.reader.connection, own(laptop)).addresses == (address,)


async def test_what_was_joined_outlives_a_restart(home: Path) -> None:
    async with pairing(home) as (nursery, (laptop, desktop)):
        await desktop.ended(await desktop.connect(await laptop.invitations.create({})))
        before, held = desktop.device.daemon.snapshot, desktop.device.holds()
        tier1 = desktop.device.daemon.tier1
        assert tier1 is not None and tier1.discovery  # it is found and finds the others while it is locked
        await desktop.restart(nursery)
        daemon = desktop.device.daemon
        assert daemon.locked and daemon.snapshot == before and desktop.device.holds() == held
        assert daemon.tier1 is not None and daemon.tier1.discovery == tier1.discovery
        with pytest.raises(WrongPassphrase):
            await daemon.unlock("another one")
        await daemon.unlock(PASSPHRASE)
        assert not daemon.cloned
        assert versions.count_states(daemon.reader.connection) == {}  # nothing waits, nothing is quarantined


async def test_a_device_joins_by_a_uri(home: Path) -> None:
    async with pairing(home) as (_, (laptop, desktop)):
        shown = await laptop.invitations.create({})
        assert shown.code not in shown.uri
        joining = await desktop.ended(await desktop.connect("", uri=shown.uri))
        assert joining.state == "done", joining.error


async def test_an_address_that_does_not_answer_holds_nobody_up(home: Path) -> None:
    async with pairing(home) as (_, (laptop, desktop)):
        shown = await laptop.invitations.create({})
        uri = parse_uri(shown.uri)
        dead = replace(uri, addresses=("10.9.9.9:1", *uri.addresses)).text
        with trio.fail_after(5):
            joining = await desktop.ended(await desktop.connect("", uri=dead))
        assert joining.state == "done", joining.error


async def test_a_uri_whose_addresses_are_old_is_found_by_its_token(home: Path) -> None:
    async with pairing(home) as (_, (laptop, desktop)):
        shown = await laptop.invitations.create({})
        old = replace(parse_uri(shown.uri), addresses=(f"{laptop.device.host.ip}:1",)).text
        joining = await desktop.ended(await desktop.connect("", uri=old))
        assert joining.state == "done", joining.error


async def test_a_device_joins_at_an_address_that_a_person_typed(home: Path) -> None:
    async with pairing(home) as (_, (laptop, desktop)):
        shown = await laptop.invitations.create({})
        address = parse_uri(shown.uri).addresses[0]
        joining = await desktop.ended(await desktop.connect(shown, address=address))
        assert joining.state == "done", joining.error


async def test_a_device_without_a_passphrase_joins_as_a_member(home: Path) -> None:
    async with pairing(home) as (_, (laptop, desktop)):
        shown = await laptop.invitations.create({})
        await desktop.ended(await desktop.connect(shown, passphrase=None, no_passphrase=True))
        keystore = desktop.device.daemon.keystore
        assert keystore is not None and not keystore.needs_passphrase


async def test_after_joining_the_first_sync_is_followed(home: Path) -> None:
    async with pairing(home) as (nursery, (laptop, desktop)):
        made = [await laptop.device.add(f"site{number}.example", "alice", "secret") for number in range(3)]
        await nursery.start(laptop.device.run)
        shown = await laptop.invitations.create({})

        async def sync_once_joined() -> None:
            while not desktop.device.daemon.snapshot.connected or desktop.device.daemon.tier1 is None:
                await desktop.device.daemon.changed.after(desktop.device.daemon.changed.count)
            await desktop.device.run()

        nursery.start_soon(sync_once_joined)
        desktop.follow_sync()
        joining = await desktop.ended(await desktop.connect(shown))
        assert joining.state == "done", joining.error
        assert joining.received >= len(made)
        assert joining.admin == "laptop"
        assert set(desktop.device.passwords()) == {item.identifier for item in made}
        written = await desktop.device.add("desktop.example", "alice", "from the new one")
        await laptop.device.until(lambda: written.identifier in laptop.device.passwords())


async def test_a_relay_joins_and_reads_no_vault(home: Path) -> None:
    async with pairing(home) as (_, (laptop, server)):
        shown = await laptop.invitations.create({"role": "relay"})
        joining = await server.ended(await server.connect(shown))
        assert joining.device is not None and joining.device["role"] == "relay"
        with pytest.raises(NotFound):
            server.device.daemon.unlocked().find("password")
        assert server.device.daemon.tier1 is not None and server.device.daemon.tier1.discovery


async def test_an_admin_joins_by_the_master_passphrase_and_invites_in_turn(home: Path) -> None:
    async with pairing(home, "laptop", "desktop", "phone") as (_, (laptop, desktop, phone)):
        shown = await laptop.invitations.create({"role": "admin", "master_passphrase": MASTER_PASSPHRASE})
        joining = await desktop.ended(await desktop.connect(shown))
        assert joining.state == "done", joining.error
        assert desktop.device.daemon.snapshot.admins == {own(laptop), own(desktop)}
        second = await desktop.invitations.create({"role": "admin", "master_passphrase": MASTER_PASSPHRASE})
        await phone.ended(await phone.connect(second))
        assert own(phone) in desktop.device.daemon.snapshot.admins


async def test_an_admin_is_not_invited_with_a_wrong_or_absent_master_passphrase(home: Path) -> None:
    async with pairing(home) as (_, (laptop, _)):
        with pytest.raises(WrongPassphrase):
            await laptop.invitations.create({"role": "admin", "master_passphrase": "something else"})
        with pytest.raises(BadRequest):
            await laptop.invitations.create({"role": "admin"})
        assert not announced(laptop)


async def test_a_device_without_a_passphrase_becomes_an_admin_only_by_force(home: Path) -> None:
    async with pairing(home) as (_, (laptop, desktop)):
        request = {"role": "admin", "master_passphrase": MASTER_PASSPHRASE}
        shown = await laptop.invitations.create(request)
        joining = await desktop.ended(await desktop.connect(shown, passphrase=None, no_passphrase=True))
        said(joining.error, Denied, "passphrase")
        assert "passphrase" in str((await laptop.reaches(shown, "failed")).error)
        assert not desktop.device.daemon.paths.keystore.exists()
        shown = await laptop.invitations.create(request | {"force": True})
        joining = await desktop.ended(await desktop.connect(shown, passphrase=None, no_passphrase=True))
        assert joining.state == "done", joining.error


async def test_a_narrowed_member_reads_what_it_was_granted(home: Path) -> None:
    async with pairing(home) as (_, (laptop, desktop)):
        shown = await laptop.invitations.create({"grant": ["password:read", "note:write"]})
        await desktop.ended(await desktop.connect(shown))
        keyring = desktop.device.daemon.unlocked()
        assert {opened.name for opened in keyring.vaults.values() if opened.container.name} == {"password", "note"}
        with pytest.raises(Denied):
            await desktop.device.add("github.com", "alice", "secret")
        for wish in ("password", "password:own", "nothing:read", "group:read"):
            with pytest.raises(BadRequest):
                await laptop.invitations.create({"grant": [wish]})
        with pytest.raises(BadRequest):
            await laptop.invitations.create({"grant": ["password:read"], "role": "relay"})


async def test_a_name_that_is_taken_gets_a_number(home: Path) -> None:
    async with pairing(home, "laptop", "second", "third") as (_, (laptop, second, third)):
        for joiner in (second, third):
            joiner.device.name = "Laptop"
            await joiner.ended(await joiner.connect(await laptop.invitations.create({})))
        found = names(laptop)
        assert (found[own(second)], found[own(third)]) == ("Laptop 2", "Laptop 3")


async def test_the_name_of_a_removed_device_is_free_again(home: Path) -> None:
    async with pairing(home, "laptop", "second", "third") as (_, (laptop, second, third)):
        for joiner in (second, third):
            joiner.device.name = "phone"
            await joiner.ended(await joiner.connect(await laptop.invitations.create({})))
            if joiner is second:
                daemon = laptop.device.daemon
                await daemon.write(lambda pen: removal.remove(pen, [own(second)]))
        found = names(laptop)
        assert (found[own(second)], found[own(third)]) == ("phone", "phone")
        assert await device_names.resolve(daemon, "phone", removed=True) == own(third)
        with pytest.raises(Ambiguous, match=rf"phone {own(third)}, phone \(removed\) {own(second)}"):  # whose is meant?
            device_names.find(daemon, "phone", alike=True)
        assert device_names.find(daemon, own(second), alike=True) == own(second)


def test_a_free_name_stays_within_its_length_and_what_is_no_name_is_replaced() -> None:
    long = "x" * 64
    assert pairing_wire.free_name(long, {"U": long}, "V") == "x" * 62 + " 2"
    assert pairing_wire.free_name(long, {"U": long}, "U") == long
    assert pairing_wire.free_name("MAAAA-" * 7 + "MAAAA", {}, "V") == "device"
