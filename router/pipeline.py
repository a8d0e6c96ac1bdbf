"""The two pipelines: stages of router/stages.py joined by channels, and the pool feeding them.

Each is built from its last stage to its first, since a stage is given the channels it sends into.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from native.datapath import Batch, Datapath
from router.channel import Channel, Pool
from router.stages import (
    Box,
    DatagramSocket,
    Decapsulate,
    Deliver,
    Encapsulate,
    FrameWatch,
    Lookup,
    Open,
    PortHolder,
    Recycle,
    Seal,
    Send,
)

#: Batches per direction. More only queue: back-pressure is the pool running empty.
POOL_SIZE: Final = 4

EventHandler = Callable[[Batch], None]


class Pipeline:
    """Stages of one direction joined by channels, with the pool that feeds them."""

    def __init__(
        self,
        pool: Pool,
        entry: Channel,
        send: Channel,
        on_events: EventHandler,
        deliver: Channel | None = None,
    ) -> None:
        self.pool = pool
        self.entry = entry
        #: The only stage that the kernel can block.
        self.send = send
        #: Of the ingress pipeline.
        self.deliver = deliver
        self.on_events = on_events

    async def serve(self) -> None:
        """Retry what the kernel refused. Runs until cancelled."""
        await self.send.serve()


class _Tail:
    """The stages that both pipelines end with: encapsulate, seal, send, recycle."""

    def __init__(
        self,
        datapath: Datapath,
        holder: PortHolder,
        udp: DatagramSocket,
        box: Box,
        on_events: EventHandler,
        watch: FrameWatch | None,
    ) -> None:
        self.pool = Pool(POOL_SIZE)
        self.recycle = Recycle(self.pool)
        self.done = Channel(self.recycle)
        self.send = Channel(Send(datapath, udp, self.done, on_events))
        seal = Channel(Seal(box, self.send))
        self.encapsulate = Channel(Encapsulate(datapath, holder, seal, self.done, watch))
        self.recycle.encapsulate = self.encapsulate


def build_egress(
    datapath: Datapath,
    holder: PortHolder,
    udp: DatagramSocket,
    box: Box,
    on_events: EventHandler,
    watch: FrameWatch | None = None,
) -> Pipeline:
    """Bridge → underlay."""
    tail = _Tail(datapath, holder, udp, box, on_events, watch)
    lookup = Channel(Lookup(datapath, tail.encapsulate, tail.done, watch))
    return Pipeline(tail.pool, lookup, tail.send, on_events)


def build_ingress(
    datapath: Datapath,
    holder: PortHolder,
    udp: DatagramSocket,
    box: Box,
    on_events: EventHandler,
    watch: FrameWatch | None = None,
) -> Pipeline:
    """Underlay → bridge, and onwards to other peers."""
    tail = _Tail(datapath, holder, udp, box, on_events, watch)
    deliver = Channel(Deliver(datapath, holder, tail.encapsulate))
    decapsulate = Channel(Decapsulate(datapath, deliver, tail.done, on_events, watch))
    tail.recycle.decapsulate = decapsulate
    return Pipeline(tail.pool, Channel(Open(box, decapsulate)), tail.send, on_events, deliver)
