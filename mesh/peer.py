"""What we know of one router: its record as gossip carries it, and our references to it.

Our own record is the only one that we change by ourselves; all others mirror what their owner said.
Source of truth: mesh specification 1 and 10.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from base.names import PeerName, format_peer


@dataclass(slots=True, frozen=True)
class ConnectionRecord:
    """One end's view of a connection: towards ``remote`` at ``addr`` (``IP:port``)."""

    remote: PeerName
    addr: str
    outbound: bool
    established: bool


Connections = Mapping[PeerName, ConnectionRecord]


@dataclass(slots=True)
class Peer:
    """A router. UID 0, version 0 and no nickname: somebody named it, nobody described it.

    ``short_id`` is None while it has none. ``references`` counts our connection objects that point
    here and protect the record from collection. ``encoded`` caches the wire form
    of the connections, ``encoded_summary`` that of the rest together with the values it is of.
    """

    name: PeerName
    nick: str = ""
    uid: int = 0
    version: int = 0
    short_id: int | None = None
    connections: Connections = field(default_factory=dict)
    references: int = 0
    encoded: bytes | None = None
    encoded_summary: tuple[tuple[str, int, int, int | None], bytes] | None = None
    neighbours: frozenset[PeerName] = frozenset()
    neighbours_established: frozenset[PeerName] = frozenset()

    def set_connections(self, connections: Connections) -> None:
        """Replace the connections and what is derived from them."""
        self.connections = connections
        self.neighbours = frozenset(connections)
        self.neighbours_established = frozenset(
            name for name, connection in connections.items() if connection.established
        )
        self.encoded = None

    def __str__(self) -> str:
        return format_peer(self.name, self.nick)
