"""C2SP signed notes: text that one or more keys have signed (c2sp.org/signed-note), with Ed25519 alone.

Two signature types are read: 0x01, over the text, which logs use; and 0x04, over a time and the text, which witnesses
use (cosignature.py). Lines of other keys are kept and mean nothing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from meshd.crypto.keys import SIGNATURE_BYTES, SigningKey, VerifyKey
from meshd.errors import FormatError, SignatureError

ED25519 = 0x01
COSIGNATURE = 0x04
_NAMED = {0x02: "ECDSA", 0x05: "RFC 6962", 0x06: "ML-DSA-44"}

MAX_NOTE_BYTES = 64 << 10  # room for sixteen post-quantum lines, which others may have added
MAX_SIGNATURES = 64
MAX_NAME = 255  # bytes
MAX_VKEY = 512  # characters
_TIME_BYTES = 8
_DASH = "\u2014"


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key as C2SP names it: `name+key id+base64(type ‖ key)`; of type 0x01 or 0x04."""

    name: str
    kind: int
    key: VerifyKey

    def __post_init__(self) -> None:
        check_name(self.name)

    @classmethod
    def parse(cls, vkey: str) -> Verifier:
        """FormatError for a vkey that is none, whose key id is not its own, or of a type not read here."""
        parts = vkey.split("+", 2)
        if len(vkey) > MAX_VKEY or len(parts) != 3:
            raise FormatError("a log key that is not of the form name+key id+key")
        name, identity, encoded = parts
        raw = decode_base64(encoded)
        kind = raw[0] if raw else 0
        if kind not in (ED25519, COSIGNATURE):
            what = f" ({_NAMED[kind]})" if kind in _NAMED else ""
            raise FormatError(f"the log key of {check_name(name)} is of type {kind:#04x}{what}, which is not read here")
        found = cls(name, kind, VerifyKey.from_public(raw[1:]))
        if found.key_id.hex() != identity:
            raise FormatError(f"the log key of {name} has another key id than it says")
        return found

    @property
    def key_id(self) -> bytes:
        """Four bytes: SHA-256(name ‖ newline ‖ type ‖ key)[:4]."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.key.public).digest()[:4]

    @property
    def vkey(self) -> str:
        encoded = base64.b64encode(bytes([self.kind]) + self.key.public).decode()
        return f"{self.name}+{self.key_id.hex()}+{encoded}"

    def verify(self, text: str, signature: bytes) -> int | None:
        """The time of a cosignature (seconds), None for a plain signature; SignatureError if it does not verify."""
        if self.kind == ED25519:
            self.key.verify(signature, text.encode())
            return None
        if len(signature) != _TIME_BYTES + SIGNATURE_BYTES:
            raise SignatureError("a cosignature that is not 72 bytes long")
        time = int.from_bytes(signature[:_TIME_BYTES], "big")
        self.key.verify(signature[_TIME_BYTES:], cosigned(text, time))
        return time


@dataclass(frozen=True, slots=True)
class Signer:
    """A key that signs notes under a name, as a log does (type 0x01)."""

    name: str
    key: SigningKey

    @property
    def verifier(self) -> Verifier:
        return Verifier(self.name, ED25519, self.key.verify_key)

    @property
    def vkey(self) -> str:
        return self.verifier.vkey

    def sign(self, text: str) -> Signature:
        """The line over `text`; the same for the same text, always."""
        return Signature(self.name, self.verifier.key_id, self.key.sign(text.encode()))


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line: the name and the id (4 bytes) of a key, and what that key has made."""

    name: str
    key_id: bytes
    signature: bytes

    @property
    def line(self) -> str:
        """With its newline."""
        return f"{_DASH} {self.name} {base64.b64encode(self.key_id + self.signature).decode()}\n"

    @classmethod
    def parse(cls, line: str) -> Signature:
        """From a line without its newline."""
        parts = line.split(" ")
        if len(parts) != 3 or parts[0] != _DASH:
            raise FormatError("a signature line that is not a dash, a name and a signature")
        raw = decode_base64(parts[2])
        if len(raw) < 5:
            raise FormatError("a signature line without a signature")
        return cls(check_name(parts[1]), raw[:4], raw[4:])


@dataclass(frozen=True, slots=True)
class Verified:
    """A signature that verifies, and when it was made (seconds) if it says so."""

    verifier: Verifier
    time: int | None
    signature: Signature


