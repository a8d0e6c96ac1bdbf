"""The first division: who decides, when, and by how many messages."""

from __future__ import annotations

import pytest

from ipam import wire
from ipam.events import Broadcast
from ipam.options import KnownPeer, Mode
from ipam.paxos import Claims, NodeId, ProposalId
from ipam.status import PaxosStatus, State
from ipam.wire import GossipState
from tests.ipam.cluster import Cluster, name_of, said


def test_two_peers_agree_by_five_messages() -> None:
    cluster = Cluster(2)
    cluster.messages.clear()
    assert cluster.hosts[0].allocate("a") == "10.32.0.1/26"
    assert cluster.messages == [
        (1, 2, "broadcast"),
        (2, 1, "broadcast"),
        (1, 2, "broadcast"),
        (2, 1, "broadcast"),
        (1, 2, "broadcast"),
    ]
    assert cluster.hosts[1].allocate("b") == "10.32.0.32/26"


@pytest.mark.parametrize(
    ("expected", "targets", "quorum"),
    [(1, 0, 1), (2, 1, 2), (3, 2, 2), (4, 3, 3), (5, 4, 3), (0, 0, 1), (0, 1, 2), (0, 2, 2)],
)
def test_quorum(expected: int, targets: int, quorum: int) -> None:
    cluster = Cluster(max(2, targets + 1), expected=expected)
    cluster.lose(*range(2, 7))
    host = cluster.hosts[0]
    host.core.set_targets(targets, cluster.now)
    host.ask("prime")
    status = host.core.status()
    if quorum == 1:
        assert status.state is State.RUNNING
    else:
        assert status.text == f"awaiting consensus (quorum: {quorum}, known: 1)"
        assert status.paxos is not None
        assert status.paxos.voters == (host.name,)


def test_the_second_node_of_kubernetes_does_not_elect_alone() -> None:
    """#3908: it is started with consensus=1 because the script does not count it."""
    cluster = Cluster(2, expected=1)
    cluster.hosts[0].core.set_targets(0, cluster.now)
    cluster.lose(2)
    second = cluster.hosts[1]
    assert second.allocate("weave:expose") == ""
    assert cluster.hosts[0].allocate("weave:expose") == ""  # it counts its target as well
    cluster.lose()
    cluster.pass_time(20)
    assert second.core.status().state is State.RUNNING
    assert len({host.core._context.state.ring.seeds for host in cluster.hosts}) == 1


def test_the_first_node_does_not_decide_alone_beside_others() -> None:
    """It has no targets, and guesses; the others are in sight."""
    cluster = Cluster(3, expected=0)
    first, *others = cluster.hosts
    first.core.set_targets(0, cluster.now)
    for host in others:
        host.core.set_targets(1, cluster.now)
    cluster.gossip()
    messages, cluster.cut = cluster.messages, {1}  # its words are lost, nobody knows yet
    assert first.allocate("a") == ""
    assert "quorum: 2" in first.core.status().text
    assert others[0].allocate("b") != ""
    assert messages
    cluster.lose()
    cluster.gossip()
    assert first.core.status().state is State.RUNNING
    assert len({host.core._context.state.ring.seeds for host in cluster.hosts}) == 1


def test_a_guess_among_observers_is_made_again() -> None:
    cluster = Cluster(3, expected=0)
    for host in cluster.hosts[1:]:
        host.restart(mode=Mode.OBSERVER)
    cluster.topology()
    cluster.hosts[0].core.set_targets(0, cluster.now)
    cluster.gossip()
    assert cluster.hosts[0].allocate("a") == ""
    cluster.pass_time(15)
    assert cluster.hosts[0].core.status().state is State.RUNNING


def test_alone_after_a_grace_time() -> None:
    cluster = Cluster(2, expected=1)
    cluster.lose(2)
    host = cluster.hosts[0]
    assert host.allocate("a") == ""
    cluster.pass_time(29)
    assert host.core.status().state is State.ELECTING
    cluster.pass_time(20)
    assert host.core.status().state is State.RUNNING


def test_one_that_decides_alone_does_not_wait_for_an_observer() -> None:
    cluster = Cluster(2, expected=1)
    elector, observer = cluster.hosts
    observer.restart(mode=Mode.OBSERVER)
    cluster.topology()
    assert observer.allocate("a") == ""
    waiting = observer.last()
    cluster.pass_time(60)
    assert elector.core.status().state is State.RUNNING
    assert said(observer.answers[waiting]) != ""


def test_one_that_decides_alone_waits_for_a_vote_of_whoever_comes() -> None:
    cluster = Cluster(2, expected=1)
    cluster.lose(2)
    one, two = cluster.hosts
    assert one.allocate("a") == ""
    cluster.pass_time(25)
    known = [KnownPeer(two.name, "host2", two.uid)]
    one.core.set_topology(known, cluster.now)  # but nothing is heard of it yet
    cluster.pass_time(9)
    assert one.core.status().state is State.ELECTING
    cluster.lose()
    cluster.gossip()
    assert one.core.status().state is State.RUNNING
    assert one.core._context.state.ring.seeds == (int(one.name), int(two.name))


def test_who_comes_is_asked_for_its_vote_at_once() -> None:
    cluster = Cluster(2, expected=1)
    cluster.lose(2)
    one = cluster.hosts[0]
    assert one.allocate("a") == ""
    cluster.pass_time(20)
    cluster.lose()
    cluster.pass_time(2)
    assert len(one.core._context.state.ring.seeds) == 2


