"""One portal of the mesh while the daemon runs: how it goes, and what the tasks that follow and publish share."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import trio

from meshd.daemon.context import Daemon
from meshd.daemon.portals.link import Link
from meshd.daemon.portals.watch import Contradicted, Watch
from meshd.errors import MeshError, NetworkError, NotFound, RemoteProtocolError
from meshd.portal.codec import Dialect
from meshd.portal.names import AccountName
from meshd.profile import payload
from meshd.store import portals_client as store

FIRST_PAUSE, LAST_PAUSE = 2.0, 120.0
LAST_PAUSE_REFUSED = 600.0  # whoever says no is not asked every two minutes


class NotListed(NotFound):
    """The portal does not know this device yet."""


@dataclass(slots=True)
class Portal:
    """`follow_error` and `publish_error` are of the last attempt; None while it goes well."""

    daemon: Daemon
    account: AccountName
    link: Link
    page_key: str = ""
    told_keys: tuple[str, ...] = ()  # of its log, as the devices of the mesh know it
    told_until: float = 0.0  # this device writes no others before
    reached: bool = False  # it answered in this run, as a portal that knows this device
    caught_up: bool = False  # its feed was read to its end, and taken in
    published: int = -1  # `daemon.moved` up to which everything was published
    holds: dict[bytes, int] = field(default_factory=dict)  # vid → our seq: what it has of what is still to be published
    verifying: tuple[int, int] | None = None  # while its feed is verified: versions proved, and how many there may be
    life: int = 0  # how often it had lost what it had: what was said before that does not count
    nudges: int = 0
    leaving: bool = False  # the mesh gave it up; it gets this last word
    last_success: int = 0
    lies: int = 0  # versions that it gave and that can't be believed
    follow_error: MeshError | None = None
    publish_error: MeshError | None = None
    entered: trio.Event = field(default_factory=trio.Event)  # it may be published to
    polling: trio.CancelScope | None = None
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    wake: trio.Event = field(default_factory=trio.Event)
    watch: Watch = field(init=False)

    def __post_init__(self) -> None:
        self.watch = Watch(self)

    @property
    def name(self) -> str:
        return str(self.account)

    @property
    def plain(self) -> bool:
        """A portal of 2016: account, profiles, connecting; no items."""
        return self.link.dialect is Dialect.PLAIN

    def nudge(self) -> None:
        """Ask at once how far it is, and try again what failed."""
        self.caught_up = False
        self.nudges += 1
        self.rouse()
        if self.polling is not None:
            self.polling.cancel()

    def rouse(self) -> None:
        """Look again at once what there is to publish, and try again what failed."""
        self.wake.set()
        self.wake = trio.Event()

    async def pause(self, failures: int, error: MeshError) -> None:
        """Wait before the next attempt; longer each time, and not in step with other devices."""
        most = LAST_PAUSE if isinstance(error, NetworkError | NotListed) else LAST_PAUSE_REFUSED
        seconds = min(FIRST_PAUSE * 1.7 ** min(failures - 1, 20), most)
        wake = self.wake
        with trio.move_on_after(seconds * (0.8 + 0.4 * random.random())):  # noqa: S311  (nobody's secret)
            await wake.wait()

    def went(self, *, follow: bool, error: MeshError | None) -> None:
        """How an attempt ended."""
        before = self.state, str(self.error)
        if error is None:
            self.last_success = self.daemon.now_ms()
        if follow:
            self.follow_error = error
            self.caught_up = self.caught_up and error is None
        else:
            self.publish_error = error
        if (self.state, str(self.error)) != before:
            if error is not None:
                self.daemon.log.info("portal %s: %s", self.name, error)
            self.daemon.changed.bump()

    @property
    def error(self) -> MeshError | None:
        """What is wrong now, if anything."""
        if self.watch.frozen:
            return Contradicted()
        if self.follow_error is None and self.publish_error is None and self.lies:
            return RemoteProtocolError(
                f"the portal gave {self.lies} versions that can't be believed; none of them was taken",
                hint="what was verified stands; if it goes on, use another portal",
            )
        return self.follow_error or self.publish_error

    @property
    def state(self) -> str:
        """connecting (also while it does not know this device yet), connected, offline, refused, misbehaving, or plain
        for a portal of 2016 that answers."""
        error = self.error
        if isinstance(error, NetworkError):
            return "offline"
        if isinstance(error, RemoteProtocolError):
            return "misbehaving"
        if error is not None and not isinstance(error, NotListed):
            return "refused"
        if error is not None or not self.reached:
            return "connecting"
        return "plain" if self.plain else "connected"

    def behind(self) -> int:
        """Versions here that it is not known to hold."""
        connection = self.daemon.reader.connection
        waiting, kept = store.behind(connection, self.name)
        at = store.cursor(connection, self.name)
        return max(waiting - sum(seq > at for seq in self.holds.values()), 0) + kept

    @property
    def in_step(self) -> bool:
        """It holds everything of ours, and we everything of its. A portal of 2016 can't be."""
        return self.reached and not self.plain and self.caught_up and self.error is None and not self.behind()

    def view(self) -> dict[str, Any]:
        """As the local API shows it."""
        found = store.get(self.daemon.reader.connection, self.name)
        last = max(self.last_success, found.last_success if found is not None else 0)
        error = self.error
        return {
            "account": self.name,
            "state": self.state,
            "last_success": payload.write_date(last // 1000) if last else None,
            "behind": self.behind(),
            "error": None if error is None else {"code": error.code, "message": str(error), "hint": error.hint},
            "address": self.link.where.address or None,
            "plain": self.link.where.plain,
            "log": self.watch.view(),
            "verifying": None if self.verifying is None else dict(zip(("done", "of"), self.verifying, strict=True)),
        }
