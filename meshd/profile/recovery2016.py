"""Recovery of a mesh of 2016: its entry, opened with the secret that its shares combine to.

The entry is found by its Identifier, UDF("application/mmm-escrowed", secret) of 150 bits, in whatever holds it: the
object itself, an answer of a portal, or a whole log. Its plaintext lists RSA keys: the master signature key, whose
fingerprint is the mesh, then the master escrow keys. It is encrypted under the secret itself, AES-128-CBC, as was
intended in 2016. The program of 2016 encrypted its own entries under another key, which it threw away: those open to
nobody.

The cipher has no tag. So a key counts when its numbers fit and its fingerprint is the one that is written beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from meshd.crypto import legacy
from meshd.errors import DecryptError, FormatError, MeshError, NotFound
from meshd.profile import legacy2016, payload, version
from meshd.profile.claim import Kind
from meshd.profile.legacy2016 import LegacyVersion
from meshd.profile.shares2016 import Secret

MAX_TEXT = 4 * 1024 * 1024  # characters of what holds an entry
MAX_KEYS = 16
_ENTRY = "OfflineEscrowEntry"
_PROFILES = ("SignedPersonalProfile", "SignedMasterProfile")


@dataclass(frozen=True, slots=True)
class Held:
    """What of a mesh of 2016 is in a text, the last record of each Identifier."""

    entries: dict[str, Any] = field(default_factory=dict, repr=False)  # Identifier → EncryptedData
    profiles: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)  # Identifier → tagged, personal first


@dataclass(frozen=True, slots=True)
class Recovered:
    """What shares of 2016 bring back."""

    identifier: str  # of the entry
    master: legacy.RsaDecryptKey = field(repr=False)
    escrow: tuple[legacy.RsaDecryptKey, ...] = field(repr=False)

    @property
    def mesh(self) -> str:
        """The Identifier of the master and personal profiles: the fingerprint of the master signature key."""
        return self.master.udf


@dataclass(frozen=True, slots=True)
class Standing:
    """What the profile of the mesh says, verified."""

    devices: int  # 0 where there is only the master profile
    escrow_named: bool  # every master escrow key that it names was recovered


def hold(text: str) -> Held:
    """The entries and profiles in a text: one object, a `GetResponse`, or a log of 2016. FormatError."""
    if len(text) > MAX_TEXT:
        raise FormatError(f"A file of {len(text)} characters: at most {MAX_TEXT} are read.")
    held = Held()
    for value in legacy.iter_concatenated(text):
        for tag, body in _objects(value):
            name = body.get("Identifier")
            if type(name) is not str:
                continue
            if tag == _ENTRY:
                held.entries[name] = body.get("EncryptedData")
            elif tag == _PROFILES[0] or not (name in held.profiles and _PROFILES[0] in held.profiles[name]):
                held.profiles[name] = {tag: body}
    return held


def _objects(value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The tagged entries and profiles in one value: itself, those of an answer, or the one in a record of a log."""
    if type(value) is not dict:
        return
    for tag, body in value.items():
        if type(body) is not dict:
            continue
        if tag == _ENTRY or tag in _PROFILES:
            yield tag, body
        elif tag == "GetResponse":
            for entry in payload.list_member(body, "Entries", version.MAX_LISTED):
                yield from _objects(entry)
        elif tag == "DataItem" and type(body.get("Text")) is str:
            try:
                yield from _objects(legacy.read_json(body["Text"]))
            except FormatError:
                continue  # one bad record leaves the others


def open_entry(held: Held, secret: Secret) -> Recovered:
    """The keys in the entry of this secret. NotFound; DecryptError where nobody can open it; FormatError."""
    encrypted = held.entries.get(secret.identifier)
    if encrypted is None:
        raise NotFound(f"The entry {secret.identifier} is not there.")
    lost = (
        "The shares are right, and this is their entry, but it does not open: the program of 2016 encrypted it under"
        " a key that it threw away at once. Nobody can open it."
    )
    try:
        plaintext = legacy.open_escrow(encrypted, secret.key)
    except DecryptError:
        raise DecryptError(lost) from None
    try:
        found = legacy.read_json(plaintext.decode("utf-8"))
    except (FormatError, UnicodeDecodeError):  # padding that fits by chance
        raise DecryptError(lost) from None
    keys = [legacy.RsaDecryptKey.from_json(one) for one in _private_keys(found)]
    return Recovered(secret.identifier, keys[0], tuple(keys[1:]))


def _private_keys(found: Any) -> list[Any]:
    """The master signature key, then the escrow keys. Under their names of 2017 too."""
    if type(found) is not dict:
        raise FormatError("The entry opens, but holds no keys.")
    body = payload.object_member(found, "EscrowedKeySet")
    if "MasterSignatureKey" in body:
        return [body["MasterSignatureKey"], *payload.list_member(body, "MasterEscrowKeys", MAX_KEYS)]
    keys = payload.list_member(body, "PrivateKeys", MAX_KEYS)
    if not keys:
        raise FormatError("The entry opens, but holds no keys.")
    return keys


def standing(held: Held, recovered: Recovered) -> Standing | None:
    """What the profile of the recovered mesh says, if it is there and verifies."""
    tagged = held.profiles.get(recovered.mesh)
    if tagged is None:
        return None
    try:
        profile = legacy2016.read_signed(tagged, {})
        named = set(_escrow_named(profile))
    except MeshError:
        return None
    devices = sum(part.kind is Kind.DEVICE for part in profile.embedded)
    return Standing(devices, named <= {key.udf for key in recovered.escrow})


def _escrow_named(profile: LegacyVersion) -> Iterator[str]:
    top = profile if profile.kind is Kind.MASTER else profile.embedded[0]
    for key in payload.list_member(top.body, "MasterEscrowKeys", MAX_KEYS):
        yield payload.text_member(key, "UDF", 64) if type(key) is dict else ""
