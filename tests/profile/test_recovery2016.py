"""Share texts of 2016 bring their secret back, their entry opens, and the faults of 2016 are named where they bite."""

from __future__ import annotations

import base64
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import given
from hypothesis import strategies as st

from meshd.crypto import base64url, legacy
from meshd.errors import DecryptError, FormatError, NotFound
from meshd.profile import recovery2016, shares, shares2016
from meshd.profile.shares import ShareError
from meshd.profile.shares2016 import EXACT, OVERFLOW, XOR

pytestmark = pytest.mark.draft("Documents of 2016", "OfflineEscrowEntry")

VECTORS = Path(__file__).parents[1] / "vectors" / "mesh2016"
SETS = json.loads((VECTORS / "fresh-shamir.json").read_text())["vectors"]
(INTENDED,) = [
    one
    for one in json.loads((VECTORS / "fresh-escrow-intended.json").read_text())["vectors"]
    if one["kind"] == "escrow-intended"
]
JANUARY = json.loads((VECTORS / "captures" / "reference-jan2016.json").read_text())
PRIME = 2**129 - 25
SECRET = bytes(range(100, 116))


def text_of(data: bytes) -> str:
    letters = base64.b32encode(data).decode().rstrip("=")
    return "-".join(letters[at : at + 5] for at in range(0, len(letters), 5))


def split(secret: bytes, needed: int, count: int, *, wraps: bool = False) -> list[str]:
    """As the draft's program did it, plainly: a polynomial, whose powers may run over."""
    coefficients = [int.from_bytes(secret, "little"), *(7**50 * (j + 1) % 2**128 for j in range(needed - 1))]
    made = []
    for x in range(1, count + 1):
        powers = [x**j for j in range(needed)]
        if wraps:
            powers = [(power + 2**31) % 2**32 - 2**31 for power in powers]
        total = sum(a * power for a, power in zip(coefficients, powers, strict=True))
        y = abs(total) % PRIME * (1 if total >= 0 else -1)
        size = (y if y >= 0 else ~y).bit_length() // 8 + 1
        made.append(text_of(bytes([16 * needed + x - 1]) + y.to_bytes(size, "little", signed=True)))
    return made


def combined(texts: list[str], *entries: str) -> list[bytes]:
    return [secret.key for secret in shares2016.combine([shares2016.read(text) for text in texts], entries)]


def fault_of(call: Any) -> ShareError:
    with pytest.raises(ShareError) as caught:
        call()
    return caught.value


def entry_of(secret: bytes, keys: list[Any] | dict[str, Any]) -> dict[str, Any]:
    """An entry as it was intended: AES-128-CBC under the secret. A dict is the whole key set."""
    plaintext = json.dumps({"EscrowedKeySet": {"PrivateKeys": keys} if isinstance(keys, list) else keys}).encode()
    padded = plaintext + bytes([16 - len(plaintext) % 16]) * (16 - len(plaintext) % 16)
    encryptor = Cipher(algorithms.AES(secret), modes.CBC(bytes(16))).encryptor()
    return {
        "OfflineEscrowEntry": {
            "Identifier": shares2016.identifier(secret),
            "EncryptedData": {
                "protected": base64url.encode(b'{"alg": "AE128"}'),
                "iv": base64url.encode(bytes(16)),
                "ciphertext": base64url.encode(encryptor.update(padded) + encryptor.finalize()),
            },
        }
    }


