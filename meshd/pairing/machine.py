"""The two ends of a pairing as pure cores: bytes in, events out (formats.md F11, docs/specs/pairing.md).

What the peer may say is a table in `states`, and a missing key there is the error. What we may say are the verbs, each
with the states in which it is allowed. A core answers by itself up to the proof, because there is nothing to decide;
from there on the driver decides and the core carries. There are no clocks here: deadlines and the counting of
connections are the driver's, and so is the counting of guesses, for which a core emits TryReserved *before* the bytes
that make the guess can leave.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

from meshd.crypto import base64url, pake
from meshd.errors import (
    CodeError,
    Denied,
    FormatError,
    LocalProtocolError,
    MeshError,
    PossibleAttack,
    RemoteProtocolError,
    VersionMismatch,
)
from meshd.pairing import events, messages, proof
from meshd.pairing.code import PairingSecret
from meshd.pairing.events import Event
from meshd.pairing.states import HOST_HEARS, JOINER_HEARS, PROVEN_STATES, Hears, State

Rng = Callable[[int], bytes]

MAX_ENTRY_BYTES = 64 * 1024 * 1024  # of all versions that a host may send along


class _Core:
    """What both ends share: frames in and out, the table, the transcript and what follows from the key."""

    HEARS: ClassVar[Hears]

    def __init__(self, first: State) -> None:
        self.state = first
        self._reader = messages.FrameReader()
        self._outbox: list[bytes] = []  # frames
        self._ended = False  # the peer's end of file has arrived
        self._told_closed = False
        self._transcript: list[bytes] = []  # hello, offer, pa, pb
        self._exchange: pake.Exchange | None = None
        self._proof: proof.Proof | None = None
        self._joiner = ""  # UDF

    # ------------------------------------------------------------ bytes

    def receive_data(self, data: bytes) -> None:
        """Take what arrived; b"" is the peer's end of file. Only keeps it: `next_event` reads it."""
        if not data:
            self._ended = True
        elif self.state is not State.CLOSED:
            self._reader.feed(data)

    def data_to_send(self) -> bytes:
        """What is to be put on the wire now, once."""
        data = b"".join(self._outbox)
        self._outbox.clear()
        return data

    def next_event(self) -> Event | None:
        """The next thing that happened, None if more bytes are needed.

        Raises RemoteProtocolError where the peer broke the rules, VersionMismatch where it speaks another version,
        Denied and PossibleAttack as the roles say. Whatever is raised, the conversation is over: send what
        `data_to_send` still has, then close.
        """
        try:
            while self.state is not State.CLOSED:
                body = self._reader.next_body(self._limit)
                if body is None:
                    break
                message = messages.decode(body)
                if message is None:
                    continue
                event = self._hear(message, body)
                if event is not None:
                    return event
        except FormatError as exc:  # here the peer's bytes end
            self._close()
            raise RemoteProtocolError(str(exc)) from exc
        except MeshError:
            self._close()
            raise
        if self._ended and not self._told_closed:
            self._told_closed = True
            finished = self.state is State.DONE
            self._close()
            return events.Closed(finished)
        return None

    @property
    def proven(self) -> bool:
        """Whether the other side has shown that it knows the code."""
        return self.state in PROVEN_STATES

    @property
    def block_token(self) -> str:
        """The BlockToken that belongs in the joiner's request; LocalProtocolError before Proven."""
        return self._proven_proof().block_token(self._joiner)

    # ------------------------------------------------------------ inside

    @property
    def _limit(self) -> int:
        return messages.MAX_FRAME if self.proven else messages.MAX_FRAME_UNPROVEN

    def _hear(self, message: messages.Message, body: bytes) -> Event | None:
        following = self.HEARS[self.state].get(type(message))
        if following is None:
            raise RemoteProtocolError(f"{type(message).__name__} in the state '{self.state}'")
        self.state = following
        return self._react(message, body)

    def _react(self, message: messages.Message, body: bytes) -> Event | None:
        raise NotImplementedError

    def _say(self, message: messages.Message) -> bytes:
        """Put a message on its way and return its body. LocalProtocolError if it is too long for a frame."""
        body = messages.encode(message)
        if len(body) > self._limit:
            raise LocalProtocolError(f"{type(message).__name__} of {len(body)} bytes: at most {self._limit} fit")
        self._outbox.append(messages.frame(body))
        return body

    def _need(self, verb: str, *allowed: State) -> None:
        if self.state not in allowed:
            raise LocalProtocolError(f"{verb} in the state '{self.state}'")

    def _finish_exchange(self, peer_message: bytes) -> proof.Proof:
        assert self._exchange is not None
        key = self._exchange.finish(peer_message)
        self._exchange = None
        return proof.Proof(key, proof.transcript_hash(self._transcript))

    def _proven_proof(self) -> proof.Proof:
        if self._proof is None or not self.proven:
            raise LocalProtocolError(f"nothing is proven in the state '{self.state}'")
        return self._proof

    def _close(self) -> None:
        self.state = State.CLOSED
        self._reader.clear()
        self._exchange = None
        self._proof = None


