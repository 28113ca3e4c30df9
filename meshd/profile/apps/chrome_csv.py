"""Chrome's password export (`name,url,username,password,note`), read with a report per row.

The file is hostile until shown otherwise: it is bounded, and a malformed row refuses the whole file with its number and the
reason, so that an import is all or nothing. No error repeats a value of the row.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field

from meshd.errors import FormatError
from meshd.profile.apps import hosts, password

MAX_CHARACTERS = 64 * 1024 * 1024
MAX_ROWS = 200_000
_REQUIRED = ("url", "username", "password")


@dataclass(frozen=True, slots=True)
class Login:
    """One row: what will become an item."""

    row: int
    title: str
    url: str
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
    if len(text) > MAX_CHARACTERS:
        raise FormatError(f"a file of more than {MAX_CHARACTERS} characters")
    if "\0" in text:
        raise FormatError("this is not a CSV file: it holds zero bytes")
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    try:
        header = [name.strip().lower() for name in next(reader, [])]
    except csv.Error as exc:
        raise FormatError("this is not a CSV file") from exc
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
        except csv.Error as exc:
            rejected.append(Rejected(number, f"broken CSV ({exc}); the rest of the file was not read"))
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
    for name in ("url", "username", "password", "note"):
        if len(values.get(name, "")) > password.MAX_TEXT[name]:
            raise FormatError(f"the {name} is longer than {password.MAX_TEXT[name]} characters")
    title = values.get("name", "")
    if len(title) > password.MAX_TEXT["title"]:
        raise FormatError("the name is too long")
    site = hosts.normalise(values["url"] or title)
    return Login(number, title, values["url"], site, values["username"], values["password"], values.get("note", ""))
