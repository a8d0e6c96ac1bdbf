"""Super-frames are cut as the sender's stack would have: two oracles, and lying headers."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether

from tests.native import wire
from tests.native.flows import ACK, CWR, ECE, FIN, PSH, SYN, TIMESTAMPS, URG, Segment
from tests.native.world import (
    GSO_ECN,
    GSO_TCP4,
    GSO_TCP6,
    GSO_UDP,
    World,
    vnet,
)

pytestmark = pytest.mark.native


def world_for(segment: Segment, mtu: int = 60_000) -> World:
    """A world in which the segment's destination lives at peer 1."""
    world = World(2, mtu=mtu)
    world.datapath.fill_fdb([(segment.dst, 1)], world.now_s)
    return world


def cut(segment: Segment, gso_size: int, *, mtu: int = 60_000, ecn: bool = False) -> list[bytes]:
    """Frames that leave for peer 1."""
    world = world_for(segment, mtu)
    outcome = world.capture(segment.super_frame(gso_size, ecn=ecn))
    assert world.drops() == {}
    return [sent.frame for sent in outcome.sent]


def expected(segment: Segment, gso_size: int) -> list[bytes]:
    return [piece.frame() for piece in segment.cut(gso_size)]


PAYLOAD = bytes((7 * n) & 0xFF for n in range(60_000))
KINDS = {
    "tcp4": Segment(),
    "tcp6": Segment(version=6, flow_label=0x12345, tos=0x28),
    "udp4": Segment(tcp=False),
    "udp6": Segment(tcp=False, version=6),
    "tcp4-no-df": Segment(ip_flags=0),
    "tcp4-timestamps": Segment(options=TIMESTAMPS),
    "tcp4-ip-options": Segment(ip_options=b"\x94\x04\0\0"),
    "tcp6-extension": Segment(
        version=6, ip_options=b"\x06\0\x01\x04\0\0\0\0", extension=60, options=TIMESTAMPS
    ),
    "tcp4-vlan": Segment(vlans=(42,)),
    "tcp6-vlan": Segment(version=6, vlans=(42,)),
    "udp4-two-vlans": Segment(tcp=False, vlans=(42, 4095)),
    "id-and-sequence-wrap": Segment(ip_id=0xFFFE, seq=0xFFFFF000),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("length", "gso_size"),
    [
        (1, 1448),
        (1447, 1448),
        (1448, 1448),
        (1449, 1448),
        (2896, 1448),
        (10_001, 1333),
        (9, 1),
        (1000, 3),
        (60_000, 8_947),
    ],
)
def test_pieces_are_those_of_the_oracle(kind: str, length: int, gso_size: int) -> None:
    segment = KINDS[kind].changed(payload=PAYLOAD[:length])
    assert cut(segment, gso_size) == expected(segment, gso_size)


@pytest.mark.parametrize(
    "flags", [FIN | ACK, PSH | ACK, FIN | PSH | ACK, CWR | ACK, ECE | ACK, URG | ACK, CWR | PSH]
)
@pytest.mark.parametrize("ecn", [False, True])
def test_flags_stay_with_the_piece_they_belong_to(flags: int, ecn: bool) -> None:
    segment = Segment(payload=PAYLOAD[:4000], flags=flags)
    pieces = cut(segment, 1000, ecn=ecn)
    at = segment.l4_offset + 13
    assert [piece[at] & (FIN | PSH) for piece in pieces] == [0, 0, 0, flags & (FIN | PSH)]
    assert [piece[at] & CWR for piece in pieces] == [flags & CWR, 0, 0, 0]
    always = flags & ~(FIN | PSH | CWR)
    assert all(piece[at] & always == always for piece in pieces)
    assert pieces == expected(segment, 1000)


