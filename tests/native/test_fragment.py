"""User-space IPv4 fragmentation: Weave's bytes, and pieces that join to what they were cut from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from native import ffi, lib
from tests.native import wire

pytestmark = pytest.mark.native

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent.parent / "vectors" / "sleeve_fragmentation.json").read_text(
        encoding="utf-8"
    )
)["fragmentation"]


def cut(frame: bytes, mtu: int) -> list[bytes] | int:
    """All pieces, or the code of the refusal."""
    source = ffi.new("uint8_t[]", len(frame))
    ffi.memmove(source, frame, len(frame))
    count = lib.wn_ip4_fragment_count(source, len(frame), mtu)
    out = ffi.new("uint8_t[]", 65549)
    if count < 0:
        assert lib.wn_ip4_fragment_build(source, len(frame), mtu, 0, out, 65549) == count
        return int(count)
    pieces = []
    for index in range(count):
        size = lib.wn_ip4_fragment_build(source, len(frame), mtu, index, out, 65549)
        assert size >= 60
        pieces.append(bytes(ffi.buffer(out, size)))
    for index in (-1, count):
        code = lib.wn_ip4_fragment_build(source, len(frame), mtu, index, out, 65549)
        assert code == lib.WN_ERR_RANGE
    return pieces


def pieces_of(frame: bytes, mtu: int) -> list[bytes]:
    """Pieces of a frame that can be cut."""
    pieces = cut(frame, mtu)
    assert isinstance(pieces, list)
    return pieces


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: str(case["mtu"]))
def test_vectors_both_ways(case: dict[str, Any]) -> None:
    frame = bytes.fromhex(case["frame"])
    pieces = pieces_of(frame, case["mtu"])
    assert [piece.hex() for piece in pieces] == case["fragments"]
    whole = wire.Ip4.of(frame)
    assert wire.reassemble([bytes.fromhex(item) for item in case["fragments"]]) == (
        whole.offset,
        whole.payload,
        whole.flags,
    )


def test_example_of_the_specification() -> None:
    pieces = pieces_of(wire.eth(wire.ip4(bytes(2980))), 1438)
    parsed = [wire.Ip4.of(piece) for piece in pieces]
    assert [(item.offset, len(item.payload)) for item in parsed] == [
        (0, 1416),
        (1416, 1416),
        (2832, 148),
    ]


@given(
    st.binary(min_size=1, max_size=3000),
    st.integers(0, 10),
    st.integers(28, 3100),
    st.integers(0, 30),
    st.sampled_from([0, wire.MF]),
    st.integers(0, 4000),
)
@settings(max_examples=300)
def test_pieces_join_again(
    payload: bytes, options: int, mtu: int, padding: int, more: int, offset: int
) -> None:
    packet = wire.ip4(payload, flags=more | offset, options=bytes(range(4 * options)), tos=0x28)
    frame = wire.eth(packet)
    pieces = cut(frame + b"\xee" * padding, mtu)
    header = 20 + 4 * options
    if len(packet) > mtu and mtu < header + 8:
        assert pieces == lib.WN_ERR_RANGE
        return
    assert isinstance(pieces, list)
    assert wire.reassemble(pieces) == (8 * offset, payload, more)
    for piece in pieces:
        parsed = wire.Ip4.of(piece)
        used = 14 + len(parsed.header) + len(parsed.payload)
        assert used - 14 <= mtu
        assert len(piece) == max(60, used)
        assert not any(piece[used:])
        assert piece[:14] == frame[:14]
        same = [0, 1, 4, 5, 8, 9, *range(12, header)]
        assert all(parsed.header[i] == packet[i] for i in same)
    assert len(pieces) == (1 if len(packet) <= mtu else -(-len(payload) // ((mtu - header) & ~7)))


def test_what_fits_stays_as_it_is() -> None:
    packet = bytearray(wire.ip4(bytes(100), flags=wire.DF))
    packet[10] ^= 1  # not ours to repair
    frame = wire.eth(bytes(packet))
    assert cut(frame + bytes(9), 120) == [frame]


def test_fits_although_a_piece_would_be_shorter() -> None:
    frame = wire.eth(wire.ip4(bytes(1418)))
    assert cut(frame, 1438) == [frame]


def test_total_length_zero() -> None:
    frame = wire.eth(wire.ip4(bytes(range(200)), total=0))
    whole = pieces_of(frame, 1400)
    assert [wire.Ip4.of(piece).payload for piece in whole] == [bytes(range(200))]
    assert wire.reassemble(pieces_of(frame, 100)) == (0, bytes(range(200)), 0)


@pytest.mark.parametrize(
    ("frame", "mtu"),
    [
        (b"", 1400),
        (bytes(13), 1400),
        (wire.eth(wire.ip6(bytes(1600)), 0x86DD), 1400),
        (wire.eth(b"\0\1\x08\0" + wire.ip4(bytes(1600)), 0x8100), 1400),
        (wire.eth(wire.ip4(bytes(1600)))[:-1], 1400),  # the packet is longer than the frame
        (wire.eth(wire.ip4(bytes(100)))[:-1], 1400),
        (wire.eth(wire.ip4(bytes(1600), flags=wire.DF)), 1400),
        (wire.eth(wire.ip4(bytes(1600))), 27),
        (wire.eth(wire.ip4(bytes(1600))), 0),
        (wire.eth(wire.ip4(bytes(1600), options=bytes(40))), 67),
        (wire.eth(wire.ip4(bytes(1600), flags=0x1FFF)), 1400),  # past the last offset there is
        (wire.eth(wire.ip4(b"", total=0) + bytes(65516)), 1400),  # more than a packet can be
    ],
)
def test_refused(frame: bytes, mtu: int) -> None:
    assert cut(frame, mtu) == lib.WN_ERR_RANGE


def test_largest_packet() -> None:
    payload = bytes(i * 31 & 0xFF for i in range(65515))
    pieces = pieces_of(wire.eth(wire.ip4(payload)), 28)
    assert len(pieces) == 8190
    assert wire.reassemble(pieces) == (0, payload, 0)


def test_output_must_fit() -> None:
    frame = wire.eth(wire.ip4(bytes(2000)))
    out = ffi.new("uint8_t[]", 1014)
    assert lib.wn_ip4_fragment_build(frame, len(frame), 1000, 0, out, 1010) == 1010
    assert lib.wn_ip4_fragment_build(frame, len(frame), 1000, 0, out, 1009) == lib.WN_ERR_RANGE
    small = wire.eth(wire.ip4(b""))
    assert lib.wn_ip4_fragment_build(small, len(small), 1000, 0, out, 59) == lib.WN_ERR_RANGE
    assert lib.wn_ip4_fragment_build(small, len(small), 1000, 0, out, 60) == 60
