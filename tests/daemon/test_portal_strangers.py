"""What strangers, forgers and people in a hurry get from a portal: the same for everybody, and not too often."""

from __future__ import annotations

import time

import msgspec
import pytest
import trio

from harness.portal_people import Person, tagged
from harness.portal_server import portal_server, request_bytes, signed
from meshd.daemon.portal import service
from meshd.daemon.portal.config import Limits, Moved, Quota
from meshd.daemon.portal.limits import Buckets, is_local, prefix
from meshd.portal import codec, httpsig
from meshd.portal import messages as m
from meshd.portal import structures as s
from meshd.portal.codec import Dialect
from meshd.profile.claim import Kind

NAME = "alice@example.net"


async def opened(running, alice: Person, name: str = NAME):
    client = running.client(alice.first)
    assert (await client.ask("CreateAccount", m.CreateRequest(account=name, profile=tagged(alice.root)))).status == 201
    return client


def publish(one) -> bytes:
    return codec.encode_request("Publish", m.PublishRequest(entry=tagged(one)), Dialect.OURS)


async def test_a_replayed_request_is_refused(home):
    alice = Person("alice")
    async with portal_server(home) as running:
        client = await opened(running, alice)
        body = publish(alice.container())
        request = request_bytes(body, signed(body, alice.first, host="example.net"))
        assert (await client.send(request)).status == 201
        assert (await client.send(request)).status == 401


async def test_host_query_and_digest_count_where_they_are_signed_and_nowhere_else(home):
    alice = Person("alice")
    body = codec.encode_request("Hello", m.HelloRequest(), Dialect.OURS)
    wrong = {"Content-Digest": "sha-256=:AAAA:"}
    async with portal_server(home) as running:
        client = await opened(running, alice)
        for by, host, path, more, status in (
            (None, "example.net", "/.well-known/mmm/", {}, 201),
            (None, "example.net", "/.well-known/mmm", {}, 201),
            (None, "elsewhere.example", "/.well-known/mmm/?a=b", wrong, 201),
            (alice.first, "example.net", "/.well-known/mmm/", {}, 201),
            (alice.first, "portal.example.net", "/.well-known/mmm/", {}, 201),
            (alice.first, "elsewhere.example", "/.well-known/mmm/", {}, 401),
            (alice.first, "example.net", "/.well-known/mmm/?a=b", {}, 401),
            (alice.first, "example.net", "/.well-known/mmm/", wrong, 401),
        ):
            request = request_bytes(body, signed(body, by, host=host) | more)
            answer = await client.send(request.replace(b"POST /.well-known/mmm/ ", b"POST " + path.encode() + b" ", 1))
            assert answer.status == status


@pytest.mark.parametrize("skew", [-400, 400])
async def test_a_clock_that_is_wrong_is_told_the_right_time(home, skew):
    alice = Person("alice")
    async with portal_server(home) as running:
        client = await opened(running, alice)
        body = publish(alice.container())
        answer = await client.send(
            request_bytes(body, signed(body, alice.first, host="example.net", now=time.time() + skew))
        )
        assert answer.status == 401 and answer.headers["date"]
        answer = await client.send(request_bytes(body, signed(body, alice.first, host="example.net")))
        assert answer.status == 201


async def test_a_signature_from_before_a_restart_does_not_count(home):
    alice = Person("alice")
    async with portal_server(home) as running:
        await opened(running, alice)
    body = publish(alice.container())
    old = request_bytes(body, signed(body, alice.first, host="example.net", now=time.time() - 20))
    async with portal_server(home) as running:
        assert (await running.client().send(old)).status == 401