class Joiner(_Core):
    """The new device. `begin`, then Offered · TryReserved · Proven · ProfileOffered · (`request` or `poll`) · Started
    · Decided · Entries… · Welcome · Closed; or CodeRefused, TurnedAway.

    `udf` is the fingerprint of the device's signature key, `certificate` the DER that the TLS server showed, `token`
    what discovery or the URI said (b"" for none). PossibleAttack is raised if the host accepts our proof and then can't
    give its own.
    """

    HEARS = JOINER_HEARS

    def __init__(self, code: PairingSecret, udf: str, certificate: bytes, rng: Rng, token: bytes = b"") -> None:
        super().__init__(State.START)
        self._joiner = udf
        self._secret = code
        self._certificate = certificate
        self._rng = rng
        self._token = token
        self._entry_bytes = 0

    def begin(self) -> None:
        """Greet. FormatError if the fingerprint or the token can't be sent."""
        self._need("begin", State.START)
        hello = messages.PairHello(
            v=messages.VERSION,
            at=base64url.encode(self._token),
            na=self._rng(messages.NONCE_BYTES),
            udf=self._joiner,
            alg=tuple(pake.SUITES),
            pw=self._secret.kind,
        )
        self._transcript.append(self._say(hello))
        self.state = State.OFFER

    def request(self, message: bytes, name: str, description: str = "") -> None:
        """Ask to be connected: ConnectStartRequest (JSON), and what the person calls this device (≤ 64 characters).

        FormatError if the name or the description can't be shown, LocalProtocolError out of turn.
        """
        self._need("request", State.PROFILE, State.POLLED)
        self._say(messages.Request(message, name, description or None))
        self.state = State.REQUESTED

    def poll(self) -> None:
        """Ask how the request stands, this one or one that an earlier connection made."""
        self._need("poll", State.PROFILE, State.POLLED, State.REQUESTED, State.STARTED)
        self._say(messages.Poll())
        if self.state is State.PROFILE:
            self.state = State.POLLED

    def abandon(self) -> None:
        """Stop; what has not left yet never does, a confirmation too."""
        self._outbox.clear()
        self._close()

    def _react(self, message: messages.Message, body: bytes) -> Event | None:
        match message:
            case messages.PairOffer():
                self._transcript.append(body)
                self._exchange = pake.SPAKE2_ED25519.start_joiner(
                    self._secret.password,
                    proof.joiner_identity(self._joiner),
                    proof.host_identity(self._certificate),
                    self._rng,
                )
                self._transcript.append(self._say(messages.JoinerShare(self._exchange.message)))
                return events.Offered(message.slot, message.left, message.ttl)
            case messages.HostShare():
                self._transcript.append(body)
                self._proof = self._finish_exchange(message.pb)
                self._say(messages.JoinerProof(self._proof.confirmation("joiner")))
                return events.TryReserved()
            case messages.HostProof():
                self._check_host(message.tb)
                return events.Proven(self._joiner)
            case messages.Refusal():
                self._close()
                if message.err == "code":
                    return events.CodeRefused(message.left)
                return events.TurnedAway(message.err, message.left)
            case messages.Profile():
                return events.ProfileOffered(message.profile)
            case messages.Started():
                return events.Started(message.msg)
            case messages.Decision():
                return events.Decided(message.msg)
            case messages.EntryBatch():
                self._entry_bytes += sum(len(entry) for entry in message.entries)
                if self._entry_bytes > MAX_ENTRY_BYTES:
                    raise RemoteProtocolError(f"more than {MAX_ENTRY_BYTES} bytes of entries")
                return events.Entries(message.entries)
            case messages.Welcomed():
                return events.Welcome(message.profile, message.addr)
            case _:
                raise AssertionError(f"no reaction to {type(message).__name__}")

    def _check_host(self, confirmation: bytes) -> None:
        assert self._proof is not None
        try:
            self._proof.check("admin", confirmation)
        except CodeError as exc:
            # An honest host that finds our proof wrong says so; it never answers with a wrong one.
            raise PossibleAttack("the other device claims to know the code and can't prove it") from exc


