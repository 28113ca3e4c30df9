"""What a device could read: compared with what its keys really open, whatever happened before."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import pytest

from harness.mesh_world import Device, found
from meshd.daemon import exposure, quarantine, removal, roles, vaults
from meshd.daemon import keyring as keyrings
from meshd.daemon.keyring import Keyring
from meshd.daemon.pen import Pen
from meshd.errors import DecryptError, FormatError, MeshError
from meshd.profile import vault, version
from meshd.profile.apps import password
from meshd.profile.claim import Kind, Role, State
from meshd.profile.device import DeviceKeys
from meshd.profile.vault import Item
from meshd.store import versions
from meshd.store.replica import Draft


def listed(device: Device, *others: Device) -> dict[str, bool]:
    """Identifier → changed."""
    found = exposure.exposure(device.connection, device.keyring, [other.udf for other in others])
    return {one.id: one.changed for one in found}


def truth(device: Device, thief: Device) -> dict[str, bool]:
    """The same by trying the thief's key on every container, and what it finds on every version."""
    keys: dict[str, bytes] = {}
    for row in versions.of_kind(device.connection, Kind.CONTAINER, tuple(State)):
        raw = versions.raw(device.connection, row.vid)
        assert raw is not None
        try:
            keys |= {key.kid: key.key for key in vault.open_container(version.parse(raw), thief.keys.dek).keys}
        except DecryptError:
            continue
    read: dict[str, list[tuple[bytes, Item]]] = {}
    last: dict[str, tuple[int, bytes, Item]] = {}
    for row in versions.of_kind(device.connection, Kind.ITEM, (State.APPLIED, State.QUARANTINED)):
        raw = versions.raw(device.connection, row.vid)
        assert raw is not None
        parsed = version.parse(raw)
        try:
            item = vault.open_item(parsed, device.keyring.key)
            if not item.deleted and row.state is State.APPLIED:
                last[row.identifier] = max(
                    (item.time, row.vid, item), last.get(row.identifier, (0, b"", item)), key=lambda one: one[:2]
                )
            item = vault.open_item(parsed, device.keyring.key if row.signer == thief.udf else vault.key_ring(keys))
        except (DecryptError, FormatError):
            continue
        if parsed.tag == "PasswordProfile":
            read.setdefault(row.identifier, []).append((row.vid, item))
    found = {}
    for identifier, pairs in read.items():
        heads = device.heads(identifier)
        if not heads:
            continue
        known = {password.view(item)["password"] for _, item in pairs if not item.deleted}
        if not known:
            continue
        now = [head.item for head in heads if not head.item.deleted] or [last[identifier][2]]
        found[identifier] = not known & {password.view(item)["password"] for item in now}
    return found


def test_the_list_has_what_was_readable_and_ticks_off_what_is_changed() -> None:
    laptop = found()
    phone = laptop.admit("phone")
    one, two, three = (laptop.add(f"{name}.example", secret=name) for name in ("one", "two", "three"))
    laptop.delete(three)
    laptop.write(lambda pen: removal.remove(pen, [phone.udf]))
    after = laptop.add("after.example")
    assert listed(laptop, phone) == {one: False, two: False, three: False}
    laptop.edit(one, "another")
    assert listed(laptop, phone) == {one: True, two: False, three: False}
    laptop.edit(one, "one")  # back to what the phone knows
    laptop.delete(two)
    assert listed(laptop, phone) == {one: False, two: False, three: False}
    assert after not in listed(laptop, phone)


def test_a_deleted_login_is_said_to_be_deleted_and_not_to_be_changed() -> None:
    laptop = found()
    phone = laptop.admit("phone")
    kept, spent = laptop.add("kept.example"), laptop.add("spent.example", username="eve")
    laptop.write(lambda pen: removal.remove(pen, [phone.udf]))
    laptop.edit(kept, "another")
    laptop.delete(kept)
    laptop.delete(spent)
    told = {one.id: one for one in exposure.exposure(laptop.connection, laptop.keyring, phone.udf)}
    assert (told[kept].changed, told[kept].deleted) == (True, True)
    assert (told[spent].changed, told[spent].deleted) == (False, True)
    assert (told[spent].title, told[spent].username) == ("spent.example", "eve")
    assert exposure.counts(told.values()) == (2, 0)


def test_a_conflict_is_ticked_off_when_none_of_its_sides_was_readable() -> None:
    laptop = found()
    phone, desktop = laptop.admit("phone"), laptop.admit("desktop")
    made = laptop.add("one.example", secret="first")
    desktop.pull(laptop)
    laptop.write(lambda pen: removal.remove(pen, [phone.udf]))
    late = partial(password.edit, changes={"note": "looked at it"})
    desktop.write(partial(_replace, identifier=made, edit=late))
    laptop.now_ms += 1000
    laptop.edit(made, "another")
    laptop.pull(desktop)
    assert len(laptop.heads(made)) == 2 and laptop.passwords()[made] == "another"
    assert listed(laptop, phone) == {made: False}
    laptop.edit(made, "a third")
    assert listed(laptop, phone) == {made: True}


def test_titles_come_from_the_index_where_it_has_them() -> None:
    laptop = found()
    phone = laptop.admit("phone")
    made = laptop.add("one.example")
    (by_hand,) = exposure.exposure(laptop.connection, laptop.keyring, phone.udf)
    (named,) = exposure.exposure(laptop.connection, laptop.keyring, phone.udf, {made: "The one"})
    assert (by_hand.title, named.title) == ("one.example", "The one")


