"""Snapshots and deltas become tables; what contradicts itself is refused and changes nothing."""

from __future__ import annotations

import copy

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from base.errors import RemoteProtocolError
from base.ipc import BroadcastRoute, Connection, Delta, Peer, Snapshot, UnicastRoute
from native import lib
from native.datapath import Batch, Datapath
from router.peer_table import PeerTable
from tests.native.world import (
    BROADCAST,
    captured_batch,
    datagram,
    frame_of,
    mac_of,
    record,
    split_datagram,
)

NOW_S = 5000


def name(number: int) -> bytes:
    return b"\xce\0\0\0\0" + bytes([number])


US, P1, P2, P3 = (name(number) for number in range(4))


def peer(of: bytes) -> Peer:
    return Peer(of, f"nick{of[-1]}")


def connection(of: bytes, **changes: object) -> Connection:
    return msgspec.structs.replace(Connection(of, f"10.0.0.{of[5]}", 6783), **changes)


#: P1 and P2 are neighbours, P3 is behind P1.
SNAPSHOT = Snapshot(
    seq=7,
    name=US,
    nick="us",
    peers=tuple(map(peer, (US, P1, P2, P3))),
    connections=(connection(P1), connection(P2)),
    unicast=(UnicastRoute(P1, P1), UnicastRoute(P2, P2), UnicastRoute(P3, P1)),
    broadcast=(BroadcastRoute(US, (P1, P2)), BroadcastRoute(P3, (P2,))),
)


class Router:
    """A table and its data path."""

    def __init__(self) -> None:
        self.datapath = Datapath()
        self.table = PeerTable(self.datapath)
        self.now = 0.0

    def snapshot(self, snapshot: Snapshot = SNAPSHOT, /, **changes: object) -> set[bytes]:
        return self.table.apply_snapshot(msgspec.structs.replace(snapshot, **changes), self.now)

    def delta(self, **changes: object) -> set[bytes]:
        delta = msgspec.structs.replace(Delta(self.table.seq + 1), **changes)
        return self.table.apply_delta(delta, self.now)

    def send(self, dst: int | bytes) -> list[tuple[bytes | None, bytes]]:
        """Neighbour and destination peer of every copy of a frame to this MAC."""
        batch = captured_batch(frame_of(1, dst))
        lib.wn_lookup(self.datapath.c, batch.c, NOW_S)
        lib.wn_encap(self.datapath.c, batch.c, NOW_S)
        return [
            (self.table.neighbour_of_forwarder(message.forwarder), to)
            for message in batch.messages()
            for data in message.datagrams
            for _, to, _ in split_datagram(data)[1]
        ]

    def receive(self, sender: bytes, src: bytes, mac: int) -> bool:
        """Whether a frame in a datagram of this sender is delivered."""
        batch = Batch()
        batch.put_datagram(datagram(sender, record(src, self.table.name, frame_of(mac, 1))))
        return bool(lib.wn_decap(self.datapath.c, batch.c, NOW_S))

    def fdb(self) -> dict[bytes, bytes]:
        """MAC → peer name."""
        entries, _ = self.datapath.fdb_entries(1000)
        peers = self.table.peers_by_index()
        return {mac: peers[index].name for mac, index, _ in entries}

    def picture(self) -> object:
        """Everything that one can see of it."""
        return copy.deepcopy(
            (
                self.table.name,
                self.table.seq,
                self.table.neighbours,
                self.table.peers_by_index(),
                self.send(BROADCAST),
                self.fdb(),
                [self.datapath.forwarder_stats(i).addr for i in range(8)],
            )
        )


@pytest.fixture
def router() -> Router:
    router = Router()
    assert router.snapshot() == {P1, P2}
    return router


# ---- snapshots ----


def test_a_snapshot_is_in_force(router: Router) -> None:
    assert (router.table.name, router.table.nick, router.table.seq) == (US, "us", 7)
    assert router.send(BROADCAST) == [(P1, P1), (P2, P2)]
    assert router.receive(P1, P3, 33)
    assert router.fdb()[mac_of(33)] == P3
    assert router.send(33) == [(P1, P3)]
    stats = router.datapath.forwarder_stats(router.table.neighbours[P2].forwarder)
    assert (stats.addr, stats.port) == ("10.0.0.2", 6783)
    assert router.table.neighbours[P1].connection == connection(P1)


