"""`meshctl completion`: a script for bash, zsh or fish, made from the tree of commands."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from meshctl.session import Session


def completion_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))


def completion(args: argparse.Namespace, session: Session) -> int:
    """Needs no daemon."""
    import shtab  # and every command's module: only here

    from meshctl.cli import build

    script = shtab.complete(build(None), shell=args.shell)
    return session.give({"shell": args.shell, "script": script}, script)
