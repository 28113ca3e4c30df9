"""Where a domain's portal is: DNS SRV `_mmm._tcp`, in the order of RFC 2782, or the domain itself.

    example.net   →   _mmm._tcp.example.net SRV 10 60 443 one.example.net.      priority, weight, port, target

Lower priorities first; among equal ones by lot, a weight's share of the sum each time. Without records the portal is
the domain itself (the well-known place), and so it is when DNS does not answer: TLS proves who is there, not DNS. What
was found is remembered for a while, and forgotten when it did not lead anywhere.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import trio

from meshd.errors import NetworkError

PREFIX = "_mmm._tcp."
LOOKUP_SECONDS = 6.0
KEPT_LEAST, KEPT_MOST = 60.0, 3600.0  # seconds that an answer is remembered, whatever its TTL says
KEPT_FAILURE = 30.0
MAX_RECORDS = 32
MAX_TARGETS = 8  # of them that are tried


@dataclass(frozen=True, slots=True)
class Record:
    """One SRV record; `target` without its last dot, empty for ".": there is no such service."""

    priority: int
    weight: int
    port: int
    target: str


@dataclass(frozen=True, slots=True)
class Found:
    """What DNS said. `ttl` is in seconds; no records: it knows of none."""

    records: tuple[Record, ...] = ()
    ttl: float = KEPT_FAILURE


Lookup = Callable[[str], Awaitable[Found]]
Below = Callable[[int], int]  # a random number from 0 up to, and without, this one


async def lookup(name: str) -> Found:
    """Ask DNS for SRV records. NetworkError when it does not answer; no such name, or none of these, is no error."""
    # 70 ms of imports, for the few devices that have a portal.
    import dns.asyncresolver
    import dns.exception
    import dns.resolver

    try:
        resolver = dns.asyncresolver.Resolver()
        answer = await resolver.resolve(name, "SRV", lifetime=LOOKUP_SECONDS)
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return Found(ttl=KEPT_LEAST)
    except (dns.exception.DNSException, OSError, ValueError) as exc:
        raise NetworkError(f"DNS does not answer: {type(exc).__name__}") from exc
    if answer.rrset is None:
        return Found(ttl=KEPT_LEAST)
    records = tuple(
        Record(one.priority, one.weight, one.port, one.target.to_text(omit_final_dot=True).removesuffix("."))
        for one in list(answer.rrset)[:MAX_RECORDS]
    )
    return Found(records, float(answer.rrset.ttl))


def ordered(records: Sequence[Record], below: Below = random.randrange) -> list[Record]:
    """The order in which to try them (RFC 2782, "Usage rules")."""
    found: list[Record] = []
    for priority in sorted({record.priority for record in records}):
        # Those of weight 0 first, so that they have a small chance of their own.
        group = sorted((one for one in records if one.priority == priority), key=lambda one: one.weight != 0)
        while group:
            lot = below(sum(one.weight for one in group) + 1)
            for place, one in enumerate(group):
                lot -= one.weight
                if lot <= 0:
                    found.append(group.pop(place))
                    break
    return found


class Services:
    """The portals of domains, remembered. `ask` and `below` are DNS and chance."""

    def __init__(self, ask: Lookup = lookup, below: Below = random.randrange) -> None:
        self._ask = ask
        self._below = below
        self._kept: dict[str, tuple[Found, float]] = {}

    async def targets(self, domain: str) -> tuple[tuple[str, int], ...]:
        """(host, port) to try in this order; empty: the domain itself. NetworkError where DNS says that there is no
        portal."""
        kept = self._kept.get(domain)
        if kept is None or kept[1] <= trio.current_time():
            try:
                found = await self._ask(f"{PREFIX}{domain}.")
            except NetworkError:
                found = Found()
            seconds = min(max(found.ttl, KEPT_LEAST), KEPT_MOST) if found.records else KEPT_FAILURE
            kept = self._kept[domain] = found, trio.current_time() + seconds
        records = kept[0].records
        usable = [one for one in records if one.target and 0 < one.port < 65536 and one.target.isascii()]
        if records and not usable:
            raise NetworkError(f"{domain} says that it has no portal")
        return tuple((one.target.lower(), one.port) for one in ordered(usable, self._below)[:MAX_TARGETS])

    def forget(self, domain: str) -> None:
        """It did not lead anywhere: ask again next time."""
        self._kept.pop(domain, None)
