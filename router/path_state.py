"""The path of a static link: which overlay MTU its frames may have. Sans-IO.

The kernel's path MTU P towards the neighbour, less the encapsulation, is the overlay MTU. It is
looked at when the neighbour appears, whenever a datagram is refused as too long (the sender is then
told by ICMP, frame by frame), and now and again while it is lower than it was, because a path may
grow again. Ref: spec sleeve 9.1, 9.2 (the search by test frames needs answers over the mesh link).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MTU_FLOOR: Final = 552
MTU_LARGEST: Final = 65535
#: While the path is narrower than it was, ask again this often.
RECHECK_S: Final = 30.0


@dataclass(slots=True)
class PathState:
    """One neighbour's MTU. ``configured`` is control's upper bound, 0 for none."""

    overhead: int
    configured: int = 0
    mtu: int = MTU_LARGEST
    pmtu_bytes: int = 0
    widest: int = 0

    def handle_path_mtu(self, pmtu_bytes: int) -> bool:
        """The kernel's path MTU was read; True if the overlay MTU changed."""
        mtu = max(MTU_FLOOR, min(MTU_LARGEST, pmtu_bytes - self.overhead))
        if self.configured:
            mtu = min(mtu, self.configured)
        self.pmtu_bytes = pmtu_bytes
        self.widest = max(self.widest, mtu)
        changed = mtu != self.mtu
        self.mtu = mtu
        return changed

    @property
    def narrowed(self) -> bool:
        """The path was wider once: worth asking again."""
        return self.mtu < self.widest
