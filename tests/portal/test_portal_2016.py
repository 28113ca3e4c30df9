"""A client of 2016 at our portal: the captured exchanges of January and March, replayed, and what went wrong then.

Where the reference portal was right the answer is the same; where it was wrong it is that of protocol-2016.md §8 [R].
Every answer is read by the model of the 2016 reader.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from harness import reader2016
from harness.portal_memory import MemoryPortal
from harness.portal_people import Person, tagged
from meshd.crypto import base64url
from meshd.portal import messages as m
from meshd.portal.outcomes import Policy
from meshd.profile.claim import Kind

CAPTURES = Path(__file__).parent.parent / "vectors" / "mesh2016" / "captures"
VERSIONS = {"J": "reference-jan2016.json", "M": "reference-mar2016.json"}
FULL = Policy("localhost", compat="full")


def exchanges(version: str) -> list[dict[str, Any]]:
    return json.loads((CAPTURES / VERSIONS[version]).read_text())["vectors"]


def flat(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: flat(value) for name, value in tree.items() if name != "StatusDescription"}
    if isinstance(tree, list):
        return [flat(value) for value in tree]
    return tree.replace("\n", "") if isinstance(tree, str) else tree


def tell(portal: MemoryPortal, body: str, version: str = "M") -> dict[str, Any]:
    """Send a body as a 2016 client does; the answer's members, read by both readers."""
    answer = portal.raw(body.encode())
    assert answer.http_status == 200 and answer.content_type == "application/json"
    transaction = next(iter(json.loads(body, strict=False)))
    reader2016.read_response(transaction, answer.body, http_status=answer.http_status, version=version)
    ((_, members),) = json.loads(answer.body).items()
    return members


def play(portal: MemoryPortal, version: str, until: int = 100) -> dict[int, tuple[dict[str, Any], dict[str, Any]]]:
    """Number → (ours, theirs) of the exchanges of one capture up to `until`."""
    found = {}
    for one in exchanges(version):
        if one["n"] > until:
            break
        theirs = json.loads(one["response_body"], strict=False) if one["response_body"] else {"": {}}
        found[one["n"]] = (flat(tell(portal, one["request_body"], version)), flat(next(iter(theirs.values()))))
    return found


# (n, what we answer) where 2016 was wrong, by §8 [R].
TAKEN = {
    "Status": 201,
    "Valid": False,
    "Minimum": 1,
    "InvalidCharacters": ".,:;{}()[]<>?|\\@#",
    "Reason": "That name is not available",
}
WRONG = {
    "J": {4: TAKEN, 24: {"Status": 401}, 27: {"Status": 409}},
    "M": {4: TAKEN, 26: {"Status": 409}},
}
DIED = {"J": 28}  # Get of an escrow entry


@pytest.mark.parametrize("version", "JM")
def test_captured_exchanges_get_the_same_answers_where_2016_was_right(version: str):
    answers = play(MemoryPortal(FULL), version)
    for n, (ours, theirs) in answers.items():
        if n == DIED.get(version):
            assert [*ours["Entries"][0]] == ["OfflineEscrowEntry"]
        else:
            assert ours == WRONG[version].get(n, theirs), n


def test_a_closed_door_answers_in_2016_shapes_too():
    portal = MemoryPortal(Policy("localhost", compat="off"))
    for one in exchanges("M"):
        ours = tell(portal, one["request_body"])
        if one["transaction"] in ("Hello", "Status"):
            assert ours["Status"] == 201
        elif one["transaction"].startswith("Connect"):
            assert ours == {}
        elif one["transaction"] == "Get":
            assert ours == {"Status": 401, "StatusDescription": "This portal does not serve clients of 2016"}
        else:
            assert ours["Status"] == 401
    assert not portal.versions and not portal.accounts


def test_with_compat_read_nothing_is_written_but_connection_requests():
    portal = MemoryPortal(FULL)
    play(portal, "M", until=6)
    portal.policy = Policy("localhost", compat="read")
    answers = [tell(portal, one["request_body"]) for one in exchanges("M")[6:17]]
    assert [one["Status"] for one in answers if "Status" in one] == [201, 201, 201, 201, 401, 201]
    assert portal.waiting and not portal.answers


# --- entries that are not as they should be ---------------------------------------------------------------------------


def request(version: str, transaction: str, nth: int = 0) -> dict[str, Any]:
    found = [one for one in exchanges(version) if one["transaction"] == transaction]
    return json.loads(found[nth]["request_body"], strict=False)


def publish(entry: dict[str, Any]) -> str:
    return json.dumps({"Publish": {"PublishRequest": {"Entry": entry}}})


def spoil(entry: dict[str, Any], member: str) -> dict[str, Any]:
    """The entry with a bit of one signed part turned."""
    spoilt = copy.deepcopy(entry)
    (body,) = spoilt.values()
    data = bytearray(base64url.decode_lenient(body["SignedData"][member]))
    data[-1] ^= 1
    body["SignedData"][member] = base64url.encode(bytes(data))
    return spoilt


