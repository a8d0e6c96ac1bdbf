"""Neighbours whose control went away: what is known of them stays in force for a while. Sans-IO.

When control is killed, its TCP connections end, but its router goes on, and so does ours: datagrams
need no control. Only routes would be lost until control is back, some seconds later. So of a
connection that was cut, not closed, the datagram side is kept with the routes that led over it:

- for GRACE_S, until a new connection to the same neighbour is there;
- the routes for GRACE_S, too: with the new connection they come, and go again for a second, as the
  neighbour's own record of it arrives late;
- for the first PREFERRED_S even if control knows a way round: in that time neighbours take each
  other for the way to the one that was lost, and frames would go in circles; and from the new
  connection on, for the same reason;
- otherwise only where control knows no other way.

A new connection that is closed for a reason is not kept.

The same holds on the other side: a control that has just begun names no connections, and all that
its predecessor had made are kept.

Source of truth: architecture, "Processes on a node" (control dies).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from base.ipc import BroadcastRoute, Connection, Peer, UnicastRoute

#: From the kill to a new connection: control's start, its state, the neighbours' next dial.
GRACE_S: Final = 10.0
#: A neighbour tells of a lost connection after at most a second; then others compute routes anew.
PREFERRED_S: Final = 2.0


@dataclass(slots=True, frozen=True)
class State:
    """Peers and connections by peer name, and routes. ``name`` is ours; we are among the peers."""

    name: bytes
    known: dict[bytes, Peer]
    connections: dict[bytes, Connection]
    unicast: tuple[UnicastRoute, ...] = ()
    broadcast: tuple[BroadcastRoute, ...] = ()


@dataclass(slots=True, frozen=True)
class _Kept:
    """One neighbour's connection and what it was good for when it was lost.

    ``reached``: the neighbour and who is behind it. ``sources``: whose broadcasts we sent to it.
    ``flooded``: where the broadcasts of those reached went on to.
    """

    since: float
    connection: Connection
    reached: tuple[Peer, ...]
    sources: tuple[bytes, ...]
    flooded: tuple[BroadcastRoute, ...]


class Grace:
    """The connections that are kept. Control's wishes go in, what is to be in force comes out."""

    def __init__(self) -> None:
        self._kept: dict[bytes, _Kept] = {}
        self._applied_at = 0.0

    @property
    def deadline(self) -> float | None:
        """When :meth:`apply` will give something else, with nothing new from control."""
        ends = (
            kept.since + after for kept in self._kept.values() for after in (PREFERRED_S, GRACE_S)
        )
        return min((end for end in ends if end > self._applied_at), default=None)

    def keep(self, names: Iterable[bytes], in_force: State, now: float) -> None:
        """These neighbours' connections, which are in force, were lost and had no end. Those kept
        already go on; but a new one may have taken the place of what is kept, and be lost in its
        turn.
        """
        for name in names:
            connection = in_force.connections[name]
            if not self.is_kept(name, connection):
                self._kept[name] = _kept(connection, in_force, now)

    def drop(self, name: bytes) -> None:
        """The neighbour's new connection was closed."""
        self._kept.pop(name, None)

    def is_kept(self, name: bytes, connection: Connection) -> bool:
        """Whether this connection is in force only because it is kept."""
        kept = self._kept.get(name)
        return kept is not None and kept.connection is connection

    def clear(self) -> None:
        """Keep nothing."""
        self._kept.clear()

    def apply(self, wanted: State, now: float) -> State:
        """What control wants, and what is kept beside it."""
        self._applied_at = now
        via = {route.dst: route.via for route in wanted.unicast}
        for name, kept in list(self._kept.items()):
            if now >= kept.since + GRACE_S:
                del self._kept[name]
        if not self._kept:
            return wanted
        known, connections = dict(wanted.known), dict(wanted.connections)
        routed = set(via)
        for name, kept in sorted(self._kept.items()):
            again = connections.setdefault(name, kept.connection) is not kept.connection
            if again or now < kept.since + PREFERRED_S:
                via[name] = name
            for peer in kept.reached:
                known.setdefault(peer.name, peer)
                via.setdefault(peer.name, name)
        return State(
            wanted.name,
            known,
            connections,
            tuple(UnicastRoute(dst, hop) for dst, hop in via.items()),
            self._broadcast(wanted, routed, known, connections),
        )

    def _broadcast(
        self,
        wanted: State,
        routed: set[bytes],
        known: dict[bytes, Peer],
        connections: dict[bytes, Connection],
    ) -> tuple[BroadcastRoute, ...]:
        """With a way round, a copy would arrive there by either."""
        hops = {route.src: list(route.via) for route in wanted.broadcast}
        for name, kept in sorted(self._kept.items()):
            if name in routed:
                continue
            for route in kept.flooded:
                hops.setdefault(route.src, [hop for hop in route.via if hop in connections])
            for source in kept.sources:
                before = hops.setdefault(source, [])
                if source in known and name not in before:
                    before.append(name)
        return tuple(BroadcastRoute(src, tuple(to)) for src, to in hops.items() if src in known)


def _kept(connection: Connection, in_force: State, now: float) -> _Kept:
    name = connection.peer
    reached = {
        route.dst for route in in_force.unicast if route.via == name and route.dst != in_force.name
    } | {name}
    return _Kept(
        now,
        connection,
        tuple(in_force.known[each] for each in sorted(reached)),
        tuple(route.src for route in in_force.broadcast if name in route.via),
        tuple(route for route in in_force.broadcast if route.src in reached),
    )
