"""What the API shows of a node: a frozen picture, gathered by the daemon, rendered elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from base.ipc import ForwarderReport, PathMtuChanged, RouterReady, RouterReport, Snapshot
from control.static_peers import PeerTable


@dataclass(slots=True, frozen=True)
class NodeView:
    """A node at one moment.

    ``ready`` and ``router_pid`` are None without a (ready) router; ``report`` is None when the
    router did not answer. ``now_s`` is wall-clock time, seconds since 1970.
    """

    version: str
    port: int
    control_pid: int
    router_pid: int | None
    table: PeerTable
    snapshot: Snapshot
    ready: RouterReady | None
    path_mtus: dict[bytes, PathMtuChanged]
    report: RouterReport | None
    now_s: float

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
