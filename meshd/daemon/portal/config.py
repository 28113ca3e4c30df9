"""A portal's settings: one frozen value, read once from DIR/portal.toml, then overruled by the command line.

The types below are the whole truth: names, defaults and bounds are said there and nowhere else, and an unknown or wrong
setting is an error that names it.
"""

from __future__ import annotations

import ipaddress
import tomllib
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

from meshd.daemon.config import LOG_LEVELS, Address, address, read
from meshd.errors import BadRequest, FormatError
from meshd.portal import names, outcomes
from meshd.portal.statuses import Status

Count = Annotated[int, Meta(ge=0, le=2**52)]
Seconds = Annotated[int, Meta(ge=1, le=366 * 24 * 3600)]
Level = Literal["debug", "info", "warning", "error"]
assert set(get_args(Level)) == set(LOG_LEVELS)


class Quota(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[quota]`: what one account may keep."""

    bytes: Count = 2 * 1024**3
    entries: Count = 1_000_000
    quarantined_bytes: Count = 64 * 1024**2
    quarantined: Count = 10_000


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[limits]`: what strangers and connections may take. The calls are of one IPv4 address or IPv6 /56; 0: no bound.

    Calls from this machine itself are not counted, unless a proxy stands before the portal."""

    connections: Annotated[int, Meta(ge=4, le=1_000_000)] = 12_000
    connections_each: Annotated[int, Meta(ge=1, le=1_000_000)] = 512
    idle_seconds: Seconds = 75
    request_seconds: Seconds = 30
    get_per_minute: Count = 30
    validate_per_minute: Count = 10
    create_per_hour: Count = 3
    connect_per_quarter_hour: Count = 5
    poll_per_minute: Count = 60
    other_per_minute: Count = 120  # everything that 2016 clients do, who sign nothing
    unowned_escrow: Count = 10_000
    held_documents: Count = 1000


class Metrics(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[metrics]`: figures for Prometheus, at /metrics of an address of their own."""

    listen: str = ""


class Log(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[log]`: what is told on standard error."""

    level: Level = "info"


class Moved(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[moved]`: this portal has gone elsewhere."""

    uri: Annotated[str, Meta(min_length=1, max_length=512)]
    permanent: bool = False


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that can be set."""

    domain: str = ""
    listen: tuple[str, ...] = ()
    tls_cert: str = ""
    tls_key: str = ""
    behind_proxy: bool = False
    insecure_http: bool = False
    hosts: tuple[
        str, ...
    ] = ()  # further names that clients address this portal by, beside the domain and what is in it
    accounts: Literal["open", "invite", "closed"] = "open"
    compat: Literal["off", "read", "full"] = "off"
    uris: tuple[str, ...] = ()  # told by Hello: where else this portal can be reached
    quota: Quota = msgspec.field(default_factory=Quota)
    limits: Limits = msgspec.field(default_factory=Limits)
    metrics: Metrics = msgspec.field(default_factory=Metrics)
    log: Log = msgspec.field(default_factory=Log)
    moved: Moved | None = None

    def addresses(self) -> list[Address]:
        return [address(text) for text in self.listen]

    def policy(self) -> outcomes.Policy:
        """What decisions are made by."""
        moved = None
        if self.moved is not None:
            status = Status.REDIRECT_PERMANENT if self.moved.permanent else Status.REDIRECT_TEMPORARY
            moved = (status, self.moved.uri)
        return outcomes.Policy(
            domain=self.domain,
            compat=self.compat,
            accounts=self.accounts,
            quota_bytes=self.quota.bytes,
            quota_entries=self.quota.entries,
            quota_quarantined_bytes=self.quota.quarantined_bytes,
            quota_quarantined=self.quota.quarantined,
            unowned_escrow=self.limits.unowned_escrow,
            held_documents=self.limits.held_documents,
            uris=self.uris,
            moved=moved,
        )


def load(path: Path) -> Config:
    """The settings in `path`; the defaults where there is no such file. BadRequest says where it is wrong."""
    return read(path, parse) or Config()


def parse(text: str) -> Config:
    """The settings in the text of a portal.toml."""
    try:
        return msgspec.convert(tomllib.loads(text), Config)
    except tomllib.TOMLDecodeError as exc:
        raise BadRequest(f"not TOML: {exc}") from exc
    except msgspec.ValidationError as exc:
        raise BadRequest(str(exc).replace("`$.", "`").replace("Object", "the file")) from exc


def add_arguments(parser: ArgumentParser) -> None:
    """The options of `meshd portal` that overrule portal.toml."""
    add = parser.add_argument
    add("--domain", metavar="DOMAIN", help="the part of account names behind the @")
    add("--listen", action="append", metavar="HOST:PORT", help="answer there (repeatable); :PORT means every address")
    add("--tls-cert", metavar="FILE", help="the certificate and its chain, PEM; read again on SIGHUP")
    add("--tls-key", metavar="FILE", help="the certificate's key, PEM")
    add("--behind-proxy", action="store_true", help="speak HTTP to a proxy that speaks TLS, and believe its forwarding")
    add("--insecure-http", action="store_true", help="speak HTTP without TLS, on loopback only: for tests")
    add("--host", action="append", metavar="NAME", help="a further name that clients address this portal by")
    add("--accounts", choices=("open", "invite", "closed"), help="who may open an account")
    add("--compat", choices=("off", "read", "full"), help="what clients of 2016 may do")
    add("--metrics", metavar="HOST:PORT", help="figures for Prometheus, at /metrics there")
    add("--log-level", choices=LOG_LEVELS, help="how much to tell on standard error")


def overrule(config: Config, arguments: Namespace) -> Config:
    """`config` with what the command line says in its place."""
    given = vars(arguments)
    found: dict[str, Any] = {
        name: given[name]
        for name in ("domain", "tls_cert", "tls_key", "behind_proxy", "insecure_http", "accounts", "compat")
        if given.get(name)
    }
    if given.get("listen"):
        found["listen"] = tuple(given["listen"])
    if given.get("host"):
        found["hosts"] = (*config.hosts, *given["host"])
    if given.get("metrics"):
        found["metrics"] = Metrics(listen=given["metrics"])
    if given.get("log_level"):
        found["log"] = Log(level=given["log_level"])
    return msgspec.structs.replace(config, **found)


def check(config: Config) -> Config:
    """The settings in their one spelling, if a portal can run by them; BadRequest."""
    if not config.domain:
        raise BadRequest("a portal needs a domain", hint="add --domain example.net, or domain in portal.toml")
    try:
        config = msgspec.structs.replace(config, domain=names.normalise_portal(config.domain))
    except FormatError as exc:
        raise BadRequest(f"{config.domain!r} is no domain name") from exc
    if not config.listen:
        raise BadRequest("a portal needs an address to listen on", hint="add --listen 0.0.0.0:443")
    where = config.addresses()
    metrics = [address(config.metrics.listen)] if config.metrics.listen else []
    if not all(map(_loopback, metrics)):
        raise BadRequest("figures are for this machine: metrics.listen is a loopback address")
    if bool(config.tls_cert) is not bool(config.tls_key):
        raise BadRequest("a certificate needs its key, and a key its certificate")
    if config.tls_cert and (config.behind_proxy or config.insecure_http):
        raise BadRequest("TLS, or a proxy that speaks it, or neither: not two of them")
    if not config.tls_cert and not config.behind_proxy:
        if not config.insecure_http:
            raise BadRequest(
                "a portal speaks TLS", hint="add --tls-cert and --tls-key, or --behind-proxy where a proxy speaks it"
            )
        if not all(map(_loopback, where)):
            raise BadRequest("--insecure-http is for loopback addresses alone")
    return config


def _loopback(where: Address) -> bool:
    if where.host == "localhost":
        return True
    try:
        return ipaddress.ip_address(where.host).is_loopback
    except ValueError:
        return False
