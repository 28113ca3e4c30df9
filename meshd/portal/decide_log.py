"""Status and Transfer: how far the log is, and pages of it for portals that mirror it.

The draft names both and defines neither. Whatever the log of this portal can prove is the view's to say; here is who
may ask, and the shape of the answer. A portal without a checkpoint says so by leaving the members out.
"""

from __future__ import annotations

from meshd.portal import codec, rights
from meshd.portal.checked import Checked, Get, Hello, LogStatus, Transfer
from meshd.portal.outcomes import Context, Decision, Refuse
from meshd.portal.reasons import Reason
from meshd.portal.statuses import Status
from meshd.portal.structures import Binary
from meshd.portal.view import View
from meshd.profile import payload


def status(checked: LogStatus, context: Context, view: View) -> Decision:
    """Open to everybody: a checkpoint is meant to be seen. Proofs go to those who can read them."""
    state = view.log_state(checked.old_size, checked.peer_sizes, checked.tree_size)
    return rights.accept(
        "Status",
        last_write_time=_date(state.last_write),
        last_checkpoint_time=_date(state.last_checkpoint),
        next_checkpoint_time=_date(state.next_checkpoint),
        # A signed note has lines; a 2016 reader takes \n in a string.
        checkpoint_value=state.checkpoint,
        log_keys=list(state.log_keys) if state.log_keys is not None else None,
        min_index=state.min_index,
        consistency_proof=state.consistency,
        peers=list(state.peers) if state.peers is not None else None,
    )


def transfer(checked: Transfer, context: Context, view: View) -> Decision:
    """For peer portals with a grant: `leaves` gets the records without their content."""
    granted = rights.grant(context, view)
    if granted is None or context.plain:
        return rights.refuse("Transfer", context, Status.UNAUTHORIZED, Reason.NOT_ALLOWED)
    constraints, policy = checked.constraints, context.policy
    page = view.log_page(
        full=granted == "full",
        after=checked.after,
        not_before=constraints.not_before if checked.after is None else None,
        until=constraints.before,
        max_entries=min(constraints.max_entries or policy.page_entries, policy.page_entries),
        max_bytes=min(constraints.max_bytes or policy.page_bytes, policy.page_bytes),
        origin=checked.origin,
        tree_size=checked.tree_size,
    )
    if page is None:
        return rights.refuse("Transfer", context, Status.NOT_FOUND, Reason.PAGE_KEY)
    return rights.accept(
        "Transfer",
        entries=list(page.entries),
        first=page.first,
        next=page.next,
        checkpoint=page.checkpoint,
        page_proof=[Binary(one) for one in page.proof],
    )


def elsewhere(transaction: str, checked: Checked, uri: str) -> Refuse | None:
    """A mirror shows what the log holds. All else is its portal's, at this URI: what is written, and whatever needs an
    account, of which the log says nothing. None: it can be answered here."""
    if isinstance(checked, Hello | LogStatus | Transfer) or (isinstance(checked, Get) and checked.account is None):
        return None
    moved = Status.REDIRECT_TEMPORARY
    return Refuse(moved, codec.failure(transaction, moved, uri), uri)


def _date(seconds: int | None) -> str | None:
    return None if seconds is None else payload.write_date(seconds)
