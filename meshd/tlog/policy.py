"""Whom a reader of logs believes: the policy file of c2sp.org/tlog-policy.

log portal.example/mmm-log+…+…
witness W1 peer.example/mmm-witness+…+…
witness W2 other.example/mmm-witness+…+…
group peers any W1 W2
quorum peers
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from meshd.errors import FormatError, SignatureError
from meshd.tlog import checkpoint as checkpoints
from meshd.tlog import note as notes
from meshd.tlog.checkpoint import Checkpoint
from meshd.tlog.note import Note, Verifier

MAX_BYTES = 128 << 10
MAX_LINES = 1024
NONE = "none"


@dataclass(frozen=True, slots=True)
class Group:
    """Satisfied when `threshold` of `members`, witnesses or earlier groups, are."""

    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Satisfied:
    """A checkpoint that a policy accepts: which log keys signed, and which witnesses when (seconds)."""

    checkpoint: Checkpoint
    logs: tuple[Verifier, ...]
    witnesses: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """Known logs and witnesses, and the quorum of witnesses that makes a checkpoint good."""

    logs: tuple[Verifier, ...] = ()
    witnesses: Mapping[str, Verifier] = field(default_factory=dict)
    groups: Mapping[str, Group] = field(default_factory=dict)
    quorum: str = NONE
    urls: Mapping[str, str] = field(default_factory=dict)  # of logs and witnesses, by vkey

    @classmethod
    def parse(cls, data: bytes) -> Policy:
        """From the bytes of a policy file; FormatError names the line and what is wrong with it."""
        return _Reader().read(data)

    def log_keys(self, origin: str) -> tuple[Verifier, ...]:
        return tuple(log for log in self.logs if log.name == origin)

    def cosigners(self, note: Note) -> tuple[tuple[str, int], ...]:
        """The witnesses of this policy that cosigned, and when; SignatureError if a line of theirs does not verify."""
        names = {verifier.vkey: name for name, verifier in self.witnesses.items()}
        found = notes.verified(note, self.witnesses.values())
        return tuple((names[one.verifier.vkey], one.time) for one in found if one.time is not None)

    def meets(self, names: Collection[str]) -> bool:
        """Whether these witnesses (their names in this file) make the quorum."""
        if self.quorum == NONE:
            return True
        done = set(names) & self.witnesses.keys()
        for name, group in self.groups.items():  # each refers to earlier ones alone
            if sum(member in done for member in group.members) >= group.threshold:
                done.add(name)
        return self.quorum in done

    def met(self, note: Note, now: int) -> int | None:
        """The newest time by which the quorum had cosigned (seconds), not after `now`; None if it has not.

        SignatureError as `cosigners` says; a quorum of nobody is met at any time."""
        if self.quorum == NONE:
            return now
        done: list[str] = []
        for name, time in sorted(self.cosigners(note), key=lambda one: -one[1]):
            if time <= now:
                done.append(name)
                if self.meets(done):
                    return time
        return None

    def satisfied(self, note: Note, logs: Iterable[Verifier] = ()) -> Satisfied:
        """What the policy says of a checkpoint; `logs` are further known log keys.

        SignatureError if no known log signed it or its witnesses make no quorum, FormatError if it is no checkpoint.
        """
        checkpoint, signed = checkpoints.read(note, (*self.logs, *logs))
        witnesses = self.cosigners(note)
        if not self.meets([name for name, _ in witnesses]):
            have = ", ".join(name for name, _ in witnesses) or "nobody"
            raise SignatureError(f"the policy asks for the quorum {self.quorum}, but {have} cosigned")
        return Satisfied(checkpoint, tuple(one.verifier for one in signed), witnesses)


class _Reader:
    """Reads one policy file, line by line."""

    def __init__(self) -> None:
        self._logs: list[Verifier] = []
        self._witnesses: dict[str, Verifier] = {}
        self._groups: dict[str, Group] = {}
        self._members: set[str] = set()
        self._urls: dict[str, str] = {}
        self._quorum: str | None = None

    def read(self, data: bytes) -> Policy:
        if len(data) > MAX_BYTES or data.count(b"\n") > MAX_LINES:
            raise FormatError("a policy of more than 128 KiB or 1024 lines")
        # Names are octets, whatever their encoding; so nothing depends on a version of Unicode.
        for number, line in enumerate(data.decode("utf-8", "surrogateescape").split("\n"), 1):
            try:
                self._line(line)
            except FormatError as exc:
                raise FormatError(f"policy, line {number}: {exc}") from None
        if self._quorum is None:
            raise FormatError("a policy without a quorum line; write “quorum none” if no witness is needed")
        return Policy(tuple(self._logs), self._witnesses, self._groups, self._quorum, self._urls)

    def _line(self, line: str) -> None:
        if any((character < " " and character != "\t") or character == "\x7f" for character in line):
            raise FormatError("a control character")
        words = line.replace("\t", " ").strip(" ").split(" ")
        words = [word for word in words if word]
        if not words or words[0].startswith("#"):
            return
        match words:
            case ["log", vkey, *url] if len(url) <= 1:
                self._log(vkey, url)
            case ["witness", name, vkey, *url] if len(url) <= 1:
                self._witness(name, vkey, url)
            case ["group", name, threshold, *members] if members:
                self._group(name, threshold, members)
            case ["quorum", name]:
                self._set_quorum(name)
            case [("log" | "witness" | "group" | "quorum") as keyword, *_]:
                raise FormatError(f"a {keyword} line with too few or too many words")
            case _:
                raise FormatError("a line that begins with none of log, witness, group and quorum")

    def _log(self, vkey: str, url: list[str]) -> None:
        log = _verifier(vkey, notes.ED25519, "a log key must be of type 0x01")
        if any(log.key == other.key for other in self._logs):
            raise FormatError("a log key that an earlier line has")
        self._logs.append(log)
        self._urls.update((log.vkey, one) for one in url)

    def _witness(self, name: str, vkey: str, url: list[str]) -> None:
        self._check_new(name)
        witness = _verifier(vkey, notes.COSIGNATURE, "a witness key must be of type 0x04")
        if any(witness.key == other.key for other in self._witnesses.values()):
            raise FormatError("a witness key that an earlier line has")
        self._witnesses[name] = witness
        self._urls.update((witness.vkey, one) for one in url)

    def _group(self, name: str, threshold: str, members: list[str]) -> None:
        self._check_new(name)
        for member in members:
            if member not in self._witnesses and member not in self._groups:
                raise FormatError(f"the group names {_shown(member)}, which no line before it defines")
            if member in self._members:
                raise FormatError(f"{_shown(member)} is a member twice")
            self._members.add(member)
        count = {"any": 1, "all": len(members)}.get(threshold) or checkpoints.read_number(threshold)
        if not 1 <= count <= len(members):
            raise FormatError(f"a threshold of {count} among {len(members)} members")
        self._groups[name] = Group(count, tuple(members))

    def _set_quorum(self, name: str) -> None:
        if self._quorum is not None:
            raise FormatError("a second quorum line")
        if name != NONE and name not in self._witnesses and name not in self._groups:
            raise FormatError(f"the quorum is {_shown(name)}, which no line before it defines")
        self._quorum = name

    def _check_new(self, name: str) -> None:
        if name == NONE or name in self._witnesses or name in self._groups:
            raise FormatError(f"the name {_shown(name)} is taken")


def _verifier(vkey: str, kind: int, otherwise: str) -> Verifier:
    try:
        vkey.encode()
    except UnicodeEncodeError:
        raise FormatError("a key whose name is not UTF-8") from None
    verifier = Verifier.parse(vkey)
    if verifier.kind != kind:
        raise FormatError(otherwise)
    return verifier


def _shown(name: str) -> str:
    """A name of any octets as text that can be printed."""
    return repr(name[:64].encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
