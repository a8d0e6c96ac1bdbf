"""The mesh of one router, without sockets and clocks.

In go connections (accepted, dialled), their bytes, the user's peers, and the time; out come events
(:mod:`mesh.events`), bytes for each connection, and the next deadline. One thing happens at a time:

    bytes ─▶ Connection ─▶ introduced ─▶ admission ─▶ ConnectionAdded
                       └─▶ gossip ─▶ GossipRouter ─▶ peers, routes, other connections' queues
    time  ─▶ heartbeats, read time-outs, deferred updates, collection, routes, targets

A connection is added before any of its messages is read: topology learned through it would be
collected at once otherwise. When one goes, peers are collected before our news is sent, so that it
cannot bring the unreachable back.

Source of truth: mesh specification 6, 7.3, 10.4 to 10.7.
"""

from __future__ import annotations

import ipaddress
import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from base.errors import CryptoError, PasswordMismatchError, ProtocolError, WeftError
from base.names import PeerName
from mesh import events
from mesh.connection import Connection, ConnectionState, Message
from mesh.features import SHORT_ID_BITS, Features
from mesh.gossip import GOSSIP_INTERVAL_S, GossipData, Gossiper
from mesh.gossip_router import GossipRouter
from mesh.intro import VERSION_MAX, VERSION_MIN, VERSION_SEALED, Intro, IntroDone
from mesh.local_peer import LocalPeer
from mesh.maker import Attempt, ConnectionMaker, DirectPeer, OwnConnection, split_addr
from mesh.namesakes import Namesakes, Twins
from mesh.peer import Peer
from mesh.peers import Peers
from mesh.protocol import GOSSIP_TAGS, OVERLAY_TAGS, Tag
from mesh.route_table import DEFERRAL_S, RouteTable
from mesh.timers import Timers
from mesh.topology import CHANNEL

DEFAULT_PORT: Final = 6783
CONN_LIMIT: Final = 200
#: Inbound connections that have not introduced themselves yet.
HANDSHAKES_MAX: Final = 64
UPDATE_DEFERRAL_S: Final = 1.0
COLLECT_DELAY_S: Final = 1.0
CONNECT_TO_SELF: Final = "cannot connect to ourself"

_GOSSIP, _UPDATE, _COLLECT, _ROUTES, _MAKER = "gossip", "update", "collect", "routes", "maker"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(slots=True, frozen=True)
class MeshOptions:
    """What this router is and may do. ``uid`` is random per process run and not 0.

    ``password`` None means no encryption. ``version_min`` is the lowest version of the protocol to
    speak; None: any without a password, with one those that seal the introduction. ``overlays`` are
    ours in order of preference, ``features`` further keys of the introduction. Connections are
    numbered from ``first_conn`` on.
    """

    name: PeerName
    nick: str
    uid: int
    port: int = DEFAULT_PORT
    password: bytes | None = field(default=None, repr=False)
    version_min: int | None = None
    conn_limit: int = CONN_LIMIT
    discovery: bool = True
    trusted_subnets: tuple[Network, ...] = ()
    overlays: tuple[str, ...] = ("sleeve",)
    features: tuple[tuple[str, str], ...] = ()
    first_conn: int = 1

    @property
    def versions(self) -> tuple[int, int]:
        """The lowest and the highest version to speak."""
        lowest = VERSION_SEALED if self.password else VERSION_MIN
        return (self.version_min or lowest, VERSION_MAX)


