"""`meshctl recovery …`: shares in files and on the screen, checked, rehearsed, replaced."""

from __future__ import annotations

import json
import stat
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from harness.local_api import MASTER, Device, running
from harness.shell import Run, Shell, secret_file
from meshd.localapi.errors import ATTACK, DENIED, ERROR, OK, USAGE


class Person:
    """Somebody at a terminal, and the device there."""

    def __init__(self, device: Device, home: Path) -> None:
        self.device, self.home = device, home
        self.shell = Shell(home)
        self.master = secret_file(home, "master", MASTER)

    async def __call__(self, *argv: str, **how: Any) -> Run:
        return await trio.to_thread.run_sync(partial(self.shell, *argv, **how))

    async def create(self, folder: str, *argv: str, command: str = "create") -> Run:
        out = ("--out", str(self.home / folder))
        return await self("recovery", command, *out, "--master-passphrase-file", self.master, *argv)

    def files(self, folder: str) -> list[str]:
        return sorted(str(path) for path in (self.home / folder).iterdir())


@pytest.fixture
async def person(home: Path, rng: Callable[[int], bytes]) -> AsyncIterator[Person]:
    async with running(home, rng) as device:
        await device.init()
        yield Person(device, home)


async def test_shares_go_into_files_that_nobody_else_reads_and_pass_every_check(person: Person) -> None:
    made = await person.create("a", "--shares", "3", "--threshold", "2", "--label", "mum,safe,lawyer", "--json")
    assert made.code == OK, made.err
    assert made.json["files"] == person.files("a")
    assert {stat.S_IMODE(Path(name).stat().st_mode) for name in person.files("a")} == {0o600}
    words = Path(person.files("a")[0]).read_text()
    assert "RECOVERY SHARE 1 of 3: mum" in words
    assert not {line for line in words.splitlines() if line[:1] != "#" and line.strip()} & set(made.out.splitlines())
    checked = await person("recovery", "check-share", "--share-file", person.files("a")[1])
    assert (checked.code, checked.err) == (OK, "Share 2 of 3 of this mesh (safe), current.\n")
    few = await person("recovery", "drill", "--share-file", person.files("a")[2])
    assert (few.code, "1 more" in few.err) == (ERROR, True)
    drilled = await person("recovery", "drill", "--share-file", person.files("a")[0], "--json")
    assert (drilled.code, drilled.json["success"]) == (OK, True), drilled.out
    status = await person("recovery", "status")
    assert "2 of 3" in status.out
    assert "it went well" in status.out


async def test_refreshed_shares_replace_the_old_ones(person: Person) -> None:
    assert (await person.create("a", "--shares", "3", "--threshold", "2")).code == OK
    again = await person.create("b")
    assert (again.code, "refresh" in again.err) == (ERROR, True)
    assert not (person.home / "b").exists()
    assert (await person.create("c", command="refresh")).code == OK
    assert len(person.files("c")) == 3
    assert "needed: 2 of 3" in Path(person.files("c")[0]).read_text()
    assert (await person.create("d", "--shares", "5", command="refresh")).code == OK
    assert "needed: 3 of 5" in Path(person.files("d")[4]).read_text()
    old = await person("recovery", "check-share", "--share-file", person.files("a")[0])
    assert (old.code, "replaced" in old.err) == (ATTACK, True)
    gone = await person("recovery", "revoke", "--yes", "--master-passphrase-file", person.master)
    assert gone.code == OK
    assert "no recovery shares" in (await person("recovery", "status")).err


async def test_groups_and_a_passphrase(person: Person) -> None:
    secret = secret_file(person.home, "secret", "of the shares")
    groups = ("--group", "family:2of3", "--group", "lawyer:1of1", "--share-passphrase-file", secret)
    made = await person.create("a", *groups, "--json")
    assert made.code == OK, made.err
    assert (
        "2 of these groups: 2 of 3 family, 1 of 1 lawyer, and their passphrase"
        in Path(person.files("a")[0]).read_text()
    )
    family, lawyer = person.files("a")[:3], person.files("a")[3]
    for name, wanted in ((family[0], "1 more of group 1, the shares of 1 more group"), (lawyer, "1 more of group 1")):
        few = await person("recovery", "drill", "--share-file", name)
        assert few.code == ERROR
        assert f"{wanted}; 2 of the 2 groups are needed" in few.err
    wrong = secret_file(person.home, "wrong", "not it")
    check = ("--check", made.json["check"])
    tried = ("recovery", "drill", "--share-file", family[1], *check, "--share-passphrase-file")
    assert (await person(*tried, wrong)).code == DENIED
    assert (await person(*tried, secret)).code == OK
    again = await person.create("b", command="refresh")
    assert again.code == OK
    assert [Path(name).name[11:] for name in person.files("b")] == [Path(name).name[11:] for name in person.files("a")]


