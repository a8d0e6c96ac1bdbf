"""What the API shows of a node: a frozen picture, gathered by the daemon, rendered elsewhere.

:class:`Membership` says the same of a node in the mesh and of one with a peers file.
"""

from __future__ import annotations

from dataclasses import dataclass

from base.ipc import ForwarderReport, PathMtuChanged, RouterReady, RouterReport, Snapshot
from base.names import PeerName
from control.attachment_tally import AttachmentsView
from ipam.status import IpamStatus, State


@dataclass(slots=True, frozen=True)
class LinkView:
    """A connection as the peer at one of its ends reports it; ``name`` is the other end."""

    name: PeerName
    nick: str
    address: str
    outbound: bool
    established: bool


@dataclass(slots=True, frozen=True)
class PeerView:
    """A router and its connections. Numbers are None for a peer of a peers file."""

    name: PeerName
    nick: str
    uid: int | None = None
    short_id: int | None = None
    version: int | None = None
    connections: tuple[LinkView, ...] = ()


@dataclass(slots=True, frozen=True)
class ConnectionView:
    """One of our connections, or (``peer`` None) an address that we are not connected at.

    ``state`` is "established" or "pending"; for addresses "connecting" (first attempt), "retrying"
    (attempt under way after a failure), "failed" (waits after one) or "waiting" (for its first).
    ``sealed`` says whether datagrams are encrypted, None without a password. ``retry_in_s`` None
    with state "failed" means never. Overlay MTU, cipher, RTT and what is degraded are the router's
    to say: NodeView.forwarder. ``fast``: the other end has Weave Net's fast datapath, too.
    """

    address: str
    outbound: bool
    state: str
    peer: PeerName | None = None
    nick: str = ""
    overlay: str = "sleeve"
    sealed: bool | None = None
    error: str | None = None
    retry_in_s: float | None = None
    fast: bool = False


@dataclass(slots=True, frozen=True)
class Membership:
    """Who is in the network and how we are linked.

    ``protocol`` holds the lowest and highest version spoken, None with a peers file. ``targets``
    are the user's peers as given. ``terminations`` counts connections that ended. ``warnings`` are
    sentences that an operator should read, such as that there is no password.
    """

    protocol: tuple[int, int] | None
    encryption: bool
    discovery: bool
    targets: tuple[str, ...]
    peers: tuple[PeerView, ...]
    connections: tuple[ConnectionView, ...]
    trusted_subnets: tuple[str, ...] = ()
    terminations: int = 0
    warnings: tuple[str, ...] = ()


@dataclass(slots=True, frozen=True)
class IpamView:
    """Address allocation: its status, how often what happened, and why nothing can be recorded.

    ``counters``: messages ignored and merges refused, by reason. ``trouble`` None: all is well.
    """

    status: IpamStatus
    counters: dict[str, int]
    commits: int
    failures: int
    trouble: str | None = None


@dataclass(slots=True, frozen=True)
class HostView:
    """The host's side of a node: see :mod:`control.host.service`.

    ``exposed`` are the bridge's own addresses with prefix length. ``counters`` by name, for the
    metrics. ``warnings`` are sentences that an operator should read.
    """

    exposed: tuple[str, ...]
    counters: dict[str, int]
    warnings: tuple[str, ...] = ()


@dataclass(slots=True, frozen=True)
class NodeView:
    """A node at one moment.

    ``ready`` and ``router_pid`` are None without a (ready) router; ``report`` is None when the
    router did not answer. ``now_s`` is wall-clock time, seconds since 1970. ``ipam`` is None when
    addresses are not allocated, ``host`` with a peers file, ``containers`` where none can be
    attached.
    """

    version: str
    port: int
    control_pid: int
    router_pid: int | None
    membership: Membership
    snapshot: Snapshot
    ready: RouterReady | None
    path_mtus: dict[bytes, PathMtuChanged]
    report: RouterReport | None
    now_s: float
    ipam: IpamView | None = None
    host: HostView | None = None
    containers: AttachmentsView | None = None

    @property
    def is_ready(self) -> bool:
        """Whether the node does its work: the router forwards, and nobody waits for a first ring.

        Who waits while the peers still vote may wait for ever; who waits for space later has to
        wait for other peers, which is no fault of this one.
        """
        if self.ready is None:
            return False
        if self.ipam is None or self.ipam.status.state is not State.ELECTING:
            return True
        return not (self.ipam.status.pending_allocates or self.ipam.status.pending_claims)

    def forwarder(self, peer: bytes) -> ForwarderReport | None:
        """The datagram side towards ``peer``, if the router told."""
        for forwarder in self.report.forwarders if self.report else ():
            if forwarder.peer == peer:
                return forwarder
        return None

    def nick(self, peer: bytes) -> str:
        """Nickname of a peer; the name's text for one that is not known."""
        if peer == self.snapshot.name:
            return self.snapshot.nick
        for known in self.snapshot.peers:
            if known.name == peer:
                return known.nick
        return peer.hex(":")
