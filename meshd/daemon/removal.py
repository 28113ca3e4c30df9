"""Removing devices: one transaction cuts them off, and gives new keys to everything that they could read.

    members, relays     a PersonalProfile with a cut `x=UDF:tips`, by any admin
    admins              a MasterProfile that drops and cuts them, and the PersonalProfile that ships with it
    then                new keys for every vault and for Discovery, wrapped for exactly who is left

What the cut of an admin takes with it is the person's to decide before it happens: removals of his that would fall are
either stated again in the same version (`keep_removed`) or taken back (`readmit`), and what his profiles added stays
only where it is confirmed (`confirm`). Nothing falls unseen. Runs in the writer's thread (formats.md F7).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from meshd.crypto.keys import SigningKey
from meshd.daemon import authoring, fallen, rotation, snapshot, surplus
from meshd.daemon.pen import Pen
from meshd.errors import BadRequest, Denied, NotFound, Refused
from meshd.profile import links
from meshd.profile.apps import of_tag
from meshd.profile.claim import Claim, Kind, Role, State
from meshd.profile.links import SCOPE_REMOVED, Cut, Links
from meshd.profile.trust import Authority
from meshd.profile.version import Parsed
from meshd.store import versions


@dataclass(frozen=True, slots=True)
class Undone:
    """A removal that would fall: `victim` was removed by `remover`, whose chain is cut before that."""

    victim: str
    remover: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What a removal will do, as this store sees it now."""

    devices: tuple[str, ...]
    roles: dict[str, Role | None]  # None: removed before, and only its cut is moved
    vaults: tuple[str, ...]  # containers that get new keys
    needs_master: bool
    last_admin: bool  # nobody would be an admin afterwards
    quarantined: int  # versions that stand now and would not afterwards
    undone: tuple[Undone, ...] = ()  # each has to be in `keep_removed` or `readmit`
    adds: tuple[str, ...] = ()  # what would fall with the profiles that added it, as `confirm` names it
    known_since_ms: int = 0  # this store's oldest record of receipt: it can't tell what was before that
    lost: tuple[str, ...] = ()  # vaults whose keys no other device holds, so that nobody opens their items any more


@dataclass(frozen=True, slots=True)
class Removed:
    """What a removal did. A device has acknowledged it when it holds everything of this store up to `seq`."""

    removed: tuple[str, ...]
    rotated: tuple[str, ...]  # vaults with new keys
    left: tuple[str, ...]  # vaults that this device could not give new keys: another admin does
    seq: int


def plan(pen: Pen, devices: Iterable[str], *, since_ms: int | None = None) -> Plan:
    """What `remove` would do. NotFound for a device that never was of the mesh."""
    chosen = _chosen(pen, devices)
    authority = pen.replica.authority
    admins = authority.admins()
    dropped = [udf for udf in chosen if _by_master(pen, udf)]
    ends = {udf: surplus.tips(pen, udf, since_ms) for udf in chosen}
    falling = _falling(pen, dropped, ends)
    undone, adds = _forecast(pen, dropped, ends) if falling else ((), ())
    (oldest,) = pen.connection.execute("SELECT min(received) FROM versions").fetchone()
    return Plan(
        devices=chosen,
        roles={udf: authority.role(udf) for udf in chosen},
        vaults=tuple(name for name in _given_new_keys(pen, chosen) if f"X:{name}" not in adds),
        needs_master=bool(dropped) or since_ms is not None,
        last_admin=bool(admins) and admins <= set(chosen),
        quarantined=sum(_outside(pen, udf, ends[udf]) for udf in chosen),
        undone=undone,
        adds=adds,
        known_since_ms=oldest or 0,
        lost=_lost(pen, chosen),
    )


