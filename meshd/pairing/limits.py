"""How often a code may be guessed: pure counters that take `now` and can be written down (formats.md F11).

The idea: a guess is paid for before it can succeed. The host reserves a try when its share goes out, so that parallel
guesses cost as much as serial ones, and gives it back only if no confirmation came; the joiner pays when it sends its
own confirmation, because that is when an impostor could test a guess.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Literal

from meshd.errors import FormatError, LocalProtocolError, PossibleAttack, Refused

Rng = Callable[[int], bytes]

TRIES = 3  # per code, on each side
BACK_OFF_FIRST = 30.0  # seconds before the next code after a burnt one; doubled each time
BACK_OFF_MOST = 15 * 60.0
FAILURES_A_DAY = 20  # from here on a person has to insist
DAY = 24 * 3600.0
TYPED_CODE_KEPT = 3600.0  # seconds; a code is dead after 15 minutes at most
MAX_TYPED_CODES = 1000

Refusal = Literal["busy", "burned", "used"]


class Attempts:
    """The tries at one code on the host, over all its connections: one success uses it up, three failures burn it."""

    def __init__(self, tries: int = TRIES) -> None:
        self.tries = tries
        self.failed = 0
        self.pending = 0
        self.used = False

    @property
    def left(self) -> int:
        """Tries before the code is burnt, those under way not counted."""
        return max(0, self.tries - self.failed)

    @property
    def refusal(self) -> Refusal | None:
        """Why no try can be reserved now, in the words of the protocol; None if one can."""
        if self.used:
            return "used"
        if not self.left:
            return "burned"
        return "busy" if self.failed + self.pending >= self.tries else None

    def reserve(self) -> None:
        """Pay for a try before the host's share goes out. Refused if there is none to be had."""
        if self.refusal is not None:
            raise Refused(f"no try is left for this code now ({self.refusal})")
        self.pending += 1

    def give_back(self) -> None:
        """No confirmation came: nobody learned anything."""
        self._settle()

    def fail(self) -> None:
        """A confirmation came and was wrong."""
        self._settle()
        self.failed += 1

    def succeed(self) -> None:
        """A confirmation came and was right. Refused if another one was faster: then this joiner is sent away too."""
        self._settle()
        if self.used:
            raise Refused("somebody has joined with this code already")
        self.used = True

    def _settle(self) -> None:
        if not self.pending:
            raise LocalProtocolError("a try that was never reserved")
        self.pending -= 1

    def to_dict(self) -> dict[str, object]:
        # What was under way when this was written has an unknown end: it counts as failed.
        return {"tries": self.tries, "failed": self.failed + self.pending, "used": self.used}

    @classmethod
    def from_dict(cls, saved: Mapping[str, object]) -> Attempts:
        attempts = cls(_count(saved, "tries"))
        attempts.failed = _count(saved, "failed")
        attempts.used = saved.get("used") is True
        return attempts


class TypedCodes:
    """The tries at each code that was typed here, over all candidates and all runs of `connect`.

    What is kept is a salted hash, for an hour: enough to recognise the code, and by then it opens nothing.
    """

    def __init__(self, rng: Rng, tries: int = TRIES) -> None:
        self._salt = rng(16)
        self._tries = tries
        self._spent: dict[str, tuple[int, float]] = {}

    def left(self, password: bytes, now: float) -> int:
        """Tries that this code has left here."""
        self._forget(now)
        spent, _ = self._spent.get(self._name(password), (0, now))
        return max(0, self._tries - spent)

    def spend(self, password: bytes, now: float) -> None:
        """Pay for a try before the joiner's confirmation goes out. PossibleAttack if the code has had all its tries."""
        if not self.left(password, now):
            raise PossibleAttack(
                f"this code failed {self._tries} times: it is mistyped or expired, or a stranger answers to it",
                hint="make a new one with: meshctl invite",
            )
        name = self._name(password)
        spent, _ = self._spent.pop(name, (0, now))
        self._spent[name] = (spent + 1, now)
        while len(self._spent) > MAX_TYPED_CODES:
            del self._spent[next(iter(self._spent))]

    def to_dict(self) -> dict[str, object]:
        spent: dict[str, object] = {name: [count, at] for name, (count, at) in self._spent.items()}
        return {"salt": self._salt.hex(), "spent": spent}

    @classmethod
    def from_dict(cls, saved: Mapping[str, object], tries: int = TRIES) -> TypedCodes:
        salt, spent = saved.get("salt"), saved.get("spent")
        if not isinstance(salt, str) or not isinstance(spent, Mapping):
            raise FormatError("saved pairing limits without their members")
        try:
            raw = bytes.fromhex(salt)
        except ValueError:
            raise FormatError("saved pairing limits with a salt that is not hexadecimal") from None
        codes = cls(lambda _: raw, tries)
        for name, row in spent.items():
            if not isinstance(name, str) or not isinstance(row, (list, tuple)) or len(row) != 2:
                raise FormatError("saved pairing limits with a row that has another form")
            codes._spent[name] = (_integer(row[0]), _seconds(row[1]))
        return codes

    def _name(self, password: bytes) -> str:
        return hashlib.sha256(self._salt + password).hexdigest()

    def _forget(self, now: float) -> None:
        # abs(): a clock that was set back must not keep a row for ever.
        for name in [name for name, (_, at) in self._spent.items() if abs(now - at) > TYPED_CODE_KEPT]:
            del self._spent[name]


