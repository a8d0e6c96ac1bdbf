"""A start without a ring: who divides the range, and when, so that there is never a second one."""

from __future__ import annotations

import random

import pytest

from ipam.address import Cidr
from ipam.allocator import Allocator
from ipam.options import AllocatorOptions
from ipam.store import Holding, MemoryStore, Stored
from tests.sim.ipam_net import Net
from tests.sim.ipam_node import name_of

FOUND = Holding(0x0A200005, 24, "c", True)


def _alone(in_use: tuple[Holding, ...] = ()) -> Allocator:
    made = AllocatorOptions(name_of(1), "host1", 7, Cidr.parse("10.32.0.0/24"))
    allocator = Allocator(made, 1000.0, random.Random(1))
    allocator.restore(Stored(), in_use, 1000.0)
    return allocator


def _settle(allocator: Allocator, now: float) -> None:
    while (deadline := allocator.next_deadline()) is not None and deadline <= now:
        allocator.timeout(deadline)
    if allocator.take_change() is not None:
        allocator.committed()
    allocator.take_events()


def _divided(allocator: Allocator) -> bool:
    return bool(allocator.status().entries)


@pytest.mark.parametrize("in_use", [(), (FOUND,)], ids=["new", "lived"])
def test_nobody_divides_before_the_number_of_targets_is_told(in_use: tuple[Holding, ...]) -> None:
    allocator = _alone(in_use)
    allocator.allocate(1, "d", None, 1001.0)
    _settle(allocator, 1020.0)
    allocator.set_topology([], 1021.0)
    _settle(allocator, 2000.0)
    assert not _divided(allocator)
    allocator.set_targets(2, 2001.0)
    _settle(allocator, 2100.0)
    assert not _divided(allocator)
    assert allocator.status().text.startswith("awaiting consensus (quorum: 2, known: 1)")


def test_without_targets_a_new_node_divides_alone() -> None:
    allocator = _alone()
    allocator.allocate(1, "d", None, 1001.0)
    _settle(allocator, 1001.0)
    allocator.set_targets(0, 1002.0)
    _settle(allocator, 1002.0)
    assert _divided(allocator)


def test_without_targets_one_that_lived_before_waits_for_others_first() -> None:
    allocator = _alone((FOUND,))
    allocator.set_targets(0, 1001.0)
    _settle(allocator, 1029.0)
    assert not _divided(allocator)
    _settle(allocator, 1031.0)
    assert _divided(allocator)
    assert not allocator._context.state.strays


def test_one_that_lived_before_divides_with_whoever_comes() -> None:
    net = Net(1)
    one, two = net.add(1, 2)
    one.promised["c"] = 0x0A200005
    one.start()
    one.core.set_targets(0, net.now)
    net.run(5.0)
    assert not one.has_ring
    two.start()
    two.allocate("d")
    net.run(40.0)
    assert net.converged()
    assert {share.peer for share in one.core.status().shares} == {one.name, two.name}


def test_addresses_of_the_bridge_yield_to_the_store() -> None:
    allocator = _alone()
    allocator.set_targets(0, 1000.0)
    allocator.claim(1, "c", Cidr.parse("10.32.0.5/24"), 1000.0)
    store = MemoryStore()
    change = allocator.take_change()
    assert change is not None
    store.commit(change)
    again = Allocator(allocator.options, 1000.0, random.Random(1))
    ours = [Holding(0x0A200000 + last, 24, "weave:expose", False) for last in (5, 6)]
    again.restore(store.load(), (), 1000.0, ours)
    assert [(ident, *map(str, held)) for ident, held in again.owned()] == [
        ("c", "10.32.0.5/24"),
        ("weave:expose", "10.32.0.6/24"),
    ]
