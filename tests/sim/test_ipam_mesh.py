"""Allocators on a mesh in a line: what is passed on, in whose name, and what strangers pass on."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import cast

import pytest

from base.names import PeerName
from control.ipam_channel import MeshChannel
from ipam import wire
from ipam.address import Cidr, parse_address
from ipam.allocator import Allocator
from ipam.events import Answered, Broadcast, SendUnicast, TellOutside
from ipam.options import CHANNEL, AllocatorOptions, Mode
from ipam.outside import KEEP_S, OUTSIDE_CHANNEL
from ipam.store import MemoryStore
from mesh.gossip import GossipData, Gossiper
from mesh.node import MeshNode
from tests.sim.mesh_net import Host, Net, name_of

pytestmark = pytest.mark.sim

UNIVERSE = Cidr.parse("10.32.0.0/24")
X = parse_address("10.9.0.1")


class _Shell:
    """Allocator, channel and store of one host, and the mesh's node as the channel knows it."""

    def __init__(self, host: Host, **options: object) -> None:
        self.host, self.core = host, host.core
        self.store = MemoryStore()
        made = AllocatorOptions(
            host.name,
            f"host{host.number}",
            host.core.options.uid,
            UNIVERSE,
            expected=3,
            **options,  # type: ignore[arg-type]
        )
        self.allocator = Allocator(made, self.now(), random.Random(host.number))
        self.allocator.restore(self.store.load(), (), self.now())
        self.answers: list[Answered] = []
        #: While set, the disk is busy, so nothing goes out.
        self.held = False
        self.channel = MeshChannel(cast("MeshNode", self), self.allocator, self.wake)

    def now(self) -> float:
        return self.host.net.now

    def pump(self) -> None:
        self.host.sync()

    def wake(self) -> None:
        """As the service: commit, then let out what was caused; not from within the input."""
        self.host.net.later(0.0, self.settle)

    def settle(self) -> None:
        if self.held:
            return
        if (change := self.allocator.take_change()) is not None:
            self.store.commit(change)
            self.allocator.committed()
        for event in self.allocator.take_events():
            match event:
                case SendUnicast(peer, data):
                    self.channel.send(peer, data)
                case Broadcast(source):
                    self.channel.broadcast(source)
                case TellOutside():
                    self.channel.tell_outside()
                case Answered():
                    self.answers.append(event)
        self.channel.flush()


class _Ear:
    """Notes the broadcasts that a channel's owner is given."""

    def __init__(self, owner: Gossiper) -> None:
        self._owner = owner
        self.heard: list[tuple[PeerName, bytes]] = []

    def on_unicast(self, source: PeerName, data: bytes, now: float) -> None:
        self._owner.on_unicast(source, data, now)

    def on_broadcast(self, source: PeerName, data: bytes, now: float) -> GossipData | None:
        self.heard.append((source, data))
        return self._owner.on_broadcast(source, data, now)

    def on_gossip(self, data: bytes, now: float) -> GossipData | None:
        return self._owner.on_gossip(data, now)

    def complete(self) -> GossipData | None:
        return self._owner.complete()


@pytest.fixture
def line() -> Iterator[tuple[Net, list[Host]]]:
    """Three hosts, the second connected to both others."""
    net = Net()
    hosts = [net.add(number, discovery=False) for number in (1, 2, 3)]
    hosts[1].connect(1, 3)
    yield net, hosts
    assert [host.neighbours() for host in hosts] == [[2], [1, 3], [2]]  # it has stayed a line


def _shells(net: Net, hosts: list[Host], **options: object) -> list[_Shell]:
    shells = [_Shell(host, **options) for host in hosts]
    net.run_until(lambda: net.agree() and net.established(), 30.0)
    for shell in shells:
        shell.channel.topology_changed()
        shell.allocator.set_targets(2, net.now)
    net.run(1.0)
    return shells


def _listen(shell: _Shell, channel: str = CHANNEL) -> _Ear:
    owner = shell.core.gossip._owner(channel)
    assert owner is not None
    ear = _Ear(owner)
    shell.core.register(channel, ear)
    return ear