def test_only_neighbours_are_listened_to(router: Router) -> None:
    assert not router.receive(P3, P3, 33)
    assert not router.receive(US, P3, 33)


def test_before_the_first_snapshot_nothing_is_known() -> None:
    router = Router()
    assert router.table.seq == -1
    assert router.table.neighbours == {}
    assert router.send(BROADCAST) == []
    assert router.table.neighbour_of_forwarder(0) is None
    assert router.table.peer_of_index(0) is None


def test_we_are_known_even_if_not_listed() -> None:
    router = Router()
    router.snapshot(peers=tuple(map(peer, (P1, P2, P3))))
    assert router.send(BROADCAST) == [(P1, P1), (P2, P2)]
    assert {one.name for one in router.table.peers_by_index().values()} == {US, P1, P2, P3}


def test_a_route_to_ourselves_is_no_route() -> None:
    router = Router()
    router.snapshot(unicast=(UnicastRoute(US, P1), *SNAPSHOT.unicast))
    assert router.table.seq == 7


def test_the_same_snapshot_again_changes_nothing(router: Router) -> None:
    router.receive(P1, P3, 33)
    before = router.picture()
    assert router.snapshot() == set()
    assert router.picture() == before


def test_changed_connections_are_reported(router: Router) -> None:
    moved = connection(P2, addr="10.9.9.9")
    assert router.snapshot(seq=8, connections=(connection(P1), moved)) == {P2}
    stats = router.datapath.forwarder_stats(router.table.neighbours[P2].forwarder)
    assert stats.addr == "10.9.9.9"
    assert router.snapshot(seq=9, connections=(connection(P1), connection(P2, mtu=1400))) == {P2}


def test_a_smaller_snapshot_forgets(router: Router) -> None:
    router.receive(P1, P3, 33)
    router.receive(P2, P2, 22)
    gone = router.table.neighbours[P2].forwarder
    router.snapshot(
        seq=1,
        peers=(peer(US), peer(P1), peer(P3)),
        connections=(connection(P1),),
        unicast=(UnicastRoute(P1, P1), UnicastRoute(P3, P1)),
        broadcast=(BroadcastRoute(US, (P1,)),),
    )
    assert router.table.seq == 1
    assert mac_of(22) not in router.fdb()
    assert router.fdb()[mac_of(33)] == P3
    assert router.datapath.forwarder_stats(gone).addr == ""
    assert router.table.neighbour_of_forwarder(gone) is None
    assert not router.receive(P2, P2, 22)


# ---- deltas ----


def test_a_delta_keeps_what_it_does_not_name(router: Router) -> None:
    router.receive(P1, P3, 33)
    assert router.delta() == set()
    assert router.table.seq == 8
    assert router.send(BROADCAST) == [(P1, P1), (P2, P2)]
    assert router.send(33) == [(P1, P3)]


def test_a_new_neighbour(router: Router) -> None:
    p4 = name(4)
    changed = router.delta(
        peers=(peer(p4),),
        connections=(connection(p4),),
        unicast=(*SNAPSHOT.unicast, UnicastRoute(p4, p4)),
        broadcast=(BroadcastRoute(US, (P1, P2, p4)),),
    )
    assert changed == {p4}
    assert router.send(BROADCAST) == [(P1, P1), (P2, P2), (p4, p4)]
    assert router.receive(p4, p4, 44)


def test_a_peer_that_is_gone_and_its_index_used_again(router: Router) -> None:
    router.receive(P1, P3, 33)
    (index,) = [at for at, one in router.table.peers_by_index().items() if one.name == P3]
    router.delta(peers_gone=(P3,), unicast=SNAPSHOT.unicast[:2], broadcast=SNAPSHOT.broadcast[:1])
    assert mac_of(33) not in router.fdb()
    assert router.table.peer_of_index(index) is None
    p5 = name(5)
    router.delta(peers=(peer(p5),), unicast=(*SNAPSHOT.unicast[:2], UnicastRoute(p5, P2)))
    assert router.table.peer_of_index(index) == peer(p5), "the test needs the index to be reused"
    assert router.send(33) == [(P1, P1), (P2, P2)], "a MAC of the former peer"
    assert router.receive(P2, p5, 55)
    assert router.send(55) == [(P2, p5)]


