"""The knock before TLS: who holds a key comes in, whatever key it is; nobody else does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.errors import FormatError, MeshError, Refused, RemoteProtocolError
from meshd.sync.knock import Mode, answer, check, recovery_key

OLD, NEW, STRANGE = b"old discovery key of 32 bytes...", b"new discovery key of 32 bytes...", b"x" * 32
SERVER, NONCE = bytes(range(16)), bytes(range(16, 32))


@pytest.mark.parametrize("mode", [Mode.SYNC, Mode.INTRODUCTION])
def test_a_knock_with_any_key_held_is_recognised(mode: Mode) -> None:
    assert check(answer(mode, NEW, SERVER, NONCE), SERVER, [NEW, OLD]) == (mode, 0)
    assert check(answer(mode, OLD, SERVER, NONCE), SERVER, [NEW, OLD]) == (mode, 1)
    assert len(answer(mode, OLD, SERVER, NONCE)) == 49


def test_a_key_held_twice_counts_where_it_stands_first() -> None:
    assert check(answer(Mode.SYNC, OLD, SERVER, NONCE), SERVER, [NEW, OLD, OLD]) == (Mode.SYNC, 1)


def test_who_names_a_recovery_entry_comes_in_by_that_alone_and_for_that_alone() -> None:
    key, other = recovery_key("MB2GK-6DUF5"), recovery_key("MB2GK-6DUF6")
    assert check(answer(Mode.RECOVERY, key, SERVER, NONCE), SERVER, [OLD], [other, key]) == (Mode.RECOVERY, 1)
    for mode, tried in ((Mode.RECOVERY, OLD), (Mode.SYNC, key), (Mode.INTRODUCTION, key)):
        with pytest.raises(Refused):
            check(answer(mode, tried, SERVER, NONCE), SERVER, [OLD], [other, key])


def test_a_stranger_is_refused() -> None:
    for keys in ([OLD, NEW], []):
        with pytest.raises(Refused):
            check(answer(Mode.SYNC, STRANGE, SERVER, NONCE), SERVER, keys)


def test_an_answer_to_another_challenge_is_refused() -> None:
    with pytest.raises(Refused):
        check(answer(Mode.SYNC, NEW, SERVER, NONCE), NONCE, [NEW])


def test_an_answer_cannot_be_turned_into_another_mode() -> None:
    recorded = bytearray(answer(Mode.INTRODUCTION, NEW, SERVER, NONCE))
    recorded[0] = Mode.SYNC
    with pytest.raises(Refused):
        check(bytes(recorded), SERVER, [NEW])


def test_unknown_modes_and_wrong_lengths_are_refused() -> None:
    good = answer(Mode.SYNC, NEW, SERVER, NONCE)
    for wrong in (b"", good[:-1], good + b"\0", b"\0" + good[1:], b"\x04" + good[1:]):
        with pytest.raises(RemoteProtocolError):
            check(wrong, SERVER, [NEW])
    with pytest.raises(FormatError):
        check(good, SERVER[:-1], [NEW])
    with pytest.raises(FormatError):
        answer(Mode.SYNC, NEW, SERVER, b"short")


@given(st.binary(max_size=60) | st.binary(min_size=49, max_size=49))
def test_garbage_never_comes_in(data: bytes) -> None:
    with pytest.raises(MeshError):
        check(data, SERVER, [OLD, NEW])
