"""Writes chrome-export.csv: a password export as Chrome writes it, with made-up logins.

    python make_chrome_export.py [FILE]

The one idea: besides ordinary logins it holds each thing that real exports hold and naive readers drop: Android apps,
ports, plain HTTP, routers by address, international names in punycode, empty user names, quotes, commas, line breaks,
the same login twice. Everything follows from a counter, so the file is the same wherever it is made.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
Row = tuple[str, str, str, str, str]

HEADER = ("name", "url", "username", "password", "note")
FIRST = (
    "harbour",
    "maple",
    "granite",
    "lantern",
    "copper",
    "willow",
    "summit",
    "anchor",
    "meadow",
    "falcon",
    "juniper",
)
SECOND = ("bank", "mail", "shop", "cloud", "travel", "library", "forum", "energy", "school", "radio", "health", "post")
TOP = ("example", "test", "example.org", "example.com", "example.net")
PATHS = (
    "/login",
    "/",
    "/account/signin",
    "/users/sign_in",
    "/auth",
    "/session/new",
    "/wp-login.php",
    "/portal/#/login",
)
SUBDOMAINS = ("", "", "www.", "accounts.", "login.", "secure.", "my.", "id.")
WORDS = (
    "amber",
    "basil",
    "cedar",
    "delta",
    "ember",
    "fjord",
    "gusto",
    "hazel",
    "ivory",
    "jolly",
    "kayak",
    "lemon",
    "mango",
)
USERS = ("alice", "alice.miller", "a.miller", "alice+shop", "amiller77")
MAIL = ("example.org", "mail.example", "post.example.net")
NOTES = ("security question: first pet", "joint account", "changed after the move", "old account, keep for invoices")
ALPHABET = "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789!#$%&*+-.:;=?@_~"
SIZE = 340


def number(*label: object) -> int:
    """A number that follows from the label alone, in every release of Python."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, label)).encode()).digest()[:8], "big")


def pick(options: Sequence[T], *label: object) -> T:
    return options[number(*label) % len(options)]


def password(index: int) -> str:
    style = number("style", index) % 10
    if style < 6:  # what Chrome's own generator makes
        return "".join(pick(ALPHABET, "password", index, place) for place in range(15))
    if style < 8:
        return "-".join(pick(WORDS, "word", index, place) for place in range(4))
    return pick(WORDS, "old", index).capitalize() + str(number("year", index) % 10_000)


def username(index: int) -> str:
    name = pick(USERS, "user", index)
    return f"{name}@{pick(MAIL, 'mail', index)}" if number("form", index) % 3 else name


