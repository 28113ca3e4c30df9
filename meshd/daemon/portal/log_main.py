"""`meshd portal log show|verify|export`: the arguments, and the answers for people and for programs."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from meshd.daemon.portal import audit
from meshd.errors import Exists, StoreError
from meshd.net import process

Json = dict[str, Any]


def run(argv: Sequence[str], default: str, store: str) -> None:
    """What `meshd portal log …` says; `default` is the directory, `store` the file in it. MeshError: what is wrong."""
    parser = argparse.ArgumentParser(prog="meshd portal log", description="audits a portal's own log, offline")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("show", help="how far it is, its keys, and other logs")
    verbs.add_parser("verify", help="make everything again and compare: exit code 10 at the first difference")
    exported = verbs.add_parser("export", help="a copy for others to check")
    exported.add_argument("what", choices=("leaves", "notes"), help="leaves: a CBOR sequence; notes: text")
    exported.add_argument("file", type=Path)
    for one in verbs.choices.values():
        one.add_argument("--data", metavar="DIR", help=f"the portal's directory ({default})")
        one.add_argument("--json", action="store_true", help="answer in JSON")
    arguments = parser.parse_args(argv)
    process.harden()
    file = Path(arguments.data or os.environ.get("STATE_DIRECTORY", "").partition(":")[0] or default) / store
    if arguments.verb == "show":
        _say(arguments.json, found := audit.show(file), _shown(found))
    elif arguments.verb == "verify":
        _verify(file, arguments.json)
    else:
        count = _export(file, arguments.what, arguments.file)
        _say(arguments.json, {"exported": count, "file": str(arguments.file)}, f"{arguments.file}: {count}")


def _verify(store: Path, as_json: bool) -> None:
    try:
        found = audit.verify(store, _progress if sys.stderr.isatty() else lambda done, total: None)
    except audit.NotTheLog as exc:
        if as_json:
            _say(True, {"verified": False, "difference": str(exc)}, "")
        raise
    _say(
        as_json,
        {
            "verified": True, "size": found.size, "root": found.root.hex(), "checkpoints": found.checkpoints,
            "unsigned": found.unsigned, "erased": found.erased,
        },
        f"{found.size} entries and {found.checkpoints} checkpoints are what they say."
        + (f"\nOf {found.erased} the content was erased: their digests stay." if found.erased else ""),
    )  # fmt: skip


def _export(store: Path, what: str, target: Path) -> int:
    try:
        with target.open("xb") as out:
            return audit.export(store, what, out)
    except FileExistsError as exc:
        raise Exists(f"{target} exists already", hint="name another file") from exc
    except OSError as exc:
        raise StoreError(f"{target} can't be written: {exc.strerror}") from exc


def _progress(done: int, total: int) -> None:
    sys.stderr.write(f"\r{done} of {total} entries" + ("\n" if done == total else ""))
    sys.stderr.flush()


def _say(as_json: bool, found: Json, words: str) -> None:
    text = json.dumps({"schema": 1, **found}, ensure_ascii=False) if as_json else words
    sys.stdout.write(f"{text}\n")


def _shown(found: Json) -> str:
    lines = [f"a mirror of {found['mirror_of']}"] if found["mirror_of"] else []
    lines.append(f"{found['size']} entries, root {found['root']}")
    if found["time"] is not None:
        lines.append(f"last written {_date(found['time'])}")
    lines += [
        f"{one['role']:8} {one['vkey']}" + (f"  until {_date(one['until'])}" if one["until"] else "")
        for one in found["keys"]
    ]
    lines += [
        f"peer     {one['origin']}: {one['state']}"
        + (f", {one['size']} entries, {_date(one['seen'])}" if one["seen"] else "")
        for one in found["peers"]
    ]
    return "\n".join(lines)


def _date(seconds: int) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M")
