"""From bytes to versions, off the trio thread: parse and check signatures in batches (two at a time).

libsodium and the CBOR and JSON readers let go of the interpreter for most of it, so two batches run side by side
while the
event loop and the writer go on. Nothing here touches the store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import trio

from meshd.errors import FormatError, MeshError, TrustError, UnknownSigner
from meshd.profile import version
from meshd.profile.claim import Kind
from meshd.profile.version import Version
from meshd.store.replica import Directory

INLINE = 4  # so few are checked at once: a hop to a thread costs as much as a signature
_threads = trio.CapacityLimiter(2)


@dataclass(frozen=True, slots=True)
class Verified:
    """A batch after its check. `unknown` are well formed, by signers that no profile held here lists yet."""

    versions: tuple[Version, ...]
    unknown: tuple[bytes, ...]
    refused: tuple[str, ...]  # why: malformed or wrongly signed


def combined(parts: Sequence[Verified]) -> Verified:
    """Several checks as one, in order."""
    if len(parts) == 1:
        return parts[0]
    return Verified(
        tuple(one for part in parts for one in part.versions),
        tuple(raw for part in parts for raw in part.unknown),
        tuple(why for part in parts for why in part.refused),
    )


def check(raws: Sequence[bytes], expected: Sequence[bytes | None], directory: Directory) -> Verified:
    """Verify entries. `expected` are the vids that they were announced under, None where they were not."""
    versions: list[Version] = []
    unknown: list[bytes] = []
    refused: list[str] = []
    for raw, vid in zip(raws, expected, strict=True):
        try:
            parsed = version.parse(raw)
            if vid is not None and parsed.claim.vid != vid:
                raise FormatError("a version that is not the one announced")
            verified = version.verify(parsed, directory)
            if verified.kind in (Kind.MASTER, Kind.PERSONAL):
                directory.learn(verified)  # what follows in this batch may be signed by a device that this one lists
            versions.append(verified)
        except UnknownSigner:
            unknown.append(raw)
        except (FormatError, TrustError) as exc:
            refused.append(str(exc))
        except MeshError as exc:
            refused.append(f"{exc.code}: {exc}")
    return Verified(tuple(versions), tuple(unknown), tuple(refused))


async def verify(raws: Sequence[bytes], expected: Sequence[bytes | None], directory: Directory) -> Verified:
    """As `check`, in a thread where that pays."""
    if len(raws) <= INLINE:
        return check(raws, expected, directory)
    return await trio.to_thread.run_sync(check, raws, expected, directory, limiter=_threads)
