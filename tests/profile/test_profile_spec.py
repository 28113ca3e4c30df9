"""docs/specs/versions.* say what the code does: the golden file, the CDDL, and the example on top."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import cbor2
import pytest
from pycddl import Schema, ValidationError

from harness import profile_world
from harness.profile_world import world
from meshd.crypto import base64url, cbor, jwe, jws
from meshd.errors import FormatError, SignatureError
from meshd.profile import escrow, payload, vault, version
from meshd.profile.claim import Kind
from meshd.profile.version import Version

ROOT = Path(__file__).parents[2]
SPEC = ROOT / "docs" / "specs"
GOLDEN = ROOT / "tests" / "vectors" / "versions.json"
CDDL = (SPEC / "versions.cddl").read_text()


def rule(name: str) -> Schema:
    return Schema(f"root = {name}\n{CDDL}")


def valid(name: str, value: Any) -> None:
    """A decoded value against one rule of the CDDL."""
    rule(name).validate_cbor(cbor2.dumps(value))


def plaintexts() -> dict[str, bytes]:
    """What is encrypted in the versions of the world, by their names."""
    here = world()
    keys = vault.key_ring({here.write_key.kid: here.write_key.key})
    return {
        "online escrow entry": jwe.open_with(here.escrow.body["EncryptedData"], here.laptop.dek),
        "container": jwe.open_with(here.container.body["EncryptedData"], here.desktop.dek),
        "item": jwe.open_direct(here.item.body["EncryptedData"], keys),
        "item, edited": jwe.open_direct(here.edited.body["EncryptedData"], keys),
    }


def refused() -> dict[str, bytes]:
    """Arrays that no reader takes, by what is wrong with them."""
    item = world().item
    assert item.signed is not None
    protected, text, signature = item.signed.protected, item.signed.payload, item.signed.signature

    def changed(old: bytes, new: bytes) -> bytes:
        assert old in text
        return version.signed_raw(Kind.ITEM, item.identifier, jws.sign(world().laptop.dsk, text.replace(old, new, 1)))

    return {
        "an unknown even kind": cbor.encode([10, item.identifier, protected, text, signature]),
        "another Identifier outside": cbor.encode([8, item.identifier[:-1] + "7", protected, text, signature]),
        "the kind of a container": cbor.encode([2, item.identifier, protected, text, signature]),
        "another algorithm": cbor.encode([8, item.identifier, protected.replace(b"Ed25519", b"none"), text, signature]),
        "a header with a space": cbor.encode([8, item.identifier, protected.replace(b",", b", "), text, signature]),
        "the tag of a profile": changed(b'"PasswordProfile"', b'"MasterProfile"'),
        "a member twice": changed(b'"Updated":', b'"Updated":"2023-11-14T22:13:23Z","Updated":'),
        "a control character": changed(b'"Updated":', b'"X":"\\u0007","Updated":'),
        "a fraction": changed(b'"Updated":', b'"X":1.5,"Updated":'),
        "no authority": changed(b";a=", b";z="),
        "an upper-case link": changed(b"mnt1;n=3", b"mnt1;Z=1;n=3"),
        "links out of order": changed(b"mnt1;n=3;", b"mnt1;g=1;n=3;"),
        "a leading zero": changed(b"n=3", b"n=03"),
        "a signature that is too short": cbor.encode([8, item.identifier, protected, text, signature[:-1]]),
        "another signature": cbor.encode(
            [8, item.identifier, protected, text, bytes([signature[0] ^ 1]) + signature[1:]]
        ),
        "a longer head": item.raw[:1] + b"\x18\x08" + item.raw[2:],
        "bytes that follow": item.raw + b"\x00",
    }


def described(name: str, found: Version) -> dict[str, Any]:
    text = plaintexts().get(name)
    return {
        "name": name,
        "kind": int(found.kind),
        "identifier": found.identifier,
        "signer": found.signer,
        "token": found.token,
        "digest": found.digest.hex(),
        "vid": found.vid.hex(),
        "raw": found.raw.hex(),
        "json": version.to_json(found),
        **({"plaintext": text.decode()} if text is not None else {}),
    }


def golden() -> dict[str, Any]:
    here = world()
    return {
        "about": "docs/specs/versions.md: the versions of a small mesh, parents first, and arrays that are refused",
        "keys": {
            "master": here.master_key.private.hex(),
            "passphrase": profile_world.PASSPHRASE,
            **{
                f"{name} {part}": getattr(keys, part).private.hex()
                for name, keys in (("laptop", here.laptop), ("desktop", here.desktop))
                for part in ("dsk", "dak", "dek")
            },
            "write key": here.write_key.key.hex(),
        },
        "versions": [described(name, found) for name, found in here.versions.items()],
        "refused": {why: raw.hex() for why, raw in refused().items()},
    }


def test_the_versions_are_those_of_the_golden_file() -> None:
    made = golden()
    if os.environ.get("MESHD_WRITE_GOLDEN"):
        GOLDEN.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n")
    assert made == json.loads(GOLDEN.read_text())


def test_every_version_of_the_golden_file_is_read_verified_and_named_by_the_formula_of_the_spec() -> None:
    """From the file alone."""

    def lv(text: str) -> bytes:
        return len(text.encode()).to_bytes(4, "big") + text.encode()

    for stated in json.loads(GOLDEN.read_text())["versions"]:
        raw = bytes.fromhex(stated["raw"])
        found = version.verify(version.parse(raw), world().directory)
        assert found == version.verify(version.from_json(stated["json"]), world().directory)
        assert version.to_json(found) == stated["json"]
        if found.signed is None:
            digest = hashlib.sha256(raw).digest()
        else:
            signed = stated["json"][next(iter(stated["json"]))]["SignedData"]
            digest = hashlib.sha256(f"{signed['protected']}.{signed['payload']}".encode()).digest()
        assert digest.hex() == stated["digest"]
        vid = hashlib.sha256(lv(stated["signer"]) + lv(stated["token"]) + digest).hexdigest()
        assert vid == stated["vid"] == found.vid.hex()


@pytest.mark.parametrize("why", refused())
def test_every_array_that_must_be_refused_is_refused(why: str) -> None:
    """All but the signatures themselves are good, so each is refused for its own fault."""
    raw = bytes.fromhex(json.loads(GOLDEN.read_text())["refused"][why])
    if "signature" in why:
        with pytest.raises(SignatureError):
            version.verify(version.parse(raw), world().directory)
    else:
        with pytest.raises(FormatError):
            version.parse(raw)


def test_the_sealed_master_key_of_the_golden_file_opens() -> None:
    here = world()
    blob = escrow.open_entry(here.escrow, here.laptop.dek)
    valid("sealed-key", cbor.decode(blob))
    assert escrow.open_master(blob, profile_world.PASSPHRASE).udf == here.master_key.udf


@pytest.mark.parametrize("name", world().versions)
def test_what_the_code_writes_matches_the_cddl(name: str) -> None:
    found = world().versions[name]
    Schema(CDDL).validate_cbor(found.raw)
    valid("json-form", version.to_json(found))
    envelope = found.body.get("EncryptedData")
    if envelope is not None:
        header = json.loads(base64url.decode(envelope["protected"]))
        valid("item-header" if found.kind is Kind.ITEM else "readers-header", header)
    if found.signed is None:
        valid("sealed-master", json.loads(plaintexts()[name]))
        return
    valid("jws-header", json.loads(found.signed.protected))
    rules = {"MasterProfile": "master", "PersonalProfile": "personal", "DeviceProfile": "device"}
    decoded = json.loads(found.signed.payload)
    valid(rules.get(found.tag, "application"), decoded)
    valid("payload", decoded)
    if name in plaintexts():
        first, second = plaintexts()[name].split(b"\n")
        assert list(json.loads(first)) == ["PasswordProfilePrivate"]
        valid("item" if found.kind is Kind.ITEM else "epochs", json.loads(second))
        assert len(plaintexts()[name]) % vault.STEP == 0


@pytest.mark.parametrize(
    "entry",
    [
        [1, "x", bytes(73), b"{}", bytes(64)],
        [8, "MBUDL-PMXU6-FVAXI-5RRHJ-JWBNA-MAJ5F-FHRU4-EVJ5X", bytes(73), b"{}", bytes(64)],
        [2, "MBUDL-PMXU6-FVAXI-5RRHJ-JWBNA-MAJ5F-FHRU4-EVJ5X", bytes(72), b"{}", bytes(64)],
        [5, "MBUDL-PMXU6-FVAXI-5RRHJ-JWBNA-MAJ5F-FHRU4-EVJ5X", b"", b"", b"", b"", [[b"{}"]]],
        [10, "MBUDL-PMXU6-FVAXI-5RRHJ-JWBNA-MAJ5F-FHRU4-EVJ5X", bytes(73), b"{}", bytes(64)],
        {"kind": 1},
    ],
    ids=str,
)
def test_the_cddl_refuses_what_the_code_refuses(entry: Any) -> None:
    raw = cbor.encode(entry)
    with pytest.raises(ValidationError):
        Schema(CDDL).validate_cbor(raw)
    with pytest.raises(FormatError):
        version.parse(raw)


def test_the_example_on_top_of_the_spec_is_the_item_of_the_golden_file() -> None:
    text = (SPEC / "versions.md").read_text()
    found = world().item
    first, second = plaintexts()["item"].decode().rstrip(" ").split("\n")
    container, _, part = found.identifier.partition("/")
    for words in (
        f'"kid":"{found.signer}"',
        f"{container[:5]}-…-{container[-5:]}/{part}",
        payload.write_date(found.updated),
        f"mnt1;n=3;q={base64url.encode(found.links.q[0])[:8]}…;g=1;a={base64url.encode(found.links.a[0])[:8]}…",
        second,
        first[len('{"PasswordProfilePrivate":{"Entries":[') :],
    ):
        assert words in text, words
