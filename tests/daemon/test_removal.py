"""Removing devices: what one transaction does, and what of it holds when everybody has met, on real stores."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from harness.mesh_world import Device, found
from meshd.daemon import keyring as keyrings
from meshd.daemon import quarantine, removal, roles, rotation, vault_admin, vaults
from meshd.daemon.keyring import Keyring
from meshd.daemon.pen import Pen
from meshd.errors import BadRequest, DecryptError, Denied, NotFound, Refused
from meshd.profile import vault, version
from meshd.profile.apps import DISCOVERY, GROUP, PASSWORD, password
from meshd.profile.claim import Kind, Role, State
from meshd.profile.device import DeviceKeys
from meshd.profile.trust import REMOVAL_UNDONE
from meshd.store import versions

pytestmark = pytest.mark.draft("Delete device")


def opens(device: Device, other: Device, vid: bytes) -> bool:
    """Could `device`, with everything that it ever held, read a version that `other` has?"""
    raw = versions.raw(other.connection, vid)
    assert raw is not None
    keys: dict[str, bytes] = {}
    for row in versions.of_kind(other.connection, Kind.CONTAINER, tuple(State)):
        container = versions.raw(other.connection, row.vid)
        assert container is not None
        try:
            keys |= {key.kid: key.key for key in vault.open_container(version.parse(container), device.keys.dek).keys}
        except DecryptError:
            continue
    try:
        vault.open_item(version.parse(raw), vault.key_ring(keys))
    except DecryptError:
        return False
    return True


def state(device: Device, vid: bytes) -> State:
    row = versions.get(device.connection, vid)
    assert row is not None
    return row.state


def remove(admin: Device, *devices: Device, **terms: Any) -> removal.Removed:
    done: removal.Removed = admin.write(lambda pen: removal.remove(pen, [one.udf for one in devices], **terms))
    return done


def test_a_removed_member_reads_nothing_that_is_written_afterwards_and_everything_from_before() -> None:
    laptop = found()
    phone = laptop.admit("phone")
    before = laptop.add("one.example")
    phone.pull(laptop)
    done = remove(laptop, phone)
    after = laptop.add("two.example")
    edited = laptop.edit(before, "changed")
    old = next(row.vid for row in versions.of_entry(laptop.connection, Kind.ITEM, before) if row.gen == 1)
    assert opens(phone, laptop, old)
    assert not opens(phone, laptop, edited)
    assert not opens(phone, laptop, versions.heads(laptop.connection, Kind.ITEM, after)[0])
    assert done.removed == (phone.udf,) and done.left == ()
    assert {laptop.keyring.vaults[name].application.tag for name in done.rotated} >= {
        PASSWORD.tag,
        GROUP.tag,
        DISCOVERY.tag,
    }


def test_a_removal_keeps_the_keys_that_it_replaces_so_that_nothing_becomes_unreadable() -> None:
    laptop = found()
    phone, desktop = laptop.admit("phone"), laptop.admit("desktop")
    made = laptop.add("one.example", secret="kept")
    remove(laptop, phone)
    desktop.pull(laptop)
    tablet = laptop.admit("tablet")
    for one in (laptop, desktop, tablet):
        assert one.passwords() == {made: "kept"}


@pytest.mark.parametrize("count", [200, pytest.param(10_000, marks=pytest.mark.soak)])
def test_the_bytes_of_a_removal_do_not_grow_with_the_vault(count: int) -> None:
    sizes = []
    for items in (1, count):
        laptop = found(seed=f"flat {items}")
        phone = laptop.admit("phone")
        laptop.write(partial(many, count=items))
        (last,) = laptop.connection.execute("SELECT max(seq) FROM versions").fetchone()
        remove(laptop, phone)
        (size,) = laptop.connection.execute("SELECT sum(length(raw)) FROM versions WHERE seq > ?", (last,)).fetchone()
        sizes.append(size)
    assert abs(sizes[0] - sizes[1]) < 512


def many(pen: Pen, count: int) -> None:
    opened = pen.keyring.find("password")
    key = keyrings.write_key(pen.connection, pen.replica, opened)
    for number in range(count):
        sites = [f"{number}.example"]
        vaults.add(pen, opened, lambda t, made, s=sites: password.new(s, "a", "b", time=t, made=made), key)  # type: ignore[misc]


def test_what_a_removed_device_writes_after_its_cut_is_quarantined_everywhere_and_can_be_imported() -> None:
    laptop = found()
    phone, desktop = laptop.admit("phone"), laptop.admit("desktop")
    made = laptop.add("one.example", secret="first")
    phone.pull(laptop)
    desktop.pull(laptop)
    remove(laptop, phone)
    late = phone.edit(made, "from the phone")
    new = phone.add("two.example", secret="only there")
    desktop.pull(phone)  # it had not heard
    assert desktop.passwords() == {made: "from the phone", new: "only there"}
    desktop.meet(laptop)
    for one in (laptop, desktop):
        assert state(one, late) is State.QUARANTINED
        assert one.passwords() == {made: "first"}
        entries = quarantine.every(one.connection, one.keyring, one.replica.authority.removed())
        assert {entry.title for entry in entries if entry.kind is Kind.ITEM} == {"one.example", "two.example"}
        assert all(entry.why == quarantine.REMOVED and not entry.imported for entry in entries)
    vid = quarantine.find(desktop.connection, new)
    shown = quarantine.show(desktop.connection, desktop.keyring, vid)
    assert password.view(shown.item)["password"] == "only there" and shown.now is None
    imported = desktop.write(lambda pen: quarantine.take_over(pen, vid))
    assert imported is not None and imported.signer == desktop.udf
    laptop.pull(desktop)
    assert laptop.passwords() == {made: "first", new: "only there"}
    assert not opens(phone, laptop, imported.vid)
    marks = {e.id: e.imported for e in quarantine.every(laptop.connection, laptop.keyring, ()) if e.kind is Kind.ITEM}
    assert marks == {new: True, made: False}
    assert desktop.write(lambda pen: quarantine.take_over(pen, vid)) is None  # it says that already


def test_quarantine_is_found_by_vid_or_item_and_shows_only_items() -> None:
    laptop = found()
    phone = laptop.admit("phone")
    made = laptop.add("one.example")
    phone.pull(laptop)
    remove(laptop, phone)
    late = phone.edit(made, "late")
    laptop.pull(phone)
    entry = next(e for e in quarantine.every(laptop.connection, laptop.keyring, ()) if e.vid == late)
    assert quarantine.find(laptop.connection, entry.name) == late == quarantine.find(laptop.connection, entry.name[:12])
    assert quarantine.find(laptop.connection, made) == late
    with pytest.raises(NotFound):
        quarantine.find(laptop.connection, "nothing-like-that")
    with pytest.raises(NotFound):
        quarantine.show(laptop.connection, laptop.keyring, versions.heads(laptop.connection, Kind.ITEM, made)[0])
    locked = quarantine.every(laptop.connection, None, ())
    assert [one.title for one in locked] == [""]


def test_a_sibling_that_was_away_converges_and_its_own_writes_stand() -> None:
    laptop = found()
    phone, desktop = laptop.admit("phone"), laptop.admit("desktop")
    remove(laptop, phone)
    made = desktop.add("desktop.example", secret="from the desktop")
    desktop.meet(laptop)
    assert laptop.passwords() == desktop.passwords() == {made: "from the desktop"}
    assert laptop.states() == desktop.states()
    assert phone.udf not in desktop.replica.authority.devices()


def test_a_removed_device_learns_it_and_may_write_nothing() -> None:
    laptop = found()
    phone = laptop.admit("phone")
    remove(laptop, phone)
    phone.pull(laptop)
    assert phone.udf in phone.replica.authority.removed()
    with pytest.raises(NotFound):  # none of the vaults is wrapped to it any more
        phone.add("two.example")


def test_coming_back_takes_new_keys() -> None:
    laptop = found()
    phone = laptop.admit("phone")
    remove(laptop, phone)
    with pytest.raises(Denied):
        laptop.admit("phone")
    again = laptop.admit("phone again")
    made = laptop.add("one.example")
    again.pull(laptop)
    assert made in again.passwords()


def test_only_admins_remove_and_nobody_removes_itself() -> None:
    laptop = found()
    phone, desktop = laptop.admit("phone"), laptop.admit("desktop")
    with pytest.raises(Denied):
        remove(desktop, phone)
    with pytest.raises(Denied):
        remove(laptop, laptop, master_key=laptop.master_key)
    with pytest.raises(NotFound):
        laptop.write(lambda pen: removal.remove(pen, ["MAAAA-" * 7 + "MAAAA"]))
    with pytest.raises(BadRequest):
        laptop.write(lambda pen: removal.remove(pen, []))
    remove(laptop, phone)
    with pytest.raises(Denied, match="already"):
        remove(laptop, phone)


def test_several_devices_go_in_one_version() -> None:
    laptop = found()
    phone, tablet, server = laptop.admit("phone"), laptop.admit("tablet"), laptop.admit("server", Role.RELAY)
    before = len(versions.of_kind(laptop.connection, Kind.PERSONAL))
    done = remove(laptop, phone, tablet, server)
    assert len(versions.of_kind(laptop.connection, Kind.PERSONAL)) == before + 1
    assert laptop.replica.authority.removed() == {phone.udf, tablet.udf, server.udf}
    assert len(done.rotated) == len(laptop.keyring.vaults)


def test_removing_a_device_changes_every_key_whatever_it_could_read() -> None:
    laptop = found()
    server = laptop.admit("server", Role.RELAY)
    plan = laptop.write(lambda pen: removal.plan(pen, [server.udf]))
    done = remove(laptop, server)
    assert set(done.rotated) == set(plan.vaults) == set(laptop.keyring.vaults)


def test_what_an_admin_who_has_not_heard_grants_a_removed_device_opens_nothing_that_is_written_in_knowledge() -> None:
    laptop = found()
    password = laptop.vault()
    desktop, phone = laptop.admit("desktop", Role.ADMIN), laptop.admit("phone", grants={})
    desktop.pull(laptop)
    remove(laptop, phone)
    desktop.write(lambda pen: roles.grant(pen, phone.udf, {password: "read"}))
    written = laptop.add("after.example")
    laptop.meet(desktop)
    vid = versions.heads(laptop.connection, Kind.ITEM, written)[0]
    assert not opens(phone, laptop, vid) and not opens(phone, desktop, vid)


# --- admins -----------------------------------------------------------------------------------------------------------


def test_removing_an_admin_takes_the_master_key_and_leaves_him_nothing() -> None:
    laptop = found()
    desktop = laptop.admit("desktop", Role.ADMIN)
    plan = laptop.write(lambda pen: removal.plan(pen, [desktop.udf]))
    assert plan.needs_master and not plan.last_admin and plan.roles == {desktop.udf: Role.ADMIN}
    with pytest.raises(Denied, match="master"):
        remove(laptop, desktop)
    remove(laptop, desktop, master_key=laptop.master_key)
    authority = laptop.replica.authority
    assert authority.admins() == {laptop.udf} and desktop.udf in authority.removed()
    assert len(authority.escrow()) == 1
    after = laptop.add("two.example")
    assert not opens(desktop, laptop, versions.heads(laptop.connection, Kind.ITEM, after)[0])
    desktop.pull(laptop)
    with pytest.raises(Denied):
        remove(desktop, laptop, master_key=None)


def test_the_master_key_of_another_mesh_removes_nobody() -> None:
    laptop, other = found(), found("other", "another mesh")
    phone = laptop.admit("phone")
    with pytest.raises(Exception, match="not this mesh's"):
        remove(laptop, phone, master_key=other.master_key)


def test_a_stolen_admin_loses_what_he_did_since_a_moment_and_the_person_says_what_becomes_of_his_removals() -> None:
    laptop = found()
    stolen, phone = laptop.admit("stolen", Role.ADMIN), laptop.admit("phone")
    stolen.pull(laptop)
    good = stolen.add("before.example", secret="before the theft")
    laptop.pull(stolen)
    laptop.now_ms += 60_000
    since = laptop.now_ms
    laptop.now_ms += 60_000
    remove(stolen, phone)
    rogue = stolen.admit("rogue")
    bad = stolen.edit(good, "the thief's")
    laptop.pull(stolen)
    assert laptop.passwords()[good] == "the thief's" and rogue.udf in laptop.replica.authority.devices()
    plan = laptop.write(lambda pen: removal.plan(pen, [stolen.udf], since_ms=since))
    assert [one.victim for one in plan.undone] == [phone.udf] and plan.undone[0].remover == stolen.udf
    assert f"D:{rogue.udf}" in plan.adds and plan.quarantined >= 3
    with pytest.raises(Refused, match="would be back"):
        remove(laptop, stolen, since_ms=since, master_key=laptop.master_key)
    remove(laptop, stolen, since_ms=since, master_key=laptop.master_key, readmit=[phone.udf])
    authority = laptop.replica.authority
    assert laptop.passwords()[good] == "before the theft" and state(laptop, bad) is State.QUARANTINED
    assert phone.udf in authority.devices() and rogue.udf not in authority.devices()
    assert not [one for one in authority.health() if one[0] == REMOVAL_UNDONE]
    after = laptop.add("after.example")
    vid = versions.heads(laptop.connection, Kind.ITEM, after)[0]
    assert not opens(rogue, laptop, vid) and not opens(stolen, laptop, vid)
    phone.pull(laptop)
    assert after in phone.passwords()
    again = phone.add("phone.example")
    laptop.pull(phone)
    assert again in laptop.passwords()


def test_who_becomes_an_admin_again_opens_what_it_could_open_before() -> None:
    """The one who held the keys is removed before it met the new admin, which had them once, when it was a member."""
    laptop = found()
    phone = laptop.admit("phone")
    old = laptop.add("old.example")
    phone.pull(laptop)
    laptop.write(lambda pen: roles.set_role(pen, phone.udf, Role.RELAY))
    late = laptop.add("late.example")
    phone.pull(laptop)
    phone.write(lambda pen: roles.set_role(pen, phone.udf, Role.ADMIN, master_key=laptop.master_key))
    phone.write(lambda pen: removal.remove(pen, [laptop.udf], master_key=laptop.master_key))
    assert phone.passwords() == {old: "secret"} and late not in phone.passwords()
    assert phone.write(rotation.settle) == ()


def test_what_nobody_else_can_open_is_said_before_it_is_lost() -> None:
    """Its admin is gone, a relay was made an admin in its place, and now the last who has the keys is to be removed."""
    laptop = found()
    phone, relay = laptop.admit("phone"), laptop.admit("relay", Role.RELAY)
    laptop.add("a.example")
    relay.pull(laptop)
    relay.write(lambda pen: roles.set_role(pen, relay.udf, Role.ADMIN, master_key=laptop.master_key))
    assert relay.write(lambda pen: removal.plan(pen, [laptop.udf])).lost == ()
    assert relay.write(lambda pen: removal.plan(pen, [laptop.udf, phone.udf])).lost == (laptop.vault(),)
    relay.write(lambda pen: removal.remove(pen, [laptop.udf], master_key=laptop.master_key))
    assert relay.write(lambda pen: removal.plan(pen, [phone.udf])).lost == (laptop.vault(),)
    phone.pull(relay)
    phone.write(lambda pen: rotation.rewrite(pen, rotation.stale(pen)))
    relay.pull(phone)
    assert list(relay.passwords().values()) == ["secret"]


@pytest.mark.parametrize("kept", [False, True])
def test_a_vault_that_falls_with_its_admin_gets_no_new_keys_and_none_are_announced(kept: bool) -> None:
    laptop = found()
    stolen = laptop.admit("stolen", Role.ADMIN)
    stolen.pull(laptop)
    laptop.now_ms += 60_000
    since = laptop.now_ms
    laptop.now_ms += 60_000
    loot = stolen.write(lambda pen: vault_admin.create(pen, "password", "loot"))
    laptop.pull(stolen)
    plan = laptop.write(lambda pen: removal.plan(pen, [stolen.udf], since_ms=since))
    assert f"X:{loot}" in plan.adds and loot not in plan.vaults
    confirm = [f"X:{loot}"] if kept else []
    done = remove(laptop, stolen, since_ms=since, master_key=laptop.master_key, confirm=confirm)
    assert (loot in done.rotated or loot in done.left) is kept
    assert set(plan.vaults) <= set(done.rotated) and not set(done.left) - {loot}


def test_a_removal_by_a_stolen_admin_can_be_kept() -> None:
    laptop = found()
    stolen, phone = laptop.admit("stolen", Role.ADMIN), laptop.admit("phone")
    stolen.pull(laptop)
    laptop.now_ms += 60_000
    since = laptop.now_ms
    laptop.now_ms += 60_000
    remove(stolen, phone)
    laptop.pull(stolen)
    remove(laptop, stolen, since_ms=since, master_key=laptop.master_key, keep_removed=[phone.udf])
    assert laptop.replica.authority.removed() == {stolen.udf, phone.udf}
    after = laptop.add("after.example")
    assert not opens(phone, laptop, versions.heads(laptop.connection, Kind.ITEM, after)[0])


def test_what_a_fallen_profile_added_stays_where_the_person_confirms_it() -> None:
    laptop = found()
    stolen = laptop.admit("stolen", Role.ADMIN)
    stolen.pull(laptop)
    laptop.now_ms += 60_000
    since = laptop.now_ms
    laptop.now_ms += 60_000
    tablet = stolen.admit("tablet")
    made = tablet.add("tablet.example")
    laptop.pull(stolen)
    laptop.pull(tablet)
    remove(laptop, stolen, since_ms=since, master_key=laptop.master_key, confirm=[f"D:{tablet.udf}"])
    assert tablet.udf in laptop.replica.authority.devices()
    tablet.pull(laptop)
    later = tablet.add("later.example")
    laptop.pull(tablet)
    assert later in laptop.passwords() and made not in laptop.passwords()  # what was signed before is imported by hand


def test_a_device_that_an_unaware_admin_lists_on_gets_no_keys_when_containers_are_wrapped_anew() -> None:
    laptop = found()
    stolen, desktop = laptop.admit("stolen", Role.ADMIN), laptop.admit("desktop", Role.ADMIN)
    stolen.pull(laptop)
    laptop.now_ms += 60_000
    since = laptop.now_ms
    laptop.now_ms += 60_000
    rogue = stolen.admit("rogue")
    desktop.pull(stolen)
    tablet = desktop.admit("tablet")  # over the thief's profile
    remove(laptop, stolen, since_ms=since, master_key=laptop.master_key)
    laptop.pull(desktop)
    assert rogue.udf not in laptop.replica.authority.devices()
    laptop.admit("another")
    after = laptop.add("after.example")
    vid = versions.heads(laptop.connection, Kind.ITEM, after)[0]
    assert not opens(rogue, laptop, vid)
    desktop.pull(laptop)
    tablet.pull(laptop)
    assert after in desktop.passwords() and after in tablet.passwords()


def test_moving_a_removal_takes_versions_out_of_quarantine_and_puts_others_in() -> None:
    laptop = found()
    phone = laptop.admit("phone")
    first = phone.add("one.example")
    laptop.pull(phone)
    laptop.now_ms += 60_000
    moment = laptop.now_ms
    laptop.now_ms += 60_000
    second = phone.add("two.example")
    laptop.pull(phone)
    remove(laptop, phone)
    third = phone.add("three.example")
    laptop.pull(phone)
    assert set(laptop.passwords()) == {first, second}
    remove(laptop, phone, since_ms=moment, master_key=laptop.master_key)
    assert set(laptop.passwords()) == {first}
    remove(laptop, phone, since_ms=laptop.now_ms, master_key=laptop.master_key)
    assert set(laptop.passwords()) == {first, second, third}


def test_a_removal_since_a_moment_takes_the_master_key_for_members_too() -> None:
    laptop = found()
    phone = laptop.admit("phone")
    with pytest.raises(Denied, match="master"):
        remove(laptop, phone, since_ms=laptop.now_ms)
    with pytest.raises(BadRequest):
        remove(laptop, phone, since_ms=laptop.now_ms + 10_000_000, master_key=laptop.master_key)


def test_two_admins_that_remove_each_other_apart_are_both_gone_and_the_master_key_mends_it() -> None:
    laptop = found()
    desktop, phone = laptop.admit("desktop", Role.ADMIN), laptop.admit("phone")
    desktop.pull(laptop)
    remove(laptop, desktop, master_key=laptop.master_key)
    remove(desktop, laptop, master_key=laptop.master_key)
    laptop.meet(desktop)
    phone.pull(laptop)
    for one in (laptop, desktop, phone):
        authority = one.replica.authority
        assert authority.admins() == frozenset() and authority.removed() == {laptop.udf, desktop.udf}
    phone.write(lambda pen: roles.set_role(pen, phone.udf, Role.ADMIN, master_key=laptop.master_key))
    made = phone.add("phone.example")
    vid = versions.heads(phone.connection, Kind.ITEM, made)[0]
    assert not opens(laptop, phone, vid) and not opens(desktop, phone, vid)


def test_a_member_with_the_master_key_replaces_a_lost_admin() -> None:
    laptop = found()
    desktop = laptop.admit("desktop")
    made = laptop.add("one.example")
    desktop.pull(laptop)
    desktop.write(lambda pen: roles.set_role(pen, desktop.udf, Role.ADMIN, master_key=laptop.master_key))
    done = remove(desktop, laptop, master_key=laptop.master_key)
    assert done.left == () and made in desktop.passwords()
    assert desktop.replica.authority.admins() == {desktop.udf}


def test_the_last_admin_is_removed_only_by_who_says_so() -> None:
    laptop = found()
    desktop = laptop.admit("desktop")
    with pytest.raises(Refused, match="without an admin"):
        remove(desktop, laptop, master_key=laptop.master_key)
    done = remove(desktop, laptop, master_key=laptop.master_key, leave_no_admin=True)
    assert done.rotated == () and set(done.left) == set(desktop.replica.authority.applications())
    assert desktop.replica.authority.admins() == frozenset()


# --- writes by those who had not heard --------------------------------------------------------------------------------


def test_stale_writes_are_written_anew_by_whoever_sees_them_without_conflict() -> None:
    laptop = found()
    phone, desktop, tablet = laptop.admit("phone"), laptop.admit("desktop"), laptop.admit("tablet")
    old = laptop.add("old.example", secret="old")
    for one in (phone, desktop, tablet):
        one.pull(laptop)
    remove(laptop, phone)
    made = desktop.add("new.example", secret="written unaware")
    vid = versions.heads(desktop.connection, Kind.ITEM, made)[0]
    assert opens(phone, desktop, vid)
    for one in (laptop, tablet):
        one.pull(desktop)
    desktop.pull(laptop)
    tablet.pull(laptop)
    for one in (laptop, desktop, tablet):
        stale = one.write(lambda pen: rotation.stale(pen))
        assert [(each.identifier, each.signer) for each in stale] == [(made, desktop.udf)]
        assert len(one.write(partial(rotation.rewrite, found=stale))) == 1
        assert one.write(lambda pen: rotation.stale(pen)) == []
        events = one.connection.execute("SELECT data FROM events WHERE type = 'stale'").fetchall()
        assert len(events) == 1
    laptop.meet(desktop)
    laptop.meet(tablet)
    desktop.meet(laptop)
    for one in (laptop, desktop, tablet):
        assert one.passwords() == {old: "old", made: "written unaware"}
        assert len(vaults.distinct(one.heads(made))) == 1
        assert all(not opens(phone, one, head.vid) for head in one.heads(made))
        assert one.write(lambda pen: rotation.stale(pen)) == []


def test_old_items_are_never_taken_for_stale_ones_not_even_by_a_new_device() -> None:
    laptop = found()
    phone, desktop = laptop.admit("phone"), laptop.admit("desktop")
    for number in range(5):
        laptop.add(f"{number}.example")
    desktop.pull(laptop)
    desktop.add("desktop.example")
    laptop.pull(desktop)
    remove(laptop, phone)
    tablet = laptop.admit("tablet")
    desktop.pull(laptop)
    for one in (laptop, desktop, tablet):
        assert one.write(lambda pen: rotation.stale(pen)) == []


def test_an_item_in_conflict_stays_in_conflict_when_one_side_is_written_anew() -> None:
    laptop = found()
    phone, desktop = laptop.admit("phone"), laptop.admit("desktop")
    made = laptop.add("one.example", secret="first")
    for one in (phone, desktop):
        one.pull(laptop)
    remove(laptop, phone)
    laptop.edit(made, "here")
    desktop.edit(made, "there")
    laptop.pull(desktop)
    laptop.write(lambda pen: rotation.rewrite(pen, rotation.stale(pen)))
    said = {password.view(head.item)["password"] for head in vaults.distinct(laptop.heads(made))}
    assert said == {"here", "there"}


def test_a_vault_without_a_fit_key_is_given_one_by_any_admin_that_settles() -> None:
    laptop = found()
    desktop, phone = laptop.admit("desktop", Role.ADMIN), laptop.admit("phone")
    desktop.pull(laptop)
    opened = desktop.keyring.find("password")
    assert rotation.usable(desktop.connection, desktop.replica, opened)
    # A removal without its new keys, as an admin makes it whose vaults are closed to it.
    shut = Keyring(DeviceKeys.generate(laptop.rng), laptop.keyring.cache_key)
    shut.device = replace(shut.device, dsk=laptop.keys.dsk)
    whole, laptop.keyring = laptop.keyring, shut
    done = remove(laptop, phone)
    laptop.keyring = whole
    assert done.rotated == () and done.left
    desktop.pull(laptop)
    with pytest.raises(Denied):
        keyrings.write_key(desktop.connection, desktop.replica, desktop.keyring.find("password"))
    assert set(desktop.write(rotation.settle)) == set(done.left)
    assert desktop.write(rotation.settle) == () and desktop.write(rotation.unsettled) == ()
    made = desktop.add("two.example")
    assert not opens(phone, desktop, versions.heads(desktop.connection, Kind.ITEM, made)[0])


def test_two_admins_that_rotate_apart_end_with_the_union_of_their_keys() -> None:
    laptop = found()
    desktop = laptop.admit("desktop", Role.ADMIN)
    desktop.pull(laptop)
    container = laptop.vault()
    for one in (laptop, desktop):
        assert one.write(lambda pen: rotation.rotate(pen, container)) == (container,)
    here, there = laptop.add("here.example"), desktop.add("there.example")
    for _ in range(4):
        laptop.meet(desktop)
        for one in (laptop, desktop):
            one.write(rotation.settle)
    laptop.meet(desktop)
    for one in (laptop, desktop):
        assert set(one.passwords()) == {here, there}
        assert one.write(rotation.unsettled) == ()
        assert len(one.keyring.vaults[container].container.keys) == 3
    assert laptop.states() == desktop.states()


def test_rotating_one_vault_or_all_is_for_admins() -> None:
    laptop = found()
    desktop = laptop.admit("desktop")
    assert len(laptop.write(rotation.rotate)) == len(laptop.keyring.vaults)
    with pytest.raises(Denied):
        desktop.write(rotation.rotate)
    with pytest.raises(NotFound):
        laptop.write(lambda pen: rotation.rotate(pen, "no such vault"))


def test_a_vault_that_the_new_admin_never_read_is_given_to_him_by_a_member_that_did() -> None:
    laptop = found()
    ssh = laptop.keyring.find("ssh").application.identifier
    desktop, phone = laptop.admit("desktop", grants={ssh: "read"}), laptop.admit("phone")
    made = laptop.add("one.example", secret="kept")
    phone.pull(laptop)
    desktop.pull(laptop)
    key = laptop.master_key
    desktop.write(lambda pen: roles.set_role(pen, desktop.udf, Role.ADMIN, master_key=key))
    remove(desktop, laptop, master_key=key)
    phone.pull(desktop)
    assert phone.passwords() == {made: "kept"} and made not in desktop.passwords()
    phone.write(lambda pen: rotation.rewrite(pen, rotation.stale(pen)))
    desktop.pull(phone)
    assert desktop.passwords() == {made: "kept"}
    after = desktop.add("after.example")
    assert not opens(laptop, desktop, versions.heads(desktop.connection, Kind.ITEM, after)[0])
