"""Malicious portals and real devices over HTTP: each lie is found at the first contact after it, by the command too."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.log_world import Log
from harness.portal_liar import ACCOUNT, Den, One, garbage, lying
from harness.shell import Shell
from meshd.daemon.portals import state, watch
from meshd.daemon.portals.watch import Contradicted
from meshd.portal.messages import GetRecordsResponse, PublishResponse, StatusResponse
from meshd.portal.structures import Binary, ConsistencyProof
from meshd.tlog.proof import Proof

DAY_MS = 24 * 3600 * 1000


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The patience that an honest portal gets is not what is tried here."""
    monkeypatch.setattr(watch, "TRY_PAUSE", 0.01)
    monkeypatch.setattr(state, "FIRST_PAUSE", 0.05)


async def suspected(one: One, why: str = "") -> None:
    """Nothing is proved and nobody convicted: the last good checkpoint stays, and a person is told since when."""
    assert one.state == "suspect", one.pin
    assert why in one.pin.why and not one.pin.evidence
    (line,) = [line for line in (await one.meshctl("status")).out.splitlines() if one.pin.why in line]
    assert f"! {ACCOUNT}: " in line and ", since 20" in line
    assert (await one.meshctl("portal", "verify")).code == 10


async def convicted(den: Den, one: One, *, by: str = "") -> None:
    """Frozen, with evidence that a stranger checks; nothing that the portal says is taken any more."""
    assert one.state == "contradicted", one.pin
    before = one.pin
    status = (await one.meshctl("status")).out
    assert f"! {ACCOUNT}: the portal has contradicted itself; nothing from it is believed since 20" in status
    assert (await one.meshctl("status", "--check")).code == 10
    where = den.home / f"evidence-{one.device.name}"
    run = await one.meshctl("portal", "verify", "--evidence", str(where))
    assert run.code == 10 and "contradicted" in run.out
    elsewhere = Shell(den.home / "nobody")
    keys = [word for key in before.keys for word in ("--key", key)]
    assert elsewhere("portal", "check-proof", str(where), *keys, "--json").json["holds"] is True
    assert elsewhere("portal", "check-proof", str(where)).code == 10  # without a key it says nothing
    assert not by or elsewhere("portal", "check-proof", str(where), *keys, "--json").json["shows"] == by

    await one.device.add("later.example", "alice", "not for this portal")
    assert isinstance(one.portal.error, Contradicted)
    assert (one.pin.size, one.pin.root, one.pin.frozen) == (before.size, before.root, before.frozen)


async def written(one: One, count: int, word: str = "entry") -> None:
    for place in range(count):
        await one.device.add(f"{word}{place}.example", "alice", "secret")
    await one.in_step()


def told(name: str, change: Callable[[Any], Any]) -> Callable[[str, Any], Any]:
    """Change the answers to one transaction that say that it was done."""
    return lambda transaction, said: change(said) if transaction == name else said


# --- the past ---------------------------------------------------------------------------------------------------------


async def test_a_history_rewritten_is_evidence_at_the_next_contact(home: Path) -> None:
    async with lying(home, "laptop") as den:
        await den.joined()
        one = den["laptop"]
        await den.restart(den.rewritten(den.honest))
        await one.contact()
        await convicted(den, one, by="fork")


@pytest.mark.parametrize("grown", [1, 2])
async def test_a_history_rewritten_that_went_on_growing_is_evidence_too(home: Path, grown: int) -> None:
    async with lying(home, "laptop", "phone") as den:
        await den.joined()
        one, other = den["laptop"], den["phone"]
        liar = den.rewritten(den.honest)
        await one.led(None)
        await other.led(await den.open(liar))
        await other.contact()
        await convicted(den, other)  # who has seen the first history publishes nothing more
        assert one.state == "verified"
        await one.led(liar)
        await one.contact()
        await convicted(den, one)


async def test_an_entry_dropped_is_found_at_the_next_contact(home: Path) -> None:
    async with lying(home, "laptop") as den:
        await den.joined()
        one = den["laptop"]
        await written(one, 3)
        size = one.pin.size
        await den.restart(den.dropped(den.honest, size - 1))
        await one.contact()
        await suspected(one, f"a checkpoint of {size - 1} entries after one of {size}")
        assert one.pin.size == size


async def test_a_rollback_to_an_old_backup_is_found_at_once_and_evidence_once_it_goes_on(home: Path) -> None:
    async with lying(home, "laptop", "phone") as den:
        await den.joined()
        one, other = den["laptop"], den["phone"]
        backup = den.copied(den.honest)
        await written(one, 2)
        await other.led(None)
        await den.restart(backup)
        await one.contact()
        assert one.pin.suspect and not one.pin.frozen
        await one.until(
            lambda: one.state == "contradicted"
        )  # it publishes again what is missing, and gets other leaves
        await convicted(den, one)


