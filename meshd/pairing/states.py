"""What the peer may say, and when: the whole protocol of pairing on one screen (docs/specs/pairing.md).

State → message → next state; a missing key is the error. The verbs of `machine` make the steps that are our own.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from meshd.pairing import messages


class State(enum.StrEnum):
    """Where a conversation stands; the names say what is awaited."""

    START = "start"
    HELLO = "hello"  # host: the joiner's greeting
    OFFER = "offer"  # joiner: the host's answer to it
    SHARE = "share"
    PROOF = "proof"
    PROVEN = "proven"  # joiner: the profile; host: its own driver's offer_profile
    PROFILE = "profile"  # joiner: its own driver's request; host: the request
    POLLED = "polled"  # asked how an earlier request stands
    REQUESTED = "requested"
    STARTED = "started"
    DECIDED = "decided"
    DONE = "done"
    CLOSED = "closed"


Hears = Mapping[State, Mapping[type[messages.Message], State]]

JOINER_HEARS: Final[Hears] = {
    State.START: {},
    State.OFFER: {messages.PairOffer: State.SHARE, messages.Refusal: State.CLOSED},
    State.SHARE: {messages.HostShare: State.PROOF, messages.Refusal: State.CLOSED},
    State.PROOF: {messages.HostProof: State.PROVEN, messages.Refusal: State.CLOSED},
    State.PROVEN: {messages.Profile: State.PROFILE, messages.Refusal: State.CLOSED},
    State.PROFILE: {messages.Refusal: State.CLOSED},
    State.POLLED: {
        messages.Started: State.STARTED,
        messages.Decision: State.DECIDED,
        messages.Refusal: State.CLOSED,
    },
    State.REQUESTED: {
        messages.Started: State.STARTED,
        messages.Decision: State.DECIDED,
        messages.Refusal: State.CLOSED,
    },
    State.STARTED: {messages.Decision: State.DECIDED, messages.Refusal: State.CLOSED},
    State.DECIDED: {messages.EntryBatch: State.DECIDED, messages.Welcomed: State.DONE},
    State.DONE: {},
    State.CLOSED: {},
}

HOST_HEARS: Final[Hears] = {
    State.HELLO: {messages.PairHello: State.SHARE},
    State.SHARE: {messages.JoinerShare: State.PROOF},
    State.PROOF: {messages.JoinerProof: State.PROVEN},
    State.PROVEN: {},
    State.PROFILE: {messages.Request: State.REQUESTED, messages.Poll: State.POLLED},
    State.POLLED: {messages.Request: State.REQUESTED, messages.Poll: State.POLLED},
    State.REQUESTED: {messages.Poll: State.REQUESTED},
    State.STARTED: {messages.Poll: State.STARTED},
    # A poll may cross the decision on the wire; the decision is its answer.
    State.DECIDED: {messages.Poll: State.DECIDED},
    State.DONE: {messages.Poll: State.DONE},
    State.CLOSED: {},
}

PROVEN_STATES = frozenset(
    {State.PROVEN, State.PROFILE, State.POLLED, State.REQUESTED, State.STARTED, State.DECIDED, State.DONE}
)
