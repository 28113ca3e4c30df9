"""A device that renews its keys where a portal is all that joins it with the others: it stays in step, and the portal
and the others come to know the new keys."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from harness import devices as harness
from harness.devices import Device
from harness.lan import MemoryLan
from harness.portal_http import HttpPortal
from meshd.crypto.sealing import LEAST_KDF
from meshd.daemon import renewal
from meshd.daemon.portals import renewed
from meshd.daemon.portals.online import Online, online
from meshd.net.srv import Found, Services
from meshd.profile.claim import Role

pytestmark = pytest.mark.draft("ConnectStart", "ConnectPending", "ConnectComplete", "Publish")

ACCOUNT = "alice@example.net"


async def no_dns(name: str) -> Found:
    return Found()


@dataclass
class Pair:
    portal: HttpPortal
    laptop: Device
    phone: Device
    here: Online
    there: Online


@contextlib.asynccontextmanager
async def pair(home: Path, role: Role) -> AsyncIterator[Pair]:
    """An admin and another device, both at a portal and in step."""
    laptop, phone = (harness.blank(home, MemoryLan(), name) for name in ("laptop", "phone"))
    portal = HttpPortal(now=lambda: int(time.time()))
    try:
        master = await harness.found(laptop)
        async with trio.open_nursery() as nursery:
            await nursery.start(portal.run)
            both = [online(one.daemon, portal.client(), Services(no_dns), kdf=LEAST_KDF) for one in (laptop, phone)]
            for one in both:
                await nursery.start(one.run)
            here, there = both
            await here.portals.add(ACCOUNT, "", None, plain=True)
            invitation = await here.requests.invite(None, role, 300, None, master, force=True)
            wishes = {"uri": invitation.uri.text, "name": "phone", "no_passphrase": True}
            joining = await there.connections.create(wishes)
            with trio.fail_after(20):
                while not joining.ended:
                    await joining.moved.after(joining.moved.count)
            assert joining.state == "done", joining.to_json()
            yield Pair(portal, laptop, phone, here, there)
            nursery.cancel_scope.cancel()
    finally:
        laptop.daemon.close()
        phone.daemon.close()


@pytest.mark.parametrize("role", [Role.MEMBER, Role.ADMIN])
async def test_a_device_that_renewed_its_keys_is_known_by_them_at_the_portal_and_to_the_others(
    home: Path, role: Role, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewed, "LOOK_SECONDS", 0.1)
    async with pair(home, role) as net:
        phone, laptop = net.phone, net.laptop
        udf, old = phone.daemon.snapshot.own, phone.daemon.tier1.dak.udf  # type: ignore[union-attr]
        await renewal.renew(phone.daemon)
        new = phone.daemon.tier1.dak.udf  # type: ignore[union-attr]
        assert new != old
        item = await phone.add("one.example", "alice", "written under the new keys")
        await laptop.until(lambda: item.identifier in laptop.passwords())  # it is not shut out meanwhile
        with trio.fail_after(20):
            while [one.mesh for one in net.portal.memory.devices_of(new)] != [laptop.daemon.snapshot.mesh]:
                await net.here.requests.tell_of_askers()
                await trio.sleep(0.05)
        await laptop.until(lambda: laptop.daemon.replica.device(laptop.daemon.reader.connection, udf).dak.udf == new)
        assert (await net.here.requests.pending())["pending"] == []
        await laptop.edit(item.identifier, "read under the new keys")
        await phone.until(lambda: phone.passwords() == {item.identifier: "read under the new keys"})
        with trio.fail_after(20):
            while phone.daemon.tier1.spare is not None:  # type: ignore[union-attr]
                await trio.sleep(0.05)
