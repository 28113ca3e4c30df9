"""Following a long-running resource: long-poll its state until it ends; give it up when the person does."""

from __future__ import annotations

import signal

from meshctl.answers import text
from meshd.errors import MeshError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from meshctl.answers import Json
    from meshctl.session import Session

    T = TypeVar("T")

LONG_POLL = 30  # seconds


def follow(
    session: Session,
    where: str,
    first: Json,
    *,
    ends: tuple[str, ...],
    changed: Callable[[Json], None],
    tick: Callable[[Json], None] | None = None,
) -> Json:
    """Call `changed` for every state after the first until one of `ends`, which is returned.

    `tick` is called every second meanwhile (for a countdown). See `giving_up` for what an interruption does.
    """

    def watch() -> Json:
        now = first
        while (state := text(now, "state")) not in ends:
            if tick is not None:
                tick(now)
            hold = LONG_POLL if tick is None else 1
            now = session.client.get(where, {"wait": hold, "state": state}, wait=hold)
            if text(now, "state") != state:
                changed(now)
        return now

    return giving_up(session, where, watch)


def giving_up(session: Session, where: str, run: Callable[[], T]) -> T:
    """What `run` returns. Ctrl-C, SIGTERM and a closed terminal delete the resource first, so that nothing stays open
    behind the person's back; then KeyboardInterrupt goes on."""
    before = (
        {number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGHUP)} if _main() else {}
    )
    try:
        return run()
    except (KeyboardInterrupt, BrokenPipeError):
        try:
            session.client.delete(where)
        except MeshError:
            pass  # it ended by itself, or the daemon did
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _main() -> bool:
    """Signals can be handled in the main thread alone; elsewhere (tests) they are left as they are."""
    import threading

    return threading.current_thread() is threading.main_thread()


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
