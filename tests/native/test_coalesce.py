"""Joining for the bridge: what joins, what must not, and that a cut gives back every byte."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.native import wire
from tests.native.flows import ACK, CWR, ECE, FIN, PSH, RST, SYN, TIMESTAMPS, URG, Segment
from tests.native.world import (
    BROADCAST,
    GSO_TCP4,
    GSO_TCP6,
    GSO_UDP,
    NEEDS_CSUM,
    World,
    captured_batch,
    datagram,
    record,
)

pytestmark = pytest.mark.native

Inject = tuple[bytes, bytes]
NO_VNET = bytes(10)
PAYLOAD = bytes((11 * n + n // 256) & 0xFF for n in range(70_000))


def world_with(*macs: bytes, peers: int = 2) -> World:
    """A world on whose bridge these MACs live."""
    world = World(peers)
    hello = [BROADCAST + mac + b"\x88\xb5" + bytes(46) for mac in macs]
    world.lookup(captured_batch(*hello))
    world.counted()
    return world


def joined(frames: list[bytes], *, join: bool = True) -> list[Inject]:
    """What is written to the bridge when these frames arrive in one batch."""
    world = world_with(*{frame[:6] for frame in frames if not frame[0] & 1})
    parts: list[bytes] = []
    at = 0
    while at < len(frames):
        end = at
        size = 6
        while end < len(frames) and size + 14 + len(frames[end]) <= 65_000:
            size += 14 + len(frames[end])
            end += 1
        parts.append(datagram(1, *(record(1, 0, frame) for frame in frames[at:end])))
        at = end
    outcome = world.receive(*parts, join=join)
    count = world.counted().get("coalesced_frames", 0)
    assert count == len(frames) - sum(header == NO_VNET for header, _ in outcome.injects)
    return outcome.injects


def cut_again(inject: Inject) -> list[bytes]:
    """What the kernel makes of a write, by our own segmentation, which has oracles of its own."""
    header, frame = inject
    if header == NO_VNET:
        return [frame]
    world = World(2, mtu=65_000)
    world.datapath.fill_fdb([(frame[:6], 1)], world.now_s)
    world.counted()
    pieces = [sent.frame for sent in world.capture((header, frame)).sent]
    assert world.drops() == {}
    return pieces


def series(segment: Segment, *lengths: int) -> list[Segment]:
    """Consecutive segments with these payload lengths."""
    out = []
    at = 0
    for number, length in enumerate(lengths):
        payload = PAYLOAD[at : at + length]
        out.append(
            segment.changed(payload=payload, seq=segment.seq + at, ip_id=segment.ip_id + number)
        )
        at += length
    return out


def frames_of(segments: list[Segment]) -> list[bytes]:
    return [segment.frame() for segment in segments]


def assert_groups(segments: list[Segment], *sizes: int) -> list[Inject]:
    """The frames form groups of these sizes, in order, and a cut gives them back."""
    frames = frames_of(segments)
    injects = joined(frames)
    pieces = [cut_again(inject) for inject in injects]
    assert [len(some) for some in pieces] == list(sizes)
    assert [piece for some in pieces for piece in some] == frames
    for (header, frame), some in zip(injects, pieces, strict=True):
        if len(some) == 1:
            assert (header, frame) == (NO_VNET, some[0])
    return injects


TCP4 = Segment()
TCP6 = Segment(version=6)
UDP4 = Segment(tcp=False)
UDP6 = Segment(tcp=False, version=6)
KINDS = {
    "tcp4": TCP4,
    "tcp6": TCP6,
    "udp4": UDP4,
    "udp6": UDP6,
    "tcp4-timestamps": Segment(options=TIMESTAMPS),
    "tcp6-timestamps": Segment(version=6, options=TIMESTAMPS),
    "tcp4-without-df": Segment(ip_flags=0),
    "tcp4-wrapping": Segment(seq=0xFFFFFF00, ip_id=0xFFFF),
    "tcp6-label": Segment(version=6, flow_label=0xABCDE, tos=0xB8),
}


# ---- what joins ----


@pytest.mark.parametrize("kind", KINDS)
def test_equal_segments_join(kind: str) -> None:
    assert_groups(series(KINDS[kind], *[1000] * 10), 10)


@pytest.mark.parametrize("kind", KINDS)
def test_a_shorter_segment_ends_the_group(kind: str) -> None:
    assert_groups(series(KINDS[kind], 1000, 1000, 300, 1000, 1000), 3, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_longer_segment_starts_a_group(kind: str) -> None:
    assert_groups(series(KINDS[kind], 500, 1000, 1000), 1, 2)


@pytest.mark.parametrize("kind", ["tcp4", "tcp6", "udp4", "udp6", "tcp4-timestamps"])
def test_the_virtio_header_says_all(kind: str) -> None:
    segment = KINDS[kind]
    ((header, frame),) = assert_groups(series(segment, 1000, 1000, 1), 3)
    flags, gso_type, hdr_len, gso_size, start, offset = struct.unpack("=BBHHHH", header)
    assert flags == NEEDS_CSUM
    expected = GSO_UDP if not segment.tcp else GSO_TCP4 if segment.version == 4 else GSO_TCP6
    assert gso_type == expected
    assert (hdr_len, start) == (segment.payload_offset, segment.l4_offset)
    assert (gso_size, offset) == (1000, 16 if segment.tcp else 6)
    assert frame[segment.payload_offset :] == PAYLOAD[:2001]
    # the open checksum is the pseudo-header's sum, and the lengths cover everything
    whole = segment.changed(payload=PAYLOAD[:2001])
    assert frame == whole.super_frame(1000)[1]


def test_two_flows_interleaved_join_each_for_itself() -> None:
    one, other = series(TCP4, *[900] * 6), series(Segment(sport=50_000, version=6), *[900] * 6)
    mixed = [segment for pair in zip(one, other, strict=True) for segment in pair]
    injects = joined(frames_of(mixed))
    assert sorted(map(len, map(cut_again, injects))) == [6, 6]
    assert cut_again(injects[0]) == frames_of(one)
    assert cut_again(injects[1]) == frames_of(other)


def test_psh_joins_as_the_last_and_is_kept() -> None:
    segments = series(TCP4, *[1000] * 6)
    segments[2] = segments[2].changed(flags=ACK | PSH)
    segments[5] = segments[5].changed(flags=ACK | PSH)
    assert_groups(segments, 3, 3)


def test_a_group_is_no_longer_than_an_ip_packet() -> None:
    injects = assert_groups(series(TCP4, *[1400] * 48), 46, 2)
    assert all(len(frame) <= 14 + 65_535 for _, frame in injects)
    assert_groups(series(TCP6, *[1400] * 48), 46, 2)
    # to the byte: 20 + 20 + 65495 fills the packet
    assert_groups(series(TCP4, 32_748, 32_747, 1), 2, 1)
    assert_groups(series(TCP4, 32_748, 32_748), 1, 1)


def test_udp_groups_have_at_most_64_datagrams() -> None:
    assert_groups(series(UDP4, *[100] * 130), 64, 64, 2)


def test_groups_of_very_small_segments_can_still_be_written() -> None:
    """One writev takes 1024 pieces of memory; the group must stay below."""
    segments = series(TCP4, *[1] * 2000)
    frames = frames_of(segments)
    injects = joined(frames)
    pieces = [cut_again(inject) for inject in injects]
    assert [piece for some in pieces for piece in some] == frames
    assert max(map(len, pieces)) <= 1022
    assert len(pieces) == 2


def test_joining_can_be_off() -> None:
    frames = frames_of(series(TCP4, *[1000] * 5))
    assert joined(frames, join=False) == [(NO_VNET, frame) for frame in frames]


# ---- what must not join: frames stay as they came, in order ----

EXT6 = b"\x06\0\x01\x04\0\0\0\0"
UNLIKE: dict[str, tuple[Segment, dict[str, object]]] = {
    "acknowledgement": (TCP4, {"ack": 78}),
    "window": (TCP4, {"window": 511}),
    "urgent pointer": (TCP4, {"urgent": 5}),
    "gap": (TCP4, {"seq": 3001}),
    "overlap": (TCP4, {"seq": 2999}),
    "retransmission": (TCP4, {"seq": 1000}),
    "tos": (TCP4, {"tos": 4}),
    "ttl": (TCP4, {"ttl": 63}),
    "DF": (TCP4, {"ip_flags": 0}),
    "evil bit": (TCP4, {"ip_flags": wire.DF | 0x8000}),
    "source port": (TCP4, {"sport": 1}),
    "destination port": (TCP4, {"dport": 81}),
    "address": (TCP4, {"host": 1}),
    "source MAC": (TCP4, {"src": b"\x02\1\1\1\1\1"}),
    "destination MAC": (TCP4, {"dst": b"\x02\1\1\1\1\1"}),
    "options": (TCP4, {"options": TIMESTAMPS}),
    "other timestamps": (Segment(options=TIMESTAMPS), {"options": TIMESTAMPS[:-1] + b"\x0a"}),
    "protocol": (TCP4, {"tcp": False}),
    "version": (TCP4, {"version": 6}),
    "traffic class": (TCP6, {"tos": 4}),
    "flow label": (TCP6, {"flow_label": 9}),
    "hop limit": (TCP6, {"ttl": 63}),
    "IPv4 ID without DF": (Segment(ip_flags=0), {"ip_id": 7}),
    "UDP address": (UDP4, {"host": 1}),
    "UDP port": (UDP6, {"dport": 81}),
    "UDP hop limit": (UDP6, {"ttl": 9}),
    "VLAN": (TCP4, {"vlans": (5,)}),
}


@pytest.mark.parametrize("what", UNLIKE)
def test_one_that_differs_joins_neither_side(what: str) -> None:
    segment, change = UNLIKE[what]
    segments = series(segment, *[1000] * 5)
    segments[2] = segments[2].changed(**change)
    frames = frames_of(segments)
    injects = joined(frames)
    pieces = [cut_again(inject) for inject in injects]
    assert (NO_VNET, frames[2]) in injects
    assert in_order(pieces, segments) == in_order([frames], segments)


NEVER: dict[str, Segment] = {
    "SYN": Segment(flags=SYN),
    "FIN": Segment(flags=ACK | FIN),
    "RST": Segment(flags=RST | ACK),
    "URG": Segment(flags=ACK | URG),
    "ECE": Segment(flags=ACK | ECE),
    "CWR": Segment(flags=ACK | CWR),
    "no ACK": Segment(flags=0),
    "reserved bits": Segment(reserved=1),
    "wrong checksum": Segment(broken=True),
    "wrong checksum, IPv6": Segment(broken=True, version=6),
    "wrong UDP checksum": Segment(broken=True, tcp=False),
    "UDP without checksum": Segment(tcp=False, no_checksum=True),
    "UDP6 without checksum": Segment(tcp=False, version=6, no_checksum=True),
    "padding": Segment(padding=b"\0" * 4),
    "padding behind UDP": Segment(tcp=False, padding=b"\xff"),
    "padding behind IPv6": Segment(version=6, padding=b"\0"),
    "IP options": Segment(ip_options=b"\x94\x04\0\0"),
    "IPv6 extension": Segment(version=6, ip_options=EXT6, extension=60),
    "VLAN tag": Segment(vlans=(5,)),
    "two VLAN tags": Segment(vlans=(5, 6), version=6),
}


@pytest.mark.parametrize("what", NEVER)
def test_such_frames_pass_through_unchanged(what: str) -> None:
    frames = frames_of(series(NEVER[what], *[1000] * 5))
    assert joined(frames) == [(NO_VNET, frame) for frame in frames]


def test_no_checksum_is_none_even_where_zero_would_be_right() -> None:
    at = UDP4.l4_offset + 6
    payload = bytes(1000)
    missing = UDP4.changed(payload=payload).frame()[at : at + 2]
    right = UDP4.changed(payload=missing + payload[2:])
    assert right.frame()[at : at + 2] == b"\xff\xff"
    frames = [right.changed(no_checksum=True, ip_id=n).frame() for n in range(3)]
    assert joined(frames) == [(NO_VNET, frame) for frame in frames]


@pytest.mark.parametrize("what", NEVER)
def test_such_a_frame_amid_a_flow_interrupts_it(what: str) -> None:
    odd = NEVER[what]
    segments = series(
        odd.changed(
            flags=ACK,
            broken=False,
            no_checksum=False,
            padding=b"",
            ip_options=b"",
            vlans=(),
            reserved=0,
        ),
        *[1000] * 5,
    )
    fields = ("flags", "broken", "no_checksum", "padding", "ip_options", "extension", "reserved")
    segments[2] = segments[2].changed(
        vlans=odd.vlans, **{name: getattr(odd, name) for name in fields}
    )
    frames = frames_of(segments)
    injects = joined(frames)
    pieces = [cut_again(inject) for inject in injects]
    assert (NO_VNET, frames[2]) in injects
    assert in_order(pieces, segments) == in_order([frames], segments)


def test_a_wrong_ip_header_checksum_is_not_mended() -> None:
    frames = frames_of(series(TCP4, *[1000] * 5))
    bad = bytearray(frames[2])
    bad[24] ^= 0xFF
    frames[2] = bytes(bad)
    injects = joined(frames)
    assert injects[1] == (NO_VNET, frames[2])
    assert [piece for inject in injects for piece in cut_again(inject)] == frames


@pytest.mark.parametrize("at", [0, 1, 4])
def test_a_wrong_checksum_anywhere_in_a_flow(at: int) -> None:
    segments = series(TCP4, *[1000] * 5)
    segments[at] = segments[at].changed(broken=True)
    sizes = {0: (1, 4), 1: (1, 1, 3), 4: (4, 1)}[at]
    assert_groups(segments, *sizes)


def test_pure_acknowledgements_do_not_join() -> None:
    frames = frames_of([TCP4.changed(ack=n) for n in range(5)])
    frames += frames_of([TCP4] * 2)
    assert joined(frames) == [(NO_VNET, frame) for frame in frames]


def test_a_pure_acknowledgement_within_a_flow_keeps_its_place() -> None:
    segments = series(TCP4, *[1000] * 4)
    segments.insert(2, TCP4.changed(seq=3000, ack=99))
    assert_groups(segments, 2, 1, 2)


def test_ip_fragments_pass_and_keep_their_place() -> None:
    flow = frames_of(series(UDP4.changed(ip_flags=0), *[1000] * 4))
    first = UDP4.changed(ip_flags=wire.MF, payload=PAYLOAD[:1000]).frame()
    later = wire.eth(wire.ip4(PAYLOAD[:500], flags=126))
    frames = [*flow[:2], first, later, *flow[2:]]
    injects = joined(frames)
    assert [piece for inject in injects for piece in cut_again(inject)] == frames
    assert (NO_VNET, first) in injects
    assert (NO_VNET, later) in injects


def test_udp_whose_length_disagrees_with_ip() -> None:
    frames = []
    for number in range(3):
        frame = bytearray(UDP4.changed(payload=PAYLOAD[:1000], ip_id=number).frame())
        frame[38:40] = (900).to_bytes(2, "big")
        frames.append(bytes(frame))
    assert joined(frames) == [(NO_VNET, frame) for frame in frames]


def test_flooded_frames_are_left_as_they_are_for_those_behind_us() -> None:
    world = world_with(peers=3)
    world.broadcast = {1: [2]}
    world.swap()
    frames = frames_of(series(UDP4.changed(dst=BROADCAST), *[1000] * 5))
    outcome = world.receive(datagram(1, *(record(1, 0, frame) for frame in frames)))
    assert outcome.injects == [(NO_VNET, frame) for frame in frames]
    assert [sent.frame for sent in outcome.sent] == frames


def test_relayed_frames_do_not_reach_our_bridge() -> None:
    world = world_with(peers=3)
    frames = frames_of(series(TCP4, *[1000] * 5))
    outcome = world.receive(datagram(1, *(record(1, 2, frame) for frame in frames)))
    assert outcome.injects == []
    assert [sent.frame for sent in outcome.sent] == frames


def test_hundreds_of_flows_in_one_batch() -> None:
    flows = [Segment(sport=1000 + n, host=n % 100, version=4 + 2 * (n % 2)) for n in range(300)]
    segments = [series(flow, 200, 200, 200)[turn] for turn in range(3) for flow in flows]
    frames = frames_of(segments)
    pieces = [cut_again(inject) for inject in joined(frames)]
    assert in_order(pieces, segments) == in_order([frames], segments)


# ---- any traffic: a cut gives back every frame, in order within its flow ----


def plain(frame: bytes) -> bytes:
    """The frame, without the ID and checksum of an IPv4 header with DF.

    A cut renumbers these, as the kernel's does; nobody may look at them (RFC 6864, section 4.1).
    """
    at = 14
    while frame[at - 2 : at] == b"\x81\0":
        at += 4
    if frame[at - 2 : at] != b"\x08\0" or not frame[at + 6] & 0x40:
        return frame
    assert wire.ones_sum(frame[at : at + (frame[at] & 15) * 4]) == 0xFFFF
    return frame[: at + 4] + b"\0\0" + frame[at + 6 : at + 10] + b"\0\0" + frame[at + 12 :]


def in_order(
    groups: list[list[bytes]], segments: list[Segment]
) -> dict[tuple[object, ...], list[bytes]]:
    """Each flow's frames in the order of the groups; every frame is one of the segments."""
    flow_of = {plain(segment.frame()): segment.flow for segment in segments}
    out: dict[tuple[object, ...], list[bytes]] = {}
    for frame in (frame for some in groups for frame in some):
        out.setdefault(flow_of[plain(frame)], []).append(plain(frame))
    return out


