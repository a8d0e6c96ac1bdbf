"""Inner frames for people and for tests: a one-line description, and a check of every checksum.

Independent of the router's C code on purpose. Reads 802.1Q, ARP, IPv4, IPv6 (extension headers are
not followed), TCP, UDP, ICMP, ICMPv6; describes whatever else by its type.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
_IPV4, _ARP, _VLAN, _IPV6 = 0x0800, 0x0806, 0x8100, 0x86DD
_TCP_FLAGS = ((0x02, "SYN"), (0x01, "FIN"), (0x04, "RST"), (0x08, "PSH"), (0x10, "ACK"))
_ICMP_NAMES = {0: "echo reply", 3: "unreachable", 8: "echo request", 11: "time exceeded"}
_ICMPV6_NAMES = {
    1: "unreachable",
    2: "packet too big",
    128: "echo request",
    129: "echo reply",
    133: "router solicitation",
    135: "neighbour solicitation",
    136: "neighbour advertisement",
    143: "multicast listener report",
}


def ethernet(frame: bytes) -> tuple[int, int, int | None]:
    """Type, offset of the payload, VLAN id (None: untagged). Type 0 for a too short frame."""
    if len(frame) < 14:
        return 0, len(frame), None
    (kind,) = struct.unpack_from("!H", frame, 12)
    if kind == _VLAN and len(frame) >= 18:
        tci, inner = struct.unpack_from("!HH", frame, 14)
        return inner, 18, tci & 0x0FFF
    return kind, 14, None


def describe(frame: bytes) -> str:
    """One line: what is in the frame, and its length."""
    kind, at, vid = ethernet(frame)
    tag = "" if vid is None else f"VLAN {vid}, "
    body = frame[at:]
    try:
        if kind == _ARP:
            what = _describe_arp(body)
        elif kind == _IPV4:
            what = _describe_ipv4(body)
        elif kind == _IPV6:
            what = _describe_ipv6(body)
        else:
            what = f"type {kind:#06x}"
    except (struct.error, IndexError, ValueError):
        what = f"truncated, type {kind:#06x}"
    macs = f"{frame[6:12].hex(':')} → {frame[:6].hex(':')}"
    return f"{tag}{what} ({macs}, {len(frame)} bytes)"


def _describe_arp(body: bytes) -> str:
    (operation,) = struct.unpack_from("!H", body, 6)
    sender, target = IPv4Address(body[14:18]), IPv4Address(body[24:28])
    if operation == 1:
        return f"ARP who has {target}, tell {sender}"
    return f"ARP {sender} is at {body[8:14].hex(':')}"


def _describe_ipv4(body: bytes) -> str:
    header_len = (body[0] & 0x0F) * 4
    total_len, _, flags = struct.unpack_from("!HHH", body, 2)
    ends = f"{IPv4Address(body[12:16])} → {IPv4Address(body[16:20])}"
    if flags & 0x1FFF:
        return f"IPv4 {ends} protocol {body[9]}, fragment at {(flags & 0x1FFF) * 8}"
    more = ", first fragment" if flags & 0x2000 else ""
    return f"IPv4 {ends} {_describe_l4(body[9], body[header_len:total_len])}{more}"


def _describe_ipv6(body: bytes) -> str:
    (payload_len,) = struct.unpack_from("!H", body, 4)
    ends = f"{IPv6Address(body[8:24])} → {IPv6Address(body[24:40])}"
    return f"IPv6 {ends} {_describe_l4(body[6], body[40 : 40 + payload_len])}"


def _describe_l4(protocol: int, body: bytes) -> str:
    if protocol == TCP:
        source, target, sequence = struct.unpack_from("!HHI", body)
        flags = " ".join(word for bit, word in _TCP_FLAGS if body[13] & bit)
        payload = len(body) - (body[12] >> 4) * 4
        return f"TCP {source} → {target} [{flags}] seq {sequence}, {payload} bytes of data"
    if protocol == UDP:
        source, target, length = struct.unpack_from("!HHH", body)
        return f"UDP {source} → {target}, {length - 8} bytes of data"
    if protocol in (ICMP, ICMPV6):
        names = _ICMP_NAMES if protocol == ICMP else _ICMPV6_NAMES
        label = "ICMP" if protocol == ICMP else "ICMPv6"
        text = f"{label} {names.get(body[0], f'type {body[0]}')}"
        if text.endswith(("echo request", "echo reply")):
            identifier, sequence = struct.unpack_from("!HH", body, 4)
            text += f", id {identifier}, seq {sequence}"
        return text
    return f"protocol {protocol}"


def checksum(data: bytes) -> int:
    """Internet checksum of ``data``; over data that includes its right checksum the result is 0.

    Ref: RFC 1071.
    """
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def bad_checksums(frame: bytes) -> list[str]:
    """Names of the checksums in ``frame`` that are wrong: "IPv4", "TCP", "UDP", "ICMP", "ICMPv6".

    Fragments are checked up to the IP header. UDP over IPv4 with checksum 0 has none.
    """
    kind, at, _ = ethernet(frame)
    body = frame[at:]
    if kind == _IPV4 and len(body) >= 20:
        header_len = (body[0] & 0x0F) * 4
        total_len, _, flags = struct.unpack_from("!HHH", body, 2)
        wrong = ["IPv4"] if checksum(body[:header_len]) else []
        if flags & 0x3FFF:
            return wrong
        inner = body[header_len:total_len]
        pseudo = body[12:20] + struct.pack("!HH", body[9], len(inner))
        return wrong + _bad_l4(body[9], inner, pseudo, zero_is_none=True)
    if kind == _IPV6 and len(body) >= 40:
        (payload_len,) = struct.unpack_from("!H", body, 4)
        inner = body[40 : 40 + payload_len]
        pseudo = body[8:40] + struct.pack("!II", len(inner), body[6])
        return _bad_l4(body[6], inner, pseudo, zero_is_none=False)
    return []


def _bad_l4(protocol: int, inner: bytes, pseudo: bytes, *, zero_is_none: bool) -> list[str]:
    if protocol == UDP:
        if zero_is_none and inner[6:8] == b"\0\0":
            return []
        return ["UDP"] if checksum(pseudo + inner) else []
    if protocol == TCP:
        return ["TCP"] if checksum(pseudo + inner) else []
    if protocol == ICMP:
        return ["ICMP"] if checksum(inner) else []
    if protocol == ICMPV6:
        return ["ICMPv6"] if checksum(pseudo + inner) else []
    return []
