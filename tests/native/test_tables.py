"""Peers, routes, forwarders and counters: what is accepted, and what a swap does to the FDB."""

from __future__ import annotations

import pytest

from native import lib
from native.datapath import Datapath, Tables
from tests.native.world import (
    World,
    datagram,
    forwarder_of,
    frame_of,
    mac_of,
    name_of,
    record,
)

pytestmark = pytest.mark.native


@pytest.mark.parametrize(
    ("peers", "ourself"), [(0, 0), (lib.WN_PEERS_MAX + 1, 0), (3, 3), (1, 0xFFFF)]
)
def test_tables_of_impossible_shape_are_refused(peers: int, ourself: int) -> None:
    with pytest.raises(ValueError, match="no tables"):
        Tables(peers, ourself, 0)


def test_an_index_has_one_name_and_a_name_one_index() -> None:
    tables = Tables(3, 0, 0)
    tables.set_peer(0, name_of(0))
    with pytest.raises(ValueError, match="peer"):
        tables.set_peer(0, name_of(1))
    with pytest.raises(ValueError, match="peer"):
        tables.set_peer(1, name_of(0))
    with pytest.raises(ValueError, match="peer"):
        tables.set_peer(3, name_of(1))
    tables.set_peer(2, name_of(1))


def test_routes_to_nowhere_are_refused() -> None:
    tables = Tables(2, 0, 2)
    last = lib.WN_FORWARDERS_MAX - 1
    tables.set_neighbour(1, last)
    tables.set_unicast(1, last)
    tables.set_broadcast(0, [last])
    with pytest.raises(ValueError, match="neighbour"):
        tables.set_neighbour(2, 0)
    with pytest.raises(ValueError, match="neighbour"):
        tables.set_neighbour(1, last + 1)
    with pytest.raises(ValueError, match="unicast"):
        tables.set_unicast(2, 0)
    with pytest.raises(ValueError, match="unicast"):
        tables.set_unicast(1, last + 1)
    with pytest.raises(ValueError, match="broadcast"):
        tables.set_broadcast(2, [0])
    with pytest.raises(ValueError, match="broadcast"):
        tables.set_broadcast(0, [last + 1])


def test_broadcast_hops_end_where_they_were_said_to() -> None:
    tables = Tables(3, 0, 3)
    tables.set_broadcast(0, [1, 2])
    with pytest.raises(ValueError, match=f"code {lib.WN_ERR_FULL}"):
        tables.set_broadcast(1, [1, 2])
    tables.set_broadcast(1, [1])
    tables.set_broadcast(2, [])


def test_every_one_of_many_names_is_found() -> None:
    peers = 1000
    world = World(peers, neighbours=[peers - 1], unicast=dict.fromkeys(range(1, peers), peers - 1))
    records = [record(peer, 0, frame_of(peer, 0)) for peer in range(1, peers)]
    outcome = world.receive(*(datagram(peers - 1, *records[at::3]) for at in range(3)))
    assert len(outcome.frames) == peers - 1
    assert world.fdb() == {mac_of(peer): peer for peer in range(1, peers)}
    world.receive(datagram(peers - 1, record(b"\xce\x99\x99\0\0\x99", 0, frame_of(1, 0))))
    assert world.drops() == {"drop_unknown_peer": 1}


def test_a_swap_forgets_the_macs_of_peers_that_are_gone() -> None:
    world = World(4)
    for peer in (1, 2, 3):
        world.learn(peer, peer)
    tables = Tables(3, 0, 0)  # peer 3 is beyond the new tables, peer 1 is a hole in them
    tables.set_peer(0, name_of(0))
    tables.set_peer(2, name_of(2))
    world.datapath.swap(tables)
    assert world.fdb() == {mac_of(2): 2}


def test_an_index_used_again_inherits_nothing() -> None:
    world = World(3)
    world.learn(1, 11)
    without = Tables(3, 0, 0)
    without.set_peer(0, name_of(0))
    without.set_peer(2, name_of(2))
    world.datapath.swap(without)
    again = Tables(3, 0, 0)
    for index, name in enumerate((name_of(0), name_of(7), name_of(2))):
        again.set_peer(index, name)
    world.datapath.swap(again)
    assert world.fdb() == {}


