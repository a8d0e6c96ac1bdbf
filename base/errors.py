"""Root of the error tree. Every error that crosses a room's border is one of these.

ConfigError is the user's to mend, ProtocolError names whose fault bad bytes are, CryptoError
what became of a box, PathError and PlatformError carry the numbers a caller needs to act.
"""

from __future__ import annotations


class WeftError(Exception):
    """Any error raised on purpose by this program."""


class ConfigError(WeftError):
    """The user's input is wrong; the message names the option and the remedy.

    It stays one line even where it repeats what the user gave, line ends and all.
    """

    def __str__(self) -> str:
        return "".join(
            char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
            for char in super().__str__()
        )


class ProtocolError(WeftError):
    """A rule of a wire protocol was broken; see the two subclasses."""


class LocalProtocolError(ProtocolError):
    """We broke it: a bug of ours."""


class RemoteProtocolError(ProtocolError):
    """The other end broke it: closes one connection, never the process."""


class CryptoError(WeftError):
    """A key or a box is not as it has to be; the message never holds key material."""


class DecryptError(CryptoError):
    """A box does not open: altered on its way, or sealed under another key."""


class ReplayError(CryptoError):
    """A box opened, but its sequence number was used before or is too old to tell."""


class NonceExhaustedError(CryptoError):
    """No nonce is left under this key: the connection needs a new one."""


class PasswordMismatchError(CryptoError):
    """The first sealed message of a connection does not open: the passwords differ."""


class PathError(WeftError):
    """The underlay path cannot do what was asked."""


class UnderlayError(PathError):
    """Sending failed with ``errno``."""

    def __init__(self, message: str, errno: int) -> None:
        super().__init__(message)
        self.errno = errno


class PlatformError(WeftError):
    """The kernel or a tool refused: ``operation`` on ``subject`` gave ``errno`` (0: none)."""

    def __init__(self, operation: str, subject: str, reason: str, errno: int = 0) -> None:
        super().__init__(f"{operation} {subject}: {reason}")
        self.operation = operation
        self.subject = subject
        self.errno = errno


class CaptureError(PlatformError):
    """The TAP or packet socket cannot be had or used."""


class NetlinkError(PlatformError):
    """A link, address or route operation failed."""


class CniError(WeftError):
    """What a CNI plugin tells its runtime instead of a result; see :mod:`cni.codes`.

    ``code`` is the CNI specification's or one of ours, ``message`` one line, ``details`` as long as
    it has to be.
    """

    def __init__(self, code: int, message: str, details: str = "") -> None:
        super().__init__(f"{message}: {details}" if details else message)
        self.code = code
        self.message = message
        self.details = details


class NftError(PlatformError):
    """A transaction or listing of the packet filter failed; nothing of it was carried out."""


class AllocationError(WeftError):
    """A request to the address allocator cannot be met; the text is one line for the user."""


class RequestCancelledError(AllocationError):
    """The caller left, the container died, or the allocator was shut down."""


class OutOfBoundsError(AllocationError):
    """The subnet lies outside the range that is allocated from."""


class ClaimConflictError(AllocationError):
    """The address is somebody else's."""


class NotHeldError(AllocationError):
    """Nothing to free: no such address under that name."""


class NoAddressError(AllocationError):
    """The caller's deadline passed; the text says what was waited for."""


class TakeOverRefusedError(AllocationError):
    """The peer is alive, or its nickname is not unique."""


class NotStoredError(AllocationError):
    """The outcome could not be made durable and was undone; the text ends with the reason."""
