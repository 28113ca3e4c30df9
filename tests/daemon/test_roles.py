"""Roles, grants and vaults: what devices may do after each change, and that taking a right cuts nothing that had it."""

from __future__ import annotations

from functools import partial

import pytest

from harness.mesh_world import Device, found
from meshd.daemon import roles, rotation, undo, vault_admin, vaults
from meshd.errors import BadRequest, Denied, Exists, NotFound, Refused
from meshd.profile.apps import GROUP, PASSWORD, of_tag
from meshd.profile.claim import ALL, READ, WRITE, Kind, Role, State
from meshd.store import versions


def reads(device: Device) -> set[str]:
    return {of_tag(opened.application.tag).name for opened in device.keyring.vaults.values()}


def vault(device: Device, name: str) -> str:
    return device.keyring.find(name).application.identifier


def set_role(admin: Device, device: Device, role: Role, **terms: object) -> roles.Changed:
    done: roles.Changed = admin.write(
        lambda pen: roles.set_role(pen, device.udf, role, master_key=admin.master_key, **terms)  # type: ignore[arg-type]
    )
    return done


# --- grants -----------------------------------------------------------------------------------------------------------


def test_grants_are_typed_by_application_vault_or_star() -> None:
    laptop = found()
    password, ssh = vault(laptop, "password"), vault(laptop, "ssh")
    work = laptop.write(lambda pen: vault_admin.create(pen, "password", "work"))
    ring = laptop.keyring
    assert roles.parse_grants(["ssh:read", "*:read"], ring) == {ssh: READ, ALL: READ}
    assert roles.parse_grants(["password:read", "password/work:write"], ring) == {password: READ, work: WRITE}
    assert roles.parse_grants([f"{work}:read"], ring) == {work: READ}
    for bad in ("ssh", "ssh:all", ":read", "nothing:read", "group:read"):
        with pytest.raises(BadRequest):
            roles.parse_grants([bad], ring)
    with pytest.raises(NotFound):
        roles.parse_grants(["password/none:read"], ring)
    with pytest.raises(BadRequest) as meant:
        roles.parse_grants(["work:read"], ring)
    assert meant.value.hint == "the vault of that name is password/work"


def test_a_member_whose_vault_is_taken_reads_nothing_new_there_and_what_it_wrote_stands() -> None:
    laptop = found()
    phone = laptop.admit("phone")
    made = phone.add("phone.example")
    laptop.pull(phone)
    password = vault(laptop, "password")
    done = laptop.write(lambda pen: roles.revoke(pen, phone.udf, [password]))
    assert done.rotated == (password,) and done.grants == {ALL: WRITE}
    assert made in laptop.passwords()
    late = phone.add("late.example")
    laptop.pull(phone)
    phone.pull(laptop)
    assert late not in laptop.passwords()
    assert "password" not in reads(phone) and "ssh" in reads(phone)
    laptop.write(lambda pen: roles.grant(pen, phone.udf, {password: WRITE}))
    phone.pull(laptop)
    assert "password" in reads(phone)
    again = phone.add("again.example")
    laptop.pull(phone)
    assert again in laptop.passwords()


def test_writing_can_be_taken_and_reading_left() -> None:
    laptop = found()
    phone = laptop.admit("phone")
    password = vault(laptop, "password")
    for take in (
        lambda pen: roles.revoke(pen, phone.udf, [password], keep_read=True),
        lambda pen: roles.grant(pen, phone.udf, {password: READ}),
    ):
        done = laptop.write(take)
        assert done.rotated == () and done.grants == {ALL: WRITE, password: READ}
    made = laptop.add("one.example")
    phone.pull(laptop)
    assert made in phone.passwords()
    with pytest.raises(Denied):
        phone.add("two.example")


def test_a_star_that_is_said_again_covers_what_was_taken() -> None:
    laptop = found()
    phone = laptop.admit("phone")
    password = vault(laptop, "password")
    laptop.write(lambda pen: roles.revoke(pen, phone.udf, [password]))
    laptop.write(lambda pen: roles.grant(pen, phone.udf, {ALL: WRITE}))
    phone.pull(laptop)
    assert "password" in reads(phone)
    made = phone.add("one.example")
    laptop.pull(phone)
    assert made in laptop.passwords()


