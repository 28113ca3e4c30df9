"""docs/specs/portal.md says what the code does: members, numbers, limits."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.portal_examples import members_of
from meshd.portal import decide_read, headers, httpsig, messages, names, structures, verify
from meshd.portal.messages import TRANSACTIONS
from meshd.portal.outcomes import Policy
from meshd.portal.statuses import Status

SPEC = (Path(__file__).parent.parent.parent / "docs" / "specs" / "portal.md").read_text()


@pytest.mark.parametrize("transaction", TRANSACTIONS)
def test_every_member_of_a_transaction_stands_in_its_row(transaction: str):
    row = next(
        line for line in SPEC[SPEC.index("## Transactions") :].splitlines() if line.startswith(f"| {transaction} |")
    )
    for kind in TRANSACTIONS[transaction]:
        tree = members_of(kind)
        if transaction == "GetRecords":  # its request is Get's
            tree -= members_of(messages.GetRequest)
        # The base types are said once, and what January defined and nobody ever sent is left out.
        for member in tree - {"Portal", "Status", "StatusDescription", "SignedConnectionResult"}:
            assert f"`{member}`" in row
    for name in messages.ours_only(TRANSACTIONS[transaction].response):
        assert f"*`{name}`*" in row


def test_every_structure_is_named():
    for name, kind in vars(structures).items():
        bases = (structures.Structure, structures.PortalEntry)  # said with what derives from them
        if isinstance(kind, type) and issubclass(kind, structures.Structure) and kind not in bases:
            assert f"`{name}`" in SPEC


def test_every_status_is_in_the_table():
    table = SPEC[SPEC.index("### Status") : SPEC.index("## Transactions")]
    assert {int(number) for number in re.findall(r"\b[2-5][0-9][0-9]\b", table)} >= set(map(int, Status))


def test_the_limits_are_those_of_the_code():
    policy = Policy("example.net")
    assert names.INVALID_CHARACTERS in SPEC
    assert (names.MINIMUM, names.MAXIMUM) == (1, 64)
    assert (httpsig.WINDOW, httpsig.REMEMBERED, headers.MAX_WAIT) == (120, 300, 55)
    assert (policy.quota_bytes, policy.quota_entries) == (2 * 1024**3, 10**6)
    assert (policy.quota_quarantined_bytes, policy.quota_quarantined) == (64 * 1024**2, 10**4)
    assert (policy.pending_per_account, policy.pending_seconds, policy.reserve_seconds) == (8, 900, 600)
    assert (policy.page_entries, policy.page_bytes, policy.hold_seconds) == (1000, 2_500_000, 86400)
    assert (verify.MAX_APPLICATION, verify.MAX_ESCROW, verify.MAX_CONNECTION) == (2**20, 2**16, 2**15)
    assert policy.escrow_per_account == 16 and verify.MAX_BATCH == verify.MAX_ROWS == 1000
    assert {decide_read.USER_PROFILE, decide_read.UNIQUE_ID, decide_read.TYPE} == {"UserProfile", "UniqueID", "Type"}
    for header in (headers.EXTENSIONS, headers.ACCOUNT, headers.IF_HEAD):
        assert header in SPEC.lower()
    assert '("' + '" "'.join(httpsig.COVERED) + '")' in SPEC
