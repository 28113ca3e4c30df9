"""Device, master and personal profiles, connection documents and the sealed master key."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from harness.profile_world import NOW, PASSPHRASE, seeded, world
from meshd.crypto import base64url, certs, jws, sealing
from meshd.crypto.keys import DecryptKey, SigningKey, public_key_json
from meshd.errors import DecryptError, FormatError, MeshError, SignatureError, TrustError, WrongPassphrase
from meshd.profile import author, connection, device, escrow, master, payload, personal, version
from meshd.profile.claim import Kind, Role
from meshd.profile.device import DeviceKeys
from meshd.profile.links import Cut, Links
from meshd.profile.personal import Application, Listing

pytestmark = pytest.mark.draft(
    "DeviceProfile",
    "MasterProfile",
    "PersonalProfile",
    "ApplicationProfileEntry",
    "ConnectionRequest",
    "ConnectionResult",
    "OnlineEscrowEntry",
)


def signed_again(body: dict[str, Any]) -> version.Parsed:
    """The laptop's profile with other members."""
    here = world()
    return author.sign(here.laptop.dsk, Kind.DEVICE, here.laptop.udf, "DeviceProfile", body, Links(g=1, n=1), NOW)


# --- device profiles ---


def test_a_device_profile_states_three_keys_and_the_certificate_to_pin() -> None:
    here = world()
    found = device.read(here.laptop_profile)
    assert found.udf == here.laptop.udf
    assert (found.dsk, found.dak, found.dek) == (
        here.laptop.dsk.verify_key,
        here.laptop.dak.verify_key,
        here.laptop.dek.recipient,
    )
    assert certs.certificate_key(found.certificate) == found.dak
    assert here.laptop_profile.links == Links(g=1, n=1)


def test_a_description_is_there_only_if_one_was_given() -> None:
    keys = DeviceKeys.generate(seeded("described"))
    assert "Description" not in device.create(keys, NOW, seeded("a")).body
    assert device.create(keys, NOW, seeded("a"), "Linux").body["Description"] == "Linux"


def test_the_keys_of_a_device_do_not_show() -> None:
    text = repr(world().laptop)
    assert world().laptop.dsk.private.hex() not in text
    assert text == "DeviceKeys()"


@pytest.mark.parametrize(
    "certificate", [None, 5, "", "AA", base64url.encode(certs.device_certificate(world().desktop.dak))]
)
def test_a_device_profile_without_its_own_certificate_is_refused(certificate: Any) -> None:
    body = copy.deepcopy(dict(world().laptop_profile.body))
    if certificate is None:
        del body["DeviceAuthenticationKey"]["X509Certificate"]
    else:
        body["DeviceAuthenticationKey"]["X509Certificate"] = certificate
    with pytest.raises(FormatError):
        device.read(signed_again(body))


def test_one_key_for_two_purposes_is_refused() -> None:
    dsk = world().laptop.dsk
    body = dict(world().laptop_profile.body)
    body["DeviceAuthenticationKey"] = public_key_json(dsk.verify_key, certs.device_certificate(dsk))
    with pytest.raises(FormatError, match="two purposes"):
        device.read(signed_again(body))


# --- master profiles ---


def test_a_master_profile_lists_admins_escrow_entries_and_cuts() -> None:
    here = world()
    cut = Cut(here.laptop.udf, (here.item.vid,))
    admins = [here.desktop.dsk.verify_key, here.desktop.dsk.verify_key]
    new = master.write(here.master_key, admins, parents=[here.master], escrow={}, cuts=[cut], now=NOW + 9)
    assert new.claim.admins == {here.desktop.udf}
    assert new.links == Links(g=2, p=(here.master.vid,), x=(cut,))
    assert len(new.body["OnlineSignatureKeys"]) == 1
    assert here.master.links.e == ((here.escrow.identifier, here.escrow.vid),)


def test_members_of_a_master_profile_that_are_not_known_are_carried_over() -> None:
    here = world()
    body = {**here.master.body, "Future": [1], "MasterEscrowKeys": [public_key_json(here.laptop.dek.recipient)]}
    old = author.sign(here.master_key, Kind.MASTER, here.master_key.udf, "MasterProfile", body, Links(g=1), NOW)
    new = master.write(here.master_key, [], parents=[old], escrow={}, now=NOW)
    assert new.body["Future"] == [1]
    assert master.escrow_keys(new) == (here.laptop.dek.recipient,)
    assert master.escrow_keys(here.master) == ()


def test_a_merge_of_master_profiles_names_both_and_the_next_generation() -> None:
    here = world()
    left = master.write(here.master_key, [], parents=[here.master], escrow={}, now=NOW)
    right = master.write(here.master_key, [], parents=[here.master], escrow={}, now=NOW + 1)
    both = master.write(here.master_key, [], parents=[right, left], escrow={}, now=NOW)
    assert both.links.p == tuple(sorted([left.vid, right.vid]))
    assert both.links.g == 3


# --- personal profiles ---