@pytest.mark.parametrize(
    "spoil",
    [
        lambda body, found: (body.replace(b"SignedApplicationProfile", b"SignedApplicationProfil3"), found),
        lambda body, found: (body, {**found, "signature": found["Signature"][:-8] + "AAAAAAA="}),
        lambda body, found: (body, {**found, "mesh-if-head": ""}),
        lambda body, found: (body, {**found, "mesh-extensions": "auth"}),
        lambda body, found: (body, {**found, "host": "elsewhere.example"}),
    ],
)
async def test_a_request_that_was_changed_on_its_way_is_refused(home, spoil):
    alice = Person("alice")
    async with portal_server(home) as running:
        client = await opened(running, alice)
        body = publish(alice.container())
        body, found = spoil(body, signed(body, alice.first, host="example.net"))
        if "signature" in found:
            found.pop("Signature")
        answer = await client.send(request_bytes(body, found))
        assert answer.status in (400, 401)
        assert running.portal.sequencer.view.last_index() == 1


async def test_a_request_that_was_signed_for_another_portal_is_not_taken(home):
    alice = Person("alice")
    async with portal_server(home) as running:
        client = await opened(running, alice)
        body = publish(alice.container())
        answer = await client.send(request_bytes(body, signed(body, alice.first, host="portal.elsewhere.example")))
        assert answer.status == 401
        assert b"belongs to another portal" in answer.body
        for host in ("example.net:443", "portal.example.net", f"127.0.0.1:{running.port}", "localhost"):
            answer = await client.send(request_bytes(body, signed(body, alice.first, host=host)))
            assert answer.status == 201, host


async def test_a_profile_that_authorises_itself_is_refused(home):
    alice, mallory = Person("alice"), Person("mallory")
    async with portal_server(home) as running:
        await opened(running, alice)
        thief = await opened(running, mallory, "mallory@example.net")
        # A profile of alice's mesh that lists a device of mallory's, signed by that device.
        alice.devices.append(mallory.first)
        forged = alice.profile(mallory.first, [alice.head])
        answer = await thief.ask("Publish", m.PublishRequest(entry=tagged(forged)))
        assert answer.status == 401
        assert running.portal.sequencer.view.last_index() == 2
        devices = running.portal.sequencer.view.authority(alice.mesh).devices()
        assert devices == {alice.first.udf}


async def test_nobody_learns_whether_an_account_exists(home):
    alice, bob = Person("alice"), Person("bob")
    phone = bob.device("phone")
    async with portal_server(home) as running:
        await opened(running, alice)
        stranger = running.client(phone)
        answers = []
        for name in (NAME, "nobody@example.net"):
            mesh = alice.mesh if name == NAME else bob.mesh
            began = trio.current_time()
            await stranger.ask(
                "ConnectStart", m.ConnectStartRequest(signed_request=phone.request(mesh), account_id=name)
            )
            answers.append([stranger.last.status, stranger.last.body])
            await stranger.ask("ConnectStatus", m.ConnectStatusRequest(account_id=name, device_id=phone.udf))
            answers[-1] += [stranger.last.status, stranger.last.body]
            assert trio.current_time() - began >= 2 * service.PAD_SECONDS * 0.9
        assert answers[0] == answers[1]


async def test_a_stranger_sees_items_of_others_as_little_as_what_is_not_there(home):
    alice, bob = Person("alice"), Person("bob")
    async with portal_server(home) as running:
        client = await opened(running, alice)
        await client.ask("Publish", m.PublishRequest(entry=tagged(alice.container())))
        stranger, other = running.client(), await opened(running, bob, "bob@example.net")
        for asker in (stranger, other):
            seen = []
            for identifier in (alice.vault, bob.vault):
                await asker.ask("Get", m.GetRequest(identifier=identifier))
                seen.append((asker.last.status, asker.last.body))
            assert seen[0] == seen[1] and seen[0][0] == 404


