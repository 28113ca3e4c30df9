"""Where passphrases come from: the terminal, a file, a file descriptor. Never argv, never the environment.

The first line counts; a CR before the LF is no part of it.
"""

from __future__ import annotations

import os
import stat

from meshd.errors import BadRequest
from meshd.localapi.errors import ApiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from meshctl.session import Session
    from meshctl.terminal import Terminal

MAX_PASSPHRASE = 1024
MAX_MASTER_FILE = 65536


def device_arguments(parser: argparse.ArgumentParser) -> None:
    """--passphrase-file and --passphrase-fd."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--passphrase-file", metavar="F", help="read the device's passphrase from F (- for stdin)")
    where.add_argument("--passphrase-fd", metavar="N", type=int, help="read it from the open file descriptor N")


def master_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--master-passphrase-file", metavar="F", help="read the master passphrase from F (- for stdin)")


def given(args: argparse.Namespace, terminal: Terminal) -> str | None:
    """The device's passphrase from the options, or None."""
    if args.passphrase_file is not None:
        return from_file(args.passphrase_file, terminal)
    if args.passphrase_fd is not None:
        return _from_descriptor(args.passphrase_fd)
    return None


def master(args: argparse.Namespace, terminal: Terminal) -> str:
    """The master passphrase that exists already: from the option, or asked for."""
    if args.master_passphrase_file is not None:
        return from_file(args.master_passphrase_file, terminal)
    return ask(terminal, "Master passphrase: ")


def wanted_arguments(parser: argparse.ArgumentParser) -> None:
    """For commands that may need the master passphrase: it is asked for only then."""
    master_arguments(parser)
    parser.add_argument(
        "--master-file", metavar="F", help="where no device holds the sealed master key: the file of master offline"
    )


def with_master(
    args: argparse.Namespace,
    session: Session,
    body: dict[str, object],
    send: Callable[[dict[str, object]], dict[str, object]],
    *,
    needed: bool = False,
) -> dict[str, object]:
    """What `send` answers. The master passphrase goes along where it is `needed`, or the daemon says that it is."""
    if not needed:
        try:
            return send(body)
        except ApiError as exc:
            explicit = args.master_passphrase_file is not None or _master_file(args) is not None
            if exc.details.get("needs") != "master_passphrase" and not (explicit and exc.code == "denied"):
                raise
    session.terminal.redraw("")
    more: dict[str, object] = {}
    if (file := _master_file(args)) is not None:
        more["master_file"] = whole_file(file)
    more["master_passphrase"] = master(args, session.terminal)
    return send(body | more)


def _master_file(args: argparse.Namespace) -> str | None:
    found: str | None = getattr(args, "master_file", None)
    return found


def whole_file(name: str) -> str:
    """A file that holds the sealed master key; BadRequest."""
    try:
        with open(name, encoding="utf-8") as file:
            return file.read(MAX_MASTER_FILE)
    except UnicodeDecodeError:
        raise BadRequest(f"{name} holds no sealed master key") from None
    except OSError as exc:
        raise BadRequest(f"{name}: {exc.strerror}") from None


def share_arguments(parser: argparse.ArgumentParser) -> None:
    """How the passphrase of recovery shares is given."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--share-passphrase", action="store_true", help="the shares have a passphrase besides: ask for it"
    )
    where.add_argument("--share-passphrase-file", metavar="F", help="… read it from F (- for stdin)")


def of_shares(args: argparse.Namespace, terminal: Terminal, *, new: bool = False) -> str | None:
    """The passphrase of recovery shares; None where they have none."""
    if args.share_passphrase_file is not None:
        return from_file(args.share_passphrase_file, terminal)
    if not args.share_passphrase:
        return None
    if new:
        return ask_new(terminal, "New passphrase of the shares")
    return ask(terminal, "Passphrase of the shares: ")


def ask(terminal: Terminal, prompt: str) -> str:
    return _checked(terminal.ask(prompt), "the answer")


def ask_new(terminal: Terminal, what: str) -> str:
    return _checked(terminal.ask_new(what), "the answer")


def from_file(name: str, terminal: Terminal) -> str:
    """The first line of a file; says so when other users can read it."""
    if name == "-":
        return _checked(terminal.line(), "stdin")
    try:
        with open(name, "rb") as file:
            mode = os.fstat(file.fileno())
            if stat.S_ISREG(mode.st_mode) and mode.st_mode & 0o077:
                terminal.talk(f"warning: {name} can be read by others (chmod 600 {name})")
            line = file.readline(MAX_PASSPHRASE * 4 + 2)
    except OSError as exc:
        raise BadRequest(f"{name}: {exc.strerror}") from None
    return _decoded(line, name)


def _from_descriptor(number: int) -> str:
    line = bytearray()
    try:
        # Byte by byte: what follows the line belongs to whoever reads this descriptor next.
        while not line.endswith(b"\n") and len(line) <= MAX_PASSPHRASE * 4:
            part = os.read(number, 1)
            if not part:
                break
            line += part
    except OSError as exc:
        raise BadRequest(f"file descriptor {number}: {exc.strerror}") from None
    return _decoded(bytes(line), f"file descriptor {number}")


def _decoded(line: bytes, where: str) -> str:
    if line.endswith(b"\n"):
        line = line[:-1].removesuffix(b"\r")
    try:
        return _checked(line.decode("utf-8"), where)
    except UnicodeDecodeError:
        raise BadRequest(f"{where}: the passphrase is not UTF-8") from None


def _checked(text: str, where: str) -> str:
    if not text:
        raise BadRequest(f"{where} is empty: a passphrase is expected")
    if len(text) > MAX_PASSPHRASE:
        raise BadRequest(f"{where}: a passphrase longer than {MAX_PASSPHRASE} characters")
    return text
