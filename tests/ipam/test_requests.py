"""What users ask for: addresses, claims, containers that end; facts of Weave's own tests."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from ipam import wire
from ipam.address import Cidr, Range, parse_address
from ipam.events import SendUnicast
from ipam.options import Mode
from ipam.status import State
from ipam.store import Entry
from tests.ipam.cluster import CANCELLED, Cluster, alone, gossip, name_of, said

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


def test_who_asked_twice_is_answered_twice_though_others_wait() -> None:
    """The caller gave up, say, and asked again: the address is there, whoever stands before."""
    host = alone("10.32.0.0/29")
    for number in range(6):
        assert host.allocate(f"c{number}") != ""
    asked = []
    for ident in ("first", "second", "first"):
        assert host.allocate(ident) == ""
        asked.append(host.last())
    host.ask("delete", "c3")
    assert [said(host.answers.get(one)) for one in asked] == ["10.32.0.4/29", "", "10.32.0.4/29"]


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


def test_an_address_claimed_on_two_hosts_before_they_met() -> None:
    """Whoever owns it keeps it; the other is told, and both refuse anybody else."""
    cluster = Cluster(2)
    one, two = cluster.hosts
    cluster.lose(2)
    for host in cluster.hosts:
        assert host.claim(f"c{host.number}", "10.32.0.5/26", no_error_on_unknown=True) == "ok"
    cluster.lose()
    cluster.pass_time(30)
    assert not one.core._context.state.strays
    assert two.core.status().conflicts == (f"10.32.0.5 of c2 is in use at {one.name} too",)
    for host in cluster.hosts:
        assert host.claim("other", "10.32.0.5/26").startswith("ClaimConflictError")
    two.ask("delete", "c2")
    cluster.pass_time(10)
    assert two.core.status().conflicts == ()
    assert dict(one.core.owned()) == {"c1": (Cidr.parse("10.32.0.5/26"),)}


def test_an_owner_of_whom_only_the_name_is_known_is_told_by_it() -> None:
    host = alone()
    gossip(host, [Entry(0x0A200000, 9, 0, 64)])
    assert host.claim("a", "10.32.0.7/26") == ""
    request = host.last()
    host.cluster.pass_time(60)
    text = "address 10.32.0.7/26 is owned by other peer 00:00:00:00:00:09 - it cannot be reached"
    assert said(host.answers[request]) == f"ClaimConflictError: {text}"


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


def test_a_claim_outlasts_whatever_happens_here_while_its_owner_is_away() -> None:
    cluster = Cluster(2)
    one = cluster.hosts[0]
    one.allocate("a")
    cluster.lose(2)
    assert one.claim("c", "10.32.0.50/26") == ""
    waiting = one.last()
    for _ in range(10):
        one.allocate("b")
        assert said(one.ask("delete", "b")) == "ok"
    assert waiting not in one.answers
    cluster.lose()
    assert said(one.answers[waiting]) == "ok"


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


def test_the_last_of_several_deaths_counts() -> None:
    """It was restarting, and nobody told that it had started."""
    host = alone()
    host.allocate("a", is_container=True)
    for _ in range(2):
        host.core.container_died("a", host.cluster.now)
        host.cluster.pass_time(20)
    assert len(list(host.core.owned())) == 1
    host.cluster.pass_time(15)
    assert not list(host.core.owned())


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


def test_cancelling_while_the_donor_is_silent() -> None:
    cluster = Cluster(2, "10.32.0.0/28")
    one, two = cluster.hosts
    for number in range(7):
        one.allocate(f"c{number}")
    cluster.hosts, cluster.cut = [one], {2}  # it hears nothing, and nobody says so
    assert one.allocate("late") == ""
    late = one.last()
    assert isinstance(one.sent[-1], SendUnicast)
    one.core.cancel(late, cluster.now)
    cluster.settle()
    assert said(one.answers[late]).startswith(CANCELLED)
    assert one.core.status().pending_allocates == ()
    cluster.hosts, cluster.cut = [one, two], set()
    cluster.topology()
    cluster.pass_time(20)
    assert "late" not in dict(one.core.owned())


def test_a_deadline_says_what_was_waited_for() -> None:
    cluster = Cluster(2, "10.32.0.0/29")
    one = cluster.hosts[0]
    for number in range(6):
        one.allocate(f"c{number}")
    assert one.allocate("late", deadline=cluster.now + 3) == ""
    late = one.last()
    cluster.pass_time(4)
    assert said(one.answers[late]) == (
        "NoAddressError: gave up waiting for a free address in 10.32.0.0/29"
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 30))
def test_edges_are_never_handed_out(seed: int) -> None:
    """Property 14, with subnets inside each other and addresses that rest."""
    rng = random.Random(seed)
    host = alone("10.32.0.0/24", reuse_delay_s=rng.choice([0.0, 60.0]))
    for step in range(60):
        prefix_len = rng.randrange(24, 31)
        size = 1 << (32 - prefix_len)
        low = 0x0A200000 + size * rng.randrange(256 // size)
        found = host.allocate(f"c{step}", str(Cidr(low, prefix_len)))
        if found:
            addr = parse_address(found.partition("/")[0])
            assert low < addr < low + size - 1
        if rng.random() < 0.5:
            host.ask("delete", f"c{rng.randrange(step + 1)}")


def test_prune() -> None:
    host = alone()
    for ident, container in (("a", True), ("b", True), ("weave:expose", False)):
        host.allocate(ident, is_container=container)
    host.core.prune({"b"}, 1.0)
    host.cluster.settle()
    assert [ident for ident, _ in host.core.owned()] == ["b", "weave:expose"]


def test_status_where_every_owner_is_out_of_reach() -> None:
    cluster = Cluster(3, mode=Mode.SEED, seeds=(name_of(1), name_of(2)))
    third = cluster.hosts[2]
    cluster.hosts[0].allocate("a")
    third.ask("prime")
    assert third.core.status().text == "ready"
    cluster.lose(1, 2)
    assert third.core.status().text == (
        "all IP ranges owned by unreachable peers - use 'rmpeer' if they are dead"
    )
    assert third.core.status().unreachable_count == 2


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
