"""The limits of a batch, and what inspection says about one."""

from __future__ import annotations

import pytest

from native import ffi, lib
from native.datapath import Batch
from tests.native.world import (
    World,
    captured_batch,
    datagram,
    frame_infos,
    frame_of,
    name_of,
    record,
)

pytestmark = pytest.mark.native

FRAME_TABLE = 2048
EVENT_TABLE = 64
SLOTS = 64


def test_a_fresh_batch_is_empty() -> None:
    batch = Batch()
    assert lib.wn_batch_frames(batch.c) == 0
    assert (batch.messages(), batch.injects(), batch.events(), batch.errno) == ([], [], [], 0)


def test_captured_frames_end_with_the_frame_table() -> None:
    batch = Batch()
    for _ in range(FRAME_TABLE):
        assert batch.put_captured(frame_of(1, 2)) == lib.WN_OK
    assert batch.put_captured(frame_of(1, 2)) == lib.WN_ERR_FULL
    assert lib.wn_batch_frames(batch.c) == FRAME_TABLE


def test_captured_bytes_end_with_the_arena() -> None:
    batch = Batch()
    frame = bytes(65_000)
    count = 0
    while batch.put_captured(frame) == lib.WN_OK:
        count += 1
    assert 60 <= count <= 64
    assert batch.put_captured(b"x" * 60) in (lib.WN_OK, lib.WN_ERR_FULL)


def test_a_frame_longer_than_any_is_refused() -> None:
    batch = Batch()
    assert batch.put_captured(bytes(65_535 + 64)) == lib.WN_OK
    assert batch.put_captured(bytes(65_535 + 65)) == lib.WN_ERR_RANGE


def test_datagrams_end_with_the_receive_slots() -> None:
    batch = Batch()
    assert batch.put_datagram(bytes(65_536)) == lib.WN_ERR_RANGE
    for _ in range(SLOTS):
        assert batch.put_datagram(bytes(65_535)) == lib.WN_OK
    assert batch.put_datagram(b"") == lib.WN_ERR_FULL


def test_indices_outside_are_refused() -> None:
    world = World(2)
    batch = captured_batch(frame_of(1, 2))
    world.lookup(batch)
    lib.wn_encap(world.datapath.c, batch.c, world.now_s)
    info, message = ffi.new("wn_frame_info *"), ffi.new("wn_msg_info *")
    event = ffi.new("wn_event *")
    for index in (-1, 1):
        assert lib.wn_batch_frame_info(batch.c, index, info) == lib.WN_ERR_RANGE
        assert lib.wn_batch_msg_info(batch.c, index, message) == lib.WN_ERR_RANGE
        assert lib.wn_batch_msg_copy(batch.c, index, ffi.NULL, 0) == lib.WN_ERR_RANGE
        assert lib.wn_batch_inject_copy(batch.c, index, ffi.NULL, ffi.NULL, 0) == lib.WN_ERR_RANGE
        assert lib.wn_batch_event(batch.c, index, event) == lib.WN_ERR_RANGE


def test_copies_fit_or_are_refused() -> None:
    world = World(2)
    batch = captured_batch(frame_of(1, 2))
    world.lookup(batch)
    lib.wn_encap(world.datapath.c, batch.c, world.now_s)
    size = 6 + 14 + 60
    out = ffi.new("uint8_t[]", size)
    assert lib.wn_batch_msg_copy(batch.c, 0, out, size - 1) == lib.WN_ERR_RANGE
    assert lib.wn_batch_msg_copy(batch.c, 0, out, size) == size
    assert bytes(ffi.buffer(out)) == datagram(0, record(0, 1, frame_of(1, 2)))


def test_reset_forgets_everything() -> None:
    world = World(2)
    batch = captured_batch(frame_of(1, 2))
    world.lookup(batch)
    lib.wn_encap(world.datapath.c, batch.c, world.now_s)
    batch.more_frames = batch.more_relay = True
    batch.reset()
    assert (lib.wn_batch_frames(batch.c), batch.messages()) == (0, [])
    assert not batch.more_frames
    assert not batch.more_relay
    assert world.lookup(batch) == 0
    assert lib.wn_encap(world.datapath.c, batch.c, world.now_s) == 0


def test_events_past_the_table_are_lost_but_counted() -> None:
    world = World(2)
    heartbeat = bytes(14) + (1).to_bytes(8, "big")
    outcome = world.receive(datagram(1, *[record(1, 0, heartbeat)] * (EVENT_TABLE + 6)))
    assert len(outcome.events) == EVENT_TABLE
    assert world.counted()["special_frames"] == EVENT_TABLE + 6


def test_special_frames_beyond_a_bounded_number_per_second_are_dropped() -> None:
    world = World(2)
    heartbeat = bytes(14) + (1).to_bytes(8, "big")
    for _ in range(15):
        world.receive(datagram(1, *[record(1, 0, heartbeat)] * 100))
    counted = world.counted()
    assert counted["special_frames"] == 1000
    assert counted["drop_special_flood"] == 500


def test_transfer_moves_messages_once_and_in_order() -> None:
    world = World(3)
    there = World(3, us=1)
    source = captured_batch(*(frame_of(1, 2, bytes([n]) * 600) for n in range(8)))
    world.lookup(source)
    lib.wn_encap(world.datapath.c, source.c, world.now_s)
    messages = [message for message in source.messages() if message.forwarder == 101]
    assert sum(len(message.datagrams) for message in messages) > 1
    sink = Batch()
    count = lib.wn_batch_transfer(source.c, sink.c, 0x0100007F, 1234)
    assert count == len(source.messages())
    assert lib.wn_batch_transfer(source.c, sink.c, 0x0100007F, 1234) == 0
    outcome = there.ingress(sink, join=False)
    # both neighbours' copies went the same way; only those for peer 1 are for the node there
    assert outcome.frames == [frame_of(1, 2, bytes([n]) * 600) for n in range(8)]


def test_transfer_stops_when_the_receiver_is_full() -> None:
    world = World(SLOTS + 10)
    source = captured_batch(frame_of(1, 2))
    world.lookup(source)
    more = lib.wn_encap(world.datapath.c, source.c, world.now_s)
    assert more & lib.WN_MORE
    sent = len(source.messages())
    sink = Batch()
    assert sink.put_datagram(b"") == lib.WN_OK
    assert lib.wn_batch_transfer(source.c, sink.c, 0, 0) == min(sent, SLOTS - 1)
    assert lib.wn_batch_transfer(source.c, Batch().c, 0, 0) == sent - min(sent, SLOTS - 1)


def test_frame_infos_tell_what_lookup_decided() -> None:
    world = World(3)
    world.learn(2, 20)
    batch = captured_batch(frame_of(1, 20), frame_of(1, 30), frame_of(1, 1))
    world.lookup(batch)
    known, unknown, local = frame_infos(batch)
    assert (known.relay, known.flood, known.dst_peer, known.drop) == (True, False, 2, "")
    assert (unknown.relay, unknown.flood, unknown.drop) == (False, True, "")
    assert local.drop == "drop_local_destination"
    assert {info.src_peer for info in (known, unknown, local)} == {0}
    assert name_of(0) != name_of(2)
