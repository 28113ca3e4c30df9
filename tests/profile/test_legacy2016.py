"""Documents of 2016 as versions: all that are known verify, and a changed one does not."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.profile_world import world
from meshd.crypto import base64url, cbor, keys, legacy
from meshd.errors import FormatError, MeshError, SignatureError, TrustError, UnknownSigner
from meshd.profile import legacy2016, version
from meshd.profile.claim import Kind
from meshd.profile.legacy2016 import LegacyVersion, read_raw, read_signed

pytestmark = pytest.mark.draft("Documents of 2016")

VECTORS = Path(__file__).parents[1] / "vectors" / "mesh2016"
DOCUMENTS = {
    "PersonalProfile": "SignedPersonalProfile",
    "MasterProfile": "SignedMasterProfile",
    "DeviceProfile": "SignedDeviceProfile",
    "PasswordProfile": "SignedApplicationProfile",
    "MailProfile": "SignedApplicationProfile",
}


def vectors() -> Iterator[tuple[str, dict[str, Any], dict[str, keys.RsaVerifyKey]]]:
    """(name, tagged document, its signer's key) of every signed profile in the logs of 2015 and 2016."""
    for path in sorted(VECTORS.glob("201*.json")):
        for number, vector in enumerate(json.loads(path.read_text())["vectors"]):
            if vector["kind"] == "jws" and vector["inner"] in DOCUMENTS:
                n, e = (int.from_bytes(base64url.decode_lenient(vector[part])) for part in ("signer_n", "signer_e"))
                key = keys.RsaVerifyKey.from_numbers(n, e)
                yield f"{path.stem}-{number}", {DOCUMENTS[vector["inner"]]: vector["object"]}, {key.udf: key}


CASES = {name: (document, known) for name, document, known in vectors()}


def first(name: str) -> tuple[dict[str, Any], dict[str, keys.RsaVerifyKey]]:
    return next((document, known) for document, known in CASES.values() if name in document)


def change(text: str, place: int = 40) -> str:
    """Base64url with one character changed that counts."""
    place += text[place:].startswith("\n")
    return text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]


@pytest.mark.parametrize("name", CASES)
def test_every_profile_of_2016_verifies(name: str) -> None:
    document, known = CASES[name]
    found = read_signed(document, known)
    ((_, body),) = document.items()
    payload = base64url.decode_lenient(body["SignedData"]["payload"])
    assert found.identifier == body["Identifier"]
    assert found.signer in known
    kid, hashed = found.signer.encode(), hashlib.sha256(payload).digest()
    assert found.vid == hashlib.sha256(len(kid).to_bytes(4, "big") + kid + bytes(4) + hashed).digest()
    header, signature = (base64url.decode_lenient(body["SignedData"][part]) for part in ("header", "signature"))
    assert cbor.decode(found.raw) == [found.kind, found.identifier, header, payload, signature, found.signer]
    assert read_raw(found.raw, known) == found
    assert read_signed(legacy2016.to_json(found), known) == found
    assert "EncryptedData" not in repr(found)


@pytest.mark.parametrize("name", CASES)
def test_a_changed_profile_of_2016_does_not(name: str) -> None:
    document, known = CASES[name]
    ((tag, body),) = document.items()
    for part in ("payload", "signature"):
        changed = {**body["SignedData"], part: change(body["SignedData"][part], 400 if part == "payload" else 40)}
        with pytest.raises(MeshError):
            read_signed({tag: {**body, "SignedData": changed}}, known)
    with pytest.raises(SignatureError):
        changed = {**body["SignedData"], "signature": change(body["SignedData"]["signature"])}
        read_signed({tag: {**body, "SignedData": changed}}, known)
    with pytest.raises(FormatError):
        read_signed({tag: {**body, "Identifier": world().master_key.udf}}, known)


def test_there_are_profiles_of_each_kind() -> None:
    found = [read_signed(document, known) for document, known in CASES.values()]
    assert {one.kind for one in found} == {Kind.PERSONAL, Kind.MASTER, Kind.DEVICE, Kind.CONTAINER}
    assert len({one.vid for one in found}) > 30
    assert {one.tag for one in found} == set(DOCUMENTS)


@pytest.mark.parametrize("log", ["2015-11-02-runmesh-test.Tmesh.jlog", "2016-03-08-examples.mesh.jlog"])
def test_whole_logs_of_2016_verify_with_the_keys_that_their_own_profiles_state(log: str) -> None:
    profiles: dict[str, LegacyVersion] = {}
    applications = []
    for record in legacy.iter_concatenated((VECTORS / "logs" / log).read_text()):
        text = record.get("DataItem", {}).get("Text")
        document = legacy.read_json(text) if text else {}
        if "SignedPersonalProfile" in document:
            found = read_signed(document, {})
            profiles[found.identifier] = found
        elif "SignedApplicationProfile" in document:
            applications.append(document)
    assert profiles
    assert applications
    for document in applications:
        identifier = document["SignedApplicationProfile"]["Identifier"]
        signers = {}
        for profile in profiles.values():
            signers |= legacy2016.signers_of(profile, identifier)
        if not signers:  # the example's last profile does not list it
            for profile in profiles.values():
                signers |= legacy2016.signature_keys(profile)
        assert read_signed(document, signers).kind is Kind.CONTAINER


