"""IPAM's channels in the mesh: messages to the allocator, and where its own ones go.

What an input causes is not sent from within the input: it leaves when it is durable, so a broadcast
of another peer is passed on later, by :meth:`MeshChannel.broadcast`. State is turned into bytes
when a connection is ready for it, as everywhere in the mesh.

Source of truth: ipam specification 7; mesh specification 9.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from base.names import PeerName
from ipam.allocator import Allocator
from ipam.options import CHANNEL, KnownPeer
from ipam.outside import OUTSIDE_CHANNEL, Outside
from mesh.core import CONNECT_TO_SELF, MeshCore
from mesh.gossip import Blobs, GossipData
from mesh.maker import join_addr
from mesh.node import MeshNode


class Channel(Protocol):
    """Where the service sends to."""

    def send(self, peer: PeerName, data: bytes) -> bool:
        """One message to one peer; False when there is no way to it."""

    def broadcast(self, source: PeerName | None) -> None:
        """Our state to every peer, or along the route of ``source``'s broadcasts."""

    def tell_outside(self) -> None:
        """Our addresses outside the range to every peer."""

    def flush(self) -> None:
        """That was all for now."""


@dataclass(slots=True, frozen=True)
class AllocatorState:
    """The allocator's state as gossip: that of the moment at which it is sent."""

    allocator: Allocator

    def encode(self) -> list[bytes]:
        """One payload."""
        return [self.allocator.encode_state()]

    def merge(self, _: GossipData) -> GossipData:
        """Later data of this channel is the same state, later."""
        return self


@dataclass(slots=True, frozen=True)
class OutsideList:
    """Our addresses outside the range as gossip: those of the moment at which it is sent."""

    outside: Outside

    def encode(self) -> list[bytes]:
        """One payload."""
        return [self.outside.encode()]

    def merge(self, _: GossipData) -> GossipData:
        """Later data of this channel is the same list, later."""
        return self


class OutsideChannel:
    """The other channel. Broadcasts go on as they came: they are their senders' own words."""

    def __init__(self, outside: Outside, wake: Callable[[], None]) -> None:
        self._outside = outside
        self._wake = wake

    def on_unicast(self, _source: PeerName, _data: bytes, _now: float) -> None:
        """There are none."""

    def on_broadcast(self, source: PeerName, data: bytes, now: float) -> GossipData | None:
        """A peer's list, passed on whether we can read it or not."""
        self._outside.on_broadcast(source, data, now)
        self._wake()
        return Blobs((data,))

    def on_gossip(self, _data: bytes, _now: float) -> GossipData | None:
        """There is none."""
        return None

    def complete(self) -> GossipData | None:
        """Lists are told by broadcast only."""
        return None


class MeshChannel:
    """The channel on a mesh. ``wake`` is called after every input, to have its outcome handled."""

    def __init__(self, node: MeshNode, allocator: Allocator, wake: Callable[[], None]) -> None:
        self._node = node
        self._allocator = allocator
        self._state = AllocatorState(allocator)
        self._wake = wake
        self._topology: tuple[KnownPeer, ...] = ()
        self._targets = -1
        #: Configured peers that the mesh cannot look for yet.
        self.unresolved: Callable[[], int] = _none
        self._outside = OutsideList(allocator.outside)
        node.core.register(CHANNEL, self)
        node.core.register(OUTSIDE_CHANNEL, OutsideChannel(allocator.outside, wake))

    # --- to the mesh -----------------------------------------------------------------------------

    def send(self, peer: PeerName, data: bytes) -> bool:
        """One message to one peer; False when there is no way to it."""
        return self._node.core.send_unicast(CHANNEL, peer, data, self._node.now())

    def broadcast(self, source: PeerName | None) -> None:
        """Our state to every peer, or along the route of ``source``'s broadcasts."""
        if source is None:
            self._node.core.broadcast(CHANNEL, self._state)
        else:
            self._node.core.relay(CHANNEL, source, self._state)

    def tell_outside(self) -> None:
        """Our addresses outside the range to every peer."""
        self._node.core.broadcast(OUTSIDE_CHANNEL, self._outside)

    def flush(self) -> None:
        """Have the mesh send what was queued."""
        self._node.pump()

    # --- from the mesh (mesh.gossip.Gossiper) ----------------------------------------------------

    def on_unicast(self, source: PeerName, data: bytes, now: float) -> None:
        """A message for us alone. Raises RemoteProtocolError."""
        try:
            self._allocator.on_unicast(source, data, now)
        finally:
            self._wake()

    def on_broadcast(self, source: PeerName, data: bytes, now: float) -> None:
        """A broadcast; it goes on when its outcome is durable. Raises RemoteProtocolError."""
        try:
            self._allocator.on_broadcast(source, data, now)
        finally:
            self._wake()

    def on_gossip(self, data: bytes, now: float) -> None:
        """A neighbour's state; never passed on. Raises RemoteProtocolError."""
        try:
            self._allocator.on_gossip(data, now)
        finally:
            self._wake()

    def complete(self) -> GossipData | None:
        """All of our state."""
        return self._state

    # --- the topology ----------------------------------------------------------------------------

    def topology_changed(self, gone: tuple[PeerName, ...] = ()) -> None:
        """Peers, routes or targets changed; ``gone`` are peers that were forgotten."""
        core, now = self._node.core, self._node.now()
        if gone:
            self._allocator.peers_gone(gone, now)
        reachable = core.peers.reachable()
        peers = tuple(
            KnownPeer(peer.name, peer.nick, peer.uid)
            for peer in core.peers
            if peer.name in reachable
        )
        if peers != self._topology:
            self._topology = peers
            self._allocator.set_topology(peers, now)
        if (targets := _count_targets(core) + self.unresolved()) != self._targets:
            self._targets = targets
            self._allocator.set_targets(targets, now)
        self._wake()


def _none() -> int:
    """All are looked for."""
    return 0


def _count_targets(core: MeshCore) -> int:
    """Peers that the user gave, without those that turned out to be ourselves."""
    maker = core.maker
    found = 0
    for peer in maker.direct.values():
        port = maker.port if peer.port is None else peer.port
        target = maker.targets.get(join_addr(peer.ip, port))
        found += target is None or target.last_error != CONNECT_TO_SELF
    return found
