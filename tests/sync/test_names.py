"""Names on the LAN: siblings recognise them under any key ever held, others learn nothing."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.sync_wire import DESKTOP, LAPTOP
from meshd.errors import FormatError
from meshd.sync.names import device_tag, find_device, instance, recognise

OLD, NEW, STRANGE = b"o" * 32, b"n" * 32, b"s" * 32
NONCE = bytes(range(8))


@given(st.binary(min_size=16, max_size=32), st.binary(min_size=8, max_size=8))
def test_a_name_is_recognised_and_yields_its_nonce(key: bytes, nonce: bytes) -> None:
    name = instance(key, nonce)
    assert re.fullmatch(r"[a-z2-7]{32}", name)
    assert recognise(name, [STRANGE + b"!", key]) == (1, nonce)
    assert recognise(name.upper() + "._mmm-sync._tcp.local.", [key]) == (0, nonce)


def test_a_stranger_recognises_nothing() -> None:
    assert recognise(instance(NEW, NONCE), [STRANGE]) is None
    assert recognise(instance(NEW, NONCE), []) is None


def test_an_old_key_is_recognised_after_a_rotation() -> None:
    assert recognise(instance(OLD, NONCE), [NEW, OLD]) == (1, NONCE)


@pytest.mark.parametrize("text", ["", "printer", "é" * 32, "1" * 32, "a" * 31, "a" * 33, "=" * 32, "a" * 32, "ı" * 32])
def test_names_of_other_services_are_passed_over(text: str) -> None:
    assert recognise(text, [NEW]) is None


@given(st.text(max_size=40))
def test_any_text_is_a_name_that_we_do_not_know(text: str) -> None:
    assert recognise(text, [NEW]) is None
    assert find_device(text, NEW, NONCE, [LAPTOP]) is None


def test_a_tag_names_the_device_to_its_siblings() -> None:
    tag = device_tag(NEW, NONCE, DESKTOP)
    assert re.fullmatch(r"[0-9a-f]{16}", tag)
    assert find_device(tag, NEW, NONCE, [LAPTOP, DESKTOP]) == DESKTOP
    assert find_device(tag, NEW, NONCE, [LAPTOP]) is None
    assert find_device(tag, OLD, NONCE, [LAPTOP, DESKTOP]) is None
    assert find_device(tag, NEW, bytes(8), [LAPTOP, DESKTOP]) is None


def test_two_announcements_of_a_device_share_nothing() -> None:
    first, second = instance(NEW, NONCE), instance(NEW, bytes(8))
    assert first[13:] != second[13:]
    assert device_tag(NEW, NONCE, LAPTOP) != device_tag(NEW, bytes(8), LAPTOP)


def test_a_nonce_of_another_length_is_a_fault_of_the_caller() -> None:
    with pytest.raises(FormatError):
        instance(NEW, b"short")
    with pytest.raises(FormatError):
        device_tag(NEW, b"short", LAPTOP)
