"""Who reads the socket: the thread's life, and the balancer's rules."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import anyio
import pytest

from native.datapath import Batch
from router.channel import Pool
from router.intake import Intake, Turn
from router.loops import Balancer, IngressThread
from router.pipeline import Pipeline
from router.pump import Pump
from tests.native.world import World
from tests.router.test_pipeline import Rig

Ends = tuple[socket.socket, socket.socket]


class Echo:
    """An intake that notes which thread served it."""

    def __init__(self, sock: socket.socket) -> None:
        self.pool = Pool(1)
        self._socket = sock
        self.threads: list[str] = []

    def fileno(self) -> int:
        return self._socket.fileno()

    def turn(self, *, burst: bool) -> Turn:
        data = self._socket.recv(100)
        self.threads.append(threading.current_thread().name)
        if data == b"fail":
            raise ValueError("no such luck")
        self._socket.send(data)
        return Turn.LAST


@pytest.fixture
def ends() -> Iterator[Ends]:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far:
        near.setblocking(False)
        far.settimeout(2)
        yield near, far


def ingress_pipeline() -> Pipeline:
    return Rig(World(2)).ingress


def test_the_thread_serves_until_it_is_stopped(ends: Ends) -> None:
    near, far = ends
    intake = Echo(near)
    failures: list[str] = []
    thread = IngressThread(ingress_pipeline(), Pump([intake]), failures.append)
    thread.start()
    assert thread.loop is not None
    assert thread.loop.is_running()
    for number in range(3):
        far.send(b"%d" % number)
        assert far.recv(10) == b"%d" % number
    assert intake.threads == ["ingress"] * 3
    thread.stop()
    assert not thread.loop.is_running()
    assert failures == []
    far.send(b"late")
    far.settimeout(0.05)
    with pytest.raises(TimeoutError):
        far.recv(10)


def test_a_reader_that_fails_is_reported(ends: Ends) -> None:
    near, far = ends
    failures: list[str] = []
    reported = threading.Event()

    def report(reason: str) -> None:
        failures.append(reason)
        reported.set()

    thread = IngressThread(ingress_pipeline(), Pump([Echo(near)]), report)
    thread.start()
    far.send(b"fail")
    assert reported.wait(2)
    assert failures == ["no such luck"]
    thread.stop()


# ---- the balancer ----


@dataclass(slots=True, eq=False)
class FakePump:
    """What a balancer may do to a pump."""

    load: float = 0.0
    on_turns: Callable[[Intake, float], None] | None = None
    log: list[str] = field(default_factory=list)

    def pause(self, intake: object) -> None:
        self.log.append("pause")

    def resume(self, intake: object) -> None:
        self.log.append("resume")


class FakeIntake:
    """An intake with nothing but a pool."""

    def __init__(self) -> None:
        self.pool = Pool(2)

    def take(self) -> Batch:
        batch = self.pool.take()
        assert batch is not None
        return batch


class Balanced:
    """A balancer between two fake pumps on one loop."""

    def __init__(self) -> None:
        self.main, self.thread = FakePump(), FakePump()
        self.main_intake, self.thread_intake = FakeIntake(), FakeIntake()
        self.balancer = Balancer(
            self.main,  # type: ignore[arg-type]
            self.main_intake,  # type: ignore[arg-type]
            self.thread,  # type: ignore[arg-type]
            self.thread_intake,  # type: ignore[arg-type]
        )
        self.balancer.start(asyncio.get_running_loop())

    async def main_turn(self, load: float) -> None:
        self.main.load = load
        assert self.main.on_turns is not None
        self.main.on_turns(self.main_intake, 0.0)  # type: ignore[arg-type]
        await anyio.sleep(0.001)

    async def thread_turn(self, gap_s: float) -> None:
        assert self.thread.on_turns is not None
        self.thread.on_turns(self.thread_intake, gap_s)  # type: ignore[arg-type]
        await anyio.sleep(0.001)

    def log(self) -> tuple[list[str], list[str]]:
        return self.main.log, self.thread.log


@pytest.mark.anyio
async def test_the_thread_waits_until_it_is_needed() -> None:
    balanced = Balanced()
    assert balanced.log() == ([], ["pause"])
    await balanced.main_turn(0.4)
    assert balanced.log() == ([], ["pause"])
    await balanced.main_turn(0.6)
    assert balanced.log() == (["pause"], ["pause", "resume"])
    await balanced.main_turn(0.9)
    assert balanced.log() == (["pause"], ["pause", "resume"]), "helped twice"


@pytest.mark.anyio
async def test_the_socket_comes_back_after_a_pause_in_traffic() -> None:
    balanced = Balanced()
    await balanced.main_turn(0.6)
    await balanced.thread_turn(0.004)
    assert balanced.log() == (["pause"], ["pause", "resume"])
    await balanced.thread_turn(0.006)
    assert balanced.log() == (["pause", "resume"], ["pause", "resume", "pause"])
    assert balanced.main.load == 0, "the old load would send it straight back"
    await balanced.main_turn(0.4)
    await balanced.main_turn(0.6)
    assert balanced.main.log == ["pause", "resume", "pause"]


@pytest.mark.anyio
async def test_datagrams_under_way_are_not_overtaken() -> None:
    balanced = Balanced()
    batch = balanced.main_intake.take()
    await balanced.main_turn(0.9)
    assert balanced.main.log == []
    balanced.main_intake.pool.give(batch)
    await balanced.main_turn(0.9)
    assert balanced.main.log == ["pause"]
    batch = balanced.thread_intake.take()
    await balanced.thread_turn(1.0)
    assert balanced.main.log == ["pause"]
    balanced.thread_intake.pool.give(batch)
    await balanced.thread_turn(1.0)
    assert balanced.main.log == ["pause", "resume"]


@pytest.mark.anyio
async def test_real_pumps_hand_over_and_back(ends: Ends) -> None:
    near, far = ends
    main_intake, thread_intake = Echo(near), Echo(near)
    main, helper = Pump([main_intake]), Pump([thread_intake])
    failures: list[str] = []
    thread = IngressThread(ingress_pipeline(), helper, failures.append)
    balancer = Balancer(main, main_intake, helper, thread_intake)
    thread.start()
    assert thread.loop is not None
    balancer.start(thread.loop)
    main.start()

    async def say(text: bytes) -> None:
        far.send(text)
        assert await anyio.to_thread.run_sync(far.recv, 10) == text

    await say(b"1")
    main.load = 0.9
    await say(b"2")
    await anyio.sleep(0.02)
    await say(b"3")
    assert len(main_intake.threads) == 2
    assert thread_intake.threads == ["ingress"]
    await anyio.sleep(0.02)
    await say(b"4")  # comes after a pause: the thread gives back
    await anyio.sleep(0.02)
    await say(b"5")
    await say(b"6")
    assert len(main_intake.threads) + len(thread_intake.threads) == 6
    assert len(main_intake.threads) >= 3
    assert failures == []
    main.stop()
    thread.stop()
