"""Recovery shares: a key split into words, so that some of the shares bring it back and fewer say nothing (SLIP-0039).

A wrong set of shares can't give a key: a digest is split with it. A wrong passphrase gives another key without a word,
so five letters of the fingerprint of the right one are noted beside the shares.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from shamir_mnemonic import shamir
from shamir_mnemonic.share import Share as RawShare
from shamir_mnemonic.utils import MnemonicError

from meshd.crypto import udf
from meshd.errors import BadRequest, FormatError, WrongPassphrase
from meshd.profile import words
from meshd.profile.words import Misread

MAX_SHARES = 16  # of a group, and groups
MAX_GIVEN = 256
_EXPONENT_PLAIN, _EXPONENT_PASSPHRASE = 0, 5  # PBKDF2 counts only where there is a passphrase
_MOST_SETS = 512

# What can be wrong with a share or with several.
LENGTH, WORDS, CHECKSUM, FORM = "length", "words", "checksum", "form"
DUPLICATE, OTHER_SET, TOO_FEW, ALTERED = "duplicate", "other-set", "too-few", "altered"


class ShareError(FormatError):
    """That is no recovery share.

    `fault` says how, `misread` at which words, `places` (from 0) which of the shares given. Neither holds secrets that
    were not typed; only `misread` holds any."""

    code = "share"

    def __init__(
        self, fault: str, message: str, *, misread: tuple[Misread, ...] = (), places: tuple[int, ...] = ()
    ) -> None:
        super().__init__(message)
        self.fault, self.misread, self.places = fault, misread, places


@dataclass(frozen=True, slots=True)
class Share:
    """One share as its words say it. Members of a group count from 0, as groups do."""

    mnemonic: str = field(repr=False)  # canonical: whole words, lower case, single blanks
    set_id: int  # 15 bits, the same in all shares that were made together
    group: int
    groups: int
    group_threshold: int
    index: int
    threshold: int
    bits: int

    @property
    def set_name(self) -> str:
        """How a set is told from another: four hexadecimal digits, no secret."""
        return f"{self.set_id:04x}"

    @property
    def common(self) -> tuple[int, int, int, int]:
        """Equal in all shares of a set."""
        return self.set_id, self.groups, self.group_threshold, self.bits

    def commitment(self, key: bytes) -> bytes:
        """HMAC-SHA256(key, share): lets who holds the key tell this share from any other, and gives nothing away."""
        return hmac.digest(key, self.mnemonic.encode("ascii"), hashlib.sha256)


@dataclass(frozen=True, slots=True)
class Group:
    threshold: int
    shares: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class Scheme:
    """Which shares are enough: `threshold` of the groups, of each so many of its shares."""

    groups: tuple[Group, ...]
    threshold: int = 1

    @classmethod
    def simple(cls, threshold: int, shares: int) -> Scheme:
        """`threshold` of `shares`."""
        return cls((Group(threshold, shares),))

    @property
    def shares(self) -> int:
        return sum(group.shares for group in self.groups)

    def check(self) -> Scheme:
        """BadRequest for what can't be split so."""
        if not 1 <= len(self.groups) <= MAX_SHARES or not 1 <= self.threshold <= len(self.groups):
            raise BadRequest(f"There are 1 to {MAX_SHARES} groups, and at most as many are needed.")
        for group in self.groups:
            if not 1 <= group.threshold <= group.shares <= MAX_SHARES:
                raise BadRequest(f"A group has 1 to {MAX_SHARES} shares, and at most as many are needed.")
            if group.threshold == 1 and group.shares > 1:
                raise BadRequest(
                    "Where one share is enough there is one share.",
                    hint="need at least 2, or make one share and copy it",
                )
        return self


# --- shares -----------------------------------------------------------------------------------------------------------


def read(text: str) -> Share:
    """A share from its words, as typed: any case, any white space, four letters of a word and more. Numbers are
    left out, and lines that begin with `#` or hold a colon or a tag, so that a whole page can be given. ShareError."""
    lines = [line for line in text[: 64 * 1024].splitlines() if not _beside(line)]
    typed = [word for word in " ".join(lines).split() if not word.rstrip(".").isdecimal()]
    found = [words.find(word) for word in typed[:MAX_GIVEN]]
    if typed and all(word.count("-") >= 4 for word in typed):
        raise ShareError(FORM, "That is a share of 2016; meshctl recovery open-2016 reads those.")
    if len(typed) not in words.LENGTHS:
        lost = tuple(Misread(place, ()) for place, word in enumerate(found, 1) if word is None)
        raise ShareError(
            LENGTH, f"A share has 33 words, or 20; these are {len(typed)}.", misread=lost if len(lost) <= 3 else ()
        )
    known = [word for word in found if word is not None]
    if len(known) < len(found):
        where = _at([place for place, word in enumerate(found, 1) if word is None])
        raise ShareError(WORDS, f"Not in the list of words: {where} of {len(found)}.", misread=words.misread(found))
    if not words.checksum_holds(known):
        misread = words.misread(known)
        told = f"the likeliest wrong: {_at([one.place for one in misread])}" if misread else "three or more are wrong"
        if len(misread) > 1:  # of three wrong words every second set looks like two others
            told += "; if these are right, three or more are wrong"
        raise ShareError(CHECKSUM, f"All words are in the list, but they don't fit together: {told}.", misread=misread)
    mnemonic = " ".join(known)
    try:
        raw = RawShare.from_mnemonic(mnemonic)
    except MnemonicError:
        raise ShareError(FORM, "The words fit together, but they are no share.") from None
    return Share(
        mnemonic,
        raw.identifier,
        raw.group_index,
        raw.group_count,
        raw.group_threshold,
        raw.index,
        raw.member_threshold,
        8 * len(raw.value),
    )


