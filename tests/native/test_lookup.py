"""Captured frames: each row of sleeve 4.1, the open checksums, and the sweep."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from native import lib
from native.datapath import Batch, Datapath
from tests.native import wire
from tests.native.world import (
    BROADCAST,
    STP,
    FrameInfo,
    World,
    captured_batch,
    datagram,
    frame_infos,
    frame_of,
    mac_of,
    record,
    vnet,
)

pytestmark = pytest.mark.native

OURS, OURS_TOO, THEIRS, NOBODYS = 1, 2, 11, 99


def decide(world: World, *frames: bytes) -> list[FrameInfo]:
    """What lookup says about the frames, asked in one batch."""
    batch = captured_batch(*frames)
    going = world.lookup(batch)
    infos = frame_infos(batch)
    assert going == sum(info.drop == "" for info in infos)
    return infos


@pytest.fixture
def world() -> World:
    """THEIRS lives at peer 1, OURS_TOO here."""
    world = World(3)
    world.learn(1, THEIRS)
    decide(world, frame_of(OURS_TOO, THEIRS))
    world.counted()
    return world


def test_row_1_a_source_known_elsewhere_is_discarded(world: World) -> None:
    (info,) = decide(world, frame_of(THEIRS, NOBODYS))
    assert info.drop == "drop_remote_source"
    assert world.drops() == {"drop_remote_source": 1}
    assert world.fdb()[mac_of(THEIRS)] == 1


def test_row_2_spanning_tree_stays_here_but_its_source_is_learnt(world: World) -> None:
    (info,) = decide(world, frame_of(OURS, STP))
    assert info.drop == "drop_stp"
    assert world.drops() == {"drop_stp": 1}
    assert world.fdb()[mac_of(OURS)] == 0


@pytest.mark.parametrize("last", [1, 2, 3, 0x0E, 0x10])
def test_other_reserved_group_addresses_are_not_filtered(world: World, last: int) -> None:
    (info,) = decide(world, frame_of(OURS, STP[:5] + bytes([last])))
    assert (info.drop, info.flood) == ("", True)


def test_row_3_a_destination_on_our_bridge_is_discarded(world: World) -> None:
    (info,) = decide(world, frame_of(OURS, OURS_TOO))
    assert info.drop == "drop_local_destination"
    assert world.counted() == {
        "captured_frames": 1,
        "captured_bytes": 60,
        "fdb_learned": 1,
        "drop_local_destination": 1,
    }


def test_row_4_a_destination_at_a_peer_is_relayed_to_it(world: World) -> None:
    (info,) = decide(world, frame_of(OURS, THEIRS))
    assert (info.relay, info.flood, info.src_peer, info.dst_peer) == (True, False, 0, 1)


@pytest.mark.parametrize("dst", [mac_of(NOBODYS), BROADCAST, bytes.fromhex("01005e000001")])
def test_row_5_any_other_destination_is_flooded(world: World, dst: bytes) -> None:
    (info,) = decide(world, frame_of(OURS, dst))
    assert (info.relay, info.flood, info.src_peer) == (False, True, 0)


def test_an_entry_at_a_peer_that_is_too_old_counts_as_unknown(world: World) -> None:
    world.now_s += 601
    (info,) = decide(world, frame_of(OURS, THEIRS))
    assert info.flood


def test_shorter_than_an_ethernet_header(world: World) -> None:
    infos = decide(world, frame_of(OURS, THEIRS), b"", bytes(13), frame_of(OURS, THEIRS)[:14])
    assert [info.drop for info in infos] == ["", "drop_short_frame", "drop_short_frame", ""]
    assert world.drops() == {"drop_short_frame": 2}


def test_without_tables_nothing_goes_anywhere() -> None:
    datapath = Datapath()
    batch = captured_batch(frame_of(OURS, THEIRS))
    assert lib.wn_lookup(datapath.c, batch.c, 1000) == 0
    assert frame_infos(batch)[0].drop == "drop_no_route"
    assert lib.wn_encap(datapath.c, batch.c, 1000) == 0


def test_an_empty_batch(world: World) -> None:
    assert world.lookup(Batch()) == 0
    assert world.counted() == {}


def test_the_first_captured_frame_sweeps_what_died(world: World) -> None:
    world.learn(2, *range(200, 210))
    world.now_s += 601
    decide(world, frame_of(OURS, BROADCAST))
    assert world.counted()["fdb_expired"] == 12
    assert world.fdb() == {mac_of(OURS): 0}


def test_a_node_that_only_receives_sweeps_too(world: World) -> None:
    world.learn(2, *range(200, 210))
    world.now_s += 601
    world.receive(datagram(1, record(1, 0, frame_of(THEIRS, OURS))))
    assert world.counted()["fdb_expired"] == 12
    assert world.fdb() == {mac_of(THEIRS): 1}


def test_the_sweep_comes_once_a_minute() -> None:
    world = World(2)
    decide(world, frame_of(OURS, BROADCAST))
    world.now_s += 1
    start = world.now_s
    world.learn(1, 50)
    world.now_s = start + 599  # a sweep: nothing is old enough
    decide(world, frame_of(OURS, BROADCAST))
    assert mac_of(50) in world.fdb()
    world.now_s = start + 601  # old enough, and the last sweep 2 s ago
    decide(world, frame_of(OURS, BROADCAST))
    assert mac_of(50) in world.fdb()
    world.now_s = start + 599 + 60
    decide(world, frame_of(OURS, BROADCAST))
    assert mac_of(50) not in world.fdb()


# ---- runs between the same MACs are decided once, which must not show ----

ENDS = st.sampled_from([OURS, OURS_TOO, THEIRS, NOBODYS])


@settings(max_examples=100, deadline=None)
@given(pairs=st.lists(st.tuples(ENDS, ENDS), min_size=1, max_size=12))
def test_a_batch_decides_as_its_frames_one_by_one(pairs: list[tuple[int, int]]) -> None:
    together, alone = World(3), World(3)
    for world in (together, alone):
        world.learn(1, THEIRS)
    frames = [frame_of(src, dst) for src, dst in pairs]
    infos = decide(together, *frames)
    assert infos == [decide(alone, frame)[0] for frame in frames]
    assert together.fdb() == alone.fdb()
    assert together.counted() == alone.counted()


# ---- checksums that the kernel left open ----


def open_udp(payload: bytes) -> tuple[bytes, bytes, bytes]:
    """A frame with only the pseudo-header's sum, its virtio header, and the frame finished."""
    packet = wire.ip4(wire.udp(payload), flags=wire.DF)
    pseudo = packet[12:20] + b"\0\x11" + packet[24:26]
    partial = wire.ones_sum(pseudo)
    whole = wire.checksum(pseudo + packet[20:]) or 0xFFFF
    frame = wire.eth(packet, src=mac_of(OURS), dst=mac_of(THEIRS))
    field = slice(14 + 20 + 6, 14 + 20 + 8)
    opened, finished = bytearray(frame), bytearray(frame)
    opened[field] = partial.to_bytes(2, "big")
    finished[field] = whole.to_bytes(2, "big")
    return bytes(opened), vnet(start=34, offset=6), bytes(finished)


