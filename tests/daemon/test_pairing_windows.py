"""Invitations: who may make one, who is asked, and how they end."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from harness.pairing_devices import (
    PASSPHRASE,
    Caller,
    announced,
    pairing,
    said,
)
from meshd.daemon.config import Config, Lan
from meshd.errors import (
    BadRequest,
    Denied,
    Exists,
    Locked,
    NetworkError,
    NotFound,
    Refused,
)
from meshd.net.discovery import PAIR_TYPE, Service
from meshd.pairing.code import parse_uri
from meshd.pairing.events import (
    Offered,
    ProfileOffered,
    TryReserved,
    TurnedAway,
)
from meshd.store import events


@pytest.fixture
def clock() -> trio.testing.MockClock:
    """The real pace, and `jump` for what nobody wants to wait for."""
    return trio.testing.MockClock(rate=1.0)


async def test_the_person_is_asked_and_admits(home: Path) -> None:
    async with pairing(home) as (_, (laptop, desktop)):
        shown = await laptop.invitations.create({"confirm": True})
        joining = await desktop.connect(shown)
        await laptop.reaches(shown, "asked")
        assert shown.device is not None and shown.device["name"] == "desktop"
        assert (await laptop.invitations.answer(shown.id, True)).state == "admitted"
        assert (await desktop.ended(joining)).state == "done"
        with pytest.raises(BadRequest):
            await laptop.invitations.answer(shown.id, True)


async def test_the_person_is_asked_and_refuses(home: Path) -> None:
    async with pairing(home) as (_, (laptop, desktop)):
        shown = await laptop.invitations.create({"confirm": True})
        joining = await desktop.connect(shown)
        await laptop.reaches(shown, "asked")
        assert (await laptop.invitations.answer(shown.id, False)).state == "failed"
        said((await desktop.ended(joining)).error, Refused, "said no")
        assert len(laptop.device.daemon.snapshot.devices) == 1
        assert not desktop.device.daemon.paths.keystore.exists()


async def test_nobody_answers_within_two_minutes(home: Path, clock: trio.testing.MockClock) -> None:
    async with pairing(home) as (_, (laptop, desktop)):
        shown = await laptop.invitations.create({"confirm": True})
        joining = await desktop.connect(shown)
        await laptop.reaches(shown, "asked")
        await trio.testing.wait_all_tasks_blocked(0.05)
        clock.jump(121)
        said((await laptop.reaches(shown, "failed")).error, Refused, "Nobody answered")
        said((await desktop.ended(joining)).error, Refused)


async def test_who_asked_in_time_is_admitted_after_the_invitation_has_expired(
    home: Path, clock: trio.testing.MockClock
) -> None:
    async with pairing(home, "laptop", "desktop", "phone") as (_, (laptop, desktop, phone)):
        shown = await laptop.invitations.create({"confirm": True, "ttl": 60})
        joining = await desktop.connect(shown)
        await laptop.reaches(shown, "asked")
        await trio.testing.wait_all_tasks_blocked(0.05)
        clock.jump(61)
        late = await Caller.call(phone.device.host, shown)
        away = await late.guess()
        assert isinstance(away, TurnedAway) and away.reason == "used"
        await laptop.invitations.answer(shown.id, True)
        assert (await desktop.ended(joining)).state == "done"
        assert shown.state == "admitted"


async def test_an_invitation_that_is_cancelled_while_the_person_is_asked_admits_nobody(home: Path) -> None:
    async with pairing(home) as (_, (laptop, desktop)):
        shown = await laptop.invitations.create({"confirm": True})
        joining = await desktop.connect(shown)
        await laptop.reaches(shown, "asked")
        assert (await laptop.invitations.cancel(shown.id)).state == "cancelled"
        said((await desktop.ended(joining)).error, Refused, "withdrawn")
        assert len(laptop.device.daemon.snapshot.devices) == 1


async def test_a_device_that_gives_up_while_the_person_is_asked_may_come_back(home: Path) -> None:
    async with pairing(home) as (_, (laptop, desktop)):
        shown = await laptop.invitations.create({"confirm": True})
        joining = await desktop.connect(shown)
        await laptop.reaches(shown, "asked")
        assert (await desktop.connections.cancel(joining.id)).state == "cancelled"
        assert desktop.device.daemon.paths.keystore.exists()  # the request has left: it might have been admitted
        await laptop.reaches(shown, "proving")
        with pytest.raises(BadRequest):
            await laptop.invitations.answer(shown.id, True)
        again = await desktop.connect(shown)
        await laptop.reaches(shown, "asked")
        await laptop.invitations.answer(shown.id, True)
        assert (await desktop.ended(again)).state == "done"


async def test_only_an_unlocked_admin_invites(home: Path) -> None:
    async with pairing(home) as (_, (laptop, desktop)):
        await desktop.ended(await desktop.connect(await laptop.invitations.create({})))
        with pytest.raises(Denied, match="admin"):
            await desktop.invitations.create({})
        laptop.device.daemon.lock()
        with pytest.raises(Locked):
            await laptop.invitations.create({})


async def test_a_device_that_was_locked_meanwhile_says_so_and_the_code_stays(home: Path) -> None:
    async with pairing(home) as (_, (laptop, desktop)):
        shown = await laptop.invitations.create({})
        laptop.device.daemon.lock()
        said((await desktop.ended(await desktop.connect(shown))).error, Refused, "locked")
        assert (shown.state, shown.attempts_left) == ("open", 3)
        await laptop.device.daemon.unlock(None)
        assert (await desktop.ended(await desktop.connect(shown))).state == "done"


async def test_a_device_in_a_mesh_does_not_join_another(home: Path) -> None:
    async with pairing(home) as (_, (laptop, desktop)):
        with pytest.raises(Exists, match="already"):
            await laptop.connect("7-orbit-walnut")
        first = await desktop.connect("7-orbit-walnut")
        with pytest.raises(Exists, match="already"):
            await desktop.connect("8-orbit-walnut")
        await desktop.connections.cancel(first.id)


async def test_requests_that_make_no_sense_are_refused(home: Path) -> None:
    async with pairing(home) as (_, (laptop, desktop)):
        for wish in ({"ttl": 901}, {"role": "king"}):
            with pytest.raises(BadRequest):
                await laptop.invitations.create(wish)
        with pytest.raises(BadRequest, match="wallnut"):
            await desktop.connect("7-orbit-wallnut")
        for more in (
            {"uri": "mesh-pair:?v=1"},
            {"name": " "},
            {"no_passphrase": True},
            {"passphrase": None},
            {"address": "nowhere"},
        ):
            with pytest.raises(BadRequest):
                await desktop.connect("7-orbit-walnut", **more)
        for ask in (laptop.invitations.get, desktop.connections.get):
            with pytest.raises(NotFound):
                ask("none")


async def test_an_invitation_expires(home: Path, clock: trio.testing.MockClock) -> None:
    async with pairing(home) as (_, (laptop, desktop)):
        shown = await laptop.invitations.create({"ttl": 60})
        clock.jump(61)
        await laptop.reaches(shown, "expired")
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not announced(laptop)
        joining = await desktop.connect(shown)
        while not joining.ended:  # the search begins once there are keys
            clock.jump(61)
            await desktop.connections.wait(joining.id, joining.state, 0.2)
        said(joining.error, NetworkError, f"number {shown.slot}")


async def test_one_success_uses_the_code_up(home: Path) -> None:
    async with pairing(home, "laptop", "desktop", "phone") as (_, (laptop, desktop, phone)):
        shown = await laptop.invitations.create({})
        slow = await Caller.call(laptop.device.host.lan.host("slow"), shown)
        await slow.until(TryReserved)
        await desktop.ended(await desktop.connect(shown))
        assert len(laptop.device.daemon.snapshot.devices) == 2
        with pytest.raises((NetworkError, AssertionError)):  # hung up on, or told: in any case not admitted
            await slow.until(ProfileOffered)
        joining = await phone.connect("", uri=shown.uri)
        assert (await phone.ended(joining)).state == "failed"
        assert len(laptop.device.daemon.snapshot.devices) == 2


async def test_a_cancelled_invitation_is_withdrawn(home: Path) -> None:
    async with pairing(home) as (_, (laptop, desktop)):
        shown = await laptop.invitations.create({})
        caller = await Caller.call(laptop.device.host.lan.host("caller"), shown)
        await caller.until(Offered)
        assert (await laptop.invitations.cancel(shown.id)).state == "cancelled"
        away = await caller.event()
        while isinstance(away, TryReserved):
            away = await caller.event()
        assert isinstance(away, TurnedAway) and away.reason == "cancelled"
        await caller.talk.part()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not announced(laptop)
        joining = await desktop.ended(await desktop.connect("", uri=shown.uri))
        said(joining.error, NetworkError)


async def test_windows_end_with_the_daemon(home: Path) -> None:
    async with pairing(home) as (_, (laptop, _)):
        shown = await laptop.invitations.create({})
    assert shown.state == "cancelled" and not announced(laptop)


async def test_events_tell_what_happened_and_never_the_code(home: Path) -> None:
    async with pairing(home) as (_, (laptop, desktop)):
        shown = await laptop.invitations.create({})
        await desktop.ended(await desktop.connect(shown))
        secret = shown.uri.partition("s=")[2].partition("&")[0]
        for one, kind, last in ((laptop, "invitation", "admitted"), (desktop, "connection", "done")):
            states = lambda: [event.data["state"] for event in told() if event.type == kind]  # noqa: B023, E731
            told = lambda: events.since(one.device.daemon.reader.connection, 0, 1000)  # noqa: B023, E731
            await one.device.until(lambda: states()[-1] == last and len(states()) > 2)  # noqa: B023
            assert not any(word in str(event.data) for event in told() for word in (shown.code, secret, PASSPHRASE))
        assert shown.code not in repr(shown)


async def test_two_windows_have_two_slots(home: Path) -> None:
    async with pairing(home) as (_, (laptop, desktop)):
        lan = laptop.device.host.lan
        others = lan.host("others")
        for slot in range(1, 98):
            service = Service(PAIR_TYPE, f"other{slot}", 1000 + slot, {"v": b"1", "s": str(slot).encode()})
            await others.discovery.announce(f"other {slot}", service)
        await trio.testing.wait_all_tasks_blocked(0.01)
        shown = [await laptop.invitations.create({}) for _ in range(2)]
        assert {one.slot for one in shown} == {98, 99}
        joining = await desktop.ended(await desktop.connect(shown[1]))
        assert joining.state == "done" and shown[0].state == "open"


async def test_the_port_beside_a_fixed_one_is_taken_where_it_is_free(home: Path) -> None:
    async with pairing(home) as (_, (laptop, _)):
        laptop.device.daemon.config = Config(lan=Lan(port=4711))
        first, second = [await laptop.invitations.create({}) for _ in range(2)]
        assert parse_uri(first.uri).addresses[0].endswith(":4712")
        assert not parse_uri(second.uri).addresses[0].endswith(":4712")
