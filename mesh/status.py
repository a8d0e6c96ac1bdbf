"""What status and reports say of connections and targets, as records; the text is made elsewhere.

Connected and suspended targets are not listed: the first show as connections, the second must not
be tried now. Source of truth: mesh specification 14.
"""

from __future__ import annotations

from dataclasses import dataclass

from base.names import PeerName
from mesh.connection import ConnectionState
from mesh.core import MeshCore
from mesh.maker import TargetState


@dataclass(slots=True, frozen=True)
class ConnectionStatus:
    """One of our connections. ``sealed``: datagrams are encrypted, None without a password.

    ``overlays`` are those in common, ``offered`` all of the other end.
    """

    conn: int
    addr: str
    outbound: bool
    state: str
    peer: PeerName
    nick: str
    overlays: tuple[str, ...]
    offered: tuple[str, ...]
    sealed: bool | None
    age_s: float


@dataclass(slots=True, frozen=True)
class TargetStatus:
    """An address we are not connected at: ``connecting``, ``retrying``, ``failed``, ``waiting``.

    ``retry_in_s`` is None for never, and while an attempt is under way.
    """

    addr: str
    state: str
    last_error: str | None
    retry_in_s: float | None


def connection_statuses(core: MeshCore, now: float) -> list[ConnectionStatus]:
    """Connections that were added, by address."""
    found = [
        ConnectionStatus(
            connection.ident,
            connection.addr,
            connection.outbound,
            "established" if connection.state is ConnectionState.ESTABLISHED else "pending",
            connection.peer.name,
            connection.peer.nick,
            connection.overlays,
            (connection.features.overlays if connection.features else None) or (),
            None if core.options.password is None else not connection.trusted,
            now - connection.opened_at,
        )
        for connection in core.local
        if connection.peer is not None
    ]
    return sorted(found, key=lambda status: status.addr)


def target_statuses(core: MeshCore, now: float) -> list[TargetStatus]:
    """Targets that are dialled or wait to be, by address."""
    found: list[TargetStatus] = []
    for addr, target in core.maker.targets.items():
        if target.state is TargetState.ATTEMPTING:
            state = "connecting" if target.last_error is None else "retrying"
            found.append(TargetStatus(addr, state, target.last_error, None))
        elif target.state is TargetState.WAITING:
            state = "waiting" if target.last_error is None else "failed"
            due = None if target.try_after is None else max(0.0, target.try_after - now)
            found.append(TargetStatus(addr, state, target.last_error, due))
    return sorted(found, key=lambda status: status.addr)
