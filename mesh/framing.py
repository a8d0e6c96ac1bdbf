"""Length-prefixed messages on a mesh connection.

    +----------------+---------------------------+
    | length (4, BE) | body (length bytes)       |   body = tag and payload, or the box around them
    +----------------+---------------------------+

The limit counts the body as it stands on the wire, so after sealing, and holds in both directions.
Source of truth: mesh specification 5, vectors ``tcp_framing.json``.
"""

from __future__ import annotations

import struct
from typing import Final

from base.errors import LocalProtocolError, RemoteProtocolError

BODY_LEN_MAX: Final = 10 * 1024 * 1024
HEADER_LEN: Final = 4
_HEADER: Final = struct.Struct("!I")


def frame(body: bytes) -> bytes:
    """Header and body.

    Raises:
        LocalProtocolError: the body is above BODY_LEN_MAX.
    """
    if len(body) > BODY_LEN_MAX:
        raise LocalProtocolError(
            f"outgoing message exceeds maximum size: {len(body)} > {BODY_LEN_MAX}"
        )
    return _HEADER.pack(len(body)) + body


class FrameReader:
    """Cuts a byte stream into bodies; holds at most one unfinished body and what was fed with it.

    ``limit`` may be lowered while the other end is not yet trusted.
    """

    def __init__(self, limit: int = BODY_LEN_MAX) -> None:
        self.limit = limit
        self._buffer = bytearray()
        self._pos = 0

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        if self._pos:
            del self._buffer[: self._pos]
            self._pos = 0
        self._buffer += data

    @property
    def pending(self) -> int:
        """Bytes that were fed and not yet handed out."""
        return len(self._buffer) - self._pos

    def next_body(self) -> bytes | None:
        """The next complete body, or None when more bytes are needed.

        Raises:
            RemoteProtocolError: the header announces more than ``limit``.
        """
        have = self.pending
        if have < HEADER_LEN:
            return None
        (length,) = _HEADER.unpack_from(self._buffer, self._pos)
        if length > self.limit:
            raise RemoteProtocolError(
                f"incoming message exceeds maximum size: {length} > {self.limit}"
            )
        if have < HEADER_LEN + length:
            return None
        start = self._pos + HEADER_LEN
        self._pos = start + length
        return bytes(self._buffer[start : self._pos])


class PlainSealer:
    """Stands where a cipher would: messages leave as they are."""

    def seal(self, message: bytes) -> bytes:
        """The message itself."""
        return message


class PlainOpener:
    """Stands where a cipher would: messages arrive as they are."""

    def open(self, box: bytes) -> bytes:
        """The message itself."""
        return box
