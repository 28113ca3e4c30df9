"""The tree of commands as a table, and the parser that is built from it.

Only the module of the chosen command is imported: a module listed here has, for a command `x-y`, a function
`x_y_arguments(parser)` and a function `x_y(args, session)` that returns the exit code.
"""

from __future__ import annotations

import argparse
import os
from importlib import import_module

from meshd import __version__
from meshd.errors import BadRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

Row = tuple[str, str]  # module below meshctl.commands, what the command does

COMMANDS: dict[str, Row | dict[str, Row]] = {
    "status": ("status", "how this device and its mesh stand"),
    "doctor": ("doctor", "what is right and what is not, a line each, with what to do"),
    "init": ("mesh", "make a new mesh, with this device as its first admin"),
    "invite": ("invite", "let another device join: shows a code and says who joined"),
    "connect": ("connect", "join a mesh, with the code that another device shows or through an account"),
    "pending": ("pending", "the devices that ask through a portal to join"),
    "accept": ("pending", "let one of them in, after comparing its fingerprint"),
    "reject": ("pending", "tell one of them no"),
    "device": {
        "list": ("device", "the devices of the mesh"),
        "show": ("device", "one device"),
        "rename": ("device", "give a device another name"),
        "address": ("device", "say where a device is reached when discovery can't tell"),
        "remove": ("removal", "remove devices for good, and make new keys"),
        "role": ("device_rights", "make a device an admin, a member or a relay"),
        "grant": ("device_rights", "let a member read or write vaults"),
        "revoke": ("device_rights", "take vaults from a member"),
        "renew": ("master", "make new keys for this device"),
    },
    "exposure": ("removal", "what a device could read, and what is still to be changed"),
    "password": {
        "add": ("password_write", "add a login"),
        "get": ("password_read", "print the password of a site, and nothing else"),
        "show": ("password_read", "one login whole"),
        "list": ("password_read", "the logins, without passwords"),
        "edit": ("password_write", "change a login"),
        "rm": ("password_write", "delete a login"),
        "generate": ("password_write", "make a password, and print it"),
        "import": ("password_import", "import a CSV file exported by Chrome"),
    },
    "vault": {
        "list": ("vault", "the vaults"),
        "create": ("vault", "make a vault"),
        "rename": ("vault", "give a vault another name"),
        "delete": ("vault", "hide a vault and its items everywhere"),
        "restore": ("vault", "take the deletion of a vault back"),
    },
    "rotate": ("vault", "make new keys for vaults"),
    "conflicts": {
        "list": ("conflicts", "logins that were changed on two devices apart"),
        "show": ("conflicts", "the versions of one of them"),
    },
    "quarantine": {
        "list": ("quarantine", "what was written by who was not entitled to, and is not applied"),
        "show": ("quarantine", "one of these items, beside what counts now"),
        "import": ("quarantine", "write the content of such items anew, as this device"),
        "confirm": ("quarantine", "take back devices and vaults that fell with a removed admin"),
    },
    "undo": ("undo", "take back a role, a grant or a name of the last 24 hours"),
    "portal": {
        "add": ("portal", "open an account at a portal, and have the mesh use it"),
        "list": ("portal", "the accounts of the mesh"),
        "status": ("portal", "how one of them stands, or all"),
        "verify": ("portal", "hold everything that was published there to the portal's log"),
        "check-proof": ("portal_proof", "what a proof or evidence shows, without network, account or meshd"),
        "trust": ("portal", "take a portal's log anew, after it contradicted itself"),
        "remove": ("portal", "use an account no more, on no device"),
        "close": ("portal", "the same, and the portal closes the account for ever"),
    },
    "wait": ("wait", "wait until devices are in step"),
    "events": ("wait", "print changes as they happen"),
    "whoami": ("mesh", "which device of which mesh this is"),
    "lock": ("keys", "forget the keys that open items"),
    "unlock": ("keys", "open the keystore with the device's passphrase"),
    "passphrase": ("keys", "change the device's passphrase"),
    "master": {
        "passphrase": ("master", "change the master passphrase"),
        "export": ("master", "keep the sealed master key in a file too"),
        "offline": ("master", "keep the sealed master key in a file alone"),
        "online": ("master", "give it back to the admins' devices"),
    },
    "recovery": {
        "create": ("recovery", "make shares that bring the mesh back when every device is lost"),
        "check-share": ("recovery", "is this a share of this mesh, current, without error? reveals nothing"),
        "drill": ("recovery", "rehearse a recovery with enough shares; changes nothing"),
        "status": ("recovery", "what there is to recover from, where it is held, and the last drill"),
        "refresh": ("recovery", "new shares in place of those that there are"),
        "revoke": ("recovery", "have no shares any more"),
        "restore": ("recovery_restore", "bring the mesh back to this device, from shares"),
        "open-2016": ("recovery_2016", "the keys that shares of a mesh of 2016 bring back"),
    },
    "wipe": ("master", "delete this device's keys and everything it holds"),
    "version": ("version", "releases of meshctl and meshd"),
    "completion": ("completion", "print a completion script for a shell"),
}
GROUPS = {
    "device": "the devices of the mesh",
    "password": "logins",
    "vault": "vaults: several of one application, each with its own readers",
    "conflicts": "logins with more than one version",
    "quarantine": "what is kept and not applied",
    "master": "the master key, which decides who is an admin",
    "recovery": "shares of words, for the day when every device is lost",
    "portal": "portals: reach between networks, and a copy to recover from",
}


