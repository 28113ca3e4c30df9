"""`MemoryPortal` behind HTTP on memory streams: a portal for devices of one trio program, that can misbehave.

    portal = HttpPortal()
    http = portal.client()           # a meshd.net.portal_client.HttpClient that reaches it, whatever the address
    await nursery.start(portal.run)

It checks signatures as a portal does, and holds the answer of an empty feed until there is news. What it does wrong is
said by attributes: `down`, `mute`, `late`, `answers` (raw bodies in place of its own), `clock`.
"""

from __future__ import annotations

import email.utils
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import trio
import trio.testing

from harness.portal_memory import DOMAIN, MemoryPortal
from meshd.errors import FormatError, MeshError, NetworkError
from meshd.net import http as server
from meshd.net.http import Peer, Request, Response
from meshd.net.portal_client import HttpClient
from meshd.portal import codec, decide, headers, httpsig, outcomes, verify
from meshd.portal.codec import Answer, Asked
from meshd.portal.httpsig import Signable
from meshd.portal.outcomes import Accept, Anonymous, Caller, Context, Decision, SignedBy


@dataclass
class HttpPortal:
    """A portal that answers HTTP. `said` are the transactions that it was asked, in order."""

    domain: str = DOMAIN
    down: bool = False  # nothing listens
    mute: bool = False  # it takes requests and never answers
    late: float = 0.0  # seconds that every answer takes
    answers: Callable[[str], Response | None] | None = None  # instead of its own, by transaction
    now: Callable[[], int] = lambda: 1_790_000_000
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.memory = MemoryPortal(policy=outcomes.Policy(self.domain))
        self.nonces = httpsig.NonceCache(0)
        self.dialled: list[str] = []
        self.met: dict[str, Any] = {}  # keys of devices that asked to join, too
        self._serving: list[trio.CancelScope] = []
        self._news = trio.Event()
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    def client(self) -> HttpClient:
        return HttpClient(self.dial)

    async def dial(self, address: str) -> trio.abc.Stream:
        self.dialled.append(address)
        await trio.lowlevel.checkpoint()
        if self.down or self._nursery is None:
            raise NetworkError(f"{address} can't be reached: nothing listens there")
        ours, theirs = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self._serve, theirs)
        return ours

    def go_down(self) -> None:
        """Nothing listens any more, and connections break."""
        self.down = True
        for scope in self._serving:
            scope.cancel()

    async def _serve(self, stream: trio.abc.Stream) -> None:
        with trio.CancelScope() as scope:
            self._serving.append(scope)
            await self._talk(stream)

    async def _talk(self, stream: trio.abc.Stream) -> None:
        await server.serve(stream, self.handle, peer=Peer("tcp", "192.0.2.1:1"))

    async def handle(self, request: Request) -> Response:
        self.memory.now = self.now()
        found = dict(request.headers)
        extensions = headers.read_extensions(found.get("mesh-extensions"))
        try:
            asked = codec.decode_request(request.body, found.get("content-type"), extensions)
        except codec.Undecodable as error:
            return self._written(codec.encode_undecodable(error, "The request can't be read"))
        self.said.append(asked.transaction)
        if self.mute:
            await trio.sleep_forever()
        await trio.sleep(self.late)
        if self.answers is not None and (other := self.answers(asked.transaction)) is not None:
            return other
        told = len(self.memory.notices)
        decision = self._decide(asked, request, found, extensions)
        caller = self._caller  # others are heard while this one waits
        waited = headers.read_wait(found.get("prefer"))
        if isinstance(decision, Accept) and decision.feed is not None and waited:
            with trio.move_on_after(waited):
                await self._news.wait()
                found.pop("signature")  # it was checked
                decision = self._decide(asked, request, found, extensions, caller)
        published = asked.transaction in ("Publish", "CreateAccount", "ConnectComplete")
        if isinstance(decision, Accept) and (published or len(self.memory.notices) > told):
            self._news.set()
            self._news = trio.Event()
        status = decision.status if isinstance(decision, outcomes.Refuse) else 201
        return self._written(codec.encode_response(asked, decision.reply, status=status))

    def _written(self, answer: Answer) -> Response:
        date = email.utils.formatdate(self.now(), usegmt=True)
        return Response(answer.http_status, answer.body, (("content-type", answer.content_type), ("date", date)))

    def _decide(
        self,
        asked: Asked,
        request: Request,
        found: dict[str, str],
        extensions: frozenset[str] | None,
        caller: Caller | None = None,
    ) -> Decision:
        try:
            checked = verify.verify(asked, self.memory, self.domain)
            caller = caller or self._who(checked, request, found)
        except MeshError as error:
            context = Context(Anonymous(), self.memory.now, self.memory.policy, extensions)
            return decide.refusal(asked.transaction, context, error)
        self._caller = caller
        return self.memory.decide(
            asked,
            Context(
                caller,
                self.memory.now,
                self.memory.policy,
                extensions,
                headers.read_languages(found.get("accept-language")),
                headers.read_if_head(found.get("mesh-if-head")),
                fresh="a-random-token",
                account=headers.read_account(found.get("mesh-account")),
            ),
        )

    def _who(self, checked: object, request: Request, found: dict[str, str]) -> Caller:
        presented = httpsig.read(found)
        if presented is None:
            return Anonymous()
        self.met |= verify.introduced(checked)  # type: ignore[arg-type]
        key = self.memory.authentication_key(presented.keyid) or self.met.get(presented.keyid)
        if key is None:
            return Anonymous()
        message = Signable(request.method, found["host"], request.path, found)
        httpsig.check(presented, message, request.body, key, now=self.now())
        if not self.nonces.use(presented, self.now()):
            raise FormatError("a signature that was used before")
        return SignedBy(presented.keyid)


def raw(body: bytes, status: int = 200) -> Response:
    """An answer of these bytes."""
    return Response(status, body, (("content-type", "application/json"),))
