"""Pictures of nodes for tests of what the API shows."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from base.ipc import (
    BroadcastRoute,
    Connection,
    ForwarderReport,
    Peer,
    RouterReport,
    Snapshot,
    UnicastRoute,
)
from base.names import PeerName
from control.node import ConnectionView, LinkView, Membership, NodeView, PeerView
from tests.control.fake_router import READY
from tests.control.fake_router import report as fake_report

NOW_S = 1_700_000_030.9
US = PeerName.parse("ce:01:00:00:00:01")
THEM = PeerName.parse("ce:02:00:00:00:02")
VECTORS = Path(__file__).parents[1] / "vectors" / "http_api_samples.json"


@functools.cache
def samples() -> list[dict[str, Any]]:
    """Requests to a real Weave Net 2.8.1 and its answers, in their order."""
    found: list[dict[str, Any]] = json.loads(VECTORS.read_text())["http_api_samples"]
    return found


def sample(path: str, method: str = "GET", accept: str | None = None, nth: int = 0) -> Any:
    """The ``nth`` sample of a request; its body is what Weave answered."""
    headers = [] if accept is None else [f"Accept: {accept}"]
    return [
        each
        for each in samples()
        if (each["method"], each["path"], each["request_headers"]) == (method, path, headers)
    ][nth]


def forwarder(**changes: Any) -> ForwarderReport:
    """The datagram side towards THEM."""
    fields: dict[str, Any] = {
        "peer": THEM.octets,
        "nick": "host2",
        "addr": "10.95.0.2:6783",
        "mtu": 1438,
        "tx_frames": 10,
        "tx_datagrams": 9,
        "tx_bytes": 8000,
        "rx_frames": 7,
        "rx_datagrams": 6,
        "rx_bytes": 5000,
        "conn": 1,
        "state": "established",
    }
    return ForwarderReport(**(fields | changes))


def live(**changes: Any) -> ConnectionView:
    """Our connection to THEM."""
    fields: dict[str, Any] = {
        "address": "10.95.0.2:6783",
        "outbound": True,
        "state": "established",
        "peer": THEM,
        "nick": "host2",
    }
    return ConnectionView(**(fields | changes))


def target(state: str, error: str | None = None, retry_in_s: float | None = None) -> ConnectionView:
    """An address that we are not connected at."""
    return ConnectionView(
        "10.95.0.9:6783", True, state, overlay="", error=error, retry_in_s=retry_in_s
    )


def pair(established: bool = True) -> tuple[PeerView, PeerView]:
    """Two peers as the vectors have them."""
    ours = LinkView(THEM, "host2", "10.95.0.2:6783", True, established)
    theirs = LinkView(US, "host1", "10.95.0.1:44843", False, established)
    return (
        PeerView(US, "host1", 5823406831619539224, 190, 2, (ours,)),
        PeerView(THEM, "host2", 8820904546320125983, 124, 2, (theirs,)),
    )


def member(**changes: Any) -> Membership:
    """Two nodes in a mesh without a password, as in the vectors."""
    fields: dict[str, Any] = {
        "protocol": (1, 2),
        "encryption": False,
        "discovery": True,
        "targets": ("10.95.0.2",),
        "peers": pair(),
        "connections": (live(),),
    }
    return Membership(**(fields | changes))


def node(
    membership: Membership | None = None,
    *,
    forwarders: tuple[ForwarderReport, ...] | None = None,
    up: bool = True,
    **changes: Any,
) -> NodeView:
    """A node; with ``up`` its router is ready and told of ``forwarders``."""
    report: RouterReport | None = None
    if up:
        fields = {name: getattr(fake_report(1), name) for name in RouterReport.__struct_fields__}
        fields["forwarders"] = (forwarder(),) if forwarders is None else forwarders
        report = RouterReport(**fields)
    values: dict[str, Any] = {
        "version": "2.8.1",
        "port": 6783,
        "control_pid": 10,
        "router_pid": 20 if up else None,
        "membership": membership or member(),
        "snapshot": Snapshot(
            seq=1,
            name=US.octets,
            nick="host1",
            peers=(Peer(THEM.octets, "host2"),),
            connections=(Connection(THEM.octets, "10.95.0.2", 6783, conn=1, mtu=1400),),
            unicast=(UnicastRoute(THEM.octets, THEM.octets),),
            broadcast=(
                BroadcastRoute(US.octets, (THEM.octets,)),
                BroadcastRoute(THEM.octets, ()),
            ),
        ),
        "ready": READY if up else None,
        "path_mtus": {},
        "report": report,
        "now_s": NOW_S,
    }
    return NodeView(**(values | changes))
