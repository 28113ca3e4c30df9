"""A portal over real HTTP on loopback: what devices publish comes back, in order, and outlives a restart."""

from __future__ import annotations

import json

import trio

from harness.portal_people import Person, tagged
from harness.portal_server import portal_server
from meshd.crypto import base64url
from meshd.daemon.portal import admin
from meshd.portal import codec
from meshd.portal import messages as m
from meshd.portal import structures as s
from meshd.portal.outcomes import Policy
from meshd.profile.claim import Kind

NAME = "alice@example.net"


async def opened(running, alice: Person, name: str = NAME):
    """A client of the first device, with an account."""
    client = running.client(alice.first)
    assert (await client.ask("CreateAccount", m.CreateRequest(account=name, profile=tagged(alice.root)))).status == 201
    return client


def feed(mesh: str, page: str | None = None, **more) -> m.GetRequest:
    return m.GetRequest(
        key_values=[s.KeyValue(key="UserProfile", value=mesh)],
        search_constraints=s.SearchConstraints(page_key=page, **more),
    )


async def test_what_is_published_comes_back_in_the_order_of_the_log(home):
    alice = Person("alice")
    async with portal_server(home) as running:
        client = await opened(running, alice)
        published = [alice.container(), *(alice.item(f"secret {count}") for count in range(5))]
        for count, one in enumerate(published):
            answer = await client.ask("Publish", m.PublishRequest(entry=tagged(one)))
            assert (answer.status, answer.transaction_id) == (201, f"TID:{count + 2}")
        found = await client.ask("GetRecords", feed(alice.mesh))
        assert [bytes(item.data) for item in found.data_items] == [one.raw for one in (alice.root, *published)]
        assert found.page_key == "P7.0"
        again = await client.ask("GetRecords", feed(alice.mesh, found.page_key))
        assert not again.data_items and again.page_key == "P7.0"


async def test_everything_is_there_after_a_restart(home):
    alice = Person("alice")
    item = None
    async with portal_server(home) as running:
        client = await opened(running, alice)
        await client.ask("Publish", m.PublishRequest(entry=tagged(alice.container())))
        item = alice.item("one")
        await client.ask("Publish", m.PublishRequest(entry=tagged(item)))
    async with portal_server(home) as running:
        client = running.client(alice.first)
        found = await client.ask("Get", m.GetRequest(identifier=item.identifier))
        assert found.entries == [tagged(item)]
        edited = alice.item("two", item)
        assert (await client.ask("Publish", m.PublishRequest(entry=tagged(edited)))).status == 201
        found = await client.ask("Get", m.GetRequest(identifier=item.identifier, multiple=True))
        assert found.entries == [tagged(edited)]


async def test_an_administrator_whom_the_root_does_not_list_opens_an_account_over_a_restart(home):
    alice = Person("alice")
    tablet = alice.device("tablet")
    between = [alice.admit(alice.device("phone")), alice.promote(tablet)]
    created = m.CreateRequest(account=NAME, profile=tagged(alice.root), proof=tagged(between[-1]))
    async with portal_server(home) as running:
        assert (await running.client(tablet).ask("CreateAccount", created)).status == 201
    async with portal_server(home) as running:
        client = running.client(tablet)
        # None of these lists the device: only the account knows its key.
        assert (await client.ask("Publish", m.PublishRequest(entry=tagged(between[0])))).status == 201
        assert (await client.ask("GetRecords", feed(alice.mesh))).status == 404
        assert (await client.ask("Publish", m.PublishRequest(entry=tagged(between[1])))).status == 201
        found = await client.ask("GetRecords", feed(alice.mesh))
        assert [bytes(item.data) for item in found.data_items] == [one.raw for one in (alice.root, *between)]