def _beside(line: str) -> bool:
    return line.lstrip().startswith("#") or ":" in line or "<" in line


def _at(places: Sequence[int]) -> str:
    return f"the word{'s' if len(places) > 1 else ''} at {', '.join(map(str, places))}"


def split(secret: bytes, scheme: Scheme, passphrase: str = "") -> list[list[Share]]:
    """The shares of a key of 16 or 32 bytes, by group. BadRequest for a scheme or passphrase that SLIP-0039 has not."""
    scheme.check()
    exponent = _EXPONENT_PASSPHRASE if passphrase else _EXPONENT_PLAIN
    made = shamir.generate_mnemonics(
        scheme.threshold,
        [(group.threshold, group.shares) for group in scheme.groups],
        secret,
        _passphrase(passphrase),
        iteration_exponent=exponent,
    )
    return [[read(mnemonic) for mnemonic in group] for group in made]


def lacking(shares: Sequence[Share]) -> str:
    """What must come to these shares of one set before they are enough, as a sentence's end; empty where they are."""
    if not shares:
        return "any share"
    first = shares[0]
    held = {group: len({share.index for share in shares if share.group == group}) for group in range(first.groups)}
    needed = {share.group: share.threshold for share in shares}
    complete = sum(held[group] >= needed[group] for group in needed)
    if complete >= first.group_threshold:
        return ""
    wanting = [
        f"{needed[group] - held[group]} more of group {group + 1}"
        if first.groups > 1
        else f"{needed[group] - held[group]} more"
        for group in sorted(needed)
        if held[group] < needed[group]
    ]
    more = first.group_threshold - len(needed)
    if more > 0:
        wanting.append(f"the shares of {more} more group{'' if more == 1 else 's'}")
    many = f"; {first.group_threshold} of the {first.groups} groups are needed" if first.groups > 1 else ""
    return ", ".join(wanting) + many


def combine(shares: Sequence[Share], passphrase: str = "", check: str = "") -> bytes:
    """K. More shares than needed are welcome; the same one twice counts once. `check` is what stands beside the shares.

    ShareError `other-set`, `too-few`, or `altered` where they fit by their numbers and not by their words;
    WrongPassphrase where there is a check value and it says so."""
    if not shares or len(shares) > MAX_GIVEN:
        raise ShareError(TOO_FEW, "There are no shares to combine.")
    odd = strangers(shares)
    if odd:
        raise ShareError(
            OTHER_SET, f"Share {', '.join(str(place + 1) for place in odd)} is of another set.", places=odd
        )
    if len({(share.group, share.threshold) for share in shares}) > len({share.group for share in shares}):
        raise ShareError(ALTERED, "Two of these shares do not agree how many of their group are needed.")
    missing = lacking(shares)
    if missing:
        raise ShareError(TOO_FEW, f"These shares are not enough: {missing}.")
    raw = [RawShare.from_mnemonic(mnemonic) for mnemonic in dict.fromkeys(share.mnemonic for share in shares)]
    for chosen in itertools.islice(_choices(raw), _MOST_SETS):
        try:
            sealed = shamir.recover_ems(shamir.decode_mnemonics(share.mnemonic() for share in chosen))
        except MnemonicError:
            continue
        key: bytes = sealed.decrypt(_passphrase(passphrase))
        if check and not hmac.compare_digest(check_value(key), check.strip().upper()):
            raise WrongPassphrase("The passphrase of the shares is wrong.")
        return key
    raise ShareError(
        ALTERED, "These shares are of one set by their first words, but at least one is not what was made."
    )


def strangers(shares: Sequence[Share]) -> tuple[int, ...]:
    """The places of the shares that are not of the set that most are of (of two, the second)."""
    kinds = [share.common for share in shares]
    most = max(dict.fromkeys(kinds), key=kinds.count)
    return tuple(place for place, kind in enumerate(kinds) if kind != most)


def _choices(raw: list[RawShare]) -> Iterator[list[RawShare]]:
    """Every minimal set of shares, each of which might be enough."""
    groups: dict[int, list[RawShare]] = {}
    for share in raw:
        groups.setdefault(share.group_index, []).append(share)
    ready = {
        number: list(itertools.combinations(members, members[0].member_threshold))
        for number, members in groups.items()
        if len(members) >= members[0].member_threshold
    }
    for numbers in itertools.combinations(sorted(ready), raw[0].group_threshold):
        for picked in itertools.product(*(ready[number] for number in numbers)):
            yield [share for members in picked for share in members]


def _passphrase(text: str) -> bytes:
    if not all(32 <= ord(letter) <= 126 for letter in text):
        raise BadRequest("The passphrase of shares has letters without accents, digits, signs and blanks only.")
    return text.encode("ascii")


def identifier(key: bytes) -> str:
    """What the entry is called: who can rebuild K can find it."""
    return udf.make(udf.MMM_ESCROWED, key)


def check_value(key: bytes) -> str:
    """Five letters that stand beside the shares, 25 bits of a digest of K: they tell a wrong passphrase."""
    return identifier(key).split("-")[1]
