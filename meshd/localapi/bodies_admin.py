"""The objects of the local API that are about who belongs to the mesh: removals, roles, rights, vaults, master key.

Requests that the master passphrase may decide take it as `master_passphrase`; where it is needed and missing they are
answered `denied` with `"needs": "master_passphrase"`, so that it is asked for only then.
"""

from __future__ import annotations

from meshd.localapi.bodies import CONTENT, DEVICE_NAME, GRANT, ID, NAME, ROLES, SECRET, TIME
from meshd.localapi.shapes import Shape, array, boolean, integer, nullable, number, record, text

MASTER_STATES = ("online", "offline")

DEVICE_WISH = text("name, id, or the id's unique beginning", least=1, most=256)
VAULT_WISH = text("`ssh`, `ssh/work` or a vault's id", least=1, most=256)
MASTER_FILE = text("the text of a file that holds the sealed master key", least=1, most=65536)
WITH_MASTER: dict[str, Shape] = {
    "master_passphrase": SECRET,
    "master_file": text("where no admin's device holds the sealed master key: the file's text", least=1, most=65536),
}

CALLED = record({"id": ID, "name": NAME}, about="a device, removed ones too")
VAULT_NAME = record({"id": ID, "application": text(most=64), "name": NAME})

# --- removal ----------------------------------------------------------------------------------------------------------

_REMOVAL: dict[str, Shape] = {
    "since": text(
        "a date, which means its local midnight, or a time: what they wrote after that falls too, by this device's own"
        " record of receipt; needs the master passphrase",
        least=1,
        most=40,
    ),
}
PLAN_REQUEST = record({"devices": array(DEVICE_WISH, least=1, most=64)}, _REMOVAL)
REMOVAL_PLAN = record(
    {
        "devices": array(
            record({"id": ID, "name": NAME, "role": nullable(text(enum=ROLES))}, {"removed": boolean("already")})
        ),
        "vaults": array(VAULT_NAME, "they get new keys"),
        "needs_master": boolean("the master passphrase is needed"),
        "last_admin": boolean("nobody would be an admin afterwards; refused without `leave_no_admin`"),
        "quarantined": integer("versions that stand now and would not afterwards"),
        "lost": array(VAULT_NAME, "vaults that nobody who is left could open"),
        "undone": array(
            record({"id": ID, "name": NAME, "remover": NAME}),
            "removals that would fall: each device has to be in `keep_removed` or `readmit`",
        ),
        "adds": array(
            record({"key": text("for `confirm`", most=512), "text": text(most=512), "name": NAME}),
            "what would fall with the admin that added it, unless it is confirmed",
        ),
        "since": nullable(TIME),
        "known_since": nullable(TIME),
    }
)
REMOVAL_REQUEST = record(
    {"devices": array(DEVICE_WISH, least=1, most=64)},
    {
        **_REMOVAL,
        **WITH_MASTER,
        "keep_removed": array(DEVICE_WISH, "see `undone` of the plan", most=1024),
        "readmit": array(DEVICE_WISH, "see `undone` of the plan", most=1024),
        "confirm": array(text(least=1, most=512), "see `adds` of the plan", most=1024),
        "leave_no_admin": boolean(),
        "wait": number("seconds for the others to be in step before, and to acknowledge after; default 10", most=60),
    },
)
OTHER = record(
    {"id": ID, "name": NAME, "acknowledged": boolean(), "connected": boolean(), "last_seen": nullable(TIME)},
    about="a device that stays, and whether it holds the removal",
)
_HEARD: dict[str, Shape] = {
    "acknowledged": array(NAME, "names of the devices that hold the removal"),
    "pending": array(NAME, "names of those that have yet to hear; they do by themselves"),
}
REMOVAL = record(
    {
        "removed": array(NAME),
        "rotated": integer("vaults with new keys"),
        **_HEARD,
        "exposed": integer("items that they could read"),
        "unchanged": integer("of these, what has not been changed since"),
    },
    {
        "devices": array(CALLED, "who was removed"),
        "vaults": array(VAULT_NAME, "those with new keys"),
        "left": array(VAULT_NAME, "vaults that this device can't open: another admin makes new keys for them"),
        "others": array(OTHER),
    },
)
REMOVED = record({"id": ID, "name": NAME, "removed": nullable(TIME), **_HEARD})
REMOVALS = record({"removed": array(REMOVED)})
EXPOSED = record(
    {"id": ID, "title": text(most=1024), "changed": boolean("nothing that it holds now was readable there")},
    {
        "deleted": boolean("changed is of what it held last: at the site that may still be valid"),
        "application": text(most=64),
        "username": text(most=1024),
    },
)
EXPOSURE = record({"device": CALLED, "items": array(EXPOSED), "exposed": integer(), "unchanged": integer()})

# --- roles and rights -------------------------------------------------------------------------------------------------