def test_a_password_that_stays_is_not_ticked_off_by_a_change_of_something_else() -> None:
    laptop = found()
    phone = laptop.admit("phone")
    made = laptop.add("one.example", secret="same", totp="otpauth://totp/x?secret=ABCDEFGH")
    laptop.write(lambda pen: removal.remove(pen, [phone.udf]))
    for changes in ({"note": "looked at it"}, {"totp": "otpauth://totp/x?secret=HGFEDCBA"}):
        edit = partial(password.edit, changes=changes)
        laptop.write(partial(_replace, identifier=made, edit=edit))
        assert listed(laptop, phone) == {made: False}
    laptop.edit(made, "other")
    assert listed(laptop, phone) == {made: True}


def test_a_device_that_read_one_vault_exposes_that_vault_alone_and_a_relay_none() -> None:
    laptop = found()
    ssh = laptop.keyring.find("ssh").application.identifier
    phone, server = laptop.admit("phone", grants={ssh: "read"}), laptop.admit("server", Role.RELAY)
    laptop.add("one.example")
    assert listed(laptop, phone) == listed(laptop, server) == {}


def test_rights_that_were_taken_do_not_take_back_what_was_readable_with_them() -> None:
    laptop = found()
    phone = laptop.admit("phone")
    made = laptop.add("one.example")
    laptop.write(lambda pen: roles.set_role(pen, phone.udf, Role.RELAY))
    later = laptop.add("later.example")
    assert listed(laptop, phone) == {made: False}
    assert later not in listed(laptop, phone)


def test_what_a_device_wrote_itself_it_knows_also_when_it_is_imported() -> None:
    laptop = found()
    phone = laptop.admit("phone")
    made = laptop.add("one.example", secret="first")
    phone.pull(laptop)
    laptop.write(lambda pen: removal.remove(pen, [phone.udf]))
    late = phone.edit(made, "the phone's")
    laptop.pull(phone)
    laptop.write(lambda pen: quarantine.take_over(pen, late))
    assert laptop.passwords() == {made: "the phone's"} and listed(laptop, phone) == {made: False}


@pytest.mark.parametrize("seed", range(12))
def test_the_list_equals_the_truth_in_random_worlds(seed: int) -> None:
    r = random.Random(seed)
    laptop = found(seed=f"exposure {seed}")
    devices = [laptop, laptop.admit("desktop", Role.ADMIN), laptop.admit("phone"), laptop.admit("tablet")]
    for one in devices[1:]:
        one.pull(laptop)
    thief = devices[r.choice((1, 2))]
    here = [one for one in devices if one is not thief]
    gone = False
    for step in range(40):
        one = r.choice(devices)
        if one is thief and gone and r.random() < 0.7:
            continue
        known = list(one.passwords()) if "password" in _names(one) else []
        act = r.random()
        try:
            if act < 0.3:
                one.add(f"{step}.example", secret=str(r.randrange(4)))
            elif act < 0.6 and known:
                one.edit(r.choice(known), str(r.randrange(6)))
            elif act < 0.7 and known:
                one.delete(r.choice(known))
            elif act < 0.8 and not gone and step > 10:
                laptop.write(lambda pen: removal.remove(pen, [thief.udf], master_key=laptop.master_key))
                gone = True
            else:
                one.meet(r.choice([other for other in devices if other is not one]))
        except MeshError:
            pass  # a right that is gone, a vault that is closed: nothing happens
    for one in here:
        one.meet(laptop)
    for one in here:
        one.pull(laptop)
        assert listed(one, thief) == truth(one, thief)


def _replace(pen: Pen, identifier: str, edit: Callable[..., Item]) -> None:
    vaults.replace(pen, identifier, lambda item, time, made: edit(item, time=time, made=made))


def _names(device: Device) -> list[str]:
    return [opened.name for opened in device.keyring.vaults.values()]


def test_items_that_are_as_they_were_are_listed_without_opening_them() -> None:
    laptop = found()
    phone = laptop.admit("phone")
    titles = {laptop.add(f"{number}.example"): f"{number}" for number in range(50)}
    laptop.write(lambda pen: removal.remove(pen, [phone.udf]))
    shut = Keyring(DeviceKeys.generate(laptop.rng), bytes(32))  # holds no key of any vault
    assert {one.id: one.title for one in exposure.exposure(laptop.connection, shut, phone.udf, titles)} == titles
    assert exposure.exposure(laptop.connection, shut, phone.udf) == []


def test_a_payload_that_plays_tricks_with_its_header_is_read_the_slow_way() -> None:
    laptop = found()
    phone = laptop.admit("phone")
    made = laptop.add("one.example")
    opened = laptop.keyring.find("password")
    decoy = {"EncryptedData": {"protected": "nothing that is a header"}}

    def write(pen: Pen) -> None:
        (head,) = vaults.open_heads(pen.connection, pen.keyring, made)
        key = keyrings.write_key(pen.connection, pen.replica, opened)
        body = {"Decoy": decoy} | vault.seal_item(head.item, key, pen.rng)
        pen.write(Draft(Kind.ITEM, made, head.tag, body, parents=(head.vid,)))

    laptop.write(write)
    assert listed(laptop, phone) == {made: False}
