"""The JSON report: the original's keys in its order, then what this router adds.

A list without elements is null in JSON, as the original's are (Targets, Connections, MACs, Via and
those of IPAM); the pages below ``/status``, which take their records from here too, keep ``[]``.

Added at the top level: Warnings, Pids, UptimeSeconds, Capture, Loops, MTU, BridgeRepairs, Sequence,
Counters, Forwarders; in Router: MACsTotal; in each connection: Name to RetryAt. Without a router
these are empty or null. Source of truth: node specification 11; where its keys and the vectors
differ (``Dest``, null for ``Targets``), the vectors win.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from base.counters import COUNTER_NAMES
from control.api.connections import own_connections, peer_states, record, rfc3339
from control.api.printable import ABSENT, NIL
from control.api.status import warnings
from control.api.template import OpenMap, Partial, Titled
from control.node import NodeView
from ipam.address import format_address
from ipam.status import IpamStatus, State

_PARTS: Final = frozenset(("IPAM", "DNS", "Proxy", "Plugin"))


def build(view: NodeView) -> dict[str, Any]:
    """The whole report, ready for a JSON encoder."""
    report = view.report
    return {
        "Ready": view.is_ready,
        "Version": view.version,
        "VersionCheck": Titled(
            "version check update disabled",
            {
                "Enabled": False,
                "Success": False,
                "NewVersion": "",
                "NextCheckAt": "0001-01-01T00:00:00Z",
            },
        ),
        "Router": _router(view),
        **({} if view.ipam is None else {"IPAM": _ipam(view.ipam.status)}),
        "Warnings": warnings(view),
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


def for_template(view: NodeView) -> Partial:
    """The report, of which templates may ask for the parts of the original that are switched off
    or not ours; as JSON it is the same.
    """
    return Partial(build(view), _PARTS)


def summary(view: NodeView) -> dict[str, Any]:
    """``GET /status`` as a record: what the text says, counts by state."""
    member, snapshot = view.membership, view.snapshot
    return {
        "Ready": view.is_ready,
        "Version": view.version,
        "Router": {
            **_identity(view),
            "Name": snapshot.name.hex(":"),
            "NickName": snapshot.nick,
            "Targets": len(member.targets),
            "Connections": Counter(each.state for each in member.connections),
            "Peers": len(member.peers),
            "PeerConnections": Counter(peer_states(view)),
            "TrustedSubnets": list(member.trusted_subnets),
            "Pid": view.router_pid,
            "Bridge": view.ready.bridge if view.ready else None,
            "Interface": view.ready.interface if view.ready else None,
        },
        **({} if view.ipam is None else {"IPAM": _ipam_summary(view.ipam.status)}),
        "Warnings": warnings(view),
    }


def connections(view: NodeView) -> list[dict[str, Any]]:
    """``GET /status/connections`` as records; also ``Router.Connections``."""
    return [record(each) for each in own_connections(view)]


def peers(view: NodeView) -> list[dict[str, Any]]:
    """``GET /status/peers`` as records; also ``Router.Peers``. No numbers with a peers file."""
    return [
        {
            "Name": str(peer.name),
            "NickName": peer.nick,
            "UID": peer.uid,
            "ShortID": peer.short_id,
            "Version": peer.version,
            "Connections": [
                {
                    "Name": str(link.name),
                    "NickName": link.nick,
                    "Address": link.address,
                    "Outbound": link.outbound,
                    "Established": link.established,
                }
                for link in peer.connections
            ],
        }
        for peer in view.membership.peers
    ]


def targets(view: NodeView) -> list[str]:
    """``GET /status/targets`` as records; also ``Router.Targets``."""
    return list(view.membership.targets)


def ipam_shares(view: NodeView) -> dict[str, Any] | None:
    """``GET /status/ipam`` as a record; None when addresses are not allocated."""
    if view.ipam is None:
        return None
    known = view.ipam.status
    return {
        **_ipam_summary(known),
        "RangeNumIPs": known.range_num_ips,
        "ActiveIPs": known.active_ips,
        "Peers": [
            {
                "Name": str(share.peer),
                "NickName": share.nick,
                "NumIPs": share.ip_count,
                "Reachable": share.reachable,
                "Self": share.is_ourself,
            }
            for share in known.shares
        ],
    }


def _ipam_summary(known: IpamStatus) -> dict[str, Any]:
    return {
        "Status": known.text,
        "Votes": None if known.paxos is None else known.paxos.text or None,
        "Range": str(known.range),
        "DefaultSubnet": str(known.default_subnet),
    }


def _ipam(known: IpamStatus) -> dict[str, Any]:
    """The original's record, to the letter: scripts take it apart."""
    paxos = known.paxos  # which the original does not show before it is asked
    return {
        "Paxos": ABSENT
        if paxos is None or known.state is State.IDLE
        else {
            "Elector": paxos.elector,
            "KnownNodes": paxos.known_nodes,
            "Quorum": paxos.quorum,
        },
        "Range": str(known.range),
        "RangeNumIPs": known.range_num_ips,
        "ActiveIPs": known.active_ips,
        "DefaultSubnet": str(known.default_subnet),
        "Entries": [
            {
                "Token": format_address(entry.token),
                "Size": entry.size,
                "Peer": str(entry.peer),
                "Nickname": entry.nick,
                "IsKnownPeer": entry.is_known,
                "Version": entry.version,
            }
            for entry in known.entries
        ]
        or NIL,
        "PendingClaims": [
            {
                "Ident": ident,
                "CIDR": {"Addr": format_address(cidr.addr), "PrefixLen": cidr.prefix_len},
            }
            for ident, cidr in known.pending_claims
        ]
        or NIL,
        "PendingAllocates": [f"{ident} {subnet}" for ident, subnet in known.pending_allocates]
        or NIL,
    }


