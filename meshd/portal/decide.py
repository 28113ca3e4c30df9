"""What a portal does with a request: `decide` sees what the portal holds and returns writes and a reply, or a refusal.

Nothing is read but the `View`, nothing is changed; the caller commits the writes before it sends the reply. Every
transaction of the draft has a function, chosen by what `verify` made of the request. A 2016 client is held to the same
rights, and is answered in the shapes of 2016 (protocol-2016.md §8 [R]); docs/specs/portal.md has the matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from meshd.errors import TrustError
from meshd.portal import (
    decide_connect,
    decide_log,
    decide_publish,
    decide_publish_2016,
    decide_read,
    names,
    reasons,
    rights,
    verify,
)
from meshd.portal.checked import (
    Checked,
    Close,
    ConnectComplete,
    ConnectPending,
    ConnectStart,
    ConnectStatus,
    Create,
    Current,
    Get,
    Hello,
    LogStatus,
    Old,
    Publish,
    Transfer,
    Validate,
)
from meshd.portal.codec import FIRST_MINOR, failure
from meshd.portal.outcomes import (
    CloseAccount,
    Context,
    Decision,
    OpenAccount,
    PutOpener,
    Refuse,
    Reserve,
    SignedBy,
    UseInvite,
    Write,
)
from meshd.portal.reasons import Reason
from meshd.portal.statuses import Status, of_error
from meshd.portal.structures import Encoding, Version
from meshd.portal.view import CLOSED, Account, View
from meshd.profile.trust import Authority
from meshd.profile.version import Version as Signed

# What 2016 said of itself, and what we say: a portal that lists the second among its Alternates speaks our extensions.
VERSION_2016 = (0, 7)
VERSION_OURS = (0, FIRST_MINOR)

_NAMES: dict[type, str] = {
    Hello: "Hello",
    Validate: "ValidateAccount",
    Create: "CreateAccount",
    Publish: "Publish",
    Close: "Publish",
    Transfer: "Transfer",
    LogStatus: "Status",
    ConnectStart: "ConnectStart",
    ConnectStatus: "ConnectStatus",
    ConnectPending: "ConnectPending",
    ConnectComplete: "ConnectComplete",
}
_PLAIN: dict[str, frozenset[type]] = {
    "off": frozenset({Hello, LogStatus}),
    "read": frozenset({Hello, LogStatus, Validate, Get, ConnectStart, ConnectStatus, Transfer}),
    "full": frozenset({*_NAMES, Get}),
}
_REASONS = {
    Status.MALFORMED: Reason.MALFORMED,
    Status.TOO_LARGE: Reason.TOO_LARGE,
    Status.UNAUTHORIZED: Reason.SIGNATURE,
    Status.NOT_FOUND: Reason.NOT_FOUND,
    Status.OVERLOAD: Reason.BUSY,
}


def transaction_of(checked: Checked) -> str:
    """The transaction that a checked request belongs to."""
    if isinstance(checked, Get):
        return "GetRecords" if checked.records else "Get"
    return _NAMES[type(checked)]


def decide(checked: Checked, context: Context, view: View) -> Decision:
    """Accept with writes and a reply, or Refuse. Never raises for anything that a request can hold.

    A batch is to be taken apart by `decide_publish.split` before, so that its later entries see the earlier ones."""
    transaction = transaction_of(checked)
    moved = context.policy.moved
    if moved is not None:
        return Refuse(moved[0], failure(transaction, moved[0], moved[1]), moved[1])
    if context.plain and type(checked) not in _PLAIN[context.policy.compat]:
        return rights.refuse(transaction, context, Status.UNAUTHORIZED, Reason.COMPAT)
    try:
        return _DECIDERS[type(checked)](checked, context, view)
    except TrustError:
        return rights.refuse(transaction, context, Status.UNAUTHORIZED, Reason.NOT_ALLOWED)


def refusal(transaction: str, context: Context, error: Exception) -> Refuse:
    """What an error from `verify`, or from anything else, becomes. It says no more than the Status does."""
    status = of_error(error)
    return rights.refuse(transaction, context, status, _REASONS.get(status, Reason.INTERNAL))


def _hello(checked: Hello, context: Context, view: View) -> Decision:
    uris = list(context.policy.uris) or None
    classic = Version(
        major=VERSION_2016[0], minor=VERSION_2016[1], encodings=[Encoding(id=["application/json"])], uri=uris
    )
    if context.plain:
        return rights.accept("Hello", version=classic)
    ours = Version(
        major=VERSION_OURS[0],
        minor=VERSION_OURS[1],
        encodings=[Encoding(id=[media]) for media in context.policy.encodings],
        uri=uris,
    )
    return rights.accept("Hello", version=classic, alternates=[ours])


def _validate(checked: Validate, context: Context, view: View) -> Decision:
    fault = _name_fault(checked, context, view)
    members: dict[str, Any] = {
        "valid": fault is None,
        "minimum": names.MINIMUM,
        "maximum": names.MAXIMUM,
        "invalid_characters": names.INVALID_CHARACTERS,
    }
    if fault is not None:
        return rights.accept("ValidateAccount", **members, reason=reasons.text(fault, context.languages))
    writes: list[Write] = []
    # A wish that a service may ignore: it is for who can prove later that it was theirs.
    wished = checked.reserve and not context.plain and context.fresh != ""
    if wished and view.reservations(context.now) < context.policy.reservations:
        until = context.now + context.policy.reserve_seconds
        writes.append(Reserve(str(checked.account), context.fresh, until))
        members["reservation"] = context.fresh
    return rights.accept("ValidateAccount", *writes, **members)


def _name_fault(checked: Validate, context: Context, view: View) -> Reason | None:
    account = checked.account
    if account is None:
        return Reason.NAME_LENGTH if checked.fault == "length" else Reason.NAME_CHARACTERS
    if account.portal != context.policy.domain:
        return Reason.OTHER_PORTAL
    if context.policy.accounts == "closed":
        return Reason.CLOSED
    # A name that is reserved looks like one that is taken: who waits for whom is nobody's business.
    if view.account(str(account)) is not None or view.reservation(str(account), context.now) is not None:
        return Reason.NAME_TAKEN
    return None


def _create(checked: Create, context: Context, view: View) -> Decision:
    name, policy = str(checked.account), context.policy

    def no(status: Status, reason: Reason) -> Refuse:
        return rights.refuse("CreateAccount", context, status, reason)

    if checked.account.portal != policy.domain:
        return no(Status.NOT_FOUND, Reason.OTHER_PORTAL)
    verify.check_self_signed(checked)
    mesh = _mesh_of(checked)
    # Ours prove that they hold a key of the profile, or of an administrator of now: else anybody could open accounts
    # with others' profiles.
    brings: list[Write] = []
    if isinstance(checked.entry, Current):
        caller, proven = context.caller, verify.proven_admins(checked)
        if not isinstance(caller, SignedBy) or caller.keyid not in {*checked.entry.daks, *proven}:
            return no(Status.UNAUTHORIZED, Reason.SIGN_IN)
        known = view.authority(mesh)  # of the account that there is, or of one that was closed
        if known is not None and verify.devices_shown(checked)[caller.keyid] in known.removed():
            return no(Status.UNAUTHORIZED, Reason.SIGN_IN)
        if caller.keyid in proven and rights.caller_device(context, view, mesh) is None:
            brings.append(PutOpener(name, caller.keyid, proven[caller.keyid].public))
    elif policy.compat != "full":
        return no(Status.UNAUTHORIZED, Reason.COMPAT)
    existing = view.account(name)
    if existing is not None:
        mine = not context.plain and existing.mesh == mesh and isinstance(checked.entry, Current)
        again = mine and existing.status != CLOSED  # which is for ever, for its own mesh too
        if again and brings and not rights.may_change(existing):
            return rights.suspended("CreateAccount", context)
        return rights.accept("CreateAccount", *brings) if again else no(Status.EXISTS, Reason.ACCOUNT_EXISTS)
    if policy.accounts == "closed":
        return no(Status.UNAUTHORIZED, Reason.CLOSED)
    writes: list[Write] = []
    if policy.accounts == "invite":
        if checked.invite is None or not view.has_invite(checked.invite, context.now):
            return no(Status.UNAUTHORIZED, Reason.INVITE)
        writes.append(UseInvite(checked.invite))
    reserved = view.reservation(name, context.now)
    if reserved is not None and reserved != checked.reservation:
        return no(Status.EXISTS, Reason.NAME_TAKEN)
    other = rights.account_of(mesh, view)
    if other is not None:
        text = reasons.text(Reason.MESH_HAS_ACCOUNT, context.languages)
        if isinstance(checked.entry, Current):  # who proved to be of the mesh is told which, to take it over
            text = f"{text}: {other.name}"
        return Refuse(Status.EXISTS, failure("CreateAccount", Status.EXISTS, text))
    old = isinstance(checked.entry, Old)
    writes.append(OpenAccount(Account(name, mesh, context.now, old=old, compat=old)))
    if isinstance(checked.entry, Old):
        assert checked.entry.profile is not None
        writes += decide_publish_2016.profile_writes(checked.entry.profile, view)
    else:
        root = checked.entry.version
        assert root is not None
        if decide_publish.device_parents_missing(root, checked.rows, view):
            return no(Status.LINKS_MISSING, Reason.MISSING)
        writes += brings
        if view.stored(root.vid) is None:  # else an account of this mesh was closed, and its versions are here
            _judge_root(mesh, root)
            writes += decide_publish.root_writes(root, checked.rows, view)
    return rights.accept("CreateAccount", *writes)


def _close(checked: Close, context: Context, view: View) -> Decision:
    """An administrator gives the account up. What is suspended is not closed, or it would be open again under a new
    name."""
    account = rights.find_account(str(checked.account), view, context)
    device = None if account is None else rights.caller_device(context, view, account.mesh)
    if account is None or device is None:
        return rights.refuse("Publish", context, Status.NOT_FOUND, Reason.NOT_FOUND)
    if not rights.is_admin(view, account.mesh, device.udf):
        return rights.refuse("Publish", context, Status.UNAUTHORIZED, Reason.NOT_ALLOWED)
    if not rights.may_change(account):
        return rights.suspended("Publish", context)
    return rights.accept("Publish", CloseAccount(account.name))


def _mesh_of(checked: Create) -> str:
    if isinstance(checked.entry, Old):
        assert checked.entry.profile is not None
        return checked.entry.profile.mesh
    return checked.entry.parsed.claim.identifier


class _NoChains:
    """A mesh of which nothing is stored yet."""

    def chain(self, signer: str) -> Iterable[tuple[bytes, tuple[bytes, ...]]]:
        return ()


def _judge_root(mesh: str, root: Signed) -> None:
    """TrustError unless the first profile of a mesh stands by itself."""
    authority = Authority(mesh, _NoChains())
    master = root.embedded[0].claim
    for part in root.embedded[1:]:
        authority.check_shape(part.claim)
    for claim in (master, root.claim):
        if not all(authority.knows(vid) for vid in claim.dependencies):
            raise TrustError("the first profile of an account builds on versions that are not in it")
        authority.integrate(claim)
    if not authority.may_write(root.claim):
        raise TrustError("the first profile of an account does not stand")


_DECIDERS: dict[type, Callable[[Any, Context, View], Decision]] = {
    Hello: _hello,
    Validate: _validate,
    Create: _create,
    Publish: decide_publish.publish,
    Close: _close,
    Get: decide_read.get,
    Transfer: decide_log.transfer,
    LogStatus: decide_log.status,
    ConnectStart: decide_connect.start,
    ConnectStatus: decide_connect.status,
    ConnectPending: decide_connect.pending,
    ConnectComplete: decide_connect.complete,
}
