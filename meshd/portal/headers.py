"""The HTTP headers that portal requests carry beside the body, as values.

    Mesh-Extensions: log, auth, cas, batch     what the answer may hold; without it the client is one of 2016
    Mesh-Account: alice@example.net            for which account a device asks that belongs to several
    Mesh-If-Head: VID,VID                      publish only over exactly these heads (empty: only if there are none)
    Prefer: wait=55                            a feed without news may answer that much later (RFC 7240)
    Accept-Language: de, en;q=0.5              for the reasons in answers

A signature over HTTP covers every Mesh-… header. What can't be read of the others is as if it were not there.
"""

from __future__ import annotations

import re

from meshd.crypto import base64url
from meshd.errors import FormatError
from meshd.portal.names import AccountName, normalise

PATH = "/.well-known/mmm/"
EXTENSIONS, ACCOUNT, IF_HEAD = "mesh-extensions", "mesh-account", "mesh-if-head"
LOG, AUTH, CAS, BATCH = "log", "auth", "cas", "batch"
ALL = frozenset({LOG, AUTH, CAS, BATCH})

MAX_HEADER = 4096
MAX_TOKENS = 16
MAX_HEADS = 64
MAX_WAIT = 55  # seconds: below the minute after which proxies give up
_TOKEN = re.compile(r"[a-z][a-z0-9-]{0,31}\Z")
_WAIT = re.compile(r"wait=([0-9]{1,4})\Z")
_LANGUAGE = re.compile(r"([A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*)(?:\s*;\s*q=(0(?:\.[0-9]{1,3})?|1(?:\.0{1,3})?))?\Z")


def read_extensions(header: str | None) -> frozenset[str] | None:
    """The tokens of Mesh-Extensions; None without the header: that is a 2016 client. What is no token is left out."""
    if header is None:
        return None
    return frozenset(part for part in _parts(header)[:MAX_TOKENS] if _TOKEN.match(part))


def read_account(header: str | None) -> AccountName | None:
    """The account that a request is for; FormatError for what is no account name."""
    return None if header is None else normalise(header.strip())


def read_if_head(header: str | None) -> frozenset[bytes] | None:
    """The vids of Mesh-If-Head; None without the header. FormatError: who asks for care is not to be misunderstood."""
    if header is None:
        return None
    parts = [part for part in _parts(header) if part]
    vids = [base64url.decode(part) for part in parts]
    if len(header) > MAX_HEADER or len(vids) > MAX_HEADS or any(len(vid) != 32 for vid in vids):
        raise FormatError("Mesh-If-Head names no versions")
    return frozenset(vids)


def write_if_head(vids: frozenset[bytes]) -> str:
    """The value of Mesh-If-Head."""
    return ",".join(base64url.encode(vid) for vid in sorted(vids))


def read_wait(header: str | None) -> int:
    """How many seconds a client would wait for news, at most 55; 0 if it does not say."""
    for part in _parts(header or ""):
        found = _WAIT.match(part)
        if found:
            return min(int(found[1]), MAX_WAIT)
    return 0


def read_languages(header: str | None) -> tuple[str, ...]:
    """The languages of Accept-Language, best first (RFC 9110 §12.5.4)."""
    found: list[tuple[float, int, str]] = []
    for part in _parts(header or "")[:MAX_TOKENS]:
        match = _LANGUAGE.match(part)
        if match and float(match[2] or "1") > 0:
            found.append((-float(match[2] or "1"), len(found), match[1]))
    return tuple(language for _, _, language in sorted(found))


def _parts(header: str) -> list[str]:
    return [part.strip() for part in header[:MAX_HEADER].split(",")]
