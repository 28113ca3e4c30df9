"""meshctl: one command, one request to the daemon, one exit code.

`main` is the wall: every error that the project names ends here as a line on stderr (one JSON object with --json) and a
number. Whatever else is raised is a bug and keeps its traceback.
"""

from __future__ import annotations

import os
import sys

from meshctl.cli import parse
from meshctl.client import Client
from meshctl.session import Session
from meshctl.terminal import Terminal
from meshd.errors import MeshError
from meshd.localapi.errors import ERROR, INTERRUPTED, OK, error_body, exit_code
from meshd.localapi.paths import socket_path

TYPE_CHECKING = False  # typing itself would be a tenth of the start-up time
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn


def main(
    argv: list[str] | None = None, *, terminal: Terminal | None = None, environ: Mapping[str, str] | None = None
) -> int:
    """Run one command and return its exit code (docs/ops/meshctl.md). Without `argv` it is the process, and ends with
    it."""
    if argv is None:
        _leave(main(sys.argv[1:], terminal=terminal, environ=environ))
    environ = os.environ if environ is None else environ
    terminal = terminal or Terminal.of_process(environ)
    as_json = "--json" in argv
    try:
        args = parse(argv)
        client = Client(socket_path(args.home, environ), warn=terminal.talk)
        code: int = args.run(args, Session(terminal, client, as_json=as_json))
        terminal.flush()
        return code
    except MeshError as exc:
        tell(exc, terminal, as_json=as_json)
        return exit_code(exc.code)
    except KeyboardInterrupt:
        terminal.talk("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (`| head`): say nothing, and nothing at exit either.
        _drop_output()
        return ERROR
    except OSError as exc:
        terminal.talk(f"meshctl: the output can't be written: {exc.strerror}")
        _drop_output()
        return ERROR
    except SystemExit as exc:  # argparse after --help and --version
        return exc.code if isinstance(exc.code, int) else OK


def _leave(code: int) -> NoReturn:
    """End the process at once: taking the interpreter down in good order is a tenth of what a command takes."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = code or ERROR
    os._exit(code)


def _drop_output() -> None:
    """Let what is still buffered go nowhere, so that the interpreter's own flush at exit does not fail once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def tell(exc: MeshError, terminal: Terminal, *, as_json: bool) -> None:
    """Say on stderr what went wrong, and what helps."""
    if as_json:
        terminal.talk_json(error_body(exc))
        return
    terminal.talk(f"meshctl: {exc}")
    candidates = getattr(exc, "details", {}).get("candidates")
    if isinstance(candidates, list):
        for item in candidates:
            if isinstance(item, dict):
                terminal.talk(f"  {item.get('title')} · {item.get('username')} · {item.get('id')}")
    if exc.hint:
        terminal.talk(f"  {exc.hint}")


if __name__ == "__main__":
    sys.exit(main())
