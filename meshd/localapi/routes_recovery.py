"""The routes about recovery shares: rows of the table in `routes`."""

from __future__ import annotations

from meshd.localapi import bodies_recovery as r
from meshd.localapi.route import RUNNING, UNLOCKED, Route

RECOVERY_ROUTES: tuple[Route, ...] = (
    Route(
        "recovery", "GET", "/v1/recovery", "What the mesh can be recovered from, and where it is", UNLOCKED, r.RECOVERY
    ),
    Route(
        "prepare-recovery",
        "POST",
        "/v1/recovery/shares",
        "Tell new recovery shares; nothing is changed yet",
        UNLOCKED,
        r.PREPARED,
        r.PREPARE_REQUEST,
    ),
    Route(
        "commit-recovery",
        "POST",
        "/v1/recovery/commit",
        "Make the shares count that were told, and those so far not",
        UNLOCKED,
        r.COMMITTED,
        r.COMMIT_REQUEST,
    ),
    Route(
        "revoke-recovery",
        "POST",
        "/v1/recovery/revoke",
        "No shares count from now on",
        UNLOCKED,
        r.REVOKED,
        r.REVOKE_REQUEST,
    ),
    Route(
        "check-share",
        "POST",
        "/v1/recovery/check",
        "Is this a share, and a current one of this mesh? Works before connecting too, as far as it goes",
        RUNNING,
        r.CHECKED,
        r.CHECK_REQUEST,
    ),
    Route(
        "drill-share",
        "POST",
        "/v1/recovery/drill/shares",
        "Give a share for a drill; kept in memory, sealed, until it is over",
        UNLOCKED,
        r.DRILL_PROGRESS,
        r.DRILL_SHARE_REQUEST,
    ),
    Route(
        "forget-drill",
        "DELETE",
        "/v1/recovery/drill",
        "Forget the shares that were given for a drill",
        UNLOCKED,
        r.FORGOTTEN,
    ),
    Route(
        "drill",
        "POST",
        "/v1/recovery/drill",
        "Rehearse a recovery with the shares that were given, and forget them; changes nothing but its own record",
        UNLOCKED,
        r.DRILLED,
        r.DRILL_REQUEST,
    ),
    Route(
        "open-recovery-2016",
        "POST",
        "/v1/recovery/2016",
        "What shares of 2016 bring back; needs no mesh and no network, and keeps nothing",
        RUNNING,
        r.OPENED_2016,
        r.OPEN_2016_REQUEST,
        most=6 * 1024 * 1024,
    ),
)
