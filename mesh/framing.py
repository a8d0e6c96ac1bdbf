"""Messages on the byte stream of a mesh connection, in either of its forms.

Version 2:

    +----------------+---------------------------+
    | length (4, BE) | body (length bytes)       |   body = tag and payload, or the box around them
    +----------------+---------------------------+

The limit counts the body as it stands on the wire, so after sealing, and holds in both directions.
Version 1 has one gob stream per direction for as long as the connection lives: first the feature
map, then a byte slice per body. The original knows no limit there; ours is that of version 2.

Source of truth: mesh specification 3.4 and 5, vectors ``tcp_framing.json``, ``handshake.json``.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from base import gob
from base.errors import LocalProtocolError, RemoteProtocolError

BODY_LEN_MAX: Final = 10 * 1024 * 1024
HEADER_LEN: Final = 4
#: Of a gob message around a body: type, delta, and a length of up to 9 bytes.
GOB_HEAD_MAX: Final = 11
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
        if self.pending < HEADER_LEN:
            return None
        (length,) = _HEADER.unpack_from(self._buffer, self._pos)
        return self._cut(HEADER_LEN, length, self.limit)

    def _cut(self, header_len: int, length: int, limit: int) -> bytes | None:
        if length > limit:
            raise RemoteProtocolError(f"incoming message exceeds maximum size: {length} > {limit}")
        if self.pending < header_len + length:
            return None
        start = self._pos + header_len
        self._pos = start + length
        return bytes(self._buffer[start : self._pos])


class GobFrameReader(FrameReader):
    """The same of version 1; before the first body is the :meth:`opening`."""

    def __init__(self, limit: int = BODY_LEN_MAX) -> None:
        super().__init__(limit)
        self._opening = bytearray()

    def opening(self) -> Any:
        """The stream's first value, or None when more bytes are needed.

        Raises:
            RemoteProtocolError: it is no gob stream, or longer than ``limit``.
        """
        while (message := self._message()) is not None:
            self._opening += gob.encode_bytes(message)
            if len(self._opening) > self.limit + GOB_HEAD_MAX:
                raise RemoteProtocolError(f"introduction of more than {self.limit} bytes")
            try:
                return gob.Decoder(bytes(self._opening)).next()
            except gob.GobEndError:
                continue  # a type's definition; the value comes behind it
        return None

    def next_body(self) -> bytes | None:
        """As the base. Raises RemoteProtocolError also for what is no byte slice."""
        message = self._message()
        return None if message is None else gob.Decoder(gob.encode_bytes(message)).next_bytes()

    def _message(self) -> bytes | None:
        if not self.pending:
            return None
        first = self._buffer[self._pos]
        if first <= gob.SHORT_MAX:
            return self._cut(1, first, self.limit + GOB_HEAD_MAX)
        header_len = 1 + 256 - first
        if header_len > gob.UINT_LEN_MAX:
            raise RemoteProtocolError("gob: encoded unsigned integer out of range")
        if self.pending < header_len:
            return None
        start = self._pos + 1
        length = int.from_bytes(self._buffer[start : start + header_len - 1], "big")
        return self._cut(header_len, length, self.limit + GOB_HEAD_MAX)


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