async def test_a_closed_account_stays_closed_and_what_it_held_counts_for_the_next(home):
    alice = Person("alice")
    async with portal_server(home) as running:
        client = await opened(running, alice)
        await client.ask("Publish", m.PublishRequest(entry=tagged(alice.container())))
        assert (await client.ask("Publish", m.PublishRequest(close=NAME))).status == 201
    async with portal_server(home) as running:
        client = running.client(alice.first)
        assert (await client.ask("Get", m.GetRequest(account=NAME))).status == 404
        created = m.CreateRequest(account="next@example.net", profile=tagged(alice.root))
        assert (await client.ask("CreateAccount", created)).status == 201
        item = alice.item("one")
        assert (await client.ask("Publish", m.PublishRequest(entry=tagged(item)))).status == 201
        assert len((await client.ask("GetRecords", feed(alice.mesh))).data_items) == 3


async def test_a_repeated_publish_is_the_same_success(home):
    alice = Person("alice")
    async with portal_server(home) as running:
        client = await opened(running, alice)
        container = tagged(alice.container())
        for _ in range(3):
            assert (await client.ask("Publish", m.PublishRequest(entry=container))).status == 201
        assert running.portal.sequencer.view.last_index() == 2


async def test_unknown_links_are_answered_with_what_is_missing_and_nothing_is_stored(home):
    alice = Person("alice")
    async with portal_server(home) as running:
        client = await opened(running, alice)
        await client.ask("Publish", m.PublishRequest(entry=tagged(alice.container())))
        first = alice.item("one")
        second = alice.item("two", first)
        answer = await client.ask("Publish", m.PublishRequest(entry=tagged(second)))
        assert (answer.status, answer.missing) == (424, [base64url.encode(first.vid)])
        assert client.last.status == 424
        assert running.portal.sequencer.view.last_index() == 2


async def test_a_batch_is_answered_entry_by_entry_and_later_entries_see_earlier_ones(home):
    alice = Person("alice")
    async with portal_server(home) as running:
        client = await opened(running, alice)
        phone = alice.device("phone")
        profile = alice.admit(phone)
        entries = [tagged(profile), tagged(alice.container())]
        one = alice.item("one", by=phone)
        entries += [tagged(one), tagged(alice.item("two", one, by=phone))]
        lost = alice.item("lost")
        entries.append(tagged(alice.item("three", lost)))
        answer = await client.ask("Publish", m.PublishRequest(entries=entries))
        assert [outcome.status for outcome in answer.outcomes] == [201, 201, 201, 201, 424]
        assert answer.status == 424
        heads = running.portal.sequencer.view.heads(Kind.ITEM, one.identifier)
        assert len(heads) == 1 and heads[0].generation == 2


async def test_a_batch_of_many_large_entries_is_read_in_a_thread(home):
    alice = Person("alice")
    async with portal_server(home) as running:
        client = await opened(running, alice)
        await client.ask("Publish", m.PublishRequest(entry=tagged(alice.container())))
        items = [alice.item(f"{count}" * 300) for count in range(150)]
        answer = await client.ask("Publish", m.PublishRequest(entries=[tagged(one) for one in items]))
        assert answer.status == 201 and len(answer.outcomes) == 150
        page = await client.ask("GetRecords", feed(alice.mesh, "P2", max_entries=100))
        assert len(page.data_items) == 100 and page.page_key == "P102.0"


async def test_a_feed_waits_for_news(home):
    alice = Person("alice")
    async with portal_server(home) as running:
        writer, reader = await opened(running, alice), running.client(alice.first)
        container = alice.container()
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                found = []

                async def watch() -> None:
                    found.append(await reader.ask("GetRecords", feed(alice.mesh, "P1"), prefer="wait=50"))

                nursery.start_soon(watch)
                while not running.portal.sequencer.feeds.waiting:
                    await trio.lowlevel.checkpoint()
                await writer.ask("Publish", m.PublishRequest(entry=tagged(container)))
        assert [bytes(item.data) for item in found[0].data_items] == [container.raw]


