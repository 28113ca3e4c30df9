"""Bodies to messages and back: three forms of request, two encodings, and what each peer can bear.

    2016     {"Get": {"GetRequest": {…}}}          from 2017-06     {"Get": {…}}          bare     {"GetRequest": {…}}

A portal takes all three; a client sends the first. The answer is always one tagged object, `{"GetResponse": {…}}`, in
the encoding that the request came in, and with no member that the asker's dialect lacks: a 2016 reader loses its place
at an unknown member, a null or an escape like \\u00e9 (protocol-2016.md §2.6). Reading is lenient as 2016 needs it, and
bounded.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from meshd.crypto import base64url, cbor, legacy
from meshd.errors import FormatError, LocalProtocolError, RemoteProtocolError
from meshd.portal import messages, statuses
from meshd.portal.messages import TRANSACTIONS, HelloResponse, MeshResponse, Request, Response
from meshd.portal.statuses import Status, TooLarge
from meshd.portal.structures import Binary, Structure

JSON = "application/json"
CBOR = "application/cbor"
FIRST_MINOR = 100  # the Version 0.100 among the Alternates says that a portal speaks ours
MAX_BODY = 4 * 1024 * 1024  # bytes of a request
MAX_ANSWER = 8 * 1024 * 1024  # bytes of a response: the largest entry twice, as Entries and as DataItems
MAX_DEPTH = 64  # levels of objects and lists; CBOR has its own 16, lenient JSON 32
MAX_NODES = 200_000  # values in one body

# Members of type Binary inside entries: text in JSON, byte strings in CBOR.
_BINARY = frozenset({"protected", "header", "payload", "signature", "iv", "ciphertext", "tag", "encrypted_key"})
_ESCAPED = re.compile(r"[\x00-\x07\x09\x0b\x0e-\x1f]")  # a 2016 reader can't take their \u00XX

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()
_Message = TypeVar("_Message", bound=Structure)
_BY_REQUEST = {kind.request.__name__: name for name, kind in reversed(list(TRANSACTIONS.items()))}  # GetRequest: Get


class Dialect(enum.Enum):
    """Which members a peer understands."""

    PLAIN = "2016"  # what January and March share: for a 2016 peer that has not shown which one it is
    JANUARY = "2016-01"
    MARCH = "2016-03"
    OURS = "2026"


class Form(enum.Enum):
    """How a request was wrapped."""

    DOUBLE = "2016"
    SINGLE = "2017"
    BARE = "bare"


@dataclass(frozen=True, slots=True)
class Asked:
    """A decoded request, and in what manner it was asked: the answer is given likewise."""

    transaction: str
    message: Request
    form: Form
    dialect: Dialect
    content_type: str
    extensions: frozenset[str] = frozenset()

    @property
    def plain(self) -> bool:
        """Is this a 2016 client?"""
        return self.dialect is not Dialect.OURS


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back over HTTP."""

    http_status: int
    content_type: str
    body: bytes


class Undecodable(FormatError):
    """A request that can't be read. It knows what is needed to answer it in kind."""

    def __init__(
        self,
        message: str,
        transaction: str | None,
        content_type: str,
        *,
        plain: bool,
        status: Status = Status.MALFORMED,
    ) -> None:
        super().__init__(message)
        self.transaction, self.content_type = transaction, content_type
        self.plain, self.status = plain, status


# --- requests, read ---------------------------------------------------------------------------------------------------


def decode_request(body: bytes, content_type: str | None = None, extensions: frozenset[str] | None = None) -> Asked:
    """Read a request body in any of the three forms; Undecodable, which is a FormatError.

    `content_type` is the header as it came: what is not CBOR is read as JSON, as 2016 does. `extensions` is
    `headers.read_extensions` of the header.
    """
    media = CBOR if (content_type or "").partition(";")[0].strip().lower() == CBOR else JSON
    plain = extensions is None
    name: str | None = None
    try:
        name, form, members = _unwrap(_read(body, media, MAX_BODY))
        message = _convert(members, TRANSACTIONS[name].request)
    except FormatError as exc:
        found = name if name in TRANSACTIONS else None
        raise Undecodable(str(exc), found, media, plain=plain, status=statuses.of_error(exc)) from exc
    dialect = _dialect(members, TRANSACTIONS[name].request) if extensions is None else Dialect.OURS
    return Asked(name, message, form, dialect, media, extensions or frozenset())


