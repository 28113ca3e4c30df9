"""A portal of January or March 2016, as the reference behaved (protocol-2016.md §2, §3, §8), behind HTTP on memory
streams: for our client to talk to.

    portal = Portal2016("J")
    http = portal.client()
    await nursery.start(portal.run)

What stopped the reference stops this one: it goes down, and `broken` says why. Like the reference it checks no
signature, replaces what it is told to, keeps one entry under an Identifier, and writes JSON with line feeds in binary
members. It shares no code with meshd but the streams.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import trio

from harness import reader2016
from harness.portal_http import HttpPortal
from harness.reader2016 import Broken
from meshd.net.http import Request, Response

PATH = "/.well-known/mmm/"
_BINARY = frozenset({"protected", "header", "payload", "signature", "iv", "ciphertext", "tag", "encrypted_key"})
_READ_WHOLE = frozenset({"ConnectStart"})  # whose signed request the portal opens; the rest it keeps as it came


@dataclass
class Portal2016(HttpPortal):
    """`accounts`: name → mesh; `entries`: Identifier → tagged entry; `heads`: each transaction with its HTTP
    headers."""

    version: str = "J"
    broken: list[str] = field(default_factory=list)
    accounts: dict[str, str] = field(default_factory=dict)
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    waiting: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    heads: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    created: int = 0

    async def handle(self, request: Request) -> Response:
        headers = dict(request.headers)
        try:
            self._check_http(request, headers)
            whole = any(f'"{name}"'.encode() in request.body[:40] for name in _READ_WHOLE)
            transaction, _ = reader2016.read_request(request.body, version=self.version, payloads=whole)
            self.said.append(transaction)
            self.heads.append((transaction, headers))
            ((_, wrapped),) = json.loads(request.body, strict=False).items()
            ((_, members),) = wrapped.items()
            answer = self._answer(transaction, members)
        except (Broken, KeyError, TypeError) as exc:
            self.broken.append(f"{type(exc).__name__}: {exc}")
            self.go_down()
            await trio.sleep_forever()
        return Response(200, written(answer).encode(), (("content-type", "application/json"),))

    def _check_http(self, request: Request, headers: dict[str, str]) -> None:
        if request.method != "POST" or request.path != PATH:
            raise Broken(f"{request.method} {request.path}")
        if headers.get("host") != self.domain or "transfer-encoding" in headers:
            raise Broken("another host, or a body in chunks")
        if int(headers.get("content-length", "0")) != len(request.body):
            raise Broken("a body without its length")

    def _answer(self, transaction: str, asked: dict[str, Any]) -> dict[str, Any]:
        name, members = getattr(self, f"_{transaction.lower()}")(asked)
        if not name.startswith("Connect"):
            members = {"Status": 201, **members}
            if self.version == "M":
                members = {"StatusDescription": "Operation completed successfully", **members}
        return {name: members}

    def _hello(self, asked: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        return "HelloResponse", {"Version": {"Major": 0, "Minor": 7, "Encodings": [{"ID": ["application/json"]}]}}

    def _validateaccount(self, asked: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        free = asked["Account"] not in self.entries  # it looks under another key than it stores: always
        return "ValidateResponse", {"Valid": free, "Minimum": 1, "InvalidCharacters": ".,:;{}()[]<>?|\\@#"}

    def _createaccount(self, asked: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        ((_, body),) = asked["Profile"].items()
        self.created += 1
        self.accounts[asked["Account"]] = body["Identifier"]
        self.entries[body["Identifier"]] = asked["Profile"]
        return "CreateResponse", {}

    def _publish(self, asked: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        ((_, body),) = asked["Entry"].items()
        self.entries[body["Identifier"]] = asked["Entry"]
        return "PublishResponse", {}

    def _get(self, asked: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        identifier = self.accounts.get(asked["Account"]) if "Account" in asked else asked.get("Identifier")
        found = self.entries.get(identifier or "")
        if found is not None and self.version == "J" and not next(iter(found)).startswith("Signed"):
            raise Broken("an entry that is not signed")
        return "GetResponse", {} if found is None else {"Entries": [found]}

    def _status(self, asked: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        return "StatusResponse", {}

    def _connectstart(self, asked: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        self.waiting.setdefault(self.accounts[asked["AccountID"]], []).append(asked["SignedRequest"])
        return "ConnectStartResponse", {}

    def _connectpending(self, asked: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        found = self.waiting.get(self.accounts[asked["AccountID"]])
        return "ConnectPendingResponse", {} if found is None else {"Pending": found}

    def _connectcomplete(self, asked: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        waiting, device = self.waiting[self.accounts[asked["AccountID"]]], asked["Result"]["Identifier"]
        (one,) = [one for one in waiting if one["Identifier"] == device]
        waiting.remove(one)
        self.results[device] = asked["Result"]
        return "ConnectCompleteResponse", {}

    def _connectstatus(self, asked: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        found = self.results.get(asked["DeviceID"])
        return "ConnectStatusResponse", {} if found is None else {"Result": found}


def written(value: Any, name: str = "", depth: int = 0) -> str:
    """JSON in the layout of the reference: two spaces, closing brackets behind the last value, and in binary members a
    line feed before each 64 characters."""
    indent = "\n" + "  " * (depth + 1)
    if isinstance(value, dict):
        inner = ",".join(f'{indent}"{key}": {written(one, key, depth + 1)}' for key, one in value.items())
        return "{" + inner + "}"
    if isinstance(value, list):
        return "[" + ("," + indent).join(written(one, name, depth + 1) for one in value) + "]"
    if isinstance(value, str) and name in _BINARY:
        clean = value.replace("\n", "")
        return '"' + "".join("\n" + clean[at : at + 64] for at in range(0, len(clean), 64)) + '"'
    return json.dumps(value, ensure_ascii=False)
