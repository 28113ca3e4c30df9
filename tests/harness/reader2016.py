"""A model of the 2016 reader's strictness: it refuses exactly what stopped the reference of January and March 2016.

    read_response("Get", body, http_status=200, version="M")     as the client does
    read_request(body, version="J")                              as the portal does

Broken is raised for: a member that the type does not have, whatever its value; null for a string; an escape \\u0XXX; a
second member beside a tag or a missing inner tag; another response type than the transaction's; an HTTP status from 400
on; an empty body. Text after the object is not read. What is inside a signature is read by the type that its tag names.
It shares no code with meshd.
"""

from __future__ import annotations

import base64
import re
from typing import Any


class Broken(Exception):
    """A 2016 client throws here, a 2016 portal dies."""


# Types: S string, I integer, B boolean, D date and time, X binary; a name is a Struct, @name a TStruct; * a list.
_KEY = {"enc": "S", "alg": "S", "kid": "S", "x5u": "S", "x5c": "S", "x5t": "S", "x5t#S256": "S", "kty": "S", "use": "S",
        "key_ops": "S", "k": "X"}  # fmt: skip
_ENTRY = {"Identifier": "S"}
_SIGNED = {**_ENTRY, "SignedData": "JoseWebSignature"}
_PROFILE = {**_ENTRY, "Names": "*S", "Updated": "D", "NotaryToken": "S"}
_APPLICATION = {**_PROFILE, "EncryptedData": "JoseWebEncryption"}
_ACCOUNT = {"Created": "D", "Modified": "D", "AccountID": "S", "UserProfileUDF": "S", "Status": "S"}

COMMON: dict[str, dict[str, str]] = {
    "Version": {"Major": "I", "Minor": "I", "Encodings": "*Encoding", "URI": "*S"},
    "Encoding": {"ID": "*S", "Dictionary": "*S"},
    "KeyValue": {"Key": "S", "Value": "S"},
    "DataItem": {"TransactionID": "S", "PrimaryKey": "S", "PriorTransactionID": "S", "Action": "S", "Added": "D",
                 "Keys": "*@Any", "Data": "X", "Text": "S", "Pending": "B", "Commit": "B", "Rollback": "B"},
    "IndexTerm": {"Type": "S", "Term": "S"},
    "Account": _ACCOUNT,
    "JoseWebSignature": {"protected": "X", "header": "X", "payload": "X", "signature": "X"},
    "JoseWebEncryption": {"protected": "X", "unprotected": "Header", "iv": "X", "ciphertext": "X", "tag": "X",
                          "aad": "X", "recipients": "*Recipient"},
    "Recipient": {"Header": "Header", "encrypted_key": "X"},
    "Header": {"alg": "S", "enc": "S", "kid": "S"},
    "SignedDeviceProfile": _SIGNED, "SignedMasterProfile": _SIGNED, "SignedPersonalProfile": _SIGNED,
    "SignedApplicationProfile": _SIGNED, "SignedConnectionRequest": _SIGNED, "SignedConnectionResult": _SIGNED,
    "EncryptedProfile": {**_ENTRY, "EncryptedData": "JoseWebEncryption"},
    "OfflineEscrowEntry": {**_ENTRY, "EncryptedData": "JoseWebEncryption"},
    "OnlineEscrowEntry": {**_ENTRY, "EncryptedData": "JoseWebEncryption"},
    "DeviceProfile": {**_PROFILE, "Description": "S", "DeviceSignatureKey": "PublicKey",
                      "DeviceAuthenticationKey": "PublicKey", "DeviceEncryptiontionKey": "PublicKey"},
    "MasterProfile": {**_PROFILE, "MasterSignatureKey": "PublicKey", "MasterEscrowKeys": "*PublicKey",
                      "OnlineSignatureKeys": "*PublicKey"},
    "PersonalProfile": {**_PROFILE, "SignedMasterProfile": "SignedMasterProfile", "Devices": "*SignedDeviceProfile",
                        "Applications": "*ApplicationProfileEntry"},
    "ApplicationProfileEntry": {"Identifier": "S", "Type": "S", "Friendly": "S", "SignID": "*S", "DecryptID": "*S"},
    "PasswordProfile": _APPLICATION, "NetworkProfile": _APPLICATION,
    "MailProfile": {**_APPLICATION, "EncryptionPGP": "PublicKey", "EncryptionSMIME": "PublicKey"},
    "ConnectionRequest": {"ParentUDF": "S", "Device": "SignedDeviceProfile", "BlockToken": "S"},
    "ConnectionResult": {"ParentUDF": "S", "Device": "SignedDeviceProfile", "BlockToken": "S", "Result": "S"},
    "PublicKey": {"UDF": "S", "X509Certificate": "X", "X509Chain": "*X", "X509CSR": "X", "PublicParameters": "@Any",
                  "PrivateParameters": "@Any"},
    "PublicKeyRSA": {**_KEY, "n": "X", "e": "X"},
    "PrivateKeyRSA": {**_KEY, "n": "X", "e": "X", "d": "X", "p": "X", "q": "X", "dp": "X", "dq": "X", "qi": "X"},
}  # fmt: skip
_BASE = {"Status": "I", "StatusDescription": "S"}
_CONNECT = {"AccountID": "S", "DeviceID": "S"}


