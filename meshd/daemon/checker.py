"""The helper's own program: parse and verify items, lot after lot, in a process that shares no interpreter lock.

It reads lots from stdin and writes what it can vouch for to stdout, each as a length of four bytes and MessagePack. It
holds no secrets, opens nothing, and ends when stdin does, so also when the daemon is killed.
"""

from __future__ import annotations

import gc
import sys
from typing import BinaryIO

import msgspec

from meshd.crypto.keys import VerifyKey
from meshd.errors import MeshError
from meshd.profile import version
from meshd.profile.vouched import Vouched, vouch

HEAD = 4
READY = b"\0\0\0\0"  # the first thing said


class Lot(msgspec.Struct, array_like=True):
    """Entries with the vids that they were announced under (empty where they were not), and the keys of signers that
    were not told before."""

    raws: list[bytes]
    vids: list[bytes]
    keys: dict[str, bytes]


class Keys:
    """The signing keys that the daemon told."""

    def __init__(self) -> None:
        self._keys: dict[str, VerifyKey] = {}

    def learn(self, keys: dict[str, bytes]) -> None:
        for signer, public in keys.items():
            key = VerifyKey.from_public(public)
            if key.udf == signer:
                self._keys[signer] = key

    def signing_key(self, signer: str) -> VerifyKey | None:
        return self._keys.get(signer)


def checked(lot: Lot, keys: Keys) -> list[Vouched | None]:
    """What can be said for each entry; None where there is anything at all to say against it, or it is no item."""
    keys.learn(lot.keys)
    return [_checked(raw, vid, keys) for raw, vid in zip(lot.raws, lot.vids, strict=True)]


def _checked(raw: bytes, vid: bytes, keys: Keys) -> Vouched | None:
    try:
        parsed = version.parse(raw)
        if vid and parsed.claim.vid != vid:
            return None
        return vouch(version.verify(parsed, keys))
    except MeshError:
        return None  # the daemon looks itself, and says why


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer lots until there are no more."""
    keys = Keys()
    lots, answers = msgspec.msgpack.Decoder(Lot), msgspec.msgpack.Encoder()
    sink.write(READY)
    sink.flush()
    while len(head := source.read(HEAD)) == HEAD:
        lot = lots.decode(source.read(int.from_bytes(head, "big")))
        answer = answers.encode(checked(lot, keys))
        sink.write(len(answer).to_bytes(HEAD, "big") + answer)
        sink.flush()


if __name__ == "__main__":
    gc.disable()  # nothing here forms cycles
    serve(sys.stdin.buffer, sys.stdout.buffer)