def listing(**changes: Any) -> Listing:
    here = world()
    first = {
        "devices": {here.laptop.udf: here.laptop_profile, here.desktop.udf: here.desktop_profile},
        "applications": [here.application],
        "roles": {here.desktop.udf: Role.MEMBER},
        "grants": {here.desktop.udf: {"*": "write"}},
        "admins": frozenset({here.laptop.udf}),
    }
    return Listing(**(first | changes))


@pytest.mark.parametrize(
    ("grants", "readers", "writers"),
    [
        ({"*": "write"}, 2, 2),
        ({"*": "read"}, 2, 1),
        ({}, 1, 1),
        ({world().application.identifier: "write"}, 2, 2),
        ({world().application.identifier: "read"}, 2, 1),
        ({world().master_key.udf: "write"}, 1, 1),
        ({"*": "read", world().application.identifier: "write"}, 2, 2),
    ],
)
def test_readers_of_2016_find_who_reads_and_writes_in_the_application_entry(
    grants: dict[str, str], readers: int, writers: int
) -> None:
    here = world()
    [entry] = personal.body(here.master, listing(grants={here.desktop.udf: grants}))["Applications"]
    assert len(entry["DecryptID"]) == readers
    assert len(entry["SignID"]) == writers
    assert here.laptop.udf in entry["SignID"]
    assert entry["Type"] == "PasswordProfile"


def test_members_of_a_personal_profile_that_are_not_known_are_carried_over_at_every_depth() -> None:
    here = world()
    body = copy.deepcopy(dict(here.personal.body))
    body["Future"] = {"a": 1}
    body["Applications"][0]["Friendly"] = "Logins"
    body["MeshdGrants"][here.desktop.udf]["Colour"] = "red"
    before = author.sign(here.master_key, Kind.PERSONAL, here.master_key.udf, "PersonalProfile", body, Links(g=1), NOW)
    other = Application(world().master_key.udf, "NoteProfile")
    new = personal.body(here.master, listing(applications=[here.application, other]), before)
    assert new["Future"] == {"a": 1}
    entries = {entry["Identifier"]: entry for entry in new["Applications"]}
    assert entries[here.application.identifier]["Friendly"] == "Logins"
    assert "Friendly" not in entries[other.identifier]
    assert new["MeshdGrants"][here.desktop.udf] == {"Role": "member", "Grant": {"*": "write"}, "Colour": "red"}
    new["Future"]["a"] = 2
    assert before.body["Future"] == {"a": 1}  # an edit never reaches into the old version


def test_the_vaults_of_a_profile_are_read_back() -> None:
    here = world()
    assert personal.application_entries(here.personal) == {here.application.identifier: here.application}
    body = copy.deepcopy(dict(here.personal.body))
    body["Applications"][0]["Type"] = 5
    untyped = author.sign(here.master_key, Kind.PERSONAL, here.master_key.udf, "PersonalProfile", body, Links(g=1), NOW)
    assert personal.application_entries(untyped)[here.application.identifier].tag == ""


def test_the_links_of_a_personal_profile_count_from_its_parents() -> None:
    here = world()
    cut = Cut(here.desktop.udf, ())
    found = personal.links([here.personal], n=4, q=(here.item.vid,), cuts=[cut], confirm=[f"D:{here.laptop.udf}"])
    assert found == Links(g=2, n=4, q=(here.item.vid,), p=(here.personal.vid,), k=(f"D:{here.laptop.udf}",), x=(cut,))


# --- connection documents ---


def test_a_connection_request_is_signed_by_the_device_in_it() -> None:
    here = world()
    document = connection.write_request(here.desktop.dsk, here.desktop_profile, here.master_key.udf, "lp1.token")
    found = connection.read_request(document)
    assert found == connection.ConnectionRequest(here.master_key.udf, here.desktop_profile, "lp1.token")
    without = connection.write_request(here.desktop.dsk, here.desktop_profile, here.master_key.udf)
    assert connection.read_request(without).block_token == ""


def test_a_connection_request_for_another_device_is_refused() -> None:
    here = world()
    document = connection.write_request(here.laptop.dsk, here.desktop_profile, here.master_key.udf)
    with pytest.raises(TrustError):
        connection.read_request(document)
    document["Identifier"] = here.desktop.udf
    with pytest.raises(FormatError):
        connection.read_request(document)


def test_a_connection_result_is_by_the_expected_admin_and_about_the_expected_device() -> None:
    here = world()
    document = connection.write_result(here.laptop.dsk, here.desktop_profile, connection.ACCEPTED)
    assert connection.result_signer(document) == here.laptop.udf
    found = connection.read_result(document, here.laptop.dsk.verify_key, here.desktop.udf)
    assert found == connection.ConnectionResult("Accepted", here.desktop_profile)
    with pytest.raises(SignatureError):
        connection.read_result(document, here.master_key.verify_key, here.desktop.udf)
    with pytest.raises(TrustError):
        connection.read_result(document, here.laptop.dsk.verify_key, here.laptop.udf)


