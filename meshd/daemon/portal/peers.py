"""`meshd portal admin peer`: the portals, witnesses and mirrors that this portal knows, each by its keys.

A key is a vkey, and says by its form what it is for:

    log        Ed25519 in the name of the origin: by it the peer's checkpoints are known, and cosigned here
    witness    a cosigner: asked to cosign ours, where there is a URL
    transfer   Ed25519 under a name that ends in /mmm-peer: may ask for our log, as far as it is granted
"""

from __future__ import annotations

import argparse
import datetime
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from meshd.daemon.portal.mirrored import mirror_of
from meshd.errors import BadRequest, NotFound
from meshd.portal.names import normalise_portal
from meshd.store import portal_log_rows as log_rows
from meshd.store.portal_db import open_portal
from meshd.tlog.note import COSIGNATURE, ED25519, Verifier

GRANTS = ("leaves", "full")
LOG, TRANSFER = "/mmm-log", "/mmm-peer"
MAX_KEYS = 16
Json = dict[str, Any]


def origin_of(name: str) -> str:
    """The origin that a person means: as it is, or the log of a domain. FormatError."""
    return name if "/" in name else normalise_portal(name) + LOG


def add(connection: sqlite3.Connection, asked: Json) -> Json:
    """Know a peer, or know it by these keys from now on; what was seen of its log stays. BadRequest, FormatError."""
    origin, url, granted = origin_of(str(asked["name"])), str(asked["url"]).rstrip("/"), str(asked["grant"])
    keys = [Verifier.parse(str(one)) for one in asked["keys"][:MAX_KEYS]]
    if url and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname):
        raise BadRequest("a URL begins with https://")
    logs = [one for one in keys if one.kind == ED25519 and one.name == origin]
    witnesses = [one for one in keys if one.kind == COSIGNATURE]
    transfers = [one for one in keys if one.kind == ED25519 and one.name.endswith(TRANSFER)]
    for one in keys:
        if one not in (*logs, *witnesses, *transfers):
            raise BadRequest(f"{one.name} is not {origin}", hint="a log's key has the name of the log")
    if bool(transfers) != bool(granted) or granted not in ("", *GRANTS):
        raise BadRequest("--grant goes with a key whose name ends in /mmm-peer, and that key with --grant")
    if not keys:
        raise BadRequest("a peer is known by its keys", hint="add --key")
    if (logs or witnesses) and origin == mirror_of(connection):
        raise BadRequest(f"{origin} is mirrored here, and its keys are those that it signs with")
    if logs or witnesses:
        log_rows.put_peer(connection, origin, url, [one.vkey for one in logs], [one.vkey for one in witnesses])
    if transfers:
        connection.execute("DELETE FROM peers WHERE name = ?", (origin,))
    for one in transfers:
        connection.execute(
            "INSERT OR REPLACE INTO peers (keyid, key, granted, name) VALUES (?, ?, ?, ?)",
            (one.key.udf, one.key.public, granted, origin),
        )
    return {"peer": origin}


def remove(connection: sqlite3.Connection, asked: Json) -> Json:
    """Forget a peer, and what was granted to it. NotFound."""
    origin = origin_of(str(asked["name"]))
    revoked = connection.execute("DELETE FROM peers WHERE name = ?", (origin,)).rowcount
    known = origin != mirror_of(connection) and log_rows.drop_peer(connection, origin)  # a mirror keeps its pin
    if not known and not revoked:
        raise NotFound(f"there is no peer {origin}")
    return {"peer": origin, "removed": True}


def listed(store: Path) -> list[Json]:
    """All that are known, by origin."""
    with open_portal(store, readonly=True) as database:
        known = {one.origin: one for one in log_rows.peers(database.connection)}
        granted = dict(database.query("SELECT name, granted FROM peers"))
    found = []
    for origin in sorted({*known, *granted}):
        peer = known.get(origin) or log_rows.Peer(origin, "", (), (), state="")
        found.append(
            {
                "peer": origin, "url": peer.url, "log_keys": list(peer.log_keys), "grant": granted.get(origin),
                "witness_keys": list(peer.witness_keys), "state": peer.state or None, "size": peer.size,
                "seen": peer.seen or None, "evidence": peer.evidence,
            }
        )  # fmt: skip
    return found


# --- the command line -------------------------------------------------------------------------------------------------


def add_arguments(peer: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """The verbs of `peer`."""
    verbs = peer.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("list", help="all of them")
    added = verbs.add_parser("add", help="know a portal, a witness or a mirror by its keys")
    added.add_argument("name", help="its domain, or the origin of its log")
    added.add_argument("--key", action="append", default=[], metavar="VKEY", help="repeatable: log, witness, transfer")
    added.add_argument("--url", default="", help="where it takes checkpoints; without one it is not asked")
    added.add_argument("--grant", choices=GRANTS, default="", help="what the transfer key may have of the log")
    verbs.add_parser("remove", help="forget it, and what it was granted").add_argument("name")
    return list(verbs.choices.values())


def asked(arguments: argparse.Namespace) -> Json:
    """What the arguments ask the portal to do."""
    if arguments.verb == "remove":
        return {"command": "peer-remove", "name": arguments.name}
    more = {"url": arguments.url, "keys": arguments.key, "grant": arguments.grant}
    return {"command": "peer-add", "name": arguments.name, **more}


def words(answer: Json) -> str:
    """The answer for people."""
    if "peers" not in answer:
        return f"{answer['peer']} is {'forgotten' if answer.get('removed') else 'known'}."
    return "\n".join(map(_line, answer["peers"])) or "There are no peers."


def _line(one: Json) -> str:
    uses = ["log"] if one["log_keys"] else []
    uses += ["witness"] if one["witness_keys"] else []
    uses += [f"gets {one['grant']}"] if one["grant"] else []
    seen = ""
    if one["seen"]:
        when = datetime.datetime.fromtimestamp(one["seen"], datetime.UTC).strftime("%Y-%m-%d %H:%M")
        seen = f", {one['size']} entries at {when}"
    state = f"; {one['state']}" if one["log_keys"] else ""  # what is known of its log
    return f"{one['peer']}: {', '.join(uses)}{state}{seen}"
