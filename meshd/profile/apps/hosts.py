"""Which site an entry is for: host names, normalised once and matched the same way everywhere (IDNA, lower case).

The draft's `Sites` are DNS names, with `*.` as a wildcard. A person types a name or pastes a URL.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import idna

from meshd.errors import FormatError

MAX_HOST = 253


def normalise(text: str) -> str:
    """The host of a URL or host name, in IDNA A-form, without port; `android://…@package/` gives `android:package`.

    FormatError for what names no site. A leading `*.` is kept.
    """
    text = text.strip()
    if not text or len(text) > 8192:
        raise FormatError("a site is a host name or a URL")
    if text.lower().startswith("android://"):
        package = text.split("://", 1)[1].rpartition("@")[2].strip("/").lower()
        if not package:
            raise FormatError("an Android address that names no app")
        return "android:" + package
    if text.lower().startswith("android:"):
        return text.lower()
    try:
        host = urlsplit(text if "://" in text else "//" + text).hostname or ""
    except ValueError as exc:
        raise FormatError(f"not a site: {exc}") from exc
    wild = host.startswith("*.")
    host = host.removeprefix("*.").rstrip(".")
    if not host:
        raise FormatError("a site is a host name or a URL")
    return ("*." if wild else "") + _ascii(host)


def _ascii(host: str) -> str:
    if ":" in host:  # an IPv6 address, as urlsplit gives it
        return host.lower()
    if host.isascii():
        # idna refuses what real logins are saved under (`_dmarc`, `my_host`, one label); ASCII names need no conversion.
        found = host.lower()
    else:
        try:
            found = idna.encode(host, uts46=True).decode("ascii")
        except idna.IDNAError as exc:
            raise FormatError(f"not a host name: {exc}") from exc
    if len(found) > MAX_HOST or any(ord(char) <= 32 for char in found) or any(char in found for char in '/\\?#@"<>'):
        raise FormatError("not a host name")
    return found


def display(host: str) -> str:
    """The host as people write it (U-form) where that is possible."""
    try:
        return idna.decode(host) if "xn--" in host else host
    except idna.IDNAError:
        return host


@functools.cache
def _suffixes() -> Any:
    from publicsuffixlist import PublicSuffixList  # 300 kB of rules: only when a near match is looked for

    return PublicSuffixList()


def registrable(host: str) -> str:
    """The registrable domain of a host (public suffix list), or the host itself where there is none."""
    if host.startswith("android:") or ":" in host or host.replace(".", "").isdigit():
        return host
    return _suffixes().privatesuffix(host.removeprefix("*.")) or host


def matches(host: str, sites: Iterable[str]) -> bool:
    """Exactly one of `sites`, or covered by a `*.` among them."""
    for site in sites:
        if site == host or (site.startswith("*.") and (host.endswith(site[1:]) or host == site[2:])):
            return True
    return False
