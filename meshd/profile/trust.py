"""Who may write what: the one question of authority, `may_write`, asked on every path into the store (formats.md F7).

Authority is a pure function of the set of versions that are known, so the order in which they arrive changes
nothing. It is evaluated in strata that cannot cycle: MasterProfiles say who is an admin, they judge
PersonalProfiles, and both judge containers and items. Profiles are kept here, in memory; containers and items are
judged and not kept, for there may be a million of them. The caller feeds a profile when `Claim.dependencies` are
known, reports every stored link of a chain with `joined`, and judges again what the returned `Change` names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from meshd.errors import TrustError
from meshd.profile import authority_shape
from meshd.profile.authority_cuts import ChainView
from meshd.profile.authority_shape import check_parents
from meshd.profile.authority_views import ADMIN_REMOVED, EXPLICIT, NO_RIGHT, REMOVAL_UNDONE, AuthorityViews, View
from meshd.profile.claim import ALL, Claim, Kind, State
from meshd.profile.links import SCOPE_ADMIN, SCOPE_REMOVED

__all__ = ["ADMIN_REMOVED", "REMOVAL_UNDONE", "Authority", "ChainView", "Change", "check_parents"]

_MAX_VIEWS = 4096  # states kept per `a`: they only save time
_ESCROW = (Kind.OFFLINE_ESCROW, Kind.ONLINE_ESCROW)


@dataclass(frozen=True, slots=True)
class Change:
    """What must be judged again, or written down, because something arrived.

    `state` is of the version itself. `flips` are other profiles whose state changed. Containers and items: all of
    those by `signers`, or the single ones in `versions` (which may name other kinds, too), or, with `everything`,
    all there are.
    """

    state: State
    flips: Mapping[bytes, State] = field(default_factory=dict)
    signers: frozenset[str] = frozenset()
    versions: tuple[bytes, ...] = ()
    everything: bool = False


_UNCHANGED = Change(State.APPLIED)


class Authority(AuthorityViews):
    """The profiles of one mesh, what follows from them, and (in `AuthorityViews`) the reading of it."""

    def __init__(self, mesh: str, chain: ChainView) -> None:
        """`mesh` is the UDF of the master signature key. `chain` is read once per cut, when the first version of
        its signer is judged by it, and must show what `joined` has reported."""
        super().__init__(mesh, chain)
        self._void: set[bytes] = set()  # profiles that do not fit what they name, and all that builds on them
        self._cut: set[str] = set()  # everybody whom some cut names
        self._views: dict[tuple[bytes, ...], View] = {}

    # taking up

    def knows(self, vid: bytes) -> bool:
        """Is `vid` a master or personal profile that has been integrated?"""
        return vid in self._profiles.dag.index or vid in self._masters.dag.index or vid in self._void

    def state(self, vid: bytes) -> State | None:
        """The state of an integrated profile; None for anything else."""
        index = self._profiles.dag.index.get(vid)
        if index is not None:
            return State.APPLIED if self._profiles.stands[index] else State.QUARANTINED
        if vid in self._masters.dag.index:
            return State.APPLIED
        return State.QUARANTINED if vid in self._void else None

    def check_shape(self, claim: Claim) -> None:
        """TrustError if the version is malformed by itself: drop it. Needs nothing to be known."""
        authority_shape.check_shape(self._mesh, claim)

    def check_links(self, claim: Claim) -> None:
        """TrustError if a version, well formed by itself, does not fit the profiles that it names, all of them known.

        Wrong kinds of links, a wrong generation, a MasterProfile that drops an admin without cutting him, and whatever
        builds on such a one. The parents of containers and items are the caller's: `check_parents`."""
        if claim.kind in (Kind.MASTER, Kind.PERSONAL):
            dag = self._masters.dag if claim.kind == Kind.MASTER else self._profiles.dag
            if not all(parent in dag.index for parent in claim.links.p):
                raise TrustError("a profile names a parent that is none")
            check_parents(claim, ((*claim.entry, dag.generations[dag.index[parent]]) for parent in claim.links.p))
            if claim.kind == Kind.MASTER:
                fault = self._masters.fault(claim)
                if fault:
                    raise TrustError(fault)
            elif claim.master not in self._masters.dag.index:
                raise TrustError("a personal profile embeds what is no master profile")
        elif claim.kind in (Kind.CONTAINER, Kind.ITEM) and self._view(claim.links.a) is None:
            raise TrustError("a container or item names an authority that is none")

    def integrate(self, claim: Claim) -> Change:
        """Link and judge a master or personal profile whose dependencies are all known. TrustError as `check_shape`.

        One that fails `check_links` is quarantined for good. A version that is known changes nothing."""
        self.check_shape(claim)
        if claim.kind not in (Kind.MASTER, Kind.PERSONAL):
            raise ValueError("only master and personal profiles are kept here")
        known = self.state(claim.vid)
        if known is not None:
            return Change(known)
        if not all(self.knows(vid) for vid in claim.dependencies):
            raise ValueError("a profile whose dependencies are not known is pending")
        try:
            self.check_links(claim)
        except TrustError:
            self._void.add(claim.vid)
            return Change(State.QUARANTINED)
        return self._integrate_master(claim) if claim.kind == Kind.MASTER else self._integrate_personal(claim)

    def _integrate_master(self, claim: Claim) -> Change:
        index = self._masters.link(claim)
        self._now = None
        cuts = [cut for cut in claim.links.x if cut.scope in (SCOPE_REMOVED, SCOPE_ADMIN)]
        for cut in cuts:
            self._master_cuts.add(cut.udf, cut.scope, index, cut.tips)
        signers = frozenset(cut.udf for cut in cuts)
        self._cut |= signers
        indices = [one for signer in signers for one in self._profiles.by_signer.get(signer, ())]
        return self._again(State.APPLIED, indices, signers, ())

    def _integrate_personal(self, claim: Claim) -> Change:
        index = self._profiles.link(claim)
        self._now = None
        signers = frozenset(cut.udf for cut in self._profiles.carried(index))
        self._cut |= signers
        if self._profiles.stands[index]:
            return Change(State.APPLIED, signers=signers)
        return Change(State.QUARANTINED)

    def joined(self, signer: str, vid: bytes, q: tuple[bytes, ...]) -> Change:
        """A version or row of `signer`'s chain has been stored, in whatever state.

        Where a cut's tips reach it and had not reached it before, `versions` names it and what it connects: those
        are to be judged again, but for the version itself, if `may_write` was asked of it just before. Profiles among
        them are judged here. Nearly always nothing follows, and that costs one look-up."""
        found = self._chains.joined(signer, vid, q)
        return self._connected(found) if found else _UNCHANGED

    def missing(self, signer: str) -> frozenset[bytes]:
        """The versions of `signer` that cuts leave standing and that have not come: those of them that others name."""
        return self._master_cuts.missing(signer) | self._profiles.cuts.missing(signer)

    def linked(self, signer: str, rows: Mapping[bytes, tuple[bytes, ...]]) -> tuple[frozenset[bytes], Change]:
        """Take links of `signer`'s chain (vid → q), each after one that names it, ahead of their versions. Returns the
        missing ones, which alone count; and as `joined` what they connect."""
        taken, found = self._chains.linked(signer, rows)
        return frozenset(taken), self._connected(found - taken)

    def unlinked(self, signer: str) -> Change:
        """What was taken with `linked` of `signer`'s chain counts no more; the view shows it no more."""
        self._chains.forget(signer)
        for cuts in (self._master_cuts, self._profiles.cuts):
            cuts.refresh()
        return self._again(State.APPLIED, self._profiles.by_signer.get(signer, ()), frozenset([signer]), ())

    def _connected(self, found: Collection[bytes]) -> Change:
        index = self._profiles.dag.index
        versions = tuple(one for one in found if not self.knows(one))
        return self._again(State.APPLIED, [index[one] for one in found if one in index], frozenset(), versions)

    def cut(self) -> frozenset[str]:
        """Everybody whom some cut names."""
        return frozenset(self._cut)

    def is_cut(self, signer: str) -> bool:
        """Does some cut name `signer`? Then a link of its chain may change what was judged before. Where that was done
        by an `Authority` before this one, in another process, `joined` does not know it: judge all by `signer` once."""
        return signer in self._cut

    def left_standing(self, signer: str, vid: bytes) -> bool:
        """Does a removal of `signer` stand that leaves his version `vid` on the near side? What is there is finite."""
        if signer not in self._cut:
            return False
        by_admins = self._profiles.cuts.inside_removal(signer, vid)
        if by_admins is False:
            return False
        by_master = self._master_cuts.inside_removal(signer, vid)
        return by_master is not False and bool(by_admins or by_master)

    def is_whole(self, signer: str) -> bool:
        """Has everything come of `signer` that the standing removals leave standing? Then nothing of him that is still
        to come can be on the near side."""
        return not (self._master_cuts.incomplete(signer) or self._profiles.cuts.incomplete(signer))

    def _again(
        self, state: State, indices: Iterable[int], signers: frozenset[str], versions: tuple[bytes, ...]
    ) -> Change:
        """Judge the profiles `indices` again, and say what that touches beside `signers` and `versions`."""
        flips, touched, everything = self._profiles.reconsider(indices)
        if flips:
            self._views.clear()
            self._now = None
        flipped: dict[bytes, State] = {}
        for index in flips:
            flipped[self._profiles.dag.vids[index]] = (
                State.APPLIED if self._profiles.stands[index] else State.QUARANTINED
            )
        return Change(state, flipped, signers | touched, versions, everything)

    # the question

    def may_write(self, claim: Claim) -> bool:
        """May this version stand, by all that is known now? False, too, while something that it depends on is not
        known.

        The claim need not have been integrated. Device profiles stand if they signed themselves, escrow entries if
        the MasterProfiles list them."""
        kind = claim.kind
        if kind == Kind.ITEM or kind == Kind.CONTAINER:
            return self._may_write_entry(claim)
        if kind == Kind.DEVICE:
            return claim.signer == claim.identifier
        if kind in _ESCROW:
            return self._masters.escrow().get(claim.identifier) == claim.vid
        known = self.state(claim.vid)
        if known is not None:
            return known is State.APPLIED
        if kind not in (Kind.MASTER, Kind.PERSONAL) or not all(self.knows(vid) for vid in claim.dependencies):
            return False
        try:
            self.check_shape(claim)
            self.check_links(claim)
        except TrustError:
            return False
        return kind == Kind.MASTER or self._profiles.judge(
            claim.signer, claim.vid, self._masters_at(claim.links.p, claim.master)
        )

    def _may_write_entry(self, claim: Claim) -> bool:
        view = self._view(claim.links.a)
        if view is None:
            return False
        signer = claim.signer
        is_container = claim.kind == Kind.CONTAINER
        container = claim.container
        right = self._right(view, signer, container, is_container)
        if right == NO_RIGHT:
            return False
        if signer not in self._cut:
            return True
        vid = claim.vid
        cuts = self._profiles.cuts
        if cuts.inside_removal(signer, vid) is False or self._master_cuts.inside_removal(signer, vid) is False:
            return False
        if is_container:
            return not self._master_cuts.outside_scoped(signer, SCOPE_ADMIN, vid, view.masters)
        if cuts.outside_scoped(signer, container, vid, view.profiles):
            return False
        return right == EXPLICIT or not cuts.outside_scoped(signer, ALL, vid, view.profiles, container)

    def _view(self, a: tuple[bytes, ...]) -> View | None:
        """The state that the heads `a` give; None unless all of them are profiles."""
        view = self._views.get(a)
        if view is None:
            index = self._profiles.dag.index
            if not a or not all(vid in index for vid in a):
                return None  # not kept: one of them may come
            if len(self._views) >= _MAX_VIEWS:
                self._views.clear()
            view = self._views[a] = self._view_of([index[vid] for vid in a])
        return view
