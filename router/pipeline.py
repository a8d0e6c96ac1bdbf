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
    return Pipeline(pool, lookup, send, on_events)


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
    return Pipeline(pool, opened, send, on_events, deliver)
