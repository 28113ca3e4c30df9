"""Importing a browser's export: all of it or nothing, and never a password lost or doubled."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.local_api import Answer, Device, good, running, shown

HEADER = "name,url,username,password,note\n"


async def imported(device: Device, text: str, **members: object) -> Answer:
    body = {"application": "password", "format": "chrome-csv", "text": text, **members}
    return await device.ask("POST", "/v1/imports", body)


def counts(answer: Answer) -> tuple[int, int, int, int]:
    body = good(answer)
    return body["added"], body["updated"], body["unchanged"], body["duplicates"]


async def items(device: Device) -> list[dict]:
    return (await device.get("/v1/items"))["items"]


async def test_every_row_becomes_a_login_with_all_that_it_says(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        text = HEADER + 'Work,https://a.example/login,alice,"p,""w",a note\n,https://b.example:8443/,bob,pw,\n'
        answer = await imported(device, text)
        assert counts(answer) == (2, 0, 0, 0)
        assert answer.body["applied"] is True
        first = good(await device.lookup("a.example"))
        assert (first["title"], first["username"], first["password"], first["note"]) == (
            "Work",
            "alice",
            'p,"w',
            "a note",
        )
        assert good(await device.lookup("b.example"))["title"] == "b.example"


async def test_the_same_file_again_changes_nothing(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        text = HEADER + "".join(f"s{n},https://s{n}.example/,u,p{n},\n" for n in range(300))
        assert counts(await imported(device, text)) == (300, 0, 0, 0)
        held = device.daemon.reader.query("SELECT count(*) FROM versions")
        assert counts(await imported(device, text)) == (0, 0, 300, 0)
        assert device.daemon.reader.query("SELECT count(*) FROM versions") == held


async def test_a_row_named_twice_is_taken_once(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        text = HEADER + "a,https://a.example/,u,p,\na,https://a.example/other,u,p,\n"
        assert counts(await imported(device, text)) == (1, 0, 0, 1)


async def test_two_passwords_for_one_login_in_a_file_are_reported(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        text = HEADER + "a,https://a.example/,u,first,\na,http://a.example/,u,second,\n"
        answer = await imported(device, text)
        assert counts(answer) == (1, 0, 0, 0)
        assert [row["row"] for row in answer.body["different"]] == [3]
        assert good(await device.lookup("a.example"))["password"] == "first"


async def test_another_password_in_the_vault_stays_unless_an_update_is_asked_for(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        identifier = await device.add("a.example", "alice", "in-the-vault", note="mine")
        await device.add("a.example", "bob", "unrelated")
        text = HEADER + "a,https://a.example/,alice,in-the-file,theirs\n"
        answer = await imported(device, text)
        assert counts(answer) == (0, 0, 0, 0)
        assert [row["row"] for row in answer.body["different"]] == [2]
        assert "in-the-file" not in shown(answer.body)
        assert (await device.item(identifier))["password"] == "in-the-vault"
        assert counts(await imported(device, text, update=True)) == (0, 1, 0, 0)
        item = await device.item(identifier)
        assert (item["password"], item["note"]) == ("in-the-file", "mine")
        assert counts(await imported(device, text, update=True)) == (0, 0, 1, 0)


async def test_a_dry_run_reports_and_writes_nothing(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        answer = await imported(device, HEADER + "a,https://a.example/,u,p,\n", dry_run=True)
        assert counts(answer) == (1, 0, 0, 0)
        assert answer.body["applied"] is False
        assert await items(device) == []


@pytest.mark.parametrize(
    "row",
    [
        "a,https://a.example/,u\n",
        "a,https://a.example/,u,p,n,more\n",
        "a,https://a.example/,u,,\n",
        ",,u,p,\n",
        "a,https://[broken/,u,p,\n",
        'a,https://a.example/,u,"p"x,\n',
        'a,https://a.example/,u,"never closed\n',
        "a,https://a.example/," + "u" * 2000 + ",p,\n",
        "a,https://a.example/,\x1b[31mred,p,\n",
        'a,https://a.example/,"two\nlines",p,\n',
        "a,https://" + "a" * 300 + ".example/,u,p,\n",
    ],
)
async def test_one_malformed_row_and_nothing_is_imported(home: Path, rng, row: str) -> None:
    async with running(home, rng) as device:
        await device.init()
        answer = await imported(device, HEADER + "good,https://g.example/,u,good-secret,\n" + row)
        assert counts(answer) == (0, 0, 0, 0)
        assert [one["row"] for one in answer.body["rejected"]] == [3]
        assert answer.body["applied"] is False
        assert await items(device) == []
        assert "secret" not in shown(answer.body)


@pytest.mark.parametrize(
    "text",
    ["", "\n", "hello", "a,b,c\n1,2,3\n", "url,url,username,password\n", "\0", '"url', "url,username\nx,y\n"],
)
async def test_what_is_no_such_file_is_refused(home: Path, rng, text: str) -> None:
    async with running(home, rng) as device:
        await device.init()
        answer = await imported(device, text)
        assert (answer.status, answer.code) == (422, "format")


async def test_values_that_look_like_code_stay_values(home: Path, rng) -> None:
    hostile = [
        '=HYPERLINK("x")',
        "'; DROP TABLE versions; --",
        "\x1b[31mred",
        "a\u202eb",
        "\t",
        "{{7*7}}",
        "\U0001f511",
    ]
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(["name", "url", "username", "password", "note"])
    for number, value in enumerate(hostile):
        name = value if value.isprintable() else "plain"
        writer.writerow([name, f"https://s{number}.example/", name, value, value])
    async with running(home, rng) as device:
        await device.init()
        assert counts(await imported(device, file.getvalue())) == (len(hostile), 0, 0, 0)
        for number, value in enumerate(hostile):
            item = good(await device.lookup(f"s{number}.example"))
            assert (item["password"], item["note"]) == (value, value)
            assert item["username"] in (value, "plain")


async def test_what_is_too_long_for_the_socket_is_refused(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        answer = await imported(device, HEADER + "x" * (32 * 1024 * 1024))
        assert (answer.status, answer.code) == (400, "usage")


async def test_an_import_that_fails_half_way_leaves_nothing(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        database = device.daemon.database.connection
        pages = database.execute("PRAGMA page_count").fetchone()[0]
        text = HEADER + "".join(f"s{n},https://s{n}.example/,u,p{n},{'n' * 2000}\n" for n in range(200))
        await device.daemon.event("test", {})  # the writer is idle again: its connection may be asked
        database.execute(f"PRAGMA max_page_count = {pages + 20}")
        answer = await imported(device, text)
        assert (answer.status, answer.code) == (507, "disk-full")
        assert await items(device) == []
        database.execute("PRAGMA max_page_count = 1000000")
        assert counts(await imported(device, text)) == (200, 0, 0, 0)


async def test_thousands_of_rows_are_one_transaction_and_take_seconds(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        before = (await device.get("/v1/status"))["events"]
        text = HEADER + "".join(f"s{n},https://s{n}.example/,u,p{n},\n" for n in range(2000))
        assert counts(await imported(device, text)) == (2000, 0, 0, 0)
        told = await device.events(since=before)
        assert [(event["type"], event["count"]) for event in told] == [("item", 2000)]
        assert (await device.get("/v1/items", limit=1))["next"]


@given(text=st.text(alphabet='",\n\r\x00abcé', max_size=60))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_text_brings_the_reader_down(text: str) -> None:
    from meshd.errors import FormatError
    from meshd.profile.apps import chrome_csv

    try:
        logins, _ = chrome_csv.read("url,username,password\n" + text)
    except FormatError:
        return
    assert all(login.password for login in logins)
