"""The links of a version: every token has one spelling, and nothing else is read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.crypto import base64url, udf
from meshd.errors import FormatError
from meshd.profile import links
from meshd.profile.links import Cut, Links

A, B, C = (bytes([number]) * 32 for number in (1, 2, 3))
VID = base64url.encode(A)
NAME = udf.make(udf.RANDOM, b"name")
VAULT = udf.make(udf.RANDOM, b"vault")

vids = st.lists(st.binary(min_size=32, max_size=32), max_size=4, unique=True).map(tuple)
names = st.binary(max_size=4).map(lambda data: udf.make(udf.RANDOM, data))
cuts = st.builds(Cut, names, vids, st.sampled_from(["", "admin", "*"]) | names)
keys = names.map(lambda name: f"D:{name}") | st.tuples(names, names).map(lambda two: f"G:{two[0]}@{two[1]}")
everything = st.builds(
    Links,
    g=st.integers(1, 10**15 - 1),
    n=st.integers(0, 10**15 - 1),
    q=vids,
    p=vids,
    a=vids,
    e=st.dictionaries(names, st.binary(min_size=32, max_size=32), max_size=3).map(lambda found: tuple(found.items())),
    k=st.lists(keys, max_size=3).map(tuple),
    x=st.lists(cuts, max_size=3).map(tuple),
)


@given(everything)
def test_links_go_both_ways(found: Links) -> None:
    assert links.parse(found.token()) == found
    assert links.parse(found.token()).token() == found.token()


@given(
    st.text(max_size=80)
    | st.text(st.sampled_from("mnt1;qgpaekx=,:|AZ09-_*@" + NAME), max_size=120).map("mnt1;".__add__)
)
def test_garbage_raises_only_a_format_error(text: str) -> None:
    try:
        links.parse(text)
    except FormatError:
        pass


def test_a_token_says_all_that_it_says_in_a_fixed_order() -> None:
    found = Links(
        g=3,
        n=7,
        q=(A,),
        p=(B,),
        a=(C, A),
        e=((NAME, B),),
        k=(f"X:{VAULT}",),
        x=(Cut(NAME, (A, B), "admin"), Cut(NAME, (), VAULT)),
    )
    a, b, c = (base64url.encode(vid) for vid in (A, B, C))
    assert found.token() == (
        f"mnt1;n=7;q={a};g=3;p={b};a={c},{a};e={NAME}:{b};k=X:{VAULT};x={NAME}:{a},{b}:admin|{NAME}::{VAULT}"
    )


@pytest.mark.parametrize(
    "token",
    [
        "",
        "mnt1",
        "mnt1;",
        "mnt2;g=1",
        "MNT1;g=1",
        " mnt1;g=1",
        "mnt1;g=1;",
        "mnt1;;g=1",
        "mnt1;g",
        "mnt1;g=",
        "mnt1;g=0",
        "mnt1;g=01",
        "mnt1;g=-1",
        "mnt1;g=+1",
        "mnt1;g=1_0",
        "mnt1;g=١",
        "mnt1;g=1.0",
        "mnt1;g=1000000000000000",
        "mnt1;g=1;g=1",
        "mnt1;g=1;n=1",
        f"mnt1;g=1;q={VID}",
        f"mnt1;g=1;a={VID};p={VID}",
        "mnt1;g=1;Z=1",
        "mnt1;Z=1;g=1",
        "mnt1;zz=1;g=1",
        "mnt1;z=1;z=1;g=1",
        "mnt1;é=1;g=1",
        "mnt1;z=é;g=1",
        f"mnt1;g=1;p={VID[:-1]}",
        f"mnt1;g=1;p={VID}A",
        f"mnt1;g=1;p={VID[:-1]}F",  # bits that are spare
        f"mnt1;g=1;p={VID[:-1]}=",
        f"mnt1;g=1;p={VID},",
        f"mnt1;g=1;p=,{VID}",
        f"mnt1;g=1;p={VID},{VID}",
        f"mnt1;g=1;p= {VID}",
        f"mnt1;g=1;p={VID[:-1]}+",
        f"mnt1;g=1;e={NAME}",
        f"mnt1;g=1;e={NAME}:",
        f"mnt1;g=1;e={NAME.lower()}:{VID}",
        f"mnt1;g=1;e={NAME}:{VID},{NAME}:{base64url.encode(B)}",
        f"mnt1;g=1;e={NAME[:-1]}:{VID}",
        "mnt1;g=1;k=,",
        "mnt1;g=1;k=D:",
        "mnt1;g=1;k=D",
        "mnt1;g=1;k=D:a b",
        "mnt1;g=1;x=|",
        f"mnt1;g=1;x={NAME}",
        f"mnt1;g=1;x={NAME}::",
        f"mnt1;g=1;x={NAME}::root",
        f"mnt1;g=1;x={NAME}::admin:admin",
        f"mnt1;g=1;x={NAME}:{VID}:{VAULT[:-1]}",
        f"mnt1;g=1;x=:{VID}",
        f"mnt1;g=1;x={NAME}-A::",
        f"mnt1;g=1;z={'x' * links.MAX_TOKEN}",
    ],
    ids=lambda token: token[:60],
)
def test_every_other_spelling_is_refused(token: str) -> None:
    with pytest.raises(FormatError):
        links.parse(token)


def test_an_unknown_lower_case_letter_is_ignored_wherever_it_stands() -> None:
    assert links.parse("mnt1;z=new;g=2;y=a:b,c") == Links(g=2)


@pytest.mark.parametrize("field", ["p", "a"])
def test_sixteen_heads_may_be_named_and_no_more(field: str) -> None:
    many: Any = tuple(bytes([number]) * 32 for number in range(17))
    assert getattr(links.parse(Links(g=2, **{field: many[:16]}).token()), field) == many[:16]
    with pytest.raises(FormatError):
        links.parse(Links(g=2, **{field: many}).token())


def test_a_token_above_sixteen_kibibytes_is_not_written() -> None:
    many = tuple(number.to_bytes(32, "big") for number in range(400))
    with pytest.raises(FormatError):
        Links(g=2, q=many).token()
