"""The two cores of a pairing against one another, and against what a stranger could send instead."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import pairing_world as world
from harness.wire import Pair, drain, frames
from meshd.crypto import cbor
from meshd.errors import (
    CodeError,
    Denied,
    FormatError,
    LocalProtocolError,
    MeshError,
    PossibleAttack,
    Refused,
    RemoteProtocolError,
    VersionMismatch,
)
from meshd.pairing import events, machine, messages, proof, states
from meshd.pairing.limits import Attempts
from meshd.pairing.states import State

CHUNKS = [1, 3, None]


def send(core: Any, *bodies: bytes) -> list[Any]:
    for body in bodies:
        core.receive_data(messages.frame(body))
    return drain(core)


def hello(**changes: Any) -> bytes:
    members = {
        "v": 1,
        "at": "OCBieXRlcyE",
        "na": bytes(16),
        "udf": world.UDF,
        "alg": ["spake2-ed25519/1"],
        "pw": "code",
    }
    members |= changes
    return cbor.encode([0, {key: value for key, value in members.items() if value is not None}])


# ---------------------------------------------------------------- what should happen


@pytest.mark.parametrize("chunk", CHUNKS)
def test_the_right_code_brings_a_device_in(chunk: int | None) -> None:
    at_joiner, at_host, _ = world.whole_run(world.joiner(), world.host(), chunk)
    assert at_joiner == world.HAPPY_JOINER
    assert at_host == world.HAPPY_HOST


def test_the_secret_of_a_uri_opens_what_a_code_opens() -> None:
    both = world.host((world.CODE, world.SECRET))
    at_joiner, _, _ = world.whole_run(world.joiner(world.SECRET), both)
    assert at_joiner == world.HAPPY_JOINER


def test_both_ends_make_the_same_block_token_and_nobody_else_does() -> None:
    a, b, _ = world.proven_pair()
    assert a.block_token == b.block_token
    assert proof.same_token(a.block_token, b.block_token)
    prefix, sid, token = a.block_token.split(".")
    assert (prefix, len(sid), len(token)) == ("lp1", 22, 43)
    again, again_host = world.joiner(seed="another run"), world.host()
    again.begin()
    Pair(again, again_host).settle()
    assert not proof.same_token(a.block_token, again.block_token)


def test_there_is_no_block_token_before_the_proof() -> None:
    for core in (world.joiner(), world.host()):
        with pytest.raises(LocalProtocolError):
            _ = core.block_token


def test_a_device_that_asked_before_may_poll_instead_and_be_told_at_once() -> None:
    a, b, wire = world.proven_pair()
    b.offer_profile(world.PROFILE)
    wire.settle()
    a.poll()
    assert wire.carry(a, b) == [events.PollRequested()]
    b.decide(world.ACCEPTED)
    assert wire.carry(b, a) == [events.Decided(world.ACCEPTED)]


def test_a_poll_without_an_answer_may_be_followed_by_the_request() -> None:
    a, b, wire = world.proven_pair()
    b.offer_profile(world.PROFILE)
    wire.settle()
    a.poll()
    a.poll()
    a.request(world.REQUEST, "desktop")
    assert wire.carry(a, b) == [
        events.PollRequested(),
        events.PollRequested(),
        events.Requested(world.REQUEST, "desktop", ""),
    ]


def test_a_request_may_be_answered_at_once_with_the_decision() -> None:
    a, b, wire = world.proven_pair()
    b.offer_profile(world.PROFILE)
    wire.settle()
    a.request(world.REQUEST, "desktop")
    wire.settle()
    b.decide(world.ACCEPTED)
    assert wire.carry(b, a) == [events.Decided(world.ACCEPTED)]


def test_a_poll_that_crosses_the_decision_is_answered_by_it() -> None:
    a, b, wire = world.proven_pair()
    b.offer_profile(world.PROFILE)
    wire.settle()
    a.request(world.REQUEST, "desktop")
    wire.settle()
    a.poll()
    b.decide(world.ACCEPTED)
    b.welcome(world.PROFILE, [])
    assert wire.carry(a, b) == []
    assert wire.carry(b, a) == [events.Decided(world.ACCEPTED), events.Welcome(world.PROFILE, ())]


def test_many_entries_travel_in_as_many_frames_as_they_need() -> None:
    a, b, wire = world.proven_pair()
    b.offer_profile(world.PROFILE)
    wire.settle()
    a.request(world.REQUEST, "desktop")
    wire.settle()
    b.decide(world.ACCEPTED)
    sent = [bytes([number]) * 1_500_000 for number in range(5)]
    b.send_entries(sent)
    b.send_entries([])
    b.welcome(world.PROFILE, [])
    got = wire.carry(b, a)
    batches = [event.entries for event in got if isinstance(event, events.Entries)]
    assert list(itertools.chain(*batches)) == sent
    assert len(batches) == 3
    with pytest.raises(LocalProtocolError):
        b.send_entries([b"late"])


def test_an_entry_that_fits_in_no_frame_is_not_sent() -> None:
    a, b, wire = world.proven_pair()
    b.offer_profile(world.PROFILE)
    wire.settle()
    a.request(world.REQUEST, "desktop")
    wire.settle()
    b.decide(world.ACCEPTED)
    with pytest.raises(LocalProtocolError):
        b.send_entries([bytes(messages.MAX_FRAME - 8)])


def test_a_host_cannot_send_entries_without_end() -> None:
    a, b, wire = world.proven_pair()
    b.offer_profile(world.PROFILE)
    wire.settle()
    a.request(world.REQUEST, "desktop")
    wire.settle()
    b.decide(world.ACCEPTED)
    wire.settle()
    with pytest.raises(RemoteProtocolError, match="entries"):
        for _ in range(20):
            b.send_entries([bytes(4_000_000)])
            wire.carry(b, a)


# ---------------------------------------------------------------- wrong codes and people in the middle


@pytest.mark.parametrize("chunk", CHUNKS)
def test_a_wrong_code_is_refused_and_both_sides_know_what_is_left(chunk: int | None) -> None:
    a, b = world.joiner(world.OTHER_CODE), world.host()
    wire = Pair(a, b)
    a.begin()
    at_joiner, at_host = wire.settle(chunk=chunk)
    assert at_joiner == [events.Offered(7, 3, 300), events.TryReserved(), events.CodeRefused(left=2)]
    assert at_host == [events.Greeted(world.UDF, "spake2-ed25519/1"), events.TryReserved(), events.GuessFailed()]
    assert not a.proven
    assert not b.proven


def test_an_evil_twin_with_the_right_slot_learns_nothing_and_is_noticed() -> None:
    # The twin answers with its own certificate; it does not know the code and says that our proof was right.
    a, twin = world.joiner(certificate=world.TWIN_CERTIFICATE), world.host(world.OTHER_CODE, world.TWIN_CERTIFICATE)
    wire = Pair(a, twin)
    a.begin()
    wire.carry(a, twin)
    wire.carry(twin, a)
    wire.carry(a, twin)
    assert wire.carry(twin, a) == [events.TryReserved()]
    with pytest.raises(PossibleAttack):
        send(a, cbor.encode([10, {"tb": bytes(32)}]))
    assert a.state is State.CLOSED


def test_a_man_in_the_middle_of_tls_is_noticed_although_the_code_is_right() -> None:
    # He passes every byte on, but the joiner sees his certificate and the host has its own.
    a, b = world.joiner(certificate=world.TWIN_CERTIFICATE), world.host()
    a.begin()
    at_joiner, at_host = Pair(a, b).settle()
    assert at_joiner[-1] == events.CodeRefused(left=2)
    assert at_host[-1] == events.GuessFailed()


@pytest.mark.parametrize("number", range(5), ids=["hello", "offer", "pa", "pb", "ta"])
def test_a_changed_message_is_noticed(number: int) -> None:
    """Each message until the proof, changed on its way into another one that is well formed."""
    other_share = Pair(world.joiner(seed="x"), world.host(seed="y"))
    other_share.left.begin()  # type: ignore[attr-defined]
    other_share.settle()
    foreign = [frames(data)[0] for _, data in other_share.sent]
    a, b = world.joiner(), world.host()
    a.begin()
    seen: list[Any] = []
    step = 0
    source, target = a, b
    try:
        while body := source.data_to_send():
            if step == number:
                change = hello(udf=world.OTHER_UDF) if step == 0 else foreign[step]
                assert change != frames(body)[0]
                body = messages.frame(change)
            target.receive_data(body)
            seen += drain(target)
            source, target = target, source
            step += 1
    except MeshError as exc:
        seen.append(exc)
    assert not any(isinstance(event, events.Proven) for event in seen)
    assert events.GuessFailed() in seen


def test_a_device_that_swaps_its_fingerprint_is_not_proven() -> None:
    a, b = world.joiner(), world.host()
    a.begin()
    b.receive_data(a.data_to_send().replace(world.UDF.encode(), world.OTHER_UDF.encode()))
    assert drain(b) == [events.Greeted(world.OTHER_UDF, "spake2-ed25519/1")]
    _, at_host = Pair(a, b).settle()
    assert at_host[-1] == events.GuessFailed()


def test_what_was_recorded_opens_nothing_later() -> None:
    _, _, wire = world.whole_run(world.joiner(), world.host())
    said = [body for source, data in wire.sent if source is wire.left for body in frames(data)]
    fresh = world.host(seed="another window")
    assert send(fresh, *said[:2])[-1] == events.TryReserved()
    assert send(fresh, said[2]) == [events.GuessFailed()]


def test_guesses_in_parallel_cost_as_much_as_one_after_the_other() -> None:
    attempts = Attempts()
    guessers = [
        (world.joiner(world.OTHER_CODE, seed=f"j{n}"), world.host(left=attempts.left, seed=f"h{n}")) for n in range(6)
    ]
    busy = 0
    for a, b in guessers:
        a.begin()
        wire = Pair(a, b)
        wire.carry(a, b)
        wire.carry(b, a)
        assert wire.carry(a, b) == [events.TryReserved()]
        try:
            attempts.reserve()
        except Refused:
            b.refuse(attempts.refusal or "")
            busy += 1
    assert busy == 3
    for a, b in guessers:
        for event in Pair(a, b).settle()[1]:
            assert event == events.GuessFailed()
            attempts.fail()
    assert attempts.refusal == "burned"
    assert attempts.left == 0


def test_a_share_is_withdrawn_when_no_try_is_left() -> None:
    a, b = world.joiner(), world.host()
    wire = Pair(a, b)
    a.begin()
    wire.carry(a, b)
    wire.carry(b, a)
    wire.carry(a, b)
    b.refuse("burned", left=0)
    assert frames(b.data_to_send()) == [cbor.encode([12, {"err": "burned", "left": 0}])]
    a.receive_data(messages.frame(cbor.encode([12, {"err": "burned", "left": 0}])))
    assert drain(a) == [events.TurnedAway("burned", 0)]


def test_a_joiner_that_has_no_try_left_withdraws_its_confirmation() -> None:
    a, b = world.joiner(), world.host()
    wire = Pair(a, b)
    a.begin()
    for source, target in ((a, b), (b, a), (a, b)):
        wire.carry(source, target)
    assert wire.carry(b, a) == [events.TryReserved()]
    a.abandon()
    assert a.data_to_send() == b""


def test_a_bad_share_costs_no_try() -> None:
    b = world.host()
    send(b, hello())
    with pytest.raises(RemoteProtocolError):
        send(b, cbor.encode([4, {"pa": b"A" + bytes([1]) + bytes(31)}]))
    assert b.state is State.CLOSED


# ---------------------------------------------------------------- who may call, and in what version


@pytest.mark.parametrize("token", [b"", b"8 bytes?", b"8 bytes!!"])
def test_a_caller_without_the_token_of_the_link_is_sent_away(token: bytes) -> None:
    a, b = world.joiner(token=token), world.host()
    a.begin()
    with pytest.raises(Denied):
        Pair(a, b).carry(a, b)
    [event] = Pair(b, a).carry(b, a)
    assert event == events.TurnedAway("token", 3)
    assert isinstance(event.error(), Denied)


def test_a_remote_invitation_asks_for_no_token() -> None:
    at_joiner, _, _ = world.whole_run(world.joiner(token=b""), world.host(token=None))
    assert at_joiner == world.HAPPY_JOINER


def test_a_kind_of_password_that_was_not_shown_is_not_open() -> None:
    a, b = world.joiner(world.SECRET), world.host(world.CODE)
    a.begin()
    with pytest.raises(Denied):
        Pair(a, b).carry(a, b)
    assert Pair(b, a).carry(b, a) == [events.TurnedAway("pw", 3)]


def test_a_newer_release_is_told_so_whatever_its_greeting_holds() -> None:
    b = world.host()
    with pytest.raises(VersionMismatch, match="newer release"):
        send(b, cbor.encode([0, {"v": 2, "things": [1, 2]}]))
    a = world.joiner()
    a.begin()
    a.receive_data(b.data_to_send())
    [event] = drain(a)
    assert event == events.TurnedAway("version", 3)
    assert isinstance(event.error(), VersionMismatch)


def test_a_newer_host_is_named_as_such() -> None:
    a = world.joiner()
    a.begin()
    with pytest.raises(VersionMismatch, match="newer release"):
        send(a, cbor.encode([2, {"v": 3}]))


def test_no_common_key_exchange_is_a_matter_of_releases() -> None:
    b = world.host()
    with pytest.raises(VersionMismatch, match="in common"):
        send(b, hello(alg=["cpace/1"]))
    assert frames(b.data_to_send()) == [cbor.encode([12, {"err": "alg", "left": 3}])]


@pytest.mark.parametrize("reason", sorted(events.REASONS))
def test_every_reason_has_a_sentence_for_a_person(reason: str) -> None:
    error = events.TurnedAway(reason, 0).error()
    assert len(str(error)) > 15
    assert reason == "code" or isinstance(error, (Refused, CodeError, Denied, VersionMismatch))
    assert "never heard" in str(events.TurnedAway("never heard", 0).error())


@pytest.mark.parametrize("reason", ["rejected", "expired", "cancelled"])
def test_a_host_may_say_no_at_any_time_before_it_decides(reason: str) -> None:
    a, b, wire = world.proven_pair()
    b.offer_profile(world.PROFILE)
    wire.settle()
    a.request(world.REQUEST, "desktop")
    wire.settle()
    b.refuse(reason)
    assert wire.carry(b, a) == [events.TurnedAway(reason, 3)]
    with pytest.raises(LocalProtocolError):
        b.refuse(reason)


# ---------------------------------------------------------------- out of turn

EXAMPLES: dict[type[messages.Message], messages.Message] = {
    messages.PairHello: messages.PairHello(1, "", bytes(16), world.UDF, ("spake2-ed25519/1",), "code"),
    messages.PairOffer: messages.PairOffer(1, bytes(16), 7, 3, 300),
    messages.JoinerShare: messages.JoinerShare(b"A" * 33),
    messages.HostShare: messages.HostShare(b"B" * 33),
    messages.JoinerProof: messages.JoinerProof(bytes(32)),
    messages.HostProof: messages.HostProof(bytes(32)),
    messages.Refusal: messages.Refusal("busy", 3),
    messages.Profile: messages.Profile(b"{}"),
    messages.Request: messages.Request(b"{}", "desktop"),
    messages.Started: messages.Started(b"{}"),
    messages.Decision: messages.Decision(b"{}"),
    messages.Poll: messages.Poll(),
    messages.Welcomed: messages.Welcomed(b"{}", ()),
    messages.EntryBatch: messages.EntryBatch((b"x",)),
}
TABLES = {"joiner": states.JOINER_HEARS, "host": states.HOST_HEARS}
OUT_OF_TURN = [
    pytest.param(role, state, kind, id=f"{role}-{state}-{kind.__name__}")
    for role, table in TABLES.items()
    for state, heard in table.items()
    for kind in EXAMPLES
    if kind not in heard and state is not State.CLOSED
]


def core_in(role: str, state: State) -> machine.Joiner | machine.Host:
    """A core that real messages brought into `state`."""
    a, b = world.joiner(), world.host()
    core = a if role == "joiner" else b
    wire = Pair(a, b)

    def steps() -> Any:
        yield
        a.begin()
        yield
        for _ in range(3):
            wire.carry(a, b)
            yield
            wire.carry(b, a)
            yield
        b.offer_profile(world.PROFILE)
        yield
        wire.settle()
        yield
        if state is State.POLLED:
            a.poll()
            wire.settle()
            yield
        a.request(world.REQUEST, "desktop")
        wire.settle()
        yield
        b.started(world.STARTED)
        wire.settle()
        yield
        b.decide(world.ACCEPTED)
        wire.settle()
        yield
        b.welcome(world.PROFILE, [])
        wire.settle()
        yield

    for _ in steps():
        if core.state is state:
            core.data_to_send()
            return core
    raise AssertionError(f"no way into {state}")


@pytest.mark.parametrize(("role", "state", "kind"), OUT_OF_TURN)
def test_what_is_not_in_the_table_ends_the_conversation(role: str, state: State, kind: type[messages.Message]) -> None:
    core = core_in(role, state)
    with pytest.raises(RemoteProtocolError, match="in the state"):
        send(core, messages.encode(EXAMPLES[kind]))
    assert core.state is State.CLOSED
    core.receive_data(messages.frame(messages.encode(EXAMPLES[kind])))
    assert drain(core) == []


def test_every_state_and_every_message_has_its_place() -> None:
    assert set(EXAMPLES) == set(messages.SHAPES)
    for table in TABLES.values():
        targets = {state for heard in table.values() for state in heard.values()}
        assert targets <= set(table)


VERBS: dict[str, dict[str, tuple[Any, set[State]]]] = {
    "joiner": {
        "begin": (lambda core: core.begin(), {State.START}),
        "request": (lambda core: core.request(b"{}", "desktop"), {State.PROFILE, State.POLLED}),
        "poll": (lambda core: core.poll(), {State.PROFILE, State.POLLED, State.REQUESTED, State.STARTED}),
    },
    "host": {
        "offer_profile": (lambda core: core.offer_profile(b"{}"), {State.PROVEN}),
        "started": (lambda core: core.started(b"{}"), {State.POLLED, State.REQUESTED}),
        "decide": (lambda core: core.decide(b"{}"), {State.POLLED, State.REQUESTED, State.STARTED}),
        "send_entries": (lambda core: core.send_entries([b"x"]), {State.DECIDED}),
        "welcome": (lambda core: core.welcome(b"{}", []), {State.DECIDED}),
    },
}


@pytest.mark.parametrize(
    ("role", "state", "verb"),
    [
        pytest.param(role, state, verb, id=f"{role}-{state}-{verb}")
        for role, table in TABLES.items()
        for state in table
        if state is not State.CLOSED
        for verb in VERBS[role]
    ],
)
def test_a_verb_is_allowed_in_its_states_alone(role: str, state: State, verb: str) -> None:
    core = core_in(role, state)
    act, allowed = VERBS[role][verb]
    if state in allowed:
        act(core)
        assert core.data_to_send()
    else:
        with pytest.raises(LocalProtocolError, match=verb):
            act(core)
        assert core.data_to_send() == b""


# ---------------------------------------------------------------- bad bytes


@pytest.mark.parametrize(
    ("why", "body"),
    [
        ("not a whole value", b""),
        ("garbage", b"\xff\xff\xff"),
        ("truncated", hello()[:-3]),
        ("trailing", hello() + b"\x00"),
        ("a map", cbor.encode({"v": 1})),
        ("one element", cbor.encode([0])),
        ("three elements", cbor.encode([0, {}, 1])),
        ("a type that is a boolean", b"\x82\xf4" + cbor.encode({})),
        ("a negative type", cbor.encode([-2, {}])),
        ("number keys", cbor.encode([0, {1: 1}])),
        ("a duplicate key", bytes.fromhex("8200a2617601617601")),
        ("keys out of order", bytes.fromhex("8200a262617400617601")),
        ("a long head", bytes.fromhex("82180020")),
        ("indefinite", bytes.fromhex("8200bfff")),
        ("a tag", bytes.fromhex("8200c0a0")),
        (
            "deep",
            cbor.encode([0, {"v": 1, "x": [[[[[[[[[[[[[[]]]]]]]]]]]]]]}]).replace(b"\x81\x80", b"\x81\x81\x81\x81\x80"),
        ),
        ("no version", hello(v=None)),
        ("a version that is a text", hello(v="1")),
        ("no nonce", hello(na=None)),
        ("a short nonce", hello(na=bytes(15))),
        ("a fingerprint of 2016", hello(udf="MABCD-EFGHI-JKLMN-OPQRS-TUVWX-YZ234")),
        ("no fingerprint", hello(udf="me")),
        ("a token that is too long", hello(at="x" * 65)),
        ("no suite", hello(alg=[])),
        ("too many suites", hello(alg=["x"] * 9)),
        ("a suite that is a number", hello(alg=[1])),
        ("no kind of password", hello(pw=None)),
        ("an unknown even type", cbor.encode([28, {}])),
    ],
)
def test_a_bad_greeting_ends_the_conversation(why: str, body: bytes) -> None:
    core = world.host()
    with pytest.raises(RemoteProtocolError):
        send(core, body)
    assert core.state is State.CLOSED
    assert core.data_to_send() == b""


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_confirmation_of_another_length_is_no_guess(size: int) -> None:
    core = core_in("host", State.PROOF)
    with pytest.raises(RemoteProtocolError):
        send(core, cbor.encode([8, {"ta": bytes(size)}]))


def test_unknown_odd_types_and_unknown_keys_are_ignored() -> None:
    core = world.host()
    assert send(core, cbor.encode([1, {"anything": [1, 2]}]), cbor.encode([4097, {}])) == []
    assert send(core, hello(zebra=1)) == [events.Greeted(world.UDF, "spake2-ed25519/1")]


@pytest.mark.parametrize("length", [messages.MAX_FRAME_UNPROVEN + 1, 2**32 - 1])
def test_a_frame_that_is_too_long_is_refused_before_it_is_kept(length: int) -> None:
    for core in (world.host(), core_in("joiner", State.OFFER)):
        core.receive_data(length.to_bytes(4, "big"))
        with pytest.raises(RemoteProtocolError, match="at most 65536"):
            drain(core)


def test_a_frame_may_be_longer_once_the_code_was_right() -> None:
    a, b, wire = world.proven_pair()
    big = b"{" + b" " * 100_000 + b"}"
    b.offer_profile(big)
    assert wire.carry(b, a, chunk=16384) == [events.ProfileOffered(big)]
    a.receive_data((messages.MAX_FRAME + 1).to_bytes(4, "big"))
    with pytest.raises(RemoteProtocolError):
        drain(a)


@pytest.mark.parametrize(
    "name", ["", "x" * 65, "two\nlines", "bell\x07", "\u202egnihsihp", " padded ", "\x1b[31mred", "zero\u200bwidth"]
)
def test_a_name_that_could_deceive_on_a_terminal_is_neither_sent_nor_taken(name: str) -> None:
    a = core_in("joiner", State.PROFILE)
    assert isinstance(a, machine.Joiner)
    with pytest.raises(FormatError):
        a.request(world.REQUEST, name)
    assert a.data_to_send() == b""
    b = core_in("host", State.PROFILE)
    with pytest.raises(RemoteProtocolError):
        send(b, cbor.encode([16, {"msg": b"{}", "name": name}]))


def test_names_in_any_script_are_welcome() -> None:
    b = core_in("host", State.PROFILE)
    [event] = send(b, cbor.encode([16, {"msg": b"{}", "name": "Büro ノート"}]))
    assert event == events.Requested(b"{}", "Büro ノート", "")


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(sorted(states.HOST_HEARS)))
def test_garbage_in_any_state_raises_only_our_errors(data: bytes, state: State) -> None:
    if state is State.CLOSED:
        return
    core = core_in("host", state)
    core.receive_data(data)
    try:
        drain(core)
    except MeshError:
        pass


# ---------------------------------------------------------------- broken wires


def test_a_wire_that_breaks_anywhere_closes_and_proves_nothing() -> None:
    reference = world.joiner()
    reference.begin()
    size = len(reference.data_to_send())
    for cut in range(0, size, 7):
        a, b = world.joiner(), world.host()
        a.begin()
        assert Pair(a, b).carry(a, b, cut=cut) == [events.Closed(finished=False)]
        assert drain(b) == []


def test_a_wire_that_breaks_after_the_decision_tells_the_joiner_what_it_knows() -> None:
    a, b, wire = world.proven_pair()
    b.offer_profile(world.PROFILE)
    wire.settle()
    a.request(world.REQUEST, "desktop")
    wire.settle()
    b.decide(world.ACCEPTED)
    b.welcome(world.PROFILE, world.ADDRESSES)
    got = wire.carry(b, a, cut=len(world.ACCEPTED) + 30)
    assert got == [events.Decided(world.ACCEPTED), events.Closed(finished=False)]


def test_no_secret_is_in_any_repr() -> None:
    a, b, _ = world.proven_pair()
    key = a._proof
    assert key is not None
    texts = [repr(a), repr(b), repr(key), repr(world.CODE), repr(world.SECRET), str(world.CODE)]
    for text in texts:
        assert "orbit" not in text
        assert "walnut" not in text
        assert repr(key.key)[2:-1] not in text
        assert repr(world.SECRET.password)[2:-1] not in text
