"""The four links that ride inside every signed payload, in the schema's own `NotaryToken` (formats.md F1).

    mnt1;n=COUNT;q=VIDS;g=GEN;p=VIDS;a=VIDS[;e=ID:VID,…][;k=KEY,…][;x=CUT|CUT…]    CUT = UDF ":" [VIDS] [":" SCOPE]

`n`,`q` are the author's chain, `g`,`p` the entry's DAG, `a` the authority it was signed under, `e` the escrow entries
that count, `k` and `x` the confirmations and cuts of a profile. The order is fixed, empty lists are omitted, unknown
lower-case letters are ignored, unknown upper-case letters refuse the version.
"""

from __future__ import annotations

import re
from binascii import a2b_base64
from dataclasses import dataclass

from meshd.crypto import base64url, udf
from meshd.errors import FormatError

MAX_TOKEN = 16 * 1024
MAX_HEADS = 16  # `a` and `p` name at most this many
_ORDER = "nqgpaekx"
_VID = re.compile(r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]\Z")  # 32 bytes; the last two bits are spare and zero
_KEY = re.compile(r"[A-Za-z]:[A-Z2-7*@-]{1,200}\Z")
_NUMBER = re.compile(r"[1-9][0-9]{0,14}\Z")
# What nearly every item has: one predecessor, at most one parent, one authority.
_USUAL = re.compile(
    r"mnt1;n=(?P<n>[1-9][0-9]{0,14});q=(?P<q>V);g=(?P<g>[1-9][0-9]{0,14})(?:;p=(?P<p>V))?;a=(?P<a>V)\Z".replace(
        "V", r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]"
    )
)

