"""What a mirror serves: feeds to devices, its log to other mirrors, cosignatures; all else it sends to its portal."""

from __future__ import annotations

import time
from pathlib import Path

import trio

from harness import devices as harness
from harness.lan import MemoryLan
from harness.log_world import key
from harness.mirror_world import DOMAIN, ORIGIN, Served, World, asked_by, no_dns, served, world
from harness.portal_people import Person, tagged
from harness.portal_server import Client
from meshd.crypto import udf
from meshd.daemon.portal import mirrored
from meshd.daemon.portal.mirror import Mirror
from meshd.daemon.portal.origin import Origin
from meshd.daemon.portal.sequencer import Sequencer
from meshd.daemon.portal.witnesses import Witnesses
from meshd.daemon.portals.roster import Portals
from meshd.net.portal_client import HttpClient
from meshd.net.srv import Services
from meshd.portal import messages as m
from meshd.portal.structures import KeyValue
from meshd.profile import version
from meshd.profile.claim import Kind
from meshd.store import portal_log_rows as log_rows
from meshd.tlog import checkpoint as checkpoints
from meshd.tlog import cosignature, tree, witness
from meshd.tlog.leaf import Leaf
from meshd.tlog.note import Note, Signer
from meshd.tlog.proof import Proof

ACCOUNT = f"alice@{DOMAIN}"


def serving(found: World) -> Served:
    return served(found.mirroring, found.nursery, found.mirror)


def client(mirror: Served, by: Person | None = None) -> Client:
    return Client(lambda: mirror.dial(DOMAIN), by.first if by is not None else None)


