"""Publish for documents of 2016: judged by the profile before, one head per entry, and nothing comes back.

Clients of 2016 sign no request, so the document's own signature is all there is. They also publish applications before
the account that they belong to: those are held aside, unread, until a profile lists them.
"""

from __future__ import annotations

from meshd.errors import TrustError
from meshd.portal import rights
from meshd.portal.checked import Old
from meshd.portal.documents2016 import Document, Profile
from meshd.portal.outcomes import Context, Decision, Hold, PutDocument, Refuse, Release, Write
from meshd.portal.reasons import Reason
from meshd.portal.statuses import Status
from meshd.portal.view import View
from meshd.profile.claim import Kind

_ESCROW = (Kind.OFFLINE_ESCROW, Kind.ONLINE_ESCROW)


def _no(context: Context, status: Status, reason: Reason) -> Refuse:
    return rights.refuse("Publish", context, status, reason)


def publish(entry: Old, context: Context, view: View) -> Decision:
    document = entry.document
    if context.policy.compat != "full":
        return _no(context, Status.UNAUTHORIZED, Reason.COMPAT)
    if document.kind is Kind.OFFLINE_ESCROW:
        return _escrow(document, context, view)
    if entry.profile is not None:
        return _personal(entry.profile, context, view)
    return _application(document, context, view)


def _personal(profile: Profile, context: Context, view: View) -> Decision:
    """Judged by the profile before: who wrote the new one must have been an administrator there."""
    before = view.profile_2016(profile.mesh)
    account = view.mesh_account(profile.mesh)
    if before is None or account is None:
        return _no(context, Status.UNAUTHORIZED, Reason.NOT_ALLOWED)
    if not rights.may_change(account):
        return _no(context, Status.UNAUTHORIZED, Reason.SUSPENDED)
    key = before.administrator(profile.document.kid)
    if key is None:
        return _no(context, Status.UNAUTHORIZED, Reason.NOT_ALLOWED)
    profile.document.verify(key)
    return _replace(profile.document, profile.mesh, profile_writes(profile, view), context, view)


def _application(document: Document, context: Context, view: View) -> Decision:
    identifier, kid = document.identifier, document.kid
    owner = view.owner(Kind.CONTAINER, identifier)
    if owner is None:
        signer = view.signer_2016(kid)
        if signer is None:
            return _hold(document, context, view)
        owner, key = signer
        listed = view.profile_2016(owner)
        if listed is not None and identifier in listed.applications and listed.writer(identifier, kid) is None:
            return _no(context, Status.UNAUTHORIZED, Reason.NOT_ALLOWED)
    else:
        profile = view.profile_2016(owner)
        if profile is None:
            return _no(context, Status.UNAUTHORIZED, Reason.NOT_ALLOWED)
        # Until the profile lists it, the devices of the account that brought it may write it.
        found = profile.writer(identifier, kid)
        if found is None and identifier not in profile.applications:
            found = profile.devices.get(kid)
        if found is None:
            return _no(context, Status.UNAUTHORIZED, Reason.NOT_ALLOWED)
        key = found
    if not rights.may_change(view.mesh_account(owner)):
        return _no(context, Status.UNAUTHORIZED, Reason.SUSPENDED)
    document.verify(key)
    return _replace(document, owner, [PutDocument(owner, document)], context, view)


def _hold(document: Document, context: Context, view: View) -> Decision:
    """A client of 2016 publishes applications before the account that they belong to: nobody can judge them yet."""
    if view.held_count(context.now) >= context.policy.held_documents:
        return _no(context, Status.OVERLOAD, Reason.BUSY)
    return rights.accept("Publish", Hold(document, context.now + context.policy.hold_seconds))


def _replace(document: Document, mesh: str, writes: list[Write], context: Context, view: View) -> Decision:
    """An entry of 2016 has one head. What was replaced does not come back: a replay must not undo a change."""
    heads = view.heads(document.kind, document.identifier)
    if any(head.vid == document.vid for head in heads):
        return rights.accept("Publish")
    if view.known(document.vid) is not None:
        return _no(context, Status.EXISTS, Reason.STALE)
    usage, policy = view.usage(mesh), context.policy
    if usage.bytes + len(document.raw) > policy.quota_bytes or usage.entries >= policy.quota_entries:
        return _no(context, Status.QUOTA, Reason.QUOTA)
    return rights.accept("Publish", *writes)


def _escrow(document: Document, context: Context, view: View) -> Decision:
    existing = [head for kind in _ESCROW for head in view.heads(kind, document.identifier)]
    if existing:
        if any(head.vid == document.vid for head in existing):
            return rights.accept("Publish")
        return _no(context, Status.EXISTS, Reason.ESCROW_EXISTS)
    if view.unowned_escrow() >= context.policy.unowned_escrow:
        return _no(context, Status.OVERLOAD, Reason.BUSY)
    return rights.accept("Publish", PutDocument(None, document))


def profile_writes(profile: Profile, view: View) -> list[Write]:
    """A personal profile of 2016, and the held applications that it lists and one of whose SignID has signed."""
    writes: list[Write] = [PutDocument(profile.mesh, profile.document)]
    for identifier in sorted(profile.applications):
        held = view.held_2016(identifier)
        if held is None:
            continue
        writes.append(Release(identifier))
        key = profile.writer(identifier, held.kid)
        owner = view.owner(Kind.CONTAINER, identifier)
        if key is None or owner not in (None, profile.mesh):
            continue
        try:
            held.verify(key)
        except TrustError:
            continue
        writes.append(PutDocument(profile.mesh, held))
    return writes
