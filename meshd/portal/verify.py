"""Everything about a request that can be checked without the store: forms, names, sizes, Identifiers, signatures.

A message becomes a `Checked` value with types, in the request's own task and with as many at once as there are cores;
what depends on what the portal holds is `decide`'s, inside the transaction. Our own documents are read strictly, those
of 2016 by protocol-2016.md §7 [R]; which of the two an entry is follows from its form, and one is never tried after the
other. What is wrong raises FormatError or TrustError, and `statuses.of_error` says what that becomes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from meshd.crypto import base64url, udf
from meshd.crypto.keys import RsaVerifyKey, VerifyKey
from meshd.errors import FormatError, TrustError, UnknownSigner
from meshd.portal import documents2016, messages, names
from meshd.portal.checked import (
    Checked,
    Close,
    ConnectComplete,
    ConnectPending,
    ConnectStart,
    ConnectStatus,
    Constraints,
    Create,
    Current,
    Entry,
    Get,
    Hello,
    LogStatus,
    Old,
    Publish,
    Row,
    Transfer,
    Validate,
)
from meshd.portal.codec import Asked
from meshd.portal.names import AccountName
from meshd.portal.statuses import TooLarge
from meshd.portal.structures import ChainRow, SearchConstraints
from meshd.profile import connection, device, links, payload, version
from meshd.profile.claim import Kind
from meshd.profile.version import KeyDirectory

MAX_APPLICATION = 1024 * 1024  # bytes of a container or item
MAX_ESCROW = 64 * 1024
MAX_CONNECTION = 32 * 1024
MAX_BATCH = 1000  # entries of one Publish
MAX_ROWS = 1000
MAX_KEY_VALUES = 16
MAX_TEXT = 512  # characters of a key, value, PageKey, token
MAX_LANGUAGES = 16
_SIZES = {
    Kind.CONTAINER: MAX_APPLICATION,
    Kind.ITEM: MAX_APPLICATION,
    Kind.OFFLINE_ESCROW: MAX_ESCROW,
    Kind.ONLINE_ESCROW: MAX_ESCROW,
}


def verify(asked: Asked, keys: KeyDirectory, portal: str) -> Checked:
    """Check a decoded request. `keys` are the signature keys of devices that the portal knows, `portal` its own domain.

    FormatError, TrustError (SignatureError, UnknownSigner)."""
    message = asked.message
    match message:
        case messages.HelloRequest():
            return Hello()
        case messages.ValidateRequest():
            return _validate(message, portal)
        case messages.CreateRequest():
            entry = read_entry(_required(message.profile, "Profile"), keys)
            return Create(
                _account(message.account, "Account", portal),
                entry,
                _short(message.invite, "Invite"),
                _short(message.reservation, "Reservation"),
                _rows(message.rows),
                None if message.proof is None else read_entry(message.proof, keys),
            )
        case messages.PublishRequest():
            if message.close is not None:
                return _close(message, portal)
            return _publish(message, keys)
        case messages.GetRequest():
            return _get(message, records=asked.transaction == "GetRecords", portal=portal)
        case messages.TransferRequest():
            return _transfer(message)
        case messages.StatusRequest():
            return _status(message)
        case messages.ConnectStartRequest():
            return _connect_start(message, portal)
        case messages.ConnectStatusRequest():
            # The 2016 reference looks at DeviceID alone, so its clients may leave the account out.
            account = None if message.account_id is None else _account(message.account_id, "AccountID", portal)
            return ConnectStatus(account, udf.check(message.device_id))
        case messages.ConnectPendingRequest():
            account = _account(message.account_id, "AccountID", portal)
            return ConnectPending(account, _constraints(message.search_constraints))
        case messages.ConnectCompleteRequest():
            return _connect_complete(message, keys, portal)


def introduced(checked: Checked) -> dict[str, VerifyKey | RsaVerifyKey]:
    """Keys that the request itself brings, by UDF: it may be signed over HTTP by these before an account knows them."""
    found: dict[str, VerifyKey | RsaVerifyKey] = {}
    if isinstance(checked, ConnectStart):
        return dict(checked.keys)
    entries: Sequence[Entry] = ()
    if isinstance(checked, Create):
        entries = (checked.entry,) if checked.proof is None else (checked.entry, checked.proof)
    elif isinstance(checked, Publish):
        entries = checked.entries
    for entry in entries:
        if isinstance(entry, Current):
            found |= entry.daks
        elif entry.profile is not None:
            for dak in entry.profile.authentication:
                key = documents2016.authentication_key(entry.profile, dak)
                if key is not None:
                    found[dak] = key
    return found


def read_entry(tagged: dict[str, Any], keys: KeyDirectory) -> Entry:
    """Read and, where its key is known, verify one tagged entry of a kind that is published by itself."""
    if documents2016.is_2016(tagged):
        document = documents2016.read(tagged)
        _check_size(document.kind, document.raw)
        profile = documents2016.read_profile(document) if document.kind is Kind.PERSONAL else None
        return Old(document, profile)
    parsed = version.from_json(tagged)
    kind = parsed.claim.kind
    if kind in (Kind.MASTER, Kind.DEVICE):
        raise FormatError("master and device profiles are published inside a personal profile")
    _check_size(kind, parsed.raw)
    try:
        verified = version.verify(parsed, keys)
    except UnknownSigner:
        return Current(parsed, None)
    if kind is not Kind.PERSONAL:
        return Current(parsed, verified)
    daks = {}
    for embedded in verified.embedded[1:]:
        found = device.read(embedded)
        daks[found.dak.udf] = found.dak
    return Current(parsed, verified, daks)


class _Layered:
    """The portal's keys, and those that earlier entries of a batch brought."""

    def __init__(self, below: KeyDirectory) -> None:
        self._below = below
        self._found: dict[str, VerifyKey] = {}

    def signing_key(self, signer: str) -> VerifyKey | None:
        return self._found.get(signer) or self._below.signing_key(signer)

    def learn(self, entry: Entry) -> None:
        if isinstance(entry, Current) and entry.version is not None and entry.version.kind is Kind.PERSONAL:
            master, *devices = entry.version.embedded
            self._found |= version.online_keys(master.body)
            self._found |= {one.claim.identifier: version.device_keys(one.body)[0] for one in devices}


