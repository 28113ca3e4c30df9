"""A vault's container and its items: who holds which key, and what is encrypted under it (formats.md F5).

A container is a general JWE to the vault's readers. Its plaintext is an empty 2016 private object, LF, then the
vault's write keys; the newest usable one encrypts new items. An item is a `dir` JWE under one of them: the 2016
private object with one entry, LF, `MeshdItem`, then spaces so that lengths say little. The first object is what a
2016 reader sees; text after it never was read by one. Objects are edited as decoded, so members that this release
does not know survive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from meshd.crypto import base64url, cbor, jwe, udf
from meshd.crypto.keys import DecryptKey, RecipientKey, Rng
from meshd.errors import DecryptError, FormatError
from meshd.profile import clock, payload
from meshd.profile.version import Parsed

KEY_SIZE = 32
STEP = 256  # plaintext lengths up to 4 KiB are multiples of this
PADME_ABOVE = 4096
MAX_PLAINTEXT = 1024 * 1024
_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"


@dataclass(frozen=True, slots=True)
class EpochKey:
    """One write key of a vault, named by its fingerprint."""

    kid: str
    key: bytes = field(repr=False)
    made: str
    unknown: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)  # members of newer releases

    @classmethod
    def generate(cls, rng: Rng, now: int) -> EpochKey:
        key = rng(KEY_SIZE)
        return cls(udf.make(udf.MMM_EPOCH, key), key, payload.write_date(now))


@dataclass(frozen=True, slots=True)
class Container:
    """An opened container: its keys, oldest first, and what else its plaintext says."""

    keys: tuple[EpochKey, ...]
    name: str
    private: dict[str, Any] = field(repr=False)  # the 2016 object, tagged
    epochs: dict[str, Any] = field(repr=False)  # the MeshdEpochs object as decoded, without Keys and Name
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Item:
    """The plaintext of one version of an item."""

    private: dict[str, Any] = field(repr=False)  # {"PasswordProfilePrivate": {"Entries": [one entry]}}
    meta: dict[str, Any] = field(repr=False)  # the MeshdItem object

    @property
    def deleted(self) -> bool:
        return self.meta.get("Deleted") is True

    @property
    def time(self) -> int:
        """The hybrid logical clock of this edit."""
        return clock.read(self.meta.get("T", ""))

    @property
    def made(self) -> str:
        value = self.meta.get("Made", "")
        return value if type(value) is str else ""

    @property
    def fields(self) -> dict[str, Any]:
        value = self.meta.get("Fields", {})
        return value if type(value) is dict else {}


def new_item_identifier(container: str, rng: Rng) -> str:
    """CONTAINER/26 base32 characters of 16 random bytes (formats.md F3)."""
    number = int.from_bytes(rng(16), "big") << 2
    return container + "/" + "".join(_BASE32[number >> shift & 31] for shift in range(125, -1, -5))


def seal_container(
    private_tag: str,
    container: Container,
    recipients: Sequence[RecipientKey],
    rng: Rng,
) -> dict[str, Any]:
    """The members of a container's ApplicationProfile: EncryptedData for these readers."""
    private = container.private or {private_tag: {}}
    epochs = dict(container.epochs) | {"V": 1}
    epochs["Keys"] = [
        {**key.unknown, "Kid": key.kid, "K": base64url.encode(key.key), "Made": key.made}
        for key in sorted_keys(container.keys)
    ]
    if container.name:
        epochs["Name"] = container.name
    if container.deleted:
        epochs["Deleted"] = True
    plaintext = _join(private, {"MeshdEpochs": epochs})
    kids = [key.kid for key in sorted_keys(container.keys)]
    return {"EncryptedData": jwe.seal_to(_pad(plaintext), list(recipients), kids, rng)}


def sorted_keys(keys: Iterable[EpochKey]) -> tuple[EpochKey, ...]:
    """By time of making, then name: the order in which they are written."""
    return tuple(sorted(keys, key=lambda key: (key.made, key.kid)))


def open_container(parsed: Parsed, key: DecryptKey) -> Container:
    """The keys of a container. DecryptError when this device is no reader, FormatError when the keys are not the ones
    named."""
    envelope = payload.object_member(parsed.body, "EncryptedData")
    private, rest = _split(jwe.open_with(envelope, key))
    epochs = _ours(rest, "MeshdEpochs")
    keys = []
    for entry in payload.list_member(epochs, "Keys", 4096):
        if type(entry) is not dict:
            raise FormatError("a vault key that is no object")
        material = base64url.decode(payload.text_member(entry, "K", 64))
        kid = payload.text_member(entry, "Kid", 64)
        if len(material) != KEY_SIZE or not udf.equal(kid, udf.make(udf.MMM_EPOCH, material)):
            raise FormatError("a vault key that is not the one named")
        unknown = {member: value for member, value in entry.items() if member not in ("Kid", "K", "Made")}
        keys.append(EpochKey(kid, material, payload.text_member(entry, "Made", 20), unknown))
    if sorted(key.kid for key in keys) != sorted(jwe.kids_of(envelope)):
        raise FormatError("a container whose keys are not the ones that it names in clear")
    name = epochs.get("Name", "")
    extra = {member: value for member, value in epochs.items() if member not in ("Keys", "Name", "Deleted")}
    return Container(
        tuple(keys), name if type(name) is str else "", private, extra, deleted=epochs.get("Deleted") is True
    )


