"""Passwords and phrases from random bytes: every acceptable one is equally likely.

Pure: `rng` is like secrets.token_bytes. A number below n is drawn by rejection, never by a remainder that prefers small
ones; a password that lacks a kind of character which sites ask for is drawn anew as a whole, so its places stay free.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

from meshd.crypto.keys import Rng

LENGTH = 20
WORDS = 6  # of 1024: 60 bits, behind a passphrase function that costs a second
# What no shell, CSV or HTML gives a meaning of its own to in the middle of a word, as far as there is such a thing.
SYMBOLS = "!#%*+-.:=?@_~"
_KINDS = (string.ascii_lowercase, string.ascii_uppercase, string.digits)


def below(limit: int, rng: Rng) -> int:
    """A number in 0 ≤ n < limit, each equally likely."""
    size = (limit.bit_length() + 7) // 8
    fair = (256**size // limit) * limit
    while True:
        drawn = int.from_bytes(rng(size), "big")
        if drawn < fair:
            return drawn % limit


def password(rng: Rng, *, length: int = LENGTH, symbols: bool = True) -> str:
    """`length` characters with lower and upper case letters, digits, and by default symbols, at least one of each."""
    kinds = (*_KINDS, SYMBOLS) if symbols else _KINDS
    if length < len(kinds):
        raise ValueError(f"a password of {length} characters has no room for {len(kinds)} kinds")
    alphabet = "".join(kinds)
    while True:
        drawn = "".join(alphabet[below(len(alphabet), rng)] for _ in range(length))
        if all(any(character in kind for character in drawn) for kind in kinds):
            return drawn


def phrase(rng: Rng, words: int = WORDS, *, between: str = " ") -> str:
    """Words of the SLIP-39 list, 10 bits each: common English, told apart by their first four letters."""
    wordlist = _wordlist()
    return between.join(wordlist[below(len(wordlist), rng)] for _ in range(words))


def from_recipe(recipe: dict[str, Any], rng: Rng) -> str:
    """What a request's `generate` asks for: `words` make a phrase, else `length` and `symbols` a password."""
    if "words" in recipe:
        return phrase(rng, recipe["words"], between="-")
    return password(rng, length=recipe.get("length", LENGTH), symbols=recipe.get("symbols", True))


def _wordlist() -> Sequence[str]:
    from shamir_mnemonic.wordlist import WORDLIST  # a daemon that makes no phrase does not load it

    found: Sequence[str] = WORDLIST
    return found
