"""Somebody with a stolen device's keys and its old store, who tries what docs/attacks.md says is not possible.

A thief signs whatever the keys sign and hands it to anybody, also to devices that would hang up on the stolen one: an
unaware sibling could have passed it on. Everything that he makes is well formed enough to be looked at; that it is
never applied beyond the cut, and never opened to him, is what the checks of a world say.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from harness.mesh_world import Device, seeded
from harness.simulation import Node, World
from meshd.crypto.keys import public_key_json
from meshd.errors import FormatError, MeshError
from meshd.profile import author, device, personal, vault, version
from meshd.profile.apps import PASSWORD, of_tag, password
from meshd.profile.claim import ALL, WRITE, Kind, Role, State
from meshd.profile.device import DeviceKeys
from meshd.profile.links import SCOPE_ADMIN, Cut, Links
from meshd.profile.vault import Container, EpochKey
from meshd.profile.version import Parsed, Version
from meshd.store import versions

Body = dict[str, Any]


class Thief:
    """A device in the wrong hands, and what it has learned."""

    def __init__(self, world: World, victim: Node) -> None:
        self.world = world
        self.udf = victim.udf
        self.keys = victim.keys
        self.rng = seeded(f"thief {world.seed} {len(world.thieves)}")
        copy = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False, cached_statements=256)
        victim.connection.backup(copy)
        self.device = Device(victim.name, victim.keys, self.rng, copy)
        self.device.refresh()
        self.made: list[Version] = []
        self.rogues: list[DeviceKeys] = []
        self.secrets: list[EpochKey] = []  # vault keys of his own making

    # --- what he has --------------------------------------------------------------------------------------------------

    def spy(self, node: Node) -> None:
        """Take everything that a device, which does not know better, lets him have."""
        sent = [raw for _, raw in node.connection.execute("SELECT vid, raw FROM versions ORDER BY seq")]
        good, _ = self.world.check(sent, self.device.replica.directory)
        self.device.accept(good)

    def known(self, kind: Kind) -> list[Parsed]:
        """Versions of a kind, of his store or of everybody's: ciphertext is no secret."""
        if self.world.chance.random() < 0.5:
            rows = self.device.connection.execute("SELECT raw FROM versions WHERE kind = ? ORDER BY vid", (int(kind),))
            return [self.world.parse(row[0]) for row in rows]
        return [
            parsed for _, raw in sorted(self.world.raws.items()) if (parsed := self.world.parse(raw)).claim.kind is kind
        ]

    def own(self) -> list[Parsed]:
        kinds = (Kind.PERSONAL, Kind.CONTAINER, Kind.DEVICE, Kind.ITEM)
        found: dict[bytes, Parsed] = {one.claim.vid: one for kind in kinds for one in self.known(kind)}
        found |= {one.vid: one for one in self.made}
        return [one for _, one in sorted(found.items()) if one.claim.signer == self.udf]

    def chain(self) -> tuple[int, tuple[bytes, ...]]:
        """n and q: from any place of the chain, old ones too; now and then a lie."""
        chance, own = self.world.chance, self.own()
        if not own or chance.random() < 0.05:
            return 1, ()
        newest = max(own, key=lambda one: one.claim.links.n)
        before = newest if chance.random() < 0.4 else chance.choice(own)
        n = before.claim.links.n + 1
        return (n if chance.random() < 0.9 else max(2, n + chance.choice((-1, 1, 7)))), (before.claim.vid,)

    def authority(self) -> tuple[bytes, ...]:
        """`a`: some profiles, newest or long ago."""
        profiles = self.known(Kind.PERSONAL)
        chosen = self.world.chance.sample(profiles, min(len(profiles), self.world.chance.choice((1, 1, 2))))
        return tuple(sorted({one.claim.vid for one in chosen}))

    def vaults(self) -> list[str]:
        """The password vaults that he knows of."""
        found = {one.claim.identifier for one in self.known(Kind.CONTAINER) if one.tag == PASSWORD.tag}
        return sorted(found & self.device.replica.authority.applications())

    def epoch(self, container: str) -> EpochKey:
        opened = self.device.keyring.vaults.get(container)
        if opened is None or self.world.chance.random() < 0.1:
            self.secrets.append(EpochKey.generate(self.rng, 1_750_000_000))
            return self.secrets[-1]
        return self.world.chance.choice(opened.container.keys)

    def sign(
        self, kind: Kind, identifier: str, tag: str, body: Body, parents: Sequence[Parsed] = (), **more: Any
    ) -> Version:
        n, q = self.chain()
        found = Links(
            g=1 + max((one.claim.links.g for one in parents), default=0),
            n=n,
            q=q,
            p=tuple(sorted({one.claim.vid for one in parents})),
            **more,
        )
        now = 1_750_000_000 + self.world.chance.randint(-(10**8), 10**8)
        return author.sign(self.keys.dsk, kind, identifier, tag, body, found, now)

    # --- what he tries ------------------------------------------------------------------------------------------------

    def item(self) -> list[Version]:
        """A write with a chosen past: old authority, old place in the chain, a clock in the far future."""
        vaults = self.vaults()
        if not vaults:
            return []
        entries = sorted({one.claim.identifier for one in self.known(Kind.ITEM) if one.tag == PASSWORD.tag})
        over: list[Parsed] = []
        if entries and self.world.chance.random() < 0.7:
            identifier = self.world.chance.choice(entries)
            of_entry = [one for one in self.known(Kind.ITEM) if one.claim.identifier == identifier]
            over = self.world.chance.sample(of_entry, min(len(of_entry), 1))
        else:
            identifier = vault.new_item_identifier(self.world.chance.choice(vaults), self.rng)
        time = (1_750_000_000_000 + self.world.chance.randrange(10**11)) << 16
        made = password.new(["evil.example"], "mallory", "the thief's", time=time, made="2020-01-01T00:00:00Z")
        body = vault.seal_item(made, self.epoch(identifier.partition("/")[0]), self.rng)
        tag = over[0].tag if over else PASSWORD.tag
        return [self.sign(Kind.ITEM, identifier, tag, body, over, a=self.authority())]

    def relabelled(self) -> list[Version]:
        """Somebody else's ciphertext under another name."""
        kind = self.world.chance.choice((Kind.ITEM, Kind.CONTAINER))
        found = self.known(kind)
        if len(found) < 2:
            return []
        source, target = self.world.chance.sample(found, 2)
        body = {"EncryptedData": source.body["EncryptedData"]}
        tag = self.world.chance.choice((source.tag, target.tag))
        return [self.sign(kind, target.claim.identifier, tag, body, [target], a=self.authority())]

    def replayed(self) -> list[Version]:
        """An old container, with the keys that he knows, as the newest."""
        found = self.known(Kind.CONTAINER)
        source = self.world.chance.choice(found)
        same = [one for one in found if one.claim.identifier == source.claim.identifier]
        over = max(same, key=lambda one: one.claim.links.g)
        body = {"EncryptedData": source.body["EncryptedData"]}
        parents = self.world.chance.choice(([over], [source], []))
        return [self.sign(Kind.CONTAINER, source.claim.identifier, source.tag, body, parents, a=self.authority())]

    def rewrapped(self) -> list[Version]:
        """A container for himself, too: with the keys that he knows, and names of those that he does not."""
        opened = self.device.keyring.vaults
        if not opened:
            return []
        one = opened[self.world.chance.choice(sorted(opened))]
        found = [each for each in self.known(Kind.CONTAINER) if each.claim.identifier == one.application.identifier]
        newest = max(found, key=lambda each: each.claim.links.g)
        over = [newest] if self.world.chance.random() < 0.7 else list(one.heads)
        readers = [self.keys.dek.recipient]
        for udf in sorted(self.device.replica.authority.readers(one.application.identifier)):
            profile = self.device.replica.device(self.device.connection, udf)
            if profile is not None and self.world.chance.random() < 0.9 and profile.dek.udf != readers[0].udf:
                readers.append(profile.dek)
        keys: tuple[EpochKey, ...] = one.container.keys
        if self.world.chance.random() < 0.5:
            self.secrets.append(EpochKey.generate(self.rng, 1_750_000_000))
            keys = (*keys, self.secrets[-1])
        container = Container(keys, "", {}, {})
        body = vault.seal_container(of_tag(one.application.tag).private, container, readers, self.rng)
        a = self.authority() if self.world.chance.random() < 0.5 else self.device.replica.authority.heads(Kind.PERSONAL)
        return [self.sign(Kind.CONTAINER, one.application.identifier, one.application.tag, body, over, a=a)]

    def profile(self) -> list[Version]:
        """A profile, as a member or as an admin that is none any more: a rogue device, himself, cuts, confirmations."""
        chance, profiles = self.world.chance, self.known(Kind.PERSONAL)
        over = chance.sample(profiles, min(len(profiles), chance.choice((1, 1, 2))))
        base = over[0]
        masters = [part for one in self.known(Kind.PERSONAL) for part in one.embedded if part.claim.kind is Kind.MASTER]
        devices = {part.claim.identifier: part for part in base.embedded if part.claim.kind is Kind.DEVICE}
        roles = {udf: Role(role) for udf, role in base.claim.roles}
        grants: dict[str, dict[str, str]] = {}
        for udf, name, level in sorted(base.claim.grants):
            grants.setdefault(udf, {})[name] = level
        confirm: list[str] = []
        cuts: list[Cut] = []
        if chance.random() < 0.5:
            rogue = self.rogue()
            devices[rogue.udf] = device.create(rogue, 1_750_000_000, self.rng)
            roles[rogue.udf] = Role.MEMBER
            grants[rogue.udf] = {ALL: WRITE}
        if chance.random() < 0.4:
            mine = self.known_profile()
            if mine is not None:
                devices[self.udf] = mine
                roles[self.udf] = Role.MEMBER
                grants[self.udf] = {ALL: WRITE}
                confirm = [f"D:{self.udf}", f"G:{self.udf}@{ALL}"]
        if chance.random() < 0.4:  # a harmless cut on himself, to stand in the way of the real one
            own = self.own()
            tips = tuple(sorted(one.claim.vid for one in own if one.claim.links.n == max(o.claim.links.n for o in own)))
            cuts.append(Cut(self.udf, tips[:8]))
        if chance.random() < 0.4:
            target = chance.choice(sorted(devices))
            cuts.append(Cut(target, (), chance.choice(("", "", ALL, SCOPE_ADMIN))))
        applications = [one for _, one in sorted(personal.application_entries(base).items())]
        listing = personal.Listing(devices, applications, roles, grants, frozenset([self.udf]))
        body = personal.body(chance.choice(masters), listing, base)
        cut = {(one.udf, one.scope): one for one in cuts}
        made = [
            self.sign(
                Kind.PERSONAL, base.claim.identifier, "PersonalProfile", body, over,
                x=tuple(cut.values()), k=tuple(confirm),
            )
        ]  # fmt: skip
        if self.rogues and self.vaults() and chance.random() < 0.6:
            made += self.by_rogue(made[0])
        return made

    def rogue(self) -> DeviceKeys:
        if not self.rogues or self.world.chance.random() < 0.3:
            self.rogues.append(DeviceKeys.generate(self.rng))
            self.world.keys.setdefault(self.rogues[-1].udf, []).append(self.rogues[-1])
        return self.rogues[-1]

    def by_rogue(self, under: Version) -> list[Version]:
        """What a device that only a thief's profile lists has to say."""
        container = self.world.chance.choice(self.vaults())
        made = password.new(["rogue.example"], "r", "rogue", time=1 << 16, made="2020-01-01T00:00:00Z")
        body = vault.seal_item(made, self.epoch(container), self.rng)
        found = Links(g=1, n=1, a=(under.vid,))
        identifier = vault.new_item_identifier(container, self.rng)
        return [author.sign(self.rogues[-1].dsk, Kind.ITEM, identifier, PASSWORD.tag, body, found, 1_750_000_000)]

    def known_profile(self) -> Parsed | None:
        found = [one for one in self.known(Kind.DEVICE) if one.claim.identifier == self.udf]
        return self.world.chance.choice(found) if found else None

    def renewed(self) -> list[Version]:
        """Other keys for himself: a device renews these without an admin, and so may he."""
        mine = self.known_profile()
        if mine is None:
            return []
        fresh = DeviceKeys(self.keys.dsk, self.keys.dak, DeviceKeys.generate(self.rng).dek)
        self.world.keys[self.udf].append(fresh)
        body = dict(mine.body) | {"DeviceEncryptiontionKey": public_key_json(fresh.dek.recipient)}
        made = self.sign(Kind.DEVICE, self.udf, "DeviceProfile", body, [mine])
        self.keys = replace(fresh, older=(self.keys.dek, *self.keys.older))
        self.device.keyring.device = self.keys
        return [made]

    def claimed(self) -> list[Version]:
        """Somebody else's encryption key, called his own."""
        mine, others = self.known_profile(), [one for one in self.known(Kind.DEVICE) if one.claim.signer != self.udf]
        if mine is None or not others:
            return []
        key = self.world.chance.choice(others).body["DeviceEncryptiontionKey"]
        return [
            self.sign(
                Kind.DEVICE, self.udf, "DeviceProfile", dict(mine.body) | {"DeviceEncryptiontionKey": key}, [mine]
            )
        ]

    def stale(self) -> list[Version]:
        """Profiles of long ago, shown as news."""
        return [version.verify(one, self.device.replica.directory) for one in self.known(Kind.PERSONAL)[:2]]


