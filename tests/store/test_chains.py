from __future__ import annotations

import random

import pytest

from harness.mesh_world import Device, device_keys, found, seeded, verified
from meshd.errors import Denied
from meshd.profile import author, vault, version
from meshd.profile.apps import password
from meshd.profile.claim import Kind, State
from meshd.profile.links import Links
from meshd.store import chains, peers, versions
from meshd.store.db import get_meta
from meshd.store.replica import Replica


@pytest.fixture
def laptop() -> Device:
    return found()


@pytest.fixture
def desktop(laptop: Device) -> Device:
    return laptop.admit("desktop")


def store_id(where: Device) -> bytes | None:
    return get_meta(where.connection, "store_id")


def alarms(where: Device) -> list[str]:
    return [fork[0] for fork in chains.unhealed_forks(where.connection)]


def last(by: Device) -> version.Parsed:
    (tip,) = by.tips()
    (raw,) = [raw for vid, (_, raw) in versions.raws(by.connection, [tip]).items()]
    return version.parse(raw)


def same_memory(*devices: Device) -> None:
    for one in devices:
        assert one.replica.memory() == Replica(one.connection, seeded("fresh")).memory()


# --- one chain --------------------------------------------------------------------------------------------------------


def test_everything_that_a_device_writes_is_one_chain_of_all_its_kinds(laptop: Device, desktop: Device) -> None:
    for number in range(3):
        laptop.edit(laptop.add(f"{number}.example"), "x")
    rows = [row for row in map(dict, rows_of(laptop)) if row["signer"] == laptop.udf]
    assert [row["n"] for row in rows] == list(range(1, len(rows) + 1))
    assert {row["kind"] for row in rows} == {1, 2, 4, 8}
    assert len(laptop.tips()) == 1 and laptop.replica.tips(laptop.udf) == laptop.tips()
    for other in (laptop, desktop):
        assert other.connection.execute("SELECT * FROM forks").fetchall() == []
    desktop.pull(laptop)
    assert chains.tips(desktop.connection, laptop.udf) == laptop.tips()


def rows_of(where: Device) -> list[dict[str, object]]:
    names = ("kind", "signer", "n", "vid")
    rows = where.connection.execute("SELECT kind, signer, n, vid FROM versions ORDER BY n, seq").fetchall()
    return [dict(zip(names, row, strict=True)) for row in rows]


def test_a_chain_comes_together_in_any_order(laptop: Device, desktop: Device) -> None:
    for number in range(60):
        desktop.add(f"{number}.example")
    feed = laptop.lacking(desktop)
    for seed in range(4):
        watcher = laptop.copy()
        order = list(feed)
        random.Random(seed).shuffle(order)
        for raw in order:
            watcher.take([raw])
        assert chains.tips(watcher.connection, desktop.udf) == desktop.tips()
        assert watcher.connection.execute("SELECT count(*) FROM holes").fetchone() == (0,)
        assert watcher.connection.execute("SELECT count(*) FROM forks").fetchone() == (0,)
        same_memory(watcher)


def test_a_chain_that_comes_newest_first_costs_the_same_for_each_version(laptop: Device, desktop: Device) -> None:
    for number in range(1600):
        desktop.add(f"{number}.example")
    newest_first, bad = verified(reversed(laptop.lacking(desktop)), laptop.replica.directory)
    assert not bad
    work: list[int] = []
    for start in range(0, 1600, 400):
        steps = 0

        def step() -> int:
            nonlocal steps
            steps += 1
            return 0

        laptop.connection.set_progress_handler(step, 100)
        laptop.accept(newest_first[start : start + 400])
        laptop.connection.set_progress_handler(None, 0)
        work.append(steps)
    assert max(work) < 1.5 * min(work), work
    assert len(chains.tips(laptop.connection, desktop.udf)) == 1
    same_memory(laptop)


# --- a restored backup ------------------------------------------------------------------------------------------------


