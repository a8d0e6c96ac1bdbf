"""The seam between the pipeline and the host: where frames come from and go to.

A port works on whole batches. ``read`` fills a batch that the caller owns and leaves it with the
caller; ``write`` delivers what the batch holds for the bridge and keeps no reference to it. Frames
carry a virtio-net header (checksum and segmentation still open), in both directions.
"""

from __future__ import annotations

from typing import Protocol

from native.datapath import Batch, Datapath


class FramePort(Protocol):
    """Device of the bridge that leads to the router; both directions may be used by two threads."""

    #: "tap", "packet" or "fake".
    kind: str
    #: Name of the network interface that is a port of the bridge.
    interface: str
    #: Super-frames may be written.
    offloads: bool

    def fileno(self) -> int:
        """Descriptor that becomes readable when frames wait; -1: nothing to poll."""

    def read(self, datapath: Datapath, batch: Batch, *, burst: bool = True) -> int:
        """Fill the batch with captured frames without blocking; how many, 0 for none.

        Without ``burst`` one frame is enough, if a second costs another system call.

        Raises:
            CaptureError: the device is gone or down.
        """

    def write(self, datapath: Datapath, batch: Batch) -> int:
        """Put the batch's frames for the bridge onto it; how many writes. Losses are counted."""

    def close(self) -> None:
        """Give the descriptor back; the device itself stays in the bridge."""
