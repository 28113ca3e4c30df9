"""Encrypted data: the two shapes, joserfc both ways, and nothing else."""

from __future__ import annotations

import copy
import json
import secrets
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwe as jose
from joserfc.jwk import OctKey, OKPKey
from joserfc.registry import HeaderParameter

from meshd.crypto import base64url, jwe, keys, udf
from meshd.errors import DecryptError, FormatError, MeshError

pytestmark = pytest.mark.draft("JoseWebEncryption")

KEY = bytes(range(32))
KID = udf.make(udf.MMM_EPOCH, KEY)
READER = keys.DecryptKey.from_private(bytes(range(1, 33)))
OTHER = keys.DecryptKey.from_private(bytes(range(2, 34)))
STRANGER = keys.DecryptKey.from_private(bytes(range(3, 35)))
KIDS = [udf.make(udf.MMM_EPOCH, bytes([n]) * 32) for n in range(3)]


def _registry(*algorithms: str) -> jose.JWERegistry:
    kids = HeaderParameter("Key identifiers", "list[str]")
    return jose.JWERegistry({"kids": kids}, [*algorithms, "A256GCM"], verify_all_recipients=False)


def _direct(kid: str) -> bytes:
    return {KID: KEY}[kid]


def _jose(key: keys.DecryptKey) -> OKPKey:
    members = {**key.recipient.parameters()["PublicKeyOKP"], "d": base64url.encode(key.private), "kid": key.udf}
    return OKPKey.import_key(members)


def _flip(text: str, at: int) -> str:
    data = bytearray(base64url.decode(text))
    data[at] ^= 1
    return base64url.encode(bytes(data))


def test_a_direct_item_opens_under_its_key() -> None:
    obj = jwe.seal_direct(KEY, KID, b"secret", secrets.token_bytes)
    assert list(obj) == ["protected", "iv", "ciphertext", "tag"]
    assert base64url.decode(obj["protected"]) == f'{{"alg":"dir","enc":"A256GCM","kid":"{KID}"}}'.encode()
    assert jwe.direct_kid(obj) == KID
    assert jwe.open_direct(json.loads(json.dumps(obj)), _direct) == b"secret"
    assert jwe.seal_direct(KEY, KID, b"secret", secrets.token_bytes)["iv"] != obj["iv"]


@given(st.binary(max_size=300))
def test_joserfc_opens_our_items_and_we_open_its(plaintext: bytes) -> None:
    key, registry = OctKey.import_key(KEY), _registry("dir")
    ours: Any = jwe.seal_direct(KEY, KID, plaintext, secrets.token_bytes)
    assert jose.decrypt_json(ours, key, registry=registry).plaintext == plaintext
    theirs = jose.encrypt_compact({"alg": "dir", "enc": "A256GCM", "kid": KID}, plaintext, key, registry=registry)
    protected, _, iv, ciphertext, tag = theirs.split(".")
    obj = {"protected": protected, "iv": iv, "ciphertext": ciphertext, "tag": tag}
    assert jwe.open_direct(obj, _direct) == plaintext


def test_an_unknown_key_and_a_wrong_key_do_not_open_an_item() -> None:
    obj = jwe.seal_direct(KEY, KID, b"secret", secrets.token_bytes)
    for held in ({}, {KID: bytes(32)}):
        with pytest.raises(DecryptError):
            jwe.open_direct(obj, held.__getitem__)


def test_no_changed_byte_of_an_item_opens() -> None:
    obj = jwe.seal_direct(KEY, KID, b"secret", secrets.token_bytes)
    for member, text in obj.items():
        for at in range(len(base64url.decode(text))):
            with pytest.raises((DecryptError, FormatError)):
                jwe.open_direct({**obj, member: _flip(text, at)}, lambda kid: KEY)


@pytest.mark.parametrize(
    "header",
    [
        '{"alg":"dir","enc":"A128GCM","kid":"%s"}',
        '{"alg":"dir","enc":"A256GCM","kid":"%s","zip":"DEF"}',
        '{"alg":"dir","enc":"A256GCM","kid":"%s","crit":["x"],"x":1}',
        '{"alg":"A256KW","enc":"A256GCM","kid":"%s"}',
        '{"enc":"A256GCM","alg":"dir","kid":"%s"}',
        '{"alg":"dir","enc":"A256GCM"}',
        '{"alg":"dir","enc":"A256GCM","kid":"x"}',
        "\u00e9",
        "",
    ],
)
def test_every_other_header_of_an_item_is_refused(header: str) -> None:
    obj = jwe.seal_direct(KEY, KID, b"secret", secrets.token_bytes)
    with pytest.raises(FormatError):
        jwe.open_direct({**obj, "protected": base64url.encode(header.replace("%s", KID).encode())}, _direct)


