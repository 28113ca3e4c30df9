"""Making versions: a body and its links become signed bytes, read back through the same door as everybody else's.

`Author.sign` is the one place that writes payloads. What it makes it also parses and verifies, so that a version
which other devices would refuse never leaves this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from meshd.crypto import jws
from meshd.crypto.keys import SigningKey, VerifyKey
from meshd.profile import payload, version
from meshd.profile.claim import Kind
from meshd.profile.links import Links
from meshd.profile.version import Version


@dataclass(frozen=True, slots=True)
class _OneKey:
    key: VerifyKey

    def signing_key(self, signer: str) -> VerifyKey | None:
        return self.key if signer == self.key.udf else None


def sign(
    key: SigningKey, kind: Kind, identifier: str, tag: str, body: Mapping[str, Any], links: Links, now: int
) -> Version:
    """A signed version of (kind, identifier). `body` holds the members besides Identifier, Updated and NotaryToken;
    those that it carries over from an earlier version are replaced. `now` is UTC seconds. FormatError when the result
    would be refused."""
    members = {name: value for name, value in body.items() if name not in ("Identifier", "Updated", "NotaryToken")}
    head: dict[str, Any] = {"Identifier": identifier}
    if "Names" in members:
        head["Names"] = members.pop("Names")
    head |= {"Updated": payload.write_date(now), "NotaryToken": links.token()}
    signed = jws.sign(key, payload.encode_tagged(tag, head | members))
    parsed = version.parse(version.signed_raw(kind, identifier, signed))
    return version.verify(parsed, _OneKey(key.verify_key))