def test_what_was_written_after_the_backup_comes_back_and_the_chain_goes_on(laptop: Device, desktop: Device) -> None:
    kept = desktop.add("kept.example")
    backup = desktop.copy()
    later = desktop.add("later.example")
    desktop.edit(kept, "newer")
    gone = desktop.add("gone.example")
    desktop.delete(gone)
    laptop.pull(desktop)
    before = store_id(backup)
    outcome = backup.pull(laptop)
    assert outcome.restored and not outcome.cloned
    assert store_id(backup) != before, "who counted on its numbering must begin anew"
    assert backup.passwords() == {kept: "newer", later: "secret"} == laptop.passwords()
    backup.add("next.example")
    laptop.pull(backup)
    assert last(backup).claim.links.q == desktop.tips()
    assert alarms(laptop) == alarms(backup) == []
    assert laptop.connection.execute("SELECT * FROM forks").fetchall() == []
    same_memory(backup, laptop)


def test_a_store_that_wrote_before_it_saw_that_it_was_restored_heals_with_its_next_write(
    laptop: Device, desktop: Device
) -> None:
    item = desktop.add("github.com", secret="first")
    laptop.pull(desktop)
    backup = desktop.copy()
    desktop.edit(item, "lost")
    lost = desktop.add("lost.example")
    laptop.pull(desktop)
    backup.edit(item, "unaware")
    outcome = backup.pull(laptop)
    assert outcome.restored and outcome.forks and not outcome.cloned
    assert len(backup.tips()) == 2 and len(backup.heads(item)) == 2, "both edits are there"
    new = backup.add("new.example")
    assert len(last(backup).claim.links.q) == 2 and len(backup.tips()) == 1
    laptop.pull(backup)
    assert {item, lost, new} == laptop.passwords().keys() == backup.passwords().keys()
    assert alarms(laptop) == alarms(backup) == []
    assert versions.count_states(laptop.connection) == {}
    backup.add("after.example")
    assert len(last(backup).claim.links.q) == 1
    same_memory(backup, laptop)


def test_siblings_that_held_more_and_less_are_healed_once_for_all(laptop: Device, desktop: Device) -> None:
    """One sibling brings back a part; the device writes; another brings the rest."""
    tablet = laptop.admit("tablet")
    backup = desktop.copy()
    desktop.add("one.example")
    laptop.pull(desktop)
    desktop.add("two.example")
    tablet.pull(desktop)
    backup.pull(laptop)
    backup.add("three.example")
    outcome = backup.pull(tablet)
    assert outcome.restored and not outcome.cloned
    backup.add("four.example")
    for other in (laptop, tablet):
        other.pull(backup)
        assert alarms(other) == []
        assert len(other.passwords()) == 4
    same_memory(backup)


def test_while_its_own_versions_are_still_coming_a_device_joins_nothing(laptop: Device, desktop: Device) -> None:
    backup = desktop.copy()
    for number in range(3):
        desktop.add(f"{number}.example")
    laptop.pull(desktop)
    newest_first = list(reversed(backup.lacking(laptop)))
    own = [raw for raw in newest_first if version.parse(raw).claim.signer == desktop.udf]
    backup.take(own[:1])  # the two in between are missing
    backup.add("between.example")
    assert last_written(backup).claim.links.q == desktop.tips(), "it follows the newest, so that nothing forks"
    backup.take(own[1:])
    assert backup.connection.execute("SELECT * FROM forks").fetchall() == []
    assert len(backup.tips()) == 1 and alarms(backup) == []
    same_memory(backup)


def last_written(by: Device) -> version.Parsed:
    raw = versions.raw(by.connection, get_meta(by.connection, "last_own") or b"")
    assert raw is not None
    return version.parse(raw)


def test_healing_is_not_used_up_by_a_write_that_failed(laptop: Device, desktop: Device) -> None:
    backup = desktop.copy()
    desktop.add("lost.example")
    laptop.pull(desktop)
    backup.add("unaware.example")
    backup.pull(laptop)

    def write_and_fail(pen: object) -> None:
        backup_add(pen)
        raise Denied

    from meshd.daemon import vaults
    from meshd.profile.apps import password

    def backup_add(pen: object) -> None:
        vaults.add(
            pen,  # type: ignore[arg-type]
            backup.keyring.find("password"),
            lambda t, made: password.new(["x.example"], "a", "b", time=t, made=made),
        )

    with pytest.raises(Denied):
        backup.write(write_and_fail)
    assert len(backup.tips()) == 2
    same_memory(backup)
    backup.add("heals.example")
    assert len(last(backup).claim.links.q) == 2