async def test_pages_have_the_words_and_a_picture_of_them(person: Person) -> None:
    pages = ("recovery", "create", "--pages", str(person.home / "p"), "--master-passphrase-file", person.master)
    assert (await person(*pages)).code == OK
    page = Path(person.files("p")[0])
    assert page.suffix == ".html"
    assert "<svg" in page.read_text()
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    read = await person("recovery", "check-share", "--share-file", str(page))
    assert (read.code, read.err) == (OK, "Share 1 of 5 of this mesh (share 1), current.\n")


async def test_of_several_files_each_is_named_and_what_is_no_text_is_said_to_be_none(person: Person) -> None:
    typed = await person("recovery", "drill", tty=True)
    assert (typed.code, "no recovery shares" in typed.err) == (ERROR, True)
    assert (await person.create("a")).code == OK
    first, second = person.files("a")[:2]
    other = Path(second)
    other.write_text(other.read_text().replace(" 1. ", " 1. zzz", 1))
    seen = await person("recovery", "check-share", "--share-file", first, "--share-file", second)
    assert seen.code == ATTACK
    assert [line.partition(": ")[0] for line in seen.err.splitlines()] == [first, second]
    assert "the word at 1 of 33" in seen.err
    zeros = secret_file(person.home, "zeros", "\0" * 70000)
    assert (await person("recovery", "check-share", "--share-file", zeros)).code == USAGE


async def test_without_a_place_for_shares_none_are_made(person: Person) -> None:
    made = await person("recovery", "create", "--master-passphrase-file", person.master)
    assert made.code == USAGE
    (person.home / "a").write_text("no folder")
    made = await person.create("a")
    assert made.code == USAGE
    assert (await person("recovery", "status", "--json")).json["entries"] == []


async def test_on_a_terminal_each_share_has_a_screen_that_is_wiped(person: Person) -> None:
    create = ("recovery", "create", "--shares", "3", "--threshold", "2", "--master-passphrase-file", person.master)
    refused = await person(*create, tty=True, stdin="\n\n\nn\n")
    assert refused.code == DENIED
    assert (await person("recovery", "status", "--json")).json["entries"] == []
    made = await person(*create, tty=True, stdin="\n\n\ny\n")
    assert made.code == OK, made.err
    screens = made.out.split("\x1b[?1049h")
    assert len(screens) == 4
    for screen in screens[1:]:
        words, _, rest = screen.partition("\x1b[2J\x1b[H\x1b[?1049l")
        assert "RECOVERY SHARE" in words
        assert "RECOVERY SHARE" not in rest


async def test_a_share_is_typed_with_four_letters_and_mended(person: Person) -> None:
    assert (await person.create("a", "--shares", "3", "--threshold", "2")).code == OK
    text = Path(person.files("a")[0]).read_text()
    plain = " ".join(line for line in text.splitlines() if line[:1] != "#")
    words = [word for word in plain.split() if word.isalpha()]
    short = "\n".join(word[:4] for word in words) + "\n"
    seen = await person("recovery", "check-share", tty=True, stdin=short)
    assert (seen.code, "current" in seen.err) == (OK, True)
    wrong = "acid" if words[9] != "acid" else "acne"
    typed = "\n".join([*words[:9], wrong, *words[10:]]) + f"\n10 {words[9]}\n"
    seen = await person("recovery", "check-share", tty=True, stdin=typed)
    assert (seen.code, "current" in seen.err) == (OK, True), seen.err
    assert f"word 10 is {wrong}; perhaps {words[9]}?" in seen.out
    given_up = await person("recovery", "check-share", tty=True, stdin=typed.replace(f"10 {words[9]}\n", "\n"))
    assert given_up.code == ATTACK
    written = secret_file(person.home, "mistyped", "\n".join([*words[:9], wrong, *words[10:]]))
    shown = await person("recovery", "check-share", "--share-file", written, tty=True, stdin="\n")
    assert f"word 10: perhaps {words[9]}" in shown.out
    twice = "\n".join([*words[:9], words[8], *words[9:32]]) + f"\n10 -\n{words[32]}\n"
    seen = await person("recovery", "check-share", tty=True, stdin=twice)
    assert (seen.code, "current" in seen.err) == (OK, True), seen.out
    for seen in (given_up, shown):
        assert "the word at 10" in seen.err
        assert not {*words[4:], wrong} & {*seen.err.split(), *seen.out.rpartition("\x1b[?1049l")[2].split()}
    unseen = await person("recovery", "check-share", "--share-file", written)
    assert words[9] not in unseen.out + unseen.err


