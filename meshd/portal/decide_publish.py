"""Publish: which version may be stored, as what, and what is missing first.

A valid version is never refused for being concurrent: the portal keeps all heads, and those that it names as parents
retire. What its signer had no right to write is kept as quarantined, under a quota of its own. Links to versions that
are not here refuse it, with the list of them, and nothing is stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from meshd.crypto import base64url
from meshd.errors import MeshError, TrustError
from meshd.portal import decide_publish_2016, rights
from meshd.portal.checked import Current, Old, Publish, Row
from meshd.portal.messages import PublishResponse
from meshd.portal.outcomes import (
    Context,
    Decision,
    Notice,
    PutOpener,
    PutRow,
    PutVersion,
    Refuse,
    SignedBy,
    Write,
)
from meshd.portal.reasons import Reason
from meshd.portal.statuses import DESCRIPTION_OF_SUCCESS, Status
from meshd.portal.structures import Outcome
from meshd.portal.view import Known, View
from meshd.profile import version
from meshd.profile.claim import Claim, Kind, State
from meshd.profile.trust import Authority, check_parents
from meshd.profile.version import Parsed, Version

_ESCROW = (Kind.OFFLINE_ESCROW, Kind.ONLINE_ESCROW)
MAX_MISSING = 256  # vids named in one answer


def publish(checked: Publish, context: Context, view: View) -> Decision:
    """Decide a Publish of one entry."""
    if len(checked.entries) != 1:
        raise ValueError("a batch is split before it is decided")
    (entry,) = checked.entries
    if isinstance(entry, Old):
        return decide_publish_2016.publish(entry, context, view)
    found = entry.version or _verify_now(entry, view)
    kind = entry.parsed.claim.kind
    if kind is Kind.PERSONAL:
        return _personal(entry, found, checked.rows, context, view)
    if kind in _ESCROW:
        assert found is not None  # they are unsigned
        return _escrow(found, context, view)
    return _application(entry.parsed.claim, found, checked.rows, context, view)


def split(checked: Publish) -> list[Publish]:
    """The single publishes that a batch is. All share the rows: each takes those that it leads to."""
    return [Publish((entry,), checked.rows, batch=False) for entry in checked.entries]


def join(replies: Sequence[PublishResponse]) -> PublishResponse:
    """The answer to a batch: one Outcome per entry, in order. It succeeds if all of them did."""
    outcomes = [
        Outcome(
            status=reply.status or int(Status.SUCCESS),
            missing=reply.missing,
            transaction_id=reply.transaction_id,
            receipt=reply.receipt,
        )
        for reply in replies
    ]
    failed = next((reply for reply in replies if reply.status != Status.SUCCESS), None)
    if failed is None:
        return PublishResponse(status=int(Status.SUCCESS), status_description=DESCRIPTION_OF_SUCCESS, outcomes=outcomes)
    return PublishResponse(status=failed.status, status_description=failed.status_description, outcomes=outcomes)


def _no(context: Context, status: Status, reason: Reason, **members: object) -> Refuse:
    return rights.refuse("Publish", context, status, reason, **members)


def _verify_now(entry: Current, view: View) -> Version | None:
    """The key of its signer may have come since the request was checked, with an earlier one of the same batch."""
    try:
        return version.verify(entry.parsed, view)
    except MeshError:
        return None


# --- entries of ours --------------------------------------------------------------------------------------------------


def _personal(
    entry: Current, found: Version | None, rows: Mapping[bytes, Row], context: Context, view: View
) -> Decision:
    claim = entry.parsed.claim
    mesh = claim.identifier
    authority = view.authority(mesh)
    account = rights.account_of(mesh, view)
    by_master = claim.signer == mesh
    known_caller = rights.caller_device(context, view, mesh) is not None
    # Who lost every device comes back with the master key and a device that only the new profile lists.
    returning = by_master and isinstance(context.caller, SignedBy) and context.caller.keyid in entry.daks
    opening = account is not None and authority is not None and rights.is_opener(context, view, account, authority)
    if account is None or authority is None or not (known_caller or returning or opening):
        return _no(context, Status.UNAUTHORIZED, Reason.SIGN_IN)
    if not rights.may_change(account):
        return rights.suspended("Publish", context)
    if view.stored(claim.vid) is not None:
        return rights.accept("Publish")
    master = entry.parsed.embedded[0].claim
    master_known = authority.knows(master.vid)
    needed = claim.links.p if master_known else claim.links.p + master.links.p
    missing = [vid for vid in needed if not authority.knows(vid)]
    missing += device_parents_missing(entry.parsed, rows, view)
    if missing:
        return _missing(missing, context)
    if found is None:
        return _no(context, Status.UNAUTHORIZED, Reason.SIGNATURE)
    for one in (*entry.parsed.embedded, entry.parsed):
        authority.check_shape(one.claim)
    new_rows = _rows_for(mesh, found, rows, view)
    check_chains(found, new_rows, view)
    state = _profile_state(authority, found, master_known)
    if state is None:
        return _no(context, Status.UNAUTHORIZED, Reason.NOT_ALLOWED)
    writes = [*new_rows, *embedded_writes(mesh, found, authority, view)]
    writes.append(PutVersion(mesh, found, state))
    if account.opener in entry.daks and state is State.APPLIED:
        writes.append(PutOpener(account.name, "", b""))  # from now on its device is known as any other
    if not known_caller and not opening:
        writes.append(Notice(mesh, "published-by-master-key", context.caller.keyid))  # type: ignore[union-attr]
    return _finish(found, state, mesh, writes, context, view)


def _profile_state(authority: Authority, found: Version, master_known: bool) -> State | None:
    """Where a profile will stand; None if its signer never was of the mesh."""
    claim = found.claim
    if master_known and authority.may_write(claim):
        return State.APPLIED
    listed = found.embedded[0].claim.admins
    if not master_known and (claim.signer == claim.identifier or claim.signer in listed):
        # A MasterProfile that is new here counts as soon as it is integrated; the store judges for good then.
        return State.APPLIED
    ours = claim.signer == claim.identifier or claim.signer in authority.ever_devices() | authority.admins() | listed
    return State.QUARANTINED if ours else None


def _application(
    claim: Claim, found: Version | None, rows: Mapping[bytes, Row], context: Context, view: View
) -> Decision:
    owner = view.owner(Kind.CONTAINER, claim.container)
    mesh = _mesh_for(claim.links.a, owner, context, view)
    authority, account = view.authority(mesh), rights.account_of(mesh, view)
    if authority is None or account is None:
        return _no(context, Status.UNAUTHORIZED, Reason.SIGN_IN)
    if not rights.may_change(account):
        return rights.suspended("Publish", context)
    stored = view.stored(claim.vid)
    if stored is not None and stored.mesh == mesh:
        return rights.accept("Publish")
    if {view.owner(claim.kind, claim.identifier), owner} - {None, mesh} or stored is not None:
        return _no(context, Status.UNAUTHORIZED, Reason.NOT_ALLOWED)
    missing = [vid for vid in claim.links.a if not authority.knows(vid)]
    missing += [vid for vid in claim.links.p if vid not in rows and view.known(vid) is None]
    if missing:
        return _missing(missing, context)
    if found is None:
        return _no(context, Status.UNAUTHORIZED, Reason.SIGNATURE)
    new_rows = _rows_for(mesh, found, rows, view)
    parents = _known_rows(new_rows)
    authority.check_shape(claim)
    check_parents(claim, _parents(claim, parents, view))
    _check_count(claim, parents, view)
    state = State.APPLIED
    if not authority.may_write(claim):
        if claim.signer not in authority.ever_devices() | authority.admins():
            return _no(context, Status.UNAUTHORIZED, Reason.NOT_ALLOWED)
        state = State.QUARANTINED
    return _finish(found, state, mesh, [*new_rows, PutVersion(mesh, found, state)], context, view)


def _escrow(found: Version, context: Context, view: View) -> Decision:
    """Write-once: the same again is a success, anything else under the name never is."""
    mesh = _mesh_for((), None, context, view)
    authority, account = view.authority(mesh), rights.account_of(mesh, view)
    if authority is None or account is None:
        return _no(context, Status.UNAUTHORIZED, Reason.SIGN_IN)
    if not rights.may_change(account):
        return rights.suspended("Publish", context)
    existing = [head for kind in _ESCROW for head in view.heads(kind, found.identifier)]
    if existing:
        if any(head.vid == found.vid for head in existing):
            return rights.accept("Publish")
        return _no(context, Status.EXISTS, Reason.ESCROW_EXISTS)
    if view.known(found.vid) is not None:
        return rights.accept("Publish")  # it counted once, and was given up since
    if view.usage(mesh).escrow >= context.policy.escrow_per_account:
        return _no(context, Status.QUOTA, Reason.QUOTA)
    # It counts when a MasterProfile lists it, which comes after it or before.
    state = State.APPLIED if authority.may_write(found.claim) else State.PENDING
    return _finish(found, state, mesh, [PutVersion(mesh, found, state)], context, view)


def _mesh_for(a: tuple[bytes, ...], owner: str | None, context: Context, view: View) -> str:
    """For which mesh a device sends something that does not say so itself; empty for none, or where it is not clear."""
    meshes = [one.mesh for one in rights.caller_devices(context, view)]
    if len(meshes) > 1:
        # Somebody else lists this device, too. The vault, or the authority named, tells which mesh is meant.
        under = [mesh for mesh in meshes if a and (found := view.authority(mesh)) and any(map(found.knows, a))]
        meshes = [mesh for mesh in meshes if mesh == owner] or under
    return meshes[0] if len(meshes) == 1 else ""


def _finish(found: Version, state: State, mesh: str, writes: list[Write], context: Context, view: View) -> Decision:
    """Compare-and-swap where it was asked for, quotas, and then yes."""
    if context.if_head is not None:
        heads = {head.vid for head in view.heads(found.kind, found.identifier)}
        if heads != context.if_head:
            return _no(context, Status.HEAD_MOVED, Reason.HEAD_MOVED, heads=_texts(sorted(heads)))
    usage, policy, size = view.usage(mesh), context.policy, len(found.raw)
    full = usage.bytes + size > policy.quota_bytes or usage.entries >= policy.quota_entries
    if state is State.QUARANTINED:
        full = full or usage.quarantined_bytes + size > policy.quota_quarantined_bytes
        full = full or usage.quarantined >= policy.quota_quarantined
    if full:
        return _no(context, Status.QUOTA, Reason.QUOTA)
    return rights.accept("Publish", *writes)


def root_writes(root: Version, rows: Mapping[bytes, Row], view: View) -> list[Write]:
    """What opening an account stores of the first profile of its mesh. TrustError as `check_chains`."""
    mesh = root.identifier
    new_rows = _rows_for(mesh, root, rows, view)
    check_chains(root, new_rows, view)
    writes: list[Write] = [*new_rows, *embedded_writes(mesh, root, None, view)]
    return [*writes, PutVersion(mesh, root, State.APPLIED)]


def embedded_writes(mesh: str, found: Version, authority: Authority | None, view: View) -> Iterator[Write]:
    """The master and device profiles that a personal profile brings, as versions of their own kind (formats.md F1)."""
    for part in found.embedded:
        assert isinstance(part, Version)
        held = view.stored(part.vid) is not None
        if authority is not None and part.kind is Kind.MASTER:
            held = authority.knows(part.vid)
        if not held:
            yield PutVersion(mesh, part, State.APPLIED, leaf=False)


# --- links ------------------------------------------------------------------------------------------------------------


def _missing(vids: Iterable[bytes], context: Context) -> Refuse:
    named = _texts(list(dict.fromkeys(vids))[:MAX_MISSING])
    return _no(context, Status.LINKS_MISSING, Reason.MISSING, missing=named)


def _texts(vids: Iterable[bytes]) -> list[str]:
    return [base64url.encode(vid) for vid in vids]


def _rows_for(mesh: str, found: Version, rows: Mapping[bytes, Row], view: View) -> list[PutRow]:
    """The rows that this version leads to, through parents and predecessors, and that are not here. A row is believed
    for no other reason than that a verified version names its vid (formats.md F1). TrustError if it says otherwise."""
    if not rows:
        return []
    todo: list[tuple[bytes, str, tuple[Kind, str] | None]] = []
    for one in (found, *found.embedded):
        todo += [(vid, one.claim.signer, None) for vid in one.claim.links.q]
        todo += [(vid, "", (one.claim.kind, one.claim.identifier)) for vid in one.claim.links.p]
    taken: dict[bytes, PutRow] = {}
    while todo:
        vid, signer, entry = todo.pop()
        row = rows.get(vid)
        if row is None:
            continue
        if (signer and row.signer != signer) or (entry is not None and (row.kind, row.identifier) != entry):
            raise TrustError("a row of another chain or entry than the one that leads to it")
        if vid in taken or view.known(vid) is not None:
            continue
        taken[vid] = PutRow(mesh, row)
        todo += [(one, row.signer, None) for one in row.links.q]
        todo += [(one, "", (row.kind, row.identifier)) for one in row.links.p]
    return list(taken.values())


def device_parents_missing(profile: Parsed, rows: Mapping[bytes, Row], view: View) -> list[bytes]:
    """The earlier profiles of renewed devices, which are neither here nor given as rows."""
    named = [vid for part in profile.embedded[1:] for vid in part.claim.links.p]
    return [vid for vid in named if vid not in rows and view.known(vid) is None]


def check_chains(profile: Version, rows: Iterable[PutRow], view: View) -> None:
    """TrustError unless a personal profile, and each device profile in it, stands where its author's chain has it, and
    the device profiles follow their own earlier ones."""
    given = _known_rows(rows)
    for part in (*profile.embedded[1:], profile):
        _check_count(part.claim, given, view)
        if part.claim.kind is Kind.DEVICE:
            check_parents(part.claim, _parents(part.claim, given, view))


def _known_rows(rows: Iterable[PutRow]) -> dict[bytes, Known]:
    return {
        one.row.vid: Known(one.row.kind, one.row.identifier, one.row.links.g, one.row.signer, one.row.links.n)
        for one in rows
    }


def _parents(claim: Claim, parents: Mapping[bytes, Known], view: View) -> Iterator[tuple[int, str, int]]:
    for vid in claim.links.p:
        known = parents.get(vid) or view.known(vid)
        if known is not None:
            yield int(known.kind), known.identifier, known.generation


def _check_count(claim: Claim, parents: Mapping[bytes, Known], view: View) -> None:
    """n = 1 + max over q, as far as q is known; TrustError. Counts decide nothing, but a wrong one is malformed."""
    if not claim.links.n:  # signed by the master key, which has no chain
        return
    top = 0
    for vid in claim.links.q:
        known = parents.get(vid) or view.known(vid)
        if known is None:
            return
        if known.signer != claim.signer:
            raise TrustError("a version that follows one of another signer in its chain")
        top = max(top, known.n)
    if claim.links.n != top + 1:
        raise TrustError("a version whose place in its author's chain is not one after its predecessor's")