def test_from_all_vaults_to_one() -> None:
    laptop = found()
    phone = laptop.admit("phone")
    ssh = vault(laptop, "ssh")
    laptop.write(lambda pen: roles.grant(pen, phone.udf, {ssh: READ}))
    done = laptop.write(lambda pen: roles.revoke(pen, phone.udf, [ALL]))
    assert set(done.grants) == {vault(laptop, "group")}
    phone.pull(laptop)
    assert reads(phone) == {"group", "discovery"}
    laptop.write(lambda pen: roles.grant(pen, phone.udf, {ssh: READ}))
    phone.pull(laptop)
    assert reads(phone) == {"group", "discovery", "ssh"}
    later = laptop.write(lambda pen: vault_admin.create(pen, "note", "later"))
    phone.pull(laptop)
    assert later not in phone.keyring.vaults


def test_admins_and_relays_are_granted_nothing() -> None:
    laptop = found()
    server, desktop = laptop.admit("server", Role.RELAY), laptop.admit("desktop", Role.ADMIN)
    phone = laptop.admit("phone")
    with pytest.raises(Denied):
        laptop.write(lambda pen: roles.grant(pen, server.udf, {ALL: READ}))
    with pytest.raises(BadRequest):
        laptop.write(lambda pen: roles.grant(pen, desktop.udf, {ALL: READ}))
    with pytest.raises(Denied):
        phone.write(lambda pen: roles.grant(pen, phone.udf, {ALL: WRITE}))
    with pytest.raises(NotFound):
        laptop.write(lambda pen: roles.grant(pen, phone.udf, {"MAAAA-" * 7 + "MAAAA": READ}))


# --- roles ------------------------------------------------------------------------------------------------------------


def test_a_member_becomes_a_relay_and_a_member_again() -> None:
    laptop = found()
    server = laptop.admit("server")
    made = laptop.add("one.example")
    done = set_role(laptop, server, Role.RELAY)
    assert len(done.rotated) == len(laptop.keyring.vaults) - 1  # all but discovery
    assert (done.role, done.grants) == (Role.RELAY, {})
    server.pull(laptop)
    assert reads(server) == {"discovery"}
    with pytest.raises(NotFound):
        server.add("two.example")
    set_role(laptop, server, Role.MEMBER)
    server.pull(laptop)
    assert made in server.passwords()
    again = server.add("two.example")
    laptop.pull(server)
    assert again in laptop.passwords()


def test_an_admin_is_made_demoted_and_made_again() -> None:
    laptop = found()
    desktop = laptop.admit("desktop")
    with pytest.raises(Denied, match="master"):
        laptop.write(lambda pen: roles.set_role(pen, desktop.udf, Role.ADMIN))
    set_role(laptop, desktop, Role.ADMIN)
    desktop.pull(laptop)
    phone = desktop.admit("phone")
    laptop.pull(desktop)
    done = set_role(laptop, desktop, Role.MEMBER)
    assert done.rotated == () and done.role is Role.MEMBER and done.grants == {ALL: WRITE}
    assert len(laptop.replica.authority.escrow()) == 1
    unaware = desktop.write(rotation.rotate)  # it had not heard
    laptop.pull(desktop)
    desktop.pull(laptop)
    assert unaware and laptop.states() == desktop.states()
    quarantined = [vid for vid, state in laptop.states().items() if state is State.QUARANTINED]
    kinds = {row.kind for vid in quarantined if (row := versions.get(laptop.connection, vid)) is not None}
    assert kinds == {Kind.CONTAINER}
    assert phone.udf in laptop.replica.authority.devices()  # what he did as an admin stands
    made = desktop.add("member.example")
    laptop.pull(desktop)
    assert made in laptop.passwords()
    with pytest.raises(Denied):
        desktop.write(rotation.rotate)
    set_role(laptop, desktop, Role.ADMIN)
    desktop.pull(laptop)
    desktop.write(rotation.rotate)
    laptop.pull(desktop)
    assert laptop.write(rotation.unsettled) == ()


def test_an_admin_who_becomes_a_relay_reads_nothing_new_and_his_late_items_do_not_stand() -> None:
    laptop = found()
    desktop = laptop.admit("desktop", Role.ADMIN)
    early = desktop.add("early.example")
    laptop.pull(desktop)
    done = set_role(laptop, desktop, Role.RELAY)
    assert PASSWORD.tag in {laptop.keyring.vaults[one].application.tag for one in done.rotated}
    late = desktop.add("late.example")
    laptop.pull(desktop)
    assert early in laptop.passwords() and late not in laptop.passwords()


