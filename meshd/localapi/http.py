"""The little HTTP/1.1 that both ends of the socket need, as functions from bytes to bytes.

One request a connection: the client sends it whole, the server answers with Content-Length, or with chunks when the
answer is a stream of JSON lines. `AnswerReader` takes bytes as they come; it never reads by itself.
"""

from __future__ import annotations

import json

from meshd.errors import BadRequest, FormatError
from meshd.localapi import API, HOST, SCHEMA

MAX_HEAD = 32 * 1024
MAX_ANSWER = 128 * 1024 * 1024
MAX_LINE = 4 * 1024 * 1024  # one event; a reset carries a whole status

_REASONS = {200: "OK", 201: "Created"}
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def request(method: str, target: str, body: object = None) -> bytes:
    """A whole request. `target` is path and query, already quoted."""
    data = b"" if body is None else json.dumps(body, ensure_ascii=False, allow_nan=False).encode("utf-8")
    content = f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n" if body is not None else ""
    head = f"{method} {target} HTTP/1.1\r\nHost: {HOST}\r\nMeshd-Api: {API}\r\nConnection: close\r\n{content}\r\n"
    return head.encode("ascii") + data


def envelope(answer: dict[str, object]) -> dict[str, object]:
    """The body of an answer: every one says its schema first."""
    return {"schema": SCHEMA, **answer}


def response(status: int, body: object, *, version: str) -> bytes:
    """A whole answer with Content-Length."""
    data = json.dumps(body, ensure_ascii=False, allow_nan=False).encode("utf-8")
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Error')}"]
    lines += [f"{name}: {value}" for name, value in response_headers(version)]
    lines += [f"Content-Length: {len(data)}", "Connection: close"]
    return "\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + data


def response_headers(version: str, *, stream: bool = False) -> list[tuple[str, str]]:
    """What every answer carries beside its framing: type, no caching, and the daemon's API number and release."""
    kind = "application/x-ndjson" if stream else "application/json"
    return [("Content-Type", kind), ("Cache-Control", "no-store"), ("Meshd-Api", str(API)), ("Meshd-Version", version)]


def stream_head(*, version: str) -> bytes:
    """The head of a stream answer; the chunks follow, `chunk(b"")` ends it."""
    lines = ["HTTP/1.1 200 OK"]
    lines += [f"{name}: {value}" for name, value in response_headers(version, stream=True)]
    lines += ["Transfer-Encoding: chunked", "Connection: close"]
    return "\r\n".join(lines).encode("ascii") + b"\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def quote(text: str) -> str:
    """Percent-encode everything but RFC 3986's unreserved characters: safe in a path segment and in a query value."""
    return "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in text.encode("utf-8"))


def unquote(text: str) -> str:
    """Undo `quote`; BadRequest for broken escapes, bytes that are not UTF-8, and NUL."""
    if "%" not in text:
        return text
    first, *rest = text.split("%")
    data = bytearray(first.encode("utf-8"))
    for part in rest:
        try:
            data.append(int(part[:2], 16) if part[:2].isascii() and part[:2].isalnum() and len(part) >= 2 else -1)
        except ValueError:
            raise BadRequest("a broken %-escape in the address") from None
        data += part[2:].encode("utf-8")
    try:
        plain = data.decode("utf-8")
    except UnicodeDecodeError:
        raise BadRequest("the address is not UTF-8") from None
    if "\0" in plain:
        raise BadRequest("a NUL in the address")
    return plain


def target(path: str, query: dict[str, object] | None = None) -> str:
    """Path and query of a request line; None values are left out, booleans become 1 and 0."""
    pairs = []
    for name, value in (query or {}).items():
        if value is not None:
            shown = str(int(value)) if type(value) is bool else str(value)
            pairs.append(f"{name}={quote(shown)}")
    return path + ("?" + "&".join(pairs) if pairs else "")


