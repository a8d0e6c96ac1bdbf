"""Our own connections: which of two to the same peer stays, how many there may be.

Both ends compute the same UID for a connection, so both keep the same one of two, in whatever order
they see them. Source of truth: mesh specification 6.3.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from base.names import PeerName
from mesh.connection import Connection, ConnectionState
from mesh.peer import ConnectionRecord
from mesh.peers import Peers


class Verdict(NamedTuple):
    """What adding means: a connection to close first, and why the new one is refused, if it is."""

    displaced: Connection | None = None
    refused: str | None = None
    duplicate: str | None = None


class LocalPeer:
    """The registered connections, one per peer, and our own record that tells of them."""

    def __init__(self, peers: Peers, limit: int) -> None:
        self.limit = limit
        self._peers = peers
        self._connections: dict[PeerName, Connection] = {}

    def __len__(self) -> int:
        return len(self._connections)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._connections.values()))

    def get(self, peer: PeerName) -> Connection | None:
        """The connection to ``peer``."""
        return self._connections.get(peer)

    def limit_reached(self) -> str | None:
        """Why no further connection may be had."""
        if self.limit and len(self._connections) >= self.limit:
            return f"Connection limit reached ({self.limit})"
        return None

    def judge(self, new: Connection) -> Verdict:
        """Compare a new connection with the one we have. The limit is checked afterwards."""
        if new.peer is None:
            raise AssertionError("the peer is not known yet")
        text = f"Multiple connections to {new.peer} added to {self._peers.ourself}"
        existing = self._connections.get(new.peer.name)
        if existing is None:
            return Verdict()
        if new.uid < existing.uid:
            return Verdict(displaced=existing, duplicate=text)
        if new.uid > existing.uid:
            return Verdict(refused=text)
        return Verdict(displaced=existing, refused=text, duplicate=text)

    def add(self, connection: Connection) -> None:
        """Register; raises our version."""
        self._record(connection, established=False)
        connection.registered = True

    def establish(self, connection: Connection) -> None:
        """The overlay works in our direction; raises our version."""
        connection.state = ConnectionState.ESTABLISHED
        self._record(connection, established=True)

    def remove(self, connection: Connection) -> None:
        """Take a registered connection out; raises our version."""
        if connection.peer is None or not connection.registered:
            raise AssertionError("the connection was never added")
        connection.registered = False
        del self._connections[connection.peer.name]
        self._peers.drop_own_connection(connection.peer.name)

    def _record(self, connection: Connection, *, established: bool) -> None:
        if connection.peer is None:
            raise AssertionError("the peer is not known yet")
        name = connection.peer.name
        self._connections[name] = connection
        self._peers.set_own_connection(
            ConnectionRecord(name, connection.addr, connection.outbound, established)
        )
