"""Where gossip goes: to channel owners here, to neighbours, along broadcast and unicast routes.

Choices of neighbours that fall between a change and the recalculation of routes wait for it, a
tenth of a second at most; what waits for the same channel is merged. Topology itself is one of the
channels.

Source of truth: mesh specification 9 and 10.7.
"""

from __future__ import annotations

import bisect
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from base.errors import RemoteProtocolError
from base.names import PeerName
from mesh.connection import Connection
from mesh.gossip import GossipData, Gossiper, Surrogate
from mesh.local_peer import LocalPeer
from mesh.peers import Merge, Peers
from mesh.protocol import Envelope, Tag, decode_envelope, encode_envelope
from mesh.route_table import RouteTable
from mesh.topology import CHANNEL

SURROGATES_MAX: Final = 64
#: Records in one round of periodic topology gossip.
PART_RECORDS: Final = 64
_UPDATE_BYTES: Final = 1024 * 1024


@dataclass(slots=True, frozen=True)
class TopologyData:
    """Names whose records are to be sent as they are at that time."""

    peers: Peers
    names: frozenset[PeerName]

    def encode(self) -> list[bytes]:
        """Updates of about a megabyte at most: a thousand peers would not fit one message."""
        updates: list[bytes] = []
        batch: list[PeerName] = []
        size = 0
        for name in sorted(self.names):
            peer = self.peers.get(name)
            if peer is None:
                continue
            batch.append(name)
            size += 64 + 32 * len(peer.connections)
            if size > _UPDATE_BYTES:
                updates.append(self.peers.encode(batch))
                batch, size = [], 0
        if batch:
            updates.append(self.peers.encode(batch))
        return updates

    def merge(self, other: GossipData) -> GossipData:
        """The names of both."""
        if not isinstance(other, TopologyData):
            raise AssertionError("topology merges with topology only")
        return TopologyData(self.peers, self.names | other.names)


class TopologyGossiper:
    """Owner of the topology channel; what merges did is taken with :meth:`take_merges`.

    News of a peer that nothing leads to is held back until something does. The original passes it
    on, so that the last record of a dead peer goes round and round between routers that have
    collected it and take it for new.
    """

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._merges: list[Merge] = []
        self._cursor: PeerName | None = None
        self._held: frozenset[PeerName] = frozenset()

    @property
    def has_news(self) -> bool:
        """Whether a merge since the last :meth:`take_merges` changed any record."""
        return any(merge.changed for merge in self._merges)

    def next_part(self, rng: random.Random) -> GossipData:
        """The periodic share: all records of a small mesh, of a large one the next few and ours.

        The original sends all of them every time, so the bytes grow with the cube of the mesh: a
        record is as long as its peer has connections. News travels at once and does not need this;
        it mends what was missed, and as every neighbour is at another place of the table, a round
        of all of them together still brings nearly everything.
        """
        names = sorted(self._peers.reachable())
        if len(names) <= PART_RECORDS:
            return self.data(names)
        if self._cursor is None:
            self._cursor = rng.choice(names)
        start = bisect.bisect_right(names, self._cursor)
        part = [names[(start + step) % len(names)] for step in range(PART_RECORDS)]
        self._cursor = part[-1]
        return self.data([*part, self._peers.ourself.name])

    def take_merges(self) -> list[Merge]:
        """What was merged since the last call."""
        taken, self._merges = self._merges, []
        return taken

    def data(self, names: Iterable[PeerName]) -> TopologyData:
        """Gossip about ``names``."""
        return TopologyData(self._peers, frozenset(names))

    def on_unicast(self, source: PeerName, _data: bytes, _now: float) -> None:
        """There is no such thing. Raises RemoteProtocolError."""
        raise RemoteProtocolError(f"unexpected topology gossip unicast from {source}")

    def on_broadcast(self, _source: PeerName, data: bytes, _now: float) -> GossipData | None:
        """Merge; all that was received goes on."""
        names = self._merge(data).names
        return self.data(names) if names else None

    def on_gossip(self, data: bytes, _now: float) -> GossipData | None:
        """Merge; the news goes on."""
        news = self._merge(data).changed
        if not news:
            return None
        news |= self._held
        names = news & self._peers.reachable()
        self._held = (news - names) & self._peers.names()
        return self.data(names) if names else None

    def complete(self) -> GossipData | None:
        """All peers that something leads to."""
        return self.data(self._peers.reachable())

    def _merge(self, update: bytes) -> Merge:
        merge = self._peers.apply_update(update)
        self._merges.append(merge)
        return merge


