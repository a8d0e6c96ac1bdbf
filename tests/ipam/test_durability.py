"""Nothing is told before it is stored; what cannot be stored is undone."""

from __future__ import annotations

import pytest

from base.errors import LocalProtocolError, NotStoredError
from ipam.address import Cidr, Range, parse_address
from ipam.events import Answered
from ipam.store import Change, Holding, Identity
from tests.ipam.cluster import Cluster, alone, name_of, said


def test_answers_wait_for_the_commit() -> None:
    host = alone()
    host.allocate("z")
    host.core.allocate(1000, "a", None, 1.0)
    change = host.core.take_change()
    assert change is not None
    assert [one.ident for one in change.holdings] == ["a"]
    before = host.core.encode_state()
    assert host.core.take_events() == []
    host.core.allocate(1001, "b", None, 1.0)
    with pytest.raises(LocalProtocolError):
        host.core.take_change()
    host.core.committed()
    assert [getattr(event, "request", 0) for event in host.core.take_events()] == [1000]
    assert host.core.encode_state() != before
    host.cluster.settle()
    assert said(host.answers[1001]) == "10.32.0.3/26"


def test_a_full_disk_undoes_and_service_goes_on() -> None:
    host = alone()
    host.allocate("z")
    state = host.core._context.state
    before = (list(state.ring.entries), state.space.free_boundaries, list(state.holdings))
    host.core.allocate(1000, "a", None, 1.0)
    host.core.lookup(1001, "z", None, 1.0)
    host.core.allocate(1002, "z", None, 1.0)
    host.core.allocate(1003, "q", Cidr.parse("10.40.0.0/24"), 1.0)
    assert host.core.take_change() is not None
    host.core.delete(1004, "z", 1.0)
    host.core.rollback("disk full")
    answers = {one.request: one for one in host.core.take_events() if isinstance(one, Answered)}
    assert isinstance(answers[1000].error, NotStoredError)
    assert str(answers[1000].error) == "allocations cannot be stored: disk full"
    assert answers[1001].value == (Cidr.parse("10.32.0.1/26"),)
    assert answers[1002].value == Cidr.parse("10.32.0.1/26")
    assert "out of bounds" in said(answers[1003])
    assert isinstance(answers[1004].error, NotStoredError)
    assert (list(state.ring.entries), state.space.free_boundaries, list(state.holdings)) == before
    assert host.core.take_change() is None
    assert host.allocate("a") == "10.32.0.2/26"


def test_a_ring_that_cannot_be_stored_is_tried_again() -> None:
    cluster = Cluster(1)
    (host,) = cluster.hosts
    host.core.allocate(1000, "a", None, cluster.now)
    assert host.core.take_change() is not None
    host.core.rollback("disk full")
    (answer,) = [one for one in host.core.take_events() if isinstance(one, Answered)]
    assert isinstance(answer.error, NotStoredError)
    assert host.core.status().entries == ()
    assert host.allocate("b") == "10.32.0.1/26"


def test_restart_gives_the_same_addresses() -> None:
    host = alone()
    host.allocate("a")
    host.allocate("b", "10.32.0.16/28")
    host.claim("c", "192.168.0.1/24")
    version = host.store.load().entries[0].version
    host.restart()
    assert host.allocate("a") == "10.32.0.1/26"
    assert host.allocate("b", "10.32.0.16/28") == "10.32.0.17/28"
    assert host.allocate("d") == "10.32.0.2/26"
    assert host.store.load().entries[0].version >= version


def test_another_range_or_name_starts_afresh() -> None:
    host = alone()
    host.allocate("a")
    stored = host.store.load()
    assert stored.identity is not None
    for other in (
        Identity(name_of(9), stored.identity.universe),
        Identity(host.name, Range(0, 4096)),
    ):
        host.store.commit(Change(identity=other))
        host.restart()
        assert "starting afresh" in host.notices[-1]
        assert list(host.core.owned()) == []
        assert host.store.load().holdings == ()


def test_a_lost_database_does_not_give_away_what_is_in_use() -> None:
    cluster = Cluster(2)
    one, two = cluster.hosts
    one.allocate("a")
    two.allocate("b")
    two.store = type(two.store)()
    cluster.lose(2)
    two.restart(Holding(parse_address("10.32.0.32"), 26, "b", True))
    assert two.allocate("c") == ""
    waiting = two.last()
    cluster.lose()
    cluster.gossip()
    cluster.pass_time(10)
    assert said(two.answers[waiting]) == "10.32.0.33/26"
    assert dict(two.core.owned())["b"] == (Cidr.parse("10.32.0.32/26"),)
