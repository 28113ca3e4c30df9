"""Sites: one spelling for each host, matched the same way everywhere."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.errors import FormatError
from meshd.profile.apps import hosts


@pytest.mark.parametrize(
    ("typed", "host"),
    [
        ("example.com", "example.com"),
        (" Example.COM. ", "example.com"),
        ("https://example.com", "example.com"),
        ("HTTPS://User:pa%20ss@Example.com:8443/path?q=1#f", "example.com"),
        ("https://user:p@ss@example.com/", "example.com"),
        ("user:pass@example.com", "example.com"),
        ("example.com:8443", "example.com"),
        ("example.com/login?next=https://other.org/", "example.com"),
        ("example.com?next=//other.org", "example.com"),
        ("//example.com/x", "example.com"),
        ("https://example.com\\@other.org/", "example.com"),
        ("https://example.com#@other.org", "example.com"),
        ("ftp://example.com", "example.com"),
        ("chrome-extension://abcdefghijklmnop/", "abcdefghijklmnop"),
        ("*.example.com", "*.example.com"),
        ("https://*.example.com/", "*.example.com"),
        ("localhost", "localhost"),
        ("http://router", "router"),
        ("_dmarc.my_host.example", "_dmarc.my_host.example"),
        ("a--b.example", "a--b.example"),
        ("192.0.2.7", "192.0.2.7"),
        ("http://192.0.2.7:631/", "192.0.2.7"),
        ("http://[2001:DB8::0:1]:80/", "2001:db8::1"),
        ("[::1]", "::1"),
        ("::1", "::1"),
        ("2001:db8:0:0:0:0:0:1", "2001:db8::1"),
        ("http://[fe80::1%25eth0]/", "fe80::1"),
        ("Bücher.example", "xn--bcher-kva.example"),
        ("https://BÜCHER.example/straße", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("XN--BCHER-KVA.EXAMPLE", "xn--bcher-kva.example"),
        ("例え。テスト", "xn--r8jz45g.xn--zckzah"),
        ("ｅｘａｍｐｌｅ．ｃｏｍ", "example.com"),
        ("straße.de", "xn--strae-oqa.de"),
        ("ΒΌΛΟΣ.com", "xn--nxasmq6b.com"),
        ("*.bücher.example", "*.xn--bcher-kva.example"),
        ("android://c2lnbmF0dXJl==@com.example.app/", "android:com.example.app"),
        ("android:Com.Example.App", "android:com.example.app"),
    ],
)
def test_a_host_has_one_spelling(typed: str, host: str) -> None:
    assert hosts.normalise(typed) == host
    assert hosts.normalise(host) == host


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "   ",
        ".",
        "*",
        "*.",
        "*.*.com",
        "a.*.com",
        "https://",
        "https:///path",
        "https://:80/",
        "https://user@/",
        "file:///etc/passwd",
        "a..b",
        ".a",
        "a b.example",
        "a\tb.example",
        "a\nb.example",
        "a\x00b",
        "a\x7fb",
        "exa%6dple.com",
        "a|b",
        "a<b>",
        "[::1",
        "[example.com]",
        "1:2:3",
        "x" * 64 + ".com",
        "a." * 127 + "com",
        "ü" * 100 + ".de",
        "\u200d.com",
        "\ud800.com",
        "\u00a0hunter2\u00a0x.com",
        "٠.com",
        "a\u0332b\u2028.com",
        "android:",
        "android://",
        "android://x@/",
        "android:com/example",
        "android:com example",
        "android:" + "a" * 300,
        "x" * 9000,
        "http://" + "a@" * 4000,
    ],
    ids=lambda typed: repr(typed)[:40],
)
def test_what_names_no_site_is_refused_without_being_repeated(typed: str) -> None:
    with pytest.raises(FormatError) as caught:
        hosts.normalise(typed)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "url", ["https://ana:hunter2@exa\u2100mple.com/", "https://ana:hunter2@[::1/", "hunter2 hunter2", "hünter2 .x"]
)
def test_a_password_in_a_broken_url_does_not_reach_the_error(url: str) -> None:
    with pytest.raises(FormatError) as caught:
        hosts.normalise(url)
    for part in ("hunter2", "hünter2", "ana"):
        assert part not in str(caught.value)


@given(st.text(max_size=60) | st.text(st.sampled_from("ab.:/@[]*%#?\\ü。-_0"), max_size=40))
def test_any_text_gives_a_host_or_a_format_error_and_twice_the_same(text: str) -> None:
    try:
        found = hosts.normalise(text)
    except FormatError:
        return
    assert found.isascii()
    assert found == hosts.normalise(found)
    hosts.display(found)
    hosts.registrable(found)
    assert hosts.matches(found.removeprefix("*."), [found])


def test_a_long_text_costs_no_more_than_its_length() -> None:
    begin = time.perf_counter()
    for text in ("ü" * 8000, "a." * 4000, "http://" + "[" * 8000, "*." * 4000, "\u0300" * 253 + ".de"):
        with pytest.raises(FormatError):
            hosts.normalise(text)
    assert time.perf_counter() - begin < 2


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("xn--bcher-kva.example", "bücher.example"),
        ("*.xn--bcher-kva.example", "*.bücher.example"),
        ("example.com", "example.com"),
        ("xn--a.example", "xn--a.example"),
        ("android:com.example.app", "android:com.example.app"),
    ],
)
def test_hosts_are_shown_as_people_write_them(host: str, shown: str) -> None:
    assert hosts.display(host) == shown


@pytest.mark.parametrize(
    ("host", "domain"),
    [
        ("www.example.co.uk", "example.co.uk"),
        ("*.example.co.uk", "example.co.uk"),
        ("example.com", "example.com"),
        ("com", "com"),
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("android:com.example.app", "android:com.example.app"),
        ("router", "router"),
        ("alice.github.io", "alice.github.io"),
    ],
)
def test_the_registrable_domain_is_found(host: str, domain: str) -> None:
    assert hosts.registrable(host) == domain


def test_a_wildcard_covers_its_domain_and_what_is_below_and_nothing_beside() -> None:
    sites = ["*.example.com", "other.org"]
    for host in ("example.com", "www.example.com", "a.b.example.com", "other.org"):
        assert hosts.matches(host, sites)
    for host in ("notexample.com", "com", "www.other.org", "example.com.evil.net"):
        assert not hosts.matches(host, sites)
