"""Checkpoints of other logs as entries of a portal's own: once a day, proved by the anchor, and carried by mirrors."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from harness.mirror_world import world
from harness.portal_engine import DOMAIN, Engine, engine
from harness.portal_people import NOW, Person
from meshd.daemon.portal import admin, audit, crosslogging
from meshd.daemon.portal import witness as service
from meshd.daemon.portal.http import Request
from meshd.daemon.portal.sequencer import Sequencer
from meshd.portal import crosslog
from meshd.portal import messages as m
from meshd.portal.outcomes import Policy
from meshd.portal.structures import PeerSize
from meshd.store import portal_log_rows as log_rows
from meshd.tlog import checkpoint as checkpoints
from meshd.tlog import tree, witness
from meshd.tlog.leaf import SALT_BYTES, Leaf, content_digest
from meshd.tlog.note import Note
from meshd.tlog.proof import Proof

pytestmark = pytest.mark.draft("Status")
DAY = crosslogging.SECONDS


async def brought(here: Engine, there: Engine) -> None:
    """The log of `here` is known to `there`, and has brought its newest checkpoint."""
    log, other = here.sequencer.log, there.sequencer
    peer = log_rows.peer(other.view.connection, log.origin)
    if peer is None:
        await other.change(lambda connection: log_rows.put_peer(connection, log.origin, "", log.vkeys[:-1], []))
    old = peer.size if peer is not None else 0
    proof = log.proof(here.sequencer.view.connection, old, log.signed.size)
    body = witness.Request(old, proof, log.signed.note).encode()
    request = Request("POST", service.ADD, {}, body, "127.0.0.1", "127.0.0.1", trio.sleep_forever)
    assert (await service.answer(other, request)).status == 200


def anchored(anchor: str | None, portal: Engine, origin: str) -> checkpoints.Checkpoint:
    """The checkpoint that an anchor proves to be an entry of the portal's log."""
    assert anchor is not None
    proof = Proof.parse(anchor.encode())
    rest = proof.extra[SALT_BYTES:]
    at = rest.rindex(f"{origin}\n".encode())
    leaf, note = Leaf.decode(rest[:at]), rest[at:]
    proof.verify(leaf.hash(), portal.logs)
    assert leaf.content == content_digest(note) and leaf.pkey == crosslog.identifier(origin)
    return checkpoints.Checkpoint.parse(Note.parse(note).text)


async def other_portal(path: Path) -> Engine:
    return Engine(Sequencer(path, domain="other.example"))


async def test_a_cosigned_checkpoint_is_noted_once_a_day_and_only_where_the_log_grew(home):
    with engine(home / "one.db") as one:
        there = await other_portal(home / "two.db")
        try:
            alice = Person("alice")
            await one.open(alice)
            await brought(one, there)
            now = NOW
            await crosslogging.note_others(there.sequencer, now)
            assert there.sequencer.edge.size == 1
            await crosslogging.note_others(there.sequencer, now + 2 * DAY)
            assert there.sequencer.edge.size == 1  # it did not grow
            await one.publish(alice, alice.container())
            await brought(one, there)
            await crosslogging.note_others(there.sequencer, now + DAY - 1)
            assert there.sequencer.edge.size == 1  # it is not due
            await crosslogging.note_others(there.sequencer, now + DAY)
            assert there.sequencer.edge.size == 2
            (peer,) = (await there.status(peer_sizes=[PeerSize(origin=f"{DOMAIN}/mmm-log", size=1)])).peers or []
            logged = anchored(peer.anchor, there, f"{DOMAIN}/mmm-log")
            assert logged.size == 2 and logged.root == one.sequencer.edge.root()
            await one.publish(alice, alice.item("one"), alice.item("two"))
            await brought(one, there)
            # From the anchor on, the chain of proofs leads to the newest checkpoint that the peer showed.
            asked = [PeerSize(origin=f"{DOMAIN}/mmm-log", size=logged.size)]
            (peer,) = (await there.status(peer_sizes=asked)).peers or []
            (link,) = peer.proof_chain or []
            newest = checkpoints.Checkpoint.parse(Note.parse((peer.checkpoint or "").encode()).text)
            tree.verify_consistency(logged.size, newest.size, logged.root, newest.root, link.hashes)
        finally:
            there.sequencer.close()
        assert audit.verify(home / "two.db").size == 2


async def test_a_log_that_contradicted_itself_is_noted_no_more(home):
    with engine(home / "one.db") as one:
        there = await other_portal(home / "two.db")
        try:
            await one.open(Person("alice"))
            await brought(one, there)
            await there.sequencer.change(
                lambda connection: log_rows.equivocated(connection, f"{DOMAIN}/mmm-log", '["a", "b"]')
            )
            await crosslogging.note_others(there.sequencer, NOW)
            assert there.sequencer.edge.size == 0
        finally:
            there.sequencer.close()


async def test_who_accepts_a_loss_keeps_what_was_seen_of_the_old_log_in_the_new_one(home):
    with engine(home / "one.db") as portal:
        await portal.open(Person("alice"))
        log = portal.sequencer.log
        log.ahead, old = "somebody has seen more", log.signed.note
        (verifier,) = log.verifiers
        answer = await admin.perform(portal.sequencer, Policy(DOMAIN), {"command": "accept-loss"})
        assert answer["origin"] == f"{DOMAIN}/mmm-log/2" and portal.sequencer.edge.size == 2
        row = portal.sequencer.view.connection.execute("SELECT identifier, raw, mesh FROM versions WHERE seq = 2")
        identifier, raw, mesh = row.fetchone()
        assert identifier == crosslog.identifier(f"{DOMAIN}/mmm-log") and mesh is None
        assert checkpoints.read(Note.parse(raw), [verifier])[0] == checkpoints.Checkpoint.parse(old.text)
    assert audit.verify(home / "one.db").size == 2


async def test_a_mirror_carries_them_and_nobody_gets_them_as_an_entry(home):
    async with world(home) as found:
        await found.write(3)
        there = await other_portal(home / "two.db")
        try:
            await there.open(Person("carol"))
            await brought(there, found.engine)
            for number in range(2):
                await crosslogging.note_others(found.portal, found.portal.log.now + number * DAY)
                await there.open(Person(f"dave{number}"))
                await brought(there, found.engine)
        finally:
            there.sequencer.close()
        await found.mirror.once()
        assert found.mirroring.edge == found.portal.edge and found.mirror.size == 5
        assert audit.verify(found.store).size == 5
        message = m.GetRequest(identifier=crosslog.identifier("other.example/mmm-log"))
        reply = await found.engine.ask("GetRecords", message)
        assert isinstance(reply, m.MeshResponse) and reply.status == 404
