"""Private keys at rest: one file with two sealed sections (formats.md F9).

The idea is two tiers. Tier 1 opens without a person, by the key in `host.key` beside the file, so that a locked device
still finds its siblings and syncs ciphertext; tier 2, with everything that signs or decrypts, opens by a passphrase.
Each section is sealed under a random key of its own, which slots wrap; so content is replaced without asking anybody.

    keystore = {0: 1, 1: section, 2: section, 3: SHA-256 of the encoding of the members before it}
    section  = {0: [+ slot], 1: sealed}              sealed: AES-256-GCM over a CBOR map; AAD = version and section
    slot     = {0: kind, 1: parameters, 2: wrapped}  wrapped: the section's key; AAD = version, section and 0, 1

Slot kinds: 1 passphrase (Argon2id), 2 systemd credential, 6 host file; others belong to later releases and are carried.
The digest protects nobody from an attacker; it tells a damaged file from a wrong passphrase.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from meshd.crypto import cbor
from meshd.crypto.keys import Rng
from meshd.crypto.sealing import DEVICE_KDF, KEY_BYTES, KdfParameters, aead_open, aead_seal, derive, hkdf
from meshd.errors import (
    BadRequest,
    DecryptError,
    Exists,
    FormatError,
    Locked,
    StoreDamaged,
    StoreError,
    StoreTooNew,
    WrongPassphrase,
)
from meshd.store.files import durable_write, read_file

VERSION = 1
TIER1, TIER2 = 1, 2
PASSPHRASE, CREDENTIAL, HOST = 1, 2, 6
HOST_KEY = "host.key"
CREDENTIAL_NAME = "meshd"
MIN_CREDENTIAL = 32
MAX_CREDENTIAL = 64 * 1024
MAX_FILE = 4 * 1024 * 1024  # Discovery keys add up over the years, 100 bytes each
MAX_SLOTS = 16
_DIGEST = 3
_MEND = "keep the file and restore a backup of it; or connect this device anew in another home"

Content = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Slot:
    kind: int
    parameters: Mapping[str, Any]
    wrapped: bytes

    def form(self) -> dict[int, Any]:
        return {0: self.kind, 1: self.parameters, 2: self.wrapped}


@dataclass(frozen=True, slots=True)
class _Section:
    slots: tuple[_Slot, ...]
    sealed: bytes

    def form(self) -> dict[int, Any]:
        return {0: [slot.form() for slot in self.slots], 1: self.sealed}


@dataclass(frozen=True, slots=True, repr=False)
class _Openers:
    """What opens slots: the host's key, a credential, a passphrase; None where there is none."""

    host: bytes
    credential: bytes | None = None
    passphrase: str | None = None

    def key(self, kind: int, parameters: Mapping[str, Any]) -> bytes | None:
        """The key that wraps in a slot of this kind; None when what it takes is not here."""
        if kind == HOST:
            return self.host
        if kind == CREDENTIAL and self.credential is not None:
            return hkdf(self.credential, b"meshd keystore credential")
        if kind == PASSPHRASE and self.passphrase is not None:
            return derive(self.passphrase, KdfParameters.from_dict(parameters))
        return None


