"""A portal and its mirror in one trio program: true stores and services, HTTP over memory streams, and a liar between.

async with world(home) as found:
    await found.write(5)                  # entries of a person at the portal
    await found.mirror.once()             # the mirror comes to where the log is
    found.tamper = lambda name, response: …     # what the portal answers becomes this
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import trio
import trio.testing

from harness.portal_engine import DOMAIN, Engine
from harness.portal_people import Person
from meshd.daemon.portal import mirrored
from meshd.daemon.portal.config import Limits
from meshd.daemon.portal.http import Request, Response, Server
from meshd.daemon.portal.limits import Buckets
from meshd.daemon.portal.metrics import Metrics
from meshd.daemon.portal.mirror import Mirror
from meshd.daemon.portal.origin import Origin
from meshd.daemon.portal.sequencer import Sequencer
from meshd.daemon.portal.service import Service
from meshd.errors import NetworkError
from meshd.net.portal_client import HttpClient
from meshd.net.srv import Found, Services
from meshd.portal import codec
from meshd.portal.outcomes import Policy
from meshd.portal.structures import Structure
from meshd.tlog.note import Verifier

ORIGIN = f"{DOMAIN}/mmm-log"
NAME = "mirror.example"
_RATES = [name for name in Limits.__struct_fields__ if "_per_" in name]
Tamper = Callable[[str, Structure], Structure]


async def no_dns(name: str) -> Found:
    return Found()


@dataclass
class Served:
    """A portal that answers on memory streams, whatever address is dialled."""

    service: Service
    nursery: trio.Nursery
    down: bool = False
    tamper: Tamper | None = None
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._server = Server(self._handle)

    async def dial(self, address: str) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        if self.down:
            raise NetworkError(f"{address} can't be reached: nothing listens there")
        ours, theirs = trio.testing.memory_stream_pair()
        self.nursery.start_soon(self._server.serve, theirs, "127.0.0.1", "127.0.0.1")
        return ours

    def client(self) -> HttpClient:
        return HttpClient(self.dial)

    async def _handle(self, request: Request) -> Response:
        answer = await self.service.handle(request)
        if not request.body.startswith(b"{"):
            return answer
        asked = codec.decode_request(request.body, request.headers.get("content-type"), frozenset())
        self.said.append(asked.transaction)
        if self.tamper is None:
            return answer
        told = codec.decode_response(answer.body, asked.transaction, answer.content_type)
        changed = self.tamper(asked.transaction, told)
        tree = {type(changed).__name__: codec.message_tree(changed)}
        return Response(answer.status, codec._write(tree, codec.JSON, plain=False), codec.JSON, answer.headers)


def served(
    sequencer: Sequencer, nursery: trio.Nursery, mirror: Mirror | None = None, hosts: tuple[str, ...] = ()
) -> Served:
    free = Limits(**dict.fromkeys(_RATES, 0))
    service = Service(sequencer, Policy(DOMAIN), buckets=Buckets(free), metrics=Metrics(), mirror=mirror, hosts=hosts)
    return Served(service, nursery)


@dataclass
class World:
    home: Path
    nursery: trio.Nursery
    portal: Sequencer
    served: Served
    identity: mirrored.Identity
    store: Path  # of the mirror
    mirroring: Sequencer
    mirror: Mirror
    progress: Callable[[int, int], None] = lambda done, total: None
    people: dict[str, Person] = field(default_factory=dict)
    keys: tuple[Verifier, ...] = ()

    @property
    def engine(self) -> Engine:
        return Engine(self.portal, int(time.time()))

    async def write(self, count: int, name: str = "alice") -> Person:
        """So many more entries of a person, an account for who has none."""
        person, engine = self.people.get(name), self.engine
        if person is None:
            person = self.people[name] = Person(name)
            await engine.open(person)
            count -= 1
            if count > 0:
                await engine.publish(person, person.container())
                count -= 1
        for number in range(count):
            assert (await engine.publish(person, person.item(f"secret {number}"))).status == 201
        return person

    async def replace_portal(self, path: Path) -> None:
        """Another store answers in the portal's name."""
        self.portal.close()
        self.portal = Sequencer(path, domain=DOMAIN)
        self.served.service.sequencer = self.portal
        await self.grant()

    async def grant(self, what: str = "full") -> None:
        key = self.identity.peer.key
        values = (key.udf, key.verify_key.public, what, NAME)
        await self.portal.change(
            lambda connection: connection.execute("INSERT OR REPLACE INTO peers VALUES (?, ?, ?, ?)", values)
        )

    def restart(self, store: Path | None = None, fault: Callable[[str], None] | None = None) -> None:
        """The mirror's process ends and another begins."""
        self.mirroring.close()
        self.store = store or self.store
        self.mirroring = Sequencer(self.store, create=False, fault=fault)
        self.mirror = self._made()

    def _made(self) -> Mirror:
        origin = Origin(
            self.served.client(), Services(no_dns), DOMAIN, self.identity.peer.key, address="origin.example.net:80",
            plain=True, now=lambda: int(time.time()),
        )  # fmt: skip
        return Mirror(
            self.mirroring, origin, self.identity, keys=self.keys,
            progress=lambda done, total: self.progress(done, total),
        )  # fmt: skip


@contextlib.asynccontextmanager
async def world(home: Path, *, granted: str = "full") -> AsyncIterator[World]:
    """A portal that grants its log to a mirror which has nothing yet."""
    (home / "portal").mkdir()
    (home / "mirror").mkdir()
    portal = Sequencer(home / "portal" / "portal.db", domain=DOMAIN)
    made: World | None = None
    try:
        async with trio.open_nursery() as nursery:
            store = home / "mirror" / "portal.db"
            identity = mirrored.prepare(store, ORIGIN, NAME, int(time.time()))
            mirroring = Sequencer(store, create=False)
            made = World(home, nursery, portal, served(portal, nursery), identity, store, mirroring, None)  # type: ignore[arg-type]
            made.mirror = made._made()
            if granted:
                await made.grant(granted)
            yield made
            nursery.cancel_scope.cancel()
    finally:
        for one in (made.portal, made.mirroring) if made is not None else (portal,):
            one.close()


def asked_by(served_: Served, transaction: str) -> int:
    return served_.said.count(transaction)
