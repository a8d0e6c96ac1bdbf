"""Sealed datagrams: real Weave Net 2.8.1, and PyNaCl as the oracle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nacl.bindings
import pytest
from hypothesis import given
from hypothesis import strategies as st

from native import ffi, lib
from tests.native.test_sleeve import encode, vector_frame

pytestmark = pytest.mark.native

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parent.parent / "vectors" / "sleeve_udp.json").read_text(encoding="utf-8")
)
NAME = b"\xce\x01\x00\x00\x00\x01"
keys = st.binary(min_size=32, max_size=32)
fields = st.integers(0, 2**64 - 1)


@pytest.fixture(params=["fastest", "portable"], autouse=True, scope="module")
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every test runs on the wide-vector code, if this CPU has it, and on the portable one."""
    lib.wn_cipher_set_portable(request.param == "portable")
    yield request.param
    lib.wn_cipher_set_portable(0)


def seal(
    records: bytes, key: bytes, field: int, *, dialled: bool, cipher: int = lib.WN_CIPHER_SECRETBOX
) -> bytes:
    data = NAME + bytes(24) + records
    buffer = ffi.new("uint8_t[]", data)
    assert lib.wn_datagram_seal(cipher, key, dialled, field, buffer, len(data)) == lib.WN_OK
    return bytes(ffi.buffer(buffer, len(data)))


def open_(
    datagram: bytes, key: bytes, *, dialled: bool, cipher: int = lib.WN_CIPHER_SECRETBOX
) -> bytes | None:
    """The records, or None; the memory is exact, so that a sanitizer sees every overrun."""
    buffer = ffi.new("uint8_t[]", len(datagram))
    ffi.memmove(buffer, datagram, len(datagram))
    code = lib.wn_datagram_open(cipher, key, dialled, buffer, len(datagram))
    after = bytes(ffi.buffer(buffer))
    if code != lib.WN_OK:
        assert after == datagram
        return None
    return after[lib.WN_SEALED_MIN :]


def nonce_of(field: int, *, dialled: bool) -> bytes:
    return bytes([0x80 if dialled else 0]) + bytes(15) + field.to_bytes(8, "big")


def vector_id(case: dict[str, Any]) -> str:
    side = "dialler" if case["sender_is_tcp_outbound"] else "acceptor"
    return f"{case['name']}-{side}-{case['sequence_number']}"


@pytest.mark.parametrize("case", VECTORS["encrypted"], ids=vector_id)
def test_recorded_datagrams_both_ways(case: dict[str, Any]) -> None:
    key = bytes.fromhex(VECTORS["encrypted_key"])
    dialled = case["sender_is_tcp_outbound"]
    field = int(case["sequence_number"]) | case["df_stream"] << 63
    records = encode(
        [
            (bytes.fromhex(item["src_peer"]), bytes.fromhex(item["dst_peer"]), vector_frame(item))
            for item in case["frames"]
        ]
    )
    assert nonce_of(field, dialled=dialled).hex() == case["nonce"]
    assert bytes.fromhex(case["sender"]) == NAME
    datagram = seal(records, key, field, dialled=dialled)
    expected = case["udp_payload"]
    assert len(datagram) == expected["length"]
    if "bytes" in expected:
        assert datagram.hex() == expected["bytes"]
    else:
        assert hashlib.sha256(datagram).hexdigest() == expected["sha256"]
    assert open_(datagram, key, dialled=dialled) == records
    assert open_(datagram, key, dialled=not dialled) is None


@given(st.binary(max_size=2000), keys, fields, st.booleans())
def test_seals_what_nacl_seals(records: bytes, key: bytes, field: int, dialled: bool) -> None:
    nonce = nonce_of(field, dialled=dialled)
    datagram = seal(records, key, field, dialled=dialled)
    assert datagram[:6] == NAME
    assert datagram[6:14] == field.to_bytes(8, "big")
    assert datagram[14:] == nacl.bindings.crypto_secretbox(records, nonce, key)


@given(st.binary(max_size=2000), keys, fields, st.booleans())
def test_opens_what_nacl_seals(records: bytes, key: bytes, field: int, dialled: bool) -> None:
    box = nacl.bindings.crypto_secretbox(records, nonce_of(field, dialled=dialled), key)
    datagram = NAME + field.to_bytes(8, "big") + box
    assert open_(datagram, key, dialled=dialled) == records


@pytest.mark.parametrize("size", [*range(130), 1023, 1024, 1025, 1408, 65477])
def test_every_length_around_a_block(size: int) -> None:
    key, field = bytes(range(32)), 1 << 63 | 77
    records = bytes(index * 7 & 255 for index in range(size))
    box = nacl.bindings.crypto_secretbox(records, nonce_of(field, dialled=False), key)
    datagram = seal(records, key, field, dialled=False)
    assert datagram[14:] == box
    assert open_(datagram, key, dialled=False) == records


@given(st.binary(max_size=100), st.integers(min_value=6), st.integers(0, 7))
def test_any_flipped_bit_is_noticed(records: bytes, place: int, bit: int) -> None:
    key = bytes(range(32))
    datagram = bytearray(seal(records, key, 5, dialled=True))
    datagram[6 + (place - 6) % (len(datagram) - 6)] ^= 1 << bit
    assert open_(bytes(datagram), key, dialled=True) is None


@given(st.binary(max_size=300), st.booleans())
def test_arbitrary_bytes_never_open(data: bytes, dialled: bool) -> None:
    assert open_(data, bytes(range(32)), dialled=dialled) is None


def test_lengths_and_ciphers_are_checked() -> None:
    buffer = ffi.new("uint8_t[]", 100)
    key = bytes(32)
    assert lib.wn_datagram_seal(1, key, 0, 0, buffer, 29) == lib.WN_ERR_RANGE
    assert lib.wn_datagram_seal(1, key, 0, 0, buffer, 65508) == lib.WN_ERR_RANGE
    assert lib.wn_datagram_seal(lib.WN_CIPHER_NONE, key, 0, 0, buffer, 100) == lib.WN_ERR_RANGE
    assert lib.wn_datagram_seal(3, key, 0, 0, buffer, 100) == lib.WN_ERR_RANGE
    assert lib.wn_datagram_open(1, key, 0, buffer, 29) == lib.WN_ERR_TRUNCATED
    assert lib.wn_datagram_open(3, key, 0, buffer, 100) == lib.WN_ERR_RANGE
