"""What a mesh notes of its recovery shares, as an item of the Group vault: how many there are and for whom, how to tell
one, and the last drill. No share is in it, nor anything that helps to make one.

{"GroupProfilePrivate": {"Entries": [{"Recovery": Identifier, "Set": …, "Check": K_check, "Shares": [{"Commitment"}]}]}}
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from meshd.crypto import base64url, udf
from meshd.errors import FormatError
from meshd.profile import payload, vault
from meshd.profile.apps import GROUP
from meshd.profile.shares import MAX_GIVEN, MAX_SHARES, Group, Scheme, Share
from meshd.profile.vault import Item

CHECK_KEY_BYTES = 32
MAX_LABEL = 64
MAX_SOURCES = 64


@dataclass(frozen=True, slots=True)
class NotedShare:
    """Group and index count from 0."""

    label: str
    group: int
    index: int
    commitment: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Drill:
    """A rehearsal: when, on which device (UDF), where the entry was fetched from and what came of each."""

    date: str
    device: str
    success: bool
    sources: tuple[tuple[str, str], ...] = ()  # (where, what)


@dataclass(frozen=True, slots=True)
class Noted:
    """One set of shares."""

    entry: str
    set_name: str
    made: str
    scheme: Scheme
    check_key: bytes = field(repr=False)
    shares: tuple[NotedShare, ...] = field(repr=False)
    drill: Drill | None = None

    def find(self, share: Share) -> NotedShare | None:
        """Which of them this is; None for another set's, or for one that was not made so."""
        mine = share.commitment(self.check_key)
        return next((one for one in self.shares if hmac.compare_digest(one.commitment, mine)), None)


def note(
    entry: str, made: str, scheme: Scheme, shares: Sequence[Sequence[Share]], labels: Sequence[str], key: bytes
) -> Noted:
    """What is to be noted of new shares; `labels` in the order of the shares."""
    flat = [share for group in shares for share in group]
    listed = tuple(
        NotedShare(label, share.group, share.index, share.commitment(key))
        for label, share in zip(labels, flat, strict=True)
    )
    return Noted(entry, flat[0].set_name, made, scheme, key, listed)


def item(noted: Noted, *, time: int, made: str, previous: Item | None = None) -> Item:
    """The item that says so. What this release does not know of `previous` is carried over."""
    told: dict[str, Any] = dict(_entry(previous) or {}) if previous is not None else {}
    told |= {
        "Recovery": noted.entry,
        "Set": noted.set_name,
        "Made": noted.made,
        "Needed": noted.scheme.threshold,
        "Groups": [
            {"Name": group.name, "Threshold": group.threshold, "Shares": group.shares} for group in noted.scheme.groups
        ],
        "Check": base64url.encode(noted.check_key),
        "Shares": [
            {
                "Label": one.label,
                "Group": one.group,
                "Index": one.index,
                "Commitment": base64url.encode(one.commitment),
            }
            for one in noted.shares
        ],
    }
    if noted.drill is not None:
        told["Drill"] = {
            "Date": noted.drill.date,
            "Device": noted.drill.device,
            "Success": noted.drill.success,
            "Sources": [{"Where": where, "What": what} for where, what in noted.drill.sources[:MAX_SOURCES]],
        }
    return Item({GROUP.private: {"Entries": [told]}}, vault.new_meta(time, made))


def read(found: Item) -> Noted | None:
    """What an item of the Group vault says of shares; None where it says something else."""
    told = _entry(found)
    if told is None or "Recovery" not in told or found.deleted:
        return None
    try:
        return _read(told)
    except FormatError:
        return None


def _read(told: dict[str, Any]) -> Noted:
    groups = tuple(
        Group(_number(row, "Threshold"), _number(row, "Shares"), payload.text_member(row, "Name", MAX_LABEL))
        for row in _rows(told, "Groups", MAX_SHARES)
    )
    shares = tuple(
        NotedShare(
            payload.text_member(row, "Label", MAX_LABEL),
            _number(row, "Group"),
            _number(row, "Index"),
            base64url.decode(payload.text_member(row, "Commitment", 64)),
        )
        for row in _rows(told, "Shares", MAX_GIVEN)
    )
    key = base64url.decode(payload.text_member(told, "Check", 64))
    if len(key) != CHECK_KEY_BYTES or not groups:
        raise FormatError("a note of shares that is not whole")
    entry, made = udf.check(told["Recovery"]), payload.text_member(told, "Made", 20)
    payload.read_date(made)
    name = payload.text_member(told, "Set", 8)
    return Noted(entry, name, made, Scheme(groups, _number(told, "Needed")), key, shares, _drill(told.get("Drill")))


def _drill(told: Any) -> Drill | None:
    if type(told) is not dict:
        return None
    date = payload.text_member(told, "Date", 20)
    payload.read_date(date)
    sources = tuple(
        (payload.text_member(row, "Where", 256), payload.text_member(row, "What", 256))
        for row in _rows(told, "Sources", MAX_SOURCES)
    )
    return Drill(date, payload.text_member(told, "Device", 64), told.get("Success") is True, sources)


def _rows(told: dict[str, Any], member: str, most: int) -> list[dict[str, Any]]:
    found = payload.list_member(told, member, most)
    if not all(type(row) is dict for row in found):
        raise FormatError(f"{member} of a note of shares is no list of objects")
    return found


def _number(row: dict[str, Any], member: str) -> int:
    value = row.get(member)
    if type(value) is not int or not 0 <= value <= MAX_GIVEN:
        raise FormatError(f"{member} of a note of shares is no number")
    return value


def _entry(found: Item) -> dict[str, Any] | None:
    body = found.private.get(GROUP.private)
    entries = body.get("Entries") if type(body) is dict else None
    entry = entries[0] if type(entries) is list and entries else None
    return entry if type(entry) is dict else None
