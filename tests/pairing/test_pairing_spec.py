"""What docs/specs/pairing.* say is what the cores do: every frame matches the CDDL, one whole run is a golden file."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import spake2
from pycddl import Schema, ValidationError

from harness import pairing_world as world
from harness.wire import Pair, frames
from meshd.crypto import cbor
from meshd.pairing import events, messages, proof, states

ROOT = Path(__file__).parents[2]
SPEC = ROOT / "docs" / "specs"
GOLDEN = ROOT / "tests" / "vectors" / "pairing.json"


@pytest.fixture(scope="module")
def schema() -> Schema:
    return Schema((SPEC / "pairing.cddl").read_text())


def said(wire: Pair) -> list[tuple[str, bytes]]:
    """(who, body) of every frame."""
    return [("joiner" if source is wire.left else "host", body) for source, data in wire.sent for body in frames(data)]


def test_every_frame_that_the_cores_emit_matches_the_cddl(schema: Schema) -> None:
    _, _, happy = world.whole_run(world.joiner(), world.host())
    a, b = world.joiner(world.OTHER_CODE), world.host()
    refused = Pair(a, b)
    a.begin()
    refused.settle()
    bodies = [body for wire in (happy, refused) for _, body in said(wire)]
    for body in bodies:
        schema.validate_cbor(body)
    types = {cbor.decode(body)[0] for body in bodies}  # type: ignore[index]
    assert types == {kind.TYPE for kind in messages.SHAPES}


def test_every_reason_matches_the_cddl(schema: Schema) -> None:
    for reason in events.REASONS:
        host = world.host()
        host.refuse(reason)
        [body] = frames(host.data_to_send())
        schema.validate_cbor(body)


@pytest.mark.parametrize(
    "body",
    [[0, {}], [2, {"v": 2}], [4, {"pa": b"short"}], [28, {}], [12, {"err": "NO", "left": 1}], [22]],
)
def test_the_cddl_refuses_what_the_cores_refuse(schema: Schema, body: Any) -> None:
    with pytest.raises(ValidationError):
        schema.validate_cbor(cbor.encode(body))


def test_the_spec_names_every_message_and_every_reason() -> None:
    text = (SPEC / "pairing.md").read_text()
    for kind in messages.SHAPES:
        assert re.search(rf"\| {kind.TYPE} \|", text), kind.TYPE
    for reason in events.REASONS:
        assert f"`{reason}`" in text, reason


def test_the_state_diagrams_show_the_tables() -> None:
    text = (SPEC / "pairing.md").read_text()
    for table in (states.JOINER_HEARS, states.HOST_HEARS):
        for state, heard in table.items():
            for kind, following in heard.items():
                line = rf"{state} --> {following}: hears {kind.__name__}\b"
                assert kind is messages.Refusal or re.search(line, text), (state, kind.__name__, following)


# ---------------------------------------------------------------- the golden run


def golden() -> dict[str, Any]:
    _, _, wire = world.whole_run(world.joiner(), world.host())
    proven, _, _ = world.proven_pair()  # the same randomness, stopped where the token can be had
    return {
        "about": "One whole pairing with fixed randomness (docs/specs/pairing.md). Frames without their length prefix.",
        "code": "7-orbit-walnut",
        "udf": world.UDF,
        "certificate": world.CERTIFICATE.hex(),
        "idA": proof.joiner_identity(world.UDF).hex(),
        "idB": proof.host_identity(world.CERTIFICATE).hex(),
        "block_token": proven.block_token,
        "frames": [{"from": who, "body": body.hex()} for who, body in said(wire)],
    }


def test_a_run_with_fixed_randomness_is_the_same_in_every_release() -> None:
    found = golden()
    if os.environ.get("MESHD_WRITE_VECTORS"):
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(GOLDEN.read_text())


def test_the_golden_run_follows_from_the_formulas_of_the_spec() -> None:
    """Written again from the text alone: HKDF by hand, SPAKE2 by its package, nothing from meshd.pairing."""
    run = json.loads(GOLDEN.read_text())
    bodies = [bytes.fromhex(entry["body"]) for entry in run["frames"]]
    said_map = [cbor.decode(body)[1] for body in bodies]  # type: ignore[index]

    def lv(value: bytes) -> bytes:
        return len(value).to_bytes(4, "big") + value

    def hkdf(key: bytes, salt: bytes, info: bytes) -> bytes:
        extracted = hmac.digest(salt, key, "sha256")
        return hmac.digest(extracted, info + b"\x01", "sha256")

    id_a = lv(b"mmm-pair/1") + lv(b"joiner") + lv(run["udf"].encode())
    id_b = lv(b"mmm-pair/1") + lv(b"admin") + lv(hashlib.sha256(bytes.fromhex(run["certificate"])).digest())
    assert (id_a.hex(), id_b.hex()) == (run["idA"], run["idB"])

    rng = world.fixed("joiner")
    assert said_map[0]["na"] == rng(16)
    side = spake2.SPAKE2_A(run["code"].encode(), idA=id_a, idB=id_b, entropy_f=rng)
    assert said_map[2]["pa"] == side.start()
    key = side.finish(said_map[3]["pb"])
    th = hashlib.sha256(b"".join(bodies[:4])).digest()
    assert said_map[4]["ta"] == hmac.digest(hkdf(key, th, b"mmm-pair/1 confirm joiner"), th, "sha256")
    assert said_map[5]["tb"] == hmac.digest(hkdf(key, th, b"mmm-pair/1 confirm admin"), th, "sha256")

    def b64(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    token = hmac.digest(hkdf(key, th, b"mmm-pair/1 token"), run["udf"].encode(), "sha256")
    assert run["block_token"] == f"lp1.{b64(th[:16])}.{b64(token)}"


def test_the_example_of_the_spec_is_the_golden_run() -> None:
    text = (SPEC / "pairing.md").read_text()
    run = json.loads(GOLDEN.read_text())
    assert run["code"] in text
    assert run["block_token"] in text
    for number in (2, 4):
        assert run["frames"][number]["body"] in text.replace("\n", "").replace(" ", "")
