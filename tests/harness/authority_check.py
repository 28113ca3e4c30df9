"""What must be true of every history that `authority_worlds` plays.

`check(seed)` compares what an `Authority` makes of its versions, in random orders and from random prefixes, with the
definition in `authority_spec`, and asserts what holds for any: nothing outside a cut is applied, nothing honest inside
it is lost, outsiders change nothing.
"""

from __future__ import annotations

import random
from collections import Counter

from harness.authority_replica import Replica
from harness.authority_spec import MESH, Spec
from harness.authority_worlds import VAULTS, World
from meshd.profile.claim import Claim, Kind, State
from meshd.profile.trust import Authority


def check(seed: int) -> Counter[str]:
    """Play one world and compare; AssertionError names the seed. What occurred, for the curious."""
    world = World(seed)
    spec = Spec(world.all)
    shuffler = random.Random(-seed - 1)
    replica = Replica(MESH)
    for _ in range(2):
        order = list(world.all)
        shuffler.shuffle(order)
        replica = Replica(MESH)
        stops = {len(order), shuffler.randint(1, len(order))}
        for i, claim in enumerate(order, 1):
            replica.add(claim)
            if shuffler.random() < 0.1:
                replica.add(claim)
            if i in stops:
                compare(seed, replica, spec if i == len(order) else Spec(order[:i]))
    for device in world.devices.values():
        one = Spec(device.replica.claims.values())
        compare(seed, device.replica, one)
        _nothing_outside_is_applied(seed, one)
    return _honest_and_others(seed, world, spec, replica)


def compare(seed: int, replica: Replica, spec: Spec) -> None:
    """The evaluator agrees with the definition: states, heads, and the same states when asked again."""
    wrong = {v: (replica.claims[v], replica.states[v], spec.states[v]) for v in spec.states
             if replica.states.get(v) != spec.states[v]}  # fmt: skip
    assert not wrong, f"seed {seed}: {wrong}"
    assert replica.states.keys() == spec.states.keys(), f"seed {seed}: other versions"
    assert replica.heads() == spec.heads, f"seed {seed}: heads"
    for kind in (Kind.MASTER, Kind.PERSONAL):
        heads = replica.authority.heads(kind)
        assert set(heads) == spec.heads.get((int(kind), MESH), frozenset()), f"seed {seed}: heads of {kind}"
    for vid, claim in replica.claims.items():
        if vid in replica.linked:
            stands = spec.states[vid] is State.APPLIED
            if stands or spec.sane(vid):
                assert replica.authority.may_write(claim) == stands, f"seed {seed}: asked again of {claim}"
    _same_views(seed, replica.authority, spec)


def _same_views(seed: int, authority: Authority, spec: Spec) -> None:
    heads = authority.heads(Kind.PERSONAL)
    assert authority.admins() == spec.admins(spec.ms), f"seed {seed}: admins"
    assert authority.devices() == spec.devices(), f"seed {seed}: devices"
    assert authority.removed() == spec.removed(), f"seed {seed}: removed"
    everybody = sorted({v.signer for v in spec.v.values()} | spec.devices() | spec.removed())
    for vault in VAULTS:
        assert authority.readers(vault) == spec.readers(vault), f"seed {seed}: readers of {vault}"
        if heads:
            assert authority.readers_at(heads, vault) == spec.readers_at(heads, vault), f"seed {seed}: readers at heads"
        for udf in everybody:
            expected = spec.may_write_now(udf, vault)
            assert authority.can_write(udf, vault) == expected, f"seed {seed}: {udf} writes {vault}"


def _removals(spec: Spec) -> dict[str, dict[Kind, list[bytes]]]:
    """udf → kind → applied versions that carry a removal of it that counts."""
    found: dict[str, dict[Kind, list[bytes]]] = {}
    for x in (*spec.ms, *spec.good):
        for cut in spec.v[x].links.x:
            if cut.scope == "" and spec.carries(x, cut.udf, ""):
                found.setdefault(cut.udf, {}).setdefault(spec.v[x].kind, []).append(x)
    return found


def _inside(spec: Spec, udf: str, x: bytes) -> set[bytes]:
    return set().union(*(spec.closure(udf, c.tips) for c in spec.v[x].links.x if c.udf == udf and c.scope == ""))


def _nothing_outside_is_applied(seed: int, spec: Spec) -> None:
    for udf, by_kind in _removals(spec).items():
        for kind, carriers in by_kind.items():
            for x in spec.maximal(carriers):
                inside = _inside(spec, udf, x)
                for v in spec.v.values():
                    if v.signer == udf and v.vid not in inside and spec.states[v.vid] is State.APPLIED:
                        # An admin's removal does not judge profiles; device profiles are everybody's own.
                        mild = v.kind == Kind.DEVICE or (v.kind == Kind.PERSONAL and kind == Kind.PERSONAL)
                        assert mild, f"seed {seed}: {v} is outside the cut of {udf}"


def _honest_and_others(seed: int, world: World, spec: Spec, replica: Replica) -> Counter[str]:
    counts: Counter[str] = Counter()
    for v in world.all:
        tag = world.tags[v.vid]
        state = spec.states.get(v.vid)
        counts[f"{tag} {'refused' if state is None else state.name.lower()}"] += 1
        if tag in ("honest", "master"):
            assert state is not None and state is not State.PENDING, f"seed {seed}: {v} is {state}"
        if tag == "honest" and state is not State.APPLIED:
            _explain(seed, spec, v, counts)
        if tag == "out":
            assert state is not State.APPLIED, f"seed {seed}: an outsider wrote {v}"
        if tag == "rogue" and state is State.APPLIED:
            ps = spec.below(v.links.a)
            vouched = any(
                spec.valid(p) and ("ROGUE" in spec.v[p].devices or "D:ROGUE" in spec.v[p].links.k) for p in ps
            )
            admin = any("ROGUE" in spec.admins(spec.masters[p]) for p in ps)
            assert vouched or admin, f"seed {seed}: the rogue device wrote {v}"
    outs = {vid for vid, tag in world.tags.items() if tag == "out"}
    rest = [v for v in world.all if v.vid not in outs]
    if outs and not any(outs & set(v.dependencies) for v in rest):
        without = Spec(rest)
        same = all(without.states[v] == spec.states[v] for v in without.states)
        assert same and without.heads == spec.heads, f"seed {seed}: outsiders changed something"
    return counts


def _explain(seed: int, spec: Spec, v: Claim, counts: Counter[str]) -> None:
    """An honest version that does not stand is outside a cut, or was signed on a profile that fell."""
    cuts = [
        spec.closure(v.signer, cut.tips)
        for x in (*spec.ms, *spec.good)
        for cut in spec.v[x].links.x
        if cut.udf == v.signer and spec.carries(x, cut.udf, cut.scope)
    ]
    inside = all(v.vid in reach for reach in cuts)
    below = spec.below(v.links.a) if v.links.a else spec.anc(v.vid) - {v.vid}
    fallen = any(not spec.valid(p) for p in below)
    assert not inside or fallen, f"seed {seed}: {v} is honest and inside every cut"
    counts["honest outside"] += not inside
    counts["honest on a fallen profile"] += inside
