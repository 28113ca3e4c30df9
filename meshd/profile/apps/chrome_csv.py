"""Chrome's password export (`name,url,username,password,note`), read with a report per row.

The file is hostile until shown otherwise: it is bounded, and a malformed row refuses the whole file with its number
and the reason, so that an import is all or nothing. No error repeats a value of the row.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass, field

from meshd.errors import FormatError
from meshd.profile.apps import hosts, password

MAX_CHARACTERS = 64 * 1024 * 1024
MAX_ROWS = 200_000
MAX_COMMAS = 64 * MAX_ROWS  # each may become a column, and a row is read whole
_REQUIRED = ("url", "username", "password")
_SURROGATE = re.compile("[\ud800-\udfff]")
# The library's own limit, 128 KiB a field, is below what a note may have. What a field holds is bounded here, by name.
csv.field_size_limit(MAX_CHARACTERS)


@dataclass(frozen=True, slots=True)
class Login:
    """One row: what will become an item."""

    row: int
    title: str
    url: str = field(repr=False)  # it may hold a password
    site: str
    username: str
    password: str = field(repr=False)
    note: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that can't be imported, and why."""

    row: int
    reason: str


def read(text: str) -> tuple[list[Login], list[Rejected]]:
    """The logins of an export and the rows that are no logins. FormatError when it is no such export at all."""
    if len(text) > MAX_CHARACTERS or text.count(",") > MAX_COMMAS:
        raise FormatError(f"a file of more than {MAX_CHARACTERS} characters or {MAX_COMMAS} fields")
    if "\0" in text or _SURROGATE.search(text):
        raise FormatError("this is not a CSV file in UTF-8: it holds zero bytes or broken characters")
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    try:
        header = [name.strip().lower() for name in next(reader, [])]
    except csv.Error:
        raise FormatError("this is not a CSV file: the first line is broken") from None
    missing = [name for name in _REQUIRED if name not in header]
    if missing:
        raise FormatError(
            f"this is not a Chrome password export: no column {', '.join(missing)}",
            hint="Chrome: Settings → Passwords → Export; the first line is name,url,username,password,note",
        )
    if len(set(header)) != len(header):
        raise FormatError("a column appears twice in the first line")
    logins: list[Login] = []
    rejected: list[Rejected] = []
    number = 1
    while True:
        number += 1
        try:
            row = next(reader, None)
        except csv.Error:
            rejected.append(Rejected(number, "a quotation mark too few or too many; the rest was not read"))
            break
        if row is None:
            break
        if number > MAX_ROWS + 1:
            raise FormatError(f"a file of more than {MAX_ROWS} rows")
        if not row:
            continue
        if len(row) != len(header):
            rejected.append(Rejected(number, f"{len(row)} columns where {len(header)} are due"))
            continue
        values = dict(zip(header, row, strict=True))
        try:
            logins.append(_login(number, values))
        except FormatError as exc:
            rejected.append(Rejected(number, str(exc)))
    return logins, rejected


def _login(number: int, values: dict[str, str]) -> Login:
    if not values["password"]:
        raise FormatError("no password")
    title, note = values.get("name", ""), values.get("note", "")
    for name in ("url", "username", "password"):
        password.check_text(name, values[name])
    password.check_text("note", note)
    password.check_text("title", title)
    site = hosts.normalise(values["url"] or title)
    return Login(number, title, values["url"], site, values["username"], values["password"], note)
