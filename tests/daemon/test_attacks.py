"""A thief with a removed device's keys and its old store tries what docs/attacks.md says is not possible.

Each test hands what he signed straight to the admin's device, and to a sibling that had not heard, in the other order:
what is applied in the end is the same, and it is nothing of his.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from harness.mesh_world import Device, device_keys, found, seeded
from meshd.crypto.keys import public_key_json
from meshd.daemon import exposure, removal, removing, repair, roles, rotation, surplus
from meshd.errors import DecryptError, FormatError, TrustError
from meshd.profile import author, device, personal, readers, vault, version
from meshd.profile.apps import PASSWORD, of_tag, password
from meshd.profile.claim import ALL, WRITE, Kind, Role, State
from meshd.profile.links import Cut, Links
from meshd.profile.vault import Container, EpochKey
from meshd.profile.version import Parsed, Version
from meshd.store import versions

LONG_AGO = 1_500_000_000


@dataclass
class Scene:
    """`laptop` removed the stolen device; `desktop` had not heard. `item` is an old login that the thief could read."""

    laptop: Device
    desktop: Device
    stolen: Device
    item: str
    applied: frozenset[bytes]  # what stood when it was removed

    def sign(
        self, kind: Kind, identifier: str, tag: str, body: dict[str, Any], parents: Sequence[Parsed] = (), **more: Any
    ) -> Version:
        """By the stolen key, at the end of its chain unless `n` and `q` say otherwise."""
        tips = [version.parse(self.raw(vid)) for vid in self.stolen.tips()]
        said: dict[str, Any] = {
            "g": 1 + max((one.claim.links.g for one in parents), default=0),
            "n": 1 + max(one.claim.links.n for one in tips),
            "q": tuple(one.claim.vid for one in tips),
            "p": tuple(sorted(one.claim.vid for one in parents)),
        }
        return author.sign(self.stolen.keys.dsk, kind, identifier, tag, body, Links(**(said | more)), LONG_AGO)

    def raw(self, vid: bytes) -> bytes:
        raw = versions.raw(self.stolen.connection, vid)
        assert raw is not None
        return raw

    def old(self, kind: Kind, identifier: str | None = None) -> list[Parsed]:
        """What the old store holds of a kind, oldest first."""
        rows = self.stolen.connection.execute(
            "SELECT raw FROM versions WHERE kind = ? ORDER BY gen, seq", (int(kind),)
        ).fetchall()
        found = [version.parse(row[0]) for row in rows]
        return [one for one in found if identifier is None or one.claim.identifier == identifier]

    def newest(self, kind: Kind, identifier: str) -> Parsed:
        """The present head, which a sibling may have told him: ciphertext is no secret."""
        raw = versions.raw(self.laptop.connection, versions.heads(self.laptop.connection, kind, identifier)[0])
        assert raw is not None
        return version.parse(raw)

    def key(self) -> EpochKey:
        return self.stolen.keyring.find(PASSWORD.name).container.keys[-1]

    def sealed(self, secret: str = "the thief's", time: int = 1 << 60) -> dict[str, Any]:
        """An item's content under a key that he holds."""
        item = password.new(["one.example"], "mallory", secret, time=time, made="2017-07-14T02:40:00Z")
        return vault.seal_item(item, self.key(), self.stolen.rng)

    def then(self) -> tuple[bytes, ...]:
        """The authority that he had."""
        return self.stolen.replica.authority.heads(Kind.PERSONAL)

    def hand_in(self, *made: Version) -> None:
        """To everybody, by whatever way; and everybody meets and puts right what there is to put right."""
        before = self.laptop.passwords()
        self.laptop.accept(made)
        self.desktop.accept(made[::-1])
        for _ in range(3):
            self.laptop.meet(self.desktop)
            for one in (self.laptop, self.desktop):
                if one.write(repair.unmerged):
                    one.write(repair.merge)
                one.write(rotation.settle)
                one.write(lambda pen: rotation.rewrite(pen, rotation.stale(pen)))
        self.laptop.meet(self.desktop)
        assert self.laptop.states() == self.desktop.states()
        assert self.laptop.passwords() == before == self.desktop.passwords()
        for one in (self.laptop, self.desktop):
            for version_ in made:
                row = versions.get(one.connection, version_.vid)
                if version_.kind is not Kind.DEVICE and version_.vid not in self.applied:
                    assert row is None or row.state is not State.APPLIED
        self.still_shut()

    def still_shut(self) -> None:
        """The stolen device is out, nobody came in by it, and it opens nothing that is written now."""
        authority = self.laptop.replica.authority
        assert authority.removed() >= {self.stolen.udf}
        assert authority.devices() == {self.laptop.udf, self.desktop.udf}
        assert self.laptop.write(rotation.unsettled) == ()
        for author_ in (self.laptop, self.desktop):
            new = author_.add("new.example", secret="for us alone")
            raw = versions.raw(author_.connection, versions.heads(author_.connection, Kind.ITEM, new)[0])
            assert raw is not None
            with pytest.raises(DecryptError):
                vault.open_item(version.parse(raw), self.loot())
        self.laptop.meet(self.desktop)

    def loot(self) -> Callable[[str], bytes]:
        """Every key that any container anywhere hands to the stolen device."""
        keys: dict[str, bytes] = {}
        for one in (self.laptop, self.desktop, self.stolen):
            for (raw,) in one.connection.execute("SELECT raw FROM versions WHERE kind = 2").fetchall():
                for dek in self.stolen.keys.deks:
                    try:
                        keys |= {key.kid: key.key for key in vault.open_container(version.parse(raw), dek).keys}
                    except (DecryptError, FormatError):
                        continue
        return vault.key_ring(keys)


