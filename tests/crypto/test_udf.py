"""Fingerprints: the golden values of 2016, the 200-bit form, and what counts as equal."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.crypto import base64url, udf
from meshd.errors import FormatError

pytestmark = pytest.mark.draft("UDF")

VECTORS = Path(__file__).parent.parent / "vectors" / "mesh2016"


def test_fingerprints_are_those_of_2016_at_every_precision() -> None:
    vectors = json.loads((VECTORS / "fresh-udf-data.json").read_text())["vectors"]
    assert len(vectors) > 200
    for vector in vectors:
        data, bits = base64url.decode(vector["data"]), vector["bits"]
        raw = udf.digest(vector["type"], data, bits)
        assert raw.hex() == vector["raw"]
        assert udf.spell(raw) == vector["text_full"].rstrip("-")
        assert udf.make(vector["type"], data, bits) == vector["text_trunc"]


def test_random_identifiers_of_2016_are_fingerprints() -> None:
    for vector in json.loads((VECTORS / "fresh-udf-random-shape.json").read_text())["vectors"]:
        assert udf.check(vector["text"]) == vector["text"]
        assert not udf.is_current(vector["text"])


def test_a_new_fingerprint_has_eight_groups_of_five_and_begins_with_m() -> None:
    name = udf.random_udf(secrets.token_bytes)
    assert [len(group) for group in name.split("-")] == [5] * 8
    assert name[0] == "M"
    assert udf.is_udf(name) and udf.is_current(name)
    assert name != udf.random_udf(secrets.token_bytes)


def test_the_content_type_separates_equal_bytes() -> None:
    assert udf.make(udf.MMM_EPOCH, b"k" * 32) != udf.make(udf.MMM_ESCROWED, b"k" * 32)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "MBXEX",
        "MBXEX-UHC2J-WLWW5-SBKOE",
        "mbe6e-gt7sn-mk74p-74nir-5xi5u-jnnjr",
        "MBE6E-GT7SN-MK74P-74NIR-5XI5U-JNNJR\n",
        "MBE6E-GT7SN-MK74P-74NIR-5XI5U-JNNJR-",
        "MBE6E-GT7SN-MK74P-74NIR-5XI5U-JNNJR-B",
        "MBE6E-GT7SN-MK74P-74NIR-5XI5U-JNNJR-AAAAA",
        "MBE6E-GT7SN-MK74P-74NIR-5XI5U-JNNJ1",
        "MBE6EGT7SNMK74P74NIR5XI5UJNNJR",
        None,
        7,
    ],
)
def test_what_has_no_form_of_a_fingerprint_is_refused(text: object) -> None:
    assert not udf.is_udf(text)
    with pytest.raises(FormatError):
        udf.check(text)


def test_equality_is_of_the_whole_fingerprint_whatever_the_letter_case() -> None:
    short = "MBE6E-GT7SN-MK74P-74NIR-5XI5U-JNNJR"
    assert udf.equal(short, short.lower())
    assert not udf.equal(short, short + "-AAAAA-AAAAA")
    assert not udf.equal(short, short[:-1])
    assert not udf.equal(short, "\ud800")


def test_a_person_may_abbreviate_to_four_letters() -> None:
    full = "MBE6E-GT7SN-MK74P-74NIR-5XI5U-JNNJR"
    for typed in ("MBE6", "mbe6e", "mbe6e-g", "MBE6EGT", "mbe6e gt7sn", full):
        assert udf.matches(typed, full)
    for typed in ("", "MBE", "----", "BE6E", "MBE7", "MBE6E-GT7SM", "MBE1", full + "A"):
        assert not udf.matches(typed, full)


@given(st.text(max_size=60))
def test_no_text_breaks_the_readers(text: str) -> None:
    udf.is_udf(text)
    udf.equal(text, text)
    udf.matches(text, "MBE6E-GT7SN-MK74P-74NIR-5XI5U-JNNJR")


def test_a_precision_that_makes_no_sense_is_refused() -> None:
    for bits in (0, 8, 513, -1):
        with pytest.raises(FormatError):
            udf.make(udf.RANDOM, b"", bits)