_GRANTS = array(text("VAULT:read or VAULT:write; * is all vaults, future ones too", least=1, most=256), most=64)
RIGHTS = record(
    {"id": ID, "name": NAME, "role": text(enum=ROLES), "grants": array(GRANT, "empty for admins, who need none")},
    {"rotated": array(VAULT_NAME, "vaults that got new keys")},
)
ROLE_REQUEST = record(
    {"role": text(enum=ROLES)},
    {"grant": _GRANTS, "leave_no_admin": boolean("even where nobody is an admin then"), **WITH_MASTER},
)
RIGHTS_REQUEST = record(
    {},
    {
        "grant": _GRANTS,
        "revoke": array(VAULT_WISH, "* is all of them", most=64),
        "keep_read": boolean("of what is revoked, take the writing alone"),
        **WITH_MASTER,
    },
)

# --- vaults -----------------------------------------------------------------------------------------------------------

VAULT_REQUEST = record({"application": text(least=1, most=64), "name": NAME})
VAULT_CHANGE = record({}, {"name": NAME, "deleted": boolean("false takes a deletion back")})
ROTATION_REQUEST = record({}, {"vault": VAULT_WISH})
ROTATION = record({"rotated": array(VAULT_NAME)})

# --- quarantine -------------------------------------------------------------------------------------------------------

_QUARANTINED: dict[str, Shape] = {
    "id": text("of the version", most=64),
    "item": text("id of what it is a version of", most=256),
    "kind": text("item, or a kind of profile", most=32),
    "application": text(most=64),
    "title": text("empty where this device can't read it", most=1024),
    "device": NAME,
    "device_id": ID,
    "received": TIME,
    "updated": TIME,
    "why": text(most=1024),
    "newest": boolean("nothing else in quarantine replaces it"),
    "imported": boolean(),
}
QUARANTINED = record(_QUARANTINED, about="a version whose signer was not entitled to it: kept, not applied")
FELL = record(
    {
        "key": text("D:device or X:vault", most=128),
        "name": text(most=80),
        "text": text("what it is, in words", most=256),
    },
    about="what fell with the admin who had added it",
)
QUARANTINE = record(
    {
        "quarantine": array(QUARANTINED, "what came last first"),
        "fell": array(
            FELL, "devices and vaults that can be confirmed here; empty where this device is locked or no admin"
        ),
    }
)
CONFIRM_REQUEST = record(
    {"names": array(text("a name, a key, or the beginning of an id", least=1, most=128), most=512)}
)
CONFIRMED = record({"confirmed": array(FELL)})
QUARANTINE_SHOWN = record(
    {**_QUARANTINED, "content": CONTENT, "now": nullable(CONTENT)},
    about="with what is applied in its place now",
)
ALL_VERSIONS = boolean("those that another one in quarantine replaces, and imported ones, too")
QUARANTINE_REQUEST = record(
    {},
    {
        "ids": array(text("of a version or its item", least=1, most=256), most=10000),
        "device": text("instead: the newest of each item that this device wrote", least=1, most=256),
    },
)
QUARANTINE_IMPORT = record(
    {
        "imported": array(record({"id": text(most=64), "item": ID})),
        "unchanged": integer("the vault says that already"),
        "rejected": array(record({"id": text(most=256), "reason": text(most=1024)})),
    }
)

# --- keys -------------------------------------------------------------------------------------------------------------

RENEWAL_REQUEST = record(
    {},
    WITH_MASTER,
)
RENEWAL = record({"device": DEVICE_NAME}, {"rotated": array(VAULT_NAME)})
MASTER_PASSPHRASE_REQUEST = record({"new": SECRET}, WITH_MASTER)
MASTER_FILE_ANSWER = record({"text": MASTER_FILE}, about="the master key under the master passphrase, for a file")
OFFLINE_REQUEST = record({"text": MASTER_FILE, "master_passphrase": SECRET}, about="`text`: as it is in your file now")
ONLINE_REQUEST = record({"text": MASTER_FILE, "master_passphrase": SECRET})
MASTER = record({"state": text(enum=MASTER_STATES)})
WIPED = boolean("the keys are destroyed; the rest is deleted within moments, or at the next start")
WIPE_REQUEST = record({}, {"force": boolean("although this device still belongs to the mesh")})

# --- undo -------------------------------------------------------------------------------------------------------------

UNDOABLE = record(
    {
        "id": text(most=256),
        "time": TIME,
        "until": TIME,
        "type": text("rights, device-name, vault-name", most=32),
        "text": text("what was done", most=1024),
    },
    {"device": ID, "name": NAME, "by": NAME, "needs_master": boolean()},
)
UNDOABLES = record({"undo": array(UNDOABLE, "newest first")})
UNDO_REQUEST = record({}, WITH_MASTER)
UNDONE = record({"undone": UNDOABLE}, {"rotated": array(VAULT_NAME)})
