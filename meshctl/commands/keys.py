"""`meshctl lock`, `unlock` and `passphrase`."""

from __future__ import annotations

from meshctl import passphrases
from meshctl.client import path
from meshd.errors import BadRequest, Locked, MeshError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from meshctl.session import Session


def lock_arguments(parser: argparse.ArgumentParser) -> None:
    """No options of its own."""


def lock(args: argparse.Namespace, session: Session) -> int:
    return session.done(session.client.post(path("lock"), {}), "locked; devices are kept in step all the same")


def unlock_arguments(parser: argparse.ArgumentParser) -> None:
    passphrases.device_arguments(parser)


def unlock(args: argparse.Namespace, session: Session) -> int:
    given = passphrases.given(args, session.terminal)
    if given is None:
        status = session.client.get(path("status"))
        if status.get("mesh") and not status.get("locked"):
            return session.done({"locked": False}, "it is unlocked already")
    if given is None:
        try:  # a device without a passphrase opens without a person, and where no terminal is
            return session.done(session.client.post(path("unlock"), {}), "unlocked")
        except MeshError as exc:
            if exc.code != Locked.code:
                raise
            given = passphrases.ask(session.terminal, "Passphrase: ")
    return session.done(session.client.post(path("unlock"), {"passphrase": given}), "unlocked")


def passphrase_arguments(parser: argparse.ArgumentParser) -> None:
    passphrases.device_arguments(parser)
    parser.add_argument("--new-passphrase-file", metavar="F", help="read the new passphrase from F (- for stdin)")
    parser.add_argument("--had-none", action="store_true", help="the device has had no passphrase so far")
    parser.add_argument("--no-passphrase", action="store_true", help="from now on keep the keys unsealed")
    parser.add_argument("--force", action="store_true", help="allow an admin without a passphrase")


def passphrase(args: argparse.Namespace, session: Session) -> int:
    body: dict[str, object] = {}
    terminal = session.terminal
    if not args.had_none:
        old = passphrases.given(args, terminal)
        body["old"] = passphrases.ask(terminal, "Passphrase so far: ") if old is None else old
    if args.no_passphrase:
        if args.new_passphrase_file is not None:
            raise BadRequest("--no-passphrase beside a new passphrase")
        body["no_passphrase"] = True
    elif args.new_passphrase_file is not None:
        body["new"] = passphrases.from_file(args.new_passphrase_file, terminal)
    else:
        body["new"] = passphrases.ask_new(terminal, "New passphrase")
    if args.force:
        body["force"] = True
    return session.done(session.client.put(path("passphrase"), body), "changed")
