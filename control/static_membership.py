"""A peers file as status and reports show it; see control/node.py."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from base.ipc import RouterReport, Snapshot
from control.node import ConnectionView, LinkView, Membership, PeerView
from control.static_peers import PeerTable, StaticPeer

#: Above this many peers a full mesh is not spelled out peer by peer in reports.
FULL_MESH_LISTED_MAX: Final = 100


def membership(table: PeerTable, snapshot: Snapshot, report: RouterReport | None) -> Membership:
    """A picture of the table; a link counts as established once datagrams arrived over it."""
    heard = {each.peer for each in (report.forwarders if report else ()) if each.rx_datagrams}
    nicks = {peer.name.octets: peer.nick for peer in table.peers}
    by_octets = {peer.name.octets: peer for peer in table.peers}
    connections = tuple(
        ConnectionView(
            address=f"{connection.addr}:{connection.port}",
            outbound=connection.outbound,
            state="established" if connection.peer in heard else "pending",
            peer=by_octets[connection.peer].name,
            nick=nicks[connection.peer],
        )
        for connection in snapshot.connections
        if connection.peer in by_octets
    )
    return Membership(
        protocol=None,
        encryption=False,
        discovery=False,
        targets=tuple(connection.address for connection in connections),
        peers=tuple(_peers(table, snapshot.name, heard)),
        connections=connections,
    )


def _peers(table: PeerTable, ourself: bytes, heard: set[bytes]) -> Iterable[PeerView]:
    linked = _linked(table, ourself)
    for peer in table.peers:
        ours = peer.name.octets == ourself
        yield PeerView(
            name=peer.name,
            nick=peer.nick,
            connections=tuple(
                LinkView(
                    name=other.name,
                    nick=other.nick,
                    address=f"{other.addr}:{other.port}",
                    outbound=peer.name < other.name,
                    established=not ours or other.name.octets in heard,
                )
                for other in linked[peer.name.octets]
            ),
        )


def _linked(table: PeerTable, ourself: bytes) -> Mapping[bytes, list[StaticPeer]]:
    """Peer → the peers it is linked with. A large full mesh lists only our own links."""
    linked: dict[bytes, list[StaticPeer]] = {peer.name.octets: [] for peer in table.peers}
    if table.links is not None:
        by_name = {peer.name: peer for peer in table.peers}
        for low, high in (link.ends for link in table.links):
            linked[low.octets].append(by_name[high])
            linked[high.octets].append(by_name[low])
        return linked
    spelled_out = len(table.peers) <= FULL_MESH_LISTED_MAX
    for peer in table.peers:
        if spelled_out or peer.name.octets == ourself:
            linked[peer.name.octets] = [other for other in table.peers if other is not peer]
    return linked