@dataclass(frozen=True, slots=True)
class Note:
    """A text, ending in a newline, and its signature lines. Nothing of it is verified yet."""

    text: str
    signatures: tuple[Signature, ...]

    @classmethod
    def parse(cls, data: bytes) -> Note:
        """FormatError for anything that is not a signed note of at most 64 KiB and 64 lines."""
        if len(data) > MAX_NOTE_BYTES:
            raise FormatError("a signed note of more than 64 KiB")
        try:
            whole = data.decode()
        except UnicodeDecodeError:
            raise FormatError("a signed note that is not UTF-8") from None
        text, blank, tail = whole.rpartition("\n\n")
        text += "\n"
        if not blank or not tail:
            raise FormatError("a signed note without signatures")
        check_text(text)
        return cls(text, _lines(tail))

    def encode(self) -> bytes:
        return (self.text + "\n" + "".join(signature.line for signature in self.signatures)).encode()


def sign(text: str, signers: Iterable[Signer]) -> Note:
    """`text`, which ends in a newline, signed by each; FormatError for a text that no note can have."""
    check_text(text)
    return Note(text, tuple(signer.sign(text) for signer in signers))


def verified(note: Note, verifiers: Iterable[Verifier]) -> tuple[Verified, ...]:
    """What verifies under the keys given; empty if none of them signed, so the caller asks for those it needs.

    Lines of other keys count for nothing. SignatureError if a line names one of these keys and does not verify: such a
    note was tampered with.
    """
    known = {(verifier.name, verifier.key_id): verifier for verifier in verifiers}
    found = []
    for signature in note.signatures:
        verifier = known.get((signature.name, signature.key_id))
        if verifier is not None:
            found.append(Verified(verifier, verifier.verify(note.text, signature.signature), signature))
    return tuple(found)


def merge(note: Note, other: Note, verifiers: Iterable[Verifier]) -> Note:
    """`note` with the lines of `other` that verify under these keys; of two by one key the newer is kept.

    FormatError for another text, SignatureError as `verified` says.
    """
    if note.text != other.text:
        raise FormatError("two notes with different texts have no common signatures")
    lines = {(signature.name, signature.key_id): signature for signature in note.signatures}
    for found in verified(other, verifiers):
        place = (found.signature.name, found.signature.key_id)
        if place in lines and not _newer(found, note.text, lines[place]):
            continue
        lines[place] = found.signature
    if len(lines) > MAX_SIGNATURES:
        raise FormatError("a signed note with more than 64 signatures")
    return Note(note.text, tuple(lines.values()))


def add_lines(note: Note, lines: bytes, verifiers: Iterable[Verifier]) -> Note:
    """`note` with the signature lines that a witness answered, those that verify under its keys."""
    if len(lines) > MAX_NOTE_BYTES:
        raise FormatError("signature lines of more than 64 KiB")
    try:
        return merge(note, Note(note.text, _lines(lines.decode())), verifiers)
    except UnicodeDecodeError:
        raise FormatError("signature lines that are not UTF-8") from None


def cosigned(text: str, time: int) -> bytes:
    """What a cosignature of type 0x04 signs (c2sp.org/tlog-cosignature)."""
    if not 0 <= time < 2**63:
        raise SignatureError("a cosignature of an impossible time")
    return f"cosignature/v1\ntime {time}\n{text}".encode()


def check_text(text: str) -> None:
    """FormatError for an empty text, one without newline at its end, or with control characters."""
    if not text.strip("\n") or not text.endswith("\n"):
        raise FormatError("the text of a note must end in a newline")
    if any(character < " " and character != "\n" for character in text):
        raise FormatError("a note with control characters")


def check_name(name: str) -> str:
    """The key name, if it is one; FormatError for an empty or long one, or one with spaces, plus or control bytes."""
    if not name or len(name.encode()) > MAX_NAME:
        raise FormatError("a key name that is empty or longer than 255 bytes")
    if "+" in name or any(character.isspace() or character < " " for character in name):
        raise FormatError("a key name with a space, a plus or a control character")
    return name


def decode_base64(text: str) -> bytes:
    """Standard base64 with its padding, in its one spelling; FormatError for everything else."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise FormatError("base64 that is none") from None
    if base64.b64encode(raw).decode() != text:
        raise FormatError("base64 that is not in its one spelling")
    return raw


def _lines(text: str) -> tuple[Signature, ...]:
    if not text.endswith("\n"):
        raise FormatError("a signature line without its newline")
    lines: Sequence[str] = text[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise FormatError("a signed note with more than 64 signatures")
    return tuple(Signature.parse(line) for line in lines)


def _newer(found: Verified, text: str, held: Signature) -> bool:
    """Whether the verified line is to replace one held for the same key."""
    try:
        time = found.verifier.verify(text, held.signature)
    except SignatureError:
        return True
    return found.time is not None and time is not None and found.time > time
