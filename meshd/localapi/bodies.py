"""The objects of the local API: what a device, an item, an invitation look like in requests and answers.

Times are RFC 3339 in UTC ("2026-11-24T06:41:00Z"), durations are seconds, identifiers are the mesh's own (UDF, vid).
"""

from __future__ import annotations

from meshd.localapi.shapes import Shape, array, boolean, integer, mapping, nullable, number, record, text

ROLES = ("admin", "member", "relay")
INVITATION_STATES = ("open", "proving", "asked", "admitted", "burned", "expired", "cancelled", "failed")
INVITATION_ENDS = ("admitted", "burned", "expired", "cancelled", "failed")
CONNECTION_STATES = ("searching", "found", "proving", "requested", "syncing", "done", "failed", "cancelled")
CONNECTION_ENDS = ("done", "failed", "cancelled")

NAME = text("name of a device or vault, as the person gave it", least=1, most=64)
ID = text("identifier", least=1, most=256)
TIME = text("RFC 3339, UTC", most=40, form="date-time")
SECRET = text("never logged, never in an answer", least=1, most=1024, form="password")
PASSWORD = text("", most=65536, form="password")
NOTE = text("", most=65536)
SITES = array(text("host or URL; hosts are normalised", least=1, most=2048), most=64)
TAGS = array(text("", least=1, most=128), most=64)
LONG_POLL = {
    "wait": integer("hold the answer for up to this many seconds while the state is `state`", most=55),
    "state": text("the state that the caller knows", most=32),
}

DEVICE_NAME = record({"id": ID, "name": NAME, "role": text(enum=ROLES)})
PROBLEM = record(
    {
        "code": text("stable word", most=64),
        "message": text("a sentence", most=4096),
        "hint": nullable(text("the fix", most=4096)),
    }
)
PEER = record(
    {
        "id": ID,
        "name": NAME,
        "role": text(enum=ROLES),
        "connected": boolean(),
        "address": nullable(text("host:port of the connection, or the last one that worked", most=300)),
        "behind": integer("versions of ours that it has not acknowledged"),
        "last_seen": nullable(TIME),
    },
    {
        "through": text("a portal in step: what the device lacks it finds there", most=320),
        "heard": nullable(TIME),
    },
)
PEERS = array(PEER, "the other devices of the mesh")
ANNOUNCEMENT = record(
    {
        "time": TIME,
        "type": text("added, removed, role, burned, recovery; unknown types are to be shown by their text", most=32),
        "text": text("a sentence", most=1024),
    },
    {"device": ID, "name": NAME, "by": NAME, "role": text(enum=ROLES)},
    "something about who belongs to the mesh, told on every device",
)
ACCOUNT_STATE = record(
    {
        "account": text("name@portal", most=320),
        "state": text("connecting, connected, offline, refused, misbehaving, plain (2016: no items)", most=32),
        "last_success": nullable(TIME),
        "behind": integer("versions here that it is not known to hold"),
        "error": nullable(PROBLEM),
    }
)
STATUS = record(
    {
        "mesh": nullable(text("UDF of the mesh; null before init or connect", most=256)),
        "device": nullable(DEVICE_NAME),
        "locked": boolean(),
        "peers": PEERS,
        "portals": array(ACCOUNT_STATE, "accounts of the mesh"),
        "conflicts": integer("items with more than one head"),
        "health": array(PROBLEM, "what is wrong now, worst first; empty when all is well"),
        "items": mapping(integer(), "live items per application"),
        "listening": array(text(most=300), "addresses, host:port"),
        "discovery": record({"state": text(enum=("on", "off", "waiting"))}, {"interfaces": array(text(most=64))}),
        "events": integer("id of the newest event"),
        "uptime": number("seconds"),
        "version": text("release of the daemon", most=64),
        "api": integer("number of the local API"),
    },
    {
        "synced": boolean("every connected peer has acknowledged our newest version, and we theirs"),
        "announcements": array(ANNOUNCEMENT, "of the last 24 hours, the newest first"),
        "drafts": integer("writes that wait here until an admin makes new keys"),
        "stale": integer("items that were written in the last 24 hours by who had not heard of a removal"),
    },
)
WHOAMI = record(
    {"mesh": text(most=256), "device": DEVICE_NAME},
    {"fingerprint_words": text("the mesh's fingerprint for reading aloud", most=256), "locked": boolean()},
)

MESH_REQUEST = record(
    {"name": NAME, "master_passphrase": SECRET},
    {
        "passphrase": SECRET,
        "no_passphrase": boolean("keep the device's keys unsealed; refused for an admin without `force`"),
        "force": boolean(),
    },
)
MESH = record({"mesh": text(most=256), "device": DEVICE_NAME}, {"fingerprint_words": text(most=256)})
LOCK = record({"locked": boolean()})