def test_a_device_that_joins_a_mesh_is_not_a_restored_one(laptop: Device) -> None:
    """Its first profile comes back to it from the admin."""
    new = Device("new", device_keys("new"), seeded("new"))
    from meshd.daemon import membership
    from meshd.profile import device
    from meshd.profile.claim import Role

    profile = device.create(new.keys, 1, new.rng)
    laptop.write(lambda pen: membership.admit(pen, profile, Role.MEMBER, "new"))
    new.join(laptop.mesh)
    before = store_id(new)
    outcome = new.take(laptop.feed())
    assert not outcome.restored and not outcome.cloned and store_id(new) == before
    new.add("example.org")
    assert last(new).claim.links.n == 2


def test_a_new_store_id_voids_what_siblings_acknowledged(laptop: Device, desktop: Device) -> None:
    peers.set_ack(desktop.connection, laptop.udf, 7)
    before = store_id(desktop)
    fresh = desktop.transact(lambda connection, _: chains.renumber(connection, desktop.rng))[0]
    assert store_id(desktop) == fresh != before
    assert peers.get(desktop.connection, laptop.udf).their_ack == 0


# --- a cloned home, a stolen key --------------------------------------------------------------------------------------


def test_a_home_that_was_cloned_while_it_ran_is_seen_by_all(laptop: Device, desktop: Device) -> None:
    clone = desktop.copy()
    items = set()
    cloned: list[bool] = [False, False]
    for number in range(3):  # both go on writing and syncing
        for place, one in enumerate((desktop, clone)):
            items.add(one.add(f"{number}.{place}.example"))
            laptop.pull(one)
            cloned[place] = one.pull(laptop).cloned or cloned[place]
    for place, one in enumerate((desktop, clone)):
        cloned[place] = one.pull(laptop).cloned or cloned[place]
    assert cloned == [True, True], "each sees that another writes with its key"
    for one in (laptop, desktop, clone):
        assert alarms(one) == [desktop.udf]
    assert desktop.passwords().keys() == clone.passwords().keys() == laptop.passwords().keys() == items, (
        "nothing is lost"
    )
    same_memory(laptop, desktop, clone)


def test_a_sibling_sees_a_fork_at_once_and_both_sides_of_it(laptop: Device, desktop: Device) -> None:
    clone = desktop.copy()
    desktop.add("one.example")
    clone.add("two.example")
    assert laptop.pull(desktop).forks == []
    outcome = laptop.pull(clone)
    n = last(clone).claim.links.n
    assert outcome.forks == [(desktop.udf, n)]
    assert chains.unhealed_forks(laptop.connection) == [(desktop.udf, n, *sorted((desktop.tips()[0], clone.tips()[0])))]


def test_a_branch_that_goes_on_past_its_healing_is_an_alarm_for_ever(laptop: Device, desktop: Device) -> None:
    clone = desktop.copy()
    desktop.add("one.example")
    clone.add("two.example")
    laptop.pull(clone)
    desktop.pull(laptop)
    desktop.add("heals.example")
    laptop.pull(desktop)
    assert alarms(laptop) == [], "so far it can be a backup"
    clone.add("goes-on.example")
    outcome = laptop.pull(clone)
    assert outcome.forks and alarms(laptop) == [desktop.udf]
    assert desktop.pull(laptop).cloned
    # The clone takes everything in and heals for its part: that explains nothing.
    clone.pull(laptop)
    clone.add("heals-too.example")
    laptop.pull(clone)
    assert alarms(laptop) == [desktop.udf]
    same_memory(laptop, desktop, clone)


@pytest.mark.parametrize("seed", range(6))
def test_that_a_branch_went_on_is_seen_in_any_order(laptop: Device, desktop: Device, seed: int) -> None:
    clone = desktop.copy()
    desktop.add("one.example")
    clone.add("two.example")
    desktop.pull(clone)
    desktop.add("heals.example")
    clone.add("goes-on.example")
    assert alarms(desktop) == []
    raws = list(dict.fromkeys(laptop.lacking(desktop) + laptop.lacking(clone)))
    random.Random(seed).shuffle(raws)
    for raw in raws:
        laptop.take([raw])
    assert alarms(laptop) == [desktop.udf]
    same_memory(laptop)