# --- shares -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", SETS, ids=[f"{one['k']}of{one['n']}-{at % 4}" for at, one in enumerate(SETS)])
def test_the_sets_of_the_2016_program_give_their_secret_whichever_shares_are_taken(vector: dict[str, Any]) -> None:
    read = [shares2016.read(text) for text in vector["shares"]]
    assert [one.needed for one in read] == [vector["k"]] * vector["n"]
    assert shares2016.identifier(bytes.fromhex(vector["secret"])) == vector["udf_escrow"]
    for chosen in itertools.islice(itertools.combinations(read, vector["k"]), 0, None, 101):
        (found,) = shares2016.combine(chosen[::-1], [vector["udf_escrow"]])
        assert found.key.hex() == vector["secret"]
        assert vector["secret"] in [one.key.hex() for one in shares2016.combine(chosen)]
        fewer = fault_of(lambda chosen=chosen: shares2016.combine(chosen[1:]))
        assert (fewer.fault, "1 more" in str(fewer)) == (shares.TOO_FEW, True)
    (found,) = shares2016.combine(read * 2)
    assert found.key.hex() == vector["secret"]


def test_powers_that_ran_over_are_named_and_no_others() -> None:
    ways = {(one["k"], shares2016.combine([shares2016.read(text) for text in one["shares"]])[0].how) for one in SETS}
    assert {needed for needed, how in ways if how == OVERFLOW} == {9, 14}
    assert {needed for needed, how in ways if how == EXACT} == {2, 3, 4, 5, 8}
    assert (15, XOR) in ways


@given(st.binary(min_size=16, max_size=16), st.data())
def test_any_t_shares_bring_the_secret_back_and_no_fewer_do(secret: bytes, data: st.DataObject) -> None:
    count = data.draw(st.integers(3, 15))
    needed = data.draw(st.integers(2, count - 1))
    wraps = data.draw(st.booleans())
    chosen = data.draw(st.permutations(split(secret, needed, count, wraps=wraps)))[:needed]
    assert secret in combined(chosen)
    assert combined(chosen, shares2016.identifier(secret)) == [secret]
    assert fault_of(lambda: combined(chosen[1:])).fault == shares.TOO_FEW


@given(st.data())
def test_a_wrong_letter_is_put_right_where_the_entry_is_known(data: st.DataObject) -> None:
    texts = data.draw(st.permutations(split(SECRET, 3, 5)))[:3]
    which, at = data.draw(st.integers(0, 2)), data.draw(st.integers(2, 26))
    letters = texts[which].replace("-", "")
    wrong = data.draw(st.sampled_from([one for one in "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567" if one != letters[at]]))
    texts[which] = letters[:at] + wrong + letters[at + 1 :]
    known = shares2016.identifier(SECRET)
    try:
        (found,) = shares2016.combine([shares2016.read(text) for text in texts], [known])
    except ShareError as exc:
        assert "can't be right" in str(exc)  # the letter alone tells
        return
    assert found.key == SECRET
    assert f"share {which + 1}, group {at // 5 + 1}, place {at % 5 + 1} is {letters[at]}" in found.mended
    assert not shares2016.combine([shares2016.read(text) for text in split(SECRET, 3, 5)], [known])[0].mended


def test_with_a_share_more_than_needed_a_wrong_one_does_no_harm() -> None:
    texts = split(SECRET, 2, 4)
    alien = split(bytes(16), 2, 4)[2]
    assert combined([texts[0], alien, texts[3]], shares2016.identifier(SECRET)) == [SECRET]
    assert fault_of(lambda: combined([texts[0], alien, texts[3]])).fault == shares.ALTERED
    assert fault_of(lambda: combined([texts[0], alien], "M" * 35)).fault == shares.ALTERED


def test_shares_of_two_sets_are_told_apart_where_anything_tells_them() -> None:
    odd = fault_of(lambda: combined([*split(SECRET, 2, 3)[:2], split(SECRET, 3, 4)[2]]))
    assert (odd.fault, odd.places) == (shares.OTHER_SET, (2,))
    twice = fault_of(lambda: combined([split(SECRET, 2, 3)[0], split(bytes(16), 2, 3)[0], split(SECRET, 2, 3)[1]]))
    assert (twice.fault, twice.places) == (shares.DUPLICATE, (0, 1))
    assert fault_of(lambda: combined([])).fault == shares.TOO_FEW


