"""Chrome's export: what it holds is read whole, and a broken or hostile file is reported row by row."""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.errors import FormatError
from meshd.profile.apps import chrome_csv, password

HEADER = "name,url,username,password,note\r\n"
EXPORT = Path(__file__).parents[1] / "data" / "chrome-export.csv"


def test_a_row_becomes_a_login() -> None:
    text = HEADER + 'Example,https://www.Example.com/login,ana,"s3,cret","line 1\nline ""2"""\r\n'
    [login], rejected = chrome_csv.read(text)
    assert rejected == []
    assert (login.row, login.title, login.url, login.site) == (
        2,
        "Example",
        "https://www.Example.com/login",
        "www.example.com",
    )
    assert (login.username, login.password, login.note) == ("ana", "s3,cret", 'line 1\nline "2"')
    assert "s3,cret" not in repr(login)
    assert "line 1" not in repr(login)
    assert "/login" not in repr(login)


def test_the_large_export_of_the_demo_is_read() -> None:
    logins, rejected = chrome_csv.read(EXPORT.read_text(encoding="utf-8"))
    assert len(logins) > 200
    assert all(not any(login.password in row.reason for login in logins if len(login.password) > 3) for row in rejected)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("last", ["", "\n", "\n\n"])
def test_line_ends_and_a_byte_order_mark_make_no_difference(end: str, mark: str, last: str) -> None:
    text = mark + HEADER.strip() + end + "a,a.com,u,p,n" + end + end + "b,b.com,u,p,n" + last
    logins, rejected = chrome_csv.read(text)
    assert [login.site for login in logins] == ["a.com", "b.com"]
    assert rejected == []


def test_columns_may_stand_in_any_order_and_more_of_them() -> None:
    logins, rejected = chrome_csv.read(" Password ,URL,extra,username\np,a.com,x,u\n")
    assert rejected == []
    assert (logins[0].password, logins[0].username, logins[0].title, logins[0].note) == ("p", "u", "", "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "\ufeff",
        "name,url,username\n",
        "url,username,password,url\n",
        "name;url;username;password\n",
        "hunter2",
        '"name,url',
        'name,url,username,"pass"word\n',
        HEADER + "a,a.com,u,p\x00,n\n",
        HEADER + "a,a.com,u,\ud800hunter2,n\n",
        "%PDF-1.4\x00\xff",
    ],
    ids=lambda text: repr(text)[:30],
)
def test_what_is_no_export_is_refused(text: str) -> None:
    with pytest.raises(FormatError) as caught:
        chrome_csv.read(text)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("a,a.com,u,,n", "no password"),
        ("a,a.com,u,hunter2", "4 columns where 5 are due"),
        ("a,a.com,u,hunter2,n,hunter2", "6 columns where 5 are due"),
        (",,u,hunter2,n", "a site is a host name or a URL"),
        ("a,https://hunter2@/x,u,hunter2,n", "a site is a host name or a URL"),
        ("a,hunter2 hunter2,u,hunter2,n", "not a host name"),
        ("a,a.com," + "u" * 1025 + ",hunter2,n", "the username is longer than 1024 characters"),
        ("a,a.com,u," + "hunter2" * 10_000 + ",n", "the password is longer than 65536 characters"),
        ("a,a.com/" + "x" * 8192 + ",u,hunter2,n", "the url is longer than 8192 characters"),
        ("a" * 1025 + ",a.com,u,hunter2,n", "the title is longer than 1024 characters"),
        ("a,a.com,u,hunter2," + "n" * 262_145, "the note is longer than 262144 characters"),
        ("a,a.com,u\x1b[2J,hunter2,n", "the username has characters that are not allowed there"),
        ('a,a.com,"u\nv",hunter2,n', "the username has characters that are not allowed there"),
    ],
    ids=lambda value: value[:30],
)
def test_a_row_that_is_no_login_is_reported_and_the_others_are_read(row: str, reason: str) -> None:
    logins, rejected = chrome_csv.read(f"{HEADER}a,a.com,u,p,n\n{row}\nb,b.com,u,p,n\n")
    assert [login.row for login in logins] == [2, 4]
    assert [(found.row, found.reason) for found in rejected] == [(3, reason)]
    assert "hunter2" not in repr(rejected)


@pytest.mark.parametrize("row", ['a,a.com,u,"hunter2"x,n', 'a,a.com,u,"hunter2', 'a,a.com,u,"hunter2\n\n\n', '"'])
def test_after_a_broken_quotation_nothing_more_is_read(row: str) -> None:
    logins, [rejected] = chrome_csv.read(f"{HEADER}a,a.com,u,p,n\n{row}")
    assert [login.row for login in logins] == [2]
    assert rejected.row == 3
    assert "the rest was not read" in rejected.reason
    assert "hunter2" not in rejected.reason


def test_a_note_of_the_largest_size_is_read() -> None:
    note = "n" * password.MAX_TEXT["note"]
    logins, rejected = chrome_csv.read(f"{HEADER}a,a.com,u,p,{note}\nb,b.com,u,p," + '"' + "x\n" * 100_000 + '"\n')
    assert rejected == []
    assert logins[0].note == note
    assert len(logins[1].note) == 200_000


def test_two_hundred_thousand_rows_are_read_and_no_more() -> None:
    row = "a,a.com,u,p,n\n"
    logins, rejected = chrome_csv.read(HEADER + row * chrome_csv.MAX_ROWS)
    assert len(logins) == chrome_csv.MAX_ROWS
    assert rejected == []
    with pytest.raises(FormatError, match="rows"):
        chrome_csv.read(HEADER + row * (chrome_csv.MAX_ROWS + 1))


def test_a_file_that_is_too_large_is_refused_before_it_is_split() -> None:
    begin = time.perf_counter()
    for text in ("x" * (chrome_csv.MAX_CHARACTERS + 1), HEADER + "," * (chrome_csv.MAX_COMMAS + 1)):
        with pytest.raises(FormatError, match="more than"):
            chrome_csv.read(text)
    assert time.perf_counter() - begin < 2


@given(st.text(st.sampled_from('a,"\n\r ;\t\ufeffé'), max_size=60))
def test_any_text_gives_rows_reasons_or_a_format_error(text: str) -> None:
    for before in ("", HEADER):
        try:
            chrome_csv.read(before + text)
        except FormatError:
            pass


FIELD = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)


@given(st.lists(st.tuples(FIELD, FIELD, FIELD.filter(bool), FIELD.map(lambda text: text + "\n" + text)), max_size=6))
def test_what_a_writer_wrote_is_read_back(rows: list[tuple[str, str, str, str]]) -> None:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["name", "url", "username", "password", "note"])
    for title, username, secret, note in rows:
        writer.writerow([title, "https://example.com/", username, secret, note])
    logins, rejected = chrome_csv.read(out.getvalue())
    assert rejected == []
    assert [(login.title, login.username, login.password, login.note) for login in logins] == rows
