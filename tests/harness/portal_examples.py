"""One full example of every portal message, both ways, with every member set; and the golden file made from them.

python -m harness.portal_examples > tests/vectors/portal.json        (from tests/, after an intended change)
"""

from __future__ import annotations

import json
import sys
from typing import Any

import msgspec

from meshd.portal import codec
from meshd.portal import messages as m
from meshd.portal import structures as s
from meshd.portal.codec import CBOR, JSON, Asked, Dialect, Form

ENTRY: dict[str, Any] = {
    "SignedApplicationProfile": {
        "Identifier": "MAAAA-BBBBB-CCCCC-DDDDD-EEEEE-FFFFF-GGGGG-22222",
        "SignedData": {"protected": "cA", "payload": "cGF5", "signature": "c2ln"},
    }
}
BARE: dict[str, Any] = {
    "Identifier": "MAAAA-BBBBB-CCCCC-DDDDD-EEEEE-FFFFF-GGGGG-33333",
    "SignedData": {"protected": "cA", "payload": "cGF5", "signature": "c2ln"},
}
ACCOUNT = "zoë@example.net"
WHEN = "2026-11-24T07:00:00Z"
_VERSION = s.Version(
    major=0, minor=100, encodings=[s.Encoding(id=[JSON, CBOR], dictionary=["d"])], uri=["https://p.example.net/"]
)
_SEARCH = s.SearchConstraints(not_before=WHEN, before=WHEN, max_entries=5, max_bytes=1000, page_key="P7")
_ROW = s.ChainRow(kind=8, identifier="M/x", signer="MSIGNER", notary_token="mnt1;n=1;g=1", digest=s.Binary(bytes(32)))
_ITEM = s.DataItem(
    transaction_id="TID:9", primary_key="M/x", prior_transaction_id="TID:8", action="Update", added=WHEN,
    keys=[{"IndexTerm": s.IndexTerm(type="UniqueID", term="M/x")}], data=s.Binary(b"\x00\xff"), text='{"a":1}',
    pending=False, commit=True, rollback=False, row=_ROW, erased=True,
)  # fmt: skip
_OK: dict[str, Any] = {"status": 201, "status_description": "Operation completed successfully"}
_LINK = s.ProofLink(from_=1, to=2, hashes=[s.Binary(b"h")])

