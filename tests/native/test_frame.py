"""wn_frame_parse: what counts as an IPv4 frame, where headers end, and that nothing is believed."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from native import ffi, lib
from tests.native import wire

pytestmark = pytest.mark.native

IPV4, DF, FRAGMENT = lib.WN_VIEW_IPV4, lib.WN_VIEW_DF, lib.WN_VIEW_FRAGMENT
L4, EXT, LATER = lib.WN_VIEW_L4, lib.WN_VIEW_EXT, lib.WN_VIEW_LATER


def parse(frame: bytes) -> Any:
    """The view of a frame that sits in a buffer of exactly its size."""
    buffer = ffi.new("uint8_t[]", len(frame))
    ffi.memmove(buffer, frame, len(frame))
    view = ffi.new("wn_view *")
    code = lib.wn_frame_parse(buffer, len(frame), view)
    assert code == (lib.WN_ERR_TRUNCATED if len(frame) < 14 else lib.WN_OK)
    return view


def offsets(view: Any) -> tuple[int, int, int, int]:
    """Where the layers start, and how long the packet is."""
    return view.l3_off, view.l4_off, view.payload_off, view.ip_len


def test_too_short_for_ethernet() -> None:
    for size in range(14):
        parse(bytes(size))


@pytest.mark.parametrize("ethertype", [0x0000, 0x0005, 0x05FF, 0x0600, 0x0806, 0x88CC])
def test_not_ip(ethertype: int) -> None:
    view = parse(wire.eth(bytes(46), ethertype))
    assert view.ethertype == ethertype
    assert (view.ip_version, view.flags, view.l4_proto) == (0, 0, 0)
    assert offsets(view) == (14, 14, 14, 0)


def test_udp_in_ip4() -> None:
    view = parse(wire.eth(wire.ip4(wire.udp(b"x" * 100))))
    assert (view.ip_version, view.l4_proto, view.vlan_tags) == (4, 17, 0)
    assert view.flags == IPV4 | L4
    assert offsets(view) == (14, 34, 42, 128)


def test_tcp_in_ip4_with_options_and_padding() -> None:
    packet = wire.ip4(wire.tcp(b"", b"\1" * 12), proto=6, flags=wire.DF, options=b"\1" * 8)
    view = parse(wire.eth(packet + bytes(20)))
    assert view.flags == IPV4 | DF | L4 | EXT
    assert offsets(view) == (14, 42, 74, 60)


def test_df_bit_alone() -> None:
    assert parse(wire.eth(wire.ip4(b"", proto=1, flags=wire.DF))).flags == IPV4 | DF
    assert parse(wire.eth(wire.ip4(b"", proto=1, flags=0x8000))).flags == IPV4


@pytest.mark.parametrize(
    ("word", "flags"), [(0x2000, FRAGMENT), (0x0001, FRAGMENT | LATER), (0x20B9, FRAGMENT | LATER)]
)
def test_ip4_fragments_have_no_l4(word: int, flags: int) -> None:
    view = parse(wire.eth(wire.ip4(wire.udp(bytes(64)), flags=word)))
    assert view.flags == IPV4 | flags
    assert view.l4_proto == 17
    assert offsets(view) == (14, 34, 34, 92)


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        wire.ip4(b"")[:19],
        b"\x44" + wire.ip4(bytes(20))[1:],  # IHL 4
        b"\x40" + wire.ip4(bytes(20))[1:],
        b"\x46" + wire.ip4(b"")[1:],  # header ends behind the frame
        b"\x65" + wire.ip4(bytes(40))[1:],  # version 6 under type 0800
        wire.ip4(bytes(40), total=19),
        wire.ip4(bytes(40), options=bytes(4), total=23),
    ],
)
def test_broken_ip4_counts_as_not_ip(packet: bytes) -> None:
    view = parse(wire.eth(packet))
    assert view.ethertype == 0x0800
    assert (view.ip_version, view.flags, view.l4_proto) == (0, 0, 0)
    assert offsets(view) == (14, 14, 14, 0)


def test_total_length_zero_is_the_rest_of_the_frame() -> None:
    view = parse(wire.eth(wire.ip4(wire.udp(bytes(80)), total=0, flags=wire.DF)))
    assert view.flags == IPV4 | DF | L4
    assert view.ip_len == 108


def test_total_length_past_the_frame_keeps_df_but_no_l4() -> None:
    frame = wire.eth(wire.ip4(wire.udp(bytes(80)), flags=wire.DF))
    view = parse(frame[:-1])
    assert view.flags == IPV4 | DF
    assert view.ip_version == 4
    assert offsets(view) == (14, 34, 34, 107)


def test_largest_super_frame() -> None:
    packet = wire.ip4(wire.tcp(bytes(65535 - 40)), proto=6)
    view = parse(wire.eth(packet))
    assert view.flags == IPV4 | L4
    assert view.ip_len == 65535


@pytest.mark.parametrize(("data_offset", "ok"), [(4, False), (5, True), (8, True), (9, False)])
def test_tcp_data_offset(data_offset: int, ok: bool) -> None:
    segment = bytearray(wire.tcp(b"", bytes(12)))
    segment[12] = data_offset << 4
    view = parse(wire.eth(wire.ip4(bytes(segment), proto=6)))
    assert bool(view.flags & L4) == ok
    assert view.payload_off == (34 + 4 * data_offset if ok else 34)


@pytest.mark.parametrize(("proto", "need"), [(6, 20), (17, 8)])
def test_l4_header_must_be_complete(proto: int, need: int) -> None:
    # Twenty more bytes follow in the frame, but not in the packet.
    segment = wire.tcp(b"")
    for size in range(need + 1):
        packet = wire.ip4(segment[:size], proto=proto) + bytes(20)
        assert bool(parse(wire.eth(packet)).flags & L4) == (size == need)


@pytest.mark.parametrize(
    ("outer", "tags"), [((0x8100,), 1), ((0x88A8,), 1), ((0x88A8, 0x8100), 2), ((0x8100,) * 2, 2)]
)
def test_tagged_ip4_is_parsed_but_no_ip4_frame(outer: tuple[int, ...], tags: int) -> None:
    types = [*outer[1:], 0x0800]
    tag_bytes = b"".join(struct.pack(">HH", 100, after) for after in types)
    packet = wire.ip4(wire.udp(bytes(60)), flags=wire.DF)
    view = parse(wire.eth(tag_bytes + packet, outer[0]))
    assert (view.vlan_tags, view.ethertype, view.ip_version) == (tags, 0x0800, 4)
    assert view.flags == L4
    start = 14 + 4 * tags
    assert offsets(view) == (start, start + 20, start + 28, 88)


def test_a_third_tag_is_not_followed() -> None:
    tag = struct.pack(">HH", 1, 0x8100)
    view = parse(wire.eth(tag * 2 + struct.pack(">HH", 1, 0x0800) + wire.ip4(b""), 0x8100))
    assert (view.vlan_tags, view.ethertype, view.ip_version) == (2, 0x8100, 0)
    assert view.l3_off == 22


def test_a_truncated_tag_stays_the_type() -> None:
    view = parse(wire.eth(b"\0\1\x08", 0x8100))
    assert (view.vlan_tags, view.ethertype, view.l3_off) == (0, 0x8100, 14)


def test_tcp_in_ip6() -> None:
    view = parse(wire.eth(wire.ip6(wire.tcp(b"abc"), proto=6), 0x86DD))
    assert (view.ip_version, view.l4_proto, view.flags) == (6, 6, L4)
    assert offsets(view) == (14, 54, 74, 63)


def extension(kind_after: int, size: int = 8) -> bytes:
    """Hop-by-hop, routing or destination options header of ``size`` bytes."""
    return bytes((kind_after, size // 8 - 1)) + bytes(size - 2)


def test_ip6_extension_headers() -> None:
    chain = extension(43, 16) + extension(60, 24) + extension(17)
    view = parse(wire.eth(wire.ip6(chain + wire.udp(b"abc"), proto=0), 0x86DD))
    assert (view.l4_proto, view.flags) == (17, EXT | L4)
    assert offsets(view) == (14, 54 + 48, 54 + 56, 40 + 48 + 11)


def test_ip6_chain_is_bounded() -> None:
    chain = extension(60) * 8 + extension(17)
    view = parse(wire.eth(wire.ip6(chain + wire.udp(b"")), 0x86DD))
    assert view.flags == L4  # the chain above is not one: next header says UDP
    view = parse(wire.eth(wire.ip6(chain + wire.udp(b""), proto=60), 0x86DD))
    assert (view.flags, view.l4_proto, view.l4_off) == (EXT, 60, 54 + 64)


def test_ip6_extension_cut_off() -> None:
    chain = extension(17, 16)
    view = parse(wire.eth(wire.ip6(chain[:12], proto=0), 0x86DD))
    assert (view.flags, view.l4_proto, view.l4_off) == (EXT, 0, 54)


@pytest.mark.parametrize(
    ("word", "proto", "flags"),
    [
        (0x0001, 17, FRAGMENT),  # first of several
        (0x0000, 17, FRAGMENT),  # "atomic", RFC 6946
        (0x0008, 60, FRAGMENT | LATER),  # next header not looked at
        (0x0579, 60, FRAGMENT | LATER),
    ],
)
def test_ip6_fragments(word: int, proto: int, flags: int) -> None:
    fragment = struct.pack(">BBHI", 60, 0, word, 7) + extension(17)
    view = parse(wire.eth(wire.ip6(fragment + wire.udp(bytes(32)), proto=44), 0x86DD))
    assert view.flags == EXT | flags
    assert view.l4_proto == proto
    assert view.l4_off == 14 + 40 + (8 if flags & LATER else 16)


def test_ip6_length_past_the_frame() -> None:
    frame = wire.eth(wire.ip6(wire.udp(bytes(64))), 0x86DD)
    view = parse(frame[:-1])
    assert (view.ip_version, view.flags, view.ip_len) == (6, 0, 111)


def test_ip6_padding_is_not_the_packet() -> None:
    assert parse(wire.eth(wire.ip6(wire.udp(b"")) + bytes(6), 0x86DD)).ip_len == 48


@pytest.mark.parametrize("proto", [0, 6, 17, 59])
def test_ip6_jumbograms_are_empty_packets(proto: int) -> None:
    view = parse(wire.eth(wire.ip6(wire.tcp(bytes(100)), proto=proto, length=0), 0x86DD))
    assert view.ip_len == 40
    assert not view.flags & L4


@pytest.mark.parametrize("packet", [b"", wire.ip6(b"")[:39], b"\x45" + bytes(60)])
def test_broken_ip6(packet: bytes) -> None:
    view = parse(wire.eth(packet, 0x86DD))
    assert (view.ip_version, view.flags) == (0, 0)
    assert offsets(view) == (14, 14, 14, 0)


def check_invariants(frame: bytes, view: Any) -> None:
    """What native/src/frame.c promises of every view."""
    assert view.l3_off == 14 + 4 * view.vlan_tags
    assert view.l3_off <= view.l4_off <= view.payload_off <= view.l3_off + view.ip_len or (
        view.ip_version == 0
    )
    assert view.l3_off + view.ip_len <= len(frame)
    if view.ip_version == 0:
        assert (view.flags, view.ip_len, view.l4_proto) == (0, 0, 0)
        assert view.l3_off == view.l4_off == view.payload_off
    if view.flags & L4:
        assert view.l4_proto in (6, 17)
        assert not view.flags & FRAGMENT
    else:
        assert view.payload_off == view.l4_off
    assert bool(view.flags & IPV4) == (view.ip_version == 4 and view.vlan_tags == 0)
    assert not view.flags & DF or view.flags & IPV4
    assert not view.flags & LATER or view.flags & FRAGMENT


types = st.sampled_from([0x0800, 0x86DD, 0x8100, 0x88A8])
starts = st.sampled_from([b"", b"\x45", b"\x46\0\0\x30", b"\x60\0\0\0\0\x40", b"\0\1\x08\0\x45"])


@given(types, starts, st.binary(max_size=160))
@settings(max_examples=500)
def test_any_bytes_keep_the_promises(ethertype: int, start: bytes, rest: bytes) -> None:
    frame = wire.eth(start + rest, ethertype)
    check_invariants(frame, parse(frame))


@given(st.integers(0, 10), st.binary(max_size=64), st.sampled_from([6, 17, 1]), st.integers(0, 200))
def test_any_cut_keeps_the_promises(options: int, data: bytes, proto: int, cut: int) -> None:
    frame = wire.eth(wire.ip4(wire.tcp(data), proto=proto, options=bytes(4 * options)))[:cut]
    if len(frame) >= 14:
        check_invariants(frame, parse(frame))
