"""Writing profiles: the effective state, edited, becomes the next version, with the cuts and confirmations it carries.

Whatever an admin does to the mesh is one or two of these versions. A MasterProfile says who is an admin, and each new
one ships with a PersonalProfile that embeds it, signed by the master key too (formats.md F7). Runs in the writer's
thread, in the transaction of whatever else belongs to the deed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from meshd.crypto.keys import RecipientKey, SigningKey, VerifyKey
from meshd.daemon import membership, surplus
from meshd.daemon.pen import Pen
from meshd.errors import Denied, TrustError
from meshd.profile import escrow, master, personal, version
from meshd.profile.claim import Kind, Role
from meshd.profile.links import Cut
from meshd.profile.personal import Application, Listing
from meshd.profile.version import Parsed, Version
from meshd.store.replica import Draft

_ROOM = 10 * 1024  # of a NotaryToken's 16 KiB, for cuts; the rest is for parents and chain


@dataclass(slots=True)
class State:
    """The state that the next PersonalProfile states; `state` fills it with what is effective now."""

    devices: dict[str, Parsed]
    applications: dict[str, Application]
    roles: dict[str, Role]  # members and relays
    grants: dict[str, dict[str, str]]
    admins: frozenset[str]

    def drop(self, udf: str) -> None:
        """List a device no longer. That alone removes nothing: the version has to cut it."""
        self.devices.pop(udf, None)
        self.roles.pop(udf, None)
        self.grants.pop(udf, None)


def state(pen: Pen) -> State:
    """What is effective for this store."""
    listing = membership.effective(pen)
    return State(
        dict(listing.devices),
        {application.identifier: application for application in listing.applications},
        dict(listing.roles),
        {udf: dict(granted) for udf, granted in listing.grants.items()},
        listing.admins,
    )


def write_profile(
    pen: Pen,
    wanted: State,
    *,
    top: Parsed | None = None,
    cuts: Iterable[Cut] = (),
    confirm: Sequence[str] = (),
    master_key: SigningKey | None = None,
) -> Version:
    """A PersonalProfile over the current heads, by this admin or the master key. `top` is the MasterProfile to embed.

    More cuts than a version has room for make several versions, one after the other; the last is returned."""
    written = _write(pen, wanted, top, list(cuts), confirm, master_key)
    # Somebody whose rights came with a profile that fell must not be given keys when containers are wrapped anew.
    extra = surplus.cuts(pen)
    return _write(pen, state(pen), top, extra, (), master_key) if extra else written


def _write(
    pen: Pen,
    wanted: State,
    top: Parsed | None,
    cuts: list[Cut],
    confirm: Sequence[str],
    master_key: SigningKey | None,
) -> Version:
    listing = Listing(
        wanted.devices, list(wanted.applications.values()), wanted.roles, wanted.grants, admins=wanted.admins
    )
    embedded = top or membership.master_to_embed(pen)
    written: Version | None = None
    portions = _portions(cuts)
    for place, part in enumerate(portions, 1):
        heads = pen.replica.authority.heads(Kind.PERSONAL)
        body = personal.body(embedded, listing, pen.load(heads[:1])[0])
        said = tuple(confirm) if place == len(portions) else ()
        draft = Draft(Kind.PERSONAL, pen.replica.mesh, "PersonalProfile", body, parents=heads, confirm=said, cuts=part)
        written = pen.write(draft, master_key)
    assert written is not None  # there is always one portion
    return written


def _portions(cuts: list[Cut]) -> list[tuple[Cut, ...]]:
    found: list[list[Cut]] = [[]]
    size = 0
    for cut in cuts:
        length = 100 + 44 * len(cut.tips)
        if size + length > _ROOM and found[-1]:
            found.append([])
            size = 0
        found[-1].append(cut)
        size += length
    return [tuple(part) for part in found]


# --- the master profile -----------------------------------------------------------------------------------------------


def write_master(
    pen: Pen,
    master_key: SigningKey,
    admins: Collection[str],
    *,
    cuts: Iterable[Cut] = (),
    sealed: bytes | None,
    recovery: tuple[Version, RecipientKey] | None = None,
    keep_recovery: bool = True,
) -> Version:
    """A MasterProfile over all heads that lists these admins, taken in at once. The PersonalProfile that embeds it is
    the caller's next line.

    `sealed` is the sealed master key, wrapped for exactly these admins in a new escrow entry; every older one goes.
    None: no device holds it from now on. `recovery` is a new recovery entry and the master escrow key in it; those so
    far go unless `keep_recovery`. TrustError when the key is another mesh's."""
    if master_key.udf != pen.replica.mesh:
        raise TrustError("That master key is not this mesh's.")
    authority = pen.replica.authority
    parents = pen.load(authority.heads(Kind.MASTER))
    kept = {name: vid for name, vid in authority.escrow().items() if membership.open_sealed(pen, vid) is None}
    if not keep_recovery:
        kept = {name: vid for name, vid in kept.items() if name not in recovery_entries(pen)}
    keys: dict[str, VerifyKey] = {}
    for parent in parents:
        keys |= version.online_keys(parent.body)
    readers: list[RecipientKey] = []
    for udf in sorted(admins):
        profile = pen.replica.device(pen.connection, udf)
        if profile is not None:
            keys[udf] = profile.dsk
            readers.append(profile.dek)
        elif udf not in keys:
            raise Denied("The device's profile has not come here yet.", hint="let this device sync, and try again")
    if sealed is not None and readers:
        entry = escrow.entry(sealed, readers, pen.rng)
        pen.replica.take_escrow(pen.connection, entry, pen.now_ms, pen.outcome)
        kept[entry.identifier] = entry.vid
    if recovery is not None:
        pen.replica.take_escrow(pen.connection, recovery[0], pen.now_ms, pen.outcome)
        kept[recovery[0].identifier] = recovery[0].vid
    top = master.write(
        master_key,
        [keys[udf] for udf in admins],
        parents=parents,
        escrow=kept,
        recovery={recovery[0].identifier: recovery[1]} if recovery is not None else None,
        cuts=cuts,
        now=pen.now_ms // 1000,
    )
    refused = len(pen.outcome.rejected)
    pen.replica.accept(pen.connection, [top], pen.now_ms, pen.outcome)
    for vid, why in pen.outcome.rejected[refused:]:
        if vid == top.vid:
            raise TrustError(f"The master profile would not stand: {why}.")
    return top


def recovery_entries(pen: Pen) -> dict[str, bytes]:
    """Identifier → vid of the recovery entries that count now, whether they have come here or not."""
    authority = pen.replica.authority
    named = {name for head in pen.load(authority.heads(Kind.MASTER)) for name in master.recovery_entries(head)}
    return {name: vid for name, vid in authority.escrow().items() if name in named}


def held_master(pen: Pen) -> bytes | None:
    """The sealed master key as this device can open it; None on a device that is no admin, or while it is kept
    offline."""
    for vid in sorted(pen.replica.authority.escrow().values()):
        blob = membership.open_sealed(pen, vid)
        if blob is not None:
            return blob
    return None


def check_admin(pen: Pen, master_key: SigningKey | None = None) -> None:
    """Denied unless this device is an admin, or the master key is at hand; TrustError for another mesh's."""
    if master_key is not None and master_key.udf != pen.replica.mesh:
        raise TrustError("That master key is not this mesh's.")
    if master_key is None and pen.replica.own not in pen.replica.authority.admins():
        raise Denied("This device is no admin.", hint="do this on an admin device")
