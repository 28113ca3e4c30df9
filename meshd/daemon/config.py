"""The daemon's settings: one frozen value, read once from meshd.toml, then overruled by the command line.

One idea: the dataclasses below are the whole truth. Names, types, defaults and bounds are said there and nowhere else;
reading, error messages and the test that docs/ops/config.md is complete all walk over them.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
import typing
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from meshd.errors import BadRequest, FormatError
from meshd.portal.names import normalise_portal
from meshd.tlog import policy
from meshd.tlog.policy import Policy

T = TypeVar("T")

MAX_FILE = 1024 * 1024
LOG_LEVELS = ("debug", "info", "warning", "error")
_NAME = re.compile(r"[^\s/\x00-\x1f\x7f]{1,15}\Z")  # IFNAMSIZ is 16, with the zero
_HOST = re.compile(r"[^\s/@\[\]\x00-\x1f\x7f]{1,253}\Z")


def _bounded(default: int, least: int, most: int) -> int:
    """A field holding an integer in least..most."""
    return field(default=default, metadata={"least": least, "most": most})


@dataclass(frozen=True, slots=True)
class Lan:
    """`[lan]`: being found by, and talking to, the other devices on the networks this one is in."""

    enabled: bool = True
    listen: str = ""  # an address of this machine; empty: all
    port: int = _bounded(0, 0, 65535)  # 0: any free one, told by discovery; a fixed one suits firewalls and `peers`
    interfaces: tuple[str, ...] = ()  # names; empty: all


@dataclass(frozen=True, slots=True)
class Lock:
    """`[lock]`: when the keys that read and write are put away."""

    timeout: int = _bounded(3600, 0, 30 * 24 * 3600)  # seconds after the last secret was read; 0: never
    on_suspend: bool = True


@dataclass(frozen=True, slots=True)
class Limits:
    """`[limits]`: what others may take of this machine."""

    max_frame: int = _bounded(4 * 1024 * 1024, 64 * 1024, 64 * 1024 * 1024)  # bytes of one message between devices
    lan_connections: int = _bounded(64, 2, 4096)  # at once, from devices that have not shown yet who they are
    pairing_connections: int = _bounded(4, 1, 64)  # at once, while an invitation is open
    local_connections: int = _bounded(64, 4, 4096)  # at once, on the local socket


@dataclass(frozen=True, slots=True)
class Log:
    """`[log]`: what is told on standard error."""

    level: str = field(default="info", metadata={"choices": LOG_LEVELS})


@dataclass(frozen=True, slots=True)
class Address:
    """Where a device can be reached: a name or IP address, and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that can be set. `peers`: a device's name → where to try it besides discovery. `policies`: a portal's
    domain → whose signatures its log has to have."""

    lan: Lan = Lan()
    peers: dict[str, Address] = field(default_factory=dict)
    policies: dict[str, Policy] = field(default_factory=dict)
    lock: Lock = Lock()
    limits: Limits = Limits()
    log: Log = Log()


TABLES: dict[str, type[Any]] = {"lan": Lan, "lock": Lock, "limits": Limits, "log": Log}


def load(path: Path) -> Config:
    """The settings in `path`; the defaults where there is no such file. BadRequest says where it is wrong."""
    return read(path, lambda text: parse(text, path.parent)) or Config()


def read(path: Path, parse: Callable[[str], T]) -> T | None:
    """What `parse` makes of a settings file; None where there is none. BadRequest names the file."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise BadRequest(f"{path} can't be read: {exc.strerror}") from exc
    if len(data) > MAX_FILE:
        raise BadRequest(f"{path} is larger than {MAX_FILE} bytes")
    try:
        return parse(data.decode())
    except (BadRequest, UnicodeDecodeError) as exc:
        hint = exc.hint if isinstance(exc, BadRequest) else None
        raise BadRequest(f"{path}: {exc}", hint=hint) from exc