def ordinary(index: int) -> Row:
    domain = f"{FIRST[index % len(FIRST)]}-{SECOND[index // len(FIRST) % len(SECOND)]}"
    if index >= len(FIRST) * len(SECOND):
        domain += str(index // (len(FIRST) * len(SECOND)) + 1)
    host = pick(SUBDOMAINS, "sub", index) + f"{domain}.{pick(TOP, 'top', index)}"
    scheme = "http" if number("scheme", index) % 17 == 0 else "https"
    port = pick((":8443", ":8080", ":5001"), "port", index) if number("has port", index) % 19 == 0 else ""
    note = pick(NOTES, "note", index) if number("has note", index) % 12 == 0 else ""
    path = pick(PATHS, "path", index)
    return host.removeprefix("www."), f"{scheme}://{host}{port}{path}", username(index), password(index), note


def android(package: str, name: str) -> Row:
    """An app's login: the host is the package, the user part the hash of the certificate that signed it."""
    signature = base64.urlsafe_b64encode(hashlib.sha512(package.encode()).digest()).decode()
    return name, f"android://{signature}@{package}/", username(number(package)), password(number(package) % 10_000), ""


def special() -> list[Row]:
    return [
        ("github.com", "https://github.com/session", "alice", "correct-Horse7battery", ""),
        ("example.com", "https://example.com/login", "alice", 'comma, "quote" and\ttab', ""),
        ("quotes.example", "https://quotes.example/", 'alice "al" miller', '""', 'she said "yes"'),
        ("commas.example", "https://commas.example/", "miller, alice", ",,,", "one, two, three"),
        ("spaces.example", "https://spaces.example/", " alice ", "  leading and trailing  ", ""),
        ("apostrophe.example", "https://apostrophe.example/", "o'brien", "it's; DROP TABLE--", ""),
        ("formula.example", "https://formula.example/", "alice", "=1+1", "@SUM(A1)"),
        ("unicode.example", "https://unicode.example/", "álïçé", "пароль-パスワード-🔑", "Grüße aus Łódź"),
        ("combining.example", "https://combining.example/", "alice", "e\u0301 is not \u00e9", ""),
        ("rtl.example", "https://rtl.example/", "אליס", "سر-المرور", ""),
        ("long.example", "https://long.example/", "alice", "x" * 200, "a password as long as the form allowed"),
        ("short.example", "https://short.example/", "alice", "1", ""),
        ("notes.example", "https://notes.example/", "alice", "one-Two3", "recovery codes:\n1111-2222\n3333-4444\n"),
        ("windows.example", "https://windows.example/", "alice", "cr-Lf99", "first line\r\nsecond line"),
        ("blank.example", "https://blank.example/", "alice", "blank-Line5", "above\n\nbelow"),
        ("xn--bcher-kva.example", "https://xn--bcher-kva.example/konto", "alice", "Umlaut-im-Namen1", "bücher.example"),
        ("xn--r8jz45g.test", "https://xn--r8jz45g.test/login", "alice", "Reiwa-2019", "例え.test"),
        ("xn--e1afmkfd.example", "https://www.xn--e1afmkfd.example/", "alice", "Primer-44-x", "пример.example"),
        ("192.168.1.1", "http://192.168.1.1/", "", "router-Admin1", "the router at home"),
        ("192.168.1.1:8080", "http://192.168.1.1:8080/setup", "admin", "router-Setup2", ""),
        (
            "[fd00::53]",
            "http://[fd00::53]/admin/",
            "",
            "dns-sinkhole-3",
            "no user name: the box asks for a password only",
        ),
        ("localhost:3000", "http://localhost:3000/", "dev", "dev", ""),
        ("nas.local", "https://nas.local:5001/", "alice", "nas-Storage-7", ""),
        ("pin.example", "https://pin.example/unlock", "", "4711", ""),
        ("door.example", "https://door.example/", "", "badge-0042", "user name field was empty"),
        ("query.example", "https://query.example/in?next=%2Fhome&lang=en", "alice", "Query-String8", ""),
        ("many.example", "https://many.example/login", "alice", "first-Account1", ""),
        ("many.example", "https://many.example/login", "alice@work.example", "second-Account2", "work"),
        ("many.example", "https://many.example/login", "family", "third-Account3", ""),
        # The same login saved on two pages of a site, and once more word for word: one login for a person.
        ("twice.example", "https://twice.example/login", "alice", "same-Same5", ""),
        ("twice.example", "https://twice.example/signup", "alice", "same-Same5", ""),
        ("copy.example", "https://copy.example/", "alice", "copied-Row6", ""),
        ("copy.example", "https://copy.example/", "alice", "copied-Row6", ""),
        android("example.bank.app", "Harbour Bank"),
        android("org.example.messenger", "Messenger"),
        android("net.example.transit.tickets", "net.example.transit.tickets"),
        android("com.example.weather", "Wetter & Klima"),
    ]


def rows() -> list[Row]:
    found = special()
    found += [ordinary(index) for index in range(SIZE - len(found))]
    return sorted(found, key=lambda row: row[0])  # as Chrome does: by name


def main(path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows(rows())


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("chrome-export.csv"))
