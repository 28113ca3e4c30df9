"""`meshd portal`: arguments, the directory's lock, then `app`; and `meshd portal admin`."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trio

from meshd.daemon import logging, paths
from meshd.daemon.portal import admin, app, importing, log_admin, log_main, mirror_main, peers, promoting
from meshd.daemon.portal import config as configs
from meshd.daemon.portal.sequencer import Sequencer
from meshd.errors import BadRequest, MeshError, NotFound
from meshd.localapi.errors import exit_code
from meshd.net import process
from meshd.store.db import get_meta
from meshd.store.files import read_file

DEFAULT_DATA = "/var/lib/meshd-portal"
MAX_IMPORT = 32 * 1024 * 1024
Json = dict[str, Any]


def main(argv: Sequence[str]) -> int:
    """Run what `meshd portal …` says; returns the exit code."""
    if argv[:1] == ["admin"]:
        return _guard("meshd portal admin", lambda: _admin(argv[1:]))
    if argv[:1] == ["log"]:
        return _guard("meshd portal log", lambda: log_main.run(argv[1:], DEFAULT_DATA, app.STORE))
    if argv[:1] == ["mirror"]:
        return _guard("meshd portal mirror", lambda: mirror_main.run(argv[1:], _data))
    return _guard("meshd portal", lambda: _serve(argv))


def _guard(name: str, run: Any) -> int:
    try:
        run()
    except KeyboardInterrupt:
        return 130
    except Exception as exc:
        told = _told(exc)
        if told is None:
            raise
        sys.stderr.write(f"{name}: {told}\n")
        if told.hint:
            sys.stderr.write(f"{' ' * len(name)}  {told.hint}\n")
        return exit_code(told.code)
    return 0


def _told(exc: BaseException) -> MeshError | None:
    """The error to tell a person, also out of nurseries; None for a fault of this program, better shown whole."""
    if isinstance(exc, BaseExceptionGroup):
        found = [_told(one) for one in exc.exceptions]
        return found[0] if all(found) else None
    return exc if isinstance(exc, MeshError) else None


def _data(arguments: argparse.Namespace) -> Path:
    named = arguments.data or os.environ.get("STATE_DIRECTORY", "").partition(":")[0] or DEFAULT_DATA
    return Path(named).resolve()  # a service manager's directory is a link to the real one


def _serve(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="meshd portal",
        description="keeps what people's devices publish, for those devices",
        epilog="meshd portal admin --help, meshd portal log --help, meshd portal mirror --help",
    )
    parser.add_argument("--data", metavar="DIR", help=f"keep everything under DIR ({DEFAULT_DATA})")
    parser.add_argument("--config", metavar="FILE", help="read FILE instead of DIR/portal.toml")
    configs.add_arguments(parser)
    arguments = parser.parse_args(argv)
    process.harden()
    directory = _data(arguments)
    paths.private_directory(directory)
    file = Path(arguments.config) if arguments.config else directory / app.CONFIG
    if arguments.config and not file.exists():
        raise BadRequest(f"there is no {file}")
    config = configs.check(configs.overrule(configs.load(file), arguments))
    logging.start(config.log.level)
    with _hold(directory):
        trio.run(app.run_portal, config, directory, strict_exception_groups=True)


def _hold(directory: Path) -> paths.HomeLock:
    return paths.hold(directory / app.LOCK, "--data")


# --- admin ------------------------------------------------------------------------------------------------------------


def _admin(argv: Sequence[str]) -> None:
    arguments = _admin_parser().parse_args(argv)
    process.harden()
    directory = _data(arguments)
    store = directory / app.STORE
    what = arguments.what
    if what == "stats":
        answer = admin.stats(store)
    elif what == "backup":
        answer = admin.backup(store, arguments.file.absolute())
    elif what == "promote":
        answer = _promote(directory, arguments.accounts)
    elif what == "peer" and arguments.verb == "list":
        answer = {"peers": peers.listed(store)}
    elif what == "account" and arguments.verb == "list":
        answer = {"accounts": admin.accounts(store)}
    else:
        answer = trio.run(_change, directory, _asked(arguments), strict_exception_groups=True)
    if "error" in answer:
        fault = answer["error"]
        raise _Told(str(fault.get("message", "")), str(fault.get("code", "error")), fault.get("hint"))
    text = json.dumps({"schema": 1, **answer}, ensure_ascii=False) if arguments.json else _words(what, answer)
    sys.stdout.write(f"{text}\n")


def _promote(directory: Path, accounts: Path | None) -> Json:
    _become_owner(directory)
    if not (directory / app.STORE).exists():
        raise NotFound(f"there is no mirror in {directory}")
    with _hold(directory):
        return trio.run(promoting.promote, directory / app.STORE, accounts, strict_exception_groups=True)


class _Told(MeshError):
    """What the running portal said is wrong."""

    def __init__(self, message: str, code: str, hint: str | None) -> None:
        super().__init__(message, hint=hint)
        self.code = code


def _admin_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="meshd portal admin", description="looks after a portal, running or not")
    parser.add_argument("--data", metavar="DIR", help=f"the portal's directory ({DEFAULT_DATA})")
    parser.add_argument("--json", action="store_true", help="answer in JSON")
    commands = parser.add_subparsers(dest="what", required=True, metavar="COMMAND")
    invite = commands.add_parser("invite", help="a token with which one account can be opened")
    invite.add_argument("--days", type=int, default=7, help="how long it can be used (7)")
    invite.add_argument("--note", default="", help="for whom it is: kept beside it")
    account = commands.add_parser("account", help="accounts and what they use")
    verbs = account.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("list", help="all of them")
    for verb, about in (
        ("suspend", "read, but change nothing"),
        ("resume", "as before"),
        ("close", "for ever; the name is not given again"),
    ):
        verbs.add_parser(verb, help=about).add_argument("account")
    peer = commands.add_parser("peer", help="other portals, witnesses and mirrors")
    wanted = peers.add_arguments(peer)
    logs = log_admin.add_arguments(commands.add_parser("log", help="its key, and what an old copy lost"))
    commands.add_parser("stats", help="how much there is, and what people should hear of")
    commands.add_parser("backup", help="a whole copy of the store in FILE").add_argument("file", type=Path)
    promoted = commands.add_parser("promote", help="a mirror, stopped, becomes the portal that is lost")
    promoted.add_argument("--accounts", type=Path, metavar="FILE", help="what account list --json said there")
    imported = commands.add_parser("import", help="what a portal of 2016 kept")
    imported.add_argument("file", type=Path, help="its mesh.jlog")
    imported.add_argument("--accounts", type=Path, metavar="FILE", help="its portal.jlog")
    for one in (*commands.choices.values(), *verbs.choices.values(), *wanted, *logs):
        one.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="answer in JSON")
        one.add_argument("--data", metavar="DIR", default=argparse.SUPPRESS, help="the portal's directory")
    return parser


def _asked(arguments: argparse.Namespace) -> Json:
    if arguments.what == "invite":
        if not 1 <= arguments.days <= 366:
            raise BadRequest("an invitation is for 1 to 366 days")
        return {"command": "invite", "seconds": arguments.days * 24 * 3600, "note": arguments.note}
    if arguments.what == "peer":
        return peers.asked(arguments)
    if arguments.what == "log":
        return log_admin.asked(arguments)
    if arguments.what == "account":
        return {"command": arguments.verb, "account": arguments.account}
    texts = [
        importing.read(read_file(file, MAX_IMPORT)) if file is not None else ""
        for file in (arguments.file, arguments.accounts)
    ]
    return {"command": "import", "mesh": texts[0], "accounts": texts[1]}


async def _change(directory: Path, asked: Json) -> Json:
    """By the running portal; without one, here."""
    _become_owner(directory)
    answer = await admin.ask_running(directory / app.SOCKET, asked)
    if answer is not None:
        return answer
    if not (directory / app.STORE).exists():
        raise NotFound(f"there is no portal in {directory}")
    config = configs.load(directory / app.CONFIG)
    with _hold(directory):
        sequencer = Sequencer(directory / app.STORE, create=False)
        try:
            domain = get_meta(sequencer.view.connection, "domain") or b""
            policy = dataclasses.replace(config.policy(), domain=domain.decode())
            return await admin.perform(sequencer, policy, asked)
        finally:
            sequencer.close()


def _become_owner(directory: Path) -> None:
    """Root leaves no files in the portal's directory that the portal's own user could not open."""
    if os.geteuid() == 0 and directory.is_dir():
        owner = directory.stat()
        os.setegid(owner.st_gid)
        os.seteuid(owner.st_uid)


def _words(what: str, answer: Json) -> str:
    """The same for people."""
    if what == "invite":
        return f"{answer['invite']}\nCan be used once, until {_date(answer['expires'])}."
    if "accounts" in answer and isinstance(answer["accounts"], list):
        lines = [
            f"{one['account']:32} {one['status']:10} {_date(one['created'])}  {one['entries']:8} entries "
            f"{one['bytes']:12} bytes  {one['mesh']}"
            for one in answer["accounts"]
        ]
        return "\n".join(lines) or "There are no accounts."
    if what == "peer":
        return peers.words(answer)
    if what == "log":
        return log_admin.words(answer)
    if what == "promote":
        return promoting.words(answer)
    if what == "account":
        return f"{answer['account']}: {answer['status']}"
    if what == "backup":
        return f"{answer['backup']}: {answer['bytes']} bytes"
    if what == "import":
        return "\n".join(
            [f"{answer['imported']} entries taken, {answer['refused_count']} refused"]
            + [f"  {one['place']}: {one['why']}" for one in answer["refused"]]
        )
    shown = {**answer, "last_added": _date(answer["last_added"]) if answer["last_added"] is not None else "nothing yet"}
    lines = [
        f"{name.replace('_', ' ')}: {value}" for name, value in shown.items() if name not in ("accounts", "notices")
    ]
    counts = ", ".join(f"{count} {status}" for status, count in answer["accounts"].items())
    told = [f"  {_date(one['time'])} {one['what']} {one['mesh']}" for one in answer["notices"]]
    return "\n".join([f"accounts: {counts}", *lines, *(["notices:", *told] if told else [])])


def _date(seconds: int) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M")
