"""How much is kept of devices that are none of the mesh any more."""

from __future__ import annotations

import dataclasses

from harness.mesh_world import Device, device_keys, found
from meshd.daemon import authoring, removal
from meshd.daemon.pen import Pen
from meshd.profile import author, device, vault, version
from meshd.profile.apps import PASSWORD, password
from meshd.profile.claim import Kind, Role, State
from meshd.profile.links import Cut, Links
from meshd.profile.version import Version
from meshd.store import aside, peers, versions
from meshd.store.replica import Replica
from meshd.store.waiting import Limits


def limited(one: Device, **limits: int) -> None:
    one.replica = Replica(one.connection, one.rng, Limits(**limits))


def chained(by: Device) -> Links:
    link = by.replica._book.next_link(by.connection, by.udf)
    return Links(g=1, n=link.n, q=link.tips, a=by.replica.authority.heads(Kind.PERSONAL))


def an_item(by: Device) -> Version:
    """A new login, not written in any store."""
    identifier = vault.new_item_identifier(by.vault(), by.rng)
    item = password.new(["example.org"], "eve", "x", time=1, made="2025-06-15T00:00:00Z")
    body = vault.seal_item(item, by.keyring.find("password").container.keys[0], by.rng)
    return author.sign(by.keys.dsk, Kind.ITEM, identifier, PASSWORD.tag, body, chained(by), 1)


def a_profile(by: Device, name: str) -> Version:
    """A profile that a device makes of itself, with another encryption key."""
    keys = dataclasses.replace(by.keys, dek=device_keys(name).dek)
    first = versions.heads(by.connection, Kind.DEVICE, by.udf)
    links = dataclasses.replace(chained(by), a=(), p=first, g=2)
    return author.sign(by.keys.dsk, Kind.DEVICE, by.udf, "DeviceProfile", device.create(keys, 1, by.rng).body, links, 2)


def test_a_removed_device_is_kept_aside_within_bounds_and_what_stands_of_it_is_always_taken() -> None:
    laptop = found()
    thief, late = laptop.admit("thief"), laptop.admit("late")
    good = {thief.add(f"{number}.example") for number in range(12)}
    laptop.pull(thief)
    laptop.write(lambda pen: removal.remove(pen, [thief.udf]))
    flood = [an_item(thief) for _ in range(30)]
    for one in (laptop, late):
        limited(one, aside=10)
    for raw in sorted(late.lacking(laptop), key=lambda raw: version.parse(raw).claim.kind is not Kind.PERSONAL):
        late.take([raw])  # the removal first, as in sync
    assert good <= late.passwords().keys(), "what stands comes through quarantine, and was turned away"
    for one in (laptop, late):
        outcome, again = one.accept(flood), one.accept(flood)
        kept = [item for item in flood if one.states().get(item.vid) is State.QUARANTINED]
        assert 0 < len(kept) <= 10
        assert outcome.turned_away == [thief.udf] * (30 - len(kept)) == again.turned_away
        assert not outcome.deferred, "it would be asked for for ever"
        assert one.replica.memory() == Replica(one.connection, one.rng).memory()


def test_profiles_that_a_removed_device_makes_of_itself_fill_no_disk() -> None:
    laptop = found()
    thief = laptop.admit("thief")
    laptop.write(lambda pen: removal.remove(pen, [thief.udf]))
    limited(laptop, aside=5)
    for number in range(12):
        laptop.accept([a_profile(thief, f"keys {number}")])
    assert versions.kept_aside(laptop.connection, thief.udf)[0] == 5


def test_all_who_are_none_of_the_mesh_share_one_bound_and_nobody_else_is_held_to_it() -> None:
    laptop = found()
    thieves = [laptop.admit(f"thief {number}") for number in range(3)]
    for one in thieves:
        one.pull(laptop)
    laptop.write(lambda pen: removal.remove(pen, [one.udf for one in thieves]))
    before, size = versions.kept_aside(laptop.connection)
    limited(laptop, aside_all=before + 4)
    for one in thieves:
        laptop.accept([an_item(one) for _ in range(4)])
    count, all_ = versions.kept_aside(laptop.connection)
    assert count == before + 4 and all_ > size
    limited(laptop, aside_all_bytes=all_)
    assert laptop.accept([an_item(thieves[0])]).turned_away == [thieves[0].udf]
    friend = laptop.admit("friend")
    made = friend.add("friend.example")
    laptop.pull(friend)
    assert made in laptop.passwords()


