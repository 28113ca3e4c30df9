"""What PersonalProfiles list and grant: the operations of one version, and the reading of what many add up to.

Sorts of facts (formats.md F7.2):
    D udf                a device is of the mesh; every operation counts, and any removal wins
    L sort name          some ancestor lists it, standing or not, so that listing it again adds nothing
    X vault              an application is of the mesh
    G udf vault level    a grant; `write` implies `read`, and the vault "*" covers every vault, future ones too
    N udf vault level    every removal of that grant, for these count against "*" as well
    R udf                the role that MeshdGrants states: for people, it gives no right

A grant on "*" covers a vault unless the grant on that vault was removed and "*" was not granted again after that.
"""

from __future__ import annotations

from functools import cached_property

from meshd.profile.claim import ALL, READ, WRITE, Claim, Role
from meshd.profile.dag import Dag, Facts, Key
from meshd.profile.links import SCOPE_ADMIN, SCOPE_REMOVED, Cut

DEVICE, APPLICATION, GRANT = "D", "X", "G"
_LISTED, _NARROWED, _ROLE = "L", "N", "R"
GATHERED = frozenset({DEVICE, APPLICATION, _LISTED, _NARROWED})
_LEVELS = {READ: (READ,), WRITE: (WRITE, READ)}


def operations(dag: Dag, before: Facts, claim: Claim, cuts: tuple[Cut, ...]) -> dict[Key, bool]:
    """What a PersonalProfile adds and removes, given what its signed ancestors' operations (`before`) say.

    `cuts` are those of its cuts that count. Where one version both grants and cuts the same, the cut wins.
    """
    ops: dict[Key, bool] = {}
    for sort, names in ((DEVICE, claim.devices), (APPLICATION, claim.applications)):
        for name in names:
            if (_LISTED, sort, name) not in before:
                ops[_LISTED, sort, name] = True
                ops[sort, name] = True
    for udf, vault, level in claim.grants:
        for each in _LEVELS.get(level, ()):
            key = (GRANT, udf, vault, each)
            if not dag.present(before.get(key, ())):
                ops[key] = True
    ops.update(_confirmed(claim))
    for cut in cuts:
        if cut.scope == SCOPE_REMOVED:
            ops[DEVICE, cut.udf] = False
        elif cut.scope != SCOPE_ADMIN:
            for each in (WRITE,) if (cut.udf, cut.scope, READ) in claim.grants else (WRITE, READ):
                ops[GRANT, cut.udf, cut.scope, each] = False
                ops[_NARROWED, cut.udf, cut.scope, each] = False
    if claim.roles:
        held = Granted(dag, before)
        for udf, role in claim.roles:
            if role in (Role.MEMBER, Role.RELAY) and held.stated_role(udf) != role:
                ops[_ROLE, udf] = role == Role.RELAY
    return ops


def _confirmed(claim: Claim) -> dict[Key, bool]:
    """`k=`: added anew, whether ancestors list it or not. A grant is confirmed at the level at which the version
    lists it."""
    ops: dict[Key, bool] = {}
    for confirmation in claim.links.k:
        sort, _, name = confirmation.partition(":")
        if sort in (DEVICE, APPLICATION):
            ops[sort, name] = True
        elif sort == GRANT:
            udf, _, vault = name.partition("@")
            for level, implied in _LEVELS.items():
                if (udf, vault, level) in claim.grants:
                    ops.update({(GRANT, udf, vault, each): True for each in implied})
    return ops


def spared(claim: Claim, cut: Cut) -> frozenset[str]:
    """The vaults that a cut of "*" does not bind: those that the version that makes it grants to write."""
    if cut.scope != ALL:
        return frozenset()
    return frozenset(vault for udf, vault, level in claim.grants if udf == cut.udf and level == WRITE and vault != ALL)


def concerns(ops: dict[Key, bool]) -> tuple[set[str], bool]:
    """Whose containers and items these operations decide about, cuts among them; in the second place: everybody's?"""
    signers = {key[1] for key in ops if key[0] in (DEVICE, GRANT, _NARROWED)}
    return signers, any(key[0] == APPLICATION for key in ops)


class Granted:
    """The devices, vaults and grants that some state gives. Admins are not its business."""

    def __init__(self, dag: Dag, facts: Facts) -> None:
        self._dag = dag
        self._facts = facts

    def lists_application(self, container: str) -> bool:
        return (APPLICATION, container) in self._facts  # nothing removes one: a vault is deleted by its container

    def is_device(self, udf: str) -> bool:
        """Added, and by nobody removed: a removed UDF is dead for ever."""
        ops = self._facts.get((DEVICE, udf))
        return ops is not None and all(adds for _, adds in ops)

    def is_removed(self, udf: str) -> bool:
        return not all(adds for _, adds in self._facts.get((DEVICE, udf), ()))

    def is_recipient(self, udf: str, *, unlisted: bool) -> bool:
        """Is a device one for whom containers are wrapped? Cuts are not looked at here, so a removal that fell
        would shut its victim out for ever if a later confirmation could not bring it back. `unlisted`: the answer
        for others."""
        ops = self._facts.get((DEVICE, udf))
        return unlisted if ops is None else self._dag.present(ops)

    def explicit(self, udf: str, container: str, level: str) -> bool:
        """Is there a grant on that very vault?"""
        return self._dag.present(self._facts.get((GRANT, udf, container, level), ()))

    def covered(self, udf: str, container: str, level: str) -> bool:
        """Does "*" give it?"""
        everywhere = self._facts.get((GRANT, udf, ALL, level))
        return everywhere is not None and self._dag.present(
            everywhere, self._facts.get((_NARROWED, udf, container, level), ())
        )

    def granted(self, udf: str, container: str, level: str) -> bool:
        return self.explicit(udf, container, level) or (container != ALL and self.covered(udf, container, level))

    def reads(self, udf: str, container: str) -> bool:
        """Write implies read, also where the version that added `read` fell and the one that added `write` stands."""
        return self.granted(udf, container, READ) or self.granted(udf, container, WRITE)

    def stated_role(self, udf: str) -> str | None:
        """The role that the newest profile states; of concurrent ones the one with the larger generation, then
        relay."""
        ops = self._facts.get((_ROLE, udf))
        if ops is None:
            return None
        newest = max(ops, key=lambda op: (self._dag.generations[op[0]], op[1], self._dag.vids[op[0]]))
        return Role.RELAY.value if newest[1] else Role.MEMBER.value

    @cached_property
    def devices(self) -> frozenset[str]:
        return frozenset(key[1] for key in self._facts if key[0] == DEVICE and self.is_device(key[1]))

    @cached_property
    def recipients(self) -> frozenset[str]:
        return frozenset(
            key[1] for key in self._facts if key[0] == DEVICE and self.is_recipient(key[1], unlisted=False)
        )

    @cached_property
    def removed(self) -> frozenset[str]:
        return frozenset(key[1] for key in self._facts if key[0] == DEVICE and self.is_removed(key[1]))

    @cached_property
    def applications(self) -> frozenset[str]:
        return frozenset(key[1] for key in self._facts if key[0] == APPLICATION)

    @cached_property
    def grants(self) -> frozenset[tuple[str, str, str]]:
        """(device, vault or "*", the higher level that holds) as a profile lists them."""
        named = {(key[1], key[2]) for key in self._facts if key[0] == GRANT}
        return frozenset(
            (udf, vault, WRITE if self.explicit(udf, vault, WRITE) else READ)
            for udf, vault in named
            if self.explicit(udf, vault, WRITE) or self.explicit(udf, vault, READ)
        )
