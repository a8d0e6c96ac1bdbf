"""Nodes of Weave Net in a simulated cluster, as far as space goes: a model by specification 2 to 9.

What it does as Weave does, unlike ours: merges by its table, saves at once and before it tells,
never takes a lost range out of its space, so that its process ends at the next check (H6), hands
out the lowest address, asks a donor for each request that waits. What it has not: elections (it is
given seeds), claims, names.
"""

from __future__ import annotations

import random
from typing import Any, cast

from base.errors import RequestCancelledError
from base.names import PeerName
from ipam import wire
from ipam.address import Cidr, Range, subtract
from ipam.allocator import Allocator
from ipam.events import Answered, Broadcast, Event, SendUnicast
from ipam.journal import Journal
from ipam.options import KnownPeer
from ipam.ring import Ring
from ipam.space import Space
from ipam.store import Change, Entry, Holding, Identity, MemoryStore, Stored
from ipam.wire import GossipState, RingState
from tests.sim.ipam_node import Node
from tests.sim.weave_merge import weave_merge

TICK_S = 5.0


class PanicError(Exception):
    """The process has ended itself."""


class WeavePeer:
    """The process. Its state is on the disk before anything else happens."""

    def __init__(
        self, name: PeerName, universe: Cidr, seeds: tuple[int, ...], store: MemoryStore, seed: int
    ) -> None:
        self.name, self.peer = name, int(name)
        self.universe = universe
        self.rng = random.Random(seed)
        self.store = store
        self.reachable: set[int] = set()
        self.waiting: dict[int, tuple[str, Cidr]] = {}
        self.events: list[Event] = []
        self.next_tick: float | None = None
        stored: Stored = store.load()
        self.ring = Ring(universe.range, self.peer, stored.entries, tuple(map(int, stored.seeds)))
        if not self.ring:
            self.ring.claim_for_peers(seeds)
            self._tell()
        self.held = {one.addr: one for one in stored.holdings}
        self._journal = Journal()
        self.space = Space(self._journal)
        self._own()
        for addr in self.held:
            if self.space.is_free(addr):
                self.space.claim(addr)
        self.save()

    # --- inside ----------------------------------------------------------------------------------

    def save(self) -> None:
        """Everything, at once."""
        identity = Identity(self.name, self.universe.range)
        seeds = tuple(map(PeerName.from_int, self.ring.seeds))
        entries, held = tuple(self.ring.entries), tuple(self.held.values())
        self.store.commit(Change(True, identity, seeds, (), entries, (), held))

    def _own(self) -> None:
        """What is ours by the ring and not held yet is free; what is lost stays where it is."""
        owned = self.ring.owned_joined(self.peer)
        for gained in subtract(owned, self.space.owned_ranges()):
            self.space.add(gained)

    def after(self) -> None:
        """What follows every input. Raises PanicError."""
        if self.ring.owned_joined(self.peer) != self.space.owned_ranges():
            raise PanicError("ring and space differ")
        for index, entry in enumerate(self.ring.entries):
            if entry.peer == self.peer:
                free = sum(map(self.space.free_in, self.ring.pieces(index)))
                self.ring.set_free(entry.token, free)
        self._journal.seal()
        self._journal.commit()
        self.save()

    def _tell(self, peer: int | None = None) -> None:
        """Everybody, or one."""
        if peer is None:
            self.events.append(Broadcast())
        else:
            data = wire.encode_ring_update(self.encode_state())
            self.events.append(SendUnicast(PeerName.from_int(peer), data))

    def encode_state(self) -> bytes:
        """As gossip."""
        ring = RingState(self.ring.universe, self.peer, tuple(self.ring.entries), self.ring.seeds)
        return wire.encode_state(GossipState(0, {self.peer: ""}, None, ring))

    # --- requests --------------------------------------------------------------------------------

    def _try(self, request: int, ident: str, subnet: Cidr) -> bool:
        addr = self.space.allocate(subnet.host_range, 0.0)
        if addr is not None:
            self.held[addr] = Holding(addr, subnet.prefix_len, ident, True)
            self.events.append(Answered(request, Cidr(addr, subnet.prefix_len)))
            return True
        for donor in self.ring.donors(subnet.range, self.rng.random):
            if donor in self.reachable:
                data = wire.encode_space_request(subnet.range)
                self.events.append(SendUnicast(PeerName.from_int(donor), data))
                break
        return False

    def _retry(self) -> None:
        for request, (ident, subnet) in list(self.waiting.items()):
            if self._try(request, ident, subnet):
                del self.waiting[request]

    def allocate(
        self, request: int, ident: str, subnet: Cidr | None, now: float, **_: object
    ) -> None:
        where = subnet or self.universe
        if not self._try(request, ident, where):
            self.waiting[request] = ident, where
            self.next_tick = self.next_tick or now + TICK_S

    def cancel(self, request: int, _now: float) -> None:
        if self.waiting.pop(request, None) is not None:
            self.events.append(Answered(request, None, RequestCancelledError("cancelled")))

    def delete(self, request: int, ident: str, now: float) -> None:
        for addr in [addr for addr, one in self.held.items() if one.ident == ident]:
            del self.held[addr]
            if self.space.is_ours(addr):
                self.space.free(addr, now, now)
        self.events.append(Answered(request))
        self._retry()

    def prune(self, running: set[str], now: float) -> None:
        for ident in sorted({one.ident for one in self.held.values()} - running):
            self.delete(0, ident, now)

    def take_over(self, request: int, peer: str, _now: float, **_: object) -> None:
        self.ring.transfer(int(PeerName.parse(peer)), self.peer)
        self._own()
        self._tell()
        self.events.append(Answered(request, 0))
        self._retry()

    # --- the mesh --------------------------------------------------------------------------------

    def set_topology(self, peers: list[KnownPeer], _now: float) -> None:
        self.reachable = {int(one.name) for one in peers} - {self.peer}

    def send_failed(self, _peer: PeerName, _now: float) -> None:
        """It will ask again."""

    def on_unicast(self, source: PeerName, data: bytes, _now: float) -> None:
        if data[0] == wire.RING_UPDATE:
            self._on_state(data[1:], source)
        elif data[0] == wire.SPACE_REQUEST:
            asked = wire.decode_range(data[1:])
            chunk = self.space.biggest_to_give(asked)
            if chunk is not None:
                self.space.drop(chunk)
                self.ring.grant(chunk, int(source))
                self.save()
                self._tell()
            else:
                self.events.append(SendUnicast(source, wire.encode_denial(asked)))
            self._tell(int(source))

    def on_broadcast(self, source: PeerName, data: bytes, _now: float) -> None:
        self._on_state(data, source)

    def on_gossip(self, data: bytes, _now: float) -> None:
        self._on_state(data, None)

    def _on_state(self, data: bytes, source: PeerName | None) -> None:
        theirs = wire.decode_state(data).ring
        if theirs is None:
            if source is not None:
                self._tell(int(source))
            return

        def allocated(ranges: list[Range]) -> bool:
            return any(self.space.free_in(one) != one.size for one in ranges)

        if weave_merge(self.ring, theirs.universe, theirs.entries, theirs.seeds, allocated):
            self.save()
            self._own()
            self._retry()

    # --- time, and what comes out ----------------------------------------------------------------

    def next_deadline(self) -> float | None:
        return self.next_tick

    def timeout(self, now: float) -> None:
        if self.next_tick is not None and now >= self.next_tick:
            self.next_tick = now + TICK_S if self.waiting else None
            self._retry()

    def take_change(self) -> Change | None:
        self.after()
        return None

    def take_events(self) -> list[Event]:
        taken, self.events = self.events, []
        return taken


