"""A fingerprint in words, to be compared by two people: the same 200 bits as the UDF, 10 bits a word.

    MB2GK-6DUF5-YGYYL-JNY5E-RWSHZ-QZXYA-5DN4Q-2EVRA    →    20 words of the SLIP-39 list, in groups of five

The words are the UDF spelled otherwise, whole: whoever compared them compared all of it. The list has 1024 words that
differ within their first four letters.
"""

from __future__ import annotations

from meshd.crypto import udf

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
BITS = 10
GROUP = 5


def words(fingerprint: str) -> tuple[str, ...]:
    """The words of a UDF: 20 for one of 200 bits, 15 for one of 2016. FormatError for what is none."""
    from shamir_mnemonic.wordlist import WORDLIST  # it reads its list from a file, and few commands need it

    letters = udf.check(fingerprint).removesuffix("-A").replace("-", "")  # "-A" ends random identifiers of 2016
    number = 0
    for letter in letters:
        number = number << 5 | _ALPHABET.index(letter)
    size = len(letters) * 5
    return tuple(str(WORDLIST[number >> shift & 1023]) for shift in range(size - BITS, -1, -BITS))


def text(fingerprint: str) -> str:
    """The same in one line, the groups apart by two blanks."""
    found = words(fingerprint)
    return "  ".join(" ".join(found[at : at + GROUP]) for at in range(0, len(found), GROUP))