class GossipRouter:
    """Channels and their traffic over our connections."""

    def __init__(
        self, peers: Peers, local: LocalPeer, routes: RouteTable, rng: random.Random
    ) -> None:
        self.topology = TopologyGossiper(peers)
        #: While set, choices that depend on routes wait for :meth:`routes_calculated`.
        self.routes_pending = False
        #: Unicasts that could not be passed on.
        self.unicasts_lost = 0
        self._ourself = peers.ourself.name
        self._local = local
        self._routes = routes
        self._rng = rng
        self._channels: dict[str, Gossiper] = {CHANNEL: self.topology}
        self._surrogates: dict[str, Surrogate] = {}
        self._waiting: dict[tuple[str, PeerName | None, PeerName | None], GossipData] = {}
        self._overflowed: list[Connection] = []

    def register(self, channel: str, gossiper: Gossiper) -> None:
        """Make ``gossiper`` the owner of ``channel``."""
        self._surrogates.pop(channel, None)
        self._channels[channel] = gossiper

    def take_overflowed(self) -> list[Connection]:
        """Connections whose queue is full since the last call."""
        taken, self._overflowed = self._overflowed, []
        return taken

    # --- receiving -------------------------------------------------------------------------------

    def receive(self, tag: int, payload: bytes, now: float) -> None:
        """A gossip message from a neighbour.

        Raises:
            RemoteProtocolError: it is damaged, or its channel's owner refuses it.
        """
        envelope = decode_envelope(tag, payload)
        channel = envelope.channel
        if envelope.destination is not None:
            if envelope.destination == self._ourself:
                if (owner := self._owner(channel)) is not None:
                    owner.on_unicast(envelope.source, envelope.data, now)
            else:
                self._forward(envelope.destination, payload)
            return
        owner = self._owner(channel)
        if owner is None:
            return
        if tag == Tag.GOSSIP_BROADCAST:
            data = owner.on_broadcast(envelope.source, envelope.data, now)
            if data is not None:
                self._choose(channel, envelope.source, None, data)
        else:
            data = owner.on_gossip(envelope.data, now)
            # news of the topology changes whom it should go to
            self.routes_pending |= self.topology.has_news
            if data is not None:
                self._choose(channel, None, envelope.source, data)

    def _owner(self, channel: str) -> Gossiper | None:
        """The channel's owner or surrogate; None when there are too many surrogates already."""
        if (owner := self._channels.get(channel)) is not None:
            return owner
        if channel not in self._surrogates:
            if len(self._surrogates) >= SURROGATES_MAX:
                return None
            self._surrogates[channel] = Surrogate()
        return self._surrogates[channel]

    # --- sending ---------------------------------------------------------------------------------

    def send_unicast(self, channel: str, destination: PeerName, data: bytes) -> bool:
        """Send to one peer, wherever it is; False when there is no way to it now."""
        envelope = Envelope(channel, self._ourself, data, destination)
        return self._forward(destination, encode_envelope(envelope))

    def broadcast(self, channel: str, data: GossipData) -> None:
        """Send to every peer."""
        self._choose(channel, self._ourself, None, data)

    def relay(self, channel: str, source: PeerName, data: GossipData) -> None:
        """Pass on a broadcast of ``source`` that its owner held back until it was ready."""
        self._choose(channel, source, None, data)

    def gossip(self, channel: str, data: GossipData) -> None:
        """Send to a few neighbours."""
        self._choose(channel, None, None, data)

    def gossip_everything(self) -> None:
        """Periodic: the state of each channel to a few neighbours."""
        for channel, owner in self._channels.items():
            data = self.topology.next_part(self._rng) if channel == CHANNEL else owner.complete()
            if data is not None:
                self.gossip(channel, data)

    def send_everything_down(self, connection: Connection) -> None:
        """The complete state of each channel to a neighbour that may have missed it."""
        for channel, owner in self._channels.items():
            if (data := owner.complete()) is not None:
                connection.queue.add_gossip(channel, data)

    def routes_calculated(self) -> None:
        """Send what waited."""
        self.routes_pending = False
        waiting, self._waiting = self._waiting, {}
        for (channel, source, exclude), data in waiting.items():
            self._choose(channel, source, exclude, data)

    def _choose(
        self, channel: str, source: PeerName | None, exclude: PeerName | None, data: GossipData
    ) -> None:
        """Queue at the neighbours chosen: the broadcast route of ``source``, or random ones."""
        if self.routes_pending:
            key = (channel, source, exclude)
            before = self._waiting.get(key)
            self._waiting[key] = data if before is None else before.merge(data)
            return
        if source is not None:
            for name in self._routes.gossip_broadcast(source):
                if (connection := self._local.get(name)) is not None:
                    connection.queue.add_broadcast(channel, source, data)
            return
        for name in self._routes.random_neighbours(self._rng, exclude):
            if (connection := self._local.get(name)) is not None:
                connection.queue.add_gossip(channel, data)

    def _forward(self, destination: PeerName, payload: bytes) -> bool:
        hop = self._routes.gossip_hop(destination)
        connection = self._local.get(hop) if hop is not None else None
        if connection is None:
            self.unicasts_lost += 1
            return False
        if not connection.queue.add_message(Tag.GOSSIP_UNICAST, payload):
            self._overflowed.append(connection)
            return False
        return True
