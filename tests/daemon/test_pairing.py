"""Pairing from the first word to the mesh in the store: whole daemons over a LAN in memory."""

from __future__ import annotations

from pathlib import Path

from harness.pairing_devices import pairing

from meshd.profile.claim import Role


async def test_a_device_joins_by_a_code(home: Path) -> None:
    async with pairing(home) as (_, (laptop, desktop)):
        shown = await laptop.invitations.create({})
        joining = await desktop.ended(await desktop.connect(shown))
        assert joining.error is None and joining.state == "done", joining.error
        await laptop.reaches(shown, "admitted")
        daemon = desktop.device.daemon
        assert daemon.snapshot.mesh == laptop.device.daemon.snapshot.mesh
        assert daemon.snapshot.roles[daemon.snapshot.own] is Role.MEMBER
        assert not daemon.locked
