"""Signing keys by fingerprint, for those who verify."""

from __future__ import annotations

from meshd.crypto.keys import VerifyKey
from meshd.profile import version
from meshd.profile.claim import Kind
from meshd.profile.version import Parsed


class Directory:
    """Signing keys by fingerprint. A fingerprint is the hash of its key, so remembering one believes nothing.

    Read by the verifying threads while the writer thread adds to it; entries are never changed or removed.
    """

    def __init__(self) -> None:
        self._keys: dict[str, VerifyKey] = {}

    def signing_key(self, signer: str) -> VerifyKey | None:
        return self._keys.get(signer)

    def all(self) -> list[VerifyKey]:
        """Every key that it knows."""
        return list(self._keys.values())

    def learn(self, profile: Parsed) -> None:
        """Remember the keys that a verified profile and what it embeds state."""
        if profile.claim.kind is Kind.MASTER:
            self._keys.update(version.online_keys(profile.body))
            key = version.master_key(profile.body)
            self._keys[key.udf] = key
        elif profile.claim.kind is Kind.DEVICE:
            key = version.device_keys(profile.body)[0]
            self._keys[key.udf] = key
        for part in profile.embedded:
            self.learn(part)
