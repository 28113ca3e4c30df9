"""One portal, as its clients talk to it: a transaction asked, signed by the device, answered in types or as an error.

Where the portal is comes from a person, from DNS, or from the portal itself when it has moved; which dialect it speaks
comes from its Hello. Nothing that it says is believed here beyond the form: what it holds is judged by signatures
elsewhere. Each try is signed anew, since a signature counts once.
"""

from __future__ import annotations

import email.utils
import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

from meshd.crypto.keys import Rng, SigningKey
from meshd.errors import (
    Denied,
    Exists,
    FormatError,
    MeshError,
    NetworkError,
    NotFound,
    Refused,
    RemoteProtocolError,
)
from meshd.net.lan import parse_address
from meshd.net.portal_client import ANSWER_SECONDS, ConnectionLost, HttpAnswer, HttpClient, Place
from meshd.net.srv import Services
from meshd.portal import codec, headers, httpsig
from meshd.portal.codec import MAX_ANSWER, Dialect
from meshd.portal.decide_read import PERSONAL
from meshd.portal.httpsig import Signable
from meshd.portal.messages import (
    GetRecordsResponse,
    GetRequest,
    HelloRequest,
    HelloResponse,
    MeshResponse,
    Request,
    Response,
)
from meshd.portal.names import AccountName
from meshd.portal.statuses import SUCCESSES, Status
from meshd.portal.structures import KeyValue, SearchConstraints

ResponseT = TypeVar("ResponseT", bound=Response)

MAX_REDIRECTS = 3
MAX_PAGES = 2000
MAX_BYTES = 256 * 1024 * 1024  # of profiles
MAX_TRIES = 4  # of one transaction, for whatever reasons
SKEW_SECONDS = 30  # clocks that differ by less need no correction
MAX_SKEW = 366 * 86400
_EXTENSIONS = ", ".join(sorted(headers.ALL))
_WITHOUT_RECEIPTS = ", ".join(sorted(headers.ALL - {headers.LOG}))
_UNSHOWN = re.compile(r"[^\x20-\x7e\xa1-\u024f]")


@dataclass(frozen=True, slots=True)
class Where:
    """How a portal is reached. `address` as a person gave it, `plain` without TLS, `moved` as the portal said. Another
    portal asks under an account without a name."""

    account: AccountName
    address: str = ""
    plain: bool = False
    moved: str = ""


class Overloaded(NetworkError):
    """The portal has too much to do, or was asked too often from here."""


