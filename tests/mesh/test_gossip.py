"""Surrogates, send queues, neighbours: what the vectors say and what must hold."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from base.errors import RemoteProtocolError
from base.names import PeerName
from mesh import gossip as gossip_module
from mesh import gossip_router as router_module
from mesh.gossip import DIRECT_MESSAGES_MAX, Blobs, SendQueue, Surrogate, fnv1a_64
from mesh.gossip_router import GossipRouter, TopologyData
from mesh.local_peer import LocalPeer
from mesh.peer import ConnectionRecord, Peer
from mesh.peers import Peers
from mesh.protocol import Envelope, Tag, decode_envelope, encode_envelope
from mesh.route_table import RouteTable
from mesh.routes import Graph, Link, unicast_routes
from mesh.topology import decode_update, encode_update
from tests.golden import load

VECTORS = load("fnv_and_unknown_channels")
US = PeerName.from_int(1)


def test_fnv() -> None:
    assert len(VECTORS["fnv1a_64"]) == 9
    for vector in VECTORS["fnv1a_64"]:
        assert f"{fnv1a_64(bytes.fromhex(vector['input_hex'])):016x}" == vector["fnv1a_64"]


def test_surrogate_relays_what_it_has_not_seen() -> None:
    surrogate = Surrogate()
    for step in VECTORS["unknown_channel_dedup_sequence"]:
        update = bytes.fromhex(step["update"])
        relayed = surrogate.on_gossip(update, float(step["seconds_since_start"]))
        assert (relayed is not None) == step["relayed"]
        assert surrogate.remembered == step["remembered_after"]
        if relayed is not None:
            assert relayed.encode() == [update]


def test_surrogate_tells_long_payloads_apart_and_forgets_the_oldest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    surrogate = Surrogate()
    long = bytes(10_000)
    assert surrogate.on_gossip(long, 0) is not None
    assert surrogate.on_gossip(long[:-1] + b"x", 0) is not None  # the same hash
    assert surrogate.on_gossip(long, 0) is None
    monkeypatch.setattr(gossip_module, "_SURROGATE_BYTES_MAX", 25_000)
    assert surrogate.on_gossip(b"y" * 10_000, 0) is not None
    assert surrogate.remembered == 2
    assert surrogate.on_gossip(long, 0) is not None


def test_surrogate_always_passes_broadcasts() -> None:
    surrogate = Surrogate()
    for _ in range(2):
        data = surrogate.on_broadcast(US, b"x", 0)
        assert data is not None
        assert data.encode() == [b"x"]
    assert surrogate.complete() is None


def _sent(queue: SendQueue) -> list[tuple[int, str, PeerName, bytes]]:
    found = []
    for message in queue.next_messages():
        envelope = decode_envelope(message[0], message[1:])
        found.append((message[0], envelope.channel, envelope.source, envelope.data))
    return found


def test_a_slow_link_gets_merged_gossip_made_when_it_is_sent() -> None:
    peers = Peers(Peer(US, uid=1), random.Random(1))
    queue = SendQueue(US)
    for number in (2, 3):
        name = PeerName.from_int(number)
        queue.add_gossip("topology", TopologyData(peers, frozenset({name})))
        peers.apply_update(encode_update([Peer(name, "old", 5, 1)]))
    queue.add_broadcast("items", PeerName.from_int(9), Blobs((b"1",)))
    queue.add_broadcast("items", PeerName.from_int(8), Blobs((b"2",)))
    queue.add_broadcast("items", PeerName.from_int(9), Blobs((b"3",)))
    peers.apply_update(encode_update([Peer(PeerName.from_int(2), "new", 5, 2)]))
    assert queue
    topology, *broadcasts = _sent(queue)
    assert topology[:3] == (Tag.GOSSIP, "topology", US)
    assert [record.summary.nick for record in decode_update(topology[3])] == ["new", "old"]
    assert broadcasts == [
        (Tag.GOSSIP_BROADCAST, "items", PeerName.from_int(9), b"1"),
        (Tag.GOSSIP_BROADCAST, "items", PeerName.from_int(9), b"3"),
        (Tag.GOSSIP_BROADCAST, "items", PeerName.from_int(8), b"2"),
    ]
    assert not queue
    assert list(queue.next_messages()) == []


def test_names_that_went_are_left_out() -> None:
    peers = Peers(Peer(US, uid=1), random.Random(1))
    assert TopologyData(peers, frozenset({PeerName.from_int(5)})).encode() == []


def test_a_queue_is_bounded() -> None:
    queue = SendQueue(US)
    assert all(queue.add_message(5, b"x") for _ in range(DIRECT_MESSAGES_MAX))
    assert not queue.add_message(5, b"x")
    assert len(list(queue.next_messages())) == DIRECT_MESSAGES_MAX
    assert queue.add_message(5, bytes(gossip_module.DIRECT_BYTES_MAX))
    assert not queue.add_message(5, b"x")


def _router(others: int) -> tuple[Peers, GossipRouter]:
    peers = Peers(Peer(US, uid=1), random.Random(1))
    for number in range(2, others + 2):
        peers.acquire_or_add(Peer(PeerName.from_int(number), f"host{number}", number, 1))
        record = ConnectionRecord(PeerName.from_int(number), "192.0.2.1:6783", True, True)
        peers.set_own_connection(record)
    return peers, GossipRouter(peers, LocalPeer(peers, 0), RouteTable(peers), random.Random(1))


def test_topology_unicast_and_damaged_gossip_are_the_senders_fault() -> None:
    _, router = _router(0)
    for tag, envelope in (
        (Tag.GOSSIP_UNICAST, Envelope("topology", PeerName.from_int(2), b"", US)),
        (Tag.GOSSIP, Envelope("topology", PeerName.from_int(2), b"\5")),
        (Tag.GOSSIP_BROADCAST, Envelope("topology", PeerName.from_int(2), b"\5")),
    ):
        with pytest.raises(RemoteProtocolError):
            router.receive(tag, encode_envelope(envelope), 0)
    router.receive(Tag.GOSSIP, encode_envelope(Envelope("topology", US, b"")), 0)
    router.receive(Tag.GOSSIP_UNICAST, encode_envelope(Envelope("x", US, b"", US)), 0)
    lost = Envelope("x", US, b"", PeerName.from_int(7))
    router.receive(Tag.GOSSIP_UNICAST, encode_envelope(lost), 0)
    assert router.unicasts_lost == 1


def test_news_of_the_unreachable_waits_until_something_leads_there() -> None:
    peers, router = _router(1)
    two, three, four = (PeerName.from_int(number) for number in (2, 3, 4))

    def told(name: PeerName, version: int, *remotes: PeerName) -> frozenset[PeerName]:
        peer = Peer(name, "x", 7, version)
        peer.set_connections({r: ConnectionRecord(r, "", True, True) for r in remotes})
        data = router.topology.on_gossip(encode_update([peer]), 0)
        assert data is None or isinstance(data, TopologyData)
        return frozenset() if data is None else data.names

    assert told(three, 5, four) == frozenset()
    assert told(two, 5, US) == {two}
    assert told(two, 6, US, three) == {two, three}
    assert told(two, 7, US) == {two}
    assert told(three, 6) == frozenset()
    peers.collect()
    assert told(two, 8, US) == {two}


def test_number_of_unknown_channels_is_bounded() -> None:
    _, router = _router(0)
    for number in range(router_module.SURROGATES_MAX + 20):
        router.receive(Tag.GOSSIP, encode_envelope(Envelope(f"c{number}", US, b"x")), 0)
    assert len(router._surrogates) == router_module.SURROGATES_MAX


def test_periodic_topology_of_a_small_mesh_is_complete_of_a_large_one_a_part() -> None:
    peers, router = _router(20)
    part = router.topology.next_part(random.Random(1))
    assert isinstance(part, TopologyData)
    assert part.names == peers.names()
    peers, router = _router(200)
    seen: Counter[PeerName] = Counter()
    for _ in range(4):
        part = router.topology.next_part(random.Random(1))
        assert isinstance(part, TopologyData)
        assert US in part.names
        assert len(part.names) <= router_module.PART_RECORDS + 1
        seen.update(part.names)
    assert set(seen) == peers.names()


def test_large_topologies_are_cut_into_messages() -> None:
    peers, _ = _router(400)
    for peer in list(peers):
        records = [
            ConnectionRecord(PeerName.from_int(n), "192.0.2.255:6783", True, True)
            for n in range(2, 402)
        ]
        peer.set_connections({record.remote: record for record in records})
    updates = TopologyData(peers, peers.names()).encode()
    assert len(updates) > 3
    assert max(len(update) for update in updates) < 2 * 1024 * 1024
    names = [record.name for update in updates for record in decode_update(update)]
    assert sorted(names) == sorted(peers.names())


@pytest.mark.parametrize("topology", load("routes")["topologies"], ids=lambda t: t["name"])
def test_number_of_random_neighbours(topology: dict[str, Any]) -> None:
    for view in topology["views"]:
        peers = Peers(Peer(PeerName.parse(view["ourself"])), random.Random(1))
        for other in topology["views"]:
            peers.acquire_or_add(Peer(PeerName.parse(other["ourself"])))
        for peer in peers:
            records = [
                ConnectionRecord(PeerName.parse(c["to"]), "", True, bool(c["established"]))
                for c in topology["connections"]
                if c["from"] == str(peer.name)
            ]
            peer.set_connections({record.remote: record for record in records})
        table = RouteTable(peers)
        chosen = table.random_neighbours(random.Random(1))
        assert len(set(chosen)) == len(chosen) == view["random_neighbours_count"]
        assert {str(k): str(v) for k, v in table.frame_routes().items()} == view["unicast"]
        broadcasts = {
            str(source): sorted(str(name) for name in via)
            for source, via in table.frame_broadcasts().items()
        }
        assert broadcasts == view["broadcast"]
        for source, via in view["broadcast_all"].items():
            assert sorted(map(str, table.gossip_broadcast(PeerName.parse(source)))) == via
        for target, hop in view["unicast_all"].items():
            assert str(table.gossip_hop(PeerName.parse(target))) == hop
        for name in chosen:
            assert name not in table.random_neighbours(random.Random(1), exclude=name)


def test_neighbours_are_chosen_by_what_is_behind_them() -> None:
    peers = Peers(Peer(US), random.Random(1))
    heavy = PeerName.from_int(2)
    ends = [PeerName.from_int(number) for number in range(2, 12)]
    behind = [PeerName.from_int(number) for number in range(100, 200)]
    for name in (*ends, *behind):
        peers.acquire_or_add(Peer(name))

    def link(name: PeerName, remotes: list[PeerName]) -> None:
        peer = peers.get(name)
        assert peer is not None
        peer.set_connections({r: ConnectionRecord(r, "", True, True) for r in remotes})

    link(US, ends)
    link(heavy, behind)
    table = RouteTable(peers)
    rng = random.Random(1)
    rounds = [table.random_neighbours(rng) for _ in range(20)]
    # 111 peers would ask for 13, there are 10 neighbours
    assert all(sorted(chosen) == ends for chosen in rounds)
    few = [table.random_neighbours(rng, exclude=ends[1])[:1] for _ in range(20)]
    assert all(ends[1] not in chosen for chosen in few)


@given(st.data())
def test_frame_routes_follow_any_changes(data: st.DataObject) -> None:
    """The table that is kept up to date agrees with one made from nothing."""
    count = 6
    names = [PeerName.from_int(number) for number in range(1, count + 1)]
    peers = Peers(Peer(names[0]), random.Random(1))
    kept = RouteTable(peers)
    for _ in range(data.draw(st.integers(1, 8))):
        changed = data.draw(st.sampled_from(names))
        ends = data.draw(st.sets(st.sampled_from(names)))
        if changed not in peers:
            peers.acquire_or_add(Peer(changed))[0].references = 0
        peer = peers.get(changed)
        assert peer is not None
        up = data.draw(st.booleans())
        peer.set_connections({e: ConnectionRecord(e, "", True, up) for e in ends if e != changed})
        for end in ends:
            if end not in peers:
                peers.acquire_or_add(Peer(end))[0].references = 0
        if data.draw(st.booleans()):
            peers.collect()
        peers.generation += 1
        kept.recalculate()
        fresh = RouteTable(peers)
        assert kept.frame_routes() == fresh.frame_routes()
        assert kept.frame_broadcasts() == fresh.frame_broadcasts()
        links = [
            Link(one.name, record.remote, record.established)
            for one in peers
            for record in one.connections.values()
        ]
        graph = Graph.established([one.name for one in peers], links)
        assert kept.frame_routes() == unicast_routes(graph, names[0])
