"""The objects of the local API that are about portals: accounts, devices that ask through them, joining through one."""

from __future__ import annotations

from meshd.localapi.bodies import DEVICE_NAME, ID, NAME, PROBLEM, ROLES, SECRET, TIME
from meshd.localapi.shapes import array, boolean, integer, nullable, record, text

PORTAL_STATES = ("connecting", "connected", "offline", "refused", "misbehaving", "plain")
REMOTE_INVITATION_STATES = ("open", "admitted", "expired", "cancelled", "failed")
REMOTE_INVITATION_ENDS = ("admitted", "expired", "cancelled", "failed")
REMOTE_CONNECTION_STATES = ("searching", "comparing", "requested", "syncing", "done", "failed", "cancelled")
REMOTE_CONNECTION_ENDS = ("done", "failed", "cancelled")

ACCOUNT = text("name@portal", least=3, most=320)
ADDRESS = text("host:port, where DNS does not tell", least=1, most=300)
PLAIN = boolean("without TLS: on loopback, or by explicit choice")
WORDS = text("a fingerprint in words, for comparing", most=512)

LOG_STATES = ("none", "verified", "stale", "suspect", "contradicted")
LOG = record(
    {"state": text("none: the portal has no log, so what it shows can't be verified", enum=LOG_STATES)},
    {
        "origin": text("of the log", most=256),
        "size": integer("entries of the newest checkpoint that was believed"),
        "checked": TIME,
        "since": nullable(TIME),
        "keys": array(text("a key of the log, or of who cosigns it, as C2SP writes it", most=512), most=64),
    },
    "what the portal's log proves",
)
PORTAL = record(
    {
        "account": ACCOUNT,
        "state": text("plain: one of 2016, which syncs no items", enum=PORTAL_STATES),
        "last_success": nullable(TIME),
        "behind": integer("versions here that it is not known to hold"),
        "error": nullable(PROBLEM),
    },
    {
        "address": nullable(ADDRESS),
        "plain": PLAIN,
        "log": LOG,
        "verifying": nullable(
            record(
                {"done": integer("versions proved"), "of": integer("how many there are, about")},
                about="a verify goes on",
            )
        ),
    },
)
VERDICTS = ("verified", "unverifiable", "stale", "uncosigned", "suspect", "contradicted", "intrusion", "unreachable")
VERDICT = record(
    {
        "account": ACCOUNT,
        "verdict": text("intrusion: it shows versions of this mesh that no device here knows", enum=VERDICTS),
        "message": text("the reason, for a person", most=1024),
        "log": LOG,
        "siblings": integer("other devices whose checkpoint was proved to be of the same log"),
        "evidence": nullable(text("base64url; what anybody can check", most=65536)),
    },
    {
        "proved": integer("versions that the portal proved to be in its log"),
        "withheld": integer("versions published from here that it does not show"),
        "foreign": integer("versions that it shows and that no device here knows"),
        "proof": nullable(text("what was asked for: a tlog-proof, for whoever has the log's key", most=81920)),
        "entry": nullable(text("of which entry it is", most=320)),
    },
)
VERIFY_REQUEST = record(
    {},
    {
        "proof": boolean("a proof too, that others can check"),
        "item": text("of the newest version of this item; else of what this device published last", most=256),
    },
)
PORTALS = record({"portals": array(PORTAL)})
PORTAL_REQUEST = record(
    {"account": ACCOUNT},
    {"address": ADDRESS, "plain": PLAIN, "invite": text("where the portal wants one", least=1, most=512)},
)

ASKING = record(
    {
        "id": ID,
        "fingerprint": text(most=256),
        "fingerprint_words": WORDS,
        "account": ACCOUNT,
        "seen": TIME,
    },
    {
        "keys_made": TIME,
        "asked": nullable(TIME),
        "sealed": boolean("its keys open with a passphrase, as it says; an admin's have to"),
        "proof": text(
            "fp1: compare fingerprints; pin1: knows the secret of an open invitation; unproved: says so; none",
            most=32,
        ),
    },
    "a device that asks to join",
)
PENDING = record({"pending": array(ASKING)}, {"unreached": array(text("account", most=320))})
ACCEPT_REQUEST = record(
    {},
    {
        "role": text("default member", enum=ROLES),
        "name": NAME,
        "grant": array(text('"application:read" or "application:write"', most=256), most=64),
        "master_passphrase": SECRET,
        "force": boolean("as an admin even if its keys open without a passphrase"),
    },
)
ACCEPTED = record(
    {"id": ID, "name": NAME, "role": text(enum=ROLES), "account": ACCOUNT, "delivered": boolean("the portal has it")}
)
REJECTED = record({"id": ID, "account": ACCOUNT, "delivered": boolean()})

REMOTE_INVITATION_REQUEST = record(
    {},
    {
        "account": ACCOUNT,
        "role": text("default member", enum=ROLES),
        "ttl": integer("seconds; default 900", least=10, most=900),
        "grant": array(text('"application:read" or "application:write"', most=256), most=64),
        "master_passphrase": SECRET,
        "force": boolean("as an admin even if its keys open without a passphrase"),
    },
)
REMOTE_INVITATION = record(
    {
        "id": ID,
        "account": ACCOUNT,
        "uri": text("mesh-pair:… for a QR code; it is a secret", most=1024),
        "state": text(enum=REMOTE_INVITATION_STATES),
        "role": text(enum=ROLES),
        "expires": TIME,
    },
    {
        "device": nullable(record({"id": ID, "name": NAME}, {"fingerprint": text(most=256)})),
        "error": nullable(PROBLEM),
    },
)

REMOTE_CONNECTION_REQUEST = record(
    {"name": NAME},
    {
        "account": ACCOUNT,
        "uri": text("of an invitation, instead of the account", least=1, most=1024, form="password"),
        "address": ADDRESS,
        "plain": PLAIN,
        "fingerprint": text("of the mesh: confirms it without asking", least=1, most=256),
        "passphrase": SECRET,
        "no_passphrase": boolean(),
    },
)
REMOTE_CONNECTION = record(
    {"id": ID, "state": text(enum=REMOTE_CONNECTION_STATES), "account": ACCOUNT},
    {
        "mesh": nullable(text(most=256)),
        "mesh_words": nullable(WORDS),
        "own": nullable(text("fingerprint of this device", most=256)),
        "own_words": nullable(WORDS),
        "accepted": boolean("an admin let it in"),
        "confirmed": boolean("the mesh was confirmed here"),
        "device": nullable(DEVICE_NAME),
        "error": nullable(PROBLEM),
    },
)
