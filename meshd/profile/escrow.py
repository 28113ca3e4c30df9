"""The sealed master key as an OnlineEscrowEntry (formats.md F6).

The master key exists sealed twice over: under the master passphrase (Argon2id, 256 MiB, t = 4), and around that for
the encryption keys of the admins' devices. So neither an admin's device alone nor the passphrase alone opens it, and
a new admin is given it by wrapping the inner blob anew, without the passphrase. Entries are unsigned and write-once;
they count when the current master profile lists them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from meshd.crypto import base64url, cbor, jwe, sealing, udf
from meshd.crypto.keys import DecryptKey, RecipientKey, Rng, SigningKey
from meshd.errors import DecryptError, FormatError, WrongPassphrase
from meshd.profile import payload, version
from meshd.profile.claim import Kind
from meshd.profile.version import Parsed, Version

_MEMBER = "MeshdSealedMaster"
_AAD = b"mmm-sealed-master/1"


def seal_master(key: SigningKey, passphrase: str, rng: Rng, parameters: sealing.KdfParameters | None = None) -> bytes:
    """The inner blob: the master key under the passphrase. Costs 256 MiB for about a second."""
    kdf = (parameters or sealing.MASTER_KDF).fresh(rng)
    box = sealing.aead_seal(sealing.derive(passphrase, kdf), key.private, _AAD, rng)
    return cbor.encode({"v": 1, "kdf": kdf.to_dict(), "box": box})


def open_master(blob: bytes, passphrase: str) -> SigningKey:
    """The master key. WrongPassphrase, FormatError."""
    fields = cbor.decode(blob)
    if type(fields) is not dict or fields.get("v") != 1 or type(fields.get("box")) is not bytes:
        raise FormatError("a sealed master key of an unknown form")
    kdf = sealing.KdfParameters.from_dict(fields.get("kdf"))
    try:
        private = sealing.aead_open(sealing.derive(passphrase, kdf), fields["box"], _AAD)
    except DecryptError as exc:
        raise WrongPassphrase("The master passphrase is wrong.") from exc
    return SigningKey.from_private(private)


def entry(blob: bytes, admins: Iterable[RecipientKey], rng: Rng) -> Version:
    """A new OnlineEscrowEntry that wraps the blob for these devices; one may state the key of another as its own."""
    plaintext = payload.encode({_MEMBER: {"V": 1, "Blob": base64url.encode(blob)}})
    recipients = [key for _, key in sorted({admin.udf: admin for admin in admins}.items())]
    envelope: dict[str, Any] = jwe.seal_to(plaintext, recipients, (), rng)
    raw = version.escrow_raw(Kind.ONLINE_ESCROW, udf.random_udf(rng), envelope)
    return version.verify(version.parse(raw))


def open_entry(parsed: Parsed, key: DecryptKey) -> bytes:
    """The inner blob. DecryptError when this device is not among the recipients or the entry holds something else."""
    plaintext = payload.decode(jwe.open_with(payload.object_member(parsed.body, "EncryptedData"), key))
    sealed = plaintext.get(_MEMBER) if type(plaintext) is dict else None
    if type(sealed) is not dict:
        raise DecryptError("an escrow entry that holds no master key")
    return base64url.decode(payload.text_member(sealed, "Blob", 4096))
