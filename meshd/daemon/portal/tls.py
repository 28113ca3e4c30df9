"""A portal's certificate and key, as files say them: read at the start and again on SIGHUP, and judged before use.

What is wrong with them is said in the words of whoever has to put it right. A reload that fails leaves the certificate
in use that was in use.
"""

from __future__ import annotations

import datetime
import logging
import ssl
from pathlib import Path

from cryptography import x509

from meshd.errors import BadRequest

_log = logging.getLogger(__name__)
SOON = datetime.timedelta(days=7)
MAX_FILE = 1024 * 1024


class Certificate:
    """The context for new connections. `reload` replaces it."""

    def __init__(self, certificate: Path, key: Path, domain: str, now: datetime.datetime) -> None:
        self._certificate, self._key, self._domain = certificate, key, domain
        self.context = server_context(certificate, key, domain, now)

    def reload(self, now: datetime.datetime) -> None:
        """Read the files again; BadRequest, and everything stays as it is."""
        self.context = server_context(self._certificate, self._key, self._domain, now)


def server_context(certificate: Path, key: Path, domain: str, now: datetime.datetime) -> ssl.SSLContext:
    """TLS 1.2 or later with this certificate; BadRequest says what is wrong with the files."""
    chain, secret = _read(certificate, "certificate"), _read(key, "key")
    if b"ENCRYPTED" in secret:  # as PKCS #8 says it, and what OpenSSL wrote before
        raise BadRequest(
            f"the key in {key} is encrypted, and nobody is there to give its passphrase",
            hint=f"openssl pkey -in {key} -out PLAIN.pem; keep that readable by the portal alone",
        )
    try:
        found = x509.load_pem_x509_certificates(chain)
    except ValueError as exc:
        raise BadRequest(f"{certificate} holds no certificate in PEM", hint="-----BEGIN CERTIFICATE-----") from exc
    _judge(certificate, found[0], domain, now)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    try:
        # The password stops OpenSSL from asking for one on the terminal, whatever the file holds.
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as exc:
        reason = (exc.reason or "").upper()
        if "MISMATCH" in reason:
            raise BadRequest(f"{key} is not the key of the certificate in {certificate}") from exc
        raise BadRequest(
            f"{key} can't be used as a key, or {certificate} as a chain: {reason.lower()}", hint="are both in PEM?"
        ) from exc
    return context


def _read(path: Path, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as exc:
        raise BadRequest(f"the TLS {what} {path} can't be read: {exc.strerror}") from exc
    if not data or len(data) > MAX_FILE:
        raise BadRequest(f"the TLS {what} {path} is empty, or no such file at all")
    return data


def _judge(path: Path, leaf: x509.Certificate, domain: str, now: datetime.datetime) -> None:
    if leaf.not_valid_after_utc <= now:
        raise BadRequest(
            f"the certificate in {path} expired on {leaf.not_valid_after_utc:%Y-%m-%d}",
            hint="renew it; the portal takes a new one on SIGHUP",
        )
    if leaf.not_valid_before_utc > now:
        raise BadRequest(
            f"the certificate in {path} is valid from {leaf.not_valid_before_utc:%Y-%m-%d} only",
            hint="is this machine's clock right?",
        )
    if leaf.not_valid_after_utc - now < SOON:
        _log.warning("the certificate in %s expires on %s", path, f"{leaf.not_valid_after_utc:%Y-%m-%d %H:%M}")
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
            x509.DNSName
        )
    except x509.ExtensionNotFound:
        names = []
    fitting = {domain, f"*.{domain.partition('.')[2]}"}
    if not any(name.lower() in fitting or name.lower().endswith(f".{domain}") for name in names):
        # It may be right: a SRV record leads to any name.
        _log.warning("the certificate in %s is not for %s or a name in it", path, domain)
