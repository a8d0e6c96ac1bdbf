"""What keeps intakes going: one pump per event loop.

A pump has a persistent reader per descriptor (0.7 µs per event on uvloop; waiting anew for each
batch costs 14-20 µs) and lets an intake take turns while there is more. Without traffic nothing
runs.

It does not spin after a turn to catch an answer without a wake-up: tried with 40 to 150 µs, also
with learning when it pays, that made round trips longer whenever both ends shared two cores.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from router.intake import Intake, Turn

#: Turns before the event loop gets a look at its other work.
TURNS_MAX: Final = 64
#: An intake that has something again within this time is busy: whole batches pay.
BUSY_S: Final = 100e-6
#: Weight of one callback in the load average.
LOAD_WEIGHT: Final = 1 / 64


class Pump:
    """Gives intakes their turns on the event loop that :meth:`start` is called in.

    ``on_turns(intake, gap_s)`` is called after each callback; ``gap_s`` is the time since the one
    before ended.
    """

    def __init__(self, intakes: Sequence[Intake]) -> None:
        self._intakes = tuple(intakes)
        self._paused: set[Intake] = set()
        self._watched: dict[int, Intake] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._last_s = 0.0
        #: Share of recent time spent at work, 0 to 1.
        self.load = 0.0
        self.on_turns: Callable[[Intake, float], None] | None = None

    def start(self) -> None:
        """Begin to watch all descriptors that are not paused."""
        self._loop = asyncio.get_running_loop()
        for intake in self._intakes:
            intake.pool.on_refill = self._watch
        self._watch()

    def stop(self) -> None:
        """Watch nothing any more."""
        self._paused.update(self._intakes)
        self.rewatch()

    def rewatch(self) -> None:
        """Descriptors have changed: watch those that the intakes have now."""
        for fd in list(self._watched):
            self._unwatch(fd)
        self._watch()

    def pause(self, intake: Intake) -> None:
        """Leave an intake alone until :meth:`resume`."""
        self._paused.add(intake)
        self.rewatch()

    def resume(self, intake: Intake) -> None:
        """Watch it again."""
        self._paused.discard(intake)
        self._watch()

    def _watch(self) -> None:
        if self._loop is None:
            return
        for intake in self._intakes:
            fd = intake.fileno()
            if fd >= 0 and fd not in self._watched and self._open(intake):
                self._watched[fd] = intake
                self._loop.add_reader(fd, self._on_readable, intake)

    def _unwatch(self, fd: int) -> None:
        del self._watched[fd]
        if self._loop is not None:
            self._loop.remove_reader(fd)

    def _open(self, intake: Intake) -> bool:
        return intake not in self._paused and intake.pool.free > 0

    def _on_readable(self, intake: Intake) -> None:
        """Take what is there.

        A lone frame is passed on before anything else is asked of the kernel: each system call
        after it would only keep the next hop waiting when it shares our core. Whoever comes again
        at once is busy, and then whole batches are the better way.
        """
        start_s = time.monotonic()
        gap_s = start_s - self._last_s
        burst = gap_s < BUSY_S
        for _ in range(TURNS_MAX):
            if intake.turn(burst=burst) is not Turn.MORE or not burst:
                break
        end_s = time.monotonic()
        busy_s = end_s - start_s
        self.load += (busy_s / (busy_s + gap_s) - self.load) * LOAD_WEIGHT
        self._last_s = end_s
        if not intake.pool.free:
            self.rewatch()  # back-pressure: the kernel's queue holds the rest
        if self.on_turns is not None:
            self.on_turns(intake, gap_s)
