"""DeviceProfile: one device's three public keys, signed by the first of them.

DSK signs, DAK authenticates (TLS, HTTP), DEK decrypts; one key one purpose. The draft's misspelt
`DeviceEncryptiontionKey` is the wire name. A device's name is no part of it: names live encrypted in the Group vault.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from meshd.crypto import base64url, certs
from meshd.crypto.keys import DecryptKey, RecipientKey, Rng, SigningKey, VerifyKey, public_key_json
from meshd.errors import FormatError
from meshd.profile import author, version
from meshd.profile.claim import Kind
from meshd.profile.links import Links
from meshd.profile.version import Parsed, Version


@dataclass(frozen=True, slots=True)
class DeviceKeys:
    """The private keys of this device. The DSK's fingerprint is the device's name everywhere."""

    dsk: SigningKey = field(repr=False)
    dak: SigningKey = field(repr=False)
    dek: DecryptKey = field(repr=False)
    older: tuple[DecryptKey, ...] = field(default=(), repr=False)  # DEKs that were renewed, newest first

    @classmethod
    def generate(cls, rng: Rng) -> DeviceKeys:
        return cls(SigningKey.generate(rng), SigningKey.generate(rng), DecryptKey.generate(rng))

    @property
    def udf(self) -> str:
        return self.dsk.udf

    @property
    def deks(self) -> tuple[DecryptKey, ...]:
        """What may open something that was wrapped to this device, the present key first."""
        return (self.dek, *self.older)


@dataclass(frozen=True, slots=True)
class DeviceProfile:
    """What a verified DeviceProfile says."""

    udf: str
    dsk: VerifyKey
    dak: VerifyKey
    dek: RecipientKey
    certificate: bytes = field(repr=False)  # DER, self-signed by the DAK: what TLS pins


def create(keys: DeviceKeys, now: int, rng: Rng, description: str = "") -> Version:
    """The first profile of a new device: the first version of its chain."""
    body: dict[str, Any] = {"Description": description} if description else {}
    body |= {
        "DeviceSignatureKey": public_key_json(keys.dsk.verify_key),
        "DeviceAuthenticationKey": public_key_json(keys.dak.verify_key, certs.device_certificate(keys.dak)),
        "DeviceEncryptiontionKey": public_key_json(keys.dek.recipient),
    }
    return author.sign(keys.dsk, Kind.DEVICE, keys.udf, "DeviceProfile", body, Links(g=1, n=1), now)


def read(parsed: Parsed) -> DeviceProfile:
    """The keys of a DeviceProfile; FormatError when the certificate is not the DAK's."""
    dsk, dak, dek = version.device_keys(parsed.body)
    stated = parsed.body["DeviceAuthenticationKey"].get("X509Certificate")
    if type(stated) is not str:
        raise FormatError("a device profile without the certificate of its authentication key")
    if dak.udf == dsk.udf:
        raise FormatError("a device profile with one key for two purposes")
    certificate = base64url.decode(stated)
    if certs.certificate_key(certificate).udf != dak.udf:
        raise FormatError("the certificate is not that of the device's authentication key")
    return DeviceProfile(parsed.claim.identifier, dsk, dak, dek, certificate)
