"""The route by which a mesh comes back: a row of the table in `routes`."""

from __future__ import annotations

from meshd.localapi import bodies_restore as r
from meshd.localapi.route import RUNNING, Route

RESTORE_ROUTES: tuple[Route, ...] = (
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
