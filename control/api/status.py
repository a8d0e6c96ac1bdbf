"""Status texts in the form that operators know. Source of truth: node specification 11, vectors.

The original's lines come first, word for word; ours (Router, Warning, attributes behind ``mtu=``)
only add to them. Text that other routers chose is escaped.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from base.names import format_peer
from control.api.connections import OwnConnection, count_states, own_connections, peer_states
from control.api.printable import printable
from control.node import NodeView, PeerView
from ipam.status import IpamStatus, PeerShare

#: What Weave's fast datapath gives a bridge (node specification 2.3).
FAST_MTU: Final = 1376


def _line(key: str, value: object) -> str:
    return f"{key:>15}: {value}\n"


def summary(view: NodeView) -> str:
    """``GET /status``. Ends in a newline; the command adds the blank lines around."""
    member = view.membership
    protocol = "none (static peers)"
    if member.protocol is not None:
        lowest, highest = member.protocol
        protocol = f"weave {highest}" if lowest == highest else f"weave {lowest}..{highest}"
    states = count_states(each.state for each in member.connections)
    name = f"{view.snapshot.name.hex(':')}({printable(view.snapshot.nick)})"
    return (
        _line("Version", f"{view.version} (version check update disabled)")
        + "\n"
        + _line("Service", "router")
        + _line("Protocol", protocol)
        + _line("Name", name)
        + _line("Encryption", _enabled(member.encryption))
        + _line("PeerDiscovery", _enabled(member.discovery))
        + _line("Targets", len(member.targets))
        + _line("Connections", f"{len(member.connections)}" + (f" ({states})" if states else ""))
        + _line("Peers", f"{len(member.peers)}{_peer_connections(view)}")
        + _line("TrustedSubnets", ", ".join(member.trusted_subnets) or "none")
        + _line("Router", _router(view))
        + "".join(_line("Warning", printable(warning)) for warning in warnings(view))
        + (_ipam_summary(view.ipam.status) if view.ipam is not None else "")
    )


def warnings(view: NodeView) -> list[str]:
    """Sentences that an operator should read."""
    found = [*view.membership.warnings, *_narrow_peers(view)]
    if view.ipam is not None:
        if view.ipam.trouble is not None:
            found.append(f"addresses cannot be recorded: {view.ipam.trouble}")
        found += view.ipam.status.conflicts
    if view.host is not None:
        found += view.host.warnings
    return found


def _narrow_peers(view: NodeView) -> Iterator[str]:
    """Peers whose bridge, unless told otherwise, takes less than ours sends."""
    fast = [
        format_peer(each.peer, each.nick)
        for each in view.membership.connections
        if each.fast and each.peer is not None
    ]
    if fast and view.ready is not None and view.ready.mtu > FAST_MTU:
        yield (
            f"{', '.join(fast)}: with Weave's fast datapath a bridge takes packets of {FAST_MTU} "
            f"bytes unless told otherwise, and loses those of up to {view.ready.mtu} sent from "
            f"here; launch with --mtu {FAST_MTU}"
        )


def _ipam_summary(known: IpamStatus) -> str:
    return (
        "\n"
        + _line("Service", "ipam")
        + _line("Status", known.text)
        + (_line("Votes", printable(known.paxos.text)) if known.paxos and known.paxos.text else "")
        + _line("Range", known.range)
        + _line("DefaultSubnet", known.default_subnet)
    )


def _enabled(yes: bool) -> str:
    return "enabled" if yes else "disabled"


def _peer_connections(view: NodeView) -> str:
    states = peer_states(view)
    if view.membership.protocol is None and states:
        return f" (with {len(states)} static connections)"
    return f" (with {count_states(states)} connections)" if states else ""


def _router(view: NodeView) -> str:
    if view.ready is not None:
        return f"ready (pid {view.router_pid}, {view.ready.bridge} by {view.ready.interface})"
    return "not running" if view.router_pid is None else f"starting (pid {view.router_pid})"


def connections(view: NodeView) -> str:
    """``GET /status/connections``: one line per connection of ours, and per target without."""
    return "".join(_connection(each) for each in own_connections(view))


def _connection(each: OwnConnection) -> str:
    head = f"{_arrow(each.view.outbound)} {printable(each.view.address):<21} {each.view.state:<11}"
    # the space at the end of a line without attributes is the original's, too
    return f"{head} {printable(each.info)} {' '.join(_attributes(each))}\n"


def _attributes(each: OwnConnection) -> Iterator[str]:
    if each.is_target:
        return
    if each.view.sealed:
        yield "encrypted=true"
    if each.mtu:
        yield f"mtu={each.mtu}"
    if each.cipher != "none":
        yield f"cipher={each.cipher}"
    if each.rtt_us:
        rtt_ms = each.rtt_us / 1000
        yield f"rtt={rtt_ms:.1f}ms" if rtt_ms >= 0.1 else f"rtt={rtt_ms:.2f}ms"
    if each.degraded:
        said = printable(each.degraded).replace('"', "'")
        yield f'degraded="{said}"'


def peers(view: NodeView) -> str:
    """``GET /status/peers``: every peer and the connections that it reports."""
    return "".join(_peer(peer) for peer in view.membership.peers)


def _peer(peer: PeerView) -> str:
    lines = [f"{format_peer(peer.name, printable(peer.nick))}\n"]
    lines += [
        f"   {_arrow(link.outbound)} {printable(link.address):<21} "
        f"{format_peer(link.name, printable(link.nick)):<37} "
        f"{'established' if link.established else 'pending'}\n"
        for link in peer.connections
    ]
    return "".join(lines)


def targets(view: NodeView) -> str:
    """``GET /status/targets``: the peers that the user wants, as given."""
    return "".join(f"{printable(target)}\n" for target in view.membership.targets)


def ipam(view: NodeView) -> str | None:
    """``GET /status/ipam``: who owns how much; None when addresses are not allocated."""
    if view.ipam is None:
        return None
    return "".join(_share(share, view.ipam.status) for share in view.ipam.status.shares)


def _share(share: PeerShare, known: IpamStatus) -> str:
    percent = 100 * share.ip_count / known.range_num_ips
    note = ""
    if share.is_ourself:
        note = f"({known.active_ips} active)"
    elif not share.reachable:
        note = "- unreachable!"
    who = format_peer(share.peer, printable(share.nick))
    # the space at the end of a line without a note is the original's, too
    return f"{who:<37} {share.ip_count:>8} IPs ({percent:04.1f}% of total) {note}\n"


def _arrow(outbound: bool) -> str:
    return "->" if outbound else "<-"
