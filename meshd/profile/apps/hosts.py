"""Which site an entry is for: host names, normalised once and matched the same way everywhere (IDNA, lower case).

The draft's `Sites` are DNS names, with `*.` as a wildcard. A person types a name or pastes a URL.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Iterable
from typing import Any

import idna

from meshd.errors import FormatError

MAX_HOST = 253
MAX_TEXT = 8192  # characters of what a person types or an export holds
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_PACKAGE = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*\Z")
# What browsers allow in a host, in lower case; underscores and single labels are what real logins are saved under.
_HOST = re.compile(r"[^\x00-\x20\x7f\"#%*/:<>?@\[\\\]^`{|}A-Z]+\Z")
_NO_SITE = "a site is a host name or a URL"


def normalise(text: str) -> str:
    """The host of a URL or host name, in IDNA A-form, without port; `android://…@package/` gives `android:package`.

    FormatError for what names no site; it repeats nothing, for a URL may hold a password. A leading `*.` is kept.
    """
    if not isinstance(text, str) or len(text) > MAX_TEXT:
        raise FormatError(_NO_SITE)
    text = text.strip()
    if text[:8].lower() == "android:":
        return "android:" + _package(text[8:])
    # The authority is what stands before the first slash (or what browsers take for one), with or without a scheme.
    scheme = _SCHEME.match(text)
    authority = re.split(r"[/?#\\]", text[scheme.end() :] if scheme else text.removeprefix("//"), maxsplit=1)[0]
    host = authority.rpartition("@")[2]
    if host.startswith("["):
        inside, bracket, _ = host[1:].partition("]")
        return _address(inside if bracket else "")
    if host.count(":") > 1:
        return _address(host)
    host = host.partition(":")[0]
    wild = host.startswith("*.")
    host = host.removeprefix("*.").rstrip(".")
    return ("*." if wild else "") + _ascii(host)


def _package(text: str) -> str:
    """Chrome writes `android://SIGNATURE@com.example.app/`; `android:com.example.app` is how it is kept."""
    package = text.removeprefix("//").rpartition("@")[2].strip("/").lower()
    if len(package) > MAX_HOST or not _PACKAGE.match(package):
        raise FormatError("an Android address that names no app")
    return package


def _address(text: str) -> str:
    """An IPv6 address in its shortest form, without a zone."""
    try:
        return ipaddress.IPv6Address(text.partition("%")[0]).compressed
    except ValueError:
        raise FormatError(_NO_SITE) from None


def _ascii(host: str) -> str:
    if not host or len(host) > MAX_HOST:
        raise FormatError(_NO_SITE)
    if host.isascii():
        # idna refuses what real logins are saved under (`my_host`, `a--b`); ASCII names need no conversion.
        found = host.lower()
    else:
        try:
            found = idna.encode(host, uts46=True).decode("ascii")
        except (idna.IDNAError, UnicodeError):
            raise FormatError("not a host name") from None
    if len(found) > MAX_HOST or not _HOST.match(found) or not all(0 < len(part) < 64 for part in found.split(".")):
        raise FormatError("not a host name")
    return found


def display(host: str) -> str:
    """The host as people write it (U-form) where that is possible."""
    wild = "*." if host.startswith("*.") else ""
    try:
        return wild + idna.decode(host.removeprefix("*.")) if "xn--" in host else host
    except (idna.IDNAError, UnicodeError):
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
