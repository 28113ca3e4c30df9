"""Who is asking, and what that gives: the questions about callers that all decisions share.

An HTTP signature says which device sends. It may forward what others wrote, so it gives reading and sending; what a
body may change is its own signer's right, and the authority of the mesh decides that.
"""

from __future__ import annotations

import msgspec

from meshd.portal import codec, reasons
from meshd.portal.messages import TRANSACTIONS, MeshResponse, Response
from meshd.portal.outcomes import Accept, Context, PeerPortal, Refuse, SignedBy, Write
from meshd.portal.reasons import Reason
from meshd.portal.statuses import DESCRIPTION_OF_SUCCESS, Status
from meshd.portal.view import CLOSED, OPEN, Account, Device, View
from meshd.profile.trust import Authority


def caller_devices(context: Context, view: View) -> list[Device]:
    """The device that signed the HTTP request, for each mesh that it is one of now; of the account that it names."""
    if not isinstance(context.caller, SignedBy):
        return []
    found = [one for one in view.devices_of(context.caller.keyid) if is_current(view, one)]
    if context.account is None:
        return found
    account = find_account(str(context.account), view, context)
    return [one for one in found if account is not None and one.mesh == account.mesh]


def caller_device(context: Context, view: View, mesh: str) -> Device | None:
    """The device of this mesh that signed the HTTP request, if it is one now."""
    return next((one for one in caller_devices(context, view) if one.mesh == mesh), None)


def is_current(view: View, device: Device) -> bool:
    """Is this a device of its mesh by all that is known now? A removal counts from the moment that it is known."""
    authority = view.authority(device.mesh)
    if authority is not None:
        return device.udf not in authority.removed() and device.udf in authority.devices() | authority.admins()
    profile = view.profile_2016(device.mesh)
    return profile is not None and device.udf in profile.devices


def is_opener(context: Context, view: View, account: Account, authority: Authority) -> bool:
    """Did the caller prove to be an administrator whom the portal's profiles may not list yet? He brings those that do.
    A device that is known to be removed does not."""
    if not isinstance(context.caller, SignedBy) or account.opener != context.caller.keyid:
        return False
    mine = {one.udf for one in view.devices_of(account.opener) if one.mesh == account.mesh}
    return mine.isdisjoint(authority.removed())


def is_admin(view: View, mesh: str, udf: str) -> bool:
    """May this device connect and remove others? In 2016 every device may."""
    authority = view.authority(mesh)
    if authority is not None:
        return udf in authority.admins() and udf not in authority.removed()
    profile = view.profile_2016(mesh)
    return profile is not None and profile.administrator(udf) is not None


def grant(context: Context, view: View) -> str | None:
    """What a peer portal is given of the log: `leaves`, `full` or nothing."""
    return view.peer_grant(context.caller.keyid) if isinstance(context.caller, PeerPortal) else None


def find_account(name: str, view: View, context: Context) -> Account | None:
    """An account that exists and is not closed."""
    if name.rpartition("@")[2] != context.policy.domain:
        return None
    account = view.account(name)
    return account if account is not None and account.status != CLOSED else None


def account_of(mesh: str, view: View) -> Account | None:
    """The account of a mesh, unless it is closed."""
    account = view.mesh_account(mesh)
    return account if account is not None and account.status != CLOSED else None


def may_change(account: Account | None) -> bool:
    return account is not None and account.status == OPEN


def suspended(transaction: str, context: Context) -> Refuse:
    """No, because the account is suspended: nothing is wrong with what was asked, and it may go again later."""
    return refuse(transaction, context, Status.UNAUTHORIZED if context.plain else Status.SUSPENDED, Reason.SUSPENDED)


def serves_plain(context: Context, account: Account) -> bool:
    """May a 2016 client administer this account without signing its requests?"""
    return context.plain and context.policy.compat == "full" and account.compat


def accept(transaction: str, *writes: Write, feed: str | None = None, **members: object) -> Accept:
    """Success: the response of the transaction with these members."""
    kind = TRANSACTIONS[transaction].response
    if issubclass(kind, MeshResponse):
        members = {"status": int(Status.SUCCESS), "status_description": DESCRIPTION_OF_SUCCESS} | members
    return Accept(tuple(writes), kind(**members), feed)  # type: ignore[arg-type]


def refuse(transaction: str, context: Context, status: Status, reason: Reason, **members: object) -> Refuse:
    """Failure, in the words of the asker's language. `members` say more, to a client of ours."""
    described: Response = codec.failure(transaction, status, reasons.text(reason, context.languages))
    if members and not context.plain:
        described = msgspec.structs.replace(described, **members)
    return Refuse(status, described)