def test_a_broadcast_is_passed_on_as_ones_own_state_in_the_name_of_its_source(
    line: tuple[Net, list[Host]],
) -> None:
    net, hosts = line
    seeds = tuple(host.name for host in hosts)
    one, two, three = _shells(net, hosts, mode=Mode.SEED, seeds=seeds)
    for shell in (one, two, three):
        shell.allocator.prime(1, net.now)
        shell.wake()
    net.run(1.0)
    two.allocator.allocate(2, "b", None, net.now)  # told to nobody yet
    two.wake()
    net.run(1.0)
    ears = [_listen(shell) for shell in (one, two, three)]
    two.held = True
    one.allocator.on_unicast(  # as if the third had asked: one gives and tells all
        three.host.name, wire.encode_space_request(UNIVERSE.range), net.now
    )
    one.wake()
    net.run(1.0)
    assert [source for source, _ in ears[1].heard] == [one.host.name]
    assert ears[2].heard == []  # its outcome is not durable at the second yet
    two.held = False
    two.wake()
    net.run(1.0)
    ((source, data),) = ears[2].heard
    assert source == one.host.name
    state = wire.decode_state(data)
    assert state.ring is not None
    assert state.ring.peer == int(two.host.name)
    assert data == two.allocator.encode_state() != ears[1].heard[0][1]
    assert [e.free for e in state.ring.entries if e.peer == int(two.host.name)] == [63]
    assert ears[0].heard == []  # nor does it go back
    rings = [shell.allocator._context.state.ring.entries for shell in (one, two, three)]
    assert rings[0] != rings[1] == rings[2]  # only the free count that nobody had told
    assert [e[:2] for e in rings[0]] == [e[:2] for e in rings[1]]


def test_an_election_over_two_hops(line: tuple[Net, list[Host]]) -> None:
    net, hosts = line
    shells = _shells(net, hosts)
    shells[0].allocator.allocate(1, "a", None, net.now)
    shells[0].wake()
    net.run(2.0)
    (answer,) = shells[0].answers
    assert isinstance(answer.value, Cidr)
    rings = [shell.allocator._context.state.ring for shell in shells]
    assert {ring.seeds for ring in rings} == {rings[0].seeds}
    assert len(rings[0].seeds) >= 2


def test_unicasts_find_their_way_over_two_hops(line: tuple[Net, list[Host]]) -> None:
    net, hosts = line
    seeds = (hosts[0].name, hosts[2].name)
    one, _, three = _shells(net, hosts, mode=Mode.SEED, seeds=seeds)
    three.allocator.claim(7, "k", Cidr(UNIVERSE.addr + 5, 24), net.now)
    three.wake()
    net.run(2.0)
    assert [(each.request, each.error) for each in three.answers] == [(7, None)]
    assert one.allocator._context.state.ring.owner(UNIVERSE.addr + 5) == int(three.host.name)


@pytest.mark.parametrize("stranger", [False, True])
def test_doubles_outside_the_range_are_noticed_also_across_a_stranger(
    line: tuple[Net, list[Host]], stranger: bool
) -> None:
    """The second may know nothing of the channel, as Weave does not."""
    net, hosts = line
    shells = _shells(net, hosts)
    if stranger:
        hosts[1].core.gossip._channels.pop(OUTSIDE_CHANNEL)
    for shell in (shells[0], shells[2]):
        shell.allocator.claim(9, f"c{shell.host.number}", Cidr(X, 24), net.now)
        shell.wake()
        net.run(1.0)
    warned = [shell.allocator.status().conflicts for shell in shells]
    assert warned[0] == (f"10.9.0.1 of c1 is in use at {name_of(3)}(host3), too",)
    assert warned[2] == (f"10.9.0.1 of c3 is in use at {name_of(1)}(host1), too",)
    assert warned[1] == ()


def test_lists_live_as_long_as_they_are_told(line: tuple[Net, list[Host]]) -> None:
    net, hosts = line
    shells = _shells(net, hosts)
    for shell in (shells[0], shells[2]):
        shell.allocator.claim(9, "c", Cidr(X, 24), net.now)
        shell.wake()
    for _ in range(int(2 * KEEP_S)):
        for shell in shells:
            shell.allocator.timeout(net.now)
            shell.settle()
        net.run(1.0)
    assert shells[2].allocator.status().conflicts
    for _ in range(int(KEEP_S) + 70):
        shells[2].allocator.timeout(net.now)
        net.run(1.0)
    assert shells[2].allocator.status().conflicts == ()
