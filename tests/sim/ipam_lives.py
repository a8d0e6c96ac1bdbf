"""Random lives of clusters by a plan: what happens to them, and what is said of them falsely."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from base.names import PeerName
from ipam import wire
from ipam.address import Cidr
from ipam.options import Mode
from ipam.ring import TAKEOVER_STEP
from ipam.store import Entry, MemoryStore
from ipam.wire import GossipState, RingState
from tests.sim.ipam_net import Net
from tests.sim.ipam_node import Faults, Node, name_of
from tests.sim.weave_peer import WeaveNode

#: A peer that nobody has ever seen; its name is lower than all, so it wins what is undecided.
PHANTOM = PeerName.from_int(1)


@dataclass
class Plan:
    """How a random life of a cluster looks.

    ``weave``: so many of the nodes, the last ones, are Weave's. ``lies``: rings that contradict
    what a node owns. ``takeover``: somebody dies for ever and is taken over, ``twice``: on both
    sides of a partition. ``steals``: somebody out of reach is taken over although it lives.
    ``restores``: a node comes back with an older copy of its disk.
    """

    seed: int
    nodes: int = 4
    steps: int = 60
    faults: Faults = field(default_factory=Faults)
    partitions: bool = False
    takeover: bool = False
    twice: bool = False
    steals: bool = False
    wipes: bool = False
    restores: bool = False
    lies: bool = False
    jumps: bool = False
    weave: int = 0
    mode: Mode = Mode.CONSENSUS


def live(plan: Plan) -> Net:
    """A cluster's life by the plan, healed at its end."""
    rng = random.Random(plan.seed)
    net = Net(plan.seed, rng.choice(["10.32.0.0/26", "10.32.0.0/24", "10.32.0.0/20"]), plan.faults)
    numbers = list(range(1, plan.nodes + 1))
    by_seed = plan.mode is Mode.SEED or plan.weave > 0
    seeds = tuple(map(name_of, numbers)) if by_seed else ()
    mode = Mode.SEED if by_seed else plan.mode
    # whoever has the lowest name wins ties, so it is one of either kind
    weave = set(rng.sample(numbers, plan.weave))
    for number in numbers:
        kind = WeaveNode if number in weave else Node
        net.add(number, kind=kind, mode=mode, seeds=seeds, expected=plan.nodes)
    for number in numbers:
        net.start(number)
        net.run(rng.choice([0.0, 1.0]))
    life = _Life(net, plan, rng)
    for step in range(plan.steps):
        up = [node for node in net.nodes.values() if not node.gone]
        life.step(rng.choice(up), step)
        net.run(rng.choice([0.0, 0.01, 0.3, 3.0]))
        net.check()
    life.end()
    net.settle()
    return net