def scapy_says(frame: bytes) -> bytes:
    """The frame with every length and checksum computed anew by scapy."""
    packet = Ether(frame)
    for layer, names in ((IP, ("len", "chksum")), (IPv6, ("plen",)), (TCP, ("chksum",))):
        if layer in packet:
            for name in names:
                delattr(packet[layer], name)
    if UDP in packet:
        del packet[UDP].len, packet[UDP].chksum
    return bytes(packet)


@pytest.mark.parametrize("kind", KINDS)
def test_scapy_agrees_with_every_length_and_checksum(kind: str) -> None:
    segment = KINDS[kind].changed(payload=PAYLOAD[:5000])
    pieces = cut(segment, 1411)
    assert len(pieces) == 4
    for piece in pieces:
        assert scapy_says(piece) == piece
    joined = b"".join(piece[segment.payload_offset :] for piece in pieces)
    assert joined == segment.payload
    if segment.tcp:
        seqs = [Ether(piece)[TCP].seq for piece in pieces]
        assert seqs == [(segment.seq + 1411 * n) % 2**32 for n in range(4)]
    if segment.version == 4:
        assert [Ether(piece)[IP].id for piece in pieces] == [
            (segment.ip_id + n) % 2**16 for n in range(4)
        ]
    assert all((Dot1Q in Ether(piece)) == bool(segment.vlans) for piece in pieces)


