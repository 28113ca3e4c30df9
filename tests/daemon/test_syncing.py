"""Devices that meet, part and meet again: whole daemons over a LAN in memory."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path

import trio

from harness.devices import Device, admit, blank, mesh
from meshd.daemon import introduction
from meshd.daemon.progress import Progress
from meshd.daemon.syncing import Conversation
from meshd.net import tls
from meshd.profile.apps import password
from meshd.profile.claim import Kind, Role, State
from meshd.store import versions
from meshd.sync import knock

YEARS = 5 * 365 * 24 * 3600 * 1000


def shown(device: Device, identifier: str) -> str:
    return str(password.view(device.heads(identifier)[0].item)["password"])


async def test_a_password_added_on_one_device_is_read_on_the_other(home: Path) -> None:
    async with mesh(home, "laptop", "desktop") as (_, (laptop, desktop)):
        made = await laptop.add("github.com", "alice", "first")
        await desktop.until(lambda: made.identifier in desktop.passwords())
        assert desktop.passwords()[made.identifier] == "first"
        await desktop.edit(made.identifier, "second")
        await laptop.until(lambda: laptop.passwords()[made.identifier] == "second")


async def test_what_one_device_brings_goes_on_to_a_third_that_it_never_met(home: Path) -> None:
    async with mesh(home, "laptop", "desktop", "phone", run=False) as (_, (laptop, desktop, phone)):
        made = await laptop.add("github.com", "alice", "first")
        async with trio.open_nursery() as nursery:
            await nursery.start(laptop.run)
            await nursery.start(desktop.run)
            await desktop.until_same(laptop)
            laptop.host.cut()
            await nursery.start(phone.run)
            await phone.until(lambda: made.identifier in phone.passwords())
            nursery.cancel_scope.cancel()


async def test_two_edits_made_apart_are_both_kept_and_everybody_shows_the_same_one(home: Path) -> None:
    async with mesh(home, "laptop", "desktop") as (_, (laptop, desktop)):
        made = await laptop.add("github.com", "alice", "first")
        await desktop.until(lambda: made.identifier in desktop.passwords())
        desktop.host.cut()
        here = await laptop.edit(made.identifier, "from the laptop")
        there = await desktop.edit(made.identifier, "from the desktop")
        desktop.host.heal()
        for one in (laptop, desktop):
            await one.until(lambda one=one: len(one.heads(made.identifier)) == 2)
        assert {head.vid for head in laptop.heads(made.identifier)} == {here.vid, there.vid}
        assert shown(laptop, made.identifier) == shown(desktop, made.identifier)
        index = await laptop.daemon.fresh_index()
        assert [entry.identifier for entry in index.conflicts()] == [made.identifier]
        await laptop.edit(made.identifier, "settled")
        await desktop.until(
            lambda: [h.vid for h in desktop.heads(made.identifier)] != [] and len(desktop.heads(made.identifier)) == 1
        )
        assert shown(desktop, made.identifier) == "settled"


async def test_an_edit_made_apart_from_a_deletion_survives_it(home: Path) -> None:
    async with mesh(home, "laptop", "desktop") as (_, (laptop, desktop)):
        made = await laptop.add("github.com", "alice", "first")
        await desktop.until(lambda: made.identifier in desktop.passwords())
        desktop.host.cut()
        await desktop.edit(made.identifier, "still needed")
        await laptop.delete(made.identifier)
        assert made.identifier not in laptop.passwords()
        desktop.host.heal()
        await laptop.until(lambda: laptop.passwords().get(made.identifier) == "still needed")
        await desktop.until(lambda: len(desktop.heads(made.identifier)) == 2)
        assert shown(desktop, made.identifier) == "still needed"


async def test_a_clock_that_is_years_ahead_loses_nothing(home: Path) -> None:
    async with mesh(home, "laptop", "desktop") as (_, (laptop, desktop)):
        desktop.clock_ms = YEARS
        made = await desktop.add("github.com", "alice", "from the future")
        await laptop.until(lambda: made.identifier in laptop.passwords())
        await laptop.edit(made.identifier, "later all the same")
        await desktop.until(lambda: desktop.passwords()[made.identifier] == "later all the same")
        assert len(desktop.heads(made.identifier)) == 1


async def test_a_locked_device_carries_what_it_cannot_read(home: Path) -> None:
    async with mesh(home, "laptop", "desktop", "phone") as (_, (laptop, desktop, phone)):
        await desktop.until_connected(laptop, phone)
        desktop.daemon.lock()
        laptop.host.cut()
        made = await phone.add("github.com", "alice", "first")
        await desktop.until(lambda: made.vid in desktop.holds())
        phone.host.cut()
        laptop.host.heal()
        await laptop.until(lambda: made.identifier in laptop.passwords())


async def test_a_device_admitted_while_another_was_away_introduces_itself(home: Path) -> None:
    async with mesh(home, "laptop", "desktop", run=False) as (lan, (laptop, desktop)):
        phone = blank(home, lan, "phone")
        await admit(laptop, phone)
        assert phone.udf not in desktop.daemon.snapshot.devices
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(desktop.run)
                await nursery.start(phone.run)
                made = await phone.add("github.com", "alice", "from the phone")
                await desktop.until(lambda: made.identifier in desktop.passwords())
                assert phone.udf in desktop.daemon.snapshot.devices
                nursery.cancel_scope.cancel()
        finally:
            phone.daemon.close()


async def test_a_relay_holds_ciphertext_and_passes_it_on(home: Path) -> None:
    async with mesh(home, "laptop", "desktop", run=False) as (lan, (laptop, desktop)):
        relay = blank(home, lan, "server")
        await admit(laptop, relay, Role.RELAY)
        made = await laptop.add("github.com", "alice", "first")
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(laptop.run)
                await nursery.start(relay.run)
                await relay.until(lambda: made.vid in relay.holds())
                laptop.host.cut()
                await nursery.start(desktop.run)
                await desktop.until(lambda: made.identifier in desktop.passwords())
                assert "password" not in [opened.name for opened in relay.daemon.unlocked().vaults.values()]
                nursery.cancel_scope.cancel()
        finally:
            relay.daemon.close()


async def test_devices_find_each_other_again_after_the_network_changed(home: Path) -> None:
    async with mesh(home, "laptop", "desktop") as (_, (laptop, desktop)):
        await laptop.until_connected(desktop)
        desktop.host.cut()
        desktop.host.renumber()
        made = await laptop.add("github.com", "alice", "meanwhile")
        desktop.host.heal()
        await desktop.until(lambda: made.identifier in desktop.passwords())


async def test_a_stranger_on_the_lan_gets_nothing_but_random_bytes(home: Path) -> None:
    async with mesh(home, "laptop", "desktop") as (lan, (laptop, _)):
        assert laptop.siblings is not None
        stranger = lan.host("stranger")
        stream = await stranger.dial(f"{laptop.host.ip}:{laptop.siblings.port}")
        challenge = await stream.receive_some(1000)
        assert len(challenge) == knock.CHALLENGE_SIZE
        answer = knock.answer(knock.Mode.SYNC, secrets.token_bytes(32), bytes(challenge), secrets.token_bytes(16))
        await stream.send_all(answer)
        with trio.fail_after(5):
            assert await stream.receive_some(1000) == b""


async def test_an_introduction_of_another_mesh_changes_nothing(home: Path) -> None:
    async with (
        mesh(home / "ours", "laptop", run=False) as (_, (ours,)),
        mesh(home / "theirs", "laptop", run=False) as (_, (theirs,)),
    ):
        before = ours.holds()
        left, right = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(introduction.receive, ours.daemon, right)
            await introduction.hand_over(theirs.daemon, left)
        assert ours.holds() == before


async def test_a_certificate_that_was_never_admitted_is_refused(home: Path) -> None:
    async with mesh(home, "laptop", "desktop") as (lan, (laptop, _)):
        assert laptop.siblings is not None and laptop.daemon.tier1 is not None
        outsider = blank(home, lan, "outsider")
        try:
            from meshd.crypto import certs

            pins = [laptop.daemon.snapshot.devices[laptop.udf].certificate]
            trust = tls.client_context(
                certs.device_certificate(outsider.keys.dak), certs.private_pem(outsider.keys.dak), pins
            )
            stream = await outsider.host.dial(f"{laptop.host.ip}:{laptop.siblings.port}")
            challenge = bytes(await stream.receive_some(16))
            key = laptop.daemon.tier1.discovery[-1]
            await stream.send_all(knock.answer(knock.Mode.SYNC, key, challenge, secrets.token_bytes(16)))
            secured = await tls.wrap_client(stream, trust)  # under TLS 1.3 the refusal comes with the first read
            try:
                with trio.fail_after(5):
                    assert await secured.receive_some(100) == b""
            except trio.BrokenResourceError:
                pass
            assert outsider.udf not in laptop.siblings.connections
        finally:
            outsider.daemon.close()


async def test_a_store_restored_from_a_backup_gets_everything_back_and_heals_its_chain(home: Path) -> None:
    async with mesh(home, "laptop", "desktop", run=False) as (_, (laptop, desktop)):
        first = await desktop.add("one.example", "alice", "1")
        backup = home / "backup.db"
        desktop.daemon.database.backup(backup)
        lost = await desktop.add("two.example", "alice", "2")
        async with trio.open_nursery() as nursery:
            await nursery.start(laptop.run)
            await nursery.start(desktop.run)
            await laptop.until_same(desktop)
            nursery.cancel_scope.cancel()
        desktop.daemon.close()
        for suffix in ("-wal", "-shm"):
            desktop.daemon.paths.store.with_name(desktop.daemon.paths.store.name + suffix).unlink(missing_ok=True)
        backup.replace(desktop.daemon.paths.store)
        desktop.daemon = __import__("harness.devices", fromlist=["_open"])._open(desktop)
        await desktop.daemon.unlock(None)
        assert lost.vid not in desktop.holds()
        async with trio.open_nursery() as nursery:
            await nursery.start(laptop.run)
            await nursery.start(desktop.run)
            await desktop.until_same(laptop)
            assert set(desktop.passwords()) == {first.identifier, lost.identifier}
            third = await desktop.add("three.example", "alice", "3")
            await laptop.until(lambda: third.identifier in laptop.passwords())
            assert not laptop.daemon.cloned and not desktop.daemon.cloned
            row = versions.get(laptop.daemon.reader.connection, third.vid)
            assert row is not None and row.state is State.APPLIED and row.kind == Kind.ITEM
            nursery.cancel_scope.cancel()


def _narrow_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Two ends of a connection that holds little of what is not read yet."""
    ends = socket.socketpair()
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
    left, right = (trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in ends)
    return left, right