class _Life:
    """One life under way."""

    def __init__(self, net: Net, plan: Plan, rng: random.Random) -> None:
        self.net, self.plan, self.rng = net, plan, rng
        self._old_disks: dict[int, MemoryStore] = {}

    def step(self, node: Node, number: int) -> None:
        """Something happens to a node."""
        chance = self.rng.random()
        if not node.is_up:
            node.start()
        elif chance < 0.1 and self._trouble(node, chance):
            return
        elif chance < 0.85:
            self._use(node, chance, number)
        elif chance < 0.98:
            self._rare(node, chance)

    def _trouble(self, node: Node, chance: float) -> bool:
        """What is known, or said, is wrong; whether that came to pass."""
        plan = self.plan
        if chance < 0.02 and plan.wipes and self._all_have_rings():
            # somebody deletes the database; the containers run on
            node.crash()
            node.store = MemoryStore()
            node.forget()
        elif chance < 0.05 and plan.restores and self._all_have_rings():
            self._restore(node)
        elif plan.lies and node.has_ring:
            self._lie(node)
        else:
            return False
        return True

    def _use(self, node: Node, chance: float, number: int) -> None:
        """What users do."""
        rng = self.rng
        if chance < 0.55:
            node.allocate(f"c{node.number}.{rng.randrange(1 << 30):x}", self._subnet())
        elif chance < 0.75 and node.promised:
            node.delete(rng.choice(sorted(node.promised)))
        elif node.claims:
            addr = self.net.universe.addr + rng.randrange(self.net.universe.size)
            node.ask("claim", f"k{number}", Cidr(addr, 24), is_container=True)

    def _rare(self, node: Node, chance: float) -> None:
        """What operators do, and networks, and clocks."""
        plan, rng, net = self.plan, self.rng, self.net
        if chance < 0.89 and plan.partitions:
            groups: tuple[set[int], set[int]] = (set(), set())
            for one in net.nodes:
                groups[rng.randrange(2)].add(one)
            net.part(*groups)
        elif chance < 0.92 and plan.partitions:
            net.heal()
        elif chance < 0.94 and plan.jumps:
            node.offset += rng.choice([1.0, 40.0, 4000.0])
        elif chance < 0.96 and plan.takeover:
            self._replace(node)
        elif chance < 0.96 and plan.twice:
            self._replace_twice(node)
        elif chance < 0.96 and plan.steals:
            self._steal(node)
        else:
            node.reconcile()

    def end(self) -> None:
        """What lies have given to nobody is taken from nobody."""
        if self.plan.lies:
            self.net.faults = Faults()
            self.net.heal()
            self.net.run(2.0)
            self.net.nodes[1].ask("take_over", str(PHANTOM))
            self.net.run(2.0)

    def _subnet(self) -> Cidr | None:
        if self.rng.random() >= 0.3:
            return None
        universe = self.net.universe
        return Cidr(universe.addr + 8 * self.rng.randrange(universe.size // 8), 29)

    def _all_have_rings(self) -> bool:
        return all(one.has_ring for one in self.net.nodes.values())

    def _quiet(self) -> None:
        """All are up, in sight of each other, agree, and ask for nothing."""
        net = self.net
        for node in net.nodes.values():
            if not node.is_up and not node.gone:
                node.start()
        net.heal()
        net.run_until(net.converged, 120.0)
        for node in net.alive():
            node.withdraw()
        net.run(1.0)

    # --- the dead, and those taken for dead ------------------------------------------------------

    def _may_die(self, node: Node) -> bool:
        return not any(one.gone for one in self.net.nodes.values()) and not self.net.parted

    def _die(self, node: Node) -> None:
        """A node dies for ever, its containers with it."""
        node.gone = True
        node.promised.clear()
        node.crash()
        self.net.run(1.0)

    def _replace(self, node: Node) -> None:
        """Another takes its space, once."""
        up = [one for one in self.net.alive() if one is not node]
        if len(up) >= 2 and self._may_die(node):
            self._die(node)
            self.rng.choice(up).ask("take_over", str(node.name))

    def _replace_twice(self, node: Node) -> None:
        """Two take its space who do not see each other (#3190, #3632), not both Weave's (H4)."""
        net, rng = self.net, self.rng
        if not self._may_die(node):
            return
        self._quiet()
        self._die(node)
        one, two = rng.sample(net.alive(), 2)
        net.part({one.number}, {two.number, *net.nodes} - {one.number})
        for heir in (one, two):
            heir.ask("take_over", str(node.name))
        net.run(5.0)
        net.heal()
        net.run(60.0)

    def _steal(self, node: Node) -> None:
        """Somebody out of reach is taken over, and comes back, before anybody asks for space."""
        net = self.net
        others = [one for one in net.alive() if one is not node]
        if isinstance(node, WeaveNode) or not others or not self._all_have_rings():
            return  # Weave would never be seen again
        self._quiet()
        net.part({node.number}, set(net.nodes) - {node.number})
        net.run(1.0)
        self.rng.choice(others).ask("take_over", str(node.name))
        net.run(1.0)
        net.heal()
        net.run(60.0)

    def _restore(self, node: Node) -> None:
        """It comes back with what the disk knew at some time before; its containers live."""
        old = self._old_disks.get(node.number)
        self._old_disks[node.number] = node.copy_disk()
        if old is None:
            return
        self._quiet()
        node.crash()
        node.store = old
        node.forget()
        node.start()
        self.net.run(2.0)

    # --- lies ------------------------------------------------------------------------------------

    def _lie(self, node: Node) -> None:
        """Somebody's ring says that a piece of this node, or a part of it, is another's (H1-H4)."""
        rng, us = self.rng, int(node.name)
        entries = list(node.entries())
        mine = [index for index, entry in enumerate(entries) if entry.peer == us]
        if not mine:
            return
        index = rng.choice(mine)
        entry = entries[index]
        end = entries[index + 1].token if index + 1 < len(entries) else self.net.universe.range.end
        middle = rng.randrange(entry.token, end)
        ghost = int(PHANTOM)
        inside = Entry(middle, ghost, 0, 0)
        shape = rng.randrange(6)
        if shape == 0:  # H1: a newer version of ours, and somebody in the piece
            entries[index] = entry._replace(version=entry.version + 1, free=0)
            entries.insert(index + 1, inside)
        elif shape == 1:  # H2: a token that names us, and somebody behind it
            entries[index + 1 : index + 1] = [
                Entry(middle, us, 0, 0),
                inside._replace(token=middle + 1),
            ]
        elif shape == 2:  # H3: only that token, so nothing stands behind it
            entries = [inside]
        elif shape == 3:  # H4: as new as ours, as much free
            entries[index] = entry._replace(peer=ghost)
        elif shape == 4:  # H6: taken, whether in use or not
            step = rng.choice([1, TAKEOVER_STEP])
            entries[index] = entry._replace(peer=ghost, version=entry.version + step)
        else:  # taken and divided
            entries[index] = entry._replace(peer=ghost, version=entry.version + 1, free=0)
            entries.insert(index + 1, inside._replace(peer=us, version=1))
        tokens = sorted({one.token: one for one in entries}.values())
        ring = RingState(self.net.universe.range, ghost, tuple(tokens), ())
        data = wire.encode_state(GossipState(0, {}, None, ring))
        node.receive(PHANTOM, "gossip", data)
