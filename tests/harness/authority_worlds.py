"""Random worlds of versions: honest devices, backups, clones, thieves, removed admins and outsiders.

`World(seed)` plays a history and keeps every version that anybody made; `authority_check` says what must be true of it.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Iterable, Sequence
from typing import Any

from harness.authority_replica import Replica
from harness.authority_spec import MESH
from meshd.profile.claim import ALL, READ, WRITE, Claim, Kind, State
from meshd.profile.links import Cut, Links

VAULTS = ("pw", "ssh")
LATER = "net"  # a vault that is made on the way
Grant = tuple[str, str, str]
_counter = itertools.count()


def make(
    kind: Kind,
    signer: str,
    identifier: str,
    parents: Sequence[Claim] = (),
    previous: Sequence[Claim] = (),
    a: Iterable[bytes] = (),
    *,
    salt: str = "",
    g: int | None = None,
    n: int | None = None,
    x: Sequence[Cut] = (),
    k: Sequence[str] = (),
    e: Sequence[tuple[str, bytes]] = (),
    **body: Any,
) -> Claim:
    """A well-formed claim. Its vid is the hash of a counter, or of `salt` where a world is to be made again."""
    vid = hashlib.sha256((salt or f"claim {next(_counter)}").encode()).digest()
    links = Links(
        g=g or 1 + max((p.links.g for p in parents), default=0),
        n=0 if signer == MESH else n or 1 + max((v.links.n for v in previous), default=0),
        q=() if signer == MESH else tuple(sorted(v.vid for v in previous)),
        p=tuple(sorted(p.vid for p in parents)),
        a=tuple(sorted(a)),
        e=tuple(e),
        k=tuple(k),
        x=tuple(x),
    )
    return Claim(vid, kind, identifier, signer, links, **body)


class Device:
    def __init__(self, udf: str) -> None:
        self.udf = udf
        self.replica = Replica(MESH)
        self.tips: list[bytes] = []
        self.backup: tuple[list[Claim], list[bytes]] | None = None
        self.healed = self.clone = False


class World:
    """One history. Everything random comes from the seed, and nothing depends on the order of sets."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.seed = seed
        self.all: list[Claim] = []
        self.tags: dict[bytes, str] = {}
        self.devices: dict[str, Device] = {}
        first = self.devices["a0"] = Device("a0")
        m = self._make("master", Kind.MASTER, MESH, MESH, admins=frozenset(["a0"]))
        p = self._make(
            "master", Kind.PERSONAL, MESH, MESH,
            master=m.vid, devices=frozenset(["a0"]), applications=frozenset(VAULTS),
        )  # fmt: skip
        first.replica.add(m)
        first.replica.add(p)
        for udf in ("a1", "m0", "m1", "r0")[: self.random.randint(2, 4)]:
            self.join(first, udf)
        for _ in range(self.random.choice((10, 20, 30, 30, 60))):
            self.step()

    def _make(self, tag: str, *args: Any, **more: Any) -> Claim:
        salt = f"{self.random.getrandbits(60)} {self.seed} {len(self.all)}"
        claim = make(*args, salt=salt, **more)
        self.all.append(claim)
        self.tags[claim.vid] = tag
        return claim

    # what honest devices do

    def sign(self, device: Device, kind: Kind, identifier: str, parents: Sequence[bytes], **more: Any) -> None:
        """Write the next version of the device's chain, healing a branch once after a restore."""
        known, own = device.replica.claims, device.replica.by_signer.get(device.udf, [])
        covered: set[bytes] = set()
        todo = list(device.tips)
        while todo:
            vid = todo.pop()
            if vid not in covered and vid in known:
                covered.add(vid)
                todo += known[vid].links.q
        extra = [v.vid for v in own if v.vid not in covered and not any(v.vid in w.links.q for w in own)]
        q = list(device.tips)
        if extra and not device.healed and not device.clone:
            q += extra
            device.healed = True
        claim = self._make(
            "honest", kind, device.udf, identifier,
            [known[p] for p in parents], [known[vid] for vid in q if vid in known], **more,
        )  # fmt: skip
        device.tips = [claim.vid]
        device.replica.add(claim)

    def profile(
        self,
        device: Device,
        add: Iterable[str] = (),
        grants: Iterable[Grant] = (),
        ungrant: Iterable[tuple[str, str]] = (),
        x: Sequence[Cut] = (),
        k: Sequence[str] = (),
        vaults: Iterable[str] = (),
        by_master: bool = False,
    ) -> None:
        """The next PersonalProfile, which lists what is effective for its author."""
        authority, known = device.replica.authority, device.replica.claims
        parents = authority.heads(Kind.PERSONAL)
        if not parents:
            return
        gone = {cut.udf for cut in x if cut.scope == ""}
        grants = list(grants)
        replaced = set(ungrant) | {grant[:2] for grant in grants}
        body: dict[str, Any] = {
            "master": authority.master_heads_for_new_profile()[0],
            "devices": authority.devices().union(add) - gone,
            "applications": authority.applications().union(vaults),
            "grants": frozenset(g for g in authority.grants() if g[:2] not in replaced).union(grants),
            "x": x,
            "k": k,
        }
        if by_master:
            ps = [known[p] for p in parents]
            device.replica.add(self._make("master", Kind.PERSONAL, MESH, MESH, ps, **body))
        else:
            self.sign(device, Kind.PERSONAL, MESH, parents, **body)

    def master(
        self, device: Device, promote: Iterable[str] = (), drop: Iterable[str] = (), x: Sequence[Cut] = (), **more: Any
    ) -> None:
        """A new MasterProfile and its companion."""
        authority, known = device.replica.authority, device.replica.claims
        parents = [known[vid] for vid in authority.heads(Kind.MASTER)]
        admins = authority.admins().union(promote) - set(drop)
        device.replica.add(self._make("master", Kind.MASTER, MESH, MESH, parents, admins=admins, x=x))
        self.profile(device, by_master=True, **more)

    def sloppy(self, device: Device) -> None:
        authority, known = device.replica.authority, device.replica.claims
        parents = [known[vid] for vid in authority.heads(Kind.MASTER)]
        admins = frozenset(sorted(authority.admins())[:1])
        device.replica.add(self._make("sloppy", Kind.MASTER, MESH, MESH, parents, admins=admins))

    def join(self, by: Device, udf: str) -> None:
        new = self.devices[udf] = Device(udf)
        if udf.startswith("a"):
            self.master(by, promote=[udf], add=[udf])
        elif udf.startswith("m"):
            one = self.random.choice(([(udf, v, WRITE) for v in VAULTS], [(udf, ALL, WRITE)], [(udf, ALL, READ)]))
            self.profile(by, add=[udf], grants=one)
        else:
            self.profile(by, add=[udf])
        self.sync(by, new)

    def sync(self, one: Device, other: Device, part: bool = False) -> None:
        for source, target in ((one, other), (other, one)):
            claims = [v for vid, v in source.replica.claims.items() if vid not in target.replica.claims]
            if part:
                claims = [v for v in claims if self.random.random() < 0.6]
            self.random.shuffle(claims)
            for claim in claims:
                target.replica.add(claim)

    def cut(self, replica: Replica, udf: str, scope: str = "", since: bool = False) -> Cut:
        own = replica.by_signer.get(udf, [])
        if since and own:
            return Cut(udf, (self.random.choice(own).vid,), scope)
        tips = sorted(v.vid for v in own if not any(v.vid in w.links.q for w in own))
        return Cut(udf, tuple(tips if self.random.random() < 0.7 else tips[:1]), scope)

    def entry(self, device: Device) -> None:
        """An item, or a container, if the device believes that it may."""
        heads = device.replica.authority.heads(Kind.PERSONAL)
        if not heads:
            return
        vault = self.random.choice((*VAULTS, LATER))
        kind = Kind.CONTAINER if self.random.random() < 0.15 else Kind.ITEM
        identifier = vault if kind == Kind.CONTAINER else f"{vault}/{self.random.randrange(2)}"
        if device.replica.authority.may_write(Claim(b"", kind, identifier, device.udf, Links(g=1, n=1, a=heads))):
            self.sign(device, kind, identifier, device.replica.head((int(kind), identifier)), a=heads)

    # the steps of a history

    def step(self) -> None:
        r = self.random
        device = self.devices[r.choice(list(self.devices))]
        act = r.random()
        if act < 0.30:
            self.entry(device)
        elif act < 0.53:
            other = r.choice(list(self.devices.values()))
            if other is not device:
                self.sync(device, other, r.random() < 0.4)
        elif act < 0.55:
            self.sign(device, Kind.DEVICE, device.udf, device.replica.head((int(Kind.DEVICE), device.udf)))
        elif act < 0.60:
            self._backup(device)
        elif act < 0.75:
            self._evil()
        else:
            authority = device.replica.authority
            if device.udf in authority.admins_at(authority.heads(Kind.PERSONAL)):
                self._administer(device)
            else:
                self.entry(device)

    def _backup(self, device: Device) -> None:
        if device.backup is None:
            device.backup = (list(device.replica.claims.values()), list(device.tips))
            return
        claims, tips = device.backup
        device.backup = None
        if self.random.random() < 0.3:  # a clone that goes on beside it
            target = self.devices[device.udf + "'"] = Device(device.udf)
            target.clone = True
        else:
            target = device
            target.replica = Replica(MESH)
            target.healed = False
        target.tips = tips
        for claim in claims:
            target.replica.add(claim)

    def _administer(self, device: Device) -> None:
        r, replica, authority = self.random, device.replica, device.replica.authority
        admins, devices = authority.admins(), sorted(authority.devices())
        udf, vault = r.choice(devices) if devices else "", r.choice(VAULTS)
        act = r.random()
        if act < 0.3:
            if not udf or udf == device.udf:
                return
            x = [self.cut(replica, udf, since=r.random() < 0.3)]
            if udf in admins or r.random() < 0.2:
                self.master(device, drop=[udf], x=x)
            else:
                self.profile(device, x=x)
        elif act < 0.45:
            if udf and udf not in admins:
                self._regrant(device, udf, vault)
        elif act < 0.6:
            self._move_cut(device)
        elif act < 0.75:
            if not udf:
                return
            if udf not in admins:
                self.master(device, promote=[udf])
            elif len(admins) > 1:
                demoted = [(udf, v, WRITE) for v in VAULTS]
                self.master(device, drop=[udf], x=[self.cut(replica, udf, "admin")], grants=demoted)
        elif act < 0.85 and len(self.devices) < 7:
            self.join(device, r.choice("am") + str(len(self.devices) + 5))
        elif act < 0.87:  # a master profile that forgets to cut the admin whom it drops
            self.sloppy(device)
        else:  # a harmless edit, or one that confirms a device that fell
            listed = {
                d for v in replica.claims.values() if replica.states[v.vid] == State.QUARANTINED for d in v.devices
            }
            fell = sorted(listed & authority.ever_devices() - authority.devices())
            self.profile(
                device,
                k=[f"D:{r.choice(fell)}"] if fell and r.random() < 0.3 else (),
                vaults=[LATER] if r.random() < 0.4 else (),
            )

    def _regrant(self, device: Device, udf: str, vault: str) -> None:
        r, authority = self.random, device.replica.authority
        has = {c: level for u, c, level in authority.grants() if u == udf}
        scope = vault if r.random() < 0.6 or ALL not in has else ALL
        narrowed = [(udf, scope), (udf, scope)]
        act = r.random()
        if scope not in has and not (scope == vault and ALL in has and act < 0.5):
            self.profile(device, grants=[(udf, r.choice((vault, ALL)), r.choice((WRITE, WRITE, READ)))])
        elif act < 0.6:  # lost, or reduced to reading, or "*" narrowed to one vault
            kept: list[Grant] = [(udf, scope, READ)] if r.random() < 0.4 else []
            if scope == ALL and r.random() < 0.5:
                kept.append((udf, vault, WRITE))
            self.profile(device, x=[self.cut(device.replica, udf, scope)], ungrant=narrowed, grants=kept)
        else:
            self.profile(device, grants=[(udf, scope, WRITE)], k=[f"G:{udf}@{scope}"] if r.random() < 0.3 else ())

    def _move_cut(self, device: Device) -> None:
        replica = device.replica
        made = sorted(
            {(cut.udf, v.kind) for v in replica.claims.values() for cut in v.links.x if cut.scope == ""}
            & {(udf, kind) for udf in replica.authority.removed() for kind in (Kind.MASTER, Kind.PERSONAL)}
        )
        if made:
            udf, kind = self.random.choice(made)
            x = [self.cut(replica, udf, since=self.random.random() < 0.5)]
            if kind == Kind.MASTER:
                self.master(device, x=x)
            else:
                self.profile(device, x=x)

    # what others do

    def _evil(self) -> None:
        r = self.random
        victim = r.choice(list(self.devices.values()))
        if r.random() < 0.15:
            self._outsider(victim)
            return
        thief = self.devices[r.choice(list(self.devices))]
        key = thief.udf
        if r.random() < 0.5:
            known = [v for v in self.all if self.tags[v.vid] != "out"]
        else:
            known = list(thief.replica.claims.values())
        own, profiles = [v for v in known if v.signer == key], [v for v in known if v.kind == Kind.PERSONAL]
        masters = [v for v in known if v.kind == Kind.MASTER]
        if not profiles or not masters:
            return
        q = [r.choice(own)] if own and r.random() < 0.9 else []
        if own and r.random() < 0.2:
            q = list({v.vid: v for v in (r.choice(own), r.choice(own))}.values())
        n = r.randint(1, 4) if r.random() < 0.3 else None
        picked = list({v.vid: v for v in (r.choice(profiles) for _ in range(r.randint(1, 2)))}.values())
        act = r.random()
        if act < 0.45:
            self._thief_profile(victim, key, known, own, profiles, masters, picked, q, n)
            return
        vault = r.choice((*VAULTS, LATER))
        kind = Kind.CONTAINER if act < 0.55 else Kind.ITEM
        identifier = vault if kind == Kind.CONTAINER else f"{vault}/{r.randrange(2)}"
        parents = [v for v in known if v.entry == (int(kind), identifier)]
        if r.random() < 0.05:
            parents = [v for v in known if v.kind == kind]  # perhaps of another entry
        over = [r.choice(parents)] if parents and r.random() < 0.6 else []
        a = [r.choice(known).vid] if r.random() < 0.05 else [v.vid for v in picked]
        victim.replica.add(self._make("evil", kind, key, identifier, over, q, a, n=n))

    def _thief_profile(
        self, victim: Device, key: str, known: list[Claim], own: list[Claim], profiles: list[Claim],
        masters: list[Claim], parents: list[Claim], q: list[Claim], n: int | None,
    ) -> None:  # fmt: skip
        r = self.random
        target = r.choice(list(self.devices.values())).udf
        seen = [v.vid for v in known if v.signer == target]
        x: list[Cut] = []
        if r.random() < 0.5:
            scope = r.choice(("", "", "", ALL, "pw"))
            x = [Cut(target, (r.choice(seen),) if seen else (), scope)]
        elif r.random() < 0.4:  # a harmless cut on itself
            x = [Cut(key, (r.choice(own).vid,) if own else ())]
        claim = self._make(
            "evil", Kind.PERSONAL, key, MESH, parents, q, n=n, x=x, master=r.choice(masters).vid,
            devices=r.choice(profiles).devices | ({"ROGUE"} if r.random() < 0.6 else set()),
            applications=frozenset(VAULTS) | ({LATER} if r.random() < 0.3 else set()),
            grants=r.choice(profiles).grants | {("ROGUE", r.choice(("pw", ALL)), WRITE)},
        )  # fmt: skip
        victim.replica.add(claim)
        if r.random() < 0.1:  # malformed, but nobody sees that before its parents are there
            more = {"master": masters[0].vid, "devices": frozenset(["ROGUE"])}
            victim.replica.add(self._make("evil", Kind.PERSONAL, key, MESH, [claim], q, g=r.randint(2, 5), **more))
        if r.random() < 0.5:
            victim.replica.add(self._make("rogue", Kind.ITEM, "ROGUE", "pw/0", a=[claim.vid]))

    def _outsider(self, victim: Device) -> None:
        r = self.random
        profiles = [v for v in self.all if v.kind == Kind.PERSONAL]
        masters = [v for v in self.all if v.kind == Kind.MASTER]
        if r.random() < 0.5:
            over = [r.choice(masters)] if r.random() < 0.5 else []
            x = [Cut("a0", ())]
            claim = self._make("out", Kind.MASTER, "OUT", MESH, over, admins=frozenset(["OUT"]), x=x)
        else:
            over = [r.choice(profiles)] if r.random() < 0.6 else []
            claim = self._make(
                "out", Kind.PERSONAL, "OUT", MESH, over, x=[Cut("m0", ())], master=r.choice(masters).vid,
                devices=frozenset(["OUT"]), applications=frozenset(VAULTS), grants=frozenset([("OUT", "pw", WRITE)]),
            )  # fmt: skip
        victim.replica.add(claim)
        if r.random() < 0.5:
            a = claim if claim.kind == Kind.PERSONAL else r.choice(profiles)
            victim.replica.add(self._make("out", Kind.ITEM, "OUT", "pw/0", a=[a.vid]))
