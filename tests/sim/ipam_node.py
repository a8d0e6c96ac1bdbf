"""One host of a simulated cluster: its disk, its containers and, while it is up, its allocator.

Its store survives crashes, and its shell does what a real one does: handle inputs, commit the
change, release what comes out. A crash happens before or after a commit, so a message is sent or an
answer given only for what is stored; whether the client hears is another matter. Containers outlive
their node's process, as they do in reality: an address that a client was promised is in use until
it is freed.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from base.errors import NotStoredError, RemoteProtocolError
from base.names import PeerName
from ipam.address import Cidr, Range
from ipam.allocator import Allocator
from ipam.events import Answered, Broadcast, SendUnicast
from ipam.options import AllocatorOptions
from ipam.store import Change, Entry, Holding, MemoryStore, Stored

if TYPE_CHECKING:
    from tests.sim.ipam_net import Net

GOSSIP_S = 30.0


def name_of(number: int) -> PeerName:
    """The name of the node with that number."""
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
    """See the module."""

    #: Whether it can be asked for a certain address.
    claims = True

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
        #: The highest version of each token that others have heard from us.
        self.told: dict[int, int] = {}
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
    def is_up(self) -> bool:
        """Whether the process runs."""
        return self.allocator is not None

    @property
    def has_ring(self) -> bool:
        """Whether it is up and knows the ring."""
        return self.allocator is not None and bool(self.allocator._context.state.shown.entries)

    # --- looking at it ---------------------------------------------------------------------------

    def entries(self) -> list[Entry]:
        """The ring as it knows it."""
        return self.core._context.state.ring.entries

    def owned_ranges(self) -> list[Range]:
        """What it could hand out, handed out or not."""
        return self.core._context.state.space.owned_ranges()

    def held(self) -> dict[int, str]:
        """Holders by address."""
        return {one.addr: one.ident for one in self.core._context.state.holdings}

    def strays(self) -> list[int]:
        """Addresses in use here that are others'."""
        return list(self.core._context.state.strays)

    def stored(self) -> dict[int, str]:
        """Holders by address, as the disk knows them."""
        return {one.addr: one.ident for one in self.store.load().holdings}

    def state(self) -> bytes:
        """What it tells others, which it may not take back."""
        for entry in self.core._context.state.shown.entries:
            self.told[entry.token] = max(entry.version, self.told.get(entry.token, 0))
        return self.core.encode_state()

    def check(self) -> None:
        """Ring and space own the same, holders and space agree (properties 4 to 7, 9, 19)."""
        state = self.core._context.state
        state.ring.check()
        assert state.ring.owned_joined(state.peer) == state.space.owned_ranges()
        whole: Range = state.universe
        for index, entry in enumerate(state.ring.entries):
            if entry.peer == state.peer:
                assert entry.version >= self.told.get(entry.token, 0), "a version fell"
                if not state._touched and not state._touched_all:
                    pieces = state.ring.pieces(index)
                    assert entry.free == sum(map(state.space.free_in, pieces))
        held = {one.addr for one in state.holdings if whole.contains(one.addr)}
        assert held - set(state.strays) == set(state.space.used_in(whole))

    def _in_use(self) -> dict[int, Entry]:
        """Handed-out addresses that are ours, and the entry that says so."""
        state = self.core._context.state
        used = state.space.used_in(state.universe)
        return {addr: state.ring.entries[state.ring.index_of(addr)] for addr in used}

    def _check_losses(self, before: dict[int, Entry]) -> None:
        """Rule R1: no address in use stops being ours unless its piece was taken over."""
        state = self.core._context.state
        after = {entry.token: entry for entry in state.ring.entries}
        for addr in state.strays:
            if (had := before.get(addr)) is not None:
                now = after[had.token]
                taken = now.peer != state.peer and now.version > had.version
                assert taken, f"{addr:x} in use at {self.number} was lost: {had} is {now}"

    # --- up and down -----------------------------------------------------------------------------

    def start(self) -> None:
        """The process begins with what the disk knows and what is in use on the host."""
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
        self._join()

    def _join(self) -> None:
        if self.allocator is not None:
            self.net.exchange(self)
            self._gossip(self.allocator)

    def crash(self) -> None:
        """The process ends, now."""
        self.allocator = None
        self.asked.clear()
        self._wake_at = None
        self._committing = False
        self.net.topology_changed()

    def _gossip(self, allocator: Allocator) -> None:
        if self.allocator is allocator:
            others = self.net.reachable(self)
            for other in self.net.rng.sample(others, min(2, len(others))):
                self.net.send(self, other, "gossip", self.state())
            self.net.later(GOSSIP_S * self.net.rng.uniform(0.9, 1.1), self._gossip, allocator)

    def forget(self) -> None:
        """Its disk is another now: what it knew and told is gone."""
        self.wiped = True
        self.told.clear()

    def copy_disk(self) -> MemoryStore:
        """A disk that holds the same."""
        stored, copy = self.store.load(), MemoryStore()
        held = tuple(stored.holdings)
        change = Change(True, stored.identity, stored.seeds, (), stored.entries, (), held)
        copy.commit(change)
        return copy

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
            self.check()
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
                    self.net.send(self, other, "broadcast", self.state())
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
        """A message has come."""
        if self.allocator is None:
            return
        before = self._in_use()
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
        self._check_losses(before)
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

    def withdraw(self) -> None:
        """Nobody waits any more."""
        if self.allocator is not None:
            for request in list(self.asked):
                self.core.cancel(request, self.now)
            self.step()

    def allocate(self, ident: str, subnet: Cidr | None = None) -> int:
        """An address for a new container."""
        return self.ask("allocate", ident, subnet, is_container=True)

    def delete(self, ident: str) -> None:
        """The container ends; its client forgets the address at once."""
        self.promised.pop(ident, None)
        if self.allocator is None:
            return  # a reconciliation at the next start sees that it is not in use
        self.ask("delete", ident)

    def reconcile(self) -> None:
        """It is told which containers there are."""
        if self.allocator is not None:
            asking = {ident for _, ident in self.asked.values()}
            self.allocator.prune({*self.promised, *asking}, self.now)
            self.step()
