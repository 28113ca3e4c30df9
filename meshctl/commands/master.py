"""`meshctl master …`, `device renew` and `wipe`: the mesh's key, this device's keys, and giving all of them up."""

from __future__ import annotations

import os

from meshctl import files, passphrases
from meshctl.answers import inner, number, records, text
from meshctl.client import path
from meshctl.commands.connect import join
from meshd.errors import BadRequest, Denied, MeshError, NotConnected, Refused
from meshd.localapi.errors import NotRunning

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from meshctl.session import Session


RESTART_SECONDS = 10.0


def device_renew_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--new-identity",
        metavar="CODE",
        help="a new signature key too: the code of meshctl invite --replaces, run on an admin device",
    )
    parser.add_argument("--yes", action="store_true", help="don't ask before this device is wiped for that")
    parser.add_argument("--address", metavar="HOST:PORT", help="where the admin device is, when discovery can't tell")
    passphrases.device_arguments(parser)
    passphrases.wanted_arguments(parser)


def device_renew(args: argparse.Namespace, session: Session) -> int:
    """New keys under the same name of this device; or, with a code, a new device in its place."""
    if args.new_identity is not None:
        return _reborn(args, session)
    answer = passphrases.with_master(args, session, {}, lambda body: session.client.post(path("renewals"), body))
    return session.done(
        answer, f"{text(inner(answer, 'device'), 'name')} has new keys; the others hear of them by themselves"
    )


def _reborn(args: argparse.Namespace, session: Session) -> int:
    """What this device is can't be changed, so it is forgotten and a new one joins; everything else comes by sync."""
    terminal = session.terminal
    status = session.client.get(path("status"))
    if not status.get("mesh"):
        raise NotConnected
    if not any(text(peer, "role") == "admin" for peer in records(status, "peers")):
        raise Denied("no other device is an admin", hint="make one first: meshctl device role NAME admin")
    if not args.yes:
        if not terminal.stdin.isatty():
            raise BadRequest("there is nobody to ask", hint="--yes goes ahead without asking")
        terminal.talk(
            "this device deletes what it holds, joins as a new one, and gets everything back by sync; what it has not"
            " given to any other device yet is lost"
        )
        if not terminal.agrees("Go ahead?"):
            raise Refused("nothing was changed")
    name = text(inner(status, "device"), "name")
    given = passphrases.given(args, terminal)
    passphrase = passphrases.ask_new(terminal, "New passphrase for this device") if given is None else given
    session.client.post(path("wipe"), {"force": True})
    _until_empty(session)
    return join(session, args.new_identity, {"name": name, "passphrase": passphrase}, address=args.address, wait=True)


def _until_empty(session: Session) -> None:
    """Wait until the daemon has started anew, which takes moments."""
    import time

    deadline = time.monotonic() + RESTART_SECONDS
    while True:
        try:
            if not session.client.get(path("status")).get("mesh"):
                return
        except NotRunning:
            pass
        if time.monotonic() > deadline:
            raise MeshError("meshd does not come back", hint="start it, then: meshctl connect CODE")
        time.sleep(0.05)  # there is nothing to wait on: the daemon that will listen does not exist yet


# --- the master key ---------------------------------------------------------------------------------------------------


def master_passphrase_arguments(parser: argparse.ArgumentParser) -> None:
    passphrases.wanted_arguments(parser)
    parser.add_argument("--new-passphrase-file", metavar="F", help="read the new one from F (- for stdin)")


def master_passphrase(args: argparse.Namespace, session: Session) -> int:
    terminal = session.terminal
    old = passphrases.master(args, terminal)
    if args.new_passphrase_file is not None:
        new = passphrases.from_file(args.new_passphrase_file, terminal)
    else:
        new = passphrases.ask_new(terminal, "New master passphrase")
    body: dict[str, object] = {"master_passphrase": old, "new": new}
    if args.master_file is not None:
        body["master_file"] = passphrases.whole_file(args.master_file)
    answer = session.client.put(path("master", "passphrase"), body)
    return session.done(answer, "changed; whoever kept an old copy of the sealed key can still try the old one on it")


def master_export_arguments(parser: argparse.ArgumentParser) -> None:
    _file_arguments(parser, "is made")


def master_export(args: argparse.Namespace, session: Session) -> int:
    files.check_free(args.file)
    told = session.client.post(
        path("master", "file"), {"master_passphrase": passphrases.master(args, session.terminal)}
    )
    files.write_private(args.file, text(told, "text"))
    answer: dict[str, object] = {"file": args.file}
    return session.done(answer, f"{args.file} holds the sealed master key, which opens with the master passphrase")


def master_offline_arguments(parser: argparse.ArgumentParser) -> None:
    _file_arguments(parser, "is made")


def master_offline(args: argparse.Namespace, session: Session) -> int:
    """The file is on disk, and was read again, before any device forgets the key."""
    files.check_free(args.file)
    passphrase = passphrases.master(args, session.terminal)
    told = session.client.post(path("master", "file"), {"master_passphrase": passphrase})
    files.write_private(args.file, text(told, "text"))
    try:
        body: dict[str, object] = {"text": passphrases.whole_file(args.file), "master_passphrase": passphrase}
        answer = session.client.post(path("master", "offline"), body)
    except BaseException:
        os.unlink(args.file)
        raise
    return session.done(
        answer | {"file": args.file},
        f"{args.file} alone holds the sealed master key now: keep it, with copies, apart from your devices",
    )


def master_online_arguments(parser: argparse.ArgumentParser) -> None:
    _file_arguments(parser, "is read")


def master_online(args: argparse.Namespace, session: Session) -> int:
    body: dict[str, object] = {
        "text": passphrases.whole_file(args.file),
        "master_passphrase": passphrases.master(args, session.terminal),
    }
    answer = session.client.post(path("master", "online"), body)
    return session.done(answer, "the admins' devices hold the sealed master key again")


def _file_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    parser.add_argument("file", metavar="FILE", help=f"{verb}; it holds the master key under the master passphrase")
    passphrases.master_arguments(parser)


# --- wiping -----------------------------------------------------------------------------------------------------------


def wipe_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help="don't ask")
    parser.add_argument("--force", action="store_true", help="although this device still belongs to its mesh")


def wipe(args: argparse.Namespace, session: Session) -> int:
    terminal = session.terminal
    status = session.client.get(path("status"))
    if not status.get("mesh"):
        raise NotConnected("this device belongs to no mesh: there is nothing to wipe")
    removed = any(text(problem, "code") == "removed" for problem in records(status, "health"))
    if not removed and not args.force:
        raise Denied(
            "this device still belongs to its mesh",
            hint="remove it on another device first: meshctl device remove; or insist with --force",
        )
    if not args.yes:
        if not terminal.stdin.isatty():
            raise BadRequest("there is nobody to ask", hint="--yes wipes without asking")
        if not removed:
            others = len(records(status, "peers"))
            last = "the others go on without it" if others else "it is the only one: EVERYTHING in the mesh is lost"
            terminal.talk(f"this device still belongs to its mesh; {last}")
        if number(status, "drafts"):
            terminal.talk(f"{number(status, 'drafts')} writes that wait here are lost")
        if not terminal.agrees("Delete this device's keys and everything that it holds?"):
            raise Refused("nothing was deleted")
    answer = session.client.post(path("wipe"), {"force": True} if args.force else {})
    _until_empty(session)
    return session.done(answer, "wiped: this device belongs to no mesh now; join one with meshctl connect CODE")
