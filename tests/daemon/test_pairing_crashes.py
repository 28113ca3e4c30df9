"""Devices that are cut off, crash or give up in the middle of a pairing."""

from __future__ import annotations

import secrets
from pathlib import Path

import trio
import trio.testing

from harness.devices import PATIENCE
from harness.pairing_devices import (
    PASSPHRASE,
    Caller,
    Pairing,
    announced,
    asks_for,
    own,
    pairing,
    relay,
    said,
)
from meshd.daemon import newcomer as newcomers
from meshd.daemon import pairing_wire
from meshd.daemon.pairing_window import Invitation
from meshd.errors import (
    CodeError,
    Refused,
    StoreError,
)
from meshd.pairing.code import parse_uri
from meshd.pairing.events import (
    Decided,
    ProfileOffered,
    Started,
)
from meshd.profile import connection as connections
from meshd.profile.device import DeviceKeys
from meshd.store.keystore import Keystore


async def admitted_and_cut_off(laptop: Pairing, desktop: Pairing, shown: Invitation) -> str:
    """The desktop asks, is admitted, and never hears of it; returns its UDF."""
    daemon = desktop.device.daemon
    new = await newcomers.asks(daemon, await newcomers.prepare(daemon, PASSPHRASE, desktop.connections._kdf))
    caller = await Caller.call(desktop.device.host, shown, udf=new.udf)
    await caller.until(ProfileOffered)
    mesh = laptop.device.daemon.snapshot.mesh
    request = connections.write_request(new.keys.dsk, new.profile, mesh, caller.core.block_token)
    caller.core.request(pairing_wire.write_start(request, unsealed=False), "desktop")
    await caller.until(Decided)
    await caller.talk.drop()
    await laptop.reaches(shown, "admitted")
    return new.udf


async def test_a_device_that_was_cut_off_gets_the_same_answer_within_the_window(home: Path) -> None:
    async with pairing(home) as (nursery, (laptop, desktop)):
        shown = await laptop.invitations.create({})
        udf = await admitted_and_cut_off(laptop, desktop, shown)
        held = laptop.device.holds()
        await desktop.restart(nursery)
        joining = await desktop.ended(await desktop.connect(shown))
        assert joining.state == "done", joining.error
        assert own(desktop) == udf and laptop.device.holds() == held
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert not announced(laptop)  # it has its answer, so the window is closed


async def test_an_admin_that_crashed_after_the_decision_gives_the_same_answer_to_a_new_code(home: Path) -> None:
    async with pairing(home) as (nursery, (laptop, desktop)):
        udf = await admitted_and_cut_off(laptop, desktop, await laptop.invitations.create({}))
        await laptop.restart(nursery)
        await laptop.device.daemon.unlock(None)
        await desktop.restart(nursery)
        held = laptop.device.holds()
        joining = await desktop.ended(await desktop.connect(await laptop.invitations.create({})))
        assert joining.state == "done", joining.error
        assert own(desktop) == udf and laptop.device.holds() == held
        assert not desktop.device.daemon.cloned


async def test_another_device_gets_nothing_from_a_window_that_waits_for_one_that_was_cut_off(home: Path) -> None:
    async with pairing(home, "laptop", "desktop", "phone") as (_, (laptop, desktop, phone)):
        shown = await laptop.invitations.create({})
        await admitted_and_cut_off(laptop, desktop, shown)
        said((await phone.ended(await phone.connect(shown))).error, CodeError, "already")
        assert len(laptop.device.daemon.snapshot.devices) == 2


async def test_a_poll_is_answered_with_the_decision(home: Path) -> None:
    async with pairing(home) as (_, (laptop, desktop)):
        shown = await laptop.invitations.create({"confirm": True})
        keys = DeviceKeys.generate(secrets.token_bytes)
        caller = await Caller.call(desktop.device.host, shown, udf=keys.udf)
        await caller.until(ProfileOffered)
        caller.core.poll()
        await caller.until(Started)  # nothing is known of it yet
        await caller.talk.drop()
        caller = await Caller.call(desktop.device.host.lan.host("again"), shown, udf=keys.udf)
        await caller.until(ProfileOffered)
        await asks_for(caller, keys, laptop.device.daemon.snapshot.mesh, caller.core.block_token)
        await caller.until(Started)
        await laptop.invitations.answer(shown.id, True)
        await caller.until(Decided)
        await caller.talk.drop()
        caller = await Caller.call(desktop.device.host.lan.host("once more"), shown, udf=keys.udf)
        await caller.until(ProfileOffered)
        caller.core.poll()
        await caller.until(Decided)


