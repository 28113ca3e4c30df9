"""The objects of the local API that are about recovery shares. The words of a share come in requests, and go out once:
in the answer that tells new ones."""

from __future__ import annotations

from meshd.localapi.bodies import ID, NAME, SECRET, TIME
from meshd.localapi.bodies_admin import VAULT_NAME, WITH_MASTER
from meshd.localapi.shapes import Shape, array, boolean, integer, nullable, record, text

FAULTS = ("length", "words", "checksum", "form", "duplicate", "other-set", "stale", "unknown", "altered")
SOURCES = ("device", "portal", "peer")
PLACES = ("found", "missing", "wrong", "busy", "unreached")

WORDS = text("the words of one share, or the page that holds them; never logged", least=1, most=65536, form="password")
LABEL = text("for whom a share is", least=1, most=64)
SET = text("four hexadecimal digits that shares of one set have in common", most=8)
TOKEN = text(least=1, most=64)
GROUP = record(
    {"threshold": integer("shares of it that are needed", least=1, most=16), "shares": integer(least=1, most=16)},
    {"name": text(most=64)},
)

PREPARE_REQUEST = record(
    {},
    {
        "threshold": integer("shares that are needed; default 3", least=1, most=16),
        "shares": integer("default 5", least=1, most=16),
        "groups": array(GROUP, "instead of these two", least=1, most=16),
        "group_threshold": integer("groups that are needed; default all", least=1, most=16),
        "labels": array(LABEL, "one for each share, in order", most=256),
        "strength": integer("bits: 256 or 128", least=128, most=256),
        "share_passphrase": SECRET,
        "replace": boolean("in place of the shares that there are; split and labelled as these, unless it says how"),
        **WITH_MASTER,
    },
)
NEW_SHARE = record(
    {
        "number": integer(least=1),
        "label": LABEL,
        "words": WORDS,
        "group": integer("from 1", least=1),
        "index": integer("within its group, from 1", least=1),
    }
)
PREPARED = record(
    {
        "token": TOKEN,
        "set": SET,
        "check": text("five letters that stand beside the shares: they tell a wrong passphrase", most=8),
        "made": TIME,
        "group_threshold": integer("groups that are needed", least=1, most=16),
        "groups": array(GROUP, "how they were split", least=1, most=16),
        "shares": array(NEW_SHARE, "told once; they count after `commit` alone"),
    },
    about="new shares. Nothing is changed yet",
)
COMMIT_REQUEST = record({"token": TOKEN}, WITH_MASTER)
COMMITTED = record(
    {"set": SET, "entry": ID, "rotated": array(VAULT_NAME, "vaults that got new keys")},
)
REVOKE_REQUEST = record({}, WITH_MASTER)
REVOKED = record({"revoked": boolean(), "rotated": array(VAULT_NAME)})

CHECK_REQUEST = record({"words": WORDS})
MISREAD = record(
    {"place": integer("of the word, from 1", least=1), "likely": array(text(most=16), "what it may have been", most=8)}
)
SHARE_SEEN = record(
    {
        "set": SET,
        "group": integer("from 1", least=1),
        "groups": integer(least=1),
        "index": integer("within its group, from 1", least=1),
        "threshold": integer("shares of the group that are needed", least=1),
    },
    {
        "label": LABEL,
        "number": integer("among all shares, from 1", least=1),
        "shares": integer("in all", least=1),
        "made": TIME,
    },
)
CHECKED = record(
    {
        "ok": boolean("nothing speaks against it"),
        "current": nullable(boolean("null where that can't be told: not connected, locked, or not for this device")),
        "message": text(most=1024),
        "fault": nullable(text(enum=FAULTS)),
        "misread": array(MISREAD),
        "share": nullable(SHARE_SEEN),
    }
)

DRILL_SHARE_REQUEST = record({"words": WORDS})
DRILL_PROGRESS = record(
    {
        "given": integer("shares that count"),
        "lacking": text("what must come yet; empty: it is enough", most=1024),
        "ok": boolean("this one counts"),
        "message": text(most=1024),
        "fault": nullable(text(enum=FAULTS)),
        "misread": array(MISREAD),
    }
)
DRILL_REQUEST = record({}, {"share_passphrase": SECRET, "check": text("what stands beside the shares", most=8)})
SOURCE = record({"kind": text(enum=SOURCES), "where": text(most=256), "what": text(enum=PLACES), "why": text(most=256)})
DRILLED = record(
    {
        "success": boolean(),
        "entry": ID,
        "sources": array(SOURCE),
        "keys_fit": boolean("the keys in the entry are those that the mesh's profile names"),
        "why": text("why not", most=1024),
        "vaults": array(
            record(
                {
                    "id": ID,
                    "application": text(most=64),
                    "opens": boolean("with every key that its items are under"),
                    "keys": integer(),
                    "why": text(most=256),
                }
            )
        ),
    }
)
LAST_DRILL = record(
    {
        "date": TIME,
        "device": NAME,
        "success": boolean(),
        "sources": array(record({"where": text(most=256), "what": text(most=256)})),
    }
)
_HELD = record({"kind": text(enum=SOURCES), "where": text(most=256), "holds": boolean()})
ENTRY = record(
    {"entry": ID, "held": array(_HELD, "where it is known to be, or not to be yet")},
    {
        "set": SET,
        "made": TIME,
        "group_threshold": integer(),
        "groups": array(GROUP),
        "labels": array(LABEL),
        "drill": nullable(LAST_DRILL),
    },
)
OLD: Shape = record({"set": SET, "made": TIME, "labels": array(LABEL)})
RECOVERY = record(
    {
        "entries": array(ENTRY, "what the mesh can be recovered from; empty: nothing"),
        "old": array(OLD, "shares that were replaced: worth nothing to this mesh, and to be thrown away"),
        "drill_given": integer("shares that wait here for a drill"),
        "due": boolean("a drill is due"),
    }
)
FORGOTTEN = record({"given": integer()})

OPEN_2016_REQUEST = record(
    {"shares": array(text("one share as its text says it; never logged", least=1, most=4096), least=1, most=256)},
    {
        "entry": text("the entry, or an answer or a log of 2016 that holds it", least=1, most=4 * 1024 * 1024),
        "private": boolean("give the keys themselves too"),
    },
)
KEY_2016 = record(
    {
        "use": text("the master signature key, or a master escrow key", enum=("master", "escrow")),
        "fingerprint": ID,
        "bits": integer("of the RSA modulus"),
    },
    {"private": text("PKCS#8, PEM; where it was asked for", most=16384)},
)
OPENED_2016 = record(
    {
        "entries": array(
            record({"id": ID, "how": text(enum=("exact", "overflow", "xor"))}),
            "what the shares name: one, or two where it can't be told how they were made",
        ),
        "notes": array(text(most=1024), "what was wrong, and was put right"),
        "mesh": nullable(ID),
        "keys": array(KEY_2016, "what is in the entry, where one was given"),
        "profile": nullable(
            record(
                {
                    "devices": integer("in the personal profile; 0 where there is only the master profile"),
                    "escrow_named": boolean("every master escrow key that it names was recovered"),
                },
                about="the profile of the mesh, found beside the entry and verified",
            )
        ),
    },
    about="what shares of 2016 bring back; nothing is kept or changed",
)
