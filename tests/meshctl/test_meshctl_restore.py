"""`meshctl recovery restore` at a terminal: shares typed by hand, today and tomorrow, mended, refused, and used."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from harness import devices as harness
from harness.devices import Device
from harness.lan import MemoryLan
from harness.local_api import running
from harness.portal_http import HttpPortal
from harness.shell import Run, Shell, secret_file
from harness.whole import alive
from meshd.daemon import masterkeys, recovering
from meshd.localapi.errors import ERROR, OK, USAGE
from meshd.profile import shares
from meshd.profile.claim import Role
from meshd.profile.shares import Scheme, Share

pytestmark = pytest.mark.draft("Master profile recovery")

ROOT = Path(__file__).parents[2]
LEAVE = "\x1b[?1049l"
SCHEME = Scheme.simple(2, 3)


@dataclass
class World:
    """A mesh with a portal, its shares, and somebody at a terminal of any device."""

    home: Path
    lan: MemoryLan
    portal: HttpPortal
    laptop: Device
    given: list[Share]

    def words(self, number: int) -> list[str]:
        return self.given[number].mnemonic.split()

    def typed(self, number: int) -> str:
        """A share as it is typed: four letters of each word, on one line."""
        return " ".join(word[:4] for word in self.words(number)) + "\n"

    def blank(self, name: str) -> Device:
        return harness.blank(self.home, self.lan, name)

    async def at(self, device: Device, *argv: str, **how: Any) -> Run:
        return await trio.to_thread.run_sync(partial(Shell(device.home), *argv, **how))

    async def restore(self, device: Device, typed: str, *argv: str, types: tuple[str, ...] = ()) -> Run:
        seen = await self.at(device, "recovery", "restore", *argv, tty=True, stdin=typed, types=types)
        for screen in seen.out.split(LEAVE)[1:]:
            after = screen.partition("\x1b[?1049h")[0]
            assert not set(after.split()) & {word for one in (0, 1, 2) for word in self.words(one)[4:]}
        return seen

    def new_device(self, *more: str) -> tuple[str, ...]:
        """How a newcomer answers all but the shares."""
        passphrases = {name: secret_file(self.home, name, f"the {name} secret") for name in ("device", "master")}
        files = ("--passphrase-file", passphrases["device"], "--master-passphrase-file", passphrases["master"])
        return (*files, "--account", "alice@example.net", "--insecure-http", "--name", "new", *more)


@asynccontextmanager
async def world(home: Path) -> AsyncIterator[World]:
    lan, portal = MemoryLan(), HttpPortal(now=lambda: int(time.time()))
    laptop = harness.blank(home, lan, "laptop")
    try:
        await harness.found(laptop)
        await laptop.add("github.com", "alice", "first")
        given = await new_shares(laptop)
        async with trio.open_nursery() as nursery:
            await nursery.start(portal.run)
            async with alive(laptop, portal) as api:
                await api.post("/v1/portals", account="alice@example.net", plain=True)
                assert api.app.online is not None
                portals = api.app.online.portals.running
                await laptop.until(lambda: bool(portals) and all(one.in_step for one in portals.values()))
            yield World(home, lan, portal, laptop, given)
            nursery.cancel_scope.cancel()
    finally:
        laptop.daemon.close()


async def new_shares(device: Device, *, replaces: bool = False) -> list[Share]:
    key = await masterkeys.unseal(device.daemon, "master passphrase")
    prepared, told, _ = await recovering.prepare(device.daemon, key, recovering.Wish(SCHEME, replaces=replaces))
    await device.daemon.write(lambda pen: recovering.commit(pen, key, prepared))
    return told


async def test_shares_typed_on_different_days_bring_the_mesh_back(home: Path) -> None:
    async with world(home) as there:
        new = there.blank("new")
        try:
            async with alive(new, there.portal):
                today = await there.restore(new, there.typed(2) + "n\n", *there.new_device())
                assert today.code == ERROR
                assert "1 share given, needed: 1 more" in today.err
                assert not new.daemon.snapshot.connected
                there.portal.down = True
                tried = await there.restore(new, there.typed(0), *there.new_device())
                assert tried.code == ERROR
                assert "1 share given so far" in tried.err
                there.portal.down = False
                tomorrow = await there.restore(new, "n\n", *there.new_device())
                assert tomorrow.code == OK, tomorrow.err
                assert "2 shares given so far" in tomorrow.err
                assert "Is laptop lost?" in tomorrow.err
                assert "make new ones now" in tomorrow.err
                assert set(new.passwords().values()) == {"first"}
                again = await there.at(new, "recovery", "restore")
                assert (again.code, "nobody to type" in again.err) == (USAGE, True), "they are forgotten now"
        finally:
            new.daemon.close()


async def test_a_word_is_put_right_while_it_is_typed_and_afterwards(home: Path) -> None:
    async with world(home) as there:
        new = there.blank("new")
        words, wrong = there.words(0), ["zero" if word != "zero" else "acid" for word in there.words(0)]
        numbered = " ".join(f"{place}. {word}" for place, word in enumerate(words[:5], 1))
        lines = [
            numbered,
            f"{wrong[5]} {words[6]}",
            f"6 {words[5]}",  # seen in time
            "xyzzy",
            f"{words[6]} {words[6]}",  # one twice
            "-",
            "-",
            "99 acid",
            f"{words[7]}",
            f"{' '.join(words[8:20])} {wrong[20]} {' '.join(words[21:])}",
            "nonsense",
            f"21 {words[20]}",
        ]
        try:
            async with alive(new, there.portal):
                typed = "\n".join(lines) + "\ny\n" + there.typed(1)
                seen = await there.restore(new, typed, *there.new_device("--yes"))
                assert seen.code == OK, seen.out
                for told in (
                    "word 8, xyzzy, is not in the list: go on from it",
                    "taken back: word 9",
                    "99 is the number of no word from 1 to 8",
                    "nonsense: for which word? Put its number before it",
                    f"word 21 is {wrong[20]}; perhaps {words[20]}?",
                ):
                    assert told in seen.out
        finally:
            new.daemon.close()


async def test_a_share_twice_or_of_another_set_is_named_at_once(home: Path) -> None:
    async with world(home) as there:
        new = there.blank("new")
        there.given += await new_shares(there.laptop, replaces=True)
        try:
            async with alive(new, there.portal):
                typed = there.typed(0) + "y\n" + there.typed(0) + "y\n" + there.typed(4) + "n\n"
                seen = await there.restore(new, typed, *there.new_device())
                assert seen.code == ERROR
                assert "This share was given already." in seen.err
                assert "of another set than those before" in seen.err
                assert "recovery restore --forget" in seen.err
                forgotten = await there.at(new, "recovery", "restore", "--forget", "--json")
                assert forgotten.json["given"] == 0
                other = await there.restore(new, there.typed(4) + "n\n", *there.new_device())
                assert "1 share given, needed: 1 more" in other.err
                assert not new.daemon.snapshot.connected
        finally:
            new.daemon.close()


async def test_where_only_the_admins_are_lost_a_member_becomes_the_admin_by_its_shares(home: Path) -> None:
    async with world(home) as there:
        phone = there.blank("phone")
        try:
            await harness.admit(there.laptop, phone, Role.MEMBER)
            async with trio.open_nursery() as nursery:
                await nursery.start(there.laptop.run)
                await nursery.start(phone.run)
                await phone.until_same(there.laptop)
                nursery.cancel_scope.cancel()
            there.laptop.stop()
            async with alive(phone, there.portal):
                refused = await there.restore(phone, "\n")
                assert refused.code != OK
                typed = there.typed(0) + "y\n" + there.typed(1) + "y\n"
                seen = await there.restore(phone, typed, types=("",))  # takes the phrase that is offered
                assert seen.code == OK, seen.err
                assert seen.asked == ["Master passphrase (Enter takes the one above, once it is written down): "]
                assert "removed laptop" in seen.err
                phrase = next(line.strip() for line in seen.err.splitlines() if line.startswith("    "))
                assert phone.daemon.replica.authority.admins() == {phone.udf}
                assert (await masterkeys.unseal(phone.daemon, phrase)).udf == phone.daemon.snapshot.mesh
                assert set(phone.passwords().values()) == {"first"}
        finally:
            phone.daemon.close()


def typed_on_a_terminal(home: Path, words: list[str], *argv: str) -> tuple[int, str]:
    """A real process on a real terminal: each word by four letters and Tab. Its exit code, and all that it showed."""
    master, slave = pty.openpty()
    environ = {**os.environ, "MESHD_HOME": str(home), "TERM": "xterm", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "meshctl", *argv]
    seen, place = b"", 0
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environ, start_new_session=True) as run:
        os.close(slave)
        try:
            while select.select([master], [], [], harness.PATIENCE)[0]:
                more = os.read(master, 65536)
                seen += more
                if place < len(words) and f"word {place + 1} of".encode() in seen:
                    os.write(master, words[place][:4].encode() + b"\t\r")
                    place += 1
        except OSError:  # how Linux says that the other end is closed
            pass
        finally:
            os.close(master)
            if place < len(words):
                run.kill()  # it waits for what does not come
    return run.returncode, seen.decode()


async def test_on_a_real_terminal_tab_completes_words_and_nothing_of_them_stays(
    home: Path, rng: Callable[[int], bytes]
) -> None:
    (made,) = shares.split(bytes(32), SCHEME)
    words = made[0].mnemonic.split()
    async with running(home, rng):
        code, seen = await trio.to_thread.run_sync(typed_on_a_terminal, home, words, "recovery", "check-share")
    assert code == OK, seen
    shown, _, after = seen.rpartition(LEAVE)
    assert all(word in shown for word in words), "each was completed"
    assert "The words are right." in after
    assert not ({*words} - {"device"}) & {*after.split()}, "this device is in no mesh, it says"