def resigned(tag: str, body: Any, outside: Any = None) -> dict[str, Any]:
    key = world().desktop.dsk
    text = payload.encode({tag: body})
    return {"Identifier": outside or key.udf, "SignedData": jws.to_json(jws.sign(key, text))}


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"Identifier": "x"},
        {"Identifier": "x", "SignedData": {}},
        {"Identifier": [], "SignedData": []},
        resigned("ConnectionResult", {"Identifier": world().desktop.udf}),
        resigned("ConnectionRequest", {}),
        resigned("ConnectionRequest", {"Identifier": world().desktop.udf}),
        resigned("ConnectionRequest", {"Identifier": world().desktop.udf, "Device": []}),
        resigned("ConnectionRequest", {"Identifier": world().desktop.udf, "Device": {}}),
        resigned(
            "ConnectionRequest",
            {"Identifier": world().desktop.udf, "Device": version.bare_json(world().desktop_profile), "ParentUDF": 5},
        ),
        resigned(
            "ConnectionRequest",
            {
                "Identifier": world().desktop.udf,
                "Device": version.bare_json(world().desktop_profile),
                "ParentUDF": "x",
                "BlockToken": "x" * 300,
            },
        ),
        resigned("ConnectionResult", {"Identifier": world().desktop.udf, "Result": 5}),
        resigned("ConnectionResult", {"Identifier": world().desktop.udf, "Result": "Accepted", "Device": []}),
        resigned("ConnectionResult", {"Identifier": world().desktop.udf, "Result": "Accepted", "Device": {"a": 1}}),
    ],
    ids=lambda value: str(value)[:40],
)
def test_malformed_connection_documents_raise_only_our_errors(document: Any) -> None:
    with pytest.raises(MeshError):
        connection.read_request(document)
    with pytest.raises(MeshError):
        connection.read_result(document, world().desktop.dsk.verify_key, world().desktop.udf)


def test_a_result_with_a_device_profile_that_was_changed_is_refused() -> None:
    here = world()
    changed = copy.deepcopy(version.bare_json(here.desktop_profile))
    text = changed["SignedData"]["signature"]
    changed["SignedData"]["signature"] = ("A" if text[0] != "A" else "B") + text[1:]
    document = resigned("ConnectionResult", {"Identifier": here.desktop.udf, "Result": "Accepted", "Device": changed})
    with pytest.raises(SignatureError):
        connection.read_result(document, here.desktop.dsk.verify_key, here.desktop.udf)


# --- the sealed master key ---


def test_the_master_key_opens_for_an_admin_with_the_passphrase_alone() -> None:
    here = world()
    blob = escrow.open_entry(here.escrow, here.laptop.dek)
    assert blob == here.sealed_master
    assert escrow.open_master(blob, PASSPHRASE).private == here.master_key.private
    with pytest.raises(WrongPassphrase):
        escrow.open_master(blob, "correct horse battery stable")
    with pytest.raises(DecryptError):
        escrow.open_entry(here.escrow, here.desktop.dek)


def test_a_new_admin_gets_the_same_blob_without_the_passphrase() -> None:
    here = world()
    both = escrow.entry(here.sealed_master, [here.laptop.dek.recipient, here.desktop.dek.recipient], seeded("both"))
    assert both.identifier != here.escrow.identifier
    for keys in (here.laptop, here.desktop):
        assert escrow.open_entry(both, keys.dek) == here.sealed_master
    assert version.parse(both.raw).claim.vid == both.vid


def test_a_sealed_master_key_of_another_form_is_refused() -> None:
    here = world()
    for blob in (b"", b"\x00", b"\xa0", here.sealed_master[:-1], here.sealed_master + b"\x00"):
        with pytest.raises(FormatError):
            escrow.open_master(blob, PASSPHRASE)
    rng = seeded("other")
    for text in ({}, [], {"MeshdSealedMaster": 5}, {"MeshdSealedMaster": {"V": 1}}):
        from meshd.crypto import jwe

        envelope = jwe.seal_to(payload.encode(text), [here.laptop.dek.recipient], (), rng)
        raw = version.escrow_raw(Kind.ONLINE_ESCROW, here.escrow.identifier, envelope)
        with pytest.raises((DecryptError, FormatError)):
            escrow.open_entry(version.parse(raw), here.laptop.dek)


def test_the_least_parameters_that_are_accepted_are_not_the_default() -> None:
    blob = escrow.seal_master(SigningKey.generate(seeded("m")), "a", seeded("s"), sealing.LEAST_KDF)
    assert escrow.open_master(blob, "a").private == SigningKey.generate(seeded("m")).private
    assert sealing.MASTER_KDF.memory_kib == 256 * 1024
    assert sealing.MASTER_KDF.time == 4


def test_an_escrow_entry_without_an_admin_is_not_written() -> None:
    with pytest.raises(FormatError):
        escrow.entry(world().sealed_master, [], seeded("none"))
    assert isinstance(world().laptop.dek, DecryptKey)
