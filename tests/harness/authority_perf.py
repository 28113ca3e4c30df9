"""What authority costs: a mesh with a long history of profiles, and the verdicts on its items. Timed by benchmarks."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from harness.authority_replica import Replica
from harness.authority_spec import MESH
from harness.authority_worlds import make
from meshd.profile.claim import ALL, WRITE, Claim, Kind, State
from meshd.profile.links import Cut

VAULTS = ("password", "ssh", "mail", "network", "note", "Discovery", "Group")


@dataclass(frozen=True)
class History:
    """Profiles in an order in which they can be linked, and what a caller needs to go on."""

    claims: list[Claim]
    last: Claim  # the PersonalProfile under which items are signed
    master: Claim
    newest: dict[str, Claim]  # of each admin


def history(count: int, *, admins: int = 3, members: int = 20, seed: int = 1) -> History:
    """`count` profiles by several admins, some of them apart: edits, new devices, a removal in a hundred."""
    r = random.Random(seed)
    names = frozenset(f"admin{i}" for i in range(admins))
    listed = {f"member{i}" for i in range(members)} | names
    grants = {(f"member{i}", ALL, WRITE) for i in range(members)}
    master = make(Kind.MASTER, MESH, MESH, admins=names)
    root = make(
        Kind.PERSONAL, MESH, MESH, master=master.vid, devices=frozenset(listed), applications=frozenset(VAULTS),
        grants=frozenset(grants),
    )  # fmt: skip
    claims, heads, newest = [master, root], [root], dict[str, Claim]()
    while len(claims) < count:
        parents = r.sample(heads, min(len(heads), r.choice((1, 1, 1, 2, 3))))
        signer = f"admin{r.randrange(admins)}"
        x = []
        if r.random() < 0.01:
            gone = f"member{r.randrange(members)}"
            listed.discard(gone)
            x = [Cut(gone, ())]
        elif r.random() < 0.05:
            listed.add(f"new{len(claims)}")
        if r.random() < 0.002:
            master = make(Kind.MASTER, MESH, MESH, [master], admins=names, x=[Cut(f"lost{len(claims)}", ())])
            claims.append(master)
        claim = make(
            Kind.PERSONAL, signer, MESH, parents, [newest[signer]] if signer in newest else [], master=master.vid,
            devices=frozenset(listed), applications=frozenset(VAULTS), grants=frozenset(grants), x=x,
        )  # fmt: skip
        newest[signer] = claim
        claims.append(claim)
        heads = [head for head in heads if head not in parents] + [claim]
        if len(heads) < 4 and r.random() < 0.3:
            heads.append(parents[0])
    return History(claims, claims[-1] if claims[-1].kind == Kind.PERSONAL else claims[-2], master, newest)


def items(under: Claim, signer: str, count: int, previous: Claim | None = None) -> list[Claim]:
    """`count` new items that one device signed one after the other."""
    made: list[Claim] = []
    for i in range(count):
        previous = make(Kind.ITEM, signer, f"password/{i}", (), [previous] if previous else [], [under.vid])
        made.append(previous)
    return made


def measure(profiles: int = 10_000, entries: int = 100_000) -> dict[str, float]:
    """Seconds, and verdicts per second: a history linked in order and reversed, an admin removed at its end, items
    of a signer whom nobody cut and of one who was."""
    made = history(profiles)
    found: dict[str, float] = {}
    for name, order in (("in order", made.claims), ("reversed", made.claims[::-1])):
        replica = Replica(MESH)
        found[f"profiles {name}, s"] = _timed(replica.add, order)
    assert State.PENDING not in replica.states.values()
    authority = replica.authority
    batch = items(made.last, "admin1", entries)
    found["verdicts per s"] = entries / _timed(authority.may_write, batch)
    gone = "admin0"
    tip = made.newest[gone]
    for name, tips in (("nothing falls", (tip.vid,)), ("a third falls", ())):
        cut = make(Kind.MASTER, MESH, MESH, [made.master], admins=made.master.admins - {gone}, x=[Cut(gone, tips)])
        found[f"admin removed, {name}, s"] = _timed(replica.add, [cut])
        made = History(made.claims, made.last, cut, made.newest)
    # a member's items inside a cut: all of his chain is walked once
    chained = items(made.claims[1], "member1", entries)
    for claim in chained:
        replica.add(claim)
    over = [replica.claims[vid] for vid in authority.heads(Kind.PERSONAL)]
    replica.add(make(Kind.PERSONAL, MESH, MESH, over, master=made.master.vid, x=[Cut("member1", (chained[-1].vid,))]))
    found["verdicts per s, signer cut"] = entries / _timed(authority.may_write, chained)
    return found


def _timed(work: Callable[[Claim], object], claims: list[Claim]) -> float:
    start = time.perf_counter()
    for claim in claims:
        work(claim)
    return time.perf_counter() - start


if __name__ == "__main__":
    for what, number in measure().items():
        print(f"{what}: {number:,.3f}")
