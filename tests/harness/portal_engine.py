"""A portal's sequencer on a disk, asked the whole way through the codec, without HTTP.

with engine(path) as portal:
    await portal.open(alice)
    reply = await portal.publish(alice, alice.item("one"))
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.portal_people import NOW, Person, tagged
from meshd.crypto.keys import SigningKey
from meshd.daemon.portal.sequencer import Sequencer
from meshd.portal import codec, verify
from meshd.portal import messages as m
from meshd.portal.checked import Create, Publish
from meshd.portal.codec import JSON, Dialect
from meshd.portal.messages import Request, Response
from meshd.portal.outcomes import Anonymous, Caller, Context, PeerPortal, Policy, SignedBy
from meshd.profile.version import Version
from meshd.tlog.note import Verifier

DOMAIN = "example.net"
PEER = SigningKey.generate(lambda length: bytes(range(length)))
EXTENSIONS = frozenset({"log", "batch"})


@dataclass
class Engine:
    sequencer: Sequencer
    now: int = NOW

    async def ask(
        self, transaction: str, message: Request, by: Caller | None = None, extensions: frozenset[str] = EXTENSIONS
    ) -> Response:
        body = codec.encode_request(transaction, message, Dialect.OURS)
        asked = codec.decode_request(body, JSON, extensions)
        checked = verify.verify(asked, self.sequencer.view, DOMAIN)
        context = Context(by or Anonymous(), self.now, Policy(DOMAIN), extensions)
        if isinstance(checked, Create | Publish):
            decision = await self.sequencer.decide(checked, context, "")
        else:
            decision = self.sequencer.read(checked, context)
        answer = codec.encode_response(asked, decision.reply, status=int(decision.status))
        return codec.decode_response(answer.body, transaction, answer.content_type)

    async def open(self, who: Person) -> m.CreateResponse:
        message = m.CreateRequest(account=f"{who.name}@{DOMAIN}", profile=tagged(who.root))
        reply = await self.ask("CreateAccount", message, SignedBy(who.first.dak))
        assert isinstance(reply, m.CreateResponse) and reply.status == 201
        return reply

    async def publish(self, who: Person, *entries: Version) -> m.PublishResponse:
        if len(entries) == 1:
            message = m.PublishRequest(entry=tagged(entries[0]))
        else:
            message = m.PublishRequest(entries=[tagged(one) for one in entries])
        reply = await self.ask("Publish", message, SignedBy(who.first.dak))
        assert isinstance(reply, m.PublishResponse)
        return reply

    async def status(self, **members: object) -> m.StatusResponse:
        reply = await self.ask("Status", m.StatusRequest(**members))  # type: ignore[arg-type]
        assert isinstance(reply, m.StatusResponse)
        return reply

    async def transfer(self, **members: object) -> m.TransferResponse:
        reply = await self.ask("Transfer", m.TransferRequest(**members), PeerPortal(PEER.udf))  # type: ignore[arg-type]
        assert isinstance(reply, m.TransferResponse)
        return reply

    async def grant(self, what: str = "full") -> None:
        values = (PEER.udf, PEER.verify_key.public, what, "peer.example")
        await self.sequencer.change(
            lambda connection: connection.execute("INSERT OR REPLACE INTO peers VALUES (?, ?, ?, ?)", values)
        )

    @property
    def logs(self) -> list[Verifier]:
        assert self.sequencer.log is not None
        return self.sequencer.log.verifiers


@contextlib.contextmanager
def engine(path: Path, *, fault: Callable[[str], None] | None = None, now: int = NOW) -> Iterator[Engine]:
    sequencer = Sequencer(path, domain=DOMAIN, fault=fault)
    try:
        yield Engine(sequencer, now)
    finally:
        sequencer.close()
