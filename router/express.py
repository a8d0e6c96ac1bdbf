"""The short way for a lone frame: all stages in one call, when nothing has to be thought about.

On an idle node most of a frame's delay is code that has left the cache, so after a pause the first
frame skips the channels. Measured on two cores at one ping per 5 ms, it takes a third off the added
round trip. The pipeline stays the way of every batch, and of a lone frame too as soon as something
is out of the ordinary: then :meth:`Express.finish` puts it where the C call stopped.
Ref: native/src/express.c.
"""

from __future__ import annotations

import time
from typing import Final

from native import lib
from native.datapath import Batch, Datapath
from router.pipeline import Pipeline
from router.stages import PortHolder
from router.udp import SleeveSocket

_DONE: Final = lib.WN_EXPRESS_DONE
_KINDS: Final = {"tap": lib.WN_PORT_TAP, "packet": lib.WN_PORT_PACKET}


class Express:
    """One direction's short way. ``out`` and ``into`` return False when nothing was there."""

    def __init__(
        self, datapath: Datapath, holder: PortHolder, udp: SleeveSocket, pipeline: Pipeline
    ) -> None:
        self._datapath = datapath.c
        self._holder = holder
        self._fds = udp.descriptors
        self._pipeline = pipeline

    def out(self, batch: Batch) -> int:
        """A captured frame to its peer; the result as ``wn_express_out``."""
        port = self._holder.port
        df, frag = self._fds
        got: int = lib.wn_express_out(
            self._datapath, batch.c, port.fileno(), _KINDS[port.kind], df, frag, _now_s()
        )
        return got

    def into(self, batch: Batch) -> int:
        """A datagram to the bridge; the result as ``wn_express_in``."""
        port = self._holder.port
        df, frag = self._fds
        got: int = lib.wn_express_in(
            self._datapath, batch.c, port.fileno(), port.offloads, df, frag, _now_s()
        )
        return got

    def finish(self, batch: Batch, got: int) -> None:
        """Take back or pass on a batch for which ``out`` or ``into`` returned ``got`` > 0."""
        if got == _DONE:
            self._pipeline.pool.give(batch)
            return
        batch.more_relay = got == lib.WN_EXPRESS_SEND_MORE
        batch.more_frames = got == lib.WN_EXPRESS_DELIVER_MORE
        if got in (lib.WN_EXPRESS_SEND, lib.WN_EXPRESS_SEND_MORE):
            self._pipeline.send.send(batch)
        elif self._pipeline.deliver is not None:
            if lib.wn_batch_events(batch.c):
                self._pipeline.on_events(batch)
            self._pipeline.deliver.send(batch)


def _now_s() -> int:
    return int(time.monotonic())
