"""Frames written and read by plain Python: the oracle for the C code, sharing nothing with it."""

from __future__ import annotations

import struct
from dataclasses import dataclass

MAC_A = bytes.fromhex("0a0000000001")
MAC_B = bytes.fromhex("0a0000000002")
IP4_A = bytes((10, 32, 0, 1))
IP4_B = bytes((10, 32, 0, 2))
IP6_A = bytes.fromhex("fd000000000000000000000000000001")
IP6_B = bytes.fromhex("fd000000000000000000000000000002")
DF = 0x4000
MF = 0x2000


def ones_sum(data: bytes, start: int = 0) -> int:
    """RFC 1071 as the RFC writes it: 16-bit big-endian words, carries folded; not complemented."""
    padded = data + b"\0" * (len(data) % 2)
    words: tuple[int, ...] = struct.unpack(f">{len(padded) // 2}H", padded)
    total = start + sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def checksum(data: bytes, start: int = 0) -> int:
    """The field value: the complement of the sum."""
    return ones_sum(data, start) ^ 0xFFFF


def eth(payload: bytes, ethertype: int = 0x0800, src: bytes = MAC_A, dst: bytes = MAC_B) -> bytes:
    """An Ethernet frame; VLAN tags belong to the payload."""
    return dst + src + struct.pack(">H", ethertype) + payload


def ip4(
    payload: bytes,
    *,
    proto: int = 17,
    flags: int = 0,
    options: bytes = b"",
    total: int | None = None,
    src: bytes = IP4_A,
    dst: bytes = IP4_B,
    tos: int = 0,
    ident: int = 0x1234,
) -> bytes:
    """An IPv4 packet with a right header checksum; ``flags`` is the flags-and-offset word."""
    ihl = 5 + len(options) // 4
    length = ihl * 4 + len(payload) if total is None else total
    head = struct.pack(
        ">BBHHHBBH4s4s", 0x40 | ihl, tos, length, ident, flags, 64, proto, 0, src, dst
    )
    head += options
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + payload


def ip6(
    payload: bytes,
    *,
    proto: int = 17,
    length: int | None = None,
    src: bytes = IP6_A,
    dst: bytes = IP6_B,
) -> bytes:
    """An IPv6 packet; extension headers belong to the payload."""
    size = len(payload) if length is None else length
    return struct.pack(">IHBB", 0x60000000, size, proto, 64) + src + dst + payload


def udp(payload: bytes) -> bytes:
    """A UDP datagram without checksum."""
    return struct.pack(">HHHH", 1000, 2000, 8 + len(payload), 0) + payload


def tcp(payload: bytes, options: bytes = b"") -> bytes:
    """A TCP segment without checksum."""
    offset = (5 + len(options) // 4) << 4
    return struct.pack(">HHIIBBHHH", 1, 2, 3, 4, offset, 0x10, 512, 0, 0) + options + payload


@dataclass(slots=True, frozen=True)
class Ip4:
    """An IPv4 packet taken apart."""

    header: bytes
    flags: int
    offset: int
    """In bytes."""
    payload: bytes

    @classmethod
    def of(cls, frame: bytes) -> Ip4:
        """Parse an untagged frame; asserts a right header checksum."""
        packet = frame[14:]
        size = (packet[0] & 15) * 4
        total, _, word = struct.unpack(">HHH", packet[2:8])
        assert size >= 20
        assert total <= len(packet)
        assert ones_sum(packet[:size]) == 0xFFFF
        return cls(packet[:size], word & 0xE000, (word & 0x1FFF) * 8, packet[size:total])


def reassemble(frames: list[bytes]) -> tuple[int, bytes, int]:
    """Offset of the first, joined payload and flags of the last of consecutive fragments."""
    pieces = [Ip4.of(frame) for frame in frames]
    joined = b""
    for piece in pieces:
        assert piece.offset == pieces[0].offset + len(joined)
        joined += piece.payload
    assert all(piece.flags & MF for piece in pieces[:-1])
    return pieces[0].offset, joined, pieces[-1].flags