class MeshCore:
    """See the module. ``rng`` gives short IDs, connection IDs, jitter and choices of neighbours."""

    def __init__(self, options: MeshOptions, now: float, rng: random.Random) -> None:
        self.options = options
        self._rng = rng
        ourself = Peer(options.name, options.nick, options.uid)
        ourself.short_id = rng.getrandbits(SHORT_ID_BITS)
        self.peers = Peers(ourself, rng)
        self.local = LocalPeer(self.peers, options.conn_limit)
        self.routes = RouteTable(self.peers)
        self.gossip = GossipRouter(self.peers, self.local, self.routes, rng)
        self.maker = ConnectionMaker(
            options.name, port=options.port, discovery=options.discovery, rng=rng
        )
        #: Messages with unknown tags, and overlay control messages that make no sense.
        self.messages_ignored = 0
        self._connections: dict[int, Connection] = {}
        self._dialling: dict[int, Attempt] = {}
        self._introducing: set[int] = set()
        self._next_ident = options.first_conn
        self._events: list[events.Event] = []
        self._namesakes = Namesakes()
        self._twins = Twins()
        self._to_tell: set[PeerName] = set()
        self._timers: Timers[str | int] = Timers()
        self._timers.set(_GOSSIP, now + GOSSIP_INTERVAL_S)
        self._timers.set(_MAKER, now)

    # --- what comes out --------------------------------------------------------------------------

    def take_events(self) -> list[events.Event]:
        """Events since the last call, oldest first."""
        taken, self._events = self._events, []
        return taken

    def ready(self) -> Iterator[int]:
        """Connections that have bytes to send."""
        for ident, connection in self._connections.items():
            if connection.wants_to_send:
                yield ident

    def bytes_to_send(self, ident: int, now: float) -> bytes:
        """Bytes of one connection; call when its socket has taken the last ones."""
        connection = self._connections.get(ident)
        if connection is None:
            return b""
        try:
            return connection.bytes_to_send()
        except CryptoError as err:
            self._end(connection, str(err), now)
            return b""

    def next_deadline(self) -> float | None:
        """When :meth:`timeout` is to be called at the latest."""
        return self._timers.next_deadline()

    def connections(self) -> list[Connection]:
        """All, introduced or not."""
        return list(self._connections.values())

    # --- the user and the owners of channels -----------------------------------------------------

    def register(self, channel: str, gossiper: Gossiper) -> None:
        """Make ``gossiper`` the owner of ``channel``; best done before any connection."""
        self.gossip.register(channel, gossiper)

    def connect(self, peers: Iterable[DirectPeer], now: float, *, replace: bool = False) -> None:
        """Keep connected to ``peers``, with ``replace`` to no others."""
        self.maker.add(peers, replace=replace, now=now)
        self._evaluate_soon(now)

    def forget(self, texts: Iterable[str], now: float) -> None:
        """Stop connecting to these; connections stay."""
        self.maker.forget(texts)
        self._evaluate_soon(now)

    def send_unicast(self, channel: str, destination: PeerName, data: bytes, now: float) -> bool:
        """One message to one peer; False when it cannot be reached now."""
        sent = self.gossip.send_unicast(channel, destination, data)
        self._after_gossip(now)
        return sent

    def broadcast(self, channel: str, data: GossipData) -> None:
        """Channel state for every peer."""
        self.gossip.broadcast(channel, data)

    def relay(self, channel: str, source: PeerName, data: GossipData) -> None:
        """Channel state along the broadcast route of ``source``, whose broadcast is passed on."""
        self.gossip.relay(channel, source, data)

    def gossip_neighbours(self, channel: str, data: GossipData) -> None:
        """Channel state for a few neighbours."""
        self.gossip.gossip(channel, data)

    # --- the overlay's side of a connection ------------------------------------------------------

    def send_overlay_control(
        self, ident: int, overlay: str, kind: int, data: bytes, now: float
    ) -> None:
        """Send a control message (``kind`` is the sub-tag) to the same overlay over there."""
        connection = self._connections.get(ident)
        if connection is None or overlay not in connection.overlays:
            return
        if connection.compatible:
            queued = connection.queue.add_message(kind, data)
        else:
            index = connection.overlays.index(overlay)
            queued = connection.queue.add_message(Tag.OVERLAY_CONTROL, bytes((index, kind)) + data)
        if not queued:
            self._end(connection, "peer does not read", now)

    def overlay_established(self, ident: int, now: float) -> None:
        """The neighbour has acknowledged our datagrams."""
        connection = self._connections.get(ident)
        if connection is None or connection.peer is None or not connection.registered:
            return
        if connection.state is ConnectionState.PENDING:
            self.local.establish(connection)
            self._events.append(events.ConnectionEstablished(ident, connection.peer.name))
            self._recalculate_soon(now)
            self._tell({self.options.name}, now)

    def overlay_failed(self, ident: int, reason: str, now: float) -> None:
        """No overlay works on this connection any more."""
        if (connection := self._connections.get(ident)) is not None:
            self._end(connection, reason, now)

    # --- connections in and out ------------------------------------------------------------------

    def accepted(self, addr: str, now: float) -> int:
        """Somebody connected from ``addr`` (``IP:port``): the connection's number.

        Of too many that have not introduced themselves, the oldest of the busiest address goes.
        """
        ident = self._number()
        if len(self._introducing) >= HANDSHAKES_MAX:
            self._make_room(now)
        self._introducing.add(ident)
        self._open(ident, addr, None, now)
        return ident

    def dialled(self, ident: int, addr: str, now: float) -> None:
        """The dial of this number succeeded; ``addr`` is the remote ``IP:port``."""
        attempt = self._dialling.pop(ident, None)
        if attempt is not None:
            self._open(ident, addr, attempt, now)

    def dial_failed(self, ident: int, reason: str, now: float) -> None:
        """The dial of this number failed."""
        attempt = self._dialling.pop(ident, None)
        if attempt is not None:
            self.maker.attempt_failed(attempt.addr, reason, now)
            self._evaluate_soon(now)

    def receive(self, ident: int, data: bytes, now: float) -> None:
        """Bytes that arrived on a connection."""
        connection = self._connections.get(ident)
        if connection is None:
            return
        try:
            for item in connection.receive(data, now):
                if isinstance(item, IntroDone):
                    self._introduced(connection, item, now)
                else:
                    self._message(connection, item, now)
                if connection.state is ConnectionState.CLOSED:
                    return
        except (ProtocolError, CryptoError) as err:
            self._failed(connection, err, now)
            return
        self._timers.set_by(ident, connection.deadline)

    def closed(self, ident: int, now: float, reason: str = "") -> None:
        """The connection ended by itself: end of stream, or an error of the socket (``reason``)."""
        if (connection := self._connections.get(ident)) is None:
            return
        if reason:
            self._end(connection, reason, now)
        else:
            self._failed(connection, connection.end_of_stream(), now, cut=True)

    def _failed(
        self, connection: Connection, err: WeftError, now: float, *, cut: bool = False
    ) -> None:
        if isinstance(err, PasswordMismatchError) and not connection.outbound:
            # who dials sees the reason with its target; who was dialled would see nothing
            self._events.append(events.StrangerRefused(connection.addr))
        self._end(connection, str(err), now, cut=cut)

    def _number(self) -> int:
        self._next_ident += 1
        return self._next_ident - 1

    def _open(self, ident: int, addr: str, attempt: Attempt | None, now: float) -> None:
        options = self.options
        conn_id = self._rng.getrandbits(64)
        trusts = self._trusts(addr)
        features = Features(
            options.name,
            options.nick,
            options.uid,
            conn_id,
            self.peers.ourself.short_id,
            trusts,
            options.overlays,
            dict(options.features),
        )
        connection = Connection(
            ident,
            Intro(
                features,
                outbound=attempt is not None,
                password=options.password,
                versions=options.versions,
            ),
            options.name,
            now,
            addr=addr,
            target=None if attempt is None else attempt.addr,
            accept_new=attempt is None or attempt.direct,
            conn_id=conn_id,
            trusts=trusts,
        )
        self._connections[ident] = connection
        self._timers.set(ident, connection.deadline)

    def _trusts(self, addr: str) -> bool:
        split = split_addr(addr)
        if split is None:
            return False
        ip = ipaddress.ip_address(split[0])
        return any(ip in network for network in self.options.trusted_subnets)

    def _make_room(self, now: float) -> None:
        waiting = [self._connections[ident] for ident in self._introducing]
        hosts = Counter(connection.addr.rpartition(":")[0] for connection in waiting)
        busiest = max(hosts.values())
        oldest = min(
            (
                connection
                for connection in waiting
                if hosts[connection.addr.rpartition(":")[0]] == busiest
            ),
            key=lambda connection: connection.ident,
        )
        self._end(oldest, "too many connections that do not introduce themselves", now)

    # --- admission -------------------------------------------------------------------------------

    def _introduced(self, connection: Connection, done: IntroDone, now: float) -> None:
        """Who it is, whether it may stay; then it is added."""
        self._introducing.discard(connection.ident)
        features = done.features
        if (refused := self._refusal(connection, features)) is not None:
            never = features.name == self.options.name
            self._end(connection, refused, now, never_again=never)
            if refused == CONNECT_TO_SELF:
                # its other end is ours as well, and would see no more than an end of stream
                for twin in self.connections():
                    if twin.conn_id == features.conn_id:
                        self._end(twin, refused, now, never_again=True)
            return
        self._look_for_twins(connection, features, now)
        newcomer = Peer(features.name, features.nick, features.uid, 0, features.short_id)
        connection.peer, modified = self.peers.acquire_or_add(newcomer)
        connection.restarted_peer = connection.peer.uid != features.uid
        connection.compatible = features.overlays is None
        theirs = ("sleeve",) if features.overlays is None else features.overlays
        connection.overlays = tuple(name for name in self.options.overlays if name in theirs)
        if not connection.overlays:
            self._end(connection, "no overlays in common", now)
            return
        if modified:
            self._tell({self.options.name}, now)
        verdict = self.local.judge(connection)
        if verdict.displaced is not None:
            self._end(verdict.displaced, verdict.duplicate or "", now)
        refused = verdict.refused or self.local.limit_reached()
        if refused is not None:
            self._end(connection, refused, now)
            return
        self._add(connection, features, now)

    def _refusal(self, connection: Connection, features: Features) -> str | None:
        """Why the peer may not be one of ours."""
        ours = self.peers.ourself
        if features.name != ours.name:
            if connection.accept_new or features.name in self.peers:
                return None
            return f"Found unknown remote name: {features.name} at {connection.addr}"
        if features.uid == ours.uid:
            return CONNECT_TO_SELF
        self._events.append(events.NameCollision(features.name, features.nick, connection.addr))
        theirs = f"{features.name}({features.nick})"
        return f'local "{ours}" and remote "{theirs}" peer names collision'

    def _look_for_twins(self, connection: Connection, features: Features, now: float) -> None:
        """Tell when the newcomer and the router that we are connected to share a name."""
        existing = self.local.get(features.name)

        def heard_at(uid: int) -> float:
            theirs = existing.features if existing is not None else None
            if existing is None or theirs is None or theirs.uid != uid:
                return -math.inf
            return -math.inf if existing.heard_at is None else existing.heard_at

        addr = connection.addr
        other = self._twins.introduced(features.name, features.uid, addr, now, heard_at)
        if other is not None:
            self._events.append(events.NamesakesSeen(features.name, (other, addr)))

    def _add(self, connection: Connection, features: Features, now: float) -> None:
        peer = connection.peer
        if peer is None:
            raise AssertionError("a connection is added before its peer is known")
        reachable = self.routes.frame_hop(peer.name) is not None
        self.local.add(connection)
        connection.confirm(now)
        if connection.restarted_peer or not reachable:
            self.gossip.send_everything_down(connection)
        if connection.target is not None:
            self.maker.connected(connection.target)
        self._recalculate_soon(now)
        self._tell({peer.name, self.options.name}, now)
        self._evaluate_soon(now)
        self._events.append(
            events.ConnectionAdded(
                connection.ident,
                peer.name,
                peer.nick or features.nick,
                connection.addr,
                connection.outbound,
                connection.uid,
                None if connection.trusted else connection.key,
                connection.encrypted,
                connection.transcript,
                connection.overlays,
                connection.compatible,
                tuple(features.extra.items()),
            )
        )

    # --- messages --------------------------------------------------------------------------------

    def _message(self, connection: Connection, message: Message, now: float) -> None:
        if message.tag in GOSSIP_TAGS:
            self.gossip.receive(message.tag, message.payload, now)
            self._after_gossip(now)
        elif message.tag in OVERLAY_TAGS:
            self._overlay_control(connection, message)
        elif message.tag != Tag.HEARTBEAT:
            self.messages_ignored += 1

    def _overlay_control(self, connection: Connection, message: Message) -> None:
        payload = message.payload
        if connection.peer is None:
            raise AssertionError("messages are read after admission only")
        if connection.compatible:
            overlay, kind, data = connection.overlays[0], message.tag, payload
        elif len(payload) < 2 or payload[0] >= len(connection.overlays):
            self.messages_ignored += 1
            return
        else:
            overlay, kind, data = connection.overlays[payload[0]], payload[1], payload[2:]
        self._events.append(
            events.OverlayControl(connection.ident, connection.peer.name, overlay, kind, data)
        )

    def _after_gossip(self, now: float) -> None:
        """Act on what topology updates did; drop links whose queue is full."""
        for merge in self.gossip.topology.take_merges():
            if merge.self_modified:
                self._tell({self.options.name}, now)
            for other in merge.other_selves:
                if self._namesakes.heard(other.uid, other.version, now):
                    self._events.append(events.NameCollision(other.name, other.nick, ""))
            if merge.changed:
                self._recalculate_soon(now)
                self._evaluate_soon(now)
            if _COLLECT not in self._timers:
                self._timers.set(_COLLECT, now + COLLECT_DELAY_S)
        for connection in self.gossip.take_overflowed():
            self._end(connection, "peer does not read", now)

    # --- the end of connections ------------------------------------------------------------------

    def _end(
        self,
        connection: Connection,
        reason: str,
        now: float,
        *,
        never_again: bool = False,
        cut: bool = False,
    ) -> None:
        """Close, and undo what the connection did."""
        if connection.state is ConnectionState.CLOSED:
            return
        connection.state = ConnectionState.CLOSED
        del self._connections[connection.ident]
        self._introducing.discard(connection.ident)
        self._timers.cancel(connection.ident)
        self._events.append(events.Close(connection.ident, reason, connection.last_words()))
        peer = connection.peer
        if peer is not None:
            self.peers.release(peer)
            if connection.registered:
                self.local.remove(connection)
                self._collect(now)
                self._recalculate_soon(now)
                self._tell({self.options.name}, now)
                self._events.append(events.ConnectionGone(connection.ident, peer.name, reason, cut))
            elif _COLLECT not in self._timers:
                self._timers.set(_COLLECT, now + COLLECT_DELAY_S)
        if reason != CONNECT_TO_SELF:
            self.maker.terminations += 1
        self.maker.ended(connection.target, reason, now, never_again=never_again)
        self._evaluate_soon(now)

    # --- time ------------------------------------------------------------------------------------

    def timeout(self, now: float) -> None:
        """Do what is due."""
        for key in self._timers.due(now):
            if isinstance(key, int):
                self._check_connection(key, now)
            elif key == _GOSSIP:
                self.gossip.gossip_everything()
                self._timers.set(_GOSSIP, now + GOSSIP_INTERVAL_S)
            elif key == _UPDATE:
                names, self._to_tell = self._to_tell, set()
                names.add(self.options.name)
                self.gossip.gossip(CHANNEL, self.gossip.topology.data(names))
            elif key == _COLLECT:
                self._collect(now)
            elif key == _ROUTES:
                self.routes.recalculate()
                self.gossip.routes_calculated()
                self._events.append(events.RoutesChanged())
            else:
                self._evaluate(now)

    def _check_connection(self, ident: int, now: float) -> None:
        connection = self._connections.get(ident)
        if connection is None:
            return
        if (reason := connection.check_time(now)) is not None:
            self._end(connection, reason, now)
        else:
            self._timers.set(ident, connection.deadline)

    def _tell(self, names: set[PeerName], now: float) -> None:
        """Send an update about ``names``, a second after the first such wish."""
        self._to_tell |= names
        if _UPDATE not in self._timers:
            self._timers.set(_UPDATE, now + UPDATE_DEFERRAL_S)

    def _recalculate_soon(self, now: float) -> None:
        self.gossip.routes_pending = True
        if _ROUTES not in self._timers:
            self._timers.set(_ROUTES, now + DEFERRAL_S)

    def _collect(self, now: float) -> None:
        collected = self.peers.collect()
        if collected.removed:
            names = tuple(peer.name for peer in collected.removed)
            self._events.append(events.PeersGone(names))
            self._recalculate_soon(now)
        if collected.self_modified:
            self._tell({self.options.name}, now)

    def _evaluate_soon(self, now: float) -> None:
        self._timers.set_by(_MAKER, now)

    def _evaluate(self, now: float) -> None:
        """Dial what is due; while connections are added or refused, that is often nothing."""
        own = [
            OwnConnection(connection.peer.name, connection.addr, connection.outbound)
            for connection in self.local
            if connection.peer is not None
        ]
        attempts, earliest = self.maker.evaluate(own, self.peers, now)
        if earliest is not None:
            self._timers.set(_MAKER, earliest)
        for attempt in attempts:
            if (full := self.local.limit_reached()) is not None:
                self.maker.attempt_failed(attempt.addr, full, now)
                self._evaluate_soon(now)
                continue
            ident = self._number()
            self._dialling[ident] = attempt
            self._events.append(events.Dial(ident, attempt.addr))