EXAMPLES: dict[str, tuple[m.Request, m.Response]] = {
    "Hello": (m.HelloRequest(portal="example.net"), m.HelloResponse(**_OK, version=_VERSION, alternates=[_VERSION])),
    "ValidateAccount": (
        m.ValidateRequest(portal="example.net", account=ACCOUNT, reserve=True, language=["en-uk", "de"]),
        m.ValidateResponse(
            **_OK, valid=False, minimum=1, maximum=64, invalid_characters='.,:;{}()[]<>?|\\@#"', reason="Déjà pris",
            reservation="token",
        ),
    ),
    "CreateAccount": (
        m.CreateRequest(
            portal="example.net", account=ACCOUNT, profile=ENTRY, invite="i", reservation="token", rows=[_ROW],
            proof=ENTRY,
        ),
        m.CreateResponse(**_OK, transaction_id="TID:1", receipt="r"),
    ),
    "Publish": (
        m.PublishRequest(portal="example.net", entry=ENTRY, entries=[], rows=[_ROW], close=ACCOUNT),
        m.PublishResponse(
            **_OK, transaction_id="TID:1", receipt="r", missing=["v"], heads=[],
            outcomes=[s.Outcome(status=201, missing=[], transaction_id="TID:1", receipt="r")],
        ),
    ),
    "Get": (
        m.GetRequest(
            portal="example.net", identifier="M/x", account=ACCOUNT, key_values=[s.KeyValue(key="Type", value="x")],
            not_before=WHEN, not_on_or_after=WHEN, search_constraints=_SEARCH, multiple=False, full=True,
        ),
        m.GetResponse(**_OK, entries=[ENTRY], data_items=[_ITEM], page_key="P8"),
    ),
    "GetRecords": (
        m.GetRequest(key_values=[], search_constraints=s.SearchConstraints()),
        m.GetRecordsResponse(**_OK, data_items=[_ITEM], page_key="P8", receipts=["r"]),
    ),
    "Transfer": (
        m.TransferRequest(
            portal="example.net", not_before=WHEN, until=WHEN, after="TID:1", max_entries=1, max_bytes=2,
            search_constraints=_SEARCH, origin="p.example.net/mmm-log", tree_size=10,
        ),
        m.TransferResponse(
            **_OK, data_items=[], page_key="P8", first=1, next="TID:2", checkpoint="note\n1\n",
            page_proof=[s.Binary(b"h")],
            entries=[s.TransferEntry(data_item=_ITEM, salt=s.Binary(b"salt"), leaf=s.Binary(b"leaf"), erased=False)],
        ),
    ),
    "Status": (
        m.StatusRequest(portal="example.net", old_size=3, peer_sizes=[s.PeerSize(origin="o", size=4)], tree_size=9),
        m.StatusResponse(
            **_OK, last_write_time=WHEN, last_checkpoint_time=WHEN, next_checkpoint_time=WHEN,
            checkpoint_value="origin\n10\nroot\n", log_keys=["k"], min_index=0,
            consistency_proof=s.ConsistencyProof(old_size=3, new_size=10, hashes=[s.Binary(b"h")]),
            peers=[
                s.PeerStatus(
                    origin="o", log_keys=["k"], checkpoint="c", seen=WHEN, state="Consistent", proof_chain=[_LINK],
                    anchor="a", evidence=["e"],
                )
            ],
        ),
    ),
    "ConnectStart": (
        m.ConnectStartRequest(portal="example.net", signed_request=BARE, account_id=ACCOUNT),
        m.ConnectStartResponse(portal="example.net", signed_connection_result="never sent"),
    ),
    "ConnectStatus": (
        m.ConnectStatusRequest(account_id=ACCOUNT, device_id="MDEVICE"),
        m.ConnectStatusResponse(result=BARE),
    ),
    "ConnectPending": (
        m.ConnectPendingRequest(account_id=ACCOUNT, search_constraints=_SEARCH),
        m.ConnectPendingResponse(pending=[BARE], page_key="P8", asked=["2026-11-24T12:00:00Z"]),
    ),
    "ConnectComplete": (
        m.ConnectCompleteRequest(result=BARE, account_id=ACCOUNT),
        m.ConnectCompleteResponse(),
    ),
}  # fmt: skip


def asked(transaction: str, dialect: Dialect, media: str = JSON) -> Asked:
    return Asked(transaction, EXAMPLES[transaction][0], Form.DOUBLE, dialect, media)


def golden() -> list[dict[str, Any]]:
    """Every example in every dialect as JSON, and in ours as CBOR (hexadecimal)."""
    found = []
    for transaction, (request, response) in EXAMPLES.items():
        for dialect in Dialect:
            found.append(
                {
                    "transaction": transaction,
                    "dialect": dialect.value,
                    "request": codec.encode_request(transaction, request, dialect).decode(),
                    "response": codec.encode_response(asked(transaction, dialect), response).body.decode(),
                }
            )
        found[-1] |= {
            "request_cbor": codec.encode_request(transaction, request, Dialect.OURS, CBOR).hex(),
            "response_cbor": codec.encode_response(asked(transaction, Dialect.OURS, CBOR), response).body.hex(),
        }
    return found


def members_of(message: msgspec.Struct | type[msgspec.Struct]) -> set[str]:
    """The wire names of the members of a message or of its type."""
    return {one.encode_name for one in msgspec.structs.fields(message)}


if __name__ == "__main__":
    json.dump({"vectors": golden()}, sys.stdout, indent=1, ensure_ascii=False)
    print()
