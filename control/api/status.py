"""Status texts in the form that operators know. Source of truth: node specification 11, vectors."""

from __future__ import annotations

from base.names import format_peer
from control.api.connections import by_state, link_ends, neighbours, own_connections
from control.node import NodeView


def _line(key: str, value: object) -> str:
    return f"{key:>15}: {value}\n"


def summary(view: NodeView) -> str:
    """``GET /status``. Ends in a newline; the command adds the blank lines around."""
    connections = own_connections(view)
    states = ", ".join(f"{count} {state}" for state, count in by_state(connections))
    ends = link_ends(view)
    peers = f"{len(view.table.peers)}" + (f" (with {ends} static connections)" if ends else "")
    router = "not running"
    if view.ready is not None:
        router = f"ready (pid {view.router_pid}, {view.ready.bridge} by {view.ready.interface})"
    elif view.router_pid is not None:
        router = f"starting (pid {view.router_pid})"
    return (
        _line("Version", f"{view.version} (version check disabled)")
        + "\n"
        + _line("Service", "router")
        + _line("Protocol", "none (static peers)")
        + _line("Name", _peer(view, view.snapshot.name))
        + _line("Router", router)
        + _line("Encryption", "disabled")
        + _line("PeerDiscovery", "disabled")
        + _line("Targets", len(connections))
        + _line("Connections", f"{len(connections)}" + (f" ({states})" if states else ""))
        + _line("Peers", peers)
        + _line("TrustedSubnets", "none")
    )


def connections(view: NodeView) -> str:
    """``GET /status/connections``: one line per link of ours."""
    return "".join(
        f"{_arrow(each.outbound)} {each.address:<21} {each.state:<11} "
        f"{'sleeve':<6} {each.peer.hex(':')}({each.nick}) mtu={each.mtu}\n"
        for each in own_connections(view)
    )


def peers(view: NodeView) -> str:
    """``GET /status/peers``: every peer and the links it has."""
    states = {each.peer: each.state for each in own_connections(view)}
    lines = []
    linked = neighbours(view)
    for peer in view.table.peers:
        lines.append(f"{format_peer(peer.name, peer.nick)}\n")
        for other in linked[peer.name]:
            state = "established"
            if peer.name.octets == view.snapshot.name:
                state = states.get(other.name.octets, "pending")
            lines.append(
                f"   {_arrow(peer.name < other.name)} {f'{other.addr}:{other.port}':<21} "
                f"{format_peer(other.name, other.nick):<37} {state}\n"
            )
    return "".join(lines)


def targets(view: NodeView) -> str:
    """``GET /status/targets``: the addresses of our neighbours."""
    return "".join(f"{each.address}\n" for each in own_connections(view))


def _arrow(outbound: bool) -> str:
    return "->" if outbound else "<-"


def _peer(view: NodeView, name: bytes) -> str:
    return f"{name.hex(':')}({view.nick(name)})"
