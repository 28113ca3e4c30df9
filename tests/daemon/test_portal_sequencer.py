"""Turns, lots, feeds and authorities: what stands between a portal's requests and its store."""

from __future__ import annotations

import sqlite3
import threading

import pytest
import trio
import trio.testing

from harness.portal_engine import DOMAIN, engine
from harness.portal_people import NOW, Person
from meshd.daemon.portal.authorities import Authorities, Moves
from meshd.daemon.portal.view import SqliteView
from meshd.daemon.portal.waiting import Feeds, Turns
from meshd.daemon.portal.writes import Applied, Writing
from meshd.errors import StoreBusy
from meshd.portal import decide, decide_publish
from meshd.portal import messages as m
from meshd.portal.checked import Current, Publish
from meshd.portal.outcomes import Context, Decision, OpenAccount, Policy, PutVersion, SignedBy
from meshd.portal.structures import KeyValue
from meshd.portal.view import Account
from meshd.profile.claim import Kind, State
from meshd.profile.version import Version
from meshd.store.portal_db import open_portal
from meshd.tlog.frontier import Frontier


async def test_who_sends_much_delays_nobody_who_sends_little(autojump_clock):
    turns, order = Turns(1, 100), []

    async def work(who: str) -> None:
        async with turns.turn(who):
            order.append(who)
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(work, "much")
            await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(work, "little")
        await trio.testing.wait_all_tasks_blocked()
        assert turns.waiting == 4 and turns.busy
    assert order == ["much", "much", "little", "much", "much"] and not turns.busy


async def test_who_leaves_the_queue_leaves_his_place_to_others(autojump_clock):
    turns = Turns(1, 2)
    async with turns.turn("one"):
        async with trio.open_nursery() as nursery:
            scopes = []

            async def wait() -> None:
                with trio.CancelScope() as scope:
                    scopes.append(scope)
                    async with turns.turn("two"):
                        pass

            for _ in range(2):
                nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(StoreBusy):
                async with turns.turn("three"):
                    pass
            for scope in scopes:
                scope.cancel()
        assert turns.waiting == 0
    async with turns.turn("four"):
        pass


async def test_a_place_that_comes_as_its_waiter_leaves_goes_to_the_next(autojump_clock):
    turns = Turns(1, 5)
    done = []

    async def wait(name: str, scope: trio.CancelScope) -> None:
        with scope:
            async with turns.turn(name):
                await trio.lowlevel.checkpoint()
                done.append(name)

    first, second = trio.CancelScope(), trio.CancelScope()
    async with trio.open_nursery() as nursery:
        async with turns.turn("holder"):
            nursery.start_soon(wait, "first", first)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(wait, "second", second)
            await trio.testing.wait_all_tasks_blocked()
        first.cancel()  # its event is set, and it has not run yet
    assert done == ["second"] and not turns.busy


async def test_a_feed_wakes_those_who_took_their_event_before():
    feeds = Feeds()
    one, other = feeds.event("mesh"), feeds.event("mesh")
    assert one is other and feeds.waiting == 2
    feeds.leave("mesh", other)
    feeds.moved("elsewhere")
    assert not one.is_set()
    feeds.moved("mesh")
    assert one.is_set() and feeds.waiting == 0
    feeds.leave("mesh", one)


def test_a_readers_authority_follows_the_writers_and_one_made_anew_agrees(home):
    alice = Person("alice")
    with open_portal(home / "portal.db", create=True) as database, open_portal(home / "portal.db") as reading:
        moves = Moves()
        writer = SqliteView(database.connection, Authorities(database.connection))
        reader = SqliteView(reading.connection, Authorities(reading.connection, moves))
        writing = Writing(writer)
        account = Account("alice@example.net", alice.mesh, NOW)
        writing.apply([OpenAccount(account), *decide_publish.root_writes(alice.root, {}, writer)], NOW)
        moves.profile(alice.mesh)
        assert reader.authority(alice.mesh).devices() == {alice.first.udf}
        for count in range(3):
            phone = alice.device(f"phone {count}")
            profile = alice.admit(phone)
            embedded = [PutVersion(alice.mesh, one, State.APPLIED, leaf=False) for one in (phone.profile,)]
            done = writing.apply([*embedded, PutVersion(alice.mesh, profile, State.APPLIED)], NOW)
            assert done.profiles == {alice.mesh}
            assert phone.udf not in reader.authority(alice.mesh).devices()  # not told yet
            moves.profile(alice.mesh)
            assert phone.udf in reader.authority(alice.mesh).devices()
            assert [one.udf for one in reader.devices_of(phone.dak)] == [phone.udf]
        writer.forget()
        anew = Authorities(database.connection).get(alice.mesh)
        for kind in (Kind.MASTER, Kind.PERSONAL):
            assert writer.authority(alice.mesh).heads(kind) == reader.authority(alice.mesh).heads(kind)
            assert anew.heads(kind) == reader.authority(alice.mesh).heads(kind)
        assert reader.authority("MNOBODY") is None and writer.authority("MNOBODY") is None