def test_claims_that_come_before_their_node_are_answered_when_it_comes() -> None:
    """A new neighbour's state and its place in the topology arrive in any order."""
    cluster = Cluster(2)
    cluster.lose(2)
    first, second = cluster.hosts
    assert first.allocate("a") == ""
    second.core.on_gossip(first.core.encode_state(), cluster.now)
    first.core.on_gossip(second.core.encode_state(), cluster.now)
    cluster.settle()
    assert first.core.status().state is not State.RUNNING
    cluster.lose()
    assert said(first.answers[first.last()]) == "10.32.0.1/26"


def test_some_in_sight_do_not_decide_for_all_targets() -> None:
    """With consensus=1 beside five targets, of which one has voted, and one observes."""
    cluster = Cluster(6, expected=1)
    cluster.hosts[2].restart(mode=Mode.OBSERVER)
    cluster.lose(4, 5, 6)
    one = cluster.hosts[0]
    one.core.set_targets(5, cluster.now)
    assert one.allocate("a") == ""
    cluster.pass_time(100)
    assert one.core.status().text == "awaiting consensus (quorum: 3, known: 2)"
    cluster.lose(4, 5)
    cluster.gossip()
    cluster.pass_time(40)
    assert one.core.status().state is State.RUNNING


def test_a_target_that_is_forgotten_is_not_counted() -> None:
    """#1593: stuck for ever with one target too many."""
    cluster = Cluster(3, expected=0)
    cluster.lose(2, 3)
    one = cluster.hosts[0]
    assert one.allocate("a") == ""
    assert one.core.status().text == "awaiting consensus (quorum: 2, known: 1)"
    one.core.set_targets(0, cluster.now)
    cluster.pass_time(40)
    assert one.core.status().state is State.RUNNING


def test_retry_without_news_is_silent() -> None:
    cluster = Cluster(2)
    cluster.hosts[0].allocate("a")
    cluster.messages.clear()
    cluster.pass_time(60)
    assert cluster.messages == []


def test_seeds_need_no_messages() -> None:
    cluster = Cluster(3, mode=Mode.SEED, seeds=tuple(map(name_of, (3, 1, 2))))
    cluster.lose(1, 2, 3)
    assert [host.allocate("a") for host in cluster.hosts] == [
        "10.32.0.1/26",
        "10.32.0.32/26",
        "10.32.0.48/26",
    ]


def test_an_observer_makes_electors_start() -> None:
    cluster = Cluster(3, expected=2)
    observer = cluster.hosts[2]
    observer.restart(mode=Mode.OBSERVER)
    cluster.topology()
    assert observer.core.status().text == "idle"
    observer.allocate("a")
    state = wire.decode_state(observer.core.encode_state())
    assert state.paxos is None
    cluster.pass_time(10)
    assert {e.peer for e in cluster.hosts[0].core.status().entries} >= {name_of(1), name_of(2)}
    assert observer.core.status().state is State.RUNNING


def test_votes_of_others_are_passed_on_though_ours_is_cast() -> None:
    """Also as the broadcast of whoever cast them: behind us there may be peers that count them."""
    cluster = Cluster(3, expected=4)
    one, two, three = cluster.hosts
    proposal = ProposalId(1, NodeId(int(two.name), two.uid))
    for voter in (two, three):
        vote = {NodeId(int(voter.name), voter.uid): Claims(proposal)}
        one.core.on_broadcast(voter.name, wire.encode_state(GossipState(1, {}, vote)), cluster.now)
        assert Broadcast(voter.name) in one.step()
        told = wire.decode_state(one.core.encode_state()).paxos
        assert told is not None
        assert told.items() >= vote.items()


def test_an_empty_map_of_claims_is_gossip() -> None:
    cluster = Cluster(2)
    assert wire.decode_state(cluster.hosts[0].core.encode_state()).paxos == {}


def test_status_tells_who_has_voted_and_who_is_missing() -> None:
    """#2767: "awaiting consensus" for ever, and no hint."""
    cluster = Cluster(4, expected=7)
    host = cluster.hosts[0]
    cluster.hosts[3].restart(mode=Mode.OBSERVER)
    others = tuple(map(name_of, (2, 3, 4)))
    assert host.core.status().paxos == PaxosStatus(True, 0, 0, (), others, 3)
    cluster.lose(2)
    host.allocate("a")
    paxos = host.core.status().paxos
    assert paxos is not None
    assert (paxos.voters, paxos.missing) == ((name_of(1), name_of(3)), (name_of(4),))
    assert paxos.text == (
        f"by {name_of(1)}(host1), {name_of(3)}(host3); none by {name_of(4)}(host4); "
        "4 more peers expected, not connected"
    )


@pytest.mark.parametrize("known", [False, True])
def test_invented_voters_do_not_count(known: bool) -> None:
    """Of a peer that the topology holds, only the process that it holds."""
    cluster = Cluster(9, expected=3)
    cluster.lose(*range(2, 10))
    host = cluster.hosts[0]
    host.allocate("a")
    claims = wire.decode_state(host.core.encode_state()).paxos
    assert claims is not None
    ((node, mine),) = claims.items()
    fake = {node._replace(name=node.name + n, uid=n): mine for n in range(1, 9)}
    if known:
        everybody = [KnownPeer(one.name, "x", one.uid) for one in cluster.hosts]
        host.core.set_topology(everybody, 1.0)
    host.core.on_gossip(wire.encode_state(GossipState(1, {}, fake)), 1.0)
    host.cluster.settle()
    assert host.core.status().state is State.ELECTING
