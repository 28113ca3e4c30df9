"""A joiner and a host with fixed randomness, and a driver's answers, for the tests of pairing."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from typing import Any

from harness.wire import Pair
from meshd.pairing import events, machine
from meshd.pairing.code import PairingSecret, parse_code

CODE = parse_code("7-orbit-walnut").secret
OTHER_CODE = parse_code("7-orbit-wealthy").secret
SECRET = PairingSecret("secret", bytes(range(16)))
CERTIFICATE = b"the certificate of this window, DER"
TWIN_CERTIFICATE = b"the certificate of an evil twin, DER"
UDF = "MABCD-EFGHI-JKLMN-OPQRS-TUVWX-YZ234-567AB-CDEFG"
OTHER_UDF = "MZZZZ-EFGHI-JKLMN-OPQRS-TUVWX-YZ234-567AB-CDEFG"
TOKEN = b"8 bytes!"

PROFILE = b'{"SignedPersonalProfile":{}}'
REQUEST = b'{"ConnectStartRequest":{}}'
STARTED = b'{"ConnectStartResponse":{}}'
ACCEPTED = b'{"ConnectStatusResponse":{"Result":{}}}'
ADDRESSES = ("192.0.2.7:4711", "[2001:db8::7]:4711")


def fixed(seed: str) -> Callable[[int], bytes]:
    """The same bytes in every run."""
    counter = itertools.count()
    return lambda size: hashlib.shake_256(f"{seed} {next(counter)}".encode()).digest(size)


def joiner(
    code: PairingSecret = CODE,
    udf: str = UDF,
    certificate: bytes = CERTIFICATE,
    token: bytes = TOKEN,
    seed: str = "joiner",
) -> machine.Joiner:
    return machine.Joiner(code, udf, certificate, fixed(seed), token)


def host(
    secret: PairingSecret | tuple[PairingSecret, ...] = CODE,
    certificate: bytes = CERTIFICATE,
    left: int = 3,
    token: bytes | None = TOKEN,
    seed: str = "host",
) -> machine.Host:
    return machine.Host(secret, certificate, fixed(seed), 7, left, 300, token)


def proven_pair(chunk: int | None = None) -> tuple[machine.Joiner, machine.Host, Pair]:
    """Both ends after the proof, their events read."""
    a, b = joiner(), host()
    wire = Pair(a, b)
    a.begin()
    wire.settle(chunk=chunk)
    assert a.proven
    assert b.proven
    return a, b, wire


def whole_run(a: machine.Joiner, b: machine.Host, chunk: int | None = None) -> tuple[list[Any], list[Any], Pair]:
    """Everything that two devices say when all goes well; the events at the joiner and at the host."""
    wire = Pair(a, b)
    at_joiner: list[Any] = []
    at_host: list[Any] = []

    def settle() -> None:
        left, right = wire.settle(chunk=chunk)
        at_joiner.extend(left)
        at_host.extend(right)

    a.begin()
    settle()
    b.offer_profile(PROFILE)
    settle()
    a.request(REQUEST, "desktop", "Linux, at 192.0.2.9")
    settle()
    b.started(STARTED)
    settle()
    a.poll()
    settle()
    b.decide(ACCEPTED)
    b.send_entries([b"version one", b"version two"])
    b.welcome(PROFILE, ADDRESSES)
    settle()
    at_joiner += wire.hang_up(a)
    at_host += wire.hang_up(b)
    return at_joiner, at_host, wire


HAPPY_JOINER = [
    events.Offered(7, 3, 300),
    events.TryReserved(),
    events.Proven(UDF),
    events.ProfileOffered(PROFILE),
    events.Started(STARTED),
    events.Decided(ACCEPTED),
    events.Entries((b"version one", b"version two")),
    events.Welcome(PROFILE, ADDRESSES),
    events.Closed(finished=True),
]
HAPPY_HOST = [
    events.Greeted(UDF, "spake2-ed25519/1"),
    events.TryReserved(),
    events.Proven(UDF),
    events.Requested(REQUEST, "desktop", "Linux, at 192.0.2.9"),
    events.PollRequested(),
    events.Closed(finished=True),
]
