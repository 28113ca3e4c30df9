from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.faulty import Faults, Injected, every_fault
from meshd.crypto import cbor
from meshd.crypto.sealing import LEAST_KDF
from meshd.errors import (
    BadRequest,
    Exists,
    Locked,
    MeshError,
    StoreDamaged,
    StoreError,
    StoreTooNew,
    WrongPassphrase,
)
from meshd.store import keystore as module
from meshd.store.files import POINTS, durable_write
from meshd.store.keystore import Keystore, systemd_credential

Rng = Callable[[int], bytes]
SYNC_KEYS = {"dak": b"d" * 32, "discovery": [b"1" * 32, b"2" * 32]}
SECRETS = {"dsk": b"S" * 32, "dek": b"E" * 32, "cache": b"C" * 32}
PHRASE = "correct horse"


def make(home: Path, rng: Rng, passphrase: str | None = PHRASE, **options: object) -> Keystore:
    return Keystore.create(home / "keystore", SYNC_KEYS, SECRETS, passphrase, rng, kdf=LEAST_KDF, **options)  # type: ignore[arg-type]


def rewrite(path: Path, change: Callable[[dict], None]) -> None:
    """Change a keystore and give it a digest that fits, as an attacker would."""
    members = cbor.decode(path.read_bytes())
    del members[3]
    change(members)
    members[3] = module._digest(members)
    path.write_bytes(cbor.encode(members))


def test_a_keystore_gives_back_what_was_put_in(home: Path, rng: Rng) -> None:
    make(home, rng)
    opened = Keystore.open(home / "keystore")
    assert opened.needs_passphrase
    assert opened.open_tier1() == SYNC_KEYS
    assert opened.unlock(PHRASE) == SECRETS


def test_tier_one_opens_without_a_person_and_tier_two_does_not(home: Path, rng: Rng) -> None:
    make(home, rng)
    opened = Keystore.open(home / "keystore")
    assert opened.open_tier1() == SYNC_KEYS
    assert not opened.unlocked
    with pytest.raises(Locked):
        opened.unlock(None)
    with pytest.raises(Locked):
        opened.update_tier2(SECRETS)


def test_a_wrong_passphrase_is_refused_and_changes_nothing(home: Path, rng: Rng) -> None:
    make(home, rng)
    before = (home / "keystore").read_bytes()
    opened = Keystore.open(home / "keystore")
    for wrong in ("", "correct horsf", "Correct horse"):
        with pytest.raises(WrongPassphrase):
            opened.unlock(wrong)
    assert not opened.unlocked
    assert (home / "keystore").read_bytes() == before
    assert opened.unlock(PHRASE) == SECRETS


def test_no_secret_is_in_the_file_or_in_a_repr(home: Path, rng: Rng) -> None:
    keystore = make(home, rng)
    data = (home / "keystore").read_bytes()
    for secret in (b"d" * 32, b"S" * 32, PHRASE.encode(), (home / "host.key").read_bytes()):
        assert secret not in data
    assert repr(keystore) == f"<Keystore {home / 'keystore'} unlocked>"
    assert repr((home / "host.key").read_bytes()) not in repr(keystore._openers)


def test_files_are_for_their_owner_alone_also_when_they_were_opened_up(home: Path, rng: Rng) -> None:
    make(home, rng)
    for name in ("keystore", "host.key"):
        assert (home / name).stat().st_mode & 0o777 == 0o600
        (home / name).chmod(0o644)
    Keystore.open(home / "keystore")
    for name in ("keystore", "host.key"):
        assert (home / name).stat().st_mode & 0o777 == 0o600


def test_a_device_without_a_passphrase_opens_by_the_host_file(home: Path, rng: Rng) -> None:
    make(home, rng, None)
    opened = Keystore.open(home / "keystore")
    assert not opened.needs_passphrase
    assert opened.unlock(None) == SECRETS


def test_the_keystore_alone_is_worth_nothing_to_a_thief(home: Path, rng: Rng) -> None:
    make(home, rng, None)
    (home / "host.key").write_bytes(b"x" * 32)
    opened = Keystore.open(home / "keystore")
    with pytest.raises(StoreError, match=r"host\.key"):
        opened.open_tier1()
    with pytest.raises(StoreError, match=r"host\.key"):
        opened.unlock(None)
    (home / "host.key").unlink()
    with pytest.raises(StoreError, match=r"host\.key"):
        Keystore.open(home / "keystore")
    assert not (home / "host.key").exists()


def test_a_systemd_credential_opens_tier_two(home: Path, rng: Rng) -> None:
    (home / "meshd").write_bytes(b"k" * 40)
    credential = systemd_credential(str(home))
    make(home, rng, None, credential=credential)
    assert Keystore.open(home / "keystore", credential=credential).unlock(None) == SECRETS
    for other in (None, b"l" * 40):
        with pytest.raises(StoreError, match="credential"):
            Keystore.open(home / "keystore", credential=other).unlock(None)
    assert systemd_credential(None) is None
    assert systemd_credential(str(home / "nowhere")) is None
    (home / "meshd").write_bytes(b"short")
    with pytest.raises(StoreError, match="5 bytes"):
        systemd_credential(str(home))


