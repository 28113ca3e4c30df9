"""`meshctl password import`: the file is read here, judged in the daemon; all of it comes in, or nothing."""

from __future__ import annotations

import sys

from meshctl.answers import number, records, text
from meshctl.client import path
from meshctl.commands.password_read import vault_argument
from meshd.errors import BadRequest, FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from meshctl.answers import Json
    from meshctl.session import Session

MAX_BYTES = 32 * 1024 * 1024
_SHOWN_ROWS = 20


def password_import_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the exported file (- for stdin)")
    parser.add_argument("--format", choices=("chrome-csv",), default="chrome-csv")
    parser.add_argument("--update", action="store_true", help="change logins whose password differs from the file's")
    parser.add_argument("--dry-run", action="store_true", help="only say what would happen")
    vault_argument(parser)


def password_import(args: argparse.Namespace, session: Session) -> int:
    body: dict[str, object] = {"application": "password", "format": args.format, "text": _read(args.file, session)}
    if args.update:
        body["update"] = True
    if args.vault is not None:
        body["vault"] = args.vault
    if args.dry_run:
        body["dry_run"] = True
    answer = session.client.post(path("imports"), body)
    rejected = records(answer, "rejected")
    if session.as_json:
        session.json(answer)
    else:
        _tell(session, args, answer)
    return 1 if rejected else 0


def _tell(session: Session, args: argparse.Namespace, answer: Json) -> None:
    terminal = session.terminal
    different = records(answer, "different")
    _rows(session, different, "in the vault with another password (--update takes the file's):")
    rejected = records(answer, "rejected")
    if rejected:
        _rows(session, rejected, "these rows can't be read:")
        terminal.talk("nothing was imported: correct the file, or take these rows out")
        return
    counts = [f"{number(answer, name)} {name}" for name in ("added", "updated", "unchanged", "duplicates")]
    if different:
        counts.append(f"{len(different)} different")
    terminal.data(("would be: " if args.dry_run else "") + ", ".join(counts))
    if number(answer, "pending"):
        terminal.talk(f"{number(answer, 'pending')} of them wait here until an admin makes new keys")
    if not args.dry_run and args.file != "-" and number(answer, "added"):
        terminal.talk(f"{args.file} holds your passwords in clear: delete it when all is well")


def _rows(session: Session, rows: list[Json], heading: str) -> None:
    if rows:
        session.terminal.talk(heading)
        for row in rows[:_SHOWN_ROWS]:
            session.terminal.talk(f"  row {number(row, 'row')}: {text(row, 'reason')}")
        if len(rows) > _SHOWN_ROWS:
            session.terminal.talk(f"  and {len(rows) - _SHOWN_ROWS} more (all with --json)")


def _read(name: str, session: Session) -> str:
    try:
        if name == "-":
            source = getattr(session.terminal.stdin, "buffer", None) or sys.stdin.buffer
            data = source.read(MAX_BYTES + 1)
        else:
            with open(name, "rb") as file:
                data = file.read(MAX_BYTES + 1)
    except OSError as exc:
        raise BadRequest(f"{name}: {exc.strerror}") from None
    if len(data) > MAX_BYTES:
        raise FormatError(f"{name}: larger than {MAX_BYTES // 2**20} MiB")
    try:
        decoded: str = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        row = data.count(b"\n", 0, exc.start) + 1
        raise FormatError(f"{name}: row {row} is not UTF-8; nothing was imported") from None
    return decoded