def checksum_zero_payload() -> bytes:
    """A payload whose UDP checksum comes out as zero, which must be sent as 0xffff."""
    packet = wire.ip4(wire.udp(b"\0\0"))
    missing = wire.checksum(packet[12:20] + b"\0\x11" + packet[24:26] + packet[20:])
    return missing.to_bytes(2, "big")


@pytest.mark.parametrize(
    "payload",
    [b"", b"a", b"ab", bytes(1400), bytes(range(256)) * 5, checksum_zero_payload()],
    ids=lambda payload: str(len(payload)),
)
def test_an_open_checksum_is_finished(world: World, payload: bytes) -> None:
    opened, header, finished = open_udp(payload)
    outcome = world.capture((header, opened))
    assert [sent.frame for sent in outcome.sent] == [finished]


def test_the_payload_with_a_zero_checksum_is_what_it_says() -> None:
    _, _, finished = open_udp(checksum_zero_payload())
    assert finished[40:42] == b"\xff\xff"


def test_without_the_flag_the_checksum_is_left_alone(world: World) -> None:
    opened, _, _ = open_udp(b"payload")
    outcome = world.capture((vnet(), opened))
    assert [sent.frame for sent in outcome.sent] == [opened]


@pytest.mark.parametrize(
    ("start", "offset"),
    [(13, 6), (1, 60), (34, 0xFFFF), (0xFFFF, 0xFFFF), (59, 0), (34, 25), (60, 6)],
)
def test_a_checksum_outside_the_frame_is_a_bad_offload(
    world: World, start: int, offset: int
) -> None:
    frame = frame_of(OURS, THEIRS)
    assert len(frame) == 60
    infos = frame_infos_of(world, (vnet(start=start, offset=offset), frame))
    assert [info.drop for info in infos] == ["drop_bad_offload"]
    assert world.drops() == {"drop_bad_offload": 1}


@pytest.mark.parametrize(("start", "offset"), [(14, 44), (34, 24), (58, 0)])
def test_a_checksum_at_the_last_possible_place(world: World, start: int, offset: int) -> None:
    infos = frame_infos_of(world, (vnet(start=start, offset=offset), frame_of(OURS, THEIRS)))
    assert [info.drop for info in infos] == [""]


def test_a_bad_offload_does_not_spoil_its_neighbours(world: World) -> None:
    good = frame_of(OURS, THEIRS)
    bad = (vnet(start=0xFFFF), good)
    infos = frame_infos_of(world, bad, good, bad, good)
    assert [info.drop for info in infos] == ["drop_bad_offload", ""] * 2
    assert world.drops() == {"drop_bad_offload": 2}


def frame_infos_of(world: World, *frames: bytes | tuple[bytes, bytes]) -> list[FrameInfo]:
    batch = captured_batch(*frames)
    world.lookup(batch)
    return frame_infos(batch)
