"""The objects of the local API that are about coming back with recovery shares."""

from __future__ import annotations

from meshd.localapi.bodies import ID, NAME, SECRET
from meshd.localapi.bodies_portal import ACCOUNT, ADDRESS, PLAIN
from meshd.localapi.bodies_recovery import WORDS
from meshd.localapi.shapes import array, boolean, integer, nullable, record, text

PROOFS = ("proved", "no-log", "unproved")
RESTORE_REQUEST = record(
    {"master_passphrase": SECRET},
    {
        "shares": array(WORDS, "as many as are needed; without them those that were given before", least=1, most=256),
        "name": NAME,
        "share_passphrase": SECRET,
        "check": text("what stands beside the shares", most=8),
        "account": ACCOUNT,
        "lan": boolean("ask the devices on this network"),
        "address": ADDRESS,
        "unproved": boolean("take what the portal's log does not prove"),
        "plain": PLAIN,
        "passphrase": SECRET,
        "no_passphrase": boolean(),
        "force": boolean("allow an admin without a passphrase"),
    },
)
RESTORE_GIVEN = record(
    {
        "given": integer("shares that wait here, in memory"),
        "lacking": text("what must come yet; empty: it is enough", most=1024),
    }
)
RESTORED = record(
    {
        "mesh": ID,
        "device": ID,
        "name": NAME,
        "missing": integer("vaults that have not come yet; give the shares again when they can"),
        "complete": boolean("all that somebody holds has come; before that remove nobody, or what he wrote is cut off"),
        "proof": nullable(
            record(
                {
                    "state": text("whether the portal's log proves what it gave", enum=PROOFS),
                    "why": text(most=512),
                    "records": integer("that are proved"),
                }
            )
        ),
        "others": array(record({"id": ID, "name": NAME}), "the other devices of the mesh"),
    }
)