def parse(text: str, base: Path = Path()) -> Config:
    """The settings in the text of a meshd.toml; files that it names are below `base` unless they say otherwise."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise BadRequest(f"not TOML: {exc}") from exc
    values: dict[str, Any] = {}
    for name, table in document.items():
        if name not in TABLES and name not in ("peers", "policies"):
            raise _unknown(name, [*TABLES, "peers", "policies"], "there is no table [{}]")
        if not isinstance(table, dict):
            raise BadRequest(f"{name} is a table: write [{name}] on a line of its own")
        match name:
            case "peers":
                values[name] = _peers(table)
            case "policies":
                values[name] = _policies(table, base)
            case _:
                values[name] = _table(name, table)
    return Config(**values)


def _table(name: str, table: dict[str, Any]) -> Any:
    kind = TABLES[name]
    fields = {one.name: one for one in dataclasses.fields(kind)}
    types = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in fields:
            raise _unknown(key, list(fields), f"[{name}] has no setting {{}}")
        values[key] = _value(f"{name}.{key}", types[key], fields[key].metadata, value)
    return kind(**values)


def _value(where: str, kind: Any, bounds: typing.Mapping[str, Any], value: Any) -> Any:
    if kind is bool:
        if not isinstance(value, bool):
            raise BadRequest(f"{where} is true or false")
        return value
    if kind is int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise BadRequest(f"{where} is a whole number")
        if not bounds["least"] <= value <= bounds["most"]:
            raise BadRequest(f"{where} is a number from {bounds['least']} to {bounds['most']}")
        return value
    if kind is str:
        if not isinstance(value, str):
            raise BadRequest(f"{where} is a text in quotes")
        if "choices" in bounds and value not in bounds["choices"]:
            raise BadRequest(f"{where} is one of {', '.join(bounds['choices'])}")
        if where == "lan.listen" and value:
            return _host(value, where)
        return value
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise BadRequest(f'{where} is a list of names, such as ["eth0"]')
    return interfaces(value)


def _peers(table: dict[str, Any]) -> dict[str, Address]:
    found = {}
    for name, value in table.items():
        if not isinstance(value, str):
            raise BadRequest(f'peers.{name} is an address in quotes, such as "desktop.home:4321"')
        found[name] = address(value)
        if found[name].port == 0:
            raise BadRequest(f"peers.{name} needs a port")
    return found


def _policies(table: dict[str, Any], base: Path) -> dict[str, Policy]:
    found = {}
    for name, value in table.items():
        where = f"policies.{name}"
        if not isinstance(value, str):
            raise BadRequest(f'{where} is the name of a file in quotes, such as "witnesses.policy"')
        try:
            domain = normalise_portal(name)
            with (base / value).open("rb") as file:
                found[domain] = Policy.parse(file.read(policy.MAX_BYTES + 1))
        except FormatError as exc:
            raise BadRequest(f"{where}: {exc}") from exc
        except (OSError, ValueError) as exc:
            why = exc.strerror if isinstance(exc, OSError) else "no name of a file"
            raise BadRequest(f"{where}: {value!r} can't be read: {why}") from exc
    return found


def _unknown(name: str, known: list[str], sentence: str) -> BadRequest:
    import difflib  # for this one sentence; a daemon that idles carries everything that it imports

    near = difflib.get_close_matches(name, known, n=1)
    return BadRequest(
        sentence.format(repr(name)[:40]) + (f"; did you mean {near[0]!r}?" if near else ""),
        hint=f"known here: {', '.join(known)}",
    )


def address(text: str) -> Address:
    """Read `host:port`, `[2001:db8::1]:port` or `:port` (every address); BadRequest otherwise."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise BadRequest(f"not HOST:PORT: {text!r}", hint="an IPv6 address goes in brackets: [2001:db8::1]:4321")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise BadRequest(f"not HOST:PORT: {text!r}")
    return Address(_host(host, text) if host else "", int(port))


def _host(host: str, where: str) -> str:
    if not _HOST.match(host):
        raise BadRequest(f"not a host name or address: {where!r}")
    return host


def interfaces(names: list[str]) -> tuple[str, ...]:
    """Names of network interfaces, each once; BadRequest for what can be none. An absent one may come later."""
    for name in names:
        if not _NAME.match(name):
            raise BadRequest(f"not the name of a network interface: {name!r}")
    return tuple(dict.fromkeys(names))


def add_arguments(parser: ArgumentParser) -> None:
    """The options of `meshd` that overrule meshd.toml. All are absent from the namespace unless given."""
    add = parser.add_argument
    add("--interface", action="append", metavar="NAME", help="use this network interface only (repeatable)")
    add("--listen", metavar="HOST:PORT", help="listen there for other devices; :PORT means every address")
    add("--no-lan", action="store_true", help="neither look for other devices nor listen for them")
    add("--log-level", choices=LOG_LEVELS, help="how much to tell on standard error")


def overrule(config: Config, arguments: Namespace) -> Config:
    """`config` with what the command line says in its place."""
    lan, log = config.lan, config.log
    if names := getattr(arguments, "interface", None):
        lan = dataclasses.replace(lan, interfaces=interfaces(names))
    if listen := getattr(arguments, "listen", None):
        place = address(listen)
        lan = dataclasses.replace(lan, listen=place.host, port=place.port)
    if getattr(arguments, "no_lan", False):
        lan = dataclasses.replace(lan, enabled=False)
    if level := getattr(arguments, "log_level", None):
        log = dataclasses.replace(log, level=level)
    return dataclasses.replace(config, lan=lan, log=log)
