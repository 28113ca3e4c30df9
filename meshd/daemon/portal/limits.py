"""What strangers may ask of a portal, how often: token buckets by address (protocol D5.3).

A bucket is an IPv4 address or an IPv6 /56, for one sort of call. Whoever signs with the key of a device that the portal
knows is no stranger: quotas and turns bound those.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass

from meshd.daemon.portal.config import Limits

MOST = 100_000  # buckets kept; the one that was used longest ago is forgotten first, and is full again by then

GET, VALIDATE, CREATE, START, POLL, OTHER = "get", "validate", "create", "start", "poll", "other"
_SORTS = {
    "Get": GET,
    "GetRecords": GET,
    "ValidateAccount": VALIDATE,
    "CreateAccount": CREATE,
    "ConnectStart": START,
    "ConnectStatus": POLL,
    "Hello": POLL,
    "Status": POLL,
}


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float


class Buckets:
    """`take` says for how many seconds a call has to wait; 0 = it may go on."""

    def __init__(self, limits: Limits) -> None:
        self._rates = {
            GET: (limits.get_per_minute, 60.0),
            VALIDATE: (limits.validate_per_minute, 60.0),
            CREATE: (limits.create_per_hour, 3600.0),
            START: (limits.connect_per_quarter_hour, 900.0),
            POLL: (limits.poll_per_minute, 60.0),
            OTHER: (limits.other_per_minute, 60.0),
        }
        self._buckets: OrderedDict[tuple[str, str], _Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, transaction: str, address: str, now: float) -> float:
        """`now` in seconds of any clock that does not go back."""
        sort = _SORTS.get(transaction, OTHER)
        most, period = self._rates[sort]
        if not most:
            return 0.0
        key = (sort, prefix(address))
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(most, now)
            if len(self._buckets) > MOST:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(key)
        bucket.left = min(most, bucket.left + (now - bucket.at) * most / period)
        bucket.at = now
        if bucket.left >= 1:
            bucket.left -= 1
            return 0.0
        return (1 - bucket.left) * period / most


def prefix(address: str) -> str:
    """What counts as one caller."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 56), strict=False))
    return str(found)


def is_local(address: str) -> bool:
    """Is a caller on this machine?"""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return found.is_loopback