def _publish(message: messages.PublishRequest, keys: KeyDirectory) -> Publish:
    batch = message.entries is not None
    if batch == (message.entry is not None):
        raise FormatError("a Publish has an Entry, or else Entries")
    tagged = message.entries if message.entries is not None else [_required(message.entry, "Entry")]
    if len(tagged) > MAX_BATCH:
        raise TooLarge(f"{len(tagged)} entries in one Publish: at most {MAX_BATCH} are allowed")
    layered = _Layered(keys)
    entries = []
    for one in tagged:
        entries.append(read_entry(one, layered))
        layered.learn(entries[-1])
    return Publish(tuple(entries), _rows(message.rows), batch)


def _close(message: messages.PublishRequest, portal: str) -> Close:
    if message.entry is not None or message.entries is not None:
        raise FormatError("a Publish that closes an account has no entries")
    return Close(_account(message.close, "Close", portal))


def _validate(message: messages.ValidateRequest, portal: str) -> Validate:
    account, fault = None, ""
    if message.account is None:
        raise FormatError("Account is missing")
    try:
        account = names.normalise(message.account, portal)
    except FormatError:
        try:
            name, _ = names.split(message.account, portal)
            fault = "length" if not names.MINIMUM <= len(name) <= names.MAXIMUM else "characters"
        except FormatError:
            fault = "length"
    return Validate(account, fault, bool(message.reserve))


