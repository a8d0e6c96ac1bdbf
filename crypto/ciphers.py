"""Which cipher two nodes use for their datagrams, and the key they give it.

A Weave peer knows secretbox under the session key, and so do we. Two Weftnet nodes that both run on
CPUs with AES instructions agree on AES-256-GCM: each puts its list into the feature map under a key
that Weave ignores, and the first of the dialler's list that the acceptor also has is taken.

The feature maps travel sealed under the session key, which takes the password to make; a third
party can therefore neither strike the offer out nor put one in. What is more, the key of a cipher
other than secretbox is derived from everything both ends said, so ends that were told different
things have different keys and exchange nothing.

Ref: docs/cipher.md; RFC 5869 (HKDF).
"""

from __future__ import annotations

import hashlib
import hmac
from enum import IntEnum
from typing import Final

from base.errors import RemoteProtocolError
from native import lib

#: Key in the feature map; its value is a list of cipher names separated by blanks.
FEATURE: Final = "WeftCiphers"
_OFFER_MAX: Final = 256
_KEY_INFO: Final = b"weftnet sleeve key 1 "
_TRANSCRIPT_HEAD: Final = b"weftnet transcript 1"


class Cipher(IntEnum):
    """How the datagrams of a connection are protected; values are those of the C code."""

    NONE = lib.WN_CIPHER_NONE
    SECRETBOX = lib.WN_CIPHER_SECRETBOX
    GCM = lib.WN_CIPHER_GCM

    @property
    def label(self) -> str:
        """Its name on the wire and in reports."""
        return _LABELS[self]

    @classmethod
    def of_label(cls, label: str) -> Cipher:
        """The reverse of :attr:`label`. Raises ValueError for any other text."""
        for cipher in cls:
            if cipher.label == label:
                return cipher
        raise ValueError(f'"{label}" is no cipher')

    @property
    def overhead(self) -> int:
        """Bytes around an inner IP packet, outer IP header to inner Ethernet (spec: sleeve 9.1)."""
        return int(lib.WN_OVERHEAD_ENCRYPTED if self else lib.WN_OVERHEAD_PLAIN)


_LABELS: Final = {
    Cipher.NONE: "none",
    Cipher.SECRETBOX: "secretbox",
    Cipher.GCM: "aes-256-gcm",
}
_BY_LABEL: Final = {cipher.label: cipher for cipher in Cipher if cipher is not Cipher.NONE}


def offer() -> str:
    """Our value of the feature: the ciphers worth using on this CPU, best first."""
    return " ".join(
        cipher.label for cipher in (Cipher.GCM, Cipher.SECRETBOX) if lib.wn_cipher_offered(cipher)
    )


def choose(dialler_offer: str | None, acceptor_offer: str | None) -> Cipher:
    """The cipher of a connection; None is a feature map without the key (a Weave peer).

    Names that we don't know are passed over. Secretbox needs no offer.

    Raises:
        RemoteProtocolError: an offer is absurdly long.
    """
    offers = (dialler_offer or "", acceptor_offer or "")
    if max(map(len, offers)) > _OFFER_MAX:
        raise RemoteProtocolError(f"{FEATURE} of more than {_OFFER_MAX} bytes")
    accepted = set(offers[1].split())
    for label in offers[0].split():
        if label in accepted and label in _BY_LABEL:
            return _BY_LABEL[label]
    return Cipher.SECRETBOX


def transcript(
    dialler_public: bytes, acceptor_public: bytes, dialler_features: bytes, acceptor_features: bytes
) -> bytes:
    """Digest of the handshake: both public keys and both feature messages as they were sealed.

    The feature messages are the plaintexts of message 0 of each direction, byte for byte as sent:
    the map's order is the sender's choice.
    """
    digest = hashlib.sha256(_TRANSCRIPT_HEAD)
    for part in (dialler_public, acceptor_public, dialler_features, acceptor_features):
        digest.update(len(part).to_bytes(4, "big"))
        digest.update(part)
    return digest.digest()


def datagram_key(cipher: Cipher, session_key: bytes, transcript_digest: bytes) -> bytes:
    """The key of the connection's datagrams: the session key itself for secretbox (as Weave does),
    HKDF-SHA256(session key, salt = transcript, info = label with the cipher's name) for others.
    """
    if cipher is Cipher.SECRETBOX:
        return session_key
    if cipher is Cipher.NONE:
        raise ValueError("no cipher, no key")
    extracted = hmac.digest(transcript_digest, session_key, hashlib.sha256)
    info = _KEY_INFO + cipher.label.encode("ascii")
    return hmac.digest(extracted, info + b"\x01", hashlib.sha256)
