"""Policy files: what they allow, and that every mistake is named with its line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.merkle_log import MemoryLog, cosigner, entries
from meshd.errors import FormatError, SignatureError
from meshd.tlog import cosignature
from meshd.tlog.policy import Policy

LOG = MemoryLog(entries(5))
NAMES = ("X1", "X2", "X3", "Y1", "Y2")
COSIGNERS = {name: cosigner(name.lower()) for name in NAMES}
WITNESSES = "".join(f"witness {name} {one.vkey}\n" for name, one in COSIGNERS.items())
EXAMPLE = f"""# two organisations
log {LOG.signer.vkey} https://portal.example/

{WITNESSES}
\tgroup X-witnesses 2  X1 X2\tX3
group Y-witnesses any Y1 Y2
group X-and-Y all X-witnesses Y-witnesses
quorum X-and-Y
"""


@given(st.sets(st.sampled_from(NAMES)))
def test_a_quorum_of_groups_is_what_it_says(names: set[str]) -> None:
    policy = Policy.parse(EXAMPLE.encode())
    expected = len(names & {"X1", "X2", "X3"}) >= 2 and bool(names & {"Y1", "Y2"})
    assert policy.meets(names) == expected
    note = LOG.note()
    for name in names:
        note = cosignature.add(note, COSIGNERS[name], 7)
    if expected:
        found = policy.satisfied(note)
        assert {name for name, time in found.witnesses if time == 7} == names
        assert (found.checkpoint, found.logs) == (LOG.checkpoint(), (LOG.signer.verifier,))
    else:
        with pytest.raises(SignatureError, match="X-and-Y"):
            policy.satisfied(note)


def test_a_policy_without_logs_takes_those_that_its_user_knows() -> None:
    policy = Policy.parse(b"quorum none")
    assert policy.satisfied(LOG.note(), LOG.verifiers).witnesses == ()
    with pytest.raises(SignatureError):
        policy.satisfied(LOG.note())


def test_the_address_of_a_log_is_kept() -> None:
    assert Policy.parse(EXAMPLE.encode()).urls == {LOG.signer.vkey: "https://portal.example/"}


def test_names_are_octets() -> None:
    policy = Policy.parse(b"witness \xff " + COSIGNERS["X1"].vkey.encode() + b"\nquorum \xff\n")
    note = cosignature.add(LOG.note(), COSIGNERS["X1"], 1)
    assert len(policy.satisfied(note, LOG.verifiers).witnesses) == 1


MISTAKES = {
    "unknown word": ("signer x\nquorum none", "line 1"),
    "no quorum": ("# nothing\n", "quorum none"),
    "two quorums": ("quorum none\nquorum none", "line 2"),
    "undefined quorum": ("quorum X", "line 1"),
    "undefined member": (f"{WITNESSES}group g any Z\nquorum g", "line 6: .*Z"),
    "later member": ("group g any h\ngroup h any g\nquorum g", "line 1"),
    "member twice": (f"{WITNESSES}group g any X1 X1\nquorum g", "line 6"),
    "member of two": (f"{WITNESSES}group g any X1\ngroup h any X1\nquorum g", "line 7"),
    "threshold high": (f"{WITNESSES}group g 3 X1 X2\nquorum g", "line 6"),
    "threshold zero": (f"{WITNESSES}group g 0 X1 X2\nquorum g", "line 6"),
    "threshold word": (f"{WITNESSES}group g most X1 X2\nquorum g", "line 6"),
    "no members": (f"{WITNESSES}group g any\nquorum g", "line 6"),
    "name none": (f"witness none {COSIGNERS['X1'].vkey}\nquorum none", "line 1"),
    "name twice": (f"witness A {COSIGNERS['X1'].vkey}\nwitness A {COSIGNERS['X2'].vkey}\nquorum A", "line 2"),
    "key twice": (f"witness A {COSIGNERS['X1'].vkey}\nwitness B {COSIGNERS['X1'].vkey}\nquorum A", "line 2"),
    "log twice": (f"log {LOG.signer.vkey}\nlog {LOG.signer.vkey}\nquorum none", "line 2"),
    "log key as witness": (f"witness A {LOG.signer.vkey}\nquorum A", "0x04"),
    "witness key as log": (f"log {COSIGNERS['X1'].vkey}\nquorum none", "0x01"),
    "not a key": ("log here\nquorum none", "line 1"),
    "too many words": ("quorum none none", "line 1"),
    "carriage return": ("quorum none\r\n", "control"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_with_its_line(name: str) -> None:
    text, said = MISTAKES[name]
    with pytest.raises(FormatError, match=said):
        Policy.parse(text.encode())


def test_a_policy_is_bounded() -> None:
    for data in (b"#" * (200 << 10), b"\n" * 2000):
        with pytest.raises(FormatError, match="more than"):
            Policy.parse(data)
