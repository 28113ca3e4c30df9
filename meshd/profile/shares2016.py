"""The share texts of 2016, read and combined with what that program got wrong; they are never made here.

A share is base32 in groups of five: a control byte `16·k + i`, then a value, little-endian two's complement, as short
as it goes. With i from 0 to 14 it is a point (i + 1, y) of a polynomial over the prime 2^129 − 25 whose constant is the
secret, 16 bytes, little-endian; k points bring it back. With i = 15 the k values of 16 bytes give it by exclusive or.

The program raised i + 1 to powers in 32 bits with a sign, so that high numbers of k ≥ 9 ran over. As it did so in one
and the same way for every set, its shares still are k linear equations for the secret: they are solved with its own
powers. There is no checksum. A wrong letter shows where there are more shares than needed; where the name of the entry
is known it is put right.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

from meshd.crypto import udf
from meshd.profile.shares import ALTERED, DUPLICATE, FORM, LENGTH, MAX_GIVEN, OTHER_SET, TOO_FEW, ShareError

SECRET_BYTES = 16
MAX_TEXT = 256  # characters of a share as typed
EXACT, OVERFLOW, XOR = "exact", "overflow", "xor"  # how shares were combined

_PRIME = 2**129 - 25
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_LOOKALIKES = {"0": "O", "1": "I", "8": "B", "9": "G"}
_GROUP = 5
_XOR_INDEX = 15
_MOST_SETS = 1024


@dataclass(frozen=True, slots=True)
class Share2016:
    """One share as its text says it."""

    letters: str = field(repr=False)  # canonical: upper case, without dashes
    needed: int
    number: int  # from 1; 0 where all shares are needed: those have none
    value: int = field(repr=False)

    @property
    def kind(self) -> tuple[int, bool]:
        """Equal in all shares of a set. Nothing else says which set a share is of."""
        return self.needed, self.number == 0


@dataclass(frozen=True, slots=True)
class Secret:
    """What shares combine to, and how."""

    key: bytes = field(repr=False)  # 16 bytes
    how: str  # EXACT, OVERFLOW or XOR
    mended: str = field(default="", repr=False)  # which letter was wrong, and was put right

    @property
    def identifier(self) -> str:
        """What the entry is called, in 150 bits: whoever can rebuild the secret can find it."""
        return identifier(self.key)


def identifier(key: bytes) -> str:
    return udf.make(udf.MMM_ESCROWED, key, udf.BITS_2016)


# --- reading ----------------------------------------------------------------------------------------------------------


def read(text: str) -> Share2016:
    """A share from its text: any case, with dashes and white space or without. ShareError `form` or `length`."""
    if len(text.split()) >= 20:
        raise ShareError(FORM, "These are words of a share of today; a share of 2016 is groups of letters and digits.")
    groups = "-".join(text[: MAX_TEXT + 1].upper().split()).strip("-").split("-")
    for place, group in enumerate(groups, 1):
        for at, letter in enumerate(group, 1):
            if letter not in _ALPHABET:
                perhaps = f"; perhaps {_LOOKALIKES[letter]}" if letter in _LOOKALIKES else ""
                shown = letter if letter.isascii() and letter.isprintable() else "one"
                raise ShareError(FORM, f"Group {place}, place {at}: {shown} is no letter of a share{perhaps}.")
    odd = [place for place, group in enumerate(groups[:-1], 1) if len(group) != _GROUP]
    if odd or (len(groups[-1]) > _GROUP and len(groups) > 1):
        place = odd[0] if odd else len(groups)
        raise ShareError(LENGTH, f"Group {place} has {len(groups[place - 1])} letters, and {_GROUP} are due.")
    return _decode("".join(groups))


def _decode(letters: str) -> Share2016:
    size = len(letters) * 5 // 8
    if not 2 <= size <= 18 or len(letters) != math.ceil(size * 8 / 5):
        raise ShareError(LENGTH, f"A share has 28 or 29 letters, rarely fewer; these are {len(letters)}.")
    bits = 0
    for letter in letters:
        bits = bits << 5 | _ALPHABET.index(letter)
    spare = len(letters) * 5 - size * 8
    if bits & (1 << spare) - 1:
        raise ShareError(FORM, "The last letter can't be right, or some are missing.")
    control, *rest = (bits >> spare).to_bytes(size, "big")
    needed, index = control >> 4, control & 15
    if index == _XOR_INDEX:
        if needed < 2 or len(rest) != SECRET_BYTES:
            raise ShareError(FORM, "The first two letters, or the length, can't be right.")
        return Share2016(letters, needed, 0, int.from_bytes(rest, "little"))
    value = int.from_bytes(rest, "little", signed=True)
    if not 2 <= needed < _XOR_INDEX:
        raise ShareError(FORM, "The first two letters can't be right.")
    if not -_PRIME < value < _PRIME or len(rest) != _least_bytes(value):
        raise ShareError(FORM, "The last letters can't be right, or one is missing.")
    return Share2016(letters, needed, index + 1, value)


def _least_bytes(value: int) -> int:
    return (value if value >= 0 else ~value).bit_length() // 8 + 1


# --- combining --------------------------------------------------------------------------------------------------------


def combine(shares: Sequence[Share2016], entries: Collection[str] = ()) -> tuple[Secret, ...]:
    """The secret behind these shares. More than needed are welcome; the same one twice counts once.

    `entries` are the Identifiers of the entries that there are: with them exactly one secret comes back, the right one,
    and one wrong letter is put right. Without them there may be two, where it can't be told whether powers ran over.

    ShareError `other-set`, `too-few`, `duplicate` for two that have one number and differ, `altered`."""
    if not shares or len(shares) > MAX_GIVEN:
        raise ShareError(TOO_FEW, "There are no shares to combine.")
    _check_kinds(shares)
    first, given = shares[0], list(dict.fromkeys(shares))
    have = len({share.number or share for share in given})
    if have < first.needed:
        raise ShareError(TOO_FEW, f"These shares are not enough: {first.needed - have} more.")
    if entries:
        return (_named(shares, given, frozenset(entries)),)
    return _agreeing(shares, given)


def _check_kinds(shares: Sequence[Share2016]) -> None:
    kinds = [share.kind for share in shares]
    most = max(dict.fromkeys(kinds), key=kinds.count)
    odd = tuple(place for place, kind in enumerate(kinds) if kind != most)
    if odd:
        told = ", ".join(str(place + 1) for place in odd)
        why = "it names another number of shares that are needed, or its first letters are wrong"
        raise ShareError(OTHER_SET, f"Share {told} is of another set: {why}.", places=odd)


def _agreeing(shares: Sequence[Share2016], given: list[Share2016]) -> tuple[Secret, ...]:
    """What all shares agree on, where nothing else tells whether it is right."""
    numbers = [share.number for share in given]
    twice = {number for number in numbers if number and numbers.count(number) > 1}
    if twice:
        places = tuple(place for place, share in enumerate(shares) if share.number in twice)
        told = " and ".join(str(place + 1) for place in places)
        raise ShareError(DUPLICATE, f"The shares {told} have one number, but differ: one is wrong.", places=places)
    needed = given[0].needed
    basis, more = given[: needed - 1], given[needed - 1 :]
    found = []
    for how in _ways(given):
        values = {_value([*basis, last], how) for last in more}
        secret = _secret(values.pop(), how)
        if not values and secret is not None:
            found.append(secret)
    if not found:
        raise ShareError(ALTERED, "These shares don't fit together: a letter is wrong, or one is of another set.")
    return tuple(found)


def _named(shares: Sequence[Share2016], given: list[Share2016], entries: frozenset[str]) -> Secret:
    """The secret of one of these entries."""
    sets = list(itertools.islice(_sets(given), _MOST_SETS))
    for chosen in sets:
        for how in _ways(chosen):
            secret = _secret(_value(chosen, how), how)
            if secret is not None and secret.identifier in entries:
                return secret
    for chosen in sets[:8]:
        found = list(itertools.islice(_mends(chosen, entries), 4))
        if found:
            read = [f"share {shares.index(share) + 1}, {where}" for share, where, _ in found]
            return replace(found[0][2], mended=f"One letter is wrong: {'; or '.join(read)}.")
    raise ShareError(ALTERED, "These shares are enough, but not for this entry: some are wrong, or of another set.")


def _sets(given: list[Share2016]) -> Iterator[tuple[Share2016, ...]]:
    for chosen in itertools.combinations(given, given[0].needed):
        if len({share.number or share for share in chosen}) == len(chosen):
            yield chosen


def _mends(chosen: Sequence[Share2016], entries: frozenset[str]) -> Iterator[tuple[Share2016, str, Secret]]:
    """Every change of one letter of one share that makes the secret of an entry. There may be several, all of one
    secret: what one share has too much another may have too little."""
    for how in _ways(chosen):
        weights = () if how == XOR else _weights(chosen, how)
        value = _value(chosen, how)
        for number, share in enumerate(chosen):
            for at, letter in itertools.product(range(len(share.letters)), _ALPHABET):
                try:
                    other = _decode(share.letters[:at] + letter + share.letters[at + 1 :])
                except ShareError:
                    continue
                if (other.needed, other.number) != (share.needed, share.number):
                    continue
                change = value ^ share.value ^ other.value
                if how != XOR:
                    change = (value + weights[number] * (other.value - share.value)) % _PRIME
                secret = _secret(change, how)
                if secret is not None and secret.identifier in entries:
                    yield share, f"group {at // _GROUP + 1}, place {at % _GROUP + 1} is {letter}", secret


def _ways(shares: Sequence[Share2016]) -> tuple[str, ...]:
    """How these shares can have been made, the likeliest first."""
    if shares[0].number == 0:
        return (XOR,)
    if max(share.number for share in shares) ** (shares[0].needed - 1) < 2**31:
        return (EXACT,)
    # A remainder below zero comes of a power below zero alone.
    return (OVERFLOW,) if any(share.value < 0 for share in shares) else (OVERFLOW, EXACT)


def _secret(value: int, how: str) -> Secret | None:
    return Secret(value.to_bytes(SECRET_BYTES, "little"), how) if value < 2 ** (8 * SECRET_BYTES) else None


def _value(chosen: Sequence[Share2016], how: str) -> int:
    """The constant of the polynomial through exactly enough shares, or their exclusive or."""
    if how == XOR:
        value = 0
        for share in chosen:
            value ^= share.value
        return value
    return sum(weight * share.value for weight, share in zip(_weights(chosen, how), chosen, strict=True)) % _PRIME


def _weights(chosen: Sequence[Share2016], how: str) -> list[int]:
    """What each value counts in the constant: w with Σ w·x^0 = 1 and Σ w·x^j = 0, by elimination modulo the prime."""
    count = len(chosen)
    rows = [[_power(share.number, j, how) % _PRIME for share in chosen] + [int(j == 0)] for j in range(count)]
    for column in range(count):
        pivot = next((at for at in range(column, count) if rows[at][column]), None)
        if pivot is None:  # for no set of up to 15 numbers
            raise ShareError(ALTERED, "These shares can't be combined.")
        rows[column], rows[pivot] = rows[pivot], rows[column]
        inverse = pow(rows[column][column], -1, _PRIME)
        rows[column] = [entry * inverse % _PRIME for entry in rows[column]]
        for at in range(count):
            if at != column and (factor := rows[at][column]):
                rows[at] = [(a - factor * b) % _PRIME for a, b in zip(rows[at], rows[column], strict=True)]
    return [row[-1] for row in rows]


def _power(base: int, exponent: int, how: str) -> int:
    """base^exponent; for OVERFLOW in 32 bits with a sign, as the program of 2016 had it."""
    exact: int = base**exponent
    return exact if how == EXACT else (exact + 2**31) % 2**32 - 2**31