SCOPE_REMOVED = ""
SCOPE_ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a signer's chain ends: what is reachable from `tips` stands, everything else of that signer is
    quarantined."""

    udf: str
    tips: tuple[bytes, ...]
    scope: str = SCOPE_REMOVED  # "" = removed, "admin" = no longer admin, a container Identifier = write lost there


@dataclass(frozen=True, slots=True)
class Links:
    """A parsed NotaryToken. `n` is 0 for versions signed by the master key, which carry no chain."""

    g: int
    n: int = 0
    q: tuple[bytes, ...] = ()
    p: tuple[bytes, ...] = ()
    a: tuple[bytes, ...] = ()
    e: tuple[tuple[str, bytes], ...] = ()
    k: tuple[str, ...] = ()
    x: tuple[Cut, ...] = ()

    def token(self) -> str:
        """The NotaryToken text; FormatError above 16 KiB."""
        parts = ["mnt1"]
        if self.n:
            parts.append(f"n={self.n}")
        if self.q:
            parts.append("q=" + _vids(self.q))
        parts.append(f"g={self.g}")
        if self.p:
            parts.append("p=" + _vids(self.p))
        if self.a:
            parts.append("a=" + _vids(self.a))
        if self.e:
            parts.append("e=" + ",".join(f"{identifier}:{base64url.encode(vid)}" for identifier, vid in self.e))
        if self.k:
            parts.append("k=" + ",".join(self.k))
        if self.x:
            parts.append("x=" + "|".join(_cut_text(cut) for cut in self.x))
        text = ";".join(parts)
        if len(text) > MAX_TOKEN:
            raise FormatError(f"a NotaryToken of {len(text)} bytes: at most {MAX_TOKEN} are allowed")
        return text


def parse(token: str) -> Links:
    """Read a NotaryToken; FormatError names what is wrong with it."""
    if usual := _USUAL.match(token):
        n, q, g, p, a = usual.groups()
        return Links(int(g), int(n), (_vid(q),), (_vid(p),) if p else (), (_vid(a),))
    if len(token) > MAX_TOKEN or not token.isascii():
        raise FormatError(f"a NotaryToken of {len(token)} characters, or not in ASCII")
    head, *fields = token.split(";")
    if head != "mnt1":
        raise FormatError("a NotaryToken does not begin with mnt1")
    found: dict[str, str] = {}
    last = -1
    for field in fields:
        letter, equals, value = field.partition("=")
        if not equals or not value or len(letter) != 1 or not letter.isalpha() or letter in found:
            raise FormatError(f"NotaryToken field {field[:20]!r}")
        place = _ORDER.find(letter)
        if place < 0:
            if letter.isupper():
                raise FormatError(f"NotaryToken field {letter} asks for a newer release")
            found[letter] = value
            continue
        if place < last:
            raise FormatError("NotaryToken fields out of order")
        last = place
        found[letter] = value
    if "g" not in found:
        raise FormatError("a NotaryToken without g")
    return Links(
        g=_number(found["g"]),
        n=_number(found["n"]) if "n" in found else 0,
        q=_read_vids(found.get("q")),
        p=_heads(found.get("p")),
        a=_heads(found.get("a")),
        e=_read_pairs(found["e"]) if "e" in found else (),
        k=tuple(_read_key(part) for part in found["k"].split(",")) if "k" in found else (),
        x=tuple(_read_cut(part) for part in found["x"].split("|")) if "x" in found else (),
    )


def before(token: str) -> tuple[bytes, ...]:
    """`q` alone, for walks over a chain; FormatError as `parse`."""
    usual = _USUAL.match(token)
    return (_vid(usual["q"]),) if usual else parse(token).q


def _vids(vids: tuple[bytes, ...]) -> str:
    return ",".join(base64url.encode(vid) for vid in vids)


def _cut_text(cut: Cut) -> str:
    text = f"{cut.udf}:{_vids(cut.tips)}"
    return f"{text}:{cut.scope}" if cut.scope else text


def _number(text: str) -> int:
    if not _NUMBER.match(text):
        raise FormatError(f"NotaryToken number {text[:20]!r}")
    return int(text)


def _read_vid(text: str) -> bytes:
    if not _VID.match(text):
        raise FormatError("a version identifier that is not 32 bytes in base64url")
    return _vid(text)


def _vid(text: str) -> bytes:
    return a2b_base64(text.replace("-", "+").replace("_", "/") + "=")


def _read_vids(text: str | None) -> tuple[bytes, ...]:
    if text is None:
        return ()
    if len(text) == 43:  # the usual case: one parent, one predecessor
        return (_read_vid(text),)
    vids = tuple(_read_vid(part) for part in text.split(","))
    if len(set(vids)) != len(vids):
        raise FormatError("a version identifier named twice")
    return vids


def _heads(text: str | None) -> tuple[bytes, ...]:
    vids = _read_vids(text)
    if len(vids) > MAX_HEADS:
        raise FormatError(f"{len(vids)} heads named: at most {MAX_HEADS} are allowed")
    return vids


def _read_key(text: str) -> str:
    if not _KEY.match(text):
        raise FormatError("NotaryToken field k")
    return text


def _read_pairs(text: str) -> tuple[tuple[str, bytes], ...]:
    pairs = tuple(_read_pair(part) for part in text.split(","))
    if len(dict(pairs)) != len(pairs):
        raise FormatError("an escrow entry named twice")
    return pairs


def _read_pair(text: str) -> tuple[str, bytes]:
    identifier, colon, vid = text.partition(":")
    if not colon:
        raise FormatError("NotaryToken field e")
    return udf.check(identifier), _read_vid(vid)


def _read_cut(text: str) -> Cut:
    parts = text.split(":")
    if len(parts) not in (2, 3) or (len(parts) == 3 and not parts[2]):
        raise FormatError("NotaryToken field x")
    scope = parts[2] if len(parts) == 3 else SCOPE_REMOVED
    if scope not in (SCOPE_REMOVED, SCOPE_ADMIN, "*"):
        udf.check(scope)
    return Cut(udf.check(parts[0]), _read_vids(parts[1] or None), scope)
