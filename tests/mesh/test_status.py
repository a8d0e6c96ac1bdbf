"""Records of connections and targets, from a small simulated mesh."""

from __future__ import annotations

from mesh.status import connection_statuses, target_statuses
from tests.sim.mesh_net import Net, ip_of, name_of


def test_connections_and_targets() -> None:
    net = Net(1)
    one = net.add(1, password=b"x", discovery=False)
    net.add(2, password=b"x", discovery=False)
    net.add(4, password=b"y", discovery=False)
    one.connect(2, 3, 4)
    assert target_statuses(one.core, net.now) == []
    net.run(0.0005)
    states = {status.addr: status.state for status in target_statuses(one.core, net.now)}
    assert set(states.values()) == {"connecting"}
    assert len(states) == 3
    net.run(1)
    (connection,) = connection_statuses(one.core, net.now)
    assert (connection.peer, connection.nick) == (name_of(2), "host2")
    assert (connection.state, connection.outbound, connection.sealed) == ("established", True, True)
    assert 0.9 < connection.age_s < 1.1
    failed = {status.addr: status for status in target_statuses(one.core, net.now)}
    assert {status.state for status in failed.values()} == {"failed"}
    assert failed[f"{ip_of(3)}:6783"].last_error == "connection refused"
    assert "other password" in str(failed[f"{ip_of(4)}:6783"].last_error)
    assert all(0 < (status.retry_in_s or 0) < 4 for status in failed.values())
    net.run(0.999)
    while not any(s.state == "retrying" for s in target_statuses(one.core, net.now)):
        net.run(0.0005)


def test_what_the_other_end_offers_besides() -> None:
    net = Net(4)
    one = net.add(1)
    net.add(2, overlays=("fastdp", "sleeve"))
    one.connect(2)
    net.run(1)
    (connection,) = connection_statuses(one.core, net.now)
    assert connection.overlays == ("sleeve",)
    assert set(connection.offered) == {"fastdp", "sleeve"}


def test_without_a_password_nothing_is_sealed_and_never_is_never() -> None:
    net = Net(2)
    one = net.add(1)
    net.add(2, name=name_of(1))
    net.add(3)
    one.connect(2, 3)
    net.run(2)
    (connection,) = connection_statuses(one.core, net.now)
    assert connection.sealed is None
    (target,) = target_statuses(one.core, net.now)
    assert (target.state, target.retry_in_s) == ("failed", None)
    assert "collision" in str(target.last_error)
