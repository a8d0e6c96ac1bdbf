"""What an allocator is told at its start."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from base.names import PeerName
from ipam.address import Cidr

#: The mesh's channel for everything here.
CHANNEL: Final = "IPallocation"


class Mode(Enum):
    """How the first division of the range comes about (``--ipalloc-init``)."""

    CONSENSUS = "consensus"  #: by election among the peers, when somebody needs it
    SEED = "seed"  #: at once, among the peers listed
    OBSERVER = "observer"  #: by the others


@dataclass(slots=True, frozen=True)
class AllocatorOptions:
    """Who we are and what is divided.

    ``uid`` is random per process run and not 0, the same as the mesh announces. ``default_subnet``
    None is the whole universe. ``expected``: how many peers the cluster starts with, ourselves
    included, 0 to guess from the targets; ``seeds`` only with SEED. ``unix_now``: wall-clock
    seconds at construction, only ever told, never used.

    Seconds: a freed address rests ``reuse_delay_s`` while there is another; a dead container's
    addresses are freed after ``dead_grace_s``; with targets and a quorum of 1, or without targets
    where addresses are in use at the start, ``alone_grace_s`` has to pass before we divide the
    range alone.
    """

    name: PeerName
    nick: str
    uid: int
    universe: Cidr
    default_subnet: Cidr | None = None
    mode: Mode = Mode.CONSENSUS
    expected: int = 0
    seeds: tuple[PeerName, ...] = ()
    unix_now: int = 0
    reuse_delay_s: float = 60.0
    dead_grace_s: float = 30.0
    alone_grace_s: float = 30.0


@dataclass(slots=True, frozen=True)
class KnownPeer:
    """A peer of the topology: reachable, in whichever number of hops."""

    name: PeerName
    nick: str
    uid: int
