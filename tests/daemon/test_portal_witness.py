"""Portals that witness each other: what is cosigned and what not, how cosignatures come back, and the old copy."""

from __future__ import annotations

import json
import shutil

import pytest
import trio

from harness.portal_engine import DOMAIN, Engine, engine
from harness.portal_people import Person, tagged
from harness.portal_server import Running, portal_server
from meshd.crypto.keys import SigningKey
from meshd.daemon.portal import admin
from meshd.daemon.portal import witness as service
from meshd.daemon.portal.http import Request, Response
from meshd.daemon.portal.log import Log
from meshd.daemon.portal.sequencer import Sequencer
from meshd.daemon.portal.witnesses import Witnesses
from meshd.errors import BadRequest
from meshd.net.portal_client import HttpClient
from meshd.portal import messages as m
from meshd.portal.outcomes import Policy
from meshd.portal.structures import PeerSize
from meshd.store import portal_log_rows as log_rows
from meshd.tlog import checkpoint as checkpoints
from meshd.tlog import cosignature, tree, witness
from meshd.tlog.checkpoint import Checkpoint
from meshd.tlog.note import Note, Signature, Signer, Verifier

ORIGIN = "other.example/mmm-log"
OTHER = Signer(ORIGIN, SigningKey.generate(lambda length: b"o" * length))
LEAVES = [tree.leaf_hash(bytes([number])) for number in range(40)]


def read(level: int, number: int) -> bytes:
    if not level:
        return LEAVES[number]
    return tree.node_hash(read(level - 1, 2 * number), read(level - 1, 2 * number + 1))


def note_of(size: int, by: Signer = OTHER, root: bytes | None = None) -> Note:
    return checkpoints.sign(Checkpoint(ORIGIN, size, root or tree.root(size, read)), [by])


def body_of(old: int, note: Note, proof: tuple[bytes, ...] | None = None) -> bytes:
    size = Checkpoint.parse(note.text).size
    return witness.Request(old, tree.consistency_proof(old, size, read) if proof is None else proof, note).encode()


def request(method: str, target: str, body: bytes = b"") -> Request:
    return Request(method, target, {}, body, "127.0.0.1", "127.0.0.1", trio.sleep_forever)


async def bring(portal: Engine, body: bytes) -> Response:
    return await service.answer(portal.sequencer, request("POST", service.ADD, body))


async def knows(portal: Engine) -> Log:
    await portal.sequencer.change(lambda connection: log_rows.put_peer(connection, ORIGIN, "", [OTHER.vkey], []))
    assert portal.sequencer.log is not None
    return portal.sequencer.log


async def test_a_consistent_checkpoint_is_cosigned_and_shown(home):
    with engine(home / "portal.db") as portal:
        log = await knows(portal)
        for old, size in ((0, 3), (3, 3), (3, 8), (8, 21)):
            note = note_of(size)
            answer = await bring(portal, body_of(old, note))
            assert answer.status == 200
            line = Signature.parse(answer.body.decode().removesuffix("\n"))
            cosignature.verify(Note(note.text, (line,)), log.witness.verifier)
        target = f"{service.PREFIX}{witness.origin_hash(ORIGIN)}/checkpoint"
        shown = await service.answer(portal.sequencer, request("GET", target))
        kept = Note.parse(shown.body)
        assert checkpoints.read(kept, [OTHER.verifier])[0].size == 21
        cosignature.verify(kept, log.witness.verifier)
        (peer,) = (await portal.status(peer_sizes=[PeerSize(origin=ORIGIN, size=3)])).peers or []
        assert (peer.origin, peer.state, peer.checkpoint) == (ORIGIN, "Consistent", kept.encode().decode())
        size, root = 3, tree.root(3, read)
        for link in peer.proof_chain or []:
            assert link.from_ == size
            tree.verify_consistency(size, link.to, root, tree.root(link.to, read), link.hashes)
            size, root = link.to, tree.root(link.to, read)
        assert size == 21


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (body_of(0, note_of(3)).replace(b"old 0", b"new 0"), 400),
        (body_of(9, note_of(12)).replace(b"old 9", b"old 13"), 400),
        (body_of(8, note_of(12, Signer(ORIGIN, SigningKey.generate(lambda length: b"x" * length)))), 403),
        (body_of(3, note_of(12)), 409),
        (body_of(8, note_of(12), (b"\0" * 32,)), 422),
    ],
    ids=["malformed", "larger", "unsigned", "other-size", "no-proof"],
)
async def test_what_is_not_shown_to_be_right_is_not_cosigned(home, body, status):
    with engine(home / "portal.db") as portal:
        await knows(portal)
        assert (await bring(portal, body_of(0, note_of(8)))).status == 200
        answer = await bring(portal, body)
        assert answer.status == status
        if status == 409:
            assert (answer.body, answer.content_type) == (b"8\n", "text/x.tlog.size")
        assert log_rows.peer(portal.sequencer.view.connection, ORIGIN).size == 8  # type: ignore[union-attr]
        assert (await bring(portal, body_of(8, note_of(12)))).status == 200


