"""What a request proves by itself: keys that it brings, documents of 2016, and the forms of entries and records."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from harness.portal_memory import DOMAIN, MemoryPortal
from harness.portal_people import NOW, Person, tagged
from meshd.crypto import base64url
from meshd.errors import FormatError, MeshError, SignatureError, TrustError
from meshd.portal import codec, documents2016, records, verify
from meshd.portal import messages as m
from meshd.portal.checked import Checked, ConnectStart, Create, Publish, Row
from meshd.portal.structures import ChainRow, KeyValue, PeerSize, SearchConstraints
from meshd.portal.view import Stored
from meshd.profile.claim import Kind, State
from meshd.profile.links import Links

CAPTURES = Path(__file__).parent.parent / "vectors" / "mesh2016" / "captures" / "reference-mar2016.json"
REQUESTS: list[Any] = [
    codec.decode_request(one["request_body"].encode()) for one in json.loads(CAPTURES.read_text())["vectors"]
]
OURS = frozenset({"auth"})


class NoKeys:
    def signing_key(self, signer: str) -> None:
        return None


def check(transaction: str, message: Any) -> Checked:
    body = codec.encode_request(transaction, message, codec.Dialect.OURS)
    return verify.verify(codec.decode_request(body, extensions=OURS), NoKeys(), DOMAIN)


def captured(transaction: str) -> Any:
    return next(one for one in REQUESTS if one.transaction == transaction)


# --- keys that a request brings ---------------------------------------------------------------------------------------


def test_a_new_account_may_be_asked_for_by_the_devices_of_its_profile():
    alice = Person("alice")
    checked = check("CreateAccount", m.CreateRequest(account=f"alice@{DOMAIN}", profile=tagged(alice.root)))
    assert isinstance(checked, Create)
    assert verify.introduced(checked) == {alice.first.dak: alice.first.keys.dak.verify_key}


def test_a_profile_may_be_sent_by_the_devices_that_it_lists():
    alice = Person("alice")
    profile = alice.admit(alice.device("phone"))
    checked = check("Publish", m.PublishRequest(entry=tagged(profile)))
    assert isinstance(checked, Publish)
    assert verify.introduced(checked).keys() == {one.dak for one in alice.devices}


def test_a_connection_request_may_be_sent_by_its_device_alone():
    alice = Person("alice")
    phone = alice.device("phone")
    message = m.ConnectStartRequest(account_id=f"alice@{DOMAIN}", signed_request=phone.request(alice.mesh))
    checked = check("ConnectStart", message)
    assert isinstance(checked, ConnectStart)
    assert verify.introduced(checked).keys() == {phone.udf, phone.dak}
    assert verify.introduced(check("Hello", m.HelloRequest())) == {}


def test_a_profile_of_2016_brings_the_authentication_keys_of_its_devices():
    checked = verify.verify(captured("CreateAccount"), NoKeys(), "localhost")
    (dak,) = verify.introduced(checked)
    assert isinstance(checked, Create) and not isinstance(checked.entry, verify.Current)
    assert checked.entry.profile is not None and dak in checked.entry.profile.authentication
    assert documents2016.authentication_key(checked.entry.profile, "M") is None


def test_devices_of_a_profile_in_a_batch_sign_what_follows_it():
    alice = Person("alice")
    phone = alice.device("phone")
    entries = [tagged(alice.admit(phone)), tagged(alice.item("by phone", by=phone))]
    checked = check("Publish", m.PublishRequest(entries=entries))
    assert isinstance(checked, Publish)
    assert all(isinstance(one, verify.Current) and one.version is not None for one in checked.entries)
    alone = check("Publish", m.PublishRequest(entry=entries[1]))
    assert isinstance(alone, Publish) and isinstance(alone.entries[0], verify.Current)
    assert alone.entries[0].version is None and alone.entries[0].parsed.claim.signer == phone.udf


# --- what is malformed ------------------------------------------------------------------------------------------------

ROW = ChainRow(kind=8, identifier="M", signer="M", notary_token="mnt1;g=1", digest=b"")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("transaction", "message"),
    [
        ("Publish", m.PublishRequest()),
        ("Publish", m.PublishRequest(entry={"A": {}}, entries=[])),
        ("Publish", m.PublishRequest(entry={"A": {}, "B": {}})),
        ("Publish", m.PublishRequest(entry={"SignedMasterProfile": {"SignedData": {"header": "AA"}}})),
        ("Publish", m.PublishRequest(entries=[], rows=[ROW] * 1001)),
        ("CreateAccount", m.CreateRequest(account=f"a@{DOMAIN}")),
        ("CreateAccount", m.CreateRequest(profile={"A": {}})),
        ("ValidateAccount", m.ValidateRequest()),
        ("Get", m.GetRequest(identifier="x" * 513)),
        ("Get", m.GetRequest(key_values=[KeyValue(key="a")])),
        ("Get", m.GetRequest(key_values=[KeyValue(key="a", value="x" * 513)])),
        ("Get", m.GetRequest(key_values=[KeyValue(key="a", value="b")] * 17)),
        ("Get", m.GetRequest(search_constraints=SearchConstraints(max_entries=-1))),
        ("Get", m.GetRequest(not_before="2016-13-01T00:00:00Z")),
        ("Status", m.StatusRequest(peer_sizes=[PeerSize(origin="o", size=1)] * 17)),
        ("Status", m.StatusRequest(old_size=2**53)),
        ("ConnectStart", m.ConnectStartRequest(account_id="a")),
        ("ConnectStatus", m.ConnectStatusRequest(device_id="nobody")),
        ("ConnectPending", m.ConnectPendingRequest()),
        ("ConnectComplete", m.ConnectCompleteRequest(account_id="a", result={"Identifier": "M"})),
    ],
)
def test_what_lacks_its_parts_is_refused(transaction: str, message: Any):
    with pytest.raises(FormatError):
        check(transaction, message)


@pytest.mark.parametrize(
    "change", [{"kind": 3}, {"kind": 99}, {"digest": b"short"}, {"notary_token": "x"}, {"signer": "x"}]
)
def test_a_row_has_its_form(change: dict[str, Any]):
    alice = Person("alice")
    good = {
        "kind": 8,
        "identifier": alice.vault,
        "signer": alice.mesh,
        "notary_token": "mnt1;n=1;g=1",
        "digest": bytes(32),
    }
    assert check("Publish", m.PublishRequest(entries=[], rows=[ChainRow(**_binary(good))]))
    with pytest.raises(FormatError):
        check("Publish", m.PublishRequest(entries=[], rows=[ChainRow(**_binary(good | change))]))


def _binary(row: dict[str, Any]) -> dict[str, Any]:
    from meshd.portal.structures import Binary

    return row | {"digest": Binary(row["digest"])}


# --- documents of 2016 ------------------------------------------------------------------------------------------------


def personal() -> dict[str, Any]:
    """The captured profile with two devices, its payload decoded under `""`."""
    entry = [one for one in REQUESTS if one.transaction == "Publish" and "SignedPersonalProfile" in one.message.entry][
        1
    ]
    return copy.deepcopy(entry.message.entry)


def test_a_profile_of_2016_says_who_is_in_it():
    profile = documents2016.read_profile(documents2016.read(personal()))
    assert len(profile.devices) == 2 and profile.document.kid in profile.devices
    (application,) = profile.applications.values()
    assert profile.writer(application.identifier, profile.document.kid) is not None
    assert profile.writer("M", profile.document.kid) is None
    assert profile.administrator("M") is None and profile.administrator(next(iter(profile.online))) is not None


def resigned(change: Any) -> dict[str, Any]:
    """The profile with its payload changed: the outer signature breaks, and what is inside is read before."""
    entry = personal()
    signed = entry["SignedPersonalProfile"]["SignedData"]
    payload = json.loads(base64url.decode_lenient(signed["payload"]), strict=False)
    change(payload["PersonalProfile"])
    signed["payload"] = base64url.encode(json.dumps(payload).encode())
    return entry


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda body: body.pop("SignedMasterProfile"), FormatError),
        (lambda body: body.update(SignedMasterProfile=body["Devices"][0]), FormatError),
        (lambda body: body.update(Devices=[body["SignedMasterProfile"]]), FormatError),
        (lambda body: body.update(Devices=[]), TrustError),
        (lambda body: body.update(Devices={}), FormatError),
        (lambda body: body.update(Applications=[1]), FormatError),
        (lambda body: body.update(Devices=body["Devices"] * 200), FormatError),
        (lambda body: body["Devices"][0].update(Identifier=body["Devices"][1]["Identifier"]), MeshError),
        (lambda body: body.update(Friendly="changed"), SignatureError),
        (lambda body: body.update(Identifier=body["Devices"][1]["Identifier"]), FormatError),
    ],
)
def test_a_profile_of_2016_that_does_not_hold_together_is_refused(change: Any, error: type[MeshError]):
    with pytest.raises(error):
        documents2016.read_profile(documents2016.read(resigned(change)))


def test_an_entry_of_the_wrong_type_is_refused():
    bare = personal()["SignedPersonalProfile"]
    for entry in (
        {"SignedApplicationProfile": bare},
        {"SignedDeviceProfile": bare},
        {"OfflineEscrowEntry": bare},
        {"SignedPersonalProfile": {**bare, "Identifier": "x"}},
        {"SignedPersonalProfile": {"Identifier": bare["Identifier"]}},
    ):
        with pytest.raises(FormatError):
            documents2016.read(entry)
    for read in (documents2016.read_request, documents2016.read_result):
        with pytest.raises(FormatError):
            read(bare)


# --- records ----------------------------------------------------------------------------------------------------------


def stored(kind: Kind, raw: bytes, **more: Any) -> Stored:
    return Stored(7, "TID:7", NOW, bytes(32), kind, "M/x", "M", 1, State.APPLIED, raw, **more)


def test_a_record_of_2016_has_its_json_and_ours_its_bytes():
    document = documents2016.read(personal())
    old = records.data_item(stored(Kind.PERSONAL, document.raw, old=True))
    assert old.data is None and old.text == records.content(stored(Kind.PERSONAL, document.raw, old=True)).decode()
    assert documents2016.read(json.loads(old.text or "")) == document
    item = Person("alice").item("x")
    ours = records.data_item(stored(Kind.ITEM, item.raw))
    assert ours.text is None and bytes(ours.data or b"") == item.raw
    assert records.entry_json(stored(Kind.ITEM, item.raw)) == tagged(item)


def test_a_pruned_record_is_a_row():
    row = Row(bytes(32), Kind.ITEM, "M/x", "M", Links(g=1, n=1), "mnt1;n=1;g=1", bytes([1]) * 32)
    item = records.data_item(stored(Kind.ITEM, b"", row=row))
    assert (item.data, item.text) == (None, None)
    assert item.row is not None and (item.row.kind, item.row.digest) == (8, bytes([1]) * 32)
    assert records.data_item(stored(Kind.ITEM, b"")).row is None


def test_the_feed_may_be_read_as_entries():
    portal, alice = MemoryPortal(), Person("alice")
    portal.ask("CreateAccount", m.CreateRequest(account=f"alice@{DOMAIN}", profile=tagged(alice.root)), alice.first)

    def get(value: str, full: bool = False) -> m.GetResponse:
        message = m.GetRequest(key_values=[KeyValue(key="UserProfile", value=value)], full=full)
        reply = portal.ask("Get", message, alice.first)
        assert isinstance(reply, m.GetResponse)
        return reply

    assert get(f"alice@{DOMAIN}").entries == [tagged(alice.root)] and get(alice.mesh).page_key == "P1"
    assert len(get(alice.mesh, full=True).data_items or []) == 1
    for nobody in (f"bob@{DOMAIN}", "@", "", "M"):
        assert get(nobody).entries is None and portal.http == 404