def remove(
    pen: Pen,
    devices: Iterable[str],
    *,
    since_ms: int | None = None,
    master_key: SigningKey | None = None,
    keep_removed: Collection[str] = (),
    readmit: Collection[str] = (),
    confirm: Collection[str] = (),
    leave_no_admin: bool = False,
) -> Removed:
    """Remove devices for good, all in one. For a device that was removed before, `since_ms` moves the cut.

    Denied: this device is no admin, is to remove itself, or the master key is needed. Refused: the mesh would be left
    without an admin, or removals would fall of which nothing was said. NotFound."""
    chosen = _chosen(pen, devices)
    authority = pen.replica.authority
    authoring.check_admin(pen, master_key)
    if pen.replica.own in chosen:
        raise Denied(
            "A device does not remove itself.", hint="remove it on another admin device, or run here: meshctl wipe"
        )
    dropped = [udf for udf in chosen if _by_master(pen, udf)]
    _check_terms(pen, chosen, dropped, since_ms, master_key, leave_no_admin)
    due = _given_new_keys(pen, chosen)
    ends = {udf: surplus.tips(pen, udf, since_ms) for udf in chosen}
    cuts: list[Cut] = [Cut(udf, ends[udf]) for udf in chosen if udf not in dropped]
    top: Parsed | None = None
    if dropped:
        assert master_key is not None  # _check_terms
        before, stated = _Effect.of(authority), _stated_removals(pen)
        again = surplus.stated_by(pen, dropped)
        sealed = authoring.held_master(pen)
        left = authority.admins() - set(chosen)
        master_cuts = [Cut(udf, ends[udf]) for udf in dropped]
        top = authoring.write_master(pen, master_key, left, cuts=master_cuts, sealed=sealed)
        undone = _Effect.of(authority).returned(before, chosen)
        cuts += _kept(undone, stated, keep_removed, readmit)
        cuts += [cut for cut in again if cut.udf in authority.removed() and cut.udf not in chosen]
    confirmed = [*confirm, *(f"D:{udf}" for udf in readmit)]
    wanted = authoring.state(pen)
    for cut in cuts:
        wanted.drop(cut.udf)
    fallen.list_confirmed(pen, wanted, confirmed)
    authoring.write_profile(pen, wanted, top=top, cuts=cuts, confirm=confirmed, master_key=master_key)
    rotated = rotation.settle(pen)
    stand = snapshot.applications(pen.connection, pen.replica)
    left_over = tuple(
        identifier
        for identifier in due
        if identifier in stand
        and (
            (opened := pen.keyring.vaults.get(identifier)) is None
            or not rotation.usable(pen.connection, pen.replica, opened)
        )
    )
    return Removed(chosen, rotated, left_over, max((seq for seq, _ in pen.outcome.added), default=0))


# --- who, and on which terms ------------------------------------------------------------------------------------------


def _chosen(pen: Pen, devices: Iterable[str]) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(devices))
    if not chosen:
        raise BadRequest("Which device is to be removed?")
    authority = pen.replica.authority
    known = authority.devices() | authority.admins() | authority.removed() | authority.ever_devices()
    for udf in chosen:
        if udf not in known:
            raise NotFound("There is no such device in this mesh.", hint="see: meshctl device list")
    return chosen


def _by_master(pen: Pen, udf: str) -> bool:
    """Is his removal the master key's business? For who was an admin when removed, moving the cut is, too."""
    authority = pen.replica.authority
    if udf in authority.admins():
        return True
    return udf in authority.removed() and any(
        cut.udf == udf and cut.scope == SCOPE_REMOVED
        for row in versions.of_kind(pen.connection, Kind.MASTER)
        for cut in links.parse(row.token).x
    )


def _check_terms(
    pen: Pen,
    chosen: Sequence[str],
    dropped: Sequence[str],
    since_ms: int | None,
    master_key: SigningKey | None,
    leave_no_admin: bool,
) -> None:
    authority = pen.replica.authority
    if since_ms is not None:
        if since_ms > pen.now_ms:
            raise BadRequest("That moment is still to come.")
    elif again := [udf for udf in chosen if udf in authority.removed()]:
        # Not to be moved by accident to what has come since: that would apply what lies in quarantine.
        raise Denied(f"{again[0][:11]} was removed already.", hint="to move the moment of a removal, give one")
    if master_key is None:
        if dropped:
            raise Denied("Removing an admin takes the master passphrase.")
        if since_ms is not None:
            raise Denied("Removing a device as of an earlier moment takes the master passphrase.")
    admins = authority.admins()
    if admins and admins <= set(chosen) and not leave_no_admin:
        raise Refused(
            "That would leave the mesh without an admin: nobody could connect or remove devices or make vaults, and no"
            " device would hold the sealed master key.",
            hint="make another device an admin first: meshctl device role NAME admin",
        )


def _given_new_keys(pen: Pen, devices: Collection[str]) -> tuple[str, ...]:
    """The vaults, Discovery and Group among them, whose keys change: all but deleted ones, whatever these devices read,
    for an admin who has not heard may still grant them more. None where only the moment of a removal is moved."""
    if pen.replica.authority.removed().issuperset(devices):
        return ()
    opened = pen.keyring.vaults
    found = snapshot.applications(pen.connection, pen.replica)
    return tuple(name for name in found if name not in opened or not opened[name].container.deleted)


def _lost(pen: Pen, chosen: Collection[str]) -> tuple[str, ...]:
    """The vaults with items that only these devices open: a device that was made an admin after the others were gone
    has no keys until one that has them meets it."""
    replica, authority = pen.replica, pen.replica.authority
    left = (authority.devices() | authority.admins()) - set(chosen)
    escrow = replica.escrow_readers(pen.connection)
    found = []
    for identifier, application in snapshot.applications(pen.connection, replica).items():
        if not of_tag(application.tag).vault:
            continue
        kept: frozenset[str] = frozenset()
        given: frozenset[str] = frozenset()
        for vid in versions.heads(pen.connection, Kind.CONTAINER, identifier):
            envelope = replica.envelope(pen.connection, vid)
            holders = {udf for key in envelope.recipients for udf in replica.holders(key)}
            if holders & left or envelope.recipients & escrow:
                kept |= envelope.kids
            elif holders & set(chosen):
                given |= envelope.kids
        if any(True for _ in rotation.heads_under(pen, given - kept, identifier, "", ())):
            found.append(identifier)
    return tuple(found)


