"""`meshctl version`: which releases these are, and whether they fit together."""

from __future__ import annotations

from meshctl.answers import number, text
from meshctl.client import path
from meshd import __version__
from meshd.localapi import API
from meshd.localapi.errors import NotRunning

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from meshctl.session import Session


def version_arguments(parser: argparse.ArgumentParser) -> None:
    """No options of its own."""


def version(args: argparse.Namespace, session: Session) -> int:
    """Without a daemon it tells its own release all the same, and exits 0: that is what was asked."""
    told: dict[str, object] = {"meshctl": __version__, "api": API, "meshd": None}
    lines = [f"meshctl {__version__} (API {API})"]
    try:
        answer = session.client.get(path("version"))
        told["meshd"] = text(answer, "version")
        lines.append(f"meshd   {text(answer, 'version')} (API {number(answer, 'api')})")
    except NotRunning as exc:
        lines.append("meshd   not running")
        if not session.as_json:
            session.terminal.talk(exc.hint or "")
    return session.give(told, "\n".join(lines))