def test_a_peer_replaced_in_one_delta_inherits_nothing(router: Router) -> None:
    router.receive(P1, P3, 33)
    p5 = name(5)
    router.delta(
        peers_gone=(P3,),
        peers=(peer(p5),),
        unicast=(*SNAPSHOT.unicast[:2], UnicastRoute(p5, P2)),
        broadcast=SNAPSHOT.broadcast[:1],
    )
    assert mac_of(33) not in router.fdb()
    assert router.send(33) == [(P1, P1), (P2, P2)]


def test_a_neighbour_that_stays_known_but_loses_its_connection(router: Router) -> None:
    router.receive(P2, P2, 22)
    router.delta(
        connections_gone=(P2,),
        unicast=tuple(UnicastRoute(dst, P1) for dst in (P1, P2, P3)),
        broadcast=(BroadcastRoute(US, (P1,)),),
    )
    assert router.send(22) == [(P1, P2)], "its containers are still there, behind P1"
    assert not router.receive(P2, P2, 22)
    assert router.table.neighbours.keys() == {P1}


def test_gone_what_was_never_there(router: Router) -> None:
    router.delta(peers_gone=(name(9),), connections_gone=(name(9),))
    assert router.table.seq == 8


def test_a_new_nick(router: Router) -> None:
    router.delta(peers=(Peer(P1, "renamed"),))
    assert {one.nick for one in router.table.peers_by_index().values()} >= {"renamed"}


# ---- contradictions ----

CONTRADICTIONS: dict[str, dict[str, object]] = {
    "short peer name": {"peers": (peer(b"short"),)},
    "long peer name": {"peers": (peer(b"1234567"),)},
    "we are gone": {"peers_gone": (US,)},
    "a neighbour is gone but not its connection": {"peers_gone": (P2,)},
    "a connection to nobody": {"connections": (connection(name(9)),)},
    "a connection to ourselves": {"connections": (connection(US),)},
    "a route to nobody": {"unicast": (UnicastRoute(name(9), P1),)},
    "a route via nobody": {"unicast": (UnicastRoute(P3, name(9)),)},
    "a route via one who is no neighbour": {"unicast": (UnicastRoute(P1, P3),)},
    "a broadcast route of nobody": {"broadcast": (BroadcastRoute(name(9), (P1,)),)},
    "a broadcast route to nobody": {"broadcast": (BroadcastRoute(US, (name(9),)),)},
    "a broadcast route to one who is no neighbour": {"broadcast": (BroadcastRoute(US, (P3,)),)},
    "a broadcast route with a neighbour twice": {"broadcast": (BroadcastRoute(US, (P1, P1)),)},
    "a connection gone but not its routes": {"connections_gone": (P1,)},
    "an address that is none": {"connections": (connection(P1, addr="host.example"),)},
    "an IPv6 address": {"connections": (connection(P1, addr="fd00::1"),)},
    "port 0": {"connections": (connection(P1, port=0),)},
    "port 65536": {"connections": (connection(P1, port=65536),)},
    "a negative port": {"connections": (connection(P1, port=-1),)},
    "an MTU below any": {"connections": (connection(P1, mtu=67),)},
    "an MTU above any": {"connections": (connection(P1, mtu=65536),)},
    "too many neighbours": {
        "peers": tuple(peer(b"\1" + n.to_bytes(5, "big")) for n in range(4100)),
        "connections": tuple(
            Connection(b"\1" + n.to_bytes(5, "big"), "10.0.0.1", 1) for n in range(4100)
        ),
    },
    "too many peers": {
        "peers": tuple(peer(b"\1" + n.to_bytes(5, "big")) for n in range(16_400)),
    },
}


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_a_contradiction_is_refused_and_the_old_state_stays(router: Router, what: str) -> None:
    router.receive(P1, P3, 33)
    router.send(BROADCAST)
    before = router.picture()
    with pytest.raises(RemoteProtocolError, match="control link: "):
        router.delta(**CONTRADICTIONS[what])
    assert router.picture() == before
    # and the next one is judged by itself
    router.delta(peers=(peer(name(6)),))
    assert router.table.seq == 8


