"""base64url: one spelling, strictly; and the lenient reading of 2016."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.crypto import base64url
from meshd.errors import FormatError

VECTORS = Path(__file__).parent.parent / "vectors" / "mesh2016"


@given(st.binary(max_size=300))
def test_what_is_encoded_decodes_to_the_same(data: bytes) -> None:
    assert base64url.decode(base64url.encode(data)) == data
    assert base64url.decode_lenient(base64url.encode(data)) == data


@given(st.text(alphabet="AaZz09-_+/= \n\u00e9", max_size=24))
def test_any_text_is_either_the_one_spelling_or_refused(text: str) -> None:
    try:
        data = base64url.decode(text)
    except FormatError:
        return
    assert base64url.encode(data) == text


@pytest.mark.parametrize(
    "text",
    [
        "QQ==",
        "QQ=",
        "QR",
        "Q",
        "QUI\n",
        "\nQUI",
        "QU I",
        "QUJ+",
        "QUJ/",
        "QUJDRA==",
        "Q\u00e9",
        "QUJD\x00",
        "\ud800QUJ",
    ],
    ids=repr,
)
def test_padding_newlines_foreign_letters_and_stray_bits_are_refused(text: str) -> None:
    with pytest.raises(FormatError):
        base64url.decode(text)


@pytest.mark.parametrize("value", [None, 5, b"QQ", ["QQ"]])
def test_binary_data_that_is_no_text_is_refused(value: object) -> None:
    for decode in (base64url.decode, base64url.decode_lenient):
        with pytest.raises(FormatError):
            decode(value)  # type: ignore[arg-type]


def test_the_lenient_reader_reads_what_2016_wrote() -> None:
    vectors = json.loads((VECTORS / "fresh-base64url.json").read_text())["vectors"]
    assert vectors
    for vector in vectors:
        data = bytes.fromhex(vector["data"])
        assert base64url.decode_lenient(vector["text"]) == data
        assert base64url.encode(data) == vector["text_nowrap"]


@given(st.text(max_size=60))
def test_the_lenient_reader_takes_any_text(text: str) -> None:
    assert len(base64url.decode_lenient(text)) <= len(text)


def test_the_lenient_reader_takes_the_standard_alphabet_and_padding() -> None:
    assert base64url.decode_lenient(" +/+/\n==") == base64url.decode("-_-_")
