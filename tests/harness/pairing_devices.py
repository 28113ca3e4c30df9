"""Two devices that pair: a founded mesh with its invitations, and one that belongs to none, on a LAN in memory.

    async with pairing(home) as (laptop, desktop):
        shown = await laptop.invitations.create({})
        joining = await desktop.connections.create({"name": "desktop", "code": shown.code, …})

The clock runs as the real one does (writers and key derivation are threads); `clock.jump` passes over what nobody wants
to wait for.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import trio

from harness.devices import PATIENCE, Device, blank, found
from harness.lan import MemoryHost, MemoryLan
from meshd.crypto import certs
from meshd.crypto.keys import SigningKey
from meshd.crypto.sealing import LEAST_KDF
from meshd.daemon import pairing_wire
from meshd.daemon.connecting import Connections
from meshd.daemon.inviting import Invitations
from meshd.daemon.pairing_joiner import Connection
from meshd.daemon.pairing_window import Invitation
from meshd.daemon.pairing_wire import Talk
from meshd.daemon.progress import Progress
from meshd.errors import MeshError
from meshd.localapi.bodies import CONNECTION, INVITATION
from meshd.localapi.shapes import check_answer
from meshd.net import tls
from meshd.net.discovery import PAIR_TYPE, Service
from meshd.pairing import messages
from meshd.pairing.code import parse_code, parse_uri
from meshd.pairing.events import Closed, Event, GuessFailed, Offered, Proven, TryReserved
from meshd.pairing.machine import Host, Joiner
from meshd.profile import connection as connections
from meshd.profile import device as devices
from meshd.profile.device import DeviceKeys

T = TypeVar("T")
SYNC_PORT = 4711
PASSPHRASE = "a passphrase"
MASTER_PASSPHRASE = "master passphrase"


@dataclass
class Pairing:
    """A device with both services."""

    device: Device
    invitations: Invitations = field(init=False)
    connections: Connections = field(init=False)

    def __post_init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """The services anew, as after a restart."""
        device = self.device
        self.invitations = Invitations(
            device.daemon, device.host, lambda: device.siblings.port if device.siblings is not None else SYNC_PORT
        )
        self.connections = Connections(device.daemon, device.host, kdf=LEAST_KDF)

    def follow_sync(self) -> None:
        """Let `connect` wait for the first sync."""
        device = self.device

        def conversations() -> dict[str, Progress]:
            return device.siblings.connections if device.siblings is not None else {}

        self.connections._conversations = conversations

    async def restart(self, nursery: trio.Nursery) -> None:
        """As after a crash: memory is gone, the disk stays."""
        self.device.reopen()
        self.renew()
        await self.start(nursery)

    async def start(self, nursery: trio.Nursery) -> None:
        await nursery.start(self.invitations.run)
        await nursery.start(self.connections.run)

    async def connect(self, shown: Invitation | str, **more: Any) -> Connection:
        """Begin to join with the code of an invitation."""
        code = shown if isinstance(shown, str) else shown.code
        request = {"name": self.device.name, "passphrase": PASSPHRASE} | more
        if "uri" not in request:
            request["code"] = code
        return await self.connections.create({name: value for name, value in request.items() if value is not None})

    async def ended(self, joining: Connection) -> Connection:
        """Wait for the end of joining; what the API would show on the way must fit its shapes."""
        with trio.fail_after(PATIENCE):
            while not joining.ended:
                check_answer(joining.to_json(), CONNECTION)
                await self.connections.wait(joining.id, joining.state, PATIENCE)
        check_answer(joining.to_json(), CONNECTION)
        return joining

    async def reaches(self, shown: Invitation, *states: str) -> Invitation:
        """Wait until an invitation is in one of these states."""
        with trio.fail_after(PATIENCE):
            while shown.state not in states:
                check_answer(shown.to_json(), INVITATION)
                await self.invitations.wait(shown.id, shown.state, PATIENCE)
        check_answer(shown.to_json(), INVITATION)
        return shown


@contextlib.asynccontextmanager
async def pairing(home: Path, *names: str) -> AsyncIterator[tuple[trio.Nursery, list[Pairing]]]:
    """The first device has founded a mesh; the others belong to none. All serve."""
    lan = MemoryLan()
    both = [Pairing(blank(home, lan, name)) for name in names or ("laptop", "desktop")]
    try:
        await found(both[0].device)
        async with trio.open_nursery() as nursery:
            for one in both:
                await one.start(nursery)
            yield nursery, both
            nursery.cancel_scope.cancel()
    finally:
        for one in both:
            one.device.daemon.close()


class Caller:
    """Somebody at a pairing port who does only what a test says."""

    def __init__(self, core: Joiner, stream: tls.TlsStream) -> None:
        self.core = core
        self.talk = Talk(core, stream)

    @classmethod
    async def call(
        cls, host: MemoryHost, shown: Invitation, code: str | None = None, udf: str = "", token: bytes | None = None
    ) -> Caller:
        """Dial the window of an invitation and greet, with its code or another one."""
        uri = parse_uri(shown.uri)
        stream = await tls.wrap_client(await host.dial(uri.addresses[0]), tls.pairing_client_context())
        certificate = tls.peer_certificate(stream)
        assert certificate is not None
        secret = parse_code(code or shown.code).secret
        name = udf or SigningKey.generate(secrets.token_bytes).udf
        core = Joiner(secret, name, certificate, secrets.token_bytes, uri.token if token is None else token)
        core.begin()
        return cls(core, stream)

    async def event(self) -> Event:
        with trio.fail_after(PATIENCE):
            return await self.talk.next()

    async def until(self, kind: type[T]) -> T:
        """The next event of a kind; others are passed over."""
        while not isinstance(event := await self.event(), kind):
            assert not isinstance(event, Closed), "the conversation ended"
        return event

    async def guess(self) -> Event:
        """Try the code; what came of it."""
        while isinstance(event := await self.event(), (Offered, TryReserved)):
            pass
        await self.talk.part()
        return event


def other_code(shown: Invitation, number: int = 0) -> str:
    """A code of the same slot that is not the right one."""
    words = [word for word in ("walnut", "orbit", "wealthy", "academic") if word not in shown.code]
    return f"{shown.slot}-{words[number % len(words)]}-{words[(number + 1) % len(words)]}"


class Liar(Host):
    """A host that claims to know the code."""

    def _judge(self, confirmation: bytes) -> Event:
        self._say(messages.HostProof(bytes(32)))
        return Proven(self.joiner)


class Impostor:
    """Somebody who announces a pairing window of his own. `behave` gets the conversation of each caller."""

    def __init__(
        self,
        host: MemoryHost,
        slot: int,
        behave: Callable[[Talk[Host]], Awaitable[None]],
        code: str | None = None,
        core: type[Host] = Host,
        instance: str = "impostor",
    ) -> None:
        self.certificate, self._key = certs.ephemeral_certificate(secrets.token_bytes)
        self.calls = 0
        self._core = core
        self._host, self._slot, self._behave, self._instance = host, slot, behave, instance
        self._code = parse_code(code or f"{slot}-academic-walnut")

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            port = await nursery.start(self._host.serve, self._take)
            txt = {"v": b"1", "s": str(self._slot).encode(), "at": b"AAAAAAAAAAA"}
            await self._host.discovery.announce("pair", Service(PAIR_TYPE, self._instance, port, txt))
            task_status.started()

    async def _take(self, stream: trio.abc.Stream, address: str) -> None:
        self.calls += 1
        trust = tls.pairing_server_context(self.certificate, self._key)
        secured = await tls.wrap_server(stream, trust)
        core = self._core(self._code.secret, self.certificate, secrets.token_bytes, self._slot, 3, 300, None)
        talk = Talk(core, secured)
        try:
            await self._behave(talk)
        except MeshError:
            pass  # the other side hung up, as it should
        await talk.part(hear_out=True)


async def listen(talk: Talk[Host]) -> None:
    """Take part up to the first wrong guess or the proof, and no further."""
    while not isinstance(await talk.next(), (GuessFailed, Proven, Closed)):
        pass
    await talk.flush()


async def relay(left: trio.abc.Stream, right: trio.abc.Stream) -> None:
    """Carry bytes both ways until one side ends."""
    async with trio.open_nursery() as nursery:

        async def carry(source: trio.abc.Stream, target: trio.abc.Stream) -> None:
            try:
                while data := await source.receive_some(65536):
                    await target.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            nursery.cancel_scope.cancel()

        nursery.start_soon(carry, left, right)
        nursery.start_soon(carry, right, left)
    await trio.aclose_forcefully(left)
    await trio.aclose_forcefully(right)


async def asks_for(caller: Caller, keys: DeviceKeys, mesh: str, token: str, signer: DeviceKeys | None = None) -> None:
    """A request made by hand."""
    profile = devices.create(keys, 1_800_000_000, secrets.token_bytes)
    request = connections.write_request((signer or keys).dsk, profile, mesh, token)
    caller.core.request(pairing_wire.write_start(request, unsealed=False), "by hand")
    await caller.talk.flush()


def names(one: Pairing) -> dict[str, str]:
    """What the devices are called, as this one reads it."""
    daemon = one.device.daemon
    return pairing_wire.device_names(daemon.reader.connection, daemon.unlocked())


def own(one: Pairing) -> str:
    """The UDF under which a device is in its mesh."""
    return one.device.daemon.snapshot.own


def announced(one: Pairing) -> list[Service]:
    """The pairing windows that a device announces now."""
    return [seen for seen in one.device.host.discovery.announced.values() if seen.service_type == PAIR_TYPE]


def said(error: MeshError | None, kind: type[MeshError], *words: str) -> None:
    """Check what a person reads."""
    assert type(error) is kind, repr(error)
    assert all(word in str(error) for word in words), str(error)
