"""Which channel, which size, which answer: sleeve 8.2, 8.4 and 8.5, row by row, and flooding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from native import lib
from tests.native import wire
from tests.native.flows import Segment
from tests.native.world import (
    BROADCAST,
    MTU,
    Outcome,
    Sent,
    World,
    captured_batch,
    datagram,
    forwarder_of,
    frame_of,
    mac_of,
    name_of,
    record,
    split_datagram,
)

pytestmark = pytest.mark.native

VECTORS: dict[str, list[dict[str, Any]]] = json.loads(
    (Path(__file__).parent.parent / "vectors" / "sleeve_fragmentation.json").read_text(
        encoding="utf-8"
    )
)

OURS, THEIRS = 1, 11
FITS = MTU + 14
LONGEST = 65507 - 6 - 14


def world_of(mtu: int = MTU, *, stack_frag: bool = False) -> World:
    """THEIRS lives at neighbour 1; peer 2 is another neighbour."""
    world = World(3, mtu=mtu, stack_frag=stack_frag)
    world.learn(1, THEIRS)
    return world


def ip4_frame(size: int, *, df: bool, dst: int | bytes = THEIRS, **fields: Any) -> bytes:
    """An IPv4 frame of exactly ``size`` bytes."""
    packet = wire.ip4(wire.udp(bytes(size - 42)), flags=wire.DF if df else 0, **fields)
    return frame_between(packet, 0x0800, dst)


def ip6_frame(size: int, *, dst: int | bytes = THEIRS) -> bytes:
    return frame_between(wire.ip6(wire.udp(bytes(size - 62))), 0x86DD, dst)


def frame_between(packet: bytes, ethertype: int, dst: int | bytes) -> bytes:
    to = dst if isinstance(dst, bytes) else mac_of(dst)
    return wire.eth(packet, ethertype, mac_of(OURS), to)


def tagged(frame: bytes) -> bytes:
    return frame[:12] + b"\x81\0\0\x05" + frame[12:]


def whole(outcome: Outcome, frame: bytes) -> tuple[bool, int]:
    """Channel and next hop of a frame that left in one piece and alone."""
    (sent,) = outcome.sent
    assert sent.frame == frame
    return sent.df, sent.to


# ---- 8.2: frames that fit ----


@pytest.mark.parametrize("size", [60, FITS - 1, FITS])
@pytest.mark.parametrize("dst", [THEIRS, 99], ids=["unicast", "flooded"])
@pytest.mark.parametrize("stack_frag", [False, True])
@pytest.mark.parametrize("df", [False, True])
def test_ip4_that_fits(df: bool, stack_frag: bool, dst: int, size: int) -> None:
    world = world_of(stack_frag=stack_frag)
    frame = ip4_frame(size, df=df, dst=dst)
    outcome = world.capture(frame)
    assert {sent.df for sent in outcome.sent} == {df or not stack_frag}
    assert [sent.frame for sent in outcome.sent] == [frame] * (1 if dst == THEIRS else 2)
    assert outcome.injects == []
    assert world.drops() == {}


NON_IP = {
    "IPv6": ip6_frame(200),
    "ARP": frame_of(OURS, THEIRS, bytes(28), ethertype=0x0806),
    "802.3": frame_of(OURS, THEIRS, bytes(100), ethertype=100),
    "tagged IPv4 with DF": tagged(ip4_frame(200, df=True)),
    "tagged IPv4": tagged(ip4_frame(200, df=False)),
    "IPv4 with a short header": frame_of(
        OURS, THEIRS, b"\x44" + wire.ip4(b"", flags=wire.DF)[1:], ethertype=0x0800
    ),
    "IPv4 type, other version": frame_of(OURS, THEIRS, b"\x65" + bytes(50), ethertype=0x0800),
    "bare header": frame_of(OURS, THEIRS)[:14],
}


@pytest.mark.parametrize("kind", NON_IP)
@pytest.mark.parametrize("stack_frag", [False, True])
def test_everything_else_goes_without_df(kind: str, stack_frag: bool) -> None:
    world = world_of(stack_frag=stack_frag)
    assert whole(world.capture(NON_IP[kind]), NON_IP[kind]) == (False, 1)


@pytest.mark.parametrize(
    "frame",
    [
        frame_of(OURS, THEIRS, bytes(FITS)),
        tagged(ip4_frame(FITS + 1, df=True)),
        tagged(ip6_frame(FITS + 1)),
        frame_of(OURS, THEIRS, bytes(LONGEST - 14)),
    ],
    ids=["other", "tagged IPv4", "tagged IPv6", "longest"],
)
def test_what_is_not_ip_may_be_longer_than_the_path(frame: bytes) -> None:
    world = world_of()
    assert whole(world.capture(frame), frame) == (False, 1)
    assert world.drops() == {}


def test_longer_than_any_datagram() -> None:
    world = world_of(65_535)
    frames = [
        frame_of(OURS, THEIRS, bytes(LONGEST - 13)),
        tagged(ip4_frame(LONGEST - 3, df=True)),
    ]
    assert world.capture(*frames).messages == []
    assert world.drops() == {"drop_frame_too_long": 2}


def test_ip_longer_than_any_datagram_is_told_or_fragmented() -> None:
    world = world_of(65_535)
    (answer,) = world.capture(ip4_frame(LONGEST + 1, df=True)).frames
    assert wire.Ip4.of(answer).payload[6:8] == (LONGEST - 14).to_bytes(2, "big")
    assert world.drops() == {"drop_too_big": 1}
    frame = ip4_frame(65_549, df=False)
    pieces = [sent.frame for sent in world.capture(frame).sent]
    assert wire.reassemble(pieces) == (0, wire.Ip4.of(frame).payload, 0)
    frame = ip4_frame(LONGEST, df=True)
    assert whole(world.capture(frame), frame) == (True, 1)


# ---- 8.2: IPv4 that does not fit ----


def test_df_too_big_unicast_is_answered_and_dropped() -> None:
    world = world_of()
    frame = ip4_frame(FITS + 1, df=True, tos=0x10)
    outcome = world.capture(frame)
    assert outcome.messages == []
    ((header, answer),) = outcome.injects
    assert header == bytes(10)
    assert answer[:12] == mac_of(OURS) + mac_of(THEIRS)
    icmp = wire.Ip4.of(answer)
    assert icmp.header[12:20] == wire.IP4_B + wire.IP4_A
    assert wire.ones_sum(icmp.payload) == 0xFFFF
    assert icmp.payload[:2] + icmp.payload[4:8] == b"\3\4\0\0" + MTU.to_bytes(2, "big")
    assert icmp.payload[8:] == frame[14:42]
    assert world.counted() == {
        "captured_frames": 1,
        "captured_bytes": FITS + 1,
        "fdb_learned": 1,
        "drop_too_big": 1,
        "too_big_answers": 1,
    }


@pytest.mark.parametrize("dst", [99, BROADCAST], ids=["unknown", "broadcast"])
def test_df_too_big_flooded_is_dropped_without_a_word(dst: int | bytes) -> None:
    world = world_of()
    world.set_mtu(2, 9000)
    frame = ip4_frame(FITS + 1, df=True, dst=dst)
    outcome = world.capture(frame)
    assert [(sent.to, sent.df) for sent in outcome.sent] == [(2, True)]
    assert outcome.injects == []
    assert world.drops() == {"drop_too_big_flooded": 1}


def test_no_df_too_big_is_left_to_an_underlay_that_can() -> None:
    world = world_of(stack_frag=True)
    frame = ip4_frame(FITS + 1000, df=False)
    assert whole(world.capture(frame), frame) == (False, 1)
    assert world.counted().get("fragmented_frames", 0) == 0


def test_no_df_too_big_is_fragmented_here_otherwise() -> None:
    world = world_of()
    frame = ip4_frame(3014, df=False)
    outcome = world.capture(frame)
    pieces = [sent.frame for sent in outcome.sent]
    original = wire.Ip4.of(frame)
    assert wire.reassemble(pieces) == (0, original.payload, 0)
    assert [len(wire.Ip4.of(piece).payload) for piece in pieces] == [1416, 1416, 148]
    assert all(sent.df and sent.to == 1 for sent in outcome.sent)
    assert world.counted()["fragmented_frames"] == 1


def test_no_df_longer_than_any_datagram_is_fragmented_even_then() -> None:
    world = world_of(stack_frag=True)
    frame = ip4_frame(65_549, df=False)
    outcome = world.capture(frame)
    assert wire.reassemble([sent.frame for sent in outcome.sent]) == (
        0,
        wire.Ip4.of(frame).payload,
        0,
    )


def test_flooded_frames_are_fragmented_per_neighbour() -> None:
    world = world_of()
    world.set_mtu(2, 700)
    frame = ip4_frame(1514, df=False, dst=BROADCAST)
    by_peer: dict[int, list[bytes]] = {1: [], 2: []}
    for sent in world.capture(frame).sent:
        assert sent.dst == name_of(sent.to)
        by_peer[sent.to].append(sent.frame)
    assert {peer: len(pieces) for peer, pieces in by_peer.items()} == {1: 2, 2: 3}
    for pieces in by_peer.values():
        assert wire.reassemble(pieces) == (0, wire.Ip4.of(frame).payload, 0)


def test_what_cannot_be_fragmented_is_counted() -> None:
    world = world_of()
    lying = frame_between(wire.ip4(bytes(2000), total=2100), 0x0800, THEIRS)
    assert world.capture(lying).messages == []
    assert world.drops() == {"drop_bad_fragment": 1}


@pytest.mark.parametrize("case", VECTORS["fragmentation"], ids=lambda case: str(case["mtu"]))
def test_fragmentation_vectors_through_both_nodes(case: dict[str, Any]) -> None:
    frame = bytes.fromhex(case["frame"])
    expected = [bytes.fromhex(piece) for piece in case["fragments"]]
    assert case["too_big"]
    here, there = World(2, mtu=case["mtu"]), World(2, us=1)
    here.datapath.fill_fdb([(frame[:6], 1)], here.now_s)
    outcome = here.capture(frame)
    assert outcome.sent == [Sent(1, True, name_of(0), name_of(1), piece) for piece in expected]
    assert there.receive(*outcome.datagrams).frames == expected


# ---- 8.4: who gets the answer ----


TOO_BIG = [
    case
    for case in VECTORS["icmp_frag_needed"]
    if case["offending_frame_length"] > case["mtu"] + 14
]


@pytest.mark.parametrize("case", TOO_BIG)
def test_answer_vectors_through_the_pipeline(case: dict[str, Any]) -> None:
    frame = bytes.fromhex(case["offending_frame_first_bytes"])
    frame += bytes(case["offending_frame_length"] - len(frame))
    world = World(2, mtu=case["mtu"])
    world.datapath.fill_fdb([(frame[:6], 1)], world.now_s)
    outcome = world.capture(frame)
    assert [answer.hex() for answer in outcome.frames] == [case["icmp_frame"]]


def line(us: int = 1, *, mtu: int = 9000) -> World:
    """0 - 1 - 2, seen by ``us``; the far link of node 1 is narrow."""
    ends = {0: 0, 2: 2} if us == 1 else {peer: 1 for peer in range(3) if peer != us}
    near = [0, 2] if us == 1 else [1]
    return World(3, us=us, neighbours=near, unicast=ends, broadcast={}, mtu=mtu)


def test_a_relay_answers_towards_the_source_peer() -> None:
    relay = line()
    relay.set_mtu(2, MTU)
    frame = ip4_frame(FITS + 1, df=True)
    outcome = relay.receive(datagram(0, record(0, 2, frame)), sender=0)
    assert outcome.injects == []
    (sent,) = outcome.sent
    assert (sent.to, sent.src, sent.dst) == (0, name_of(2), name_of(0))
    assert sent.frame[:12] == mac_of(OURS) + mac_of(THEIRS)
    assert wire.Ip4.of(sent.frame).payload[6:8] == MTU.to_bytes(2, "big")
    assert relay.fdb() == {}
    assert relay.counted()["too_big_answers"] == 1
    origin = line(us=0)
    back = origin.receive(*outcome.datagrams, sender=1)
    assert back.frames == [sent.frame]
    assert origin.fdb() == {mac_of(THEIRS): 2}


def test_the_answer_goes_through_whatever_the_rules_say_for_its_own_path() -> None:
    relay = line()
    relay.set_mtu(2, MTU)
    relay.set_mtu(0, MTU, stack_frag=True)
    outcome = relay.receive(datagram(0, record(0, 2, ip4_frame(FITS + 1, df=True))), sender=0)
    assert [sent.df for sent in outcome.sent] == [False]


def test_an_answer_without_a_way_back_is_lost() -> None:
    relay = World(3, us=1, neighbours=[0, 2], unicast={2: 2}, broadcast={}, mtu=MTU)
    outcome = relay.receive(datagram(0, record(0, 2, ip4_frame(FITS + 1, df=True))), sender=0)
    assert outcome.messages == []
    assert relay.drops() == {"drop_too_big": 1, "drop_no_route": 1}


def test_the_answer_teaches_us_where_the_destination_lives() -> None:
    world = World(3, mtu=MTU)
    world.learn(1, THEIRS)
    batch = captured_batch(ip4_frame(FITS + 1, df=True))
    world.lookup(batch)
    lib.wn_fdb_forget_peer(lib.wn_datapath_fdb(world.datapath.c), 1)  # between two stages
    lib.wn_encap(world.datapath.c, batch.c, world.now_s)
    assert world.fdb() == {mac_of(OURS): 0, mac_of(THEIRS): 1}


def test_some_are_not_answered() -> None:
    world = world_of()
    error = wire.ip4(b"\x03\x04" + bytes(FITS), proto=1, flags=wire.DF)
    outcome = world.capture(frame_between(error, 0x0800, THEIRS))
    assert (outcome.messages, outcome.injects) == ([], [])
    assert world.drops() == {"drop_too_big": 1}


def test_answers_are_bounded_per_second() -> None:
    world = world_of()
    frame = ip4_frame(FITS + 1, df=True)
    count = 0
    for _ in range(3):
        count += len(world.capture(*[frame] * 500).injects)
    assert count == 1000
    world.now_s += 1
    assert len(world.capture(frame).injects) == 1


# ---- IPv6, ours: told, where the original lets the underlay fragment ----


def test_ip6_too_big_is_answered() -> None:
    world = world_of()
    frame = ip6_frame(FITS + 1)
    outcome = world.capture(frame)
    assert outcome.messages == []
    (answer,) = outcome.frames
    assert answer[:14] == mac_of(OURS) + mac_of(THEIRS) + b"\x86\xdd"
    assert answer[54:56] == b"\2\0"
    assert answer[58:62] == MTU.to_bytes(4, "big")
    assert world.drops() == {"drop_too_big": 1}


def test_ip6_too_big_flooded_goes_without_df() -> None:
    world = world_of()
    frame = ip6_frame(FITS + 1, dst=99)
    assert [(sent.df, sent.frame) for sent in world.capture(frame).sent] == [(False, frame)] * 2


@pytest.mark.parametrize(("mtu", "answered"), [(1279, False), (1280, True)])
def test_no_ip6_host_is_asked_for_less_than_1280(mtu: int, answered: bool) -> None:
    world = world_of(mtu)
    outcome = world.capture(ip6_frame(1400))
    assert (len(outcome.injects), len(outcome.sent)) == ((1, 0) if answered else (0, 1))


def test_ip6_that_may_not_be_answered_goes_without_df() -> None:
    world = world_of()
    error = frame_between(wire.ip6(b"\x01\0" + bytes(FITS), proto=58), 0x86DD, THEIRS)
    assert whole(world.capture(error), error) == (False, 1)


# ---- super-frames obey the same rules ----

BIG = bytes(20_000)
SUPER4 = Segment(src=mac_of(OURS), dst=mac_of(THEIRS), payload=BIG)
SUPER6 = SUPER4.changed(version=6)


@pytest.mark.parametrize("tcp", [True, False])
@pytest.mark.parametrize("stack_frag", [False, True])
@pytest.mark.parametrize("df", [False, True])
def test_pieces_that_fit(df: bool, stack_frag: bool, tcp: bool) -> None:
    world = world_of(stack_frag=stack_frag)
    segment = SUPER4.changed(tcp=tcp, ip_flags=wire.DF if df else 0)
    size = MTU - 40 if tcp else MTU - 28
    outcome = world.capture(segment.super_frame(size))
    assert [sent.frame for sent in outcome.sent] == [part.frame() for part in segment.cut(size)]
    assert {sent.df for sent in outcome.sent} == {df or not stack_frag}
    assert {len(part) for part in outcome.datagrams[:-1]} == {1472}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("tcp", [True, False])
def test_pieces_one_byte_too_long_are_answered_once(tcp: bool, version: int) -> None:
    world = world_of()
    segment = SUPER4.changed(tcp=tcp, version=version)
    headers = segment.payload_offset - 14
    outcome = world.capture(segment.super_frame(MTU - headers + 1))
    assert outcome.messages == []
    assert len(outcome.injects) == 1
    assert world.drops() == {"drop_too_big": 1}
    outcome = world.capture(segment.super_frame(MTU - headers))
    assert len(outcome.sent) == len(segment.cut(MTU - headers))
    assert {sent.df for sent in outcome.sent} == {version == 4}


def test_a_super_frame_with_one_piece_is_judged_by_its_length() -> None:
    world = world_of()
    segment = SUPER4.changed(payload=bytes(MTU - 40))
    outcome = world.capture(segment.super_frame(9000))
    assert [sent.frame for sent in outcome.sent] == [segment.frame()]


def test_super_frames_flooded_and_too_big() -> None:
    world = world_of()
    df = SUPER4.changed(dst=mac_of(99))
    assert world.capture(df.super_frame(1460)).messages == []
    assert world.drops() == {"drop_too_big_flooded": 2}
    ip6 = df.changed(version=6)
    outcome = world.capture(ip6.super_frame(1440))
    expected = [part.frame() for part in ip6.cut(MTU - 60)]
    for peer in (1, 2):
        assert [sent.frame for sent in outcome.sent if sent.to == peer] == expected
    assert not any(sent.df for sent in outcome.sent)


def test_udp_without_df_too_big() -> None:
    segment = SUPER4.changed(tcp=False, ip_flags=0, payload=bytes(5000))
    trusting = world_of(stack_frag=True)
    outcome = trusting.capture(segment.super_frame(2000))
    assert [sent.frame for sent in outcome.sent] == [part.frame() for part in segment.cut(2000)]
    assert not any(sent.df for sent in outcome.sent)
    careful = world_of()
    outcome = careful.capture(segment.super_frame(2000))
    assert all(sent.df and len(sent.frame) <= FITS for sent in outcome.sent)
    assert len(outcome.sent) == 2 + 2 + 1
    assert careful.counted()["fragmented_frames"] == 3


# ---- who gets the frame ----


def test_no_address_yet() -> None:
    world = world_of()
    world.datapath.set_forwarder(forwarder_of(1), 1, name_of(1), "", 0)
    assert world.capture(frame_of(OURS, THEIRS)).messages == []
    assert world.drops() == {"drop_no_address": 1}
    assert [sent.to for sent in world.capture(frame_of(OURS, 99)).sent] == [2]


def test_no_route_to_the_destinations_peer() -> None:
    world = World(3, neighbours=[1], unicast={1: 1})
    world.learn(2, THEIRS)
    assert world.capture(frame_of(OURS, THEIRS)).messages == []
    assert world.drops() == {"drop_no_route": 1}


def test_unicast_names_the_final_peer_and_leaves_through_the_next_hop() -> None:
    world = World(3, neighbours=[1], unicast={1: 1, 2: 1})
    world.learn(2, THEIRS)
    (sent,) = world.capture(frame_of(OURS, THEIRS)).sent
    assert (sent.to, sent.src, sent.dst) == (1, name_of(0), name_of(2))


def test_broadcast_names_each_neighbour_and_follows_our_own_tree() -> None:
    world = World(4, broadcast={0: [1, 3], 1: [2]})
    frame = frame_of(OURS, BROADCAST)
    assert world.capture(frame).sent == [
        Sent(peer, False, name_of(0), name_of(peer), frame) for peer in (1, 3)
    ]


@pytest.mark.parametrize("count", [63, 64, 65, 200, 1500])
def test_flooding_to_very_many_neighbours(count: int) -> None:
    world = World(count + 1)
    small, big = frame_of(OURS, BROADCAST, b"1"), ip4_frame(4000, df=False, dst=BROADCAST)
    last = frame_of(OURS, BROADCAST, b"2")
    outcome = world.capture(small, big, last)
    got: dict[int, list[Sent]] = {peer: [] for peer in range(1, count + 1)}
    for sent in outcome.sent:
        got[sent.to].append(sent)
    original = wire.Ip4.of(big).payload
    for peer, to_peer in got.items():
        assert all((sent.src, sent.dst) == (name_of(0), name_of(peer)) for sent in to_peer)
        assert [sent.frame for sent in to_peer if not sent.df] == [small, last]
        pieces = [sent.frame for sent in to_peer if sent.df]
        assert wire.reassemble(pieces) == (0, original, 0)
    assert (outcome.rounds > 1) == (count > 32)
    assert world.drops() == {}


def test_flooding_super_frames_to_many_neighbours() -> None:
    world = World(101)
    segment = SUPER4.changed(dst=mac_of(99), payload=bytes(range(250)) * 250)
    outcome = world.capture(segment.super_frame(1000), segment.super_frame(1000))
    expected = [part.frame() for part in segment.cut(1000)] * 2
    got: dict[int, list[bytes]] = {peer: [] for peer in range(1, 101)}
    for sent in outcome.sent:
        got[sent.to].append(sent.frame)
    assert all(frames == expected for frames in got.values())
    assert outcome.rounds > 1
    assert world.drops() == {}


def test_a_batch_full_of_frames_leaves_in_order() -> None:
    world = world_of()
    frames = [ip4_frame(100 + n % 50, df=True, tos=n % 256) for n in range(2048)]
    outcome = world.capture(*frames)
    assert [sent.frame for sent in outcome.sent] == frames


def test_a_batch_of_super_frames_leaves_in_order_though_it_takes_several_calls() -> None:
    world = world_of()
    segments = [SUPER4.changed(payload=bytes([n]) * 60_000, seq=n * 60_000) for n in range(60)]
    outcome = world.capture(*(segment.super_frame(400) for segment in segments))
    expected = [part.frame() for segment in segments for part in segment.cut(400)]
    assert [sent.frame for sent in outcome.sent] == expected
    assert outcome.rounds > 1


def test_sent_and_relayed_are_counted_apart() -> None:
    relay = line()
    relay.receive(datagram(0, record(0, 2, frame_of(OURS, THEIRS))), sender=0)
    counted = relay.counted()
    assert counted["relayed_frames"] == 1
    assert "flooded_frames" not in counted
    world = world_of()
    world.capture(frame_of(OURS, 99))
    counted = world.counted()
    assert counted["flooded_frames"] == 2  # copies
    assert "relayed_frames" not in counted
    world.capture(frame_of(OURS, THEIRS))
    assert "relayed_frames" not in world.counted()


def test_what_is_dropped_was_not_relayed() -> None:
    relay = World(3, us=1, neighbours=[0], unicast={0: 0}, broadcast={})
    relay.receive(datagram(0, record(0, 2, frame_of(OURS, THEIRS))), sender=0)
    counted = relay.counted()
    assert counted["drop_no_route"] == 1
    assert "relayed_frames" not in counted


def test_the_spec_example_of_a_datagram() -> None:
    world = World(
        2, names=lambda peer: [b"\x7a\x9f\xeb\xb6\x0c\x6e", b"\xce\x31\x3c\x8a\x02\xf1"][peer]
    )
    world.learn(1, THEIRS)
    frame = frame_of(OURS, THEIRS)
    (data,) = world.capture(frame).datagrams
    sender, records = split_datagram(data)
    assert sender == b"\x7a\x9f\xeb\xb6\x0c\x6e"
    assert records == [(sender, b"\xce\x31\x3c\x8a\x02\xf1", frame)]
