"""Links of a removed device's chain that come ahead of its versions: they change when, and never what is judged."""

from __future__ import annotations

import random
import sqlite3

import pytest

from harness.mesh_world import Device, device_keys, found, seeded
from meshd.daemon import removal
from meshd.profile import version
from meshd.profile.claim import Kind, Role, State
from meshd.store import lineage
from meshd.store.lineage import Link
from meshd.store.outcome import Outcome
from meshd.store.replica import Replica

PROFILES = (Kind.MASTER, Kind.PERSONAL, Kind.DEVICE)


def removed(seed: str = "mesh") -> tuple[Device, Device]:
    """(laptop, phone): the phone wrote ten versions, was removed, and wrote four more that the laptop holds too."""
    laptop = found(seed=seed)
    phone = laptop.admit("phone")
    made = [phone.add(f"{number}.example") for number in range(8)]
    phone.edit(made[0], "again")
    phone.delete(made[1])
    laptop.pull(phone)
    laptop.write(lambda pen: removal.remove(pen, [phone.udf]))
    for number in range(4):
        phone.add(f"late{number}.example")
    laptop.pull(phone)
    return laptop, phone


def fresh(laptop: Device) -> Device:
    """A device that holds the profiles and nothing else."""
    new = Device("fresh", device_keys("fresh"), seeded("fresh"))
    new.join(laptop.mesh)
    new.take([raw for raw in laptop.feed() if version.parse(raw).claim.kind in PROFILES])
    return new


def rest(laptop: Device, new: Device) -> list[bytes]:
    return new.lacking(laptop)


def links_of(phone: Device, laptop: Device, vids: list[bytes]) -> list[Link]:
    return lineage.told(laptop.connection, phone.udf, vids, 500_000)


def missing(new: Device, phone: Device) -> frozenset[bytes]:
    return new.replica.authority.missing(phone.udf)


def taken(new: Device, phone: Device, told: list[Link]) -> tuple[frozenset[bytes], Outcome]:
    return new.transact(lambda connection, out: new.replica.accept_links(connection, phone.udf, told, out))


def kept(new: Device) -> int:
    (count,) = new.connection.execute("SELECT count(*) FROM lineage").fetchone()
    return int(count)


def test_with_its_links_a_removed_devices_chain_is_judged_once() -> None:
    laptop, _ = removed()
    new, other = fresh(laptop), fresh(laptop)
    new.trace(laptop)
    set_aside = [sum(len(one.take([raw]).quarantined) for raw in rest(laptop, one)) for one in (new, other)]
    assert new.states() == other.states() == {vid: laptop.states()[vid] for vid in new.states()}
    assert set_aside == [4, 13]


def test_links_are_forgotten_when_the_versions_are_here() -> None:
    laptop, phone = removed()
    new = fresh(laptop)
    new.trace(laptop)
    assert kept(new) > 8 and not missing(new, phone)
    new.pull(laptop)
    assert kept(new) == 0 and new.replica.memory() == Replica(new.connection, new.rng).memory()


@pytest.mark.parametrize("seed", range(25))
def test_in_whatever_order_links_and_versions_come_the_store_says_the_same(seed: int) -> None:
    r = random.Random(seed)
    laptop, _ = removed(f"lineage {seed}")
    if seed % 3 == 0:  # one more admin, removed apart, so that profiles hang on a chain as well
        desktop = laptop.admit("desktop", Role.ADMIN)
        desktop.admit("tablet")
        desktop.add("desktop.example")
        laptop.pull(desktop)
        laptop.write(lambda pen: removal.remove(pen, [desktop.udf], master_key=laptop.master_key))
    new = fresh(laptop)
    raws = rest(laptop, new)
    r.shuffle(raws)
    while raws:
        if r.random() < 0.4:
            signer = r.choice(sorted(new.replica.authority.cut()))
            ends = sorted(new.replica.authority.missing(signer))
            told = lineage.told(laptop.connection, signer, ends, 500_000)[: r.randint(0, 4)]
            new.transact(lambda c, out: new.replica.accept_links(c, signer, told, out))  # noqa: B023
        else:
            size = r.randint(1, 4)
            new.take(raws[:size])
            del raws[:size]
        if r.random() < 0.1:
            new.transact(new.replica.end_links)
        if r.random() < 0.2:
            before = new.replica.memory()
            new.replica.rebuild(new.connection)
            assert new.replica.memory() == before
    assert new.states() == {vid: laptop.states()[vid] for vid in new.states()}
    assert set(new.connection.execute("SELECT * FROM heads")) == set(laptop.connection.execute("SELECT * FROM heads"))


def test_what_nothing_names_is_no_link() -> None:
    laptop, phone = removed()
    new = fresh(laptop)
    ends = sorted(missing(new, phone))
    honest = links_of(phone, laptop, ends)
    forged = [Link(honest[0].token, bytes(32)), Link("mnt1;g=1;n=1", honest[0].digest), Link("no token", bytes(32))]
    assert taken(new, phone, forged)[0] == frozenset(ends) and kept(new) == 0
    assert taken(new, phone, honest[1:])[0] == frozenset(ends) and kept(new) == 0  # the first link is not there
    late = links_of(phone, laptop, [phone.tips()[0]])[:4]  # behind the end that the cut names
    assert taken(new, phone, late)[0] == frozenset(ends) and kept(new) == 0


