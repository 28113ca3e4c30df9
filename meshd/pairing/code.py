"""What a person sees and types: codes like `7-orbit-walnut`, and the same invitation as a URI for a QR code.

A code is a slot, which finds the right invitation and is no secret, and words of the SLIP-39 list, 10 bits each. That
list was made for this: 1024 words that differ within their first four letters, so four letters of a word are enough.
Reading a code forgives; reading a URI does not, because a machine wrote it: it must be spelled exactly as `text` does.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote, unquote

from meshd.crypto import base64url
from meshd.errors import FormatError, VersionMismatch

Rng = Callable[[int], bytes]

MAX_SLOT = 99
MIN_WORDS, MAX_WORDS = 2, 8
SECRET_BYTES = 16
MAX_URI = 2048
MAX_ADDRESSES = 8
MAX_TOKEN_BYTES = 32
MAX_ADDRESS = 262  # a host name of 253 characters, brackets, colon, port

_SEPARATORS = re.compile(r"[\s\-_.,]+")
_SLOT = re.compile(r"(?:0?[1-9]|[1-9][0-9])\Z")
_PORT = re.compile(r"[1-9][0-9]{0,4}\Z")
_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9\-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9\-]{0,61}[a-z0-9])?)*\Z")
_PREFIX = 4  # letters that tell the words of the list apart
_SCHEME = "mesh-pair:?"


@dataclass(frozen=True, slots=True)
class PairingSecret:
    """The password of one key exchange, and which kind PairHello calls it."""

    kind: Literal["code", "secret"]
    password: bytes = field(repr=False)

    @classmethod
    def random(cls, rng: Rng) -> PairingSecret:
        """A new 128-bit secret for a URI."""
        return cls("secret", rng(SECRET_BYTES))


@dataclass(frozen=True, slots=True)
class Code:
    """A code as shown: `text` is what is written, typed and, in lower-case ASCII, the password (formats.md F11)."""

    slot: int
    words: tuple[str, ...] = field(repr=False)

    def __post_init__(self) -> None:
        if not 1 <= self.slot <= MAX_SLOT:
            raise FormatError(f"a code begins with a number from 1 to {MAX_SLOT}")
        if not MIN_WORDS <= len(self.words) <= MAX_WORDS:
            raise FormatError(f"a code has {MIN_WORDS} to {MAX_WORDS} words, not {len(self.words)}")
        index = _word_index()
        if not all(word in index for word in self.words):
            raise FormatError("a code with a word that is not in the list")

    @property
    def text(self) -> str:
        return "-".join((str(self.slot), *self.words))

    @property
    def secret(self) -> PairingSecret:
        return PairingSecret("code", self.text.encode("ascii"))


def new_code(rng: Rng, slot: int, words: int = MIN_WORDS) -> str:
    """A new code for `slot`, uniform over the list: `words` × 10 bits."""
    wordlist = _wordlist()
    picked = tuple(wordlist[int.from_bytes(rng(2), "big") % len(wordlist)] for _ in range(words))
    return Code(slot, picked).text


def parse_code(text: str) -> Code:
    """Read what a person typed: any letter case, any of space - _ . , between the parts, words cut to four letters.

    FormatError names the word that is not in the list, and the nearest ones that are.
    """
    if len(text) > 200:
        raise FormatError("a code is a number and two or three words")
    parts = [part for part in _SEPARATORS.split(unicodedata.normalize("NFKC", text).lower()) if part]
    if not parts or not _SLOT.match(parts[0]):
        raise FormatError(f"a code begins with a number from 1 to {MAX_SLOT}, as in 7-orbit-walnut")
    return Code(int(parts[0]), tuple(_whole_word(part) for part in parts[1:]))


@dataclass(frozen=True, slots=True)
class PairingUri:
    """An invitation in one line: `mesh-pair:?v=1&c=CODE|s=SECRET&a=HOST:PORT&t=TOKEN&f=HASH`.

    Exactly one of `code` and `secret` (16 bytes); up to eight addresses to try; the token of the link; the SHA-256 of
    the server certificate, so that a dialler can hang up on a stranger before it spends a try.
    """

    code: Code | None = field(default=None, repr=False)
    secret: bytes | None = field(default=None, repr=False)
    addresses: tuple[str, ...] = ()
    token: bytes = field(default=b"", repr=False)
    certificate_hash: bytes | None = None

    def __post_init__(self) -> None:
        if (self.code is None) == (self.secret is None):
            raise FormatError("a pairing URI has either a code or a secret")
        if self.secret is not None and len(self.secret) != SECRET_BYTES:
            raise FormatError(f"a pairing secret of {len(self.secret)} bytes: it must have {SECRET_BYTES}")
        if len(self.addresses) > MAX_ADDRESSES:
            raise FormatError(
                f"a pairing URI with {len(self.addresses)} addresses: at most {MAX_ADDRESSES} are allowed"
            )
        if len(self.token) > MAX_TOKEN_BYTES:
            raise FormatError("a pairing URI with a token that is too long")
        if self.certificate_hash is not None and len(self.certificate_hash) != 32:
            raise FormatError("a pairing URI with a certificate hash that is not 32 bytes long")
        object.__setattr__(self, "addresses", tuple(check_address(address) for address in self.addresses))

    @property
    def pairing_secret(self) -> PairingSecret:
        if self.code is not None:
            return self.code.secret
        assert self.secret is not None
        return PairingSecret("secret", self.secret)

    @property
    def text(self) -> str:
        """The one spelling of this URI."""
        parts = ["v=1"]
        if self.code is not None:
            parts.append(f"c={self.code.text}")
        if self.secret is not None:
            parts.append(f"s={base64url.encode(self.secret)}")
        parts += [f"a={quote(address, safe=':')}" for address in self.addresses]
        if self.token:
            parts.append(f"t={base64url.encode(self.token)}")
        if self.certificate_hash is not None:
            parts.append(f"f={base64url.encode(self.certificate_hash)}")
        return _SCHEME + "&".join(parts)


def parse_uri(text: str) -> PairingUri:
    """Read a pairing URI, white space around it aside. FormatError for any other spelling than its own `text`."""
    text = text.strip()
    if not text.startswith(_SCHEME) or len(text) > MAX_URI:
        raise FormatError("not a pairing URI")
    found: dict[str, list[str]] = {}
    for part in text.removeprefix(_SCHEME).split("&"):
        name, _, value = part.partition("=")
        found.setdefault(name, []).append(value)
    version = found.pop("v", [""])
    if version != ["1"]:
        raise VersionMismatch("this invitation comes from another release of meshd", hint="update the older of the two")
    addresses = tuple(unquote(value) for value in found.pop("a", []))
    single = {name: values[0] for name, values in found.items()}  # a second value would not be spelled again
    hashed = single.get("f")
    secret = single.get("s")
    uri = PairingUri(
        code=parse_code(single["c"]) if "c" in single else None,
        secret=None if secret is None else base64url.decode(secret),
        addresses=addresses,
        token=base64url.decode(single.get("t", "")),
        certificate_hash=None if hashed is None else base64url.decode(hashed),
    )
    if uri.text != text:
        raise FormatError("a pairing URI with unknown, repeated, misplaced or misspelled parts")
    return uri


def parse(text: str) -> Code | PairingUri:
    """What `connect` was given: a URI if it says so, else a code."""
    return parse_uri(text) if text.lstrip().startswith("mesh-pair:") else parse_code(text)


def check_address(text: str) -> str:
    """`host:port` in its usual spelling (IPv6 compressed, in brackets; names in lower case); FormatError otherwise."""
    if len(text) > MAX_ADDRESS:
        raise FormatError("an address that is too long")
    host, colon, port = text.rpartition(":")
    if not colon or not _PORT.match(port) or int(port) > 65535:
        raise FormatError(f"not HOST:PORT: {text[:60]!r}")
    if host.startswith("[") and host.endswith("]") and "%" not in host:  # a zone means something on one machine only
        try:
            return f"[{ipaddress.IPv6Address(host[1:-1])}]:{port}"
        except ValueError:
            raise FormatError(f"not an IPv6 address: {host[:60]!r}") from None
    host = host.lower()
    if not _HOST.match(host):
        raise FormatError(f"not a host name or address: {host[:60]!r}")
    if host.rpartition(".")[2].isdigit():  # no name ends so (RFC 3696, 2): it is an IPv4 address or nothing
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise FormatError(f"not an IPv4 address: {host[:60]!r}") from None
    return f"{host}:{port}"


def complete_word(prefix: str) -> list[str]:
    """The words that begin so, for completion on a command line."""
    return [word for word in _wordlist() if word.startswith(prefix.lower())]


def _whole_word(part: str) -> str:
    index = _word_index()
    if part in index:
        return part
    if len(part) >= _PREFIX:
        matching = [word for word in index if word.startswith(part)]
        if len(matching) == 1:
            return matching[0]
    near = difflib.get_close_matches(part, index, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}?" if near else None
    message = f"{part[:30]!r} is not a word that codes are made of"
    raise FormatError(f"{message}; {hint}" if hint else message, hint=hint)


def _wordlist() -> list[str]:
    # Here, because the module reads its list from a file when it is imported and few commands need it.
    from shamir_mnemonic.wordlist import WORDLIST

    words: list[str] = WORDLIST
    return words


def _word_index() -> dict[str, int]:
    from shamir_mnemonic.wordlist import WORD_INDEX_MAP

    index: dict[str, int] = WORD_INDEX_MAP
    return index
