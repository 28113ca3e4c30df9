"""Account names: `name@portal`, one spelling for each (draft, ValidateAccount; the characters are the reference's).

The part before the last `@` has 1 to 64 characters and none that a person can't see or that 2016 forbids; the part
behind it is the portal's domain. Accounts are found without regard to case, as the draft's schema has it (the 2016 code
compared exactly, so whatever it found is found).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

import idna

from meshd.errors import FormatError

MINIMUM = 1
MAXIMUM = 64
INVALID_CHARACTERS = ".,:;{}()[]<>?|\\@#"
MAX_ACCOUNT = 320  # characters of a whole account identifier
_PORT = re.compile(r":[0-9]{1,5}\Z")
_HOST = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9-]{1,63}(?<!-))*\.?\Z")


@dataclass(frozen=True, slots=True)
class AccountName:
    """An account identifier in its one spelling. `str` gives it back whole."""

    name: str
    portal: str

    def __str__(self) -> str:
        return f"{self.name}@{self.portal}"


def split(account: str, default: str | None = None) -> tuple[str, str]:
    """(name, portal) as written, at the last `@`. Without one the portal is `default`; FormatError if there is none."""
    if len(account) > MAX_ACCOUNT:
        raise FormatError("an account identifier that is too long")
    name, at, portal = account.rpartition("@")
    if at:
        return name, portal
    if default is None:
        raise FormatError("an account identifier is name@portal")
    return account, default


def normalise(account: str, default: str | None = None) -> AccountName:
    """The one spelling of an account identifier; FormatError says what is wrong with it."""
    name, portal = split(account, default)
    return AccountName(normalise_name(name), normalise_portal(portal))


def normalise_name(name: str) -> str:
    """The part before the `@`: NFKC, case folded; FormatError."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    if not MINIMUM <= len(folded) <= MAXIMUM or len(name) > MAXIMUM:
        raise FormatError(f"an account name has {MINIMUM} to {MAXIMUM} characters")
    if unicodedata.category(folded[0]).startswith("M"):
        raise FormatError("an account name that begins with a combining mark")
    for one in folded:
        # C: control, format, private, unassigned; Z: any kind of space. Nobody could tell such names apart.
        if one in INVALID_CHARACTERS or unicodedata.category(one)[0] in "CZ":
            raise FormatError(f"an account name with a character that is not allowed: {one!r}")
    return folded


def normalise_portal(portal: str) -> str:
    """The domain of a portal in lower-case ASCII, its port left out; FormatError."""
    host = _PORT.sub("", portal)
    if not host.isascii():
        try:
            host = idna.encode(host, uts46=True).decode("ascii")
        except (idna.IDNAError, UnicodeError):
            raise FormatError("a portal that is not a domain name") from None
    host = host.lower()
    if len(host) > 253 or not _HOST.match(host):
        raise FormatError("a portal that is not a domain name")
    return host.rstrip(".")
