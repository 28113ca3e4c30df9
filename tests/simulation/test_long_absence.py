"""Named scenes that random worlds rarely play: many devices, a long absence, a removal that dies half-way."""

from __future__ import annotations

from harness.mesh_world import Device, device_keys, found, seeded, verified
from harness.simulation import World
from meshd.daemon import authoring, removal, repair, rotation
from meshd.daemon.pen import Pen
from meshd.profile import device
from meshd.profile.claim import ALL, WRITE, Kind, Role, State
from meshd.profile.version import Version
from meshd.store import versions

YEAR_MS = 366 * 86_400_000


def admit_together(admin: Device, names: list[str]) -> list[Device]:
    """Members, all in one profile: one by one takes a second each."""
    made = [Device(name, device_keys(name), seeded(name), clock_ms=admin.now_ms) for name in names]

    def do(pen: Pen) -> None:
        wanted = authoring.state(pen)
        for one in made:
            profile = device.create(one.keys, one.now_ms // 1000, one.rng)
            pen.replica.take_device(pen.connection, profile, pen.now_ms, pen.outcome)
            wanted.devices[one.udf], wanted.roles[one.udf] = profile, Role.MEMBER
            wanted.grants[one.udf] = {ALL: WRITE}
        authoring.write_profile(pen, wanted)
        rotation.settle(pen)

    admin.write(do)
    for one in made:
        one.join(admin.mesh)
    return made


class Checked:
    """Signatures are checked once for all: everybody checks them in the same way."""

    def __init__(self) -> None:
        self._held: dict[bytes, Version] = {}

    def pull(self, one: Device, other: Device) -> None:
        lacking = one.lacking(other)
        new = [raw for raw in lacking if raw not in self._held]
        good, bad = verified(new, other.replica.directory)
        assert not bad
        self._held |= dict(zip(new, good, strict=True))
        for raw in lacking:
            if self._held[raw].kind in (Kind.MASTER, Kind.PERSONAL):
                one.replica.directory.learn(self._held[raw])
        one.accept([self._held[raw] for raw in lacking])


def test_fifty_devices_agree_about_who_is_removed_whoever_they_meet_first() -> None:
    checked = Checked()
    laptop = found()
    desktop = laptop.admit("desktop", Role.ADMIN, meet=False)
    others = admit_together(laptop, [f"device {number}" for number in range(48)])
    made = [laptop.add(f"{number}.example") for number in range(5)]
    for one in (desktop, *others[:12]):
        checked.pull(one, laptop)
    gone = others[::7]
    laptop.write(lambda pen: removal.remove(pen, [one.udf for one in gone[:4]]))
    desktop.write(lambda pen: removal.remove(pen, [one.udf for one in gone[4:]]))  # apart
    stay = [one for one in others if one not in gone]
    for number, one in enumerate(stay):  # everybody hears it from another one, in two chains of devices
        checked.pull(one, (laptop, desktop)[number % 2] if number < 2 else stay[number - 2])
    for _ in range(3):
        laptop.meet(desktop)
        for admin in (laptop, desktop):
            if admin.write(repair.unmerged):
                admin.write(repair.merge)
            admin.write(rotation.settle)
    laptop.meet(desktop)
    after = laptop.add("after.example", secret="for those who stay")
    checked.pull(desktop, laptop)
    for number, one in enumerate(stay):
        checked.pull(one, desktop if number < 2 else stay[number - 2])
    states = laptop.states()
    for one in (*stay, desktop):
        assert one.states() == states
        assert one.replica.authority.removed() == {other.udf for other in gone}
        assert set(one.passwords()) == {*made, after}
    for one in gone:
        checked.pull(one, laptop)
        assert one.udf in one.replica.authority.removed() and not one.heads(after)


def test_a_sibling_that_was_away_for_a_year_across_three_rotations_and_a_removal_comes_back_whole() -> None:
    laptop = found()
    tablet, phone = laptop.admit("tablet"), laptop.admit("phone")
    made = laptop.add("one.example", secret="first")
    tablet.pull(laptop)
    phone.pull(laptop)
    offline = tablet.add("tablet.example", secret="written far away")
    mine = tablet.edit(made, "edited far away")
    for number in range(3):
        laptop.now_ms += YEAR_MS // 3
        laptop.write(rotation.rotate)
        laptop.add(f"{number}.example")
    laptop.write(lambda pen: removal.remove(pen, [phone.udf]))
    joiner = laptop.admit("desktop")
    tablet.now_ms = laptop.now_ms - 5 * YEAR_MS  # its battery was empty, too
    tablet.meet(joiner)  # it knows this one by its profiles alone
    joiner.meet(laptop)
    stale = laptop.write(lambda pen: rotation.rewrite(pen, rotation.stale(pen)))
    assert {one.identifier for one in stale} == {offline, made}
    tablet.meet(laptop)
    joiner.pull(laptop)
    for one in (laptop, tablet, joiner):
        assert one.passwords()[made] == "edited far away" and one.passwords()[offline] == "written far away"
        assert one.states() == laptop.states()
    row = versions.get(laptop.connection, mine)
    assert row is not None and row.state is State.APPLIED
    phone.pull(laptop)
    assert not phone.heads(made) and not phone.heads(offline)


def test_everything_by_everybody_ends_the_same_when_it_comes_in_reverse() -> None:
    world = World(11, steps=30, composition="AAMM").play()
    members = [node for node in world.honest if node.is_member]
    raws = [row[0] for row in members[0].connection.execute("SELECT raw FROM versions ORDER BY seq DESC")]
    late = Device("late", device_keys("late"), seeded("late"))
    late.join(members[0].mesh)
    good, refused = world.check(raws, late.replica.directory)
    assert not refused
    late.accept(good)
    held = late.states()
    ours = members[0].states()
    assert {vid: state for vid, state in ours.items() if vid in held} == held
    assert device.create(late.keys, 0, late.rng).identifier not in members[0].replica.authority.devices()
