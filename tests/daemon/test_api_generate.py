"""Generated passwords and phrases: what they hold, and that nothing is likelier than anything else."""

from __future__ import annotations

import secrets
import string
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.daemon import generate


@given(length=st.integers(8, 256), symbols=st.booleans())
def test_a_password_has_the_length_and_the_kinds_that_were_asked_for(length: int, symbols: bool) -> None:
    made = generate.password(secrets.token_bytes, length=length, symbols=symbols)
    assert len(made) == length
    kinds = [string.ascii_lowercase, string.ascii_uppercase, string.digits] + [generate.SYMBOLS] * symbols
    assert all(set(made) & set(kind) for kind in kinds)
    assert set(made) <= set("".join(kinds))


def test_the_default_is_twenty_characters_with_symbols() -> None:
    made = generate.from_recipe({}, secrets.token_bytes)
    assert len(made) == 20
    assert set(made) & set(generate.SYMBOLS)


def test_words_make_a_phrase_of_the_slip39_list() -> None:
    from shamir_mnemonic.wordlist import WORDLIST

    made = generate.from_recipe({"words": 5, "length": 9}, secrets.token_bytes).split("-")
    assert len(made) == 5
    assert set(made) <= set(WORDLIST)
    assert len(generate.phrase(secrets.token_bytes).split(" ")) == 6


def test_numbers_are_drawn_without_preferring_small_ones() -> None:
    counts = Counter(generate.below(75, secrets.token_bytes) for _ in range(75 * 200))
    assert set(counts) == set(range(75))
    # 200 expected each, deviation about 14; a remainder of bytes would put 0…30 at 234 and the others at 176.
    assert abs(sum(counts[n] for n in range(31)) - 31 * 200) < 6 * (31 * 200) ** 0.5


def test_what_would_prefer_small_numbers_is_drawn_again() -> None:
    drawn = iter([b"\xff", b"\xfe", b"\x07"])
    assert generate.below(10, lambda size: next(drawn)) == 7


def test_a_password_without_some_kind_is_drawn_again_whole() -> None:
    first = [bytes([0])] * 8  # "aaaaaaaa"
    second = [bytes([n]) for n in (0, 26, 52, 1, 27, 53, 2, 28)]
    drawn = iter(first + second)
    assert generate.password(lambda size: next(drawn), length=8, symbols=False) == "aA0bB1cC"


def test_a_length_without_room_for_every_kind_is_refused() -> None:
    with pytest.raises(ValueError):
        generate.password(secrets.token_bytes, length=3)
