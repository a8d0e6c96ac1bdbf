"""What control told us, turned into the tables that the data path reads. Sans-IO.

Peers and neighbours get small indices that stay theirs for as long as they are known, because FDB
entries and forwarders refer to them. Each change builds new tables and swaps them in at once.

What is in force is what control wants, and for a while what was lost with a neighbour's control, or
ours (:mod:`router.grace`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from base.errors import CryptoError, RemoteProtocolError
from base.ipc import Connection, Delta, Peer, Snapshot
from crypto.ciphers import Cipher
from crypto.sealed import set_key
from native import lib
from native.datapath import Datapath, Tables, addr_to_c
from router.grace import Grace, State

_PORT_MAX: Final = 65535
#: IPv4's own minimum (RFC 791).
_MTU_MIN: Final = 68


class _Indices:
    """Names → small numbers, lowest free first."""

    def __init__(self, most: int, what: str) -> None:
        self._most = most
        self._what = what
        self.of: dict[bytes, int] = {}
        self._taken: set[int] = set()
        self._next = 0

    def assign(self, name: bytes) -> int:
        """The name's number, a new one if it has none."""
        index = self.of.get(name)
        if index is not None:
            return index
        while self._next in self._taken:
            self._next += 1
        self.of[name] = self._next
        self._taken.add(self._next)
        return self._next

    def check_room(self, names: Iterable[bytes]) -> None:
        """Raises RemoteProtocolError if there are not enough numbers for these names.

        Names that go at the same time keep theirs until the new tables are in force.
        """
        if len(self.of.keys() | set(names)) > self._most:
            raise RemoteProtocolError(f"control link: more than {self._most} {self._what}")

    def release(self, name: bytes) -> int:
        """Free the name's number and return it."""
        index = self.of.pop(name)
        self._taken.discard(index)
        self._next = min(self._next, index)
        return index

    @property
    def span(self) -> int:
        """One more than the highest number in use."""
        return max(self._taken, default=-1) + 1


@dataclass(slots=True, frozen=True)
class Neighbour:
    """A neighbour's forwarder index and what control said of its connection."""

    forwarder: int
    connection: Connection


