"""What is wrong on this device, and what a person does about it: each finding of a status, and its words.

It comes with a status, so it never fails itself: a store that can't be read is one more finding.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from meshd.crypto.udf import is_udf
from meshd.daemon import names as naming
from meshd.daemon import quarantine, recovery_state
from meshd.daemon.context import DAY_MS, Daemon
from meshd.daemon.portals import health as portal_health
from meshd.daemon.progress import Progress
from meshd.errors import StoreError
from meshd.profile.claim import State
from meshd.profile.trust import ADMIN_REMOVED, REMOVAL_UNDONE
from meshd.store import aside, chains, versions
from meshd.store.db import store_errors

if TYPE_CHECKING:
    from meshd.daemon.api import App

T = TypeVar("T")

SKEW_MS = 5 * 60 * 1000  # clocks that differ by more are worth a word
DISK_LOW = 128 * 1024 * 1024  # bytes free
# What a person does about what authority leaves to them.
_TO_SETTLE = {
    REMOVAL_UNDONE: "to remove it: meshctl device remove {name}; to keep it: meshctl quarantine confirm {name}",
    ADMIN_REMOVED: "to end that, with the master passphrase: meshctl device remove {name}",
}
# Worst first; codes that are not named come after these.
_GRAVITY = (
    "store-damaged",
    "possible-attack",
    "cloned",
    "fork",
    "intrusion",
    "removed",
    "removal-undone",
    "portal-contradiction",
    "admin-removed",
    "disk-full",
    "disk-low",
    "store",
    "portal-suspect",
    "unshared",
    "quarantine-full",
    "quarantine",
    "pending",
    "restored",
    "rejected",
    "no-network",
    "portal-stale",
    "clock-skew",
    "drafts",
    "recovery",
    "locked",
)


class Health:
    """The list of what is wrong, collected while a status is put together."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], dict[str, Any]] = {}

    def add(self, code: str, message: str, hint: str | None = None) -> None:
        self._found.setdefault((code, message), {"code": code, "message": message, "hint": hint})

    def read(self, look: Callable[[], T], otherwise: T) -> T:
        """What `look` finds in the store; a store that can't be read is a finding too."""
        try:
            with store_errors():
                return look()
        except StoreError as exc:
            self.add(exc.code, str(exc), exc.hint)
            return otherwise

    def listed(self) -> list[dict[str, Any]]:
        order = {code: place for place, code in enumerate(_GRAVITY)}
        return sorted(self._found.values(), key=lambda problem: order.get(problem["code"], len(order)))


def examine(app: App, met: Mapping[str, Progress], names: Mapping[str, str], waiting: int, health: Health) -> None:
    """Everything that a person should know or can mend. `met`: the connections to siblings; `waiting` counts drafts."""
    daemon, snapshot = app.daemon, app.daemon.snapshot
    if snapshot.own in snapshot.removed:
        health.add(
            "removed",
            "This device was removed from its mesh: it gets and gives nothing any more.",
            "delete what it holds: meshctl wipe; it can be connected anew then",
        )
    elif snapshot.own in snapshot.undecided:
        health.add(
            "pending",
            "The admin who took this device in is none any more; what shows whether it stays has not come yet.",
            "let it meet the other devices; if they refuse it: meshctl wipe, then connect it anew",
        )
    elif snapshot.connected and not snapshot.is_member:
        health.add(
            "removed",
            "Whoever took this device into the mesh had been removed from it, so it is none of its devices.",
            "an admin can take it back: meshctl quarantine confirm; or run here: meshctl wipe, then connect it anew",
        )
    if daemon.damage:
        health.add(
            "store-damaged",
            f"The store is damaged: {daemon.damage[0]}",
            "keep its files, and restore a backup or sync into a new home; what can be read goes on syncing",
        )
    _forks(daemon, names, health)
    _strikes(app, met, names, health)
    if daemon.refusals and daemon.now_ms() - daemon.refused_at < DAY_MS:
        health.add(
            "rejected",
            f"{daemon.refusals} versions were refused in the last day: malformed, wrongly signed or out of place.",
            "none was taken; meshctl events has when, and why",
        )
    for code, udf, detail in snapshot.health:
        name = naming.shown(names, udf)
        health.add(code, f"{name}: {_with_names(detail, names)}", _TO_SETTLE[code].format(name=name))
    portal_health.examine(daemon, health)
    _aside(daemon, names, health)
    _disk(daemon, health)
    if app.network is not None and app.network.discovery.problem is not None:
        health.add(
            "no-network",
            f"Other devices can't be found: {app.network.discovery.problem}.",
            "what is known already is still tried; see meshctl device address",
        )
    for udf, progress in met.items():
        if progress.connected and abs(progress.clock_skew_ms) > SKEW_MS:
            apart = (
                f"{abs(progress.clock_skew_ms) // 60_000} minutes {'ahead' if progress.clock_skew_ms > 0 else 'behind'}"
            )
            health.add(
                "clock-skew",
                f"The clock of {naming.shown(names, udf)} is {apart}.",
                "set the clock that is wrong: times shown, and which of two edits made apart is shown first, follow it",
            )
    if waiting:
        _drafts(waiting, health, removed=snapshot.own in snapshot.removed)
    if health.read(lambda: recovery_state.due(daemon), False):
        health.add(
            "recovery",
            f"Nobody has tried for {recovery_state.DRILL_DAYS} days whether the recovery shares bring this mesh back.",
            "gather as many as are needed, and run: meshctl recovery drill",
        )
    if daemon.locked:
        health.add("locked", "This device is locked: it syncs, and shows no items.", "run: meshctl unlock")


