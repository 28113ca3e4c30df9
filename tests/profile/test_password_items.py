"""Logins and device names as items: made, edited, deleted, shown; and whatever types another device put in."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.profile_world import seeded, world
from meshd.errors import FormatError
from meshd.profile import apps, vault
from meshd.profile.apps import PASSWORD, group, password
from meshd.profile.vault import Item

pytestmark = pytest.mark.draft("PasswordProfile")

MADE = "2023-11-14T22:13:20Z"
UDF = world().laptop.udf


def login(**changes: Any) -> Item:
    stated: dict[str, Any] = {
        "title": "Example",
        "note": "line 1\nline 2",
        "totp": "otpauth://totp/x",
        "url": "https://example.com/login",
        "tags": ["work"],
    }
    return password.new(["https://Example.com/login"], "ana", "s3cret", time=1, made=MADE, **(stated | changes))


def test_a_login_is_the_entry_of_2016_and_what_that_has_no_member_for() -> None:
    item = login(source="chrome")
    assert item.private == {
        "PasswordProfilePrivate": {"Entries": [{"Sites": ["example.com"], "Username": "ana", "Password": "s3cret"}]}
    }
    assert item.meta == {
        "V": 1,
        "T": "0000000000000001",
        "Made": MADE,
        "Fields": {"Title": "Example", "Url": "https://example.com/login"},
        "Note": "line 1\nline 2",
        "Totp": "otpauth://totp/x",
        "Tags": ["work"],
        "Src": "chrome",
    }
    assert password.view(item) == {
        "title": "Example",
        "sites": ["example.com"],
        "username": "ana",
        "password": "s3cret",
        "url": "https://example.com/login",
        "note": "line 1\nline 2",
        "totp": "otpauth://totp/x",
        "tags": ["work"],
    }
    assert password.row(item) == password.Row("Example", ("example.com",), "ana")


def test_what_is_not_given_is_not_written() -> None:
    item = password.new(["a.com"], "", "", time=1, made=MADE)
    assert item.meta == {"V": 1, "T": "0000000000000001", "Made": MADE, "Fields": {}}


def test_an_edit_changes_what_it_names_and_keeps_the_rest() -> None:
    old = login()
    old.private["PasswordProfilePrivate"]["NeverAsk"] = ["x"]
    old.private["PasswordProfilePrivate"]["Entries"][0]["Future"] = 1
    old.meta["Future"] = {"a": [1]}
    old.meta["Fields"]["Colour"] = "red"
    before = copy.deepcopy(old)
    new = password.edit(old, {"password": "s4cret", "note": None, "title": "T", "tags": ("b",)}, time=9, made="later")
    assert old == before
    assert password.view(new) == {
        **password.view(old),
        "password": "s4cret",
        "note": "",
        "title": "T",
        "tags": ["b"],
    }
    assert new.private["PasswordProfilePrivate"]["NeverAsk"] == ["x"]
    assert new.private["PasswordProfilePrivate"]["Entries"][0]["Future"] == 1
    assert new.meta["Future"] == {"a": [1]}
    assert new.fields["Colour"] == "red"
    assert (new.time, new.made) == (9, MADE)
    assert "Note" not in new.meta


def test_a_deleted_login_keeps_nothing_and_can_be_made_again() -> None:
    gone = password.deleted(login(), time=5, made=MADE)
    assert gone.deleted
    assert "s3cret" not in str(gone.private) + str(gone.meta)
    assert password.row(gone) == password.Row("", (), "")
    back = password.edit(gone, {"sites": ["a.com"], "username": "u", "password": "p"}, time=6, made=MADE)
    assert not back.deleted
    assert password.view(back)["password"] == "p"


@pytest.mark.parametrize(
    "changes",
    [
        {"username": "u" * 1025},
        {"username": 5},
        {"username": ["a"]},
        {"username": "a\nb"},
        {"username": "\x1b[2J"},
        {"username": "\x9b"},
        {"password": "p" * 65537},
        {"password": "\ud800"},
        {"password": b"p"},
        {"title": "t" * 1025},
        {"title": "a\tb"},
        {"note": "n" * 262_145},
        {"note": "\udfff"},
        {"totp": "t" * 2049},
        {"url": "u" * 8193},
        {"url": "a\nb"},
        {"tags": "abc"},
        {"tags": ["t"] * 65},
        {"tags": ["t" * 257]},
        {"tags": [5]},
        {"tags": {"a": 1}},
        {"sites": []},
        {"sites": None},
        {"sites": "example.com"},
        {"sites": ["a.com"] * 65},
        {"sites": [5]},
        {"sites": [None]},
        {"sites": ["a b"]},
        {"sites": [""]},
    ],
    ids=lambda changes: str(changes)[:40],
)
def test_a_member_of_another_type_or_size_is_refused_and_not_repeated(changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError) as caught:
        password.edit(login(), changes, time=2, made=MADE)
    [value] = changes.values()
    assert not isinstance(value, str) or value not in str(caught.value)
    stated: dict[str, Any] = {"sites": ["a.com"], "username": "u", "password": "p", **changes}
    with pytest.raises(FormatError):
        password.new(time=1, made=MADE, **stated)


def test_texts_of_the_largest_sizes_are_sealed() -> None:
    """Each of them, with characters that take most room; all together are too much for one item, and say so."""
    for name in ("username", "title", "note", "totp", "url"):
        size = password.MAX_TEXT[name]
        item = password.edit(login(), {name: "\U0001f600" * (size if size < 200_000 else 250_000)}, time=2, made=MADE)
        assert vault.seal_item(item, world().write_key, seeded(name))
    with pytest.raises(FormatError, match="at most"):
        vault.seal_item(login(note="\x01" * 262_144), world().write_key, seeded("controls"))


@pytest.mark.parametrize(
    "private",
    [
        {},
        {"PasswordProfilePrivate": None},
        {"PasswordProfilePrivate": []},
        {"PasswordProfilePrivate": {}},
        {"PasswordProfilePrivate": {"Entries": None}},
        {"PasswordProfilePrivate": {"Entries": {}}},
        {"PasswordProfilePrivate": {"Entries": []}},
        {"PasswordProfilePrivate": {"Entries": [5]}},
        {"PasswordProfilePrivate": {"Entries": [{"Sites": 5, "Username": [], "Password": None}]}},
        {"PasswordProfilePrivate": {"Entries": [{"Sites": [5, None, "a.com"]}]}},
        {"PasswordProfilePrivate": {"Entries": 5}},
        {"PasswordProfilePrivate": {"Entries": "text"}},
    ],
    ids=str,
)
def test_whatever_another_device_put_into_an_item_is_shown_or_left_out(private: dict[str, Any]) -> None:
    item = Item(private, {"V": 1, "Fields": {"Title": 5, "Url": []}, "Note": 5, "Tags": "x", "Totp": {}})
    view = password.view(item)
    assert all(isinstance(value, (str, list)) for value in view.values())
    assert password.row(item).title == ""
    try:
        edited = password.edit(item, {"password": "p"}, time=1, made=MADE)
    except FormatError:
        return
    assert password.view(edited)["password"] == "p"
    assert password.deleted(item, time=2, made=MADE).deleted


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["Entries", "Sites", "Device"]), inner),
    max_leaves=6,
)


@given(anything, anything)
def test_any_plaintext_is_shown(body: Any, meta: Any) -> None:
    item = Item({PASSWORD.private: body, apps.GROUP.private: body}, {"Fields": meta, "Tags": meta, "Note": meta})
    password.view(item)
    password.row(item)
    group.read(item)


# --- device names ---


def test_a_device_name_is_read_back() -> None:
    item = group.name_item(UDF, "Ana's laptop", time=1, made=MADE, address="192.0.2.7:4711")
    assert group.read(item) == (UDF, "Ana's laptop", "192.0.2.7:4711")
    assert group.read(group.name_item(UDF, "x", time=1, made=MADE)) == (UDF, "x", "")
    assert vault.seal_item(item, world().write_key, seeded("name"))


def test_a_new_name_keeps_the_address_and_what_is_not_known() -> None:
    old = group.name_item(UDF, "old", time=1, made=MADE, address="host.example:1")
    old.private["GroupProfilePrivate"]["Entries"][0]["Icon"] = "laptop"
    old.meta["Future"] = 1
    new = group.name_item(UDF, "new", time=2, made=MADE, previous=old)
    assert group.read(new) == (UDF, "new", "host.example:1")
    assert new.private["GroupProfilePrivate"]["Entries"][0]["Icon"] == "laptop"
    assert new.meta["Future"] == 1
    assert new.time == 2
    gone = group.name_item(UDF, "new", time=3, made=MADE, address="", previous=new)
    assert group.read(gone) == (UDF, "new", "")
    assert group.read(old) == (UDF, "old", "host.example:1")


@pytest.mark.parametrize(
    "name",
    ["", " ", "a ", " a", "a" * 65, "a\nb", "\x1b[2J", "a\u202eb", "\u200b", "a\u2028b", "\ud800", UDF, UDF.lower()],
)
def test_a_name_that_could_mislead_is_refused(name: str) -> None:
    with pytest.raises(FormatError):
        group.check_name(name)
    entry = {"Device": UDF, "Name": name}
    assert group.read(Item({"GroupProfilePrivate": {"Entries": [entry]}}, {"V": 1})) is None


@pytest.mark.parametrize(
    "address", ["host", "host:", ":1", "host:x", "host:123456", "a b:1", "h\x1b:1", "x" * 300 + ":1"]
)
def test_an_address_is_host_and_port(address: str) -> None:
    with pytest.raises(FormatError):
        group.name_item(UDF, "x", time=1, made=MADE, address=address)
    entry = {"Device": UDF, "Name": "x", "Address": address}
    assert group.read(Item({"GroupProfilePrivate": {"Entries": [entry]}}, {"V": 1})) == (UDF, "x", "")


# --- kinds of vaults ---


def test_kinds_are_known_by_tag_and_by_name_and_unknown_ones_get_a_name() -> None:
    for kind in apps.KINDS:
        assert apps.of_tag(kind.tag) == apps.BY_NAME[kind.name] == kind
    assert apps.of_tag("RecipeProfile") == apps.Kind("recipe", "RecipeProfile")
    assert apps.of_tag("RecipeProfile").private == "RecipeProfilePrivate"
    assert apps.of_tag("Profile").name == "unknown"
