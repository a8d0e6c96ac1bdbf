"""``--pkt-debug``: a line per frame, which says what tcpdump on the bridge cannot: the peer.

    frame captured dir=out src=… dst=… type=0x0800 bytes=98 peer=ce:02:00:00:00:02(host2)
    frame injected dir=in  …    from that peer, for our bridge
    frame relayed  dir=in  …    from that peer, for the one in ``to``
    frame dropped  …            ``reason`` is the counter that it went to

``flood`` stands where a frame goes to every peer (whose is then not said), or goes on to others. A
super-frame of the kernel is one line. What is thrown away before it is known as a frame, such as a
datagram that does not open, shows in the counters only, and so does one of several copies.

Without the option the stages have no watch and frames may take the direct way. With it this is slow
but bounded: LINES_PER_S lines, and what is above them is not even looked at, only counted.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from base.counters import Counter
from base.ipc import Peer
from base.log import UNLIMITED, kv
from base.names import PeerName, format_peer
from native import ffi, lib
from native.datapath import Batch

log = logging.getLogger(__name__)

LINES_PER_S: Final = 500
_DROP_NONE: Final = 0xFFFF
_REASONS: Final = tuple(Counter)


class PacketLog:
    """The watch of all pipelines. ``clock``: seconds.

    Those are on two threads, and nothing here is locked: at worst a few lines too many, or a count
    that is a little off.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        log.setLevel(logging.DEBUG)
        #: By index in the tables in force; replaced as a whole, never changed.
        self.peers: Mapping[int, Peer] = {}
        self._clock = clock
        self._second = 0
        self._left = 0
        self._suppressed = 0

    def looked_up(self, batch: Batch) -> None:
        """Captured frames, after it was decided where they go."""
        for frame in self._frames(batch):
            if frame.drop != _DROP_NONE:
                self._tell("frame dropped", "out", frame, reason=_REASONS[frame.drop])
            elif frame.flood:
                self._tell("frame captured", "out", frame, flood=True)
            else:
                self._tell("frame captured", "out", frame, peer=self._peer(frame.dst_peer))

    def encapsulated(self, batch: Batch) -> None:
        """Frames for one peer, after the route and the rules of size had their say."""
        for frame in self._frames(batch, dropped=True):
            self._tell(
                "frame dropped",
                "in" if frame.received else "out",
                frame,
                reason=_REASONS[frame.drop],
                peer=self._peer(frame.dst_peer),
            )

    def decapsulated(self, batch: Batch) -> None:
        """Received frames, after it was decided where they go."""
        for frame in self._frames(batch):
            peer = self._peer(frame.src_peer)
            if frame.deliver:
                self._tell("frame injected", "in", frame, peer=peer, flood=frame.flood or None)
            else:
                to = self._peer(frame.dst_peer)
                self._tell("frame relayed", "in", frame, peer=peer, to=to)

    def _frames(self, batch: Batch, *, dropped: bool = False) -> Iterator[Any]:
        """Descriptors of a batch's frames, as far as there are lines left.

        With ``dropped`` those that were on their way to a peer when they were dropped.
        """
        count = lib.wn_batch_frames(batch.c)
        frame = ffi.new("wn_frame_info *")
        for index in range(count):
            if not self._may_tell():
                if not dropped:
                    self._suppressed += count - index
                return
            lib.wn_batch_frame_info(batch.c, index, frame)
            if not dropped or (frame.relay and frame.drop != _DROP_NONE):
                yield frame

    def _may_tell(self) -> bool:
        second = int(self._clock())
        if second != self._second:
            self._second, self._left = second, LINES_PER_S
        return self._left > 0

    def _tell(self, message: str, direction: str, frame: Any, **fields: object) -> None:
        self._left -= 1
        suppressed, self._suppressed = self._suppressed, 0
        log.debug(
            message,
            extra=UNLIMITED
            | kv(
                dir=direction,
                src=bytes(frame.src_mac).hex(":"),
                dst=bytes(frame.dst_mac).hex(":"),
                type=f"0x{frame.ethertype:04x}",
                bytes=frame.len,
                **fields,
                suppressed=suppressed or None,
            ),
        )

    def _peer(self, index: int) -> str:
        peer = self.peers.get(index)
        return "unknown" if peer is None else format_peer(PeerName(peer.name), peer.nick)