class Host(_Core):
    """The device that invites. Greeted · TryReserved · Proven · (`offer_profile`) · Requested or PollRequested ·
    (`started`, `decide`, `send_entries`, `welcome`) · Closed; or GuessFailed; `refuse` at any time before `decide`.

    `secret` is the password, or the code and the URI's secret together where both were shown; `certificate` the DER
    that our TLS server shows in this window; `left` the tries that the code has left, this one included (assign to it
    if another connection spends one meanwhile); `ttl` in seconds; `token_required` what discovery announced on this
    link, None for `invite --remote`. Denied is raised for a caller without the token or with a kind of password that
    is not open.
    """

    HEARS = HOST_HEARS

    def __init__(
        self,
        secret: PairingSecret | Iterable[PairingSecret],
        certificate: bytes,
        rng: Rng,
        slot: int,
        left: int,
        ttl: int,
        token_required: bytes | None,
    ) -> None:
        super().__init__(State.HELLO)
        secrets = (secret,) if isinstance(secret, PairingSecret) else tuple(secret)
        self._passwords: dict[str, bytes] = {one.kind: one.password for one in secrets}
        self._certificate = certificate
        self._rng = rng
        self._slot = slot
        self.left = left
        self._ttl = ttl
        self._token = token_required
        self._password = b""
        self._suite: pake.Suite = pake.SPAKE2_ED25519

    def offer_profile(self, profile: bytes) -> None:
        """Show the mesh: a SignedPersonalProfile in JSON."""
        self._need("offer_profile", State.PROVEN)
        self._say(messages.Profile(profile))
        self.state = State.PROFILE

    def started(self, message: bytes) -> None:
        """Say that the request is here (ConnectStartResponse). May be left out where the decision is known already."""
        self._need("started", State.POLLED, State.REQUESTED)
        self._say(messages.Started(message))
        self.state = State.STARTED

    def decide(self, message: bytes) -> None:
        """Say what was decided (ConnectStatusResponse); call it only when the decision is durable."""
        self._need("decide", State.POLLED, State.REQUESTED, State.STARTED)
        self._say(messages.Decision(message))
        self.state = State.DECIDED

    def send_entries(self, entries: Sequence[bytes]) -> None:
        """Send versions along, in as many frames as they need. LocalProtocolError for one that fits in no frame."""
        self._need("send_entries", State.DECIDED)
        batch: list[bytes] = []
        size = 0
        for entry in entries:
            cost = len(entry) + 9  # the longest head that CBOR has
            if batch and size + cost > messages.MAX_FRAME - 64:
                self._say(messages.EntryBatch(tuple(batch)))
                batch, size = [], 0
            batch.append(entry)
            size += cost
        if batch:
            self._say(messages.EntryBatch(tuple(batch)))

    def welcome(self, profile: bytes, addresses: Sequence[str]) -> None:
        """The last message: the profile that lists the joiner, and where this device can be reached (`host:port`)."""
        self._need("welcome", State.DECIDED)
        self._say(messages.Welcomed(profile, tuple(addresses)))
        self.state = State.DONE

    def refuse(self, reason: str, left: int | None = None) -> None:
        """Say no in a word of events.REASONS and end; a share that has not left yet never does."""
        if self.state in (State.DECIDED, State.DONE, State.CLOSED):
            raise LocalProtocolError(f"refuse in the state '{self.state}'")
        if self.state is State.PROOF:
            self._outbox.clear()
        if left is not None:
            self.left = left
        self._say(messages.Refusal(reason, max(0, self.left)))
        self._close()

    @property
    def joiner(self) -> str:
        """The fingerprint that the joiner gave in its greeting; bound to the code from Proven on."""
        return self._joiner

    def _react(self, message: messages.Message, body: bytes) -> Event | None:
        match message:
            case messages.PairHello():
                return self._greet(message, body)
            case messages.JoinerShare():
                self._answer(message.pa, body)
                return events.TryReserved()
            case messages.JoinerProof():
                return self._judge(message.ta)
            case messages.Request():
                return events.Requested(message.msg, message.name, message.desc or "")
            case messages.Poll():
                return None if self.state in (State.DECIDED, State.DONE) else events.PollRequested()
            case _:
                raise AssertionError(f"no reaction to {type(message).__name__}")

    def _greet(self, hello: messages.PairHello, body: bytes) -> Event:
        if self._token is not None and not hmac.compare_digest(base64url.encode(self._token), hello.at):
            self.refuse("token")
            raise Denied("a caller without the token of this link")
        if hello.pw not in self._passwords:
            self.refuse("pw")
            raise Denied(f"a caller with a password of the kind '{hello.pw}', which is not open")
        try:
            self._suite = pake.choose(hello.alg)
        except FormatError as exc:
            self.refuse("alg")
            raise VersionMismatch(str(exc)) from exc
        self._password = self._passwords[hello.pw]
        self._joiner = hello.udf
        self._transcript.append(body)
        offer = messages.PairOffer(
            v=messages.VERSION, nb=self._rng(messages.NONCE_BYTES), slot=self._slot, left=self.left, ttl=self._ttl
        )
        self._transcript.append(self._say(offer))
        return events.Greeted(hello.udf, self._suite.name)

    def _answer(self, share: bytes, body: bytes) -> None:
        self._exchange = self._suite.start_host(
            self._password,
            proof.joiner_identity(self._joiner),
            proof.host_identity(self._certificate),
            self._rng,
        )
        answer = messages.HostShare(self._exchange.message)
        self._transcript += (body, messages.encode(answer))
        # The joiner's share is judged before ours is on its way: a bad one costs no try.
        self._proof = self._finish_exchange(share)
        self._say(answer)

    def _judge(self, confirmation: bytes) -> Event:
        assert self._proof is not None
        try:
            self._proof.check("joiner", confirmation)
        except CodeError:
            self.left -= 1
            # Not `refuse`: our share is long gone, and this word is the peer's own doing.
            self._say(messages.Refusal("code", max(0, self.left)))
            self._close()
            return events.GuessFailed()
        self._say(messages.HostProof(self._proof.confirmation("admin")))
        return events.Proven(self._joiner)

    def next_event(self) -> Event | None:
        """As in every core; a greeting in another version is answered before VersionMismatch is raised."""
        try:
            return super().next_event()
        except VersionMismatch:
            if not self._outbox:
                self._say(messages.Refusal("version", max(0, self.left)))
            raise
