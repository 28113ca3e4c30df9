"""`make demo`: four devices and a portal on this machine, from nothing to a synced vault, in about a minute.

Every command is run as it is shown, with the programs that a person installs, and what they print is shown as it comes;
what must be true after it is checked, and the demo ends with 1 where it is not. The devices are three homes in a
temporary directory; they find each other by multicast DNS on the loopback interface. Nothing is left behind.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness.daemons import DaemonError, Device, Household, lines
from harness.portal_process import PortalProcess

EXPORT = Path(__file__).parents[1] / "data" / "chrome-export.csv"
SITE = "github.com"
ACCOUNT = "alice@example.net"
WIDTH = 100
BOLD, DIM, GREEN, RED, PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[31m", "\x1b[0m"


class WrongError(Exception):
    """Something is not as it should be."""


class Stage:
    """What the audience sees. Colours on a terminal only."""

    def __init__(self) -> None:
        self._colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self._acts = 0

    def _print(self, text: str, style: str = "") -> None:
        print(f"{style}{text}{PLAIN}" if style and self._colours else text, flush=True)

    def act(self, title: str) -> None:
        self._acts += 1
        self._print(f"\n{self._acts}. {title}\n", BOLD)

    def say(self, text: str) -> None:
        """A line of explanation."""
        self._print(textwrap.fill(text, WIDTH, initial_indent="# ", subsequent_indent="# "), DIM)

    def command(self, device: str, text: str) -> None:
        self._print(f"{device}$ {text}", BOLD)

    def output(self, text: str) -> None:
        """What a command printed; the columns of a list aligned, as a terminal shows them."""
        rows = [line.split("\t") for line in text.splitlines()]
        widths: dict[int, int] = {}
        for row in rows:
            for place, cell in enumerate(row[:-1]):
                widths[place] = max(widths.get(place, 0), len(cell))
        for row in rows:
            cells = [cell.ljust(widths[place]) for place, cell in enumerate(row[:-1])]
            self._print("  ".join([*cells, row[-1]]).rstrip())

    def right(self, text: str) -> None:
        """Something that was checked."""
        self._print(f"✓ {text}", GREEN)

    def wrong(self, text: str) -> None:
        self._print(f"✗ {text}", RED)

    def plain(self, text: str) -> None:
        self._print(text)


class Actor:
    """A device on the stage: what it runs is shown."""

    def __init__(self, stage: Stage, device: Device) -> None:
        self.stage, self.device, self.name = stage, device, device.name

    def meshd(self, *options: str) -> None:
        """Start the daemon."""
        words = [*(() if "--no-lan" in options else ("--interface", "lo")), *options]
        self.stage.command(self.name, f"meshd {' '.join(words)} &")
        self.device.options = ()
        self.device.start(*words)

    def quits(self) -> None:
        self.stage.command(self.name, "kill %meshd")
        self.device.stop()

    def __call__(self, *words: str, given: Path | None = None, code: int = 0) -> str:
        """Run meshctl with these words, `given` being the file on its stdin; what it printed on stdout."""
        self.stage.command(self.name, f"meshctl {' '.join(words)}" + (f" < {given.name}" if given else ""))
        with given.open() if given else open(os.devnull) as stdin:
            done = subprocess.run(
                self.device.command(*words),
                stdin=stdin,
                capture_output=True,
                text=True,
                cwd=self.device.home.parent,
                timeout=120,
            )
        self.stage.output(done.stderr + done.stdout)
        if done.returncode != code:
            raise WrongError(f"that ended with exit code {done.returncode}, and should have with {code}")
        return done.stdout

    def password(self, site: str) -> str:
        return self("password", "get", site).removesuffix("\n")


class Demo:
    def __init__(self, stage: Stage, house: Household) -> None:
        self.stage, self.directory = stage, house.directory
        self.laptop, self.desktop, self.phone = (
            Actor(stage, house.device(name)) for name in ("laptop", "desktop", "phone")
        )
        self.tablet = Actor(stage, house.device("tablet"))
        self.actors = (self.laptop, self.desktop, self.phone)
        self.portal = PortalProcess(house.directory / "portal")
        for actor in (*self.actors, self.tablet):
            self.file(f"{actor.name}.passphrase", f"only {actor.name} knows this one")
        self.file("master.passphrase", "six words that lie in a drawer")
        shutil.copy(EXPORT, self.directory / "passwords.csv")

    def file(self, name: str, line: str) -> Path:
        """A private file in the directory where the commands run."""
        path = self.directory / name
        path.touch(0o600)
        path.write_text(line + "\n")
        return path

    def check(self, condition: bool, text: str) -> None:
        if not condition:
            raise WrongError(f"this is not so: {text}")
        self.stage.right(text)

    def run(self) -> None:
        stage = self.stage
        stage.plain("meshd keeps a person's passwords and keys in step across their own devices:")
        stage.plain("no server, no account, no internet. Here are a laptop, a desktop and a phone.\n")
        stage.say(
            "All three are on this machine, each with a home of its own; the --home DIR that each command has is left"
            " out below. Passphrases come from files here; on a terminal they are asked for."
        )
        acts = (self.first_device, self.second_device, self.both_ways, self.third_device, self.apart, self.killed)
        for act in (*acts, self.at_a_distance):
            act()

    def first_device(self) -> None:
        self.stage.act("The laptop: a new mesh, and the passwords that Chrome had")
        self.stage.say("meshd runs on each device; meshctl tells it what to do.")
        self.laptop.meshd()
        self.stage.say("The device's passphrase opens its keys. The master's is needed only to add or remove an admin.")
        self.laptop(
            *("init", "--name", "laptop", "--passphrase-file", "laptop.passphrase"),
            *("--master-passphrase-file", "master.passphrase"),
        )
        self.stage.say("A file as Chrome exports it: all rows are taken, or none if one can't be read.")
        self.laptop("password", "import", "passwords.csv")
        count = len(self.laptop.device.titles())
        self.check(count >= 300, f"the vault holds {count} logins")

    def second_device(self) -> None:
        self.stage.act("The desktop joins by a code")
        self.desktop.meshd()
        self.stage.say("The laptop shows a code, good for five minutes and one device, and waits.")
        self.stage.command("laptop", "meshctl invite")
        invite = self.laptop.device.background("invite")
        try:
            said = lines(invite)
            code = next(said, "")
            self.stage.output(code)
            if invite.poll() is not None or len(code.split("-")) < 3:
                raise WrongError("that is no code")
            self.stage.say(
                "The desktop finds the laptop on the LAN. Both prove that they know the code, without saying it."
            )
            began = time.monotonic()
            self.desktop("connect", code, "--name", "desktop", "--passphrase-file", "desktop.passphrase")
            self.stage.say("… and the laptop says who joined:")
            self.stage.output("\n".join(said))
            if invite.wait(30):
                raise WrongError(f"meshctl invite ended with {invite.returncode}")
        finally:
            if invite.poll() is None:
                invite.kill()
            invite.communicate()
        self.desktop("wait", "--synced", "--peer", "laptop")
        took = time.monotonic() - began
        self.check(
            self.desktop.password(SITE) == "correct-Horse7battery",
            f"the desktop has the laptop's password, {took:.1f} s after the code was typed",
        )
        self.check(self.desktop.device.titles() == self.laptop.device.titles(), "and everything else that was imported")

    def both_ways(self) -> None:
        self.stage.act("A change on one is a moment later on the other")
        new = self.file("new-password", "changed-on-the-desktop")
        self.stage.say("A new password is asked for on the terminal, or is the first line of stdin; never an argument.")
        self.desktop("password", "edit", SITE, given=new)
        self.desktop("wait", "--synced")
        self.check(self.laptop.password(SITE) == "changed-on-the-desktop", "the laptop has it")
        self.laptop("password", "add", "--site", "harbour.example", "--username", "alice", "--generate")
        self.laptop("wait", "--synced")
        made = self.laptop.device.password("harbour.example")
        self.check(self.desktop.password("harbour.example") == made, "and the other way round")

    def third_device(self) -> None:
        self.stage.act("A phone joins too, and syncs with whoever is there")
        self.phone.meshd()
        code = self.laptop("invite", "--no-wait").strip()
        self.phone("connect", code, "--name", "phone", "--passphrase-file", "phone.passphrase")
        self.phone("wait", "--synced", "--peer", "laptop")
        self.stage.say(
            "Now the laptop leaves: a train without a network. Passwords stay in reach, once it is unlocked."
        )
        self.laptop.quits()
        self.laptop.meshd("--no-lan")
        self.laptop("password", "get", SITE, code=5)
        self.laptop("unlock", "--passphrase-file", "laptop.passphrase")
        self.check(self.laptop.password(SITE) == "changed-on-the-desktop", "what it had, it has")
        self.stage.say("At home the desktop changes a password, and the phone gets it without the laptop.")
        self.desktop("password", "edit", SITE, given=self.file("new-password", "changed-at-home"))
        self.desktop("wait", "--synced", "--peer", "phone")
        self.check(self.phone.password(SITE) == "changed-at-home", "the phone has it from the desktop")

    def apart(self) -> None:
        self.stage.act("The same login was changed on two devices apart")
        self.stage.say("On the train somebody changes that very password.")
        self.laptop("password", "edit", SITE, given=self.file("new-password", "changed-on-the-train"))
        self.stage.say("The laptop comes home. Nothing is overwritten: both versions are kept, on all three.")
        self.laptop.quits()
        self.laptop.meshd()
        self.laptop("unlock", "--passphrase-file", "laptop.passphrase")
        self.laptop("wait", "--synced", "--peer", "desktop")
        self.laptop("wait", "--synced", "--peer", "phone")
        self.phone("status")
        for actor in self.actors:
            self.conflicts(actor, 1)
        self.check(True, "each device says that there is one conflict")
        self.stage.say("One of the two counts until somebody decides, and it is the same one everywhere.")
        found = [actor.password(SITE) for actor in self.actors]
        self.check(
            len(set(found)) == 1 and found[0] in ("changed-at-home", "changed-on-the-train"),
            f"all three show {found[0]}",
        )
        identifier = self.desktop.device.json("conflicts", "list")["conflicts"][0]["id"]
        shown = self.desktop("conflicts", "show", identifier, "--reveal")
        self.check(
            "changed-at-home" in shown and "changed-on-the-train" in shown, "both passwords are there to look at"
        )
        self.stage.say("An edit settles it, for everybody.")
        self.desktop("password", "edit", SITE, given=self.file("new-password", "settled"))
        for name in ("laptop", "phone"):
            self.desktop("wait", "--synced", "--peer", name)
        self.check(
            [actor.device.password(SITE) for actor in self.actors] == ["settled"] * 3, "all three have the new one"
        )
        for actor in self.actors:
            self.conflicts(actor, 0)
        self.desktop("status")

    def conflicts(self, actor: Actor, count: int) -> None:
        found = actor.device.status()["conflicts"]
        if found != count:
            raise WrongError(f"{actor.name} says that {found} logins are in conflict, and should say {count}")

    def killed(self) -> None:
        self.stage.act("A daemon dies in the middle of writing: kill -9")
        self.stage.say("What a command has acknowledged is on disk, so the crash can't take it.")
        site = "shop-$n.example"
        self.stage.command(
            "desktop",
            f"for n in $(seq 100); do meshctl password add --site {site} --username alice --generate || break; done &",
        )
        acknowledged, last = self.add_until_killed(12)
        self.stage.command("desktop", "kill -9 %meshd")
        self.stage.output(last)
        self.stage.say(f"{len(acknowledged)} of them were acknowledged before that. The desktop starts again:")
        self.desktop.meshd()
        self.desktop("unlock", "--passphrase-file", "desktop.passphrase")
        self.desktop("wait", "--synced", "--peer", "laptop")
        for actor in (self.desktop, self.laptop):
            held = actor.device.json("password", "list", "shop-")["items"]
            self.check(
                acknowledged <= {item["sites"][0] for item in held}, f"all {len(acknowledged)} are on the {actor.name}"
            )
        for actor in self.actors:
            self.conflicts(actor, 0)

    def at_a_distance(self) -> None:
        self.stage.act("A portal, for devices that never share a network")
        self.stage.say("Nobody needs one. It holds ciphertext, and here it is a process on this machine.")
        self.stage.command("server", "meshd portal --domain example.net --data portal --insecure-http &")
        if self.portal.start() is not None:
            raise WrongError(self.portal.log.read_text())
        reach = ["--address", f"127.0.0.1:{self.portal.port}", "--insecure-http"]
        self.laptop("portal", "add", ACCOUNT, *reach)
        self.laptop("wait", "--synced", "--portal")
        self.stage.say(
            "A tablet far away asks to join. Each side shows the other's fingerprint; here the mesh's is given along."
        )
        self.tablet.meshd("--no-lan")
        mesh = self.laptop.device.json("whoami")["mesh"]
        words = ["connect", ACCOUNT, *reach, "--fingerprint", mesh, "--name", "tablet", "--passphrase-file"]
        self.stage.command("tablet", f"meshctl {' '.join(words)} tablet.passphrase &")
        joining = self.tablet.device.background(*words, self.directory / "tablet.passphrase")
        pending: list[dict[str, Any]] = []
        while not pending:
            if joining.poll() is not None:
                raise WrongError(f"the tablet gave up: {joining.communicate()[0]}")
            pending = self.laptop.device.json("pending")["pending"]
        self.laptop("pending")
        self.laptop("accept", pending[0]["id"][:11], "--yes")
        said, _ = joining.communicate(timeout=60)
        self.stage.output(said)
        if joining.returncode != 0:
            raise WrongError("the tablet was not connected")
        self.tablet("wait", "--synced", "--portal")
        self.check(self.tablet.password(SITE) == self.laptop.password(SITE), "the tablet has what the laptop has")
        self.tablet("password", "edit", SITE, given=self.file("new-password", "changed-far-away"))
        self.tablet("wait", "--synced", "--portal")
        self.laptop("wait", "--synced", "--portal")
        self.check(self.laptop.password(SITE) == "changed-far-away", "and the laptop what was changed far away")

    def add_until_killed(self, least: int) -> tuple[set[str], str]:
        """Add logins one by one, and kill the daemon during one of them; their sites, and what the last said."""
        acknowledged: set[str] = set()
        enough, said = threading.Event(), []
        device = self.desktop.device

        def write() -> None:
            for number in range(1, 101):
                site = f"shop-{number}.example"
                done = device.run("password", "add", "--site", site, "--username", "alice", "--generate", code=None)
                if done.returncode:
                    said.append(done.stderr)
                    break
                acknowledged.add(site)
                if len(acknowledged) >= least:
                    enough.set()

        writer = threading.Thread(target=write)
        writer.start()
        try:
            if not enough.wait(60):
                raise WrongError(f"only {len(acknowledged)} logins could be added")
        finally:
            device.kill()
            writer.join()
        return acknowledged, said[0] if said else ""

    def close(self) -> None:
        """Stop what runs; a daemon that does not stop by itself is a failure too."""
        for actor in (*self.actors, self.tablet):
            if actor.device.process is not None:
                actor.quits()
        self.stage.command("server", "kill %meshd")
        if self.portal.stop() != 0:
            raise WrongError("the portal did not stop in peace")


NEXT = """
That was everything with real programs; nothing of it is running any more, and its files are gone.

