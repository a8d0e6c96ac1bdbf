"""The allocator: what users see, what other peers see, and facts of Weave's own tests."""

from __future__ import annotations

import random

import pytest

from base.errors import LocalProtocolError, NotStoredError, RemoteProtocolError
from ipam import wire
from ipam.address import Cidr, Range, parse_address
from ipam.events import Answered
from ipam.options import KnownPeer, Mode
from ipam.status import State
from ipam.store import Change, Entry, Holding, Identity
from ipam.wire import GossipState, RingState
from tests.ipam.cluster import Cluster, Host, name_of, said

CANCELLED = "RequestCancelledError"


def alone(universe: str = "10.32.0.0/26", **options: object) -> Host:
    return Cluster(1, universe, **options).hosts[0]


# --- allocate, lookup, free ----------------------------------------------------------------------


def test_two_subnets_and_reuse() -> None:
    host = alone("10.32.0.0/26")
    one, two = "10.32.0.0/28", "10.32.0.32/28"
    assert host.allocate("a", one) == "10.32.0.1/28"
    assert host.allocate("a", two) == "10.32.0.33/28"
    assert host.allocate("a", one) == "10.32.0.1/28"
    assert host.allocate("b", one) == "10.32.0.2/28"
    assert said(host.ask("delete", "a")) == "ok"
    assert host.allocate("c", one) == "10.32.0.1/28"
    assert said(host.ask("lookup", "a", None)) == "()"


def test_edges_of_the_asked_subnet_only() -> None:
    host = alone("10.0.0.0/8")
    assert host.allocate("a", "10.0.3.8/29") == "10.0.3.9/29"
    assert host.allocate("a", "10.2.0.0/16") == "10.2.0.1/16"
    found = host.ask("lookup", "a", None)
    assert found is not None
    assert found.value == (Cidr.parse("10.0.3.9/29"), Cidr.parse("10.2.0.1/16"))


def test_a_full_subnet_waits_for_an_address() -> None:
    host = alone()
    assert [host.allocate(c, "10.32.0.0/30") for c in "ab"] == ["10.32.0.1/30", "10.32.0.2/30"]
    assert host.allocate("c", "10.32.0.0/30") == ""
    waiting = host.last()
    assert host.core.status().state is State.WAITING
    assert said(host.ask("free", "a", parse_address("10.32.0.1"))) == "ok"
    assert said(host.answers[waiting]) == "10.32.0.1/30"


def test_anonymous_ones() -> None:
    host = alone()
    assert host.allocate("_") == "10.32.0.1/26"
    assert host.allocate("_") == "10.32.0.2/26"
    assert dict(host.core.owned())["10.32.0.2"] == (Cidr.parse("10.32.0.2/26"),)
    assert said(host.ask("delete", "10.32.0.1")) == "ok"


def test_texts_of_errors() -> None:
    host = alone("10.32.0.0/16")
    assert host.allocate("a", "10.40.0.0/24") == (
        "OutOfBoundsError: range 10.40.0.0/24 out of bounds: 10.32.0.0/16"
    )
    addr = parse_address("10.32.7.0")
    assert said(host.ask("free", "abc", addr)) == (
        "NotHeldError: Free: address 10.32.7.0 not found for abc"
    )
    assert said(host.ask("delete", "none")) == "NotHeldError: Delete: no addresses for none"
    assert host.allocate("x" * 70_000).startswith("AllocationError")


def test_a_freed_address_rests() -> None:
    cluster = Cluster(1, "10.32.0.0/29", reuse_delay_s=60.0)
    (host,) = cluster.hosts
    assert host.allocate("a") == "10.32.0.1/29"
    host.ask("delete", "a")
    assert host.allocate("b") == "10.32.0.2/29"
    cluster.pass_time(61)
    assert host.allocate("c") == "10.32.0.1/29"


def test_a_deadline() -> None:
    cluster = Cluster(2)
    cluster.lose(2)
    host = cluster.hosts[0]
    assert host.allocate("a", deadline=cluster.now + 3) == ""
    waiting = host.last()
    cluster.pass_time(4)
    assert said(host.answers[waiting]) == (
        "NoAddressError: gave up waiting for the first division of the range"
    )
    assert host.core.status().pending_allocates == ()


# --- the first division --------------------------------------------------------------------------


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


def test_an_empty_map_of_claims_is_gossip() -> None:
    cluster = Cluster(2)
    assert wire.decode_state(cluster.hosts[0].core.encode_state()).paxos == {}


def test_invented_voters_do_not_count() -> None:
    cluster = Cluster(3, expected=3)
    cluster.lose(2, 3)
    host = cluster.hosts[0]
    host.allocate("a")
    claims = wire.decode_state(host.core.encode_state()).paxos
    assert claims is not None
    ((node, mine),) = claims.items()
    fake = {node._replace(name=node.name + n, uid=n): mine for n in range(1, 9)}
    host.core.on_gossip(wire.encode_state(GossipState(1, {}, fake)), 1.0)
    host.cluster.settle()
    assert host.core.status().state is State.ELECTING


