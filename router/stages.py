"""The stages of both pipelines. Each makes one C call for a whole batch and sends it on.

Egress:   capture → Lookup → Encapsulate → Seal → Send → Recycle
Ingress:  receive → Open → Decapsulate → Deliver → Encapsulate → Seal → Send → Recycle

A batch that could not be finished in one go (WN_MORE) comes back through Recycle to the stage that
left work behind; its memory is reused only after everything before it was sent.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import anyio
import anyio.lowlevel

from capture.device import FramePort
from native import lib
from native.datapath import Batch, Datapath
from router.channel import Channel, Pool

_MORE: int = lib.WN_MORE


class DatagramSocket(Protocol):
    """The sleeve sockets as the stages see them; see :mod:`router.udp`."""

    def receive(self, datapath: Datapath, batch: Batch) -> int:
        """Fill the batch with datagrams without blocking; how many."""

    def send(self, datapath: Datapath, batch: Batch) -> bool:
        """Send the batch's messages; False: would block, call again when writable."""

    def fileno(self) -> int:
        """Descriptor to poll for datagrams; -1: none."""

    async def writable(self) -> None:
        """Return when sending is worth a try."""


class Box(Protocol):
    """Seals and opens whole batches; see :mod:`crypto`."""

    def seal(self, batch: Batch) -> None:
        """Just before sending."""

    def open(self, batch: Batch) -> None:
        """Just after receiving."""


class FrameWatch(Protocol):
    """Whoever wants to see each frame; see :mod:`router.packet_log`. Called within the stages."""

    def looked_up(self, batch: Batch) -> None:
        """Captured frames whose way was decided."""

    def encapsulated(self, batch: Batch) -> None:
        """Frames that were packed, or dropped instead."""

    def decapsulated(self, batch: Batch) -> None:
        """Received frames whose way was decided."""


class PortHolder:
    """The port in use; replaced when the device had to be made anew."""

    __slots__ = ("port",)

    def __init__(self, port: FramePort) -> None:
        self.port = port


class _Immediate:
    """A stage that never blocks."""

    async def ready(self) -> None:
        """Always."""
        await anyio.lowlevel.checkpoint()


class Lookup(_Immediate):
    """Learn the source, find the destination, drop what stays here (spec: sleeve 4.1)."""

    def __init__(
        self, datapath: Datapath, out: Channel, done: Channel, watch: FrameWatch | None
    ) -> None:
        self._datapath = datapath.c
        self._out = out
        self._done = done
        self._watch = watch

    def work(self, batch: Batch) -> bool:
        """Batches of which nothing goes on are done."""
        going = lib.wn_lookup(self._datapath, batch.c, int(time.monotonic()))
        if self._watch is not None:
            self._watch.looked_up(batch)
        (self._out if going else self._done).send(batch)
        return True


class Encapsulate(_Immediate):
    """Cut, fragment and pack what goes to other peers; deliver too-big answers (sleeve 8)."""

    def __init__(
        self,
        datapath: Datapath,
        holder: PortHolder,
        out: Channel,
        done: Channel,
        watch: FrameWatch | None,
    ) -> None:
        self._datapath = datapath
        self._holder = holder
        self._out = out
        self._done = done
        self._watch = watch

    def work(self, batch: Batch) -> bool:
        """Nothing to send: done."""
        got = lib.wn_encap(self._datapath.c, batch.c, int(time.monotonic()))
        batch.more_relay = bool(got & _MORE)
        if self._watch is not None and not batch.more_relay:
            self._watch.encapsulated(batch)
        if lib.wn_batch_injects(batch.c):
            self._holder.port.write(self._datapath, batch)
        (self._out if got else self._done).send(batch)
        return True


class Seal(_Immediate):
    """Encrypt the messages."""

    def __init__(self, box: Box, out: Channel) -> None:
        self._box = box
        self._out = out

    def work(self, batch: Batch) -> bool:
        """In place, whole batch."""
        self._box.seal(batch)
        self._out.send(batch)
        return True


class Open(_Immediate):
    """Decrypt the datagrams."""

    def __init__(self, box: Box, out: Channel) -> None:
        self._box = box
        self._out = out

    def work(self, batch: Batch) -> bool:
        """In place, whole batch."""
        self._box.open(batch)
        self._out.send(batch)
        return True


class Send:
    """Datagrams onto the underlay, many per system call."""

    def __init__(
        self,
        datapath: Datapath,
        udp: DatagramSocket,
        done: Channel,
        on_events: Callable[[Batch], None],
    ) -> None:
        self._datapath = datapath
        self._udp = udp
        self._done = done
        self._on_events = on_events

    def work(self, batch: Batch) -> bool:
        """False when the socket buffer is full: the rest of the batch is offered again."""
        if not self._udp.send(self._datapath, batch):
            return False
        if lib.wn_batch_events(batch.c):
            self._on_events(batch)
        self._done.send(batch)
        return True

    async def ready(self) -> None:
        """The socket takes datagrams again."""
        await self._udp.writable()


class Decapsulate(_Immediate):
    """Datagrams into frames, and a decision for each (spec: sleeve 4.2)."""

    def __init__(
        self,
        datapath: Datapath,
        out: Channel,
        done: Channel,
        on_events: Callable[[Batch], None],
        watch: FrameWatch | None,
    ) -> None:
        self._watch = watch
        self._datapath = datapath.c
        self._out = out
        self._done = done
        self._on_events = on_events

    def work(self, batch: Batch) -> bool:
        """Special frames become events for control."""
        got = lib.wn_decap(self._datapath, batch.c, int(time.monotonic()))
        batch.more_frames = bool(got & _MORE)
        if self._watch is not None:
            self._watch.decapsulated(batch)
        if lib.wn_batch_events(batch.c):
            self._on_events(batch)
        (self._out if got else self._done).send(batch)
        return True


class Deliver(_Immediate):
    """Join segments and write frames to the bridge; what others need goes on to be relayed."""

    def __init__(self, datapath: Datapath, holder: PortHolder, out: Channel) -> None:
        self._datapath = datapath
        self._holder = holder
        self._out = out

    def work(self, batch: Batch) -> bool:
        """One write per frame or super-frame."""
        port = self._holder.port
        if lib.wn_coalesce(self._datapath.c, batch.c, port.offloads):
            port.write(self._datapath, batch)
        self._out.send(batch)
        return True


class Recycle(_Immediate):
    """End of the line: back to the stage that left work behind, or to the pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        #: Set by the pipeline once the channels exist.
        self.encapsulate: Channel | None = None
        self.decapsulate: Channel | None = None

    def work(self, batch: Batch) -> bool:
        """Relaying first: splitting further datagrams reuses the frame table."""
        if batch.more_relay and self.encapsulate is not None:
            self.encapsulate.send(batch)
        elif batch.more_frames and self.decapsulate is not None:
            self.decapsulate.send(batch)
        else:
            self._pool.give(batch)
        return True
