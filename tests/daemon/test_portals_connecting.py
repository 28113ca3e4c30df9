"""Joining a mesh through its portal: by fingerprint, by comparing, by an invitation; portals and people that say no."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
import trio

from harness import devices as harness
from harness.devices import Device
from harness.lan import MemoryLan
from harness.portal_http import HttpPortal
from meshd.crypto.keys import SigningKey
from meshd.crypto.sealing import LEAST_KDF
from meshd.daemon import removal
from meshd.daemon.portals.online import Online, online
from meshd.errors import BadRequest, Denied, NotFound, StoreError
from meshd.net.srv import Found, Services
from meshd.profile.claim import Role
from meshd.store import events, portals_client

pytestmark = pytest.mark.draft("Connect device", "ConnectStart", "ConnectStatus", "ConnectPending", "ConnectComplete")

ACCOUNT = "alice@example.net"


async def no_dns(name: str) -> Found:
    return Found()


@dataclass
class Pair:
    """An admin with an account, and a device that belongs to no mesh."""

    portal: HttpPortal
    admin: Device
    phone: Device
    here: Online  # the admin's
    there: Online
    master: SigningKey

    @property
    def mesh(self) -> str:
        return self.admin.daemon.snapshot.mesh

    async def connect(self, **wishes: object):  # type: ignore[no-untyped-def]
        wishes = {"account": ACCOUNT, "plain": True, "name": "phone", "no_passphrase": True} | wishes
        return await self.there.connections.create({k: v for k, v in wishes.items() if v is not None})

    async def asking(self) -> list[dict[str, object]]:
        """Who waits, once somebody does."""
        while True:
            found: list[dict[str, object]] = (await self.here.requests.pending())["pending"]
            if found:
                return found
            await trio.sleep(0.05)


async def until(followed: object, *states: str) -> None:
    with trio.fail_after(20):
        while followed.state not in states:  # type: ignore[attr-defined]
            assert not followed.ended, followed.to_json()  # type: ignore[attr-defined]
            await followed.past(followed.state, 20)  # type: ignore[attr-defined]


@contextlib.asynccontextmanager
async def pair(home: Path, address: str = "") -> AsyncIterator[Pair]:
    lan = MemoryLan()
    admin, phone = (harness.blank(home, lan, name) for name in ("laptop", "phone"))
    portal = HttpPortal(now=lambda: int(time.time()))
    try:
        master = await harness.found(admin)
        async with trio.open_nursery() as nursery:
            await nursery.start(portal.run)
            both = [online(one.daemon, portal.client(), Services(no_dns), kdf=LEAST_KDF) for one in (admin, phone)]
            for one in both:
                await nursery.start(one.run)
            await both[0].portals.add(ACCOUNT, address, None, plain=True)
            yield Pair(portal, admin, phone, *both, master)
            nursery.cancel_scope.cancel()
    finally:
        admin.daemon.close()
        phone.daemon.close()


def passwords(device: Device) -> set[str]:
    return set(device.passwords().values())


async def test_a_device_joins_by_the_mesh_s_fingerprint_and_syncs(home: Path) -> None:
    async with pair(home) as net:
        await net.admin.add("example.net", "alice", "secret")
        joining = await net.connect(fingerprint=net.mesh.lower())
        (one,) = await net.asking()
        assert one["proof"] == "fp1"
        await until(joining, "requested")
        assert one["id"] == joining.own
        told = await net.here.requests.accept(str(one["id"])[:11], Role.MEMBER, None, None, None)
        assert told["delivered"]
        await until(joining, "done")
        await net.phone.until(lambda: passwords(net.phone) == {"secret"})
        await net.phone.add("other.example", "bob", "written on the phone")
        await net.admin.until(lambda: passwords(net.admin) == {"secret", "written on the phone"})
        assert (await net.here.requests.pending())["pending"] == []


async def test_a_device_is_called_what_its_person_said(home: Path) -> None:
    from meshd.daemon import names

    async with pair(home) as net:
        joining = await net.connect(fingerprint=net.mesh)
        (one,) = await net.asking()
        await net.here.requests.accept(str(one["id"]), Role.MEMBER, None, None, None)
        await until(joining, "done")
        await net.admin.until(lambda: names.read(net.admin.daemon).get(joining.own) == "phone")


async def test_a_device_that_was_let_in_stays_inactive_until_it_is_confirmed_here_too(home: Path) -> None:
    async with pair(home) as net:
        joining = await net.connect()
        (one,) = await net.asking()
        assert one["fingerprint_words"] == joining.to_json()["own_words"]
        await net.here.requests.accept(str(one["id"]), Role.MEMBER, "phone", None, None)
        with trio.fail_after(20):
            while not joining.accepted:
                await joining.moved.after(joining.moved.count)
        assert joining.state == "comparing"
        assert not net.phone.daemon.snapshot.connected
        assert joining.to_json()["mesh"] == net.mesh
        await net.there.connections.answer(joining.id, accept=True)
        await until(joining, "done")
        assert net.phone.daemon.snapshot.mesh == net.mesh


async def test_a_mesh_that_is_not_the_person_s_is_not_joined(home: Path) -> None:
    async with pair(home) as net:
        joining = await net.connect()
        await net.asking()
        await net.there.connections.answer(joining.id, accept=False)
        await until(joining, "failed")
        assert joining.to_json()["error"]["code"] == "refused"
        assert not net.phone.daemon.snapshot.connected
        assert not net.phone.daemon.paths.keystore.exists()


async def test_another_mesh_than_the_fingerprint_says_is_an_alarm_before_anything_is_sent(home: Path) -> None:
    async with pair(home) as net:
        joining = await net.connect(fingerprint=net.admin.udf)
        await until(joining, "failed")
        assert joining.to_json()["error"]["code"] == "possible-attack"
        assert "ConnectStart" not in net.portal.said


async def test_a_rejected_device_is_told_so(home: Path) -> None:
    async with pair(home) as net:
        joining = await net.connect(fingerprint=net.mesh)
        (one,) = await net.asking()
        assert (await net.here.requests.reject(str(one["id"])))["delivered"]
        await until(joining, "failed")
        assert joining.to_json()["error"]["code"] == "refused"
        assert not net.phone.daemon.snapshot.connected


async def test_an_account_that_is_not_there_is_said_to_be_none(home: Path) -> None:
    async with pair(home) as net:
        joining = await net.connect(account="nobody@example.net")
        await until(joining, "failed")
        assert joining.to_json()["error"]["code"] == "not-found"


async def test_an_invitation_through_the_portal_needs_no_comparison(home: Path) -> None:
    async with pair(home) as net:
        await net.admin.add("example.net", "alice", "secret")
        invitation = await net.here.requests.invite(None, Role.MEMBER, 300, None, None)
        joining = await net.connect(account=None, uri=invitation.uri.text)
        await until(joining, "done")
        await until(invitation, "admitted")
        await net.phone.until(lambda: passwords(net.phone) == {"secret"})


async def test_an_invitation_says_where_the_portal_is_so_that_nothing_is_typed(home: Path) -> None:
    async with pair(home, address="192.0.2.7:8443") as net:
        invitation = await net.here.requests.invite(None, Role.MEMBER, 300, None, None)
        assert "&h=192.0.2.7:8443&i=1" in invitation.uri.text
        joining = await net.connect(account=None, plain=None, uri=invitation.uri.text)
        await until(joining, "done")
        assert [(row.address, row.plain) for row in rows(net.phone)] == [("192.0.2.7:8443", True)]


async def test_an_admin_without_a_passphrase_is_let_in_only_where_that_is_insisted_on(home: Path) -> None:
    async with pair(home) as net:
        master = net.master
        invitation = await net.here.requests.invite(None, Role.ADMIN, 300, None, master)
        joining = await net.connect(account=None, uri=invitation.uri.text)
        await until(joining, "failed")
        assert "passphrase" in joining.to_json()["error"]["hint"]
        await until(invitation, "failed")
        assert invitation.to_json()["error"]["code"] == "denied"
        joining = await net.connect(fingerprint=net.mesh)
        (one,) = await net.asking()
        assert one["sealed"] is False
        with pytest.raises(Denied, match="passphrase"):
            await net.here.requests.accept(str(one["id"]), Role.ADMIN, None, None, master)
        await net.here.requests.accept(str(one["id"]), Role.ADMIN, None, None, master, force=True)
        await until(joining, "done")


async def test_an_admin_s_watchers_hear_of_a_device_that_asks(home: Path) -> None:
    async with pair(home) as net:
        joining = await net.connect(fingerprint=net.mesh)
        await until(joining, "requested")
        connection = net.admin.daemon.reader.connection
        (one,) = await net.asking()
        for _ in range(2):  # the second look tells nothing anew
            await net.here.requests.tell_of_askers()
        told = [found.data for found in events.since(connection, 0, 1000) if found.type == "asking"]
        assert told == [{"device": joining.own, "name": ACCOUNT}]
        asked = datetime.fromisoformat(str(one["asked"])).timestamp()
        assert abs(asked - time.time()) < 60


async def test_a_portal_that_fails_while_who_asks_is_looked_for_ends_nothing(home: Path) -> None:
    async with pair(home) as net:
        joining = await net.connect()
        (one,) = await net.asking()
        await net.here.requests.accept(str(one["id"]), Role.MEMBER, None, None, None)
        await net.there.connections.cancel(joining.id)
        net.portal.memory.answers.clear()
        again = await net.connect()  # it is of the mesh, and asks again: it is answered by the next look
        with trio.fail_after(20):
            while not net.portal.memory.pending(ACCOUNT, net.portal.now()):
                await trio.sleep(0.01)
        write = net.admin.daemon.write

        async def fail(fn: object) -> None:
            raise StoreError("the disk went away")

        net.admin.daemon.write = fail  # type: ignore[method-assign,assignment]
        await net.here.requests.tell_of_askers()
        net.admin.daemon.write = write  # type: ignore[method-assign]
        await net.there.connections.cancel(again.id)


async def test_a_secret_that_is_too_short_for_this_path_is_refused(home: Path) -> None:
    async with pair(home) as net:
        for uri in (
            f"mesh-pair:?a=alice%40example.net&m={net.mesh}&s=c2VjcmV0",
            f"mesh-pair:?a=alice%40example.net&m={net.mesh}&s=",
            "mesh-pair:?v=1&c=7-orbit-walnut",
        ):
            with pytest.raises(BadRequest):
                await net.connect(account=None, uri=uri)


async def test_a_wrong_secret_lets_nobody_in(home: Path) -> None:
    async with pair(home) as net:
        invitation = await net.here.requests.invite(None, Role.MEMBER, 300, None, None)
        wrong = f"mesh-pair:?a=alice%40example.net&m={net.mesh}&s=AAAAAAAAAAAAAAAAAAAAAA"
        joining = await net.connect(account=None, uri=wrong)
        (one,) = await net.asking()
        assert one["proof"] == "unproved"  # it says that it was invited, and nobody shall take that for a proof
        await trio.sleep(1.5)  # the invitation has looked since
        assert invitation.state == "open"
        await net.there.connections.cancel(joining.id)


async def test_members_see_and_decide_nothing(home: Path) -> None:
    async with pair(home) as net:
        joining = await net.connect(fingerprint=net.mesh)
        (one,) = await net.asking()
        await net.here.requests.accept(str(one["id"]), Role.MEMBER, None, None, None)
        await until(joining, "done")
        with pytest.raises(Denied):
            await net.there.requests.pending()
        with pytest.raises(BadRequest, match="4 characters"):
            await net.here.requests.accept("M-AA", Role.MEMBER, None, None, None)
        with pytest.raises(NotFound):
            await net.here.requests.accept("MAAAA", Role.MEMBER, None, None, None)


async def test_a_device_that_crashed_after_it_was_let_in_asks_again_and_is_let_in_at_once(home: Path) -> None:
    async with pair(home) as net:
        joining = await net.connect()
        (one,) = await net.asking()
        await net.here.requests.accept(str(one["id"]), Role.MEMBER, None, None, None)
        await net.there.connections.cancel(joining.id)
        assert not net.phone.daemon.snapshot.connected
        again = await net.connect(fingerprint=net.mesh)
        await until(again, "done")
        assert again.own == joining.own


async def test_a_removed_device_learns_it_from_what_anybody_may_read(home: Path) -> None:
    async with pair(home) as net:
        joining = await net.connect(fingerprint=net.mesh)
        (one,) = await net.asking()
        await net.here.requests.accept(str(one["id"]), Role.MEMBER, None, None, None)
        await until(joining, "done")
        await net.phone.until(lambda: bool(net.there.portals.running))
        await net.admin.daemon.write(lambda pen: removal.remove(pen, [joining.own]))
        await net.phone.until(lambda: not net.phone.daemon.snapshot.is_member)
        await net.phone.until(lambda: not net.there.portals.running)


async def test_the_account_is_known_on_the_new_device_and_given_up_for_all(home: Path) -> None:
    async with pair(home) as net:
        joining = await net.connect(fingerprint=net.mesh)
        (one,) = await net.asking()
        await net.here.requests.accept(str(one["id"]), Role.MEMBER, None, None, None)
        await until(joining, "done")
        await net.phone.until(lambda: [row.item != "" for row in rows(net.phone)] == [True])
        await net.here.portals.remove(ACCOUNT)
        await net.phone.until(lambda: not net.there.portals.running)
        assert rows(net.phone) == []


def rows(device: Device) -> list[portals_client.PortalRow]:
    return portals_client.every(device.daemon.reader.connection)
