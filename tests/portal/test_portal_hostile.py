"""Garbage, half-right requests and hostile bodies: a portal answers every one of them, and stores nothing of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import reader2016
from harness.portal_examples import EXAMPLES
from harness.portal_memory import DOMAIN, MemoryPortal
from harness.portal_people import Person, tagged
from harness.reader2016 import Broken
from meshd.crypto import base64url, cbor
from meshd.errors import MeshError
from meshd.portal import codec, documents2016
from meshd.portal import messages as m
from meshd.portal.codec import CBOR, JSON, Dialect
from meshd.portal.messages import TRANSACTIONS
from meshd.portal.outcomes import Policy

CAPTURES = Path(__file__).parent.parent / "vectors" / "mesh2016" / "captures" / "reference-mar2016.json"
BODIES: list[str] = [one["request_body"] for one in json.loads(CAPTURES.read_text())["vectors"]]
OURS = frozenset({"log"})
FULL = Policy(DOMAIN, compat="full")

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(
    sorted(
        {one for kind in TRANSACTIONS.values() for one in (kind.request.__name__, kind.response.__name__)}
        | {
            "Account",
            "AccountID",
            "DeviceID",
            "Identifier",
            "Entry",
            "Profile",
            "SignedData",
            "Result",
            "SignedRequest",
        }
        | {
            "KeyValues",
            "SearchConstraints",
            "Entries",
            "Rows",
            "Multiple",
            "payload",
            "header",
            "protected",
            *TRANSACTIONS,
        }
    )
)
likely = st.recursive(
    json_values, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=12
)


@given(st.binary(max_size=300), st.sampled_from([JSON, CBOR]))
def test_any_bytes_are_answered(body: bytes, media: str):
    portal = MemoryPortal(FULL)
    assert portal.raw(body, content_type=media).http_status == 200
    assert portal.raw(body, content_type=media, extensions=OURS).http_status >= 200
    assert not portal.versions


@given(st.sampled_from(sorted(TRANSACTIONS)), likely)
def test_any_request_is_answered_in_its_type(transaction: str, members: Any):
    portal = MemoryPortal(FULL)
    if not isinstance(members, dict):
        members = {"Account": members}
    kind = TRANSACTIONS[transaction]
    for body in ({transaction: {kind.request.__name__: members}}, {transaction: members}):
        try:
            data = json.dumps(body).encode()
        except ValueError:
            continue
        answer = portal.raw(data)
        assert next(iter(json.loads(answer.body))) in (kind.response.__name__, "MeshResponse")
        assert portal.raw(data, extensions=OURS).body
        try:
            packed = cbor.encode(body)
        except MeshError:
            continue
        assert portal.raw(packed, content_type=CBOR, extensions=OURS).content_type == CBOR
    assert not portal.versions and not portal.accounts and not portal.waiting


@given(st.sampled_from(BODIES), st.data())
def test_a_captured_request_with_a_character_changed_never_breaks_anything(body: str, data: st.DataObject):
    at = data.draw(st.integers(0, len(body) - 1))
    changed = body[:at] + data.draw(st.sampled_from('"{}[]:,\\ a0-\n')) + body[at + 1 :]
    portal = MemoryPortal(Policy("localhost", compat="full"))
    answer = portal.raw(changed.encode())
    (name,) = json.loads(answer.body)
    for transaction, kind in TRANSACTIONS.items():
        if kind.response.__name__ == name:
            reader2016.read_response(transaction, answer.body, http_status=answer.http_status)
            return
    assert name == "MeshResponse"  # there is no type to answer in, and no 2016 client asks like that


@given(likely)
def test_a_portal_that_answers_garbage_raises_only_our_errors(members: Any):
    for transaction, kind in TRANSACTIONS.items():
        for body in ({kind.response.__name__: members}, members):
            try:
                codec.decode_response(json.dumps(body).encode(), transaction)
            except MeshError:
                pass


@given(likely)
def test_any_tree_as_a_2016_document_raises_only_our_errors(tree: Any):
    for read in (documents2016.read, documents2016.read_request, documents2016.read_result):
        for one in (tree, {"SignedPersonalProfile": tree}, {"Identifier": "M", "SignedData": tree}):
            try:
                read(one)
            except MeshError:
                pass


@given(st.binary(max_size=400))
def test_any_payload_as_a_2016_document_raises_only_our_errors(payload: bytes):
    header = base64url.encode(b'{"alg":"RS512","kid":"MAAAA-BBBBB-CCCCC-DDDDD-EEEEE-FFFFF"}')
    signed = {"header": header, "payload": base64url.encode(payload), "signature": "AA"}
    bare = {"Identifier": "MAAAA-BBBBB-CCCCC-DDDDD-EEEEE-FFFFF", "SignedData": signed}
    for entry in ({"SignedPersonalProfile": bare}, {"SignedApplicationProfile": bare}):
        try:
            document = documents2016.read(entry)
            documents2016.read_profile(document)
        except MeshError:
            pass


@pytest.mark.parametrize(
    "text",
    [
        '{"Publish":' * 20_000,
        '{"a":' * 20_000 + "1" + "}" * 20_000,
        '{"Publish":{"PublishRequest":{"Entry":{"SignedPersonalProfile":{"Identifier":"' + "\\u0000" * 1000 + '"}}}}}',
        '{"Get":{"GetRequest":{"KeyValues":[' + ",".join(['{"Key":"a","Value":"b"}'] * 5000) + "]}}}",
        '{"Get":{"GetRequest":{"Identifier":"' + "A" * 100_000 + '"}}}',
        '{"ValidateAccount":{"ValidateRequest":{"Account":"' + "@" * 5000 + '"}}}',
        '{"Transfer":{"TransferRequest":{"MaxEntries":99999999999999999999999}}}',
        '{"Transfer":{"TransferRequest":{"MaxEntries":-1}}}',
        '{"Get":{"GetRequest":{"NotBefore":"yesterday"}}}',
        '{"Publish":{"PublishRequest":{"Entries":[' + ",".join(["{}"] * 1001) + "]}}}",
        '{"Get":{"GetRequest":{"Account":"\ud800"}}}'.encode("utf-8", "surrogatepass").decode("latin-1"),
        '{"Get":{"GetRequest":{"Account":"\\ud800@example.net"}}}',
    ],
)
def test_hostile_bodies_are_answered(text: str):
    portal = MemoryPortal(FULL)
    body = text.encode()
    assert portal.raw(body).http_status == 200
    assert portal.raw(body, extensions=OURS).http_status in (400, 404, 413, 401, 201)
    assert not portal.versions


def test_entries_have_their_sizes():
    portal, alice = MemoryPortal(), Person("alice")
    portal.ask("CreateAccount", m.CreateRequest(account=f"alice@{DOMAIN}", profile=tagged(alice.root)), alice.first)
    entry = tagged(alice.escrow())
    entry["OnlineEscrowEntry"]["EncryptedData"]["ciphertext"] = base64url.encode(bytes(70_000))  # type: ignore[index]
    portal.ask("Publish", m.PublishRequest(entry=entry), alice.first)
    assert portal.http == 413
    request = alice.device("phone").request(alice.mesh)
    request["Extra"] = "x" * 40_000
    message = m.ConnectStartRequest(account_id=f"alice@{DOMAIN}", signed_request=request)
    portal.ask("ConnectStart", message, alice.first)
    assert portal.http == 413


def test_a_batch_and_rows_are_bounded():
    portal, alice = MemoryPortal(), Person("alice")
    entries = [tagged(alice.escrow())] * 1001
    body = codec.encode_request("Publish", m.PublishRequest(entries=entries), Dialect.OURS)
    assert portal.raw(body, alice.first, extensions=OURS).http_status == 413


@pytest.mark.parametrize("transaction", EXAMPLES)
def test_the_examples_are_answered_too(transaction: str):
    portal = MemoryPortal(FULL)
    portal.ask(transaction, EXAMPLES[transaction][0])
    assert portal.http in (201, 400, 401, 404)


def test_the_model_reader_would_have_stopped_at_an_error_status():
    answer = MemoryPortal(FULL).raw(b'{"Get":{"GetRequest":{"Account":1}}}', extensions=OURS)
    with pytest.raises(Broken):
        reader2016.read_response("Get", answer.body, http_status=answer.http_status)


def test_the_portal_core_imports_no_event_loop_network_or_database():
    code = (
        "import sys, pkgutil, importlib, meshd.portal;"
        "[importlib.import_module('meshd.portal.' + one.name) for one in pkgutil.iter_modules(meshd.portal.__path__)];"
        "print(*sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert {"meshd.portal.decide", "meshd.portal.httpsig"} <= loaded
    assert not loaded & {"trio", "ssl", "asyncio", "sqlite3", "h11", "zeroconf"}
    allowed = {"meshd", "meshd.errors", "meshd.portal"}
    ours = {one for one in loaded if one.startswith("meshd") and one not in allowed}
    assert all(one.startswith(("meshd.portal.", "meshd.crypto", "meshd.tlog", "meshd.profile")) for one in ours)
