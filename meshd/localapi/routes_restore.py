"""The routes by which a mesh comes back: rows of the table in `routes`."""

from __future__ import annotations

from meshd.localapi import bodies_recovery
from meshd.localapi import bodies_restore as r
from meshd.localapi.route import RUNNING, Route

RESTORE_ROUTES: tuple[Route, ...] = (
    Route(
        "restore-given", "GET", "/v1/recovery/restore", "The shares that wait for a restore", RUNNING, r.RESTORE_GIVEN
    ),
    Route(
        "restore-share",
        "POST",
        "/v1/recovery/restore/shares",
        "Give a share for a restore; kept in memory until it is over",
        RUNNING,
        bodies_recovery.DRILL_PROGRESS,
        bodies_recovery.DRILL_SHARE_REQUEST,
    ),
    Route(
        "forget-restore",
        "DELETE",
        "/v1/recovery/restore",
        "Forget the shares that were given for a restore",
        RUNNING,
        bodies_recovery.FORGOTTEN,
    ),
    Route(
        "restore",
        "POST",
        "/v1/recovery/restore",
        "Come back with recovery shares: this device becomes an admin of the mesh",
        RUNNING,
        r.RESTORED,
        r.RESTORE_REQUEST,
    ),
)
