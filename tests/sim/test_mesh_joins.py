"""Meshes that grow: one target, lines, crossing dials, limits, the user's changes of mind."""

from __future__ import annotations

import ipaddress
from itertools import combinations

import pytest

from mesh import events
from mesh.maker import TargetState
from tests.sim.mesh_net import Net, SetChannel, ip_of, name_of

pytestmark = pytest.mark.sim


def _full(net: Net, count: int) -> bool:
    wanted = {frozenset(pair) for pair in combinations(range(1, count + 1), 2)}
    return set(net.pairs()) == wanted and net.agree() and net.established()


@pytest.mark.parametrize("password", [None, b"secret"])
@pytest.mark.parametrize("seed", range(3))
def test_one_target_each_becomes_a_full_mesh(seed: int, password: bytes | None) -> None:
    net = Net(seed)
    net.add(1, password=password)
    for number in range(2, 6):
        net.add(number, password=password).connect(1)
    assert net.run_until(lambda: _full(net, 5), 60) < 30
    assert set(net.pairs().values()) == {1}
    for host in net.alive():
        assert {event.encrypted for event in host.added.values()} == {password is not None}
        assert len(host.core.routes.frame_routes()) == 5
    net.run(300)
    assert _full(net, 5)


def test_twelve_at_once_settle() -> None:
    net = Net(7)
    for number in range(1, 13):
        net.add(number)
    for number in range(1, 13):
        net.hosts[number].connect(*(other for other in range(1, 13) if other != number))
    assert net.run_until(lambda: _full(net, 12), 60, every_s=0.5) < 30
    before = sum(host.dials for host in net.alive())
    net.run(600)
    assert _full(net, 12)
    # with peers given without port, whoever was called does not call back
    assert sum(host.dials for host in net.alive()) == before


@pytest.mark.parametrize("seed", range(10))
def test_crossing_dials_keep_one(seed: int) -> None:
    net = Net(seed)
    one, two = net.add(1), net.add(2)
    one.connect(2)
    two.connect(1)
    net.run(5)
    assert net.pairs() == {frozenset({1, 2}): 1}
    (mine,), (other,) = one.added.values(), two.added.values()
    assert mine.uid == other.uid
    lost = [*one.seen(events.Close), *two.seen(events.Close)]
    assert all("Multiple connections" in event.reason or "EOF" in event.reason for event in lost)
    uids = {event.uid for host in (one, two) for event in host.seen(events.ConnectionAdded)}
    assert mine.uid == min(uids)
    assert net.agree()


def test_line_without_discovery_relays() -> None:
    net = Net(3)
    channels: dict[int, SetChannel] = {}
    for number in range(1, 6):
        host = net.add(number, discovery=False)
        if number != 3:  # the one in the middle does not know the channel
            channels[number] = SetChannel()
            host.core.register("items", channels[number])
        if number > 1:
            host.connect(number - 1)
    assert net.run_until(net.agree, 30) < 5
    net.run(5)
    assert [host.neighbours() for host in net.alive()] == [[2], [1, 3], [2, 4], [3, 5], [4]]
    first = net.hosts[1].core
    assert first.send_unicast("items", name_of(5), b"hello", net.now)
    net.hosts[1].sync()
    net.run(1)
    assert channels[5].unicasts == [(name_of(1), b"hello")]
    assert not first.send_unicast("items", name_of(9), b"", net.now)
    channels[1].values = frozenset({"a"})
    data = channels[1].complete()
    assert data is not None
    first.broadcast("items", data)
    net.hosts[1].sync()
    net.run(1)
    for number in (2, 4, 5):
        assert channels[number].broadcasts == [(name_of(1), b"a")]
    channels[5].values |= {"b"}
    net.run(40)
    assert all(channel.values == {"a", "b"} for channel in channels.values())


def test_frames_go_only_where_both_ends_are_established() -> None:
    net = Net(4)
    one, two = net.add(1), net.add(2)
    one.connect(2)
    net.run_until(lambda: bool(one.added and two.added), 5)
    assert len(one.core.routes.frame_routes()) == 1
    net.run(3)
    assert one.core.routes.frame_routes()[two.name] == two.name
    assert one.seen(events.ConnectionEstablished)
    assert one.seen(events.RoutesChanged)


def test_connection_limit() -> None:
    net = Net(5)
    hub = net.add(1, conn_limit=2, discovery=False)
    for number in (2, 3, 4):
        net.add(number, discovery=False).connect(1)
    net.run(30)
    assert len(hub.neighbours()) == 2
    assert any("Connection limit reached (2)" in event.reason for event in hub.seen(events.Close))
    refused = [host for host in net.alive() if not host.neighbours()]
    assert len(refused) == 1
    assert refused[0].dials < 10
    full = net.add(5, conn_limit=1, discovery=False)
    net.add(6, discovery=False)
    net.add(7, discovery=False)
    full.connect(6)
    net.run(5)
    full.connect(7)
    net.run(5)
    assert full.neighbours() == [6]
    assert full.core.maker.targets[f"{ip_of(7)}:6783"].last_error == "Connection limit reached (1)"