@st.composite
def flow_of_segments(draw: st.DrawFn, number: int) -> list[Segment]:
    """One flow with the troubles that flows have."""
    tcp = draw(st.booleans())
    version = draw(st.sampled_from([4, 6]))
    segment = Segment(
        tcp=tcp,
        version=version,
        sport=2000 + number,
        host=draw(st.integers(0, 3)),
        options=draw(st.sampled_from([b"", TIMESTAMPS])) if tcp else b"",
        ip_flags=draw(st.sampled_from([0, wire.DF])),
        seq=draw(st.integers(0, 2**32 - 1)),
        ip_id=draw(st.integers(0, 0xFFFF)),
        vlans=draw(st.sampled_from([(), (), (), (7,)])),
    )
    size = draw(st.integers(1, 1400))
    lengths: list[int] = draw(
        st.lists(st.sampled_from([size, size, size, size, 0, 1, size // 2, size + 1]), max_size=12)
    )
    segments = series(segment, *lengths)
    for at in range(len(segments)):
        trouble = draw(st.integers(0, 15))
        if trouble < len(TROUBLES):
            segments[at] = segments[at].changed(**TROUBLES[trouble](segments[at]))
    sent_twice: bool = draw(st.booleans())
    if segments and sent_twice:
        again = draw(st.integers(0, len(segments) - 1))
        segments.append(segments[again].changed(ip_id=segments[-1].ip_id + 1))
    if len(segments) > 1 and draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(0, len(segments) - 2))
        segments[at], segments[at + 1] = segments[at + 1], segments[at]
    return segments


TROUBLES: list[Callable[[Segment], dict[str, object]]] = [
    lambda segment: {"flags": segment.flags | PSH},
    lambda segment: {"ack": segment.ack + 1},
    lambda segment: {"broken": True},
    lambda segment: {"padding": b"\0\0"},
    lambda segment: {"flags": segment.flags | FIN},
    lambda segment: {"no_checksum": True},
    lambda segment: {"window": 9},
    lambda segment: {"ip_options": b"\1\1\1\0"} if segment.version == 4 else {},
    lambda segment: {"ip_options": EXT6, "extension": 60} if segment.version == 6 else {},
]


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_any_traffic_survives_joining_and_cutting(data: st.DataObject) -> None:
    flows = [data.draw(flow_of_segments(number)) for number in range(data.draw(st.integers(1, 5)))]
    queues = [list(flow) for flow in flows if flow]
    mixed: list[Segment] = []
    while queues:
        queue = data.draw(st.sampled_from(queues)) if len(queues) > 1 else queues[0]
        mixed.append(queue.pop(0))
        queues = [queue for queue in queues if queue]
    frames = frames_of(mixed)
    injects = joined(frames)
    pieces = [cut_again(inject) for inject in injects]
    assert in_order(pieces, mixed) == in_order([frames], mixed)
