"""A portal that is away, slow, forgetful or lying, and devices that crash: nothing is lost and nothing is believed."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from harness import devices as harness
from harness.devices import Device
from harness.lan import MemoryLan
from harness.portal_http import HttpPortal, raw
from harness.portal_people import Person, tagged
from meshd.daemon import authoring
from meshd.daemon.portals.roster import Portals
from meshd.daemon.portals.state import NotListed, Portal
from meshd.errors import Denied, Exists, MeshError, NetworkError
from meshd.net.http import Response
from meshd.net.portal_client import HttpClient, Place
from meshd.net.srv import Found, Services
from meshd.portal import codec
from meshd.portal.messages import CreateRequest, GetRecordsResponse
from meshd.portal.structures import Binary, DataItem
from meshd.portal.view import CLOSED, OPEN, SUSPENDED
from meshd.profile.claim import Role
from meshd.store import portals_client as store
from meshd.store import versions

ACCOUNT = "alice@example.net"


async def no_dns(name: str) -> Found:
    return Found()


class World:
    """One admin with an account."""

    def __init__(self, home: Path, nursery: trio.Nursery) -> None:
        self.device = harness.blank(home, MemoryLan(), "laptop")
        self.portal = HttpPortal(now=lambda: int(time.time()))
        self.nursery = nursery
        self.portals: Portals

    async def start(self) -> None:
        self.portals = Portals(self.device.daemon, self.portal.client(), Services(no_dns))
        self.scope = trio.CancelScope()

        async def run(*, task_status: trio.TaskStatus[None]) -> None:
            with self.scope:
                await self.portals.run(task_status=task_status)

        await self.nursery.start(run)

    @property
    def one(self) -> Portal:
        return self.portals.running[ACCOUNT]

    async def until_in_step(self) -> None:
        await self.device.until(lambda: ACCOUNT in self.portals.running and self.one.in_step)

    async def restart(self, *, locked: bool = False) -> None:
        """The daemon ends and begins anew."""
        self.scope.cancel()
        await trio.testing.wait_all_tasks_blocked(0.01)
        self.device.reopen()
        if not locked:
            await self.device.daemon.unlock(None)
        await self.start()


@asynccontextmanager
async def world(home: Path, *, add: bool = True) -> AsyncIterator[World]:
    made: World | None = None
    try:
        async with trio.open_nursery() as nursery:
            made = World(home, nursery)
            await harness.found(made.device)
            await nursery.start(made.portal.run)
            await made.start()
            if add:
                await made.portals.add(ACCOUNT, "", None, plain=True)
                await made.until_in_step()
            yield made
            nursery.cancel_scope.cancel()
    finally:
        if made is not None:
            made.device.daemon.close()


def at_portal(found: World) -> set[bytes]:
    return set(found.portal.memory.versions)


def mine(device: Device) -> set[bytes]:
    return {row[0] for row in device.daemon.reader.query("SELECT vid FROM versions")}


async def test_everything_that_was_there_before_the_account_is_published(home: Path) -> None:
    async with world(home, add=False) as found:
        for place in range(30):
            item = await found.device.add(f"{place}.example", "alice", "first")
            await found.device.edit(item.identifier, "second")  # superseded versions go too
        await found.portals.add(ACCOUNT, "", None, plain=True)
        await found.until_in_step()
        assert at_portal(found) == mine(found.device)


async def test_a_name_that_another_mesh_has_is_refused(home: Path) -> None:
    async with world(home, add=False) as found:
        other = Person("bob")
        found.portal.memory.ask(
            "CreateAccount", CreateRequest(account=ACCOUNT, profile=tagged(other.root)), other.first
        )
        with pytest.raises(Exists, match="another mesh"):
            await found.portals.add(ACCOUNT, "", None, plain=True)
        assert found.portals.running == {}


async def test_a_portal_that_does_not_know_this_device_yet_is_being_connected_to(home: Path) -> None:
    """As where another device added it a moment ago, and has not yet published everything."""
    async with world(home) as found:
        found.one.went(follow=True, error=NotListed("The portal does not know this device yet."))
        view = found.one.view()
        assert (view["state"], view["error"]["code"]) == ("connecting", "not-found")


async def test_a_portal_that_is_another_one_says_so(home: Path) -> None:
    async with world(home, add=False) as found:
        with pytest.raises(MeshError, match="can't be had; the portal says: That account belongs to another portal"):
            await found.portals.add("alice@example.org", "127.0.0.1:1", None, plain=True)


@pytest.mark.parametrize(("invite", "hint"), [(None, "--invite TOKEN"), ("spent", "ask who runs the portal")])
async def test_who_opens_an_account_without_a_good_invitation_is_told_what_to_do(
    home: Path, invite: str | None, hint: str
) -> None:
    async with world(home, add=False) as found:
        found.portal.memory.policy = dataclasses.replace(found.portal.memory.policy, accounts="invite")
        with pytest.raises(Denied, match="by invitation only") as caught:
            await found.portals.add(ACCOUNT, "", invite, plain=True)
        assert hint in (caught.value.hint or "")


async def test_a_device_that_was_away_while_the_account_was_closed_says_so(home: Path) -> None:
    async with world(home) as found:
        accounts = found.portal.memory.accounts
        accounts[ACCOUNT] = dataclasses.replace(accounts[ACCOUNT], status=CLOSED)
        found.one.nudge()
        await found.device.until(lambda: found.one.follow_error is not None)
        assert (found.one.state, found.one.view()["error"]["message"]) == (
            "refused",
            "The portal has no account of that name for this mesh any more.",
        )


async def test_what_is_written_while_the_portal_is_away_is_published_later(home: Path) -> None:
    async with world(home) as found:
        found.portal.go_down()
        found.one.nudge()
        await found.device.add("example.net", "alice", "secret")
        await found.device.until(lambda: found.one.state == "offline")
        view = found.one.view()
        assert view["behind"] == 1
        assert view["last_success"] is not None
        assert view["error"]["code"] == "network"
        found.portal.down = False
        found.one.nudge()
        await found.until_in_step()
        assert at_portal(found) == mine(found.device)


async def test_a_locked_device_publishes_and_follows(home: Path) -> None:
    async with world(home) as found:
        found.portal.go_down()
        await found.device.add("example.net", "alice", "secret")
        await found.restart(locked=True)
        assert found.device.daemon.locked
        found.portal.down = False
        await found.until_in_step()
        assert at_portal(found) == mine(found.device)


async def test_after_a_restart_nothing_is_sent_again(home: Path) -> None:
    async with world(home) as found:
        await found.device.add("example.net", "alice", "secret")
        await found.until_in_step()
        found.portal.said.clear()
        await found.restart()
        await found.until_in_step()
        assert "Publish" not in found.portal.said


async def test_a_crash_between_the_answer_and_its_record_repeats_and_loses_nothing(home: Path) -> None:
    async with world(home) as found:
        await found.device.add("example.net", "alice", "secret")
        await found.until_in_step()
        await found.device.daemon.transact(
            lambda connection, outcome: connection.execute("UPDATE portals SET cursor = 3, page_key = ''")
        )
        await found.restart()
        await found.until_in_step()
        assert at_portal(found) == mine(found.device)


async def test_a_portal_that_was_restored_from_a_backup_gets_again_what_it_lost(home: Path) -> None:
    async with world(home) as found:
        await found.device.add("example.net", "alice", "secret")
        await found.until_in_step()
        found.portal.memory = type(found.portal.memory)(policy=found.portal.memory.policy)  # not even the account
        found.one.nudge()
        await found.device.until(lambda: at_portal(found) >= mine(found.device))
        await found.until_in_step()


@pytest.mark.parametrize(
    "answer",
    [
        raw(b"<html>It works!</html>"),
        raw(b'{"GetResponse": {}}'),
        raw(b'{"GetRecordsResponse": {"Status": 201, "DataItems": [1]}}'),
        raw(b"", 204),
        raw(b'{"GetRecordsResponse": {"Status": 303}}'),
    ],
)
async def test_garbage_is_said_to_be_garbage_and_changes_nothing(home: Path, answer: Response) -> None:
    async with world(home) as found:
        before = mine(found.device)
        found.portal.answers = lambda transaction: answer
        found.one.nudge()
        await found.device.until(lambda: found.one.state == "misbehaving")
        assert mine(found.device) == before
        found.portal.answers = None
        found.one.nudge()
        await found.until_in_step()
        assert found.one.state == "connected"


def feed(*raws: bytes, key: str = "P9") -> Response:
    """A page of records with these bytes."""
    items = [DataItem(data=Binary(one)) for one in raws]
    response = GetRecordsResponse(status=201, data_items=items, page_key=key)
    body = codec._write(  # what no honest portal would write
        {"GetRecordsResponse": codec.message_tree(response)}, codec.JSON, plain=False
    )
    return raw(body)


async def test_lies_in_a_feed_are_dropped_counted_and_told(home: Path) -> None:
    async with world(home) as found:
        before = mine(found.device)
        stranger = Person("mallory")
        item = await found.device.add("example.net", "alice", "secret")
        await found.until_in_step()
        own = versions.raw(found.device.daemon.reader.connection, item.vid)
        assert own is not None
        forged = bytearray(own)
        forged[-1] ^= 1
        pages = [feed(stranger.root.raw, stranger.container().raw, bytes(forged), b"junk", key="P1000")]

        def lying(transaction: str) -> Response | None:
            if transaction != "GetRecords" or not pages:
                return None
            found.portal.mute = True  # what it would say of that cursor is another matter
            return pages.pop()

        await trio.testing.wait_all_tasks_blocked()  # the question that it holds now is not the one that gets the lies
        found.portal.answers = lying
        found.one.nudge()
        await found.device.until(lambda: found.one.lies > 0)
        assert found.one.lies == 4
        assert mine(found.device) == before | {item.vid}
        assert found.one.view()["error"]["code"] == "remote-protocol"


async def test_a_portal_that_shows_another_mesh_under_our_name_is_not_believed(home: Path) -> None:
    async with world(home) as found:
        stranger = Person("mallory")
        page = codec._write(
            {"GetResponse": {"Status": 201, "Entries": [tagged(stranger.root)]}},
            codec.JSON,
            plain=False,
        )
        missing = codec._write({"GetRecordsResponse": {"Status": 404}}, codec.JSON, plain=False)
        found.portal.answers = lambda transaction: raw(page) if transaction == "Get" else raw(missing, 404)
        found.one.nudge()
        await found.device.until(lambda: found.one.state == "refused")
        assert found.one.view()["error"]["code"] == "trust"
        assert found.device.daemon.snapshot.devices.keys() == {found.device.udf}


async def test_a_portal_that_never_answers_is_offline_after_a_while(home: Path, autojump_clock) -> None:
    portal = HttpPortal(mute=True)
    async with trio.open_nursery() as nursery:
        await nursery.start(portal.run)
        client: HttpClient = portal.client()
        place = Place("portal.example", 80, False, "example.net")
        with pytest.raises(NetworkError, match="in time"):
            await client.post(place, "/.well-known/mmm/", {}, b'{"Hello": {"HelloRequest": {}}}', most=1000, within=30)
        nursery.cancel_scope.cancel()


async def test_a_version_that_the_portal_refuses_waits_and_does_not_hold_up_the_others(home: Path) -> None:
    async with world(home) as found:
        refused = codec._write(
            {"PublishResponse": {"Status": 507, "Outcomes": [{"Status": 507}]}}, codec.JSON, plain=False
        )
        found.portal.answers = lambda transaction: raw(refused, 507) if transaction == "Publish" else None
        first = await found.device.add("one.example", "alice", "secret")
        await found.device.until(lambda: found.one.publish_error is not None)
        assert found.one.state == "refused"
        assert "full" in str(found.one.error)
        found.portal.answers = None
        second = await found.device.add("two.example", "alice", "secret")
        # The portal has it before its answer is here: until then it counts as well.
        await found.device.until(lambda: second.vid in at_portal(found) and found.one.behind() == 1)
        assert first.vid not in at_portal(found)
        await found.device.daemon.transact(lambda connection, outcome: connection.execute("UPDATE outbox SET due = 0"))
        found.one.nudge()
        await found.until_in_step()
        assert first.vid in at_portal(found)


async def test_what_the_portal_refused_goes_again_at_once_when_the_personal_profile_is_another(home: Path) -> None:
    async with world(home) as found:
        refused = codec._write(
            {"PublishResponse": {"Status": 403, "Outcomes": [{"Status": 403}]}}, codec.JSON, plain=False
        )
        found.portal.answers = lambda transaction: raw(refused, 403) if transaction == "Publish" else None
        first = await found.device.add("one.example", "alice", "secret")
        await found.device.until(lambda: found.one.publish_error is not None)
        found.portal.answers = None
        await found.device.daemon.write(lambda pen: authoring.write_profile(pen, authoring.state(pen)))
        await found.device.until(lambda: first.vid in at_portal(found))
        await found.until_in_step()


async def test_a_suspended_account_is_said_to_be_and_what_waited_goes_when_it_is_open_again(home: Path) -> None:
    async with world(home) as found:
        accounts = found.portal.memory.accounts
        accounts[ACCOUNT] = dataclasses.replace(accounts[ACCOUNT], status=SUSPENDED)
        written = await found.device.add("one.example", "alice", "secret")
        await found.device.until(lambda: found.one.publish_error is not None)
        assert (found.one.state, found.one.behind()) == ("refused", 1)
        assert "suspended" in str(found.one.error)
        accounts[ACCOUNT] = dataclasses.replace(accounts[ACCOUNT], status=OPEN)
        found.one.nudge()
        await found.until_in_step()
        assert written.vid in at_portal(found)


async def test_a_second_account_makes_a_second_copy_and_a_removed_one_is_used_no_more(home: Path) -> None:
    async with world(home) as found:
        other = HttpPortal(domain="portal.example", now=lambda: int(time.time()))
        await found.nursery.start(other.run)
        here = found.portals.http

        async def dial(address: str) -> trio.abc.Stream:
            return await (other if address.startswith("portal.example") else found.portal).dial(address)

        here._dial = dial
        await found.portals.add("alice@portal.example", "", None, plain=True)
        await found.device.add("example.net", "alice", "secret")
        second = found.portals.running["alice@portal.example"]
        await found.device.until(lambda: second.in_step)
        await found.until_in_step()
        assert set(other.memory.versions) == mine(found.device)

        await found.portals.remove(ACCOUNT)
        assert list(found.portals.running) == ["alice@portal.example"]
        later = await found.device.add("later.example", "alice", "secret")
        await found.device.until(lambda: later.vid in other.memory.versions)
        assert later.vid not in at_portal(found)
        await found.restart()
        assert store.get(found.device.daemon.reader.connection, ACCOUNT) is None


async def test_a_member_can_t_open_an_account_that_only_an_administrator_may_open(home: Path) -> None:
    async with world(home, add=False) as found:
        phone = harness.blank(home, MemoryLan(), "phone")
        try:
            await harness.admit(found.device, phone, Role.MEMBER)
            portals = Portals(phone.daemon, found.portal.client(), Services(no_dns))
            with pytest.raises(Denied, match="administrator"):
                await portals.add(ACCOUNT, "", None, plain=True)
        finally:
            phone.daemon.close()
