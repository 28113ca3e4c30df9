"""Short histories by hand: each call writes one version and returns it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from harness.authority_replica import Replica
from harness.authority_spec import MESH, Spec
from harness.authority_worlds import Grant, make
from meshd.profile.claim import WRITE, Claim, Kind, State
from meshd.profile.links import Cut
from meshd.profile.trust import Authority


class Story:
    """Versions of one mesh. Every device's chain goes on by itself unless `after` names what it follows."""

    def __init__(self, vaults: Iterable[str] = ("pw",)) -> None:
        self.claims: list[Claim] = []
        self.vaults = frozenset(vaults)
        self._tips: dict[str, Claim] = {}

    def _write(
        self,
        kind: Kind,
        signer: str,
        identifier: str,
        parents: Sequence[Claim],
        after: Sequence[Claim] | None,
        **more: object,
    ) -> Claim:
        if after is None:
            after = [self._tips[signer]] if signer in self._tips and signer != MESH else []
        claim = make(kind, signer, identifier, parents, after, **more)  # type: ignore[arg-type]
        self._tips[signer] = claim
        self.claims.append(claim)
        return claim

    def master(
        self,
        *parents: Claim,
        admins: Iterable[str],
        x: Sequence[Cut] = (),
        e: Sequence[tuple[str, bytes]] = (),
    ) -> Claim:
        return self._write(Kind.MASTER, MESH, MESH, parents, (), admins=frozenset(admins), x=x, e=e)

    def profile(
        self,
        signer: str,
        *parents: Claim,
        master: Claim,
        devices: Iterable[str],
        grants: Iterable[Grant] = (),
        vaults: Iterable[str] | None = None,
        x: Sequence[Cut] = (),
        k: Sequence[str] = (),
        roles: Sequence[tuple[str, str]] = (),
        after: Sequence[Claim] | None = None,
    ) -> Claim:
        return self._write(
            Kind.PERSONAL, signer, MESH, parents, after, x=x, k=k,
            master=master.vid, devices=frozenset(devices), grants=frozenset(grants), roles=tuple(roles),
            applications=self.vaults if vaults is None else frozenset(vaults),
        )  # fmt: skip

    def item(
        self,
        signer: str,
        *under: Claim,
        vault: str = "pw",
        over: Sequence[Claim] = (),
        after: Sequence[Claim] | None = None,
    ) -> Claim:
        return self._write(Kind.ITEM, signer, f"{vault}/0", over, after, a=[v.vid for v in under])

    def container(self, signer: str, *under: Claim, vault: str = "pw", after: Sequence[Claim] | None = None) -> Claim:
        return self._write(Kind.CONTAINER, signer, vault, (), after, a=[v.vid for v in under])

    def device(self, udf: str, signer: str | None = None) -> Claim:
        return self._write(Kind.DEVICE, signer or udf, udf, (), None)

    def told(self) -> Replica:
        """Somebody who has heard all of it, the same in whatever order it arrives, and as the definition has it."""
        spec = Spec(self.claims)
        orders: Iterable[Sequence[Claim]] = (self.claims, self.claims[::-1])
        if len(self.claims) <= 5:
            orders = itertools.permutations(self.claims)
        replica = Replica(MESH)
        for order in orders:
            replica = Replica(MESH)
            for claim in order:
                replica.add(claim)
            assert replica.states == spec.states
            assert replica.heads() == spec.heads
        return replica

    def authority(self) -> Authority:
        return self.told().authority

    def stands(self, *claims: Claim) -> bool | list[bool]:
        """Is each applied?"""
        states = self.told().states
        found = [states[claim.vid] is State.APPLIED for claim in claims]
        return found[0] if len(claims) == 1 else found


def member(udf: str, *vaults: str, level: str = WRITE) -> list[Grant]:
    return [(udf, vault, level) for vault in vaults or ("pw",)]
