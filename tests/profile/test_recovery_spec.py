"""docs/specs/recovery.cddl says what is written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cbor2
import pytest
from pycddl import Schema, ValidationError

from meshd.crypto import jwe, sealing
from meshd.crypto.keys import DecryptKey, SigningKey
from meshd.profile import master, payload, recovery, shares
from meshd.profile.apps import GROUP, recovery_note
from meshd.profile.apps.recovery_note import Drill
from meshd.profile.recovery import Escrowed, Info
from meshd.profile.shares import Group, Scheme

pytestmark = pytest.mark.draft("OfflineEscrowEntry")

CDDL = (Path(__file__).parents[2] / "docs" / "specs" / "recovery.cddl").read_text()
KEY = bytes(range(32))
GROUPS = Scheme((Group(2, 3, "family"), Group(1, 1, "lawyer")), 2)
LABELS = ("mum", "dad", "sister", "lawyer")


def valid(name: str, value: Any) -> None:
    Schema(f"root = {name}\n{CDDL}").validate_cbor(cbor2.dumps(value))


@pytest.mark.parametrize("scheme", [Scheme.simple(3, 5), GROUPS], ids=["simple", "groups"])
def test_the_entry_is_as_the_cddl_says(scheme: Scheme) -> None:
    key, escrow = SigningKey.generate(os.urandom), DecryptKey.generate(os.urandom)
    info = Info(key.udf, 1_800_000_000, scheme, ("a",), ("me@portal.example",), ("portal.example",))
    entry = recovery.entry(KEY, Escrowed(key, (escrow,), info), os.urandom)
    plaintext = jwe.open_direct(entry.body["EncryptedData"], lambda kid: sealing.hkdf(KEY, b"mmm-escrow/1 enc"))
    assert len(plaintext) % 256 == 0
    first, second = plaintext.rstrip(b" ").split(b"\n")
    valid("entry-plaintext-1", payload.decode_private(first))
    valid("entry-plaintext-2", payload.decode_private(second))


def test_the_note_and_the_listed_key_are_as_the_cddl_says() -> None:
    made = shares.split(KEY, GROUPS)
    noted = recovery_note.note(shares.identifier(KEY), "2027-01-15T08:00:00Z", GROUPS, made, LABELS, bytes(32))
    item = recovery_note.item(noted, time=1, made="2027-01-15T08:00:00Z")
    entry = item.private[GROUP.private]["Entries"][0]
    valid("note", entry)
    device = shares.identifier(bytes(32))
    drilled = recovery_note.read(item)
    assert drilled == noted
    entry["Drill"] = {"Date": "2027-01-15T08:00:00Z", "Device": device, "Success": True, "Sources": []}
    valid("note", entry)
    again = recovery_note.read(item)
    assert again is not None
    assert again.drill == Drill("2027-01-15T08:00:00Z", device, True)
    with pytest.raises(ValidationError):
        valid("note", entry | {"Set": "nine"})
    signing, escrow = SigningKey.generate(os.urandom), DecryptKey.generate(os.urandom)
    profile = master.write(
        signing, [signing.verify_key], escrow={noted.entry: bytes(32)}, recovery={noted.entry: escrow.recipient}, now=1
    )
    valid("listed-escrow-key", profile.body["MasterEscrowKeys"][0])


def test_a_master_escrow_key_stays_for_as_long_as_its_entry_is_listed() -> None:
    signing = SigningKey.generate(os.urandom)
    first, second = (DecryptKey.generate(os.urandom).recipient for _ in range(2))
    one, two = shares.identifier(bytes(32)), shares.identifier(KEY)

    def write(escrow: dict[str, bytes], *parents: Any, **more: Any) -> Any:
        return master.write(signing, [signing.verify_key], parents=parents, escrow=escrow, now=1, **more)

    root = write({one: bytes(32)}, recovery={one: first})
    kept = write({one: bytes(32)}, root)
    assert master.escrow_keys(kept) == (first,)
    replaced = write({two: KEY}, root, recovery={two: second})
    assert master.escrow_keys(replaced) == (second,)
    assert master.escrow_keys(write({two: KEY}, kept, replaced)) == (second,)
    assert master.escrow_keys(write({}, replaced)) == ()