def scene(role: Role) -> Scene:
    laptop = found()
    stolen, desktop = laptop.admit("stolen", role), laptop.admit("desktop")
    item = laptop.add("one.example", secret="first")
    stolen.pull(laptop)
    stolen.edit(item, "second")
    laptop.pull(stolen)
    desktop.pull(laptop)
    laptop.write(lambda pen: removal.remove(pen, [stolen.udf], master_key=laptop.master_key))
    stood = frozenset(vid for vid, state in laptop.states().items() if state is State.APPLIED)
    return Scene(laptop, desktop, stolen, item, stood)


@pytest.fixture
def member() -> Scene:
    return scene(Role.MEMBER)


@pytest.fixture
def admin() -> Scene:
    return scene(Role.ADMIN)


# --- writing on -------------------------------------------------------------------------------------------------------


def test_an_edit_dated_back_into_its_time_stays_outside(member: Scene) -> None:
    over = member.old(Kind.ITEM, member.item)[-1]
    member.hand_in(member.sign(Kind.ITEM, member.item, over.tag, member.sealed(), [over], a=member.then()))


def test_an_edit_at_an_early_place_of_the_chain_is_a_fork_outside_the_cut(member: Scene) -> None:
    first, own = member.old(Kind.ITEM, member.item)
    made = member.sign(
        Kind.ITEM, member.item, own.tag, member.sealed(), [first],
        n=own.claim.links.n, q=own.claim.links.q, a=first.claim.links.a,
    )  # fmt: skip
    member.hand_in(made)
    rows = member.laptop.connection.execute("SELECT signer FROM forks").fetchall()
    assert rows == [(member.stolen.udf,)]  # the evidence is kept


def test_a_clock_in_the_far_future_wins_nothing(member: Scene) -> None:
    over = member.old(Kind.ITEM, member.item)[-1]
    late = member.sealed(time=(1 << 63) - 1)
    member.hand_in(member.sign(Kind.ITEM, member.item, over.tag, late, [over], a=member.then()))