INVITATION_REQUEST = record(
    {},
    {
        "role": text("default member", enum=ROLES),
        "ttl": integer("seconds; default 300", least=10, most=900),
        "words": integer("words in the code; default 2", least=2, most=8),
        "remote": boolean("do not require the on-link token"),
        "confirm": boolean("ask before admitting: state `asked`, then POST answer"),
        "grant": array(text("VAULT:read or VAULT:write: `ssh`, `ssh/work`, an id, or * for all", most=256), most=64),
        "replaces": text("device whose place, role, rights and name the new one takes; it leaves", least=1, most=256),
        "master_passphrase": SECRET,
        "force": boolean(),
    },
)
INVITATION = record(
    {
        "id": ID,
        "code": text("for `meshctl connect`", most=128),
        "slot": integer("the number that the code begins with"),
        "expires": TIME,
        "uri": text("mesh-pair:… for a QR code", most=1024),
        "state": text(enum=INVITATION_STATES),
        "attempts_left": integer(),
        "role": text(enum=ROLES),
    },
    {
        "device": nullable(
            record({"id": ID, "name": NAME}, {"fingerprint": text(most=256)}, "who asks, or who was admitted")
        ),
        "error": nullable(PROBLEM),
    },
)
ANSWER_REQUEST = record({"accept": boolean()})

CONNECTION_REQUEST = record(
    {"name": NAME},
    {
        "code": text("the code as shown by invite", least=1, most=128, form="password"),
        "uri": text("instead of the code", least=1, most=1024, form="password"),
        "address": text("host:port, where discovery can't reach", least=1, most=300),
        "passphrase": SECRET,
        "no_passphrase": boolean(),
    },
)
CONNECTION = record(
    {"id": ID, "state": text(enum=CONNECTION_STATES)},
    {
        "mesh": nullable(text(most=256)),
        "device": nullable(DEVICE_NAME),
        "admin": nullable(text("name of the device that admitted this one", most=64)),
        "attempts_left": integer("tries left with this code"),
        "received": integer("versions received in state syncing"),
        "error": nullable(PROBLEM),
    },
)

GRANT = record(
    {"vault": text("id, or * for all, future ones too", most=256), "level": text(enum=("read", "write"))},
    {"application": text(most=64), "name": NAME},
)
DEVICE = record(
    {
        "id": ID,
        "name": NAME,
        "role": text(enum=ROLES),
        "this": boolean("the device that answers"),
        "connected": boolean(),
        "address": nullable(text("given by hand with `device address`", most=300)),
        "last_seen": nullable(TIME),
    },
    {
        "addresses": array(text(most=300), "remembered addresses"),
        "added": nullable(TIME),
        "behind": integer(),
        "heard": nullable(TIME),
        "through": text("a portal in step: what the device lacks it finds there", most=320),
        "fingerprint": text("the device's fingerprint for reading aloud", most=256),
        "last_error": nullable(text("why the last dial failed", most=1024)),
        "grants": array(GRANT, "what a member may read or write"),
    },
)
DEVICES = record({"devices": array(DEVICE)})
DEVICE_REQUEST = record({}, {"name": NAME, "address": nullable(text("host:port; null forgets it", least=1, most=300))})

VAULT_WISH = text("name or id of a vault of that application", least=1, most=256)
VAULT = record(
    {
        "id": ID,
        "application": text(most=64),
        "name": NAME,
        "items": integer(),
        "readable": boolean(),
        "writable": boolean(),
    },
    {"deleted": boolean()},
)
APPLICATIONS = record({"applications": array(VAULT)})

