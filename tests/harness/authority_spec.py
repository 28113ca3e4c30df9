"""The executable definition of authority: formats.md F1 and F7 as a pure function of a set of claims.

Written for reading, not for speed, and sharing no code with what it is compared to. A version that is malformed by
itself has no state at all; one whose dependencies are not all known is pending.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

from meshd.profile.claim import ALL, READ, WRITE, Claim, Kind, State
from meshd.profile.links import Links

MESH = "MASTER"
VID = bytes
OpKey = tuple[str, ...]


def well_formed(v: Claim) -> bool:
    """The shape that shows by itself."""
    by_master, links = v.signer == MESH, v.links
    if by_master == (links.n > 0) or (by_master and links.q) or (links.g == 1) != (links.p == ()):
        return False
    if v.kind == Kind.MASTER:
        return by_master and v.identifier == MESH and links.a == () and v.master is None
    if v.kind == Kind.PERSONAL:
        rooted = links.p != () or by_master
        return v.identifier == MESH and links.a == () and v.master is not None and rooted and not links.e
    if links.e or links.k or links.x or v.master is not None:
        return False
    if v.kind == Kind.DEVICE:
        return links.a == () and v.signer == v.identifier
    return links.a != () and ("/" in v.identifier) == (v.kind == Kind.ITEM)


class Spec:
    """`states` and `heads` of a set of versions, and the notions that they are defined by."""

    def __init__(self, claims: Iterable[Claim]) -> None:
        self.v = {v.vid: v for v in claims if well_formed(v)}
        self._anc: dict[VID, frozenset[VID]] = {}
        self._sane: dict[VID, bool] = {}
        self._mops: dict[VID, dict[str, bool]] = {}
        self._pops: dict[VID, dict[OpKey, bool]] = {}
        self._valid: dict[VID, bool] = {}
        self._reach: dict[tuple[str, tuple[VID, ...]], set[VID]] = {}
        self.linked: set[VID] = set()
        more = True
        while more:
            more = False
            for v in self.v.values():
                if v.vid not in self.linked and all(d in self.linked for d in v.dependencies):
                    self.linked.add(v.vid)
                    more = True
        self.ms = [x for x in self.linked if self.v[x].kind == Kind.MASTER and self.sane(x)]
        self.ps = [x for x in self.linked if self.v[x].kind == Kind.PERSONAL and self.sane(x)]
        self.masters = {
            x: frozenset().union(*(self.anc(self.v[q].master or b"") for q in self.anc(x))) for x in self.ps
        }

    # the DAGs

    def anc(self, x: VID) -> frozenset[VID]:
        """`x` and its ancestors."""
        if x not in self._anc:
            self._anc[x] = frozenset({x}).union(*(self.anc(p) for p in self.v[x].links.p))
        return self._anc[x]

    def sane(self, x: VID) -> bool:
        """Does a linked version fit what it names?"""
        if x not in self._sane:
            v = self.v[x]
            parents = [self.v[p] for p in v.links.p]
            ok = all(p.entry == v.entry for p in parents)
            ok = ok and v.links.g == 1 + max((p.links.g for p in parents), default=0)
            if v.kind in (Kind.MASTER, Kind.PERSONAL):
                ok = ok and all(self.sane(p.vid) for p in parents)
            if ok and v.kind == Kind.MASTER:  # who drops an admin cuts him
                dropped = self.admins(self.anc(x) - {x}) - v.admins
                ok = dropped <= {c.udf for c in v.links.x if c.scope in ("", "admin")}
            if ok and v.master is not None:
                ok = self.v[v.master].kind == Kind.MASTER and self.sane(v.master)
            self._sane[x] = ok and all(self.v[a].kind == Kind.PERSONAL and self.sane(a) for a in v.links.a)
        return self._sane[x]

    def maximal(self, xs: Iterable[VID]) -> list[VID]:
        xs = set(xs)
        return [x for x in xs if not any(y != x and x in self.anc(y) for y in xs)]

    def present(self, ops: list[tuple[VID, bool]]) -> bool:
        """Removal beats a concurrent add, a later add beats the removals that it descends from."""
        top = self.maximal({x for x, _ in ops})
        return bool(top) and all(add for x, add in ops if x in top)

    # MasterProfiles

    def listed_admins(self, ms: Iterable[VID]) -> set[str]:
        ops: dict[str, list[tuple[VID, bool]]] = {}
        for m in ms:
            for u, add in self.m_ops(m).items():
                ops.setdefault(u, []).append((m, add))
        return {u for u, o in ops.items() if self.present(o)}

    def m_ops(self, x: VID) -> dict[str, bool]:
        if x not in self._mops:
            was, new = self.listed_admins(self.anc(x) - {x}), self.v[x].admins
            self._mops[x] = {**dict.fromkeys(new - was, True), **dict.fromkeys(was - new, False)}
        return self._mops[x]

    def dead(self, ms: Iterable[VID]) -> set[str]:
        return {c.udf for m in ms for c in self.v[m].links.x if c.scope == ""}

    def admins(self, ms: Iterable[VID]) -> set[str]:
        return self.listed_admins(ms) - self.dead(ms)

    # PersonalProfiles

    def g_ops(self, xs: Iterable[VID], key: OpKey) -> list[tuple[VID, bool]]:
        return [(x, self.p_ops(x)[key]) for x in xs if key in self.p_ops(x)]

    def p_ops(self, x: VID) -> dict[OpKey, bool]:
        if x not in self._pops:
            v, below = self.v[x], self.anc(x) - {x}
            o: dict[OpKey, bool] = {}
            for d in v.devices:
                if not any(d in self.v[q].devices for q in below):
                    o["D", d] = True
            for c in v.applications:
                if not any(c in self.v[q].applications for q in below):
                    o["X", c] = True
            for u, c, level in v.grants:
                for each in {READ, level}:  # write implies read
                    if not self.present(self.g_ops(below, ("G", u, c, each))):
                        o["G", u, c, each] = True
            for text in v.links.k:
                sort, name = text.split(":")
                if sort in "DX":
                    o[sort, name] = True
                else:
                    u, c = name.split("@")
                    for level in (READ, WRITE):
                        if (u, c, WRITE) in v.grants or (u, c, level) in v.grants:
                            o["G", u, c, level] = True
            for cut in v.links.x:
                if not self.carries(x, cut.udf, cut.scope) or cut.scope == "admin":
                    continue
                if cut.scope == "":
                    o["D", cut.udf] = False
                else:
                    o["G", cut.udf, cut.scope, WRITE] = False
                    if (cut.udf, cut.scope, READ) not in v.grants:
                        o["G", cut.udf, cut.scope, READ] = False
            self._pops[x] = o
        return self._pops[x]

    def granted(self, xs: Iterable[VID], u: str, c: str, level: str) -> tuple[bool, bool]:
        """(on that very vault, on "*" and not narrowed since)."""
        own = self.g_ops(xs, ("G", u, c, level))
        everywhere = self.g_ops(xs, ("G", u, ALL, level))
        # Both may be operations of one version; it counts as one that removes.
        merged = everywhere + [(x, False) for x, add in own if not add]
        return self.present(own), any(add for _, add in everywhere) and self.present(merged)

    # cuts

    def closure(self, u: str, tips: tuple[VID, ...]) -> set[VID]:
        key = (u, tips)
        if key not in self._reach:
            reached: set[VID] = set()
            todo = list(tips)
            while todo:
                y = todo.pop()
                if y in self.v and self.v[y].signer == u and y not in reached:
                    reached.add(y)
                    todo += self.v[y].links.q
            self._reach[key] = reached
        return self._reach[key]

    def carries(self, x: VID, u: str, scope: str) -> bool:
        """An admin's profile cannot cut an admin."""
        v = self.v[x]
        if not any(c.udf == u and c.scope == scope for c in v.links.x):
            return False
        return v.kind == Kind.MASTER or v.signer == MESH or u not in self.admins(self.masters[x])

    def holds(self, v: Claim, x: VID, scope: str) -> bool:
        cuts = [c for c in self.v[x].links.x if c.udf == v.signer and c.scope == scope]
        return any(v.vid in self.closure(v.signer, c.tips) for c in cuts)

    def stands(self, v: Claim, carriers: Iterable[VID], scope: str, known: Iterable[VID] = ()) -> bool:
        cs = [x for x in carriers if self.carries(x, v.signer, scope)]
        if scope == "":  # removal: whatever `a` says
            return all(self.holds(v, x, scope) for x in self.maximal(cs))
        if scope == ALL:  # narrowing "*" leaves the vaults that the same version grants
            cs = [x for x in cs if (v.signer, v.container, WRITE) not in self.v[x].grants]
        return all(x in known or self.holds(v, x, scope) for x in cs)  # a lost right: unless signed in knowledge of it

    # verdicts

    def valid(self, x: VID) -> bool:
        """Does a sane PersonalProfile stand?"""
        if x not in self._valid:
            v = self.v[x]
            self._valid[x] = v.signer == MESH or (
                v.signer in self.admins(self.masters[x])
                and self.stands(v, self.ms, "")
                and self.stands(v, self.ms, "admin", self.masters[x])
            )
        return self._valid[x]

    @cached_property
    def good(self) -> list[VID]:
        return [x for x in self.ps if self.valid(x)]

    def below(self, a: Iterable[VID]) -> frozenset[VID]:
        return frozenset().union(*(self.anc(x) for x in a))

    def _entry_stands(self, v: Claim) -> bool:
        ps = self.below(v.links.a)
        ms = frozenset().union(*(self.masters[p] for p in ps))
        live = [p for p in ps if self.valid(p)]
        u, c = v.signer, v.container
        if u == MESH or u in self.dead(ms) or not any(self.p_ops(p).get(("X", c)) for p in live):
            return False
        device = [add for p in live for key, add in self.p_ops(p).items() if key == ("D", u)]
        explicit, everywhere = self.granted(live, u, c, WRITE)
        member = v.kind == Kind.ITEM and bool(device) and all(device) and (explicit or everywhere)
        if u not in self.admins(ms) and not member:
            return False
        if not self.stands(v, self.ms, "") or not self.stands(v, self.good, ""):
            return False
        if v.kind == Kind.CONTAINER:
            return self.stands(v, self.ms, "admin", ms)
        return self.stands(v, self.good, c, ps) and (explicit or self.stands(v, self.good, ALL, ps))

    @cached_property
    def states(self) -> dict[VID, State]:
        out = {}
        for x, v in self.v.items():
            if x not in self.linked:
                out[x] = State.PENDING
                continue
            ok = self.sane(x)
            if ok and v.kind == Kind.PERSONAL:
                ok = self.valid(x)
            if ok and v.kind in (Kind.CONTAINER, Kind.ITEM):
                ok = self._entry_stands(v)
            out[x] = State.APPLIED if ok else State.QUARANTINED
        return out

    @cached_property
    def heads(self) -> dict[tuple[int, str], frozenset[VID]]:
        entries: dict[tuple[int, str], set[VID]] = {}
        for x, state in self.states.items():
            if state is State.APPLIED:
                entries.setdefault(self.v[x].entry, set()).add(x)
        return {entry: frozenset(self._tops(xs)) for entry, xs in entries.items()}

    def _tops(self, xs: set[VID]) -> Iterator[VID]:
        """Those from which no other descends, along versions of the entry."""
        below: set[VID] = set()
        for x in xs:
            todo = list(self.v[x].links.p)
            while todo:
                y = todo.pop()
                if y not in below and self.v[y].entry == self.v[x].entry:
                    below.add(y)
                    todo += self.v[y].links.p
        yield from xs - below

    # what holds at the heads, for the rest of the program

    def device_ops(self, xs: Iterable[VID]) -> dict[str, list[tuple[VID, bool]]]:
        found: dict[str, list[tuple[VID, bool]]] = {}
        for x in xs:
            for key, add in self.p_ops(x).items():
                if key[0] == "D":
                    found.setdefault(key[1], []).append((x, add))
        return found

    def removed(self) -> set[str]:
        return self.dead(self.ms) | {u for u, o in self.device_ops(self.good).items() if not all(add for _, add in o)}

    def devices(self) -> set[str]:
        return {u for u, o in self.device_ops(self.good).items() if all(add for _, add in o)} - self.dead(self.ms)

    def may_read(self, xs: Iterable[VID], u: str, c: str) -> bool:
        return any(self.granted(xs, u, c, READ)) or any(self.granted(xs, u, c, WRITE))

    def readers(self, c: str) -> set[str]:
        members = {u for u in self.devices() if self.may_read(self.good, u, c)}
        return (self.admins(self.ms) | members) - self.removed()

    def readers_at(self, a: Iterable[VID], c: str) -> set[str]:
        """Cuts ignored; a removal counts unless a later version confirms its victim."""
        ps = self.below(a)
        ms = frozenset().union(*(self.masters[p] for p in ps))
        ops = self.device_ops(ps)
        here = {u for u, o in ops.items() if self.present(o)}
        admins = {u for u in self.admins(ms) if u not in ops or u in here}
        return admins | {u for u in here - self.dead(ms) if self.may_read(ps, u, c)}

    def may_write_now(self, u: str, c: str) -> bool:
        """Would a new item stand, signed under the heads?"""
        heads = tuple(self.heads.get((int(Kind.PERSONAL), MESH), ()))
        return bool(heads) and self._entry_stands(Claim(b"", Kind.ITEM, f"{c}/new", u, Links(g=1, n=1, a=heads)))