def test_forget_and_replace() -> None:
    net = Net(6)
    one = net.add(1, discovery=False)
    for number in (2, 3, 4):
        net.add(number, discovery=False)
    one.connect(2, 3)
    net.run(3)
    assert one.neighbours() == [2, 3]
    one.core.forget([ip_of(2)], net.now)
    one.sync()
    net.run(1)
    assert one.neighbours() == [2, 3]  # the connection stays
    net.stop(net.hosts[2])
    net.run(60)
    assert one.neighbours() == [3]
    assert f"{ip_of(2)}:6783" not in one.core.maker.targets
    one.connect(4, replace=True)
    net.run(3)
    assert one.neighbours() == [3, 4]
    assert list(one.core.maker.direct) == [ip_of(4)]


def test_a_target_that_is_down_is_tried_every_few_seconds() -> None:
    net = Net(8)
    one = net.add(1)
    one.connect(2)
    net.run(3600)
    # each interval is 6 s at most, half to one and a half times of it; a healed path is found soon
    assert 3600 / 9 < one.dials < 3600 / 3
    net.add(2)
    waited = net.run_until(lambda: one.neighbours() == [2], 3600)
    assert waited < 560
    one.core.connect([], net.now)
    assert one.core.maker.targets[f"{ip_of(2)}:6783"].state is TargetState.CONNECTED


def test_other_password_is_refused_without_a_storm() -> None:
    net = Net(9)
    net.add(1, password=b"right")
    other = net.add(2, password=b"wrong")
    plain = net.add(3)
    other.connect(1)
    plain.connect(1)
    net.run(600)
    assert not any(host.neighbours() for host in net.alive())
    target = other.core.maker.targets[f"{ip_of(1)}:6783"]
    assert target.last_error is not None
    assert "other password" in target.last_error
    assert max(host.dials for host in net.alive()) < 16
    assert len(net.hosts[1].core.peers) == 1
    refused = {e.addr.rpartition(":")[0] for e in net.hosts[1].seen(events.StrangerRefused)}
    assert refused == {ip_of(2), ip_of(3)}
    assert not other.seen(events.StrangerRefused)


def test_trust_needs_both_ends() -> None:
    subnet = (ipaddress.ip_network("10.0.0.0/24"),)
    for first, second, sealed in (((), (), True), (subnet, (), True), (subnet, subnet, False)):
        net = Net(10)
        one = net.add(1, password=b"x", trusted_subnets=first)
        two = net.add(2, password=b"x", trusted_subnets=second)
        one.connect(2)
        net.run(5)
        for host in (one, two):
            (event,) = host.added.values()
            assert event.encrypted
            assert (event.key is not None) == sealed


def test_connecting_to_oneself_is_tried_once() -> None:
    net = Net(11)
    one = net.add(1)
    one.connect(1)
    net.run(600)
    assert one.dials == 1
    assert one.core.maker.terminations == 0
    assert one.neighbours() == []
    one.connect(1)
    net.run(60)
    assert one.dials == 2


def test_two_routers_of_one_name() -> None:
    net = Net(12)
    one = net.add(1)
    twin = net.add(2, name=name_of(1))
    twin.connect(1)
    net.run(600)
    assert twin.dials == 1
    assert "peer names collision" in str(twin.core.maker.targets[f"{ip_of(1)}:6783"].last_error)
    (collision,) = twin.seen(events.NameCollision)
    assert collision.addr == f"{ip_of(1)}:6783"
    assert one.seen(events.NameCollision)


def test_discovered_address_must_lead_to_a_known_peer() -> None:
    net = Net(13)
    one, two = net.add(1), net.add(2)
    net.add(3)
    two.connect(3)
    net.run(5)
    # another router takes the address, and host 2 has not noticed yet
    net.add(3, unnoticed=True, name=name_of(33))
    one.connect(2)
    net.run(20)
    reasons = {event.reason for event in one.seen(events.Close)}
    assert f"Found unknown remote name: {name_of(33)} at {ip_of(3)}:6783" in reasons
    assert name_of(33) not in one.core.peers


def test_short_id_collision_settles_on_the_lower_name() -> None:
    net = Net(14)
    hosts = [net.add(number, short_id=77) for number in (1, 2, 3)]
    for host in hosts[1:]:
        host.connect(1)
    net.run(40)
    ids = [host.core.peers.ourself.short_id for host in hosts]
    assert ids[0] == 77
    assert len(set(ids)) == 3
    assert net.agree()


def test_silence_is_noticed_and_heartbeats_prevent_it() -> None:
    net = Net(15)
    one, two = net.add(1, discovery=False), net.add(2, discovery=False)
    one.connect(2)
    net.run(600)
    assert one.dials == 1
    net.part({1}, {2})
    net.run(62)
    assert not one.neighbours()
    assert not two.neighbours()
    assert "read timeout" in {event.reason for event in one.seen(events.ConnectionGone)}
