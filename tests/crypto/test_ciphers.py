"""Agreement on a cipher, and keys that bind it to everything both ends said."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from base.errors import RemoteProtocolError
from crypto.ciphers import Cipher, choose, datagram_key, offer, transcript
from native import lib

BOTH = "aes-256-gcm secretbox"
KEY = bytes(range(32))


@pytest.mark.parametrize(
    ("dialler", "acceptor", "cipher"),
    [
        (BOTH, BOTH, Cipher.GCM),
        (BOTH, "secretbox", Cipher.SECRETBOX),
        ("secretbox", BOTH, Cipher.SECRETBOX),
        (BOTH, None, Cipher.SECRETBOX),  # a Weave peer
        (None, BOTH, Cipher.SECRETBOX),
        (None, None, Cipher.SECRETBOX),
        ("secretbox aes-256-gcm", BOTH, Cipher.SECRETBOX),  # the dialler's order decides
        (BOTH, "secretbox aes-256-gcm", Cipher.GCM),
        ("future-1 aes-256-gcm", "aes-256-gcm future-1", Cipher.GCM),
        ("none", "none", Cipher.SECRETBOX),  # clear text is nobody's to ask for here
        ("", "", Cipher.SECRETBOX),
        ("aes-256-gcm", "AES-256-GCM", Cipher.SECRETBOX),
    ],
)
def test_choice(dialler: str | None, acceptor: str | None, cipher: Cipher) -> None:
    assert choose(dialler, acceptor) is cipher


def test_absurd_offers_are_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="WeftCiphers"):
        choose(BOTH, "x" * 257)
    with pytest.raises(RemoteProtocolError, match="WeftCiphers"):
        choose("x " * 200, None)


@given(st.text(max_size=100), st.text(max_size=100))
def test_any_offers_end_in_a_cipher(dialler: str, acceptor: str) -> None:
    assert choose(dialler, acceptor) in (Cipher.SECRETBOX, Cipher.GCM)


def test_our_offer_names_what_this_cpu_does_well() -> None:
    names = offer().split()
    assert names[-1] == "secretbox"
    assert ("aes-256-gcm" in names) == bool(lib.wn_cipher_offered(lib.WN_CIPHER_GCM))


def test_labels_and_overheads() -> None:
    assert [cipher.label for cipher in Cipher] == ["none", "secretbox", "aes-256-gcm"]
    assert [cipher.overhead for cipher in Cipher] == [62, 86, 86]


def test_secretbox_keeps_the_session_key() -> None:
    assert datagram_key(Cipher.SECRETBOX, KEY, bytes(32)) == KEY
    with pytest.raises(ValueError, match="no cipher"):
        datagram_key(Cipher.NONE, KEY, bytes(32))


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_gcm_key_is_hkdf(session: bytes, digest: bytes) -> None:
    oracle = HKDF(hashes.SHA256(), length=32, salt=digest, info=b"weftnet sleeve key 1 aes-256-gcm")
    assert datagram_key(Cipher.GCM, session, digest) == oracle.derive(session)


parts = st.tuples(*[st.binary(max_size=40)] * 4)


@given(parts, parts)
def test_transcripts_differ_when_anything_differs(
    one: tuple[bytes, ...], other: tuple[bytes, ...]
) -> None:
    assert (transcript(*one) == transcript(*other)) == (one == other)


def test_transcript_by_hand() -> None:
    text = b"weftnet transcript 1" + b"".join(
        len(part).to_bytes(4, "big") + part for part in (b"D" * 32, b"A" * 32, b"map1", b"map 2")
    )
    digest = transcript(b"D" * 32, b"A" * 32, b"map1", b"map 2")
    assert digest == hashlib.sha256(text).digest()
