"""What devices put right by themselves: drafts, stale writes, heads and keys; and new keys for a device that stays."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from harness.mesh_world import Device, found
from meshd.crypto import sealing
from meshd.crypto.keys import DecryptKey, SigningKey
from meshd.daemon import authoring, drafts, masterkeys, membership, removal, renewal, repair, roles, rotation, vaults
from meshd.daemon.keyring import Keyring
from meshd.errors import Denied, Exists, FormatError, NotFound, TrustError, WrongPassphrase
from meshd.profile import device as devices
from meshd.profile import escrow, vault
from meshd.profile.apps import password
from meshd.profile.claim import READ, Kind, Role
from meshd.profile.device import DeviceKeys
from meshd.profile.vault import Item
from meshd.profile.version import Version
from meshd.store import versions


def build(secret: str) -> object:
    return lambda t, made: password.new(["draft.example"], "a", secret, time=t, made=made)


def put(device: Device, secret: str) -> Version | drafts.Pending:
    return device.write(lambda pen: drafts.add(pen, pen.keyring.find("password"), build(secret)))  # type: ignore[arg-type]


def change(device: Device, identifier: str, secret: str) -> Version | drafts.Pending:
    def edit(item: Item, t: int, made: str) -> Item:
        return password.edit(item, {"password": secret}, time=t, made=made)

    return device.write(lambda pen: drafts.replace(pen, identifier, edit))


def mend(device: Device) -> repair.Mended:
    return device.write(repair.Watch().mend)


def removed_without_new_keys(laptop: Device, gone: Device) -> None:
    """A removal by an admin whose vaults are closed to it: nobody has a key for new writes until another one helps."""
    shut = Keyring(replace(DeviceKeys.generate(laptop.rng), dsk=laptop.keys.dsk), laptop.keyring.cache_key)
    whole, laptop.keyring = laptop.keyring, shut
    laptop.write(lambda pen: removal.remove(pen, [gone.udf]))
    laptop.keyring = whole


# --- drafts -----------------------------------------------------------------------------------------------------------


def test_a_member_without_a_key_keeps_a_sealed_draft_that_goes_out_when_there_is_one() -> None:
    laptop = found()
    phone, desktop = laptop.admit("phone"), laptop.admit("desktop")
    removed_without_new_keys(laptop, phone)
    desktop.pull(laptop)
    kept = put(desktop, "kept back")
    assert isinstance(kept, drafts.Pending) and kept.new
    assert desktop.passwords() == {} and drafts.count(desktop.connection) == 1
    (sealed,) = desktop.connection.execute("SELECT sealed FROM drafts").fetchone()
    assert b"kept back" not in sealed
    assert [one.identifier for one in drafts.every(desktop.connection, desktop.keyring)] == [kept.identifier]
    assert not mend(desktop)
    assert mend(laptop).rotated
    desktop.pull(laptop)
    assert mend(desktop).flushed == 1 and drafts.count(desktop.connection) == 0
    laptop.pull(desktop)
    assert laptop.passwords() == desktop.passwords() == {kept.identifier: "kept back"}


def test_an_admin_without_a_key_makes_one_and_writes() -> None:
    laptop = found()
    phone = laptop.admit("phone")
    removed_without_new_keys(laptop, phone)
    made = put(laptop, "written")
    assert isinstance(made, Version) and laptop.passwords() == {made.identifier: "written"}


def test_a_second_edit_of_a_draft_takes_the_place_of_the_first_and_overwrites_nobody() -> None:
    laptop = found()
    phone, desktop = laptop.admit("phone"), laptop.admit("desktop")
    made = laptop.add("one.example", secret="first")
    desktop.pull(laptop)
    removed_without_new_keys(laptop, phone)
    desktop.pull(laptop)
    change(desktop, made, "draft 1")
    mend(laptop)
    laptop.edit(made, "meanwhile")
    second = change(desktop, made, "draft 2")
    assert isinstance(second, drafts.Pending) and drafts.count(desktop.connection) == 1
    desktop.pull(laptop)
    assert mend(desktop).flushed == 1
    said = {password.view(head.item)["password"] for head in vaults.distinct(desktop.heads(made))}
    assert said == {"draft 2", "meanwhile"}


def test_a_draft_is_edited_into_a_version_once_there_is_a_key() -> None:
    laptop = found()
    phone, desktop = laptop.admit("phone"), laptop.admit("desktop")
    removed_without_new_keys(laptop, phone)
    desktop.pull(laptop)
    kept = put(desktop, "draft")
    mend(laptop)
    desktop.pull(laptop)
    assert isinstance(change(desktop, kept.identifier, "final"), Version)
    assert desktop.passwords() == {kept.identifier: "final"} and drafts.count(desktop.connection) == 0


def test_a_draft_can_be_given_up_and_one_without_the_right_is_refused() -> None:
    laptop = found()
    phone, desktop = laptop.admit("phone"), laptop.admit("desktop")
    removed_without_new_keys(laptop, phone)
    desktop.pull(laptop)
    kept = put(desktop, "draft")
    assert isinstance(kept, drafts.Pending)
    desktop.write(lambda pen: drafts.discard(pen, kept.id))
    with pytest.raises(NotFound):
        desktop.write(lambda pen: drafts.discard(pen, kept.id))
    container = desktop.vault()
    laptop.write(lambda pen: roles.grant(pen, desktop.udf, {container: READ}))
    desktop.pull(laptop)
    with pytest.raises(Denied):
        put(desktop, "no right")


def test_a_draft_of_another_keystore_is_left_alone() -> None:
    laptop = found()
    phone, desktop = laptop.admit("phone"), laptop.admit("desktop")
    removed_without_new_keys(laptop, phone)
    desktop.pull(laptop)
    put(desktop, "draft")
    other = Keyring(desktop.keys, bytes(32))
    assert drafts.every(desktop.connection, other) == [] and drafts.count(desktop.connection) == 1


# --- heads ------------------------------------------------------------------------------------------------------------


def test_profile_heads_are_merged_once_and_for_all() -> None:
    laptop = found()
    desktop = laptop.admit("desktop", Role.ADMIN)
    desktop.pull(laptop)
    here, there = laptop.admit("here"), desktop.admit("there")
    for round in range(3):
        laptop.meet(desktop)
        did = [mend(one).merged for one in (laptop, desktop)]
        assert any(did) == (round == 0)
    laptop.meet(desktop)
    for one in (laptop, desktop):
        assert {here.udf, there.udf} <= one.replica.authority.devices()
        assert not repair.Watch().finds(one.pen(one.connection, None))  # type: ignore[arg-type]
    assert laptop.states() == desktop.states()
    made = laptop.add("one.example")
    for one in (here, there, desktop):
        one.pull(laptop)
        assert made in one.passwords()


def test_a_member_merges_no_profiles_and_rotates_nothing() -> None:
    laptop = found()
    desktop, phone = laptop.admit("desktop", Role.ADMIN), laptop.admit("phone")
    desktop.pull(laptop)
    laptop.admit("here"), desktop.admit("there")
    phone.pull(laptop)
    phone.pull(desktop)
    before = phone.states()
    assert not mend(phone) and phone.states() == before


def test_a_device_that_nothing_gives_a_right_is_cut_when_an_admin_looks_after_the_mesh() -> None:
    laptop = found()
    stolen, desktop = laptop.admit("stolen", Role.ADMIN), laptop.admit("desktop", Role.ADMIN)
    stolen.pull(laptop)
    laptop.now_ms += 60_000
    since = laptop.now_ms
    laptop.now_ms += 60_000
    rogue = stolen.admit("rogue")
    desktop.pull(stolen)
    desktop.admit("tablet")
    key = laptop.master_key
    laptop.write(lambda pen: removal.remove(pen, [stolen.udf], since_ms=since, master_key=key))
    laptop.pull(desktop)
    assert rogue.udf not in laptop.replica.authority.removed()
    assert mend(laptop).merged
    assert rogue.udf in laptop.replica.authority.removed()
    assert not mend(laptop)


# --- new keys for a device --------------------------------------------------------------------------------------------


def renewed(device: Device) -> DeviceKeys:
    old = device.keys
    keys = DeviceKeys(old.dsk, SigningKey.generate(device.rng), DecryptKey.generate(device.rng), (old.dek, *old.older))
    device.keyring.device = keys
    device.write(lambda pen: renewal.write(pen, keys))
    device.keys = keys
    return keys


def test_a_member_renews_its_keys_and_an_admin_wraps_for_them_with_new_ones() -> None:
    laptop = found()
    phone = laptop.admit("phone")
    made = laptop.add("one.example")
    phone.pull(laptop)
    old = phone.keys
    keys = renewed(phone)
    assert made in phone.passwords()  # the old key still opens them
    assert phone.add("two.example")  # and it is no outsider's
    laptop.pull(phone)
    assert len(mend(laptop).rotated) == len(laptop.keyring.vaults)
    phone.pull(laptop)
    after = laptop.add("after.example")
    phone.pull(laptop)
    only_new = Device("phone", replace(keys, older=()), phone.rng, phone.connection)
    only_new.refresh()
    assert after in only_new.passwords() and made in only_new.passwords()
    head = laptop.keyring.find("password").heads[0]
    assert old.dek.recipient.udf not in vault.container_recipients(head)
    assert laptop.replica.device(laptop.connection, phone.udf) == devices.read(
        phone.pen(phone.connection, None).load(versions.heads(phone.connection, Kind.DEVICE, phone.udf))[0]  # type: ignore[arg-type]
    )


def test_an_admin_renews_its_keys_and_keeps_the_master_key_within_reach() -> None:
    laptop = found()
    laptop.add("one.example")
    renewed(laptop)
    assert laptop.write(membership.sealed_master)
    laptop.write(lambda pen: renewal.write(pen, laptop.keys, master_key=laptop.master_key))
    laptop.keyring.device = laptop.keys = replace(laptop.keys, older=())
    assert laptop.write(membership.sealed_master) and len(laptop.passwords()) == 1


def test_a_new_dsk_is_another_device_that_takes_the_place_of_the_old_in_one_version() -> None:
    from harness.mesh_world import device_keys, seeded

    laptop = found()
    phone, desktop = laptop.admit("phone"), laptop.admit("desktop", Role.ADMIN)
    made = laptop.add("one.example")
    for old, master in ((phone, None), (desktop, laptop.master_key)):
        name = f"{old.name} again"
        new = Device(name, device_keys(name), seeded(name), clock_ms=laptop.now_ms)
        profile = devices.create(new.keys, new.now_ms // 1000, new.rng)
        role = laptop.replica.authority.role(old.udf)
        before = len(versions.of_kind(laptop.connection, Kind.PERSONAL))
        if master is not None:
            with pytest.raises(Denied):
                laptop.write(partial(renewal.replace_device, old=old.udf, joiner=profile, name="again"))
        terms = {"old": old.udf, "joiner": profile, "name": f"{old.name} 2", "master_key": master}
        laptop.write(partial(renewal.replace_device, **terms))  # type: ignore[arg-type]
        assert len(versions.of_kind(laptop.connection, Kind.PERSONAL)) == before + 1
        assert old.udf in laptop.replica.authority.removed()
        assert laptop.replica.authority.role(new.udf) is role
        new.join(laptop.mesh)
        new.take(laptop.feed())
        assert made in new.passwords()
    with pytest.raises(Denied):
        laptop.write(lambda pen: renewal.replace_device(pen, new.udf, devices.create(phone.keys, 1, phone.rng), "x"))


# --- the master key ---------------------------------------------------------------------------------------------------


def blob(device: Device, phrase: str) -> bytes:
    assert device.master_key is not None
    return escrow.seal_master(device.master_key, phrase, device.rng, sealing.LEAST_KDF)


def test_another_master_passphrase_replaces_the_sealed_key_on_every_admin() -> None:
    laptop = found()
    desktop = laptop.admit("desktop", Role.ADMIN)
    key = laptop.master_key
    assert key is not None
    new = blob(laptop, "another phrase")
    laptop.write(lambda pen: masterkeys.change_passphrase(pen, key, new))
    desktop.pull(laptop)
    for one in (laptop, desktop):
        held = one.write(membership.sealed_master)
        assert escrow.open_master(held, "another phrase").udf == key.udf
        with pytest.raises(WrongPassphrase):
            escrow.open_master(held, "the old one")
        assert len(one.replica.authority.escrow()) == 1


def test_the_master_key_goes_offline_into_a_file_and_comes_back(tmp_path: Path) -> None:
    laptop = found()
    desktop = laptop.admit("desktop", Role.ADMIN)
    key = laptop.master_key
    assert key is not None
    sealed, file = blob(laptop, "phrase"), tmp_path / "master"
    laptop.write(lambda pen: masterkeys.change_passphrase(pen, key, sealed))
    masterkeys.write(file, laptop.mesh, laptop.write(membership.sealed_master))
    with pytest.raises(Exists):
        masterkeys.write(file, laptop.mesh, sealed)
    laptop.write(lambda pen: masterkeys.offline(pen, key))
    desktop.pull(laptop)
    for one in (laptop, desktop):
        assert one.replica.authority.escrow() == {}
        with pytest.raises(Denied):
            one.write(membership.sealed_master)
    assert desktop.write(masterkeys.salvage)  # a copy that a device kept is not unmade
    found_key = escrow.open_master(masterkeys.read(file, laptop.mesh), "phrase")
    laptop.write(lambda pen: roles.set_role(pen, desktop.udf, Role.MEMBER, master_key=found_key))
    assert laptop.replica.authority.escrow() == {}  # it stays offline through other changes
    laptop.write(lambda pen: masterkeys.online(pen, found_key, masterkeys.read(file, laptop.mesh)))
    assert laptop.write(membership.sealed_master) == sealed
    with pytest.raises(Exists):
        laptop.write(lambda pen: masterkeys.online(pen, found_key, sealed))


def test_a_file_of_another_mesh_or_with_something_else_in_it_is_refused(tmp_path: Path) -> None:
    laptop = found()
    masterkeys.write(tmp_path / "one", "MAAAA-" * 7 + "MAAAA", b"sealed")
    with pytest.raises(TrustError):
        masterkeys.read(tmp_path / "one", laptop.mesh)
    (tmp_path / "two").write_bytes(b'{"Something":1}')
    with pytest.raises(FormatError):
        masterkeys.read(tmp_path / "two", laptop.mesh)


def test_two_admins_with_the_passphrase_act_apart_and_both_count() -> None:
    laptop = found()
    desktop, phone, tablet = laptop.admit("desktop", Role.ADMIN), laptop.admit("phone"), laptop.admit("tablet")
    desktop.pull(laptop)
    key = laptop.master_key
    laptop.write(lambda pen: roles.set_role(pen, phone.udf, Role.ADMIN, master_key=key))
    desktop.write(lambda pen: roles.set_role(pen, tablet.udf, Role.ADMIN, master_key=key))
    for _ in range(3):
        laptop.meet(desktop)
        mend(laptop), mend(desktop)
    for one in (phone, tablet):
        one.pull(laptop)
    for one in (laptop, desktop, phone, tablet):
        assert one.replica.authority.admins() == {laptop.udf, desktop.udf, phone.udf, tablet.udf}
        assert one.write(membership.sealed_master)
        assert one.write(rotation.rotate)
    laptop.write(lambda pen: roles.set_role(pen, phone.udf, Role.MEMBER, master_key=key))
    assert len(laptop.replica.authority.heads(Kind.MASTER)) == 1


def test_cuts_that_do_not_fit_one_version_are_written_in_several() -> None:
    laptop = found()
    gone = [f"{number:05}".translate(str.maketrans("0123456789", "ABCDEFGHIJ")) for number in range(300)]
    udfs = [f"M{name[1:]}-" + "-".join(["AAAAA"] * 7) for name in gone]
    from meshd.profile.links import Cut

    cuts = [Cut(udf, ()) for udf in udfs]
    before = len(versions.of_kind(laptop.connection, Kind.PERSONAL))
    laptop.write(lambda pen: authoring.write_profile(pen, authoring.state(pen), cuts=cuts))
    assert len(versions.of_kind(laptop.connection, Kind.PERSONAL)) > before + 1
    assert set(udfs) <= laptop.replica.authority.removed()
