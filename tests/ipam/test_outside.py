"""Addresses outside the range that two hosts use are noticed by both (#3003, #687)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from base.errors import RemoteProtocolError
from ipam.address import parse_address
from ipam.events import TellOutside
from ipam.outside import ADDRS_MAX, KEEP_S, SPACING_S, TELL_S, Listed, decode, encode
from tests.ipam.cluster import Cluster, Host, name_of

X = parse_address("10.9.0.1")


def told(host: Host, since: int = 0) -> int:
    """How often it was told to tell."""
    return sum(isinstance(event, TellOutside) for event in host.sent[since:])


def tell(cluster: Cluster, host: Host) -> None:
    """Its list to all in its sight."""
    for other in cluster.up():
        if other is not host and host in cluster.up():
            other.core.outside.on_broadcast(host.name, host.core.outside.encode(), cluster.now)
    cluster.settle()


# --- the message ---------------------------------------------------------------------------------


def test_bytes() -> None:
    data = encode(Listed(2, 3, frozenset({X, 7})))
    assert data.hex() == "01" + "0000000000000002" + "0000000000000003" + "00000007" + "0a090001"
    assert decode(data) == Listed(2, 3, frozenset({X, 7}))
    assert decode(encode(Listed(1, 1, frozenset()))) == Listed(1, 1, frozenset())
    assert decode(b"\2anything") is None


def test_a_long_list_is_cut_and_a_longer_one_refused() -> None:
    cut = decode(encode(Listed(1, 1, frozenset(range(ADDRS_MAX + 9)))))
    assert cut is not None
    assert cut.addrs == frozenset(range(ADDRS_MAX))
    with pytest.raises(RemoteProtocolError):
        decode(encode(cut) + b"\xff\xff\xff\xff")


@pytest.mark.parametrize(
    "data", [b"", b"\1", b"\1" + bytes(15), b"\1" + bytes(19), b"\1" + bytes(24)]
)
def test_damaged(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(data)


@given(st.binary(max_size=60))
def test_any_bytes(data: bytes) -> None:
    try:
        found = decode(data)
    except RemoteProtocolError:
        return
    assert found is None or encode(found) == data


# --- who says what -------------------------------------------------------------------------------


def test_who_has_none_says_nothing() -> None:
    cluster = Cluster(2)
    for host in cluster.hosts:
        host.allocate("a")
    cluster.pass_time(10 * TELL_S)
    assert [told(host) for host in cluster.hosts] == [0, 0]


def test_it_is_told_at_once_now_and_then_and_when_it_ends() -> None:
    cluster = Cluster(2)
    one = cluster.hosts[0]
    assert one.claim("a", "10.9.0.1/24") == "ok"
    assert told(one) == 1
    cluster.pass_time(5 * TELL_S)
    assert 5 <= told(one) <= 6
    before = len(one.sent)
    one.ask("delete", "a")
    assert told(one, before) == 1
    assert decode(one.core.outside.encode()) == Listed(one.uid, told(one), frozenset())
    cluster.pass_time(5 * TELL_S)
    assert told(one, before) == 1


def test_who_comes_hears_it_soon() -> None:
    cluster = Cluster(2)
    cluster.lose(2)
    one = cluster.hosts[0]
    one.claim("a", "10.9.0.1/24")
    before = len(one.sent)
    cluster.pass_time(SPACING_S)
    cluster.lose()
    cluster.pass_time(4)
    assert told(one, before) == 1
    for _ in range(5):  # it comes and goes
        cluster.lose(2)
        cluster.lose()
        cluster.pass_time(1)
    assert told(one, before) == 1
    cluster.pass_time(SPACING_S)
    assert told(one, before) == 2


def test_what_could_not_be_stored_is_not_told() -> None:
    host = Cluster(1).hosts[0]
    host.allocate("z")
    host.core.claim(500, "a", host.cluster.universe._replace(addr=X), 1.0)
    assert host.core.take_change() is not None
    host.core.rollback("disk full")
    assert not any(isinstance(event, TellOutside) for event in host.core.take_events())
    assert not host.core._context.state.outside
    assert host.claim("a", "10.9.0.1/24") == "ok"
    assert told(host)


def test_a_restart_knows_its_own() -> None:
    cluster = Cluster(2)
    one = cluster.hosts[0]
    one.claim("a", "10.9.0.1/24")
    one.sent.clear()
    one.restart()
    assert told(one) == 1


# --- doubles -------------------------------------------------------------------------------------


def test_both_are_warned_and_neither_is_refused() -> None:
    cluster = Cluster(2)
    one, two = cluster.hosts
    assert one.claim("a", "10.9.0.1/24") == "ok"
    tell(cluster, one)
    assert two.core.status().conflicts == ()
    assert two.claim("b", "10.9.0.1/24") == "ok"
    tell(cluster, two)
    lines = (
        f"10.9.0.1 of a is in use at {two.name}(host2), too",
        f"10.9.0.1 of b is in use at {one.name}(host1), too",
    )
    for host, line in zip(cluster.hosts, lines, strict=True):
        assert host.core.status().conflicts == (line,)
        tell(cluster, host)
        assert host.notices.count(line) == 1
    one.ask("delete", "a")
    tell(cluster, one)
    assert [host.core.status().conflicts for host in cluster.hosts] == [(), ()]


def test_a_host_that_is_gone_uses_nothing() -> None:
    cluster = Cluster(2)
    one, two = cluster.hosts
    one.claim("a", "10.9.0.1/24")
    tell(cluster, one)
    two.claim("b", "10.9.0.1/24")
    assert two.core.status().conflicts
    cluster.lose(1)
    assert two.core.status().conflicts == ()
    cluster.lose()
    assert two.core.status().conflicts


def test_who_is_silent_is_forgotten() -> None:
    cluster = Cluster(2)
    one, two = cluster.hosts
    one.claim("a", "10.9.0.1/24")
    tell(cluster, one)
    two.claim("b", "10.9.0.1/24")
    cluster.pass_time(KEEP_S - 2)
    assert two.core.status().conflicts
    cluster.pass_time(4)
    assert two.core.status().conflicts == ()


def test_an_older_list_is_none() -> None:
    cluster = Cluster(2)
    one, two = cluster.hosts
    two.claim("b", "10.9.0.1/24")
    heard = two.core.outside
    for run, number, addrs, conflict in (
        (7, 2, {X}, True),
        (7, 1, set(), True),  # came late
        (7, 3, set(), False),
        (8, 1, {X}, True),  # it has restarted
    ):
        data = encode(Listed(run, number, frozenset(addrs)))
        heard.on_broadcast(one.name, data, cluster.now)
        assert bool(two.core.status().conflicts) is conflict


def test_what_cannot_be_read_is_counted_and_our_own_words_ignored() -> None:
    cluster = Cluster(2)
    one = cluster.hosts[0]
    one.claim("a", "10.9.0.1/24")
    one.core.outside.on_broadcast(name_of(2), b"\1\2\3", 1.0)
    one.core.outside.on_broadcast(name_of(2), b"\7", 1.0)
    one.core.outside.on_broadcast(one.name, one.core.outside.encode(), 1.0)
    assert one.core.counters == {"unreadable lists of addresses outside the range": 1}
    assert one.core.status().conflicts == ()


@pytest.mark.parametrize("limit", ["PEERS_MAX", "ADDRS_TOTAL_MAX"])
def test_lists_are_kept_of_so_many_only(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(f"ipam.outside.{limit}", 3)
    host = Cluster(1).hosts[0]
    for number in range(10, 20):
        data = encode(Listed(1, 1, frozenset({X})))
        host.core.outside.on_broadcast(name_of(number), data, 1.0)
        host.core.outside.on_broadcast(name_of(number), data, 1.0)
    assert host.core.counters == {"lists of addresses outside the range beyond the limit": 14}
