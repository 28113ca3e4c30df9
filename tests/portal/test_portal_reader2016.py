"""The model of the 2016 reader stops at what stopped the reference, and reads what the reference read and wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness import reader2016
from harness.reader2016 import Broken

CAPTURES = Path(__file__).parent.parent / "vectors" / "mesh2016" / "captures"
VERSIONS = {"J": "reference-jan2016.json", "M": "reference-mar2016.json"}


def exchanges(version: str) -> list[dict[str, str]]:
    return json.loads((CAPTURES / VERSIONS[version]).read_text())["vectors"]


@pytest.mark.parametrize("version", "JM")
def test_it_reads_every_exchange_of_the_reference(version: str):
    for one in exchanges(version):
        transaction, _ = reader2016.read_request(one["request_body"].encode(), version=version)
        assert transaction == one["transaction"]
        if one["response_body"] is not None:
            reader2016.read_response(transaction, one["response_body"].encode(), version=version)


@pytest.mark.parametrize(
    ("transaction", "body"),
    [
        ("Publish", '{"PublishResponse":{"Status":201,"Receipt":"x"}}'),
        ("Publish", '{"PublishResponse":{"Status":201,"Extra":{"a":1}}}'),
        ("Publish", '{"PublishResponse":{"StatusDescription":null}}'),
        ("Publish", '{"PublishResponse":{"StatusDescription":"\\u00e9"}}'),
        ("Publish", '{"MeshResponse":{"Status":201}}'),
        ("Publish", '{"PublishResponse":{"Status":201},"More":{}}'),
        ("ConnectStart", '{"ConnectStartResponse":{"Status":201}}'),
        ("Get", '{"GetResponse":{"Entries":[{"PublicKeyOKP":{}}]}}'),
        ("Publish", ""),
    ],
)
def test_it_stops_at_what_breaks_a_2016_client(transaction: str, body: str):
    with pytest.raises(Broken):
        reader2016.read_response(transaction, body.encode())


@pytest.mark.parametrize(
    "body",
    [
        '{"Hello": {}}',
        '{"HelloRequest": {}}',
        '{"Hello": {"HelloRequest": {}}, "More": {}}',
        '{"Hello": {"HelloRequest": {"Portal": "example.net"}}}',
        '{"Get": {"GetRequest": {"SearchConstraints": {}}}}',
        '{"GetRecords": {"GetRequest": {}}}',
        "",
    ],
)
def test_it_stops_at_what_kills_a_portal_of_january(body: str):
    with pytest.raises(Broken):
        reader2016.read_request(body.encode(), version="J")


def test_it_reads_other_escapes_and_text_after_the_object():
    body = '{"PublishResponse":{"StatusDescription":"\\u1234 é\n\\n"}} and more'
    assert reader2016.read_response("Publish", body.encode())["StatusDescription"] == "\u1234 é\n\n"


def test_an_http_error_is_not_even_read():
    with pytest.raises(Broken):
        reader2016.read_response("Publish", b'{"PublishResponse":{}}', http_status=404)
