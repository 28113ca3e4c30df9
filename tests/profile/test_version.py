"""Versions: from bytes to something believed, and what never gets there."""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.profile_world import NOW, Directory, again, seeded, world
from meshd.crypto import base64url, cbor, jwe, jws, udf
from meshd.crypto.keys import SigningKey, public_key_json
from meshd.errors import FormatError, MeshError, SignatureError, TrustError, UnknownSigner
from meshd.profile import author, payload, vault, version
from meshd.profile.claim import Kind
from meshd.profile.links import Links
from meshd.profile.version import Version

NAMES = list(world().versions)
SIGNED = [name for name in NAMES if world().versions[name].signed is not None]
RSA = {"PublicKeyRSA": {"n": base64url.encode(b"\xff" * 256), "e": "AQAB"}}


def signed(key: SigningKey, kind: Kind, identifier: str, tag: str, body: Any) -> bytes:
    """An entry that says anything at all, well signed."""
    return version.signed_raw(kind, identifier, jws.sign(key, payload.encode({tag: body})))


def edited(name: str, **members: Any) -> bytes:
    """A version of the world with these members, signed again by the right key; None takes a member away."""
    here = world()
    found = here.versions[name]
    key = {
        here.master_key.udf: here.master_key,
        here.laptop.udf: here.laptop.dsk,
        here.desktop.udf: here.desktop.dsk,
    }[found.signer]
    body = {member: value for member, value in {**found.body, **members}.items() if value is not None}
    return signed(key, found.kind, found.identifier, found.tag, body)


@pytest.mark.parametrize("name", NAMES)
def test_a_version_is_the_same_from_its_bytes_and_from_its_json(name: str) -> None:
    found = world().versions[name]
    assert again(found) == found
    form = json.loads(payload.encode(version.to_json(found)))
    assert version.parse(found.raw) == version.from_json(form)
    assert version.from_json(form).raw == found.raw


@pytest.mark.parametrize("name", SIGNED)
def test_a_changed_byte_is_never_believed(name: str) -> None:
    found = world().versions[name]
    assert found.signed is not None
    for place in range(0, len(found.raw), 7):
        raw = bytearray(found.raw)
        raw[place] ^= 1
        with pytest.raises(MeshError):
            version.verify(version.parse(bytes(raw)), world().directory)


@pytest.mark.parametrize("name", NAMES)
def test_every_truncation_is_refused(name: str) -> None:
    raw = world().versions[name].raw
    for end in range(0, len(raw), 11):
        with pytest.raises(FormatError):
            version.parse(raw[:end])


@given(st.binary(max_size=80))
def test_garbage_raises_only_a_format_error(data: bytes) -> None:
    with pytest.raises(FormatError):
        version.parse(data)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just("MAAAA"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200)
@given(st.sampled_from(NAMES), st.data())
def test_any_value_in_any_member_raises_only_our_errors(name: str, data: st.DataObject) -> None:
    """The JSON form with one value somewhere in it replaced by another of any type."""
    found = world().versions[name]
    form = copy.deepcopy(version.to_json(found))
    _replace_somewhere(form, data)
    try:
        version.verify(version.from_json(form), world().directory)
    except MeshError:
        pass


@settings(max_examples=300)
@given(st.sampled_from(SIGNED), st.data())
def test_any_value_in_any_signed_member_raises_only_our_errors(name: str, data: st.DataObject) -> None:
    """The payload with one value replaced, and signed again: by a device that is ours and stolen, say."""
    body = copy.deepcopy(dict(world().versions[name].body))
    _replace_somewhere(body, data)
    try:
        raw = edited(name, **body)
        version.verify(version.parse(raw), world().directory)
    except MeshError:
        pass


def _replace_somewhere(value: Any, data: st.DataObject) -> None:
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, child in children:
            places.append((node, key))
            walk(child)

    walk(value)
    node, key = places[data.draw(st.integers(0, len(places) - 1))]
    node[key] = data.draw(anything)


