"""A portal that signs whatever it likes, to its own mirror: nothing of it ends the process, and nothing of it stays."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from harness.log_world import Log
from harness.mirror_world import DOMAIN, ORIGIN, World, world
from harness.portal_people import Person, seeded
from meshd.crypto import cbor
from meshd.daemon.portal.mirror import Mirror
from meshd.daemon.portal.origin import Page, Shown
from meshd.daemon.portal.replaying import Entry
from meshd.errors import FormatError, MeshError
from meshd.portal import crosslog
from meshd.portal.structures import Binary, ChainRow, DataItem, IndexTerm
from meshd.profile import escrow
from meshd.tlog import tree
from meshd.tlog.leaf import Leaf, blind_terms, content_digest

SALT = bytes(range(16))


@dataclass
class Liar:
    """Stands where the portal is asked: a true log, of entries that are anything."""

    log: Log = field(default_factory=lambda: Log(seed="liar", origin=ORIGIN))
    entries: list[Entry] = field(default_factory=list)
    domain: str = DOMAIN
    uri: str = ""

    def add(self, item: DataItem, leaf: Leaf, *, erased: bool = False) -> None:
        self.entries.append(Entry(leaf.encode(), SALT, item, erased))
        self.log.publish(leaf.encode())

    async def hello(self) -> None:
        pass

    async def status(self, old_size: int | None) -> Shown:
        note, proof = self.log.status(old_size)
        return Shown(note, self.log.keys, proof, 3600)

    async def page(self, place: int, tree_size: int) -> Page:
        proof = tree.consistency_proof(len(self.entries), tree_size, self.log.tree.read)
        return Page(place, tuple(self.entries[place:]), self.log.note(tree_size), proof)


def entry(
    place: int,
    data: bytes,
    *,
    terms: dict[str, str],
    pkey: str = "x",
    vid: bytes = bytes(32),
    row: ChainRow | None = None,
    text: str | None = None,
    prior: str | None = None,
    added: int = 5,
) -> tuple[DataItem, Leaf]:
    """A record and the leaf that fits it, whatever it is."""
    keys = [{"IndexTerm": IndexTerm(type=name, term=value)} for name, value in terms.items()]
    item = DataItem(keys=keys, data=Binary(data) if data else None, text=text, row=row)
    content = content_digest(text.encode() if text is not None else data)
    blinded = blind_terms(SALT, list(terms.items()))
    action = "New" if prior is None else "Update"
    return item, Leaf(f"TID:{place}", prior, action, pkey, added, vid, content, blinded)


ALICE = Person("alice")
OTHER = Person("other")
MESH = {"UserProfile": ALICE.mesh, "UniqueID": "x", "Type": "SignedApplicationProfile"}
ROW = ChainRow(kind=3, identifier="x", signer=ALICE.mesh, notary_token="", digest=Binary(bytes(32)))
ESCROW = escrow.entry(b"sealed", [ALICE.first.keys.dek.recipient], seeded("escrow"))

CASES: dict[str, Callable[[], tuple[DataItem, Leaf]]] = {
    "rubbish": lambda: entry(1, b"\x80", terms=MESH),
    "empty-list": lambda: entry(1, cbor.encode([]), terms=MESH),
    "carried": lambda: entry(1, cbor.encode([9, "x", b"later"]), terms=MESH),
    "even": lambda: entry(1, cbor.encode([10, "x", b"later"]), terms=MESH),
    "zero": lambda: entry(1, cbor.encode([0, "x", b"later"]), terms=MESH),
    "master": lambda: entry(1, ALICE.master.raw, terms={**MESH, "UniqueID": ALICE.mesh}, vid=ALICE.master.vid),
    "device": lambda: entry(1, ALICE.first.profile.raw, terms=MESH, vid=ALICE.first.profile.vid),
    "stranger": lambda: entry(1, OTHER.item("x").raw, terms=MESH),
    "not-its-mesh": lambda: entry(1, ALICE.root.raw, terms={**MESH, "UserProfile": OTHER.mesh}, vid=ALICE.root.vid),
    "no-mesh": lambda: entry(1, ALICE.root.raw, terms={"Type": "SignedPersonalProfile"}, vid=ALICE.root.vid),
    "text": lambda: entry(1, b"", terms=MESH, text="{}"),
    "text-nonsense": lambda: entry(1, b"", terms=MESH, text='{"SignedPersonalProfile": {"SignedData": {"header": 1}}}'),
    "no-note": lambda: entry(1, b"not a note", terms={"UniqueID": "x", "Type": crosslog.TYPE}),
    "empty-note": lambda: entry(1, b"", terms={"UniqueID": "x", "Type": crosslog.TYPE}),
    "gone": lambda: entry(1, b"", terms=MESH),
    "gone-row": lambda: entry(1, b"", terms=MESH, row=ROW),
    "gone-far-prior": lambda: entry(1, b"", terms={"Type": "OfflineEscrowEntry"}, prior="elsewhere"),
    "other-place": lambda: entry(7, ALICE.root.raw, terms={**MESH, "UniqueID": ALICE.mesh}),
    "many-terms": lambda: entry(1, b"x", terms={str(number): "x" for number in range(9)}),
    "long-term": lambda: entry(1, b"x", terms={"UserProfile": "x" * 1000}),
}


def mirror_of(found: World, liar: Liar) -> Mirror:
    return Mirror(found.mirroring, liar, found.identity)  # type: ignore[arg-type]


@pytest.mark.parametrize("case", CASES)
async def test_what_a_portal_may_have_signed_is_stored_only_if_it_is_an_entry(home, case):
    async with world(home) as found:
        liar = Liar()
        item, leaf = CASES[case]()
        liar.add(item, leaf)
        if case == "gone-far-prior":
            await mirror_of(found, liar).once()
            assert found.mirroring.edge.size == 1
            return
        with pytest.raises(MeshError):
            await mirror_of(found, liar).once()
        assert found.mirroring.edge.size == 0
        for table in ("versions", "parts", "leaves", "meshes", "signers"):
            assert found.mirroring.view.connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


async def test_a_second_place_for_one_version_is_refused(home):
    async with world(home) as found:
        liar = Liar()
        terms = {"UserProfile": ALICE.mesh, "UniqueID": ESCROW.identifier, "Type": "OfflineEscrowEntry"}
        for place in (1, 2):
            liar.add(*entry(place, ESCROW.raw, terms=terms, pkey=ESCROW.identifier, vid=ESCROW.vid))
        with pytest.raises(MeshError):
            await mirror_of(found, liar).once()
        assert found.mirroring.edge.size == 0


@pytest.mark.parametrize("seed", range(20))
async def test_random_bytes_in_true_entries_end_nothing(home, seed):
    rng = random.Random(seed)
    async with world(home) as found:
        liar = Liar()
        raw = bytearray(rng.choice((ALICE.root.raw, ALICE.container().raw, ESCROW.raw)))
        for _ in range(rng.randrange(1, 4)):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        terms = {"UserProfile": ALICE.mesh, "UniqueID": ALICE.mesh, "Type": "SignedPersonalProfile"}
        try:
            liar.add(*entry(1, bytes(raw), terms=terms, pkey=ALICE.mesh, vid=ALICE.root.vid, added=int(time.time())))
        except FormatError:
            return
        with pytest.raises(MeshError):
            await mirror_of(found, liar).once()
        assert found.mirroring.edge.size == 0