def test_our_macs_are_forgotten_when_we_are_somebody_else() -> None:
    world = World(3)
    world.capture(frame_of(10, 11))
    world.learn(2, 12)
    world.us = 1
    world.swap()
    assert world.fdb() == {mac_of(12): 2}


def test_swapping_keeps_what_peers_stay() -> None:
    world = World(3)
    world.capture(frame_of(10, 11))
    world.learn(2, 12)
    world.swap()
    assert world.fdb() == {mac_of(10): 0, mac_of(12): 2}


@pytest.mark.parametrize(
    ("mtu", "overhead"), [(67, 62), (65536, 62), (1438, 61), (1438, 257), (0, 62)]
)
def test_impossible_mtus_are_refused(mtu: int, overhead: int) -> None:
    with pytest.raises(ValueError, match="mtu"):
        Datapath().set_mtu(1, mtu, overhead)


def test_forwarder_indices_end() -> None:
    datapath = Datapath()
    beyond = lib.WN_FORWARDERS_MAX
    with pytest.raises(ValueError, match="forwarder"):
        datapath.set_forwarder(beyond, 1, name_of(1), "", 0)
    with pytest.raises(ValueError, match="mtu"):
        datapath.set_mtu(beyond, 1438)
    with pytest.raises(ValueError, match="forwarder"):
        datapath.clear_forwarder(beyond)
    with pytest.raises(ValueError, match="forwarder"):
        datapath.forwarder_stats(beyond)


def test_a_forwarder_starts_with_the_largest_mtu() -> None:
    datapath = Datapath()
    datapath.set_forwarder(7, 1, name_of(1), "10.1.2.3", 6783)
    stats = datapath.forwarder_stats(7)
    assert (stats.mtu, stats.addr, stats.port) == (65535, "10.1.2.3", 6783)
    assert lib.WN_MTU_INITIAL == 65535


def test_a_new_address_keeps_counts_and_mtu_and_a_new_peer_does_not() -> None:
    world = World(2)
    world.receive(datagram(1, record(1, 0, frame_of(2, 3)), record(1, 0, frame_of(2, 3))))
    forwarder = forwarder_of(1)
    world.datapath.set_forwarder(forwarder, 1, name_of(1), "10.9.9.9", 99)
    stats = world.datapath.forwarder_stats(forwarder)
    assert (stats.rx_frames, stats.rx_datagrams, stats.rx_bytes) == (2, 1, 6 + 2 * 74)
    assert (stats.mtu, stats.addr, stats.port) == (1438, "10.9.9.9", 99)
    world.datapath.set_forwarder(forwarder, 2, name_of(2), "10.9.9.9", 99)
    stats = world.datapath.forwarder_stats(forwarder)
    assert (stats.rx_frames, stats.rx_datagrams, stats.rx_bytes) == (0, 0, 0)
    assert stats.mtu == 65535


def test_a_cleared_forwarder_sends_nothing() -> None:
    world = World(2)
    world.datapath.clear_forwarder(forwarder_of(1))
    assert world.capture(frame_of(1, 2)).messages == []
    assert world.drops() == {"drop_no_address": 1}
    assert world.datapath.forwarder_stats(forwarder_of(1)).addr == ""


def test_counting_from_python_reaches_the_same_counters() -> None:
    world = World(2)
    world.datapath.count(lib.WN_C__COUNT - 1, 5)
    assert world.counted() == {"drop_socket_buffer": 5}
    world.datapath.count(lib.WN_C__COUNT, 5)
    world.datapath.count(-1, 5)
    assert world.counted() == {}


def test_the_fdb_dump_says_how_much_it_left_out() -> None:
    world = World(2)
    world.learn(1, *range(10))
    entries, total = world.datapath.fdb_entries(4)
    assert (len(entries), total) == (4, 10)
    assert {(peer, seen_s) for _, peer, seen_s in entries} == {(1, world.now_s)}
