"""The objects of the local API that are about coming back with recovery shares."""

from __future__ import annotations

from meshd.localapi.bodies import ID, NAME, SECRET
from meshd.localapi.bodies_portal import ACCOUNT, ADDRESS, PLAIN
from meshd.localapi.bodies_recovery import WORDS
from meshd.localapi.shapes import array, boolean, integer, record, text

RESTORE_REQUEST = record(
    {"shares": array(WORDS, "as many as are needed", least=1, most=256), "master_passphrase": SECRET},
    {
        "name": NAME,
        "share_passphrase": SECRET,
        "check": text("what stands beside the shares", most=8),
        "account": ACCOUNT,
        "lan": boolean("ask the devices on this network"),
        "address": ADDRESS,
        "plain": PLAIN,
        "passphrase": SECRET,
        "no_passphrase": boolean(),
        "force": boolean("allow an admin without a passphrase"),
    },
)
RESTORED = record(
    {
        "mesh": ID,
        "device": ID,
        "name": NAME,
        "missing": integer("vaults that have not come yet; give the shares again when they can"),
        "others": array(record({"id": ID, "name": NAME}), "the other devices of the mesh"),
    }
)