def _messages(version: str) -> dict[str, dict[str, str]]:
    march = version == "M"
    request = {"Portal": "S"} if march else {}
    page = {"PageKey": "S"} if march else {}
    items = {"DataItems": "*DataItem", **page} if march else {}
    search = {"SearchConstraints": "SearchConstraints"} if march else {}
    times = {} if march else {"NotBefore": "D", "NotOnOrAfter": "D"}
    found = {
        "HelloRequest": {},
        "HelloResponse": {**_BASE, "Version": "Version", "Alternates": "*Version"},
        "ValidateRequest": {"Account": "S", "Reserve": "B", "Language": "*S"},
        "ValidateResponse": {**_BASE, "Valid": "B", "Minimum": "I", **({"Maximum": "I"} if march else {}),
                             "InvalidCharacters": "S", "Reason": "S"},
        "CreateRequest": {"Account": "S", "Profile": "@Any"},
        "CreateResponse": _BASE,
        "PublishRequest": {"Entry": "@Any"},
        "PublishResponse": _BASE,
        "GetRequest": {"Identifier": "S", "Account": "S", "KeyValues": "*KeyValue", **times, **search, "Multiple": "B",
                       **({"Full": "B"} if march else {})},
        "GetResponse": {**_BASE, "Entries": "*@Any", **items},
        "GetRecordsResponse": {**_BASE, "DataItems": "*DataItem"},
        "TransferRequest": search if march else {"NotBefore": "D", "Until": "D", "After": "S", "MaxEntries": "I",
                                                 "MaxBytes": "I"},
        "TransferResponse": {**_BASE, **items},
        "StatusRequest": {},
        "StatusResponse": {**_BASE, "LastWriteTime": "D", "LastCheckpointTime": "D", "NextCheckpointTime": "D",
                           "CheckpointValue": "S"},
        "ConnectStartRequest": {"SignedRequest": "SignedConnectionRequest", "AccountID": "S"},
        "ConnectStartResponse": {} if march else {"SignedConnectionResult": "S"},
        "ConnectStatusRequest": _CONNECT,
        "ConnectStatusResponse": {"Result": "SignedConnectionResult"},
        "ConnectPendingRequest": {"AccountID": "S", **search},
        "ConnectPendingResponse": {"Pending": "*SignedConnectionRequest", **page},
        "ConnectCompleteRequest": {"Result": "SignedConnectionResult", "AccountID": "S"},
        "ConnectCompleteResponse": {},
    }  # fmt: skip
    if march:
        found["SearchConstraints"] = {
            "NotBefore": "D",
            "Before": "D",
            "MaxEntries": "I",
            "MaxBytes": "I",
            "PageKey": "S",
        }
    for name in found:
        if name.endswith("Request") or name.startswith("Connect"):
            found[name] = {**request, **found[name]}
    return found


SCHEMAS = {version: {**COMMON, **_messages(version)} for version in "JM"}
TYPES = {
    "Hello": "Hello", "ValidateAccount": "Validate", "CreateAccount": "Create", "Publish": "Publish", "Get": "Get",
    "Transfer": "Transfer", "Status": "Status", "ConnectStart": "ConnectStart", "ConnectStatus": "ConnectStatus",
    "ConnectPending": "ConnectPending", "ConnectComplete": "ConnectComplete",
}  # fmt: skip


def read_response(transaction: str, body: bytes, *, http_status: int = 200, version: str = "M") -> dict[str, Any]:
    """The members of the response, as a 2016 client gets them."""
    if http_status >= 400:
        raise Broken(f"HTTP {http_status}")
    name = "GetRecordsResponse" if transaction == "GetRecords" else TYPES[transaction] + "Response"
    reader = _Reader(body, SCHEMAS[version])
    return reader.tagged(name)


