"""Targets: when they are valid, due, suspended, forgotten; the user's text; back-off."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from base.errors import ConfigError
from base.names import PeerName
from mesh.maker import (
    ATTEMPTS_MAX,
    DISCOVERED_MAX,
    INTERVAL_MAX_S,
    INTERVAL_UNREACHED_S,
    Attempt,
    ConnectionMaker,
    DirectPeer,
    OwnConnection,
    TargetState,
    join_addr,
    parse_peer_text,
    split_addr,
)
from mesh.peer import ConnectionRecord, Peer
from mesh.timers import RateLimits, Timers

US, TWO, THREE = (PeerName.from_int(number) for number in (1, 2, 3))
ADDR = "192.0.2.2:6783"


def _maker(discovery: bool = True) -> ConnectionMaker:
    return ConnectionMaker(US, port=6783, discovery=discovery, rng=random.Random(1))


def _told(outbound: bool, addr: str) -> Peer:
    """Peer 2, which says that it is connected to peer 3."""
    peer = Peer(TWO)
    peer.set_connections({THREE: ConnectionRecord(THREE, addr, outbound, True)})
    return peer


def test_direct_peer_without_port_uses_ours() -> None:
    maker = _maker()
    maker.add([DirectPeer("two", "192.0.2.2")], replace=False, now=0)
    assert maker.evaluate([], [], 0) == ([Attempt(ADDR, True)], None)
    assert maker.evaluate([], [], 0) == ([], None)  # one attempt at a time
    maker.attempt_failed(ADDR, "refused", 0)
    attempts, due = maker.evaluate([], [], 0)
    assert attempts == []
    assert due is not None
    assert 1 <= due <= 3


def test_direct_peer_that_called_us_is_suspended_unless_its_port_was_given() -> None:
    calling = [OwnConnection(TWO, "192.0.2.2:40000", False)]
    maker = _maker()
    maker.add([DirectPeer("two", "192.0.2.2")], replace=False, now=0)
    maker.evaluate([], [], 0)
    maker.attempt_failed(ADDR, "x", 0)
    assert maker.evaluate(calling, [], 10) == ([], None)
    assert maker.targets[ADDR].state is TargetState.SUSPENDED
    assert maker.evaluate([], [], 20)[0] == [Attempt(ADDR, True)]
    other = _maker()
    other.add([DirectPeer("two:6783", "192.0.2.2", 6783)], replace=False, now=0)
    assert other.evaluate(calling, [], 0)[0] == [Attempt(ADDR, True)]


def test_an_address_we_are_connected_at_is_no_target() -> None:
    maker = _maker()
    maker.add([DirectPeer("two", "192.0.2.2")], replace=False, now=0)
    assert maker.evaluate([OwnConnection(TWO, ADDR, True)], [], 0)[0] == []


@pytest.mark.parametrize(
    ("outbound", "told", "dialled"),
    [
        (True, "192.0.2.3:7000", "192.0.2.3:7000"),
        (False, "192.0.2.3:40000", "192.0.2.3:6783"),
        (False, "[2001:db8::3]:40000", "[2001:db8::3]:6783"),
    ],
)
def test_discovery(outbound: bool, told: str, dialled: str) -> None:
    own = [OwnConnection(TWO, ADDR, True)]
    assert _maker().evaluate(own, [_told(outbound, told)], 0)[0] == [Attempt(dialled, False)]
    assert _maker(discovery=False).evaluate(own, [_told(outbound, told)], 0)[0] == []
    near = [*own, OwnConnection(THREE, "192.0.2.3:40001", False)]
    assert _maker().evaluate(near, [_told(outbound, told)], 0)[0] == []


@pytest.mark.parametrize(
    "addr", ["", "host:1", "192.0.2.3", "192.0.2.3:0", "1.2.3.4:99999", "::1:2"]
)
def test_nonsense_addresses_are_not_dialled(addr: str) -> None:
    assert _maker().evaluate([], [_told(True, addr)], 0)[0] == []


def test_discovered_targets_are_forgotten_when_nobody_tells_of_them() -> None:
    maker = _maker()
    maker.evaluate([], [_told(True, "192.0.2.3:6783")], 0)
    maker.attempt_failed("192.0.2.3:6783", "x", 0)
    maker.evaluate([], [], 1)
    assert maker.targets == {}


def test_lies_of_others_cost_a_bounded_number_of_dials() -> None:
    peer = Peer(TWO)
    liars = [
        ConnectionRecord(
            PeerName.from_int(n), f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}:1", True, True
        )
        for n in range(100, 100 + DISCOVERED_MAX + 500)
    ]
    peer.set_connections({record.remote: record for record in liars})
    maker = _maker()
    maker.add([DirectPeer("two", "192.0.2.2")], replace=False, now=0)
    attempts, due = maker.evaluate([], [peer], 0)
    assert len(maker.targets) <= DISCOVERED_MAX + 1
    assert ATTEMPTS_MAX <= len(attempts) <= ATTEMPTS_MAX + 1
    assert Attempt(ADDR, True) in attempts
    assert due == 1
    maker.attempt_failed(attempts[0].addr, "x", 1)
    assert len(maker.evaluate([], [peer], 1)[0]) <= 1


@pytest.mark.parametrize(
    ("answered", "most_s"), [(True, INTERVAL_MAX_S), (False, INTERVAL_UNREACHED_S)]
)
def test_interval_grows_to_its_maximum_and_starts_again(answered: bool, most_s: float) -> None:
    maker = _maker()
    peer = DirectPeer("two", "192.0.2.2")
    maker.add([peer], replace=False, now=0)
    now, waits = 0.0, []
    for _ in range(20):
        assert maker.evaluate([], [], now)[0]
        if answered:
            maker.ended(ADDR, "other password?", now)
        else:
            maker.attempt_failed(ADDR, "timed out", now)
        due = maker.targets[ADDR].try_after
        assert due is not None
        waits.append(due - now)
        now = due
    for index, wait in enumerate(waits):
        interval = min(2 * 1.5**index, most_s)
        assert interval / 2 <= wait <= interval * 1.5
    maker.add([peer], replace=False, now=now)
    assert maker.targets[ADDR].interval_s == 2
    assert maker.targets[ADDR].try_after == now


def test_a_connection_that_held_is_tried_again_at_once() -> None:
    maker = _maker()
    maker.add([DirectPeer("two", "192.0.2.2")], replace=False, now=0)
    for held_s, at_once in ((10, False), (100, True)):
        maker.targets.clear()
        maker.evaluate([], [], 0)
        maker.connected(ADDR)
        assert maker.targets[ADDR].state is TargetState.CONNECTED
        maker.ended(ADDR, "gone", held_s)
        assert bool(maker.evaluate([], [], held_s)[0]) == at_once
        assert maker.targets[ADDR].last_error == "gone"


def test_never_again_until_the_user_says_so() -> None:
    maker = _maker()
    peer = DirectPeer("two", "192.0.2.2")
    maker.add([peer], replace=False, now=0)
    maker.evaluate([], [], 0)
    maker.ended(ADDR, "collision", 1, never_again=True)
    assert maker.evaluate([], [], 10_000) == ([], None)
    maker.add([peer], replace=False, now=10_000)
    assert maker.evaluate([], [], 10_000)[0] == [Attempt(ADDR, True)]


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("host", ("host", None)),
        ("host:6783", ("host", 6783)),
        ("192.0.2.1:1", ("192.0.2.1", 1)),
        ("2001:db8::1", ("2001:db8::1", None)),
        ("[2001:db8::1]", ("2001:db8::1", None)),
        ("[2001:db8::1]:5", ("2001:db8::1", 5)),
    ],
)
def test_peer_texts(text: str, parsed: tuple[str, int | None]) -> None:
    assert parse_peer_text(text) == parsed


@pytest.mark.parametrize(
    "text", ["", ":", ":6783", "host:", "host:x", "host:0", "host:65536", "[]"]
)
def test_bad_peer_texts(text: str) -> None:
    with pytest.raises(ConfigError, match="peer"):
        parse_peer_text(text)


@given(st.ip_addresses(), st.integers(0, 65535))
def test_addresses_survive(ip: object, port: int) -> None:
    assert split_addr(join_addr(str(ip), port)) == (str(ip), port)


def test_timers_replace_cancel_and_come_in_order() -> None:
    timers: Timers[str] = Timers()
    assert timers.next_deadline() is None
    timers.set("a", 5)
    timers.set("b", 3)
    timers.set("a", 2)
    timers.set("c", 1)
    timers.cancel("c")
    assert timers.next_deadline() == 2
    assert list(timers.due(2.5)) == ["a"]
    assert list(timers.due(10)) == ["b"]
    assert timers.next_deadline() is None
    assert "a" not in timers


def test_a_deadline_that_is_put_off_keeps_its_early_entry() -> None:
    timers: Timers[int] = Timers()
    for when in range(10, 1000):
        timers.set_by(1, when)
    assert timers.next_deadline() == 10
    timers.set_by(1, 5)
    assert list(timers.due(7)) == [1]
    timers.set_by(1, 20)
    assert timers.next_deadline() == 20


def test_each_source_has_a_burst_and_then_a_rate() -> None:
    limits = RateLimits(20, 0.05, 100)
    assert all(limits.allow("a", 100.0) for _ in range(20))
    assert not limits.allow("a", 100.0)
    assert limits.allow("b", 100.0)
    assert limits.allow("a", 100.06)
    assert not limits.allow("a", 100.06)
    assert sum(limits.allow("a", 200.0) for _ in range(50)) == 20


def test_limits_remember_a_bounded_number_of_sources() -> None:
    limits = RateLimits(1, 1000.0, 10)
    assert limits.allow("first", 0.0)
    assert not limits.allow("first", 0.0)
    assert all(limits.allow(str(number), 0.0) for number in range(10))
    assert limits.allow("first", 0.0)
    assert not limits.allow("9", 0.0)