async def test_a_stranger_who_reads_profiles_learns_nothing_of_what_else_is_written(home):
    alice = Person("alice")
    profiles = m.GetRequest(
        key_values=[
            s.KeyValue(key="UserProfile", value=alice.mesh),
            s.KeyValue(key="Type", value="SignedPersonalProfile"),
        ]
    )
    async with portal_server(home) as running:
        client, stranger = await opened(running, alice), running.client()
        before = await stranger.ask("GetRecords", profiles)
        assert [bytes(item.data) for item in before.data_items] == [alice.root.raw]
        for one in (alice.container(), alice.item("secret")):
            assert (await client.ask("Publish", m.PublishRequest(entry=tagged(one)))).status == 201
        assert await stranger.ask("GetRecords", profiles) == before


async def test_who_asks_too_often_has_to_wait(home):
    async with portal_server(home, behind_proxy=True, insecure_http=False) as running:
        client = running.client()

        async def ask(address: str) -> int:
            body = codec.encode_request("ValidateAccount", m.ValidateRequest(account=NAME), Dialect.OURS)
            found = {"host": "example.net", "mesh-extensions": "auth", "x-forwarded-for": f"1.2.3.4, {address}"}
            return (await client.send(request_bytes(body, found))).status

        assert [await ask("192.0.2.1") for _ in range(10)] == [201] * 10
        assert await ask("192.0.2.1") == 429
        assert int(client.last.headers["retry-after"]) >= 1
        assert await ask("192.0.2.2") != 429


async def test_what_can_not_be_read_or_verified_is_counted_as_a_strangers(home):
    alice, mallory = Person("alice"), Person("mallory")
    limits = Limits(other_per_minute=3)
    async with portal_server(home, behind_proxy=True, insecure_http=False, limits=limits) as running:
        client = running.client(alice.first)
        created = m.CreateRequest(account=NAME, profile=tagged(alice.root))
        assert (await client.ask("CreateAccount", created, x_forwarded_for="192.0.2.9")).status == 201
        body = publish(alice.container())
        forged = signed(body, mallory.first, host="example.net")
        forged["Signature-Input"] = forged["Signature-Input"].replace(
            mallory.first.keys.dak.udf, alice.first.keys.dak.udf
        )
        for address, data, found, status in (
            ("192.0.2.1", b"{", {"host": "example.net", "mesh-extensions": "auth"}, 400),
            ("192.0.2.2", body, forged, 401),
        ):
            answers = [
                (await client.send(request_bytes(data, {**found, "x-forwarded-for": address}))).status for _ in range(4)
            ]
            assert answers[:3] == [status] * 3 and answers[3] in (429, 503)
            assert int(client.last.headers["retry-after"]) >= 1
        # Whoever has the key is no stranger, wherever he sends from.
        answer = await client.ask("Publish", m.PublishRequest(entry=tagged(alice.container())), x_forwarded_for=address)
        assert answer.status == 201


async def test_more_signatures_than_can_be_remembered_have_to_come_again(home):
    alice = Person("alice")
    async with portal_server(home) as running:
        client = await opened(running, alice)
        running.portal.service._nonces = httpsig.NonceCache(0, limit=0)
        answer = await client.ask("Publish", m.PublishRequest(entry=tagged(alice.container())))
        assert answer.status == client.last.status == 503 and client.last.headers["retry-after"]


async def test_a_flood_of_connection_requests_leaves_eight(home):
    alice, bob = Person("alice"), Person("bob")
    async with portal_server(home) as running:
        client = await opened(running, alice)
        answers = []
        for count in range(12):
            phone = bob.device(f"phone {count}")
            stranger = running.client(phone)
            await stranger.ask(
                "ConnectStart", m.ConnectStartRequest(signed_request=phone.request(alice.mesh), account_id=NAME)
            )
            answers.append(stranger.last.status)
        assert answers == [201] * 8 + [503] * 4
        waiting = await client.ask("ConnectPending", m.ConnectPendingRequest(account_id=NAME))
        assert len(waiting.pending) == 8


