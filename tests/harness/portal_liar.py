"""A portal whose operator lies: real portals over real stores, on loopback, with the log's own keys.

    async with lying(home, "laptop", "phone") as den:
        await den.joined()                       # an account, and everybody in step
        await den.restart(den.rewritten(den.honest))   # the same portal, another past
        await den["laptop"].contact()

A store is a directory, so a past is one too: `copied` keeps one, `rewritten` and `dropped` make another of it, as
somebody can who holds the portal's keys. `Past.tell` changes single answers on their way out. Each device is led to one
store (`led`), so two of them may be shown different ones.
"""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import trio

from harness import devices as harness
from harness import local_api
from harness.devices import Device
from harness.lan import MemoryLan
from harness.portal_server import Running, portal_server
from harness.shell import Run, Shell
from meshd.daemon.portal.http import Request, Response
from meshd.daemon.portals.online import Online, online
from meshd.daemon.portals.state import Portal
from meshd.daemon.verifying import verify
from meshd.errors import NetworkError
from meshd.net import lan
from meshd.net.portal_client import HttpClient
from meshd.net.srv import Found, Services
from meshd.portal import codec, headers
from meshd.store import portal_pins, versions
from meshd.store.portal_pins import PinRow

ACCOUNT = "alice@example.net"
Alter = Callable[[str, Any], Any]  # transaction, response → response


async def no_dns(name: str) -> Found:
    return Found()


@dataclass
class Past:
    """A store of the portal, and how answers out of it are changed."""

    directory: Path
    running: Running | None = None
    tell: Alter | None = None
    stop: trio.Event = field(default_factory=trio.Event)
    stopped: trio.Event = field(default_factory=trio.Event)

    @property
    def store(self) -> Path:
        return self.directory / "portal.db"


class One:
    """A device with its services beyond the LAN; it reaches whatever store the den leads it to."""

    def __init__(self, den: Den, device: Device) -> None:
        self.den = den
        self.device = device
        self.past: Past | None = None
        self._streams: list[trio.abc.Stream] = []
        self.online: Online = online(device.daemon, HttpClient(self._dial), Services(no_dns))

    async def _dial(self, address: str) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        if self.past is None or self.past.running is None:
            raise NetworkError(f"{address} can't be reached: nothing listens there")
        self._streams.append(await lan.dial(f"127.0.0.1:{self.past.running.port}"))
        return self._streams[-1]

    async def led(self, past: Past | None) -> None:
        """From now on it reaches this store; None: it is away."""
        self.past = past
        for stream in self._streams:
            await trio.aclose_forcefully(stream)
        self._streams.clear()

    @property
    def portal(self) -> Portal:
        return self.online.portals.running[ACCOUNT]

    @property
    def pin(self) -> PinRow:
        pin = portal_pins.get(self.device.daemon.reader.connection, ACCOUNT)
        assert pin is not None
        return pin

    @property
    def state(self) -> str:
        found: str = self.portal.watch.view()["state"]
        return found

    async def until(self, true: Callable[[], bool]) -> None:
        await self.device.until(true)

    async def in_step(self) -> None:
        await self.until(lambda: ACCOUNT in self.online.portals.running and self.portal.in_step)

    async def contact(self) -> None:
        """One contact: the portal is followed anew, and what it is asked for in that."""
        self.portal.nudge()
        await self.until(lambda: self.portal.caught_up or not isinstance(self.portal.error, NetworkError | None))

    async def meshctl(self, *argv: str) -> Run:
        """The real command on this device."""
        return await trio.to_thread.run_sync(partial(Shell(self.device.home), *argv))

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with local_api.serving(self.device, online=self.online):
            task_status.started()
            await trio.sleep_forever()


