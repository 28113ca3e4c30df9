"""What a status says of portals: intrusions, and logs that do not prove what they owe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshd.daemon.context import Daemon
from meshd.profile import payload
from meshd.store import portal_pins
from meshd.store.portal_pins import PinRow

if TYPE_CHECKING:
    from meshd.daemon.health import Health


def examine(daemon: Daemon, health: Health) -> None:
    """Of all portals; one finding for what its log shows, and one for an intrusion."""
    connection = daemon.reader.connection
    pins: list[PinRow] = health.read(lambda: portal_pins.every_shown(connection), [])
    for pin in pins:
        _intrusion(health.read(lambda pin=pin: portal_pins.intrusion(connection, pin.account), None), pin, health)  # type: ignore[misc]
        _log(pin, health)


def _intrusion(found: tuple[int, str] | None, pin: PinRow, health: Health) -> None:
    if found is not None:
        health.add(
            "intrusion",
            f"{pin.account}: {found[1]}, since {_moment(found[0])}.",
            "none of it counts here. Is a device strange, or its keys stolen? Then remove it, and look again:"
            " meshctl portal verify",
        )


def _log(pin: PinRow, health: Health) -> None:
    if pin.frozen:
        health.add(
            "portal-contradiction",
            f"{pin.account}: the portal has contradicted itself; nothing from it is believed since"
            f" {_moment(pin.frozen)}.",
            f"keep what shows it: meshctl portal verify {pin.account} --evidence FILE; then: meshctl portal remove"
            f" {pin.account}, or meshctl portal trust {pin.account} --anew",
        )
    elif pin.suspect:
        health.add(
            "portal-suspect",
            f"{pin.account}: {pin.why}, since {_moment(pin.suspect)}.",
            "ask who runs the portal; what was verified stands: meshctl portal verify. Where its log had to begin anew,"
            f" believe it again: meshctl portal trust {pin.account} --anew",
        )
    elif pin.fresh and pin.time > pin.fresh:
        health.add(
            "portal-stale",
            f"{pin.account}: the newest checkpoint of the portal's log that was cosigned is old, a newer one was due"
            f" by {_moment(pin.fresh)}: it may be withholding what is newer.",
            "if the clock here is right: bring two devices into one network, where they compare what they saw",
        )


def _moment(time_ms: int) -> str:
    return payload.write_date(time_ms // 1000)
