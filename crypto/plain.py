"""The box of an unencrypted deployment: datagrams leave as they were packed.

It takes the place of a cipher in the pipeline, so that sealing is a stage of its own from the
start: ``seal`` sees each batch just before it is sent, ``open`` just after it was received.
"""

from __future__ import annotations

from native import lib
from native.datapath import Batch


class PlainBox:
    """Neither adds nor removes a byte."""

    #: Bytes around an inner IP packet, outer IP header to inner Ethernet (spec: sleeve 9.1).
    overhead: int = lib.WN_OVERHEAD_PLAIN

    def seal(self, batch: Batch) -> None:
        """The batch's messages are ready as they are."""

    def open(self, batch: Batch) -> None:
        """The batch's datagrams are readable as they are."""
