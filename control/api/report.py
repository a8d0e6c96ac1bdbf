"""The JSON report: the original's keys as far as they apply here, then what this router adds.

Added at the top level: Counters, Forwarders, Capture, Loops, MTU, BridgeRepairs, UptimeSeconds,
Pids, Sequence. Without a router these are empty or null. Source of truth: node specification 11;
where its keys and the vectors differ (``Dest``), the vectors win.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from base.counters import COUNTER_NAMES
from control.api.connections import neighbours, own_connections
from control.node import NodeView


def build(view: NodeView) -> dict[str, Any]:
    """The whole report, ready for a JSON encoder."""
    report = view.report
    return {
        "Ready": view.ready is not None,
        "Version": view.version,
        "VersionCheck": {"Enabled": False},
        "Router": _router(view),
        "Pids": {"Control": view.control_pid, "Router": view.router_pid},
        "UptimeSeconds": report.uptime_s if report else None,
        "Capture": report.capture if report else None,
        "Loops": report.loops if report else None,
        "MTU": report.mtu if report else None,
        "BridgeRepairs": report.bridge_repairs if report else None,
        "Sequence": {"Control": view.snapshot.seq, "Router": report.seq if report else None},
        "Counters": _counters(report.counters) if report else {},
        "Forwarders": _forwarders(view),
    }


def _counters(counters: dict[str, int]) -> dict[str, int]:
    """In the order of the native list; names that we do not know come last."""
    ordered = {name: counters[name] for name in COUNTER_NAMES if name in counters}
    return ordered | counters


def _router(view: NodeView) -> dict[str, Any]:
    snapshot, report, ready = view.snapshot, view.report, view.ready
    connections = own_connections(view)
    interface = None
    if ready is not None:
        interface = f"{ready.interface} (via {report.capture})" if report else ready.interface
    return {
        "Protocol": "static",
        "Encryption": False,
        "PeerDiscovery": False,
        "Name": snapshot.name.hex(":"),
        "NickName": snapshot.nick,
        "Port": ready.udp_port if ready else view.port,
        "Peers": _peers(view),
        "UnicastRoutes": [
            {"Dest": snapshot.name.hex(":"), "Via": "00:00:00:00:00:00"},
            *(
                {"Dest": route.dst.hex(":"), "Via": route.via.hex(":")}
                for route in snapshot.unicast
            ),
        ],
        "BroadcastRoutes": [
            {"Source": route.src.hex(":"), "Via": [peer.hex(":") for peer in route.via] or None}
            for route in snapshot.broadcast
        ],
        "Connections": [
            {
                "Address": each.address,
                "Outbound": each.outbound,
                "State": each.state,
                "Info": f"sleeve {each.peer.hex(':')}({each.nick})",
                "Attrs": {"mtu": each.mtu, "name": "sleeve"},
            }
            for each in connections
        ],
        "Targets": [each.address for each in connections],
        "OverlayDiagnostics": {"sleeve": None},
        "TrustedSubnets": [],
        "Interface": interface,
        "CaptureStats": {"PacketsReceived": report.counters.get("captured_frames", 0)}
        if report
        else None,
        "MACs": _macs(view),
        "MACsTotal": report.macs_total if report else 0,
    }


def _peers(view: NodeView) -> list[dict[str, Any]]:
    states = {each.peer: each.state for each in own_connections(view)}
    linked = neighbours(view)
    return [
        {
            "Name": str(peer.name),
            "NickName": peer.nick,
            "Connections": [
                {
                    "Name": str(other.name),
                    "NickName": other.nick,
                    "Address": f"{other.addr}:{other.port}",
                    "Outbound": peer.name < other.name,
                    "Established": peer.name.octets != view.snapshot.name
                    or states.get(other.name.octets) == "established",
                }
                for other in linked[peer.name]
            ],
        }
        for peer in view.table.peers
    ]


def _forwarders(view: NodeView) -> list[dict[str, Any]]:
    return [
        {
            "Name": each.peer.hex(":"),
            "NickName": each.nick,
            "Address": each.addr,
            "MTU": each.mtu,
            "TxFrames": each.tx_frames,
            "TxDatagrams": each.tx_datagrams,
            "TxBytes": each.tx_bytes,
            "RxFrames": each.rx_frames,
            "RxDatagrams": each.rx_datagrams,
            "RxBytes": each.rx_bytes,
        }
        for each in (view.report.forwarders if view.report else ())
    ]


def _macs(view: NodeView) -> list[dict[str, Any]]:
    return [
        {
            "Mac": each.mac.hex(":"),
            "Name": each.peer.hex(":"),
            "NickName": each.nick,
            "LastSeen": _rfc3339(view.now_s - each.age_s),
        }
        for each in (view.report.macs if view.report else ())
    ]


def _rfc3339(moment_s: float) -> str:
    moment = dt.datetime.fromtimestamp(int(moment_s), tz=dt.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