async def test_a_device_that_crashes_before_its_commit_is_in_no_mesh_and_joins_later(home: Path) -> None:
    async with pairing(home) as (nursery, (laptop, desktop)):
        state = {"fail": True}

        def fault(point: str) -> None:
            daemon = desktop.device.daemon
            if state["fail"] and point == "before-commit" and daemon.replica.mesh and not daemon.snapshot.connected:
                raise OSError("the power went")

        desktop.device.fault = fault
        await desktop.restart(nursery)
        shown = await laptop.invitations.create({})
        joining = await desktop.ended(await desktop.connect(shown))
        assert joining.state == "failed", joining.error
        daemon = desktop.device.daemon
        assert not daemon.snapshot.connected and daemon.tier1 is None and not desktop.device.holds()
        await desktop.restart(nursery)
        assert not desktop.device.daemon.snapshot.connected
        state["fail"] = False
        joining = await desktop.ended(await desktop.connect(await laptop.invitations.create({})))
        assert joining.state == "done", joining.error
        assert len(laptop.device.daemon.snapshot.devices) == 2  # the same one


async def test_a_connection_that_breaks_after_the_request_is_made_again_by_itself(home: Path) -> None:
    async with pairing(home) as (nursery, (laptop, desktop)):
        shown = await laptop.invitations.create({"confirm": True})
        middle = laptop.device.host.lan.host("a router")
        streams: list[trio.abc.Stream] = []

        async def forward(stream: trio.abc.Stream, _: str) -> None:
            onward = await middle.dial(parse_uri(shown.uri).addresses[0])
            streams.append(onward)
            await relay(stream, onward)

        port = await nursery.start(middle.serve, forward)
        joining = await desktop.connect(shown, address=f"{middle.ip}:{port}")
        await laptop.reaches(shown, "asked")
        await trio.testing.wait_all_tasks_blocked(0.05)
        await trio.aclose_forcefully(streams[0])
        await laptop.reaches(shown, "proving")
        await laptop.reaches(shown, "asked")
        await laptop.invitations.answer(shown.id, True)
        assert (await desktop.ended(joining)).state == "done", joining.error
        assert len(streams) == 2 and len(laptop.device.daemon.snapshot.devices) == 2


async def test_giving_up_once_it_is_done_changes_nothing(home: Path) -> None:
    async with pairing(home) as (_, (laptop, desktop)):
        desktop.follow_sync()
        joining = await desktop.connect(await laptop.invitations.create({}))
        with trio.fail_after(PATIENCE):
            while joining.state != "syncing":
                await desktop.connections.wait(joining.id, joining.state, PATIENCE)
        assert (await desktop.connections.cancel(joining.id)).state == "done"
        assert desktop.device.daemon.snapshot.connected and not desktop.device.daemon.locked


async def test_giving_up_before_a_request_leaves_nothing_behind(home: Path) -> None:
    async with pairing(home) as (_, (_, desktop)):
        joining = await desktop.connect("7-orbit-walnut")
        assert (await desktop.connections.cancel(joining.id)).state == "cancelled"
        daemon = desktop.device.daemon
        assert not daemon.paths.keystore.exists()
        assert pairing_wire.load(daemon.reader.connection, newcomers.NEWCOMER) is None


async def test_keys_of_an_earlier_attempt_are_used_again_only_with_their_passphrase(home: Path) -> None:
    async with pairing(home) as (_, (_, desktop)):
        daemon, kdf = desktop.device.daemon, desktop.connections._kdf
        first = await newcomers.asks(daemon, await newcomers.prepare(daemon, None, kdf))
        second = await newcomers.prepare(daemon, PASSPHRASE, kdf)  # it had none: now it has
        assert second.udf == first.udf and second.asked and second.profile == first.profile and not second.unsealed
        third = await newcomers.prepare(daemon, "another passphrase", kdf)
        assert third.udf != first.udf and not third.asked
        fourth = await newcomers.prepare(daemon, None, kdf)
        assert fourth.udf != third.udf and fourth.unsealed
        assert len(list(daemon.paths.state.glob("keystore.cbor*"))) == 1
        await newcomers.discard(daemon)
        assert not daemon.paths.keystore.exists()


async def test_a_keystore_of_unknown_origin_is_set_aside(home: Path) -> None:
    async with pairing(home) as (_, (laptop, desktop)):
        path = desktop.device.daemon.paths.keystore
        Keystore.create(path, {"dak": bytes(32), "discovery": []}, {"old": True}, None)
        before = path.read_bytes()
        joining = await desktop.ended(await desktop.connect(await laptop.invitations.create({})))
        assert joining.state == "done", joining.error
        (aside,) = path.parent.glob("keystore.cbor.unused-*")
        assert aside.read_bytes() == before


async def test_a_store_that_can_not_write_admits_nobody_and_says_so(home: Path) -> None:
    async with pairing(home) as (nursery, (laptop, desktop)):

        def fault(point: str) -> None:
            if point == "before-commit" and len(laptop.device.daemon.replica.authority.devices()) > 1:
                raise StoreError("the disk is full")

        laptop.device.fault = fault
        await laptop.restart(nursery)
        await laptop.device.daemon.unlock(None)
        shown = await laptop.invitations.create({})
        joining = await desktop.ended(await desktop.connect(shown))
        said(joining.error, Refused, "can't connect devices now")
        said((await laptop.reaches(shown, "failed")).error, StoreError, "full")
        assert len(laptop.device.daemon.snapshot.devices) == 1