def test_a_cut_at_an_end_that_never_was_lifts_no_bound_of_others_and_never_that_of_all() -> None:
    laptop = found()
    thief, other = laptop.admit("thief"), laptop.admit("other")
    other.pull(laptop)
    laptop.write(lambda pen: removal.remove(pen, [thief.udf]))
    nowhere = Cut(other.udf, (bytes(32),))

    def cut(pen: Pen) -> None:
        state = authoring.state(pen)
        del state.roles[other.udf]
        authoring.write_profile(pen, state, cuts=[nowhere])

    laptop.write(cut)
    assert not laptop.replica.authority.is_whole(other.udf)
    limited(laptop, aside=5, aside_all=40)
    laptop.accept([an_item(thief) for _ in range(30)])
    assert versions.kept_aside(laptop.connection, thief.udf)[0] == 5
    laptop.accept([an_item(other) for _ in range(60)])
    assert versions.kept_aside(laptop.connection, other.udf)[0] > 5
    assert versions.kept_aside(laptop.connection)[0] == 40
    assert set(aside.turned_away(laptop.connection)) == {thief.udf, other.udf}


def flooded() -> tuple[Device, Device, Device, list[bytes]]:
    """(laptop, desktop, thief, what the thief wrote after its removal): the desktop holds all of that, the laptop has
    room for five and had it all offered."""
    laptop = found()
    thief = laptop.admit("thief")
    thief.add("good.example")
    laptop.pull(thief)
    laptop.write(lambda pen: removal.remove(pen, [thief.udf]))
    desktop = laptop.admit("desktop", Role.ADMIN)
    for number in range(12):
        thief.add(f"{number}.example")
    desktop.pull(thief)
    limited(laptop, aside=5)
    laptop.transact(lambda connection, _: peers.set_cursor(connection, desktop.udf, bytes(8), 99, bytes(8), bytes(32)))
    return laptop, desktop, thief, laptop.lacking(thief)


def test_what_was_turned_away_is_remembered_over_a_restart() -> None:
    laptop, _, thief, late = flooded()
    laptop.take(late)
    assert aside.turned_away(laptop.connection) == {thief.udf: 8}
    limited(laptop, aside=5)
    laptop.take(laptop.lacking(thief))
    assert aside.turned_away(laptop.connection) == {thief.udf: 16}
    assert peers.get(laptop.connection, thief.udf).cursor == 0 != peers.every(laptop.connection)[0].cursor


def test_everybody_is_asked_anew_when_a_removal_is_moved_over_what_was_turned_away() -> None:
    laptop, desktop, thief, late = flooded()
    laptop.take(late)
    desktop.write(lambda pen: removal.remove(pen, [thief.udf], since_ms=pen.now_ms, master_key=laptop.master_key))
    before = peers.asked(laptop.connection)
    laptop.take([raw for raw in laptop.lacking(desktop) if version.parse(raw).claim.signer != thief.udf])
    assert peers.asked(laptop.connection) == before + 1
    assert peers.get(laptop.connection, desktop.udf).cursor == 0 and not aside.turned_away(laptop.connection)
    laptop.pull(desktop)
    assert laptop.passwords() == desktop.passwords() and len(laptop.passwords()) == 13
    assert peers.asked(laptop.connection) == before + 1 and not aside.turned_away(laptop.connection)
    assert laptop.replica.memory() == Replica(laptop.connection, laptop.rng).memory()


def test_a_removal_that_stays_where_it_is_asks_nobody_anew() -> None:
    laptop, desktop, thief, late = flooded()
    laptop.take(late)
    desktop.admit("tablet")
    laptop.take([raw for raw in laptop.lacking(desktop) if version.parse(raw).claim.signer != thief.udf])
    assert peers.asked(laptop.connection) == 0 and aside.turned_away(laptop.connection) == {thief.udf: 8}
    assert peers.get(laptop.connection, desktop.udf).cursor == 99


def test_everybody_is_asked_anew_when_the_move_of_a_removal_comes_to_stand_by_the_end_of_its_authors_chain() -> None:
    laptop, desktop, thief, late = flooded()
    laptop.take(late)
    server = laptop.admit("server", Role.ADMIN)
    ends = Cut(thief.udf, desktop.replica.tips(thief.udf))
    moved = desktop.write(lambda pen: authoring.write_profile(pen, authoring.state(pen), cuts=[ends]))
    desktop.add("end.example")
    end = desktop.feed()[-1]
    server.take([end])
    server.write(lambda pen: removal.remove(pen, [desktop.udf], master_key=laptop.master_key))
    laptop.take([raw for raw in laptop.lacking(server) if raw != end])
    laptop.take([raw for raw in laptop.lacking(desktop) if raw != end and version.parse(raw).claim.signer != thief.udf])
    assert laptop.states()[moved.vid] is State.QUARANTINED and aside.turned_away(laptop.connection)
    before = peers.asked(laptop.connection)
    laptop.take([end])
    assert laptop.states()[moved.vid] is State.APPLIED
    assert peers.asked(laptop.connection) == before + 1 and not aside.turned_away(laptop.connection)
    laptop.pull(desktop)
    assert {laptop.states()[version.parse(raw).claim.vid] for raw in late} == {State.APPLIED}
