"""Checksums: every implementation of this CPU against RFC 1071 in plain Python."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from native import ffi, lib
from tests.native import wire

pytestmark = pytest.mark.native

sums = st.integers(0, 0xFFFFFFFF)


def sum_by(backend: bytes, data: bytes, start: int, offset: int = 0) -> int | None:
    """The named implementation's sum of ``data`` placed ``offset`` bytes into a buffer."""
    buffer = ffi.new("uint8_t[]", b"\xa5" * offset + data)
    total = ffi.new("uint32_t *", start)
    code = lib.wn_csum_add_by(backend, buffer + offset, len(data), total)
    assert code in (lib.WN_OK, lib.WN_ERR_RANGE)
    return int(total[0]) if code == lib.WN_OK else None


BACKENDS = [name for name in (b"portable", b"avx2", b"avx512") if sum_by(name, b"", 0) is not None]


def test_the_best_backend_is_chosen() -> None:
    assert ffi.string(lib.wn_csum_backend()) == BACKENDS[-1]
    assert sum_by(b"abacus", b"", 0) is None


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_length_and_offset(backend: bytes) -> None:
    source = bytes((i * 167 + (i >> 3) * 59 + 13) & 0xFF for i in range(400))
    for size in range(301):
        for offset in (0, 1, 2, 3, 7, 31, 33):
            data = source[offset : offset + size]
            expected = wire.ones_sum(data, size * 7919)
            assert sum_by(backend, data, size * 7919, offset) == expected, (size, offset)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [1400, 1401, 65534, 65535, 65536, 65537, 131072 + 95, 300_001])
@pytest.mark.parametrize("fill", [0x00, 0xFF, 0x7F, 0x80])
def test_long_runs_do_not_overflow(backend: bytes, size: int, fill: int) -> None:
    data = bytes([fill]) * size
    assert sum_by(backend, data, 0xFFFFFFFF, 1) == wire.ones_sum(data, 0xFFFFFFFF)


@pytest.mark.parametrize("backend", BACKENDS)
def test_zero_means_all_zero(backend: bytes) -> None:
    for size in (0, 1, 19, 64, 128, 1400, 65536):
        assert sum_by(backend, bytes(size), 0) == 0
    assert sum_by(backend, b"\xff\xff" * 512, 0) == 0xFFFF


@given(st.binary(max_size=2048), sums, st.integers(0, 63))
@settings(max_examples=300, deadline=None)
def test_all_agree(data: bytes, start: int, offset: int) -> None:
    expected = wire.ones_sum(data, start)
    buffer = ffi.new("uint8_t[]", bytes(offset) + data)
    assert lib.wn_csum_add(buffer + offset, len(data), start) == expected
    assert lib.wn_csum_add_portable(buffer + offset, len(data), start) == expected
    for backend in BACKENDS:
        assert sum_by(backend, data, start, offset) == expected


@given(st.binary(max_size=600), st.integers(0, 300), sums)
def test_sums_chain_at_even_places(data: bytes, half: int, start: int) -> None:
    cut = min(2 * half, len(data) & ~1)
    first = lib.wn_csum_add(data[:cut], cut, start)
    assert lib.wn_csum_add(data[cut:], len(data) - cut, first) == wire.ones_sum(data, start)


@given(sums)
def test_fold(value: int) -> None:
    assert lib.wn_csum_fold(value) == wire.ones_sum(b"", value)


@given(st.binary(min_size=8, max_size=8), st.integers(0, 255), sums)
def test_pseudo4(addrs: bytes, proto: int, size: int) -> None:
    pseudo = addrs + struct.pack(">II", size, proto)
    assert lib.wn_csum_fold(lib.wn_csum_pseudo4(addrs, proto, size)) == wire.ones_sum(pseudo)


@given(st.binary(min_size=32, max_size=32), st.integers(0, 255), sums)
def test_pseudo6(addrs: bytes, proto: int, size: int) -> None:
    pseudo = addrs + struct.pack(">II", size, proto)
    assert lib.wn_csum_fold(lib.wn_csum_pseudo6(addrs, proto, size)) == wire.ones_sum(pseudo)


@given(st.binary(min_size=20, max_size=60), st.integers(0, 9), st.integers(0, 0xFFFF))
def test_update16_equals_a_full_sum(data: bytes, word: int, after: int) -> None:
    (before,) = struct.unpack_from(">H", data, 2 * word)
    changed = bytearray(data)
    struct.pack_into(">H", changed, 2 * word, after)
    updated = lib.wn_csum_update16(wire.checksum(data), before, after)
    if any(changed):
        assert updated == wire.checksum(bytes(changed))
    else:
        assert updated in (0, 0xFFFF)


def test_update16_of_rfc1624() -> None:
    # Section 4: the case that the older equation 4 gets wrong.
    assert lib.wn_csum_update16(0xDD2F, 0x5555, 0x3285) == 0x0000


@given(st.binary(min_size=60, max_size=60), st.integers(5, 15))
def test_ip4_header_sums_to_ones(data: bytes, ihl: int) -> None:
    header = ffi.new("uint8_t[]", b"\x45" + data[1:])
    lib.wn_ip4_set_csum(header, ihl * 4)
    written = bytes(ffi.buffer(header, 60))
    assert wire.ones_sum(written[: ihl * 4]) == 0xFFFF
    assert written[:10] == b"\x45" + data[1:10]
    assert written[12:] == data[12:]


def test_a_header_too_short_is_left_alone() -> None:
    header = ffi.new("uint8_t[20]", b"\x11" * 20)
    lib.wn_ip4_set_csum(header, 19)
    assert bytes(ffi.buffer(header)) == b"\x11" * 20
