"""How often somebody may come to the recovery door: pure counts over the last hour, by source and in all.

Whoever can name a recovery entry holds its shares, or once held its ciphertext: he is told the entry, and that is an
event, so it is bounded in all. Whoever then proves the master key is the person, and costs nothing. A part is kept for
sources that did not come in this hour, so that one that comes without end does not keep the person out. Knocks for an
entry that is none here are bounded by source alone: strangers must not be able to close the door by knocking.
"""

from __future__ import annotations

from collections import deque

HOUR = 3600.0
EACH = 10  # visits from one source in an hour
ALL = 60  # visits from all sources
KEPT = 20  # of these, for who was not here in this hour
WRONG = 30  # knocks from one source that no entry answers to; each device that is not of the mesh hears one in a search
_WRONGS = 2000  # that are remembered


class Visits:
    """`now` in seconds of a clock that does not go back, `source` what counts as one caller."""

    def __init__(self) -> None:
        self._visits: deque[tuple[float, str]] = deque()
        self._wrong: deque[tuple[float, str]] = deque(maxlen=_WRONGS)

    def wait(self, source: str, now: float) -> float:
        """Seconds until this source may come; 0: now."""
        _forget(self._visits, now)
        mine = [at for at, who in self._visits if who == source]
        every = [at for at, _ in self._visits]
        return max(_until(mine, EACH, now), _until(every, ALL - KEPT if mine else ALL, now))

    def came(self, source: str, now: float) -> None:
        """It is told the entry."""
        self._visits.append((now, source))

    def proved(self, source: str) -> None:
        """It held the master key: its visits don't count."""
        self._visits = deque(one for one in self._visits if one[1] != source)

    def silent(self, source: str, now: float) -> bool:
        """Did so many knocks from there fit nothing that no more are looked at? Right or wrong, they are not answered,
        so that nothing can be guessed on."""
        _forget(self._wrong, now)
        return sum(who == source for _, who in self._wrong) >= WRONG

    def wrong(self, source: str, now: float) -> None:
        """A knock for no entry of ours."""
        self._wrong.append((now, source))


def _forget(found: deque[tuple[float, str]], now: float) -> None:
    while found and now - found[0][0] >= HOUR:
        found.popleft()


def _until(times: list[float], most: int, now: float) -> float:
    """Seconds until fewer than `most` of these, oldest first, lie within the hour."""
    return 0.0 if len(times) < most else times[len(times) - most] + HOUR - now