@settings(max_examples=80, deadline=None)
@given(
    version=st.sampled_from([4, 6]),
    tcp=st.booleans(),
    length=st.integers(1, 20_000),
    gso_size=st.integers(1, 9_000),
    flags=st.sampled_from([ACK, ACK | PSH, ACK | FIN | PSH, ACK | CWR | ECE]),
    vlans=st.sampled_from([(), (1,), (1, 2)]),
    seq=st.integers(0, 2**32 - 1),
    ip_id=st.integers(0, 2**16 - 1),
)
def test_any_super_frame(
    version: int,
    tcp: bool,
    length: int,
    gso_size: int,
    flags: int,
    vlans: tuple[int, ...],
    seq: int,
    ip_id: int,
) -> None:
    gso_size = max(gso_size, -(-length // 1400))
    segment = Segment(
        payload=PAYLOAD[:length],
        version=version,
        tcp=tcp,
        flags=flags,
        vlans=vlans,
        seq=seq,
        ip_id=ip_id,
    )
    assert cut(segment, gso_size) == expected(segment, gso_size)


def test_a_datagram_whose_checksum_is_zero_says_so_by_ones() -> None:
    # zero would mean "none" (RFC 768)
    whole = Segment(tcp=False, payload=bytes(2000))
    second = whole.cut(1000)[1]
    at = whole.l4_offset + 6
    missing = second.changed(payload=bytes(1000)).frame()[at : at + 2]
    segment = whole.changed(payload=bytes(1000) + missing + bytes(998))
    pieces = cut(segment, 1000)
    assert pieces[1][at : at + 2] == b"\xff\xff"
    assert pieces == expected(segment, 1000)


# ---- paths narrower than the container thinks ----


def test_tcp_without_df_is_cut_shorter_rather_than_fragmented() -> None:
    segment = Segment(payload=PAYLOAD[:10_000], ip_flags=0)
    pieces = cut(segment, 1448, mtu=1000)
    assert pieces == expected(segment, 1000 - 40)
    assert max(len(piece) for piece in pieces) == 1000 + 14


def test_tagged_tcp_is_cut_shorter_too() -> None:
    segment = Segment(payload=PAYLOAD[:10_000], vlans=(5,))
    pieces = cut(segment, 1448, mtu=1000)
    assert pieces == expected(segment, 1000 - 40 - 4)


def test_udp_is_never_cut_otherwise_than_asked() -> None:
    segment = Segment(payload=PAYLOAD[:3000], tcp=False, ip_flags=0)
    fragments = cut(segment, 1400, mtu=1000)
    datagrams: list[tuple[int, bytes]] = []
    for fragment in map(wire.Ip4.of, fragments):
        if fragment.offset == 0:
            datagrams.append((int.from_bytes(fragment.header[4:6], "big"), b""))
        number, so_far = datagrams.pop()
        assert fragment.offset == len(so_far)
        datagrams.append((number, so_far + fragment.payload))
    assert datagrams == [(piece.ip_id, piece.packet()[20:]) for piece in segment.cut(1400)]
    assert max(len(fragment) for fragment in fragments) <= 1000 + 14


# ---- virtio headers that lie ----

GOOD = Segment(payload=PAYLOAD[:3000])
GOOD6 = GOOD.changed(version=6)
DATAGRAMS = GOOD.changed(tcp=False)


def tampered(segment: Segment, at: int, value: bytes) -> bytes:
    frame = bytearray(segment.frame())
    frame[at : at + len(value)] = value
    return bytes(frame)


LIES: dict[str, tuple[bytes, bytes]] = {
    "size 0": (vnet(GSO_TCP4, 0, start=34, offset=16), GOOD.frame()),
    "unknown type": (vnet(2, 1448, start=34, offset=16), GOOD.frame()),
    "UFO": (vnet(3, 1448, start=34, offset=6), DATAGRAMS.frame()),
    "only ECN": (vnet(GSO_ECN, 1448, start=34, offset=16), GOOD.frame()),
    "TCP6 on IPv4": (vnet(GSO_TCP6, 1448, start=34, offset=16), GOOD.frame()),
    "TCP4 on IPv6": (vnet(GSO_TCP4, 1428, start=54, offset=16), GOOD6.frame()),
    "TCP on UDP": (vnet(GSO_TCP4, 1448, start=34, offset=16), DATAGRAMS.frame()),
    "UDP on TCP": (vnet(GSO_UDP, 1448, start=34, offset=6), GOOD.frame()),
    "no payload": (vnet(GSO_TCP4, 1448, start=34, offset=16), Segment().frame()),
    "a fragment": (
        vnet(GSO_UDP, 1448, start=34, offset=6),
        DATAGRAMS.changed(ip_flags=wire.MF).frame(),
    ),
    "more in the IP header than in the frame": (
        vnet(GSO_TCP4, 1448, start=34, offset=16),
        GOOD.frame()[:-1],
    ),
    "TCP header longer than the packet": (
        vnet(GSO_TCP4, 10, start=34, offset=16),
        tampered(Segment(payload=b"x" * 20), 34 + 12, b"\xf0"),
    ),
    "ARP": (
        vnet(GSO_TCP4, 1448, start=34, offset=16),
        wire.eth(bytes(2000), 0x0806, GOOD.src, GOOD.dst),
    ),
    "bare Ethernet header": (vnet(GSO_TCP4, 1448), GOOD.frame()[:14]),
    "more pieces than a super-frame has": (
        vnet(GSO_TCP4, 1, start=34, offset=16),
        GOOD.frame(),
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_header_costs_its_frame_and_is_counted(lie: str) -> None:
    world = world_for(GOOD)
    good = GOOD.super_frame(1448)
    outcome = world.capture(LIES[lie], good)
    assert [sent.frame for sent in outcome.sent] == expected(GOOD, 1448)
    assert world.drops() == {"drop_bad_offload": 1}


def test_headers_longer_than_we_copy() -> None:
    extension = struct.pack(">BB", 6, 63) + bytes(510)
    segment = Segment(version=6, ip_options=extension, extension=60, payload=PAYLOAD[:3000])
    world = world_for(segment)
    outcome = world.capture(segment.super_frame(1000))
    assert outcome.messages == []
    assert world.drops() == {"drop_bad_offload": 1}


def test_syn_is_cut_like_any_other_since_the_kernel_never_asks() -> None:
    segment = Segment(payload=PAYLOAD[:100], flags=SYN)
    assert cut(segment, 60) == expected(segment, 60)