def test_after_the_alarm_a_device_goes_on_from_its_own_end(laptop: Device, desktop: Device) -> None:
    clone = desktop.copy()
    for number in range(2):
        desktop.add(f"{number}.example")
        clone.add(f"{number}.clone.example")
        laptop.pull(clone)
        desktop.pull(laptop)
    desktop.add("joined.example")  # the one healing of this store-id
    clone.add("past.example")
    laptop.pull(clone)
    assert desktop.pull(laptop).cloned
    own = get_meta(desktop.connection, "last_own")
    desktop.add("mine.example")
    assert last_written(desktop).claim.links.q == (own,)
    assert len(desktop.tips()) == 2, "the foreign end is left alone, as evidence"
    same_memory(desktop)


def test_healing_happens_once_under_a_store_id(laptop: Device, desktop: Device) -> None:
    copies = [desktop.copy(), desktop.copy()]
    for number, copy in enumerate(copies):
        copy.add(f"{number}.example")
    desktop.add("own.example")
    desktop.pull(copies[0])
    desktop.add("heals.example")
    outcome = desktop.pull(copies[1])
    assert outcome.restored and outcome.cloned
    desktop.add("unhealed.example")
    assert len(last_written(desktop).claim.links.q) == 1
    assert len(desktop.tips()) == 2


def test_thousands_of_versions_at_one_place_of_a_chain_cost_as_much_as_any(laptop: Device, desktop: Device) -> None:
    opened, (raw,) = (
        desktop.keyring.find("password"),
        [raw for _, raw in versions.raws(desktop.connection, desktop.tips()).values()],
    )
    tip = version.parse(raw).claim
    link = Links(n=tip.links.n + 1, q=desktop.tips(), g=1, a=desktop.replica.authority.heads(Kind.PERSONAL))
    item = password.new(["x.example"], "x", "x", time=1, made="2026-01-01T00:00:00Z")
    body = vault.seal_item(item, opened.container.keys[-1], desktop.rng)
    forged = [
        author.sign(
            desktop.keys.dsk,
            Kind.ITEM,
            vault.new_item_identifier(opened.application.identifier, desktop.rng),
            opened.application.tag,
            body,
            link,
            1,
        )
        for _ in range(1200)
    ]
    work: list[int] = []
    for start in range(0, 1200, 300):
        steps = 0

        def step() -> int:
            nonlocal steps
            steps += 1
            return 0

        laptop.connection.set_progress_handler(step, 100)
        laptop.accept(forged[start : start + 300])
        assert alarms(laptop) == [desktop.udf]
        laptop.connection.set_progress_handler(None, 0)
        work.append(steps)
    assert max(work) < 1.5 * min(work), work
    assert laptop.connection.execute("SELECT count(*) FROM forks").fetchone() <= (64,)
    same_memory(laptop)
    # The device that it was done to goes on, and so does its owner.
    desktop.accept(forged)
    desktop.add("next.example")
    assert len(last_written(desktop).claim.links.q) <= 16


def test_what_a_removed_device_forked_stands_as_the_cut_says(laptop: Device, desktop: Device) -> None:
    """The ends that a cut names are all that its author had seen, on every branch."""
    clone = desktop.copy()
    kept = [desktop.add("one.example"), clone.add("two.example")]
    laptop.pull(desktop)
    laptop.pull(clone)
    assert set(laptop.replica.tips(desktop.udf)) == {*desktop.tips(), *clone.tips()}
    from meshd.daemon import membership
    from meshd.profile import personal
    from meshd.profile.links import Cut
    from meshd.store.replica import Draft

    def remove(pen: object) -> None:
        cut = Cut(desktop.udf, laptop.replica.tips(desktop.udf))
        listing = membership.effective(pen)  # type: ignore[arg-type]
        body = personal.body(membership.master_to_embed(pen), listing)  # type: ignore[arg-type]
        heads = laptop.replica.authority.heads(Kind.PERSONAL)
        pen.write(Draft(Kind.PERSONAL, laptop.mesh, "PersonalProfile", body, parents=heads, cuts=(cut,)))  # type: ignore[attr-defined]

    late = desktop.add("late.example")
    laptop.write(remove)
    assert laptop.pull(desktop).quarantined
    assert set(kept) <= laptop.passwords().keys() and late not in laptop.passwords()
    states = laptop.states()
    assert states[desktop.tips()[0]] is State.QUARANTINED
    same_memory(laptop)
