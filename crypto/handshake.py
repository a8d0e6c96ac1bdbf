"""The session key of one mesh connection: X25519, HSalsa20, and the password by SHA-256.

    shared  = HSalsa20(X25519(our private, their public), 16 zero bytes)
    session = SHA-256(shared | password)

A fresh key pair per connection; both ends know afterwards that they share the password when the
first sealed message opens, and not before. One session key serves the TCP side and the sleeve side:
their nonces never meet (:mod:`crypto.tcp`, :mod:`crypto.session`).

Ref: spec mesh 4.1; Weave Net 2.8.1 mesh/crypto.go, formSessionKey.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final, Self

import nacl.bindings
import nacl.exceptions

from base.errors import RemoteProtocolError

KEY_LEN: Final = 32


@dataclass(slots=True, frozen=True)
class KeyPair:
    """An ephemeral Curve25519 key pair: ``private`` stays here, ``public`` goes to the peer."""

    private: bytes = field(repr=False)
    public: bytes

    @classmethod
    def generate(cls) -> Self:
        """A new pair from the system's random numbers."""
        public, private = nacl.bindings.crypto_box_keypair()
        return cls(private=private, public=public)

    @classmethod
    def from_private(cls, private: bytes) -> Self:
        """The pair of a known private key (32 bytes): for vectors and recorded transcripts."""
        if len(private) != KEY_LEN:
            raise ValueError(f"a private key has {KEY_LEN} bytes, not {len(private)}")
        return cls(private=private, public=nacl.bindings.crypto_scalarmult_base(private))


def session_key(private: bytes, their_public: bytes, password: bytes) -> bytes:
    """The 32-byte key that both ends of a connection arrive at; ``password`` is not empty.

    Raises:
        RemoteProtocolError: their public key has another length, or is one of the few points that
            would give everybody the same secret.
        ValueError: the password is empty; that means no encryption, not an empty password.
    """
    if not password:
        raise ValueError("no password, no session key")
    if len(their_public) != KEY_LEN:
        raise RemoteProtocolError(f"public key of {len(their_public)} bytes")
    try:
        shared = nacl.bindings.crypto_box_beforenm(their_public, private)
    except nacl.exceptions.CryptoError as err:
        raise RemoteProtocolError("public key is a point of low order") from err
    return hashlib.sha256(shared + password).digest()