def test_a_write_that_names_the_removal_as_its_authority_is_no_better(member: Scene) -> None:
    now = member.laptop.replica.authority.heads(Kind.PERSONAL)
    over = member.old(Kind.ITEM, member.item)[-1]
    member.hand_in(member.sign(Kind.ITEM, member.item, over.tag, member.sealed(), [over], a=now))


def test_a_delete_of_everything_deletes_nothing(member: Scene) -> None:
    over = member.old(Kind.ITEM, member.item)[-1]
    item = vault.open_item(over, member.loot())
    gone = vault.seal_item(password.deleted(item, time=1 << 60, made="2017-07-14T02:40:00Z"), member.key(), seeded("d"))
    member.hand_in(member.sign(Kind.ITEM, member.item, over.tag, gone, [over], a=member.then()))


def test_branches_without_end_do_not_make_a_cut_grow_without_end(member: Scene) -> None:
    first = member.old(Kind.ITEM, member.item)[0]
    start = member.old(Kind.DEVICE, member.stolen.udf)[0]
    branches = [
        member.sign(
            Kind.ITEM, member.item, first.tag, member.sealed(str(number)), [first],
            n=start.claim.links.n + 1, q=(start.claim.vid,), a=member.then(),
        )
        for number in range(surplus.MAX_TIPS + 20)
    ]  # fmt: skip
    member.hand_in(*branches)
    tips = member.laptop.write(lambda pen: surplus.tips(pen, member.stolen.udf))
    assert len(tips) == surplus.MAX_TIPS


# --- other people's ciphertext ----------------------------------------------------------------------------------------


def test_another_items_content_under_this_items_name_is_not_taken(member: Scene) -> None:
    other = member.laptop.add("bank.example", secret="the bank's")
    body = {"EncryptedData": member.newest(Kind.ITEM, other).body["EncryptedData"]}
    over = member.old(Kind.ITEM, member.item)[-1]
    member.hand_in(member.sign(Kind.ITEM, member.item, over.tag, body, [over], a=member.then()))


@pytest.mark.parametrize("over_newest", [True, False])
def test_an_old_container_is_no_new_head(admin: Scene, over_newest: bool) -> None:
    container = admin.stolen.vault()
    old = admin.old(Kind.CONTAINER, container)[0]
    over = admin.newest(Kind.CONTAINER, container) if over_newest else admin.old(Kind.CONTAINER, container)[-1]
    body = {"EncryptedData": old.body["EncryptedData"]}
    admin.hand_in(admin.sign(Kind.CONTAINER, container, old.tag, body, [over], a=admin.then()))


def wrapped(thief: Scene, keys: Sequence[EpochKey], *others: Device) -> dict[str, Any]:
    readers = [one.keys.dek.recipient for one in (thief.stolen, *others)]
    return vault.seal_container(of_tag(PASSWORD.tag).private, Container(tuple(keys), "", {}, {}), readers, seeded("w"))


@pytest.mark.parametrize("with_others", [True, False])
def test_a_container_that_he_wraps_for_himself_is_not_taken(admin: Scene, with_others: bool) -> None:
    container = admin.stolen.vault()
    keys = [*admin.stolen.keyring.find(PASSWORD.name).container.keys, EpochKey.generate(seeded("his own"), LONG_AGO)]
    body = wrapped(admin, keys, *((admin.laptop, admin.desktop) if with_others else ()))
    over = admin.old(Kind.CONTAINER, container)[-1]
    admin.hand_in(admin.sign(Kind.CONTAINER, container, PASSWORD.tag, body, [over], a=admin.then()))


def test_a_member_makes_no_containers(member: Scene) -> None:
    container = member.stolen.vault()
    keys = member.stolen.keyring.find(PASSWORD.name).container.keys
    body = wrapped(member, keys, member.laptop, member.desktop)
    over = member.old(Kind.CONTAINER, container)[-1]
    member.hand_in(member.sign(Kind.CONTAINER, container, PASSWORD.tag, body, [over], a=member.then()))


