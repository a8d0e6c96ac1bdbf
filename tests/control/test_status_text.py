"""Status texts and report in every state, against what a real Weave Net 2.8.1 answered."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from base.ipc import PathMtuChanged
from base.names import PeerName
from control.api import report, status
from control.api.printable import json_text, printable
from control.api.template import Template
from control.node import ConnectionView, LinkView, PeerView
from tests.control.fake_router import READY
from tests.control.views import THEM, US, forwarder, live, member, node, pair, sample, target

STRANGER = PeerName.parse("ce:03::3")


def test_pages_of_the_vectors() -> None:
    view = node()
    for path, page in (
        ("/status/connections", status.connections),
        ("/status/peers", status.peers),
        ("/status/targets", status.targets),
    ):
        assert page(view) == sample(path)["body"]


def test_summary_of_the_vectors() -> None:
    """Word for word up to the end of the router's section; ours comes behind it."""
    theirs = sample("/status")["body"].split("\n\n        Service: ipam")[0] + "\n"
    ours = status.summary(node())
    assert ours.startswith(theirs)
    assert ours.removeprefix(theirs) == (
        "         Router: ready (pid 20, weave by vethwe-bridge)\n"
    )


@pytest.mark.parametrize(
    ("fast", "mtu", "warned"), [(True, 1377, 1), (True, 1376, 0), (False, 1500, 0)]
)
def test_a_peer_whose_bridge_takes_less(fast: bool, mtu: int, warned: int) -> None:
    ready = msgspec.structs.replace(READY, mtu=mtu)
    text = status.summary(node(member(connections=(live(fast=fast),)), ready=ready))
    assert text.count("Warning: ce:02:00:00:00:02(host2): with Weave's fast datapath") == warned
    assert text.count("launch with --mtu 1376") == warned


def test_summary_in_full() -> None:
    peers = (*pair(established=False), PeerView(STRANGER, "x", 1, 2, 2, ()))
    view = node(
        member(
            protocol=(2, 2),
            encryption=True,
            discovery=False,
            targets=("a", "b:6783"),
            peers=peers,
            connections=(
                *(target("connecting"), target("failed", "no route"), target("waiting")),
                *(target("retrying", "x"), live(), live(state="pending"), live()),
            ),
            trusted_subnets=("10.0.0.0/8", "192.0.2.0/24"),
            warnings=("there is no password", "forged\n  Encryption: enabled"),
        ),
        up=False,
    )
    assert status.summary(view) == (
        "        Version: 2.8.1 (version check update disabled)\n"
        "\n"
        "        Service: router\n"
        "       Protocol: weave 2\n"
        "           Name: ce:01:00:00:00:01(host1)\n"
        "     Encryption: enabled\n"
        "  PeerDiscovery: disabled\n"
        "        Targets: 2\n"
        "    Connections: 7 (2 established, 1 pending, 1 retrying, 1 failed, 1 connecting,"
        " 1 waiting)\n"
        "          Peers: 3 (with 2 pending connections)\n"
        " TrustedSubnets: 10.0.0.0/8, 192.0.2.0/24\n"
        "         Router: not running\n"
        "        Warning: there is no password\n"
        "        Warning: forged\\x0a  Encryption: enabled\n"
    )


def test_peers_in_both_states() -> None:
    links = (LinkView(THEM, "h2", "b:1", True, True), LinkView(US, "h1", "c:1", False, False))
    summary = status.summary(node(member(peers=(PeerView(STRANGER, "x", connections=links),))))
    assert "          Peers: 1 (with 1 established, 1 pending connections)\n" in summary
    alone = status.summary(node(member(peers=(PeerView(US, "h1"),), connections=(), targets=())))
    assert "          Peers: 1\n" in alone
    assert "    Connections: 0\n" in alone


_PEER = "ce:02:00:00:00:02(host2)"
_HOSTILE = r"ce:02:00:00:00:02(\x1b[2Jhost2\u202e)"
_DEGRADED = r"""rtt=0.04ms degraded="PMTU below '1438'\x0a" """.strip()
_LATER = "2023-11-14 22:14:02 +0000 UTC"
_HEAD = "-> 10.95.0.2:6783        established "


