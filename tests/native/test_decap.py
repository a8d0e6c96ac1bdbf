"""Received datagrams: vectors both ways, each row of sleeve 4.2, and damage that only counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from base.counters import COUNTER_NAMES
from native import lib
from native.datapath import Batch, Datapath
from tests.native.test_sleeve import vector_frame
from tests.native.world import (
    BROADCAST,
    PORT,
    STP,
    Outcome,
    Sent,
    World,
    address_of,
    datagram,
    forwarder_of,
    frame_of,
    mac_of,
    name_of,
    record,
)

pytestmark = pytest.mark.native

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parent.parent / "vectors" / "sleeve_udp.json").read_text(encoding="utf-8")
)
#: The vectors' peers: we are the second, the first is our neighbour, the third is beyond it.
VECTOR_NAMES = [bytes.fromhex(name) for name in ("ce0200000002", "ce0100000001", "ce0300000003")]
ZEROS = bytes(14)
OURS, THEIRS = 1, 11


def vector_world() -> World:
    return World(
        3, neighbours=[1], unicast={1: 1, 2: 1}, broadcast={}, names=VECTOR_NAMES.__getitem__
    )


def triangle() -> World:
    """We are 0; 1 and 2 are neighbours, 3 is behind 2. OURS was captured here."""
    world = World(
        4, neighbours=[1, 2], unicast={1: 1, 2: 2, 3: 2}, broadcast={0: [1, 2], 1: [2], 3: [1]}
    )
    world.capture(frame_of(OURS, BROADCAST))
    world.counted()
    return world


# ---- vectors ----


def payload_of(case: dict[str, Any]) -> bytes:
    if "bytes" in case["udp_payload"]:
        return bytes.fromhex(case["udp_payload"]["bytes"])
    (item,) = case["frames"]
    src, dst = bytes.fromhex(item["src_peer"]), bytes.fromhex(item["dst_peer"])
    return datagram(bytes.fromhex(case["sender"]), record(src, dst, vector_frame(item)))


@pytest.mark.parametrize("case", VECTORS["plain"], ids=lambda case: case["name"])
def test_plain_vectors(case: dict[str, Any]) -> None:
    world = vector_world()
    payload = payload_of(case)
    assert len(payload) == case["udp_payload"]["length"] == case["total_len_before_flush"]
    outcome = world.receive(payload)
    frames = [vector_frame(item) for item in case["frames"]]
    special = [frame for frame in frames if frame.startswith(ZEROS)]
    short = [frame for frame in frames if len(frame) < 14]
    assert outcome.frames == [one for one in frames if one not in special and one not in short]
    assert [event.frame_len for event in outcome.events] == [len(frame) for frame in special]
    counted = world.counted()
    assert counted["received_datagrams"] == 1
    assert counted["received_bytes"] == len(payload)
    expected = {"drop_short_frame": len(short)} if short else {}
    assert {key: n for key, n in counted.items() if key.startswith("drop")} == expected


@pytest.mark.parametrize("case", VECTORS["plain_decode_cases"])
def test_damaged_vectors(case: dict[str, Any]) -> None:
    world = vector_world()
    outcome = world.receive(VECTOR_NAMES[1] + bytes.fromhex(case["after_sender_name"]))
    assert len(outcome.frames) == case["frames_delivered"]
    expected = {}
    if case["error"]:
        trailing = "trailing garbage" in case["error"]
        expected = {"drop_trailing_bytes" if trailing else "drop_truncated_record": 1}
    assert world.drops() == expected


@pytest.mark.parametrize(
    "case", VECTORS["special_frame_classification"], ids=lambda case: case["frame"]["note"]
)
def test_special_frame_vectors(case: dict[str, Any]) -> None:
    frame = vector_frame(case["frame"])
    world = World(2)
    outcome = world.receive(datagram(1, record(1, 0, frame)))
    assert bool(outcome.events) == case["is_special"]
    delivered = not case["is_special"] and len(frame) >= 14
    assert outcome.frames == ([frame] if delivered else [])


# ---- special frames ----


@pytest.mark.parametrize(
    ("frame", "kind", "all_zero", "uid"),
    [
        (ZEROS + b"\1\2\3\4\5\6\7\x08", "HEARTBEAT", False, 0x0102030405060708),
        (bytes(22), "HEARTBEAT", True, 0),
        (bytes(60_001), "FRAG_TEST", True, 0),
        (bytes(60_000) + b"\1", "FRAG_TEST", False, 0),
        (bytes(60_000), "PMTU", True, 0),
        (ZEROS + b"\x01" * 1438, "PMTU", False, 0),
        (ZEROS, "PMTU", True, 0),
    ],
)
def test_what_control_is_told(frame: bytes, kind: str, all_zero: bool, uid: int) -> None:
    world = World(2)
    outcome = world.receive(datagram(1, record(1, 0, frame)))
    (event,) = outcome.events
    assert event.kind == lib.WN_EVENT_SPECIAL
    assert event.special == getattr(lib, f"WN_SPECIAL_{kind}")
    assert (event.all_zero, event.uid, event.frame_len) == (all_zero, uid, len(frame))
    assert (event.forwarder, event.addr, event.port) == (forwarder_of(1), address_of(1), PORT)
    assert (outcome.injects, outcome.messages) == ([], [])
    assert world.counted()["special_frames"] == 1
    assert world.fdb() == {}


@pytest.mark.parametrize(("src", "dst"), [(2, 0), (1, 2), (0, 0), (0, 1), (2, 1)], ids=str)
def test_a_stray_special_frame_is_neither_handled_nor_relayed(src: int, dst: int) -> None:
    world = World(3, broadcast={0: [1, 2], 1: [2], 2: [1]})
    outcome = world.receive(datagram(1, record(src, dst, ZEROS + b"12345678")))
    assert (outcome.events, outcome.injects, outcome.messages) == ([], [], [])
    assert world.drops() == {"drop_stray_special": 1}


def test_thirteen_zeros_are_no_special_frame() -> None:
    world = World(2)
    frame = bytes(13) + b"\1" + bytes(46)
    assert world.receive(datagram(1, record(1, 0, frame))).frames == [frame]


# ---- 5.3: who may speak ----


@pytest.mark.parametrize("length", range(6))
def test_too_short_for_a_name(length: int) -> None:
    world = World(2)
    world.receive(name_of(1)[:length])
    assert world.drops() == {"drop_short_datagram": 1}


@pytest.mark.parametrize(
    "sender", [name_of(3), name_of(0), b"\xce" * 6], ids=["not a neighbour", "us", "unknown"]
)
def test_only_neighbours_may_speak(sender: bytes) -> None:
    world = triangle()
    assert world.receive(datagram(sender, record(1, 0, frame_of(THEIRS, OURS)))) == Outcome(
        rounds=1, _sender=name_of(0)
    )
    assert world.drops() == {"drop_unknown_sender": 1}
    assert mac_of(THEIRS) not in world.fdb()


def test_without_tables_nobody_may_speak() -> None:
    datapath, batch = Datapath(), Batch()
    data = datagram(1, record(1, 0, frame_of(1, 2)))
    batch.put_datagram(data)
    assert lib.wn_decap(datapath.c, batch.c, 1000) == 0
    counted = {
        name: count for name, count in zip(COUNTER_NAMES, datapath.counters(), strict=True) if count
    }
    assert counted == {
        "received_datagrams": 1,
        "received_bytes": len(data),
        "drop_unknown_sender": 1,
    }


def test_the_address_of_a_datagram_is_not_checked() -> None:
    world = triangle()
    outcome = world.receive(datagram(1, record(1, 0, frame_of(THEIRS, OURS))), sender=200)
    assert len(outcome.frames) == 1


# ---- 4.2: each row ----


@pytest.mark.parametrize(("src", "dst"), [(b"\xce" * 6, 0), (1, b"\xce" * 6)])
def test_row_1_unknown_peers(src: int | bytes, dst: int | bytes) -> None:
    world = triangle()
    outcome = world.receive(datagram(1, record(src, dst, frame_of(THEIRS, OURS))))
    assert (outcome.injects, outcome.messages) == ([], [])
    assert world.drops() == {"drop_unknown_peer": 1}


def test_row_1_does_not_cost_the_records_around_it() -> None:
    world = triangle()
    good = [frame_of(THEIRS, OURS, bytes([n])) for n in range(2)]
    outcome = world.receive(
        datagram(1, record(1, 0, good[0]), record(b"\xce" * 6, 0, good[0]), record(1, 0, good[1]))
    )
    assert outcome.frames == good


def test_row_3_for_another_peer_is_relayed_as_it_is() -> None:
    world = triangle()
    frame = frame_of(THEIRS, 33)
    before = world.fdb()
    outcome = world.receive(datagram(1, record(1, 3, frame)))
    assert outcome.sent == [Sent(2, False, name_of(1), name_of(3), frame)]
    assert outcome.injects == []
    assert world.fdb() == before
    assert world.counted()["relayed_frames"] == 1


def test_row_3_a_relayed_broadcast_address_is_no_broadcast() -> None:
    world = triangle()
    frame = frame_of(THEIRS, BROADCAST)
    outcome = world.receive(datagram(1, record(1, 3, frame)))
    assert outcome.sent == [Sent(2, False, name_of(1), name_of(3), frame)]


def test_row_3_without_a_route() -> None:
    world = World(4, neighbours=[1], unicast={1: 1})
    world.receive(datagram(1, record(1, 3, frame_of(THEIRS, 33))))
    assert world.drops() == {"drop_no_route": 1}


def test_row_4a_for_a_mac_of_ours() -> None:
    world = triangle()
    frame = frame_of(THEIRS, OURS)
    outcome = world.receive(datagram(1, record(1, 0, frame)))
    assert outcome.injects == [(bytes(10), frame)]
    assert outcome.messages == []
    assert world.fdb() == {mac_of(OURS): 0, mac_of(THEIRS): 1}
    assert world.counted() == {
        "received_datagrams": 1,
        "received_bytes": 6 + 14 + 60,
        "received_frames": 1,
        "fdb_learned": 1,
    }


def test_row_4_learns_the_source_peer_and_not_the_sender() -> None:
    world = triangle()
    world.receive(datagram(2, record(3, 0, frame_of(THEIRS, OURS))))
    assert world.fdb()[mac_of(THEIRS)] == 3


def test_row_4_learns_over_what_was_known_even_of_ours() -> None:
    world = triangle()
    world.receive(datagram(1, record(1, 0, frame_of(OURS, THEIRS))))
    assert world.fdb()[mac_of(OURS)] == 1
    assert world.counted()["fdb_moved"] == 1


@pytest.mark.parametrize("dst", [mac_of(77), BROADCAST, STP])
@pytest.mark.parametrize(("src", "sender", "onward"), [(1, 1, 2), (3, 2, 1)])
def test_row_4b_any_other_mac_is_delivered_and_follows_the_sources_tree(
    src: int, sender: int, onward: int, dst: bytes
) -> None:
    world = triangle()
    frame = frame_of(THEIRS, dst)
    outcome = world.receive(datagram(sender, record(src, 0, frame)))
    assert outcome.frames == [frame]
    assert outcome.sent == [Sent(onward, False, name_of(src), name_of(onward), frame)]
    assert world.counted()["flooded_frames"] == 1


def test_row_4b_a_mac_that_we_think_is_elsewhere_is_flooded_too() -> None:
    world = triangle()
    world.learn(2, 22)
    outcome = world.receive(datagram(1, record(1, 0, frame_of(THEIRS, 22))))
    assert len(outcome.frames) == 1
    assert [sent.to for sent in outcome.sent] == [2]


def test_row_4b_where_the_tree_ends_nothing_goes_on() -> None:
    world = triangle()
    outcome = world.receive(datagram(2, record(2, 0, frame_of(THEIRS, BROADCAST))))
    assert len(outcome.frames) == 1
    assert outcome.messages == []
    assert "flooded_frames" not in world.counted()


def test_a_flooded_frame_never_goes_straight_back() -> None:
    # trees disagree for a moment: ours for peer 3 leads where the frame came from
    world = World(4, broadcast={3: [1, 2]})
    outcome = world.receive(datagram(1, record(3, 0, frame_of(THEIRS, BROADCAST))))
    assert [sent.to for sent in outcome.sent] == [2]


@pytest.mark.parametrize("dst", [0, 3])
def test_our_own_source_coming_back_is_dropped(dst: int) -> None:
    world = triangle()
    outcome = world.receive(datagram(1, record(0, dst, frame_of(OURS, BROADCAST))))
    assert (outcome.injects, outcome.messages) == ([], [])
    assert world.drops() == {"drop_own_source": 1}


@pytest.mark.parametrize("length", [0, 1, 13])
def test_frames_without_an_ethernet_header(length: int) -> None:
    world = triangle()
    good = frame_of(THEIRS, OURS)
    outcome = world.receive(
        datagram(1, record(1, 0, b"\1" * length), record(1, 3, b"\1" * length), record(1, 0, good))
    )
    assert outcome.frames == [good]
    assert world.drops() == {"drop_short_frame": 2}


def test_flooded_and_delivered_copies_are_the_same_though_neighbours_join() -> None:
    # a frame that goes on must not be changed by joining it for the bridge
    world = triangle()
    frames = [frame_of(THEIRS, BROADCAST, bytes([n]) * 100) for n in range(30)]
    outcome = world.receive(datagram(1, *(record(1, 0, frame) for frame in frames)))
    assert outcome.frames == frames
    assert [sent.frame for sent in outcome.sent] == frames


# ---- runs are decided once, which must not show ----

ENDS = st.sampled_from([OURS, THEIRS, 22, 77])
RECORDS = st.tuples(st.sampled_from([1, 3, 0]), st.sampled_from([0, 3]), ENDS, ENDS)


@settings(max_examples=80, deadline=None)
@given(specs=st.lists(RECORDS, min_size=1, max_size=10))
def test_a_datagram_decides_as_its_records_one_by_one(
    specs: list[tuple[int, int, int, int]],
) -> None:
    together, alone = triangle(), triangle()
    records = [
        record(src, dst, frame_of(from_, to, bytes([at])))
        for at, (src, dst, from_, to) in enumerate(specs)
    ]
    outcome = together.receive(datagram(1, *records), join=False)
    singles = [alone.receive(datagram(1, one), join=False) for one in records]
    assert outcome.frames == [frame for single in singles for frame in single.frames]
    by_hop = sorted(outcome.sent, key=lambda sent: sent.to)
    assert by_hop == sorted(
        (sent for single in singles for sent in single.sent), key=lambda sent: sent.to
    )
    assert together.fdb() == alone.fdb()


# ---- trains, and more frames than fit ----


def test_a_train_is_as_many_datagrams() -> None:
    world = triangle()
    parts = [datagram(1, record(1, 0, frame_of(THEIRS, OURS, bytes([n]) * 80))) for n in range(9)]
    parts.append(datagram(1, record(1, 0, frame_of(THEIRS, OURS))))
    size = len(parts[0])
    assert len(parts[-1]) < size
    outcome = world.receive(b"".join(parts), gso_size=size)
    assert len(outcome.frames) == 10
    counted = world.counted()
    assert counted["received_datagrams"] == 10
    assert counted["received_bytes"] == sum(map(len, parts))
    stats = world.datapath.forwarder_stats(forwarder_of(1))
    assert (stats.rx_datagrams, stats.rx_frames) == (10, 10)
    assert stats.rx_bytes == sum(map(len, parts))


def test_each_datagram_of_a_train_has_a_sender_of_its_own() -> None:
    world = triangle()
    senders: tuple[int | bytes, ...] = (1, b"\xce" * 6, 2, 3)
    parts = [
        datagram(sender, record(1, 0, frame_of(THEIRS, OURS, bytes([n]))))
        for n, sender in enumerate(senders)
    ]
    outcome = world.receive(b"".join(parts), gso_size=len(parts[0]))
    assert [frame[14] for frame in outcome.frames] == [0, 2]
    assert world.drops() == {"drop_unknown_sender": 2}


def test_damage_in_a_train_ends_with_its_datagram() -> None:
    world = triangle()
    good = [datagram(1, record(1, 0, frame_of(THEIRS, OURS, bytes([n])))) for n in range(4)]
    bad = datagram(1, record(1, 0, frame_of(THEIRS, OURS), 61))
    assert len(bad) == len(good[0])
    outcome = world.receive(b"".join([good[0], bad, good[1], bad, good[2]]), gso_size=len(bad))
    assert [frame[14] for frame in outcome.frames] == [0, 1, 2]
    assert world.drops() == {"drop_truncated_record": 2}


def test_a_train_that_ends_in_a_scrap() -> None:
    world = triangle()
    part = datagram(1, record(1, 0, frame_of(THEIRS, OURS)))
    world.receive(part * 3 + b"\xce\0", gso_size=len(part))
    assert world.drops() == {"drop_short_datagram": 1}


@pytest.mark.parametrize("per_datagram", [1, 7, 100])
@pytest.mark.parametrize("train", [False, True])
def test_more_frames_than_the_table_holds(per_datagram: int, train: bool) -> None:
    world = triangle()
    count = 5000 - 5000 % per_datagram
    frames = [frame_of(THEIRS, OURS, n.to_bytes(2, "big")) for n in range(count)]
    parts = [
        datagram(1, *(record(1, 0, frame) for frame in frames[at : at + per_datagram]))
        for at in range(0, count, per_datagram)
    ]
    size = len(parts[0])
    per_slot = min(65_000 // size, -(-len(parts) // 60))
    slots = [b"".join(parts[at : at + per_slot]) for at in range(0, len(parts), per_slot)]
    if not train:
        slots, size = parts[:64], 0
        frames = frames[: 64 * per_datagram]
    outcome = world.receive(*slots, gso_size=size)
    assert outcome.frames == frames
    assert outcome.rounds == -(-len(frames) // 2048)
    stats = world.datapath.forwarder_stats(forwarder_of(1))
    assert stats.rx_frames == len(frames)
    assert stats.rx_datagrams == -(-len(frames) // per_datagram)
    assert stats.rx_bytes == sum(map(len, slots))
    counted = world.counted()
    assert counted["received_datagrams"] == stats.rx_datagrams
    assert counted["received_frames"] == len(frames)
    assert not any(name.startswith("drop") for name in counted)


def test_damage_behind_a_full_table_is_counted_once() -> None:
    world = triangle()
    frame = record(1, 0, frame_of(THEIRS, OURS))
    slots = [datagram(1, *[frame] * 800), datagram(1, *[frame] * 700)]
    slots.append(datagram(1, *[frame] * (2048 - 1500)) + b"scrap")
    slots.append(datagram(1, frame))
    outcome = world.receive(*slots)
    assert len(outcome.frames) == 2049
    assert world.drops() == {"drop_trailing_bytes": 1}


def test_relaying_more_than_a_batch_of_frames_loses_none() -> None:
    world = triangle()
    frames = [frame_of(THEIRS, 33, n.to_bytes(2, "big")) for n in range(4500)]
    slots = [
        datagram(1, *(record(1, 3, frame) for frame in frames[at : at + 800]))
        for at in range(0, len(frames), 800)
    ]
    outcome = world.receive(*slots)
    assert [sent.frame for sent in outcome.sent] == frames
    assert world.counted()["relayed_frames"] == len(frames)


# ---- any bytes ----


@settings(max_examples=200, deadline=None)
@given(
    data=st.one_of(
        st.binary(max_size=200),
        st.builds(
            lambda tail: name_of(1) + tail,
            st.one_of(
                st.binary(max_size=200),
                st.lists(
                    st.builds(
                        record,
                        st.integers(0, 4),
                        st.integers(0, 4),
                        st.binary(max_size=40),
                        st.one_of(st.none(), st.integers(0, 65535)),
                    ),
                    max_size=5,
                ).map(b"".join),
            ),
        ),
    ),
    gso_size=st.integers(0, 120),
)
def test_any_bytes_are_counted_and_harm_nothing(data: bytes, gso_size: int) -> None:
    world = triangle()
    outcome = world.receive(data, gso_size=gso_size)
    counted = world.counted()
    assert counted.get("received_bytes", 0) == len(data)
    assert len(outcome.frames) <= counted.get("received_frames", 0)
    good = frame_of(THEIRS, OURS, b"after")
    assert world.receive(datagram(1, record(1, 0, good))).frames == [good]
