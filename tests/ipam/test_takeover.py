"""Peers that die, are taken over or leave, and what is in use there."""

from __future__ import annotations

import pytest

from base.names import PeerName
from ipam import wire
from ipam.address import Range
from ipam.events import SendUnicast
from ipam.options import KnownPeer, Mode
from ipam.peers import PeerBook
from ipam.ring import Ring
from ipam.status import State
from ipam.store import Entry, MemoryStore
from ipam.wire import GossipState
from tests.ipam.cluster import CANCELLED, Cluster, alone, name_of, said


def test_takeover_frees_space_everywhere() -> None:
    cluster = Cluster(3, "10.32.0.0/22")
    one = cluster.hosts[0]
    for host in cluster.hosts:
        host.allocate("a")
    one.ask("delete", "a")
    assert said(one.ask("take_over", "host2")).startswith("TakeOverRefusedError")
    cluster.lose(2, 3)
    assert cluster.hosts[0].core.status().unreachable_count == 2
    before = one.core._context.state.space.free_in(cluster.universe.range)
    gained = [one.ask("take_over", name) for name in ("host2", "host3")]
    total = sum(int(answer.value) for answer in gained if answer and isinstance(answer.value, int))
    assert total == 1024 - before
    assert said(one.ask("take_over", "host9")) == "0"
    assert said(one.ask("take_over", "host1")) == "0"
    assert one.core._context.state.space.free_in(cluster.universe.range) == 1024


def test_an_ambiguous_nickname_is_refused() -> None:
    cluster = Cluster(2, mode=Mode.SEED, seeds=tuple(map(name_of, (1, 8, 9))))
    one = cluster.hosts[0]
    one.allocate("a")
    nicks = {int(name_of(8)): "host9", int(name_of(9)): "host9"}
    one.core.on_gossip(wire.encode_state(GossipState(1, nicks, {})), 1.0)
    assert "several peers" in said(one.ask("take_over", "host9"))


def test_nobody_is_renamed_after_its_death() -> None:
    cluster = Cluster(3, mode=Mode.SEED, seeds=tuple(map(name_of, (1, 2, 3))))
    one = cluster.hosts[0]
    one.allocate("a")
    cluster.lose(2, 3)
    swapped = {int(name_of(2)): "host3", int(name_of(3)): "host2"}
    one.core.on_gossip(wire.encode_state(GossipState(1, swapped, {})), 1.0)
    nicks = {share.peer: share.nick for share in one.core.status().shares}
    assert nicks == {name_of(number): f"host{number}" for number in (1, 2, 3)}
    assert said(one.ask("take_over", "host3")) == "16"
    owners = {entry.peer for entry in one.core._context.state.ring.entries}
    assert owners == {int(name_of(1)), int(name_of(2))}


@pytest.mark.parametrize("order", ["gone empty", "empty gone", "empty gone empty"])
def test_a_dead_owner_is_removed_by_its_nickname(order: str) -> None:
    """Whatever a peer that knows no more than its name says of it meanwhile."""
    cluster = Cluster(2, mode=Mode.SEED, seeds=(name_of(1), name_of(2)))
    one = cluster.hosts[0]
    for step in order.split():
        if step == "gone":
            cluster.lose(2)
        else:
            unnamed = GossipState(1, {int(name_of(2)): ""}, {})
            one.core.on_gossip(wire.encode_state(unnamed), cluster.now)
    assert said(one.ask("take_over", "host2")) == "32"


def test_nicknames_of_the_topology_win() -> None:
    cluster = Cluster(3)
    one = cluster.hosts[0]
    one.allocate("a")
    nicks = {int(name_of(2)): "host3", int(name_of(1)): "host3"}
    one.core.on_gossip(wire.encode_state(GossipState(1, nicks, {})), 1.0)
    assert {share.nick for share in one.core.status().shares} == {"host1", "host2"}


def test_who_inherits() -> None:
    """Specification 9.4: owners in sight, others in sight that take part, owners, anybody."""
    us, owner, second, other = (int(name_of(number)) for number in range(1, 5))
    book = PeerBook(us, "host1", 1)
    whole = Range(0, 256)
    ring = Ring(whole, us, [Entry(0, us, 0, 0), Entry(64, owner, 0, 0), Entry(128, second, 0, 0)])
    assert book.heir(Ring(whole, us, [Entry(0, us, 0, 0)]).heir) == 0
    assert book.heir(ring.heir) == owner
    book.learn({other: "host4"})
    assert book.heir(Ring(whole, us, [Entry(0, us, 0, 0)]).heir) == other
    assert book.heir(ring.heir) == owner
    book.set_topology([KnownPeer(PeerName.from_int(other), "host4", 4)], set())
    assert book.heir(ring.heir) == other
    book.set_topology(
        [KnownPeer(PeerName.from_int(each), "", 4) for each in (other, second)], set()
    )
    assert book.heir(ring.heir) == second


