"""Every error that meshd names, as one tree.

The first line of a class's docstring is the sentence that a person reads when nothing more is known;
`code` is the stable word that the local API carries and that meshctl maps to an exit code.
Raise in the words of the specification where the fault is noticed; stop it once, at the edge.
"""

from __future__ import annotations


class MeshError(Exception):
    """Something went wrong."""

    code = "error"

    def __init__(self, message: str = "", *, hint: str | None = None) -> None:
        super().__init__(message or self.sentence())
        self.hint = hint

    @classmethod
    def sentence(cls) -> str:
        """The first line of the class's docstring."""
        return (cls.__doc__ or cls.__name__).strip().splitlines()[0]


class FormatError(MeshError):
    """The data does not have the form that it should have."""

    code = "format"


class TrustError(MeshError):
    """The data is well formed, but nobody entitled to write it has signed it."""

    code = "trust"


class SignatureError(TrustError):
    """A signature does not verify."""

    code = "signature"


class ProofError(TrustError):
    """A proof about a log does not verify."""

    code = "proof"


class UnknownSigner(TrustError):
    """The signer is not a device of this mesh."""

    code = "unknown-signer"


class DecryptError(MeshError):
    """The data can't be decrypted with the keys that this device holds."""

    code = "decrypt"


class StoreError(MeshError):
    """The store on disk can't be read or written."""

    code = "store"


class StoreDamaged(StoreError):
    """The store on disk is damaged."""

    code = "store-damaged"


class StoreTooNew(StoreError):
    """The store was written by a newer release of meshd."""

    code = "store-too-new"


class StoreBusy(StoreError):
    """Another meshd is running on this home."""

    code = "store-busy"


class DiskFull(StoreError):
    """The disk is full."""

    code = "disk-full"


class ProtocolError(MeshError):
    """The conversation broke its rules."""

    code = "protocol"


class LocalProtocolError(ProtocolError):
    """This side tried a step that the conversation does not allow."""

    code = "local-protocol"


class RemoteProtocolError(ProtocolError):
    """The other side broke the rules of the conversation."""

    code = "remote-protocol"


class NetworkError(MeshError):
    """The other side can't be reached."""

    code = "network"


class Refused(MeshError):
    """A person or the other side said no."""

    code = "refused"


class CodeError(Refused):
    """The code was wrong."""

    code = "wrong-code"


class PossibleAttack(MeshError):
    """What arrived contradicts what was verified before: this may be an attack."""

    code = "possible-attack"


class Locked(MeshError):
    """This device is locked."""

    code = "locked"

    def __init__(self, message: str = "", *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint or "run: meshctl unlock")


class WrongPassphrase(MeshError):
    """The passphrase is wrong."""

    code = "wrong-passphrase"


class NotConnected(MeshError):
    """This device is not connected to a mesh."""

    code = "not-connected"

    def __init__(self, message: str = "", *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint or "run: meshctl init, or meshctl connect CODE")


class NotFound(MeshError):
    """There is no such thing."""

    code = "not-found"


class Ambiguous(MeshError):
    """More than one thing matches."""

    code = "ambiguous"


class Exists(MeshError):
    """It exists already."""

    code = "exists"


class Denied(MeshError):
    """This device or user may not do that."""

    code = "denied"


class NotSynced(MeshError):
    """The devices did not agree in the time given."""

    code = "not-synced"


class BadRequest(MeshError):
    """The request makes no sense."""

    code = "usage"


class VersionMismatch(MeshError):
    """The two programs are of releases that do not fit together."""

    code = "version-mismatch"