@pytest.mark.parametrize(
    "change",
    [
        {"unprotected": {}},
        {"encrypted_key": ""},
        {"aad": "AA"},
        {"recipients": []},
        {"iv": ""},
        {"iv": "A" * 22},
        {"tag": "AAAA"},
        {"tag": None},
        {"ciphertext": "A=="},
        {"ciphertext": 7},
    ],
)
def test_every_other_shape_of_an_item_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        jwe.open_direct({**jwe.seal_direct(KEY, KID, b"secret", secrets.token_bytes), **change}, _direct)


def test_keys_and_sizes_that_no_reader_takes_are_not_written() -> None:
    for key, kid, plaintext in (
        (KEY[:16], KID, b""),
        (KEY, "kid", b""),
        (KEY, KID, bytes(jwe.MAX_CIPHERTEXT + 1)),
    ):
        with pytest.raises(FormatError):
            jwe.seal_direct(key, kid, plaintext, secrets.token_bytes)
    too_long = "A" * (jwe.MAX_CIPHERTEXT * 4 // 3 + 8)
    with pytest.raises(FormatError):
        jwe.open_direct({**jwe.seal_direct(KEY, KID, b"", secrets.token_bytes), "ciphertext": too_long}, _direct)


def _container(plaintext: bytes = b"keys", kids: list[str] = KIDS) -> dict[str, Any]:
    return jwe.seal_to(plaintext, [READER.recipient, OTHER.recipient], kids, secrets.token_bytes)


def test_a_container_opens_for_each_recipient_and_nobody_else() -> None:
    obj = json.loads(json.dumps(_container()))
    assert jwe.recipients_of(obj) == (READER.udf, OTHER.udf)
    assert jwe.kids_of(obj) == tuple(KIDS)
    assert jwe.open_with(obj, READER) == jwe.open_with(obj, OTHER) == b"keys"
    with pytest.raises(DecryptError):
        jwe.open_with(obj, STRANGER)


def test_a_container_says_in_clear_what_is_inside_and_nothing_when_nothing_is() -> None:
    assert json.loads(base64url.decode(_container()["protected"])) == {"enc": "A256GCM", "kids": KIDS}
    empty = _container(kids=[])
    assert base64url.decode(empty["protected"]) == b'{"enc":"A256GCM"}'
    assert jwe.kids_of(empty) == ()
    assert jwe.open_with(empty, READER) == b"keys"


@given(st.binary(max_size=300), st.integers(0, 3))
def test_joserfc_opens_our_containers_and_we_open_its(plaintext: bytes, count: int) -> None:
    registry, key = _registry("ECDH-ES+A256KW"), _jose(OTHER)
    ours: Any = _container(plaintext, KIDS[:count])
    assert jose.decrypt_json(ours, key, registry=registry).plaintext == plaintext
    protected: dict[str, Any] = {"enc": "A256GCM", "kids": KIDS[:count]} if count else {"enc": "A256GCM"}
    theirs = jose.GeneralJSONEncryption(protected, plaintext)  # type: ignore[arg-type]
    theirs.add_recipient({"alg": "ECDH-ES+A256KW", "kid": READER.udf}, _jose(READER))
    theirs.add_recipient({"alg": "ECDH-ES+A256KW", "kid": OTHER.udf}, key)
    obj = jose.encrypt_json(theirs, None, registry=registry)
    assert jwe.kids_of(obj) == tuple(KIDS[:count])
    for reader in (READER, OTHER):
        assert jwe.open_with(obj, reader) == plaintext


def test_no_changed_byte_of_a_container_opens() -> None:
    obj = _container()
    for member in ("protected", "iv", "ciphertext", "tag"):
        for at in range(len(base64url.decode(obj[member]))):
            with pytest.raises((DecryptError, FormatError)):
                jwe.open_with({**obj, member: _flip(obj[member], at)}, READER)
    for at in range(40):
        changed = copy.deepcopy(obj)
        changed["recipients"][0]["encrypted_key"] = _flip(changed["recipients"][0]["encrypted_key"], at)
        with pytest.raises(DecryptError):
            jwe.open_with(changed, READER)
    for at in range(32):
        changed = copy.deepcopy(obj)
        changed["recipients"][0]["header"]["epk"]["x"] = _flip(changed["recipients"][0]["header"]["epk"]["x"], at)
        with pytest.raises(DecryptError):
            jwe.open_with(changed, READER)


def test_a_share_moved_to_another_recipient_does_not_open() -> None:
    obj = _container()
    obj["recipients"][0]["header"]["kid"], obj["recipients"][1]["header"]["kid"] = OTHER.udf, READER.udf
    with pytest.raises(DecryptError):
        jwe.open_with(obj, READER)


@pytest.mark.parametrize(
    "change",
    [
        lambda o: o.update(unprotected={}),
        lambda o: o.update(aad="AA"),
        lambda o: o.pop("tag"),
        lambda o: o.update(recipients=[]),
        lambda o: o.update(recipients={}),
        lambda o: o.update(recipients=[None]),
        lambda o: o.update(recipients=o["recipients"] * 200),
        lambda o: o["recipients"].append(o["recipients"][0]),
        lambda o: o["recipients"][1].update(x=1),
        lambda o: o["recipients"][1].update(header=[]),
        lambda o: o["recipients"][1].update(encrypted_key="AAAA"),
        lambda o: o["recipients"][1]["header"].update(kid="x"),
        lambda o: o["recipients"][1]["header"].update(alg="ECDH-ES"),
        lambda o: o["recipients"][1]["header"].update(apu="AA"),
        lambda o: o["recipients"][1]["header"].update(zip="DEF"),
        lambda o: o["recipients"][1]["header"].update(epk=5),
        lambda o: o["recipients"][1]["header"]["epk"].update(crv="Ed25519"),
        lambda o: o["recipients"][1]["header"]["epk"].update(x="AAAA"),
        lambda o: o["recipients"][1]["header"]["epk"].update(d="AAAA"),
        lambda o: o.update(protected=base64url.encode(b'{"enc":"A128GCM"}')),
        lambda o: o.update(protected=base64url.encode(b'{"enc":"A256GCM","kids":[]}')),
        lambda o: o.update(protected=base64url.encode(b'{"enc":"A256GCM","kids":["x"]}')),
        lambda o: o.update(protected=base64url.encode(b'{"enc":"A256GCM","kids":"x"}')),
        lambda o: o.update(protected=base64url.encode(b'{"enc":"A256GCM","enc":"A256GCM"}')),
        lambda o: o.update(protected=base64url.encode(b'{"enc":"A256GCM","zip":"DEF"}')),
        lambda o: o.update(protected=base64url.encode(b'{"enc":"A256GCM","crit":["kids"]}')),
        lambda o: o.update(protected=base64url.encode(b"[]")),
        lambda o: o.update(protected=base64url.encode(b"\xff")),
        lambda o: o.update(protected=base64url.encode(b"[" * 100_000)),
        lambda o: o.update(protected=base64url.encode(json.dumps({"enc": "A256GCM", "kids": KIDS[:1] * 2}).encode())),
    ],
)
def test_every_other_shape_of_a_container_is_refused(change: Callable[[dict[str, Any]], Any]) -> None:
    obj = _container()
    change(obj)
    with pytest.raises(FormatError):
        jwe.open_with(obj, READER)


def test_recipients_are_at_least_one_and_each_once() -> None:
    for recipients in ([], [READER.recipient] * 2, [READER.recipient] * 257):
        with pytest.raises(FormatError):
            jwe.seal_to(b"", recipients, KIDS, secrets.token_bytes)
    for kids in (KIDS[:1] * 2, ["x"], KIDS * 2000):
        with pytest.raises(FormatError):
            jwe.seal_to(b"", [READER.recipient], kids, secrets.token_bytes)


def test_a_zero_agreement_is_refused() -> None:
    obj = _container()
    obj["recipients"][0]["header"]["epk"]["x"] = base64url.encode(bytes(32))
    with pytest.raises(DecryptError):
        jwe.open_with(obj, READER)


MEMBERS = ["protected", "iv", "ciphertext", "tag", "recipients", "header", "encrypted_key", "alg", "kid", "epk", "x"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just(KID),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(MEMBERS), inner, max_size=6),
    max_leaves=8,
)
WHOLE = st.fixed_dictionaries(dict.fromkeys(("protected", "iv", "ciphertext", "tag", "recipients"), JSON))


@given(JSON | WHOLE)
def test_garbage_raises_only_our_errors(obj: Any) -> None:
    for read in (
        lambda: jwe.open_direct(obj, _direct),
        lambda: jwe.open_with(obj, READER),
        lambda: jwe.kids_of(obj),
        lambda: jwe.recipients_of(obj),
    ):
        with pytest.raises(MeshError):
            read()


@given(JSON, JSON)
def test_garbage_inside_a_container_raises_only_our_errors(recipient: Any, value: Any) -> None:
    obj = _container()
    for change in ({"recipients": [recipient]}, {"recipients": [{"header": value, "encrypted_key": recipient}]}):
        with pytest.raises(MeshError):
            jwe.open_with({**obj, **change}, READER)
