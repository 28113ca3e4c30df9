"""Who would be given keys although nothing that stands gives them: what a new profile has to cut before that.

A container is wrapped for the readers that the signed ancestors of its profiles give, cuts ignored (formats.md F5), so
that everybody says the same of it for ever. When the profile of a removed admin falls, the device that it added is no
device of the mesh any more, and yet a recipient by that rule. So every PersonalProfile that is written states the
end of such rights in cuts of its own, before any container is wrapped under it.
"""

from __future__ import annotations

from collections.abc import Collection

from meshd.daemon import snapshot
from meshd.daemon.pen import Pen
from meshd.profile import links
from meshd.profile.apps import DISCOVERY, GROUP
from meshd.profile.claim import ALL, READ, WRITE, Kind, State
from meshd.profile.links import SCOPE_REMOVED, Cut
from meshd.store import versions

MAX_TIPS = 64  # named by one cut: somebody with a stolen key can make branches without end


def cuts(pen: Pen) -> list[Cut]:
    """The cuts that a PersonalProfile over the present heads needs, before a container is wrapped under it."""
    authority, replica = pen.replica.authority, pen.replica
    heads = authority.heads(Kind.PERSONAL)
    if not heads:
        return []
    here = authority.devices() | authority.admins()
    everywhere = {udf for udf, vault, _ in authority.grants() if vault == ALL}
    found: dict[tuple[str, str], Cut] = {}
    for application in snapshot.applications(pen.connection, replica).values():
        extra = snapshot.readers(replica, application, heads) - snapshot.readers(replica, application)
        for udf in sorted(extra):
            if udf not in here:
                if (cut := _ended(pen, udf)) is not None:
                    found[udf, SCOPE_REMOVED] = cut
            elif application.tag != GROUP.tag:
                # A relay that reads Group in the eyes of others does so by the role that the next profile states anew.
                found[udf, application.identifier] = Cut(udf, tips(pen, udf), application.identifier)
                if udf not in everywhere:
                    found[udf, ALL] = Cut(udf, tips(pen, udf), ALL)
    return list(found.values())


def gaps(pen: Pen) -> list[tuple[str, str, str]]:
    """The other way round: (device, vault, level) of rights that stand, and that a taking which fell ends in the eyes
    of the signed ancestors. A profile that lists them by name gives them there, too. Devices whose removal fell are not
    among them: those a person takes back."""
    authority, replica = pen.replica.authority, pen.replica
    heads = authority.heads(Kind.PERSONAL)
    if not heads:
        return []
    members = authority.devices_at(heads).keys() & authority.devices() - authority.admins()
    found = []
    for container, application in snapshot.applications(pen.connection, replica).items():
        if application.tag not in (DISCOVERY.tag, GROUP.tag):
            missing = snapshot.readers(replica, application) - snapshot.readers(replica, application, heads)
            found += [
                (udf, container, WRITE if authority.can_write(udf, container) else READ)
                for udf in sorted(missing & members)
            ]
    return found


def _ended(pen: Pen, udf: str) -> Cut | None:
    """The cut for somebody who is no device: as it stands already, or where nothing of his was ever to stand."""
    if udf not in pen.replica.authority.removed():
        return Cut(udf, ())
    return standing_cut(pen, udf)  # None: the master key removed him, and a profile that embeds that says enough


def standing_cut(pen: Pen, udf: str) -> Cut | None:
    """The removal of `udf` that the newest standing PersonalProfile states; None where none does."""
    newest: tuple[int, bytes, Cut] | None = None
    for row in versions.of_kind(pen.connection, Kind.PERSONAL, (State.APPLIED,)):
        if udf in row.token:
            for cut in links.parse(row.token).x:
                newer = newest is None or newest[:2] < (row.gen, row.vid)
                if cut.udf == udf and cut.scope == SCOPE_REMOVED and newer:
                    newest = (row.gen, row.vid, cut)
    return newest[2] if newest is not None else None


def stated_by(pen: Pen, signers: Collection[str]) -> list[Cut]:
    """The removals that stand by the word of these alone: each with its newest cut.

    When their chains are cut, the profile that ships with that states them again. A removed device is shown profiles
    and nothing else, so it can't see that the removal is on the near side of its author's cut, and would take itself
    for a device of the mesh for ever."""
    newest: dict[str, tuple[int, bytes, str, Cut]] = {}
    for row in versions.of_kind(pen.connection, Kind.PERSONAL, (State.APPLIED,)):
        for cut in links.parse(row.token).x:
            if cut.scope == SCOPE_REMOVED and (cut.udf not in newest or newest[cut.udf][:2] < (row.gen, row.vid)):
                newest[cut.udf] = (row.gen, row.vid, row.signer, cut)
    removed = pen.replica.authority.removed()
    return [cut for udf, (_, _, signer, cut) in sorted(newest.items()) if signer in signers and udf in removed]


def tips(pen: Pen, signer: str, since_ms: int | None = None) -> tuple[bytes, ...]:
    """The ends of a signer's chain as this store has it: what a cut names. `since_ms`: as it was before that moment, by
    this store's own record of receipt and never by what a version says of itself (formats.md F7).

    Of more than MAX_TIPS the ones that came first."""
    ends = pen.replica.tips(signer) if since_ms is None else _tips_before(pen, signer, since_ms)
    if len(ends) <= MAX_TIPS:
        return ends
    rows = [row for vid in ends if (row := versions.get(pen.connection, vid)) is not None]
    rows.sort(key=lambda row: (row.received, row.seq))
    return tuple(sorted(row.vid for row in rows[:MAX_TIPS]))


def _tips_before(pen: Pen, signer: str, since_ms: int) -> tuple[bytes, ...]:
    rows = pen.connection.execute(
        "SELECT vid, token FROM versions WHERE signer = ? AND received < ?", (signer, since_ms)
    ).fetchall()
    followed = {vid for _, token in rows for vid in links.parse(token).q}
    return tuple(sorted(vid for vid, _ in rows if vid not in followed))


def reached(pen: Pen, signer: str, ends: Collection[bytes]) -> set[bytes]:
    """Everything of a signer that a cut at `ends` leaves standing."""
    before = dict(versions.of_signer(pen.connection, signer))
    found: set[bytes] = set()
    todo = [vid for vid in ends if vid in before]
    while todo:
        vid = todo.pop()
        if vid not in found:
            found.add(vid)
            todo += [each for each in before[vid] if each in before]
    return found
