"""The words of a recovery share: reading them as people type them, and saying which are wrong (SLIP-0039, RS1024).

A word is known by its first four letters. The three last words are a checksum over 1024 symbols that finds any three
wrong words for certain. So up to three words that can't be read are computed from the others; a single wrong word is
found, and of two the few pairs that fit.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from shamir_mnemonic.rs1024 import create_checksum
from shamir_mnemonic.wordlist import WORD_INDEX_MAP, WORDLIST

LENGTHS = (20, 33)  # words of a share of 128 and of 256 bits
MAX_TEXT = 1024  # characters of a share as typed
_CHECKSUM = 3
_PREFIX = 4
_MOST = 8  # corrections that are worth telling
_EXTENDABLE_BIT = 16  # in the second word: it chooses the customization string
_STRINGS = {True: b"shamir_extendable", False: b"shamir"}


@dataclass(frozen=True, slots=True)
class Misread:
    """A word that is wrong, or may be: its place, from 1, and what it may have been."""

    place: int
    likely: tuple[str, ...] = field(repr=False)


def completions(typed: str) -> list[str]:
    """The words of the list that begin so."""
    typed = typed.lower()
    return [word for word in WORDLIST if word.startswith(typed)]


def find(typed: str) -> str | None:
    """The word of the list that somebody typed, whole or four letters and more of it."""
    typed = typed.lower()
    if typed in WORD_INDEX_MAP:
        return typed
    found = completions(typed) if len(typed) >= _PREFIX else []
    return found[0] if len(found) == 1 else None


def checksum_holds(words: Sequence[str]) -> bool:
    """Of words that are all in the list."""
    return _syndrome(_indices(words)) == 0


def corrections(words: Sequence[str | None]) -> list[tuple[str, ...]]:
    """What a share may have said: the nearest readings whose checksum holds, at most eight. None stands for a word that
    can't be read.

    Of up to three that can't be read there is one reading, if the others are right. A tenth of a second."""
    unknown = [place for place, word in enumerate(words) if word is None]
    indices = [0 if word is None else WORD_INDEX_MAP[word] for word in words]
    if len(unknown) > _CHECKSUM or len(words) <= _CHECKSUM:
        return []
    found: list[tuple[str, ...]] = []
    for extendable in (True, False):
        for changes in _changes(indices, unknown, _syndrome(indices, extendable)):
            fixed = list(indices)
            for place, difference in changes:
                fixed[place] ^= difference
            if bool(fixed[1] & _EXTENDABLE_BIT) is extendable:
                found.append(tuple(WORDLIST[index] for index in fixed))
        if found:
            break  # the shares that are made here are extendable
    least = min((_distance(words, reading) for reading in found), default=0)
    near = dict.fromkeys(reading for reading in found if _distance(words, reading) == least)
    return list(near)[:_MOST]


def misread(words: Sequence[str | None]) -> tuple[Misread, ...]:
    """Where a share is wrong: every place that some reading changes, and every word that can't be read."""
    readings = corrections(words)
    places = []
    for place, word in enumerate(words):
        others = dict.fromkeys(reading[place] for reading in readings if reading[place] != word)
        if word is None or others:
            places.append(Misread(place + 1, tuple(others)))
    return tuple(places)


def _distance(words: Sequence[str | None], reading: tuple[str, ...]) -> int:
    return sum(word != other for word, other in zip(words, reading, strict=True))


def _changes(indices: list[int], unknown: list[int], syndrome: int) -> Iterator[tuple[tuple[int, int], ...]]:
    """Sets of (place, difference) that make this syndrome: at the unknown places, or at one or two others."""
    length = len(indices)
    if unknown:
        solved = _solve(length, unknown, syndrome)
        if solved is not None:
            yield solved
            return
    if len(unknown) > 1:
        return
    table = _singles(length)
    if not unknown and syndrome in table:
        yield (table[syndrome],)
        return
    for residue, (place, difference) in table.items():
        if unknown and place != unknown[0]:
            continue
        other = table.get(syndrome ^ residue)
        if other is not None and (other[0] > place or (unknown and other[0] != place)):
            yield ((place, difference), other)


def _solve(length: int, places: list[int], syndrome: int) -> tuple[tuple[int, int], ...] | None:
    """The differences at these places that make the syndrome: linear equations over bits."""
    rows: dict[int, tuple[int, int]] = {}  # leading bit -> (residue, which differences)
    basis = _basis(length)
    for number, place in enumerate(places):
        for bit in range(10):
            rows_value, chosen = _reduce(rows, basis[place][bit], 1 << (10 * number + bit))
            if rows_value:
                rows[rows_value.bit_length()] = (rows_value, chosen)
    rest, chosen = _reduce(rows, syndrome, 0)
    if rest:
        return None
    return tuple((place, chosen >> (10 * number) & 1023) for number, place in enumerate(places))


def _reduce(rows: dict[int, tuple[int, int]], value: int, chosen: int) -> tuple[int, int]:
    while value and value.bit_length() in rows:
        residue, which = rows[value.bit_length()]
        value, chosen = value ^ residue, chosen ^ which
    return value, chosen


@functools.lru_cache(maxsize=4)
def _basis(length: int) -> tuple[tuple[int, ...], ...]:
    """The syndrome that each bit of each word makes. It is linear, and the string cancels out."""
    zero = _syndrome([0] * length, True)
    return tuple(
        tuple(_syndrome([1 << bit if at == place else 0 for at in range(length)], True) ^ zero for bit in range(10))
        for place in range(length)
    )


@functools.lru_cache(maxsize=2)
def _singles(length: int) -> dict[int, tuple[int, int]]:
    """Syndrome -> (place, difference), for every change of one word: 1023 a place."""
    table = {}
    for place, bits in enumerate(_basis(length)):
        sums = [0] * 1024
        for difference in range(1, 1024):
            low = difference & -difference
            sums[difference] = sums[difference ^ low] ^ bits[low.bit_length() - 1]
            table[sums[difference]] = (place, difference)
    return table


def _syndrome(indices: Sequence[int], extendable: bool | None = None) -> int:
    """30 bits, 0 where the checksum holds."""
    string = _STRINGS[bool(indices[1] & _EXTENDABLE_BIT) if extendable is None else extendable]
    due = create_checksum(indices[:-_CHECKSUM], string)
    syndrome = 0
    for expected, found in zip(due, indices[-_CHECKSUM:], strict=True):
        syndrome = syndrome << 10 | (expected ^ found)
    return syndrome


def _indices(words: Sequence[str]) -> list[int]:
    return [WORD_INDEX_MAP[word] for word in words]