async def test_a_fork_that_a_restart_healed_is_evidence_for_who_saw_it(home: Path) -> None:
    async with lying(home, "laptop", "phone") as den:
        await den.joined()
        one, other = den["laptop"], den["phone"]
        fork = den.copied(den.honest)
        await one.led(await den.open(fork))
        await written(one, 2, "laptop")
        await den.close(fork)
        await written(other, 3, "phone")
        await one.led(den.honest)
        await one.contact()
        await one.until(lambda: one.state == "contradicted")
        await convicted(den, one)
        assert other.state == "verified"


# --- two views --------------------------------------------------------------------------------------------------------


async def test_two_views_of_one_size_are_evidence_when_two_devices_meet_on_one_network(home: Path) -> None:
    async with lying(home, "laptop", "phone") as den:
        await two_views(den, 2, 2)
        for each in den.ones.values():
            await each.until(lambda each=each: each.state == "contradicted")  # type: ignore[misc]
            await convicted(den, each, by="fork")


async def test_two_views_of_other_sizes_are_found_by_both_and_evidence_for_who_has_the_larger(home: Path) -> None:
    async with lying(home, "laptop", "phone") as den:
        await two_views(den, 1, 3)
        one, other = den["laptop"], den["phone"]
        await other.until(lambda: other.state == "contradicted")
        await convicted(den, other, by="rewrite")
        await one.until(lambda: one.state == "suspect")
        assert (await one.meshctl("portal", "verify")).code == 10


async def two_views(den: Den, mine: int, others: int) -> None:
    """Each device publishes to a store of its own, and is content; then they meet."""
    await den.joined()
    one, other = den["laptop"], den["phone"]
    await other.led(await den.open(den.copied(den.honest)))
    await written(one, mine, "laptop")
    await written(other, others, "phone")
    assert (one.state, other.state) == ("verified", "verified")
    for each in (one, other):
        await den.nursery.start(each.device.run)


async def test_what_is_withheld_from_one_device_is_found_when_it_meets_who_published_it(home: Path) -> None:
    async with lying(home, "laptop", "phone") as den:
        await den.joined()
        one, other = den["laptop"], den["phone"]
        await other.led(await den.open(den.copied(den.honest)))  # the phone is shown how it was
        await written(one, 2)
        await other.contact()
        assert other.state == "verified"  # it can't know
        for each in (one, other):
            await den.nursery.start(each.device.run)
        await other.until(lambda: other.state in ("suspect", "contradicted"))
        assert (await other.meshctl("portal", "verify")).code == 10


# --- single answers ---------------------------------------------------------------------------------------------------


async def test_the_newest_version_withheld_from_who_published_it_is_found_by_verify(home: Path) -> None:
    async with lying(home, "laptop") as den:
        await den.joined()
        one = den["laptop"]
        await written(one, 2)

        def without_the_last(said: GetRecordsResponse) -> GetRecordsResponse:
            if not said.data_items:
                return said
            return msgspec.structs.replace(said, data_items=said.data_items[:-1], receipts=(said.receipts or [])[:-1])

        den.honest.tell = told("GetRecords", without_the_last)
        run = await one.meshctl("portal", "verify")
        assert run.code == 10 and "are not shown any more" in run.out
        await suspected(one)
        den.honest.tell = None
        assert (await one.meshctl("portal", "verify")).code == 0
        assert one.state == "verified"


@pytest.mark.parametrize("bare", [False, True], ids=["proved", "unproved"])
async def test_a_feed_without_an_end_is_not_read_for_ever(home: Path, bare: bool) -> None:
    async with lying(home, "laptop") as den:
        await den.joined()
        one = den["laptop"]
        first: list[GetRecordsResponse] = []
        pages = itertools.count()

        def endless(said: GetRecordsResponse) -> GetRecordsResponse:
            if said.data_items:
                first.append(said)
            shown = first[0] if first else said
            receipts = None if bare else shown.receipts
            return msgspec.structs.replace(shown, receipts=receipts, page_key=f"page-{next(pages)}")

        den.honest.tell = told("GetRecords", endless)
        run = await one.meshctl("portal", "verify")
        assert run.code == 10 and "for ever" in run.out
        assert next(pages) < 20


def receipt(change: Callable[[Proof], Proof]) -> Callable[[PublishResponse], PublishResponse]:
    def changed(said: PublishResponse) -> PublishResponse:
        outcomes = [
            msgspec.structs.replace(one, receipt=change(Proof.parse(one.receipt.encode())).encode().decode())
            if one.receipt
            else one
            for one in said.outcomes or []
        ]
        return msgspec.structs.replace(said, outcomes=outcomes or None)

    return changed


