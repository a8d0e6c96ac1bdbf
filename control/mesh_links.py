"""Between the mesh and the router: which connections datagrams may use, and what their ends say.

The mesh tells of connections, their session keys and what neighbours say of our datagrams; the
router tells what it heard from neighbours and whether its heartbeats were acknowledged. Here both
become the state that the router is to have (:meth:`MeshLinks.snapshot`) and commands to the mesh.

A router that was started anew knows nothing of sequence numbers that were used: connections with a
key are closed and made anew then, and so are those whose life was not complete, since a neighbour
acknowledges only one heartbeat. The others go on where they were.

A connection that was cut is told to the router as such, and so is that we have just begun: it then
goes on for a while with what it has (:mod:`router.grace`).

Sans-IO. Source of truth: sleeve specification 6, 7, 11; architecture, "Processes on a node".
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from base.errors import RemoteProtocolError
from base.ipc import (
    BroadcastRoute,
    Connection,
    OverlayEstablished,
    OverlayFailed,
    OverlayMessage,
    Peer,
    RemoteAddress,
    Snapshot,
    UnicastRoute,
)
from base.names import PeerName
from crypto.ciphers import FEATURE, Cipher, choose, datagram_key
from mesh import events
from mesh.core import MeshCore
from mesh.maker import split_addr

OVERLAY: Final = "sleeve"
HEARTBEAT_ACK: Final = 1

RouterNews = OverlayMessage | OverlayEstablished | OverlayFailed | RemoteAddress


@dataclass(slots=True)
class Link:
    """The sleeve side of one mesh connection. ``key`` is empty for datagrams in clear."""

    conn: int
    peer: PeerName
    nick: str
    outbound: bool
    uid: int
    addr: str = ""
    port: int = 0
    cipher: Cipher = Cipher.NONE
    key: bytes = field(default=b"", repr=False)
    established: bool = False
    acked: bool = False

    @property
    def survives_router(self) -> bool:
        """Whether a fresh router may go on with it."""
        return not self.key and self.established and self.acked

    def connection(self, mtu: int) -> Connection:
        """As the router is told."""
        return Connection(
            peer=self.peer.octets,
            addr=self.addr,
            port=self.port,
            uid=self.uid,
            outbound=self.outbound,
            mtu=mtu,
            conn=self.conn,
            established=self.established,
            acked=self.acked,
            cipher=self.cipher.label,
            key=self.key,
        )


class MeshLinks:
    """Sleeve sides by connection number. ``offer`` is our value of the cipher feature."""

    def __init__(self, core: MeshCore, offer: str) -> None:
        self._core = core
        self._offer = offer
        self._links: dict[int, Link] = {}
        #: Neighbours whose connection was cut since the router was last told.
        self._cut: set[PeerName] = set()
        #: Whether what a control before us had made may still be of use.
        self.young = True
        self._unicast: list[tuple[PeerName, PeerName]] = []
        self._broadcast: list[tuple[PeerName, frozenset[PeerName]]] = []
        self.routes_changed()  # our own broadcasts go to nobody yet, which a report says

    def link(self, conn: int) -> Link | None:
        """The sleeve side of a connection."""
        return self._links.get(conn)

    # --- from the mesh ---------------------------------------------------------------------------

    def added(self, event: events.ConnectionAdded, now: float) -> bool:
        """A connection was added; False (and it is closed) when sleeve cannot use it."""
        try:
            link = self._make(event)
        except RemoteProtocolError as err:
            self._core.overlay_failed(event.conn, str(err), now)
            return False
        self._links[event.conn] = link
        return True

    def gone(self, event: events.ConnectionGone) -> None:
        """A connection is no more."""
        self._links.pop(event.conn, None)
        if event.cut:
            self._cut.add(event.peer)

    def routes_changed(self) -> None:
        """Take over the routes; until the next call these stay in force."""
        self._unicast = sorted(self._core.routes.frame_routes().items())
        self._broadcast = sorted(self._core.routes.frame_broadcasts().items())

    def said(self, event: events.OverlayControl) -> OverlayMessage | None:
        """What a neighbour said, for the router; None when it means nothing to sleeve."""
        if event.overlay != OVERLAY or event.conn not in self._links:
            return None
        return OverlayMessage(event.peer.octets, event.conn, event.kind, event.data)

    def _make(self, event: events.ConnectionAdded) -> Link:
        host, port = split_addr(event.addr) or ("", 0)
        if not _is_ipv4(host):
            raise RemoteProtocolError("sleeve runs over IPv4 only")
        link = Link(event.conn, event.peer, event.nick, event.outbound, event.uid)
        if event.outbound:
            # datagrams go to the port dialled for TCP; who dialled us has to be heard first
            link.addr, link.port = host, port
        if event.key is not None:
            theirs = dict(event.features).get(FEATURE)
            offers = (self._offer, theirs) if event.outbound else (theirs, self._offer)
            link.cipher = choose(*offers)
            link.key = datagram_key(link.cipher, event.key, event.transcript)
        return link

    # --- from the router -------------------------------------------------------------------------

    def router_said(self, news: RouterNews, now: float) -> bool:
        """Carry out what the router wants; True when its own state has to be published again."""
        link = self._links.get(news.conn)
        if link is None:
            return False  # the connection went while this was on its way
        match news:
            case OverlayMessage(kind=kind, data=data):
                self._core.send_overlay_control(link.conn, OVERLAY, kind, data, now)
                changed = kind == HEARTBEAT_ACK and not link.acked
                link.acked = link.acked or changed
            case OverlayEstablished():
                self._core.overlay_established(link.conn, now)
                changed = not link.established
                link.established = True
            case OverlayFailed(reason=reason):
                self._core.overlay_failed(link.conn, reason, now)
                changed = False  # the mesh will say that the connection is gone
            case RemoteAddress(addr=addr, port=port):
                changed = (link.addr, link.port) != (addr, port)
                link.addr, link.port = addr, port
        return changed

    def router_is_fresh(self, now: float) -> None:
        """Another router process than before has come: close what it cannot go on with."""
        for link in list(self._links.values()):
            if not link.survives_router:
                self._core.overlay_failed(link.conn, "the router was restarted", now)

    # --- what the router is to have --------------------------------------------------------------

    def take_snapshot(self) -> Snapshot:
        """:meth:`snapshot` to be sent; connections that were cut are told once."""
        taken = self.snapshot()
        self._cut.clear()
        return taken

    def snapshot(self, *, mtu: int = 0) -> Snapshot:
        """Peers, connections and routes now. Routes lead over connections that exist, only."""
        core = self._core
        ourself = core.options.name
        near = {link.peer for link in self._links.values()}
        known = [peer for peer in core.peers if peer.name != ourself]
        names = {peer.name for peer in known} | {ourself}
        links = [link for link in self._links.values() if link.peer in names]
        return Snapshot(
            seq=1,
            name=ourself.octets,
            nick=core.options.nick,
            sealed=core.options.password is not None,
            peers=tuple(
                Peer(peer.name.octets, peer.nick)
                for peer in sorted(known, key=lambda peer: peer.name)
            ),
            connections=tuple(
                link.connection(mtu) for link in sorted(links, key=lambda link: link.peer)
            ),
            unicast=tuple(
                UnicastRoute(dst.octets, via.octets)
                for dst, via in self._unicast
                if dst != ourself and dst in names and via in near
            ),
            broadcast=tuple(
                BroadcastRoute(source.octets, _octets(via & near))
                for source, via in self._broadcast
                if source in names
            ),
            cut=_octets(self._cut),
            young=self.young,
        )


def _octets(names: Iterable[PeerName]) -> tuple[bytes, ...]:
    return tuple(name.octets for name in sorted(names))


def _is_ipv4(host: str) -> bool:
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True
