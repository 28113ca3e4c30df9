"""Random lives of an honest portal and its mirror: crashes, restarts, rotations, old copies that fetch what they lost.
Nobody is accused, and in the end both hold the same."""

from __future__ import annotations

import random

import pytest

from harness.mirror_world import NAME, World, no_dns, served, world
from meshd.daemon.portal import audit, crosslogging, fetching
from meshd.daemon.portal.origin import Origin
from meshd.daemon.portal.witnesses import Witnesses
from meshd.errors import MeshError
from meshd.net.portal_client import HttpClient
from meshd.net.srv import Services
from meshd.store import portal_log_rows as log_rows
from meshd.store.portal_db import open_portal

STEPS = 25


async def live(found: World, seed: int) -> None:
    rng = random.Random(seed)
    copies = 0
    kept = None
    vkey = found.identity.cosigner.vkey
    url = f"http://{NAME}/.well-known/mmm-witness"
    await found.portal.change(lambda connection: log_rows.put_peer(connection, f"{NAME}/mmm-log", url, [], [vkey]))
    where = found.home / "portal" / "portal.db"
    for step in range(STEPS):
        match rng.choice(("write", "write", "write", "follow", "follow", "stop", "die", "restart", "rotate", "copy",
                          "old", "note")):  # fmt: skip
            case "write":
                await found.write(rng.randrange(1, 6), rng.choice(("alice", "bob")))
            case "follow":
                await found.mirror.once()
            case "stop":  # in the middle of following
                pages = rng.randrange(1, 3)

                def stop(done: int, total: int) -> None:
                    nonlocal pages
                    pages -= 1
                    if not pages:
                        raise MeshError("killed")

                found.progress = stop
                try:
                    await found.mirror.once()
                except MeshError:
                    pass
                found.progress = lambda done, total: None
                found.restart()
            case "die":
                found.restart()
            case "restart":
                await found.replace_portal(where)
            case "rotate":
                if step % 2:
                    await found.mirror.once()  # it has to see one key beside the other
                    await found.portal.change(found.portal.log.rotate)
                    await found.mirror.once()
            case "copy":
                copies += 1
                kept = found.home / f"copy-{copies}.db"
                with open_portal(where, readonly=True) as database:
                    database.backup(kept)
            case "old" if kept is not None:
                await found.mirror.once()
                await found.replace_portal(kept)
                where, kept = kept, None
                mirror = served(found.mirroring, found.nursery, found.mirror, hosts=(NAME,))
                witnesses = Witnesses(found.portal, HttpClient(mirror.dial))
                await witnesses.guard()
                log = found.portal.log
                if log.ahead is not None:
                    source = Origin(
                        mirror.client(), Services(no_dns), NAME, log.peer.key, plain=True, now=lambda: found.engine.now
                    )
                    await fetching.fetch(found.portal, witnesses, source)
                assert log.ahead is None, f"seed {seed}, step {step}"
                for one in found.people.values():  # accounts that are younger than the copy are opened again
                    await found.engine.open(one)
            case "note":
                await crosslogging.note_others(found.portal, found.engine.now)
        assert found.mirror.evidence is None, f"seed {seed}, step {step}"
    await found.mirror.once()
    assert found.mirroring.edge == found.portal.edge, f"seed {seed}"
    assert audit.verify(found.store).root == audit.verify(where).root == found.portal.edge.root()


@pytest.mark.parametrize("seed", range(8))
async def test_no_life_of_an_honest_portal_stops_its_mirror(home, monkeypatch, seed):
    monkeypatch.setattr("meshd.daemon.portal.origin.MAX_ENTRIES", 3)
    async with world(home) as found:
        await live(found, seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 400))
async def test_no_life_of_an_honest_portal_stops_its_mirror_however_many_there_are(home, monkeypatch, seed):
    monkeypatch.setattr("meshd.daemon.portal.origin.MAX_ENTRIES", 3)
    async with world(home) as found:
        await live(found, seed)
