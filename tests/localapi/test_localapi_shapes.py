"""Requests are checked strictly, answers loosely, and no message repeats a value."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from meshd.errors import BadRequest, FormatError
from meshd.localapi.shapes import (
    array,
    boolean,
    check_answer,
    check_request,
    integer,
    mapping,
    nullable,
    number,
    read_query,
    record,
    text,
)

PERSON = record(
    {"name": text(least=1, most=8)},
    {
        "role": text(enum=("admin", "member")),
        "age": integer(most=200),
        "tags": array(text(most=4), most=2),
        "address": nullable(text(most=8)),
        "inner": record({"on": boolean()}, {"x": number(most=1)}),
        "counts": mapping(integer()),
    },
)


@pytest.mark.parametrize(
    "value",
    [
        {"name": "a"},
        {"name": "a", "schema": 1},
        {"name": "a", "address": None, "tags": ["x", "y"], "age": 0, "role": "admin"},
        {"name": "a", "inner": {"on": True, "x": 0.5}, "counts": {"anything": 3}},
        {"name": "ä" * 8},
    ],
)
def test_what_fits_comes_back_as_it_is(value: dict[str, object]) -> None:
    assert check_request(value, PERSON) is value
    assert check_answer(value, PERSON) is value


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ([], "object"),
        ({}, "name: missing"),
        ({"name": ""}, "name"),
        ({"name": "x" * 9}, "name"),
        ({"name": 1}, "name"),
        ({"name": None}, "name"),
        ({"name": "a", "age": True}, "age"),
        ({"name": "a", "age": 1.0}, "age"),
        ({"name": "a", "age": -1}, "age"),
        ({"name": "a", "age": 201}, "age"),
        ({"name": "a", "role": "king"}, "role"),
        ({"name": "a", "tags": ["x", 1]}, "tags[1]"),
        ({"name": "a", "tags": ["x"] * 3}, "tags"),
        ({"name": "a", "inner": {"x": 1}}, "inner.on"),
        ({"name": "a", "inner": {"on": True, "x": float("nan")}}, "inner.x"),
        ({"name": "a", "counts": {"n": "1"}}, "counts.'n'"),
        ({"name": "\ud800"}, "name"),
        ({"name": "a", "schema": 2}, "schema"),
    ],
)
def test_what_does_not_fit_is_refused_naming_the_place(value: object, place: str) -> None:
    with pytest.raises(BadRequest) as refused:
        check_request(value, PERSON)
    assert place in str(refused.value)
    with pytest.raises(FormatError):
        check_answer(value, PERSON)


def test_an_unknown_member_is_refused_in_a_request_and_ignored_in_an_answer() -> None:
    for value in ({"name": "a", "nmae": "b"}, {"name": "a", "inner": {"on": True, "schema": 1}}):
        with pytest.raises(BadRequest):
            check_request(value, PERSON)
        check_answer(value, PERSON)


def test_a_message_never_repeats_a_value() -> None:
    for value in ({"name": "hunter2hunter2"}, {"name": "a", "role": "hunter2"}, {"name": "a", "age": "hunter2"}):
        with pytest.raises(BadRequest) as refused:
            check_request(value, PERSON)
        assert "hunter2" not in str(refused.value)


@given(
    st.dictionaries(
        st.sampled_from(["name", "role", "age", "tags", "address", "inner", "counts"]),
        st.recursive(
            st.none() | st.booleans() | st.integers(-2, 300) | st.text("admin", max_size=10) | st.just("member"),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["on", "x", "n"]), inner),
            max_leaves=5,
        ),
    )
)
def test_the_checker_agrees_with_json_schema(value: dict[str, object]) -> None:
    try:
        check_answer(value, PERSON)
        fits = True
    except FormatError:
        fits = False
    assert fits == Draft202012Validator(PERSON).is_valid(value)


QUERY = record({}, {"wait": integer(most=55), "follow": boolean(), "timeout": number(most=10), "name": text(most=5)})


def test_a_query_is_read_into_its_types() -> None:
    pairs = {"wait": "30", "follow": "0", "timeout": "0.5", "name": "a"}
    assert read_query(pairs, QUERY) == {"wait": 30, "follow": False, "timeout": 0.5, "name": "a"}


@pytest.mark.parametrize(
    "pairs",
    [
        {"wait": "-1"},
        {"wait": "1e3"},
        {"wait": "٣"},
        {"wait": "9" * 30},
        {"wait": "56"},
        {"follow": "yes"},
        {"timeout": "nan"},
        {"timeout": "1.2.3"},
        {"timeout": "²"},
        {"timeout": ""},
        {"name": "toolong"},
        {"nmae": "a"},
    ],
)
def test_a_query_that_does_not_fit_is_refused(pairs: dict[str, str]) -> None:
    with pytest.raises(BadRequest):
        read_query(pairs, QUERY)
