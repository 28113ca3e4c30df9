"""A daemon for tests of meshctl: the local API on a Unix socket with a mesh in memory, in threads, without trio.

It dispatches by the same table as the real one and checks its own answers against the shapes, strictly. What a person
on another device would do is scripted: `invitation_script`, `connection_script`.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

from harness.fake_admin import FakeAdmin, vault
from harness.fake_pairing import FakePairing
from meshd import __version__
from meshd.errors import (
    Ambiguous,
    BadRequest,
    Denied,
    Exists,
    Locked,
    MeshError,
    NotConnected,
    NotFound,
    NotSynced,
    WrongPassphrase,
)
from meshd.localapi import API, HOST
from meshd.localapi.errors import error_body, http_status, with_details
from meshd.localapi.http import chunk, decode_body, envelope, response, stream_head
from meshd.localapi.routes import CONNECTED, RUNNING, UNLOCKED, Match, check_body, find
from meshd.localapi.shapes import check

NOW = "2026-11-24T06:41:00Z"
MESH = "MB2GK-6DUF5-YGYYL-JNY5E-RWSHZ"
LAPTOP = "MDLAP-TOPAA-AAAAA-AAAAA-AAAAA"
DESKTOP = "MDDES-KTOPB-BBBBB-BBBBB-BBBBB"


@dataclass
class FakeDaemon(FakeAdmin, FakePairing):
    """`with FakeDaemon(path) as daemon:` listens on `path`. Every attribute may be changed while it runs."""

    path: str
    mesh: bool = True
    locked: bool = False
    passphrase: str | None = "device secret"
    master: str = "master secret"
    api: int = API
    version: str = __version__
    health: list[dict[str, Any]] = field(default_factory=list)
    peers: list[dict[str, Any]] = field(default_factory=list)
    items: dict[str, dict[str, Any]] = field(default_factory=dict)
    devices: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    invitation_script: list[dict[str, Any]] = field(default_factory=list)
    connection_script: list[dict[str, Any]] = field(default_factory=list)
    synced: bool = True
    late: float = 0  # seconds between bind and listen
    fail: MeshError | None = None  # raised by every request
    raw: bytes | None = None  # sent instead of any answer
    requests: list[tuple[str, str, Any]] = field(default_factory=list)  # route name, target, body
    deleted: list[str] = field(default_factory=list)  # resources given up
    answers: list[bool] = field(default_factory=list)  # to "admit it?"
    polled: threading.Event = field(default_factory=threading.Event)  # somebody waits for a resource
    announcements: list[dict[str, Any]] = field(default_factory=list)
    stale: int = 0
    drafting: bool = False  # no key is fit for a write
    removed: list[str] = field(default_factory=list)  # names of devices
    vaults: list[dict[str, Any]] = field(default_factory=lambda: [vault(), vault("ssh", "ssh")])
    exposed: list[dict[str, Any]] = field(default_factory=list)
    quarantine: list[dict[str, Any]] = field(default_factory=list)
    fell: list[dict[str, Any]] = field(default_factory=list)
    lost: list[dict[str, Any]] = field(default_factory=list)
    changes: list[dict[str, Any]] = field(default_factory=list)
    undone: list[dict[str, Any]] = field(default_factory=list)
    adds: list[dict[str, Any]] = field(default_factory=list)
    left: list[dict[str, Any]] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)
    offline: bool = False
    wiped: bool = False

    def __enter__(self) -> Self:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        if not self.late:
            self._listener.listen()
        self._stopped = threading.Event()
        self._resources: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {}
        if not self.devices:
            self.devices = [device(LAPTOP, "laptop", "admin", this=True), device(DESKTOP, "desktop", "member")]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()
        os.unlink(self.path)

    # ---- the socket

    def _accept(self) -> None:
        if self.late:
            self._stopped.wait(self.late)
            self._listener.listen()
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(link,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, link: socket.socket) -> None:
        with link, link.makefile("rb") as file:
            method, target, *_ = file.readline().decode().split()
            headers = {}
            while (line := file.readline()) not in (b"\r\n", b""):
                name, _, value = line.decode().partition(":")
                headers[name.lower()] = value.strip()
            body = file.read(int(headers.get("content-length", "0")))
            try:
                if self.raw is not None:
                    link.sendall(self.raw)
                elif headers.get("host") != HOST:
                    raise Denied("the Host header must be meshd")
                else:
                    for part in self._answer(method, target, body):
                        link.sendall(part)
            except MeshError as exc:
                link.sendall(response(http_status(exc), error_body(exc), version=self.version))
            except (BrokenPipeError, ConnectionResetError):
                pass

    def _answer(self, method: str, target: str, data: bytes) -> Iterator[bytes]:
        match = find(method, target)
        body = check_body(match.route, decode_body(data))
        self.requests.append((match.route.name, target, body))
        if self.fail is not None:
            raise self.fail
        if match.route.needs != RUNNING and not self.mesh:
            raise NotConnected
        if match.route.needs == UNLOCKED and self.locked:
            raise Locked
        assert match.route.needs in (RUNNING, CONNECTED, UNLOCKED)
        handler: Callable[[Match, Any], Any] = getattr(self, "do_" + match.route.name.replace("-", "_"))
        if match.route.stream:
            yield stream_head(version=self.version)
            for event in handler(match, body):
                yield chunk(b"\n" if event is None else json.dumps(event).encode() + b"\n")
            yield chunk(b"")
            return
        answer = check(handler(match, body), match.route.answer, strict=True, error=AssertionError)  # type: ignore[arg-type]
        whole = response(match.route.status, envelope(answer), version=self.version)
        yield whole.replace(b"Meshd-Api: %d" % API, b"Meshd-Api: %d" % self.api)

    # ---- the routes

    def do_version(self, match: Match, body: Any) -> Any:
        return {"version": self.version, "api": self.api}

    def do_status(self, match: Match, body: Any) -> Any:
        return {
            "mesh": MESH if self.mesh else None,
            "device": {"id": LAPTOP, "name": "laptop", "role": "admin"} if self.mesh else None,
            "locked": self.locked,
            "peers": self.peers,
            "portals": [],
            "conflicts": sum(bool(item["conflicts"]) for item in self.items.values()),
            "health": self.health,
            "items": {"password": len(self.items)},
            "listening": ["127.0.0.1:4711"],
            "discovery": {"state": "on", "interfaces": ["lo"]},
            "events": len(self.events),
            "uptime": 4.5,
            "version": self.version,
            "api": self.api,
            "announcements": self.announcements,
            "drafts": sum(bool(item.get("pending")) for item in self.items.values()),
            "stale": self.stale,
        }

    def do_whoami(self, match: Match, body: Any) -> Any:
        return {
            "mesh": MESH,
            "device": {"id": LAPTOP, "name": "laptop", "role": "admin"},
            "fingerprint_words": "orbit walnut",
        }

    def do_init(self, match: Match, body: Any) -> Any:
        if self.mesh:
            raise Exists("this device is in a mesh already")
        if body.get("no_passphrase") and not body.get("force"):
            raise Denied("a device without a passphrase can't be admin", hint="--force")
        self.mesh, self.passphrase, self.master = True, body.get("passphrase"), body["master_passphrase"]
        return {"mesh": MESH, "device": {"id": LAPTOP, "name": body["name"], "role": "admin"}}

    def do_lock(self, match: Match, body: Any) -> Any:
        self.locked = True
        return {"locked": True}

    def do_unlock(self, match: Match, body: Any) -> Any:
        if "passphrase" not in body and self.passphrase is not None:
            raise Locked("A passphrase is needed to unlock this device.")
        if body.get("passphrase") != self.passphrase:
            raise WrongPassphrase
        self.locked = False
        return {"locked": False}

    def do_passphrase(self, match: Match, body: Any) -> Any:
        if body.get("old") != self.passphrase:
            raise WrongPassphrase
        self.passphrase = body.get("new")
        return {"changed": True}

    def do_phrase(self, match: Match, body: Any) -> Any:
        return {"phrase": " ".join(["acid", "beam", "civil", "dive", "echo", "fact", "glen"][: body.get("words", 6)])}

    def do_devices(self, match: Match, body: Any) -> Any:
        return {"devices": self.devices}

    def _device(self, name: str) -> dict[str, Any]:
        found = [one for one in self.devices if name == one["name"] or (len(name) >= 4 and one["id"].startswith(name))]
        if len(found) != 1:
            raise NotFound("there is no such device")
        return found[0]

    def do_device(self, match: Match, body: Any) -> Any:
        return self._device(match.params["device"])

    def do_change_device(self, match: Match, body: Any) -> Any:
        found = self._device(match.params["device"])
        found.update(body)
        return found

    def do_items(self, match: Match, body: Any) -> Any:
        word = str(match.query.get("query", ""))
        found = [summary(item) for item in self.items.values() if word in item["title"]]
        found = [item for item in found if bool(item.get("deleted")) == bool(match.query.get("deleted"))]
        found = [item for item in found if match.query.get("vault", item["vault"]) == item["vault"]]
        begin = int(str(match.query.get("after", 0)))
        end = begin + int(str(match.query.get("limit", 1000)))
        return {"items": found[begin:end], "next": str(end) if end < len(found) else None}

    def do_add_item(self, match: Match, body: Any) -> Any:
        site = (body["sites"] or [""])[0]
        if any(site in old["sites"] and old["username"] == body["username"] for old in self.items.values()):
            raise Exists("there is such a login already", hint=f"run: meshctl password edit {site}")
        added = item(f"vault/{len(self.items)}", site, body["username"], self._password(body))
        added.update({name: body[name] for name in ("note", "totp", "title", "tags", "sites") if name in body})
        added["vault"] = body.get("vault", "vault")
        self.items[added["id"]] = added
        if self.drafting:
            added["pending"] = True
            return {"id": added["id"], "updated": NOW, "pending": True}
        return {"id": added["id"], "updated": NOW}

    def _password(self, body: Any) -> str:
        if "generate" in body:
            return "g" * body["generate"].get("length", 20)
        return str(body.get("password", ""))

    def _item(self, name: str) -> dict[str, Any]:
        if name not in self.items:
            raise NotFound("there is no such item")
        return self.items[name]

    def do_lookup(self, match: Match, body: Any) -> Any:
        found = [one for one in self.items.values() if body["site"] in one["sites"] and not one.get("deleted")]
        if "username" in body:
            found = [one for one in found if one["username"] == body["username"]]
        if "vault" in body:
            found = [one for one in found if one["vault"] == body["vault"]]
        if not found:
            raise NotFound(f"there is no login for {body['site']}")
        if len(found) > 1:
            candidates = [summary(one) for one in found]
            raise with_details(
                Ambiguous("more than one login fits", hint="say which with --username"), candidates=candidates
            )
        return found[0]

    def do_item(self, match: Match, body: Any) -> Any:
        return self._item(match.params["item"])

    def do_change_item(self, match: Match, body: Any) -> Any:
        found = self._item(match.params["item"])
        if "generate" in body:
            found["password"] = self._password(body)
        found.update({name: "" if value is None else value for name, value in body.items() if name != "generate"})
        return {"id": found["id"], "updated": NOW}

    def do_delete_item(self, match: Match, body: Any) -> Any:
        self._item(match.params["item"])["deleted"] = True
        return {"id": match.params["item"], "deleted": True}

    def do_import(self, match: Match, body: Any) -> Any:
        rows = body["text"].splitlines()[1:]
        bad = [
            {"row": place, "reason": "four fields are expected"}
            for place, row in enumerate(rows, 2)
            if row.count(",") != 3
        ]
        counts = {"added": 0 if bad else len(rows), "updated": 0, "unchanged": 0, "duplicates": 0}
        return {**counts, "rejected": bad, "applied": not bad and not body.get("dry_run")}

    def do_generate(self, match: Match, body: Any) -> Any:
        return {"password": self._password({"generate": body})}

    def do_conflicts(self, match: Match, body: Any) -> Any:
        return {"conflicts": [summary(one) for one in self.items.values() if one["conflicts"]]}

    def do_events(self, match: Match, body: Any) -> Iterator[Any]:
        since = match.query.get("since", len(self.events))
        yield None
        yield from (event for event in self.events if event["id"] > since)  # type: ignore[operator]
        if match.query.get("follow", True):
            self.polled.set()
            self._stopped.wait()

    def do_wait(self, match: Match, body: Any) -> Any:
        if not self.mesh:
            raise NotConnected
        if not self.synced:
            raise with_details(NotSynced("desktop is not in step"), pending=["desktop"])
        if match.query.get("peer", "desktop") != "desktop":
            raise BadRequest("there is no such device")
        return {"synced": True}


def device(udf: str, name: str, role: str, *, this: bool = False) -> dict[str, Any]:
    return {"id": udf, "name": name, "role": role, "this": this, "connected": False, "address": None, "last_seen": NOW}


def peer(name: str = "desktop", *, connected: bool = True, behind: int = 0) -> dict[str, Any]:
    about = {"id": DESKTOP, "name": name, "role": "member", "address": "127.0.0.1:4712", "last_seen": NOW}
    return {**about, "connected": connected, "behind": behind}


def item(name: str, site: str, username: str, password: str, *, conflicts: int = 0) -> dict[str, Any]:
    about = {
        "id": name,
        "application": "password",
        "vault": "vault",
        "title": site,
        "sites": [site],
        "username": username,
        "updated": NOW,
        "made": NOW,
        "conflicts": conflicts,
        "device": "laptop",
        "password": password,
        "note": "",
        "totp": "",
    }
    if conflicts:
        about["versions"] = [head(site, username, password, winner=True), head(site, username, "older", winner=False)]
    return about


def head(site: str, username: str, password: str, *, winner: bool) -> dict[str, Any]:
    who = {"vid": "v" * 43, "winner": winner, "device": "laptop" if winner else "desktop", "updated": NOW}
    return {**who, "title": site, "sites": [site], "username": username, "password": password, "note": "", "totp": ""}


def summary(whole: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in whole.items() if name not in ("password", "note", "totp", "versions")}
