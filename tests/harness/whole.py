"""A whole device in one trio program: LAN, portals and local API, as the daemon runs them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from harness.devices import Device
from harness.local_api import Device as Api
from harness.local_api import serving
from harness.portal_http import HttpPortal
from meshd.crypto.sealing import LEAST_KDF
from meshd.daemon.portals import online
from meshd.net.srv import Found, Services


async def no_dns(name: str) -> Found:
    return Found()


@asynccontextmanager
async def alive(device: Device, portal: HttpPortal) -> AsyncIterator[Api]:
    """The device while the block runs; any account is at this portal."""
    outside = online.online(device.daemon, portal.client(), Services(no_dns), kdf=LEAST_KDF)
    async with trio.open_nursery() as nursery:
        await nursery.start(device.run)
        await nursery.start(outside.run)
        async with serving(device, online=outside) as api:
            yield api
        nursery.cancel_scope.cancel()
