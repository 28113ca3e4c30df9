"""`meshd portal mirror`: the arguments, progress, and answers for people and for programs."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import trio

from meshd.daemon import logging, paths
from meshd.daemon.portal import app, mirrored, peers
from meshd.daemon.portal import config as configs
from meshd.daemon.portal.config import Config
from meshd.daemon.portal.mirror import Mirror
from meshd.daemon.portal.origin import Origin
from meshd.daemon.portal.sequencer import Sequencer
from meshd.errors import BadRequest, Exists, FormatError, StoreError
from meshd.net import lan, process
from meshd.net.portal_client import HttpClient
from meshd.net.srv import Services
from meshd.portal.names import normalise_portal
from meshd.tlog.checkpoint import Checkpoint
from meshd.tlog.note import Verifier

PROGRESS_SECONDS = 0.2
Json = dict[str, Any]


def run(argv: Sequence[str], where: Callable[[argparse.Namespace], Path]) -> None:
    """What `meshd portal mirror …` says; `where` gives the directory. MeshError: what is wrong."""
    arguments = _parser().parse_args(argv)
    process.harden()
    try:
        origin = peers.origin_of(arguments.of)
        name = normalise_portal(arguments.name) if arguments.name else ""
        keys = [Verifier.parse(one) for one in arguments.key]
    except FormatError as exc:
        raise BadRequest(f"--of and --name are domains, --key is a vkey: {exc}") from exc
    if any(one.name != origin for one in keys):
        raise BadRequest("--key is a key of the log that is mirrored, and has its name")
    if arguments.address:
        lan.parse_address(arguments.address)
    directory = where(arguments)
    paths.private_directory(directory)
    file = Path(arguments.config) if arguments.config else directory / app.CONFIG
    with paths.hold(directory / app.LOCK, "--data"):
        identity = mirrored.prepare(directory / app.STORE, origin, name, int(time.time()))
        if arguments.keys:
            _say_keys(identity, origin, as_json=arguments.json)
            return
        if arguments.evidence is not None:
            _write_evidence(directory / app.STORE, arguments.evidence)
            return
        config = configs.overrule(configs.load(file), arguments)
        config = msgspec.structs.replace(config, domain=origin.partition("/")[0], hosts=(*config.hosts, identity.name))
        if not arguments.once:
            config = configs.check(config)
        logging.start(config.log.level)
        make = _maker(arguments, identity, config, keys)
        if arguments.once:
            trio.run(_once, directory, make, strict_exception_groups=True)
        else:
            trio.run(app.run_portal, config, directory, make, strict_exception_groups=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="meshd portal mirror",
        description="follows another portal's log, whole and verified, serves it read-only, and cosigns what it holds",
        epilog="First --keys: whoever runs the other portal grants the log to them.",
    )
    add = parser.add_argument
    add("--of", required=True, metavar="DOMAIN", help="whose log, by its domain or its origin")
    add("--name", metavar="DOMAIN", help="the mirror's own name, in which its keys are: needed once")
    add("--keys", action="store_true", help="show the mirror's keys, and end")
    add("--key", action="append", default=[], metavar="VKEY", help="a key of that log; else it is believed at first")
    add("--address", default="", metavar="HOST:PORT", help="where the portal is, if not where DNS says")
    add("--once", action="store_true", help="come to where the log is now, and end: nothing is served")
    add("--evidence", type=Path, metavar="FILE", help="write what shows that the log contradicted itself, and end")
    add("--json", action="store_true", help="one line of JSON for each checkpoint that is all here")
    add("--data", metavar="DIR", help="keep everything under DIR")
    add("--config", metavar="FILE", help="read FILE instead of DIR/portal.toml")
    configs.add_arguments(parser)
    return parser


def _maker(
    arguments: argparse.Namespace, identity: mirrored.Identity, config: Config, keys: Sequence[Verifier]
) -> Callable[[Sequencer, HttpClient], Mirror]:
    def make(sequencer: Sequencer, http: HttpClient) -> Mirror:
        origin = Origin(
            http,
            Services(),
            config.domain,
            identity.peer.key,
            address=arguments.address,
            plain=config.insecure_http,
            now=lambda: int(time.time()),
        )
        shown = _Shown(as_json=arguments.json, origin=peers.origin_of(arguments.of))
        return Mirror(sequencer, origin, identity, keys=keys, progress=shown.progress, complete=shown.complete)

    return make


async def _once(directory: Path, make: Callable[[Sequencer, HttpClient], Mirror]) -> None:
    http = HttpClient()
    sequencer = Sequencer(directory / app.STORE, create=False)
    try:
        await make(sequencer, http).once()
    finally:
        sequencer.close()
        with trio.CancelScope(shield=True):
            await http.aclose()


class _Shown:
    """Progress on a terminal, and a line for each checkpoint that is all here."""

    def __init__(self, *, as_json: bool, origin: str) -> None:
        self._as_json, self._origin = as_json, origin
        self._tty = sys.stderr.isatty()
        self._began = self._last = time.monotonic()
        self._first: int | None = None
        self._line = False

    def progress(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first, self._began = done, now
        if not self._tty or (done < total and now - self._last < PROGRESS_SECONDS):
            return
        self._last = now
        rate = (done - self._first) / max(now - self._began, 0.001)
        words = f"{done} of {total} entries" + (f", {rate:.0f} a second" if done > self._first else "")
        sys.stderr.write(f"\r\x1b[K{words}" + ("\n" if done == total else ""))
        sys.stderr.flush()
        if done == total:
            self._first = None

    def complete(self, checkpoint: Checkpoint) -> None:
        if self._as_json:
            told = {"origin": checkpoint.origin, "size": checkpoint.size, "root": checkpoint.root.hex()}
            sys.stdout.write(json.dumps({"schema": 1, "mirrored": told}) + "\n")
        else:
            sys.stdout.write(f"{checkpoint.origin}: all {checkpoint.size} entries are here, verified.\n")
        sys.stdout.flush()


def _say_keys(identity: mirrored.Identity, origin: str, *, as_json: bool) -> None:
    keys = {"peer": identity.peer.vkey, "mirror": identity.cosigner.vkey}
    if as_json:
        sys.stdout.write(json.dumps({"schema": 1, "mirror_of": origin, "name": identity.name, "keys": keys}) + "\n")
        return
    sys.stdout.write(
        f"With the first this mirror asks for the log; with the second it cosigns what it holds.\n"
        f"  {keys['peer']}\n  {keys['mirror']}\n"
        f"Whoever runs {origin.partition('/')[0]} grants it the log:\n"
        f"  meshd portal admin peer add {identity.name} --grant full --key '{keys['peer']}' --key '{keys['mirror']}'"
        f" --url https://{identity.name}/.well-known/mmm-witness\n"
    )


def _write_evidence(store: Path, target: Path) -> None:
    found = mirrored.evidence(store)
    if found is None:
        raise BadRequest("the log has not contradicted itself, as far as this mirror saw it")
    try:
        with target.open("xb") as out:
            out.write(found)
    except FileExistsError as exc:
        raise Exists(f"{target} exists already", hint="name another file") from exc
    except OSError as exc:
        raise StoreError(f"{target} can't be written: {exc.strerror}") from exc
