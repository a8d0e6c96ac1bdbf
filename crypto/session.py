"""The sleeve side of one encrypted connection, datagram by datagram: nonces, counters, windows.

     0             6                         14           30
    +-------------+-------------------------+------------+------------------------+
    | sender name | DF bit (63) + sequence  | tag        | ciphertext of records  |
    +-------------+-------------------------+------------+------------------------+

Each sender numbers the datagrams of its DF channel and those of its other channel apart, from 0.
The role of the sender in the TCP connection (dialler or not) is part of the nonce, so the two
directions share a key and no nonce. Whoever receives keeps a replay window per channel and changes
it only for what has authenticated.

The router's hot path does the same for whole batches in C (``native/src/seal.c`` and ``open.c``).
This class is for what has no batch: simulated nodes, tools and tests. Never give one key to both.

Ref: spec sleeve 5.2 to 5.4; docs/cipher.md.
"""

from __future__ import annotations

from typing import Any, Final

from base.errors import DecryptError, NonceExhaustedError, ReplayError
from crypto.ciphers import Cipher
from native import ffi, lib

NAME_LEN: Final[int] = lib.WN_NAME_LEN
SEALED_MIN: Final[int] = lib.WN_SEALED_MIN
SEQUENCE_END: Final[int] = 1 << lib.WN_SEQUENCE_BITS
_DF_BIT: Final = 1 << 63


class ReplayWindow:
    """Which sequence numbers of one channel were used; two windows of 2^20 (spec sleeve 5.4)."""

    __slots__ = ("_c",)

    def __init__(self) -> None:
        handle = lib.wn_window_new()
        if handle == ffi.NULL:
            raise MemoryError("no memory for a replay window")
        self._c: Any = ffi.gc(handle, lib.wn_window_free)

    def accept(self, sequence: int) -> bool:
        """Use the number up; False if it was used before or is too old. Authenticate first."""
        return bool(lib.wn_window_accept(self._c, sequence))

    @property
    def current(self) -> int:
        """Number of the newest window."""
        return int(lib.wn_window_current(self._c))

    @property
    def memory_bytes(self) -> int:
        """What the bitmaps take just now."""
        return int(lib.wn_window_bytes(self._c))


class SleeveSession:
    """Seals and opens one datagram at a time. ``outbound``: we dialled the TCP connection."""

    __slots__ = ("_cipher", "_key", "_next", "_outbound", "_windows")

    def __init__(self, key: bytes, outbound: bool, cipher: Cipher = Cipher.SECRETBOX) -> None:
        if len(key) != lib.WN_KEY_LEN or cipher is Cipher.NONE:
            raise ValueError("a session needs a cipher and a key of 32 bytes")
        self._key = key
        self._outbound = outbound
        self._cipher = cipher
        self._next = [0, 0]
        self._windows = (ReplayWindow(), ReplayWindow())

    def next_sequence(self, *, df: bool) -> int:
        """Number of the next datagram on a channel."""
        return self._next[df]

    def skip_to(self, sequence: int, *, df: bool) -> None:
        """Leave numbers out; never backwards."""
        if not self._next[df] <= sequence <= SEQUENCE_END:
            raise ValueError("sequence numbers only grow")
        self._next[df] = sequence

    def seal(self, sender: bytes, records: bytes, *, df: bool) -> bytes:
        """The datagram with these records; ``sender`` is our own name, 6 bytes.

        Raises:
            NonceExhaustedError: the channel has no number left.
            ValueError: it would be longer than UDP can carry.
        """
        sequence = self._next[df]
        if sequence >= SEQUENCE_END:
            raise NonceExhaustedError("no sequence number left on this connection")
        size = SEALED_MIN + len(records)
        buffer = ffi.new("uint8_t[]", size)
        ffi.memmove(buffer, sender, NAME_LEN)
        ffi.memmove(buffer + SEALED_MIN, records, len(records))
        field = sequence | (_DF_BIT if df else 0)
        code = lib.wn_datagram_seal(self._cipher, self._key, self._outbound, field, buffer, size)
        if code != lib.WN_OK:
            raise ValueError(f"a datagram of {size} bytes cannot be sealed")
        self._next[df] = sequence + 1
        return bytes(ffi.buffer(buffer))

    def open(self, datagram: bytes) -> tuple[bool, bytes]:
        """Whether it came on the DF channel, and its records.

        Raises:
            DecryptError: it is too short, was altered, or was not sealed for us.
            ReplayError: it is authentic and came before, or is too old to tell.
        """
        size = len(datagram)
        buffer = ffi.new("uint8_t[]", max(size, 1))
        ffi.memmove(buffer, datagram, size)
        code = lib.wn_datagram_open(self._cipher, self._key, not self._outbound, buffer, size)
        if code == lib.WN_ERR_TRUNCATED:
            raise DecryptError(f"{size} bytes are no sealed datagram")
        if code != lib.WN_OK:
            raise DecryptError("datagram does not open")
        field = int.from_bytes(datagram[NAME_LEN : NAME_LEN + 8], "big")
        df = bool(field & _DF_BIT)
        sequence = field & ~_DF_BIT
        if not self._windows[df].accept(sequence):
            raise ReplayError(f"sequence number {sequence} was used or is too old")
        return df, bytes(ffi.buffer(buffer))[SEALED_MIN:]