def _unwrap(tree: Any) -> tuple[str, Form, dict[str, Any]]:
    outer, inner = _tagged(tree, "a request")
    if outer in _BY_REQUEST:
        return _BY_REQUEST[outer], Form.BARE, inner
    if outer not in TRANSACTIONS:
        raise FormatError(f"an unknown transaction {outer[:40]!r}")
    expected = TRANSACTIONS[outer].request.__name__
    if inner.keys() == {expected} and type(inner[expected]) is dict:
        return outer, Form.DOUBLE, inner[expected]
    return outer, Form.SINGLE, inner


def _dialect(members: Mapping[str, Any], kind: type[Request]) -> Dialect:
    if members.keys() & messages.march_only(kind):
        return Dialect.MARCH
    return Dialect.JANUARY if members.keys() & messages.january_only(kind) else Dialect.PLAIN


# --- responses, written -----------------------------------------------------------------------------------------------


def encode_response(
    asked: Asked, response: Response, *, status: int = Status.SUCCESS, throttled: bool = False
) -> Answer:
    """The answer to a request: exact type, in kind. `status` is for responses that carry none (Connect…).

    A response of the wrong type, or one that would break a 2016 reader, is our fault: LocalProtocolError.
    """
    if type(response) is not TRANSACTIONS[asked.transaction].response:
        raise LocalProtocolError(f"a {type(response).__name__} in answer to {asked.transaction}")
    number = status
    if isinstance(response, MeshResponse) and response.status is not None:
        number = response.status
    body = _write({type(response).__name__: _members(response, asked.dialect)}, asked.content_type, plain=asked.plain)
    return Answer(statuses.http_status(number, plain=asked.plain, throttled=throttled), asked.content_type, body)


def failure(transaction: str, status: Status, description: str) -> Response:
    """A response of the right type that says what went wrong, where its type can say it."""
    kind = TRANSACTIONS[transaction].response
    if issubclass(kind, MeshResponse):
        return kind(status=int(status), status_description=description)
    return kind()


def encode_undecodable(error: Undecodable, description: str) -> Answer:
    """What to tell a client whose request could not be read; a MeshResponse where even its name is unknown."""
    status = error.status
    if error.transaction is None:
        response: Response = MeshResponse(status=int(status), status_description=description)
    else:
        response = failure(error.transaction, status, description)
    tree = {type(response).__name__: _members(response, Dialect.PLAIN)}
    body = _write(tree, error.content_type, plain=True)
    return Answer(statuses.http_status(status, plain=error.plain), error.content_type, body)


# --- the client's side ------------------------------------------------------------------------------------------------


def encode_request(transaction: str, message: Request, dialect: Dialect, content_type: str = JSON) -> bytes:
    """A request in the double form of 2016, with the members that the portal's dialect has and no others."""
    if type(message) is not TRANSACTIONS[transaction].request:
        raise LocalProtocolError(f"a {type(message).__name__} as request of {transaction}")
    members = _members(message, dialect)
    tree = {transaction: {type(message).__name__: members}}
    return _write(tree, content_type, plain=dialect is not Dialect.OURS, limit=MAX_BODY)


def decode_response(body: bytes, transaction: str, content_type: str | None = None) -> Response:
    """The response of this transaction, or the MeshResponse that a failing portal sends instead.

    FormatError for what can't be read, RemoteProtocolError for a response of another transaction. Its Status is not
    judged: see `succeeded`.
    """
    media = CBOR if (content_type or "").partition(";")[0].strip().lower() == CBOR else JSON
    name, members = _tagged(_read(body, media, MAX_ANSWER), "a response")
    kind = TRANSACTIONS[transaction].response
    if name == MeshResponse.__name__:
        return _convert(members, MeshResponse)
    if name != kind.__name__:
        raise RemoteProtocolError(f"a {name[:40]} in answer to {transaction}")
    return _convert(members, kind)


