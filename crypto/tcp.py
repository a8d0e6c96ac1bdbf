"""Sealed messages of a mesh connection: XSalsa20-Poly1305 under a nonce that is never sent.

     0           1                    16                       24
    +-----------+--------------------+--------------------------+
    | D1000000b | zero (15)          | message counter (8)      |   nonce
    +-----------+--------------------+--------------------------+
    D = 1 when the sender of the message dialled

Each direction counts from 0, one per message; in version 2 message 0 is the feature map. A box is
16 bytes of authenticator, then the ciphertext. The length prefix around it is the framing's
(:mod:`mesh`), and so is the limit of its size.

TCP keeps the order, so one box that does not open ends the connection: everything behind it would
be opened under the wrong counter.

Ref: spec mesh 4.2, 4.3; Weave Net 2.8.1 mesh/crypto.go, encryptTCPMsg.
"""

from __future__ import annotations

from typing import Final

import nacl.bindings
import nacl.exceptions

from base.errors import DecryptError, NonceExhaustedError

TAG_LEN: Final = 16
COUNTER_END: Final = 1 << 64
_TCP_BIT: Final = 0x40
_DIALER_BIT: Final = 0x80


class _Counter:
    """Nonces of one direction, each given out once."""

    __slots__ = ("_head", "next")

    def __init__(self, *, dialer_sends: bool, start: int) -> None:
        self._head = bytes([_TCP_BIT | (_DIALER_BIT if dialer_sends else 0)]) + bytes(15)
        #: The counter of the next message.
        self.next = start

    def nonce(self) -> bytes:
        if self.next >= COUNTER_END:
            raise NonceExhaustedError("no message counter left on this connection")
        return self._head + self.next.to_bytes(8, "big")


class TcpSealer:
    """Seals what we send. ``outbound``: we dialled this connection."""

    __slots__ = ("_counter", "_key")

    def __init__(self, key: bytes, outbound: bool, *, start: int = 0) -> None:
        self._key = key
        self._counter = _Counter(dialer_sends=outbound, start=start)

    @property
    def counter(self) -> int:
        """Of the next message."""
        return self._counter.next

    def seal(self, message: bytes) -> bytes:
        """The box of the next message, 16 bytes longer than it.

        Raises:
            NonceExhaustedError: 2^64 messages were sealed.
        """
        box = nacl.bindings.crypto_secretbox(message, self._counter.nonce(), self._key)
        self._counter.next += 1
        return box


class TcpOpener:
    """Opens what the peer sends. ``outbound``: we dialled this connection (so the peer did not)."""

    __slots__ = ("_counter", "_key")

    def __init__(self, key: bytes, outbound: bool, *, start: int = 0) -> None:
        self._key = key
        self._counter = _Counter(dialer_sends=not outbound, start=start)

    @property
    def counter(self) -> int:
        """Of the next message."""
        return self._counter.next

    def open(self, box: bytes) -> bytes:
        """The message in the next box.

        Raises:
            DecryptError: it is not what the peer sealed next; the connection must be closed.
            NonceExhaustedError: 2^64 messages were opened.
        """
        nonce = self._counter.nonce()
        if len(box) < TAG_LEN:
            raise DecryptError(f"message {self._counter.next}: {len(box)} bytes are no box")
        try:
            message = nacl.bindings.crypto_secretbox_open(box, nonce, self._key)
        except nacl.exceptions.CryptoError as err:
            raise DecryptError(f"message {self._counter.next} does not open") from err
        self._counter.next += 1
        return message