def read_request(body: bytes, *, version: str = "M", payloads: bool = True) -> tuple[str, dict[str, Any]]:
    """(transaction, members), as a 2016 portal gets them. `payloads`: what is inside signatures is read, too."""
    reader = _Reader(body, SCHEMAS[version], payloads)
    reader.expect("{")
    transaction = reader.string()
    if transaction not in TYPES:
        raise Broken(f"no transaction {transaction}")
    reader.expect(":")
    members = reader.tagged(TYPES[transaction] + "Request")
    reader.expect("}")
    return transaction, members


class _Reader:
    def __init__(self, body: bytes, schema: dict[str, dict[str, str]], payloads: bool = True) -> None:
        self.payloads = payloads
        self.text = body.decode("utf-8")
        self.schema = schema
        self.at = 0
        if not body:
            raise Broken("an empty body")

    def _skip(self) -> None:
        while self.at < len(self.text) and self.text[self.at] in " \t\r\n":
            self.at += 1

    def peek(self) -> str:
        self._skip()
        return self.text[self.at : self.at + 1]

    def expect(self, one: str) -> None:
        if self.peek() != one:
            raise Broken(f"{self.peek()!r} where {one!r} is due, at {self.at}")
        self.at += 1

    def string(self) -> str:
        self.expect('"')
        found = []
        while True:
            if self.at >= len(self.text):
                raise Broken("a string without end")
            one = self.text[self.at]
            self.at += 1
            if one == '"':
                return "".join(found)
            if one != "\\":
                found.append(one)  # a raw line feed, too
                continue
            escape = self.text[self.at : self.at + 1]
            self.at += 1
            if escape == "u":
                digits = self.text[self.at : self.at + 4]
                if not re.fullmatch("[1-9A-Fa-f][0-9A-Fa-f]{3}", digits):
                    raise Broken(f"the escape \\u{digits}")
                self.at += 4
                found.append(chr(int(digits, 16)))
            elif escape in '"\\/bfnrt' and escape:
                found.append({"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}.get(escape, escape))
            else:
                raise Broken(f"the escape \\{escape}")

    def tagged(self, name: str | None = None) -> dict[str, Any]:
        """The body of an object with one member, of this type or of any that the schema has."""
        self.expect("{")
        tag = self.string()
        self.expect(":")
        if (name is not None and tag != name) or tag not in self.schema:
            raise Broken(f"{tag} where {name or 'an object of the schema'} is due")
        members = self.struct(tag)
        self.expect("}")
        return members

    def struct(self, name: str) -> dict[str, Any]:
        members: dict[str, Any] = {}
        self.expect("{")
        while self.peek() != "}":
            if members:
                self.expect(",")
            member = self.string()
            self.expect(":")
            kind = self.schema[name].get(member)
            if kind is None:
                raise Broken(f"{name} has no member {member}")
            members[member] = self.value(kind)
        self.at += 1
        if self.payloads and name == "JoseWebSignature" and "payload" in members:
            self.signed(members["payload"])
        return members

    def value(self, kind: str) -> Any:
        if kind.startswith("*"):
            return self.array(kind[1:])
        if kind in "SDX":
            text = self.string()  # null, a number or an object are none
            if kind == "X":
                clean = re.sub("[^A-Za-z0-9_-]", "", text.replace("+", "-").replace("/", "_"))
                return base64.urlsafe_b64decode(clean + "=" * (-len(clean) % 4))
            return text
        if kind == "I":
            self._skip()
            found = re.compile("-?[0-9]+").match(self.text, self.at)
            if found is None or not -(2**31) <= int(found[0]) < 2**31:
                raise Broken("no integer of 32 bits")
            self.at = found.end()
            return int(found[0])
        if kind == "B":
            self._skip()
            for word in ("true", "false"):
                if self.text.startswith(word, self.at):
                    self.at += len(word)
                    return word == "true"
            raise Broken("neither true nor false")
        return self.tagged() if kind == "@Any" else self.struct(kind)

    def array(self, kind: str) -> list[Any]:
        self.expect("[")
        found: list[Any] = []
        while self.peek() != "]":
            if found:
                self.expect(",")
            found.append(self.value(kind))
        self.at += 1
        return found

    def signed(self, payload: bytes) -> None:
        _Reader(payload, self.schema).tagged()
