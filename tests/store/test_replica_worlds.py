"""The store and the executable definition of authority agree about random histories, in whatever order they arrive."""

from __future__ import annotations

import random
import sqlite3

import pytest

from harness.authority_spec import MESH, Spec, well_formed
from harness.mesh_world import memory_store, seeded
from harness.signed_claims import Signed, first_profile, master_key, parsed_is, signed_world
from meshd.profile.claim import Kind, State
from meshd.profile.version import Version
from meshd.store import chains, versions
from meshd.store.lineage import Link
from meshd.store.replica import Outcome, Replica

QUICK = range(40)


def replica_of_claims(seed: str = "replica") -> tuple[sqlite3.Connection, Replica]:
    connection = memory_store(seed)
    replica = Replica(connection, seeded(seed))
    replica.introduce(connection, master_key().udf, first_profile("watcher").identifier)
    return connection, replica


def deliver(
    connection: sqlite3.Connection,
    replica: Replica,
    arriving: list[Version],
    chance: random.Random,
    reopen: float = 0.0,
) -> Replica:
    """In batches of random size, some of it twice; now and then the store is opened anew in between."""
    while arriving:
        size = chance.randint(1, 30)
        batch, arriving = arriving[:size], arriving[size:]
        if chance.random() < 0.2:
            batch = batch + batch[: size // 2]
        connection.execute("BEGIN IMMEDIATE")
        replica.accept(connection, batch, 0, Outcome())
        connection.execute("COMMIT")
        if chance.random() < reopen:
            same_memory(connection, replica)
            replica = Replica(connection, seeded("again"))
    return replica


def compare(connection: sqlite3.Connection, replica: Replica, signed: Signed, given: list[Version], where: str) -> None:
    """What is stored has the states and heads that the definition gives it; what is not is a stranger's."""
    states = {vid: State(state) for vid, state in connection.execute("SELECT vid, state FROM versions")}
    claims = {claim.vid: claim for claim in signed.world.all}
    held = {signed.names[vid]: vid for vid in states if vid in signed.names}
    spec = Spec(claims[name] for name in held)
    wrong = {
        claims[name]: (states[held[name]], state) for name, state in spec.states.items() if states[held[name]] != state
    }
    assert not wrong, f"{where}: {wrong}"
    listed = replica.authority.ever_devices() | replica.authority.admins()
    for one in given:
        if one.vid not in states and well_formed(claims[signed.names[one.vid]]):
            assert one.signer not in listed and one.signer != replica.mesh, f"{where}: {one.claim} is lost"
    for entry, heads in spec.heads.items():
        one = signed.versions[next(iter(heads))]
        found = set(versions.heads(connection, *one.claim.entry))
        if one.kind is Kind.DEVICE:
            found -= {first_profile(claims[next(iter(heads))].signer).vid}
        assert found == {signed.versions[name].vid for name in heads}, f"{where}: heads of {entry}"
    for kind in (Kind.MASTER, Kind.PERSONAL):
        heads = {signed.versions[name].vid for name in spec.heads.get((int(kind), MESH), ())}
        assert set(replica.authority.heads(kind)) == heads, f"{where}: heads of {kind}"


def same_memory(connection: sqlite3.Connection, replica: Replica) -> None:
    """What a replica knows is what one that opens the store now would know."""
    fresh = Replica(connection, seeded("fresh"))
    assert replica.memory() == fresh.memory()


def check(seed: int) -> None:
    signed = signed_world(seed)
    for claim in signed.world.all:
        if claim.vid in signed.versions:
            assert parsed_is(claim, signed.versions[claim.vid])
    chance = random.Random(seed)
    everything = signed.of(signed.world.all)
    ends = []
    for number in range(3):
        where = f"seed {seed}, order {number}"
        connection, replica = replica_of_claims()
        order = list(everything)
        if number:
            chance.shuffle(order)
        cut = chance.randint(1, len(order))
        reopen = chance.choice((0.0, 0.2, 0.5))
        replica = deliver(connection, replica, order[:cut], chance, reopen)
        compare(connection, replica, signed, order[:cut] if not reopen else [], where)
        replica = deliver(connection, replica, order[cut:] + order[:cut], chance, reopen)
        if reopen:  # strangers are remembered in memory alone; their siblings show them again
            replica = deliver(connection, replica, order, chance)
        compare(connection, replica, signed, order, where)
        same_memory(connection, replica)
        ends.append(everything_said(connection))
    assert ends[0] == ends[1] == ends[2], f"seed {seed}: another order, another end"


def check_links(seed: int) -> None:
    """Links are told of versions that come and of some that never do; when they end, only what came counts."""
    signed, chance = signed_world(seed), random.Random(seed)
    order = signed.of(signed.world.all)
    chance.shuffle(order)
    connection, replica = replica_of_claims()
    come = [one for one in order if one.kind is Kind.MASTER or chance.random() < (0.3 if one.claim.links.n else 0.9)]
    for start in range(0, len(come), 10):
        replica = deliver(connection, replica, come[start : start + 10], chance)
        for signer in sorted(replica.authority.cut()):
            chain = sorted((one for one in order if one.signer == signer), key=lambda one: -one.claim.links.n)
            told = [Link(one.token, one.digest) for one in chain if chance.random() < 0.9]
            connection.execute("BEGIN IMMEDIATE")
            replica.accept_links(connection, signer, told, Outcome())
            connection.execute("COMMIT")
    same_memory(connection, replica)
    connection.execute("BEGIN IMMEDIATE")
    replica.end_links(connection, Outcome())
    connection.execute("COMMIT")
    same_memory(connection, replica)
    compare(connection, replica, signed, [], f"seed {seed}, links")
    replica = deliver(connection, replica, order, chance)
    compare(connection, replica, signed, order, f"seed {seed}, after links")


SAID = (
    "SELECT vid, state, head FROM versions",
    "SELECT parent, child FROM edges",
    "SELECT need, vid FROM waits",
    "SELECT need, vid FROM holes",
    "SELECT signer, vid FROM tips",
    "SELECT tip, vid FROM joins",
    "SELECT vid, final FROM misfits",
)
# Which version is named beside another depends on what was here; who forked where does not.
FORKED = """
    SELECT DISTINCT f.signer, f.n FROM forks f JOIN versions a ON a.vid = first JOIN versions b ON b.vid = second
    WHERE a.n = b.n AND a.signer = b.signer
"""


def everything_said(connection: sqlite3.Connection) -> object:
    """All that is a function of what came, and not of when."""
    said = [sorted(connection.execute(sql).fetchall()) for sql in (*SAID, FORKED)]
    return said, [fork[0] for fork in chains.unhealed_forks(connection)]


@pytest.mark.parametrize("part", range(4))
def test_any_order_of_arrival_ends_in_what_the_definition_says(part: int) -> None:
    for seed in QUICK[part::4]:
        check(seed)


def test_links_that_were_told_ahead_change_nothing_in_the_end() -> None:
    for seed in QUICK:
        check_links(seed)


@pytest.mark.soak
def test_many_orders_of_arrival_end_in_what_the_definition_says() -> None:
    for seed in range(10_000, 12_000):
        check(seed)
        check_links(seed)