class OfferBackoff:
    """When the next code may be shown: later after each burnt one, and only on demand after a day of failures."""

    def __init__(self) -> None:
        self._burnt = 0  # in a row
        self._burnt_at = 0.0
        self._failures: list[float] = []

    def failed(self, now: float) -> None:
        """A wrong confirmation came."""
        self._failures = [*self._failures[-(FAILURES_A_DAY - 1) :], now]

    def burned(self, now: float) -> None:
        """A code had its last failure."""
        self._burnt = self._burnt + 1 if self._still(now) else 1
        self._burnt_at = now

    def succeeded(self) -> None:
        """Somebody joined: the row of burnt codes ends. The day's failures stay counted."""
        self._burnt = 0

    def wait(self, now: float) -> float:
        """Seconds until a new code may be shown; 0 for at once."""
        if not self._burnt or not self._still(now):
            return 0.0
        delay = min(BACK_OFF_MOST, BACK_OFF_FIRST * 2.0 ** min(self._burnt - 1, 16))
        return max(0.0, self._burnt_at + delay - now)

    def failures(self, now: float) -> int:
        """Wrong confirmations within the last 24 hours, counted up to the limit."""
        self._clamp(now)
        return sum(1 for at in self._failures if now - at < DAY)

    def check(self, now: float, *, force: bool = False) -> None:
        """Refused if no code may be shown now. `force` overrides the day's limit, never the wait."""
        wait = self.wait(now)
        if wait > 0:
            raise Refused(
                f"the last code was guessed at: the next one can be shown in {wait:.0f} s", hint="wait, then try again"
            )
        if self.failures(now) >= FAILURES_A_DAY and not force:
            raise Refused(
                f"{FAILURES_A_DAY} wrong codes within a day: somebody on this network may be guessing",
                hint="if you are sure, run: meshctl invite --force",
            )

    def to_dict(self) -> dict[str, object]:
        return {"burnt": self._burnt, "burnt_at": self._burnt_at, "failures": list(self._failures)}

    @classmethod
    def from_dict(cls, saved: Mapping[str, object]) -> OfferBackoff:
        failures = saved.get("failures")
        if not isinstance(failures, (list, tuple)):
            raise FormatError("saved pairing limits without their members")
        backoff = cls()
        backoff._burnt = _count(saved, "burnt")
        backoff._burnt_at = _seconds(saved.get("burnt_at"))
        backoff._failures = [_seconds(at) for at in failures[-FAILURES_A_DAY:]]
        return backoff

    def _still(self, now: float) -> bool:
        """Whether the last burnt code is of the last 24 hours."""
        self._clamp(now)
        return now - self._burnt_at < DAY

    def _clamp(self, now: float) -> None:
        # A clock that was set back would otherwise keep a person waiting until it is right again.
        self._burnt_at = min(self._burnt_at, now)
        self._failures = [min(at, now) for at in self._failures]


def _count(saved: Mapping[str, object], name: str) -> int:
    return _integer(saved.get(name))


def _integer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise FormatError("saved pairing limits with a count that is no number")
    return value


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -1e15 < value < 1e15:
        raise FormatError("saved pairing limits with a time that is no number")
    return float(value)