def test_the_published_examples_verify() -> None:
    count = 0
    for vector in json.loads((VECTORS / "2016-03-08-examples-messages.json").read_text())["vectors"]:
        pending = [legacy.read_json(vector["text"])]
        while pending:
            value = pending.pop()
            if isinstance(value, dict):
                for tag in ("SignedPersonalProfile", "SignedMasterProfile", "SignedDeviceProfile"):
                    if tag in value:
                        read_signed({tag: value[tag]}, {})
                        count += 1
                pending += value.values()
            elif isinstance(value, list):
                pending += value
    assert count > 3


def test_a_personal_profile_brings_its_master_and_device_profiles() -> None:
    document, known = first("SignedPersonalProfile")
    found = read_signed(document, {})
    master, *devices = found.embedded
    assert master.kind is Kind.MASTER
    assert master.identifier == found.identifier
    assert devices
    assert found.signer in {device.identifier for device in devices} | set(known)
    for part in found.embedded:
        assert read_raw(part.raw, {}) == part


def test_an_application_of_a_stranger_is_not_believed() -> None:
    document, known = first("SignedApplicationProfile")
    with pytest.raises(UnknownSigner):
        read_signed(document, {})
    other = next(key for _, keys_ in CASES.values() for key in keys_.values() if key.udf not in known)
    (signer,) = known
    with pytest.raises(SignatureError):
        read_signed(document, {signer: other})


def test_one_type_does_not_pass_for_another() -> None:
    for name, (document, known) in CASES.items():
        ((tag, body),) = document.items()
        for other in set(DOCUMENTS.values()) - {tag}:
            with pytest.raises((FormatError, TrustError)):
                read_signed({other: body}, known)
        if name.endswith("3"):
            break


def test_the_two_forms_are_never_taken_for_each_other() -> None:
    document, known = first("SignedMasterProfile")
    with pytest.raises(FormatError):
        version.from_json(document)
    with pytest.raises(FormatError):
        version.parse(read_signed(document, known).raw)
    with pytest.raises(FormatError):
        read_signed(version.to_json(world().master), {})
    with pytest.raises(FormatError):
        read_raw(world().master.raw, {})


@pytest.mark.parametrize(
    "obj",
    [
        None,
        [],
        {},
        {"SignedMasterProfile": None},
        {"SignedMasterProfile": {}},
        {"SignedMasterProfile": {"Identifier": 5, "SignedData": {}}},
        {"SignedMasterProfile": {"Identifier": "x", "SignedData": {"header": "", "payload": "", "signature": ""}}},
        {"SignedConnectionRequest": {"Identifier": "x", "SignedData": {}}},
        {"SignedMasterProfile": {}, "SignedDeviceProfile": {}},
    ],
    ids=str,
)
def test_other_json_is_no_document_of_2016(obj: Any) -> None:
    with pytest.raises(FormatError):
        read_signed(obj, {})


@settings(max_examples=100)
@given(st.sampled_from(sorted(CASES)), st.data())
def test_any_value_anywhere_raises_only_our_errors(name: str, data: st.DataObject) -> None:
    document, known = CASES[name]
    ((tag, body),) = copy.deepcopy(document).items()
    text = legacy.read_json(base64url.decode_lenient(body["SignedData"]["payload"]).decode())
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key, child in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
            places.append((node, key))
            walk(child)

    walk(text)
    node, key = data.draw(st.sampled_from(places))
    node[key] = data.draw(st.none() | st.integers() | st.text(max_size=5) | st.just([]) | st.just({}) | st.just([5]))
    body["SignedData"]["payload"] = base64url.encode(json.dumps(text).encode())
    with pytest.raises(MeshError):
        read_signed({tag: body}, known)


@given(st.binary(max_size=60))
def test_garbage_is_no_document_of_2016(data: bytes) -> None:
    with pytest.raises(FormatError):
        read_raw(data, {})


def test_the_signer_is_named_once() -> None:
    document, known = first("SignedMasterProfile")
    fields = cbor.decode(read_signed(document, known).raw)
    assert isinstance(fields, list)
    fields[5] = world().master_key.udf
    with pytest.raises(FormatError):
        read_raw(cbor.encode(fields), known)
