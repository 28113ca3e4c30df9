"""Whose signatures a portal's log has to have, where the settings say so: `[policies]` (c2sp.org/tlog-policy).

Log keys that the file lists are the only ones that count, from the first contact on. Witnesses come after the portal,
by a moment or, where one is down, by hours; so a checkpoint that they have not seen yet is pinned all the same, and
nothing is forgotten that the portal signed. That they stay away is told: `verify` says so at once, a status when a
newer cosignature is overdue.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from meshd.tlog import checkpoint as checkpoints
from meshd.tlog import watch
from meshd.tlog.note import Note, Verifier
from meshd.tlog.policy import NONE, Policy

if TYPE_CHECKING:
    from meshd.daemon.portals.watch import Watch

TRIES, PAUSE = 6, 1.0  # seconds: a portal asks its witnesses at most once in that time


def check_log(policy: Policy, note: Note) -> None:
    """SignatureError unless a key signed that the policy lists, where it lists any; FormatError."""
    if policy.logs:
        checkpoints.read(note, policy.logs)


def without_quorum(policy: Policy, told: tuple[Verifier, ...] = ()) -> Policy:
    """The same, content with a checkpoint that no witness has seen yet. `told` are the log's keys as other devices of
    the mesh know them, which count where the policy lists none."""
    return replace(policy, quorum=NONE, logs=policy.logs or told)


def fresh_until(
    policy: Policy, note: Note, cosigners: tuple[Verifier, ...], before: int | None, now: int, span: int
) -> int:
    """Until when (ms) no newer cosignature is missed; 0: never. `cosigners` are those that the portal names, who count
    where the policy asks for nobody; `before` is what was said last, `now` and `span` in ms."""
    seconds = now // 1000
    if policy.quorum == NONE:
        if not cosigners:
            return 0
        return (watch.freshness(note, cosigners, seconds, span // 2000).newest or 0) * 1000 + span
    met = policy.met(note, seconds + watch.FUTURE)
    if met is not None:
        return met * 1000 + span
    return before or now + span


async def wait_for(one: Watch, policy: Policy) -> None:
    """Return once the newest checkpoint has the quorum; SignatureError if it does not come in a moment.

    Contradicted, NetworkError."""
    for attempt in range(TRIES):
        pin = one.pin
        if pin is None or policy.quorum == NONE:
            return
        note, now = Note.parse(pin.note.encode()), pin.time // 1000
        if policy.met(note, now + watch.FUTURE) is not None:
            return
        if attempt + 1 == TRIES:
            policy.satisfied(note, [Verifier.parse(key) for key in pin.keys])
        await trio.sleep(PAUSE)
        await one.settle(await one.look())
