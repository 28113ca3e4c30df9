"""A portal that lost its newest entries gets them back from a mirror, proved, and goes on as the same log."""

from __future__ import annotations

import time

import msgspec
import pytest
import trio

from harness import devices as harness
from harness.lan import MemoryLan
from harness.mirror_world import DOMAIN, NAME, Served, World, no_dns, served, world
from meshd.daemon.portal import admin, audit, crosslogging, fetching
from meshd.daemon.portal.log import LogBehind
from meshd.daemon.portal.origin import Origin
from meshd.daemon.portal.witnesses import Witnesses
from meshd.daemon.portals.roster import Portals
from meshd.errors import BadRequest, MeshError, ProofError
from meshd.net.portal_client import HttpClient
from meshd.net.srv import Services
from meshd.portal import messages as m
from meshd.portal.outcomes import Policy
from meshd.portal.structures import Structure
from meshd.store import portal_log_rows as log_rows
from meshd.store.portal_db import open_portal

pytestmark = pytest.mark.draft("Transfer")
ACCOUNT = f"alice@{DOMAIN}"
URL = f"http://{NAME}/.well-known/mmm-witness"


@pytest.fixture(autouse=True)
def small_pages(monkeypatch):
    monkeypatch.setattr("meshd.daemon.portal.origin.MAX_ENTRIES", 3)


async def lost(found: World, *, kept: int = 6, more: int = 9) -> tuple[Served, Witnesses, Origin]:
    """A portal put back to `kept` entries of which a mirror, that is also its witness, has `more`."""
    vkey = found.identity.cosigner.vkey
    await found.portal.change(lambda connection: log_rows.put_peer(connection, f"{NAME}/mmm-log", URL, [], [vkey]))
    await found.write(kept)
    copied = found.home / "old.db"
    with open_portal(found.home / "portal" / "portal.db", readonly=True) as database:
        database.backup(copied)
    await found.write(more)
    await found.mirror.once()
    await found.replace_portal(copied)
    mirror = served(found.mirroring, found.nursery, found.mirror, hosts=(NAME,))
    witnesses = Witnesses(found.portal, HttpClient(mirror.dial))
    await witnesses.guard()
    assert found.portal.log.ahead is not None
    source = Origin(
        mirror.client(), Services(no_dns), NAME, found.portal.log.peer.key, plain=True, now=lambda: int(time.time())
    )
    return mirror, witnesses, source


async def test_what_was_lost_comes_back_and_the_log_goes_on_as_the_same(home):
    async with world(home) as found:
        _, witnesses, source = await lost(found)
        alice = found.people["alice"]
        with pytest.raises(LogBehind):
            await found.engine.publish(alice, alice.item("too early"))
        assert await fetching.fetch(found.portal, witnesses, source) == 9
        assert found.portal.log.ahead is None and found.portal.edge == found.mirroring.edge
        assert found.portal.log.signed.note.text == found.mirroring.log.signed.note.text
        assert audit.verify(found.home / "old.db").size == 15
        assert (await found.engine.publish(alice, alice.item("goes on"))).status == 201
        await found.mirror.once()
        assert found.mirror.size == 16 and found.mirror.evidence is None
        with pytest.raises(BadRequest):
            await fetching.fetch(found.portal, witnesses, source)


async def test_a_mirror_that_lies_brings_nothing_into_the_log(home):
    async with world(home) as found:
        mirror, witnesses, source = await lost(found)

        def tamper(name: str, told: Structure) -> Structure:
            if isinstance(told, m.TransferResponse):
                return msgspec.structs.replace(told, entries=(told.entries or [])[::-1])
            return told

        mirror.tamper = tamper
        with pytest.raises(MeshError):
            await fetching.fetch(found.portal, witnesses, source)
        assert found.portal.edge.size == 6 and found.portal.log.ahead is not None
        mirror.tamper = None
        assert await fetching.fetch(found.portal, witnesses, source) == 9


async def test_it_goes_on_where_it_was_stopped(home):
    async with world(home) as found:
        mirror, witnesses, source = await lost(found)
        pages = 0

        def tamper(name: str, told: Structure) -> Structure:
            nonlocal pages
            pages += name == "Transfer"
            return msgspec.structs.replace(told, entries=[]) if name == "Transfer" and pages > 1 else told

        mirror.tamper = tamper
        with pytest.raises(MeshError):
            await fetching.fetch(found.portal, witnesses, source)
        assert found.portal.edge.size == 9 and found.portal.log.ahead is not None
        mirror.tamper = None
        assert await fetching.fetch(found.portal, witnesses, source) == 6


async def test_a_store_that_wrote_another_history_stays_behind(home):
    async with world(home) as found:
        _, witnesses, source = await lost(found)
        found.portal.log.ahead = None  # it had not asked, and wrote
        await found.write(9, "mallory")
        found.portal.log.ahead = "somebody has seen more"
        with pytest.raises(ProofError, match="two histories"):
            await fetching.fetch(found.portal, witnesses, source)
        assert found.portal.log.ahead is not None


async def test_it_is_asked_of_a_portal_that_runs(home):
    async with world(home) as found:
        asked = {"command": "fetch", "source": NAME, "address": "", "plain": False}
        with pytest.raises(BadRequest, match="runs"):
            await admin.perform(found.portal, Policy(DOMAIN), asked)


async def test_without_a_mirror_devices_bring_back_what_an_old_copy_lost(home):
    async with world(home) as found:
        laptop = harness.blank(home, MemoryLan(), "laptop")
        try:
            await harness.found(laptop)
            async with trio.open_nursery() as nursery:
                portals = Portals(laptop.daemon, found.served.client(), Services(no_dns))
                await nursery.start(portals.run)
                await portals.add(ACCOUNT, "", None, plain=True)
                await laptop.until(lambda: bool(portals.running) and portals.running[ACCOUNT].in_step)
                copied = home / "old.db"
                with open_portal(home / "portal" / "portal.db", readonly=True) as database:
                    database.backup(copied)
                item = await laptop.add("example.net", "alice", "first")
                await laptop.edit(item.identifier, "second")
                await laptop.until(lambda: portals.running[ACCOUNT].in_step)
                before = stored(found)
                await found.replace_portal(copied)
                found.portal.log.ahead = "somebody has seen more"
                await crosslogging.begin_anew(found.portal)
                assert stored(found) < before
                await laptop.edit(item.identifier, "third")  # its next word to the portal
                await laptop.until(lambda: stored(found) > before)
                assert portals.running[ACCOUNT].view()["log"]["state"] == "suspect"  # its log is another one
                nursery.cancel_scope.cancel()
        finally:
            laptop.daemon.close()


def stored(found: World) -> set[bytes]:
    """The versions that the portal holds, checkpoints left out."""
    query = "SELECT vid FROM versions WHERE kind <> 0"
    return {bytes(vid) for (vid,) in found.portal.view.connection.execute(query)}
