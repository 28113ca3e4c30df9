"""What the keystore's two tiers hold of a device: as keys here, as maps there.

Tier 1 opens with the daemon, tier 2 with a person's passphrase. The maps are what is sealed on disk of a device's
secrets, and change with that alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from meshd.crypto.keys import DecryptKey, SigningKey
from meshd.profile.device import DeviceKeys


@dataclass(frozen=True, slots=True)
class Tier1:
    """What opens without a person: enough to be found, to connect, and to carry ciphertext."""

    dak: SigningKey = field(repr=False)
    discovery: tuple[bytes, ...] = field(repr=False)  # newest last; every key ever held
    spare: SigningKey | None = field(default=None, repr=False)  # the other DAK, while this device renews its keys

    def to_map(self) -> dict[str, Any]:
        found: dict[str, Any] = {"dak": self.dak.private, "discovery": list(self.discovery)}
        return found | {"spare": self.spare.private} if self.spare is not None else found

    @classmethod
    def from_map(cls, fields: Mapping[str, Any]) -> Tier1:
        spare = SigningKey.from_private(fields["spare"]) if "spare" in fields else None
        return cls(SigningKey.from_private(fields["dak"]), tuple(fields["discovery"]), spare)

    def stated(self, dak: str) -> Tier1:
        """The same with the DAK in use that the device's profile states (its UDF): a renewal may have ended
        half-way.
        """
        if self.spare is None or self.spare.udf != dak:
            return self
        return Tier1(self.spare, self.discovery, self.dak)


def tier2_map(keys: DeviceKeys, cache_key: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {"dsk": keys.dsk.private, "dek": keys.dek.private, "cache": cache_key}
    return found | {"older": [key.private for key in keys.older]} if keys.older else found


def device_keys(tier1: Tier1, fields: Mapping[str, Any]) -> DeviceKeys:
    """The keys of an opened tier 2, with the DAK of tier 1."""
    older = tuple(DecryptKey.from_private(key) for key in fields.get("older", ()))
    dsk, dek = SigningKey.from_private(fields["dsk"]), DecryptKey.from_private(fields["dek"])
    return DeviceKeys(dsk, tier1.dak, dek, older)