async def test_who_waits_for_news_of_an_account_hears_at_once_that_it_was_closed(home):
    alice = Person("alice")
    async with portal_server(home) as running:
        client, sequencer = await opened(running, alice), running.portal.sequencer
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                found = []

                async def watch() -> None:
                    found.append(await client.ask("GetRecords", feed(alice.mesh, "P1"), prefer="wait=50"))

                nursery.start_soon(watch)
                while not sequencer.feeds.waiting:
                    await trio.lowlevel.checkpoint()
                await admin.perform(sequencer, Policy("example.net"), {"command": "close", "account": NAME})
        assert found[0].status == 404


async def test_who_goes_away_no_longer_waits(home):
    alice = Person("alice")
    async with portal_server(home) as running:
        client = await opened(running, alice)
        feeds = running.portal.sequencer.feeds
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.ask, "GetRecords", feed(alice.mesh, "P1"))
            async with trio.open_nursery() as nursery:

                async def watch() -> None:
                    await client.ask("GetRecords", feed(alice.mesh, "P1"), prefer="wait=50")

                nursery.start_soon(watch)
                while not feeds.waiting:
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            await client.close()
            while feeds.waiting:
                await trio.lowlevel.checkpoint()


async def test_heads_of_racing_writers_are_all_kept_and_a_merge_retires_them(home):
    alice = Person("alice")
    async with portal_server(home) as running:
        client = await opened(running, alice)
        phone = alice.device("phone")
        await client.ask("Publish", m.PublishRequest(entry=tagged(alice.admit(phone))))
        await client.ask("Publish", m.PublishRequest(entry=tagged(alice.container())))
        base = alice.item("base")
        await client.ask("Publish", m.PublishRequest(entry=tagged(base)))
        mine, theirs = alice.item("mine", base), alice.item("theirs", base, by=phone)
        async with trio.open_nursery() as nursery:
            for device, one in ((alice.first, mine), (phone, theirs)):
                racer = running.client(device)
                nursery.start_soon(racer.ask, "Publish", m.PublishRequest(entry=tagged(one)))
        found = await client.ask("Get", m.GetRequest(identifier=base.identifier, multiple=True))
        assert len(found.entries) == 2
        merged = alice.item("merged", *sorted((mine, theirs), key=lambda one: one.vid))
        assert (await client.ask("Publish", m.PublishRequest(entry=tagged(merged)))).status == 201
        found = await client.ask("Get", m.GetRequest(identifier=base.identifier, multiple=True))
        assert found.entries == [tagged(merged)]


async def test_a_removal_takes_what_its_device_wrote_outside_away_again(home):
    alice = Person("alice")
    async with portal_server(home) as running:
        client = await opened(running, alice)
        phone = alice.device("phone")
        await client.ask("Publish", m.PublishRequest(entry=tagged(alice.admit(phone))))
        await client.ask("Publish", m.PublishRequest(entry=tagged(alice.container())))
        base = alice.item("base")
        await client.ask("Publish", m.PublishRequest(entry=tagged(base)))
        removal = alice.remove(phone)  # where its chain stood: nothing of it but its profile
        stolen = alice.item("of a thief", base, by=phone)
        before = alice.head
        assert (await client.ask("Publish", m.PublishRequest(entry=tagged(removal)))).status == 201
        thief = running.client(phone)
        refused = await thief.ask("Publish", m.PublishRequest(entry=tagged(stolen)))
        assert refused.status == 401
        # Sent by another device it is kept, aside.
        assert (await client.ask("Publish", m.PublishRequest(entry=tagged(stolen)))).status == 201
        view = running.portal.sequencer.view
        assert [head.vid for head in view.heads(Kind.ITEM, base.identifier)] == [base.vid]
        assert view.usage(alice.mesh).quarantined == 1
        assert before is removal