@pytest.fixture
def portal() -> MemoryPortal:
    """After the first client's account, application and profile."""
    made = MemoryPortal(FULL)
    play(made, "M", until=6)
    return made


APPLICATION = request("M", "Publish", 0)["Publish"]["PublishRequest"]["Entry"]
PERSONAL = request("M", "Publish", 1)["Publish"]["PublishRequest"]["Entry"]
CREATE = request("M", "CreateAccount")
LATER = request("M", "Publish", 2)["Publish"]["PublishRequest"]["Entry"]
ESCROW = next(one for one in exchanges("M") if "OfflineEscrowEntry" in one["request_body"])["request_body"]


@pytest.mark.parametrize(
    "entry", [spoil(APPLICATION, "signature"), spoil(PERSONAL, "signature"), spoil(PERSONAL, "payload")]
)
def test_a_tampered_entry_is_not_stored(portal: MemoryPortal, entry: dict[str, Any]):
    before = dict(portal.versions)
    assert tell(portal, publish(entry))["Status"] in (400, 401)
    assert portal.versions == before


def test_an_entry_under_a_foreign_identifier_is_not_stored(portal: MemoryPortal):
    entry = copy.deepcopy(APPLICATION)
    entry["SignedApplicationProfile"]["Identifier"] = "MAAAA-AAAAA-AAAAA-AAAAA-AAAAA-AAAAA"
    assert tell(portal, publish(entry))["Status"] == 400
    entry = copy.deepcopy(PERSONAL)
    entry["SignedPersonalProfile"]["SignedData"] = {}
    assert tell(portal, publish(entry))["Status"] == 400


def test_an_account_is_not_opened_with_a_tampered_profile_or_another_entry():
    portal = MemoryPortal(FULL)
    body = copy.deepcopy(CREATE)
    body["CreateAccount"]["CreateRequest"]["Profile"] = spoil(
        CREATE["CreateAccount"]["CreateRequest"]["Profile"], "signature"
    )
    assert tell(portal, json.dumps(body))["Status"] == 401
    body["CreateAccount"]["CreateRequest"]["Profile"] = APPLICATION
    assert tell(portal, json.dumps(body))["Status"] == 401
    assert not portal.accounts


def test_an_old_profile_does_not_come_back(portal: MemoryPortal):
    tell(portal, publish(LATER))
    assert tell(portal, publish(PERSONAL))["Status"] == 409
    assert tell(portal, publish(LATER))["Status"] == 201
    (head,) = portal.heads(Kind.PERSONAL, PERSONAL["SignedPersonalProfile"]["Identifier"])
    assert len(portal.profiles_2016[head.mesh].devices) == 2


def test_a_profile_by_another_mesh_does_not_replace_it(portal: MemoryPortal):
    other = request("J", "Publish", 0)["Publish"]["PublishRequest"]["Entry"]
    assert tell(portal, publish(other))["Status"] == 201  # held: nobody here knows its signer
    assert not portal.heads(Kind.CONTAINER, other["SignedApplicationProfile"]["Identifier"])
    other = request("J", "Publish", 1)["Publish"]["PublishRequest"]["Entry"]
    assert tell(portal, publish(other))["Status"] == 401


def test_an_application_may_come_before_its_account():
    """The order of the 2016 GUI: applications first, then CreateAccount with a profile that lists them."""
    portal = MemoryPortal(FULL)
    identifier = APPLICATION["SignedApplicationProfile"]["Identifier"]
    get = json.dumps({"Get": {"GetRequest": {"Identifier": identifier}}})
    assert tell(portal, publish(APPLICATION))["Status"] == 201
    assert "Entries" not in tell(portal, get)
    body = copy.deepcopy(CREATE)
    body["CreateAccount"]["CreateRequest"]["Profile"] = PERSONAL
    assert tell(portal, json.dumps(body))["Status"] == 201
    assert [*tell(portal, get)["Entries"][0]] == ["SignedApplicationProfile"]
    assert not portal.held


def test_a_held_application_with_a_wrong_signature_is_dropped():
    portal = MemoryPortal(FULL)
    tell(portal, publish(spoil(APPLICATION, "signature")))
    body = copy.deepcopy(CREATE)
    body["CreateAccount"]["CreateRequest"]["Profile"] = PERSONAL
    assert tell(portal, json.dumps(body))["Status"] == 201
    assert not portal.held and not portal.heads(Kind.CONTAINER, APPLICATION["SignedApplicationProfile"]["Identifier"])


def test_only_so_many_documents_are_held():
    portal = MemoryPortal(Policy("localhost", compat="full", held_documents=0))
    assert tell(portal, publish(APPLICATION))["Status"] == 503


def test_escrow_is_written_once(portal: MemoryPortal):
    assert tell(portal, ESCROW)["Status"] == 201
    assert tell(portal, ESCROW)["Status"] == 201
    other = json.loads(ESCROW, strict=False)
    envelope = other["Publish"]["PublishRequest"]["Entry"]["OfflineEscrowEntry"]["EncryptedData"]
    envelope["iv"] = base64url.encode(bytes(16))
    assert tell(portal, json.dumps(other))["Status"] == 409


