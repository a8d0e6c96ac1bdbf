"""AES-256-GCM datagrams: an independent construction as oracle, and both back ends."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from native import ffi, lib
from tests.native.test_secretbox import NAME, fields, keys, open_, seal

pytestmark = pytest.mark.native

GCM = lib.WN_CIPHER_GCM


@pytest.fixture(params=["fastest", "portable"], autouse=True, scope="module")
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every test runs on IPsec-MB, if it was built in, and on OpenSSL."""
    lib.wn_cipher_set_portable(request.param == "portable")
    yield request.param
    lib.wn_cipher_set_portable(0)


def oracle(records: bytes, key: bytes, field: int, *, dialled: bool) -> bytes:
    """The datagram as docs/cipher.md describes it."""
    role = b"\x80" if dialled else b"\x00"
    wire_field = field.to_bytes(8, "big")
    epoch = (field & (1 << 63) - 1) >> 20
    info = b"weftnet aes-256-gcm" + role + bytes([field >> 63]) + epoch.to_bytes(8, "big")
    subkey = hmac.digest(key, info, hashlib.sha256)
    sealed = AESGCM(subkey).encrypt(role + bytes(3) + wire_field, records, NAME + wire_field)
    return NAME + wire_field + sealed[-16:] + sealed[:-16]


@given(st.binary(max_size=2000), keys, fields, st.booleans())
def test_follows_its_description(records: bytes, key: bytes, field: int, dialled: bool) -> None:
    datagram = oracle(records, key, field, dialled=dialled)
    assert seal(records, key, field, dialled=dialled, cipher=GCM) == datagram
    assert open_(datagram, key, dialled=dialled, cipher=GCM) == records
    assert open_(datagram, key, dialled=not dialled, cipher=GCM) is None


@pytest.mark.parametrize("size", [*range(70), 255, 256, 257, 1408, 65477])
def test_every_length_around_a_block(size: int) -> None:
    key, field = bytes(range(32)), 3 << 20 | 9
    records = bytes(index * 7 & 255 for index in range(size))
    datagram = seal(records, key, field, dialled=True, cipher=GCM)
    assert datagram == oracle(records, key, field, dialled=True)
    assert open_(datagram, key, dialled=True, cipher=GCM) == records


@given(st.binary(max_size=100), st.integers(min_value=0), st.integers(0, 7))
def test_any_flipped_bit_is_noticed(records: bytes, place: int, bit: int) -> None:
    key = bytes(range(32))
    datagram = bytearray(seal(records, key, 5, dialled=True, cipher=GCM))
    datagram[place % len(datagram)] ^= 1 << bit  # the sender's name included
    assert open_(bytes(datagram), key, dialled=True, cipher=GCM) is None


@given(st.binary(max_size=300))
def test_arbitrary_bytes_never_open(data: bytes) -> None:
    assert open_(data, bytes(range(32)), dialled=True, cipher=GCM) is None


def test_what_does_the_work(backend: str) -> None:
    name = ffi.string(lib.wn_cipher_backend(GCM)).decode()
    assert name in ({"openssl"} if backend == "portable" else {"openssl", "ipsec-mb"})
    assert ffi.string(lib.wn_cipher_backend(9)) == b""
    assert lib.wn_cipher_offered(lib.WN_CIPHER_SECRETBOX) == 1
    assert lib.wn_cipher_offered(lib.WN_CIPHER_NONE) == 0


def test_offered_only_with_aes_instructions() -> None:
    cpu = Path("/proc/cpuinfo").read_text(encoding="ascii")
    flags = next((line.split() for line in cpu.splitlines() if line.startswith("flags")), [])
    assert bool(lib.wn_cipher_offered(GCM)) == ({"aes", "pclmulqdq"} <= set(flags))