class Link:
    """Transactions with one portal. `key` gives the authentication key of now; None: unsigned. `now` is UTC seconds."""

    def __init__(
        self,
        http: HttpClient,
        services: Services,
        where: Where,
        *,
        key: Callable[[], SigningKey | None],
        spare: Callable[[], SigningKey | None] = lambda: None,
        now: Callable[[], int],
        rng: Rng,
        tag: str = httpsig.TAG_REQUEST,
    ) -> None:
        self.where = where
        self._tag = tag
        self.dialect: Dialect | None = None  # until it was asked
        self.moved = ""  # said in this run; to be remembered
        self._http = http
        self._services = services
        self._key = key
        self._spare = spare
        self._use_spare = False
        self.accepted = ""  # the key by which the portal knew us last
        self._now = now
        self._rng = rng
        self._skew = 0
        self._places: list[Place] = []
        self._stated: list[Place] = []  # by its Hello
        self._detour: Place | None = None  # a 307: for one transaction

    async def ask(
        self,
        transaction: str,
        message: Request,
        expected: type[ResponseT],
        *,
        signed: bool = True,
        wait: int = 0,
        receipts: bool = True,
    ) -> ResponseT:
        """Ask, and give the response where the portal did it; a MeshError that says what it said where it did not.

        `wait`: seconds that it may hold its answer. `receipts`: with a proof for each record, which doubles the answer.
        NetworkError: not reached; RemoteProtocolError: no portal's answer.
        """
        response, status, _ = await self.attempt(
            transaction, message, expected, signed=signed, wait=wait, receipts=receipts
        )
        if status not in SUCCESSES:
            raise refusal(status, response)
        if not isinstance(response, expected):
            raise RemoteProtocolError("the portal answers with another message than was asked for")
        return response

    async def attempt(
        self,
        transaction: str,
        message: Request,
        expected: type[ResponseT],
        *,
        signed: bool = True,
        wait: int = 0,
        receipts: bool = True,
    ) -> tuple[Response, int, int]:
        """The response, the body's Status (HTTP's where it has none), and HTTP's, whatever they say."""
        if self.dialect is None and transaction != "Hello":
            await self.hello()
        self._detour = None
        redirects, tries, corrected = 0, 0, False
        while True:
            tries += 1
            answer = await self._send(transaction, message, signed, wait, receipts)
            response, status = self._read(transaction, answer)
            if status in (Status.REDIRECT_PERMANENT, Status.REDIRECT_TEMPORARY):
                redirects += 1
                if redirects > MAX_REDIRECTS:
                    raise RemoteProtocolError("the portal sends us from one place to the next without end")
                self._follow(status, answer, response)
                continue
            if status in (Status.UNAUTHORIZED, Status.NOT_FOUND) and signed and tries < MAX_TRIES:
                if not corrected and status == Status.UNAUTHORIZED and self._correct_clock(answer):
                    corrected = True
                    continue
                # While this device renews its keys the portal may know the other one.
                # Back again, too: it may come to know the new one by what is in this very request.
                if self._spare() is not None and tries < MAX_TRIES - 1:
                    self._use_spare = not self._use_spare
                    continue
            elif signed and (key := self._signer()) is not None:
                self.accepted = key.udf
            return response, status, answer.status

    @property
    def uses_spare(self) -> bool:
        """Does the portal know this device by the other one of its keys?"""
        return self._use_spare and self._spare() is not None

    def _signer(self) -> SigningKey | None:
        return (self._spare() if self._use_spare else None) or self._key()

    async def hello(self) -> HelloResponse:
        """Ask what it speaks, where it wants to be asked; that decides what is sent from then on, and where to.

        A place that it names is asked in its turn, at most three. One that can't be reached, or is no portal, is left
        aside: this one goes on."""
        found = await self.ask("Hello", HelloRequest(), HelloResponse, signed=False)
        for _ in range(MAX_REDIRECTS):
            at, named = self._places[0], self._named(found)
            if not named or any(one.text == at.text and one.secure == at.secure for one in named):
                break
            self._stated = named
            self._places = [*named, *(one for one in self._places if one not in named)]
            try:
                found = await self.ask("Hello", HelloRequest(), HelloResponse, signed=False)
            except MeshError:
                self._stated = []
                self._places = [at, *(one for one in self._places if one not in (at, *named))]
                break
            if self._places[0] == at:
                break
        self.dialect = codec.dialect_of(found)
        return found

    def _named(self, hello: HelloResponse) -> list[Place]:
        """The places of the URIs in its Hello, as far as they are any that we may go to."""
        found: list[Place] = []
        for uri in codec.uris_of(hello)[:MAX_REDIRECTS]:
            try:
                place = self._uri(uri)
            except RemoteProtocolError:  # without encryption
                continue
            if place is not None and place not in found:
                found.append(place)
        return found

    def forget_place(self) -> None:
        """Nothing came of it: look it up anew."""
        self._places = []
        if not self.where.address:
            self._services.forget(self.where.account.portal)

    # --- one exchange -------------------------------------------------------------------------------------------------

    async def _send(self, transaction: str, message: Request, signed: bool, wait: int, receipts: bool) -> HttpAnswer:
        ours = self.dialect is not Dialect.PLAIN
        body = codec.encode_request(transaction, message, self.dialect or Dialect.PLAIN)
        listed = {"Content-Type": "application/json;charset=UTF-8", "Cache-Control": "no-store"}
        if ours:
            listed["Mesh-Extensions"] = _EXTENSIONS if receipts else _WITHOUT_RECEIPTS
            if signed and self.where.account.name and transaction not in ("CreateAccount", "ConnectStart"):
                listed["Mesh-Account"] = str(self.where.account)
            if wait:
                listed["Prefer"] = f"wait={wait}"
        failure: MeshError | None = None
        for place in [self._detour] if self._detour is not None else await self._look_up():
            for fresh in (False, True):
                given = dict(listed)
                if signed and ours:
                    given |= self._sign(place, given, body)
                try:
                    answer = await self._http.post(
                        place, headers.PATH, given, body, most=MAX_ANSWER, within=ANSWER_SECONDS + wait
                    )
                except ConnectionLost as exc:
                    failure = exc
                    if not fresh:
                        continue
                except NetworkError as exc:
                    failure = exc
                else:
                    self._prefer(place)
                    return answer
                break
        self.forget_place()
        raise failure or NetworkError("the portal has no place")

    def _sign(self, place: Place, listed: Mapping[str, str], body: bytes) -> dict[str, str]:
        key = self._signer()
        if key is None:
            return {}
        covered = {name.lower(): value for name, value in listed.items()}
        message = Signable("POST", place.authority, headers.PATH, covered)
        nonce = self._rng(httpsig.NONCE_BYTES)
        return httpsig.sign(message, body, key, now=self._now() + self._skew, nonce=nonce, tag=self._tag)

    def _read(self, transaction: str, answer: HttpAnswer) -> tuple[Response, int]:
        """The response and its status; RemoteProtocolError for what no portal says."""
        if answer.status in (303, 307) and "location" in answer.headers:
            return MeshResponse(status=answer.status, status_description=answer.headers["location"]), answer.status
        try:
            response = codec.decode_response(answer.body, transaction, answer.headers.get("content-type"))
        except (FormatError, RemoteProtocolError) as exc:
            if answer.status == 429 or answer.status >= 500:  # a proxy speaks for it
                raise NetworkError(f"the portal can't answer now (HTTP {answer.status})") from exc
            if answer.status == 404:
                raise RemoteProtocolError("there is no portal at that address") from exc
            raise RemoteProtocolError(f"the portal answers what can't be understood: {exc}") from exc
        stated = response.status if isinstance(response, MeshResponse) else None
        if stated is None:
            stated = int(Status.SUCCESS) if 200 <= answer.status < 300 else answer.status
        return response, stated

    # --- places -------------------------------------------------------------------------------------------------------

    async def _look_up(self) -> list[Place]:
        if self._places:
            return list(self._places)
        where = self.where
        domain, secure = where.account.portal, not where.plain
        moved = self._uri(where.moved) if where.moved else None
        if where.address:
            host, port = parse_address(where.address)
            found = [Place(host, port, secure, domain)]
        else:
            targets = await self._services.targets(domain)
            found = [Place(host, port, secure, domain) for host, port in targets]
            found = found or [Place(domain, 443 if secure else 80, secure, domain)]
        self._places = list(dict.fromkeys([*([moved] if moved is not None else []), *self._stated, *found]))
        return list(self._places)

    def _prefer(self, place: Place) -> None:
        """It answered: try it first from now on."""
        if place in self._places and self._places[0] != place:
            self._places.remove(place)
            self._places.insert(0, place)

    def _follow(self, status: int, answer: HttpAnswer, response: Response) -> None:
        said = response.status_description if isinstance(response, MeshResponse) else None
        uri = answer.headers.get("location") or said or ""
        place = self._uri(uri)
        if place is None:
            raise RemoteProtocolError("the portal has moved, and does not say to where")
        self._detour = place
        if status == Status.REDIRECT_PERMANENT:
            self.moved = uri
            self._places = [place, *(one for one in self._places if one != place)]

    def _uri(self, uri: str) -> Place | None:
        """The place of a URI that the portal gave; None for what is none. Never from TLS to none: NetworkError."""
        try:
            parts = urlsplit(uri)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            return None
        if parts.scheme not in ("http", "https") or not host or len(uri) > 1024 or parts.username is not None:
            return None
        if parts.path not in (headers.PATH, "", "/") or parts.query:
            return None
        secure = parts.scheme == "https"
        if not secure and not self.where.plain:
            raise RemoteProtocolError("the portal wants to be reached without encryption, which was not agreed to")
        usual = 443 if secure else 80
        authority = host if port in (None, usual) else f"{host}:{port}"
        return Place(host, port or usual, secure, f"[{host}]" if ":" in host else authority)

    def _correct_clock(self, answer: HttpAnswer) -> bool:
        """Our clock may be wrong: take the portal's, for signatures alone. False where it is not that."""
        try:
            told = email.utils.parsedate_to_datetime(answer.headers.get("date", ""))
            skew = int(told.timestamp()) - self._now()
        except (ValueError, TypeError, OverflowError):
            return False
        if abs(skew - self._skew) < SKEW_SECONDS or abs(skew) > MAX_SKEW:
            return False
        self._skew = skew
        return True


