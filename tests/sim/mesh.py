"""Whole data planes in one process: real tables, real pipelines, wires made of deques.

A :class:`Mesh` is a graph of :class:`Node`; frames fed to a node's port travel until nothing moves
any more. Routes come from :mod:`mesh.routes`, as every node would compute them.
"""

from __future__ import annotations

import random
from collections import Counter as Tally
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from base.counters import COUNTER_NAMES
from base.ipc import BroadcastRoute, Connection, Delta, Peer, Snapshot, UnicastRoute
from base.names import PeerName
from capture.fake import FakePort
from crypto.sealed import SealedBox
from mesh.routes import Graph, Link, broadcast_routes, unicast_routes
from native.datapath import Batch, Datapath, Event, Message
from router.intake import CaptureIntake, DatagramIntake, Turn
from router.peer_table import PeerTable
from router.pipeline import build_egress, build_ingress
from router.stages import PortHolder
from tests.native.world import split_datagram
from tests.router.fakes import Arrival, FakeSocket

MTU = 1438
TURNS_MAX = 10_000


def name_of(number: int) -> bytes:
    """Peer names in the order of the numbers."""
    return bytes([0xCE, 0, 0, 0, 0, number + 1])


def number_of(name: bytes) -> int:
    """The reverse of :func:`name_of`."""
    return name[5] - 1


@dataclass(slots=True, frozen=True)
class Hop:
    """One record of one datagram on a wire."""

    sender: int
    receiver: int
    src: int
    dst: int
    df: bool
    frame: bytes


class Node:
    """One router without a kernel."""

    def __init__(self, mesh: Mesh, number: int, *, offloads: bool) -> None:
        self.number = number
        self.name = name_of(number)
        self.datapath = Datapath()
        self.table = PeerTable(self.datapath)
        self.port = FakePort(offloads=offloads)
        self.events: list[Event] = []
        holder = PortHolder(self.port)
        self.socket = FakeSocket(lambda message: mesh.carry(self, message))
        box = SealedBox(self.datapath)
        self.egress = build_egress(self.datapath, holder, self.socket, box, self._note)
        self.ingress = build_ingress(self.datapath, holder, self.socket, box, self._note)
        self.capture = CaptureIntake(self.datapath, holder, self.egress, self._failed)
        self.datagrams = DatagramIntake(self.datapath, self.socket, self.ingress)

    def _note(self, batch: Batch) -> None:
        self.events += batch.events()

    def _failed(self, err: Exception) -> None:
        raise err

    def work(self) -> bool:
        """One turn of each intake; False if there was nothing to do."""
        turns = [self.capture.turn(burst=True), self.datagrams.turn(burst=True)]
        return any(turn is not Turn.DRY for turn in turns)

    def take(self) -> list[tuple[bytes, bytes]]:
        """What was delivered to the bridge since the last call, with virtio-net headers."""
        delivered, self.port.delivered = self.port.delivered, []
        return delivered

    def frames(self) -> list[bytes]:
        """As :meth:`take`, without the headers."""
        return [frame for _, frame in self.take()]

    def counters(self) -> dict[str, int]:
        """All that are not zero."""
        named = zip(COUNTER_NAMES, self.datapath.counters(), strict=True)
        return {name: count for name, count in named if count}

    def drops(self) -> dict[str, int]:
        """Reasons for which anything was dropped."""
        return {key: count for key, count in self.counters().items() if key.startswith("drop_")}

    def fdb(self) -> dict[bytes, int]:
        """MAC → number of the node it lives at."""
        names = {index: peer.name for index, peer in self.table.peers_by_index().items()}
        entries, _ = self.datapath.fdb_entries(10_000)
        return {mac: number_of(names[index]) for mac, index, _ in entries}


