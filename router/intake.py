"""What fills batches: the bridge's port on one side, the sleeve socket on the other.

An intake takes a free batch, fills it from its source without blocking and sends it into the first
channel of its pipeline.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final, Protocol

from base.errors import CaptureError
from native.datapath import Datapath
from router.channel import Pool
from router.express import Express
from router.pipeline import Pipeline
from router.stages import DatagramSocket, PortHolder

#: Fewer datagrams than this in one call: there were no more (io_udp.c asks for 16 or 64).
BULK_VLEN: Final = 16
#: Fewer frames than this: the port was dry, for a batch takes so many even of the longest.
FULL_FRAMES: Final = 16


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
        express: Express | None = None,
    ) -> None:
        self._express = express
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
        if self._express is not None and self._express.open:
            got = self._express.out(batch, burst=burst)
            if got > 0:
                self._express.finish(batch, got)
                return Turn.LAST  # the event loop knows better whether there is more
            if got == 0:
                self.pool.give(batch)
                return Turn.DRY
            # the port is in trouble: the long way says which
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
        return Turn.MORE if count >= FULL_FRAMES else Turn.LAST


class DatagramIntake:
    """Datagrams of other peers."""

    def __init__(
        self,
        datapath: Datapath,
        udp: DatagramSocket,
        pipeline: Pipeline,
        express: Express | None = None,
    ) -> None:
        self._express = express
        self.pool = pipeline.pool
        self._datapath = datapath
        self._udp = udp
        self._entry = pipeline.entry

    def fileno(self) -> int:
        """Of the receiving socket."""
        return self._udp.fileno()

    def turn(self, *, burst: bool) -> Turn:
        """One batch of datagrams, or one datagram."""
        batch = self.pool.take()
        if batch is None:
            return Turn.DRY
        if self._express is not None and self._express.open:
            got = self._express.into(batch, burst=burst)
            if got > 0:
                self._express.finish(batch, got)
                return Turn.LAST
            self.pool.give(batch)
            return Turn.DRY
        count = self._udp.receive(self._datapath, batch)
        if count == 0:
            self.pool.give(batch)
            return Turn.DRY
        self._entry.send(batch)
        return Turn.LAST if count < BULK_VLEN else Turn.MORE
