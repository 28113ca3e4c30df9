"""`meshctl portal check-proof`: what a proof or evidence shows, without network, account or daemon.

The one command that judges something itself: who checks a proof need not run meshd. It reaches `meshd.tlog.offline`,
and nothing else there.
"""

from __future__ import annotations

from meshctl.answers import day, inner, number, records, text, texts
from meshd.errors import BadRequest
from meshd.localapi.errors import ATTACK, OK

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from meshctl.answers import Json
    from meshctl.session import Session

MAX_FILE = 256 * 1024


def portal_check_proof_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="a proof, or evidence, as portal verify writes them")
    parser.add_argument("--key", metavar="VKEY", action="append", help="a key of the log or of a witness; repeat it")
    parser.add_argument("--policy", metavar="FILE", help="a policy file: logs, witnesses, and which must have signed")


def portal_check_proof(args: argparse.Namespace, session: Session) -> int:
    """0 where it holds, 10 where not; without a key of the log nothing holds."""
    from meshd.tlog import offline  # where the signatures are: no other command pays for it

    policy = _read(args.policy) if args.policy is not None else None
    found: Json = offline.report(_read(args.file), args.key or (), policy)
    if session.as_json:
        session.json(found)
    else:
        _show(session, found)
    return OK if found.get("holds") is True else ATTACK


def _show(session: Session, found: Json) -> None:
    terminal, entry = session.terminal, inner(found, "entry")
    holds = found.get("holds") is True
    if holds and text(found, "kind") == "evidence":
        terminal.data(f"it holds, against the portal: {text(found, 'message')}")
    else:
        terminal.data(f"proven: {text(found, 'message')}" if holds else f"NOT proven: {text(found, 'message')}")
    if entry:
        said = "" if holds else "it says: "
        terminal.data(f"  {said}{text(entry, 'action')} of {text(entry, 'id')}, taken {day(text(entry, 'added'))}")
        terminal.data(f"  version {text(entry, 'version')}, SHA-256 of its content {text(entry, 'content')}")
    if not holds:
        terminal.data(f"  of the log {text(found, 'origin')}, {number(found, 'size')} entries")
    for one in records(found, "signers"):
        time = text(one, "time")
        terminal.data(f"  {'cosigned' if time else 'signed'} by {text(one, 'key')}{f' at {day(time)}' if time else ''}")
    for vkey in texts(found, "missing"):
        terminal.data(f"  not signed by {vkey}")
    for vkey in texts(found, "spoiled"):
        terminal.data(f"  a signature that does not verify, in the name of {vkey}")
    for name in texts(found, "unchecked"):
        terminal.data(f"  not checked, for no key was given: {name}")
    if not holds and not records(found, "signers"):
        terminal.talk("give the log's key, which must come by another way: --key VKEY, or --policy FILE")


def _read(name: str) -> bytes:
    try:
        with open(name, "rb") as file:
            return file.read(MAX_FILE)
    except OSError as exc:
        raise BadRequest(f"{name}: {exc.strerror}") from None
