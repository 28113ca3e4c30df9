"""Taking over what a portal of 2016 kept: its mesh.jlog, and the accounts of its portal.jlog.

Every entry goes the way that a client's would, in the order of the log, and is judged by the same rules; what those
refuse is listed with the reason, and is not in the store. Doing it twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from meshd.crypto import legacy
from meshd.daemon.portal.sequencer import Sequencer
from meshd.errors import FormatError, MeshError
from meshd.portal import documents2016, names
from meshd.portal.checked import Checked, Create, Old, Publish
from meshd.portal.outcomes import Anonymous, Context, Policy
from meshd.portal.statuses import SUCCESSES
from meshd.profile.claim import Kind

MOST_REFUSED = 1000  # listed


async def load(sequencer: Sequencer, policy: Policy, mesh: str, accounts: str, now: int) -> dict[str, Any]:
    """Import the text of a mesh.jlog. `accounts` is that of a portal.jlog, or empty."""
    named = dict(_accounts(accounts, policy.domain))
    context = Context(Anonymous(), now, _open(policy))
    taken, refused = 0, []
    for place, text in _items(mesh):
        try:
            checked = _checked(text, named, sequencer)
            decision = await sequencer.decide(checked, context, "import")
            if decision.status not in SUCCESSES:
                why = getattr(decision.reply, "status_description", None) or str(decision.status)
                raise FormatError(why)
            taken += 1
        except MeshError as exc:
            refused.append({"place": place, "why": str(exc)})
    return {"imported": taken, "refused": refused[:MOST_REFUSED], "refused_count": len(refused)}


def _open(policy: Policy) -> Policy:
    """Whoever runs the portal may do what its clients may not."""
    return replace(policy, compat="full", accounts="open", moved=None)


def _checked(text: str, named: dict[str, str], sequencer: Sequencer) -> Checked:
    document = documents2016.read(legacy.read_json(text))
    if document.kind is not Kind.PERSONAL:
        return Publish((Old(document, None),), {}, batch=False)
    profile = documents2016.read_profile(document)
    entry = Old(document, profile)
    if sequencer.view.mesh_account(profile.mesh) is None:
        if profile.mesh not in named:
            raise FormatError(f"the mesh {profile.mesh} has no account: give its portal.jlog, too")
        return Create(names.normalise(named[profile.mesh]), entry, None, None)
    return Publish((entry,), {}, batch=False)


def _items(text: str) -> Iterator[tuple[str, str]]:
    """(TransactionID, Text) of what was added or changed."""
    for value in legacy.iter_concatenated(text):
        item = value.get("DataItem") if isinstance(value, dict) else None
        if not isinstance(item, dict) or item.get("Action") not in ("New", "Update", "Modify"):
            continue
        place, held = item.get("TransactionID"), item.get("Text")
        if isinstance(held, str):
            yield str(place)[:64], held


def _accounts(text: str, domain: str) -> Iterator[tuple[str, str]]:
    """(mesh, account name at this portal)."""
    for _, held in _items(text) if text else ():
        value = legacy.read_json(held)
        account = value.get("Account") if isinstance(value, dict) else None
        if not isinstance(account, dict):
            continue
        mesh, name = account.get("UserProfileUDF"), account.get("AccountID")
        if isinstance(mesh, str) and isinstance(name, str):
            try:
                yield mesh, str(names.normalise(f"{names.split(name, domain)[0]}@{domain}"))
            except FormatError:
                continue  # its entries will be refused, with the reason


def read(text: bytes) -> str:
    """The text of a log file; FormatError."""
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise FormatError("a log that is not UTF-8") from None
