"""Recovery shares bring a key back, fewer say nothing, and what is wrong with a share is named."""

from __future__ import annotations

import itertools
import json
import os
import random
from pathlib import Path

import pytest
from shamir_mnemonic.wordlist import WORDLIST

from meshd.crypto.keys import DecryptKey, SigningKey
from meshd.errors import BadRequest, DecryptError, WrongPassphrase
from meshd.profile import recovery, shares
from meshd.profile.recovery import Escrowed, Info
from meshd.profile.shares import Group, Scheme, ShareError

KEY = bytes(range(32))
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "slip39" / "vectors.json").read_text())
SMALL = [(1, 1), *((least, count) for count in range(2, 6) for least in range(2, count + 1))]


def fault_of(call: object) -> ShareError:
    with pytest.raises(ShareError) as caught:
        call()  # type: ignore[operator]
    return caught.value


@pytest.mark.parametrize(("least", "count"), SMALL, ids=[f"{least}of{count}" for least, count in SMALL])
def test_any_t_shares_bring_the_key_back_and_no_fewer_do(least: int, count: int) -> None:
    (made,) = shares.split(KEY, Scheme.simple(least, count))
    assert [share.index for share in made] == list(range(count))
    for chosen in itertools.combinations(made, least):
        assert shares.combine(chosen) == KEY
    for fewer in itertools.combinations(made, least - 1):
        assert fault_of(lambda fewer=fewer: shares.combine(fewer)).fault == shares.TOO_FEW
    assert shares.combine(list(reversed(made)) + made) == KEY


def test_two_of_the_family_and_the_lawyer_bring_the_key_back_and_no_fewer_do() -> None:
    family, lawyer = shares.split(KEY, Scheme((Group(2, 3, "family"), Group(1, 1, "lawyer")), 2))
    for pair in itertools.combinations(family, 2):
        assert shares.combine([*pair, *lawyer]) == KEY
        assert fault_of(lambda pair=pair: shares.combine(pair)).fault == shares.TOO_FEW
    for one in family:
        assert "1 more of group 1" in str(fault_of(lambda one=one: shares.combine([one, *lawyer])))


def test_a_strength_of_128_bits_gives_twenty_words() -> None:
    (made,) = shares.split(KEY[:16], Scheme.simple(2, 2))
    assert {len(share.mnemonic.split()) for share in made} == {20}
    assert shares.combine(made) == KEY[:16]


def test_a_wrong_passphrase_is_noticed_by_the_check_value() -> None:
    (made,) = shares.split(KEY, Scheme.simple(2, 2), "a passphrase")
    check = shares.check_value(KEY)
    assert shares.combine(made, "a passphrase", check) == KEY
    with pytest.raises(WrongPassphrase):
        shares.combine(made, "another", check)
    with pytest.raises(BadRequest):
        shares.split(KEY, Scheme.simple(2, 2), "pâsse")


@pytest.mark.parametrize("scheme", [Scheme.simple(1, 2), Scheme.simple(3, 2), Scheme.simple(0, 1), Scheme((), 1)])
def test_a_scheme_that_can_not_be_is_refused(scheme: Scheme) -> None:
    with pytest.raises(BadRequest):
        shares.split(KEY, scheme)


# What the names of the official vectors say is wrong, and how that is named here.
FAULTS = {
    "invalid checksum": shares.CHECKSUM,
    "invalid padding": shares.FORM,
    "insufficient length": shares.LENGTH,
    "invalid master secret length": shares.LENGTH,
    "greater group threshold": shares.FORM,
    "different identifiers": shares.OTHER_SET,
    "mismatching group": shares.OTHER_SET,
    "iteration exponents": shares.ALTERED,
    "duplicate member": shares.TOO_FEW,  # two of one number count once
    "member thresholds": shares.ALTERED,
    "invalid digest": shares.ALTERED,
    "sharing 2-of-3": shares.TOO_FEW,
    "nsufficient number": shares.TOO_FEW,
}


@pytest.mark.parametrize(("what", "mnemonics", "secret"), VECTORS, ids=[row[0].partition(".")[0] for row in VECTORS])
def test_the_official_vectors_give_their_secret_or_are_refused(what: str, mnemonics: list[str], secret: str) -> None:
    def combined() -> bytes:
        return shares.combine([shares.read(one) for one in mnemonics], "TREZOR")

    if secret:
        assert combined().hex() == secret
    else:
        assert fault_of(combined).fault == next(fault for name, fault in FAULTS.items() if name in what)


# --- reading ----------------------------------------------------------------------------------------------------------


def one_share() -> list[str]:
    return shares.split(KEY, Scheme.simple(2, 3))[0][0].mnemonic.split()