async def test_an_unknown_log_is_not_found_and_a_stranger_causes_no_write(home):
    with engine(home / "portal.db") as portal:
        before = portal.sequencer.view.connection.execute("PRAGMA data_version").fetchone()
        assert (await bring(portal, body_of(0, note_of(3)))).status == 404
        assert portal.sequencer.view.connection.execute("PRAGMA data_version").fetchone() == before
        for target in ("", "x/checkpoint", f"{witness.origin_hash(ORIGIN)}/checkpoint"):
            asked = request("GET", service.PREFIX + target)
            assert (await service.answer(portal.sequencer, asked)).status == 404
        assert (await service.answer(portal.sequencer, request("GET", service.ADD))).status == 405


async def test_a_log_that_signs_two_histories_is_cosigned_no_more(home):
    with engine(home / "portal.db") as portal:
        await knows(portal)
        await bring(portal, body_of(0, note_of(8)))
        forked = note_of(8, root=b"\1" * 32)
        assert (await bring(portal, body_of(8, forked))).status == 409
        assert (await bring(portal, body_of(8, note_of(12)))).status == 403
        (peer,) = (await portal.status()).peers or []
        assert peer.state == "Equivocated"
        one, other = [checkpoints.read(Note.parse(note.encode()), [OTHER.verifier])[0] for note in peer.evidence or []]
        assert one.size == other.size and one.root != other.root


# --- over HTTP --------------------------------------------------------------------------------------------------------


async def introduce(here: Running, there: Running, *, ours: bool = True) -> None:
    """`here` brings its checkpoints to `there`, which knows its log."""
    log, witnessing = here.portal.sequencer.log, there.portal.sequencer.log
    assert log is not None and witnessing is not None
    url = f"http://127.0.0.1:{there.port}/.well-known/mmm-witness"
    *log_keys, witness_key = witnessing.vkeys
    await here.portal.sequencer.change(
        lambda connection: log_rows.put_peer(connection, witnessing.origin, url, log_keys, [witness_key])
    )
    if ours:
        await there.portal.sequencer.change(
            lambda connection: log_rows.put_peer(connection, log.origin, "", log.vkeys[:-1], [])
        )


async def opened(running: Running, name: str) -> m.CreateResponse:
    person = Person(name)
    message = m.CreateRequest(account=f"{name}@{running.portal.config.domain}", profile=tagged(person.root))
    client = running.client(person.first)
    client.host = running.portal.config.domain
    reply = await client.ask("CreateAccount", message)
    assert isinstance(reply, m.CreateResponse)
    return reply


async def until_cosigned(running: Running, key: Verifier, size: int) -> None:
    log = running.portal.sequencer.log
    assert log is not None
    with trio.fail_after(20):
        while True:
            found = [(one.name, one.key_id) for one in log.signed.note.signatures]
            if log.signed.size == size and (key.name, key.key_id) in found:
                break
            await trio.sleep(0.02)
    cosignature.verify(log.signed.note, key)


@pytest.fixture
def prompt(monkeypatch):
    monkeypatch.setattr("meshd.daemon.portal.witnesses.PACE_SECONDS", 0.01)
    monkeypatch.setattr("meshd.daemon.portal.witnesses.RETRY_SECONDS", 0.05)


