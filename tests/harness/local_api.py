"""One daemon with its local API on a real socket, and a client that holds every answer against its route's shape."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from harness import devices
from meshd.crypto.sealing import LEAST_KDF
from meshd.daemon import api
from meshd.daemon.api import App
from meshd.daemon.config import Config
from meshd.daemon.context import Daemon, open_daemon
from meshd.daemon.paths import prepare, resolve
from meshd.daemon.progress import Progress
from meshd.daemon.siblings import Sibling
from meshd.localapi import bodies
from meshd.localapi.http import AnswerReader, quote, request
from meshd.localapi.http import target as targeted
from meshd.localapi.routes import find
from meshd.localapi.shapes import check_answer
from meshd.net.lan import Network

NOW = 1_800_000_000_000  # 2027, in milliseconds
PASSPHRASE = "device secret"
MASTER = "master secret"
Json = dict[str, Any]


@dataclass
class StandInSiblings:
    """Who is connected, as a test says."""

    port: int = 0
    connections: dict[str, Progress] = field(default_factory=dict)
    known: dict[str, Sibling] = field(default_factory=dict)
    lies: dict[str, tuple[int, float]] = field(default_factory=dict)

    def addresses(self, udf: str) -> list[str]:
        return []


@dataclass(frozen=True)
class Answer:
    status: int
    body: Json

    @property
    def code(self) -> str:
        """The code of an error."""
        found: str = self.body["error"]["code"]
        return found


class Device:
    """A daemon that listens. Its clock moves a second at every look."""

    def __init__(self, app: App) -> None:
        self.app = app

    @property
    def daemon(self) -> Daemon:
        return self.app.daemon

    @property
    def socket(self) -> Path:
        return self.daemon.paths.socket

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: Mapping[str, object] | None = None,
        raw: bytes | None = None,
    ) -> Answer:
        """One request, whatever comes of it. `raw` is sent instead of what the other arguments would make."""
        target = targeted(path, dict(query or {}))
        data = await self.exchange(request(method, target, body) if raw is None else raw)
        answer = Answer(data.status, data.json())  # type: ignore[arg-type]
        assert answer.body.get("schema") == 1
        if raw is None and answer.status < 400:
            match = find(method, target)
            assert answer.status == match.route.status
            check_answer(answer.body, match.route.answer)
        elif answer.status >= 400:
            check_answer(answer.body, bodies.ERROR)
        return answer

    async def exchange(self, data: bytes) -> AnswerReader:
        """Send bytes as they are and read one whole answer."""
        reader = AnswerReader()
        async with await trio.open_unix_socket(self.socket) as stream:
            with contextlib.suppress(trio.BrokenResourceError):  # refused in the middle: the answer says why
                await stream.send_all(data)
            while not reader.done:
                reader.feed(bytes(await stream.receive_some(65536)))
        return reader

    async def get(self, path: str, **query: object) -> Json:
        return good(await self.ask("GET", path, query=query))

    async def post(self, path: str, body: object = None, **members: object) -> Json:
        return good(await self.ask("POST", path, body if body is not None else members))

    async def init(self, name: str = "laptop", **members: object) -> Json:
        body = {"name": name, "passphrase": PASSPHRASE, "master_passphrase": MASTER} | members
        return good(
            await self.ask("POST", "/v1/mesh", {key: value for key, value in body.items() if value is not None})
        )

    async def add(self, site: str, username: str = "alice", password: str = "s3cret", **members: object) -> str:
        """Add a login; its id."""
        body = {"application": "password", "sites": [site], "username": username, "password": password, **members}
        found: str = good(await self.ask("POST", "/v1/items", body))["id"]
        return found

    async def item(self, identifier: str) -> Json:
        return good(await self.ask("GET", item_path(identifier)))

    async def lookup(self, site: str, **members: object) -> Answer:
        return await self.ask("POST", "/v1/items/lookup", {"application": "password", "site": site, **members})

    async def events(self, **query: object) -> list[Json]:
        """What `events` tells until it ends by itself."""
        return [line async for line in self.follow(follow=False, **query)]

    async def follow(self, **query: object) -> AsyncGenerator[Json, None]:
        """The lines of `events` as they come."""
        reader = AnswerReader()
        async with await trio.open_unix_socket(self.socket) as stream:
            await stream.send_all(request("GET", targeted("/v1/events", dict(query))))
            while not reader.done:
                reader.feed(bytes(await stream.receive_some(65536)))
                for line in reader.lines():
                    assert isinstance(line, dict)
                    check_answer(line, bodies.EVENT)
                    yield line


def good(answer: Answer) -> Json:
    """The body of an answer that is no error."""
    assert answer.status < 400, answer
    return answer.body


def item_path(identifier: str) -> str:
    return f"/v1/items/{quote(identifier)}"


def ticking(start: int = NOW) -> Callable[[], int]:
    """A clock in milliseconds that nobody waits for."""
    count = itertools.count(start, 1000)
    return lambda: next(count)


@contextlib.asynccontextmanager
async def running(
    home: Path,
    rng: Callable[[int], bytes],
    *,
    config: Config | None = None,
    network: Network | None = None,
    siblings: StandInSiblings | None = None,
    clock: Callable[[], int] | None = None,
    **parts: Any,
) -> AsyncIterator[Device]:
    """A daemon on `home`, cheap to unlock, while the block runs."""
    paths = resolve(str(home), {})
    prepare(paths)
    daemon = open_daemon(config or Config(), paths, rng=rng, now_ms=clock or ticking())
    try:
        app = App(daemon, siblings, network, kdf=LEAST_KDF, master_kdf=LEAST_KDF, **parts)
        async with trio.open_nursery() as nursery:
            await nursery.start(api.serve, app, paths.socket)
            yield Device(app)
            nursery.cancel_scope.cancel()
    finally:
        daemon.close()


@contextlib.asynccontextmanager
async def serving(device: devices.Device, **parts: Any) -> AsyncIterator[Device]:
    """The local API of a device of `harness.devices.mesh`, while the block runs."""
    siblings = device.siblings or StandInSiblings()
    app = App(device.daemon, siblings, device.host, kdf=LEAST_KDF, master_kdf=LEAST_KDF, **parts)
    async with trio.open_nursery() as nursery:
        await nursery.start(api.serve, app, device.daemon.paths.socket)
        yield Device(app)
        nursery.cancel_scope.cancel()


def shown(value: object) -> str:
    """Everything that an answer says, as text to search."""
    return json.dumps(value, ensure_ascii=False)
