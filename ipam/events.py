"""What the allocator tells its shell.

Nothing in here shows a state that is not durable yet: what an input caused is held back until its
change was committed (:mod:`ipam.store`). Source of truth: ipam specification 6 to 9, 11.
"""

from __future__ import annotations

from dataclasses import dataclass

from base.errors import AllocationError
from base.names import PeerName
from ipam.address import Cidr

#: What a request gives: allocate a :class:`Cidr`; lookup all that are held, oldest first;
#: take_over the number of addresses gained; the others None.
Value = Cidr | tuple[Cidr, ...] | int | None


@dataclass(slots=True, frozen=True)
class Answered:
    """A request is finished. ``error`` None means success, else ``value`` is None.

    The error's text is the line that HTTP clients parse, without the prefixes ``Unable to claim:``
    and ``Unable to free:``. RequestCancelledError is answered with the body ``cancelled``.
    """

    request: int
    value: Value = None
    error: AllocationError | None = None


@dataclass(slots=True, frozen=True)
class SendUnicast:
    """Send ``data`` to one peer on the channel.

    If the mesh has no way to it, say so by :meth:`ipam.allocator.Allocator.send_failed`.
    """

    peer: PeerName
    data: bytes


@dataclass(slots=True, frozen=True)
class Broadcast:
    """Send our state (:meth:`ipam.allocator.Allocator.encode_state`, read when it is sent).

    To every peer as our own broadcast, or, with a ``source``, along the broadcast route of that
    peer, whose broadcast we pass on.
    """

    source: PeerName | None = None


@dataclass(slots=True, frozen=True)
class TellOutside:
    """Broadcast our addresses outside the range (:meth:`ipam.outside.Outside.encode`), to all."""


@dataclass(slots=True, frozen=True)
class Notice:
    """Something an operator may want to know; ``warning`` or just a change of state."""

    text: str
    warning: bool = False


Event = Answered | SendUnicast | Broadcast | TellOutside | Notice