# --- claims --------------------------------------------------------------------------------------


def test_claims_here() -> None:
    host = alone("10.32.0.0/16")
    assert host.claim("claimer", "10.32.0.77/16") == "ok"
    assert host.claim("claimer", "10.32.0.77/16") == "ok"
    assert host.claim("_", "10.32.0.77/16") == "ok"
    assert host.claim("other", "10.32.0.77/16") == (
        "ClaimConflictError: address 10.32.0.77/16 is already owned by claimer"
    )
    assert host.claim("_", "10.32.0.78/16") == "ok"
    assert "already in use" in host.claim("x", "10.32.0.78/16")
    assert host.claim("other", "10.32.0.0/16") == "ok"


def test_claims_outside() -> None:
    host = alone("10.32.0.0/16")
    assert host.claim("other", "192.168.9.9/24") == "ok"
    assert host.claim("other", "192.168.9.9/24") == "ok"
    assert "already in use" in host.claim("x", "192.168.9.9/24")
    assert host.claim("_", "192.168.9.9/24") == "ok"
    assert host.claim("_", "192.168.9.10/24") == "ok"
    assert host.allocate("_") == "10.32.0.1/16"
    # that of a container that is dead may be moved
    assert host.claim("gone", "192.168.9.11/24", is_container=True) == "ok"
    host.core.container_died("gone", 1.0)
    assert host.claim("x", "192.168.9.11/24") == "ok"


def test_a_claim_before_there_is_a_ring() -> None:
    cluster = Cluster(2)
    cluster.lose(2)
    host = cluster.hosts[0]
    assert host.claim("a", "10.32.0.5/26") == ""
    assert host.claim("b", "10.32.0.40/26", no_error_on_unknown=True) == "ok"
    assert host.allocate("b") == "10.32.0.40/26"
    cluster.lose()
    cluster.pass_time(20)
    assert dict(host.core.owned())["a"] == (Cidr.parse("10.32.0.5/26"),)
    # it was the other peer's, and has been asked from it
    ring = host.core._context.state.ring
    assert ring.owner(parse_address("10.32.0.40")) == int(host.name)
    assert not host.core._context.state.strays


def test_claims_elsewhere() -> None:
    cluster = Cluster(2)
    one, two = cluster.hosts
    one.allocate("a")
    assert two.allocate("b") == "10.32.0.32/26"
    assert one.claim("a", "10.32.0.40/26") == "ok"
    failed = one.claim("a", "10.32.0.32/26")
    assert failed.startswith("ClaimConflictError: address 10.32.0.32/26 is owned by other peer ce:")
    assert two.claim("b", "10.32.0.40/26").startswith("ClaimConflictError")
    cluster.lose(2)
    assert one.claim("c", "10.32.0.50/26") == ""
    waiting = one.last()
    cluster.pass_time(60)
    assert "cannot be reached" in said(one.answers[waiting])


def test_a_refusal_for_a_subnet_fails_no_claim() -> None:
    cluster = Cluster(3)
    one, two, _ = cluster.hosts
    one.allocate("a")
    cluster.lose(2, 3)
    assert one.claim("x", "10.32.0.40/26") == ""
    for where in (Range(0x0A200000, 0x0A200040), Range(0x0A200028, 0x0A200029)):
        one.core.on_unicast(name_of(3), wire.encode_denial(where), cluster.now)
    assert one.core.status().pending_claims == (("x", Cidr.parse("10.32.0.40/26")),)
    assert two is not one


# --- space between peers -------------------------------------------------------------------------


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


def test_greed_is_bounded() -> None:
    host = alone("10.32.0.0/12")
    host.allocate("a")
    request = wire.encode_space_request(Range(*host.cluster.universe.range))
    for _ in range(500):
        host.core.on_unicast(name_of(9), request, 1.0)
    assert host.core.counters["space requests beyond the rate"] > 400


def test_what_nobody_should_send_is_counted() -> None:
    host = alone()
    before = host.core.encode_state()
    host.core.on_unicast(name_of(2), b"", 1.0)
    host.core.on_unicast(name_of(2), b"\x07abc", 1.0)
    assert host.core.counters == {"empty unicasts": 1, "unicasts of unknown kind": 1}
    with pytest.raises(RemoteProtocolError):
        host.core.on_unicast(name_of(2), b"\0", 1.0)
    assert host.core.encode_state() == before


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
    cluster = Cluster(3)
    one = cluster.hosts[0]
    one.allocate("a")
    cluster.lose(2, 3)
    nicks = {int(name_of(2)): "host9", int(name_of(3)): "host9"}
    one.core.on_gossip(wire.encode_state(GossipState(1, nicks, {})), 1.0)
    assert "several peers" in said(one.ask("take_over", "host9"))


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


def test_shutdown_leaves_everything_to_an_heir() -> None:
    cluster = Cluster(2)
    one, two = cluster.hosts
    one.allocate("a")
    assert said(one.ask("shutdown")) == "ok"
    assert two.core._context.state.space.free_in(cluster.universe.range) == 64
    assert one.allocate("b").startswith(CANCELLED)
    assert said(one.ask("prime")) == "ok"
    assert one.core.status().state is State.STOPPED