def _identity(view: NodeView) -> dict[str, Any]:
    member = view.membership
    lowest, highest = member.protocol or (None, None)
    return {
        "Protocol": "static" if member.protocol is None else "weave",
        "ProtocolMinVersion": lowest,
        "ProtocolMaxVersion": highest,
        "Encryption": member.encryption,
        "PeerDiscovery": member.discovery,
    }


def _router(view: NodeView) -> dict[str, Any]:
    snapshot, report, ready, member = view.snapshot, view.report, view.ready, view.membership
    interface = None
    if ready is not None:
        interface = f"{ready.interface} (via {report.capture})" if report else ready.interface
    return {
        **_identity(view),
        "Name": snapshot.name.hex(":"),
        "NickName": snapshot.nick,
        "Port": ready.udp_port if ready else view.port,
        "Peers": [each | {"Connections": each["Connections"] or NIL} for each in peers(view)],
        "UnicastRoutes": [
            {"Dest": snapshot.name.hex(":"), "Via": "00:00:00:00:00:00"},
            *(
                {"Dest": route.dst.hex(":"), "Via": route.via.hex(":")}
                for route in snapshot.unicast
            ),
        ],
        "BroadcastRoutes": [
            {"Source": route.src.hex(":"), "Via": [peer.hex(":") for peer in route.via] or NIL}
            for route in snapshot.broadcast
        ],
        "Connections": connections(view) or NIL,
        "TerminationCount": member.terminations,
        "Targets": targets(view) or NIL,
        "OverlayDiagnostics": OpenMap(sleeve=None),
        "TrustedSubnets": list(member.trusted_subnets),
        "Interface": interface,
        "CaptureStats": _capture_stats(report.counters) if report else None,
        "MACs": _macs(view) or NIL,
        "MACsTotal": report.macs_total if report else 0,
    }


def _capture_stats(counters: dict[str, int]) -> dict[str, int]:
    """The original's three of its packet socket; a TAP port loses nothing on this side of it."""
    return OpenMap(
        PacketsDropped=0, PacketsIfDropped=0, PacketsReceived=counters.get("captured_frames", 0)
    )


def _counters(counters: dict[str, int]) -> dict[str, int]:
    """In the order of the native list; names that we do not know come last."""
    ordered = {name: counters[name] for name in COUNTER_NAMES if name in counters}
    return ordered | counters


def _forwarders(view: NodeView) -> list[dict[str, Any]]:
    return [
        {
            "Name": each.peer.hex(":"),
            "NickName": each.nick,
            "Address": each.addr,
            "State": each.state,
            "Cipher": each.cipher,
            "MTU": each.mtu,
            "PathMTU": each.pmtu_bytes or None,
            "RTTMilliseconds": each.rtt_us / 1000 if each.rtt_us else None,
            "HeardSecondsAgo": each.heard_ago_s if each.heard_ago_s >= 0 else None,
            "StackFragmentation": each.stack_frag,
            "Degraded": each.degraded or None,
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
            "LastSeen": rfc3339(view.now_s - each.age_s),
        }
        for each in (view.report.macs if view.report else ())
    ]
