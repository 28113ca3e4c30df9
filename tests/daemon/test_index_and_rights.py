"""Lists follow what a device may read: vaults that are given to it while it runs, and taken again."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio.testing

from harness.devices import Device, mesh
from meshd.daemon import introduction, roles
from meshd.errors import RemoteProtocolError
from meshd.profile.claim import READ, Role
from meshd.store import versions
from meshd.sync import codec
from meshd.sync.messages import HelloInfo, Profiles


async def listed(device: Device) -> set[str]:
    return set((await device.daemon.fresh_index()).entries)


async def test_what_was_written_before_a_vault_was_granted_is_listed_at_once_and_no_longer_when_it_is_taken(
    home: Path,
) -> None:
    async with mesh(home, "laptop", "desktop") as (_, (laptop, desktop)):
        await laptop.daemon.write(lambda pen: roles.set_role(pen, desktop.udf, Role.RELAY))
        await desktop.until_same(laptop)
        made = await laptop.add("github.com", "alice", "first")
        await desktop.until_same(laptop)
        assert made.identifier not in await listed(desktop)

        vault = made.identifier.partition("/")[0]
        await laptop.daemon.write(
            lambda pen: roles.set_role(pen, desktop.udf, Role.MEMBER, grants={vault: READ}),
        )
        await desktop.until_same(laptop)
        assert made.identifier in await listed(desktop)

        await laptop.daemon.write(lambda pen: roles.revoke(pen, desktop.udf, [vault]))
        await desktop.until_same(laptop)
        assert made.identifier not in await listed(desktop)


async def test_an_introduction_brings_profiles_and_nothing_else(home: Path) -> None:
    async with mesh(home, "laptop", "desktop", run=False) as (_, (laptop, desktop)):
        made = await desktop.add("github.com", "mallory", "planted")
        raw = versions.raw(desktop.daemon.reader.connection, made.vid)
        assert raw is not None
        left, right = trio.testing.memory_stream_pair()
        await left.send_all(codec.encode(HelloInfo(desktop.daemon.store_id(), desktop.udf)))
        await left.send_all(codec.encode(Profiles((raw,))))
        await left.send_eof()
        with pytest.raises(RemoteProtocolError, match="something else than profiles"):
            await introduction.receive(laptop.daemon, right)
        assert made.vid not in laptop.holds()