def test_naming_the_present_keys_does_not_force_new_ones(admin: Scene) -> None:
    """The names of keys stand in clear. A container that claims to hold them, for him, must not spoil them, or every
    new key would call for the next."""
    container = admin.stolen.vault()
    present = [key.kid for key in admin.laptop.keyring.find(PASSWORD.name).container.keys]
    lie = [replace(admin.key(), kid=kid) for kid in present]
    over = admin.old(Kind.CONTAINER, container)[-1]
    made = admin.sign(Kind.CONTAINER, container, PASSWORD.tag, wrapped(admin, lie), [over], a=admin.then())
    before = len(admin.laptop.keyring.find(PASSWORD.name).container.keys)
    admin.hand_in(made)
    assert len(admin.laptop.keyring.find(PASSWORD.name).container.keys) == before


# --- profiles ---------------------------------------------------------------------------------------------------------


def listing(thief: Scene, over: Parsed, rogue: Version | None = None, *, himself: bool = False, **more: Any) -> Version:
    """A profile of his over `over`: what that lists, and a rogue device or himself with rights on everything."""
    masters = thief.old(Kind.MASTER)
    devices = {one.claim.identifier: one for one in over.embedded if one.claim.kind is Kind.DEVICE}
    roles = {udf: Role(role) for udf, role in over.claim.roles}
    grants: dict[str, dict[str, str]] = {}
    for udf, name, level in sorted(over.claim.grants):
        grants.setdefault(udf, {})[name] = level
    added: list[tuple[str, Parsed]] = [] if rogue is None else [(rogue.identifier, rogue)]
    if himself:
        added.append((thief.stolen.udf, thief.old(Kind.DEVICE, thief.stolen.udf)[0]))
    for udf, profile in added:
        devices[udf], roles[udf], grants[udf] = profile, Role.MEMBER, {ALL: WRITE}
    applications = list(personal.application_entries(over).values())
    body = personal.body(
        masters[-1], personal.Listing(devices, applications, roles, grants, frozenset([thief.stolen.udf])), over
    )
    return thief.sign(Kind.PERSONAL, over.claim.identifier, "PersonalProfile", body, [over], **more)


@pytest.mark.parametrize("role", [Role.MEMBER, Role.ADMIN])
def test_a_device_that_he_lists_is_none_of_the_mesh(role: Role) -> None:
    thief = scene(role)
    keys = device_keys("rogue")
    rogue = device.create(keys, LONG_AGO, seeded("rogue"))
    made = listing(thief, thief.old(Kind.PERSONAL)[-1], rogue)
    identifier = vault.new_item_identifier(thief.stolen.vault(), seeded("item"))
    item = author.sign(
        keys.dsk, Kind.ITEM, identifier, PASSWORD.tag, thief.sealed(), Links(g=1, n=1, a=(made.vid,)), LONG_AGO
    )
    thief.hand_in(made, item)


@pytest.mark.parametrize("role", [Role.MEMBER, Role.ADMIN])
def test_he_does_not_come_back_by_listing_and_confirming_himself(role: Role) -> None:
    thief = scene(role)
    confirm = (f"D:{thief.stolen.udf}", f"G:{thief.stolen.udf}@{ALL}")
    raw = versions.raw(thief.laptop.connection, thief.laptop.replica.authority.heads(Kind.PERSONAL)[0])
    assert raw is not None
    thief.hand_in(
        listing(thief, thief.old(Kind.PERSONAL)[-1], himself=True, k=confirm),
        listing(thief, version.parse(raw), himself=True, k=confirm),  # over the removal itself
    )


@pytest.mark.parametrize("role", [Role.MEMBER, Role.ADMIN])
def test_a_harmless_cut_on_himself_does_not_stand_in_the_way_of_the_real_one(role: Role) -> None:
    thief = scene(role)
    over = thief.old(Kind.ITEM, thief.item)[-1]
    late = thief.sign(Kind.ITEM, thief.item, over.tag, thief.sealed(), [over], a=thief.then())
    harmless = listing(
        thief, thief.old(Kind.PERSONAL)[-1], n=late.claim.links.n + 1, q=(late.vid,),
        x=(Cut(thief.stolen.udf, (late.vid,)),),
    )  # fmt: skip
    thief.hand_in(late, harmless)