class Keystore:
    """The keystore of one home. Any thread may call it; what derives a key from a passphrase takes 0.1 to 2 s.

    Contents are CBOR maps with text keys. They are replaced whole, and are durable when an update returns.
    """

    def __init__(
        self,
        path: Path,
        sections: Mapping[int, _Section],
        openers: _Openers,
        rng: Rng,
        fault: Callable[[str], None] | None,
    ) -> None:
        self._path = path
        self._sections = dict(sections)
        self._openers = openers
        self._rng = rng
        self._fault = fault
        self._tier2_key: bytearray | None = None
        self._changing = threading.RLock()

    def __repr__(self) -> str:
        return f"<Keystore {self._path} {'unlocked' if self.unlocked else 'locked'}>"

    @classmethod
    def create(
        cls,
        path: Path,
        tier1: Mapping[str, Any],
        tier2: Mapping[str, Any],
        passphrase: str | None,
        rng: Rng = secrets.token_bytes,
        *,
        kdf: KdfParameters = DEVICE_KDF,
        credential: bytes | None = None,
        fault: Callable[[str], None] | None = None,
    ) -> Keystore:
        """Write a new keystore and its `host.key`, and return it unlocked. Exists, if there is one.

        Without a passphrase tier 2 opens by the systemd credential, or else by `host.key` alone.
        """
        if path.exists():
            raise Exists(f"there is a keystore at {path}")
        openers = _Openers(_host_key(path, rng), credential, passphrase)
        keystore = cls(path, {}, replace(openers, passphrase=None), rng, fault)
        key1, key2 = rng(KEY_BYTES), rng(KEY_BYTES)
        slots1 = (_wrap(TIER1, HOST, {}, openers, key1, rng),)
        slots2 = (_tier2_slot(openers, kdf, key2, rng),)
        keystore._save(
            {
                TIER1: _Section(slots1, _seal(TIER1, tier1, key1, rng)),
                TIER2: _Section(slots2, _seal(TIER2, tier2, key2, rng)),
            }
        )
        keystore._tier2_key = bytearray(key2)
        return keystore

    @classmethod
    def open(
        cls,
        path: Path,
        rng: Rng = secrets.token_bytes,
        *,
        credential: bytes | None = None,
        fault: Callable[[str], None] | None = None,
    ) -> Keystore:
        """Read the file; nothing is opened yet. StoreDamaged, StoreTooNew, StoreError: the file stays as it is."""
        sections = _parse(read_file(path, MAX_FILE), path)
        host_path = path.with_name(HOST_KEY)
        for file in (path, host_path):
            with contextlib.suppress(OSError):  # of another owner, or a read-only disk: reading goes on
                if file.stat().st_mode & 0o077:
                    file.chmod(0o600)
        return cls(path, sections, _Openers(_read_host_key(host_path), credential), rng, fault)

    @property
    def needs_passphrase(self) -> bool:
        """Whether tier 2 opens only by a passphrase."""
        return all(slot.kind not in (CREDENTIAL, HOST) for slot in self._sections[TIER2].slots)

    @property
    def unlocked(self) -> bool:
        return self._tier2_key is not None

    def open_tier1(self) -> Content:
        """DAK and Discovery keys; needs nobody."""
        return self._content(TIER1, self._tier1_key())

    def unlock(self, passphrase: str | None) -> Content:
        """Open tier 2 and keep its section key. WrongPassphrase; Locked when one is needed and None is given."""
        section = self._sections[TIER2]
        if passphrase is None and self.needs_passphrase:
            raise Locked("a passphrase is needed")
        key = _unwrap(TIER2, section, replace(self._openers, passphrase=passphrase))
        if key is None:
            if self.needs_passphrase:
                raise WrongPassphrase
            raise StoreError(
                f"{self._path} does not open with the credential or {HOST_KEY} of this machine", hint=_MEND
            )
        content = self._content(TIER2, key, section)
        with self._changing:
            if self._sections[TIER2] is section:  # else the passphrase was changed meanwhile
                self._tier2_key = bytearray(key)
        return content

    def lock(self) -> None:
        """Forget the key of tier 2, as well as Python can."""
        with self._changing:
            if self._tier2_key is not None:
                self._tier2_key[:] = bytes(len(self._tier2_key))
                self._tier2_key = None

    def update_tier1(self, content: Mapping[str, Any]) -> None:
        """Replace tier 1; needs nobody, as a locked device learns new Discovery keys too."""
        with self._changing:
            section = self._sections[TIER1]
            sealed = _seal(TIER1, content, self._tier1_key(), self._rng)
            self._save({**self._sections, TIER1: replace(section, sealed=sealed)})

    def update_tier2(self, content: Mapping[str, Any]) -> None:
        """Replace tier 2; Locked unless it was unlocked."""
        with self._changing:
            if self._tier2_key is None:
                raise Locked
            section = self._sections[TIER2]
            sealed = _seal(TIER2, content, bytes(self._tier2_key), self._rng)
            self._save({**self._sections, TIER2: replace(section, sealed=sealed)})

    def change_passphrase(self, old: str | None, new: str | None, *, kdf: KdfParameters = DEVICE_KDF) -> None:
        """From `old` on, only `new` opens tier 2; None is "without a passphrase". WrongPassphrase: nothing has changed.

        The section gets a new key as well, so that an old copy of the file and the old passphrase open no later one.
        Slots of kinds that this release does not know wrapped the old key and are dropped. Ends as it began, locked
        or unlocked.
        """
        with self._changing:
            was_unlocked = self.unlocked
            content = self.unlock(old)
            try:
                key = self._rng(KEY_BYTES)
                slot = _tier2_slot(replace(self._openers, passphrase=new), kdf, key, self._rng)
                self._save({**self._sections, TIER2: _Section((slot,), _seal(TIER2, content, key, self._rng))})
                self._tier2_key = bytearray(key)
            finally:
                if not was_unlocked:
                    self.lock()

    def _tier1_key(self) -> bytes:
        key = _unwrap(TIER1, self._sections[TIER1], self._openers)
        if key is None:
            raise StoreError(f"{self._path} does not belong to the {HOST_KEY} beside it", hint=_MEND)
        return key

    def _content(self, tier: int, key: bytes, section: _Section | None = None) -> Content:
        sealed = (section or self._sections[tier]).sealed
        try:
            content = cbor.decode(aead_open(key, sealed, _aad(tier)))
        except (DecryptError, FormatError) as exc:
            raise _damaged(self._path, f"section {tier} does not open") from exc
        if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
            raise _damaged(self._path, f"section {tier} holds no map")
        return cast(Content, content)

    def _save(self, sections: Mapping[int, _Section]) -> None:
        """On disk first; memory follows only what is durable."""
        members: dict[int, Any] = {0: VERSION, TIER1: sections[TIER1].form(), TIER2: sections[TIER2].form()}
        members[_DIGEST] = _digest(members)
        durable_write(self._path, cbor.encode(members), fault=self._fault)
        self._sections = dict(sections)