@pytest.mark.parametrize(
    "what", [key for key, value in CONTRADICTIONS.items() if not value.keys() & {"peers_gone"}]
)
def test_a_contradictory_snapshot_is_refused_too(router: Router, what: str) -> None:
    changes = CONTRADICTIONS[what]
    if "connections_gone" in changes:
        changes = {"connections": (connection(P2),)}
    merged = {
        key: (*getattr(SNAPSHOT, key), *value)  # type: ignore[misc]
        if key == "peers"
        else value
        for key, value in changes.items()
    }
    before = router.picture()
    with pytest.raises(RemoteProtocolError, match="control link: "):
        router.snapshot(seq=99, **merged)
    assert router.picture() == before


def test_an_address_that_is_not_known_yet_is_none(router: Router) -> None:
    router.delta(connections=(connection(P1, addr=""),))
    assert router.send(BROADCAST) == [(P2, P2)]


# ---- any history ----

NAMES = st.integers(1, 6).map(name)


class Histories(RuleBasedStateMachine):
    """Peers and neighbours come and go; the data path always says what the last state says."""

    def __init__(self) -> None:
        super().__init__()
        self.router = Router()
        self.router.snapshot(Snapshot(seq=0, name=US, nick="us"))
        self.known: set[bytes] = set()
        self.near: set[bytes] = set()
        self.macs: dict[bytes, bytes] = {}
        self.next_mac = 100

    def apply(self, known: set[bytes], near: set[bytes]) -> None:
        self.router.delta(
            peers=tuple(map(peer, sorted(known - self.known))),
            peers_gone=tuple(sorted(self.known - known)),
            connections=tuple(map(connection, sorted(near))),
            connections_gone=tuple(sorted(self.near - near)),
            unicast=tuple(UnicastRoute(one, one) for one in sorted(near)),
            broadcast=(BroadcastRoute(US, tuple(sorted(near))),),
        )
        self.known, self.near = known, near
        self.macs = {mac: owner for mac, owner in self.macs.items() if owner in known}

    @rule(of=NAMES, neighbour=st.booleans())
    def come(self, of: bytes, neighbour: bool) -> None:
        self.apply(self.known | {of}, self.near | {of} if neighbour else self.near - {of})

    @rule(of=NAMES)
    def go(self, of: bytes) -> None:
        self.apply(self.known - {of}, self.near - {of})

    @rule(of=NAMES, other=NAMES)
    def swap(self, of: bytes, other: bytes) -> None:
        self.apply((self.known - {of}) | {other}, (self.near - {of}) | {other})

    @rule()
    def start_over(self) -> None:
        self.router.snapshot(
            Snapshot(
                seq=3,
                name=US,
                nick="us",
                peers=tuple(map(peer, sorted(self.known))),
                connections=tuple(map(connection, sorted(self.near))),
                unicast=tuple(UnicastRoute(one, one) for one in sorted(self.near)),
                broadcast=(BroadcastRoute(US, tuple(sorted(self.near))),),
            )
        )

    @rule(sender=NAMES, src=NAMES)
    def hear(self, sender: bytes, src: bytes) -> None:
        self.next_mac += 1
        expected = sender in self.near and src in self.known
        assert self.router.receive(sender, src, self.next_mac) == expected
        if expected:
            self.macs[mac_of(self.next_mac)] = src

    @invariant()
    def flooding_reaches_the_neighbours(self) -> None:
        assert sorted(self.router.send(BROADCAST)) == [(one, one) for one in sorted(self.near)]

    @invariant()
    def macs_live_where_they_were_heard(self) -> None:
        fdb = self.router.fdb()
        fdb.pop(mac_of(1), None)
        assert fdb == self.macs


Histories.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestHistories = Histories.TestCase