def split_target(line: str) -> tuple[str, dict[str, str]]:
    """Path (still quoted) and query of a request target. BadRequest for a parameter named twice."""
    path, _, query = line.partition("?")
    pairs: dict[str, str] = {}
    for part in query.split("&") if query else ():
        name, _, value = part.partition("=")
        if name in pairs:
            raise BadRequest(f"parameter {name[:40]!a} named twice")
        pairs[unquote(name)] = unquote(value.replace("+", " "))
    return path, pairs


def decode_body(data: bytes) -> object:
    """JSON of a request body: UTF-8, no member named twice, no NaN; BadRequest otherwise. Empty is None."""
    if not data:
        return None
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise BadRequest("the body is not JSON, or names a member twice") from None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def _no_constant(name: str) -> object:
    raise ValueError(name)


class AnswerReader:
    """Reads one answer from bytes as they arrive (`feed`; b"" is the end of the connection).

    After the head is in: `status`, `api`, `version`. A `chunked` answer is a stream: `lines()` gives each line once.
    Any other is read with `json()` when `done`. FormatError for whatever is not such an answer.
    """

    def __init__(self) -> None:
        self.status = 0
        self.api: int | None = None
        self.version: str | None = None
        self.chunked = False
        self.done = False
        self._buffer = bytearray()
        self._left = -1  # bytes of body (Content-Length) or of the chunk that are still to come
        self._content = bytearray()

    def feed(self, data: bytes) -> None:
        if self.done:
            return
        if not data:
            raise FormatError("the daemon closed the connection in the middle of an answer")
        self._buffer += data
        if not self.status and not self._read_head():
            return
        if self.chunked:
            self._read_chunks()
        elif len(self._buffer) >= self._left:
            self._content = self._buffer[: self._left]
            self.done = True

    def json(self) -> object:
        """The body of an answer that is `done`."""
        try:
            return json.loads(self._content)
        except (ValueError, RecursionError):
            raise FormatError("the daemon's answer is not JSON") from None

    def lines(self) -> list[object]:
        """The whole lines that have arrived since the last call; empty lines (signs of life) are left out."""
        *whole, rest = self._content.split(b"\n")
        self._content = bytearray(rest)
        if len(rest) > MAX_LINE:
            raise FormatError("the daemon sends a line without end")
        try:
            return [json.loads(line) for line in whole if line.strip()]
        except (ValueError, RecursionError):
            raise FormatError("a line of the daemon is not JSON") from None

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > MAX_HEAD:
                raise FormatError("the daemon's answer has no end of headers")
            return False
        first, *fields = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
        words = first.split(" ", 2)
        if len(words) < 2 or not words[0].startswith("HTTP/1.") or not (words[1].isdigit() and len(words[1]) == 3):
            raise FormatError("what answers on this socket is not meshd")
        headers = {}
        for field in fields:
            name, _, value = field.partition(":")
            headers[name.lower()] = value.strip()
        api = headers.get("meshd-api", "")
        self.api = int(api) if api.isdigit() and len(api) < 9 else None
        self.version = headers.get("meshd-version")
        self.chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        length = headers.get("content-length", "")
        if not self.chunked:
            if not (length.isdigit() and len(length) < 12) or int(length) > MAX_ANSWER:
                raise FormatError("the daemon's answer has no length, or is too long")
            self._left = int(length)
        self.status = int(words[1])
        del self._buffer[: end + 4]
        return True

    def _read_chunks(self) -> None:
        while True:
            if self._left < 0:
                end = self._buffer.find(b"\r\n")
                if end < 0:
                    if len(self._buffer) > 64:
                        raise FormatError("the daemon's chunks are malformed")
                    return
                size = bytes(self._buffer[:end]).partition(b";")[0].strip()
                try:
                    self._left = int(size, 16) if 0 < len(size) <= 8 else -1
                except ValueError:
                    self._left = -1
                if self._left < 0:
                    raise FormatError("the daemon's chunks are malformed")
                del self._buffer[: end + 2]
                if self._left == 0:
                    self.done = True
                    return
            if len(self._buffer) < self._left + 2:
                return
            self._content += self._buffer[: self._left]
            if len(self._content) > MAX_ANSWER:
                raise FormatError("the daemon's answer is too long")
            del self._buffer[: self._left + 2]
            self._left = -1
