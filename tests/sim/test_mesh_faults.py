"""Meshes that break and heal: partitions, restarts, losses in the middle, floods, slow links."""

from __future__ import annotations

from itertools import combinations

import pytest

from mesh import events
from mesh.core import HANDSHAKES_MAX
from tests.sim.mesh_net import Net, name_of

pytestmark = pytest.mark.sim


def _mesh(net: Net, count: int, **options: bool) -> None:
    for number in range(1, count + 1):
        host = net.add(number, **options)
        if number > 1:
            host.connect(1)
    assert net.run_until(lambda: _full(net, count), 60, every_s=0.2) < 60


def _full(net: Net, count: int) -> bool:
    wanted = {frozenset(pair) for pair in combinations(range(1, count + 1), 2)}
    return set(net.pairs()) == wanted and net.agree() and net.established()


@pytest.mark.parametrize("seed", range(3))
def test_partition_and_heal(seed: int) -> None:
    net = Net(seed)
    _mesh(net, 5)
    net.part({1, 2}, {3, 4, 5})
    net.run(120)
    assert net.agree(1, 2)
    # the part without the target that they all were given is a mesh of its own
    assert net.agree(3, 4, 5)
    net.heal()
    net.hosts[3].connect(1)  # the user, or a retry that is due
    assert net.run_until(lambda: net.agree() and len(net.pairs()) == 10, 60) < 15
    assert len(net.hosts[5].core.routes.frame_routes()) == 5


def test_partition_heals_without_help() -> None:
    net = Net(21)
    _mesh(net, 5)
    net.part({1, 2}, {3, 4, 5})
    net.run(90)
    net.heal()
    assert net.run_until(lambda: _full(net, 5), 600, every_s=0.5) < 60


@pytest.mark.parametrize("seed", range(3))
def test_restart_with_the_same_name(seed: int) -> None:
    net = Net(seed)
    _mesh(net, 4)
    old = net.hosts[2].core.options.uid
    again = net.add(2)
    again.connect(1)
    assert net.run_until(lambda: _full(net, 4), 60) < 20
    assert again.core.options.uid != old
    for host in net.alive():
        known = host.core.peers.get(again.name)
        assert known is not None
        assert known.uid == again.core.options.uid


def test_restart_that_nobody_noticed() -> None:
    net = Net(31)
    _mesh(net, 3)
    again = net.add(2, unnoticed=True)
    again.connect(1)
    assert net.run_until(lambda: net.agree() and len(again.added) == 2, 200, every_s=0.2) < 120


def test_loss_of_the_middle_with_and_without_discovery() -> None:
    for discovery in (True, False):
        net = Net(41)
        for number in (1, 2, 3):
            net.add(number, discovery=discovery)
        net.hosts[1].connect(2)
        net.hosts[3].connect(2)
        net.run(10)
        assert net.agree()
        net.stop(net.hosts[2])
        net.run(10)
        assert net.hosts[1].neighbours() == ([3] if discovery else [])
        assert (name_of(2) in net.hosts[1].core.peers) is False
        assert net.hosts[1].seen(events.PeersGone)


def test_flood_of_strangers_does_not_keep_peers_out() -> None:
    net = Net(51)
    one, two = net.add(1), net.add(2)
    for port in range(1000):
        one.core.accepted(f"192.0.2.66:{1024 + port}", net.now)
    one.sync()
    assert len(one.core.connections()) == HANDSHAKES_MAX
    two.connect(1)
    for port in range(1000):
        net.run(0.0001)
        one.core.accepted(f"192.0.2.66:{3024 + port}", net.now)
        one.sync()
    net.run(1)
    assert one.neighbours() == [2]
    net.run(15)
    assert len(one.core.connections()) == 1


def test_noise_on_a_connection_ends_that_connection_only() -> None:
    net = Net(61)
    _mesh(net, 3)
    one = net.hosts[1]
    (conn,) = [ident for ident, event in one.added.items() if event.peer == name_of(2)]
    one.core.receive(conn, b"\0\0\0\5\4abcd", net.now)
    one.sync()
    net.run(0.5)
    gone = one.seen(events.ConnectionGone)
    assert [event.peer for event in gone] == [name_of(2)]
    assert net.run_until(lambda: _full(net, 3), 60) < 30


def test_bad_overlay_control_and_unknown_tags_are_passed_over() -> None:
    net = Net(71)
    _mesh(net, 2)
    one = net.hosts[1]
    (conn,) = one.added
    for body in (b"\7", b"\7\0", b"\7\1\1", b"\x09zz", b"\1", b"", b"\0"):
        one.core.receive(conn, len(body).to_bytes(4, "big") + body, net.now)
    assert one.core.messages_ignored == 5
    assert one.neighbours() == [2]
    one.core.receive(conn, b"\0\0\0\5\7\0\3\5\x9e", net.now)
    assert one.core.take_events() == [
        events.OverlayControl(conn, name_of(2), "sleeve", 3, b"\5\x9e")
    ]


@pytest.mark.parametrize("seed", range(5))
def test_any_order_of_troubles_ends_in_one_topology(seed: int) -> None:
    net = Net(100 + seed)
    count = 8
    _mesh(net, count)
    for _ in range(12):
        trouble = net.rng.randrange(3)
        victim = net.rng.randint(2, count)
        if trouble == 0:
            net.add(victim).connect(1)
        elif trouble == 1:
            net.part({victim}, set(range(1, count + 1)) - {victim})
            net.run(net.rng.uniform(1, 80))
            net.heal()
        else:
            host = net.hosts[victim]
            for conn in list(host.added)[:3]:
                host.core.overlay_failed(conn, "trouble", net.now)
            host.sync()
        net.run(net.rng.uniform(0, 20))
        assert max(net.pairs().values(), default=1) <= 2  # a crossing pair at most, for a moment
    assert net.run_until(lambda: _full(net, count), 900, every_s=1) < 600, f"seed {seed}"
