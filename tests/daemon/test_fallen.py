"""What fell with a stolen admin, and was not thought of when it was removed, is taken back later."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from harness.mesh_world import Device, device_keys, found
from meshd.daemon import fallen, quarantine, removal, renewal, rotation, vault_admin, vaults
from meshd.daemon.keyring import Keyring
from meshd.daemon.pen import Pen
from meshd.errors import Denied
from meshd.profile import author, version
from meshd.profile.apps import PASSWORD, password
from meshd.profile.claim import READ, Kind, Role
from meshd.profile.device import DeviceKeys
from meshd.profile.links import Cut, Links
from meshd.profile.trust import REMOVAL_UNDONE
from meshd.profile.vault import Item
from meshd.profile.version import Version
from meshd.store import versions


def fallen_admin(*, tablet: dict[str, str] | None = None) -> tuple[Device, Device, Device, str]:
    """A stolen admin took a tablet in and made a vault, then fell: laptop, the stolen device, tablet, vault."""
    laptop = found()
    stolen = laptop.admit("stolen", Role.ADMIN)
    stolen.pull(laptop)
    laptop.now_ms += 60_000
    since = laptop.now_ms
    laptop.now_ms += 60_000
    taken_in = stolen.admit("tablet", grants=tablet)
    loot = stolen.write(lambda pen: vault_admin.create(pen, PASSWORD.name, "loot"))
    taken_in.pull(stolen)
    laptop.pull(stolen)
    laptop.pull(taken_in)
    laptop.write(lambda pen: removal.remove(pen, [stolen.udf], since_ms=since, master_key=laptop.master_key))
    return laptop, stolen, taken_in, loot


def confirm(device: Device, keys: Sequence[str]) -> None:
    device.write(lambda pen: fallen.confirm(pen, keys))


def test_a_device_that_a_fallen_admin_took_in_comes_back_with_its_rights() -> None:
    laptop, _, tablet, loot = fallen_admin()
    assert laptop.write(fallen.every) == {f"D:{tablet.udf}": "", f"X:{loot}": "password/loot"}
    confirm(laptop, [f"D:{tablet.udf}"])
    assert tablet.udf in laptop.replica.authority.devices()
    tablet.pull(laptop)
    later = tablet.add("later.example")
    laptop.pull(tablet)
    assert later in laptop.passwords()
    assert laptop.write(fallen.every) == {f"X:{loot}": "password/loot"}


def test_a_narrow_device_comes_back_narrow() -> None:
    laptop = found()
    vault = laptop.vault()
    laptop, _, tablet, _ = fallen_admin(tablet={vault: READ})
    confirm(laptop, [f"D:{tablet.udf}"])
    authority = laptop.replica.authority
    assert authority.can_read(tablet.udf, laptop.vault()) and not authority.can_write(tablet.udf, laptop.vault())


def test_a_vault_of_a_fallen_admin_comes_back_under_its_name_and_its_items_are_imported() -> None:
    laptop, stolen, _, loot = fallen_admin()
    made = stolen.write(lambda pen: add(pen, "loot"))
    laptop.pull(stolen)
    confirm(laptop, [f"X:{loot}"])
    assert laptop.keyring.vaults[loot].name == "loot"
    vid = versions.heads(stolen.connection, Kind.ITEM, made)[0]
    laptop.write(lambda pen: quarantine.take_over(pen, vid))
    assert [head.item.deleted for head in laptop.heads(made)] == [False]
    assert laptop.write(rotation.settle) == ()


def test_a_renewed_device_keeps_what_opens_quarantine() -> None:
    laptop, stolen, _, _ = fallen_admin()
    fresh = DeviceKeys(laptop.keys.dsk, laptop.keys.dak, device_keys("fresh").dek)
    laptop.write(lambda pen: renewal.write(pen, fresh))
    assert not laptop.write(lambda pen: renewal.quarantine_needs_old(pen, fresh))  # there is nothing under these keys
    stolen.write(lambda pen: add(pen, "loot"))
    laptop.pull(stolen)
    assert laptop.write(lambda pen: renewal.quarantine_needs_old(pen, fresh))


def test_a_vault_that_can_not_be_opened_any_more_comes_back_empty() -> None:
    laptop, _, _, loot = fallen_admin()
    fresh = DeviceKeys(laptop.keys.dsk, laptop.keys.dak, device_keys("fresh").dek)
    laptop.write(lambda pen: renewal.write(pen, fresh))
    laptop.keyring = Keyring(fresh, laptop.keyring.cache_key)
    laptop.write(rotation.settle)
    assert laptop.write(fallen.every)[f"X:{loot}"] == ""
    confirm(laptop, [f"X:{loot}"])
    assert laptop.keyring.vaults[loot].name == "password" and laptop.write(rotation.settle) == ()


def test_a_vault_whose_name_was_taken_meanwhile_comes_back_all_the_same() -> None:
    laptop, _, _, loot = fallen_admin()
    laptop.write(lambda pen: vault_admin.create(pen, PASSWORD.name, "loot"))
    confirm(laptop, [f"X:{loot}"])
    assert laptop.keyring.vaults[loot].name == f"loot {loot[:11]}"


def test_a_device_whose_removal_fell_is_taken_back_for_good() -> None:
    laptop = found()
    stolen, phone = laptop.admit("stolen", Role.ADMIN), laptop.admit("phone")
    stolen.pull(laptop)
    before = laptop.copy()
    stolen.write(lambda pen: removal.remove(pen, [phone.udf]))
    before.write(lambda pen: removal.remove(pen, [stolen.udf], master_key=laptop.master_key))
    before.pull(stolen)
    assert [code for code, *_ in before.replica.authority.health()] == [REMOVAL_UNDONE]
    assert before.write(fallen.every) == {f"D:{phone.udf}": ""}
    confirm(before, [f"D:{phone.udf}"])
    assert before.replica.authority.health() == [] and before.write(fallen.every) == {}
    phone.pull(before)
    assert phone.add("later.example")


def test_who_was_removed_by_what_never_stood_is_given_keys_again() -> None:
    """A member signs a removal, which never stands; a stolen admin builds on it, and its victim is shut out."""
    laptop = found()
    thief, phone = laptop.admit("thief"), laptop.admit("phone")
    thief.pull(laptop)
    heads = thief.replica.authority.heads(Kind.PERSONAL)
    before = version.parse(versions.raw(thief.connection, heads[0]) or b"")

    def sign(device: Device, parents: tuple[bytes, ...], generation: int, *cuts: Cut) -> Version:
        tips = [version.parse(versions.raw(device.connection, vid) or b"") for vid in device.tips()]
        n, q = 1 + max(one.claim.links.n for one in tips), tuple(one.claim.vid for one in tips)
        said = Links(g=generation, n=n, q=q, p=tuple(sorted(parents)), x=cuts)
        return author.sign(device.keys.dsk, Kind.PERSONAL, laptop.mesh, "PersonalProfile", dict(before.body), said, 1)

    lie = sign(thief, heads, before.claim.links.g + 1, Cut(phone.udf, ()))
    laptop.accept([lie, sign(laptop, (lie.vid,), before.claim.links.g + 2)])
    laptop.write(rotation.settle)
    laptop.add("a.example")
    phone.pull(laptop)
    assert phone.udf in laptop.replica.authority.devices() and phone.keyring.vaults == {}
    assert laptop.write(fallen.every) == {f"D:{phone.udf}": ""}
    confirm(laptop, [f"D:{phone.udf}"])
    phone.pull(laptop)
    assert list(phone.passwords().values()) == ["secret"] and laptop.write(fallen.every) == {}


def test_only_an_admin_takes_back() -> None:
    laptop, _, tablet, loot = fallen_admin()
    confirm(laptop, [f"D:{tablet.udf}"])
    tablet.pull(laptop)
    with pytest.raises(Denied):
        confirm(tablet, [f"X:{loot}"])


def add(pen: Pen, vault: str) -> str:
    """A login in a vault of that name."""
    build: Callable[[int, str], Item] = lambda t, made: password.new(["l.example"], "l", "s", time=t, made=made)  # noqa: E731
    return vaults.add(pen, pen.keyring.find(PASSWORD.name, vault), build).identifier