def _width() -> int:
    try:
        return max(40, min(os.get_terminal_size().columns, 120) - 2)
    except OSError:
        return 78


_WIDTH = _width()


class _Help(argparse.HelpFormatter):
    """argparse makes one for every argument; asking shutil for the width would import compressors at every start."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=_WIDTH)


class Parser(argparse.ArgumentParser):
    """An argument parser that raises, and whose messages repeat no values: an argument may be a mistyped secret."""

    def __init__(self, **options: object) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_Help, **options)  # type: ignore[arg-type]

    def error(self, message: str) -> object:  # type: ignore[override]
        raise BadRequest(_without_values(message), hint=f"see: {self.prog} --help")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """A command's arguments, `run` being the function to call. BadRequest for bad usage; SystemExit after --help."""
    words = _command_words(argv)
    args = build(words).parse_args(argv)
    if not hasattr(args, "run"):
        raise BadRequest("a command is missing", hint="see: meshctl --help")
    return args


def build(chosen: list[str] | None) -> Parser:
    """The parser with the chosen command's options loaded; None loads them all (for completions)."""
    parser = Parser(
        prog="meshctl",
        description="Talk to meshd, which keeps passwords in step across your devices.",
        epilog="Exit codes: 0 ok, 1 error, 2 usage, 3 meshd not running, 4 not connected to a mesh, 5 locked, "
        "6 conflicts, 7 not synced or out of time, 8 denied, 9 version mismatch, 10 verification failed.",
    )
    _common(parser, top=True)
    parser.add_argument("--version", action="version", version=f"meshctl {__version__}")
    commands = parser.add_subparsers(prog="meshctl", metavar="COMMAND", parser_class=Parser, title="commands")
    for name, row in COMMANDS.items():
        if chosen and chosen[0] != name:
            continue
        if isinstance(row, tuple):
            _add(commands, name, name, row, loaded=chosen is None or bool(chosen))
            continue
        group = commands.add_parser(name, help=GROUPS[name], description=GROUPS[name])
        _common(group, top=False)
        inner = group.add_subparsers(prog=f"meshctl {name}", metavar="COMMAND", parser_class=Parser, title="commands")
        for inner_name, inner_row in row.items():
            if chosen is None or not chosen[1:] or chosen[1] == inner_name:
                _add(inner, inner_name, f"{name}-{inner_name}", inner_row, loaded=chosen is None or bool(chosen[1:]))
    return parser


def _add(commands: argparse._SubParsersAction[Parser], name: str, full_name: str, row: Row, *, loaded: bool) -> None:
    module_name, about = row
    parser = commands.add_parser(name, help=about, description=about)
    _common(parser, top=False)
    if loaded:
        module = import_module(f"meshctl.commands.{module_name}")
        stem = full_name.replace("-", "_")
        getattr(module, f"{stem}_arguments")(parser)
        parser.set_defaults(run=getattr(module, stem))


def _common(parser: argparse.ArgumentParser, *, top: bool) -> None:
    """--home and --json, before or after the command; the later one counts."""
    nothing = None if top else argparse.SUPPRESS
    parser.add_argument(
        "--home",
        metavar="DIR",
        default=nothing,
        help="directory of the daemon's files (default: MESHD_HOME, else XDG paths)",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        default=False if top else argparse.SUPPRESS,
        help="print JSON; errors as JSON on stderr",
    )


def _command_words(argv: Sequence[str]) -> list[str]:
    """The command and, in a group, its second word, when both are known; otherwise what is known."""
    words: list[str] = []
    level: dict[str, Row | dict[str, Row]] = COMMANDS
    skip = False
    for word in argv:
        if skip:
            skip = False
        elif word == "--home":
            skip = True
        elif not word.startswith("-"):
            row = level.get(word)
            if row is None:
                return words
            words.append(word)
            if isinstance(row, tuple):
                return words
            level = dict(row)
    return words


def _without_values(message: str) -> str:
    kind, colon, rest = message.partition(": ")
    if kind == "unrecognized arguments":
        options = [word.partition("=")[0] for word in rest.split() if word.startswith("--")]
        return " ".join(["unknown arguments", *options])
    if "invalid choice" in rest:
        return f"{kind}: not one of {rest.rpartition('(choose from ')[2].rstrip(')')}"
    if "invalid" in rest and "value" in rest:
        return f"{kind}: {rest.partition(' value')[0]} value"
    return kind + colon + rest
