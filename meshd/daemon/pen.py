"""The pen: what every function that writes versions holds in its hand. Used in the writer's thread alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from meshd.crypto.keys import Rng, SigningKey
from meshd.daemon import snapshot
from meshd.daemon.keyring import Keyring
from meshd.profile import payload, version
from meshd.profile.version import Parsed, Version
from meshd.store import versions
from meshd.store.replica import Draft, Outcome, Replica


@dataclass(frozen=True, slots=True)
class Pen:
    """What a writing function needs: the store's door, the opened vaults, and where time and randomness come from."""

    connection: sqlite3.Connection
    replica: Replica
    keyring: Keyring
    outcome: Outcome
    now_ms: int
    rng: Rng

    @property
    def made(self) -> str:
        return payload.write_date(self.now_ms // 1000)

    def write(self, draft: Draft, key: SigningKey | None = None) -> Version:
        return self.replica.write(self.connection, key or self.keyring.device.dsk, draft, self.now_ms, self.outcome)

    def load(self, vids: Sequence[bytes]) -> list[Parsed]:
        """The parsed versions behind these vids; pruned ones are left out."""
        found = versions.raws(self.connection, vids)
        return [version.parse(found[vid][1]) for vid in vids if vid in found]

    def refresh(self, only: Sequence[str] | None = None) -> None:
        """Open what was just written."""
        self.keyring.refresh(self.connection, snapshot.applications(self.connection, self.replica), only)
