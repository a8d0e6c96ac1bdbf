"""Records into datagrams, datagrams into messages: sleeve 8.3 and what GSO allows."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from native import lib
from tests.native import wire
from tests.native.test_encap import THEIRS, ip4_frame, world_of
from tests.native.test_sleeve import vector_frame
from tests.native.world import (
    MTU,
    World,
    captured_batch,
    datagram,
    frame_of,
    mac_of,
    name_of,
    record,
    split_datagram,
)

pytestmark = pytest.mark.native

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parent.parent / "vectors" / "sleeve_udp.json").read_text(encoding="utf-8")
)
OVERHEAD, RECORD = 6, 14
MAX_PAYLOAD = MTU + 62 - 28


def sizes(world: World, *frames: bytes) -> list[list[int]]:
    """Record counts of the datagrams of each message."""
    outcome = world.capture(*frames)
    assert [sent.frame for sent in outcome.sent] == list(frames)
    return [
        [len(split_datagram(data)[1]) for data in message.datagrams] for message in outcome.messages
    ]


def test_overheads_are_those_of_the_vectors() -> None:
    plain, encrypted = VECTORS["overheads"]["plain"], VECTORS["overheads"]["encrypted"]
    assert plain["overlay_overhead_incl_ip_udp_eth"] == lib.WN_OVERHEAD_PLAIN
    assert encrypted["overlay_overhead_incl_ip_udp_eth"] == lib.WN_OVERHEAD_ENCRYPTED
    assert plain["frame_overhead"] == lib.WN_RECORD_LEN == RECORD
    assert plain["packet_overhead"] == lib.WN_NAME_LEN == OVERHEAD
    assert plain["overlay_mtu_on_1500_underlay"] == MTU
    # the largest frame fills the underlay to the last byte
    (data,) = world_of(MTU).capture(ip4_frame(MTU + 14, df=True)).datagrams
    assert 28 + len(data) == 1500


def test_encrypted_paths_leave_room_for_the_box() -> None:
    world = World(2, mtu=1414)
    world.datapath.set_mtu(101, 1414, lib.WN_OVERHEAD_ENCRYPTED)
    world.learn(1, THEIRS)
    (data,) = world.capture(ip4_frame(1414 + 14, df=True)).datagrams
    assert 28 + len(data) + 24 == 1500


ONE_DATAGRAM = [case for case in VECTORS["plain"] if case["name"] == "single_small_unicast_non_df"]


@pytest.mark.parametrize("case", ONE_DATAGRAM, ids=lambda case: case["name"])
def test_our_datagram_is_the_vectors(case: dict[str, Any]) -> None:
    (item,) = case["frames"]
    names = [bytes.fromhex(item["src_peer"]), bytes.fromhex(item["dst_peer"])]
    world = World(2, names=lambda peer: names[peer])
    frame = vector_frame(item)
    world.datapath.fill_fdb([(frame[:6], 1)], world.now_s)
    assert [data.hex() for data in world.capture(frame).datagrams] == [case["udp_payload"]["bytes"]]


def test_our_broadcast_is_the_vectors() -> None:
    (case,) = [case for case in VECTORS["plain"] if case["name"] == "broadcast_arp"]
    (item,) = case["frames"]
    names = [bytes.fromhex(item["src_peer"]), bytes.fromhex(item["dst_peer"])]
    world = World(2, names=lambda peer: names[peer])
    outcome = world.capture(vector_frame(item))
    assert [data.hex() for data in outcome.datagrams] == [case["udp_payload"]["bytes"]]


def test_our_relayed_datagram_is_the_vectors() -> None:
    (case,) = [case for case in VECTORS["plain"] if case["name"] == "relayed_frame"]
    (item,) = case["frames"]
    names = [bytes.fromhex(item[key]) for key in ("src_peer", "dst_peer")]
    names.insert(1, bytes.fromhex(case["sender"]))
    relay = World(3, us=1, neighbours=[0, 2], broadcast={}, names=lambda peer: names[peer])
    incoming = datagram(names[0], record(names[0], names[2], vector_frame(item)))
    outcome = relay.receive(incoming, sender=0)
    assert [data.hex() for data in outcome.datagrams] == [case["udp_payload"]["bytes"]]


# ---- aggregation ----


def test_small_records_share_a_datagram_up_to_the_payload_limit() -> None:
    each = 100 + RECORD
    fit = (MAX_PAYLOAD - OVERHEAD) // each
    frames = [ip4_frame(100, df=True)] * (fit + 1)
    assert sizes(world_of(), *frames[:fit]) == [[fit]]
    assert sizes(world_of(), *frames) == [[fit, 1]]


@pytest.mark.parametrize(("second", "together"), [(0, True), (1, False)])
def test_the_limit_is_exact(second: int, together: bool) -> None:
    first = 700
    rest = MAX_PAYLOAD - OVERHEAD - RECORD - first - RECORD + second
    got = sizes(world_of(), ip4_frame(first, df=True), ip4_frame(rest, df=True))
    assert got == ([[2]] if together else [[1], [1]])


def test_no_more_than_a_hundred_records_share_a_datagram() -> None:
    world = world_of(9000)
    frames = [ip4_frame(60, df=True)] * 101
    assert lib.WN_AGGREGATE_MAX == 100
    assert sizes(world, *frames[:100]) == [[100]]
    assert sizes(world, *frames) == [[100, 1]]


def test_without_df_records_share_by_the_same_limit() -> None:
    frames = [frame_of(1, THEIRS, bytes([n]) * 86) for n in range(13)]
    fit = (MAX_PAYLOAD - OVERHEAD) // (100 + RECORD)
    assert sizes(world_of(), *frames) == [[fit, 13 - fit]]


def test_a_frame_longer_than_the_path_rides_alone() -> None:
    small, big = frame_of(1, THEIRS, b"s"), frame_of(1, THEIRS, bytes(3000))
    assert sizes(world_of(), small, big, small) == [[1], [1], [1]]


def test_the_channels_do_not_mix_and_each_keeps_its_order() -> None:
    world = world_of()
    with_df = [ip4_frame(200 + n, df=True) for n in range(20)]
    without = [frame_of(1, THEIRS, bytes([n]) * 200) for n in range(20)]
    mixed = [frame for pair in zip(with_df, without, strict=True) for frame in pair]
    sent = world.capture(*mixed).sent
    assert [one.frame for one in sent if one.df] == with_df
    assert [one.frame for one in sent if not one.df] == without


def test_nothing_waits_for_a_fuller_datagram() -> None:
    world = world_of()
    for size in (60, 1400):
        assert len(world.capture(ip4_frame(size, df=True)).datagrams) == 1


# ---- messages ----


def test_equal_datagrams_ride_together_and_a_shorter_one_ends_the_train() -> None:
    full, short = ip4_frame(1400, df=True), ip4_frame(1300, df=True)
    assert sizes(world_of(), full, full, short, full) == [[1, 1, 1], [1]]


def test_a_longer_datagram_starts_a_train_of_its_own() -> None:
    full, short = ip4_frame(1400, df=True), ip4_frame(1300, df=True)
    assert sizes(world_of(), short, full, full) == [[1], [1, 1]]


def test_a_train_is_no_longer_than_one_call_takes() -> None:
    trains = sizes(world_of(), *[ip4_frame(1000, df=True)] * 150)
    assert [len(train) for train in trains] == [64, 64, 22]
    trains = sizes(world_of(9000), *[ip4_frame(8900, df=True)] * 10)
    assert [len(train) for train in trains] == [7, 3]
    assert 7 * (8900 + 20) <= 65507 < 8 * (8900 + 20)


def test_datagrams_longer_than_the_path_are_no_train() -> None:
    world = world_of()
    trains = sizes(world, *[frame_of(1, THEIRS, bytes(3000))] * 3)
    assert trains == [[1], [1], [1]]


def test_neighbours_do_not_share() -> None:
    world = World(3)
    world.learn(1, 11)
    world.learn(2, 12)
    frames = [ip4_frame(100, df=True, dst=dst) for dst in (11, 12, 11, 12)]
    outcome = world.capture(*frames)
    assert [(message.forwarder, message.frames) for message in outcome.messages] == [
        (101, 2),
        (102, 2),
    ]


# ---- any mixture ----

FRAMES = st.tuples(
    st.sampled_from([11, 12, 99]),
    st.sampled_from(["df", "fragmentable", "other", "vlan"]),
    st.integers(60, 2200),
)


@settings(max_examples=80, deadline=None)
@given(
    specs=st.lists(FRAMES, min_size=1, max_size=60),
    mtu=st.sampled_from([600, 1438, 8938]),
    stack_frag=st.booleans(),
)
def test_any_mixture_obeys_the_limits_and_keeps_the_order(
    specs: list[tuple[int, str, int]], mtu: int, stack_frag: bool
) -> None:
    world = World(3, mtu=mtu, stack_frag=stack_frag)
    world.learn(1, 11)
    world.learn(2, 12)
    frames = []
    for number, (dst, kind, size) in enumerate(specs):
        if kind in ("df", "fragmentable"):
            frame = ip4_frame(size, df=kind == "df", dst=dst, tos=number)
        else:
            frame = frame_of(1, dst, bytes([number]) * (size - 14))
        frames.append(frame[:12] + b"\x81\0\0\7" + frame[12:] if kind == "vlan" else frame)
    outcome = world.capture(*frames)
    check_messages(outcome.messages, mtu)
    for peer in (1, 2):
        for df in (False, True):
            wanted = [
                frame
                for frame, (dst, kind, size) in zip(frames, specs, strict=True)
                if dst in (99, 10 + peer) and channel(kind, size, mtu, stack_frag) is df
            ]
            got = [sent.frame for sent in outcome.sent if (sent.to, sent.df) == (peer, df)]
            assert unfragmented(got) == [content(frame) for frame in wanted]


def channel(kind: str, size: int, mtu: int, stack_frag: bool) -> bool | None:
    """The table of 8.2 once more; None: dropped."""
    if kind == "df":
        return True if size <= mtu + 14 else None
    if kind == "fragmentable":
        return not stack_frag
    return False


def content(frame: bytes) -> bytes:
    """What of a frame survives fragmentation."""
    return frame[14:16] + wire.Ip4.of(frame).payload if frame[12:14] == b"\x08\0" else frame


def unfragmented(frames: list[bytes]) -> list[bytes]:
    """Contents, with consecutive fragments joined."""
    out: list[bytes] = []
    for frame in frames:
        if frame[12:14] == b"\x08\0" and wire.Ip4.of(frame).offset:
            out[-1] += wire.Ip4.of(frame).payload
        else:
            out.append(content(frame))
    return out


def check_messages(messages: list[Any], mtu: int) -> None:
    max_payload = min(mtu + 62 - 28, 65507)
    for message in messages:
        assert 1 <= len(message.datagrams) <= 64
        assert sum(map(len, message.datagrams)) <= 65507
        for data in message.datagrams:
            records = split_datagram(data)[1]
            assert 1 <= len(records) <= 100
            assert len(data) <= max_payload or (len(records) == 1 and not message.df)
    # a datagram is flushed only when the next record would not have fitted
    for one, other in pairwise(messages):
        if (one.forwarder, one.df) == (other.forwarder, other.df):
            last, first = (
                split_datagram(one.datagrams[-1])[1],
                split_datagram(other.datagrams[0])[1],
            )
            joined = len(one.datagrams[-1]) + RECORD + len(first[0][2])
            assert joined > max_payload or len(last) == 100


def test_a_sender_name_does_not_overwrite_a_neighbours_frame() -> None:
    # records are laid out in each frame's own headroom; the name goes in front of the first
    world = World(3)
    frames = [frame_of(1, mac_of(99), bytes([n]) * 50) for n in range(40)]
    for sent_to in (1, 2):
        sent = [one for one in world.capture(*frames).sent if one.to == sent_to]
        assert [one.frame for one in sent] == frames
        assert {(one.src, one.dst) for one in sent} == {(name_of(0), name_of(sent_to))}


def test_the_messages_of_a_batch_are_gone_when_it_is_encapsulated_again() -> None:
    world = world_of()
    batch = captured_batch(ip4_frame(100, df=True))
    world.lookup(batch)
    assert lib.wn_encap(world.datapath.c, batch.c, world.now_s) == 1
    assert lib.wn_encap(world.datapath.c, batch.c, world.now_s) == 0
    assert batch.messages() == []
