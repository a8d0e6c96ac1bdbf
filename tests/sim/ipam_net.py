"""Clusters of allocators in memory: fake time, a bad network, crashes, full disks; all seeded.

Every node has a store that survives its crashes and a shell that does what a real one does: handle
inputs, commit the change, release what comes out. A crash happens before or after a commit, so a
message is sent or an answer given only for what is stored; whether the client hears is another
matter. Containers outlive their node's process, as they do in reality: an address that a client was
promised is in use until it is freed.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from base.errors import NotStoredError, RemoteProtocolError
from base.names import PeerName
from ipam.address import Cidr, Range
from ipam.allocator import Allocator
from ipam.events import Answered, Broadcast, SendUnicast
from ipam.options import AllocatorOptions, KnownPeer, Mode
from ipam.store import Change, Holding, MemoryStore, Stored

GOSSIP_S = 30.0


def name_of(number: int) -> PeerName:
    return PeerName.from_int(0xCE_00_00_00_00_00 + number)


@dataclass
class Faults:
    """What the network and the disks do, as chances."""

    loss: float = 0.0
    duplicate: float = 0.0
    delay_s: float = 0.05
    disk_s: float = 0.02  #: how long a commit takes at most
    crash: float = 0.0  #: per commit
    disk_full: float = 0.0  #: per commit


class Node:
    """One host: its disk, its containers and, while it is up, its allocator."""

    def __init__(self, net: Net, number: int, **options: Any) -> None:
        self.net = net
        self.number = number
        self.name = name_of(number)
        self.options = options
        self.store = MemoryStore()
        self.allocator: Allocator | None = None
        self.uid = 0
        self.offset = 0.0
        self.gone = False
        self.wiped = False  #: and not yet stored again what is in use
        #: What clients were promised: address by ident.
        self.promised: dict[str, int] = {}
        self.asked: dict[int, tuple[str, str]] = {}
        self.claimed: dict[int, Cidr] = {}
        self.answers: dict[int, Answered] = {}
        self.refused = 0
        self.log: list[str] = []
        self._wake_at: float | None = None
        self._committing = False

    @property
    def now(self) -> float:
        return self.net.now + self.offset

    @property
    def core(self) -> Allocator:
        assert self.allocator is not None
        return self.allocator

    @property
    def has_ring(self) -> bool:
        """Whether it is up and knows the ring."""
        return self.allocator is not None and bool(self.allocator._context.state.shown.entries)

    def start(self) -> None:
        rng = self.net.rng
        self.uid = rng.getrandbits(63) + 1
        options = AllocatorOptions(
            self.name, f"host{self.number}", self.uid, self.net.universe, **self.options
        )
        self.allocator = Allocator(options, self.now, random.Random(rng.getrandbits(63)))
        stored: Stored = self.store.load()
        size = self.net.universe.prefix_len
        in_use = [Holding(addr, size, ident, True) for ident, addr in self.promised.items()]
        self.core.restore(stored, in_use, self.now)
        self.core.set_targets(len(self.net.nodes) - 1, self.now)
        self.net.topology_changed()
        self.step()
        if self.allocator is not None:
            self.net.exchange(self)
            self._gossip(self.allocator)

    def crash(self) -> None:
        self.allocator = None
        self.asked.clear()
        self._wake_at = None
        self._committing = False
        self.net.topology_changed()

    def _gossip(self, allocator: Allocator) -> None:
        if self.allocator is allocator:
            others = self.net.reachable(self)
            for other in self.net.rng.sample(others, min(2, len(others))):
                self.net.send(self, other, "gossip", allocator.encode_state())
            self.net.later(GOSSIP_S * self.net.rng.uniform(0.9, 1.1), self._gossip, allocator)

    # --- the shell -------------------------------------------------------------------------------

    def step(self) -> None:
        """Begin to commit what there is, unless a commit is under way, and release what may go."""
        while self.allocator is not None:
            if not self._committing:
                change = self.allocator.take_change()
                if change is not None:
                    self._committing = True
                    delay = self.net.rng.uniform(0.0, self.net.faults.disk_s)
                    self.net.later(delay, self._commit, self.allocator, change)
            self.net.check_node(self)
            taken = self.allocator.take_events()
            for event in taken:
                self._act(event)
            if not taken:
                break
        self._arm()

    def _commit(self, allocator: Allocator, change: Change) -> None:
        """The disk has done it, or not; the process may die right before or after."""
        if self.allocator is not allocator:
            return
        rng, faults = self.net.rng, self.net.faults
        self._committing = False
        if rng.random() < faults.disk_full:
            allocator.rollback("disk full")
        elif rng.random() < faults.crash:
            if rng.random() < 0.5:
                self.store.commit(change)
            self.crash()
            return
        else:
            self.store.commit(change)
            self.wiped = False
            allocator.committed()
        self.step()

    def _act(self, event: object) -> None:
        if isinstance(event, SendUnicast):
            other = self.net.by_name.get(event.peer)
            if other is not None and other in self.net.reachable(self):
                self.net.send(self, other, "unicast", event.data)
            else:
                self.core.send_failed(event.peer, self.now)
        elif isinstance(event, Broadcast):
            if event.source is None:  # in a full mesh nobody passes others' broadcasts on
                for other in self.net.reachable(self):
                    self.net.send(self, other, "broadcast", self.core.encode_state())
        elif isinstance(event, Answered):
            kind, ident = self.asked.pop(event.request, ("", ""))
            self.answers[event.request] = event
            if kind == "allocate" and isinstance(event.value, Cidr):
                self.promised[ident] = event.value.addr
            elif kind == "claim" and event.error is None:
                self.promised[ident] = self.claimed[event.request].addr
            elif kind == "delete" and isinstance(event.error, NotStoredError):
                self.net.later(1.0, self.delete, ident)

    def _arm(self) -> None:
        if self.allocator is None:
            return
        deadline = self.allocator.next_deadline()
        if deadline is not None and deadline != self._wake_at:
            self._wake_at = deadline
            self.net.later(max(0.001, deadline - self.now), self._wake, self.allocator, deadline)

    def _wake(self, allocator: Allocator, deadline: float) -> None:
        if self.allocator is allocator and self._wake_at == deadline:
            self._wake_at = None
            allocator.timeout(self.now)
            self.step()

    def receive(self, sender: PeerName, kind: str, data: bytes) -> None:
        if self.allocator is None:
            return
        try:
            if kind == "unicast":
                self.allocator.on_unicast(sender, data, self.now)
            elif kind == "broadcast":
                self.allocator.on_broadcast(sender, data, self.now)
            else:
                self.allocator.on_gossip(data, self.now)
        except RemoteProtocolError as err:
            self.refused += 1
            self.log.append(str(err))
        self.step()

    # --- clients ---------------------------------------------------------------------------------

    def ask(self, kind: str, *arguments: Any, **options: Any) -> int:
        """A request of any kind: its number."""
        request = next(self.net.requests)
        if self.allocator is not None:
            self.asked[request] = (kind, arguments[0] if arguments else "")
            if kind == "claim":
                self.claimed[request] = arguments[1]
            getattr(self.allocator, kind)(request, *arguments, self.now, **options)
            self.step()
        return request

    def allocate(self, ident: str, subnet: Cidr | None = None) -> int:
        return self.ask("allocate", ident, subnet, is_container=True)

    def delete(self, ident: str) -> None:
        """The container ends; its client forgets the address at once."""
        self.promised.pop(ident, None)
        if self.allocator is None:
            return  # a reconciliation at the next start sees that it is not in use
        self.ask("delete", ident)

    def reconcile(self) -> None:
        if self.allocator is not None:
            asking = {ident for _, ident in self.asked.values()}
            self.allocator.prune({*self.promised, *asking}, self.now)
            self.step()


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

    def add(self, *numbers: int, **options: Any) -> list[Node]:
        """Nodes, not started."""
        for number in numbers:
            node = Node(self, number, **options)
            self.nodes[number] = self.by_name[node.name] = node
        return [self.nodes[number] for number in numbers]

    def start(self, *numbers: int) -> None:
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
            self.send(node, other, "gossip", node.core.encode_state())
            self.send(other, node, "gossip", other.core.encode_state())

    def part(self, *groups: set[int]) -> None:
        self._parts = {number: index for index, group in enumerate(groups) for number in group}
        self.topology_changed()

    def heal(self) -> None:
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

    def check_node(self, node: Node) -> None:
        """Ring and space own the same, holders and space agree (properties 4 to 7, 9)."""
        state = node.core._context.state
        state.ring.check()
        assert state.ring.owned_joined(state.peer) == state.space.owned_ranges()
        whole: Range = state.universe
        if not state._touched and not state._touched_all:
            for index, entry in enumerate(state.ring.entries):
                if entry.peer == state.peer:
                    pieces = state.ring.pieces(index)
                    assert entry.free == sum(map(state.space.free_in, pieces))
        held = {one.addr for one in state.holdings if whole.contains(one.addr)}
        assert held - set(state.strays) == set(state.space.used_in(whole))

    def check(self) -> None:
        """No address is promised to, or stored for, two."""
        holders: dict[int, tuple[int, str]] = {}
        for node in self.nodes.values():
            if node.gone:
                continue
            stored = {one.addr: one.ident for one in node.store.load().holdings}
            for ident, addr in node.promised.items():
                if node.wiped:
                    continue
                assert stored.get(addr) == ident, f"{ident} on {node.number} lost its address"
            for addr, ident in stored.items():
                other = holders.setdefault(addr, (node.number, ident))
                assert other == (node.number, ident), f"{addr:x} has two holders"

    def converged(self) -> bool:
        """All rings say the same, free counts apart, and nobody waits for anything."""
        rings = [
            [(e.token, e.peer, e.version) for e in node.core._context.state.ring.entries]
            for node in self.alive()
        ]
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
            for request in list(node.asked):
                node.core.cancel(request, node.now)
            node.step()
            node.reconcile()
        assert self.run_until(self.converged, limit_s), self.describe()
        self.check()
        rings = self.alive()[0].core._context.state.ring
        owned = sum(piece.size for _, piece in rings.all_pieces())
        assert owned == self.universe.size
        total = 0
        for node in self.alive():
            state = node.core._context.state
            assert not state.strays
            total += sum(run.size for run in state.space.owned_ranges())
            assert {one.addr for one in state.holdings} == set(node.promised.values())
        if not any(node.gone for node in self.nodes.values()):
            assert total == self.universe.size

    def describe(self) -> str:
        lines = []
        for node in self.alive():
            ring = node.core._context.state.ring
            entries = [(hex(e.token), e.peer & 0xFF, e.version, e.free) for e in ring.entries]
            lines.append(f"{node.number}: {entries} {node.log[-2:]} {node.core.status().text}")
        return "\n".join(lines)


@dataclass
class Plan:
    """How a random life of a cluster looks."""

    seed: int
    nodes: int = 4
    steps: int = 60
    faults: Faults = field(default_factory=Faults)
    partitions: bool = False
    takeover: bool = False
    wipes: bool = False
    jumps: bool = False
    mode: Mode = Mode.CONSENSUS


def live(plan: Plan) -> Net:
    """A cluster's life by the plan, healed at its end."""
    rng = random.Random(plan.seed)
    net = Net(plan.seed, rng.choice(["10.32.0.0/26", "10.32.0.0/24", "10.32.0.0/20"]), plan.faults)
    numbers = list(range(1, plan.nodes + 1))
    seeds = tuple(map(name_of, numbers)) if plan.mode is Mode.SEED else ()
    net.add(*numbers, mode=plan.mode, seeds=seeds, expected=plan.nodes)
    for number in numbers:
        net.start(number)
        net.run(rng.choice([0.0, 1.0]))
    for step in range(plan.steps):
        up = [node for node in net.nodes.values() if not node.gone]
        node = rng.choice(up)
        _one_step(net, plan, rng, node, step)
        net.run(rng.choice([0.0, 0.01, 0.3, 3.0]))
        net.check()
    net.settle()
    return net