_SUMMARY: dict[str, Shape] = {
    "id": ID,
    "application": text(most=64),
    "vault": text("id of the vault", most=256),
    "title": text(most=1024),
    "sites": array(text(most=2048)),
    "username": text(most=1024),
    "updated": TIME,
    "made": TIME,
    "conflicts": integer("heads beside the winner"),
    "device": text("name of the device that wrote the winner", most=256),
}
_SUMMARY_MORE: dict[str, Shape] = {
    "deleted": boolean(),
    "tags": array(text(most=128)),
    "vid": text("the winner", most=64),
    "pending": boolean("written here, and kept until an admin makes new keys"),
}
_SECRETS: dict[str, Shape] = {
    "password": text(most=4096, form="password"),
    "note": text(most=65536),
    "totp": text("otpauth URI or base32 secret", most=4096, form="password"),
}
SUMMARY = record(_SUMMARY, _SUMMARY_MORE, "an item without its secrets")
ITEMS = record({"items": array(SUMMARY), "next": nullable(text("give it as `after` for the next page", most=512))})
_CONTENT: dict[str, Shape] = {
    "title": text(most=1024),
    "sites": array(text(most=2048)),
    "username": text(most=1024),
    **_SECRETS,
}
CONTENT = record(_CONTENT, {"deleted": boolean(), "tags": array(text(most=128))}, "what an item holds")
HEAD = record(
    {"vid": text(most=64), "winner": boolean(), "device": text(most=256), "updated": TIME, **_CONTENT},
    {"deleted": boolean(), "tags": array(text(most=128)), "device_id": ID},
    "one of several states of an item",
)
ITEM = record(
    {**_SUMMARY, **_SECRETS},
    {**_SUMMARY_MORE, "versions": array(HEAD, "every head, the winner first; only in conflict")},
    "an item with its secrets",
)
CONFLICTS = record({"conflicts": array(SUMMARY)})

GENERATE: dict[str, Shape] = {
    "length": integer("characters; default 20", least=8, most=256),
    "symbols": boolean("default true"),
    "words": integer("a phrase of this many words instead", least=3, most=24),
}
_ITEM_REQUEST: dict[str, Shape] = {
    "title": text(most=1024),
    "username": text(most=1024),
    "password": PASSWORD,
    "generate": record({}, GENERATE, "let the daemon make the password"),
    "tags": TAGS,
}
ITEM_REQUEST = record(
    {"application": text(enum=("password",)), "sites": SITES},
    {"vault": VAULT_WISH, **_ITEM_REQUEST, "note": NOTE, "totp": text(most=4096, form="password")},
)
ITEM_CHANGE = record(
    {},
    {**_ITEM_REQUEST, "sites": SITES, "note": nullable(NOTE), "totp": nullable(text(most=4096, form="password"))},
    "members that are absent stay as they are; an edit replaces every head",
)
WRITTEN = record(
    {"id": ID},
    {
        "vid": text("absent while pending", most=64),
        "updated": TIME,
        "deleted": boolean(),
        "pending": boolean("no key is fit for it: it is kept here, sealed, until an admin makes one"),
    },
    "durable when answered",
)
LOOKUP = record(
    {"application": text(enum=("password",)), "site": text(least=1, most=2048)},
    {"username": text(most=1024), "vault": VAULT_WISH},
)

ROW = record({"row": integer("line of the file, the header is 1"), "reason": text(most=1024)})
IMPORT_REQUEST = record(
    {
        "application": text(enum=("password",)),
        "format": text(enum=("chrome-csv",)),
        "text": text("the whole file", most=32 * 1024 * 1024, form="password"),
    },
    {"vault": VAULT_WISH, "update": boolean("edit items whose password differs"), "dry_run": boolean("report only")},
)
IMPORT = record(
    {
        "added": integer(),
        "updated": integer(),
        "unchanged": integer("already in the vault, password included"),
        "duplicates": integer("named twice in the file"),
        "rejected": array(ROW, "malformed rows; when there is one, nothing was imported"),
    },
    {
        "different": array(ROW, "in the vault with another password, left alone without `update`"),
        "applied": boolean("false for a dry run and when rows were rejected"),
        "pending": integer("of what was added or updated, what waits here until an admin makes new keys"),
    },
)

EVENT = record(
    {
        "schema": integer(least=1, most=1),
        "id": integer("gap-free, kept over restarts"),
        "time": TIME,
        "type": text(
            "reset (with `snapshot`: a whole status), mesh, device, item, conflict, peer, invitation, connection, "
            "asking (at the portal `name`), lock, health, vault, rotation, draft, stale, import, undo, master, "
            "recovery; unknown types are to be ignored",
            most=64,
        ),
    },
    {
        "snapshot": STATUS,
        "item": text("id", most=256),
        "application": text(most=64),
        "device": text("id", most=256),
        "name": text(most=64),
        "state": text(most=64),
        "count": integer(),
        "role": text(most=32),
        "by": text("name of the device that did it", most=64),
        "vault": text("id", most=256),
    },
)
ERROR = record(
    {
        "schema": integer(least=1, most=1),
        "error": record(
            {"code": text("stable word", most=64), "message": text(most=4096)},
            {
                "hint": nullable(text(most=4096)),
                "candidates": array(SUMMARY, "with `ambiguous`"),
                "pending": array(text(most=64), "with `not-synced`: names of the devices that are not in step"),
                "needs": text("with `denied`: `master_passphrase`; ask again with that", most=64),
            },
        ),
    }
)
