"""Agreement of many: one value, and nobody changes its mind."""

from __future__ import annotations

import random

import pytest

from ipam.paxos import Claims, NodeId, Paxos, ProposalId, seeds_of


def test_one_alone_agrees_with_itself() -> None:
    one = Paxos(NodeId(7, 1), 1)
    assert one.consensus() is None
    one.propose()
    assert one.consensus() == (ProposalId(1, one.node), (7,))


def test_nothing_is_decided_before_it_is_known_by_how_many() -> None:
    one = Paxos(NodeId(7, 1))
    one.propose()
    accepted = ProposalId(1, NodeId(8, 1))
    one.update({NodeId(n, 1): Claims(accepted, accepted, (8,), accepted) for n in range(8, 20)})
    assert one.think()
    assert one.consensus() is None


def test_who_has_nothing_to_say_is_no_voter() -> None:
    """Claims that claim nothing are known; thinking about them makes none of our own."""
    one = Paxos(NodeId(7, 1), 2)
    assert not one.think()
    assert one.update({NodeId(8, 1): Claims()})
    assert not one.think()
    assert set(one.known) == {NodeId(8, 1)}


def test_a_peer_that_restarted_is_a_seed_once() -> None:
    assert seeds_of([3, 1, 3, 2]) == (1, 2, 3)


@pytest.mark.parametrize("seed", range(20))
def test_ten_reach_one_value(seed: int) -> None:
    """Property 17, as Weave's own test: random links, repeated proposals, some cut off a while."""
    rng = random.Random(seed)
    nodes = [Paxos(NodeId(number, rng.getrandbits(63) + 1), 6) for number in range(1, 11)]
    decided: dict[NodeId, tuple[ProposalId, tuple[int, ...]]] = {}
    cut: dict[NodeId, int] = {}
    nodes[rng.randrange(10)].propose()
    for turn in range(20_000):
        one, other = rng.sample(nodes, 2)
        if rng.random() < 0.01:
            one.propose()
        if rng.random() < 0.01:
            cut[one.node] = turn + rng.randrange(200)
        if max(cut.get(one.node, 0), cut.get(other.node, 0)) > turn:
            continue
        if other.update(dict(one.known)):
            other.think()
        for node in (one, other):
            found = node.consensus()
            if node.node in decided:
                assert found is not None
                assert found[0] == decided[node.node][0], f"changed its mind, seed {seed}"
            elif found is not None:
                decided[node.node] = found
        if len(decided) == len(nodes):
            break
    assert len(decided) == len(nodes), f"no agreement, seed {seed}"
    assert len({seeds_of(value) for _, value in decided.values()}) == 1