class PeerTable:
    """The state behind the tables in force."""

    def __init__(self, datapath: Datapath) -> None:
        self._datapath = datapath
        self._peers = _Indices(lib.WN_PEERS_MAX, "peers")
        self._forwarders = _Indices(lib.WN_FORWARDERS_MAX, "neighbours")
        self._grace = Grace()
        self._wanted = self._in_force = State(b"", {}, {})
        self.nick = ""
        #: Number of the state in force; -1: none yet.
        self.seq = -1
        #: Neighbours whose session key was used before: nothing may be sent to them.
        self.keys_refused: set[bytes] = set()

    @property
    def name(self) -> bytes:
        """Ours; b"" before the first snapshot."""
        return self._in_force.name

    @property
    def deadline(self) -> float | None:
        """When :meth:`expire` is due."""
        return self._grace.deadline

    @property
    def neighbours(self) -> dict[bytes, Neighbour]:
        """By peer name."""
        return {
            name: Neighbour(self._forwarders.of[name], connection)
            for name, connection in self._in_force.connections.items()
        }

    def peer_of_index(self, index: int) -> Peer | None:
        """The peer that an FDB entry refers to."""
        for name, number in self._peers.of.items():
            if number == index:
                return self._in_force.known[name]
        return None

    def peers_by_index(self) -> dict[int, Peer]:
        """All peers by index."""
        return {number: self._in_force.known[name] for name, number in self._peers.of.items()}

    def neighbour_of_forwarder(self, forwarder: int) -> bytes | None:
        """Peer name behind a forwarder index."""
        for name, number in self._forwarders.of.items():
            if number == forwarder:
                return name
        return None

    def apply_snapshot(self, snapshot: Snapshot, now: float) -> set[bytes]:
        """Replace everything; names of neighbours that are new or have another address.

        Raises:
            RemoteProtocolError: the snapshot contradicts itself; the old state stays in force.
        """
        known = {peer.name: peer for peer in snapshot.peers}
        known.setdefault(snapshot.name, Peer(snapshot.name, snapshot.nick))
        connections = {connection.peer: connection for connection in snapshot.connections}
        wanted = State(snapshot.name, known, connections, snapshot.unicast, snapshot.broadcast)
        if snapshot.name != self.name:
            self._grace.clear()
            kept: Iterable[bytes] = ()
        else:
            kept = self._in_force.connections if snapshot.young else snapshot.cut
        changed = self._want(wanted, kept, snapshot.seq, now)
        self.nick = snapshot.nick
        return changed

    def apply_delta(self, delta: Delta, now: float) -> set[bytes]:
        """Apply one change to the state before it; names as :meth:`apply_snapshot`.

        Raises:
            RemoteProtocolError: the result contradicts itself; the old state stays in force.
        """
        before = self._wanted
        known = {k: v for k, v in before.known.items() if k not in set(delta.peers_gone)}
        known.update({peer.name: peer for peer in delta.peers})
        connections = {
            k: v for k, v in before.connections.items() if k not in set(delta.connections_gone)
        }
        connections.update({connection.peer: connection for connection in delta.connections})
        unicast = before.unicast if delta.unicast is None else delta.unicast
        broadcast = before.broadcast if delta.broadcast is None else delta.broadcast
        wanted = State(before.name, known, connections, unicast, broadcast)
        return self._want(wanted, delta.cut, delta.seq, now)

    def expire(self, now: float) -> None:
        """Let go of what was kept long enough."""
        self._install(self._grace.apply(self._wanted, now))

    def _want(self, wanted: State, cut: Iterable[bytes], seq: int, now: float) -> set[bytes]:
        """Put in force what control wants; connections ``cut`` that it does not name are kept."""
        _check(wanted)
        try:
            self._check_room(wanted)
        except RemoteProtocolError:
            if self._grace.deadline is None:
                raise
            self._grace.clear()  # there is no room for courtesies
            self._install(self._wanted)
            self._check_room(wanted)
        lost = [name for name in cut if name not in wanted.connections]
        self._grace.keep(lost, self._in_force, now)
        state = self._grace.apply(wanted, now)
        try:
            self._check_room(state)
        except RemoteProtocolError:
            self._grace.clear()
            state = wanted
        changed = self._install(state)
        self._wanted = wanted
        self.seq = seq
        return changed

    def _check_room(self, state: State) -> None:
        self._peers.check_room(state.known)
        self._forwarders.check_room(state.connections)

    def _install(self, state: State) -> set[bytes]:
        before = self._in_force
        gone_peers = [name for name in before.known if name not in state.known]
        gone_forwarders = [name for name in before.connections if name not in state.connections]
        changed = {
            name
            for name, connection in state.connections.items()
            if before.connections.get(name) != connection
        }
        for name in state.known:
            self._peers.assign(name)
        for name in changed:
            self._set_forwarder(name, state.connections[name])
        self._datapath.swap(self._build(state))
        # numbers are free only now that no table in force names them
        for name in gone_peers:
            self._peers.release(name)
        for name in gone_forwarders:
            self._datapath.clear_forwarder(self._forwarders.release(name))
            self.keys_refused.discard(name)
        self._in_force = state
        return changed

    def _set_forwarder(self, name: bytes, connection: Connection) -> None:
        before = self._in_force.connections.get(name)
        if before is not None and before.conn == connection.conn != 0:
            return  # the same connection; where it is now was heard from it
        index, peer = self._forwarders.assign(name), self._peers.of[name]
        # no address while the key changes: nothing must leave in clear or under the old one
        self._datapath.set_forwarder(index, peer, name, "", 0)
        self.keys_refused.discard(name)
        cipher = Cipher.of_label(connection.cipher)
        try:
            set_key(self._datapath, index, cipher, connection.key, outbound=connection.outbound)
        except CryptoError:
            self.keys_refused.add(name)
            return
        self._datapath.set_forwarder(index, peer, name, connection.addr, connection.port)

    def set_address(self, name: bytes, addr: str, port: int) -> None:
        """A neighbour's datagrams come from there."""
        if name not in self.keys_refused:
            index, peer = self._forwarders.of[name], self._peers.of[name]
            self._datapath.set_forwarder(index, peer, name, addr, port)

    def _build(self, state: State) -> Tables:
        peers, forwarders = self._peers.of, self._forwarders.of
        hops = sum(len(route.via) for route in state.broadcast)
        tables = Tables(self._peers.span, peers[state.name], hops)
        for name in state.known:
            tables.set_peer(peers[name], name)
        for name in state.connections:
            tables.set_neighbour(peers[name], forwarders[name])
        for uni in state.unicast:
            if uni.dst != state.name:
                tables.set_unicast(peers[uni.dst], forwarders[uni.via])
        for route in state.broadcast:
            tables.set_broadcast(peers[route.src], [forwarders[via] for via in route.via])
        return tables


def _check(state: State) -> None:
    known, connections = state.known, state.connections
    if any(len(name) != 6 for name in known):
        raise RemoteProtocolError("control link: a peer name is not 6 bytes")
    if state.name not in known:
        raise RemoteProtocolError("control link: we are not among the peers")
    if state.name in connections or not connections.keys() <= known.keys():
        raise RemoteProtocolError("control link: a connection to an unknown peer")
    for connection in connections.values():
        _check_connection(connection)
    for uni in state.unicast:
        if uni.dst == state.name:
            continue
        if uni.dst not in known or uni.via not in connections:
            raise RemoteProtocolError("control link: a unicast route leads nowhere")
    for route in state.broadcast:
        if route.src not in known or not set(route.via) <= connections.keys():
            raise RemoteProtocolError("control link: a broadcast route leads nowhere")
        if len(set(route.via)) < len(route.via):
            raise RemoteProtocolError("control link: a broadcast route names a neighbour twice")


def _check_connection(connection: Connection) -> None:
    try:
        addr_to_c(connection.addr)
        cipher = Cipher.of_label(connection.cipher)
    except ValueError as err:
        raise RemoteProtocolError(f"control link: {err}") from err
    if len(connection.key) != (0 if cipher is Cipher.NONE else lib.WN_KEY_LEN):
        raise RemoteProtocolError(f"control link: no key for {cipher.label}")
    unknown = not connection.addr and connection.conn
    if not 0 < connection.port <= _PORT_MAX and not unknown:
        raise RemoteProtocolError(f"control link: no UDP port {connection.port}")
    if connection.mtu and not _MTU_MIN <= connection.mtu <= lib.WN_MTU_INITIAL:
        raise RemoteProtocolError(f"control link: no overlay MTU {connection.mtu}")