@pytest.mark.parametrize(
    ("connection", "changes", "line"),
    [
        (live(), {}, f"{_HEAD}sleeve ce:02:00:00:00:02(host2) mtu=1438"),
        (
            live(sealed=True),
            {"cipher": "aes-256-gcm", "rtt_us": 421, "mtu": 1414},
            (
                f"{_HEAD}encrypted   sleeve {_PEER} encrypted=true mtu=1414"
                " cipher=aes-256-gcm rtt=0.4ms"
            ),
        ),
        (
            live(sealed=False, outbound=False, address="10.95.0.2:44843"),
            {"rtt_us": 38, "degraded": 'PMTU below "1438"\n'},
            f"<- 10.95.0.2:44843       established unencrypted sleeve {_PEER} mtu=1438 {_DEGRADED}",
        ),
        (
            live(state="pending", nick="\x1b[2Jhost2\u202e"),
            {},
            f"-> 10.95.0.2:6783        pending     sleeve {_HOSTILE} mtu=1438",
        ),
        (target("connecting"), {}, "-> 10.95.0.9:6783        connecting   "),
        (
            target("retrying", "connection refused"),
            {},
            "-> 10.95.0.9:6783        retrying    connection refused ",
        ),
        (
            target("failed", "no route to host", 12.0),
            {},
            f"-> 10.95.0.9:6783        failed      no route to host, retry: {_LATER} ",
        ),
        (
            target("failed", "connected to ourself"),
            {},
            "-> 10.95.0.9:6783        failed      connected to ourself, retry: never ",
        ),
        (
            target("waiting", retry_in_s=0.1),
            {},
            "-> 10.95.0.9:6783        waiting     until: 2023-11-14 22:13:51 +0000 UTC ",
        ),
    ],
)
def test_connection_lines(connection: ConnectionView, changes: dict[str, Any], line: str) -> None:
    view = node(member(connections=(connection,)), forwarders=(forwarder(**changes),))
    assert status.connections(view) == f"{line}\n"
    (record,) = report.connections(view)
    assert list(record)[:5] == ["Address", "Outbound", "State", "Info", "Attrs"]
    assert record["State"] == connection.state
    assert (record["Name"] is None) == (connection.peer is None) == (record["Attrs"] is None)
    assert printable(record["Info"]) in line or not record["Info"]


def test_what_the_mtu_is_taken_from() -> None:
    view = node(up=False)
    assert status.connections(view).endswith(" mtu=1400\n"), "what control asked for"
    measured = PathMtuChanged(THEM.octets, 1300, 1400)
    view = node(up=False, path_mtus={THEM.octets: measured})
    assert status.connections(view).endswith(" mtu=1300\n"), "what was measured"
    assert status.connections(node()).endswith(" mtu=1438\n"), "what the router says"


def test_report_of_the_vectors() -> None:
    """Every key of the original's, in its order; every value that is not of its own machine."""
    theirs = json.loads(sample("/report", accept="application/json")["body"])
    ours = json.loads(json_text(report.build(node())))
    assert [key for key in ours if key in theirs] == ["Ready", "Version", "VersionCheck", "Router"]
    for key in ("Ready", "Version", "VersionCheck"):
        assert ours[key] == theirs[key]
    router, original = ours["Router"], theirs["Router"]
    assert [key for key in router if key in original] == list(original)
    different = {"Interface", "CaptureStats", "MACs", "Connections", "Peers"}
    for key in original.keys() - different:
        assert router[key] == original[key], key
    assert router["Peers"] == sorted(original["Peers"], key=lambda peer: str(peer["Name"]))
    assert list(router["CaptureStats"]) == list(original["CaptureStats"])
    assert [list(mac) for mac in router["MACs"]] == [list(original["MACs"][0])]
    (connection,), (same,) = router["Connections"], original["Connections"]
    assert {key: connection[key] for key in same} == same


def test_lists_without_elements_are_null_in_the_report() -> None:
    """As in the vectors: ``sessions.json``, hosts that nobody gave a target."""
    alone = PeerView(US, "host1")
    view = node(member(targets=(), connections=(), peers=(alone,)))
    router = json.loads(json_text(report.build(view)))["Router"]
    assert (router["Targets"], router["Connections"]) == (None, None)
    assert router["Peers"][0]["Connections"] is None
    assert router["TrustedSubnets"] == []
    assert report.targets(view) == []
    assert report.connections(view) == []
    template = "{{.Router.Targets}} {{len .Router.Targets}} {{json .Router.Targets}}"
    more = "{{range .Router.Connections}}x{{else}} none{{end}}{{if .Router.Targets}}x{{end}}"
    assert Template(template + more).render(report.build(view)) == "[] 0 null none"


def test_records_say_what_the_text_says() -> None:
    view = node(
        member(
            encryption=True,
            connections=(live(sealed=True), target("failed", "refused", 12.0)),
            warnings=("beware",),
        ),
        forwarders=(forwarder(cipher="secretbox", rtt_us=1500, pmtu_bytes=1500, degraded="x"),),
    )
    secure, failed = report.connections(view)
    assert secure["Attrs"] == {"encrypted": True, "mtu": 1438, "name": "sleeve"}
    assert (secure["Cipher"], secure["RTTMilliseconds"]) == ("secretbox", 1.5)
    assert (secure["PathMTU"], secure["Degraded"], secure["Encrypted"]) == (1500, "x", True)
    assert (failed["Error"], failed["RetryAt"]) == ("refused", "2023-11-14T22:14:02Z")
    assert failed.keys() == secure.keys()
    summary = json.loads(json_text(report.summary(view)))
    assert summary["Router"]["Connections"] == {"established": 1, "failed": 1}
    assert summary["Router"]["PeerConnections"] == {"established": 2}
    assert summary["Warnings"] == ["beware"]


def test_json_is_safe_on_a_terminal() -> None:
    hostile = 'a\x1b\x7f\x9b\u202e\u2028"\\'
    text = json_text({"nick": hostile})
    assert text.isprintable()
    assert json.loads(text) == {"nick": hostile}
    assert printable("a\x00\x9b\u202e\U000e0001é") == "a\\x00\\x9b\\u202e\\U000e0001é"