def test_shutdown_without_an_heir_is_silent() -> None:
    host = alone()
    host.allocate("a")
    host.sent.clear()
    host.ask("shutdown")
    assert host.sent == []
    assert host.allocate("b").startswith(CANCELLED)


# --- containers, cancelling ----------------------------------------------------------------------


def test_death_and_resurrection() -> None:
    cluster = Cluster(1)
    (host,) = cluster.hosts
    assert host.allocate("a", is_container=True) == "10.32.0.1/26"
    host.core.container_died("a", cluster.now)
    assert host.allocate("a", is_container=True) == "10.32.0.1/26"
    cluster.pass_time(60)
    assert host.core.status().active_ips == 1
    host.core.container_died("a", cluster.now)
    host.core.container_started("a", cluster.now)
    cluster.pass_time(60)
    assert host.core.status().active_ips == 1
    host.core.container_died("a", cluster.now)
    cluster.pass_time(60)
    assert host.core._context.state.space.free_in(cluster.universe.range) == 64
    assert host.allocate("b", is_container=True) != ""
    host.core.container_destroyed("b", cluster.now)
    assert host.core.status().active_ips == 0


def test_death_cancels_all_that_waits() -> None:
    cluster = Cluster(2)
    cluster.lose(2)
    host = cluster.hosts[0]
    host.allocate("a", "10.32.0.0/28")
    host.allocate("a", "10.32.0.16/28")
    host.claim("a", "10.32.0.9/28")
    host.core.container_died("a", cluster.now)
    cluster.settle()
    assert [said(one).partition(":")[0] for one in host.answers.values()] == [CANCELLED] * 3


def test_a_cancelled_request_leaves_no_record() -> None:
    host = alone()
    host.core.allocate(77, "a", None, 1.0)
    host.core.cancel(77, 1.0)
    host.cluster.settle()
    assert said(host.answers[77]).startswith(CANCELLED)
    assert list(host.core.owned()) == []
    host.core.cancel(77, 1.0)
    host.core.cancel(78, 1.0)


def test_prune() -> None:
    host = alone()
    for ident, container in (("a", True), ("b", True), ("weave:expose", False)):
        host.allocate(ident, is_container=container)
    host.core.prune({"b"}, 1.0)
    host.cluster.settle()
    assert [ident for ident, _ in host.core.owned()] == ["b", "weave:expose"]


# --- durability ----------------------------------------------------------------------------------


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
    assert two.allocate("b") != ""


def gossip(host: Host, entries: list[Entry], seeds: tuple[int, ...] = ()) -> None:
    ring = RingState(host.cluster.universe.range, int(name_of(2)), tuple(entries), seeds)
    host.core.on_gossip(wire.encode_state(GossipState(1, {}, None, ring)), 1.0)
    host.cluster.settle()


@pytest.mark.parametrize("version", [1 << 31, (1 << 32) - 1, (1 << 20) + 500])
def test_hostile_versions_are_refused(version: int) -> None:
    host = alone()
    host.allocate("a")
    us = int(host.name)
    with pytest.raises(RemoteProtocolError, match="version"):
        gossip(host, [Entry(0x0A200000, us, version, 3)])


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
    with pytest.raises(RemoteProtocolError, match="seeded by different peers"):
        one.core.on_gossip(data, 1.0)
    other = RingState(Range(0x0A200000, 0x0A200080), 2, (Entry(0x0A200000, 2, 0, 64),), ())
    data = wire.encode_state(GossipState(1, {}, None, other))
    with pytest.raises(RemoteProtocolError, match="Incompatible IP allocation ranges"):
        one.core.on_gossip(data, 1.0)
    assert one.allocate("a") == "10.32.0.1/26"


def test_status_records() -> None:
    cluster = Cluster(2)
    one = cluster.hosts[1]
    one.allocate("a")
    status = one.core.status()
    assert status.text == "ready"
    assert [share.is_ourself for share in status.shares] == [True, False]
    assert (status.range_num_ips, status.active_ips) == (64, 1)
    assert status.default_subnet == status.range == cluster.universe
    cluster.lose(1)
    assert one.core.status().unreachable_percentage == 50.0


def test_many_random_requests_never_double() -> None:
    rng = random.Random(5)
    cluster = Cluster(5, "10.32.0.0/22")
    held: dict[str, str] = {}
    for step in range(400):
        host = rng.choice(cluster.hosts)
        mine = [ident for ident in held if ident.startswith(f"{host.number}.")]
        if mine and rng.random() < 0.4:
            ident = rng.choice(mine)
            if rng.random() < 0.5:
                assert host.allocate(ident) == held[ident]
            else:
                host.ask("delete", ident)
                del held[ident]
        else:
            ident = f"{host.number}.{step}"
            held[ident] = host.allocate(ident)
            assert held[ident]
    assert len(set(held.values())) == len(held)
