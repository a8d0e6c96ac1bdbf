"""Two pipelines and what reads into them.

An :class:`Intake` takes a free batch, fills it from its source and sends it into the first
channel. A :class:`Pump` sits on one event loop with a persistent reader per descriptor (0.7 µs per
event on uvloop; waiting anew for each batch costs 14-20 µs) and gives each of its intakes turns
until all are dry. Then it may poll for a short while without sleeping: an answer that comes within
that time needs no wake-up, which is most of a round trip's cost on an idle machine. Without traffic
nothing runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Final, Protocol

import anyio

from base.errors import CaptureError
from native import lib
from native.datapath import Batch, Datapath
from router.channel import Channel, Pool
from router.stages import (
    Box,
    DatagramSocket,
    Decapsulate,
    Deliver,
    Encapsulate,
    Lookup,
    Open,
    PortHolder,
    Recycle,
    Seal,
    Send,
)

#: Batches per direction. More only queue: back-pressure is the pool running empty.
POOL_SIZE: Final = 4
#: Turns before the event loop gets a look at its other work.
TURNS_MAX: Final = 64
#: An intake that has something again within this time is busy.
BUSY_S: Final = 100e-6
#: Fewer datagrams than this in one call: there were no more (io_udp.c asks for 16 or 64).
BULK_VLEN: Final = 16

EventHandler = Callable[[Batch], None]


class Pipeline:
    """Stages of one direction joined by channels, with the pool that feeds them."""

    def __init__(self, pool: Pool, entry: Channel, blocking: Sequence[Channel]) -> None:
        self.pool = pool
        self.entry = entry
        self._blocking = tuple(blocking)

    async def serve(self) -> None:
        """Retry what the kernel refused. Runs until cancelled."""
        async with anyio.create_task_group() as tasks:
            for channel in self._blocking:
                tasks.start_soon(channel.serve)


def build_egress(
    datapath: Datapath,
    holder: PortHolder,
    udp: DatagramSocket,
    box: Box,
    on_events: EventHandler,
) -> Pipeline:
    """Bridge → underlay."""
    pool = Pool(POOL_SIZE)
    recycle = Recycle(pool)
    done = Channel(recycle)
    send = Channel(Send(datapath, udp, done, on_events))
    seal = Channel(Seal(box, send))
    encapsulate = Channel(Encapsulate(datapath, holder, seal, done))
    lookup = Channel(Lookup(datapath, encapsulate, done))
    recycle.encapsulate = encapsulate
    return Pipeline(pool, lookup, [send])


def build_ingress(
    datapath: Datapath,
    holder: PortHolder,
    udp: DatagramSocket,
    box: Box,
    on_events: EventHandler,
) -> Pipeline:
    """Underlay → bridge, and onwards to other peers."""
    pool = Pool(POOL_SIZE)
    recycle = Recycle(pool)
    done = Channel(recycle)
    send = Channel(Send(datapath, udp, done, on_events))
    seal = Channel(Seal(box, send))
    encapsulate = Channel(Encapsulate(datapath, holder, seal, done))
    deliver = Channel(Deliver(datapath, holder, encapsulate))
    decapsulate = Channel(Decapsulate(datapath, deliver, done, on_events))
    opened = Channel(Open(box, decapsulate))
    recycle.encapsulate = encapsulate
    recycle.decapsulate = decapsulate
    return Pipeline(pool, opened, [send])


class Turn(Enum):
    """How a turn ended."""

    DRY = "nothing there, or no batch free"
    LAST = "got all there was"
    MORE = "there may be more"


class Intake(Protocol):
    """Something that fills batches."""

    pool: Pool

    def fileno(self) -> int:
        """Descriptor to poll."""

    def turn(self, *, burst: bool) -> Turn:
        """Fill one batch and send it in; without ``burst`` just what is first."""


class CaptureIntake:
    """Frames of the bridge."""

    def __init__(
        self,
        datapath: Datapath,
        holder: PortHolder,
        pipeline: Pipeline,
        on_error: Callable[[CaptureError], None],
    ) -> None:
        self.pool = pipeline.pool
        self._datapath = datapath
        self._holder = holder
        self._entry = pipeline.entry
        self._on_error = on_error

    def fileno(self) -> int:
        """Of the port in use just now."""
        return self._holder.port.fileno()

    def turn(self, *, burst: bool) -> Turn:
        """One batch of captured frames, or one frame."""
        batch = self.pool.take()
        if batch is None:
            return Turn.DRY
        try:
            count = self._holder.port.read(self._datapath, batch, burst=burst)
        except CaptureError as err:
            self.pool.give(batch)
            self._on_error(err)
            return Turn.DRY
        if count == 0:
            self.pool.give(batch)
            return Turn.DRY
        self._entry.send(batch)
        return Turn.MORE


class DatagramIntake:
    """Datagrams of other peers."""

    def __init__(self, datapath: Datapath, udp: DatagramSocket, pipeline: Pipeline) -> None:
        self.pool = pipeline.pool
        self._datapath = datapath
        self._udp = udp
        self._entry = pipeline.entry

    def fileno(self) -> int:
        """Of the receiving socket."""
        return self._udp.fileno()

    def turn(self, *, burst: bool) -> Turn:  # noqa: ARG002 - one call tells how many there are
        """One batch of datagrams."""
        batch = self.pool.take()
        if batch is None:
            return Turn.DRY
        count = self._udp.receive(self._datapath, batch)
        if count == 0:
            self.pool.give(batch)
            return Turn.DRY
        self._entry.send(batch)
        return Turn.LAST if count < BULK_VLEN else Turn.MORE


class Pump:
    """Gives intakes their turns on the event loop that :meth:`start` is called in."""

    def __init__(self, intakes: Sequence[Intake], spin_us: int) -> None:
        self._intakes = list(intakes)
        self._spin_us = spin_us
        self._watched: dict[int, Intake] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._last_s = 0.0

    def start(self) -> None:
        """Begin to watch all descriptors."""
        self._loop = asyncio.get_running_loop()
        for intake in self._intakes:
            intake.pool.on_refill = self._watch
        self._watch()

    def stop(self) -> None:
        """Watch nothing any more."""
        for fd in list(self._watched):
            self._unwatch(fd)
        for intake in self._intakes:
            intake.pool.on_refill = _nothing

    def rewatch(self) -> None:
        """An intake's descriptor has changed: watch the new one."""
        for fd in list(self._watched):
            self._unwatch(fd)
        self._watch()

    def _watch(self) -> None:
        if self._loop is None:
            return
        for intake in self._intakes:
            fd = intake.fileno()
            if fd >= 0 and fd not in self._watched and intake.pool.free:
                self._watched[fd] = intake
                self._loop.add_reader(fd, self._on_readable, intake)

    def _unwatch(self, fd: int) -> None:
        del self._watched[fd]
        if self._loop is not None:
            self._loop.remove_reader(fd)

    def _on_readable(self, intake: Intake) -> None:
        """Take what is there.

        A lone frame is passed on before anything else is asked of the kernel: each system call
        after it would only keep the next hop waiting when it shares our core. Whoever comes again
        at once is busy, and then whole batches are the better way.
        """
        burst = time.monotonic() - self._last_s < BUSY_S
        turns = 0
        while True:
            ended = intake.turn(burst=burst)
            turns += 1
            if not burst or ended is not Turn.MORE or turns == TURNS_MAX:
                break
        if self._spin_us:
            self._spin(TURNS_MAX - turns)
        self._last_s = time.monotonic()
        if not intake.pool.free:
            # back-pressure: the kernel's queue holds the rest
            for fd in [fd for fd, watched in self._watched.items() if watched is intake]:
                self._unwatch(fd)

    def _spin(self, turns: int) -> None:
        """Serve what comes within the spinning time, without sleeping."""
        intakes = [intake for intake in self._intakes if intake.pool.free]
        fds = [intake.fileno() for intake in intakes] + [-1, -1]
        while turns > 0:
            ready = lib.wn_spin(fds[0], fds[1], self._spin_us)
            if not ready:
                return
            for bit, intake in enumerate(intakes):
                if ready >> bit & 1:
                    intake.turn(burst=True)
            turns -= 1


def _nothing() -> None:
    """No refill handler."""
