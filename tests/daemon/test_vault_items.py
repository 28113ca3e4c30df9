"""Items and vaults on several devices: conflicts, winners, write keys, names, and what this release does not know."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest

from harness.mesh_world import Device, device_keys, found
from meshd.daemon import keyring as keyrings
from meshd.daemon import membership, vaults
from meshd.daemon.index import Index, conflicted, save
from meshd.daemon.pen import Pen
from meshd.errors import DecryptError, Denied, NotFound
from meshd.profile import clock, device, personal, vault, version
from meshd.profile.apps import PASSWORD, group, password
from meshd.profile.claim import Kind, Role, State
from meshd.profile.links import MAX_HEADS, Cut
from meshd.profile.vault import Item
from meshd.store import versions
from meshd.store.replica import Draft

pytestmark = pytest.mark.draft("Add and update application")

YEAR = 365 * 24 * 3600 * 1000


@pytest.fixture
def laptop() -> Device:
    return found()


@pytest.fixture
def desktop(laptop: Device) -> Device:
    return laptop.admit("desktop")


def index_of(where: Device) -> Index:
    index = Index(where.keyring)
    index.load(where.connection)
    index.refresh(where.connection)
    return index


def shown(where: Device, item: str) -> tuple[bytes, int]:
    """(the winner's vid, how many different contents) by the heads and by the index, which agree."""
    heads = where.heads(item)
    entry = index_of(where).entries[item]
    assert entry.winner == heads[0].vid
    assert entry.heads == len(vaults.distinct(heads))
    return entry.winner, entry.heads


# --- conflicts --------------------------------------------------------------------------------------------------------


def test_two_edits_made_apart_are_both_there_and_everybody_shows_the_same(laptop: Device, desktop: Device) -> None:
    tablet = laptop.admit("tablet")
    item = laptop.add("github.com")
    for one in (desktop, tablet):
        one.pull(laptop)
    edits = {one.name: one.edit(item, f"by {one.name}") for one in (laptop, desktop, tablet)}
    for one, other in ((laptop, desktop), (desktop, tablet), (tablet, laptop), (laptop, desktop)):
        one.meet(other)
    winners = {shown(one, item) for one in (laptop, desktop, tablet)}
    assert len(winners) == 1 and winners.pop()[1] == 3
    assert {head.vid for head in laptop.heads(item)} == set(edits.values())
    assert versions.conflicts(laptop.connection) == [item] and conflicted(laptop.connection) == 1
    assert [entry.identifier for entry in index_of(laptop).conflicts()] == [item]
    merged = tablet.edit(item, "settled")
    laptop.pull(tablet)
    assert shown(laptop, item) == (merged, 1)


@pytest.mark.parametrize("seed", range(5))
def test_whatever_is_done_apart_all_devices_end_with_the_same_passwords(seed: int) -> None:
    chance = random.Random(seed)
    laptop = found(seed=f"mesh {seed}")
    devices = [laptop, laptop.admit("desktop"), laptop.admit("tablet")]
    for one in devices:
        one.now_ms += chance.randint(-3, 3) * YEAR
    items: list[str] = []
    for number in range(40):
        one = chance.choice(devices)
        act = chance.random()
        known = [item for item in items if one.heads(item)]
        if act < 0.3 or not known:
            items.append(one.add(f"{number}.example", secret=f"{number}"))
        elif act < 0.6:
            one.edit(chance.choice(known), f"{chance.randint(0, 3)}")
        elif act < 0.75:
            one.delete(chance.choice(known))
        else:
            one.pull(chance.choice(devices))
    for _ in range(2):
        for one in devices:
            for other in devices:
                one.pull(other)
    assert devices[0].passwords() == devices[1].passwords() == devices[2].passwords()
    for item in items:
        assert len({shown(one, item) for one in devices}) == 1
    assert all(versions.count_states(one.connection) == {} for one in devices)


def test_an_edit_survives_a_deletion_made_apart_and_is_flagged(laptop: Device, desktop: Device) -> None:
    item = laptop.add("github.com")
    desktop.pull(laptop)
    desktop.now_ms += 10 * YEAR  # the deletion is later by any clock
    edited = laptop.edit(item, "kept")
    desktop.delete(item)
    laptop.meet(desktop)
    for one in (laptop, desktop):
        assert one.passwords() == {item: "kept"}
        assert shown(one, item) == (edited, 2)
    gone = desktop.delete(item)
    laptop.pull(desktop)
    assert laptop.passwords() == {} and shown(laptop, item) == (gone, 1)


def test_the_same_written_twice_is_no_conflict_and_the_smaller_vid_counts(laptop: Device, desktop: Device) -> None:
    item = laptop.add("github.com")
    desktop.pull(laptop)
    both = [laptop.edit(item, "same"), desktop.edit(item, "same")]
    laptop.meet(desktop)
    for one in (laptop, desktop):
        assert shown(one, item) == (min(both), 1)
        assert index_of(one).conflicts() == []
        assert [head.vid for head in one.heads(item)] == sorted(both)
    settled = laptop.edit(item, "next")
    desktop.pull(laptop)
    assert [head.vid for head in desktop.heads(item)] == [settled], "an edit names them both"


def test_a_clock_that_is_years_ahead_wins_once_and_then_everybody_goes_on(laptop: Device, desktop: Device) -> None:
    item = laptop.add("github.com")
    desktop.pull(laptop)
    desktop.now_ms += 50 * YEAR
    ahead = desktop.edit(item, "from the future")
    laptop.edit(item, "now")
    laptop.meet(desktop)
    assert shown(laptop, item) == (ahead, 2)
    later = laptop.edit(item, "afterwards")
    desktop.pull(laptop)
    assert shown(desktop, item) == (later, 1)
    laptop.now_ms -= 80 * YEAR
    assert laptop.passwords() == {item: "afterwards"}
    last = laptop.edit(item, "years behind")
    desktop.pull(laptop)
    assert shown(desktop, item) == (last, 1)


def test_the_clock_of_an_item_stops_at_its_end_and_edits_go_on(laptop: Device, desktop: Device) -> None:
    def write(pen: Pen, item: str, time: int) -> None:
        opened, heads = pen.keyring.find("password"), laptop.heads(item)
        plain = password.edit(heads[0].item, {"password": "last"}, time=time, made=pen.made)
        vaults.write_item(pen, opened, item, plain, heads)

    item = laptop.add("github.com")
    laptop.write(lambda pen: write(pen, item, 2**64 - 1))
    desktop.pull(laptop)
    edits = [laptop.edit(item, "one"), desktop.edit(item, "two")]
    assert laptop.heads(item)[0].item.time == 2**64 - 1
    laptop.meet(desktop)
    assert shown(laptop, item) == shown(desktop, item) == (max(edits), 2)


def test_an_edit_of_more_heads_than_a_version_names_takes_several_versions(laptop: Device, desktop: Device) -> None:
    item = laptop.add("github.com")
    desktop.pull(laptop)
    for number in range(20):
        copy = desktop.copy()
        copy.edit(item, f"{number}")
        laptop.pull(copy)
    assert len(laptop.heads(item)) == 20
    last = laptop.edit(item, "settled")
    assert laptop.passwords() == {item: "settled"} and len(laptop.heads(item)) == 1
    row = versions.get(laptop.connection, last)
    assert row is not None and len(row.claim().links.p) == 20 - MAX_HEADS + 1


def test_a_head_that_this_device_can_not_open_is_left_beside_an_edit(laptop: Device, desktop: Device) -> None:
    item = laptop.add("github.com")
    desktop.pull(laptop)
    unknown = vault.EpochKey.generate(desktop.rng, 1)

    def write(pen: Pen) -> None:
        heads = desktop.heads(item)
        plain = password.edit(heads[0].item, {"password": "closed"}, time=1, made=pen.made)
        vaults.write_item(pen, pen.keyring.find("password"), item, plain, heads, unknown)

    desktop.write(write)
    closed = versions.heads(desktop.connection, Kind.ITEM, item)
    mine = laptop.edit(item, "open")
    laptop.pull(desktop)
    assert [head.vid for head in laptop.heads(item)] == [mine]
    newer = laptop.edit(item, "newer")
    assert set(versions.heads(laptop.connection, Kind.ITEM, item)) == {newer, *closed}
    with pytest.raises(NotFound):
        desktop.edit(item, "x")


# --- what this release does not know ----------------------------------------------------------------------------------


def test_members_that_this_release_does_not_know_survive_an_edit_of_an_item(laptop: Device, desktop: Device) -> None:
    def write(pen: Pen) -> str:
        opened = pen.keyring.find("password")
        plain = password.new(["example.org"], "a", "b", time=clock.tick(pen.now_ms, ()), made=pen.made)
        plain.private["Later"] = {"x": 1}
        plain.private[PASSWORD.private]["Entries"][0]["Pin"] = "1234"
        plain.meta["Passkey"] = {"y": [1, 2]}
        plain.meta["Fields"]["Colour"] = "red"
        identifier = vault.new_item_identifier(opened.application.identifier, pen.rng)
        body = vault.seal_item(plain, keyrings.write_key(pen.connection, pen.replica, opened), pen.rng)
        pen.write(Draft(Kind.ITEM, identifier, PASSWORD.tag, {"Names": ["n"], "Later": {"z": True}} | body))
        return identifier

    item = desktop.write(write)
    laptop.pull(desktop)
    laptop.edit(item, "new")
    (head,) = laptop.heads(item)
    assert head.parsed.body["Later"] == {"z": True} and head.parsed.body["Names"] == ["n"]
    assert head.item.private["Later"] == {"x": 1}
    assert head.item.private[PASSWORD.private]["Entries"][0]["Pin"] == "1234"
    assert head.item.meta["Passkey"] == {"y": [1, 2]} and head.item.fields["Colour"] == "red"
    assert laptop.passwords() == {item: "new"}


def test_a_vault_of_an_unknown_kind_is_carried_wrapped_anew_and_kept_whole(laptop: Device, desktop: Device) -> None:
    unknown = "MAAAA-AAAAA-AAAAA-AAAAA-AAAAA-AAAAA-AAAAA-AAAAA"
    key = vault.EpochKey.generate(laptop.rng, 1)

    def make(pen: Pen) -> str:
        listing = membership.effective(pen)
        applications = [*listing.applications, personal.Application(unknown, "LaterProfile")]
        membership.write_personal(
            pen, membership.master_to_embed(pen), dataclasses.replace(listing, applications=applications)
        )
        container = vault.Container((key,), "later", {"LaterProfilePrivate": {"A": 1}}, {"V": 1, "Rule": "x"})
        recipients = membership.recipients_of(pen, personal.Application(unknown, "LaterProfile"))
        members = vault.seal_container("LaterProfilePrivate", container, recipients, pen.rng)
        pen.write(Draft(Kind.CONTAINER, unknown, "LaterProfile", {"Shape": "round"} | members))
        item = Item({"LaterProfilePrivate": {"B": 2}}, vault.new_meta(1, pen.made, Fields={}))
        identifier = vault.new_item_identifier(unknown, pen.rng)
        pen.write(Draft(Kind.ITEM, identifier, "LaterProfile", vault.seal_item(item, key, pen.rng)))
        return identifier

    item = laptop.write(make)
    tablet = laptop.admit("tablet")
    for one in (laptop, desktop, tablet):
        one.pull(laptop)
        assert versions.misfits(one.connection) == {}
        opened = one.keyring.vaults[unknown]
        assert opened.container.epochs["Rule"] == "x" and opened.container.private == {"LaterProfilePrivate": {"A": 1}}
        assert opened.heads[0].body["Shape"] == "round" and opened.name == "later"
        (head,) = one.heads(item)
        assert head.item.private == {"LaterProfilePrivate": {"B": 2}}
        assert index_of(one).entries[item].tag == "LaterProfile"


# --- vault keys -------------------------------------------------------------------------------------------------------


def remove(admin: Device, udf: str) -> None:
    """Cut a member, without anything else that a removal does."""

    def write(pen: Pen) -> None:
        listing = membership.effective(pen)
        devices = {name: parsed for name, parsed in listing.devices.items() if name != udf}
        body = personal.body(membership.master_to_embed(pen), dataclasses.replace(listing, devices=devices))
        heads = pen.replica.authority.heads(Kind.PERSONAL)
        cut = Cut(udf, pen.replica.tips(udf))
        pen.write(Draft(Kind.PERSONAL, pen.replica.mesh, "PersonalProfile", body, parents=heads, cuts=(cut,)))

    admin.write(write)


def key_of(where: Device, item: str) -> str:
    return vault.item_key_id(where.heads(item)[0].parsed)


def test_a_key_that_a_removed_device_held_is_not_used_again(laptop: Device, desktop: Device) -> None:
    tablet = laptop.admit("tablet")
    desktop.pull(laptop)
    before = laptop.add("before.example")
    remove(laptop, tablet.udf)
    desktop.pull(laptop)
    for one in (laptop, desktop):
        with pytest.raises(Denied):
            one.add("after.example")
    laptop.write(membership.rewrap)
    after = laptop.add("after.example")
    assert key_of(laptop, after) != key_of(laptop, before)
    desktop.pull(laptop)
    assert desktop.passwords().keys() == {before, after}, "old items stay readable"
    assert key_of(desktop, desktop.add("desktop.example")) == key_of(laptop, after)
    tablet.pull(laptop)
    with pytest.raises(DecryptError):
        tablet.keyring.key(key_of(laptop, after))
    for opened in laptop.keyring.vaults.values():
        assert tablet.keys.dek.udf not in vault.container_recipients(opened.heads[0])
    for one in (laptop, desktop, tablet):
        assert versions.misfits(one.connection) == {}


def test_keys_of_a_device_that_renewed_its_own_are_good(laptop: Device, desktop: Device) -> None:
    keys = dataclasses.replace(desktop.keys, dek=device_keys("renewed").dek, older=(desktop.keys.dek,))
    first = versions.heads(desktop.connection, Kind.DEVICE, desktop.udf)
    body = device.create(keys, 1, desktop.rng).body
    desktop.write(lambda pen: pen.write(Draft(Kind.DEVICE, desktop.udf, "DeviceProfile", body, parents=first)))
    laptop.pull(desktop)
    old = laptop.add("old.example")
    laptop.write(membership.rewrap)
    new = laptop.add("new.example")
    assert key_of(laptop, new) == key_of(laptop, laptop.add("third.example")), "the key is settled"
    desktop.keys, desktop.keyring.device = keys, keys
    desktop.pull(laptop)
    assert desktop.passwords().keys() >= {old, new}
    assert versions.misfits(desktop.connection) == {}


def test_two_admins_who_admit_apart_end_with_one_container_for_all(laptop: Device) -> None:
    work = laptop.admit("work", Role.ADMIN)
    item = laptop.add("github.com")
    work.pull(laptop)
    tablet, phone = laptop.admit("tablet"), work.admit("phone")
    laptop.meet(work)
    assert len(versions.heads(laptop.connection, Kind.CONTAINER, laptop.vault())) == 2
    assert laptop.passwords() == work.passwords() == {item: "secret"}
    laptop.write(lambda pen: membership.write_personal(pen, membership.master_to_embed(pen), membership.effective(pen)))
    laptop.write(membership.rewrap)
    everybody = [laptop, work, tablet, phone]
    for one in everybody[1:]:
        one.pull(laptop)
    for one in everybody:
        heads = versions.heads(one.connection, Kind.CONTAINER, laptop.vault())
        assert len(heads) == 1 and versions.misfits(one.connection) == {}
        assert one.passwords() == {item: "secret"}
        assert one.replica.authority.devices() == {other.udf for other in everybody}
    assert phone.add("phone.example") and not work.pull(phone).quarantined


def test_a_transaction_that_failed_leaves_no_vault_in_the_keyring(laptop: Device) -> None:
    before = dict(laptop.keyring.vaults)
    profile = device.create(device_keys("x"), 1, laptop.rng)

    def fail(pen: Pen) -> None:
        membership.admit(pen, profile, Role.MEMBER, "x")
        raise Denied

    with pytest.raises(Denied):
        laptop.write(fail)
    item = laptop.add("example.org")
    assert laptop.passwords() == {item: "secret"}
    laptop.refresh()
    assert {name: one.heads for name, one in laptop.keyring.vaults.items()} == {
        name: one.heads for name, one in before.items()
    }


# --- names ------------------------------------------------------------------------------------------------------------


def names(where: Device) -> dict[str, str]:
    said = {}
    for identifier in vaults.items_of(where.connection, where.vault("group")):
        found_name = group.read(where.heads(identifier)[0].item)
        assert found_name is not None and found_name[0] not in said, "one item per device"
        said[found_name[0]] = found_name[1]
    return said


def test_a_device_has_one_name_however_often_it_is_named(laptop: Device, desktop: Device) -> None:
    assert names(laptop) == {laptop.udf: "laptop", desktop.udf: "desktop"}
    for name in ("tower", "big one"):
        laptop.write(lambda pen, name=name: membership.name_device(pen, desktop.udf, name))
    desktop.pull(laptop)
    desktop.write(lambda pen: membership.name_device(pen, laptop.udf, "old laptop"))
    laptop.pull(desktop)
    assert names(laptop) == names(desktop) == {laptop.udf: "old laptop", desktop.udf: "big one"}


def test_naming_opens_no_item_twice(laptop: Device) -> None:
    for number in range(5):
        laptop.admit(f"device {number}", meet=False)
    laptop.write(lambda pen: membership.name_device(pen, laptop.udf, "again"))
    statements: list[str] = []
    laptop.connection.set_trace_callback(statements.append)
    laptop.write(lambda pen: membership.name_device(pen, laptop.udf, "and again"))
    laptop.connection.set_trace_callback(None)
    assert sum("SELECT vid, kind, raw" in sql for sql in statements) <= 3


def test_admitting_twice_changes_nothing_and_a_removed_device_stays_out(laptop: Device, desktop: Device) -> None:
    profile = laptop.replica.device(laptop.connection, desktop.udf)
    assert profile is not None
    (row,) = versions.of_entry(laptop.connection, Kind.DEVICE, desktop.udf)
    raw = versions.raw(laptop.connection, row.vid)
    assert raw is not None
    again = version.verify(version.parse(raw))
    before = len(laptop.states())
    laptop.write(lambda pen: membership.admit(pen, again, Role.MEMBER, "desktop"))
    assert len(laptop.states()) == before
    remove(laptop, desktop.udf)
    with pytest.raises(Denied, match="removed"):
        laptop.write(lambda pen: membership.admit(pen, again, Role.MEMBER, "desktop"))


# --- the index --------------------------------------------------------------------------------------------------------


def test_the_index_is_kept_sealed_and_followed(laptop: Device, desktop: Device) -> None:
    items = [laptop.add(f"{number}.example", f"user {number}") for number in range(5)]
    index = index_of(laptop)
    assert index.stale == 0 and set(items) <= index.entries.keys()
    laptop.transact(lambda connection, _: save(connection, laptop.keyring, index.take_unsaved(), laptop.rng))
    again = Index(laptop.keyring)
    again.load(laptop.connection)
    assert again.stale == 0 and again.entries == index.entries
    desktop.pull(laptop)
    desktop.edit(items[0], "new")
    laptop.pull(desktop)
    third = Index(laptop.keyring)
    third.load(laptop.connection)
    assert third.stale == 1, "the one whose head moved is read again"
    third.refresh(laptop.connection)
    found_entries, exact = third.find(PASSWORD.tag, "https://0.example/login")
    assert [entry.identifier for entry in found_entries] == [items[0]] and exact
    rows: list[Any] = laptop.connection.execute("SELECT sealed FROM item_index").fetchall()
    assert rows and all(b"example" not in sealed for (sealed,) in rows)
    stranger = found("stranger", seed="other")
    fourth = Index(stranger.keyring)
    fourth.load(laptop.connection)
    assert fourth.entries == {}, "another key opens nothing"


def test_the_range_of_a_vaults_items_is_read_from_the_index_alone(laptop: Device) -> None:
    plan = laptop.connection.execute(
        "EXPLAIN QUERY PLAN SELECT DISTINCT identifier FROM heads WHERE kind = 8 AND identifier > ? AND identifier < ?",
        ("a/", "a0"),
    ).fetchall()
    assert len(plan) == 1 and "COVERING INDEX versions_entry (kind=? AND identifier>? AND identifier<?)" in plan[0][3]
    for _ in range(3):
        laptop.add("example.org")
    laptop.write(lambda pen: membership.name_device(pen, laptop.udf, "x"))
    assert len(vaults.items_of(laptop.connection, laptop.vault())) == 3
    assert set(laptop.states().values()) == {State.APPLIED}