async def test_two_devices_that_both_bring_much_do_not_wait_for_each_other_to_read(home: Path) -> None:
    async with mesh(home, "laptop", "desktop", run=False) as (_, (laptop, desktop)):
        for one in (laptop, desktop):
            for place in range(40):
                await one.add(f"{place}.example", one.name, secrets.token_hex(2000))
        left, right = _narrow_pair()
        async with trio.open_nursery() as nursery:
            for one, other, stream in ((laptop, desktop, left), (desktop, laptop, right)):
                progress = Progress(other.udf, "", outgoing=one is laptop)
                nursery.start_soon(Conversation(one.daemon, stream, progress).run)
            await laptop.until_same(desktop)
            nursery.cancel_scope.cancel()


async def test_what_a_peer_brought_is_not_announced_to_it_again(home: Path) -> None:
    async with mesh(home, "laptop", "desktop") as (_, (laptop, desktop)):
        assert laptop.siblings is not None and desktop.siblings is not None
        for place in range(30):
            await laptop.add(f"{place}.example", "alice", "secret")
        await desktop.until_same(laptop)
        there = desktop.siblings.connections[laptop.udf]
        await desktop.until(
            lambda: there.acked == there.announced == versions.last_seq(desktop.daemon.reader.connection)
        )
        made = await desktop.add("one.example", "alice", "from the desktop")
        await laptop.until(lambda: made.vid in laptop.holds())