# --- shares of 2016 ---------------------------------------------------------------------------------------------------

VECTORS_2016 = Path(__file__).parents[1] / "vectors" / "mesh2016"


@pytest.fixture
async def newcomer(home: Path, rng: Callable[[int], bytes]) -> AsyncIterator[Person]:
    """In no mesh."""
    async with running(home, rng) as device:
        yield Person(device, home)


def intended(home: Path) -> tuple[str, list[str], list[str]]:
    """The file of an entry of 2016, its shares, and the fingerprints of its keys."""
    vector = json.loads((VECTORS_2016 / "fresh-escrow-intended.json").read_text())["vectors"][0]
    (home / "entry.json").write_text(json.dumps(vector["entry"]))
    keys = json.loads(vector["plaintext"], strict=False)["EscrowedKeySet"]["PrivateKeys"]
    return str(home / "entry.json"), vector["shares"], [key["kid"] for key in keys]


async def test_shares_of_2016_give_the_old_master_keys_without_a_mesh(newcomer: Person) -> None:
    entry, given, fingerprints = intended(newcomer.home)
    held = secret_file(newcomer.home, "shares", f"# of 2016\n{given[0]}\n\n{given[2]}\n")
    named = await newcomer("recovery", "open-2016", "--share-file", held)
    assert (named.code, named.out) == (OK, "MDZQ6-P5LB5-J4TEQ-BEIPI-VYO63-EXFI7\n")
    shown = await newcomer("recovery", "open-2016", "--share-file", held, "--entry", entry)
    assert shown.code == OK
    assert all(fingerprint in shown.out for fingerprint in fingerprints)
    out = newcomer.home / "keys.pem"
    wrote = await newcomer("recovery", "open-2016", "--share-file", held, "--entry", entry, "--out", str(out), "--json")
    assert [key["fingerprint"] for key in wrote.json["keys"]] == fingerprints
    assert wrote.json["files"] == [str(out)]
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert out.read_text().count("BEGIN PRIVATE KEY") == 2
    assert "PRIVATE KEY" not in wrote.out + shown.out
    again = await newcomer("recovery", "open-2016", "--share-file", held, "--entry", entry, "--out", str(out))
    assert (again.code, "exists" in again.err) == (USAGE, True)


async def test_shares_of_2016_are_typed_on_the_other_screen(newcomer: Person) -> None:
    entry, given, fingerprints = intended(newcomer.home)
    typed = f"{given[1].lower()}\n{given[0]}\n\n"
    seen = await newcomer("recovery", "open-2016", "--entry", entry, tty=True, stdin=typed)
    assert (seen.code, fingerprints[0] in seen.out) == (OK, True)
    assert given[0] not in seen.out.rpartition("\x1b[?1049l")[2]


async def test_what_is_wrong_with_shares_of_2016_is_named(newcomer: Person) -> None:
    entry, given, _ = intended(newcomer.home)
    (newcomer.home / "empty.json").write_text("{}")
    capture = json.loads((VECTORS_2016 / "captures" / "reference-mar2016.json").read_text())
    (newcomer.home / "mesh.jlog").write_text(capture["mesh_jlog"])
    at = 20
    wrong = given[1][:at] + ("A" if given[1][at] != "A" else "B") + given[1][at + 1 :]
    tried = {
        "1 more": (given[:1], entry),
        "Share 2: Group 1 has 4 letters": ([given[0], given[1][1:]], entry),
        "One letter is wrong": ([given[0], wrong], entry),
        "not for this entry": (given[:2], str(newcomer.home / "mesh.jlog")),
        "threw away": (capture["escrow_shares"][:2], str(newcomer.home / "mesh.jlog")),
        "no recovery entry": (given[:2], str(newcomer.home / "empty.json")),
    }
    for told, (lines, file) in tried.items():
        held = secret_file(newcomer.home, "shares", "\n".join(lines))
        seen = await newcomer("recovery", "open-2016", "--share-file", held, "--entry", file)
        assert told in seen.err
        assert seen.code == (OK if told == "One letter is wrong" else ERROR)
    assert (await newcomer("recovery", "open-2016", "--share-file", entry, "--out", "x")).code == USAGE
    assert (await newcomer("recovery", "open-2016")).code == USAGE
