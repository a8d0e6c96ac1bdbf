"""The sleeve socket as a stage sees it: refusals, waiting for room, what the kernel dropped."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import anyio
import pytest

from native import lib
from native.datapath import Batch
from router.stages import DatagramSocket
from router.udp import SleeveSocket
from tests.native.test_udp_io import Pair, free_port, prepared, towards
from tests.native.world import World, datagram, frame_of, record

THEIRS = 11


@pytest.fixture
def sleeve() -> Iterator[SleeveSocket]:
    opened = SleeveSocket("127.0.0.1", free_port(), 1 << 20)
    yield opened
    opened.close()


def test_there_and_back(sleeve: SleeveSocket) -> None:
    as_stage: DatagramSocket = sleeve
    world, other = towards(Pair(-1, -1, sleeve.port)), World(2, us=1)
    assert as_stage.send(world.datapath, prepared(world, frame_of(1, THEIRS)))
    batch = Batch()
    assert as_stage.receive(other.datapath, batch) == 1
    assert other.ingress(batch).frames == [frame_of(1, THEIRS)]
    assert as_stage.receive(other.datapath, batch) == 0


def test_the_descriptor_to_poll_is_the_one_that_receives(sleeve: SleeveSocket) -> None:
    df, frag = sleeve.descriptors
    assert sleeve.fileno() == frag != df


@pytest.mark.anyio
async def test_room_is_announced(sleeve: SleeveSocket) -> None:
    with anyio.fail_after(2):
        await sleeve.writable()


def test_drops_of_the_kernel_are_counted() -> None:
    opened = SleeveSocket("127.0.0.1", free_port(), 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        for _ in range(50):
            peer.sendto(datagram(1, record(1, 0, bytes(1000))), ("127.0.0.1", opened.port))
        assert 0 < opened.drops() < 50
    opened.close()


def test_a_closed_socket_receives_nothing_and_sends_nothing(sleeve: SleeveSocket) -> None:
    closed = SleeveSocket("127.0.0.1", free_port(), 65536)
    closed.close()
    world = towards(Pair(-1, -1, sleeve.port))
    batch = prepared(world, frame_of(1, THEIRS))
    assert closed.receive(world.datapath, Batch()) == 0
    assert closed.send(world.datapath, batch)
    (event,) = batch.events()
    assert event.kind == lib.WN_EVENT_SEND_ERROR
    assert world.drops() == {"drop_send_error": 1}