def systemd_credential(directory: str | None) -> bytes | None:
    """The secret in `$CREDENTIALS_DIRECTORY/meshd` (systemd.exec, LoadCredentialEncrypted=); None if there is none."""
    if not directory:
        return None
    path = Path(directory) / CREDENTIAL_NAME
    if not path.exists():
        return None
    secret = read_file(path, MAX_CREDENTIAL)
    if len(secret) < MIN_CREDENTIAL:
        raise StoreError(f"the credential {path} has {len(secret)} bytes: at least {MIN_CREDENTIAL} are needed")
    return secret


def _tier2_slot(openers: _Openers, kdf: KdfParameters, key: bytes, rng: Rng) -> _Slot:
    if openers.passphrase is not None:
        if not openers.passphrase:
            raise BadRequest("an empty passphrase", hint="use --no-passphrase if this device should have none")
        return _wrap(TIER2, PASSPHRASE, kdf.fresh(rng).to_dict(), openers, key, rng)
    return _wrap(TIER2, HOST if openers.credential is None else CREDENTIAL, {}, openers, key, rng)


def _wrap(tier: int, kind: int, parameters: Mapping[str, Any], openers: _Openers, key: bytes, rng: Rng) -> _Slot:
    wrapping = openers.key(kind, parameters)
    assert wrapping is not None  # the caller chose a kind that `openers` has
    return _Slot(kind, parameters, aead_seal(wrapping, key, _slot_aad(tier, kind, parameters), rng))


def _unwrap(tier: int, section: _Section, openers: _Openers) -> bytes | None:
    """The section's key by the first slot that opens; None when none does."""
    for slot in section.slots:
        wrapping = openers.key(slot.kind, slot.parameters)
        if wrapping is not None:
            with contextlib.suppress(DecryptError):
                return aead_open(wrapping, slot.wrapped, _slot_aad(tier, slot.kind, slot.parameters))
    return None


def _seal(tier: int, content: Mapping[str, Any], key: bytes, rng: Rng) -> bytes:
    return aead_seal(key, cbor.encode(dict(content)), _aad(tier), rng)


def _aad(tier: int) -> bytes:
    return cbor.encode(["meshd keystore", VERSION, tier])


def _slot_aad(tier: int, kind: int, parameters: Mapping[str, Any]) -> bytes:
    return cbor.encode(["meshd keystore slot", VERSION, tier, kind, parameters])


def _digest(members: Mapping[int, Any]) -> bytes:
    return hashlib.sha256(cbor.encode(members)).digest()


def _host_key(path: Path, rng: Rng) -> bytes:
    """The key in `host.key`, made if it is not there. One that is there stays: a keystore moved away may need it."""
    file = path.with_name(HOST_KEY)
    if not file.exists():
        durable_write(file, rng(KEY_BYTES))
    return _read_host_key(file)


def _read_host_key(file: Path) -> bytes:
    key = read_file(file, KEY_BYTES)
    if len(key) != KEY_BYTES:
        raise _damaged(file, f"it has {len(key)} bytes instead of {KEY_BYTES}")
    return key


def _parse(data: bytes, path: Path) -> dict[int, _Section]:
    try:
        members = cbor.decode(data)
        if not isinstance(members, dict):
            raise FormatError("it holds no map")
        version = members.get(0)
        if type(version) is int and version > VERSION:
            raise StoreTooNew(
                f"the keystore {path} has format {version}, and this release of meshd knows format {VERSION}",
                hint="install the newer release again",
            )
        if version != VERSION or set(members) != {0, TIER1, TIER2, _DIGEST}:
            raise FormatError("it has other members than a keystore")
        if members.pop(_DIGEST) != _digest(members):
            raise FormatError("its digest does not fit")
        return {tier: _parse_section(members[tier]) for tier in (TIER1, TIER2)}
    except FormatError as exc:
        raise _damaged(path, str(exc)) from exc


def _parse_section(form: object) -> _Section:
    if not isinstance(form, dict) or set(form) != {0, 1} or not isinstance(form[1], bytes):
        raise FormatError("a section that is none")
    if not isinstance(form[0], list) or not 0 < len(form[0]) <= MAX_SLOTS:
        raise FormatError("a section without slots, or with too many")
    return _Section(tuple(_parse_slot(slot) for slot in form[0]), form[1])


def _parse_slot(form: object) -> _Slot:
    if not isinstance(form, dict) or set(form) != {0, 1, 2}:
        raise FormatError("a slot that is none")
    kind, parameters, wrapped = form[0], form[1], form[2]
    if type(kind) is not int or not isinstance(parameters, dict) or not isinstance(wrapped, bytes):
        raise FormatError("a slot whose members have other types")
    if kind == PASSPHRASE:
        KdfParameters.from_dict(parameters)  # costs below the minimum are refused before anybody types a passphrase
    return _Slot(kind, parameters, wrapped)


def _damaged(path: Path, reason: str) -> StoreDamaged:
    return StoreDamaged(f"{path} is damaged: {reason}", hint=_MEND)
