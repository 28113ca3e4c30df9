"""What the rest of the program reads from authority: who is in the mesh, in which role, with which rights.

Every answer is for the applied heads that are known now, unless heads are given. `admins` follows the MasterProfiles
alone, also where no PersonalProfile embeds the newest one yet; a removal counts from the moment that it is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from meshd.errors import TrustError
from meshd.profile.authority_cuts import Chains, ChainView, Cuts
from meshd.profile.authority_grants import Granted
from meshd.profile.authority_masters import Masters, in_order
from meshd.profile.authority_profiles import Profiles
from meshd.profile.claim import WRITE, Kind, Role
from meshd.profile.links import MAX_HEADS

REMOVAL_UNDONE = "removal-undone"
ADMIN_REMOVED = "admin-removed"

NO_RIGHT, RIGHT, EXPLICIT = 0, 1, 2  # EXPLICIT: by a grant on that very vault, so that a cut of "*" does not bind
_MAX_RIGHTS = 4096  # verdicts kept per state: they only save time


@dataclass(slots=True)
class View:
    """What the profiles at some heads give: the answer for every container and item that was signed under them."""

    profiles: int  # mask of the profiles at or below that carry cuts
    masters: int  # mask of the MasterProfiles embedded there
    granted: Granted
    rights: dict[tuple[str, str, bool], int] = field(default_factory=dict)


class AuthorityViews:
    """The strata of one mesh, and the reading of them."""

    def __init__(self, mesh: str, chain: ChainView) -> None:
        self._mesh = mesh
        self._chains = Chains(chain)
        self._masters = Masters()
        self._master_cuts = Cuts(self._masters.dag, self._chains, lambda carrier: True)
        self._profiles = Profiles(mesh, self._masters, self._master_cuts, self._chains)
        self._now: View | None = None  # made again after every change

    # heads

    def heads(self, kind: Kind) -> tuple[bytes, ...]:
        """The applied heads of the master or personal profile: largest generation first, then by vid; at most 16,
        as `p` and `a` may name (formats.md F1). Empty before the first profile."""
        if kind == Kind.MASTER:
            return in_order(self._masters.dag, self._masters.heads)[:MAX_HEADS]
        if kind == Kind.PERSONAL:
            return in_order(self._profiles.dag, self._profiles.heads)[:MAX_HEADS]
        raise ValueError("heads of containers and items are in the store")

    def winner(self, kind: Kind) -> bytes | None:
        """The head that counts where only one can: the first of `heads`."""
        return next(iter(self.heads(kind)), None)

    def master_heads_for_new_profile(self) -> tuple[bytes, ...]:
        """The MasterProfile heads; a new PersonalProfile embeds the first, the others count through its ancestors."""
        return self.heads(Kind.MASTER)

    # people and devices

    def admins(self) -> frozenset[str]:
        """The admins, by all MasterProfiles known."""
        return self._masters.admins(self._masters.everything)

    def admins_at(self, parents: Iterable[bytes], master: bytes | None = None) -> frozenset[str]:
        """Who may sign a PersonalProfile over `parents` that embeds `master` (absent: one that they embed)."""
        return self._masters.admins(self._masters_at(parents, master))

    def devices(self) -> frozenset[str]:
        """The devices of the mesh; removed ones are not among them."""
        return self._current().granted.devices - self._masters.dead(self._masters.everything)

    def undecided(self) -> frozenset[str]:
        """Devices that are to be taken for such until more has come: a profile that added one does not stand, but only
        because the chain of its author is not here yet as far as his cut goes. Whoever holds the rest is among them,
        perhaps this device itself, so they go on talking; they have no right to anything meanwhile."""
        here = self.devices() | self.removed()
        return frozenset(self._profiles.undecided() - here) if self._profiles.ever - here else frozenset()

    def ever_devices(self) -> frozenset[str]:
        """Every UDF that a profile ever listed, standing or not, if an admin of its time or the master key signed
        it."""
        return frozenset(self._profiles.ever)

    def removed(self) -> frozenset[str]:
        """The UDFs that are dead for ever."""
        return self._current().granted.removed | self._masters.dead(self._masters.everything)

    def role(self, udf: str) -> Role | None:
        """Admin, or what the newest standing profile states (member where none does); None: not of the mesh now."""
        if udf in self.admins():
            return Role.ADMIN
        if udf not in self.devices():
            return None
        return Role(self._current().granted.stated_role(udf) or Role.MEMBER)

    # vaults

    def applications(self) -> frozenset[str]:
        """The Identifiers of all containers that were added."""
        return self._current().granted.applications

    def grants(self) -> frozenset[tuple[str, str, str]]:
        """(device, container or "*", "read" or "write") as the next PersonalProfile has to list them."""
        devices = self.devices()
        return frozenset(grant for grant in self._current().granted.grants if grant[0] in devices)

    def can_read(self, udf: str, container: str) -> bool:
        """Admins read everything, devices what they are granted; nobody who was removed reads anything."""
        if udf in self.removed():
            return False
        return udf in self.admins() or (udf in self.devices() and self._current().granted.reads(udf, container))

    def can_write(self, udf: str, container: str) -> bool:
        """Would an item of `container` stand if `udf` signed it now, under the current heads?"""
        return udf not in self.removed() and self._right(self._current(), udf, container, False) != NO_RIGHT

    def readers(self, container: str) -> frozenset[str]:
        """Everybody who may read `container` now."""
        return frozenset(udf for udf in self.admins() | self.devices() if self.can_read(udf, container))

    def readers_at(self, a: tuple[bytes, ...], container: str) -> frozenset[str]:
        """For whom a container version under `a` is to be wrapped (formats.md F5): the readers in the state that its
        signed ancestors give, cuts ignored, so that everybody agrees for ever. TrustError if `a` names what is no
        known profile.

        A removal that fell still counts here; `k=` in a later profile brings its victim back."""
        indices = self._indices(a)
        signed = self._profiles.signed_at(indices)
        masters = self._profiles.masters_at(indices)
        admins = {udf for udf in self._masters.admins(masters) if signed.is_recipient(udf, unlisted=True)}
        members = signed.recipients - self._masters.dead(masters)
        return frozenset(admins | {udf for udf in members if signed.reads(udf, container)})

    def devices_at(self, a: tuple[bytes, ...]) -> dict[str, Role]:
        """The devices in the state that the signed ancestors of `a` give, cuts ignored, and what each is there.
        TrustError as `readers_at`."""
        indices = self._indices(a)
        signed = self._profiles.signed_at(indices)
        masters = self._profiles.masters_at(indices)
        admins = self._masters.admins(masters)
        return {
            udf: Role.ADMIN if udf in admins else Role(signed.stated_role(udf) or Role.MEMBER)
            for udf in signed.recipients - self._masters.dead(masters)
        }

    def unheard_removals(self, a: tuple[bytes, ...]) -> frozenset[str]:
        """Who is removed now, and is not in the eyes of somebody who knows no more than the signed ancestors of `a`.
        TrustError as `readers_at`."""
        indices = self._indices(a)
        signed = self._profiles.signed_at(indices)
        dead = self._masters.dead(self._profiles.masters_at(indices))
        return frozenset(udf for udf in self.removed() if udf not in dead and not signed.is_removed(udf))

    def masters_at(self, a: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """The newest MasterProfiles that the profiles `a` and their ancestors embed. TrustError as `readers_at`."""
        dag = self._masters.dag
        return in_order(dag, dag.topmost(self._profiles.masters_at(self._indices(a))))

    def masters_beyond(self, a: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """The MasterProfile heads that the profiles `a` and their ancestors do not embed, oldest first: somebody gave
        them without the PersonalProfile that they ship with. TrustError as `readers_at`."""
        dag, mask = self._masters.dag, self._profiles.masters_at(self._indices(a))
        return in_order(dag, (head for head in self._masters.heads if not dag.contains(mask, head)))[::-1]

    def _indices(self, a: tuple[bytes, ...]) -> list[int]:
        index = self._profiles.dag.index
        if not a or not all(vid in index for vid in a):
            raise TrustError("a container or item names an authority that is none")
        return [index[vid] for vid in a]

    def escrow(self) -> Mapping[str, bytes]:
        """Identifier → vid of the escrow entries that the MasterProfiles list as valid; removal wins."""
        return self._masters.escrow()

    # what a person should know

    def health(self) -> list[tuple[str, str, str]]:
        """(code, UDF that it is about, a sentence) of what only a person can settle."""
        found = set()
        removed, here = self.removed(), self.devices() | self.admins()
        for udf, remover in self._profiles.fallen_removals():
            if udf in here and udf not in removed and not self._profiles.taken_back(udf, remover):
                found.add((REMOVAL_UNDONE, udf, f"the removal by {remover} fell when that device's chain was cut"))
        for udf in self.admins() & self._current().granted.removed:
            for remover in self._profiles.removers(udf):
                found.add((ADMIN_REMOVED, udf, f"removed by {remover}, and still an admin by the master profile"))
        return sorted(found)

    # how

    def _current(self) -> View:
        if self._now is None:
            self._now = self._view_of(sorted(self._profiles.heads))
        return self._now

    def _view_of(self, indices: list[int]) -> View:
        profiles = self._profiles
        return View(profiles.dag.seen(indices), profiles.masters_at(indices), profiles.standing_at(indices))

    def _masters_at(self, profiles: Iterable[bytes], master: bytes | None) -> int:
        index = self._profiles.dag.index
        mask = self._profiles.masters_at(index[vid] for vid in profiles if vid in index)
        if master is not None and master in self._masters.dag.index:
            mask |= self._masters.dag.seen((self._masters.dag.index[master],))
        return mask

    def _right(self, view: View, signer: str, container: str, is_container: bool) -> int:
        """The right to write an item, or a container version, that a view gives; cuts of the signer's chain aside."""
        key = (signer, container, is_container)
        right = view.rights.get(key)
        if right is None:
            if len(view.rights) >= _MAX_RIGHTS:
                view.rights.clear()
            right = view.rights[key] = self._find_right(view, signer, container, is_container)
        return right

    def _find_right(self, view: View, signer: str, container: str, is_container: bool) -> int:
        granted = view.granted
        if (
            signer == self._mesh  # the master key signs profiles alone
            or not granted.lists_application(container)
            or signer in self._masters.dead(view.masters)
        ):
            return NO_RIGHT
        explicit = not is_container and granted.explicit(signer, container, WRITE)
        if signer not in self._masters.admins(view.masters):
            if is_container or not granted.is_device(signer):
                return NO_RIGHT
            if not explicit and not granted.covered(signer, container, WRITE):
                return NO_RIGHT
        return EXPLICIT if explicit else RIGHT
