"""How often a code may be guessed, with the clock as an argument."""

from __future__ import annotations

import json

import pytest

from meshd.errors import FormatError, LocalProtocolError, MeshError, PossibleAttack, Refused
from meshd.pairing.limits import DAY, FAILURES_A_DAY, Attempts, OfferBackoff, TypedCodes

NOW = 1_700_000_000.0


def through_json(saved: dict[str, object]) -> dict[str, object]:
    result: dict[str, object] = json.loads(json.dumps(saved))
    return result


def test_three_failures_burn_a_code() -> None:
    attempts = Attempts()
    for left in (2, 1, 0):
        attempts.reserve()
        attempts.fail()
        assert attempts.left == left
    assert attempts.refusal == "burned"
    with pytest.raises(Refused):
        attempts.reserve()


def test_tries_under_way_count_until_they_end() -> None:
    attempts = Attempts()
    for _ in range(3):
        attempts.reserve()
    assert attempts.refusal == "busy"
    with pytest.raises(Refused):
        attempts.reserve()
    attempts.give_back()
    attempts.reserve()
    assert attempts.left == 3


def test_one_success_uses_a_code_up_even_for_who_was_nearly_as_fast() -> None:
    attempts = Attempts()
    attempts.reserve()
    attempts.reserve()
    attempts.succeed()
    assert attempts.refusal == "used"
    with pytest.raises(Refused):
        attempts.succeed()
    with pytest.raises(Refused):
        attempts.reserve()


def test_a_try_is_settled_once() -> None:
    attempts = Attempts()
    for settle in (attempts.fail, attempts.succeed, attempts.give_back):
        with pytest.raises(LocalProtocolError):
            settle()


def test_what_was_under_way_when_it_was_saved_counts_as_failed() -> None:
    attempts = Attempts()
    attempts.reserve()
    attempts.fail()
    attempts.reserve()
    again = Attempts.from_dict(through_json(attempts.to_dict()))
    assert (again.left, again.pending, again.refusal) == (1, 0, None)
    again.reserve()
    again.succeed()
    assert Attempts.from_dict(through_json(again.to_dict())).refusal == "used"


def test_a_typed_code_has_three_tries_over_all_candidates_and_runs() -> None:
    codes = TypedCodes(bytes)
    for _ in range(3):
        codes.spend(b"7-orbit-walnut", NOW)
        codes = TypedCodes.from_dict(through_json(codes.to_dict()))
    with pytest.raises(PossibleAttack):
        codes.spend(b"7-orbit-walnut", NOW + 60)
    codes.spend(b"7-orbit-wallet", NOW)
    assert codes.left(b"7-orbit-wallet", NOW) == 2


def test_typed_codes_are_forgotten_in_time_and_kept_as_hashes_alone() -> None:
    codes = TypedCodes(bytes)
    codes.spend(b"7-orbit-walnut", NOW)
    assert "orbit" not in json.dumps(codes.to_dict())
    assert codes.left(b"7-orbit-walnut", NOW + 3000) == 2
    assert codes.left(b"7-orbit-walnut", NOW + 4000) == 3
    assert codes.to_dict()["spent"] == {}


def test_typed_codes_do_not_grow_without_end() -> None:
    codes = TypedCodes(bytes)
    for number in range(1200):
        codes.spend(str(number).encode(), NOW)
    spent = codes.to_dict()["spent"]
    assert isinstance(spent, dict)
    assert len(spent) == 1000


def test_the_next_code_waits_longer_after_each_burnt_one() -> None:
    backoff = OfferBackoff()
    now, waits = NOW, []
    for _ in range(7):
        backoff.check(now)
        backoff.burned(now)
        waits.append(backoff.wait(now))
        with pytest.raises(Refused, match="can be shown in"):
            backoff.check(now + 1)
        with pytest.raises(Refused):
            backoff.check(now + 1, force=True)
        now += waits[-1]
    assert waits == [30, 60, 120, 240, 480, 900, 900]


def test_a_success_or_a_quiet_day_ends_the_wait() -> None:
    backoff = OfferBackoff()
    backoff.burned(NOW)
    backoff.burned(NOW)
    backoff.succeeded()
    backoff.check(NOW)
    backoff.burned(NOW)
    backoff.burned(NOW + DAY)
    assert backoff.wait(NOW + DAY) == 30


def test_twenty_failures_within_a_day_need_a_person_to_insist() -> None:
    backoff = OfferBackoff()
    for minute in range(FAILURES_A_DAY):
        backoff.check(NOW + minute)
        backoff.failed(NOW + minute)
    with pytest.raises(Refused, match="20 wrong codes") as caught:
        backoff.check(NOW + 100)
    assert "--force" in (caught.value.hint or "")
    backoff.check(NOW + 100, force=True)
    backoff.check(NOW + DAY)


def test_a_success_does_not_forgive_the_failures_of_the_day() -> None:
    backoff = OfferBackoff()
    for _ in range(25):
        backoff.failed(NOW)
    backoff.succeeded()
    assert backoff.failures(NOW) == FAILURES_A_DAY


def test_a_clock_that_was_set_back_keeps_nobody_waiting_for_years() -> None:
    backoff = OfferBackoff()
    backoff.burned(NOW)
    for _ in range(FAILURES_A_DAY):
        backoff.failed(NOW)
    earlier = NOW - 365 * DAY
    assert backoff.wait(earlier) == 30
    assert backoff.wait(earlier + 30) == 0
    assert backoff.failures(earlier + DAY) == 0
    codes = TypedCodes(bytes)
    codes.spend(b"code", NOW)
    assert codes.left(b"code", earlier) == 3


def test_the_back_off_survives_a_restart() -> None:
    backoff = OfferBackoff()
    backoff.burned(NOW)
    backoff.burned(NOW)
    backoff.failed(NOW)
    again = OfferBackoff.from_dict(through_json(backoff.to_dict()))
    assert (again.wait(NOW), again.failures(NOW)) == (60, 1)
    assert again.to_dict() == backoff.to_dict()


@pytest.mark.parametrize(
    "saved",
    [
        {},
        {"burnt": -1, "burnt_at": 0, "failures": []},
        {"burnt": True, "burnt_at": 0, "failures": []},
        {"burnt": 1, "burnt_at": float("nan"), "failures": []},
        {"burnt": 1, "burnt_at": 0, "failures": ["x"]},
        {"tries": 3},
        {"salt": "xx", "spent": {}},
        {"salt": "00", "spent": {"a": 1}},
        {"salt": "00", "spent": {"a": [1, None]}},
    ],
)
def test_what_was_saved_in_another_form_is_a_format_error(saved: dict[str, object]) -> None:
    for read in (Attempts.from_dict, OfferBackoff.from_dict, TypedCodes.from_dict):
        with pytest.raises(MeshError) as caught:
            read(saved)
        assert isinstance(caught.value, FormatError)
