"""Wrong codes, guessers, impostors and forgers on the LAN."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest
import trio
import trio.testing

from harness.devices import PATIENCE
from harness.pairing_devices import (
    Caller,
    Impostor,
    Liar,
    asks_for,
    listen,
    other_code,
    own,
    pairing,
    relay,
    said,
)
from meshd.crypto import certs
from meshd.daemon import pairing_wire
from meshd.daemon.config import Config, Limits
from meshd.errors import (
    CodeError,
    MeshError,
    NetworkError,
    PossibleAttack,
    Refused,
    RemoteProtocolError,
    TrustError,
)
from meshd.net import tls
from meshd.pairing.code import parse_uri
from meshd.pairing.events import (
    Closed,
    CodeRefused,
    Offered,
    ProfileOffered,
    Proven,
    Requested,
    TryReserved,
    TurnedAway,
)
from meshd.pairing.machine import Host
from meshd.profile import author, version
from meshd.profile import connection as connections
from meshd.profile.claim import Kind
from meshd.profile.device import DeviceKeys
from meshd.profile.links import Links
from meshd.store import versions


@pytest.fixture
def clock() -> trio.testing.MockClock:
    """The real pace, and `jump` for what nobody wants to wait for."""
    return trio.testing.MockClock(rate=1.0)


async def test_a_wrong_code_is_refused_and_the_right_one_still_works(home: Path) -> None:
    async with pairing(home) as (_, (laptop, desktop)):
        shown = await laptop.invitations.create({})
        joining = await desktop.ended(await desktop.connect(other_code(shown)))
        said(joining.error, CodeError, "2 more tries")
        assert joining.attempts_left == 2 and shown.attempts_left == 2 and shown.state == "open"
        assert not desktop.device.daemon.paths.keystore.exists()
        assert (await desktop.ended(await desktop.connect(shown))).state == "done"


async def test_three_wrong_codes_burn_the_invitation_and_the_next_one_waits(home: Path) -> None:
    async with pairing(home) as (nursery, (laptop, desktop)):
        shown = await laptop.invitations.create({})
        for number in range(3):
            joining = await desktop.ended(await desktop.connect(other_code(shown, number)))
            said(joining.error, CodeError)
        assert "void" in str(joining.error)
        await laptop.reaches(shown, "burned")
        with pytest.raises(Refused, match="guessed"):
            await laptop.invitations.create({"force": True})
        await laptop.restart(nursery)  # a restart does not shorten the wait
        await laptop.device.daemon.unlock(None)
        with pytest.raises(Refused, match="guessed"):
            await laptop.invitations.create({})
        laptop.device.clock_ms += 31_000
        await laptop.invitations.create({})


async def test_parallel_guesses_cost_as_much_as_serial_ones(home: Path) -> None:
    async with pairing(home) as (_, (laptop, _)):
        shown = await laptop.invitations.create({})
        callers = [
            await Caller.call(laptop.device.host.lan.host(f"guesser {n}"), shown, other_code(shown, n))
            for n in range(4)
        ]
        for caller in callers[:3]:
            await caller.until(TryReserved)  # three shares are out
        refused = await callers[3].guess()
        assert isinstance(refused, TurnedAway) and refused.reason == "busy"
        for number, caller in enumerate(callers[:3]):
            assert await caller.guess() == CodeRefused(2 - number)
        await laptop.reaches(shown, "burned")


async def test_a_try_without_a_confirmation_is_given_back(home: Path) -> None:
    async with pairing(home) as (_, (laptop, desktop)):
        shown = await laptop.invitations.create({})
        for number in range(4):
            caller = await Caller.call(laptop.device.host.lan.host(f"caller {number}"), shown, other_code(shown))
            await caller.until(TryReserved)
            await laptop.reaches(shown, "proving")
            await caller.talk.drop()
            await laptop.reaches(shown, "open")
        assert shown.attempts_left == 3
        assert (await desktop.ended(await desktop.connect(shown))).state == "done"


async def test_a_silent_caller_is_hung_up_on(home: Path, clock: trio.testing.MockClock) -> None:
    async with pairing(home) as (_, (laptop, _)):
        shown = await laptop.invitations.create({})
        caller = await Caller.call(laptop.device.host.lan.host("silent"), shown)
        await caller.until(Offered)
        clock.jump(10.5)
        with pytest.raises(NetworkError):
            while not isinstance(await caller.event(), Closed):
                pass
            raise NetworkError
        assert shown.attempts_left == 3


async def test_only_so_many_talk_at_once_and_one_an_address(home: Path) -> None:
    async with pairing(home) as (_, (laptop, _)):
        laptop.device.daemon.config = Config(limits=Limits(pairing_connections=3))
        shown = await laptop.invitations.create({})
        lan = laptop.device.host.lan
        first = lan.host("first")
        await (await Caller.call(first, shown)).until(Offered)
        told = await Caller.call(first, shown)
        answer = await told.event()
        assert isinstance(answer, TurnedAway) and answer.reason == "busy"
        with pytest.raises(MeshError):  # a third of one address is not answered
            await Caller.call(first, shown)
        await told.talk.part()
        await (await Caller.call(lan.host("second"), shown)).until(Offered)
        with trio.fail_after(PATIENCE):
            while len(laptop.invitations._callers) > 2:  # the one that was told is gone in a moment
                await trio.testing.wait_all_tasks_blocked(0.01)
        await (await Caller.call(lan.host("third"), shown)).until(Offered)
        with pytest.raises(MeshError):
            await Caller.call(lan.host("fourth"), shown)


async def test_a_typed_code_has_three_tries_over_all_runs(home: Path) -> None:
    async with pairing(home) as (nursery, (laptop, desktop)):
        shown = await laptop.invitations.create({})
        wrong = other_code(shown)
        for _ in range(3):
            joining = await desktop.ended(await desktop.connect(wrong))
            assert isinstance(joining.error, (CodeError, PossibleAttack))
        with pytest.raises(PossibleAttack):
            await desktop.connect(wrong)
        await desktop.restart(nursery)
        with pytest.raises(PossibleAttack):
            await desktop.connect(wrong)


async def test_without_the_token_of_the_link_nobody_is_heard_unless_the_window_is_remote(home: Path) -> None:
    async with pairing(home) as (_, (laptop, _)):
        stranger = laptop.device.host.lan.host("stranger")
        shown = await laptop.invitations.create({})
        away = await (await Caller.call(stranger, shown, token=b"")).guess()
        assert isinstance(away, TurnedAway) and away.reason == "token" and shown.attempts_left == 3
        remote = await laptop.invitations.create({"remote": True})
        assert parse_uri(remote.uri).token == b""
        caller = await Caller.call(laptop.device.host.lan.host("another"), remote, token=b"")
        await caller.until(Proven)


async def test_an_evil_twin_that_knows_no_code_does_not_keep_the_device_from_the_right_one(home: Path) -> None:
    async with pairing(home) as (nursery, (laptop, desktop)):
        shown = await laptop.invitations.create({})
        twin = Impostor(laptop.device.host.lan.host("twin"), shown.slot, listen, instance="0")
        await nursery.start(twin.run)
        joining = await desktop.ended(await desktop.connect(shown))
        assert joining.state == "done", joining.error
        assert joining.mesh == laptop.device.daemon.snapshot.mesh


async def test_twins_get_no_more_than_three_guesses(home: Path) -> None:
    async with pairing(home) as (nursery, (laptop, desktop)):
        lan = laptop.device.host.lan
        twins = [Impostor(lan.host(f"twin {n}"), 7, listen, instance=f"twin{n}") for n in range(5)]
        for twin in twins:
            await nursery.start(twin.run)
        joining = await desktop.ended(await desktop.connect("7-orbit-walnut"))
        said(joining.error, PossibleAttack, "3 times")
        assert sum(twin.calls for twin in twins) == 3


async def test_a_host_that_claims_to_know_the_code_is_reported(home: Path) -> None:
    async with pairing(home) as (nursery, (laptop, desktop)):
        liar = Impostor(laptop.device.host.lan.host("liar"), 7, listen, core=Liar)
        await nursery.start(liar.run)
        joining = await desktop.ended(await desktop.connect("7-orbit-walnut"))
        said(joining.error, PossibleAttack, "can't prove")
        assert not desktop.device.daemon.paths.keystore.exists()


async def test_a_man_in_the_middle_of_tls_learns_nothing_and_costs_a_try(home: Path) -> None:
    async with pairing(home) as (nursery, (laptop, desktop)):
        shown = await laptop.invitations.create({})
        middle = laptop.device.host.lan.host("middle")
        certificate, key = certs.ephemeral_certificate(secrets.token_bytes)

        async def between(stream: trio.abc.Stream, _: str) -> None:
            near = await tls.wrap_server(stream, tls.pairing_server_context(certificate, key))
            outward = await middle.dial(parse_uri(shown.uri).addresses[0])
            await relay(near, await tls.wrap_client(outward, tls.pairing_client_context()))

        port = await nursery.start(middle.serve, between)
        joining = await desktop.ended(await desktop.connect(shown, address=f"{middle.ip}:{port}"))
        said(joining.error, CodeError)
        assert shown.attempts_left == 2
        uri = shown.uri.replace(parse_uri(shown.uri).addresses[0], f"{middle.ip}:{port}")
        laptop.device.host.discovery.announced.clear()  # so that only the URI tells where
        laptop.device.host.lan.tell()
        hung_up = await desktop.ended(await desktop.connect("", uri=uri))
        said(hung_up.error, RemoteProtocolError, "another device answers")
        assert shown.attempts_left == 2


@pytest.mark.parametrize("fault", ["another device", "another mesh", "another token", "no request"])
async def test_a_request_that_does_not_fit_what_was_proven_is_refused(home: Path, fault: str) -> None:
    async with pairing(home) as (_, (laptop, _)):
        shown = await laptop.invitations.create({})
        keys, other = DeviceKeys.generate(secrets.token_bytes), DeviceKeys.generate(secrets.token_bytes)
        caller = await Caller.call(laptop.device.host.lan.host("caller"), shown, udf=keys.udf)
        await caller.until(ProfileOffered)
        mesh, token = laptop.device.daemon.snapshot.mesh, caller.core.block_token
        match fault:
            case "another device":
                await asks_for(caller, other, mesh, token)
            case "another mesh":
                await asks_for(caller, keys, other.udf, token)
            case "another token":
                await asks_for(caller, keys, mesh, "lp1.x.y")
            case _:
                caller.core.request(b'{"ConnectStartRequest":{}}', "by hand")
        away = await caller.event()
        assert isinstance(away, TurnedAway) and away.reason == "rejected"
        await caller.talk.part()
        await laptop.reaches(shown, "failed")
        assert shown.error is not None
        assert set(laptop.device.daemon.snapshot.devices) == {own(laptop)}


async def test_a_stranger_who_signs_for_the_mesh_that_he_shows_is_not_followed(home: Path) -> None:
    async with pairing(home / "theirs") as (_, (theirs, _)), pairing(home / "ours") as (nursery, (laptop, desktop)):
        raw = versions.raw(theirs.device.daemon.reader.connection, theirs.device.daemon.snapshot.heads[0])
        assert raw is not None
        body = version.parse(raw).body
        root = author.sign(
            theirs.device.keys.dsk,
            Kind.PERSONAL,
            theirs.device.daemon.snapshot.mesh,
            "PersonalProfile",
            body,
            Links(g=1, n=99),
            1_800_000_000,
        )

        async def offers(talk: pairing_wire.Talk[Host]) -> None:
            await listen(talk)
            talk.core.offer_profile(pairing_wire.write_profile(root))
            await talk.next()

        stranger = Impostor(laptop.device.host.lan.host("stranger"), 7, offers, "7-orbit-walnut")
        await nursery.start(stranger.run)
        joining = await desktop.ended(await desktop.connect("7-orbit-walnut"))
        said(joining.error, TrustError, "master key never signed")
        assert not desktop.device.daemon.paths.keystore.exists()


async def test_an_answer_that_no_admin_signed_is_not_believed(home: Path) -> None:
    async with pairing(home / "theirs") as (_, (theirs, _)), pairing(home / "ours") as (nursery, (laptop, desktop)):
        daemon = theirs.device.daemon
        raw = versions.raw(daemon.reader.connection, daemon.snapshot.heads[0])
        assert raw is not None
        shown = version.parse(raw)
        forger = DeviceKeys.generate(secrets.token_bytes)

        async def forges(talk: pairing_wire.Talk[Host]) -> None:
            await listen(talk)
            talk.core.offer_profile(pairing_wire.write_profile(shown))
            event = await talk.next()
            assert isinstance(event, Requested)
            request = connections.read_request(pairing_wire.read_start(event.message)[0])
            result = connections.write_result(forger.dsk, request.device, connections.ACCEPTED)
            talk.core.decide(pairing_wire.write_status(result))
            await talk.next()

        await nursery.start(Impostor(laptop.device.host.lan.host("forger"), 7, forges, "7-orbit-walnut").run)
        joining = await desktop.ended(await desktop.connect("7-orbit-walnut"))
        said(joining.error, TrustError, "not signed by an admin")
        assert not desktop.device.daemon.snapshot.connected
