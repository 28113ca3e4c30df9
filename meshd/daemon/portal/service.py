"""A portal's requests, from HTTP to decision and back: decode, find out who asks, check, decide, answer in kind.

    decode ── who signed? ── is he let in? ── verify ── decide (in the sequencer where it writes) ── encode

What a stranger asks is answered alike, and after the same time, whether or not there is what he asks for. A feed that
has come to its end may wait for more. Nothing of a request's content goes to the log.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import trio

from meshd.crypto import base64url, jws
from meshd.crypto.keys import RsaVerifyKey, VerifyKey
from meshd.daemon.logging import told
from meshd.daemon.portal import metrics, witness
from meshd.daemon.portal.http import Request, Response
from meshd.daemon.portal.limits import Buckets, is_local
from meshd.daemon.portal.log import LogBehind
from meshd.daemon.portal.metrics import Metrics
from meshd.daemon.portal.mirror import Mirror
from meshd.daemon.portal.sequencer import Sequencer
from meshd.errors import MeshError, SignatureError, StoreBusy
from meshd.portal import codec, decide, decide_log, headers, httpsig, reasons, rights, verify
from meshd.portal.checked import Checked, Close, ConnectComplete, ConnectStart, Create, Hello, Publish, Validate
from meshd.portal.codec import Asked
from meshd.portal.names import normalise_portal
from meshd.portal.outcomes import Accept, Anonymous, Caller, Context, Decision, PeerPortal, Policy, Refuse, SignedBy
from meshd.portal.reasons import Reason
from meshd.portal.statuses import Status

HEALTH = ("/.well-known/mmm/health", "/healthz")
LARGE = 32 * 1024  # bytes of a body from which reading it is worth a thread
PAD_SECONDS = 0.06  # strangers' look-ups are answered after multiples of this
RETRY_SECONDS = 5
BEHIND_SECONDS = 600
_WRITES = (Create, Publish, Close, ConnectStart, ConnectComplete)
_UNIFORM = frozenset({"Get", "GetRecords", "ValidateAccount", "CreateAccount", "ConnectStart", "ConnectStatus"})
_FAULTY = "faulty"  # requests that can't be read or verified, counted among those of strangers
_log = logging.getLogger(__name__)


class _NotVerified(MeshError):
    """The request's signature does not count."""

    code = "signature"


class _Elsewhere(MeshError):
    """The request was signed for another portal, which could pass it on to this one."""


@dataclass(frozen=True, slots=True)
class _Wait:
    """For how long a client is to stay away: because he asks too often, or because the portal can't keep up."""

    seconds: float = 0.0
    throttled: bool = False


