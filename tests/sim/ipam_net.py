"""Clusters of allocators in memory: fake time, a bad network, crashes, full disks; all seeded.

Messages may be lost, come twice and in any order; a partition loses what is under way. Nodes are
in :mod:`tests.sim.ipam_node`, those that are Weave's in :mod:`tests.sim.weave_peer`.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from typing import Any

from base.names import PeerName
from ipam.address import Cidr
from ipam.options import KnownPeer
from tests.sim.ipam_node import Faults, Node


class Net:
    """The nodes, messages under way, the time, and what must always hold."""

    def __init__(
        self, seed: int, universe: str = "10.32.0.0/26", faults: Faults | None = None
    ) -> None:
        self.rng = random.Random(seed)
        self.universe = Cidr.parse(universe)
        self.faults = faults or Faults()
        self.now = 1000.0
        self.nodes: dict[int, Node] = {}
        self.by_name: dict[PeerName, Node] = {}
        self.requests = itertools.count(1)
        self.messages = 0
        self._parts: dict[int, int] = {}
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = itertools.count()

    def add(self, *numbers: int, kind: Callable[..., Node] = Node, **options: Any) -> list[Node]:
        """Nodes, not started."""
        for number in numbers:
            node = kind(self, number, **options)
            self.nodes[number] = self.by_name[node.name] = node
        return [self.nodes[number] for number in numbers]

    def start(self, *numbers: int) -> None:
        """Some of them, or all."""
        for number in numbers or list(self.nodes):
            self.nodes[number].start()

    # --- topology --------------------------------------------------------------------------------

    def reachable(self, node: Node) -> list[Node]:
        part = self._parts.get(node.number, 0)
        return [
            other
            for other in self.nodes.values()
            if other is not node
            and other.allocator is not None
            and self._parts.get(other.number, 0) == part
        ]

    def topology_changed(self) -> None:
        for node in self.nodes.values():
            if node.allocator is not None:
                peers = [
                    KnownPeer(one.name, f"host{one.number}", one.uid)
                    for one in [node, *self.reachable(node)]
                ]
                node.allocator.set_topology(peers, node.now)
                self.later(0.0, node.step)

    def exchange(self, node: Node) -> None:
        """New connections: both sides tell their state."""
        for other in self.reachable(node):
            self.send(node, other, "gossip", node.state())
            self.send(other, node, "gossip", other.state())

    @property
    def parted(self) -> bool:
        """Whether there is a partition."""
        return bool(self._parts)

    def part(self, *groups: set[int]) -> None:
        """Nodes of different groups neither see nor hear each other."""
        self._parts = {number: index for index, group in enumerate(groups) for number in group}
        self.topology_changed()

    def heal(self) -> None:
        """All see each other."""
        self._parts = {}
        self.topology_changed()
        for node in self.nodes.values():
            if node.allocator is not None:
                self.exchange(node)

    # --- time and messages -----------------------------------------------------------------------

    def later(self, delay_s: float, action: Callable[..., None], *arguments: Any) -> None:
        heapq.heappush(self._queue, (self.now + delay_s, next(self._count), action, arguments))

    def send(self, sender: Node, to: Node, kind: str, data: bytes) -> None:
        """Unicasts and broadcasts may be lost or come twice, in any order."""
        assert data
        copies = 1 + (self.rng.random() < self.faults.duplicate)
        for _ in range(copies):
            if self.rng.random() >= self.faults.loss:
                delay = self.rng.uniform(0.001, self.faults.delay_s)
                self.later(delay, self._deliver, sender, to, kind, data)

    def _deliver(self, sender: Node, to: Node, kind: str, data: bytes) -> None:
        if self._parts.get(sender.number, 0) == self._parts.get(to.number, 0):
            self.messages += 1
            to.receive(sender.name, kind, data)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._queue and self._queue[0][0] <= end:
            self.now, _, action, arguments = heapq.heappop(self._queue)
            action(*arguments)
        self.now = end

    def run_until(self, done: Callable[[], bool], limit_s: float) -> bool:
        end = self.now + limit_s
        while self.now < end:
            if done():
                return True
            self.run(0.25)
        return done()

    # --- what must hold --------------------------------------------------------------------------

    def alive(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.allocator is not None]

    def check(self) -> None:
        """No address is promised to, or stored for, two."""
        holders: dict[int, tuple[int, str]] = {}
        for node in self.nodes.values():
            if node.gone:
                continue
            stored = node.stored()
            for ident, addr in node.promised.items():
                if node.wiped:
                    continue
                assert stored.get(addr) == ident, f"{ident} on {node.number} lost its address"
            for addr, ident in stored.items():
                other = holders.setdefault(addr, (node.number, ident))
                assert other == (node.number, ident), f"{addr:x} has two holders"

    def converged(self) -> bool:
        """All rings say the same, free counts apart, and nobody waits for anything."""
        rings = [[entry[:3] for entry in node.entries()] for node in self.alive()]
        return bool(rings[0]) and all(ring == rings[0] for ring in rings)

    def settle(self, limit_s: float = 600.0) -> None:
        """Heal everything, wait until all agree, and look at the outcome."""
        self.faults = Faults()
        for node in self.nodes.values():
            if node.allocator is None and not node.gone:
                node.start()
        self.heal()
        assert self.run_until(self.converged, limit_s), self.describe()
        for node in self.alive():
            node.withdraw()
            node.reconcile()
        assert self.run_until(self.converged, limit_s), self.describe()
        assert self.run_until(self.clear, limit_s), self.describe()
        assert self.converged()
        self.check()
        total = 0
        for node in self.alive():
            total += sum(run.size for run in node.owned_ranges())
            assert set(node.held()) == set(node.promised.values())
        owners = {node.name for node in self.alive()}
        if all(PeerName.from_int(entry.peer) in owners for entry in self.alive()[0].entries()):
            assert total == self.universe.size

    def clear(self) -> bool:
        """Nobody holds an address that is another's."""
        return not any(node.strays() for node in self.alive())

    def describe(self) -> str:
        """Every node's ring, for a failure."""
        lines = []
        for node in self.alive():
            entries = [(hex(e.token), e.peer & 0xFF, e.version, e.free) for e in node.entries()]
            strays = list(map(hex, node.strays()))
            lines.append(f"{node.number}: {entries} {strays} {node.log[-2:]}")
        return "\n".join(lines)
