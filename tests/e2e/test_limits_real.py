"""What a real machine does to a daemon: a second one on its home, other users, full and read-only disks, damaged pages,
restored backups and cloned homes. Each is told clearly, and takes nothing that was acknowledged."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.daemons import Device, Enter, Household
from meshctl.client import path
from meshd.store.db import PAGE_SIZE

pytestmark = pytest.mark.e2e

ALARMS = {"cloned", "fork"}


@pytest.fixture
def house() -> Iterator[Household]:
    with Household() as made:
        yield made


def device_with_a_mesh(house: Household) -> Device:
    device = house.device("laptop")
    device.start("--no-lan")
    device.init()
    return device


def alarms(device: Device) -> set[str]:
    return device.health() & ALARMS


# --- who else --------------------------------------------------------------------------------------------------------


def test_a_second_daemon_on_one_home_is_refused_and_the_first_goes_on(house: Household) -> None:
    device = device_with_a_mesh(house)
    device.add("github.com", "kept")
    assert device.process is not None
    second = Device("second", device.home, enter=None, options=("--no-lan",))
    code, said = second.refuses_to_start()
    assert code == 1
    assert f"another meshd is running on {device.home} (process {device.process.pid})" in said
    assert "Traceback" not in said
    assert device.password("github.com") == "kept"


ASK = """
import os, socket, sys
os.setgroups([]), os.setgid(65534), os.setuid(65534)
link = socket.socket(socket.AF_UNIX)
link.settimeout(20)
link.connect(sys.argv[1])
link.sendall(b"GET /v1/status HTTP/1.1\\r\\nHost: meshd\\r\\nConnection: close\\r\\n\\r\\n")
answer = b""
while part := link.recv(65536):
    answer += part
sys.stdout.buffer.write(answer)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_gets_nothing_from_the_socket_even_if_he_can_open_it(house: Household) -> None:
    device = device_with_a_mesh(house)
    socket = device.home / "meshd.sock"

    def as_nobody() -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([sys.executable, "-I", "-c", ASK, str(socket)], capture_output=True)

    assert b"PermissionError" in as_nobody().stderr  # the home is closed to him
    # Somebody opens the door by hand: who knocks is still asked for.
    for place, mode in ((house.directory, 0o755), (device.home, 0o755), (socket, 0o777)):
        place.chmod(mode)
    answered = as_nobody().stdout
    assert answered.startswith(b"HTTP/1.1 403 "), answered
    assert b'"denied"' in answered and b"belongs to another user" in answered
    assert b"laptop" not in answered
    assert device.status()["device"]["name"] == "laptop"  # the owner is served as before


# --- disks -----------------------------------------------------------------------------------------------------------