On your own devices (docs/ops/install.md):
  meshd &                                    on each of them, or the systemd user unit
  meshctl init --name laptop                 on the first
  meshctl password import passwords.csv      what your browser exports
  meshctl invite                             … shows a code
  meshctl connect CODE --name desktop        on the next
  meshctl status                             how things stand, and what to do if something is wrong
Every command: docs/ops/meshctl.md. What it protects against, and what not: docs/attacks.md."""


def main() -> int:
    stage = Stage()
    began = time.monotonic()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # so that what runs is stopped then too
    os.umask(0o077)
    house = Household()
    try:
        with house:
            demo = Demo(stage, house)
            try:
                demo.run()
                stage.act("The end")
                demo.close()
            finally:
                demo.portal.end()
    except (WrongError, DaemonError, subprocess.TimeoutExpired, OSError) as exc:
        stage.wrong(str(exc))
        for note in getattr(exc, "__notes__", ()):
            stage.plain(note)
        return 1
    except KeyboardInterrupt:
        stage.wrong("broken off; nothing is left running")
        return 130
    if (
        any(actor.device.running for actor in (*demo.actors, demo.tablet))
        or (demo.portal.process is not None and demo.portal.process.poll() is None)
        or house.directory.exists()
    ):
        stage.wrong("something was left behind")
        return 1
    stage.plain(NEXT)
    stage.plain(f"\nIt took {time.monotonic() - began:.0f} seconds.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