def test_links_make_nothing_stand_that_no_signature_says() -> None:
    laptop, _ = removed()
    new = fresh(laptop)
    before = new.states()
    new.trace(laptop)
    assert new.states() == before


def told_of_a_ghost() -> tuple[Device, Device, list[Link], dict[str, bytes]]:
    """(laptop, phone, links, raws): the laptop removed the phone when it had seen the end of its chain, and neither
    the ghost before that, which nobody signs for, nor what the phone wrote before the ghost."""
    laptop = found()
    phone = laptop.admit("phone")
    raws: dict[str, bytes] = {}

    def wrote(site: str) -> bytes:
        phone.add(site)
        raws[site] = phone.feed()[-1]
        return raws[site]

    laptop.take([wrote("seen.example")])
    wrote("hidden.example")
    ghost = version.parse(wrote("ghost.example"))
    laptop.take([wrote("end.example")])
    laptop.write(lambda pen: removal.remove(pen, [phone.udf]))
    return laptop, phone, [Link(ghost.token, ghost.digest)], raws


def test_a_link_whose_version_never_comes_makes_something_stand_for_a_while_only() -> None:
    laptop, phone, ghost, raws = told_of_a_ghost()
    lied_to = fresh(laptop)
    lied_to.take(rest(laptop, lied_to))
    taken(lied_to, phone, ghost)
    hidden = version.parse(raws["hidden.example"]).claim.vid
    for one in (laptop, lied_to):
        one.take([raws["hidden.example"]])
    assert laptop.states()[hidden] is State.QUARANTINED and lied_to.states()[hidden] is State.APPLIED
    _, out = lied_to.transact(lied_to.replica.end_links)
    assert out.quarantined == {hidden} and kept(lied_to) == 0
    assert lied_to.states() == {vid: laptop.states()[vid] for vid in lied_to.states()}
    assert lied_to.replica.memory() == Replica(lied_to.connection, lied_to.rng).memory()
    taken(lied_to, phone, ghost)  # once is enough
    assert lied_to.states()[hidden] is State.QUARANTINED and kept(lied_to) == 0
    for one in (laptop, lied_to):  # it is found after all
        one.take([raws["ghost.example"]])
        assert one.states()[hidden] is State.APPLIED
    assert lied_to.states() == {vid: laptop.states()[vid] for vid in lied_to.states()}


def test_a_profile_that_stood_by_a_link_alone_falls_with_it() -> None:
    laptop = found()
    desktop = laptop.admit("desktop", Role.ADMIN)
    laptop.pull(desktop)
    tablet = desktop.admit("tablet")
    desktop.add("ghost.example")
    ghost = version.parse(desktop.feed()[-1])
    desktop.add("end.example")
    new = fresh(laptop)
    for one in (laptop, new):
        one.take([desktop.feed()[-1]])
    laptop.write(lambda pen: removal.remove(pen, [desktop.udf], master_key=laptop.master_key))
    new.pull(laptop)
    taken(new, desktop, [Link(ghost.token, ghost.digest)])
    hidden = [raw for raw in new.lacking(desktop) if version.parse(raw).claim.vid != ghost.claim.vid]
    for one in (laptop, new):
        one.take(hidden)
    assert tablet.udf in new.replica.authority.devices() - laptop.replica.authority.devices()
    new.transact(new.replica.end_links)
    assert new.replica.authority.devices() == laptop.replica.authority.devices()
    assert new.states() == laptop.states()
    assert new.replica.memory() == Replica(new.connection, new.rng).memory()


def test_long_links_and_a_chain_that_widens_find_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    laptop, phone = removed()
    new, other = fresh(laptop), fresh(laptop)
    monkeypatch.setattr(lineage, "MOST_BYTES", 1)
    told = links_of(phone, laptop, sorted(missing(new, phone)))
    taken(new, phone, told[:1])
    taken(new, phone, told[1:])
    assert kept(new) == 1  # the one that filled it
    monkeypatch.setattr(lineage, "WIDEST", 0)
    taken(other, phone, told)
    assert kept(other) == 0


def test_beyond_the_bound_the_rest_is_judged_when_it_connects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lineage, "MOST", 3)
    laptop, phone = removed()
    new = fresh(laptop)
    new.trace(laptop)
    assert kept(new) == 3 and missing(new, phone)
    new.pull(laptop)
    assert new.states() == {vid: laptop.states()[vid] for vid in new.states()}


def test_a_transaction_that_fails_takes_its_links_with_it() -> None:
    laptop, phone = removed()
    new = fresh(laptop)
    ends = missing(new, phone)

    def fail(connection: sqlite3.Connection, out: Outcome) -> None:
        new.replica.accept_links(connection, phone.udf, links_of(phone, laptop, sorted(ends)), out)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        new.transact(fail)
    assert kept(new) == 0 and missing(new, phone) == ends
    new.pull(laptop)
    assert State.QUARANTINED in new.states().values()
    assert new.states() == {vid: laptop.states()[vid] for vid in new.states()}
