"""Too-big answers: byte for byte Weave's for IPv4, RFC 4443 for IPv6, silence where RFCs ask it."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from native import ffi, lib
from tests.native import wire

pytestmark = pytest.mark.native

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent.parent / "vectors" / "sleeve_fragmentation.json").read_text(
        encoding="utf-8"
    )
)["icmp_frag_needed"]


def too_big(version: int, frame: bytes, mtu: int, cap: int = 2048) -> bytes:
    """The answer, or b"" if there is none; frame and output have no byte to spare."""
    source = ffi.new("uint8_t[]", len(frame))
    ffi.memmove(source, frame, len(frame))
    out = ffi.new("uint8_t[]", b"\xa5" * cap)
    build = lib.wn_icmp4_too_big if version == 4 else lib.wn_icmp6_too_big
    size = build(source, len(frame), mtu, out, cap)
    assert size <= cap
    assert bytes(ffi.buffer(out))[size:cap] == b"\xa5" * (cap - size)
    return bytes(ffi.buffer(out, size))


@pytest.mark.parametrize("case", VECTORS)
def test_vectors(case: dict[str, Any]) -> None:
    frame = bytes.fromhex(case["offending_frame_first_bytes"])
    frame += bytes(case["offending_frame_length"] - len(frame))
    assert too_big(4, frame, case["mtu"]).hex() == case["icmp_frame"]


def test_example_of_the_specification() -> None:
    packet = bytes.fromhex(
        "45000bb812344000400608ca0a2000010a200002c001005000000001"  # 3000 bytes, DF
    )
    answer = too_big(4, wire.eth(packet + bytes(3000 - len(packet))), 1438)
    assert answer.hex() == (
        "0a00000000010a0000000002080045000038000000004001668"
        "30a2000020a2000010304370b0000059e" + packet.hex()
    )


def big4(payload: bytes | None = None, **fields: Any) -> bytes:
    """A DF frame that is too big for anything."""
    fields.setdefault("flags", wire.DF)
    return wire.eth(wire.ip4(wire.udp(bytes(1600)) if payload is None else payload, **fields))


def test_the_frame_of_reference_is_answered() -> None:
    assert len(too_big(4, big4(), 1400)) == 70


def test_longest_ip4_answer_needs_110_bytes() -> None:
    frame = big4(options=b"\1" * 40)
    assert len(too_big(4, frame, 1400, cap=110)) == 110
    assert too_big(4, frame, 1400, cap=109) == b""


def test_short_packets_quote_what_there_is() -> None:
    answer = too_big(4, big4(b"", proto=89) + bytes(26), 100)
    assert wire.Ip4.of(answer).payload[8:] == wire.ip4(b"", proto=89, flags=wire.DF)
    assert len(answer) == 62


@pytest.mark.parametrize("host", [b"\x0a\0\0\1", b"\xf0\0\0\1", b"\xfb\1\1\1"])
def test_hosts_are_answered(host: bytes) -> None:
    assert too_big(4, big4(src=host), 1400)
    assert too_big(4, big4(dst=host), 1400)


@pytest.mark.parametrize(
    "bad",
    [b"\0\0\0\0", b"\0\1\2\3", b"\x7f\0\0\1", b"\xe0\0\0\1", b"\xef\xff\xff\xff", b"\xff" * 4],
)
def test_addresses_of_no_single_host_are_not(bad: bytes) -> None:
    assert too_big(4, big4(src=bad), 1400) == b""
    assert too_big(4, big4(dst=bad), 1400) == b""


def test_group_macs_are_not_answered() -> None:
    for version, packet, ethertype in (
        (4, wire.ip4(bytes(1600)), 0x0800),
        (6, wire.ip6(bytes(1600)), 0x86DD),
    ):
        assert too_big(version, wire.eth(packet, ethertype), 1400)
        for group in (b"\xff" * 6, b"\x01\0\x5e\0\0\1"):
            assert too_big(version, wire.eth(packet, ethertype, dst=group), 1400) == b""
            assert too_big(version, wire.eth(packet, ethertype, src=group), 1400) == b""


def test_fragments_only_the_first_is_answered() -> None:
    assert too_big(4, big4(flags=wire.MF), 1400)
    assert too_big(4, big4(flags=wire.MF | 1), 1400) == b""
    assert too_big(4, big4(flags=0x1FFF), 1400) == b""


@pytest.mark.parametrize("kind", range(256))
def test_icmp_errors_are_not_answered(kind: int) -> None:
    queries = {0, 8, 9, 10, 13, 14, 15, 16, 17, 18}
    undefined = {1, 2, 6, 7}
    answer = too_big(4, big4(bytes([kind]) + bytes(1600), proto=1), 1400)
    assert bool(answer) == (kind in queries | undefined)


def test_icmp_without_a_type_is_not_answered() -> None:
    assert too_big(4, big4(b"", proto=1) + bytes(1600), 1400) == b""


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        bytes(13),
        bytes(1500),
        wire.eth(wire.ip6(bytes(1600)), 0x86DD),
        wire.eth(b"\0\1\x08\0" + wire.ip4(bytes(1600)), 0x8100),
        wire.eth(b"\x44" + wire.ip4(bytes(1600))[1:]),
    ],
)
def test_not_an_ip4_frame(frame: bytes) -> None:
    assert too_big(4, frame, 1400) == b""


# ---- ICMPv6 ----------------------------------------------------------------------------------


def big6(payload: bytes | None = None, **fields: Any) -> bytes:
    """An IPv6 frame of 1654 bytes unless told otherwise."""
    return wire.eth(wire.ip6(bytes(1600) if payload is None else payload, **fields), 0x86DD)


def check6(answer: bytes, frame: bytes, mtu: int, start: int = 14) -> None:
    """Everything that RFC 4443 3.2 says of the answer."""
    packet = frame[start:]
    reply = answer[start:]
    assert answer[:12] == frame[6:12] + frame[:6]
    assert answer[12:start] == frame[12:start]
    assert reply[:4] == b"\x60\0\0\0"
    assert struct.unpack(">HBB", reply[4:8]) == (len(reply) - 40, 58, 64)
    assert reply[8:24] == packet[24:40]
    assert reply[24:40] == packet[8:24]
    assert reply[40:42] == b"\2\0"
    assert struct.unpack(">I", reply[44:48]) == (mtu,)
    pseudo = reply[8:40] + struct.pack(">II", len(reply) - 40, 58)
    assert wire.ones_sum(pseudo + reply[40:]) == 0xFFFF
    assert len(reply) <= 1280
    assert reply[48:] == packet[: len(reply) - 48]


@pytest.mark.parametrize("size", [1241, 1400, 9000, 65535])
def test_ip6_answer_fills_1280_bytes(size: int) -> None:
    frame = big6(bytes(i & 0xFF for i in range(size)))
    answer = too_big(6, frame, 1280)
    assert len(answer) == 14 + 1280
    check6(answer, frame, 1280)


def test_ip6_quote_of_a_smaller_packet_leaves_padding_out() -> None:
    frame = big6(b"abc") + bytes(20)
    answer = too_big(6, frame, 70_000)
    assert len(answer) == 14 + 48 + 43
    check6(answer, frame, 70_000)


def test_ip6_tags_are_kept() -> None:
    frame = wire.eth(bytes.fromhex("0064810000c886dd") + wire.ip6(bytes(1600)), 0x88A8)
    check6(too_big(6, frame, 1400, cap=22 + 1280), frame, 1400, start=22)
    assert too_big(6, frame, 1400, cap=22 + 1279) == b""


def test_ip6_needs_its_room() -> None:
    assert len(too_big(6, big6(), 1400, cap=1294)) == 1294
    assert too_big(6, big6(), 1400, cap=1293) == b""


@pytest.mark.parametrize("bad", [bytes(16), b"\xff\2" + bytes(13) + b"\1"])
def test_ip6_addresses_of_no_single_host(bad: bytes) -> None:
    assert too_big(6, big6(src=bad), 1400) == b""
    assert too_big(6, big6(dst=bad), 1400) == b""


@pytest.mark.parametrize("kind", [1, 2, 3, 4, 100, 127, 128, 129, 135, 255])
def test_ip6_errors_are_not_answered(kind: int) -> None:
    message = bytes([kind]) + bytes(1600)
    answered = kind >= 128
    assert bool(too_big(6, big6(message, proto=58), 1400)) == answered
    behind_options = bytes((58, 0)) + bytes(6) + message
    assert bool(too_big(6, big6(behind_options, proto=60), 1400)) == answered
    first = struct.pack(">BBHI", 58, 0, 1, 7) + message
    assert bool(too_big(6, big6(first, proto=44), 1400)) == answered
    later = struct.pack(">BBHI", 58, 0, 8, 7) + message
    assert too_big(6, big6(later, proto=44), 1400) == b""


def test_ip6_later_fragments_of_other_protocols_are_answered() -> None:
    later = struct.pack(">BBHI", 17, 0, 8, 7) + bytes(1600)
    assert too_big(6, big6(later, proto=44), 1400)


@pytest.mark.parametrize("frame", [b"", bytes(1500), big4(), big6()[:53]])
def test_not_an_ip6_packet(frame: bytes) -> None:
    assert too_big(6, frame, 1400) == b""


@given(st.integers(0, 0xFFFF), st.binary(max_size=200), st.integers(0, 255))
def test_ip4_answers_check_out(mtu: int, payload: bytes, proto: int) -> None:
    frame = big4(payload, proto=proto)
    answer = too_big(4, frame, mtu)
    if not answer:
        assert proto == 1
        return
    parsed = wire.Ip4.of(answer)
    assert wire.ones_sum(parsed.payload) == 0xFFFF
    assert parsed.payload[8:] == frame[14 : 14 + 20 + min(8, len(payload))]
    assert parsed.payload[:2] == b"\3\4"
    assert struct.unpack(">HH", parsed.payload[4:8]) == (0, mtu)


@given(st.binary(max_size=200), st.sampled_from([0x0800, 0x86DD]))
def test_any_bytes_are_answered_rightly_or_not_at_all(packet: bytes, ethertype: int) -> None:
    frame = wire.eth(packet, ethertype)
    for version in (4, 6):
        answer = too_big(version, frame, 1400)
        assert not answer or len(answer) >= 60
