"""`meshd`: the device daemon. Arguments, hardening, the home's lock, then `daemon.app`; or `meshd portal`."""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path

import trio

from meshd import __version__
from meshd.errors import MeshError
from meshd.store.db import mapped


def main(argv: Sequence[str] | None = None) -> int:
    """Run until stopped; returns the exit code."""
    from meshd.daemon import app, config, logging, paths
    from meshd.localapi.errors import exit_code
    from meshd.net import process

    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] == "portal":
        from meshd.daemon.portal import main

        return main.main(argv[1:])
    parser = argparse.ArgumentParser(
        prog="meshd",
        description="keeps this device's passwords, keys and settings in step with your other devices",
        epilog="meshd portal --help: the server that keeps devices in step over any distance",
    )
    parser.add_argument("--home", metavar="DIR", help="keep everything under DIR (also: MESHD_HOME)")
    parser.add_argument("--config", metavar="FILE", help="read FILE instead of the home's meshd.toml")
    parser.add_argument("--version", action="version", version=f"meshd {__version__}")
    config.add_arguments(parser)
    arguments = parser.parse_args(argv)
    process.harden()
    try:
        where = paths.resolve(arguments.home, os.environ)
        paths.prepare(where)
        settings = config.overrule(config.load(Path(arguments.config) if arguments.config else where.config), arguments)
        logging.start(settings.log.level)
        with paths.hold(where.lock):
            trio.run(app.run_device, settings, where, strict_exception_groups=True)
    except KeyboardInterrupt:
        return 130
    except Exception as exc:
        told = _told(exc)
        if told is None:
            raise
        print(f"meshd: {told}", file=sys.stderr)
        if told.hint:
            print(f"       {told.hint}", file=sys.stderr)
        return exit_code(told.code)
    return 0


def _told(exc: BaseException) -> MeshError | None:
    """The error to tell a person; None for what is a fault of this program, and is better shown whole."""
    if isinstance(exc, BaseExceptionGroup):
        found = [_told(one) for one in exc.exceptions]
        return found[0] if all(found) else None
    if isinstance(exc, sqlite3.Error):
        return mapped(exc)
    return exc if isinstance(exc, MeshError) else None


if __name__ == "__main__":
    sys.exit(main())