@dataclass
class Den:
    home: Path
    nursery: trio.Nursery
    ones: dict[str, One] = field(default_factory=dict)
    honest: Past = field(init=False)
    _count: int = 0

    def __getitem__(self, name: str) -> One:
        return self.ones[name]

    # --- stores -------------------------------------------------------------------------------------------------------

    def _directory(self) -> Path:
        self._count += 1
        made = self.home / f"portal-{self._count}"
        made.mkdir(mode=0o700)
        return made

    async def open(self, past: Past | None = None, **settings: Any) -> Past:
        """Start a portal over this store, or over an empty one."""
        found = past or Past(self._directory())
        found.stop, found.stopped = trio.Event(), trio.Event()
        await self.nursery.start(partial(self._run, found, settings))
        return found

    async def _run(
        self, past: Past, settings: dict[str, Any], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        async with portal_server(past.directory, **settings) as past.running:
            assert past.running is not None
            past.running.portal.server.handler = partial(self._handle, past, past.running.portal.service.handle)
            task_status.started()
            await past.stop.wait()
            past.running = None
        past.stopped.set()

    async def close(self, past: Past) -> None:
        past.stop.set()
        await past.stopped.wait()

    def copied(self, past: Past) -> Past:
        """A backup of a store, running or not."""
        made = Past(self._directory())
        with (
            contextlib.closing(sqlite3.connect(past.store)) as source,
            contextlib.closing(sqlite3.connect(made.store)) as target,
        ):
            source.backup(target)
        return made

    def rewritten(self, past: Past) -> Past:
        """The same entries under a log made anew: other salts, so other leaves."""
        made = self.copied(past)
        _forge(made.store)
        return made

    def rekeyed(self, past: Past) -> Past:
        """The same entries in the hands of somebody who has not the log's keys."""
        made = self.copied(past)
        _forge(made.store, "DELETE FROM log_keys")
        return made

    def dropped(self, past: Past, place: int) -> Past:
        """The same without one entry; what came after it moves up."""
        made = self.copied(past)
        _forge(
            made.store,
            f"DELETE FROM versions WHERE seq = {place}",
            f"UPDATE versions SET seq = -seq WHERE seq > {place}",
            "UPDATE versions SET seq = -seq - 1 WHERE seq < 0",
            "UPDATE sqlite_sequence SET seq = (SELECT max(seq) FROM versions) WHERE name = 'versions'",
        )
        return made

    async def restart(self, past: Past, **settings: Any) -> None:
        """The portal comes back with this past: whoever was led to a store that is closed is led here."""
        for one in {id(one.past): one.past for one in self.ones.values()}.values():
            if one is not None and one.running is not None:
                await self.close(one)
        await self.open(past, **settings)
        for each in self.ones.values():
            await each.led(past)

    # --- answers ------------------------------------------------------------------------------------------------------

    async def _handle(self, past: Past, real: Any, request: Request) -> Response:
        answer: Response = await real(request)
        if past.tell is None or request.target != headers.PATH:
            return answer
        asked = codec.decode_request(
            request.body,
            request.headers.get("content-type"),
            headers.read_extensions(request.headers.get("mesh-extensions")),
        )
        said = codec.decode_response(answer.body, asked.transaction, answer.content_type)
        other = past.tell(asked.transaction, said)
        if other is said:
            return answer
        written = codec.encode_response(asked, other, status=answer.status)
        return Response(answer.status, written.body, written.content_type, answer.headers)

    # --- devices ------------------------------------------------------------------------------------------------------

    async def joined(self) -> None:
        """The first device opens an account; the others learn of it, and all are in step with the portal."""
        first, *others = self.ones.values()
        await first.online.portals.add(ACCOUNT, "", None, plain=True)
        await first.in_step()
        for other in others:
            await give(first.device, other.device)
            await other.in_step()
        await first.in_step()


def _forge(store: Path, *statements: str) -> None:
    """Change what a store says was published, and have its log made anew when it is opened."""
    with contextlib.closing(sqlite3.connect(store)) as connection, connection:
        for statement in (*statements, *(f"DELETE FROM {table}" for table in ("leaves", "nodes", "checkpoints"))):
            connection.execute(statement)


async def give(one: Device, other: Device) -> None:
    """Hand over what `one` has, as a stick would."""
    connection = one.daemon.reader.connection
    raws = [versions.raw(connection, row.vid) or b"" for row in versions.changes(connection, 0, 10_000)]
    found = await verify(raws, [None] * len(raws), other.daemon.replica.directory)
    replica = other.daemon.replica
    await other.daemon.transact(lambda c, outcome: replica.accept(c, found.versions, other.now_ms(), outcome))


@contextlib.asynccontextmanager
async def lying(home: Path, *names: str, **settings: Any) -> AsyncIterator[Den]:
    """Devices of one mesh, which meet nowhere but at a portal, and that portal, honest as yet."""
    network = MemoryLan()
    made = [harness.blank(home, network, name) for name in names]
    try:
        await harness.found(made[0])
        for member in made[1:]:
            await harness.admit(made[0], member)
        async with trio.open_nursery() as nursery:
            den = Den(home, nursery)
            den.honest = await den.open(**settings)
            for device in made:
                one = den.ones[device.name] = One(den, device)
                await one.led(den.honest)
                await nursery.start(one.online.run)
                await nursery.start(one.serve)
            yield den
            nursery.cancel_scope.cancel()
    finally:
        for device in made:
            device.daemon.close()


def garbage() -> bytes:
    return secrets.token_bytes(32)


__all__ = ["ACCOUNT", "Den", "One", "Past", "garbage", "give", "lying"]
