"""Containers and items: what is sealed opens for readers alone, lengths say little, unknown members stay."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.profile_world import NOW, seeded, world
from meshd.crypto import base64url, jwe, udf
from meshd.crypto.keys import DecryptKey
from meshd.errors import DecryptError, FormatError
from meshd.profile import author, clock, vault
from meshd.profile.claim import Kind
from meshd.profile.links import Links
from meshd.profile.vault import Container, EpochKey, Item
from meshd.profile.version import Version

pytestmark = pytest.mark.draft("ApplicationProfile")

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def ring(key: EpochKey | None = None) -> Any:
    key = key or world().write_key
    return vault.key_ring({key.kid: key.key})


def item_of(plaintext: bytes) -> Version:
    """An item with any plaintext at all, from somebody who holds the write key."""
    here = world()
    sealed = jwe.seal_direct(here.write_key.key, here.write_key.kid, plaintext, seeded("any"))
    return here.sign_item({"EncryptedData": sealed}, Links(g=1, n=4, a=(here.personal.vid,)))


def container_of(plaintext: bytes, kids: list[str]) -> Version:
    here = world()
    sealed = jwe.seal_to(plaintext, [here.laptop.dek.recipient], kids, seeded("any"))
    links = Links(g=1, n=4, a=(here.personal.vid,))
    body = {"EncryptedData": sealed}
    return author.sign(
        here.laptop.dsk, Kind.CONTAINER, here.application.identifier, "PasswordProfile", body, links, NOW
    )


def sealed_container(container: Container, *readers: DecryptKey) -> Version:
    here = world()
    recipients = [reader.recipient for reader in readers]
    body = vault.seal_container("PasswordProfilePrivate", container, recipients, seeded("container"))
    links = Links(g=1, n=4, a=(here.personal.vid,))
    return author.sign(
        here.laptop.dsk, Kind.CONTAINER, here.application.identifier, "PasswordProfile", body, links, NOW
    )


@given(st.dictionaries(TEXT, TEXT, max_size=4), st.dictionaries(TEXT.filter(bool), TEXT, max_size=4))
def test_an_item_opens_as_it_was_sealed(entry: dict[str, str], fields: dict[str, str]) -> None:
    here = world()
    item = Item({"NoteProfilePrivate": {"Entries": [entry]}}, vault.new_meta(5, "now", Fields=fields, Future=[1, None]))
    body = vault.seal_item(item, here.write_key, seeded("item"))
    found = here.sign_item(body, Links(g=1, n=4, a=(here.personal.vid,)))
    assert vault.open_item(found, ring()) == item
    assert vault.item_key_id(found) == here.write_key.kid


@pytest.mark.parametrize("size", [*range(0, 700, 37), 3900, 4000, 4096, 4097, 5000, 65_000, 300_000, 1_000_000])
def test_lengths_come_in_steps(size: int) -> None:
    here = world()
    item = Item({"NoteProfilePrivate": {"Entries": []}}, vault.new_meta(1, "", Note="x" * size))
    sealed = vault.seal_item(item, here.write_key, seeded("size"))["EncryptedData"]
    length = len(base64url.decode(sealed["ciphertext"]))
    assert length >= size
    if length <= 4096:
        assert length % 256 == 0
        assert length - size < 256 + 100
    else:  # Padmé: the number has few significant bits, and at most 12 % are added
        significant = length.bit_length() - (length & -length).bit_length() + 1
        assert significant <= (length.bit_length() - 1).bit_length() + 1
        assert length <= (size + 100) * 1.12


def test_two_items_of_almost_one_size_have_one_length() -> None:
    here = world()
    lengths = {
        len(
            vault.seal_item(Item({}, vault.new_meta(1, "", Note="x" * size)), here.write_key, seeded("s"))[
                "EncryptedData"
            ]["ciphertext"]
        )
        for size in range(10, 150, 10)
    }
    assert len(lengths) == 1


def test_an_item_above_one_mebibyte_is_not_sealed() -> None:
    item = Item({}, vault.new_meta(1, "", Note="x" * vault.MAX_PLAINTEXT))
    with pytest.raises(FormatError, match="at most"):
        vault.seal_item(item, world().write_key, seeded("s"))


@pytest.mark.parametrize("value", ["\ud800", 1.5, float("nan"), 2**60, {1: 2}, b"x"], ids=repr)
def test_what_could_not_be_read_again_is_not_sealed_and_not_shown(value: Any) -> None:
    item = Item({"P": {"Entries": [{"Password": "hunter2"}]}}, vault.new_meta(1, "", X=value))
    with pytest.raises(FormatError) as caught:
        vault.seal_item(item, world().write_key, seeded("s"))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "plaintext",
    [
        b"",
        b"\n",
        b"{}",
        b"{}\n",
        b"{}\n   ",
        b"{}\n{}",
        b'{"PasswordProfilePrivate":{"Entries":[]}}',
        b"[]\n" + b'{"MeshdItem":{"V":1}}',
        b"{}\n[]",
        b'{}\n{"MeshdItem":[]}',
        b'{}\n{"MeshdItem":{}}',
        b'{}\n{"MeshdItem":{"V":2}}',
        b'{}\n{"MeshdItem":{"V":1,"V":1}}',
        b'{}\n{"MeshdItem":{"V":1}} x',
        b'{}\n{"MeshdItem":{"V":1,"hunter2":1.5}}',
        b"\xff\n{}",
        b"{" * 100_000,
        b"[" * 100_000 + b"\n{}",
        b'{}\n{"MeshdItem":' + b'{"a":' * 5000,
        b'{"a":"\\ud800"}\n{"MeshdItem":{"V":1}}',
    ],
    ids=lambda value: value[:40],
)
def test_a_plaintext_of_another_form_raises_only_a_format_error(plaintext: bytes) -> None:
    with pytest.raises(FormatError) as caught:
        vault.open_item(item_of(plaintext), ring())
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_an_item_under_a_key_that_is_not_held_does_not_open() -> None:
    other = EpochKey.generate(seeded("other"), NOW)
    with pytest.raises(DecryptError):
        vault.open_item(world().item, ring(other))
    with pytest.raises(DecryptError):
        vault.open_item(world().item, vault.key_ring({world().write_key.kid: other.key}))


def test_what_an_item_says_of_itself_is_read_whatever_types_it_has() -> None:
    item = Item({}, {"V": 1, "T": 5, "Made": [], "Fields": "x", "Deleted": "yes"})
    assert (item.made, item.fields, item.deleted) == ("", {}, False)
    with pytest.raises(FormatError):
        item.time  # noqa: B018


def test_nothing_shows_a_secret() -> None:
    here = world()
    shown = repr(vault.open_item(here.item, ring())) + repr(here.write_key)
    shown += repr(vault.open_container(here.container, here.desktop.dek))
    assert "s3cret" not in shown
    assert base64url.encode(here.write_key.key) not in shown
    assert repr(here.write_key.key) not in shown


# --- containers ---


def test_a_container_opens_for_its_readers_alone() -> None:
    here = world()
    for keys in (here.laptop, here.desktop):
        found = vault.open_container(here.container, keys.dek)
        assert found.keys == (here.write_key,)
        assert not found.deleted
    with pytest.raises(DecryptError):
        vault.open_container(here.container, DecryptKey.generate(seeded("stranger")))
    assert vault.container_kids(here.container) == {here.write_key.kid}
    assert vault.container_recipients(here.container) == {here.laptop.dek.udf, here.desktop.dek.udf}


def test_what_a_newer_release_wrote_in_a_container_stays() -> None:
    here = world()
    key = EpochKey(here.write_key.kid, here.write_key.key, here.write_key.made, {"Retired": True})
    first = sealed_container(
        Container((key,), "work", {"PasswordProfilePrivate": {"NeverAsk": ["x"]}}, {"Future": [1]}), here.laptop.dek
    )
    found = vault.open_container(first, here.laptop.dek)
    assert found.keys[0].unknown == {"Retired": True}
    again = vault.open_container(sealed_container(found, here.laptop.dek), here.laptop.dek)
    assert again.keys[0].unknown == {"Retired": True}
    assert again.epochs["Future"] == [1]
    assert again.private == {"PasswordProfilePrivate": {"NeverAsk": ["x"]}}
    assert again.name == "work"


def test_keys_are_written_by_age_and_a_deleted_vault_says_so() -> None:
    here = world()
    old, new = (EpochKey.generate(seeded(name), when) for name, when in (("a", NOW - 10), ("b", NOW)))
    found = vault.open_container(
        sealed_container(Container((new, old), "", {}, {}, deleted=True), here.laptop.dek), here.laptop.dek
    )
    assert found.keys == (old, new)
    assert found.deleted


def test_a_vault_without_a_key_yet_can_be_written() -> None:
    here = world()
    found = sealed_container(Container((), "", {}, {}), here.laptop.dek)
    assert vault.open_container(found, here.laptop.dek).keys == ()
    assert vault.container_kids(found) == frozenset()


KEY = EpochKey.generate(seeded("key"), NOW)
GOOD = {"Kid": KEY.kid, "K": base64url.encode(KEY.key), "Made": KEY.made}


@pytest.mark.parametrize(
    "keys",
    [
        None,
        {},
        [],
        [5],
        [{}],
        [GOOD, GOOD],
        [{**GOOD, "K": base64url.encode(bytes(32))}],
        [{**GOOD, "K": base64url.encode(bytes(16))}],
        [{**GOOD, "K": 5}],
        [{**GOOD, "Kid": KEY.kid.lower()}],
        [{**GOOD, "Kid": udf.make(udf.MMM_EPOCH, KEY.key, 150)}],
        [{**GOOD, "Made": 5}],
        [{**GOOD, "K": GOOD["K"] + "="}],
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_container_whose_keys_are_not_the_ones_that_it_names_is_refused(keys: Any) -> None:
    epochs = {"V": 1} if keys is None else {"V": 1, "Keys": keys}
    plaintext = b'{"PasswordProfilePrivate":{}}\n' + json.dumps({"MeshdEpochs": epochs}).encode()
    with pytest.raises(FormatError):
        vault.open_container(container_of(plaintext, [KEY.kid]), world().laptop.dek)


# --- identifiers, clock, winner ---


def test_a_new_item_has_a_name_of_its_own_in_its_container() -> None:
    container = world().application.identifier
    names = {vault.new_item_identifier(container, seeded(str(number))) for number in range(50)}
    assert len(names) == 50
    assert all(name.startswith(container + "/") and len(name) == len(container) + 27 for name in names)
    assert vault.new_item_identifier("M", lambda length: bytes(length)) == "M/" + "a" * 26
    assert vault.new_item_identifier("M", lambda length: b"\xff" * length) == "M/" + "7" * 25 + "4"


@given(st.integers(-(2**70), 2**70), st.lists(st.integers(0, 2**64 - 1), max_size=4))
def test_an_edit_is_later_than_what_it_replaces(now: int, parents: list[int]) -> None:
    time = clock.tick(now, parents)
    assert clock.read(clock.write(time)) == time
    for parent in parents:
        assert time > parent or time == parent == 2**64 - 1


@pytest.mark.parametrize("text", ["", "0", "0" * 15, "0" * 17, "A" * 16, "g" * 16, "٠" * 16, "0" * 16 + "\n", 5, None])
def test_other_times_are_refused(text: Any) -> None:
    with pytest.raises(FormatError):
        clock.read(text)


def test_the_winner_is_live_then_late_then_of_the_larger_vid() -> None:
    order = [(True, 9, b"z"), (False, 1, b"z"), (False, 2, b"a"), (False, 2, b"b")]
    assert sorted(order, key=lambda head: vault.winner_key(*head)) == order