def test_what_a_2016_client_publishes_can_not_break_another():
    """Members that the schema does not have are dropped around the payload; they would stop a reader."""
    portal = MemoryPortal(FULL)
    other = json.loads(ESCROW, strict=False)
    entry = other["Publish"]["PublishRequest"]["Entry"]["OfflineEscrowEntry"]
    entry["Evil"] = {"a": 1}
    entry["EncryptedData"]["zip"] = "DEF"
    assert tell(portal, json.dumps(other))["Status"] == 201
    got = tell(portal, json.dumps({"Get": {"GetRequest": {"Identifier": entry["Identifier"]}}}))
    assert got["Entries"][0]["OfflineEscrowEntry"].keys() == {"Identifier", "EncryptedData"}


# --- connecting -------------------------------------------------------------------------------------------------------


def test_an_unknown_account_answers_like_a_known_one(portal: MemoryPortal):
    start = request("M", "ConnectStart")
    start["ConnectStart"]["ConnectStartRequest"]["AccountID"] = "nobody@localhost"
    assert tell(portal, json.dumps(start)) == {}
    for transaction in ("ConnectPending", "ConnectComplete", "ConnectStatus"):
        body = request("M", transaction)
        body[transaction][transaction + "Request"]["AccountID"] = "nobody@localhost"
        assert tell(portal, json.dumps(body)) == {}
    assert not portal.waiting


def test_an_answer_without_a_request_is_not_kept(portal: MemoryPortal):
    assert tell(portal, json.dumps(request("M", "ConnectComplete"))) == {}
    assert not portal.answers


def test_an_acceptance_is_kept_only_when_the_profile_lists_the_device(portal: MemoryPortal):
    tell(portal, json.dumps(request("M", "ConnectStart")))
    tell(portal, json.dumps(request("M", "ConnectComplete")))
    assert not portal.answers
    tell(portal, publish(LATER))
    tell(portal, json.dumps(request("M", "ConnectComplete")))
    assert portal.answers and not portal.waiting


def test_a_replayed_request_does_not_take_the_answer_away(portal: MemoryPortal):
    tell(portal, json.dumps(request("M", "ConnectStart")))
    tell(portal, publish(LATER))
    tell(portal, json.dumps(request("M", "ConnectComplete")))
    tell(portal, json.dumps(request("M", "ConnectStart")))
    assert tell(portal, json.dumps(request("M", "ConnectStatus")))["Result"]


def test_a_tampered_request_is_not_kept(portal: MemoryPortal):
    start = request("M", "ConnectStart")
    members = start["ConnectStart"]["ConnectStartRequest"]
    members["SignedRequest"] = spoil({"": members["SignedRequest"]}, "signature")[""]
    assert tell(portal, json.dumps(start)) == {}
    assert not portal.waiting


# --- beside accounts of ours ------------------------------------------------------------------------------------------


def test_a_2016_client_sees_nothing_of_an_account_that_it_can_not_read():
    portal = MemoryPortal(Policy("example.net", compat="full"))
    alice = Person("alice")
    portal.ask("CreateAccount", m.CreateRequest(account="alice@example.net", profile=tagged(alice.root)), alice.first)
    assert portal.http == 201
    for members in ({"Account": "alice@example.net"}, {"Identifier": alice.mesh}):
        assert "Entries" not in tell(portal, json.dumps({"Get": {"GetRequest": members}}))
    phone = alice.device("phone")
    start = m.ConnectStartRequest(account_id="alice@example.net", signed_request=phone.request(alice.mesh))
    portal.ask("ConnectStart", start, phone)
    assert portal.waiting
    pending = {"ConnectPending": {"ConnectPendingRequest": {"AccountID": "alice@example.net"}}}
    assert tell(portal, json.dumps(pending)) == {}
    assert tell(portal, publish(tagged(alice.container())))["Status"] == 401


@pytest.mark.parametrize("languages", [["fr-CH"], ["de", "en"]])
def test_reasons_come_in_the_language_that_was_asked_for(portal: MemoryPortal, languages: list[str]):
    body = {"ValidateAccount": {"ValidateRequest": {"Account": "alice@localhost", "Language": languages}}}
    said = {"fr-CH": "Ce nom n'est pas disponible", "de": "Dieser Name ist nicht verfügbar"}
    assert tell(portal, json.dumps(body))["Reason"] == said[languages[0]]


@pytest.mark.parametrize("account", ["", "a b@localhost", "x" * 65, "a#@localhost", "alice@elsewhere.example"])
def test_names_that_can_not_be_had_are_not_valid(portal: MemoryPortal, account: str):
    body = {"ValidateAccount": {"ValidateRequest": {"Account": account, "Reserve": True}}}
    answer = tell(portal, json.dumps(body))
    assert answer["Valid"] is False and answer["Reason"]
    assert not portal.reserved
