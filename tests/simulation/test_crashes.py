"""A removal and everything that follows from it, with the process dying at each of its commits in turn."""

from __future__ import annotations

import pytest

from harness import simulated_deeds as deeds
from harness import simulation_checks
from harness.simulation import Node, World
from meshd.daemon import removal, rotation
from meshd.daemon.pen import Pen
from meshd.errors import Denied

COMMITS = 26  # the deeds, what the devices hear of them, and what they put right; every second one is met here


def remove_the_last(world: World, node: Node) -> None:
    gone = world.nodes[-1]
    node.write(lambda pen: removal.remove(pen, [gone.udf]))


def rotate_all(world: World, node: Node) -> None:
    node.write(rotation.rotate)


def name_again(world: World, node: Node) -> None:
    deeds.change_vault(world, node)


def story(dies_at: int) -> World:
    """Two admins and two members; the last one is removed while the other admin is apart and rotates, and while a
    member who has not heard goes on writing. What died is done again by the person who wanted it."""
    world = World(1, steps=0, composition="AAMM", evil=False)
    world.crashes = 0.0
    world.dies_at = dies_at
    laptop, desktop, phone, _ = world.nodes
    world.net.islands = {desktop.name: 1, phone.name: 1}
    for node, deed in (
        (laptop, deeds.add),
        (phone, deeds.edit),
        (laptop, remove_the_last),
        (desktop, rotate_all),
        (phone, deeds.edit),
        (laptop, deeds.edit),
        (desktop, deeds.create_vault),
    ):
        if not deeds.attempt(world, node, deed):
            assert deeds.attempt(world, node, deed)
        world.events.run_until(world.events.now + 5_000)
        for one in world.nodes:
            for other in world.nodes:
                world.net.meet(one, other)
    world.rest()
    world.dies_at = -1
    simulation_checks.check(world)
    assert world.nodes[-1].udf in laptop.snapshot.removed
    assert world.nodes[-1].udf not in laptop.snapshot.devices
    return world


def test_a_removal_finishes_wherever_a_process_dies() -> None:
    for number in range(1, COMMITS, 2):
        try:
            world = story(number)
        except AssertionError as exc:
            exc.add_note(f"died at commit {number}")
            raise
        assert world.counts["crashes"] == 1, number


def test_a_transaction_that_fails_leaves_no_vaults_in_mind_that_are_not_on_disk() -> None:
    world = World(2, steps=0, composition="AM", evil=False)
    world.crashes, world.dies_at = 0.0, -1
    laptop = world.nodes[0]

    def fails(pen: Pen) -> None:
        rotation.rotate(pen)
        raise Denied("and the disk is full")

    for _ in range(2):
        with pytest.raises(Denied):
            laptop.write(fails)
    assert deeds.attempt(world, laptop, deeds.create_vault)
    for _ in range(5):
        deeds.attempt(world, laptop, name_again)
    assert deeds.attempt(world, laptop, rotate_all)
    world.rest()
    simulation_checks.check(world)