def test_a_locked_device_can_store_new_discovery_keys(home: Path, rng: Rng) -> None:
    make(home, rng)
    opened = Keystore.open(home / "keystore")
    opened.update_tier1({**SYNC_KEYS, "discovery": [b"3" * 32]})
    again = Keystore.open(home / "keystore")
    assert again.open_tier1()["discovery"] == [b"3" * 32]
    assert again.unlock(PHRASE) == SECRETS


def test_an_unlocked_device_can_store_new_secrets_until_it_is_locked(home: Path, rng: Rng) -> None:
    make(home, rng)
    opened = Keystore.open(home / "keystore")
    opened.unlock(PHRASE)
    opened.update_tier2({**SECRETS, "cache": b"new"})
    assert Keystore.open(home / "keystore").unlock(PHRASE)["cache"] == b"new"
    opened.lock()
    assert not opened.unlocked
    with pytest.raises(Locked):
        opened.update_tier2(SECRETS)


def test_after_a_change_only_the_new_passphrase_opens(home: Path, rng: Rng) -> None:
    make(home, rng)
    opened = Keystore.open(home / "keystore", rng)
    with pytest.raises(WrongPassphrase):
        opened.change_passphrase("guess", "new", kdf=LEAST_KDF)
    opened.change_passphrase(PHRASE, "new", kdf=LEAST_KDF)
    assert not opened.unlocked
    again = Keystore.open(home / "keystore")
    with pytest.raises(WrongPassphrase):
        again.unlock(PHRASE)
    assert again.unlock("new") == SECRETS
    assert again.open_tier1() == SYNC_KEYS


def test_a_passphrase_can_be_given_up_and_taken_on(home: Path, rng: Rng) -> None:
    keystore = make(home, rng)
    keystore.change_passphrase(PHRASE, None, kdf=LEAST_KDF)
    assert keystore.unlocked
    assert Keystore.open(home / "keystore").unlock(None) == SECRETS
    keystore.change_passphrase(None, "again", kdf=LEAST_KDF)
    assert Keystore.open(home / "keystore").needs_passphrase
    keystore.update_tier2(SECRETS)
    assert Keystore.open(home / "keystore").unlock("again") == SECRETS


def test_the_key_that_an_old_passphrase_opens_does_not_open_what_is_written_later(home: Path, rng: Rng) -> None:
    keystore = make(home, rng)
    before = bytes(keystore._tier2_key or b"")
    keystore.change_passphrase(PHRASE, "new", kdf=LEAST_KDF)
    assert bytes(keystore._tier2_key or b"") != before


def test_an_empty_passphrase_is_refused(home: Path, rng: Rng) -> None:
    with pytest.raises(BadRequest):
        make(home, rng, "")
    assert not (home / "keystore").exists()


def test_a_keystore_is_never_made_over_another(home: Path, rng: Rng) -> None:
    make(home, rng)
    before = (home / "keystore").read_bytes()
    with pytest.raises(Exists):
        make(home, rng)
    assert (home / "keystore").read_bytes() == before


def test_a_missing_keystore_is_an_error(home: Path) -> None:
    with pytest.raises(StoreError, match="keystore"):
        Keystore.open(home / "keystore")
    assert list(home.iterdir()) == []


def test_every_changed_byte_is_reported_as_damage_and_the_file_is_left_alone(home: Path, rng: Rng) -> None:
    make(home, rng)
    path = home / "keystore"
    whole = path.read_bytes()
    for offset in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[offset] ^= 0x41
        path.write_bytes(damaged)
        with pytest.raises((StoreDamaged, StoreTooNew)):
            Keystore.open(path)
        assert path.read_bytes() == damaged


