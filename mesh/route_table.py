"""Routes over the current topology: one table for gossip, one for frames.

Gossip goes over every connection, frames over those that both ends call established. Tables are
made when they are first asked for after :meth:`RouteTable.recalculate`, broadcast routes for gossip
source by source.

Source of truth: mesh specification 9.5 and 11, vectors ``routes.json``.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from types import MappingProxyType
from typing import Final

from base.names import UNKNOWN_PEER, PeerName
from mesh.peers import Peers
from mesh.routes import Graph, broadcast_route, broadcast_routes, unicast_routes

DEFERRAL_S: Final = 0.1
_NOBODY: Final[frozenset[PeerName]] = frozenset()


class _Table:
    """Unicast routes, and broadcast routes as far as they were asked for."""

    def __init__(self, graph: Graph, ourself: PeerName) -> None:
        self.graph = graph
        self.ourself = ourself
        self.unicast = unicast_routes(graph, ourself)
        self._broadcast: dict[PeerName, frozenset[PeerName]] = {}

    def broadcast(self, source: PeerName) -> frozenset[PeerName]:
        if source not in self._broadcast:
            self._broadcast[source] = broadcast_route(self.graph, self.ourself, source)
        return self._broadcast[source]


class _BothWays:
    """Connections that both ends call established, kept up to date by what has changed.

    In a full mesh there are as many as the square of the peers, and one change touches two.
    """

    def __init__(self) -> None:
        self._told: dict[PeerName, frozenset[PeerName]] = {}
        self._both: dict[PeerName, set[PeerName]] = {}
        self._frozen: dict[PeerName, frozenset[PeerName]] = {}

    def update(self, peers: Peers) -> dict[PeerName, frozenset[PeerName]]:
        """Neighbours of every peer."""
        told = {peer.name: peer.neighbours_established for peer in peers}
        touched = set(told.keys() ^ self._told.keys())
        # what a record holds is replaced as a whole, so identity tells what has changed
        changed = [name for name in told if told[name] is not self._told.get(name)]
        for name in (*changed, *(self._told.keys() - told.keys())):
            before = self._told.get(name, _NOBODY)
            after = told.get(name, _NOBODY)
            both = self._both.setdefault(name, set())
            for end in (before - after) & both:
                both.discard(end)
                self._both[end].discard(name)
                touched |= {name, end}
            for end in after - before:
                if name in told.get(end, _NOBODY):
                    both.add(end)
                    self._both.setdefault(end, set()).add(name)
                    touched |= {name, end}
        self._told = told
        for name in touched:
            if name in told:
                self._frozen[name] = frozenset(self._both.get(name, ()))
            else:
                self._both.pop(name, None)
                self._frozen.pop(name, None)
        return self._frozen


class RouteTable:
    """Routes as of the last recalculation."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._gossip: _Table | None = None
        self._frames: _Table | None = None
        self._generation = -1
        self._both_ways = _BothWays()

    def recalculate(self) -> bool:
        """Forget the tables if any connection has changed; whether one has."""
        if self._generation == self._peers.generation:
            return False
        self._generation = self._peers.generation
        self._gossip = self._frames = None
        return True

    def gossip_hop(self, destination: PeerName) -> PeerName | None:
        """First hop towards ``destination`` over all connections."""
        return self._gossip_table().unicast.get(destination)

    def gossip_broadcast(self, source: PeerName) -> frozenset[PeerName]:
        """Neighbours to which we pass gossip that ``source`` broadcast."""
        return self._gossip_table().broadcast(source)

    def frame_hop(self, destination: PeerName) -> PeerName | None:
        """First hop for frames to ``destination``."""
        return self._frame_table().unicast.get(destination)

    def frame_routes(self) -> dict[PeerName, PeerName]:
        """Destination → first hop for frames; our own entry is UNKNOWN_PEER."""
        return dict(self._frame_table().unicast)

    def frame_broadcasts(self) -> dict[PeerName, frozenset[PeerName]]:
        """Source → neighbours to which we pass the frames it floods."""
        return broadcast_routes(self._frame_table().graph, self._peers.ourself.name)

    def random_neighbours(
        self, rng: random.Random, exclude: PeerName | None = None
    ) -> list[PeerName]:
        """Neighbours for a round of gossip: about twice the binary logarithm of all peers.

        A neighbour is chosen with a probability in proportion to the peers behind it.
        """
        unicast = self._gossip_table().unicast
        weights = Counter(hop for hop in unicast.values() if hop != UNKNOWN_PEER and hop != exclude)
        wanted = int(min(2 * math.log2(len(unicast)), len(weights)))
        if wanted == len(weights):
            return sorted(weights)
        chosen: list[PeerName] = []
        for _ in range(wanted):
            hops = list(weights)
            (hop,) = rng.choices(hops, [weights[hop] for hop in hops])
            chosen.append(hop)
            del weights[hop]
        return chosen

    def _gossip_table(self) -> _Table:
        if self._gossip is None:
            neighbours = {peer.name: peer.neighbours for peer in self._peers}
            self._gossip = self._table(neighbours)
        return self._gossip

    def _frame_table(self) -> _Table:
        if self._frames is None:
            self._frames = self._table(dict(self._both_ways.update(self._peers)))
        return self._frames

    def _table(self, neighbours: dict[PeerName, frozenset[PeerName]]) -> _Table:
        return _Table(Graph(MappingProxyType(neighbours)), self._peers.ourself.name)