def dialect_of(hello: HelloResponse) -> Dialect:
    """What a portal speaks by its answer to Hello: ours if it lists version 0.100 or later of major version 0."""
    for version in hello.alternates or ():
        if version.major == 0 and (version.minor or 0) >= FIRST_MINOR:
            return Dialect.OURS
    return Dialect.PLAIN


def uris_of(hello: HelloResponse) -> list[str]:
    """Where a portal wants to be asked, the best first: what the version that will be spoken says, else the other."""
    ours = [one for one in hello.alternates or () if one.major == 0 and (one.minor or 0) >= FIRST_MINOR]
    return next((list(one.uri) for one in (*ours, hello.version) if one is not None and one.uri), [])


def respelled(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry as a portal of 2016 gives it, with its binary members in their one spelling: they come with line feeds.

    FormatError for what is no entry."""
    tag, body = _tagged(entry, "an entry")
    signed = body.get("SignedData")
    if type(signed) is not dict:
        return entry
    clean = {
        name: base64url.encode(base64url.decode_lenient(value)) if name in _BINARY and type(value) is str else value
        for name, value in signed.items()
    }
    return {tag: {**body, "SignedData": clean}}


def succeeded(response: Response, http_status: int = 200) -> bool:
    """Did the portal do it? A body without Status (Connect…, January's oldest) leaves it to HTTP."""
    if isinstance(response, MeshResponse) and response.status is not None:
        return response.status in statuses.SUCCESSES
    return 200 <= http_status < 300


# --- trees ------------------------------------------------------------------------------------------------------------


def message_tree(message: Structure) -> dict[str, Any]:
    """All members of a message as JSON has them, whatever the dialect."""
    return _members(message, Dialect.OURS)


def _members(message: Structure, dialect: Dialect) -> dict[str, Any]:
    tree: dict[str, Any] = msgspec.to_builtins(message, enc_hook=_binary_text)
    if dialect is Dialect.OURS:
        return tree
    kind = type(message)
    unknown = messages.ours_only(kind)
    if dialect is not Dialect.MARCH:
        unknown |= messages.march_only(kind)
    if dialect is not Dialect.JANUARY:
        unknown |= messages.january_only(kind) - (_NOT_IN_PLAIN_ONLY if dialect is Dialect.PLAIN else frozenset())
    found = {name: value for name, value in tree.items() if name not in unknown}
    if "DataItems" in found:  # the one structure inside a message that has members of ours
        ours = messages.OURS["DataItem"]
        found["DataItems"] = [
            {name: value for name, value in item.items() if name not in ours} for item in found["DataItems"]
        ]
    return found


# GetRecords exists in January alone, so who asks for it knows its one member.
_NOT_IN_PLAIN_ONLY = messages.JANUARY["GetRecordsResponse"]


def _binary_text(value: object) -> str:
    if isinstance(value, Binary):
        return base64url.encode(value)
    raise TypeError(type(value).__name__)


def _read_binary(kind: type, value: object) -> Any:
    if kind is not Binary:
        raise TypeError(kind.__name__)
    if isinstance(value, bytes):
        return Binary(value)
    if isinstance(value, str):
        return Binary(base64url.decode_lenient(value))
    raise ValueError("binary data that is not text")


def _convert(members: dict[str, Any], kind: type[_Message]) -> _Message:
    try:
        return msgspec.convert(members, kind, dec_hook=_read_binary)
    except (msgspec.ValidationError, TypeError, ValueError) as exc:
        raise FormatError(f"not a {kind.__name__}: {str(exc)[:200]}") from None


def _tagged(tree: Any, what: str) -> tuple[str, dict[str, Any]]:
    if type(tree) is not dict or len(tree) != 1:
        raise FormatError(f"{what} is one tagged object")
    ((name, members),) = tree.items()
    if type(name) is not str or type(members) is not dict:
        raise FormatError(f"{what} is one tagged object")
    return name, members


def _read(body: bytes, media: str, limit: int) -> Any:
    if len(body) > limit:
        raise TooLarge(f"a body of {len(body)} bytes: at most {limit} are allowed")
    if media == CBOR:
        tree = _texts(cbor.decode(body))
    else:
        tree = _read_json(body)
    _check_size(tree)
    return tree


def _read_json(body: bytes) -> Any:
    try:
        tree = _decoder.decode(body)
        # What our clients write reads back to the same bytes; a member named twice cannot. Others take the slow way.
        if _encoder.encode(tree) == body:
            return tree
    except (msgspec.MsgspecError, UnicodeError, ValueError, RecursionError):
        pass
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise FormatError("a body that is not UTF-8") from None
    return legacy.read_json(text)


def _check_size(tree: Any) -> None:
    """FormatError below 64 levels or above 200,000 values; level by level, so that depth costs no stack."""
    level, depth, count = [tree], 0, 0
    while level:
        depth += 1
        count += len(level)
        if depth > MAX_DEPTH or count > MAX_NODES:
            raise FormatError("a body with too many levels or values")
        below: list[Any] = []
        for value in level:
            if type(value) is dict:
                below.extend(value.values())
            elif type(value) is list:
                below.extend(value)
            elif type(value) is float:
                raise FormatError("a number that is no integer")
        level = below


def _write(tree: dict[str, Any], media: str, *, plain: bool, limit: int = MAX_ANSWER) -> bytes:
    if media == CBOR:
        data = cbor.encode(_blobs(tree, None))
    else:
        if plain:
            _check_plain(tree)
        try:
            data = _encoder.encode(tree)
        except (UnicodeError, TypeError, ValueError, OverflowError, RecursionError):
            raise LocalProtocolError("a message that can't be written as JSON") from None
    if len(data) > limit:
        raise LocalProtocolError(f"a body of {len(data)} bytes: at most {limit} are allowed")
    return data


def _check_plain(value: Any) -> None:
    """LocalProtocolError for what a 2016 reader stops at although its members are right."""
    if type(value) is dict:
        for name, member in value.items():
            _check_plain(name)
            _check_plain(member)
    elif type(value) is list:
        for member in value:
            _check_plain(member)
    elif type(value) is str:
        if _ESCAPED.search(value):
            raise LocalProtocolError("a control character for a 2016 peer")
    elif value is None or type(value) is float or (type(value) is int and not -(2**31) <= value < 2**31):
        raise LocalProtocolError("a value that a 2016 peer can't read")


def _blobs(value: Any, name: str | None) -> Any:
    """JSON's tree as CBOR has it: Binary members are byte strings, if their text is the one of those bytes."""
    if type(value) is dict:
        return {key: _blobs(member, key) for key, member in value.items()}
    if type(value) is list:
        return [_blobs(member, name if name in _BINARY_LISTS else None) for member in value]
    if type(value) is str and (name in _BINARY or name in _BINARY_OURS or name in _BINARY_LISTS):
        try:
            return base64url.decode(value)
        except FormatError:
            return value
    return value


_BINARY_OURS = frozenset({"Data", "Digest", "Leaf", "Salt", "X509Certificate"})
_BINARY_LISTS = frozenset({"Hashes", "PageProof"})


def _texts(value: Any) -> Any:
    """CBOR's tree as JSON has it. FormatError for map keys that are no text."""
    if type(value) is dict:
        if not all(type(key) is str for key in value):
            raise FormatError("a member whose name is no text")
        return {key: _texts(member) for key, member in value.items()}
    if type(value) is list:
        return [_texts(member) for member in value]
    return base64url.encode(value) if type(value) is bytes else value
