"""What a real Weave Net peer made us meet: refusals, silence, a space that was taken meanwhile."""

from __future__ import annotations

import pytest

from base.errors import ClaimConflictError
from ipam.address import Cidr, Range
from ipam.events import Notice
from ipam.exchange import REFUSAL_S, TOLD_S
from ipam.merge import MergeConflictError, merge
from ipam.options import Mode
from ipam.ring import TAKEOVER_STEP, Ring
from ipam.store import Entry
from tests.sim.ipam_net import Net
from tests.sim.ipam_node import Faults, Node, name_of

US, HEIR, THIRD = (int(name_of(number)) for number in (1, 2, 3))
WHOLE = Range(0x0A000000, 0x0A000100)


def _net(count: int = 2, universe: str = "10.32.0.0/26") -> tuple[Net, list[Node]]:
    """Nodes that divided the range and know each other."""
    net = Net(1, universe)
    numbers = range(1, count + 1)
    nodes = net.add(*numbers, mode=Mode.SEED, seeds=tuple(map(name_of, numbers)))
    net.start()
    for node in nodes:
        node.ask("prime")
    net.run(2.0)
    assert net.converged()
    return net, nodes


def _allocate(net: Net, node: Node, ident: str) -> int:
    node.allocate(ident)
    net.run(1.0)
    return node.promised[ident]


# --- claims that may not fail ---------------------------------------------------------------------


def test_an_owner_that_answers_decides_even_for_the_impatient() -> None:
    net, (one, two) = _net()
    addr = _allocate(net, one, "c")
    request = two.ask("claim", "k", Cidr(addr, 26), no_error_on_unknown=True)
    net.run(1.0)
    answer = two.answers[request]
    assert isinstance(answer.error, ClaimConflictError)
    assert str(answer.error) == (
        f"address {Cidr(addr, 26)} is owned by other peer {one.name} (host1) - it is in use there"
    )
    assert not list(two.core.owned())
    free = two.ask("claim", "k", Cidr(addr + 1, 26), no_error_on_unknown=True)
    net.run(1.0)
    assert two.answers[free].error is None
    assert not two.core._context.state.strays


def test_an_owner_that_is_away_does_not_keep_the_impatient() -> None:
    net, (one, two) = _net()
    addr = _allocate(net, one, "c")
    one.crash()
    net.run(1.0)
    request = two.ask("claim", "k", Cidr(addr, 26), no_error_on_unknown=True)
    net.run(1.0)
    assert two.answers[request].error is None
    assert list(two.core._context.state.strays) == [addr]
    one.start()
    net.run(40.0)
    assert two.core.status().conflicts == (f"10.32.0.1 of k is in use at {one.name} too",)


def test_an_owner_that_is_silent_does_not_keep_the_impatient_for_long() -> None:
    net, (one, two) = _net()
    addr = _allocate(net, one, "c")
    net.faults = Faults(loss=1.0)
    request = two.ask("claim", "k", Cidr(addr, 26), no_error_on_unknown=True)
    net.run(1.0)
    assert request not in two.answers
    net.run(12.0)
    assert two.answers[request].error is None
    assert list(two.core._context.state.strays) == [addr]


def test_there_need_not_be_a_ring_for_the_impatient() -> None:
    net = Net(1)
    (one,) = net.add(1, expected=3)
    net.start()
    request = one.ask("claim", "k", Cidr.parse("10.32.0.7/26"), no_error_on_unknown=True)
    net.run(1.0)
    assert one.answers[request].error is None
    assert one.core.status().text.startswith("awaiting consensus")


# --- coming back ----------------------------------------------------------------------------------


def test_who_was_taken_over_before_its_news_were_heard_comes_back() -> None:
    net, (one, two, _) = _net(3)
    net.faults = Faults(loss=1.0)
    for number in range(3):  # raises versions that nobody hears of
        _allocate(net, two, f"c{number}")
    two.crash()
    net.faults = Faults()
    net.run(1.0)
    one.ask("take_over", str(two.name))
    net.run(1.0)
    kept = dict(two.promised)
    two.start()
    net.settle()
    assert two.promised == kept
    assert not two.refused


