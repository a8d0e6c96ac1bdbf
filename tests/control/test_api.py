"""Status texts and report of a node, against golden text and the original's keys."""

from __future__ import annotations

import json

import pytest

from base.ipc import PathMtuChanged
from control.api import report as report_page
from control.api import status
from control.api.printable import json_text
from control.node import NodeView
from control.static_membership import membership
from control.static_peers import parse, snapshot_of
from tests.control.fake_router import READY, report
from tests.control.processes import PEER_3, PEERS

LINE = (
    PEERS + PEER_3 + '[[link]]\nbetween = ["host1", "host2"]\n'
    '[[link]]\nbetween = ["host2", "host3"]\nmtu = 1400\n'
)


def _view(text: str = LINE, host: int = 0, *, up: bool = True) -> NodeView:
    table = parse(text)
    snapshot = snapshot_of(table, table.peers[host])
    picture = report(1) if up else None
    return NodeView(
        version="1.2.3",
        port=6783,
        control_pid=10,
        router_pid=20 if up else None,
        membership=membership(table, snapshot, picture),
        snapshot=snapshot,
        ready=READY if up else None,
        path_mtus={},
        report=picture,
        now_s=1_700_000_030.9,
    )


def test_summary() -> None:
    assert status.summary(_view()) == (
        "        Version: 1.2.3 (version check update disabled)\n"
        "\n"
        "        Service: router\n"
        "       Protocol: none (static peers)\n"
        "           Name: ce:01:00:00:00:01(host1)\n"
        "     Encryption: disabled\n"
        "  PeerDiscovery: disabled\n"
        "        Targets: 1\n"
        "    Connections: 1 (1 established)\n"
        "          Peers: 3 (with 4 static connections)\n"
        " TrustedSubnets: none\n"
        "         Router: ready (pid 20, weave by vethwe-bridge)\n"
    )


def test_summary_without_a_router() -> None:
    text = status.summary(_view(host=1, up=False))
    assert "         Router: not running\n" in text
    assert "    Connections: 2 (2 pending)\n" in text


def test_connections() -> None:
    assert status.connections(_view(host=1)) == (
        "<- 10.0.0.1:6783         pending     sleeve ce:01:00:00:00:01(host1) \n"
        "-> 10.0.0.3:7000         pending     sleeve ce:03:00:00:00:03(host3) mtu=1400\n"
    )
    assert status.connections(_view()) == (
        "-> 10.0.0.2:6783         established sleeve ce:02:00:00:00:02(host2) mtu=1410\n"
    )


def test_measured_mtu_without_a_report() -> None:
    neighbour = bytes.fromhex("ce0200000002")
    view = _view(up=False)
    measured = NodeView(
        **{name: getattr(view, name) for name in NodeView.__slots__ if name != "path_mtus"},
        path_mtus={neighbour: PathMtuChanged(neighbour, 1300, 1400)},
    )
    assert status.connections(measured).endswith(" mtu=1300\n")


def test_peers_and_targets() -> None:
    assert status.peers(_view()) == (
        "ce:01:00:00:00:01(host1)\n"
        "   -> 10.0.0.2:6783         ce:02:00:00:00:02(host2)              established\n"
        "ce:02:00:00:00:02(host2)\n"
        "   <- 10.0.0.1:6783         ce:01:00:00:00:01(host1)              established\n"
        "   -> 10.0.0.3:7000         ce:03:00:00:00:03(host3)              established\n"
        "ce:03:00:00:00:03(host3)\n"
        "   <- 10.0.0.2:6783         ce:02:00:00:00:02(host2)              established\n"
    )
    assert status.targets(_view(host=1)) == "10.0.0.1:6783\n10.0.0.3:7000\n"


def test_report() -> None:
    body = json.loads(json_text(report_page.build(_view())))
    router = body["Router"]
    assert body["Ready"] is True
    assert (router["Name"], router["NickName"]) == ("ce:01:00:00:00:01", "host1")
    assert router["UnicastRoutes"] == [
        {"Dest": "ce:01:00:00:00:01", "Via": "00:00:00:00:00:00"},
        {"Dest": "ce:02:00:00:00:02", "Via": "ce:02:00:00:00:02"},
        {"Dest": "ce:03:00:00:00:03", "Via": "ce:02:00:00:00:02"},
    ]
    assert router["BroadcastRoutes"][:2] == [
        {"Source": "ce:01:00:00:00:01", "Via": ["ce:02:00:00:00:02"]},
        {"Source": "ce:02:00:00:00:02", "Via": None},
    ]
    (connection,) = router["Connections"]
    assert list(connection.items())[:5] == [
        ("Address", "10.0.0.2:6783"),
        ("Outbound", True),
        ("State", "established"),
        ("Info", "sleeve ce:02:00:00:00:02(host2)"),
        ("Attrs", {"mtu": 1410, "name": "sleeve"}),
    ]
    assert router["MACs"] == [
        {
            "Mac": "62:66:3f:b7:2e:c1",
            "Name": "ce:02:00:00:00:02",
            "NickName": "host2",
            "LastSeen": "2023-11-14T22:13:20Z",
        }
    ]
    assert router["Interface"] == "vethwe-bridge (via tap)"
    assert len(router["Peers"]) == 3
    assert body["Counters"]["drop_stp"] == 2
    assert (body["Capture"], body["Loops"], body["BridgeRepairs"]) == ("tap", "one", 1)
    assert body["UptimeSeconds"] == 12.5


def test_report_without_a_router() -> None:
    body = report_page.build(_view(up=False))
    assert body["Ready"] is False
    assert body["Counters"] == {}
    assert body["Router"]["Interface"] is None
    assert body["Router"]["Port"] == 6783


@pytest.mark.parametrize(("count", "listed"), [(100, 100 * 99), (150, 149)])
def test_a_large_full_mesh_is_not_spelled_out(count: int, listed: int) -> None:
    text = "".join(
        f'[[peer]]\nname = "ce::{n:x}"\naddress = "10.0.0.{n}"\n' for n in range(1, count + 1)
    )
    view = _view(text, up=False)
    peers = report_page.build(view)["Router"]["Peers"]
    assert sum(len(peer["Connections"]) for peer in peers) == listed
    assert f"(with {listed} static connections)" in status.summary(view)
