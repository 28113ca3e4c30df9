"""What a device does beyond its LAN: portals, devices that ask through them, and joining through one."""

from __future__ import annotations

from dataclasses import dataclass

import trio

from meshd.crypto.sealing import DEVICE_KDF, KdfParameters
from meshd.daemon.context import Daemon
from meshd.daemon.portals.connecting import RemoteConnections
from meshd.daemon.portals.requests import Requests
from meshd.daemon.portals.roster import Portals
from meshd.net.portal_client import HttpClient
from meshd.net.srv import Services


@dataclass(frozen=True, slots=True)
class Online:
    """The three services, started and stopped together."""

    portals: Portals
    requests: Requests
    connections: RemoteConnections

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.portals.run)
            await nursery.start(self.requests.run)
            await nursery.start(self.connections.run)
            task_status.started()


def online(
    daemon: Daemon,
    http: HttpClient | None = None,
    services: Services | None = None,
    *,
    kdf: KdfParameters = DEVICE_KDF,
) -> Online:
    """The services of a device. `http` and `services` are the network, unless a test says otherwise."""
    portals = Portals(daemon, http, services)
    return Online(portals, Requests(daemon, portals), RemoteConnections(daemon, portals, kdf=kdf))