@contextmanager
def mounted(setup: str, *words: str | Path) -> Iterator[Enter]:
    """A mount namespace in which the shell script `setup` has run, "$@" being `words`; skips where none can be made."""
    mapped = os.geteuid() != 0
    for tool in ("unshare", "nsenter", "mount"):
        if shutil.which(tool) is None:
            pytest.skip(f"mount namespaces: `{tool}` is not installed")
    holder = subprocess.Popen(
        [
            *("unshare", "--mount", "--propagation", "private", *(["--user", "--map-root-user"] if mapped else [])),
            *("sh", "-ec", f"{setup}\necho up\nexec cat", "sh", *map(str, words)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None and holder.stderr is not None
        if holder.stdout.readline() != "up\n":
            pytest.skip(f"mount namespaces can't be made here: {holder.stderr.read().strip()}")
        user = ["--user", "--preserve-credentials"] if mapped else []

        def enter(argv: Sequence[str | Path]) -> list[str]:
            return ["nsenter", f"--target={holder.pid}", *user, "--mount", "--", *map(str, argv)]

        yield enter
    finally:
        holder.communicate()


def test_a_full_disk_is_said_loses_nothing_and_is_over_when_there_is_space_again(house: Household) -> None:
    home = house.directory / "laptop"
    home.mkdir(mode=0o700)
    setup = 'mount -t tmpfs -o size=4m,mode=0700 tmpfs "$1"\nhead -c 1m /dev/zero > "$1/ballast"'
    with mounted(setup, home) as enter:
        device = house.device("laptop", enter=enter)
        device.start("--no-lan")
        device.init()
        note = house.directory / "note"
        note.write_text("n" * 60_000)
        kept = {}
        for number in range(200):
            words = ("password", "add", "--site", f"site-{number}.example", "--username", "me", "--note-file", note)
            done = device.run(*words, given=f"password-{number}\n", code=None)
            if done.returncode:
                break
            kept[f"site-{number}.example"] = f"password-{number}"
        assert done.returncode == 1
        assert "full" in done.stderr and "space" in done.stderr, done.stderr
        assert "Traceback" not in device.log.read_text()
        assert len(kept) > 3
        # What is there can be read, and status says what is wrong.
        assert {site: device.password(site) for site in kept} == kept
        assert device.health() & {"disk-low", "disk-full"}
        # A restart on the full disk.
        device.stop()
        device.start("--no-lan")
        assert {site: device.password(site) for site in kept} == kept
        device.fails(1, "password", "add", "--site", "x.example", "--username", "me", "--note-file", note, given="x\n")

        subprocess.run(enter(["rm", home / "ballast"]), check=True)
        device.run("password", "add", "--site", "more.example", "--username", "me", given="there is space\n")
        assert device.password("more.example") == "there is space"
        assert {site: device.password(site) for site in kept} == kept
        device.stop()


def test_a_read_only_home_is_said_and_left_as_it_is(house: Household) -> None:
    device = device_with_a_mesh(house)
    device.add("github.com", "kept")
    device.stop()
    before = {file.name: file.read_bytes() for file in device.home.iterdir()}
    with mounted('mount --bind "$1" "$1"\nmount -o remount,bind,ro "$1"', device.home) as enter:
        reader = Device("laptop", device.home, enter=enter, options=("--no-lan",))
        code, said = reader.refuses_to_start()
    assert code == 1
    assert "Read-only file system" in said and str(device.home) in said
    assert "Traceback" not in said
    assert {file.name: file.read_bytes() for file in device.home.iterdir()} == before
    device.start("--no-lan")
    assert device.password("github.com") == "kept"


@pytest.mark.parametrize("place", ["first page", "pages in the middle"])
def test_damaged_pages_are_reported_and_the_store_is_never_emptied(house: Household, place: str) -> None:
    device = device_with_a_mesh(house)
    for number in range(60):
        device.client.post(
            path("items"),
            {"application": "password", "sites": [f"site-{number}.example"], "username": "me", "password": "x" * 200},
        )
    device.stop()
    store = device.home / "meshd.db"
    size = store.stat().st_size
    pages = range(1) if place == "first page" else range(4, size // PAGE_SIZE // 2)
    with store.open("r+b") as file:
        for number in pages:
            file.seek(number * PAGE_SIZE)
            file.write(os.urandom(PAGE_SIZE))
    damaged = store.read_bytes()
    said = device_says(device)
    assert "damaged" in said, said
    assert "Traceback" not in said
    assert store.read_bytes()[: len(damaged)] == damaged, "the damaged store was changed"


def device_says(device: Device) -> str:
    """What a person hears of a store that is damaged: at the start, or when it is looked at."""
    device.launch("--no-lan")
    code = device.until_ready()
    if code is not None:
        device.process = None
        assert code == 1
        return device.log.read_text()
    said = device.run("status").stdout
    said += device.run("password", "list", code=None).stderr
    device.kill()
    return said + device.log.read_text()


# --- copies ----------------------------------------------------------------------------------------------------------


def copy(home: Path, to: Path) -> None:
    shutil.copytree(home, to, ignore=shutil.ignore_patterns("meshd.sock", "meshd.lock"))


def test_a_store_restored_from_a_backup_gets_its_own_later_writes_back_and_goes_on(house: Household) -> None:
    laptop, desktop = house.pair(("laptop", "desktop"))
    laptop.add("before.example", "before")
    laptop.in_step_with(desktop)
    laptop.stop()
    backup = house.directory / "backup"
    copy(laptop.home, backup)

    laptop.start()
    laptop.edit("before.example", "edited after the backup")
    after = {f"after-{number}.example": laptop.add(f"after-{number}.example", f"later-{number}") for number in range(5)}
    laptop.in_step_with(desktop)
    laptop.stop()
    desktop.add("meanwhile.example", "on the desktop")
    shutil.rmtree(laptop.home)
    copy(backup, laptop.home)

    laptop.start()
    laptop.in_step_with(desktop)
    desktop.in_step_with(laptop)
    assert laptop.password("before.example") == "edited after the backup"
    assert laptop.password("meanwhile.example") == "on the desktop"
    for site, identifier in after.items():
        assert laptop.titles()[identifier] == site
    laptop.add("again.example", "written after the restore")
    laptop.edit("before.example", "edited after the restore")
    laptop.in_step_with(desktop)
    assert laptop.passwords() == desktop.passwords()
    assert desktop.password("before.example") == "edited after the restore"
    for device in (laptop, desktop):
        assert device.status()["conflicts"] == 0
        assert not alarms(device), device.status()["health"]


def test_a_restored_store_that_wrote_as_much_as_it_had_lost_before_it_met_anybody_is_heard(house: Household) -> None:
    """Its numbering has come to where its sibling has read, with other versions: nobody may take that for in step."""
    laptop, desktop = house.pair(("laptop", "desktop"))
    laptop.stop()
    backup = house.directory / "backup"
    copy(laptop.home, backup)
    laptop.start()
    laptop.add("lost.example", "lost")
    laptop.in_step_with(desktop)
    laptop.stop()
    shutil.rmtree(laptop.home)
    copy(backup, laptop.home)
    laptop.start("--no-lan")
    laptop.add("new.example", "new")
    laptop.stop()

    laptop.start()
    laptop.in_step_with(desktop)
    for device in (laptop, desktop):
        assert device.password("lost.example") == "lost"
        assert device.password("new.example") == "new"


def test_a_home_that_is_cloned_while_it_runs_raises_the_alarm_everywhere_and_loses_nothing(house: Household) -> None:
    laptop, desktop = house.pair(("laptop", "desktop"))
    laptop.add("before.example", "before")
    laptop.in_step_with(desktop)
    laptop.stop()
    clone = house.device("clone")
    copy(laptop.home, clone.home)
    written = {"before.example": "before"}

    def write(device: Device, *options: str) -> None:
        """Write something as the laptop, alone or with the desktop there, and stop."""
        device.start(*options)
        site = f"{len(written)}.{device.name}.example"
        device.add(site, site)
        written[site] = site
        if not options:
            device.in_step_with(desktop)
        device.stop()

    write(laptop, "--no-lan")
    write(clone)  # the same keys, somewhere else
    assert not alarms(desktop)  # so far it might be the laptop
    laptop.start()
    laptop.in_step_with(desktop)
    desktop.in_step_with(laptop)
    assert "fork" in alarms(desktop), desktop.status()["health"]
    laptop.stop()
    # Up to here it may have been a backup that was restored once. The copy goes on, and that no backup does.
    write(laptop)
    write(clone, "--no-lan")
    write(laptop)
    for device in (clone, laptop):
        write(device)
        device.start()
        device.in_step_with(desktop)
        desktop.in_step_with(laptop)  # as which both are known
        for one in (device, desktop):
            assert alarms(one), f"{one.name}: {one.status()['health']}"
            one.run("status", "--check", code=10)
            assert {site: one.password(site) for site in written} == written
        device.stop()