def test_every_truncation_is_reported_as_damage(home: Path, rng: Rng) -> None:
    make(home, rng)
    path = home / "keystore"
    whole = path.read_bytes()
    for length in range(0, len(whole), 11):
        path.write_bytes(whole[:length])
        with pytest.raises(StoreDamaged, match="keystore"):
            Keystore.open(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(StoreDamaged):
        Keystore.open(path)


def test_an_attacker_who_mends_the_digest_gains_nothing(home: Path, rng: Rng) -> None:
    make(home, rng, None)
    path = home / "keystore"
    whole = path.read_bytes()
    body = len(whole) - 35
    refused = 0
    for offset in range(0, body, 7):
        damaged = bytearray(whole)
        damaged[offset] ^= 0x41
        try:
            members = cbor.decode(bytes(damaged))
            digest = members.pop(3)
            assert digest
            members[3] = module._digest(members)
            path.write_bytes(cbor.encode(members))
        except (MeshError, KeyError, AttributeError, TypeError):
            continue
        with pytest.raises(MeshError):
            opened = Keystore.open(path)
            opened.open_tier1()
            opened.unlock(None)
        refused += 1
    assert refused > 20


def test_sections_cannot_be_swapped(home: Path, rng: Rng) -> None:
    make(home, rng, None)

    def swap(members: dict) -> None:
        members[1], members[2] = members[2], members[1]

    rewrite(home / "keystore", swap)
    with pytest.raises(StoreError):
        Keystore.open(home / "keystore").open_tier1()


@pytest.mark.parametrize(
    ("name", "value"),
    [("memory_kib", 1024), ("time", 1), ("lanes", 0), ("kind", "md5"), ("memory_kib", 1 << 40), ("salt", b"")],
)
def test_passphrase_costs_out_of_bounds_are_refused(home: Path, rng: Rng, name: str, value: object) -> None:
    make(home, rng)

    def weaken(members: dict) -> None:
        members[2][0][0][1][name] = value

    rewrite(home / "keystore", weaken)
    with pytest.raises(StoreDamaged):
        Keystore.open(home / "keystore")


def test_costs_within_bounds_but_other_than_written_open_nothing(home: Path, rng: Rng) -> None:
    make(home, rng)

    def change(members: dict) -> None:
        members[2][0][0][1]["time"] += 1

    rewrite(home / "keystore", change)
    with pytest.raises(WrongPassphrase):
        Keystore.open(home / "keystore").unlock(PHRASE)


def test_slots_of_a_later_release_are_carried(home: Path, rng: Rng) -> None:
    make(home, rng)
    tpm = {0: 3, 1: {"pcr": 7}, 2: b"sealed by a chip"}
    rewrite(home / "keystore", lambda members: members[2][0].append(tpm))
    opened = Keystore.open(home / "keystore")
    assert opened.needs_passphrase
    opened.unlock(PHRASE)
    opened.update_tier2(SECRETS)
    opened.update_tier1(SYNC_KEYS)
    assert tpm in cbor.decode((home / "keystore").read_bytes())[2][0]


def test_a_newer_keystore_is_refused_by_both_numbers(home: Path, rng: Rng) -> None:
    make(home, rng)
    rewrite(home / "keystore", lambda members: members.update({0: 2, 9: "new"}))
    with pytest.raises(StoreTooNew, match=r"format 2.*format 1"):
        Keystore.open(home / "keystore")


@pytest.mark.parametrize("once", [False, True])
def test_a_crash_at_any_step_leaves_the_old_keystore_or_the_new_one(home: Path, rng: Rng, once: bool) -> None:
    path = home / "keystore"
    make(home, rng)
    original = path.read_bytes()
    acknowledged: list[bool] = []

    def work(faults: Faults) -> None:
        path.write_bytes(original)
        acknowledged.clear()
        keystore = Keystore.open(path, rng, fault=faults)
        keystore.unlock(PHRASE)
        for change in (
            lambda: keystore.update_tier1({**SYNC_KEYS, "step": 1}),
            lambda: keystore.update_tier2({**SECRETS, "step": 1}),
            lambda: keystore.change_passphrase(PHRASE, "new", kdf=LEAST_KDF),
        ):
            try:
                change()
            except Injected:
                break
            acknowledged.append(True)

    runs = 0
    for faults in every_fault(work, once=once):
        runs += 1
        opened = Keystore.open(path, rng)
        done = len(acknowledged)
        persisted = done + (faults.struck == "after-rename")
        assert opened.open_tier1().get("step") == (1 if persisted >= 1 else None)
        assert opened.unlock("new" if persisted >= 3 else PHRASE).get("step") == (1 if persisted >= 2 else None)
        opened.update_tier1(SYNC_KEYS)  # what the crash left beside the file is in nobody's way
    assert runs == 1 + 3 * len(POINTS)


def test_a_creation_that_a_crash_ended_can_be_repeated(home: Path, rng: Rng) -> None:
    def work(faults: Faults) -> None:
        for leftover in home.iterdir():
            leftover.unlink()
        try:
            make(home, rng, fault=faults)
        except Injected:
            pass

    for faults in every_fault(work):
        if faults.struck not in (None, "after-rename"):
            make(home, rng)
        assert Keystore.open(home / "keystore").unlock(PHRASE) == SECRETS


def test_a_file_is_whole_or_absent(home: Path) -> None:
    durable_write(home / "file", b"one")
    with pytest.raises(StoreError, match="nowhere"):
        durable_write(home / "nowhere" / "file", b"two")
    durable_write(home / "file", b"two")
    assert (home / "file").read_bytes() == b"two"
    assert [entry.name for entry in home.iterdir()] == ["file"]
