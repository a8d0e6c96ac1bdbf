"""In-memory twin of a bridge port, for everything above this room.

Frames to capture are fed by :meth:`FakePort.feed`; delivered ones collect in ``delivered``.
"""

from __future__ import annotations

from collections import deque

from native.datapath import Batch, Datapath


class FakePort:
    """A :class:`~capture.device.FramePort` without a kernel behind it."""

    kind = "fake"
    interface = "fake0"

    def __init__(self, *, offloads: bool = True) -> None:
        self.offloads = offloads
        self._waiting: deque[tuple[bytes, bytes]] = deque()
        #: (virtio-net header, frame) in the order they were written.
        self.delivered: list[tuple[bytes, bytes]] = []
        self.closed = False

    def feed(self, frame: bytes, vnet: bytes = b"") -> None:
        """Queue one frame as if a container had sent it."""
        self._waiting.append((vnet, frame))

    def fileno(self) -> int:
        """No descriptor: tests run the pipeline by hand."""
        return -1

    def read(self, datapath: Datapath, batch: Batch, *, burst: bool = True) -> int:  # noqa: ARG002
        """Move waiting frames into the batch until it is full; just the first without ``burst``."""
        batch.reset()
        count = 0
        while self._waiting and (burst or count == 0):
            vnet, frame = self._waiting[0]
            if batch.put_captured(frame, vnet) < 0:
                break
            self._waiting.popleft()
            count += 1
        return count

    def write(self, datapath: Datapath, batch: Batch) -> int:  # noqa: ARG002
        """Collect copies of what would have been written."""
        injects = batch.injects()
        self.delivered += injects
        return len(injects)

    def close(self) -> None:
        """Nothing is written afterwards."""
        self.closed = True
