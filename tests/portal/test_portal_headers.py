"""The headers beside a request: what they say, and what is as if it were not there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.errors import FormatError
from meshd.portal import headers
from meshd.portal.names import AccountName

VIDS = frozenset({bytes(32), bytes([1]) * 32})


def test_extensions_are_tokens_and_their_absence_means_2016():
    assert headers.read_extensions(None) is None
    assert headers.read_extensions("") == frozenset()
    assert headers.read_extensions("log, auth,cas , BAD, ü") == {"log", "auth", "cas"}


def test_heads_are_read_as_they_are_written():
    assert headers.read_if_head(None) is None
    assert headers.read_if_head("") == frozenset()
    assert headers.read_if_head(headers.write_if_head(VIDS)) == VIDS


@pytest.mark.parametrize("text", ["AA", "*", "A" * 43 + "=", ",".join(["A" * 43] * 100)])
def test_heads_that_are_none_are_refused(text: str):
    with pytest.raises(FormatError):
        headers.read_if_head(text)


def test_an_account_is_named_in_its_one_spelling():
    assert headers.read_account(None) is None
    assert headers.read_account(" Alice@Example.NET ") == AccountName("alice", "example.net")
    with pytest.raises(FormatError):
        headers.read_account("alice")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(None, 0), ("", 0), ("wait=30", 30), ("respond-async, wait=9999", 55), ("wait=x", 0), ("wait=-1", 0)],
)
def test_a_client_may_wait_for_news(text: str | None, seconds: int):
    assert headers.read_wait(text) == seconds


def test_languages_come_best_first():
    assert headers.read_languages("en;q=0.5, de-AT, fr;q=0.9, xx;q=0, ??") == ("de-AT", "fr", "en")
    assert headers.read_languages(None) == ()


@given(st.text(max_size=200))
def test_any_header_is_read_or_refused(text: str):
    headers.read_extensions(text)
    headers.read_wait(text)
    headers.read_languages(text)
    for read in (headers.read_if_head, headers.read_account):
        try:
            read(text)
        except FormatError:
            pass
