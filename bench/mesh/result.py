"""What bench/mesh measures, as it is kept in bench/results/mesh.json."""

from __future__ import annotations

import msgspec


class NodeCost(msgspec.Struct, frozen=True):
    """A real node among ``peers``: CPU in percent of one core, by gossip interval.

    ``gossip`` is what its neighbours send: ``part`` as our routers, ``complete`` as the original's.
    """

    peers: int
    gossip: str
    cpu_percent: list[float]
    router_cpu_percent: list[float]
    rss_mb: float


class Stable(msgspec.Struct, frozen=True):
    """What a stable full mesh of ``peers`` costs one router's core; ``received`` as ``gossip``."""

    peers: int
    received: str
    cpu_percent: float
    sent_bytes_per_s: float
    received_bytes_per_s: float
    routes_ms: float


class Scale(msgspec.Struct, frozen=True):
    """``handshakes_per_s`` by round, ``converge_intervals`` by seed, in gossip intervals."""

    handshakes_per_s: list[float]
    converge_peers: int
    converge_intervals: list[float]
    growth: list[Stable]


class MeshResult(msgspec.Struct, frozen=True):
    """All of it."""

    node: list[NodeCost]
    scale: Scale