async def personal_profiles(link: Link, mesh: str) -> list[bytes]:
    """All personal profiles that the portal holds of a mesh, in the order of its log: the history by which they judge
    themselves. RemoteProtocolError for one without an end."""
    return [raw for raw, _ in await personal_records(link, mesh)]


async def personal_records(link: Link, mesh: str, *, signed: bool = True) -> list[tuple[bytes, str]]:
    """The same, each with the receipt that came with it; empty where none did."""
    found: list[tuple[bytes, str]] = []
    size, page_key = 0, ""
    for _ in range(MAX_PAGES):
        asked = GetRequest(
            key_values=[KeyValue(key="UserProfile", value=mesh), KeyValue(key="Type", value=PERSONAL)],
            search_constraints=SearchConstraints(page_key=page_key or None),
        )
        answer = await link.ask("GetRecords", asked, GetRecordsResponse, signed=signed)
        page = records(answer)
        found += page
        size += sum(len(raw) + len(receipt) for raw, receipt in page)
        if size > MAX_BYTES:
            break
        if not answer.page_key or answer.page_key == page_key:
            return found
        page_key = answer.page_key
    raise RemoteProtocolError("the portal's feed does not end")


def records(answer: GetRecordsResponse) -> list[tuple[bytes, str]]:
    """What a portal gave, and the receipt of each; empty where none came."""
    pairs = itertools.zip_longest(answer.data_items or (), answer.receipts or (), fillvalue=None)
    return [(bytes(item.data), receipt or "") for item, receipt in pairs if item is not None and item.data]


def shown_words(said: str | None) -> str:
    """A portal's own words, bounded and without anything that can't be shown."""
    return _UNSHOWN.sub("?", (said or "").strip())[:200].rstrip(".")


def refusal(status: int, response: Response) -> MeshError:
    """What a portal's no is called here. Its own words are shown, bounded and without anything that can't be shown."""
    said = response.status_description if isinstance(response, MeshResponse) else None
    words = shown_words(said)
    sentence = f"the portal says: {words}" if words else f"the portal refuses (status {status})"
    match status:
        case Status.NOT_FOUND:
            return NotFound(sentence)
        case Status.EXISTS:
            return Exists(sentence)
        case Status.UNAUTHORIZED:
            return Denied(sentence)
        case Status.SUSPENDED:
            return Denied("The account is suspended: the portal takes nothing new.", hint="ask who runs the portal")
        case Status.OVERLOAD | 429:
            return Overloaded(sentence)
        case Status.INTERNAL:
            return NetworkError(sentence)
    if status in (502, 504):
        return NetworkError(f"the portal can't answer now (HTTP {status})")
    return Refused(sentence)
