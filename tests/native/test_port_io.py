"""Reading and writing a port: what each way of failing counts as, and how much one call takes."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from native import lib
from native.datapath import Batch, Datapath
from tests.native.flows import Segment
from tests.native.world import (
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

OURS, THEIRS = 1, 11
NO_VNET = bytes(10)
MOST = 1 << 20
SO_SNDBUFFORCE = 32

Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """Two ends that keep message borders, the first in place of a TAP."""
    port, bridge = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with port, bridge:
        for end in (port, bridge):
            end.setblocking(False)
            with suppress(PermissionError):
                end.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 4 << 20)
        yield port, bridge


def read(batch: Batch, port: socket.socket, most: int = MOST) -> int:
    return int(lib.wn_port_read(Datapath().c, batch.c, port.fileno(), lib.WN_PORT_TAP, most))


def delivering(world: World, *frames: bytes) -> Batch:
    """A batch that is about to be written."""
    batch = Batch()
    assert batch.put_datagram(datagram(1, *(record(1, 0, frame) for frame in frames))) == lib.WN_OK
    lib.wn_decap(world.datapath.c, batch.c, world.now_s)
    lib.wn_coalesce(world.datapath.c, batch.c, 1)
    world.counted()
    return batch


def write(world: World, batch: Batch, port: socket.socket) -> int:
    return int(lib.wn_port_write(world.datapath.c, batch.c, port.fileno()))


# ---- reading ----


def test_frames_come_with_their_virtio_headers(ends: Ends) -> None:
    port, bridge = ends
    header, frame = Segment(payload=bytes(3000)).super_frame(1000)
    bridge.send(NO_VNET + frame_of(OURS, THEIRS))
    bridge.send(header + frame)
    batch = Batch()
    assert read(batch, port) == 2
    world = World(2, mtu=60_000)
    world.lookup(batch)
    lib.wn_encap(world.datapath.c, batch.c, world.now_s)
    assert sum(message.frames for message in batch.messages()) == 1 + 3


def test_nothing_there(ends: Ends) -> None:
    batch = captured_batch(frame_of(OURS, THEIRS))
    assert read(batch, ends[0]) == 0
    assert lib.wn_batch_frames(batch.c) == 0  # what was in it before is gone


def test_one_frame_when_one_is_enough(ends: Ends) -> None:
    port, bridge = ends
    for _ in range(3):
        bridge.send(NO_VNET + frame_of(OURS, THEIRS))
    batch = Batch()
    assert [read(batch, port, 1) for _ in range(4)] == [1, 1, 1, 0]


def test_less_than_a_virtio_header_is_no_frame(ends: Ends) -> None:
    port, bridge = ends
    bridge.send(b"123456789")
    bridge.send(NO_VNET + b"x")
    batch = Batch()
    assert read(batch, port) == 1
    assert [info.length for info in frame_infos(batch)] == [1]


def test_a_call_ends_when_the_batch_is_full(ends: Ends) -> None:
    port, bridge = ends
    sent = 0
    with suppress(BlockingIOError):
        while sent < 40:
            bridge.send(NO_VNET + bytes(60_000))
            sent += 1
    batch = Batch()
    counts = []
    while count := read(batch, port):
        counts.append(count)
        assert {info.length for info in frame_infos(batch)} == {60_000}
    assert sum(counts) == sent
    assert len(counts) == -(-sent // 18)  # a mebibyte and what was begun before it was full


def test_a_port_that_is_gone_says_why(ends: Ends) -> None:
    batch = Batch()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as gone:
        fd = os.dup(gone.fileno())
    os.close(fd)
    code = lib.wn_port_read(Datapath().c, batch.c, fd, lib.WN_PORT_TAP, MOST)
    assert (code, batch.errno) == (lib.WN_ERR_SYSCALL, errno.EBADF)
    code = lib.wn_port_read(Datapath().c, batch.c, fd, lib.WN_PORT_PACKET, MOST)
    assert (code, batch.errno) == (lib.WN_ERR_SYSCALL, errno.EBADF)


# ---- writing ----


def test_a_frame_and_a_super_frame_are_one_write_each(ends: Ends) -> None:
    port, bridge = ends
    segments = Segment(payload=bytes(range(250)) * 10, dst=mac_of(OURS)).cut(1000)
    world = World(2)
    lone = frame_of(THEIRS, OURS)
    world.lookup(captured_batch(frame_of(OURS, THEIRS)))
    batch = delivering(world, lone, *(segment.frame() for segment in segments))
    assert write(world, batch, port) == 2
    assert bridge.recv(70_000) == NO_VNET + lone
    data = bridge.recv(70_000)
    assert data[:10] == vnet(1, 1000, start=34, offset=16, hdr_len=54)
    assert data[10 + 54 :] == bytes(range(250)) * 10
    assert world.counted() == {"delivered_frames": 4, "delivered_bytes": 60 + 54 + 2500}
    assert write(world, batch, port) == 0


def test_a_full_port_is_counted_and_the_rest_is_dropped(ends: Ends) -> None:
    port, bridge = ends
    world = World(2)
    frames = [frame_of(THEIRS, 50 + n, bytes(500)) for n in range(700)]
    written = 0
    while True:
        batch = delivering(world, *frames[:100])
        got = write(world, batch, port)
        counted = world.counted()
        written += got
        assert counted.get("delivered_frames", 0) == got
        if got < 100:
            break
    assert counted["drop_port_busy"] == 100 - got
    assert batch.errno == errno.EAGAIN
    for _ in range(written):
        assert len(bridge.recv(70_000)) == 10 + 514
    with pytest.raises(BlockingIOError):
        bridge.recv(70_000)


def test_a_frame_that_the_port_cannot_take_is_too_long(ends: Ends) -> None:
    port, bridge = ends
    port.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    world = World(2)
    short = frame_of(THEIRS, OURS)
    batch = delivering(world, frame_of(THEIRS, OURS, bytes(40_000)), short)
    assert write(world, batch, port) == 1
    assert bridge.recv(70_000) == NO_VNET + short
    assert world.drops() == {"drop_frame_too_long": 1}


def test_a_port_without_a_bridge_is_down(ends: Ends) -> None:
    port, bridge = ends
    bridge.close()
    world = World(2)
    segments = Segment(payload=bytes(2000), dst=mac_of(OURS)).cut(1000)
    world.lookup(captured_batch(frame_of(OURS, THEIRS)))
    batch = delivering(world, frame_of(THEIRS, OURS), *(one.frame() for one in segments))
    assert write(world, batch, port) == 0
    assert world.drops() == {"drop_port_down": 3}  # frames, not writes
