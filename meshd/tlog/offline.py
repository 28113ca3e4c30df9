"""What a file shows to somebody who has it and a key, and nothing else: no network, no account, no store.

The file is a proof (tlog-proof) of one entry of a portal's log, or evidence that a log contradicted itself. Neither
carries a key that could be believed, so who reads it must know the log's key by another way; without one nothing of it
is proven, whatever it says.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from typing import Any

from meshd.crypto import base64url
from meshd.errors import BadRequest, FormatError, MeshError, ProofError, SignatureError
from meshd.tlog import evidence as evidences
from meshd.tlog import note as notes
from meshd.tlog import proof as proofs
from meshd.tlog.checkpoint import Checkpoint
from meshd.tlog.evidence import Evidence
from meshd.tlog.leaf import SALT_BYTES, Leaf
from meshd.tlog.note import COSIGNATURE, Note, Verifier
from meshd.tlog.policy import Policy
from meshd.tlog.proof import Proof

MAX_BYTES = max(proofs.MAX_BYTES, evidences.MAX_BYTES)


def report(data: bytes, vkeys: Sequence[str], policy: bytes | None = None) -> dict[str, Any]:
    """What `data` shows under these keys (of the log, and of witnesses) and this policy file, as JSON has it.

    `holds`: a known key of the log has signed, the proof leads there, and the policy's quorum is met. `message` says
    what is proven, or why nothing is. BadRequest for a key or a policy that is none, ProofError for such a file."""
    try:
        known = Policy.parse(policy) if policy is not None else Policy()
        keys = tuple(dict.fromkeys((*map(Verifier.parse, vkeys), *known.logs, *known.witnesses.values())))
    except FormatError as exc:
        raise BadRequest(str(exc)) from exc
    try:
        if data.startswith(proofs.HEADER.encode()):
            return _of_proof(Proof.parse(data), keys, known)
        return _of_evidence(Evidence.decode(data), keys)
    except FormatError as exc:
        raise ProofError(f"neither a proof nor evidence: {exc}") from exc


def _of_proof(proof: Proof, keys: tuple[Verifier, ...], policy: Policy) -> dict[str, Any]:
    leaf = Leaf.decode(proof.extra[SALT_BYTES:])
    checkpoint = Checkpoint.parse(proof.checkpoint.text)
    holds, message = True, f"entry {proof.index} of the log {checkpoint.origin}, under {checkpoint.size} entries"
    try:
        _need_log(checkpoint.origin, keys)
        proof.verify(leaf.hash(), keys, policy)
    except MeshError as exc:
        holds, message = False, str(exc)
    said = {"kind": "proof", "holds": holds, "message": message, "origin": checkpoint.origin, "size": checkpoint.size}
    entry = {
        "id": leaf.pkey,
        "version": base64url.encode(leaf.vid),
        "action": leaf.action,
        "transaction": leaf.tid,
        "added": _date(leaf.added),
        "content": leaf.content.hex(),
    }
    return said | {"index": proof.index, "entry": entry} | _signed(proof.checkpoint, checkpoint.origin, keys)


def _of_evidence(found: Evidence, keys: tuple[Verifier, ...]) -> dict[str, Any]:
    second = Checkpoint.parse(found.second.text)
    holds = True
    try:
        _need_log(found.origin, keys)
        evidences.check(found, keys)
        message = found.sentence()
    except MeshError as exc:
        holds, message = False, str(exc)
    said = {"kind": "evidence", "holds": holds, "message": message, "origin": found.origin, "size": second.size}
    return said | {"shows": found.kind} | _signed(found.second, found.origin, keys)


def _need_log(origin: str, keys: Iterable[Verifier]) -> None:
    if not any(one.name == origin and one.kind != COSIGNATURE for one in keys):
        raise SignatureError(f"no key of the log {origin} was given, so nobody's signature says that this is true")


def _signed(note: Note, origin: str, keys: Iterable[Verifier]) -> dict[str, Any]:
    """Who has signed the checkpoint: under a key that was given, and who is said to."""
    signers: list[dict[str, Any]] = []
    lines = {(one.name, one.key_id) for one in note.signatures}
    missing, spoiled = [], []
    for verifier in keys:
        if verifier.kind != COSIGNATURE and verifier.name != origin:
            continue
        try:
            found = notes.verified(note, [verifier])
        except SignatureError:
            spoiled.append(verifier.vkey)
            continue
        role = "witness" if verifier.kind == COSIGNATURE else "log"
        signers += [{"key": verifier.vkey, "role": role, "time": _date(one.time)} for one in found]
        missing += [] if found else [verifier.vkey]
    given = {(one.name, one.key_id) for one in keys}
    unchecked = sorted(f"{name}+{key_id.hex()}" for name, key_id in lines - given)
    return {"signers": signers, "missing": missing, "spoiled": spoiled, "unchecked": unchecked}


def _date(seconds: int | None) -> str | None:
    """RFC 3339; None for no time, and for one that no calendar has."""
    try:
        found = datetime.datetime.fromtimestamp(seconds, datetime.UTC) if seconds is not None else None
    except (ValueError, OverflowError, OSError):
        return None
    return found.strftime("%Y-%m-%dT%H:%M:%SZ") if found is not None else None
