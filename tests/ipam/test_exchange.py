"""Space between peers, and what peers should not send."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from base.errors import RemoteProtocolError
from base.names import PeerName
from ipam import wire
from ipam.address import Cidr, Range, parse_address
from ipam.events import SendUnicast
from ipam.exchange import BURST
from ipam.options import KnownPeer, Mode
from ipam.paxos import Claims, NodeId
from ipam.state import LocalState
from ipam.store import Entry, Holding, Identity, Stored
from ipam.wire import GossipState, RingState
from tests.golden import load
from tests.ipam.cluster import Cluster, alone, gossip, name_of, said


def test_half_of_an_unused_range() -> None:
    cluster = Cluster(2, "10.32.0.0/12", expected=1)
    one, two = cluster.hosts
    one.core.set_targets(0, 0)
    cluster.lose(2)
    cluster.pass_time(40)
    one.ask("prime")
    cluster.pass_time(10)
    cluster.lose()
    cluster.gossip()
    assert two.allocate("b") == "10.40.0.0/12"
    pieces = [(e.token, e.size, e.peer) for e in two.core.status().entries]
    assert pieces == [
        (parse_address("10.32.0.0"), 1 << 19, one.name),
        (parse_address("10.40.0.0"), 1 << 19, two.name),
    ]


def test_few_pieces_for_first_allocations() -> None:
    for _ in range(20):
        cluster = Cluster(3)
        cluster.hosts[0].allocate("a")
        cluster.hosts[1].allocate("b")
        assert len(cluster.hosts[2].core.status().entries) < 6


def test_one_request_in_flight_for_a_subnet() -> None:
    cluster = Cluster(2)
    one, two = cluster.hosts
    one.allocate("a")
    two.allocate("b")
    two.sent.clear()
    cluster.lose(1)
    cluster.cut = set()
    two.core.set_topology([KnownPeer(one.name, "host1", one.uid)], cluster.now)
    for number in range(20):
        request = 900 + number
        two.core.allocate(request, f"x{number}", Cidr.parse("10.32.0.0/27"), cluster.now)
    cluster.settle()
    requests = [e for e in two.sent if getattr(e, "data", b"")[:1] == b"\0"]
    # each grant is the half of what is left, so a few follow each other
    assert len(requests) <= 5
    assert sum(said(two.answers.get(900 + n)) != "" for n in range(20)) >= 15


def test_who_has_no_ring_is_told_ours_unless_it_only_gossips() -> None:
    """Specification 7: whose gossip it is is not known."""
    host = alone()
    host.allocate("a")
    host.sent.clear()
    votes: list[dict[NodeId, Claims] | None] = [None, {}]
    for paxos in votes:
        state = wire.encode_state(GossipState(1, {int(name_of(2)): "host2"}, paxos))
        host.core.on_gossip(state, 1.0)
        host.cluster.settle()
        assert host.sent == []
        host.core.on_broadcast(name_of(2), state, 1.0)
        host.cluster.settle()
        host.core.on_unicast(name_of(2), wire.encode_ring_update(state), 1.0)
        host.cluster.settle()
        told = SendUnicast(name_of(2), wire.encode_ring_update(host.core.encode_state()))
        assert host.sent == [told, told]
        host.sent.clear()


def test_a_refusal_comes_before_the_ring() -> None:
    """Specification 8, 3b; the other way round the asker would ask again at once."""
    host = alone("10.32.0.0/30")
    for number in range(2):
        host.claim(f"c{number}", f"10.32.0.{2 * number}/30")
        host.claim(f"d{number}", f"10.32.0.{2 * number + 1}/30")
    host.sent.clear()
    asked = Range(0x0A200000, 0x0A200004)
    host.core.on_unicast(name_of(2), wire.encode_space_request(asked), 1.0)
    host.cluster.settle()
    assert host.sent == [
        SendUnicast(name_of(2), wire.encode_denial(asked)),
        SendUnicast(name_of(2), wire.encode_ring_update(host.core.encode_state())),
    ]


def test_greed_is_bounded() -> None:
    host = alone("10.32.0.0/12")
    host.allocate("a")
    request = wire.encode_space_request(Range(*host.cluster.universe.range))
    for _ in range(500):
        host.core.on_unicast(name_of(9), request, 1.0)
    assert host.core.counters["space requests beyond the rate"] > 400


def test_made_up_askers_share_what_one_may_ask() -> None:
    cluster = Cluster(2, "10.32.0.0/12")
    one, two = cluster.hosts
    one.allocate("a")
    whole = wire.encode_space_request(cluster.universe.range)
    for number in range(100, 300):
        one.core.on_unicast(name_of(number), whole, 1.0)
    refused = one.core.counters["space requests beyond the rate"]
    assert refused == 200 - BURST
    one.core.on_unicast(two.name, whole, 1.0)
    assert one.core.counters["space requests beyond the rate"] == refused


def test_what_nobody_should_send_is_counted() -> None:
    host = alone()
    before = host.core.encode_state()
    host.core.on_unicast(name_of(2), b"", 1.0)
    host.core.on_unicast(name_of(2), b"\x07abc", 1.0)
    assert host.core.counters == {"empty unicasts": 1, "unicasts of unknown kind": 1}
    with pytest.raises(RemoteProtocolError):
        host.core.on_unicast(name_of(2), b"\0", 1.0)
    assert host.core.encode_state() == before


@pytest.mark.parametrize("version", [1 << 31, (1 << 32) - 1, (1 << 20) + 500])
def test_hostile_versions_are_refused(version: int) -> None:
    host = alone()
    host.allocate("a")
    us = int(host.name)
    with pytest.raises(RemoteProtocolError, match="version"):
        gossip(host, [Entry(0x0A200000, us, version, 3)])


def test_a_gift_of_the_last_version_poisons_nobody() -> None:
    """The next word of ours on it would be of a version that everybody refuses."""
    cluster = Cluster(3)
    one, two, three = cluster.hosts
    three.allocate("a")
    piece = three.core._context.state.ring.entries[-1]
    middle = piece.token + 8
    last = (1 << 31) - 1
    gift = [
        piece._replace(version=piece.version + 1, free=0),
        Entry(middle, int(one.name), last, 8),
    ]
    gossip(one, gift)
    assert one.claim("b", str(Cidr(middle + 1, 26))) == "ok"
    assert one.core._context.state.ring.owner(middle) == int(one.name)
    cluster.gossip()
    assert two.core._context.state.ring.owner(middle) == int(one.name)
    assert {host.core.counters["rings refused"] for host in cluster.hosts} == {0}


def test_holes_of_the_merge() -> None:
    """H1 and H2: a foreign token behind one that names us, in a piece that is in use."""
    host = alone()
    host.claim("a", "10.32.0.50/26")
    us, other, start = int(host.name), int(name_of(2)), 0x0A200000
    version = host.core.status().entries[0].version
    for entries in (
        [Entry(start, us, version + 1, 9), Entry(start + 32, other, 0, 9)],
        [Entry(start + 16, us, 0, 9), Entry(start + 32, other, 0, 9)],
    ):
        with pytest.raises(RemoteProtocolError, match="which I think I own"):
            gossip(host, entries)
        assert len(host.core.status().entries) == 1


def test_seeds_without_entries_poison_nobody() -> None:
    cluster = Cluster(2)
    host = cluster.hosts[0]
    gossip(host, [], (5, 6))
    host.allocate("a")
    assert host.core._context.state.ring.seeds == (int(name_of(1)), int(name_of(2)))


def test_mismatches_are_refused_with_a_reason() -> None:
    one = alone(mode=Mode.SEED, seeds=(name_of(1),))
    other = RingState(one.cluster.universe.range, 2, (Entry(0x0A200000, 2, 0, 64),), (2,))
    data = wire.encode_state(GossipState(1, {}, None, other))
    with pytest.raises(RemoteProtocolError, match="seeded by different peers") as refused:
        one.core.on_gossip(data, 1.0)
    assert str(refused.value).endswith(
        "(received: [00:00:00:00:00:02], ours: [ce:00:00:00:00:01(host1)])"
    )
    other = RingState(Range(0x0A200000, 0x0A200080), 2, (Entry(0x0A200000, 2, 0, 64),), ())
    data = wire.encode_state(GossipState(1, {}, None, other))
    with pytest.raises(RemoteProtocolError, match="Incompatible IP allocation ranges"):
        one.core.on_gossip(data, 1.0)
    assert one.allocate("a") == "10.32.0.1/26"


def _owner_of(universe: str, *entries: tuple[int, int]) -> LocalState:
    """The state of peer 1; ``entries`` are last octets and owners."""
    where = Cidr.parse(universe).range
    state = LocalState(PeerName.from_int(1), where, 0.0)
    ring = tuple(Entry(where.start + last, peer, 0, 0) for last, peer in entries)
    state.load(Stored(Identity(PeerName.from_int(1), where), (), ring))
    return state


def _last_octets(chunk: Range | None) -> tuple[int, int]:
    assert chunk is not None
    return chunk.start & 0xFF, chunk.end & 0xFF


def test_grants_to_new_peers_are_weaves() -> None:
    """Ipam specification 17.4."""
    state = _owner_of("10.0.0.0/24", (0, 1))
    state.hold(Holding(state.universe.start + 1, 24, "a", False))
    for peer, where in ((2, (192, 0)), (3, (64, 128)), (4, (160, 192))):
        chunk = state.chunk_for(peer, state.universe)
        assert _last_octets(chunk) == where
        assert chunk is not None
        state.grant(chunk, peer)


@pytest.mark.parametrize(("peer", "where"), [(2, (64, 96)), (3, (160, 192)), (4, (160, 192))])
def test_a_grant_is_beside_what_the_asker_owns_if_it_can_be(
    peer: int, where: tuple[int, int]
) -> None:
    state = _owner_of("10.0.0.0/24", (0, 2), (64, 1), (128, 3), (160, 1), (224, 3))
    state.hold(Holding(state.universe.start + 127, 24, "a", False))
    assert _last_octets(state.chunk_for(peer, state.universe)) == where


VALID = [b"\1" + bytes.fromhex(case["bytes"]) for case in load("ipam_gossip")["gossip"]] + [
    bytes.fromhex(case["payload"]) for case in load("ipam_gossip")["unicast"]
]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 1 << 32))
def test_any_bytes(seed: int) -> None:
    """Property 3: handled or refused; what is refused changes nothing."""
    rng = random.Random(seed)
    host = alone("10.0.0.0/24")
    host.allocate("a")
    for _ in range(6):
        data = bytearray(rng.choice(VALID))
        for _ in range(rng.randrange(4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if rng.random() < 0.2:
            del data[rng.randrange(len(data)) :]
        state = host.core._context.state
        before = list(state.ring.entries), state.ring.seeds, list(state.holdings)
        try:
            kind = rng.randrange(3)
            if kind == 0:
                host.core.on_unicast(name_of(2), bytes(data), 1.0)
            elif kind == 1:
                host.core.on_broadcast(name_of(2), bytes(data[1:]), 1.0)
            else:
                host.core.on_gossip(bytes(data[1:]), 1.0)
        except RemoteProtocolError:
            assert (list(state.ring.entries), state.ring.seeds, list(state.holdings)) == before
        host.cluster.settle()
        state.ring.check()
        assert state.ring.owned_joined(state.peer) == state.space.owned_ranges()
        assert [ident for ident, _ in host.core.owned()] == ["a"]


def test_a_change_of_free_counts_is_not_broadcast() -> None:
    """#2009: each message holds the whole ring, so it waits for the periodic gossip."""
    cluster = Cluster(2)
    one = cluster.hosts[0]
    one.allocate("a")
    for host in cluster.hosts:
        host.sent.clear()
    for number in range(20):
        one.allocate(f"c{number}")
    cluster.gossip()
    one.ask("delete", "c3")
    assert [event for host in cluster.hosts for event in host.sent] == []