@pytest.mark.parametrize(
    "change",
    [
        lambda proof: Proof(proof.index, (garbage(), *proof.hashes[1:]), proof.checkpoint, proof.extra),
        lambda proof: Proof(proof.index - 1, proof.hashes, proof.checkpoint, proof.extra),
        lambda proof: Proof(
            proof.index, proof.hashes, proof.checkpoint, proof.extra[:-1] + bytes([proof.extra[-1] ^ 1])
        ),
    ],
    ids=["forged", "wrong-index", "another-leaf"],
)
async def test_a_forged_receipt_is_found_at_that_publish(home: Path, change: Callable[[Proof], Proof]) -> None:
    async with lying(home, "laptop") as den:
        await den.joined()
        one = den["laptop"]
        den.honest.tell = told("Publish", receipt(change))
        await one.device.add("a.example", "alice", "secret")
        await one.until(lambda: one.state == "suspect")
        assert "receipt of the portal does not hold" in one.pin.why
        den.honest.tell = None
        await one.in_step()
        assert (await one.meshctl("portal", "verify")).code == 0  # its log has it after all


async def test_a_portal_that_takes_a_version_and_logs_it_nowhere_is_found_at_that_publish(home: Path) -> None:
    async with lying(home, "laptop") as den:
        await den.joined()
        one = den["laptop"]
        den.honest.tell = told("Publish", lambda said: msgspec.structs.replace(
            said, outcomes=[msgspec.structs.replace(each, receipt=None) for each in said.outcomes]
        ))  # fmt: skip
        hidden = told("GetRecords", lambda said: msgspec.structs.replace(said, data_items=None, receipts=None))
        publish = den.honest.tell
        den.honest.tell = lambda transaction, said: hidden(transaction, publish(transaction, said))
        await one.device.add("a.example", "alice", "secret")
        await one.until(lambda: one.state == "suspect")
        await suspected(one)


async def test_a_frozen_clock_shows_in_the_age_of_the_checkpoint(home: Path) -> None:
    async with lying(home, "laptop") as den:
        await den.joined()
        one = den["laptop"]
        assert one.state == "verified"
        shown: list[StatusResponse] = []

        def as_it_was(said: StatusResponse) -> StatusResponse:
            shown.append(said)
            return msgspec.structs.replace(
                said,
                checkpoint_value=shown[0].checkpoint_value,
                last_checkpoint_time=shown[0].last_checkpoint_time,
                next_checkpoint_time=shown[0].next_checkpoint_time,
            )

        den.honest.tell = told("Status", as_it_was)
        await one.contact()
        assert one.state == "verified"
        one.device.clock_ms += DAY_MS
        await one.contact()
        assert one.state == "stale"
        assert "it may be withholding what is newer" in (await one.meshctl("status")).out
        assert "stale" in (await one.meshctl("portal", "verify")).out


@pytest.mark.parametrize("garble", ["hashes", "none", "short", "endless"])
async def test_garbage_for_a_proof_moves_no_pin_and_convicts_nobody(home: Path, garble: str) -> None:
    made = {"hashes": [garbage() for _ in range(4)], "none": None, "short": [], "endless": [garbage()] * 300}[garble]

    def garbled(said: StatusResponse) -> StatusResponse:
        proof = said.consistency_proof
        if proof is None:
            return said
        other = None if made is None else ConsistencyProof(
            old_size=proof.old_size, new_size=proof.new_size, hashes=[Binary(each) for each in made]
        )  # fmt: skip
        return msgspec.structs.replace(said, consistency_proof=other)

    async with lying(home, "laptop", "phone") as den:
        await den.joined()
        one, other = den["laptop"], den["phone"]
        await one.led(None)
        await written(other, 3)
        size = one.pin.size
        den.honest.tell = told("Status", garbled)
        await one.led(den.honest)
        await one.contact()
        assert one.pin.size == size
        await suspected(one)
        den.honest.tell = None
        await one.contact()
        assert one.state == "verified" and one.pin.size > size


async def test_a_checkpoint_of_another_log_is_no_checkpoint_of_this_one(home: Path) -> None:
    other = Log(origin="other.example/mmm-log")
    for place in range(40):
        other.publish(bytes([place]))
    keys = [*(one.vkey for one in other.keys), other.witness.vkey]
    async with lying(home, "laptop") as den:
        await den.joined()
        one = den["laptop"]
        den.honest.tell = told("Status", lambda said: msgspec.structs.replace(
            said, checkpoint_value=other.note().encode().decode(), log_keys=keys
        ))  # fmt: skip
        await one.contact()
        await suspected(one, "other.example/mmm-log")
        assert one.pin.origin == "example.net/mmm-log"


async def test_a_new_key_that_the_old_one_never_signed_for_is_not_believed(home: Path) -> None:
    async with lying(home, "laptop") as den:
        await den.joined()
        one = den["laptop"]
        stolen = Log(seed="thief", origin="example.net/mmm-log")
        for place in range(40):
            stolen.publish(bytes([place]))
        keys = [*(each.vkey for each in stolen.keys), stolen.witness.vkey]
        den.honest.tell = told("Status", lambda said: msgspec.structs.replace(
            said, checkpoint_value=stolen.note().encode().decode(), log_keys=keys
        ))  # fmt: skip
        await one.contact()
        await suspected(one, "no known key")
