"""Both pipelines without a kernel: work left behind, a full socket, events, a port that fails."""

from __future__ import annotations

import time

import anyio
import anyio.lowlevel
import pytest

from base.errors import CaptureError
from capture.fake import FakePort
from crypto.sealed import SealedBox
from native import lib
from native.datapath import Batch, Datapath, Event
from router.channel import Pool
from router.intake import BULK_VLEN, CaptureIntake, DatagramIntake, Turn
from router.pipeline import POOL_SIZE, Pipeline, build_egress, build_ingress
from router.stages import PortHolder
from tests.native.flows import Segment
from tests.native.test_encap import ip4_frame
from tests.native.world import (
    BROADCAST,
    World,
    datagram,
    frame_of,
    record,
    split_datagram,
)
from tests.router.fakes import Arrival, FakeSocket

OURS, THEIRS = 1, 11


class Rig:
    """A world's data path between a fake port and a fake socket."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.port = FakePort()
        self.holder = PortHolder(self.port)
        self.socket = FakeSocket()
        self.events: list[Event] = []
        self.errors: list[CaptureError] = []
        box = SealedBox(world.datapath)
        parts = (world.datapath, self.holder, self.socket, box, self._note)
        self.egress: Pipeline = build_egress(*parts)
        self.ingress: Pipeline = build_ingress(*parts)
        self.capture = CaptureIntake(world.datapath, self.holder, self.egress, self.errors.append)
        self.datagrams = DatagramIntake(world.datapath, self.socket, self.ingress)

    def _note(self, batch: Batch) -> None:
        self.events += batch.events()

    def frames_sent(self) -> list[bytes]:
        """Frames in all datagrams sent, in order."""
        return [
            frame
            for message in self.socket.sent
            for data in message.datagrams
            for _, _, frame in split_datagram(data)[1]
        ]

    def delivered(self) -> list[bytes]:
        return [frame for _, frame in self.port.delivered]


@pytest.fixture
def rig() -> Rig:
    """THEIRS is at peer 1; we have two neighbours."""
    world = World(3)
    world.now_s = int(time.monotonic())  # the stages ask the real clock
    world.learn(1, THEIRS)
    return Rig(world)


def at_rest(pool: Pool) -> bool:
    return pool.free == pool.size == POOL_SIZE


def test_a_captured_frame_is_sent_before_the_turn_ends(rig: Rig) -> None:
    rig.port.feed(frame_of(OURS, THEIRS))
    assert rig.capture.turn(burst=False) is Turn.LAST
    assert rig.frames_sent() == [frame_of(OURS, THEIRS)]
    assert at_rest(rig.egress.pool)
    assert rig.capture.turn(burst=True) is Turn.DRY
    assert at_rest(rig.egress.pool)


def test_what_stays_here_frees_its_batch(rig: Rig) -> None:
    rig.port.feed(frame_of(OURS, 2))
    rig.port.feed(frame_of(2, OURS))
    assert rig.capture.turn(burst=True) is Turn.LAST
    assert rig.world.drops() == {"drop_local_destination": 1}
    assert at_rest(rig.egress.pool)


def test_a_received_frame_is_delivered_before_the_turn_ends(rig: Rig) -> None:
    rig.socket.inbox.append(Arrival(datagram(1, record(1, 0, frame_of(THEIRS, OURS)))))
    assert rig.datagrams.turn(burst=True) is Turn.LAST
    assert rig.delivered() == [frame_of(THEIRS, OURS)]
    assert at_rest(rig.ingress.pool)
    assert rig.datagrams.turn(burst=True) is Turn.DRY


def test_many_datagrams_say_that_there_may_be_more(rig: Rig) -> None:
    arrival = Arrival(datagram(1, record(1, 0, frame_of(THEIRS, OURS))))
    rig.socket.inbox.extend([arrival] * BULK_VLEN)
    assert rig.datagrams.turn(burst=True) is Turn.MORE


def test_garbage_frees_its_batch(rig: Rig) -> None:
    rig.socket.inbox.append(Arrival(b"garbage!"))
    rig.datagrams.turn(burst=True)
    assert at_rest(rig.ingress.pool)
    assert rig.world.drops() == {"drop_unknown_sender": 1}


def test_special_frames_become_events(rig: Rig) -> None:
    heartbeat = bytes(14) + (77).to_bytes(8, "big")
    rig.socket.inbox.append(Arrival(datagram(1, record(1, 0, heartbeat)), addr="10.9.8.7"))
    rig.datagrams.turn(burst=True)
    ((event),) = rig.events
    assert (event.kind, event.uid, event.addr) == (lib.WN_EVENT_SPECIAL, 77, "10.9.8.7")
    assert rig.delivered() == []
    assert at_rest(rig.ingress.pool)


def test_an_event_does_not_hold_up_the_frames_beside_it(rig: Rig) -> None:
    heartbeat = bytes(14) + (77).to_bytes(8, "big")
    frame = frame_of(THEIRS, OURS)
    rig.socket.inbox.append(Arrival(datagram(1, record(1, 0, heartbeat), record(1, 0, frame))))
    rig.datagrams.turn(burst=True)
    assert len(rig.events) == 1
    assert rig.delivered() == [frame]


def test_a_too_big_answer_is_delivered_by_the_egress_pipeline(rig: Rig) -> None:
    rig.port.feed(ip4_frame(3000, df=True))
    rig.capture.turn(burst=True)
    assert rig.socket.sent == []
    (answer,) = rig.delivered()
    assert answer[34:36] == b"\3\4"
    assert at_rest(rig.egress.pool)


def test_egress_finishes_what_one_call_could_not() -> None:
    world = World(201)
    rig = Rig(world)
    frames = [frame_of(OURS, BROADCAST, bytes([n])) for n in range(3)]
    for frame in frames:
        rig.port.feed(frame)
    rig.capture.turn(burst=True)
    by_neighbour: dict[int, list[bytes]] = {}
    for message in rig.socket.sent:
        for data in message.datagrams:
            some = [frame for _, _, frame in split_datagram(data)[1]]
            by_neighbour.setdefault(message.forwarder, []).extend(some)
    assert len(by_neighbour) == 200
    assert all(some == frames for some in by_neighbour.values())
    assert at_rest(rig.egress.pool)


def test_ingress_finishes_what_one_call_could_not() -> None:
    # more frames than the table holds, each delivered and passed on to 100 others
    world = World(102, broadcast={0: [], 1: list(range(2, 102))})
    rig = Rig(world)
    frames = [frame_of(THEIRS, BROADCAST, n.to_bytes(2, "big")) for n in range(2500)]
    for at in range(0, len(frames), 500):
        records = (record(1, 0, frame) for frame in frames[at : at + 500])
        rig.socket.inbox.append(Arrival(datagram(1, *records)))
    rig.datagrams.turn(burst=True)
    assert rig.delivered() == frames
    counted = world.counted()
    assert counted["flooded_frames"] == 2500 * 100
    assert not any(name.startswith("drop") for name in counted)
    by_neighbour: dict[int, int] = {}
    for message in rig.socket.sent:
        by_neighbour[message.forwarder] = by_neighbour.get(message.forwarder, 0) + message.frames
    assert by_neighbour == {100 + peer: 2500 for peer in range(2, 102)}
    assert at_rest(rig.ingress.pool)


def test_a_port_that_fails_is_reported_and_costs_no_batch(rig: Rig) -> None:
    class Broken(FakePort):
        def read(self, datapath: Datapath, batch: Batch, *, burst: bool = True) -> int:
            raise CaptureError("read from", "fake0", "gone", 19)

    rig.holder.port = Broken()
    assert rig.capture.turn(burst=True) is Turn.DRY
    assert [err.errno for err in rig.errors] == [19]
    assert at_rest(rig.egress.pool)


def test_a_replaced_port_is_used_at_once(rig: Rig) -> None:
    new = FakePort()
    rig.holder.port = new
    new.feed(frame_of(OURS, THEIRS))
    assert rig.capture.turn(burst=True) is Turn.LAST
    rig.socket.inbox.append(Arrival(datagram(1, record(1, 0, frame_of(THEIRS, OURS)))))
    rig.datagrams.turn(burst=True)
    assert [frame for _, frame in new.delivered] == [frame_of(THEIRS, OURS)]
    assert rig.port.delivered == []


def test_a_port_without_offloads_gets_single_frames(rig: Rig) -> None:
    port = FakePort(offloads=False)
    rig.holder.port = port
    pieces = [piece.frame() for piece in Segment(payload=bytes(3000)).cut(1000)]
    arrival = Arrival(datagram(1, *(record(1, 0, frame) for frame in pieces)))
    rig.socket.inbox.append(arrival)
    rig.datagrams.turn(burst=True)
    assert port.delivered == [(bytes(10), frame) for frame in pieces]


# ---- a full socket ----


async def settle() -> None:
    for _ in range(10):
        await anyio.lowlevel.checkpoint()


@pytest.mark.anyio
async def test_a_full_socket_stops_capture_when_the_pool_is_empty(rig: Rig) -> None:
    frames = [frame_of(OURS, THEIRS, bytes([n])) for n in range(10)]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rig.egress.serve)
        rig.socket.full = True
        turns = []
        for frame in frames:
            rig.port.feed(frame)
            turns.append(rig.capture.turn(burst=False))
        assert turns == [Turn.LAST] * POOL_SIZE + [Turn.DRY] * (10 - POOL_SIZE)
        assert rig.egress.pool.free == 0
        assert rig.frames_sent() == []
        # the other direction goes on
        rig.socket.inbox.append(Arrival(datagram(1, record(1, 0, frame_of(THEIRS, OURS)))))
        rig.datagrams.turn(burst=True)
        assert len(rig.delivered()) == 1
        await settle()
        assert rig.frames_sent() == []
        refills = []
        rig.egress.pool.on_refill = lambda: refills.append(rig.egress.pool.free)
        rig.socket.drain()
        await settle()
        assert rig.frames_sent() == frames[:POOL_SIZE]
        assert refills == [1]
        while rig.capture.turn(burst=False) is Turn.LAST:
            pass
        assert rig.frames_sent() == frames
        assert at_rest(rig.egress.pool)
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_a_socket_that_fills_in_the_middle_of_leftover_work() -> None:
    rig = Rig(World(201))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rig.egress.serve)
        rig.socket.full = True
        rig.port.feed(frame_of(OURS, BROADCAST, b"1"))
        rig.capture.turn(burst=True)
        rig.port.feed(frame_of(OURS, BROADCAST, b"2"))
        rig.capture.turn(burst=True)
        rig.socket.drain()
        await settle()
        assert sorted(message.forwarder for message in rig.socket.sent) == sorted(
            [100 + peer for peer in range(1, 201)] * 2
        )
        assert at_rest(rig.egress.pool)
        tasks.cancel_scope.cancel()
