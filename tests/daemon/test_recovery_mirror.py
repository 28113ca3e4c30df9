"""Every device is lost, and the portal too: a mirror of its log gives the mesh back, and proves what it gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import devices as harness
from harness.lan import MemoryLan
from harness.mirror_world import DOMAIN, no_dns, served, world
from meshd.daemon import drilling, masterkeys, recovering, searching
from meshd.daemon.portals import proving
from meshd.daemon.portals.roster import Portals, where_of
from meshd.net.srv import Services
from meshd.profile.shares import Scheme
from meshd.store import portal_pins

pytestmark = pytest.mark.draft("Master profile recovery")

ACCOUNT = f"bob@{DOMAIN}"


async def test_a_mirror_gives_back_a_mesh_whose_portal_is_gone_and_is_held_to_the_log_that_the_entry_names(
    home: Path,
) -> None:
    lan = MemoryLan()
    laptop, new = harness.blank(home, lan, "laptop"), harness.blank(home, lan, "new")
    try:
        async with world(home) as found:
            await harness.found(laptop)
            portals = Portals(laptop.daemon, found.served.client(), Services(no_dns))
            await found.nursery.start(portals.run)
            await portals.add(ACCOUNT, "", None, plain=True)
            await laptop.until(lambda: ACCOUNT in portals.running and portals.running[ACCOUNT].in_step)
            master = await masterkeys.unseal(laptop.daemon, "master passphrase")
            keys, notes = proving.to_remember(portal_pins.every(laptop.daemon.reader.connection))
            wish = recovering.Wish(Scheme.simple(2, 2), origin_keys=keys, checkpoints=notes)
            prepared, told, letters = await recovering.prepare(laptop.daemon, master, wish)
            await laptop.daemon.write(lambda pen: recovering.commit(pen, master, prepared))
            await laptop.until(lambda: portals.running[ACCOUNT].in_step)
            await found.mirror.once()
            found.served.down = True
            mirror = served(found.mirroring, found.nursery, found.mirror)
            there = Portals(new.daemon, mirror.client(), Services(no_dns))
            key = await drilling.combine(told, "", letters)
            given = await searching.from_portal(there, where_of(ACCOUNT, plain=True), key)
            assert given.mesh == laptop.daemon.snapshot.mesh
            assert given.proof is not None and given.proof.state == proving.PROVED
            assert given.proof.pin is not None and given.proof.pin.origin == f"{DOMAIN}/mmm-log"
            found.nursery.cancel_scope.cancel()
    finally:
        laptop.daemon.close()
        new.daemon.close()