async def test_nothing_is_served_before_everything_is_there(home):
    async with world(home) as found:
        alice = await found.write(4)
        asking = client(serving(found), alice)
        for transaction, message in (
            ("Status", m.StatusRequest()),
            ("GetRecords", m.GetRequest(key_values=[KeyValue(key="UserProfile", value=alice.mesh)])),
            ("Get", m.GetRequest(identifier=alice.mesh)),
        ):
            reply = await asking.ask(transaction, message)
            assert isinstance(reply, m.MeshResponse) and reply.status == 503
        assert (await asking.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")).status == 503
        await found.mirror.once()
        reply = await asking.ask("Status", m.StatusRequest())
        assert isinstance(reply, m.StatusResponse) and reply.status == 201
        assert (await asking.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")).status == 200


async def test_a_device_reads_its_feed_with_receipts_and_strangers_read_what_anybody_may(home):
    async with world(home) as found:
        alice = await found.write(6)
        await found.mirror.once()
        mirror = serving(found)
        feed = m.GetRequest(key_values=[KeyValue(key="UserProfile", value=alice.mesh)])
        reply = await client(mirror, alice).ask("GetRecords", feed, mesh_account=ACCOUNT, mesh_extensions="log")
        assert isinstance(reply, m.GetRecordsResponse)
        there = await Client(lambda: found.served.dial(DOMAIN), alice.first).ask("GetRecords", feed)
        assert isinstance(there, m.GetRecordsResponse)
        assert [one.data for one in reply.data_items or []] == [one.data for one in there.data_items or []]
        assert reply.page_key == there.page_key  # whoever changes from one to the other goes on where he was
        for receipt in reply.receipts or []:
            proof = Proof.parse(receipt.encode())
            proof.verify(Leaf.decode(proof.extra[16:]).hash(), found.portal.log.verifiers)
            cosignature.verify(proof.checkpoint, found.identity.cosigner.verifier)
        stranger = await client(mirror).ask("GetRecords", feed)
        assert isinstance(stranger, m.MeshResponse) and stranger.status == 404
        shown = await client(mirror).ask("GetRecords", m.GetRequest(identifier=alice.mesh))
        assert isinstance(shown, m.GetRecordsResponse) and [
            bytes(one.data or b"") for one in shown.data_items or []
        ] == [alice.head.raw]


async def test_who_lost_every_device_finds_the_escrow_entry_and_the_profiles_at_a_mirror(home):
    async with world(home) as found:
        alice = await found.write(2)
        envelope = dict(alice.escrow().body["EncryptedData"])
        raw = version.escrow_raw(Kind.OFFLINE_ESCROW, udf.random_udf(alice.rng), envelope)
        entry = version.verify(version.parse(raw))
        assert (await found.engine.publish(alice, entry)).status == 201
        await found.mirror.once()
        mirror = serving(found)
        for identifier, raw in ((entry.identifier, entry.raw), (alice.mesh, alice.head.raw)):
            reply = await client(mirror).ask("GetRecords", m.GetRequest(identifier=identifier))
            assert isinstance(reply, m.GetRecordsResponse)
            assert [bytes(one.data or b"") for one in reply.data_items or []] == [raw]
        assert found.mirror.size == found.mirroring.edge.size == 3  # a notice was kept, and no entry made
        history = [KeyValue(key="UserProfile", value=alice.mesh), KeyValue(key="Type", value="SignedPersonalProfile")]
        shown = await client(mirror).ask("GetRecords", m.GetRequest(key_values=history))
        assert isinstance(shown, m.GetRecordsResponse)
        assert [bytes(one.data or b"") for one in shown.data_items or []] == [alice.root.raw]


async def test_what_is_written_and_what_needs_an_account_is_sent_to_the_portal(home):
    async with world(home) as found:
        alice = await found.write(3)
        await found.mirror.once()
        asking = client(serving(found), alice)
        for transaction, message in (
            ("Publish", m.PublishRequest(entry=tagged(alice.item("new")))),
            ("CreateAccount", m.CreateRequest(account=ACCOUNT, profile=tagged(alice.root))),
            ("ValidateAccount", m.ValidateRequest(account=ACCOUNT)),
            ("Get", m.GetRequest(account=ACCOUNT)),
            ("ConnectPending", m.ConnectPendingRequest(account_id=ACCOUNT)),
        ):
            await asking.ask(transaction, message)
            assert asking.last is not None and asking.last.status == 307
            assert asking.last.headers["location"] == "http://origin.example.net:80/.well-known/mmm/"
        assert found.mirror.size == 3


async def test_a_mirror_is_mirrored(home):
    async with world(home) as found:
        await found.write(7)
        await found.mirror.once()
        path = home / "second.db"
        identity = mirrored.prepare(path, ORIGIN, "second.example", int(time.time()))
        peer = identity.peer.key
        values = (peer.udf, peer.verify_key.public, "full", "second.example")
        await found.mirroring.change(
            lambda connection: connection.execute("INSERT INTO peers VALUES (?, ?, ?, ?)", values)
        )
        second = Sequencer(path, create=False)
        try:
            http = HttpClient(serving(found).dial)
            origin = Origin(
                http, Services(no_dns), DOMAIN, peer, address="m:80", plain=True, now=lambda: int(time.time())
            )
            await Mirror(second, origin, identity).once()
            assert second.edge == found.portal.edge
            names = {one.name for one in second.log.signed.note.signatures}
            assert names == {ORIGIN, f"{DOMAIN}/mmm-witness", "mirror.example/mmm-mirror", "second.example/mmm-mirror"}
            # What the first holds is followed on; a size that it never was complete at is not there.
            await found.write(2)
            await found.mirror.once()
            await Mirror(second, origin, identity).once()
            assert second.edge == found.portal.edge
        finally:
            second.close()


async def test_a_checkpoint_that_is_brought_is_cosigned_once_it_is_stored(home):
    async with world(home) as found:
        await found.write(4)
        mirror = serving(found)
        await found.mirror.once()
        vkey = found.identity.cosigner.vkey
        await found.portal.change(
            lambda connection: log_rows.put_peer(
                connection, "mirror.example/mmm-log", "http://m/.well-known/mmm-witness", [], [vkey]
            )
        )
        witnesses = Witnesses(found.portal, HttpClient(mirror.dial))
        (peer,) = log_rows.peers(found.portal.view.connection)
        found.nursery.start_soon(found.mirror.run)
        for _ in range(2):
            await found.write(2)
            with trio.fail_after(20):
                await witnesses._push(peer)
            assert found.mirror.size == found.portal.edge.size
            cosignature.verify(found.portal.log.signed.note, found.identity.cosigner.verifier)


async def test_a_checkpoint_that_was_overtaken_while_it_was_stored_is_not_cosigned_any_more(home):
    async with world(home) as found:
        await found.write(4)
        await found.mirror.once()
        mirror, portal = serving(found), found.portal
        await found.write(2)
        proof = portal.log.proof(portal.view.connection, 4, 6)
        body = witness.Request(4, proof, portal.log.signed.note).encode()
        await found.write(2)
        found.nursery.start_soon(found.mirror.run)
        head = (
            f"POST /.well-known/mmm-witness/add-checkpoint HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        with trio.fail_after(20):
            answer = await client(mirror).send(head.encode() + body)
        assert (answer.status, answer.body) == (409, b"8\n")


async def test_a_checkpoint_of_a_log_that_is_not_mirrored_is_not_found(home):
    async with world(home) as found:
        await found.write(2)
        await found.mirror.once()
        asking = client(serving(found))
        other = found.portal.log
        foreign = Signer("x/mmm-log", key("x"))
        note = checkpoints.sign(checkpoints.Checkpoint(foreign.name, 0, tree.EMPTY_ROOT), [foreign])
        body = witness.Request(0, (), note).encode()
        head = (
            f"POST /.well-known/mmm-witness/add-checkpoint HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        assert (await asking.send(head.encode() + body)).status == 404
        target = f"/.well-known/mmm-witness/{witness.origin_hash(other.origin)}/checkpoint"
        shown = await asking.send(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert cosignature.verify(Note.parse(shown.body), found.identity.cosigner.verifier)


async def test_devices_sync_from_a_mirror_and_publish_where_it_sends_them(home: Path) -> None:
    async with world(home) as found:
        lan = MemoryLan()
        laptop, phone = (harness.blank(home, lan, name) for name in ("laptop", "phone"))
        try:
            await harness.found(laptop)
            item = await laptop.add("example.net", "alice", "first")
            async with trio.open_nursery() as nursery:
                at_portal = Portals(laptop.daemon, found.served.client(), Services(no_dns))
                await nursery.start(at_portal.run)
                await at_portal.add(ACCOUNT, "", None, plain=True)
                await laptop.until(lambda: bool(at_portal.running) and at_portal.running[ACCOUNT].in_step)
                await harness.admit(laptop, phone)  # which the laptop publishes
                await laptop.until(lambda: at_portal.running[ACCOUNT].in_step)
                await found.mirror.once()
                mirror = serving(found)

                async def dial(address: str) -> trio.abc.Stream:
                    return await (found.served if address.startswith("origin.") else mirror).dial(address)

                at_mirror = Portals(phone.daemon, HttpClient(dial), Services(no_dns))
                await nursery.start(at_mirror.run)
                await at_mirror.add(ACCOUNT, "", None, plain=True)
                await phone.until(lambda: phone.passwords() == {item.identifier: "first"})
                assert asked_by(mirror, "GetRecords") > 0
                await phone.edit(item.identifier, "second")
                await laptop.until(lambda: laptop.passwords() == {item.identifier: "second"})
                nursery.cancel_scope.cancel()
        finally:
            laptop.daemon.close()
            phone.daemon.close()
