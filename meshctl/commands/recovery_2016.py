"""`meshctl recovery open-2016`: the keys that shares of 2016 bring back."""

from __future__ import annotations

from meshctl import files, shares
from meshctl.answers import inner, number, records, text, texts
from meshctl.client import path
from meshd.errors import BadRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from meshctl.answers import Json
    from meshctl.session import Session

MAX_SHARES = 64
_USES = {"master": "master signature key", "escrow": "master escrow key"}


def recovery_open_2016_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--share-file", metavar="F", action="append", help="read shares from F, one a line; repeat it")
    parser.add_argument(
        "--entry", metavar="FILE", help="the recovery entry, or an answer or a log of a portal of 2016 that holds it"
    )
    parser.add_argument("--out", metavar="FILE", help="write the keys themselves, PEM, readable by you alone")


def recovery_open_2016(args: argparse.Namespace, session: Session) -> int:
    """Combine, open, show. Nothing in this device or its mesh is touched."""
    if args.out is not None:
        if args.entry is None:
            raise BadRequest("the keys are in the entry", hint="--entry FILE")
        files.check_free(args.out)
    shares.no_core()
    body: Json = {"shares": _given(args, session)}
    if args.entry is not None:
        body["entry"] = shares.from_file(args.entry, most=4 * 1024 * 1024 + 1)
    if args.out is not None:
        body["private"] = True
    answer = session.client.post(path("recovery", "2016"), body)
    pems = [text(key, "private") for key in records(answer, "keys")]
    answer["keys"] = [{member: key[member] for member in key if member != "private"} for key in records(answer, "keys")]
    if args.out is not None:
        keys = zip(records(answer, "keys"), pems, strict=True)
        named = [f"{_USES[text(key, 'use')]} {text(key, 'fingerprint')}\n{pem}" for key, pem in keys]
        files.write_private(args.out, "\n".join(named))
        answer["files"] = [args.out]
    if session.as_json:
        session.json(answer)
    else:
        _tell(session, answer)
    return 0


def _given(args: argparse.Namespace, session: Session) -> list[str]:
    if args.share_file:
        lines = [line for name in args.share_file for line in shares.from_file(name).splitlines()]
        return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    terminal = session.terminal
    if session.as_json or not terminal.stdin.isatty():
        raise BadRequest("there is nobody to type shares", hint="give them in files: --share-file F")
    given: list[str] = []
    with terminal.aside():
        terminal.styled("The shares of 2016, one a line, as in EBUZV-JAGO6-…; an empty line ends.\n")
        while len(given) < MAX_SHARES and (line := shares.line(terminal, f"share {len(given) + 1}: ").strip()):
            given.append(line)
    if not given:
        raise BadRequest("no shares were given")
    return given


def _tell(session: Session, answer: Json) -> None:
    terminal = session.terminal
    for note in texts(answer, "notes"):
        terminal.talk(note)
    entries = [text(entry, "id") for entry in records(answer, "entries")]
    keys = records(answer, "keys")
    if not keys:
        terminal.data("\n".join(entries))
        which = "is the entry that these shares open" if len(entries) == 1 else "are the entries of which one is theirs"
        terminal.talk(f"this {which}; ask its portal for it, or find its log, then: --entry FILE")
        return
    terminal.data(f"mesh of 2016          {text(answer, 'mesh')}")
    terminal.data(f"recovery entry        {entries[0]}")
    for key in keys:
        terminal.data(f"{_USES[text(key, 'use')]:<21} {text(key, 'fingerprint')}  RSA {number(key, 'bits')}")
    profile = inner(answer, "profile")
    if profile:
        count = number(profile, "devices")
        devices = f", {count} device{'' if count == 1 else 's'}" if count else ""
        escrow = "" if profile.get("escrow_named") is True else "; it names other escrow keys besides"
        terminal.data(f"its profile           is in the file, signed by this key{devices}{escrow}")
    for name in texts(answer, "files"):
        terminal.talk(f"the keys are in {name}, unprotected")
    terminal.talk("they prove that this mesh of 2016 was yours; in a mesh of today they sign and open nothing")