def test_who_raised_its_versions_beyond_a_take_over_unheard_gets_it_back() -> None:
    net, (one, two, _) = _net(3, "10.32.0.0/24")
    net.faults = Faults(loss=1.0)
    for number in range(TAKEOVER_STEP + 20):
        _allocate(net, two, f"c{number}")
        two.delete(f"c{number}")
    two.crash()
    net.faults = Faults()
    net.run(1.0)
    one.ask("take_over", str(two.name))
    net.run(1.0)
    for number in range(150):
        one.allocate(f"k{number}")  # more than it owned alone
    net.run(1.0)
    kept = dict(one.promised)
    two.start()
    net.settle()
    assert one.promised == kept
    assert len(kept) == 150


def test_what_was_taken_over_may_have_been_divided_meanwhile() -> None:
    net, (one, two, three) = _net(3, "10.32.0.0/28")
    held = {_allocate(net, two, f"c{number}") for number in range(3)}
    two.crash()
    net.run(1.0)
    one.ask("take_over", str(two.name))
    net.run(1.0)
    # of whom three is given parts
    for addr in sorted(held)[1:]:
        three.ask("claim", f"k{addr}", Cidr(addr, 28))
    net.run(10.0)
    assert three.has_ring
    two.promised = {"c0": min(held)}  # the other containers have ended
    two.start()
    two.reconcile()
    assert net.run_until(net.converged, 60.0), net.describe()
    assert two.core.status().conflicts == ()
    assert not two.refused


def test_a_piece_that_is_cut_without_being_taken_over_is_still_refused() -> None:
    ours = Ring(WHOLE, US, [Entry(WHOLE.start, US, 5, 250)])
    cut = [Entry(WHOLE.start, US, 5, 128), Entry(WHOLE.start + 128, HEIR, 0, 128)]
    used = WHOLE.start + 130
    for entries, taken_over in (
        (cut, False),
        ([cut[0]._replace(peer=HEIR, version=6), cut[1]], True),
        ([cut[0]._replace(peer=HEIR, version=6), cut[1]._replace(peer=THIRD)], True),
        ([cut[0]._replace(peer=HEIR, free=256)], False),
    ):
        with pytest.raises(MergeConflictError) as caught:
            merge(ours, WHOLE, entries, (), lambda lost: used if _in(lost, used) else None)
        assert caught.value.taken_over == taken_over, str(caught.value)


def _in(ranges: object, addr: int) -> bool:
    assert isinstance(ranges, list)
    return any(one.contains(addr) for one in ranges)


def test_an_owner_that_is_gone_goes_by_the_name_that_only_the_topology_told() -> None:
    net, (one, two) = _net()
    one.core._context.peers._told.clear()
    two.crash()
    net.run(1.0)
    one.core.peers_gone([two.name], net.now)
    request = one.ask("take_over", "host2")
    net.run(1.0)
    assert one.answers[request].value == 32


# --- what the operator hears ----------------------------------------------------------------------


def test_a_refused_ring_is_told_once_and_shown_while_it_comes_again() -> None:
    net = Net(1)
    one, two = net.add(1, 2, mode=Mode.SEED)
    one.options["seeds"], two.options["seeds"] = (one.name,), (two.name,)
    told: list[str] = []
    act = one._act
    one._act = lambda event: (  # type: ignore[method-assign]
        told.append(event.text) if isinstance(event, Notice) else act(event)
    )
    net.start()
    for node in (one, two):
        node.ask("prime")
    net.run(3 * REFUSAL_S)
    line = (
        "a peer's ring is refused: IP allocation was seeded by different peers "
        f"(received: [{two.name}(host2)], ours: [{one.name}(host1)])"
    )
    assert one.refused > 10
    assert told == [line]
    assert one.core.status().conflicts == (line,)
    two.crash()
    net.run(REFUSAL_S + 60.0)
    assert one.core.status().conflicts == ()


def test_that_nobody_has_an_address_is_told_now_and_then() -> None:
    net, (one, two) = _net(2, "10.32.0.0/29")
    told: list[float] = []
    act = one._act
    one._act = lambda event: (  # type: ignore[method-assign]
        told.append(net.now) if isinstance(event, Notice) else act(event)
    )
    for number in range(6):
        _allocate(net, (one, two)[number % 2], f"c{number}")
    one.allocate("late")
    for number in range(30):  # what two frees is soon taken again
        two.delete(min(two.promised))
        two.allocate(f"d{number}")
        net.run(4.0)
    assert 1 <= len(told) <= 1 + 120 / TOLD_S