TRICKS: list[tuple[float, Callable[[Thief], list[Version]]]] = [
    (3, Thief.item),
    (1, Thief.relabelled),
    (1, Thief.replayed),
    (2, Thief.rewrapped),
    (3, Thief.profile),
    (0.7, Thief.renewed),
    (0.7, Thief.claimed),
    (0.3, Thief.stale),
]


def something(world: World) -> None:
    """A thief reads what he gets, tries one thing, and hands it to somebody."""
    thief = world.chance.choice(world.thieves)
    targets = [node for node in world.honest if node.up]
    victim = world.chance.choice(targets)
    if victim.believes(thief.udf) and world.chance.random() < 0.5:
        thief.spy(victim)
    trick = world.chance.choices([one for _, one in TRICKS], [weight for weight, _ in TRICKS])[0]
    try:
        made = trick(thief)
    except (FormatError, MeshError):
        return  # not even that could be written
    world.trace.append(f"{world.events.now:.0f} thief of {thief.device.name} {trick.__name__} → {victim.name}")
    thief.made += [one for one in made if one.signer == thief.udf]
    good, _ = world.check([one.raw for one in made], victim.replica.directory)
    victim.receive([(one.vid, one.raw) for one in good])


def applied_beyond(world: World, node: Node) -> list[Version]:
    """What thieves made that a device has applied."""
    return [
        one
        for thief in world.thieves
        for one in thief.made
        if (row := versions.get(node.connection, one.vid)) is not None and row.state is State.APPLIED
    ]
