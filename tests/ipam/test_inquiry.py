"""Before a dead peer is taken over, those in sight are asked what they know (#3190, #3632)."""

from __future__ import annotations

from base.errors import RequestCancelledError, TakeOverRefusedError
from ipam import wire
from ipam.events import SendUnicast
from ipam.lifecycle import INQUIRY_PEERS, INQUIRY_S
from ipam.options import Mode
from tests.ipam.cluster import Cluster, name_of, said
from tests.sim.ipam_net import Net
from tests.sim.ipam_node import Faults, Node
from tests.sim.ipam_node import name_of as node_name


def _net(count: int) -> tuple[Net, list[Node]]:
    net = Net(1)
    numbers = range(1, count + 1)
    seeds = tuple(map(node_name, numbers))
    nodes = net.add(*numbers, mode=Mode.SEED, seeds=seeds)
    net.start()
    for node in nodes:
        node.ask("prime")
    net.run(2.0)
    return net, nodes


def _third_dead() -> tuple[Net, list[Node]]:
    """Three of them, the last of which crashed a second ago."""
    net, nodes = _net(3)
    nodes[2].crash()
    net.run(1.0)
    return net, nodes


def _secretly(net: Net, *groups: set[int]) -> None:
    """Nodes see each other again, and do not tell what has happened."""
    net.part(*groups)


def test_what_was_taken_over_already_is_not_taken_again() -> None:
    net, (one, two, three) = _net(3)
    three.gone = True
    three.crash()
    net.part({1}, {2})
    first = two.ask("take_over", str(three.name))
    net.run(1.0)
    assert two.answers[first].value == 16
    _secretly(net)
    assert int(three.name) in {entry.peer for entry in one.entries()}
    second = one.ask("take_over", str(three.name))
    net.run(1.0)
    assert one.answers[second].value == 0
    assert net.converged()
    assert {entry.peer for entry in one.entries()} == {int(one.name), int(two.name)}


def test_what_it_had_given_away_before_is_not_taken() -> None:
    net, (one, two, three) = _net(3)
    net.part({1}, {2, 3})
    for number in range(20):  # more than it owns itself
        two.allocate(f"c{number}")
    net.run(30.0)
    assert len(two.promised) == 20
    three.gone = True
    three.crash()
    _secretly(net)
    request = one.ask("take_over", "host3")
    net.run(1.0)
    gained = one.answers[request].value
    assert isinstance(gained, int)
    assert 0 < gained < 16
    net.run(1.0)
    assert net.converged()
    assert not one.refused
    assert not two.refused


def test_one_that_comes_back_meanwhile_is_left_alone() -> None:
    net, (one, two, three) = _third_dead()
    net.faults = Faults(loss=1.0)
    request = one.ask("take_over", str(three.name))
    net.run(INQUIRY_S / 2)
    assert request not in one.answers
    three.start()
    net.run(INQUIRY_S)
    assert isinstance(one.answers[request].error, TakeOverRefusedError)
    assert two.has_ring


def test_who_is_silent_is_not_waited_for_long() -> None:
    net, (one, _, three) = _third_dead()
    net.faults = Faults(loss=1.0)
    request = one.ask("take_over", str(three.name))
    net.run(INQUIRY_S - 0.1)
    assert request not in one.answers
    net.run(0.2)
    assert one.answers[request].value == 16


def test_who_goes_is_not_waited_for() -> None:
    net, (one, two, three) = _third_dead()
    net.faults = Faults(loss=1.0)
    request = one.ask("take_over", str(three.name))
    two.crash()
    net.run(0.1)
    assert one.answers[request].value == 16


def test_the_caller_may_leave() -> None:
    net, (one, _, three) = _third_dead()
    net.faults = Faults(loss=1.0)
    request = one.ask("take_over", str(three.name))
    one.core.cancel(request, net.now)
    one.step()
    assert isinstance(one.answers[request].error, RequestCancelledError)
    net.run(2 * INQUIRY_S)
    assert int(three.name) in {entry.peer for entry in one.entries()}


def test_leaving_ends_it() -> None:
    net, (one, _, three) = _third_dead()
    net.faults = Faults(loss=1.0)
    request = one.ask("take_over", str(three.name))
    one.ask("shutdown")
    late = one.ask("take_over", str(three.name))
    nobody = one.ask("take_over", "host9")
    net.run(1.0)
    assert one.answers[nobody].value == 0  # of whom there is nothing to take, as ever
    for number in (request, late):
        assert isinstance(one.answers[number].error, TakeOverRefusedError)


def test_not_everybody_is_asked_and_the_question_starts_no_election() -> None:
    count = INQUIRY_PEERS + 10
    seeds = tuple(map(name_of, range(1, count + 1)))
    cluster = Cluster(count, "10.32.0.0/20", mode=Mode.SEED, seeds=seeds)
    one, last = cluster.hosts[0], cluster.hosts[-1]
    one.allocate("a")
    cluster.gossip()
    cluster.lose(last.number)
    one.sent.clear()
    answer = one.ask("take_over", str(last.name))
    assert int(said(answer)) > 0
    asked = [event for event in one.sent if isinstance(event, SendUnicast)]
    assert len({event.peer for event in asked}) == INQUIRY_PEERS
    assert name_of(last.number) not in {event.peer for event in asked}
    for event in asked:
        assert event.data[0] == wire.RING_UPDATE
        state = wire.decode_state(event.data[1:])
        assert (state.paxos, state.ring) == ({}, None)