# --- what falls -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Effect:
    """What is effective at some moment, as the keys that `k=` uses."""

    devices: frozenset[str]
    keys: frozenset[str]

    @classmethod
    def of(cls, authority: Authority) -> _Effect:
        devices = authority.devices()
        grants = {f"G:{udf}@{vault}" for udf, vault, _ in authority.grants()}
        vaults = {f"X:{vault}" for vault in authority.applications()}
        return cls(devices, frozenset(grants | vaults | {f"D:{udf}" for udf in devices}))

    def returned(self, before: _Effect, removed: Collection[str]) -> frozenset[str]:
        """Who is a device now and was none before: his removal fell."""
        return self.devices - before.devices - set(removed)

    def lost(self, before: _Effect, removed: Collection[str]) -> tuple[str, ...]:
        """What was effective before and is not any more, the removed devices' own aside."""
        gone = before.keys - self.keys
        return tuple(sorted(key for key in gone if not any(udf in key for udf in removed)))


def _falling(pen: Pen, dropped: Collection[str], ends: dict[str, tuple[bytes, ...]]) -> bool:
    """Does a profile of one of these admins lie beyond the cut?"""
    for udf in dropped:
        signed = [row.vid for row in versions.of_kind(pen.connection, Kind.PERSONAL) if row.signer == udf]
        if signed and not set(signed) <= surplus.reached(pen, udf, ends[udf]):
            return True
    return False


def _outside(pen: Pen, udf: str, ends: tuple[bytes, ...]) -> int:
    """How many versions of a signer stand now and would not under this cut."""
    rows = pen.connection.execute("SELECT vid FROM versions WHERE signer = ? AND state = 1", (udf,)).fetchall()
    inside = surplus.reached(pen, udf, ends)
    return sum(vid not in inside for (vid,) in rows)


def _forecast(
    pen: Pen, dropped: Sequence[str], ends: dict[str, tuple[bytes, ...]]
) -> tuple[tuple[Undone, ...], tuple[str, ...]]:
    """What the cut of these admins would undo, found by cutting them in a copy of the authority."""
    authority = Authority(pen.replica.mesh, _Chains(pen))
    waiting = [
        parsed.claim
        for kind in (Kind.MASTER, Kind.PERSONAL)
        for row in versions.of_kind(pen.connection, kind, (State.APPLIED, State.QUARANTINED))
        for parsed in pen.load([row.vid])
    ]
    waiting.sort(key=lambda claim: claim.links.g)
    while waiting:
        later = []
        for claim in waiting:
            if all(authority.knows(vid) for vid in claim.dependencies):
                authority.integrate(claim)
            else:
                later.append(claim)
        if len(later) == len(waiting):
            break
        waiting = later
    before, stated = _Effect.of(authority), _stated_removals(pen)
    heads = authority.heads(Kind.MASTER)
    generation = 1 + max(row.gen for vid in heads if (row := versions.get(pen.connection, vid)) is not None)
    hypothesis = Links(g=generation, p=heads, x=tuple(Cut(udf, ends[udf]) for udf in dropped))
    mesh = pen.replica.mesh
    admins = authority.admins() - set(dropped)
    authority.integrate(Claim(b"\0" * 32, Kind.MASTER, mesh, mesh, hypothesis, admins=admins))
    after = _Effect.of(authority)
    undone = [Undone(udf, stated[udf][1] if udf in stated else "") for udf in sorted(after.returned(before, dropped))]
    return tuple(undone), after.lost(before, dropped)


class _Chains:
    """The store's chains, for an authority beside the replica's."""

    def __init__(self, pen: Pen) -> None:
        self._connection = pen.connection

    def chain(self, signer: str) -> Iterable[tuple[bytes, tuple[bytes, ...]]]:
        return versions.of_signer(self._connection, signer)


def _stated_removals(pen: Pen) -> dict[str, tuple[Cut, str]]:
    """Who is removed by PersonalProfiles that stand now: the newest cut, and who made it."""
    found: dict[str, tuple[Cut, str]] = {}
    for row in sorted(versions.of_kind(pen.connection, Kind.PERSONAL), key=lambda row: (row.gen, row.vid)):
        for cut in links.parse(row.token).x:
            if cut.scope == SCOPE_REMOVED:
                found[cut.udf] = (cut, row.signer)
    return found


def _kept(
    undone: Collection[str], stated: dict[str, tuple[Cut, str]], keep_removed: Collection[str], readmit: Collection[str]
) -> list[Cut]:
    """The removals that are stated again, where they were; Refused while nothing was said of one."""
    undecided = sorted(udf for udf in undone if udf not in keep_removed and udf not in readmit)
    if undecided:
        raise Refused(
            "Devices that this admin had removed would be back: " + ", ".join(udf[:11] for udf in undecided) + ".",
            hint="say of each whether it stays removed or is taken back, or give a later moment",
        )
    return [stated[udf][0] for udf in sorted(undone) if udf in keep_removed]