@pytest.mark.parametrize("role", [Role.MEMBER, Role.ADMIN])
def test_he_removes_nobody(role: Role) -> None:
    thief = scene(role)
    cuts = (Cut(thief.laptop.udf, ()), Cut(thief.desktop.udf, ()))
    thief.hand_in(listing(thief, thief.old(Kind.PERSONAL)[-1], x=cuts))


def test_a_profile_dated_back_before_the_real_ones_is_no_better(admin: Scene) -> None:
    rogue = device.create(device_keys("rogue"), LONG_AGO, seeded("rogue"))
    start = admin.old(Kind.DEVICE, admin.stolen.udf)[0]
    made = listing(admin, admin.old(Kind.PERSONAL)[0], rogue, n=start.claim.links.n + 1, q=(start.claim.vid,))
    admin.hand_in(made)


def test_a_master_profile_takes_the_master_key(admin: Scene) -> None:
    over = admin.old(Kind.MASTER)[-1]
    body = dict(over.body) | {"OnlineSignatureKeys": [public_key_json(admin.stolen.keys.dsk.verify_key)]}
    with pytest.raises(TrustError):  # the key that it states is not the one that signed
        author.sign(
            admin.stolen.keys.dsk, Kind.MASTER, over.claim.identifier, "MasterProfile", body,
            Links(g=over.claim.links.g + 1, p=(over.claim.vid,)), LONG_AGO,
        )  # fmt: skip
    own = dict(body) | {"MasterSignatureKey": public_key_json(admin.stolen.keys.dsk.verify_key)}
    made = author.sign(admin.stolen.keys.dsk, Kind.MASTER, admin.stolen.udf, "MasterProfile", own, Links(g=1), LONG_AGO)
    outcome = admin.laptop.accept([made])
    assert outcome.rejected and not outcome.added


def test_profiles_of_long_ago_are_no_news(member: Scene) -> None:
    member.hand_in(
        *(version.verify(one, member.stolen.replica.directory) for one in member.old(Kind.PERSONAL)),
    )


def test_the_master_profile_that_removes_him_shown_without_the_rest_gets_him_no_keys() -> None:
    """The desktop, an admin too, has not heard. He gives it the MasterProfile in a profile of his, which falls."""
    laptop = found()
    stolen, desktop = laptop.admit("stolen", Role.ADMIN), laptop.admit("desktop", Role.ADMIN)
    stolen.pull(laptop)
    laptop.write(lambda pen: removal.remove(pen, [stolen.udf], master_key=laptop.master_key))
    thief = Scene(laptop, desktop, stolen, "", frozenset())
    raw = versions.raw(laptop.connection, laptop.replica.authority.heads(Kind.MASTER)[0])
    assert raw is not None
    over = thief.old(Kind.PERSONAL)[-1]
    devices = {one.claim.identifier: one for one in over.embedded if one.claim.kind is Kind.DEVICE}
    listing = personal.Listing(devices, list(personal.application_entries(over).values()), {}, {}, frozenset())
    body = personal.body(version.parse(raw), listing, over)
    desktop.accept([thief.sign(Kind.PERSONAL, over.claim.identifier, "PersonalProfile", body, [over])])
    assert desktop.replica.authority.removed() == {stolen.udf}
    assert desktop.write(rotation.settle)
    assert desktop.write(rotation.settle) == ()
    laptop.meet(desktop)
    laptop.write(repair.merge)
    laptop.write(rotation.settle)
    laptop.meet(desktop)
    thief.still_shut()


# --- his own profile --------------------------------------------------------------------------------------------------


