"""Routes against every topology of the vectors, and what must hold for any topology."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from base.names import UNKNOWN_PEER, PeerName
from mesh.routes import Graph, Link, broadcast_route, broadcast_routes, unicast_routes

TOPOLOGIES = json.loads(
    (Path(__file__).parents[1] / "vectors" / "routes.json").read_text(encoding="utf-8")
)["topologies"]


def _name(number: int) -> PeerName:
    return PeerName.from_int(number)


def _links(topology: dict[str, Any]) -> list[Link]:
    return [
        Link(PeerName.parse(link["from"]), PeerName.parse(link["to"]), link["established"])
        for link in topology["connections"]
    ]


@pytest.mark.parametrize("topology", TOPOLOGIES, ids=lambda topology: topology["name"])
def test_vectors(topology: dict[str, Any]) -> None:
    links = _links(topology)
    peers = [PeerName.parse(view["ourself"]) for view in topology["views"]]
    variants = {"": Graph.established(peers, links), "_all": Graph.all_connections(peers, links)}
    for view in topology["views"]:
        ourself = PeerName.parse(view["ourself"])
        for suffix, graph in variants.items():
            unicast = {str(dst): str(via) for dst, via in unicast_routes(graph, ourself).items()}
            assert unicast == view["unicast" + suffix]
            broadcast = {
                str(source): [str(peer) for peer in sorted(via)]
                for source, via in broadcast_routes(graph, ourself).items()
            }
            assert broadcast == view["broadcast" + suffix]


def test_there_are_vectors() -> None:
    assert len(TOPOLOGIES) == 18


def test_unknown_source_is_passed_on_to_nobody() -> None:
    graph = Graph.established([_name(1), _name(2)], [])
    assert broadcast_route(graph, _name(1), _name(9)) == frozenset()


def _both_ways(edges: set[tuple[int, int]]) -> list[Link]:
    ends = [(_name(a), _name(b)) for a, b in edges if a != b]
    return [Link(a, b) for a, b in ends] + [Link(b, a) for a, b in ends]


_EDGES = st.sets(st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=30)


@given(_EDGES)
def test_each_broadcast_reaches_each_connected_peer_exactly_once(
    edges: set[tuple[int, int]],
) -> None:
    peers = [_name(number) for number in range(1, 10)]
    graph = Graph.established(peers, _both_ways(edges))
    routes = {peer: broadcast_routes(graph, peer) for peer in peers}
    for source in peers:
        received: dict[PeerName, int] = {}
        pending = [source]
        while pending:
            here = pending.pop()
            for neighbour in routes[here][source]:
                received[neighbour] = received.get(neighbour, 0) + 1
                assert received[neighbour] == 1, "the same broadcast arrived twice"
                pending.append(neighbour)
        assert received.keys() == unicast_routes(graph, source).keys() - {source}


@given(_EDGES)
def test_unicast_relay_ends_at_its_destination(edges: set[tuple[int, int]]) -> None:
    peers = [_name(number) for number in range(1, 10)]
    graph = Graph.established(peers, _both_ways(edges))
    routes = {peer: unicast_routes(graph, peer) for peer in peers}
    for start in peers:
        for destination in routes[start]:
            here, hops = start, 0
            while here != destination:
                here = routes[here][destination]
                hops += 1
                assert here != UNKNOWN_PEER
                assert hops < len(peers)


def test_a_full_mesh_of_a_thousand_is_quick() -> None:
    peers = [_name(number) for number in range(1, 1001)]
    everybody = frozenset(peers)
    graph = Graph({peer: everybody - {peer} for peer in peers})
    started = time.process_time()
    routes = broadcast_routes(graph, peers[500])
    assert routes[peers[500]] == everybody - {peers[500]}
    assert not any(via for source, via in routes.items() if source != peers[500])
    assert len(unicast_routes(graph, peers[500])) == 1000
    assert time.process_time() - started < 5
