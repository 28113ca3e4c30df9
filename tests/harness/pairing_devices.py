"""Two devices that pair: a founded mesh with its invitations, and one that belongs to none, on a LAN in memory.

    async with pairing(home) as (laptop, desktop):
        shown = await laptop.invitations.create({})
        joining = await desktop.connections.create({"name": "desktop", "code": shown.code, …})

The clock is the real one (writers and key derivation are threads); `clock.jump` passes over what nobody wants to wait for.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio
from harness.devices import PATIENCE, Device, blank, found
from harness.lan import MemoryLan

from meshd.crypto.sealing import LEAST_KDF
from meshd.daemon.connecting import Connections
from meshd.daemon.inviting import Invitations
from meshd.daemon.pairing_joiner import Connection
from meshd.daemon.pairing_window import Invitation
from meshd.localapi.bodies import CONNECTION, INVITATION
from meshd.localapi.shapes import check_answer

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
        daemon, device = self.device.daemon, self.device
        self.invitations = Invitations(daemon, device.host, lambda: SYNC_PORT)
        conversations = lambda: device.siblings.connections if device.siblings is not None else {}  # noqa: E731
        self.connections = Connections(daemon, device.host, conversations if device.siblings else None, kdf=LEAST_KDF)

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
