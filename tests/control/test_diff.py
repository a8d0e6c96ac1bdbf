"""A delta applied to the old state gives the new one, and nothing else is in it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from base.ipc import BroadcastRoute, Connection, Delta, Peer, Snapshot, UnicastRoute
from control.diff import diff

_NAMES = st.sampled_from([bytes([0, 0, 0, 0, 0, n]) for n in range(1, 6)])
_PEERS = st.dictionaries(_NAMES, st.sampled_from(["a", "b"])).map(
    lambda peers: tuple(Peer(name, nick) for name, nick in sorted(peers.items()))
)
_CONNECTIONS = st.dictionaries(_NAMES, st.sampled_from([1, 2])).map(
    lambda ports: tuple(Connection(name, "10.0.0.1", port) for name, port in sorted(ports.items()))
)
_UNICAST = st.dictionaries(_NAMES, _NAMES).map(
    lambda routes: tuple(UnicastRoute(*route) for route in sorted(routes.items()))
)
_BROADCAST = st.dictionaries(_NAMES, st.tuples(_NAMES)).map(
    lambda routes: tuple(BroadcastRoute(*route) for route in sorted(routes.items()))
)
_STATES = st.builds(
    Snapshot,
    seq=st.just(5),
    name=st.just(b"oneof6"),
    nick=st.just("us"),
    peers=_PEERS,
    connections=_CONNECTIONS,
    unicast=_UNICAST,
    broadcast=_BROADCAST,
)


def _apply(old: Snapshot, delta: Delta) -> Snapshot:
    """What base.ipc says a delta means."""
    peers = {peer.name: peer for peer in old.peers} | {peer.name: peer for peer in delta.peers}
    connections = {each.peer: each for each in old.connections}
    connections |= {each.peer: each for each in delta.connections}
    for name in delta.peers_gone:
        del peers[name]
    for name in delta.connections_gone:
        del connections[name]
    return msgspec.structs.replace(
        old,
        seq=delta.seq,
        peers=tuple(peers[name] for name in sorted(peers)),
        connections=tuple(connections[name] for name in sorted(connections)),
        unicast=old.unicast if delta.unicast is None else delta.unicast,
        broadcast=old.broadcast if delta.broadcast is None else delta.broadcast,
    )


@given(_STATES, _STATES)
def test_old_plus_delta_is_new(old: Snapshot, new: Snapshot) -> None:
    delta = diff(old, new)
    if delta is None:
        assert old == new
        return
    assert delta.seq == 6
    assert _apply(old, delta) == msgspec.structs.replace(new, seq=6)
    assert not set(delta.peers) & set(old.peers), "unchanged peers travel for nothing"
    assert not set(delta.connections) & set(old.connections)


@given(_STATES)
def test_equal_states_need_no_delta(state: Snapshot) -> None:
    assert diff(state, msgspec.structs.replace(state, seq=99)) is None


def test_identity_cannot_change() -> None:
    state = Snapshot(1, b"oneof6", "us")
    for other in (Snapshot(1, b"2ndof6", "us"), Snapshot(1, b"oneof6", "them")):
        with pytest.raises(ValueError, match="who the router is"):
            diff(state, other)