class Service:
    """Answers requests. `wall` is UTC seconds."""

    def __init__(
        self,
        sequencer: Sequencer,
        policy: Policy,
        *,
        buckets: Buckets,
        metrics: Metrics,
        hosts: tuple[str, ...] = (),
        behind_proxy: bool = False,
        mirror: Mirror | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.mirror = mirror
        self.sequencer = sequencer
        self.policy = policy
        self.metrics = metrics
        self.stopping = False
        self._buckets = buckets
        self._behind_proxy = behind_proxy
        self._hosts = frozenset(normalise_portal(host) for host in hosts)
        self._wall = wall
        self._nonces = httpsig.NonceCache(int(wall()))
        self._threads = trio.CapacityLimiter(2)

    async def handle(self, request: Request) -> Response:
        path, _, query = request.target.partition("?")
        if path in HEALTH:
            return self._health()
        if path.startswith(witness.PREFIX):
            return await self._witness(request)
        if path not in (headers.PATH, headers.PATH.rstrip("/")):
            return Response(404, b"nothing is here: the portal answers at /.well-known/mmm/\n")
        if request.method != "POST":
            return Response(405, b"a portal is asked by POST\n", headers=(("Allow", "POST"),))
        began = trio.current_time()
        now = int(self._wall())
        try:
            asked = await self._decode(request)
        except codec.Undecodable as error:
            return self._undecodable(request, error)
        context = self._context(request, asked, now)
        decision, wait = await self._decided(request, asked, context, query)
        status = int(decision.status)
        self.metrics.answered(asked.transaction, status, trio.current_time() - began)
        if status == Status.INTERNAL:
            self.metrics.failures += 1
        return self._answer(asked, decision, wait)

    def _health(self) -> Response:
        log = self.sequencer.log
        ahead = log.ahead if log is not None else None
        shown: dict[str, object] = {"status": "stopping" if self.stopping else "behind" if ahead is not None else "ok"}
        if ahead is not None:
            shown["reason"] = ahead
        if log is not None:
            shown["log"] = {"origin": log.origin, "size": log.signed.size, "time": log.signed.time}
        mirror = self.mirror
        if mirror is not None:
            shown["mirror"] = {"of": mirror.name, "size": mirror.size, "of_entries": mirror.target, "why": mirror.why}
            if mirror.evidence is not None or log is None:
                shown["status"] = "contradicted" if mirror.evidence is not None else "filling"
                return Response(503, json.dumps(shown).encode() + b"\n", codec.JSON)
        return Response(503 if ahead is not None else 200, json.dumps(shown).encode() + b"\n", codec.JSON)

    async def _witness(self, request: Request) -> Response:
        wait = self._too_often(request, "add-checkpoint")
        if wait:
            return Response(429, b"too many checkpoints\n", headers=_retry(wait))
        try:
            if self.mirror is not None:
                return await self.mirror.witness(request)
            return await witness.answer(self.sequencer, request)
        except MeshError as exc:
            _log.error("a checkpoint was not cosigned: %s", told(exc))
            return Response(503, b"not now\n")

    async def _decode(self, request: Request) -> Asked:
        extensions = headers.read_extensions(request.headers.get(headers.EXTENSIONS))
        content_type = request.headers.get("content-type")
        if len(request.body) <= LARGE:
            return codec.decode_request(request.body, content_type, extensions)
        return await trio.to_thread.run_sync(
            codec.decode_request, request.body, content_type, extensions, limiter=self._threads
        )

    def _undecodable(self, request: Request, error: codec.Undecodable) -> Response:
        reason = Reason.MALFORMED
        wait = self._too_often(request, _FAULTY)
        if wait:
            error.status, reason = Status.OVERLOAD, Reason.BUSY
        languages = headers.read_languages(request.headers.get("accept-language"))
        answer = codec.encode_undecodable(error, reasons.text(reason, languages))
        self.metrics.answered(error.transaction or "unknown", int(error.status), 0.0)
        return Response(answer.http_status, answer.body, answer.content_type, _retry(wait) if wait else ())

    def _context(self, request: Request, asked: Asked, now: int) -> Context:
        languages = getattr(asked.message, "language", None) or headers.read_languages(
            request.headers.get("accept-language")
        )
        return Context(
            Anonymous(),
            now,
            self.policy,
            None if asked.plain else asked.extensions,
            tuple(languages)[: verify.MAX_LANGUAGES],
        )

    async def _decided(self, request: Request, asked: Asked, context: Context, query: str) -> tuple[Decision, _Wait]:
        """The decision, and for how many seconds the client is to stay away."""
        began = trio.current_time()
        uniform = asked.transaction in _UNIFORM
        try:
            if not asked.plain:
                account = headers.read_account(request.headers.get(headers.ACCOUNT))
                context = replace(
                    context,
                    account=account if self.mirror is None else None,  # in a log there are no accounts
                    if_head=headers.read_if_head(request.headers.get(headers.IF_HEAD)),
                )
            presented = None if asked.plain else httpsig.read(request.headers)
            try:
                caller = self._known_caller(request, presented, context, query)
            except MeshError:  # to name a key is not to have it
                wait = self._too_often(request, _FAULTY)
                if wait:
                    return self._busy(asked, context), _Wait(wait, throttled=True)
                raise
            stranger = caller is None or (
                isinstance(caller, SignedBy) and not self.sequencer.view.is_device_key(caller.keyid)
            )
            uniform = uniform and stranger
            if stranger:
                wait = self._too_often(request, asked.transaction)
                if wait:
                    return self._busy(asked, context), _Wait(wait, throttled=True)
            checked = await self._verify(request, asked)
            if caller is None:
                caller = self._introduced(request, presented, context, checked, query)
            context = replace(context, caller=caller)
            if isinstance(checked, Validate) and checked.reserve:
                context = replace(context, fresh=secrets.token_urlsafe(16))
            decision = await self._ask(request, checked, context)
        except _NotVerified:
            return decide.refusal(asked.transaction, context, SignatureError()), _Wait()
        except _Elsewhere:
            return rights.refuse(asked.transaction, context, Status.UNAUTHORIZED, Reason.OTHER_PORTAL), _Wait()
        except LogBehind as exc:
            _log.warning("nothing is written: %s", exc)
            return rights.refuse(asked.transaction, context, Status.OVERLOAD, Reason.BEHIND), _Wait(BEHIND_SECONDS)
        except StoreBusy as exc:
            _log.warning("told to come again: %s", told(exc))
            return self._busy(asked, context), _Wait(RETRY_SECONDS)
        except MeshError as exc:
            decision = decide.refusal(asked.transaction, context, exc)
            if decision.status in (Status.INTERNAL, Status.OVERLOAD):
                _log.error("a %s failed: %s", asked.transaction, told(exc))
        except Exception:
            _log.exception("a %s failed", asked.transaction)
            decision = decide.refusal(asked.transaction, context, MeshError())
        if uniform:
            await _pad(began)
        return decision, _Wait(RETRY_SECONDS if decision.status == Status.OVERLOAD else 0.0)

    def _too_often(self, request: Request, transaction: str) -> float:
        """For how many seconds a stranger has to stay away; a caller on this machine never has to."""
        address = self._address(request)
        if not self._behind_proxy and is_local(address):
            return 0.0
        wait = self._buckets.take(transaction, address, trio.current_time())
        self.metrics.throttled += wait > 0
        return wait

    def _busy(self, asked: Asked, context: Context) -> Refuse:
        text = reasons.text(Reason.BUSY, context.languages)
        return Refuse(Status.OVERLOAD, codec.failure(asked.transaction, Status.OVERLOAD, text))

    # --- who asks -----------------------------------------------------------------------------------------------------

    def _known_caller(
        self, request: Request, presented: httpsig.Presented | None, context: Context, query: str
    ) -> Caller | None:
        """Who signed, if the portal knows his key. None: nobody, or somebody who may yet introduce himself."""
        if presented is None:
            return None
        key = self.sequencer.view.authentication_key(presented.keyid)
        if key is None:
            return None
        peer = presented.tag == httpsig.TAG_PEER
        self._check(request, presented, key, context.now, query, httpsig.TAG_PEER if peer else httpsig.TAG_REQUEST)
        return PeerPortal(presented.keyid) if peer else SignedBy(presented.keyid)

    def _introduced(
        self, request: Request, presented: httpsig.Presented | None, context: Context, checked: Checked, query: str
    ) -> Caller:
        """Who signed with a key that the request itself brings; a key that nobody knows is as good as none."""
        key = None if presented is None else verify.introduced(checked).get(presented.keyid)
        if presented is None or key is None:
            return Anonymous()
        self._check(request, presented, key, context.now, query, httpsig.TAG_REQUEST)
        return SignedBy(presented.keyid)

    def _check(
        self,
        request: Request,
        presented: httpsig.Presented,
        key: VerifyKey | RsaVerifyKey,
        now: int,
        query: str,
        tag: str,
    ) -> None:
        authority = request.headers.get("host", "")
        if not self._is_here(authority, request.local):
            raise _Elsewhere
        path = request.target.partition("?")[0]
        message = httpsig.Signable(request.method, authority, path, request.headers, query)
        httpsig.check(presented, message, request.body, key, now=now, tag=tag)
        if self._nonces.full(now):  # what is not remembered could be used again
            raise StoreBusy("the signatures of the last minutes are more than can be remembered")
        if not self._nonces.use(presented, now):
            raise _NotVerified

    def _is_here(self, authority: str, local: str) -> bool:
        """Is this one of the names that the portal goes by: its domain, what is in it, those set, its own address?"""
        host = authority.lower()
        host = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        domain = self.policy.domain
        if host in (domain, local) or host.endswith(f".{domain}") or host in self._hosts:
            return True
        return host == "localhost" and is_local(local)

    def _address(self, request: Request) -> str:
        """Whose request it is: behind a proxy, what that one added last."""
        if self._behind_proxy:
            forwarded = request.headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
            if forwarded:
                return forwarded
        return request.address

    # --- what is done -------------------------------------------------------------------------------------------------

    async def _verify(self, request: Request, asked: Asked) -> Checked:
        if len(request.body) <= LARGE:
            return verify.verify(asked, self.sequencer.view, self.policy.domain)
        # A batch: its keys are looked up here, for the connection that reads belongs to this thread.
        keys = _Ahead(self.sequencer, asked)
        return await trio.to_thread.run_sync(verify.verify, asked, keys, self.policy.domain, limiter=self._threads)

    async def _ask(self, request: Request, checked: Checked, context: Context) -> Decision:
        who = self._who(request, context)
        if self.mirror is not None:
            transaction = decide.transaction_of(checked)
            refused = decide_log.elsewhere(transaction, checked, self.mirror.uri)
            if refused is not None:
                return refused
            if self.sequencer.log is None and not isinstance(checked, Hello):
                return rights.refuse(transaction, context, Status.OVERLOAD, Reason.FILLING)
        if isinstance(checked, _WRITES):
            return await self.sequencer.decide(checked, context, who)
        decision = self.sequencer.read(checked, context)
        if isinstance(decision, Accept) and decision.writes:
            return await self.sequencer.decide(checked, context, who)
        wait = headers.read_wait(request.headers.get("prefer"))
        if isinstance(decision, Accept) and decision.feed and wait and not self.stopping:
            return await self._wait(request, checked, context, decision.feed, wait)
        return decision

    def _who(self, request: Request, context: Context) -> str:
        """Whose turn a request takes: its account's; looked up only where there are turns to take."""
        if not self.sequencer.turns.busy:
            return ""
        if not isinstance(context.caller, SignedBy):
            return self._address(request)
        devices = self.sequencer.view.devices_of(context.caller.keyid)
        return devices[0].mesh if devices else context.caller.keyid

    async def _wait(self, request: Request, checked: Checked, context: Context, mesh: str, seconds: int) -> Decision:
        """The feed again as soon as something was added; what it says then, or that nothing came."""
        event = self.sequencer.feeds.event(mesh)
        try:
            # What was added between the first look and this one has set no event that we hold.
            decision = self.sequencer.read(checked, context)
            if not isinstance(decision, Accept) or not decision.feed:
                return decision
            with trio.move_on_after(seconds):
                async with trio.open_nursery() as nursery:

                    async def ends(when: Callable[[], object]) -> None:
                        await when()  # type: ignore[misc]
                        nursery.cancel_scope.cancel()

                    nursery.start_soon(ends, event.wait)
                    nursery.start_soon(ends, request.gone)
        finally:
            self.sequencer.feeds.leave(mesh, event)
        return self.sequencer.read(checked, replace(context, now=int(self._wall())))

    def _answer(self, asked: Asked, decision: Decision, wait: _Wait) -> Response:
        answer = codec.encode_response(asked, decision.reply, status=int(decision.status), throttled=wait.throttled)
        more = _retry(wait.seconds) if wait.seconds else ()
        location = decision.location if isinstance(decision, Refuse) else None
        if location is not None and not asked.plain:
            more = (*more, ("Location", location))
        return Response(answer.http_status, answer.body, answer.content_type, more)

    # --- figures ------------------------------------------------------------------------------------------------------

    async def figures(self, request: Request) -> Response:
        """/metrics, on an address of its own."""
        if request.target == "/metrics" and request.method in ("GET", "HEAD"):
            return Response(200, self.metrics.text(), metrics.CONTENT_TYPE)
        return await self.handle(request) if request.target in HEALTH else Response(404, b"/metrics is here\n")


class _Ahead:
    """The keys that a large request will ask for, found before it is verified in a thread."""

    def __init__(self, sequencer: Sequencer, asked: Asked) -> None:
        self._keys = {
            signer: key for signer in signers(asked) if (key := sequencer.view.signing_key(signer)) is not None
        }

    def signing_key(self, signer: str) -> VerifyKey | None:
        return self._keys.get(signer)


def signers(asked: Asked) -> set[str]:
    """Who says to have signed the entries of a request; nothing is checked."""
    message = asked.message
    entries = [*(getattr(message, "entries", None) or ()), getattr(message, "entry", None) or {}]
    found = set()
    for entry in entries:
        for body in entry.values() if isinstance(entry, dict) else ():
            signed = body.get("SignedData") if isinstance(body, dict) else None
            protected = signed.get("protected") if isinstance(signed, dict) else None
            try:
                if isinstance(protected, str):
                    found.add(jws.signer(base64url.decode(protected)))
            except MeshError:
                continue  # verify will say what is wrong with it
    return found


def _retry(seconds: float) -> tuple[tuple[str, str], ...]:
    return (("Retry-After", str(max(1, round(seconds)))),)


async def _pad(began: float) -> None:
    """Wait for the next multiple of PAD_SECONDS after the beginning."""
    spent = trio.current_time() - began
    await trio.sleep(PAD_SECONDS - spent % PAD_SECONDS)