def test_shutdown_leaves_everything_to_an_heir() -> None:
    cluster = Cluster(2)
    one, two = cluster.hosts
    one.allocate("a")
    assert said(one.ask("shutdown")) == "ok"
    assert two.core._context.state.space.free_in(cluster.universe.range) == 64
    assert one.allocate("b").startswith(CANCELLED)
    assert said(one.ask("prime")) == "ok"
    assert one.core.status().state is State.STOPPED


def test_a_living_one_that_was_taken_over_may_inherit() -> None:
    cluster = Cluster(2)
    one, two = cluster.hosts
    one.allocate("a")
    assert said(one.ask("take_over", "host2", force=True)) == "32"
    one.ask("shutdown")
    assert two.core._context.state.space.free_in(cluster.universe.range) == 64


def test_who_asks_one_that_has_left_is_told_its_heir() -> None:
    """It may not have heard yet: the broadcast was lost, or crossed its request."""
    cluster = Cluster(3)
    one, two, three = cluster.hosts
    one.allocate("a")
    one.ask("shutdown")
    one.sent.clear()
    asked = cluster.universe.range
    one.core.on_unicast(three.name, wire.encode_space_request(asked), cluster.now)
    update = wire.encode_ring_update(one.core.encode_state())
    assert one.step() == [
        SendUnicast(three.name, wire.encode_denial(asked)),
        SendUnicast(three.name, update),
    ]
    ring = wire.decode_state(update[1:]).ring
    assert ring is not None
    assert ring.entries[0][:2] == (asked.start, int(two.name))


def test_what_crossed_the_word_of_leaving_is_given_on() -> None:
    cluster = Cluster(3)
    one, two, three = cluster.hosts
    one.allocate("a")
    one.ask("shutdown")
    state = two.core._context.state
    granted = Range(0x0A200010, 0x0A200018)
    state.grant(granted, int(one.name))
    cluster.settle()
    cluster.gossip()
    one.core.on_unicast(three.name, wire.encode_space_request(granted), cluster.now)
    cluster.settle()
    assert three.core._context.state.ring.owner(granted.end - 1) == int(three.name)


def test_a_reset_of_all_in_turn_loses_no_space() -> None:
    cluster = Cluster(3)
    for host in cluster.hosts:
        host.allocate("a")
    for host in cluster.hosts:
        assert said(host.ask("shutdown")) == "ok"
        host.store = MemoryStore()
        host.restart()
        cluster.topology()
        cluster.gossip()
        assert host.allocate("b") != ""
        states = [one.core._context.state for one in cluster.hosts]
        owned = sum(run.size for state in states for run in state.space.owned_ranges())
        assert owned == cluster.universe.size


def test_shutdown_without_an_heir_is_silent() -> None:
    host = alone()
    host.allocate("a")
    host.sent.clear()
    host.ask("shutdown")
    assert host.sent == []
    assert host.allocate("b").startswith(CANCELLED)


# --- conflicts -----------------------------------------------------------------------------------


def test_a_living_peer_that_was_taken_over_yields_and_asks_back() -> None:
    """#1962, #3310: in Weave it refuses every connection until its store is deleted."""
    cluster = Cluster(2)
    one, two = cluster.hosts
    one.allocate("a")
    assert two.allocate("b") == "10.32.0.32/26"
    cluster.lose(2)
    one.ask("take_over", "host2")
    cluster.lose()
    cluster.gossip()
    cluster.gossip()
    cluster.pass_time(30)
    state = two.core._context.state
    assert not state.strays
    assert state.ring.owned(state.peer) == [Range(0x0A200020, 0x0A200021)]
    assert two.allocate("b") == "10.32.0.32/26"
    assert any("Received update for IP range I own" in text for text in two.notices)
    rings = [[e[:3] for e in host.core._context.state.ring.entries] for host in cluster.hosts]
    assert rings[0] == rings[1]


def test_an_unused_range_is_given_up_without_a_crash() -> None:
    """H6: Weave's process ends here."""
    cluster = Cluster(2)
    one, two = cluster.hosts
    one.allocate("a")
    cluster.lose(2)
    one.ask("take_over", "host2")
    cluster.lose()
    cluster.gossip()
    assert two.core._context.state.space.owned_ranges() == []
    assert two.notices == [f"no longer ours, now of {one.name}(host1): 10.32.0.32/27"]
    assert two.allocate("b") != ""
