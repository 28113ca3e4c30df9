"""Finding a portal and talking to it: SRV order, redirects within bounds, clocks that differ, portals of 2016."""

from __future__ import annotations

import dataclasses
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from harness.portal_http import HttpPortal, raw
from harness.portal_people import PaperDevice, Person, tagged
from meshd.daemon.portals.link import Link
from meshd.daemon.portals.roster import where_of
from meshd.errors import BadRequest, Denied, NetworkError, NotFound, RemoteProtocolError
from meshd.net.http import Response
from meshd.net.portal_client import HttpClient
from meshd.net.srv import Found, Record, Services
from meshd.portal import outcomes
from meshd.portal.codec import Dialect
from meshd.portal.messages import (
    CreateRequest,
    CreateResponse,
    GetRecordsResponse,
    GetRequest,
    GetResponse,
    HelloRequest,
    HelloResponse,
)
from meshd.portal.structures import KeyValue, Version

ACCOUNT = "alice@example.net"
HELLO = {"HelloResponse": {"Status": 201, "Version": {"Major": 0, "Minor": 7}}}


@asynccontextmanager
async def running(portal: HttpPortal) -> AsyncIterator[HttpPortal]:
    async with trio.open_nursery() as nursery:
        await nursery.start(portal.run)
        yield portal
        nursery.cancel_scope.cancel()


def link(
    portal: HttpPortal,
    *records: Record,
    address: str = "",
    plain: bool = True,
    by: PaperDevice | None = None,
    dial: Callable[[str], object] | None = None,
    now: Callable[[], int] | None = None,
) -> Link:
    async def dns(name: str) -> Found:
        return Found(tuple(records), 600.0)

    return Link(
        HttpClient(dial or portal.dial),  # type: ignore[arg-type]
        Services(dns),
        where_of(ACCOUNT, address, plain=plain),
        key=lambda: by.keys.dak if by is not None else None,
        now=now or (lambda: int(time.time())),
        rng=secrets.token_bytes,
    )


def honest() -> HttpPortal:
    return HttpPortal(now=lambda: int(time.time()))


async def test_targets_are_tried_in_their_order_and_the_one_that_answers_is_kept() -> None:
    async with running(honest()) as portal:
        dialled: list[str] = []

        async def dial(address: str) -> trio.abc.Stream:
            dialled.append(address)
            if address.startswith("one."):
                raise NetworkError(f"{address} can't be reached")
            return await portal.dial(address)

        found = link(portal, Record(2, 0, 8080, "two.example"), Record(1, 0, 8081, "one.example"), dial=dial)
        await found.ask("Hello", HelloRequest(), HelloResponse, signed=False)
        await found.ask("Hello", HelloRequest(), HelloResponse, signed=False)
        assert dialled == ["one.example:8081", "two.example:8080"]
        assert found.dialect is None  # only `hello` decides it
        await found.hello()
        assert found.dialect is Dialect.OURS


async def test_without_records_the_domain_itself_is_asked_and_an_address_by_hand_goes_before() -> None:
    async with running(honest()) as portal:
        await link(portal).hello()
        await link(portal, Record(1, 0, 8081, "one.example"), address="[::1]:7000").hello()
        assert portal.dialled == ["example.net:80", "[::1]:7000"]


async def test_when_nothing_answers_it_is_looked_up_again() -> None:
    portal = honest()
    portal.down = True
    asked: list[str] = []

    async def dns(name: str) -> Found:
        asked.append(name)
        return Found((Record(1, 0, 80, "one.example"),), 600.0)

    found = Link(
        portal.client(),
        Services(dns),
        where_of(ACCOUNT, plain=True),
        key=lambda: None,
        now=lambda: 0,
        rng=secrets.token_bytes,
    )
    for _ in range(2):
        with pytest.raises(NetworkError):
            await found.hello()
    assert len(asked) == 2


def saying(portal: HttpPortal, *uris: str) -> None:
    """It says in its Hello where it wants to be asked."""
    portal.memory.policy = dataclasses.replace(portal.memory.policy, uris=uris)


async def test_a_portal_is_asked_where_its_hello_says_from_then_on() -> None:
    async with running(honest()) as portal:
        saying(portal, "http://better.example:8080/.well-known/mmm/", "http://spare.example/")
        found = link(portal)
        for _ in range(2):
            await found.hello()
        assert portal.dialled == ["example.net:80", "better.example:8080"]
        assert not found.moved  # it is asked again after a restart
        saying(portal, "http://example.net/.well-known/mmm/")
        await found.hello()
        assert portal.dialled == ["example.net:80", "better.example:8080"]  # the connection was kept


async def test_what_a_hello_names_and_can_t_be_used_is_left_aside() -> None:
    for uri in (
        "http://dead.example/",
        "ftp://example.net/",
        "http://u@example.net/",
        "http://x.example/elsewhere",
        "::",
    ):
        async with running(honest()) as portal:
            saying(portal, uri)

            async def dial(address: str, portal: HttpPortal = portal) -> trio.abc.Stream:
                if address.startswith("dead."):
                    raise NetworkError(f"{address} can't be reached")
                return await portal.dial(address)

            found = link(portal, dial=dial)
            await found.hello()
            assert (found.dialect, portal.dialled) == (Dialect.OURS, ["example.net:80"])