@settings(max_examples=200)
@given(
    st.lists(
        st.integers() | st.binary(max_size=80) | st.text(max_size=80) | st.lists(st.binary(max_size=4)), max_size=8
    )
)
def test_arrays_of_anything_raise_only_a_format_error(fields: list[Any]) -> None:
    raw = cbor.encode([field if not isinstance(field, int) else field % 2**64 for field in fields])
    if fields and isinstance(fields[0], int) and version.is_carried(fields[0] % 2**64):
        assert version.parse(raw).claim.signer == ""
        return
    with pytest.raises(FormatError):
        version.parse(raw)


def test_versions_of_strangers_are_not_believed() -> None:
    with pytest.raises(UnknownSigner):
        version.verify(version.parse(world().item.raw))
    with pytest.raises(UnknownSigner):
        version.verify(version.parse(world().item.raw), Directory({}))


def test_a_signature_by_another_device_under_the_same_name_is_refused() -> None:
    here = world()
    wrong = Directory({here.laptop.udf: here.desktop.dsk.verify_key})
    with pytest.raises(SignatureError):
        version.verify(version.parse(here.item.raw), wrong)


def test_profiles_bring_the_keys_that_they_need() -> None:
    here = world()
    for found in (here.master, here.laptop_profile, here.personal):
        assert version.verify(version.parse(found.raw)) == found
    body = dict(here.personal.body)
    by_admin = author.sign(
        here.laptop.dsk,
        Kind.PERSONAL,
        here.master_key.udf,
        "PersonalProfile",
        body,
        Links(g=2, n=9, q=(here.item.vid,), p=(here.personal.vid,)),
        NOW,
    )
    assert version.verify(version.parse(by_admin.raw)) == by_admin
    assert [part.kind for part in by_admin.embedded] == [Kind.MASTER, Kind.DEVICE, Kind.DEVICE]
    assert all(isinstance(part, Version) for part in by_admin.embedded)


def test_a_personal_profile_with_an_embedded_document_that_was_changed_is_refused() -> None:
    here = world()
    body = copy.deepcopy(dict(here.personal.body))
    text = body["Devices"][1]["SignedData"]["signature"]
    body["Devices"][1]["SignedData"]["signature"] = ("A" if text[0] != "A" else "B") + text[1:]
    parsed = version.parse(edited("personal profile", Devices=body["Devices"]))
    with pytest.raises(SignatureError):
        version.verify(parsed)


def test_the_claim_of_a_personal_profile_says_what_the_profile_says() -> None:
    here = world()
    claim = here.personal.claim
    assert claim.master == here.master.vid
    assert claim.devices == {here.laptop.udf, here.desktop.udf}
    assert claim.applications == {here.application.identifier}
    assert claim.grants == {(here.desktop.udf, "*", "write")}
    assert claim.roles == ((here.desktop.udf, "member"),)
    assert here.master.claim.admins == {here.laptop.udf}
    assert here.item.claim.container == here.application.identifier
    assert here.item.links.a == (here.personal.vid,)


def test_no_repr_shows_content() -> None:
    for found in world().versions.values():
        for text in (repr(found), str(found)):
            assert "EncryptedData" not in text
            assert "raw=" not in text


# --- what is malformed ---


