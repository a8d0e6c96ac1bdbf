"""The pump: who gets turns, when it stops watching, and when it starts again."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import anyio
import anyio.lowlevel
import pytest

from native.datapath import Batch
from router.channel import Pool
from router.intake import Turn
from router.pump import TURNS_MAX, Pump

Ends = tuple[socket.socket, socket.socket]


class FakeIntake:
    """Takes one message per turn and keeps or frees the batch."""

    def __init__(self, sock: socket.socket, *, size: int = 2, keep: bool = False) -> None:
        self.pool = Pool(size)
        self.socket = sock
        self.keep = keep
        self.kept: list[Batch] = []
        self.got: list[bytes] = []
        self.bursts: list[bool] = []

    def fileno(self) -> int:
        return self.socket.fileno()

    def turn(self, *, burst: bool) -> Turn:
        self.bursts.append(burst)
        batch = self.pool.take()
        if batch is None:
            return Turn.DRY
        try:
            self.got.append(self.socket.recv(100))
        except BlockingIOError:
            self.pool.give(batch)
            return Turn.DRY
        if self.keep:
            self.kept.append(batch)
        else:
            self.pool.give(batch)
        return Turn.MORE


@pytest.fixture
def ends() -> Iterator[Ends]:
    with_pump, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with with_pump, far:
        with_pump.setblocking(False)
        yield with_pump, far


async def until(intake: FakeIntake, count: int) -> None:
    for _ in range(2000):
        if len(intake.got) >= count:
            return
        await anyio.sleep(0.001)
    pytest.fail(f"{len(intake.got)} of {count} arrived")


async def quiet() -> None:
    """Long enough for anything that waits to have happened."""
    await anyio.sleep(0.02)


@pytest.mark.anyio
async def test_what_arrives_is_taken_in_order(ends: Ends) -> None:
    near, far = ends
    intake = FakeIntake(near)
    pump = Pump([intake])
    pump.start()
    for number in range(200):
        far.send(b"%d" % number)
        if number % 13 == 0:
            await anyio.lowlevel.checkpoint()
    await until(intake, 200)
    assert intake.got == [b"%d" % number for number in range(200)]
    pump.stop()


@pytest.mark.anyio
async def test_a_lone_message_costs_one_turn(ends: Ends) -> None:
    near, far = ends
    intake = FakeIntake(near)
    pump = Pump([intake])
    pump.start()
    await quiet()
    assert intake.bursts == [], "turns without traffic"
    far.send(b"x")
    await until(intake, 1)
    await quiet()
    assert intake.bursts == [False]
    pump.stop()


@pytest.mark.anyio
async def test_whoever_comes_again_at_once_gets_bursts(ends: Ends) -> None:
    near, far = ends
    intake = FakeIntake(near)
    pump = Pump([intake])
    pump.start()
    for _ in range(50):
        far.send(b"x")
    await until(intake, 50)
    assert intake.bursts[0] is False
    assert True in intake.bursts[1:]
    pump.stop()


@pytest.mark.anyio
async def test_the_loop_gets_a_look_at_its_other_work(ends: Ends) -> None:
    near, far = ends
    intake = FakeIntake(near)
    endless = intake.turn

    def never_dry(*, burst: bool) -> Turn:
        endless(burst=burst)
        return Turn.MORE

    intake.turn = never_dry  # type: ignore[method-assign]
    pump = Pump([intake])
    pump.start()
    far.send(b"x")
    far.send(b"x")
    await until(intake, 2)
    before = len(intake.bursts)
    assert before <= 2 * TURNS_MAX
    pump.stop()
    await quiet()
    assert len(intake.bursts) - before <= TURNS_MAX


@pytest.mark.anyio
async def test_an_empty_pool_stops_the_watch_and_a_refill_resumes_it(ends: Ends) -> None:
    near, far = ends
    intake = FakeIntake(near, size=2, keep=True)
    pump = Pump([intake])
    pump.start()
    for number in range(5):
        far.send(b"%d" % number)
    await until(intake, 2)
    await quiet()
    turns = len(intake.bursts)
    await quiet()
    assert len(intake.bursts) == turns, "polled without a batch to fill"
    assert intake.got == [b"0", b"1"]
    intake.pool.give(intake.kept.pop())
    await until(intake, 3)
    intake.keep = False
    for batch in intake.kept:
        intake.pool.give(batch)
    await until(intake, 5)
    assert intake.got == [b"%d" % number for number in range(5)]
    pump.stop()


@pytest.mark.anyio
async def test_one_starving_intake_leaves_the_other_alone(ends: Ends) -> None:
    near, far = ends
    other_near, other_far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with other_near, other_far:
        other_near.setblocking(False)
        starving = FakeIntake(near, size=1, keep=True)
        fed = FakeIntake(other_near)
        pump = Pump([starving, fed])
        pump.start()
        for _ in range(3):
            far.send(b"x")
        await until(starving, 1)
        for _ in range(100):
            other_far.send(b"y")
        await until(fed, 100)
        assert starving.got == [b"x"]
        pump.stop()


@pytest.mark.anyio
async def test_pause_and_resume(ends: Ends) -> None:
    near, far = ends
    intake = FakeIntake(near)
    pump = Pump([intake])
    pump.start()
    pump.pause(intake)
    far.send(b"x")
    await quiet()
    assert intake.got == []
    intake.pool.on_refill()  # a batch came back meanwhile: still paused
    await quiet()
    assert intake.got == []
    pump.resume(intake)
    await until(intake, 1)
    pump.stop()


@pytest.mark.anyio
async def test_paused_before_the_start(ends: Ends) -> None:
    near, far = ends
    intake = FakeIntake(near)
    pump = Pump([intake])
    pump.pause(intake)
    pump.start()
    far.send(b"x")
    await quiet()
    assert intake.got == []
    pump.resume(intake)
    await until(intake, 1)
    pump.stop()


@pytest.mark.anyio
async def test_after_stop_nothing_is_taken(ends: Ends) -> None:
    near, far = ends
    intake = FakeIntake(near, size=1)
    pump = Pump([intake])
    pump.start()
    pump.stop()
    far.send(b"x")
    batch = intake.pool.take()
    assert batch is not None
    intake.pool.give(batch)  # a refill after the end
    await quiet()
    assert intake.got == []


@pytest.mark.anyio
async def test_a_new_descriptor_is_watched_instead(ends: Ends) -> None:
    near, far = ends
    new_near, new_far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with new_near, new_far:
        new_near.setblocking(False)
        intake = FakeIntake(near)
        pump = Pump([intake])
        pump.start()
        intake.socket = new_near
        pump.rewatch()
        far.send(b"old")
        new_far.send(b"new")
        await until(intake, 1)
        await quiet()
        assert intake.got == [b"new"]
        pump.stop()


@pytest.mark.anyio
@pytest.mark.anyio
async def test_the_load_is_the_share_of_time_at_work(ends: Ends) -> None:
    near, far = ends
    intake = FakeIntake(near)
    original = intake.turn

    def slow(*, burst: bool) -> Turn:
        time.sleep(0.0005)
        return original(burst=burst)

    pump = Pump([intake])
    pump.start()
    for _ in range(20):
        far.send(b"x")
        await anyio.sleep(0.001)
    assert pump.load < 0.3
    intake.turn = slow  # type: ignore[method-assign]
    for count in range(21, 221):
        far.send(b"x")
        while len(intake.got) < count:
            await anyio.lowlevel.checkpoint()
    assert 0.4 < pump.load <= 1
    pump.stop()