class WeaveNode(Node):
    """A host with Weave. Its process comes back soon after it has ended itself."""

    claims = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.panics = 0

    @property
    def weave(self) -> WeavePeer:
        """The process."""
        return cast("WeavePeer", self.allocator)

    @property
    def has_ring(self) -> bool:
        return self.is_up

    def entries(self) -> list[Entry]:
        return self.weave.ring.entries

    def owned_ranges(self) -> list[Range]:
        return self.weave.space.owned_ranges()

    def held(self) -> dict[int, str]:
        return {addr: one.ident for addr, one in self.weave.held.items()}

    def strays(self) -> list[int]:
        return []

    def state(self) -> bytes:
        return self.weave.encode_state()

    def check(self) -> None:
        """It is not the one that is tested."""

    def _in_use(self) -> dict[int, Entry]:
        return {}

    def _check_losses(self, before: dict[int, Entry]) -> None:
        """Nor this."""

    def start(self) -> None:
        rng = self.net.rng
        self.uid = rng.getrandbits(63) + 1
        seeds = tuple(map(int, self.options["seeds"]))
        peer = WeavePeer(self.name, self.net.universe, seeds, self.store, rng.getrandbits(63))
        self.allocator = cast("Allocator", peer)
        self.net.topology_changed()
        self.step()
        self._join()

    def step(self) -> None:
        if self.is_up and self.net.rng.random() < self.net.faults.crash / 4:
            self.crash()
        try:
            super().step()
        except PanicError:
            self.panics += 1
            self.crash()
            self.net.later(1.0, self._again)

    def _again(self) -> None:
        if not self.is_up and not self.gone:
            self.start()
