"""Histories of claims (`authority_worlds`) as real signed versions, so that a store can be held to the same definition.

The idea: an author of claims is a name, here it is a key; each claim becomes a version that says the same and is
signed by that key, in the order in which the claims were made. What the worlds do not speak of is done rightly: a
device's chain begins with its DeviceProfile, places in a chain are counted as they are, and containers carry the keys
and readers that they owe.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from harness.authority_spec import MESH
from harness.authority_worlds import World
from harness.mesh_world import START, device_keys, seeded
from meshd.crypto.keys import RecipientKey, SigningKey, public_key_json
from meshd.errors import FormatError, MeshError, TrustError
from meshd.profile import author, device, personal, vault, version
from meshd.profile.apps import PASSWORD
from meshd.profile.claim import ALL, Claim, Kind, Role
from meshd.profile.device import DeviceKeys
from meshd.profile.links import Cut, Links
from meshd.profile.personal import Application, Listing
from meshd.profile.trust import Authority
from meshd.profile.vault import Container, EpochKey, Item
from meshd.profile.version import Version

NOW = START // 1000


@cache
def keys_of(name: str) -> DeviceKeys:
    return device_keys(f"claims {name}")


@cache
def master_key() -> SigningKey:
    return SigningKey.generate(seeded("master of claims"))


@cache
def first_profile(name: str) -> Version:
    return device.create(keys_of(name), NOW, seeded(f"profile {name}"))


@cache
def _vault(name: str) -> str:
    from meshd.crypto import udf

    return udf.random_udf(seeded(f"vault {name}"))


@dataclass
class Signed:
    """A world's versions. `versions` and `vids` are by the vid of the claim; what can't be said at all is in
    neither."""

    world: World
    versions: dict[bytes, Version]
    names: dict[bytes, bytes]  # vid of a version → vid of its claim

    def of(self, claims: Iterable[Claim]) -> list[Version]:
        return [self.versions[claim.vid] for claim in claims if claim.vid in self.versions]


class _NoChains:
    def chain(self, signer: str) -> Iterable[tuple[bytes, tuple[bytes, ...]]]:
        return ()


class Signer:
    """Signs one world's claims in their order."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.claims = {claim.vid: claim for claim in world.all}
        self.versions: dict[bytes, Version] = {}
        self.mesh = master_key().udf
        self._rng = seeded(f"world {world.seed}")
        # Knows every profile and no chain: what is signed says who is to read what, cuts ignored.
        self._authority = Authority(self.mesh, _NoChains())

    def sign(self) -> Signed:
        for claim in self.world.all:
            try:
                one = self._sign(claim)
            except MeshError:
                continue  # an outsider's MasterProfile has no form in which it could be sent
            self.versions[claim.vid] = one
            for part in (*one.embedded, one):
                if part.claim.kind in (Kind.MASTER, Kind.PERSONAL):
                    try:
                        self._authority.integrate(part.claim)
                    except (TrustError, ValueError):
                        pass
        return Signed(self.world, self.versions, {one.vid: vid for vid, one in self.versions.items()})

    def _sign(self, claim: Claim) -> Version:
        key = master_key() if claim.signer == MESH else keys_of(claim.signer).dsk
        tag, body = self._body(claim)
        now = NOW + len(self.versions)  # no two are the same
        return author.sign(key, claim.kind, self._identifier(claim), tag, body, self._links(claim), now)

    def _udf(self, name: str) -> str:
        return self.mesh if name == MESH else keys_of(name).udf

    def _identifier(self, claim: Claim) -> str:
        if claim.kind in (Kind.MASTER, Kind.PERSONAL, Kind.DEVICE):
            return self._udf(claim.identifier)
        container, slash, part = claim.identifier.partition("/")
        return _vault(container) + (f"/{'a' * 25}{'abcdefgh'[int(part)]}" if slash else "")

    def _vids(self, vids: Sequence[bytes]) -> tuple[bytes, ...]:
        return tuple(sorted(self.versions[vid].vid if vid in self.versions else vid for vid in vids))

    def _links(self, claim: Claim) -> Links:
        links = claim.links
        n, q = 0, self._vids(links.q)
        if links.n:
            q = q or (first_profile(claim.signer).vid,)
            n = 1 + max((self.versions[vid].links.n for vid in links.q if vid in self.versions), default=1)
        scopes = {"": "", "admin": "admin", ALL: ALL}
        return Links(
            g=links.g,
            n=n,
            q=q,
            p=self._vids(links.p),
            a=self._vids(links.a),
            k=tuple(self._confirmation(text) for text in links.k),
            x=tuple(
                Cut(
                    self._udf(cut.udf),
                    self._vids(cut.tips),
                    scopes.get(cut.scope) or scopes.get(cut.scope, _vault(cut.scope)),
                )
                for cut in links.x
            ),
        )

    def _confirmation(self, text: str) -> str:
        sort, name = text.split(":")
        if sort == "D":
            return f"D:{self._udf(name)}"
        if sort == "X":
            return f"X:{_vault(name)}"
        udf, where = name.split("@")
        return f"G:{self._udf(udf)}@{where if where == ALL else _vault(where)}"

    def _body(self, claim: Claim) -> tuple[str, dict[str, Any]]:
        match claim.kind:
            case Kind.MASTER:
                admins = sorted(keys_of(name).dsk.udf for name in claim.admins)
                known = {keys_of(name).dsk.udf: keys_of(name).dsk.verify_key for name in claim.admins}
                return "MasterProfile", {
                    "MasterSignatureKey": public_key_json(master_key().verify_key),
                    "OnlineSignatureKeys": [public_key_json(known[udf]) for udf in admins],
                    "MasterEscrowKeys": [],
                }
            case Kind.PERSONAL:
                return "PersonalProfile", self._personal(claim)
            case Kind.DEVICE:
                return "DeviceProfile", dict(first_profile(claim.signer).body)
            case Kind.CONTAINER:
                return PASSWORD.tag, self._container(claim)
            case _:
                key = EpochKey.generate(seeded("item key"), NOW)
                item = Item({PASSWORD.private: {"Entries": []}}, vault.new_meta(1, "2025-06-15T00:00:00Z", Fields={}))
                return PASSWORD.tag, vault.seal_item(item, key, self._rng)

    def _personal(self, claim: Claim) -> dict[str, Any]:
        if claim.master not in self.versions:
            raise FormatError("no such master profile can be made")
        grants: dict[str, dict[str, str]] = {}
        for name, where, level in sorted(claim.grants):  # "read" before "write", which holds it
            grants.setdefault(self._udf(name), {})[where if where == ALL else _vault(where)] = level
        listing = Listing(
            devices={self._udf(name): first_profile(name) for name in claim.devices},
            applications=[Application(_vault(name), PASSWORD.tag) for name in claim.applications],
            roles=dict.fromkeys(grants, Role.MEMBER),
            grants=grants,
            admins=frozenset(),
        )
        return personal.body(self.versions[claim.master], listing)

    def _container(self, claim: Claim) -> dict[str, Any]:
        keys: dict[str, EpochKey] = {}
        for parent in claim.links.p:
            for key in self._keys.get(parent, ()):
                keys[key.kid] = key
        fresh = EpochKey.generate(self._rng, NOW)
        keys = keys or {fresh.kid: fresh}
        self._keys[claim.vid] = tuple(keys.values())
        container = Container(tuple(keys.values()), "", {}, {})
        return vault.seal_container(PASSWORD.private, container, self._readers(claim), self._rng)

    @property
    def _keys(self) -> dict[bytes, tuple[EpochKey, ...]]:
        return self.__dict__.setdefault("_epoch_keys", {})  # type: ignore[no-any-return]

    def _readers(self, claim: Claim) -> list[RecipientKey]:
        by_udf = {keys_of(name).udf: keys_of(name).dek.recipient for name in self._everybody()}
        try:
            readers = self._authority.readers_at(self._vids(claim.links.a), self._identifier(claim))
        except TrustError:
            readers = frozenset()
        found = [by_udf[udf] for udf in sorted(readers) if udf in by_udf]
        return found or [keys_of(claim.signer).dek.recipient]

    def _everybody(self) -> set[str]:
        names = {claim.signer for claim in self.world.all} - {MESH}
        for claim in self.world.all:
            names |= claim.devices | claim.admins
        return names


def signed_world(seed: int) -> Signed:
    """A random world, signed."""
    return Signer(World(seed)).sign()


def parsed_is(claim: Claim, one: Version) -> bool:
    """Does a version say what its claim says, as far as counts and lists of names show it?"""
    return (
        one.claim.kind == claim.kind
        and len(one.claim.devices) == len(claim.devices)
        and len(one.claim.admins) == len(claim.admins)
        and len(one.claim.applications) == len(claim.applications)
        and len(one.claim.links.x) == len(claim.links.x)
        and len(one.claim.links.p) == len(claim.links.p)
        and version.parse(one.raw).claim == one.claim
    )