def _with_names(detail: str, names: Mapping[str, str]) -> str:
    """A sentence of the authority's, with devices by their names."""
    for udf in {word.rstrip(",") for word in detail.split()}:
        if is_udf(udf):
            detail = detail.replace(udf, naming.shown(names, udf))
    return detail


def _forks(daemon: Daemon, names: Mapping[str, str], health: Health) -> None:
    own = daemon.snapshot.own
    found: dict[str, int] = health.read(
        lambda: {fork[0]: fork[1] for fork in chains.unhealed_forks(daemon.reader.connection)}, {}
    )
    connection = daemon.reader.connection
    if daemon.cloned or health.read(lambda: chains.second_writer(connection, own), False):
        health.add(
            "cloned",
            "Something else writes with this device's keys: a copy of its home is in use, or its keys were stolen.",
            "use one copy only; if you made none, remove this device from the mesh and connect it anew",
        )
    elif own in found:
        health.add(
            "restored",
            "This device was restored from a backup: it got back what it had lost, and goes on from that and from what"
            " it wrote since.",
            "nothing is to be done; if it was not restored, remove it from the mesh and connect it anew",
        )
    for udf, n in found.items():
        if udf != own and udf not in daemon.snapshot.gone:  # of who was removed it is kept, and nothing is to be done
            health.add(
                "fork",
                f"{naming.shown(names, udf)} wrote two histories from its version {n} on: it was cloned, restored, or"
                " its keys were stolen.",
                "ask its owner; if it was not you, remove it from the mesh",
            )


def _strikes(app: App, met: Mapping[str, Progress], names: Mapping[str, str], health: Health) -> None:
    liars = {progress.udf for progress in met.values() if progress.strikes}
    if app.siblings is not None:
        liars |= app.siblings.lies.keys() & set(app.daemon.snapshot.siblings)
    for udf in sorted(liars):
        health.add(
            "possible-attack",
            f"{naming.shown(names, udf)} sent versions that are malformed or wrongly signed; none was taken.",
            "look after that device; if it is not in your hands any more, remove it from the mesh",
        )


def _aside(daemon: Daemon, names: Mapping[str, str], health: Health) -> None:
    counts: dict[State, int] = health.read(lambda: versions.count_states(daemon.reader.connection), {})
    own = daemon.snapshot.own if daemon.snapshot.own in daemon.snapshot.removed else None
    if counts.get(State.QUARANTINED, 0):
        _quarantine(daemon, own, health)
    turned_away: dict[str, int] = health.read(lambda: aside.turned_away(daemon.reader.connection), {})
    for udf, count in sorted(turned_away.items()):
        health.add(
            "quarantine-full",
            f"Of {naming.shown(names, udf)}, which is none of this mesh, versions found no room in quarantine:"
            f" {count} were turned away.",
            "what was kept is in: meshctl quarantine list; the rest is asked for again if it may stand after all",
        )
    if pending := counts.get(State.PENDING, 0):
        health.add(
            "pending",
            f"{pending} versions wait for others that they build on.",
            "connect the device that wrote them, or one that has synced with it",
        )


def _quarantine(daemon: Daemon, own: str | None, health: Health) -> None:
    """`own`: this device, where it was removed."""
    connection, keyring = daemon.reader.connection, daemon.keyring
    if number := health.read(lambda: quarantine.count(connection, keyring), 0):
        health.add(
            "quarantine",
            f"{number} {'version is' if number == 1 else 'versions are'} in quarantine: whoever signed"
            f" {'it' if number == 1 else 'them'} was not entitled to.",
            "kept, and not applied: meshctl quarantine list",
        )
    if own and (mine := health.read(lambda: quarantine.count(connection, keyring, own), 0)):
        health.add(
            "unshared",
            f"{_items(mine)} written on this device after others had removed it: no other device need have"
            f" {'it' if mine == 1 else 'them'}.",
            "write down what matters before meshctl wipe: meshctl quarantine list, quarantine show ID --reveal",
        )


def _items(number: int) -> str:
    return "1 item was" if number == 1 else f"{number} items were"


def _drafts(number: int, health: Health, *, removed: bool) -> None:
    """`removed`: this device was, so that nobody will ever make a key for them."""
    if removed:
        health.add(
            "drafts",
            f"{_items(number)} written here and never given to any other device: the key for it did not come in time.",
            "write down what matters before meshctl wipe: meshctl password show",
        )
    else:
        health.add(
            "drafts",
            f"{number} {'write waits' if number == 1 else 'writes wait'} here for new keys: those so far were readable"
            " by a device that no longer is one.",
            "unlock an admin device and let it sync; they go out by themselves then",
        )


def _disk(daemon: Daemon, health: Health) -> None:
    try:
        found = os.statvfs(daemon.paths.state)
    except OSError as exc:
        health.add("store", f"{daemon.paths.state} can't be looked at: {exc.strerror}")
        return
    free = found.f_bavail * found.f_frsize
    if free < DISK_LOW:
        health.add("disk-low", f"Only {free // 2**20} MiB are free where the store is.", "free some space")
