"""Unicast and broadcast routes from a graph of connections; pure functions of the topology.

Every peer computes the same breadth-first tree from the same topology, so that each broadcast
reaches each peer exactly once. That needs one rule kept strictly: *inside a level peers are
processed in ascending name order*. Frames use the graph of connections that both ends call
established (:meth:`Graph.established`); gossip will use all (:meth:`Graph.all_connections`).

Source of truth: mesh specification 11, vectors ``routes.json``.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple, Self

from base.names import UNKNOWN_PEER, PeerName

_NOBODY: Final[frozenset[PeerName]] = frozenset()
#: Ascending names, compared as bytes: an order of the names themselves is many times slower.
_ORDER: Final = operator.attrgetter("octets")


class Link(NamedTuple):
    """What ``source`` says about its connection to ``target``."""

    source: PeerName
    target: PeerName
    established: bool = True


@dataclass(slots=True, frozen=True)
class Graph:
    """``neighbours[x]``: the peers that x's connections lead to under the rule of the variant."""

    neighbours: Mapping[PeerName, frozenset[PeerName]]

    @classmethod
    def all_connections(cls, peers: Iterable[PeerName], links: Iterable[Link]) -> Self:
        """Every connection, in the direction in which it is reported."""
        table: dict[PeerName, set[PeerName]] = {peer: set() for peer in peers}
        for link in links:
            table.setdefault(link.source, set()).add(link.target)
            table.setdefault(link.target, set())
        frozen = {peer: frozenset(ends) for peer, ends in table.items()}
        return cls(MappingProxyType(frozen))

    @classmethod
    def established(cls, peers: Iterable[PeerName], links: Iterable[Link]) -> Self:
        """Only connections that both ends report, and both as established."""
        reported = list(links)
        up = {(link.source, link.target) for link in reported if link.established}
        names = {*peers, *(link.source for link in reported), *(link.target for link in reported)}
        both = [Link(*ends) for ends in up if (ends[1], ends[0]) in up]
        return cls.all_connections(names, both)

    def of(self, peer: PeerName) -> frozenset[PeerName]:
        """Neighbours of ``peer``; none for a peer that is not known."""
        return self.neighbours.get(peer, _NOBODY)


def unicast_routes(graph: Graph, ourself: PeerName) -> dict[PeerName, PeerName]:
    """Destination → first hop, for every peer that can be reached.

    Our own entry maps to UNKNOWN_PEER, as the original prints it.
    """
    first_hop = {ourself: UNKNOWN_PEER}
    level = [ourself]
    while level:
        following: list[PeerName] = []
        for peer in sorted(level, key=_ORDER):
            if len(first_hop) == len(graph.neighbours):
                return first_hop  # nothing left to reach; spares O(n^2) in a full mesh
            for neighbour in graph.of(peer).difference(first_hop):
                first_hop[neighbour] = neighbour if peer == ourself else first_hop[peer]
                following.append(neighbour)
        level = following
    return first_hop


def broadcast_route(graph: Graph, ourself: PeerName, source: PeerName) -> frozenset[PeerName]:
    """Neighbours to which we pass a broadcast of ``source``.

    Expand from the source until it would be our turn; whoever is reached by then gets the frame
    from somebody else. Empty when the source is unknown or cannot reach us.
    """
    if source not in graph.neighbours:
        return _NOBODY
    reached = {source}
    for peer in _processing_order(graph, source, reached):
        if peer == ourself:
            return graph.of(ourself) - reached
        if len(reached) == len(graph.neighbours):
            return _NOBODY  # nothing left to pass on; spares O(n^2) per source in a full mesh
    return _NOBODY


def _processing_order(graph: Graph, source: PeerName, reached: set[PeerName]) -> Iterator[PeerName]:
    """Peers in the order of the expansion; ``reached`` grows when the caller asks for the next."""
    level = [source]
    while level:
        following: list[PeerName] = []
        for peer in sorted(level, key=_ORDER):
            yield peer
            fresh = graph.of(peer) - reached
            reached |= fresh
            following.extend(fresh)
        level = following


def broadcast_routes(graph: Graph, ourself: PeerName) -> dict[PeerName, frozenset[PeerName]]:
    """:func:`broadcast_route` for every known source."""
    return {source: broadcast_route(graph, ourself, source) for source in graph.neighbours}
