"""Another portal's log, asked for as a peer: its newest checkpoint, and pages of what it holds. Nothing is believed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from meshd.crypto.keys import SigningKey
from meshd.daemon.portal.replaying import Entry, entry_of
from meshd.daemon.portal.view import tid_of
from meshd.daemon.portals.link import Link, Where
from meshd.errors import Denied, RemoteProtocolError
from meshd.net.portal_client import HttpClient
from meshd.net.srv import Services
from meshd.portal import headers, httpsig
from meshd.portal.log_status import interval_of, named_keys, proof_hashes
from meshd.portal.messages import StatusRequest, StatusResponse, TransferRequest, TransferResponse
from meshd.portal.names import AccountName
from meshd.tlog import tree
from meshd.tlog.note import Note, Verifier

MAX_ENTRIES = 1000  # of a page


@dataclass(frozen=True, slots=True)
class Shown:
    """What Status shows: the newest checkpoint, the keys that it names, the proof from the size that was asked for, and
    seconds between its cosignatures."""

    note: Note
    keys: tuple[Verifier, ...]
    proof: tuple[bytes, ...] | None
    interval: int


@dataclass(frozen=True, slots=True)
class Page:
    """Entries from the index `first` on, the checkpoint that they are said to belong to, and the proof of that."""

    first: int
    entries: tuple[Entry, ...]
    note: Note
    proof: tuple[bytes, ...]


class Origin:
    """One portal. `address` is where it is reached if not where DNS says, `plain` without TLS."""

    def __init__(
        self,
        http: HttpClient,
        services: Services,
        domain: str,
        key: SigningKey,
        *,
        address: str = "",
        plain: bool = False,
        now: Callable[[], int],
    ) -> None:
        self.domain = domain
        self._address, self._plain = address, plain
        where = Where(AccountName("", domain), address, plain)
        self._link = Link(http, services, where, key=lambda: key, now=now, rng=os.urandom, tag=httpsig.TAG_PEER)
        self._stated: list[str] = []

    @property
    def uri(self) -> str:
        """Where its clients are sent: as it says itself, or else where it is reached."""
        if self._stated:
            return self._stated[0]
        if self._plain:
            return f"http://{self._address or self.domain}{headers.PATH}"
        return f"https://{self.domain}{headers.PATH}"

    async def hello(self) -> None:
        """Ask where it wants to be reached; NetworkError, RemoteProtocolError."""
        found = await self._link.hello()
        self._stated = list(found.version.uri or []) if found.version is not None else []

    async def status(self, old_size: int | None) -> Shown:
        """FormatError, RemoteProtocolError for a portal without a log, NetworkError."""
        answer = await self._link.ask("Status", StatusRequest(old_size=old_size), StatusResponse, signed=False)
        if answer.checkpoint_value is None:
            raise RemoteProtocolError(f"{self.domain} shows no log")
        return Shown(
            Note.parse(answer.checkpoint_value.encode()), named_keys(answer), proof_hashes(answer), interval_of(answer)
        )

    async def page(self, place: int, tree_size: int) -> Page:
        """The entries behind the first `place`. Denied: it grants us nothing, or not all; NotFound: it has no such
        place or size; FormatError, RemoteProtocolError, NetworkError."""
        asked = TransferRequest(
            after=tid_of(place) if place else None, tree_size=tree_size, max_entries=min(MAX_ENTRIES, tree_size - place)
        )
        try:
            answer = await self._link.ask("Transfer", asked, TransferResponse)
        except Denied as exc:
            raise Denied(
                f"{self.domain} does not grant us its log",
                hint="whoever runs it grants it: meshd portal admin peer add … --key KEY --grant full",
            ) from exc
        sent = answer.entries or []
        if answer.first != place or not 0 < len(sent) <= tree_size - place or answer.checkpoint is None:
            raise RemoteProtocolError(f"{self.domain} gives another page of its log than was asked for")
        hashes = tuple(bytes(one) for one in (answer.page_proof or [])[: tree.MAX_PROOF + 1])
        return Page(place, tuple(map(entry_of, sent)), Note.parse(answer.checkpoint.encode()), hashes)
