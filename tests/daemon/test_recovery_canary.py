"""What recovery shares protect is in no file, no log, and in no byte that leaves a process but where a person put it.

Every stream is traced while shares are made, tried, rehearsed and used: what goes over the LAN, as it goes and before
TLS hides it; what goes to the portal and back; and the Unix socket. On that one the words and passphrases of a request
are what the person gave, and the answer that tells new shares has words: these two may hold them, and nothing else.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from harness import devices as harness
from harness.lan import MemoryLan
from harness.local_api import Device as Api
from harness.local_api import good
from harness.portal_http import HttpPortal
from harness.whole import alive
from meshd.profile import recovery, shares, version
from meshd.profile.claim import Kind, Role
from meshd.store import versions

pytestmark = pytest.mark.draft("Master profile recovery")

RECOVERY = "/v1/recovery"
MASTER, LATER, LATEST = "canary-master-1", "canary-master-2", "canary-master-3"
SPLIT, DEVICE = "canary-of-shares", "canary-of-a-device"
ACCOUNT = "alice@example.net"


@dataclass
class Traces:
    """What was sent, by stream: `lan` and `portal` as it is on the wire, `inside` before TLS, `unix` both ways."""

    sent: dict[str, dict[int, bytearray]] = field(default_factory=dict)
    _streams: list[object] = field(default_factory=list)  # so that no number stands for two

    def install(self, patch: pytest.MonkeyPatch) -> None:
        for kind, where in (
            ("wire", trio.testing.MemorySendStream),
            ("inside", trio.SSLStream),
            ("unix", trio.SocketStream),
        ):
            patch.setattr(where, "send_all", self._tapped(kind, where.send_all))

    def _tapped(self, kind: str, send_all: Any) -> Any:
        async def tapped(stream: Any, data: bytes) -> None:
            self._streams.append(stream)
            self.sent.setdefault(kind, {}).setdefault(id(stream), bytearray()).extend(data)
            await send_all(stream, data)

        return tapped

    def of(self, *kinds: str) -> list[bytes]:
        return [bytes(data) for kind in kinds for data in self.sent[kind].values()]

    def requests(self) -> list[bytes]:
        return [data for data in self.of("unix") if not data.startswith(b"HTTP/1.1 ")]

    def answers(self) -> list[bytes]:
        return [data for data in self.of("unix") if data.startswith(b"HTTP/1.1 ")]


def spellings(secret: bytes) -> set[bytes]:
    """How bytes may stand in what is sent or stored."""
    plain = base64.b64encode(secret).rstrip(b"=")
    return {
        secret,
        plain,
        plain.translate(bytes.maketrans(b"+/", b"-_")),
        secret.hex().encode(),
        secret.hex().upper().encode(),
    }


def runs(words: str) -> set[bytes]:
    """Every four words in a row: the first words of all shares of a set are alike, and say nothing."""
    listed = words.split()
    return {" ".join(listed[at : at + 4]).encode() for at in range(4, len(listed) - 3)}


def leaks(secrets: Iterable[bytes], texts: Iterable[bytes]) -> list[bytes]:
    held = list(texts)
    return [secret for secret in secrets if any(secret in text for text in held)]


async def test_no_secret_of_a_recovery_is_in_any_file_or_log_or_goes_where_it_should_not(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    traces = Traces()
    traces.install(monkeypatch)
    lan, portal = MemoryLan(), HttpPortal(now=lambda: int(time.time()))
    laptop, nas, second, third = (harness.blank(home, lan, name) for name in ("laptop", "nas", "second", "third"))
    try:
        master = await harness.found(laptop)
        await harness.admit(laptop, nas, Role.RELAY, master)
        async with trio.open_nursery() as nursery:
            await nursery.start(portal.run)
            async with alive(laptop, portal) as api, alive(nas, portal):
                changed = {"master_passphrase": "master passphrase", "new": MASTER}
                good(await api.ask("PUT", "/v1/master/passphrase", changed))
                await api.add("github.com")
                good(await api.ask("POST", "/v1/portals", {"account": ACCOUNT, "plain": True}))
                wish = {"master_passphrase": MASTER, "threshold": 2, "shares": 3, "share_passphrase": SPLIT}
                told = await api.post(f"{RECOVERY}/shares", wish)
                await api.post(f"{RECOVERY}/commit", {"token": told["token"], "master_passphrase": MASTER})
                words = [share["words"] for share in told["shares"]]
                for one in words:
                    assert (await api.post(f"{RECOVERY}/check", words=one))["current"]
                    await api.post(f"{RECOVERY}/check", words=one.replace(one.split()[9], "zzz", 1))
                await laptop.until_same(nas)
                rehearsal = await _rehearse(api, words)
                assert {one["kind"]: one["what"] for one in rehearsal["sources"]} == {
                    "device": "found",
                    "portal": "found",
                    "peer": "found",
                }
                await api.get(RECOVERY)
                await api.get("/v1/status")
                restore = {"shares": words[1:], "share_passphrase": SPLIT, "passphrase": DEVICE, "check": told["check"]}
                assert nas.siblings is not None
                there = {"lan": True, "address": f"{nas.host.ip}:{nas.siblings.port}", "master_passphrase": LATER}
                async with alive(second, portal) as api:
                    assert (await api.post(f"{RECOVERY}/restore", restore | there | {"name": "second"}))["missing"] == 0
                there = {"account": ACCOUNT, "plain": True, "master_passphrase": LATEST}
                async with alive(third, portal) as api:
                    assert (await api.post(f"{RECOVERY}/restore", restore | there | {"name": "third"}))["missing"] == 0
                    assert (await api.lookup("github.com")).body["password"] == "s3cret"
                    log = str(await api.events(since=0))
            nursery.cancel_scope.cancel()

        key = shares.combine([shares.read(one) for one in words[:2]], SPLIT)
        entry = versions.of_entry(laptop.daemon.reader.connection, Kind.OFFLINE_ESCROW, shares.identifier(key))[0]
        raw = versions.raw(laptop.daemon.reader.connection, entry.vid)
        assert raw is not None
        opened = recovery.open_entry(version.parse(raw), key)
        assert opened.master.private == master.private
        keys = {
            one for secret in (key, master.private, *(k.private for k in opened.escrow)) for one in spellings(secret)
        }
        typed = {one.encode() for one in (MASTER, LATER, LATEST, SPLIT, DEVICE)}
        read = {run for one in words for run in runs(one)}

        # The traces hold what went: the entry as it is before TLS, and what the person typed.
        assert any(raw in text for text in traces.of("inside"))
        assert any(shares.identifier(key).encode() in text for text in traces.of("wire"))  # asked of the portal
        assert leaks(typed, traces.requests()) and leaks(read, traces.requests())

        assert not leaks(keys | typed | read, traces.of("wire", "inside"))
        assert not leaks(keys, traces.of("unix"))
        assert not leaks(typed, traces.answers())
        telling = [text for text in traces.answers() if leaks(read, [text])]
        assert len(telling) == 1  # the answer that tells the new shares
        assert not leaks(keys | typed | read, [caplog.text.encode(), log.encode()])
        files = [path for path in home.rglob("*") if path.is_file()]
        assert len(files) > 8
        assert not [path for path in files if leaks(keys | typed | read, [path.read_bytes()])]
    finally:
        for device in (laptop, nas, second, third):
            device.daemon.close()


async def _rehearse(api: Api, words: list[str]) -> dict[str, Any]:
    for one in words[:2]:
        await api.post(f"{RECOVERY}/drill/shares", words=one)
    return await api.post(f"{RECOVERY}/drill", share_passphrase=SPLIT)
