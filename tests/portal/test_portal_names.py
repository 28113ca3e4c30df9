"""Account names have one spelling, and reasons are said in the asker's language."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.errors import FormatError
from meshd.portal import names, reasons
from meshd.portal.reasons import Reason


@pytest.mark.parametrize(
    ("written", "spelled"),
    [
        ("alice@example.net", "alice@example.net"),
        ("Alice@Example.NET", "alice@example.net"),
        ("alice@example.net.", "alice@example.net"),
        ("alice@localhost:8080", "alice@localhost"),
        ("Zoe\u0308@example.net", "zo\u00eb@example.net"),
        ("stra\u00dfe@b\u00fccher.example", "strasse@xn--bcher-kva.example"),
        ("alice", "alice@portal.example"),
        ("\u30a2\u30ea\u30b9@example.net", "\u30a2\u30ea\u30b9@example.net"),
    ],
)
def test_a_name_has_one_spelling(written: str, spelled: str):
    assert str(names.normalise(written, "portal.example")) == spelled


@pytest.mark.parametrize(
    "account",
    [
        "@example.net",
        "a" * 65 + "@example.net",
        "a b@example.net",
        "a\u00a0b@example.net",
        "a\tb@example.net",
        "a\u200bb@example.net",
        "a\u202eb@example.net",
        "\u0301a@example.net",
        "a@b@example.net",
        *(f"a{one}b@example.net" for one in names.INVALID_CHARACTERS),
        "alice@",
        "alice@-example.net",
        "alice@exa mple.net",
        "alice@" + "a" * 64 + ".net",
        "alice@\u2024\u2024",
        "\ud800@example.net",
        "a" * 400,
    ],
)
def test_what_is_no_name_is_refused(account: str):
    with pytest.raises(FormatError):
        names.normalise(account)


def test_a_bare_name_needs_a_portal():
    assert names.split("alice", "example.net") == ("alice", "example.net")
    with pytest.raises(FormatError):
        names.split("alice")


@given(st.text(max_size=80))
def test_normalising_is_done_once_or_not_at_all(text: str):
    try:
        once = names.normalise(text, "example.net")
    except FormatError:
        return
    assert names.normalise(str(once)) == once


@pytest.mark.parametrize(
    ("wishes", "language"),
    [(["en-uk"], "en"), (["de-AT", "fr"], "de"), (["xx", "fr_CH"], "fr"), (["xx"], "en"), ([], "en"), (None, "en")],
)
def test_the_first_language_that_is_here_decides(wishes: list[str] | None, language: str):
    assert reasons.choose(wishes) == language


def test_only_the_first_wishes_are_read():
    assert reasons.choose(["xx"] * 50 + ["de"]) == "en"


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_said_in_every_language_and_can_be_sent_to_2016(reason: Reason):
    said = {reasons.text(reason, [language]) for language in reasons.LANGUAGES}
    assert len(said) == 3
    assert all(text and text.isprintable() for text in said)