def test_an_admin_who_becomes_a_narrowed_member_keeps_what_he_is_granted() -> None:
    laptop = found()
    desktop = laptop.admit("desktop", Role.ADMIN)
    password = vault(laptop, "password")
    set_role(laptop, desktop, Role.MEMBER, grants={password: WRITE})
    late = desktop.add("late.example")  # as an admin, not having heard
    laptop.pull(desktop)
    desktop.pull(laptop)
    assert late in laptop.passwords()
    assert reads(desktop) == {"password", "group", "discovery"}


def test_an_admin_who_had_been_a_narrowed_member_is_no_better_off_after_it() -> None:
    laptop = found()
    desktop = laptop.admit("desktop")
    set_role(laptop, desktop, Role.ADMIN)
    done = set_role(laptop, desktop, Role.RELAY)
    assert done.grants == {}
    desktop.pull(laptop)
    assert reads(desktop) == {"discovery"}


def test_an_admin_demotes_himself_but_not_the_last_one() -> None:
    laptop = found()
    desktop = laptop.admit("desktop", Role.ADMIN)
    desktop.pull(laptop)
    set_role(laptop, laptop, Role.MEMBER)
    assert laptop.replica.authority.role(laptop.udf) is Role.MEMBER
    desktop.pull(laptop)
    with pytest.raises(Refused):
        set_role(desktop, desktop, Role.MEMBER)
    made = laptop.add("one.example")
    desktop.pull(laptop)
    assert made in desktop.passwords()


def test_a_role_that_is_there_already_changes_nothing() -> None:
    laptop = found()
    phone = laptop.admit("phone")
    before = laptop.states()
    set_role(laptop, phone, Role.MEMBER)
    assert laptop.states() == before
    assert not laptop.write(lambda pen: roles.needs_master(pen, phone.udf, Role.RELAY))
    assert laptop.write(lambda pen: roles.needs_master(pen, phone.udf, Role.ADMIN))


def test_a_grant_and_a_removal_made_apart_by_two_admins_end_with_the_removal() -> None:
    from meshd.daemon import removal

    laptop = found()
    desktop, phone = laptop.admit("desktop", Role.ADMIN), laptop.admit("phone")
    desktop.pull(laptop)
    laptop.write(lambda pen: removal.remove(pen, [phone.udf]))
    desktop.write(lambda pen: roles.grant(pen, phone.udf, {vault(desktop, "ssh"): READ}))
    laptop.meet(desktop)
    for one in (laptop, desktop):
        assert phone.udf in one.replica.authority.removed()
        one.write(rotation.settle)
    laptop.meet(desktop)
    laptop.write(rotation.settle)
    phone_key = phone.keys.dek.recipient.udf
    for opened in laptop.keyring.vaults.values():
        assert all(phone_key not in head.body["EncryptedData"]["recipients"].__repr__() for head in opened.heads)


# --- vaults -----------------------------------------------------------------------------------------------------------


def test_several_vaults_of_one_application_are_made_named_and_deleted() -> None:
    laptop = found()
    phone = laptop.admit("phone")
    work = laptop.write(lambda pen: vault_admin.create(pen, "password", "work"))
    with pytest.raises(Exists):
        laptop.write(lambda pen: vault_admin.create(pen, "password", "Work"))
    for bad in ("", " x", "a/b", "x" * 65, "a\nb"):
        with pytest.raises(BadRequest):
            laptop.write(partial(vault_admin.create, application="password", name=bad))
    with pytest.raises(BadRequest):
        laptop.write(lambda pen: vault_admin.create(pen, "discovery", "mine"))
    phone.pull(laptop)
    assert work in phone.keyring.vaults  # a grant on all covers it
    with pytest.raises(Denied):
        phone.write(lambda pen: vault_admin.rename(pen, work, "play"))
    laptop.write(lambda pen: vault_admin.rename(pen, work, "office"))
    phone.pull(laptop)
    named = [(one.application, one.name) for one in vault_admin.every(phone.connection, phone.keyring)]
    assert ("password", "office") in named and ("password", "password") in named
    laptop.write(lambda pen: vault_admin.delete(pen, work))
    phone.pull(laptop)
    assert work not in [one.id for one in vault_admin.every(phone.connection, phone.keyring)]
    assert work in [one.id for one in vault_admin.every(phone.connection, phone.keyring, deleted=True)]
    with pytest.raises(NotFound):
        phone.keyring.find("password", "office")
    laptop.write(lambda pen: vault_admin.restore(pen, work))
    assert laptop.keyring.find("password", "office").application.identifier == work