SHARE = SETS[4]["shares"][0]  # EBUZV-JAGO6-6V7AR-FLDE3-WHX2E-P7AA
BAD = {
    "lookalike": (SHARE.replace("O", "0", 1), shares.FORM, "Group 2, place 4: 0 is no letter of a share; perhaps O."),
    "sign": (SHARE.replace("J", "?", 1), shares.FORM, "Group 2, place 1: ? is no letter of a share."),
    "letter lost": (SHARE.replace("AGO", "AG"), shares.LENGTH, "Group 2 has 4 letters, and 5 are due."),
    "group lost": (SHARE[:-11], shares.FORM, "some are missing"),
    "letters run on": (SHARE + "A", shares.LENGTH, "these are 30"),
    "last group long": (SHARE + "AA", shares.LENGTH, "Group 6 has 6 letters, and 5 are due."),
    "last letter": (SHARE[:-1] + "B", shares.FORM, "The last letter can't be right, or some are missing."),
    "control": ("A" + SHARE[1:], shares.FORM, "The first two letters"),
    "empty": ("", shares.LENGTH, "these are 0"),
    "words": ("academic " * 20, shares.FORM, "words of a share of today"),
    "long": ("A" * 4000, shares.LENGTH, "letters"),
}


@pytest.mark.parametrize("what", BAD)
def test_text_that_is_no_share_is_named_precisely(what: str) -> None:
    text, fault, told = BAD[what]
    found = fault_of(lambda: shares2016.read(text))
    assert found.fault == fault
    assert told in str(found)


def test_a_share_is_read_in_any_case_with_blanks_or_without_dashes() -> None:
    expected = shares2016.read(SHARE)
    for text in (SHARE.lower(), SHARE.replace("-", " "), SHARE.replace("-", ""), f" {SHARE}-\n"):
        assert shares2016.read(text) == expected
    assert SHARE not in repr(expected)


