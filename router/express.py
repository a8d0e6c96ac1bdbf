"""The direct way through an idle pipeline: all stages of a batch in one call.

The channels of :mod:`router.channel` call the next stage at once when it is idle; here the same
stages run in the same order without returning to Python in between. A batch takes this way only
while no other waits in the pipeline. As soon as something is out of the ordinary (the socket is
full, work was left over, an event needs thought), :meth:`Express.finish` puts it into the channel
of the stage where the call stopped. Why, and what it gained: ``native/src/express.c``.
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
_FRAMES_MAX: Final = 1024
_DATAGRAMS_MAX: Final = 64
_KINDS: Final = {"tap": lib.WN_PORT_TAP, "packet": lib.WN_PORT_PACKET}


class Express:
    """One direction's direct way. ``out`` and ``into`` return 0 when nothing was there."""

    def __init__(
        self, datapath: Datapath, holder: PortHolder, udp: SleeveSocket, pipeline: Pipeline
    ) -> None:
        self._datapath = datapath.c
        self._holder = holder
        self._fds = udp.descriptors
        self._pipeline = pipeline

    @property
    def open(self) -> bool:
        """No batch waits in a channel: overtaking is impossible."""
        return not self._pipeline.send.waiting

    def out(self, batch: Batch, *, burst: bool) -> int:
        """Captured frames to their peers; the result as ``wn_express_out``.

        Without ``burst`` one frame: a second would cost another system call before it leaves.
        """
        port = self._holder.port
        df, frag = self._fds
        got: int = lib.wn_express_out(
            self._datapath,
            batch.c,
            port.fileno(),
            _KINDS[port.kind],
            df,
            frag,
            int(time.monotonic()),
            _FRAMES_MAX if burst else 1,
        )
        return got

    def into(self, batch: Batch, *, burst: bool) -> int:
        """Datagrams to the bridge; the result as ``wn_express_in``."""
        port = self._holder.port
        df, frag = self._fds
        got: int = lib.wn_express_in(
            self._datapath,
            batch.c,
            port.fileno(),
            port.offloads,
            df,
            frag,
            int(time.monotonic()),
            _DATAGRAMS_MAX if burst else 1,
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