def test_a_reader_in_an_old_transaction_does_not_take_old_profiles_for_new(home):
    alice = Person("alice")
    with open_portal(home / "portal.db", create=True) as database, open_portal(home / "portal.db") as reading:
        moves = Moves()
        writer = SqliteView(database.connection, Authorities(database.connection))
        reader = SqliteView(reading.connection, Authorities(reading.connection, moves))
        writing = Writing(writer)
        account = Account("alice@example.net", alice.mesh, NOW)
        writing.apply([OpenAccount(account), *decide_publish.root_writes(alice.root, {}, writer)], NOW)
        moves.profile(alice.mesh)
        phone = alice.device("phone")
        reader.authorities.look()
        reading.connection.execute("BEGIN")
        assert reader.account("alice@example.net") is not None  # from here on it sees this state
        embedded = PutVersion(alice.mesh, phone.profile, State.APPLIED, leaf=False)
        writing.apply([embedded, PutVersion(alice.mesh, alice.admit(phone), State.APPLIED)], NOW)
        moves.profile(alice.mesh)
        assert reader.authority(alice.mesh).devices() == {alice.first.udf}
        reading.connection.execute("ROLLBACK")
        assert reader.authority(alice.mesh).devices() == {alice.first.udf, phone.udf}


async def test_what_is_asked_in_one_round_of_the_loop_is_one_function_for_the_writer(home, monkeypatch):
    alice = Person("alice")
    with engine(home / "portal.db") as portal:
        await portal.open(alice)
        await portal.publish(alice, alice.container())
        writer, submitted = portal.sequencer._writer, []
        submit = writer.submit
        monkeypatch.setattr(writer, "submit", lambda work: submitted.append(work) or submit(work))
        places = set()

        async def publish(number: int) -> None:
            places.add((await portal.publish(alice, alice.item(f"password {number}"))).transaction_id)

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(publish, number)
        assert len(submitted) == 1
        assert places == {f"TID:{place}" for place in range(3, 23)}


async def test_a_mistake_of_ours_fails_the_one_request_that_meets_it(home, monkeypatch):
    alice = Person("alice")
    decided = decide.decide
    with engine(home / "portal.db") as portal:
        await portal.open(alice)
        await portal.publish(alice, alice.container())
        items = [alice.item(f"password {number}") for number in range(5)]

        def mistaken(checked, context, view):
            if isinstance(checked, Publish) and checked.entries[0].parsed.claim.vid == items[3].vid:
                raise RuntimeError("ours")
            return decided(checked, context, view)

        monkeypatch.setattr(decide, "decide", mistaken)
        answered, failed = [], []

        async def publish(item: Version) -> None:
            try:
                answered.append((await portal.publish(alice, item)).status)
            except RuntimeError:
                failed.append(item)

        async with trio.open_nursery() as nursery:
            for item in items:
                nursery.start_soon(publish, item)
        assert answered == [201] * 4
        assert failed == [items[3]]
        assert portal.sequencer.view.last_index() == 6


async def test_a_feed_shows_what_the_log_has_signed_and_nothing_before(home, monkeypatch):
    alice = Person("alice")
    with engine(home / "portal.db") as portal:
        await portal.open(alice)
        await portal.publish(alice, alice.container())
        log, committed, goes_on = portal.sequencer.own_log, threading.Event(), threading.Event()
        sign = log.sign

        def slowly(edge: Frontier) -> None:
            committed.set()
            goes_on.wait(30)
            sign(edge)

        monkeypatch.setattr(log, "sign", slowly)

        async def shown() -> list[str]:
            terms = [KeyValue(key="UserProfile", value=alice.mesh)]
            reply = await portal.ask("GetRecords", m.GetRequest(key_values=terms), SignedBy(alice.first.dak))
            assert len(reply.receipts) == len(reply.data_items) and all(reply.receipts)
            return [one.transaction_id for one in reply.data_items]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(portal.publish, alice, alice.item("a password"))
            await trio.to_thread.run_sync(committed.wait, 30)
            assert portal.sequencer.view.last_index() == 3
            assert await shown() == ["TID:1", "TID:2"]
            goes_on.set()
        assert await shown() == ["TID:1", "TID:2", "TID:3"]


async def test_what_is_signed_while_a_page_is_read_does_not_spoil_its_receipts(home, monkeypatch):
    alice = Person("alice")
    with engine(home / "portal.db") as portal:
        await portal.open(alice)
        await portal.publish(alice, alice.container())
        sequencer = portal.sequencer
        decided = decide.decide

        def publish(connection: sqlite3.Connection) -> Decision:
            item = alice.item("a password")
            by_alice = Context(SignedBy(alice.first.dak), NOW, Policy(DOMAIN), frozenset({"log"}))
            return sequencer._decide_one(Publish((Current(item, item),), {}, batch=False), by_alice, Applied())

        def meanwhile(checked, context, view):
            decision = decided(checked, context, view)
            if view is sequencer.view:  # what it saw of the store stays as it is, and the log goes on
                assert sequencer._writer.submit(publish).result(30).status == 201
            return decision

        monkeypatch.setattr(decide, "decide", meanwhile)
        terms = [KeyValue(key="UserProfile", value=alice.mesh)]
        for _ in range(9):
            reply = await portal.ask("GetRecords", m.GetRequest(key_values=terms), SignedBy(alice.first.dak))
            assert len(reply.receipts) == len(reply.data_items) and all(reply.receipts)
        assert len(reply.data_items) == 10