def container_kids(parsed: Parsed) -> frozenset[str]:
    """The key identifiers that a container states in clear."""
    return frozenset(jwe.kids_of(payload.object_member(parsed.body, "EncryptedData")))


def container_recipients(parsed: Parsed) -> frozenset[str]:
    """The UDFs of the encryption keys that a container is wrapped to."""
    return frozenset(jwe.recipients_of(payload.object_member(parsed.body, "EncryptedData")))


def seal_item(item: Item, key: EpochKey, rng: Rng) -> dict[str, Any]:
    """The members of an item's ApplicationProfile: EncryptedData under this write key."""
    plaintext = _pad(_join(item.private, {"MeshdItem": item.meta}))
    return {"EncryptedData": jwe.seal_direct(key.key, key.kid, plaintext, rng)}


def open_item(parsed: Parsed, keys: Callable[[str], bytes]) -> Item:
    """The plaintext of an item. `keys` maps a key identifier to its 32 bytes or raises DecryptError."""
    private, rest = _split(jwe.open_direct(payload.object_member(parsed.body, "EncryptedData"), keys))
    return Item(private, _ours(rest, "MeshdItem"))


def open_stored(raw: bytes, keys: Callable[[str], bytes]) -> tuple[str, Item]:
    """(tag, plaintext) of an item in the F4 form that a store holds. It was read whole before it was stored, so here
    only what leads to the plaintext is. DecryptError, FormatError as `open_item`."""
    fields = cbor.decode(raw)
    if type(fields) is not list or len(fields) != 5 or type(fields[3]) is not bytes:
        raise FormatError("a signed entry is [kind, Identifier, protected, payload, signature]")
    tag, body = payload.decode_tagged(fields[3])
    private, rest = _split(jwe.open_direct(payload.object_member(body, "EncryptedData"), keys))
    return tag, Item(private, _ours(rest, "MeshdItem"))


def item_key_id(parsed: Parsed) -> str:
    """Which write key an item is encrypted under."""
    return jwe.direct_kid(payload.object_member(parsed.body, "EncryptedData"))


def key_ring(keys: Mapping[str, bytes]) -> Callable[[str], bytes]:
    """A key look-up for `open_item` over a mapping."""

    def find(kid: str) -> bytes:
        key = keys.get(kid)
        if key is None:
            raise DecryptError("encrypted under a key that this device does not hold")
        return key

    return find


def new_meta(time: int, made: str, **members: Any) -> dict[str, Any]:
    """A MeshdItem object; members that are None are left out."""
    return {"V": 1, "T": clock.write(time), "Made": made} | {
        name: value for name, value in members.items() if value is not None
    }


def winner_key(deleted: bool, time: int, vid: bytes) -> tuple[bool, int, bytes]:
    """Among the heads of an item the largest of these is shown: live before deleted, then T, then vid."""
    return (not deleted, time, vid)


def _pad(plaintext: bytes) -> bytes:
    size = len(plaintext)
    if size <= PADME_ABOVE:
        target = -(-size // STEP) * STEP
    else:  # Padmé (PURBs, Nikitin et al. 2019): at most 12 % more, O(log log n) lengths told apart
        exponent = size.bit_length() - 1
        keep = exponent - (exponent.bit_length())
        mask = (1 << keep) - 1
        target = (size + mask) & ~mask
    return plaintext + b" " * (target - size)


def _join(private: dict[str, Any], ours: dict[str, Any]) -> bytes:
    plaintext = payload.encode_private(private) + b"\n" + payload.encode_private(ours)
    if len(plaintext) > MAX_PLAINTEXT:
        raise FormatError(f"a plaintext of {len(plaintext)} bytes: at most {MAX_PLAINTEXT} are allowed")
    return plaintext


def _split(plaintext: bytes) -> tuple[dict[str, Any], bytes]:
    """The 2016 object, and what follows its line; that is empty in a document of 2016 alone."""
    first, _, rest = plaintext.partition(b"\n")
    return _object(first), rest


def _ours(rest: bytes, tag: str) -> dict[str, Any]:
    """The object that this project adds, under its tag."""
    rest = rest.rstrip(b" ")
    if not rest:
        raise FormatError(f"a plaintext without {tag}")
    found = payload.object_member(_object(rest), tag)
    if found.get("V") != 1:
        raise FormatError(f"{tag} was written by a release that is newer than this one")
    return found


def _object(data: bytes) -> dict[str, Any]:
    value = payload.decode_private(data)
    if type(value) is not dict:
        raise FormatError("a plaintext that is no object")
    return value