class Mesh:
    """Nodes and the wires between them."""

    def __init__(
        self, count: int, edges: Iterable[tuple[int, int]], *, offloads: bool = True
    ) -> None:
        self.edges = {(min(edge), max(edge)) for edge in edges}
        self.nodes = [Node(self, number, offloads=offloads) for number in range(count)]
        #: Everything that was on any wire, in order.
        self.hops: list[Hop] = []
        #: What becomes of a datagram: delivered as often as its result says, None for "held back".
        self.fate: Callable[[], int | None] = lambda: 1
        self._held: list[tuple[Node, Arrival]] = []
        graph = self.graph()
        for node in self.nodes:
            node.table.apply_snapshot(self.snapshot(node, graph), 0.0)
        self.set_mtu(MTU)

    def graph(self) -> Graph:
        """The topology as all nodes see it."""
        names = [PeerName(node.name) for node in self.nodes]
        links = [Link(names[a], names[b]) for a, b in self.edges]
        links += [Link(names[b], names[a]) for a, b in self.edges]
        return Graph.established(names, links)

    def snapshot(self, node: Node, graph: Graph, seq: int = 1) -> Snapshot:
        """What control would say to the node."""
        ourself = PeerName(node.name)
        return Snapshot(
            seq=seq,
            name=node.name,
            nick=f"n{node.number}",
            peers=tuple(Peer(other.name, f"n{other.number}") for other in self.nodes),
            connections=tuple(
                Connection(peer, f"10.0.0.{number_of(peer)}", 6783)
                for peer in sorted(map(bytes, graph.of(ourself)))
            ),
            unicast=tuple(
                UnicastRoute(bytes(dst), bytes(via))
                for dst, via in unicast_routes(graph, ourself).items()
                if dst != ourself
            ),
            broadcast=tuple(
                BroadcastRoute(bytes(src), tuple(sorted(map(bytes, via))))
                for src, via in broadcast_routes(graph, ourself).items()
            ),
        )

    def set_edges(self, edges: Iterable[tuple[int, int]]) -> None:
        """A new topology, as deltas."""
        self.edges = {(min(edge), max(edge)) for edge in edges}
        graph = self.graph()
        for node in self.nodes:
            whole = self.snapshot(node, graph)
            kept = {connection.peer for connection in whole.connections}
            node.table.apply_delta(
                Delta(
                    seq=node.table.seq + 1,
                    connections=whole.connections,
                    connections_gone=tuple(
                        name for name in node.table.neighbours if name not in kept
                    ),
                    unicast=whole.unicast,
                    broadcast=whole.broadcast,
                ),
                0.0,
            )

    def set_mtu(self, mtu: int, a: int = -1, b: int = -1, *, stack_frag: bool = False) -> None:
        """Overlay MTU of all links, or of the one between two nodes."""
        for node in self.nodes:
            for name, neighbour in node.table.neighbours.items():
                if a < 0 or {a, b} == {node.number, number_of(name)}:
                    node.datapath.set_mtu(neighbour.forwarder, mtu, stack_frag=stack_frag)

    def carry(self, node: Node, message: Message) -> None:
        """A node sends: note it, and put it on the wire."""
        name = node.table.neighbour_of_forwarder(message.forwarder)
        assert name is not None
        to = self.nodes[number_of(name)]
        edge = (min(node.number, to.number), max(node.number, to.number))
        assert edge in self.edges, "sent over a link that is not there"
        for data in message.datagrams:
            sender, records = split_datagram(data)
            assert sender == node.name
            for src, dst, frame in records:
                self.hops.append(
                    Hop(node.number, to.number, number_of(src), number_of(dst), message.df, frame)
                )
        source = f"10.0.0.{node.number}"
        fate = self.fate()
        joined = b"".join(message.datagrams)
        arrival = Arrival(
            joined, len(message.datagrams[0]) if len(message.datagrams) > 1 else 0, source
        )
        if fate is None:
            self._held.append((to, arrival))
            return
        to.socket.inbox.extend([arrival] * fate)
        while self._held and fate:
            late, held = self._held.pop()
            late.socket.inbox.append(held)

    def run(self) -> None:
        """Until nothing moves."""
        for _ in range(TURNS_MAX):
            busy = [node.work() for node in self.nodes]
            if not any(busy):
                if not self._held:
                    return
                to, arrival = self._held.pop()
                to.socket.inbox.append(arrival)
        raise AssertionError("traffic never ends")

    def send(self, number: int, *frames: bytes) -> None:
        """A container of the node sends; returns when all is quiet."""
        for frame in frames:
            self.nodes[number].port.feed(frame)
        self.run()

    def arrivals(self) -> dict[int, Tally[bytes]]:
        """Node → how often each frame was delivered there since the last call."""
        return {node.number: Tally(node.frames()) for node in self.nodes}

    def take_hops(self) -> list[Hop]:
        """Hops since the last call."""
        hops, self.hops = self.hops, []
        return hops


def line(count: int) -> list[tuple[int, int]]:
    """0 - 1 - 2 - ..."""
    return [(number, number + 1) for number in range(count - 1)]


def ring(count: int) -> list[tuple[int, int]]:
    """A line whose ends are joined."""
    return [*line(count), (0, count - 1)]


def full(count: int) -> list[tuple[int, int]]:
    """Everybody with everybody."""
    return [(a, b) for b in range(count) for a in range(b)]


def random_graph(count: int, extra: int, seed: int) -> list[tuple[int, int]]:
    """A connected graph: a tree and some more links."""
    rng = random.Random(seed)
    edges = [(rng.randrange(number), number) for number in range(1, count)]
    edges += [(rng.randrange(count), rng.randrange(count)) for _ in range(extra)]
    return [edge for edge in edges if edge[0] != edge[1]]