def _get(message: messages.GetRequest, *, records: bool, portal: str) -> Get:
    identifier = message.identifier
    if identifier is not None and len(identifier) > MAX_TEXT:
        raise FormatError("an Identifier that is too long")
    pairs = message.key_values or []
    if len(pairs) > MAX_KEY_VALUES:
        raise FormatError(f"at most {MAX_KEY_VALUES} KeyValues are allowed")
    values = tuple(
        (_short(_required(pair.key, "Key"), "Key") or "", _short(_required(pair.value, "Value"), "Value") or "")
        for pair in pairs
    )
    account: AccountName | None = None
    if message.account is not None:
        account = _account(message.account, "Account", portal)
    constraints = _constraints(message.search_constraints)
    if message.search_constraints is None:
        constraints = Constraints(_date(message.not_before), _date(message.not_on_or_after))
    return Get(identifier, account, values, constraints, bool(message.multiple), bool(message.full), records)


def _transfer(message: messages.TransferRequest) -> Transfer:
    constraints = _constraints(message.search_constraints)
    if message.search_constraints is None:
        constraints = Constraints(
            _date(message.not_before),
            _date(message.until),
            _count(message.max_entries, "MaxEntries"),
            _count(message.max_bytes, "MaxBytes"),
        )
    after = _short(message.after, "After") or constraints.page_key
    return Transfer(constraints, after, _short(message.origin, "Origin"), _count(message.tree_size, "TreeSize"))


def _status(message: messages.StatusRequest) -> LogStatus:
    sizes = message.peer_sizes or []
    if len(sizes) > MAX_KEY_VALUES:
        raise FormatError(f"at most {MAX_KEY_VALUES} PeerSizes are allowed")
    found = [(_short(one.origin, "Origin") or "", _count(one.size, "Size") or 0) for one in sizes]
    return LogStatus(_count(message.old_size, "OldSize"), tuple(found), _count(message.tree_size, "TreeSize"))


def _connect_start(message: messages.ConnectStartRequest, portal: str) -> ConnectStart:
    wire = _required(message.signed_request, "SignedRequest")
    if len(msgspec.json.encode(wire)) > MAX_CONNECTION:
        raise TooLarge(f"a connection request of more than {MAX_CONNECTION} bytes")
    account = _account(message.account_id, "AccountID", portal)
    if documents2016.is_2016(wire):
        old = documents2016.read_request(wire)
        identity = hashlib.sha256(base64url.decode(old.wire["SignedData"]["payload"])).digest()
        return ConnectStart(account, old.device, old.dak, old.parent, identity, True, old.wire, {old.key.udf: old.key})
    request = connection.read_request(wire)
    profile = device.read(request.device)
    identity = hashlib.sha256(base64url.decode(wire["SignedData"]["payload"])).digest()
    keys: dict[str, VerifyKey | RsaVerifyKey] = {profile.dsk.udf: profile.dsk, profile.dak.udf: profile.dak}
    return ConnectStart(account, profile.udf, profile.dak.udf, request.parent, identity, False, wire, keys)


def _connect_complete(message: messages.ConnectCompleteRequest, keys: KeyDirectory, portal: str) -> ConnectComplete:
    wire = _required(message.result, "Result")
    if len(msgspec.json.encode(wire)) > MAX_CONNECTION:
        raise TooLarge(f"a connection result of more than {MAX_CONNECTION} bytes")
    account = _account(message.account_id, "AccountID", portal)
    if documents2016.is_2016(wire):
        old = documents2016.read_result(wire)
        return ConnectComplete(account, old.device, old.result, old.document.kid, old.wire, old.document)
    signer = connection.result_signer(wire)
    key = keys.signing_key(signer)
    if key is None:
        raise UnknownSigner("a connection result by a signer that no account here has")
    subject = udf.check(wire.get("Identifier"))
    result = connection.read_result(wire, key, subject)
    if result.result not in (connection.ACCEPTED, connection.REJECTED):
        raise FormatError("a connection result that neither accepts nor rejects")
    return ConnectComplete(account, subject, result.result, signer, wire)


# --- parts ------------------------------------------------------------------------------------------------------------