async def test_a_removal_that_comes_after_what_it_cuts_finds_the_heads_anew(home):
    alice = Person("alice")
    async with portal_server(home) as running:
        client = await opened(running, alice)
        phone = alice.device("phone")
        await client.ask("Publish", m.PublishRequest(entry=tagged(alice.admit(phone))))
        await client.ask("Publish", m.PublishRequest(entry=tagged(alice.container())))
        base = alice.item("base")
        await client.ask("Publish", m.PublishRequest(entry=tagged(base)))
        kept = phone.last
        stolen = alice.item("of a thief", base, by=phone)
        assert (await client.ask("Publish", m.PublishRequest(entry=tagged(stolen)))).status == 201
        view = running.portal.sequencer.view
        assert [head.vid for head in view.heads(Kind.ITEM, base.identifier)] == [stolen.vid]
        phone.last = kept
        assert (await client.ask("Publish", m.PublishRequest(entry=tagged(alice.remove(phone))))).status == 201
        assert [head.vid for head in view.heads(Kind.ITEM, base.identifier)] == [base.vid]
        assert view.usage(alice.mesh).quarantined == 1


async def test_cbor_is_answered_in_cbor(home):
    alice = Person("alice")
    async with portal_server(home) as running:
        client = await opened(running, alice)
        answer = await client.ask("Publish", m.PublishRequest(entry=tagged(alice.container())), content_type=codec.CBOR)
        assert answer.status == 201
        assert client.last.headers["content-type"] == codec.CBOR


async def test_a_device_connects_through_the_portal(home):
    alice = Person("alice")
    phone = alice.device("phone")
    async with portal_server(home) as running:
        client = await opened(running, alice)
        await client.ask("Publish", m.PublishRequest(entry=tagged(alice.container())))
        joiner = running.client(phone)
        asked = m.ConnectStartRequest(signed_request=phone.request(alice.mesh), account_id=NAME)
        await joiner.ask("ConnectStart", asked)
        assert joiner.last.status == 201
        waiting = await client.ask("ConnectPending", m.ConnectPendingRequest(account_id=NAME))
        assert waiting.pending == [phone.request(alice.mesh)]
        about = m.ConnectStatusRequest(account_id=NAME, device_id=phone.udf)
        assert (await joiner.ask("ConnectStatus", about)).result is None
        await client.ask("Publish", m.PublishRequest(entry=tagged(alice.admit(phone))))
        result = alice.result(phone, "Accepted")
        await client.ask("ConnectComplete", m.ConnectCompleteRequest(account_id=NAME, result=result))
        assert client.last.status == 201
        assert (await joiner.ask("ConnectStatus", about)).result == result
        assert len((await joiner.ask("GetRecords", feed(alice.mesh))).data_items) == 3


async def test_stopping_answers_those_who_wait_and_finishes_what_is_under_way(home):
    alice = Person("alice")
    with trio.fail_after(20):
        async with portal_server(home) as running:
            client, idle = await opened(running, alice), running.client()
            await idle.ask("Hello", m.HelloRequest())
            answers = []

            async def watch() -> None:
                answers.append(await client.ask("GetRecords", feed(alice.mesh, "P1"), prefer="wait=50"))

            running.nursery.start_soon(watch)
            while not running.portal.sequencer.feeds.waiting:
                await trio.lowlevel.checkpoint()
        assert answers[0].status == 201 and client.last.headers["connection"] == "close"


async def test_health_and_figures_name_nobody(home):
    alice = Person("alice")
    async with portal_server(home) as running:
        client = await opened(running, alice)
        answer = await client.send(b"GET /.well-known/mmm/health HTTP/1.1\r\nHost: x\r\n\r\n")
        shown = json.loads(answer.body)
        assert (answer.status, shown["status"], shown["log"]["size"]) == (200, "ok", 1)
        assert "meshd_portal_log_size 1" in running.portal.metrics.text().decode()
        text = running.portal.metrics.text().decode()
        assert 'meshd_portal_requests_total{transaction="CreateAccount",status="201"} 1' in text
        assert "meshd_portal_versions_total 1" in text
        assert "alice" not in text and alice.mesh not in text
