"""Plain records of what the allocator knows, for status texts, reports and metrics.

Source of truth: ipam specification 12.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from base.names import PeerName
from ipam.address import Cidr


class State(Enum):
    """Where the allocator stands. The value is the status word where there is one."""

    IDLE = "idle"
    ELECTING = "awaiting consensus"
    OBSERVING = "priming"
    RUNNING = "ready"
    WAITING = "waiting for IP(s) to become available"
    UNREACHABLE = "all IP ranges owned by unreachable peers - use 'rmpeer' if they are dead"
    STOPPED = "shut down"


@dataclass(slots=True, frozen=True)
class PaxosStatus:
    """The election: ``quorum`` peers decide (0: not started), claims of ``known_nodes`` are known.

    ``voters`` are those of them that count, ``missing`` other peers in reach, ``unseen`` how many
    more there should be. ``text`` is a line for the user, "" before it began.
    """

    elector: bool
    known_nodes: int
    quorum: int
    voters: tuple[PeerName, ...] = ()
    missing: tuple[PeerName, ...] = ()
    unseen: int = 0
    text: str = ""


@dataclass(slots=True, frozen=True)
class EntryStatus:
    """One piece of the ring; a wrapping one appears as two."""

    token: int
    size: int
    peer: PeerName
    nick: str
    is_known: bool
    version: int


@dataclass(slots=True, frozen=True)
class PeerShare:
    """What one peer owns. ``reachable``: it is in the topology, or it is ourselves."""

    peer: PeerName
    nick: str
    ip_count: int
    reachable: bool
    is_ourself: bool


@dataclass(slots=True, frozen=True)
class IpamStatus:
    """Everything for ``/status``, ``/status/ipam`` and ``/report``.

    ``paxos`` None once there is a ring. ``active_ips`` are those handed out of the range.
    ``shares``: ourselves first, the others sorted by name. ``text`` is the line of ``/status``.
    ``conflicts``: held addresses whose owner refuses them, or that are outside the range and in use
    elsewhere, too, and why rings of peers are refused, as lines for the user.
    """

    state: State
    text: str
    paxos: PaxosStatus | None
    range: Cidr
    range_num_ips: int
    active_ips: int
    default_subnet: Cidr
    entries: tuple[EntryStatus, ...]
    shares: tuple[PeerShare, ...]
    pending_claims: tuple[tuple[str, Cidr], ...]
    pending_allocates: tuple[tuple[str, Cidr], ...]
    conflicts: tuple[str, ...] = ()

    @property
    def unreachable_count(self) -> int:
        """Peers that own space and are not in the topology."""
        return sum(not share.reachable for share in self.shares)

    @property
    def unreachable_percentage(self) -> float:
        """Their share of the range, 0 to 100."""
        lost = sum(share.ip_count for share in self.shares if not share.reachable)
        return 100 * lost / self.range_num_ips