def _one_step(net: Net, plan: Plan, rng: random.Random, node: Node, step: int) -> None:
    chance = rng.random()
    if node.allocator is None:
        node.start()
    elif chance < 0.02 and plan.wipes and all(one.has_ring for one in net.nodes.values()):
        # somebody deletes the database; the containers run on
        node.crash()
        node.store = MemoryStore()
        node.wiped = True
    elif chance < 0.55:
        subnet = None
        if rng.random() < 0.3:
            low = net.universe.addr + 8 * rng.randrange(net.universe.size // 8)
            subnet = Cidr(low, 29)
        node.allocate(f"c{node.number}.{rng.randrange(1 << 30):x}", subnet)
    elif chance < 0.75 and node.promised:
        node.delete(rng.choice(sorted(node.promised)))
    elif chance < 0.85:
        addr = net.universe.addr + rng.randrange(net.universe.size)
        node.ask("claim", f"k{step}", Cidr(addr, 24), is_container=True)
    elif chance < 0.89 and plan.partitions:
        groups: tuple[set[int], set[int]] = (set(), set())
        for number in net.nodes:
            groups[rng.randrange(2)].add(number)
        net.part(*groups)
    elif chance < 0.92 and plan.partitions:
        net.heal()
    elif chance < 0.94 and plan.jumps:
        node.offset += rng.choice([1.0, 40.0, 4000.0])
    elif chance < 0.96 and plan.takeover:
        _replace(net, rng, node)
    elif chance < 0.98:
        node.reconcile()


def _replace(net: Net, rng: random.Random, node: Node) -> None:
    """A node dies for ever, its containers with it; another takes its space, once."""
    up = [one for one in net.alive() if one is not node]
    if len(up) < 2 or any(one.gone for one in net.nodes.values()) or net._parts:
        return
    node.gone = True
    node.promised.clear()
    node.crash()
    net.run(1.0)
    rng.choice(up).ask("take_over", str(node.name))
