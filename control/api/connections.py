"""The connections of a static node, ours and everybody's, as status and report show them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from base.names import PeerName
from control.node import NodeView
from control.static_peers import StaticPeer

#: Above this many peers a full mesh is not spelled out peer by peer in reports.
FULL_MESH_LISTED_MAX: Final = 100


@dataclass(slots=True, frozen=True)
class OwnConnection:
    """One of our links. ``state`` is "established" once datagrams arrived from there."""

    peer: bytes
    nick: str
    address: str
    outbound: bool
    state: str
    mtu: int


def own_connections(view: NodeView) -> list[OwnConnection]:
    """Our links in the order of the peers' names."""
    nicks = {peer.name: peer.nick for peer in view.snapshot.peers}
    forwarders = {each.peer: each for each in (view.report.forwarders if view.report else ())}
    result = []
    for connection in view.snapshot.connections:
        forwarder = forwarders.get(connection.peer)
        path_mtu = view.path_mtus.get(connection.peer)
        mtu = connection.mtu
        if forwarder is not None:
            mtu = forwarder.mtu
        elif path_mtu is not None:
            mtu = path_mtu.mtu
        heard = forwarder is not None and forwarder.rx_datagrams > 0
        result.append(
            OwnConnection(
                peer=connection.peer,
                nick=nicks.get(connection.peer, connection.peer.hex(":")),
                address=f"{connection.addr}:{connection.port}",
                outbound=connection.outbound,
                state="established" if heard else "pending",
                mtu=mtu,
            )
        )
    return result


def neighbours(view: NodeView) -> dict[PeerName, list[StaticPeer]]:
    """Peer → the peers it is linked with. A large full mesh lists only our own links."""
    table = view.table
    result: dict[PeerName, list[StaticPeer]] = {peer.name: [] for peer in table.peers}
    if table.links is not None:
        by_name = {peer.name: peer for peer in table.peers}
        for low, high in (link.ends for link in table.links):
            result[low].append(by_name[high])
            result[high].append(by_name[low])
        return result
    spelled_out = len(table.peers) <= FULL_MESH_LISTED_MAX
    for peer in table.peers:
        if spelled_out or peer.name.octets == view.snapshot.name:
            result[peer.name] = [other for other in table.peers if other is not peer]
    return result


def link_ends(view: NodeView) -> int:
    """How many connections all peers together report: two per link."""
    count = len(view.table.peers)
    return count * (count - 1) if view.table.links is None else 2 * len(view.table.links)


def by_state(connections: list[OwnConnection]) -> Iterator[tuple[str, int]]:
    """Non-zero counts in the order of the status line."""
    for state in ("established", "pending"):
        count = sum(1 for connection in connections if connection.state == state)
        if count:
            yield state, count