async def test_hellos_that_name_ever_new_places_are_not_followed_for_ever() -> None:
    async with running(honest()) as portal:

        async def dial(address: str) -> trio.abc.Stream:
            saying(portal, f"http://x{len(portal.dialled)}.example/")
            return await portal.dial(address)

        found = link(portal, dial=dial)
        await found.hello()
        assert (found.dialect, len(portal.dialled)) == (Dialect.OURS, 4)


async def test_a_hello_never_leads_out_of_encryption() -> None:
    portal = honest()
    saying(portal, "http://plain.example/")
    hello = HelloResponse(version=Version(uri=["http://plain.example/", "https://safe.example/"]))
    assert [one.text for one in link(portal, plain=False)._named(hello)] == ["safe.example:443"]


def moved(status: int, uri: str, *, header: bool) -> Response:
    body = json.dumps({"HelloResponse": {"Status": status, "StatusDescription": uri}}).encode()
    return Response(status if header else 200, body, (("location", uri),) if header else ())


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize(("status", "kept"), [(303, True), (307, False)])
async def test_redirects_are_followed_and_the_permanent_ones_remembered(header: bool, status: int, kept: bool) -> None:
    async with running(honest()) as portal:
        answers = [moved(status, "http://new.example:8080/.well-known/mmm/", header=header)]
        portal.answers = lambda transaction: answers.pop() if answers else None
        found = link(portal)
        await found.hello()
        await found.hello()
        last = "new.example:8080" if kept else "example.net:80"
        assert portal.dialled[:2] == ["example.net:80", "new.example:8080"]
        assert bool(found.moved) is kept
        assert found._places[0].text == last


async def test_a_portal_that_sends_us_around_is_left_after_a_few() -> None:
    async with running(honest()) as portal:
        portal.answers = lambda transaction: moved(307, "http://again.example/.well-known/mmm/", header=True)
        with pytest.raises(RemoteProtocolError, match="without end"):
            await link(portal).hello()
        assert len(portal.said) == 4


@pytest.mark.parametrize(
    "uri", ["", "ftp://a.example/", "http://user@a.example/", "http://a.example/other", "http:///", "http://a:99999/"]
)
async def test_a_redirect_to_nowhere_is_refused(uri: str) -> None:
    async with running(honest()) as portal:
        portal.answers = lambda transaction: moved(307, uri, header=True)
        with pytest.raises(RemoteProtocolError):
            await link(portal).hello()


async def test_nobody_is_sent_from_tls_to_plain_http() -> None:
    found = link(honest(), plain=False)
    with pytest.raises(RemoteProtocolError, match="without encryption"):
        found._uri("http://example.net/.well-known/mmm/")
    assert found._uri("https://example.net/.well-known/mmm/") is not None


async def test_a_clock_that_is_wrong_is_corrected_once() -> None:
    alice = Person("alice")
    async with running(honest()) as portal:
        found = link(portal, by=alice.first, now=lambda: int(time.time()) - 86400)
        request = CreateRequest(account=ACCOUNT, profile=tagged(alice.root))
        await found.ask("CreateAccount", request, CreateResponse)
        assert portal.said.count("CreateAccount") == 2


async def test_what_a_portal_refuses_is_named_in_its_own_words_made_harmless() -> None:
    async with running(honest()) as portal:
        body = {"GetResponse": {"Status": 401, "StatusDescription": "no\x1b[31m red \u202e" + "x" * 500}}
        portal.answers = lambda transaction: raw(json.dumps(body).encode(), 401) if transaction == "Get" else None
        with pytest.raises(Denied) as caught:
            await link(portal).ask("Get", GetRequest(account=ACCOUNT), GetResponse, signed=False)
        assert "\x1b" not in str(caught.value)
        assert "\u202e" not in str(caught.value)
        assert len(str(caught.value)) < 250


async def test_strangers_are_told_nothing_of_a_feed() -> None:
    alice, mallory = Person("alice"), Person("mallory")
    async with running(honest()) as portal:
        request = CreateRequest(account=ACCOUNT, profile=tagged(alice.root))
        await link(portal, by=alice.first).ask("CreateAccount", request, CreateResponse)
        asked = GetRequest(key_values=[KeyValue(key="UserProfile", value=alice.mesh)])
        await link(portal, by=alice.first).ask("GetRecords", asked, GetRecordsResponse)
        with pytest.raises(NotFound):
            await link(portal, by=mallory.first).ask("GetRecords", asked, GetRecordsResponse)


async def test_a_portal_of_2016_is_recognised_and_sent_nothing_that_it_does_not_know() -> None:
    async with running(honest()) as portal:
        seen: list[dict[str, str]] = []
        portal.memory.policy = outcomes.Policy(portal.domain, compat="full")
        portal.answers = lambda transaction: raw(json.dumps(HELLO).encode()) if transaction == "Hello" else None
        handle = portal.handle

        async def watch(request):  # type: ignore[no-untyped-def]
            seen.append(dict(request.headers))
            return await handle(request)

        portal.handle = watch  # type: ignore[method-assign]
        found = link(portal, by=Person("alice").first)
        await found.ask("Get", GetRequest(account=ACCOUNT, multiple=True), GetResponse)
        assert found.dialect is Dialect.PLAIN
        assert "signature" not in seen[-1]
        assert not any(name.startswith("mesh-") for name in seen[-1])


@pytest.mark.parametrize("account", ["alice", "@example.net", "al ice@example.net", "alice@", "alice@-x.example"])
def test_what_is_no_account_is_said_to_be_none(account: str) -> None:
    with pytest.raises(BadRequest):
        where_of(account)