def _rows(rows: list[ChainRow] | None) -> dict[bytes, Row]:
    if len(rows or ()) > MAX_ROWS:
        raise TooLarge(f"at most {MAX_ROWS} rows are allowed")
    return {found.vid: found for found in map(_row, rows or ())}


def _row(row: ChainRow) -> Row:
    if len(row.digest) != 32:
        raise FormatError("a row whose digest is not 32 bytes")
    try:
        kind = Kind(row.kind)
    except ValueError:
        raise FormatError(f"a row of the unknown kind {row.kind}") from None
    if kind not in (Kind.PERSONAL, Kind.CONTAINER, Kind.DEVICE, Kind.ITEM):
        raise FormatError("a row of a kind that is never pruned")
    udf.check(row.identifier.partition("/")[0])
    digest = bytes(row.digest)
    vid = version.version_id(udf.check(row.signer), row.notary_token, digest)
    return Row(vid, kind, row.identifier, row.signer, links.parse(row.notary_token), row.notary_token, digest)


def _account(text: str | None, name: str, portal: str) -> AccountName:
    return names.normalise(_required(text, name), portal)


def _constraints(found: SearchConstraints | None) -> Constraints:
    if found is None:
        return Constraints()
    return Constraints(
        _date(found.not_before),
        _date(found.before),
        _count(found.max_entries, "MaxEntries"),
        _count(found.max_bytes, "MaxBytes"),
        _short(found.page_key, "PageKey"),
    )


def _date(text: str | None) -> int | None:
    return None if text is None else payload.read_date(text)


def _count(number: int | None, name: str) -> int | None:
    if number is not None and not 0 <= number < 2**53:
        raise FormatError(f"{name} is no count")
    return number


def _short(text: str | None, name: str) -> str | None:
    if text is not None and len(text) > MAX_TEXT:
        raise FormatError(f"{name} is too long")
    return text


def _required(value: Any, name: str) -> Any:
    if value is None:
        raise FormatError(f"{name} is missing")
    return value


def _check_size(kind: Kind, raw: bytes) -> None:
    if len(raw) > _SIZES.get(kind, version.MAX_RAW):
        raise TooLarge(f"an entry of {len(raw)} bytes")


def devices_shown(checked: Create) -> dict[str, str]:
    """The devices that the root and the proof of an account of ours list: authentication key → device, as UDFs."""
    found: dict[str, str] = {}
    for entry in (checked.entry, checked.proof):
        if isinstance(entry, Current) and entry.version is not None:
            found |= {device.read(one).dak.udf: one.claim.identifier for one in entry.version.embedded[1:]}
    return found


def proven_admins(checked: Create) -> dict[str, VerifyKey]:
    """The authentication keys of the administrators that the proof shows, by UDF: devices that a MasterProfile names,
    which the master key signed. TrustError for a proof that is none."""
    proof = checked.proof
    if proof is None:
        return {}
    if not isinstance(proof, Current) or not isinstance(checked.entry, Current) or proof.version is None:
        raise TrustError("a proof is a personal profile whose signatures verify")
    found = proof.version
    if found.kind is not Kind.PERSONAL or found.identifier != checked.entry.parsed.claim.identifier:
        raise TrustError("a proof is a personal profile of the mesh that the account is for")
    listed = {embedded.claim.identifier: device.read(embedded).dak for embedded in found.embedded[1:]}
    return {listed[one].udf: listed[one] for one in found.embedded[0].claim.admins if one in listed}


def check_self_signed(checked: Create) -> None:
    """TrustError unless the first profile of a mesh is signed by its master key (ours), or by a device of it (2016)."""
    entry = checked.entry
    if isinstance(entry, Old):
        if entry.profile is None:
            raise TrustError("an account is opened with a personal profile")
        return
    if entry.version is None or entry.version.kind is not Kind.PERSONAL:
        raise TrustError("an account is opened with a personal profile")
    claim = entry.version.claim
    if claim.signer != claim.identifier or claim.links.p:
        raise TrustError("an account is opened with the root of a mesh's profiles, signed by its master key")