async def test_two_portals_cosign_each_other(home, prompt):
    for name in ("one", "other"):
        (home / name).mkdir()
    async with (
        portal_server(home / "one") as one,
        portal_server(home / "other", domain="other.example") as other,
    ):
        await introduce(one, other)
        await introduce(other, one, ours=False)
        await opened(one, "alice")
        await until_cosigned(one, other.portal.sequencer.log.witness.verifier, 1)
        await opened(one, "bob")
        await opened(other, "carol")
        await until_cosigned(one, other.portal.sequencer.log.witness.verifier, 2)
        await until_cosigned(other, one.portal.sequencer.log.witness.verifier, 1)
        assert one.portal.witnesses.states == {"other.example/mmm-log": "cosigns"}
        assert b"meshd_portal_witnesses 1" in one.portal.metrics.text()
        note = one.portal.sequencer.log.signed.note
    async with portal_server(home / "one") as one:  # what came is kept
        kept = {(line.name, line.key_id) for line in one.portal.sequencer.log.signed.note.signatures}
        assert {(line.name, line.key_id) for line in note.signatures} <= kept


async def test_a_witness_that_is_gone_delays_nothing(home, prompt):
    async with portal_server(home) as one:
        url = "http://127.0.0.1:1/.well-known/mmm-witness"
        await one.portal.sequencer.change(
            lambda connection: log_rows.put_peer(connection, ORIGIN, url, [OTHER.vkey], [OTHER.vkey])
        )
        with trio.fail_after(5):
            assert (await opened(one, "alice")).status == 201


async def test_a_store_restored_from_an_old_copy_writes_nothing_until_that_is_decided(home, prompt):
    for name in ("one", "other"):
        (home / name).mkdir()
    async with portal_server(home / "other", domain="other.example") as other:
        async with portal_server(home / "one") as one:
            await introduce(one, other)
            await opened(one, "alice")
            await until_cosigned(one, other.portal.sequencer.log.witness.verifier, 1)
        shutil.copytree(home / "one", home / "old")
        async with portal_server(home / "one") as one:
            await opened(one, "bob")
            await until_cosigned(one, other.portal.sequencer.log.witness.verifier, 2)
        async with portal_server(home / "old") as old:
            refused = await opened(old, "carol")
            assert refused.status == 503 and "old copy" in (refused.status_description or "")
            log = old.portal.sequencer.log
            assert log.ahead is not None and log.signed.size == 1
            health = await old.client().send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert health.status == 503 and json.loads(health.body)["status"] == "behind"
            await old.portal.sequencer.change(log.begin_anew)
            assert (await opened(old, "carol")).status == 201
            assert log.origin == f"{DOMAIN}/mmm-log/2" and len(log.verifiers) == 1
            checkpoints.read(log.signed.note, log.verifiers)
        async with portal_server(home / "one") as one:  # the newest copy goes on
            assert one.portal.sequencer.log.ahead is None
            assert (await opened(one, "dave")).status == 201


async def test_the_log_is_cosigned_anew_although_nothing_is_written(home, autojump_clock):
    sequencer = Sequencer(home / "portal.db", domain=DOMAIN, interval=3600, clock=autojump_clock.current_time)
    try:
        log = sequencer.log
        assert log is not None
        began = log.signed.time
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Witnesses(sequencer, HttpClient()).keep_fresh)
            times = set()
            for _ in range(3):
                await trio.sleep(3650)
                with trio.fail_after(1e6):
                    while log.signed.time in times | {began}:
                        await trio.sleep(1)
                times.add(cosignature.verify(log.signed.note, log.witness.verifier))
            assert len(times) == 3 and log.due > max(times)
            nursery.cancel_scope.cancel()
    finally:
        sequencer.close()


async def test_whoever_runs_a_portal_replaces_its_key_and_loses_nothing_that_is_not_lost(home):
    with engine(home / "portal.db") as portal:
        policy, log = Policy(DOMAIN), portal.sequencer.log
        assert log is not None
        answer = await admin.perform(portal.sequencer, policy, {"command": "rotate-key"})
        assert answer == {"origin": f"{DOMAIN}/mmm-log", "keys": log.vkeys[:2], "witness": log.witness.vkey}
        with pytest.raises(BadRequest):
            await admin.perform(portal.sequencer, policy, {"command": "accept-loss"})
        log.ahead = "somebody has seen more"
        answer = await admin.perform(portal.sequencer, policy, {"command": "accept-loss"})
        assert answer["origin"] == f"{DOMAIN}/mmm-log/2" and log.ahead is None
    with engine(home / "portal.db") as portal:
        assert portal.sequencer.log is not None and portal.sequencer.log.vkeys[:1] == answer["keys"]
