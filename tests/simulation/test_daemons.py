"""A few histories with whole daemons: TLS, sync, repair and announcements over a LAN in memory, on the real clock.

What random worlds show of the logic, these show of the tasks around it: whoever is cut off, restarted or removed at
whatever moment, in the end all devices that are left hold the same, and have acknowledged it.
"""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from harness.devices import Device, admit, blank, found
from harness.lan import MemoryLan
from meshd.crypto.keys import SigningKey
from meshd.daemon import announce, drafts, removing, repair, roles, rotation
from meshd.errors import MeshError
from meshd.profile.apps import password
from meshd.profile.claim import Role, State
from meshd.store import versions

QUICK = 0.05  # seconds that repairs spread over
NAMES = ("laptop", "desktop", "phone", "tablet")


class History:
    """Four devices, two of them admins, and what happens to them."""

    def __init__(self, seed: int, home: Path) -> None:
        self.chance = random.Random(seed)
        self.lan = MemoryLan()
        self.devices = [blank(home, self.lan, name, self.chance.randint(-(10**8), 10**8)) for name in NAMES]
        self.scopes: dict[str, trio.CancelScope] = {}

    async def begin(self) -> SigningKey:
        first = self.devices[0]
        master = await found(first)
        for one in self.devices[1:]:
            await admit(first, one, Role.ADMIN if one.name == "desktop" else Role.MEMBER, master)
        return master

    async def start(self, nursery: trio.Nursery, one: Device) -> None:
        async def run(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
            with trio.CancelScope() as self.scopes[one.name]:
                async with trio.open_nursery() as inner:
                    await inner.start(one.run)
                    inner.start_soon(partial(repair.repair, one.daemon, spread=QUICK))
                    inner.start_soon(announce.announcements, one.daemon)
                    task_status.started()

        await nursery.start(run)

    async def step(self, nursery: trio.Nursery, master: SigningKey) -> None:
        """One thing that somebody does, or that the network does."""
        chance = self.chance
        one = chance.choice(self.devices)
        act = chance.random()
        if act < 0.4:
            await self.write(one)
        elif act < 0.55:
            (one.host.heal if not one.host.online else one.host.cut)()
        elif act < 0.65:
            self.scopes[one.name].cancel()
            await trio.testing.wait_all_tasks_blocked()
            one.reopen()
            await one.daemon.unlock(None)
            await self.start(nursery, one)
        elif act < 0.75:
            await one.daemon.write(rotation.rotate)
        elif act < 0.85:
            other = chance.choice(self.devices[1:])
            role = chance.choice((Role.MEMBER, Role.ADMIN))
            await one.daemon.write(partial(roles.set_role, device=other.udf, role=role, master_key=master))
        else:
            other = chance.choice(self.devices[2:])
            assert one.siblings is not None
            if other is not one:
                await removing.remove_device(
                    one.daemon, one.siblings.connections, [other.udf], master_key=master, catch_up=0.1, acknowledge=0.1
                )

    async def write(self, one: Device) -> None:
        known = sorted(one.passwords())
        secret = str(self.chance.random())
        if known and self.chance.random() < 0.6:
            await one.daemon.write(
                lambda pen: drafts.replace(
                    pen,
                    self.chance.choice(known),
                    lambda item, t, made: password.edit(item, {"password": secret}, time=t, made=made),
                )
            )
        else:
            await one.daemon.write(
                lambda pen: drafts.add(
                    pen,
                    pen.keyring.find("password"),
                    lambda t, made: password.new(["a.example"], "a", secret, time=t, made=made),
                )
            )

    def newest(self) -> list[int]:
        return [versions.last_seq(one.daemon.reader.connection) for one in self.devices]

    def left(self) -> list[Device]:
        """Whom the others take for devices, and who take themselves for some."""
        return [one for one in self.devices if one.daemon.snapshot.is_member and not one.daemon.snapshot.undecided]

    def at_rest(self) -> bool:
        members = self.left()
        same = all(one.holds() == members[0].holds() for one in members)
        gone = [one for one in self.devices if one not in members]
        return same and all(
            not removing.acknowledgement(one.daemon, other.udf, one.siblings.connections).pending
            for one in members
            if one.siblings is not None
            for other in gone
            if other.udf in one.daemon.snapshot.removed
        )


@pytest.mark.parametrize("seed", range(2))
async def test_daemons_that_are_cut_off_restarted_and_removed_come_to_rest_and_agree(home: Path, seed: int) -> None:
    history = History(seed, home)
    try:
        master = await history.begin()
        async with trio.open_nursery() as nursery:
            for one in history.devices:
                await history.start(nursery, one)
            for _ in range(15):
                try:
                    await history.step(nursery, master)
                except MeshError:
                    pass  # refused, and said why
                await trio.testing.wait_all_tasks_blocked(history.chance.random() * 0.02)
            for one in history.devices:
                if not one.host.online:
                    one.host.heal()
            with trio.fail_after(40):
                while True:
                    before = history.newest()
                    await trio.testing.wait_all_tasks_blocked(0.5)  # longer than anybody waits with a repair
                    if history.at_rest() and before == history.newest():
                        break
            check(history)
            nursery.cancel_scope.cancel()
    finally:
        for one in history.devices:
            one.daemon.close()


def check(history: History) -> None:
    members = history.left()
    assert members
    said = [
        sorted(one.daemon.reader.query("SELECT vid, state FROM versions WHERE state <> ?", (int(State.PENDING),)))
        for one in members
    ]
    assert all(one == said[0] for one in said)
    shown = [one.passwords() for one in members if one.daemon.unlocked().vaults]
    assert all(one == shown[0] for one in shown)
    for one in members:
        assert one.daemon.snapshot.removed == members[0].daemon.snapshot.removed
        assert drafts.count(one.daemon.reader.connection) == 0 or not one.daemon.snapshot.admins
