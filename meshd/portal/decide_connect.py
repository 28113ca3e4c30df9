"""Connecting a device through a portal: it asks, an administrator answers, it learns the answer.

    start → waiting (15 minutes) → accepted | rejected | expired

The portal carries the request and the answer and judges neither: the comparison of fingerprints is between the people.
Asking is open to everybody, so it is bounded, and an account that does not exist answers like one that does. In 2016
these responses carry no Status; to ours HTTP says it.
"""

from __future__ import annotations

from meshd.portal import rights
from meshd.portal.checked import ConnectComplete, ConnectPending, ConnectStart, ConnectStatus
from meshd.portal.documents2016 import is_2016
from meshd.portal.outcomes import Context, Decision, PutAnswer, PutPending, SignedBy
from meshd.portal.reasons import Reason
from meshd.portal.statuses import Status
from meshd.portal.view import Account, Answered, Pending, View
from meshd.profile import payload
from meshd.profile.connection import ACCEPTED


def start(checked: ConnectStart, context: Context, view: View) -> Decision:
    """Keep the request, one per device; at most so many wait at one account."""
    account = rights.find_account(str(checked.account), view, context)
    caller = context.caller
    if not context.plain and not (isinstance(caller, SignedBy) and caller.keyid in checked.keys):
        return rights.refuse("ConnectStart", context, Status.UNAUTHORIZED, Reason.SIGN_IN)
    # Uniform: an unknown account, one of the other kind, and one that another mesh is behind are all as good as kept.
    if account is None or not rights.may_change(account) or account.old != checked.old:
        return rights.accept("ConnectStart")
    if not checked.old and checked.parent != account.mesh:
        return rights.accept("ConnectStart")
    waiting = view.pending(account.name, context.now)
    mine = next((one for one in waiting if one.device == checked.device), None)
    if mine is not None and mine.request_id == checked.request_id:
        return rights.accept("ConnectStart")
    before = view.answered(account.name, checked.device)
    if before is not None and before.request_id == checked.request_id:
        return rights.accept("ConnectStart")  # a replay must not take the answer away
    if mine is None and len(waiting) >= context.policy.pending_per_account:
        return rights.refuse("ConnectStart", context, Status.OVERLOAD, Reason.WAITING)
    pending = Pending(
        account.name, checked.device, checked.dak, checked.request_id, context.now, checked.wire, old=checked.old
    )
    return rights.accept("ConnectStart", PutPending(pending, context.now + context.policy.pending_seconds))


def status(checked: ConnectStatus, context: Context, view: View) -> Decision:
    """The answer, for the device that asked and for nobody else; nothing while there is none."""
    account = None
    if checked.account is not None:
        account = rights.find_account(str(checked.account), view, context)
        if account is None:
            return rights.accept("ConnectStatus")
    elif not context.plain:
        return rights.refuse("ConnectStatus", context, Status.MALFORMED, Reason.MALFORMED)
    found = view.answered(account.name if account is not None else None, checked.device)
    if found is None:
        return rights.accept("ConnectStatus")
    if context.plain:
        shown = is_2016(found.wire)  # a 2016 client asks unsigned, and can read no other
    else:
        shown = isinstance(context.caller, SignedBy) and context.caller.keyid == found.dak
    return rights.accept("ConnectStatus", result=found.wire) if shown else rights.accept("ConnectStatus")


def pending(checked: ConnectPending, context: Context, view: View) -> Decision:
    """Who waits; for administrators, and for 2016 clients where the account is one of theirs."""
    account = rights.find_account(str(checked.account), view, context)
    if account is None or not _administers(account, context, view):
        return rights.refuse("ConnectPending", context, Status.UNAUTHORIZED, Reason.NOT_ALLOWED)
    waiting = [one for one in view.pending(account.name, context.now) if one.old or not context.plain]
    if not waiting and not view.ever_pending(account.name):
        return rights.accept("ConnectPending")
    most = checked.constraints.max_entries or len(waiting)
    shown = waiting[:most]
    asked = None if context.plain else [payload.write_date(one.asked) for one in shown]
    return rights.accept("ConnectPending", pending=[one.wire for one in shown], asked=asked)


def complete(checked: ConnectComplete, context: Context, view: View) -> Decision:
    """Keep an administrator's answer to a request that waits. "Accepted" only if the profile lists the device."""
    account = rights.find_account(str(checked.account), view, context)

    def no(status: Status, reason: Reason) -> Decision:
        return rights.refuse("ConnectComplete", context, status, reason)

    if account is None or not _sends(account, context, view):
        return no(Status.UNAUTHORIZED, Reason.NOT_ALLOWED)
    if not rights.is_admin(view, account.mesh, checked.signer) or account.old != (checked.document is not None):
        return no(Status.UNAUTHORIZED, Reason.NOT_ALLOWED)
    if checked.document is not None:
        profile = view.profile_2016(account.mesh)
        key = profile.administrator(checked.signer) if profile is not None else None
        if key is None:
            return no(Status.UNAUTHORIZED, Reason.NOT_ALLOWED)
        checked.document.verify(key)
    request = next((one for one in view.pending(account.name, context.now) if one.device == checked.device), None)
    if request is None:
        before = view.answered(account.name, checked.device)
        if before is not None and before.wire == checked.wire:
            return rights.accept("ConnectComplete")
        return no(Status.NOT_FOUND, Reason.NOT_FOUND)
    # One test program of 2016 says "Accept".
    if checked.result in (ACCEPTED, "Accept") and not _listed(account, checked.device, view):
        return no(Status.LINKS_MISSING, Reason.MISSING)
    answer = Answered(account.name, checked.device, request.dak, request.request_id, checked.wire)
    return rights.accept("ConnectComplete", PutAnswer(answer))


def _administers(account: Account, context: Context, view: View) -> bool:
    if rights.serves_plain(context, account):
        return True
    device = rights.caller_device(context, view, account.mesh)
    return device is not None and rights.is_admin(view, account.mesh, device.udf)


def _sends(account: Account, context: Context, view: View) -> bool:
    """Any current device may send an answer: who gave it is in its signature."""
    if rights.serves_plain(context, account):
        return True
    return rights.caller_device(context, view, account.mesh) is not None


def _listed(account: Account, device: str, view: View) -> bool:
    authority = view.authority(account.mesh)
    if authority is not None:
        return device in authority.devices() | authority.admins()
    profile = view.profile_2016(account.mesh)
    return profile is not None and device in profile.devices