@given(st.text(max_size=40) | st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567-", max_size=40))
def test_any_text_is_a_share_or_is_named(text: str) -> None:
    try:
        shares2016.read(text)
    except ShareError as exc:
        assert str(exc)


# --- the entry --------------------------------------------------------------------------------------------------------


def test_an_entry_as_it_was_meant_gives_the_master_keys() -> None:
    held = recovery2016.hold(json.dumps(INTENDED["entry"]))
    for pair in itertools.permutations(INTENDED["shares"], 2):
        (secret,) = shares2016.combine([shares2016.read(text) for text in pair], held.entries)
        found = recovery2016.open_entry(held, secret)
        named = legacy.read_json(INTENDED["plaintext"])["EscrowedKeySet"]["PrivateKeys"]
        assert [found.mesh, *(key.udf for key in found.escrow)] == [key["kid"] for key in named]
        assert found.identifier == INTENDED["entry"]["OfflineEscrowEntry"]["Identifier"]
        assert recovery2016.standing(held, found) is None
        assert load_pem_private_key(found.master.pem().encode(), None).key_size == found.master.bits == 2048  # type: ignore[union-attr]
        assert "PRIVATE" not in repr(found)


@pytest.mark.parametrize("month", ["jan", "mar"])
def test_an_entry_that_the_2016_program_published_opens_to_nobody_and_is_named_so(month: str) -> None:
    capture = json.loads((VECTORS / "captures" / f"reference-{month}2016.json").read_text())
    held = recovery2016.hold(capture["mesh_jlog"])
    (secret,) = shares2016.combine([shares2016.read(text) for text in capture["escrow_shares"][:2]], held.entries)
    with pytest.raises(DecryptError, match="threw away at once"):
        recovery2016.open_entry(held, secret)


def master_keys() -> list[dict[str, Any]]:
    """Of the mesh in the log of January: the signature key, then the escrow key."""
    (profile,) = recovery2016.hold(JANUARY["mesh_jlog"]).profiles.values()
    tagged = profile["SignedPersonalProfile"]["SignedData"]["payload"]
    body = legacy.read_json(base64url.decode_lenient(tagged).decode())["PersonalProfile"]
    master = base64url.decode_lenient(body["SignedMasterProfile"]["SignedData"]["payload"]).decode()
    told = legacy.read_json(master)["MasterProfile"]
    wanted = [told["MasterSignatureKey"]["UDF"], told["MasterEscrowKeys"][0]["UDF"]]
    by_name = {key["kid"]: key for key in JANUARY["private_keys"]}
    return [by_name[name] for name in wanted]


@pytest.mark.parametrize("form", ["bare", "tagged", "named"])
def test_in_a_whole_log_the_profile_of_the_recovered_mesh_is_found_and_verified(form: str) -> None:
    bare: list[Any] = master_keys()
    forms: dict[str, list[Any] | dict[str, Any]] = {
        "bare": bare,
        "tagged": [{"PrivateKeyRSA": key} for key in bare],
        "named": {"MasterSignatureKey": bare[0], "MasterEscrowKeys": bare[1:]},
    }
    entry = entry_of(SECRET, forms[form])
    log = JANUARY["mesh_jlog"] + json.dumps({"DataItem": {"Text": json.dumps(entry)}})
    held = recovery2016.hold(log)
    (secret,) = shares2016.combine([shares2016.read(text) for text in split(SECRET, 2, 3)[1:]], held.entries)
    found = recovery2016.open_entry(held, secret)
    standing = recovery2016.standing(held, found)
    assert standing is not None
    assert (standing.devices, standing.escrow_named) == (2, True)
    lone = recovery2016.Recovered(found.identifier, found.master, ())
    assert recovery2016.standing(held, lone) == recovery2016.Standing(2, False)


def test_an_answer_of_a_portal_is_read_and_a_bad_record_leaves_the_others() -> None:
    entry = entry_of(SECRET, master_keys())
    answer = json.dumps({"GetResponse": {"Status": 201, "Entries": [entry]}})
    assert list(recovery2016.hold(answer).entries) == [shares2016.identifier(SECRET)]
    log = json.dumps({"DataItem": {"Text": "{"}}) + json.dumps({"DataItem": {"Text": json.dumps(entry)}})
    assert list(recovery2016.hold(log).entries) == [shares2016.identifier(SECRET)]


def test_what_is_no_entry_is_refused() -> None:
    secret = shares2016.Secret(SECRET, EXACT)
    with pytest.raises(NotFound):
        recovery2016.open_entry(recovery2016.hold("{}"), secret)
    for keys in ([], [{"n": "AQAB"}], ["x"], [{**master_keys()[0], "kid": master_keys()[1]["kid"]}]):
        with pytest.raises(FormatError):
            recovery2016.open_entry(recovery2016.hold(json.dumps(entry_of(SECRET, keys))), secret)
    changed = entry_of(SECRET, master_keys())
    changed["OfflineEscrowEntry"]["EncryptedData"]["protected"] = base64url.encode(b'{"alg": "A256GCM"}')
    with pytest.raises(FormatError):
        recovery2016.open_entry(recovery2016.hold(json.dumps(changed)), secret)
    with pytest.raises(FormatError):
        recovery2016.hold("x" * (recovery2016.MAX_TEXT + 1))


@given(
    st.recursive(
        st.none() | st.text(max_size=8),
        lambda inner: st.dictionaries(
            st.sampled_from(
                [
                    "OfflineEscrowEntry",
                    "GetResponse",
                    "Entries",
                    "DataItem",
                    "Text",
                    "Identifier",
                    "EncryptedData",
                    "SignedPersonalProfile",
                ]
            ),
            inner | st.lists(inner, max_size=2),
            max_size=4,
        ),
        max_leaves=8,
    )
)
def test_any_json_is_held_or_refused(value: Any) -> None:
    try:
        held = recovery2016.hold(json.dumps(value))
        for name in held.entries:
            assert type(name) is str
    except FormatError:
        pass