def test_a_deleted_vault_keeps_its_items() -> None:
    laptop = found()
    made = laptop.add("one.example")
    password = vault(laptop, "password")
    laptop.write(lambda pen: vault_admin.delete(pen, password))
    assert vaults.items_of(laptop.connection, password) == [made]
    laptop.write(lambda pen: vault_admin.restore(pen, password))
    assert made in laptop.passwords()


def test_discovery_and_group_are_nobodys_to_rename() -> None:
    laptop = found()
    group = next(key for key, one in laptop.keyring.vaults.items() if one.application.tag == GROUP.tag)
    with pytest.raises(NotFound):
        laptop.write(lambda pen: vault_admin.rename(pen, group, "mine"))


# --- taking back ------------------------------------------------------------------------------------------------------


def test_grants_roles_and_names_are_taken_back_for_a_day() -> None:
    from meshd.daemon import membership

    laptop = found()
    phone = laptop.admit("phone")
    password = vault(laptop, "password")
    laptop.write(lambda pen: roles.revoke(pen, phone.udf, [password]))
    laptop.write(lambda pen: membership.name_device(pen, phone.udf, "wrong"))
    laptop.write(lambda pen: vault_admin.rename(pen, password, "logins"))
    listed = laptop.write(undo.every)
    assert [one.what for one in listed] == [undo.VAULT_NAME, undo.DEVICE_NAME, undo.RIGHTS]
    for one in listed:
        laptop.write(partial(undo.undo, id=one.id))
    phone.pull(laptop)
    assert "password" in reads(phone) and laptop.keyring.vaults[password].name == "password"
    made = phone.add("one.example")
    laptop.pull(phone)
    assert made in laptop.passwords()
    laptop.now_ms += undo.DAY_MS
    assert laptop.write(undo.every) == []
    with pytest.raises(NotFound):
        laptop.write(lambda pen: undo.undo(pen, listed[0].id))


def test_taking_back_an_admin_takes_the_master_key() -> None:
    laptop = found()
    desktop = laptop.admit("desktop")
    set_role(laptop, desktop, Role.ADMIN)
    (one,) = [one for one in laptop.write(undo.every) if one.what == undo.RIGHTS]
    assert one.needs_master and one.before == undo.Rights(Role.MEMBER, {ALL: WRITE})
    with pytest.raises(Denied):
        laptop.write(lambda pen: undo.undo(pen, one.id))
    laptop.write(lambda pen: undo.undo(pen, one.id, master_key=laptop.master_key))
    assert laptop.replica.authority.role(desktop.udf) is Role.MEMBER


def test_an_undone_role_gives_back_the_grants_that_went_with_it() -> None:
    laptop = found()
    ssh = vault(laptop, "ssh")
    phone = laptop.admit("phone", grants={ssh: READ})
    set_role(laptop, phone, Role.RELAY)
    (one,) = [one for one in laptop.write(undo.every) if one.what == undo.RIGHTS]
    laptop.write(lambda pen: undo.undo(pen, one.id))
    phone.pull(laptop)
    assert reads(phone) == {"ssh", "group", "discovery"}
    with pytest.raises(NotFound):
        phone.add("one.example")


def test_taking_one_grant_back_leaves_those_that_came_after_it() -> None:
    laptop = found()
    ssh, mail, note = (vault(laptop, name) for name in ("ssh", "mail", "note"))
    phone = laptop.admit("phone", grants={ssh: READ})
    laptop.write(lambda pen: roles.grant(pen, phone.udf, {mail: READ}))
    laptop.now_ms += 1000
    laptop.write(lambda pen: roles.grant(pen, phone.udf, {note: WRITE}))
    first = [one for one in laptop.write(undo.every) if one.what == undo.RIGHTS][-1]
    laptop.write(lambda pen: undo.undo(pen, first.id))
    phone.pull(laptop)
    assert reads(phone) == {"ssh", "note", "group", "discovery"}