async def test_an_account_that_is_full_takes_no_more(home):
    alice = Person("alice")
    async with portal_server(home, quota=Quota(entries=4)) as running:
        client = await opened(running, alice)
        answers = [(await client.ask("Publish", m.PublishRequest(entry=tagged(alice.container())))).status]
        answers.append((await client.ask("Publish", m.PublishRequest(entry=tagged(alice.item("one"))))).status)
        assert answers == [201, 507]


async def test_escrow_is_found_by_its_exact_name_and_its_owner_is_told(home):
    alice = Person("alice")
    async with portal_server(home) as running:
        client = await opened(running, alice)
        entry = alice.escrow()
        assert (await client.ask("Publish", m.PublishRequest(entry=tagged(entry)))).status == 201
        assert (await client.ask("Publish", m.PublishRequest(entry=tagged(entry)))).status == 201
        view = running.portal.sequencer.view
        assert [head.vid for head in view.heads(Kind.ONLINE_ESCROW, entry.identifier)] == [entry.vid]
        assert view.usage(alice.mesh).escrow == 1
        found = await client.ask("Get", m.GetRequest(identifier=entry.identifier))
        assert found.entries == [tagged(entry)]


async def test_invitations_open_one_account_each(home):
    alice, bob = Person("alice"), Person("bob")
    from meshd.daemon.portal import admin

    async with portal_server(home, accounts="invite") as running:
        portal = running.portal
        asked = {"command": "invite", "seconds": 3600, "note": "for alice"}
        token = (await admin.perform(portal.sequencer, portal.service.policy, asked))["invite"]
        answers = []
        for person, name, invite in ((alice, NAME, None), (alice, NAME, token), (bob, "bob@example.net", token)):
            client = running.client(person.first)
            created = m.CreateRequest(account=name, profile=tagged(person.root), invite=invite)
            answers.append((await client.ask("CreateAccount", created)).status)
        assert answers == [401, 201, 401]


async def test_a_portal_that_has_moved_says_where_to(home):
    alice = Person("alice")
    where = "https://new.example.net/.well-known/mmm/"
    async with portal_server(home, moved=Moved(uri=where)) as running:
        client = running.client(alice.first)
        await client.ask("Hello", m.HelloRequest())
        assert (client.last.status, client.last.headers["location"]) == (307, where)


async def test_a_reserved_name_waits_for_who_reserved_it(home):
    alice, bob = Person("alice"), Person("bob")
    async with portal_server(home) as running:
        client = running.client(alice.first)
        answer = await client.ask("ValidateAccount", m.ValidateRequest(account=NAME, reserve=True))
        assert answer.valid and answer.reservation
        other = running.client(bob.first)
        created = await other.ask("CreateAccount", m.CreateRequest(account=NAME, profile=tagged(bob.root)))
        assert created.status == 409
        created = await client.ask(
            "CreateAccount",
            m.CreateRequest(account=NAME, profile=tagged(alice.root), reservation=answer.reservation),
        )
        assert created.status == 201


def test_buckets_fill_again_and_count_networks_as_one():
    buckets = Buckets(Limits(get_per_minute=2))
    assert [buckets.take("Get", "192.0.2.1", 0.0) for _ in range(2)] == [0.0, 0.0]
    assert buckets.take("Get", "192.0.2.1", 0.0) == pytest.approx(30.0)
    assert buckets.take("Get", "192.0.2.1", 30.0) == 0.0
    assert buckets.take("GetRecords", "::ffff:192.0.2.1", 30.0) > 0
    assert prefix("2001:db8:0:1ff::1") == prefix("2001:db8:0:100::2") == "2001:db8:0:100::/56"
    assert prefix("2001:db8:0:200::1") != prefix("2001:db8:0:100::2")
    assert Buckets(msgspec.structs.replace(Limits(), get_per_minute=0)).take("Get", "192.0.2.1", 0.0) == 0.0
    assert is_local("127.3.2.1") and is_local("::1") and is_local("::ffff:127.0.0.1") and not is_local("192.0.2.1")
