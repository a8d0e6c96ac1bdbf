"""The mesh as status and reports show it; see control/node.py."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from base.names import PeerName
from control.node import ConnectionView, LinkView, Membership, PeerView
from mesh.core import MeshCore
from mesh.peer import Peer
from mesh.status import connection_statuses, target_statuses

#: Weave Net's name for its datapath in the kernel.
FAST: Final = "fastdp"


def membership(core: MeshCore, now: float, warnings: Iterable[str] = ()) -> Membership:
    """A picture of the mesh at ``now`` (the core's clock)."""
    options = core.options
    return Membership(
        protocol=options.versions,
        encryption=options.password is not None,
        discovery=options.discovery,
        targets=tuple(core.maker.direct),
        peers=tuple(_peers(core)),
        connections=tuple(_connections(core, now)),
        trusted_subnets=tuple(str(subnet) for subnet in options.trusted_subnets),
        terminations=core.maker.terminations,
        warnings=tuple(warnings),
    )


def _peers(core: MeshCore) -> Iterable[PeerView]:
    nicks = {peer.name: peer.nick for peer in core.peers}
    for peer in sorted(core.peers, key=lambda peer: peer.name):
        yield PeerView(
            name=peer.name,
            nick=peer.nick,
            uid=peer.uid,
            short_id=peer.short_id,
            version=peer.version,
            connections=tuple(_links(peer, nicks)),
        )


def _links(peer: Peer, nicks: dict[PeerName, str]) -> Iterable[LinkView]:
    for name, record in sorted(peer.connections.items()):
        yield LinkView(
            name=name,
            nick=nicks.get(name, ""),
            address=record.addr,
            outbound=record.outbound,
            established=record.established,
        )


def _connections(core: MeshCore, now: float) -> Iterable[ConnectionView]:
    for own in connection_statuses(core, now):
        yield ConnectionView(
            address=own.addr,
            outbound=own.outbound,
            state=own.state,
            peer=own.peer,
            nick=own.nick,
            overlay=" ".join(own.overlays),
            sealed=own.sealed,
            fast=FAST in own.offered,
        )
    for target in target_statuses(core, now):
        yield ConnectionView(
            address=target.addr,
            outbound=True,
            state=target.state,
            overlay="",
            error=target.last_error,
            retry_in_s=target.retry_in_s,
        )