def test_new_keys_for_himself_get_him_nothing(member: Scene) -> None:
    mine = member.old(Kind.DEVICE, member.stolen.udf)[0]
    fresh = device_keys("fresh")
    body = dict(mine.body) | {"DeviceEncryptiontionKey": public_key_json(fresh.dek.recipient)}
    made = member.sign(Kind.DEVICE, member.stolen.udf, "DeviceProfile", body, [mine])
    member.stolen.keys = replace(member.stolen.keys, older=(fresh.dek,))
    member.hand_in(made)


def test_calling_another_ones_encryption_key_his_own_spoils_nothing(member: Scene) -> None:
    member.hand_in(claim_on(member, member.desktop))


@pytest.mark.parametrize("role", [Role.MEMBER, Role.ADMIN])
def test_who_calls_another_ones_encryption_key_his_own_was_not_given_its_keys(role: Role) -> None:
    """Neither does naming them force new ones, nor is his removal never acknowledged."""
    thief = scene(role)
    container = thief.stolen.vault()
    present = [key.kid for key in thief.laptop.keyring.find(PASSWORD.name).container.keys]
    lie = [replace(thief.key(), kid=kid) for kid in present]
    over = thief.old(Kind.CONTAINER, container)[-1]
    made = thief.sign(Kind.CONTAINER, container, PASSWORD.tag, wrapped(thief, lie), [over], a=thief.then())
    thief.hand_in(claim_on(thief, thief.desktop), made)
    assert [key.kid for key in thief.laptop.keyring.find(PASSWORD.name).container.keys] == present
    assert removing.finished(thief.laptop.connection, thief.stolen.udf) is not None


def test_calling_another_ones_encryption_key_his_own_puts_nothing_on_his_list(member: Scene) -> None:
    member.hand_in(claim_on(member, member.desktop))
    listed = exposure.exposure(member.laptop.connection, member.laptop.keyring, member.stolen.udf)
    assert [one.id for one in listed] == [member.item]


def test_who_calls_an_admins_encryption_key_his_own_keeps_nobody_from_writing_a_master_profile() -> None:
    laptop = found()
    stolen, desktop = laptop.admit("stolen"), laptop.admit("desktop")
    stolen.pull(laptop)
    made = claim_on(Scene(laptop, desktop, stolen, "", frozenset()), laptop)
    laptop.accept([made])
    laptop.write(lambda pen: roles.set_role(pen, stolen.udf, Role.ADMIN, master_key=laptop.master_key))
    laptop.write(lambda pen: roles.set_role(pen, desktop.udf, Role.ADMIN, master_key=laptop.master_key))
    laptop.write(lambda pen: removal.remove(pen, [stolen.udf], master_key=laptop.master_key))
    assert laptop.replica.authority.admins() == {laptop.udf, desktop.udf}


def test_who_calls_the_escrow_key_his_own_keeps_nobody_from_wrapping_containers() -> None:
    laptop = found()
    phone = laptop.admit("phone")
    raw = versions.raw(laptop.connection, versions.heads(laptop.connection, Kind.CONTAINER, laptop.vault())[0])
    assert raw is not None
    head = version.parse(raw)
    mine = readers.Envelope(head.tag, frozenset({"kid"}), frozenset({"laptop's", "escrow"}))
    said = {"laptop's": {laptop.udf}, "escrow": {phone.udf}}
    authority = laptop.replica.authority
    assert readers.wrong_readers(authority, head.claim, mine, lambda key: said[key], lambda _: {"escrow"}) is None
    said["escrow"] = set()
    assert readers.wrong_readers(authority, head.claim, mine, lambda key: said[key], lambda _: {"escrow"})


def claim_on(thief: Scene, other: Device) -> Version:
    """His profile, with the encryption key of another device."""
    mine = thief.old(Kind.DEVICE, thief.stolen.udf)[0]
    body = dict(mine.body) | {"DeviceEncryptiontionKey": public_key_json(other.keys.dek.recipient)}
    return thief.sign(Kind.DEVICE, thief.stolen.udf, "DeviceProfile", body, [mine])
