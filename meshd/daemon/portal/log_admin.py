"""`meshd portal admin log`: a new key for the log, and the decision about a store that is an old copy."""

from __future__ import annotations

import argparse
from typing import Any

from meshd.daemon.portal import crosslogging
from meshd.daemon.portal.sequencer import Sequencer
from meshd.errors import BadRequest

Json = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """The verbs; they are returned for what all commands share."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    fetched = verbs.add_parser("fetch", help="get what an old copy lost from a mirror, and go on as the same log")
    fetched.add_argument("--from", dest="source", required=True, metavar="NAME", help="the mirror's name")
    fetched.add_argument("--address", default="", metavar="HOST:PORT", help="where it is, if not where DNS says")
    fetched.add_argument("--insecure-http", action="store_true", help="without TLS: for tests")
    return [
        fetched,
        verbs.add_parser("rotate-key", help="a new key signs beside the old one for thirty days, then alone"),
        verbs.add_parser(
            "accept-loss", help="go on from an old copy, as a log of another name: what is missing is lost"
        ),
    ]


def asked(arguments: argparse.Namespace) -> Json:
    """What the arguments ask the portal to do."""
    if arguments.verb != "fetch":
        return {"command": arguments.verb}
    return {
        "command": "fetch", "source": arguments.source, "address": arguments.address, "plain": arguments.insecure_http,
    }  # fmt: skip


async def perform(sequencer: Sequencer, command: str) -> Json:
    """Do what `log COMMAND` says; BadRequest says why not."""
    log = sequencer.own_log
    if log is None:
        raise BadRequest("this portal has no name yet", hint="start it once")
    if command == "rotate-key":
        await sequencer.change(log.rotate)
    elif log.ahead is None:
        raise BadRequest(
            "no witness has more of this log than its store: nothing is lost",
            hint="ask the portal while it runs: it looks when it starts",
        )
    else:
        await crosslogging.begin_anew(sequencer)
    return {"origin": log.origin, "keys": log.vkeys[:-1], "witness": log.witness.vkey}


def words(answer: Json) -> str:
    """The same for people."""
    if "fetched" in answer:
        return f"{answer['fetched']} entries came back." + (f"\n{answer['behind']}" if answer["behind"] else "")
    return "\n".join(
        [
            f"The log is {answer['origin']}. It is signed by",
            *(f"  {key}" for key in answer["keys"]),
            f"and this portal cosigns as\n  {answer['witness']}",
        ]
    )
