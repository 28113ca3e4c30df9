"""SRV records: the order of RFC 2782, what is remembered, and a real resolver against a server on loopback."""

from __future__ import annotations

import collections
import random

import dns.asyncresolver
import dns.message
import dns.rrset
import pytest
import trio

from meshd.errors import NetworkError
from meshd.net.srv import Found, Record, Services, lookup, ordered

pytestmark = pytest.mark.draft("Service discovery")


def test_lower_priorities_come_first_and_weights_are_chances() -> None:
    records = [Record(20, 0, 443, "last"), Record(10, 90, 443, "often"), Record(10, 10, 443, "seldom")]
    below = random.Random(1).randrange
    firsts = collections.Counter(ordered(records, below)[0].target for _ in range(1000))
    assert 850 < firsts["often"] < 950
    assert firsts["often"] + firsts["seldom"] == 1000
    assert all(ordered(records, below)[-1].target == "last" for _ in range(20))


def test_a_weight_of_zero_is_a_small_chance_and_no_record_is_lost() -> None:
    records = [Record(1, 0, 1, "a"), Record(1, 0, 2, "b"), Record(1, 5, 3, "c")]
    below = random.Random(2).randrange
    for _ in range(50):
        assert sorted(one.target for one in ordered(records, below)) == ["a", "b", "c"]
    assert {ordered(records, below)[0].target for _ in range(300)} >= {"a", "c"}


async def test_what_dns_said_is_remembered_until_it_leads_nowhere(autojump_clock) -> None:
    asked: list[str] = []

    async def ask(name: str) -> Found:
        asked.append(name)
        return Found((Record(1, 1, 8443, "One.example."[:-1]),), 600.0)

    services = Services(ask)
    assert await services.targets("example.net") == (("one.example", 8443),)
    assert await services.targets("example.net") == (("one.example", 8443),)
    assert asked == ["_mmm._tcp.example.net."]
    services.forget("example.net")
    await services.targets("example.net")
    await trio.sleep(601)
    await services.targets("example.net")
    assert len(asked) == 3


async def test_a_domain_that_says_it_has_no_portal_is_believed_and_silence_is_not() -> None:
    async def none(name: str) -> Found:
        return Found((Record(0, 0, 0, ""),), 60.0)

    async def silent(name: str) -> Found:
        raise NetworkError("DNS does not answer")

    with pytest.raises(NetworkError, match="no portal"):
        await Services(none).targets("example.net")
    assert await Services(silent).targets("example.net") == ()


async def test_the_resolver_reads_records_from_a_name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    server = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
    await server.bind(("127.0.0.1", 0))

    async def serve() -> None:
        while True:
            data, sender = await server.recvfrom(4096)
            query = dns.message.from_wire(data)
            answer = dns.message.make_response(query)
            if "example.net" in query.question[0].name.to_text():
                texts = ["10 60 443 one.example.", "20 0 8443 two.example."]
                answer.answer.append(dns.rrset.from_text(query.question[0].name, 300, "IN", "SRV", *texts))
            await server.sendto(answer.to_wire(), sender)

    made = dns.asyncresolver.Resolver(configure=False)
    made.nameservers = ["127.0.0.1"]
    made.port = server.getsockname()[1]
    monkeypatch.setattr(dns.asyncresolver, "Resolver", lambda: made)  # where resolv.conf would be read
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        found = await lookup("_mmm._tcp.example.net.")
        assert ordered(found.records) == [Record(10, 60, 443, "one.example"), Record(20, 0, 8443, "two.example")]
        assert found.ttl == 300.0
        assert (await lookup("_mmm._tcp.nothing.example.")).records == ()
        nursery.cancel_scope.cancel()
    server.close()
