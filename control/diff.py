"""What changed between two states of the control link, as one Delta. Pure."""

from __future__ import annotations

from base.ipc import Delta, Snapshot


def diff(old: Snapshot, new: Snapshot) -> Delta | None:
    """The delta that turns ``old`` into ``new``; None when they say the same.

    Its ``seq`` is ``old.seq + 1``, whatever ``new`` carries. Both must be of the same router: name
    and nickname cannot travel in a delta.

    Raises:
        ValueError: name or nickname differ.
    """
    if (old.name, old.nick) != (new.name, new.nick):
        raise ValueError("a delta cannot change who the router is")
    old_peers = {peer.name: peer for peer in old.peers}
    new_peers = {peer.name: peer for peer in new.peers}
    old_connections = {connection.peer: connection for connection in old.connections}
    new_connections = {connection.peer: connection for connection in new.connections}
    delta = Delta(
        seq=old.seq + 1,
        peers=tuple(peer for name, peer in new_peers.items() if old_peers.get(name) != peer),
        peers_gone=tuple(name for name in old_peers if name not in new_peers),
        connections=tuple(
            connection
            for name, connection in new_connections.items()
            if old_connections.get(name) != connection
        ),
        connections_gone=tuple(name for name in old_connections if name not in new_connections),
        cut=tuple(name for name in old_connections if name in new.cut),
        unicast=None if old.unicast == new.unicast else new.unicast,
        broadcast=None if old.broadcast == new.broadcast else new.broadcast,
    )
    return None if delta == Delta(seq=delta.seq) else delta