def test_a_share_is_read_in_any_case_by_four_letters_and_from_a_whole_page() -> None:
    typed = one_share()
    page = "# a page\nShare: 1\n" + "\n".join(word[:4].upper() for word in typed) + "\nCheck: ABCDE\n"
    assert shares.read(page).mnemonic == " ".join(typed)


def test_a_share_of_2016_is_said_to_be_one() -> None:
    error = fault_of(lambda: shares.read("EBUZV-JAGO6-AAAAA-AAAAA-AAAAA-AAAA\n"))
    assert (error.fault, "open-2016" in str(error)) == (shares.FORM, True)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_words_that_are_in_no_list_are_computed_from_the_others(count: int) -> None:
    typed = one_share()
    for _ in range(20):
        places = sorted(random.sample(range(len(typed)), count))
        wrong = [("zzz" if at in places else word) for at, word in enumerate(typed)]
        error = fault_of(lambda wrong=wrong: shares.read(" ".join(wrong)))
        assert error.fault == shares.WORDS
        assert [(one.place - 1, one.likely) for one in error.misread] == [(at, (typed[at],)) for at in places]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_up_to_three_wrong_words_never_pass_and_up_to_two_are_found(count: int) -> None:
    typed = one_share()
    for _ in range(20):
        wrong = list(typed)
        places = random.sample(range(len(typed)), count)
        for at in places:
            wrong[at] = random.choice([word for word in WORDLIST if word != typed[at]])
        error = fault_of(lambda wrong=wrong: shares.read(" ".join(wrong)))
        assert error.fault == shares.CHECKSUM
        if count == 1:
            assert [(one.place - 1, one.likely) for one in error.misread] == [(places[0], (typed[places[0]],))]
        if count == 2:
            found = {(one.place - 1, word) for one in error.misread for word in one.likely}
            assert {(at, typed[at]) for at in places} <= found


def test_no_message_repeats_a_word_that_was_typed() -> None:
    typed = one_share()
    for wrong in (typed[:-1], ["zzzzzz", *typed[1:]], [typed[1], typed[0], *typed[2:]]):
        error = fault_of(lambda wrong=wrong: shares.read(" ".join(wrong)))
        assert not {*typed, "zzzzzz"} & set(str(error).replace(",", " ").split()) - {"share"}
        assert all(word not in repr(error.misread) for word in typed)
    share = shares.read(" ".join(typed))
    assert typed[5] not in repr(share)


def test_shares_of_another_set_are_named() -> None:
    (first,), (second,) = (shares.split(KEY, Scheme.simple(3, 4)) for _ in range(2))
    error = fault_of(lambda: shares.combine([first[0], second[1], first[2]]))
    assert (error.fault, error.places) == (shares.OTHER_SET, (1,))
    assert "Share 2" in str(error)


def test_one_share_that_is_not_what_was_made_is_noticed_and_a_surplus_gets_around_it() -> None:
    (made,) = shares.split(KEY, Scheme.simple(2, 3))
    forged = forge(made[0])
    assert fault_of(lambda: shares.combine([forged, made[1]])).fault == shares.ALTERED
    assert shares.combine([forged, made[1], made[2]]) == KEY


def forge(share: shares.Share) -> shares.Share:
    from dataclasses import replace

    from shamir_mnemonic.share import Share as Raw

    raw = Raw.from_mnemonic(share.mnemonic)
    return shares.read(replace(raw, value=bytes(len(raw.value))).mnemonic())


def test_commitments_tell_shares_apart_only_with_the_key() -> None:
    (made,) = shares.split(KEY, Scheme.simple(2, 3))
    assert len({share.commitment(b"k" * 32) for share in made}) == 3
    assert made[0].commitment(b"k" * 32) != made[0].commitment(b"l" * 32)


# --- the entry --------------------------------------------------------------------------------------------------------


def test_the_entry_gives_back_both_keys_and_what_was_noted() -> None:
    master, escrow = SigningKey.generate(os.urandom), DecryptKey.generate(os.urandom)
    scheme = Scheme((Group(2, 3, "family"), Group(1, 1, "lawyer")), 2)
    info = Info(master.udf, 1_800_000_000, scheme, ("mum", "dad"), ("me@portal.example",), ("portal.example",), ("k",))
    for key in (KEY, KEY[:16]):
        made = recovery.entry(key, Escrowed(master, (escrow,), info), os.urandom)
        assert made.identifier == shares.identifier(key)
        back = recovery.open_entry(made, key)
        assert (back.master.private, back.escrow[0].private, back.info) == (master.private, escrow.private, info)
        with pytest.raises(DecryptError):
            recovery.open_entry(made, bytes(len(key)))
        assert master.private not in made.raw and key not in made.raw