@pytest.mark.parametrize(
    ("name", "members"),
    [
        ("item", {"Identifier": None}),
        ("item", {"NotaryToken": None}),
        ("item", {"NotaryToken": 1}),
        ("item", {"NotaryToken": "x" * 20_000}),
        ("item", {"Updated": None}),
        ("item", {"Updated": 1_700_000_000}),
        ("item", {"Updated": "yesterday"}),
        ("item", {"EncryptedData": None}),
        ("item", {"EncryptedData": []}),
        ("item", {"EncryptedData": {}}),
        ("item", {"EncryptedData": world().container.body["EncryptedData"]}),
        ("item", {"EncryptedData": {**world().item.body["EncryptedData"], "unprotected": {}}}),
        ("container", {"EncryptedData": world().item.body["EncryptedData"]}),
        ("container", {"EncryptedData": {**world().container.body["EncryptedData"], "recipients": []}}),
        ("container", {"EncryptedData": {**world().container.body["EncryptedData"], "recipients": [{}]}}),
        ("container", {"EncryptedData": {**world().container.body["EncryptedData"], "protected": "e30"}}),
        ("item", {"NotaryToken": "mnt1;n=3;g=1"}),
        ("item", {"NotaryToken": f"mnt1;g=1;a={base64url.encode(bytes(32))}"}),
        ("device profile (admin)", {"DeviceSignatureKey": None}),
        ("device profile (admin)", {"DeviceSignatureKey": []}),
        ("device profile (admin)", {"DeviceEncryptiontionKey": public_key_json(world().laptop.dsk.verify_key)}),
        ("device profile (admin)", {"DeviceAuthenticationKey": public_key_json(world().laptop.dek.recipient)}),
        ("device profile (admin)", {"DeviceSignatureKey": {"UDF": world().laptop.udf, "PublicParameters": RSA}}),
        ("master profile", {"MasterSignatureKey": {"UDF": world().master_key.udf, "PublicParameters": RSA}}),
        ("master profile", {"OnlineSignatureKeys": {}}),
        ("master profile", {"OnlineSignatureKeys": [{"UDF": world().laptop.udf, "PublicParameters": RSA}]}),
        ("master profile", {"OnlineSignatureKeys": [public_key_json(world().laptop.dek.recipient)]}),
        ("master profile", {"OnlineSignatureKeys": [public_key_json(world().laptop.dsk.verify_key)] * 513}),
        ("personal profile", {"SignedMasterProfile": None}),
        ("personal profile", {"SignedMasterProfile": []}),
        ("personal profile", {"SignedMasterProfile": world().personal.body["Devices"][0]}),
        ("personal profile", {"Devices": {}}),
        ("personal profile", {"Devices": [1]}),
        ("personal profile", {"Devices": [world().personal.body["SignedMasterProfile"]]}),
        ("personal profile", {"Devices": world().personal.body["Devices"][:1] * 2}),
        ("personal profile", {"Devices": [{**world().personal.body["Devices"][0], "More": 1}]}),
        ("personal profile", {"Applications": {}}),
        ("personal profile", {"Applications": ["x"]}),
        ("personal profile", {"Applications": [{}]}),
        ("personal profile", {"Applications": [{"Identifier": 5}]}),
        ("personal profile", {"Applications": [{"Identifier": "x"}]}),
        ("personal profile", {"Applications": world().personal.body["Applications"] * 2}),
        ("personal profile", {"MeshdGrants": []}),
        ("personal profile", {"MeshdGrants": {"x": {"Role": "member"}}}),
        ("personal profile", {"MeshdGrants": {world().desktop.udf: []}}),
        ("personal profile", {"MeshdGrants": {world().desktop.udf: {}}}),
        ("personal profile", {"MeshdGrants": {world().desktop.udf: {"Role": "admin"}}}),
        ("personal profile", {"MeshdGrants": {world().desktop.udf: {"Role": ["member"]}}}),
        ("personal profile", {"MeshdGrants": {world().desktop.udf: {"Role": "member", "Grant": []}}}),
        ("personal profile", {"MeshdGrants": {world().desktop.udf: {"Role": "member", "Grant": {"x": "read"}}}}),
        ("personal profile", {"MeshdGrants": {world().desktop.udf: {"Role": "member", "Grant": {"*": "all"}}}}),
        ("personal profile", {"MeshdGrants": {world().desktop.udf: {"Role": "member", "Grant": {"*": ["read"]}}}}),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_well_signed_version_with_a_malformed_member_is_refused(name: str, members: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        version.parse(edited(name, **members))


def test_a_profile_of_another_key_is_refused() -> None:
    here = world()
    other = SigningKey.generate(seeded("other"))
    for found in (here.master, here.laptop_profile):
        with pytest.raises((TrustError, FormatError)):
            version.parse(signed(other, found.kind, found.identifier, found.tag, dict(found.body)))
        body = {**found.body, "Identifier": other.udf}
        with pytest.raises(TrustError):
            version.parse(signed(other, found.kind, other.udf, found.tag, body))


def test_a_personal_profile_that_embeds_another_mesh_is_refused() -> None:
    other = SigningKey.generate(seeded("other"))
    body = {**world().personal.body, "Identifier": other.udf}
    with pytest.raises(TrustError):
        version.parse(signed(other, Kind.PERSONAL, other.udf, "PersonalProfile", body))


@pytest.mark.parametrize("kind", [0, 10, 2**40, -1, True, "1", None, b"\x01"])
def test_other_kinds_are_not_versions(kind: Any) -> None:
    item = world().item
    assert item.signed is not None
    with pytest.raises(FormatError):
        version.parse(cbor.encode([kind, item.identifier, item.signed.protected, item.signed.payload, bytes(64)]))


@pytest.mark.parametrize("kind", [7, 9, 4095])
def test_unknown_odd_kinds_are_carried_by_the_name_of_their_bytes(kind: int) -> None:
    raw = cbor.encode([kind, world().item.identifier, b"whatever"])
    carried = version.parse(raw)
    assert (carried.raw, carried.claim.vid, carried.claim.identifier) == (raw, hashlib.sha256(raw).digest(), "")


@pytest.mark.parametrize(
    "identifier", ["", "x", "/", "MBUDL", "*", udf.make(udf.RANDOM, b"", 150), world().laptop.udf + "/"]
)
def test_an_application_under_a_malformed_name_is_refused(identifier: str) -> None:
    for name in (identifier, f"{identifier}/{'a' * 26}"):
        if name.count("/") == 1 and udf.is_current(name.partition("/")[0]) and name.endswith("a"):
            continue
        with pytest.raises(FormatError):
            version.kind_of_application(name)
        raw = signed(world().laptop.dsk, Kind.ITEM, name, "PasswordProfile", {**world().item.body, "Identifier": name})
        with pytest.raises(FormatError):
            version.parse(raw)


@pytest.mark.parametrize(
    "tag", ["MasterProfile", "DeviceProfile", "PersonalProfile", "ConnectionRequest", "EscrowedKeySet"]
)
def test_an_item_can_not_pass_for_another_type(tag: str) -> None:
    item = world().item
    with pytest.raises(FormatError):
        version.parse(signed(world().laptop.dsk, Kind.ITEM, item.identifier, tag, dict(item.body)))
    with pytest.raises(FormatError):  # nor a profile for an item
        version.parse(
            signed(
                world().master_key, Kind.MASTER, world().master_key.udf, "PasswordProfile", dict(world().master.body)
            )
        )


def test_members_that_are_not_known_are_no_fault_and_stay() -> None:
    parsed = version.parse(edited("item", Future={"deep": [1, None, "x"]}))
    assert parsed.body["Future"] == {"deep": [1, None, "x"]}
    assert version.verify(parsed, world().directory).body["Future"] == {"deep": [1, None, "x"]}


def test_an_entry_above_four_mebibytes_is_refused() -> None:
    with pytest.raises(FormatError, match="bytes"):
        version.parse(bytes(version.MAX_RAW + 1))


# --- escrow entries ---


def test_an_escrow_entry_has_one_vid_whatever_form_it_came_in() -> None:
    here = world()
    form = version.to_json(here.escrow)
    assert version.from_json(form).claim.vid == here.escrow.vid
    fields = cbor.decode(here.escrow.raw)
    assert isinstance(fields, list)
    fields[6][0][0] = fields[6][0][0].replace(b'":"', b'": "')  # the same header, spelt otherwise
    with pytest.raises(FormatError):
        version.parse(cbor.encode(fields))


@pytest.mark.parametrize(
    "change",
    [
        {"recipients": None},
        {"recipients": [{}]},
        {"recipients": ["x"]},
        {"recipients": [{"header": {}}]},
        {"recipients": [{"header": [], "encrypted_key": "AA"}]},
        {"recipients": [{"header": {"x": "\ud800"}, "encrypted_key": "AA"}]},
        {"recipients": [{"header": {"x": 1.5}, "encrypted_key": "AA"}]},
        {"recipients": [{"header": {}, "encrypted_key": 5}]},
        {"recipients": [{"header": {}, "encrypted_key": "AA", "more": 1}]},
        {"recipients": [{"header": {}, "encrypted_key": "AA"}] * 257},
        {"recipients": [{"header": {"x": "y" * 5000}, "encrypted_key": "AA"}]},
        {"protected": 5},
        {"iv": "="},
        {"tag": None},
        {"unprotected": {}},
    ],
    ids=lambda change: str(change)[:60],
)
def test_a_malformed_escrow_entry_is_refused(change: dict[str, Any]) -> None:
    ((tag, body),) = version.to_json(world().escrow).items()
    envelope = {**body["EncryptedData"], **change}
    with pytest.raises(FormatError):
        version.from_json({tag: {**body, "EncryptedData": envelope}})


@pytest.mark.parametrize(
    "form",
    [
        None,
        [],
        {},
        {"SignedMasterProfile": {}, "SignedDeviceProfile": {}},
        {"SignedMasterProfile": []},
        {"SignedMasterProfile": {"Identifier": "x"}},
        {"SignedConnectionRequest": {"Identifier": "x", "SignedData": {}}},
        {"Nonsense": {"Identifier": "x", "SignedData": {}}},
        {"OnlineEscrowEntry": {"Identifier": "x"}},
        {"OnlineEscrowEntry": {"Identifier": world().escrow.identifier, "EncryptedData": {}, "More": 1}},
        {"SignedApplicationProfile": {"Identifier": 5, "SignedData": {}}},
    ],
    ids=str,
)
def test_other_json_is_no_entry(form: Any) -> None:
    with pytest.raises(FormatError):
        version.from_json(form)


# --- writing ---


def test_an_author_can_not_write_what_others_would_refuse() -> None:
    here = world()
    body = {"EncryptedData": here.item.body["EncryptedData"]}
    good = Links(g=1, n=4, a=(here.personal.vid,))
    assert here.sign_item(body, good).links == good
    for bad in ({"EncryptedData": {}}, {**body, "X": 1.5}, {**body, "X": "\ud800"}, {**body, "X": "\n"}):
        with pytest.raises(FormatError):
            here.sign_item(bad, good)
    for links in (replace(good, a=()), replace(good, n=0), replace(good, k=("a;b",)), replace(good, p=(b"short",))):
        with pytest.raises(FormatError):
            here.sign_item(body, links)
    with pytest.raises(FormatError):
        here.sign_item(body, good, here.application.identifier)


def test_what_an_edit_carries_over_is_all_but_name_time_and_links() -> None:
    here = world()
    old = version.parse(edited("item", Future={"a": 1}, Names=["n"]))
    links = Links(g=2, n=5, p=(here.item.vid,), a=(here.personal.vid,))
    new = here.sign_item(old.body, links)
    assert new.body["Future"] == {"a": 1}
    assert new.body["Names"] == ["n"]
    assert new.links == links
    assert new.updated == NOW
    assert list(new.body)[:4] == ["Identifier", "Names", "Updated", "NotaryToken"]


def test_an_item_of_the_largest_size_goes_through() -> None:
    here = world()
    size = vault.MAX_PLAINTEXT - 102  # with the frame around it, the limit
    item = vault.Item({"NoteProfilePrivate": {"Entries": []}}, vault.new_meta(1, "", Note="x" * size))
    body = vault.seal_item(item, here.write_key, seeded("large"))
    found = here.sign_item(body, Links(g=1, n=4, a=(here.personal.vid,)))
    assert vault.open_item(again(found), vault.key_ring({here.write_key.kid: here.write_key.key})) == item
    assert jwe.direct_kid(found.body["EncryptedData"]) == here.write_key.kid
