"""Portal messages on the wire: golden files both ways, three forms of request, and what a 2016 peer can bear."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness import reader2016
from harness.portal_examples import EXAMPLES, asked, golden, members_of
from harness.reader2016 import SCHEMAS, Broken
from meshd.errors import FormatError, LocalProtocolError, MeshError, RemoteProtocolError
from meshd.portal import codec
from meshd.portal import messages as m
from meshd.portal.codec import CBOR, JSON, Dialect, Form, Undecodable
from meshd.portal.messages import TRANSACTIONS
from meshd.portal.statuses import Status
from meshd.portal.structures import Version

VECTORS = Path(__file__).parent.parent / "vectors"
GOLDEN: list[dict[str, Any]] = json.loads((VECTORS / "portal.json").read_text())["vectors"]
OURS = frozenset({"log"})


def _id(vector: dict[str, Any]) -> str:
    return f"{vector['transaction']}-{vector['dialect']}"


def test_the_golden_file_is_what_is_written():
    assert golden() == GOLDEN


@pytest.mark.draft("structures")
@pytest.mark.parametrize("vector", GOLDEN, ids=_id)
def test_the_golden_file_is_read_back(vector: dict[str, Any]):
    transaction, dialect = vector["transaction"], Dialect(vector["dialect"])
    read = codec.decode_request(vector["request"].encode(), JSON, OURS if dialect is Dialect.OURS else None)
    assert (read.transaction, read.form) == (transaction, Form.DOUBLE)
    response = codec.decode_response(vector["response"].encode(), transaction)
    assert codec.encode_response(asked(transaction, dialect), response).body.decode() == vector["response"]
    if dialect is Dialect.OURS:
        assert (read.message, response) == EXAMPLES[transaction]


@pytest.mark.parametrize("vector", [one for one in GOLDEN if "request_cbor" in one], ids=_id)
def test_cbor_says_the_same(vector: dict[str, Any]):
    transaction = vector["transaction"]
    read = codec.decode_request(bytes.fromhex(vector["request_cbor"]), CBOR, OURS)
    assert (read.message, read.content_type) == (EXAMPLES[transaction][0], CBOR)
    assert codec.decode_response(bytes.fromhex(vector["response_cbor"]), transaction, CBOR) == EXAMPLES[transaction][1]


def test_binary_members_are_byte_strings_in_cbor():
    vector = next(one for one in GOLDEN if one["transaction"] == "Get" and "response_cbor" in one)
    read = bytes.fromhex(vector["response_cbor"])
    assert b"\x67payload\x43pay" in read and b"\x64Data\x42\x00\xff" in read


@pytest.mark.draft
@pytest.mark.parametrize("transaction", EXAMPLES)
def test_every_member_stands_in_an_example(transaction: str):
    for message in EXAMPLES[transaction]:
        if transaction in ("GetRecords", "Publish", "Hello") or isinstance(message, m.MeshRequest):
            continue
        written = codec.message_tree(message)
        assert set(written) == members_of(message)


@pytest.mark.draft
@pytest.mark.parametrize("transaction", EXAMPLES)
def test_members_of_2016_are_those_of_the_schema_and_stand_in_its_order(transaction: str):
    for message in EXAMPLES[transaction]:
        name = type(message).__name__
        for version, dialect in (("J", Dialect.JANUARY), ("M", Dialect.MARCH)):
            if name not in SCHEMAS[version]:
                continue
            full = list(codec._members(message, dialect))
            order = [one for one in SCHEMAS[version][name] if one in full]
            assert full == order
        plain = set(codec._members(message, Dialect.PLAIN))
        assert plain <= set(SCHEMAS["M"].get(name, {}))


def _with_documents_of_2016(message: Any) -> Any:
    """The example with entries that a 2016 reader can read, from the captures."""
    captured = {
        one["transaction"]: codec.decode_request(one["request_body"].encode()).message
        for one in json.loads((VECTORS / "mesh2016/captures/reference-mar2016.json").read_text())["vectors"]
    }
    entry, result = captured["Publish"].entry, captured["ConnectComplete"].result  # type: ignore[union-attr]
    request = captured["ConnectStart"].signed_request  # type: ignore[union-attr]
    known = {"entry": entry, "profile": entry, "entries": [entry], "signed_request": request, "result": result}
    known["pending"] = [request]
    given = {name: value for name, value in known.items() if getattr(message, name, None) is not None}
    return msgspec.structs.replace(message, **given)


@pytest.mark.draft
@pytest.mark.parametrize("dialect", [Dialect.PLAIN, Dialect.JANUARY, Dialect.MARCH])
@pytest.mark.parametrize("transaction", [name for name in EXAMPLES if name != "GetRecords"])
def test_a_2016_peer_reads_what_is_sent_to_it(transaction: str, dialect: Dialect):
    request, response = map(_with_documents_of_2016, EXAMPLES[transaction])
    for version in {Dialect.JANUARY: "J", Dialect.MARCH: "M", Dialect.PLAIN: "JM"}[dialect]:
        body = codec.encode_request(transaction, request, dialect)
        assert reader2016.read_request(body, version=version)[0] == transaction
        answer = codec.encode_response(asked(transaction, dialect), response)
        reader2016.read_response(transaction, answer.body, http_status=answer.http_status, version=version)


def test_our_members_would_stop_a_2016_reader():
    answer = codec.encode_response(asked("Publish", Dialect.OURS), EXAMPLES["Publish"][1])
    with pytest.raises(Broken):
        reader2016.read_response("Publish", answer.body)


@pytest.mark.parametrize("version", ["jan", "mar"])
def test_captured_exchanges_read_and_write_again_to_the_same_content(version: str):
    for one in json.loads((VECTORS / "mesh2016/captures" / f"reference-{version}2016.json").read_text())["vectors"]:
        read = codec.decode_request(one["request_body"].encode(), "application/json;charset=UTF-8")
        assert (read.transaction, read.form) == (one["transaction"], Form.DOUBLE)
        # Again as our client writes it: a portal of that version would read it.
        body = codec.encode_request(read.transaction, read.message, read.dialect)
        assert _flat(json.loads(body)) == _flat(json.loads(one["request_body"], strict=False))
        for reader in {"jan": "J", "mar": "M"}[version]:
            reader2016.read_request(body, version=reader)
        if one["response_body"] is None:
            continue
        response = codec.decode_response(one["response_body"].encode(), read.transaction, "application/json")
        answer = codec.encode_response(read, response)
        assert answer.http_status == 200
        assert _flat(json.loads(answer.body)) == _flat(json.loads(one["response_body"], strict=False))
        reader2016.read_response(read.transaction, answer.body, version={"jan": "J", "mar": "M"}[version])


def _flat(tree: Any) -> Any:
    """Without the line feeds that 2016 puts into base64."""
    if isinstance(tree, dict):
        return {name: _flat(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [_flat(value) for value in tree]
    return tree.replace("\n", "") if isinstance(tree, str) else tree


@pytest.mark.parametrize(
    ("body", "form"),
    [
        ('{"Get": {"GetRequest": {"Identifier": "M"}}}', Form.DOUBLE),
        ('{"Get": {"Identifier": "M"}}', Form.SINGLE),
        ('{"GetRequest": {"Identifier": "M"}}', Form.BARE),
    ],
)
def test_three_forms_of_request_are_read_and_answered_alike(body: str, form: Form):
    read = codec.decode_request(body.encode())
    assert (read.transaction, read.form, read.message) == ("Get", form, m.GetRequest(identifier="M"))
    assert codec.encode_response(read, m.GetResponse(status=201)).body == b'{"GetResponse":{"Status":201}}'


def test_which_version_of_2016_asks_shows_in_its_members():
    march = codec.decode_request(b'{"Get":{"GetRequest":{"Account":"a@b","Full":true}}}')
    january = codec.decode_request(b'{"Get":{"GetRequest":{"Account":"a@b","NotBefore":"2016-01-01T00:00:00Z"}}}')
    either = codec.decode_request(b'{"Get":{"GetRequest":{"Account":"a@b"}}}')
    assert [one.dialect for one in (march, january, either)] == [Dialect.MARCH, Dialect.JANUARY, Dialect.PLAIN]
    response = m.GetResponse(status=201, page_key="P1")
    assert b"PageKey" in codec.encode_response(march, response).body
    assert b"PageKey" not in codec.encode_response(january, response).body
    assert b"PageKey" not in codec.encode_response(either, response).body


def test_absent_is_not_written_and_empty_is():
    read = codec.decode_request(b'{"Get":{"GetRequest":{}}}')
    assert codec.encode_response(read, m.GetResponse(entries=[])).body == b'{"GetResponse":{"Entries":[]}}'
    assert codec.encode_response(read, m.GetResponse()).body == b'{"GetResponse":{}}'


def test_null_is_read_as_absent():
    read = codec.decode_request(b'{"Get":{"GetRequest":{"Account":null,"Multiple":false}}}')
    assert read.message == m.GetRequest(multiple=False)


def test_unknown_members_of_a_request_are_left_aside():
    read = codec.decode_request(b'{"Hello":{"HelloRequest":{"Newer":{"a":[1]}}}}', JSON, OURS)
    assert read.message == m.HelloRequest()


def test_text_goes_out_raw():
    read = codec.decode_request(b'{"ValidateAccount":{"ValidateRequest":{}}}')
    body = codec.encode_response(read, m.ValidateResponse(reason="Déjà \U0001f600")).body
    assert "Déjà \U0001f600".encode() in body and b"\\u" not in body


def test_http_mirrors_the_status_but_not_for_2016():
    ours = codec.decode_request(b'{"Publish":{"PublishRequest":{}}}', JSON, OURS)
    theirs = codec.decode_request(b'{"Publish":{"PublishRequest":{}}}')
    failed = codec.failure("Publish", Status.EXISTS, "There is one")
    assert codec.encode_response(ours, failed).http_status == 409
    assert codec.encode_response(theirs, failed).http_status == 200
    busy = codec.failure("Publish", Status.OVERLOAD, "Later")
    assert codec.encode_response(ours, busy, throttled=True).http_status == 429


def test_connect_responses_never_carry_a_status():
    for transaction in TRANSACTIONS:
        failed = codec.failure(transaction, Status.NOT_FOUND, "No")
        tree = codec.message_tree(failed)
        assert tree == ({} if transaction.startswith("Connect") else {"Status": 404, "StatusDescription": "No"})
    read = codec.decode_request(b'{"ConnectPending":{}}', JSON, OURS)
    answer = codec.encode_response(read, m.ConnectPendingResponse(), status=401)
    assert (answer.http_status, answer.body) == (401, b'{"ConnectPendingResponse":{}}')
    assert not codec.succeeded(m.ConnectPendingResponse(), 401) and codec.succeeded(m.ConnectPendingResponse(), 201)


def test_a_missing_status_is_success_and_an_error_is_none():
    assert codec.succeeded(m.PublishResponse())
    assert codec.succeeded(m.PublishResponse(status=202))
    assert not codec.succeeded(m.PublishResponse(status=409))


def test_an_answer_of_the_wrong_type_is_neither_given_nor_taken():
    read = codec.decode_request(b'{"Hello":{"HelloRequest":{}}}')
    with pytest.raises(LocalProtocolError):
        codec.encode_response(read, m.GetResponse())
    with pytest.raises(RemoteProtocolError):
        codec.decode_response(b'{"GetResponse":{}}', "Hello")
    assert codec.decode_response(b'{"MeshResponse":{"Status":500}}', "Hello") == m.MeshResponse(status=500)


@pytest.mark.parametrize("text", ["a\tb", "a\x00b", "a\x1bb"])
def test_a_control_character_is_not_sent_to_a_2016_peer(text: str):
    with pytest.raises(LocalProtocolError):
        codec.encode_request("Get", m.GetRequest(identifier=text), Dialect.PLAIN)
    assert codec.encode_request("Get", m.GetRequest(identifier="a\nb"), Dialect.PLAIN)


def test_line_feeds_inside_base64_are_read():
    body = b'{"Publish":{"PublishRequest":{"Entry":{"X":{"SignedData":{"payload":"\nabc\ndef"}}}}}}'
    entry = codec.decode_request(body).message.entry  # type: ignore[union-attr]
    assert entry["X"]["SignedData"]["payload"] == "\nabc\ndef"


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b"", "MeshResponse"),
        (b"{}", "MeshResponse"),
        (b"[]", "MeshResponse"),
        (b'{"Nothing":{}}', "MeshResponse"),
        (b'{"Hello":{},"Get":{}}', "MeshResponse"),
        (b'{"Get":{"Account":1}}', "GetResponse"),
        (b'{"Get":{"GetRequest":{"Account":{"a":1}}}}', "GetResponse"),
        (b'{"Get":{"Account":"a","Account":"b"}}', "MeshResponse"),
        (b'{"ConnectStart":{"AccountID":1}}', "ConnectStartResponse"),
        (b'{"Hello":{"HelloRequest":{}}} trailing', "MeshResponse"),
        (b"\xff\xfe", "MeshResponse"),
    ],
)
def test_what_cannot_be_read_is_answered_in_kind(body: bytes, name: str):
    with pytest.raises(Undecodable) as caught:
        codec.decode_request(body)
    answer = codec.encode_undecodable(caught.value, "No")
    assert answer.http_status == 200 and list(json.loads(answer.body)) == [name]
    with pytest.raises(Undecodable) as caught:
        codec.decode_request(body, JSON, OURS)
    assert codec.encode_undecodable(caught.value, "No").http_status == 400


def test_a_body_is_bounded():
    for body in (
        b'{"Get":{"Identifier":"' + b"a" * codec.MAX_BODY + b'"}}',
        b'{"Get":{"X":' + b"[" * 70 + b"]" * 70 + b"}}",
        b'{"Get":{"X":' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
        b'{"Get":{"X":[' + b"1," * 250_000 + b"1]}}",
        b'{"Get":{"X":1.5}}',
        b'{"Get":{"X":1e999}}',
    ):
        with pytest.raises(FormatError):
            codec.decode_request(body)


def test_cbor_is_bounded_and_deterministic():
    for body in (
        b"\xa1\x63Get\xbf\xff",
        b"\xa1\x63Get\xa1\x01\x02",
        b"\xa1" * 40,
        b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff",
    ):
        with pytest.raises(Undecodable) as caught:
            codec.decode_request(body, CBOR, OURS)
        assert codec.encode_undecodable(caught.value, "No").content_type == CBOR


def test_a_portal_says_in_its_hello_what_it_speaks():
    assert codec.dialect_of(m.HelloResponse()) is Dialect.PLAIN
    assert codec.dialect_of(m.HelloResponse(alternates=[Version(major=0, minor=7)])) is Dialect.PLAIN
    assert codec.dialect_of(m.HelloResponse(alternates=[Version(major=0, minor=100)])) is Dialect.OURS


def test_errors_become_statuses_by_one_table():
    from meshd import errors
    from meshd.portal.statuses import TooLarge, of_error

    assert of_error(errors.SignatureError()) == Status.UNAUTHORIZED
    assert of_error(TooLarge()) == Status.TOO_LARGE
    assert of_error(errors.RemoteProtocolError()) == Status.MALFORMED
    assert of_error(errors.StoreDamaged()) == Status.INTERNAL
    assert of_error(KeyError()) == Status.INTERNAL
    assert isinstance(Undecodable("x", None, JSON, plain=True), MeshError)
