"""Allocators in one place: messages are delivered at once and in order, commits succeed at once."""

from __future__ import annotations

import itertools
import random
from collections import deque
from typing import Any

from base.names import PeerName
from ipam import wire
from ipam.address import Cidr
from ipam.allocator import Allocator
from ipam.events import Answered, Broadcast, Event, Notice, SendUnicast, TellOutside
from ipam.options import AllocatorOptions, KnownPeer
from ipam.store import Change, Entry, Holding, MemoryStore
from ipam.wire import GossipState, RingState

CANCELLED = "RequestCancelledError"


def name_of(number: int) -> PeerName:
    return PeerName.from_int(0xCE_00_00_00_00_00 + number)


class Host:
    """One allocator and its shell."""

    def __init__(self, cluster: Cluster, number: int, **options: Any) -> None:
        self.cluster = cluster
        self.number = number
        self.name = name_of(number)
        self.options = options
        self.store = MemoryStore()
        self.answers: dict[int, Answered] = {}
        self.notices: list[str] = []
        self.sent: list[Event] = []
        self.changes: list[Change] = []
        self.core = self._new()

    def _new(self) -> Allocator:
        self.cluster.uids += 1
        self.uid = self.cluster.uids
        options = AllocatorOptions(
            self.name, f"host{self.number}", self.uid, self.cluster.universe, **self.options
        )
        return Allocator(options, self.cluster.now, random.Random(self.number))

    def restart(self, *in_use: Holding, **options: Any) -> None:
        self.options.update(options)
        self.core = self._new()
        self.core.restore(self.store.load(), in_use, self.cluster.now)
        self.cluster.settle()

    def ask(self, kind: str, *arguments: Any, **options: Any) -> Answered | None:
        """A request; its answer if it was given at once."""
        request = next(self.cluster.requests)
        getattr(self.core, kind)(request, *arguments, self.cluster.now, **options)
        self.cluster.settle()
        return self.answers.get(request)

    def last(self) -> int:
        """The number of the last request."""
        return self.cluster.last_request

    def allocate(self, ident: str, subnet: str | None = None, **options: Any) -> str:
        """An address's text, the error's, or "" while pending."""
        cidr = None if subnet is None else Cidr.parse_subnet(subnet)
        return said(self.ask("allocate", ident, cidr, **options))

    def claim(self, ident: str, cidr: str, **options: Any) -> str:
        return said(self.ask("claim", ident, Cidr.parse(cidr), **options))

    def step(self) -> list[Event]:
        change = self.core.take_change()
        if change is not None:
            self.store.commit(change)
            self.changes.append(change)
            self.core.committed()
        return self.core.take_events()


def said(answer: Answered | None) -> str:
    if answer is None:
        return ""
    if answer.error is not None:
        return f"{type(answer.error).__name__}: {answer.error}"
    return "ok" if answer.value is None else str(answer.value)


class Cluster:
    """Hosts, all connected unless ``cut``."""

    def __init__(self, count: int, universe: str = "10.32.0.0/26", **options: Any) -> None:
        self.universe = Cidr.parse(universe)
        self.now = 100.0
        self.uids = 1000
        self.last_request = 0
        self.requests = self._numbers()
        self.cut: set[int] = set()
        self.queue: deque[tuple[Host, Host, str, bytes]] = deque()
        self.messages: list[tuple[int, int, str]] = []
        options.setdefault("expected", count)
        options.setdefault("reuse_delay_s", 0.0)
        self.hosts = [Host(self, number, **options) for number in range(1, count + 1)]
        self.topology()
        for host in self.hosts:
            host.core.restore(host.store.load(), (), self.now)
        self.settle()

    def _numbers(self) -> Any:
        for number in itertools.count(1):
            self.last_request = number
            yield number

    def up(self) -> list[Host]:
        return [host for host in self.hosts if host.number not in self.cut]

    def topology(self) -> None:
        for host in self.hosts:
            seen = self.up() if host.number not in self.cut else [host]
            known = [KnownPeer(one.name, f"host{one.number}", one.uid) for one in seen]
            host.core.set_topology(known, self.now)
            host.core.set_targets(len(self.hosts) - 1, self.now)

    def lose(self, *numbers: int) -> None:
        self.cut = set(numbers)
        self.topology()
        self.settle()

    def settle(self) -> None:
        """Until nothing is left to do."""
        busy = True
        while busy:
            busy = False
            for host in self.hosts:
                for event in host.step():
                    busy = True
                    self._act(host, event)
            while self.queue:
                busy = True
                sender, to, kind, data = self.queue.popleft()
                self.messages.append((sender.number, to.number, kind))
                if kind == "unicast":
                    to.core.on_unicast(sender.name, data, self.now)
                else:
                    to.core.on_broadcast(sender.name, data, self.now)
                for event in to.step():
                    self._act(to, event)

    def _act(self, host: Host, event: Event) -> None:
        if isinstance(event, Answered):
            host.answers[event.request] = event
        elif isinstance(event, Notice):
            host.notices.append(event.text)
        elif isinstance(event, SendUnicast):
            host.sent.append(event)
            for other in self.up():
                if other.name == event.peer and host in self.up():
                    self.queue.append((host, other, "unicast", event.data))
        elif isinstance(event, TellOutside):
            host.sent.append(event)
        elif isinstance(event, Broadcast) and event.source is None:
            host.sent.append(event)
            for other in self.up():
                if other is not host and host in self.up():
                    self.queue.append((host, other, "broadcast", host.core.encode_state()))

    def gossip(self) -> None:
        """Everybody tells everybody."""
        for host in self.up():
            for other in self.up():
                if other is not host:
                    other.core.on_gossip(host.core.encode_state(), self.now)
        self.settle()

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 1.0)
            for host in self.hosts:
                deadline = host.core.next_deadline()
                if deadline is not None and deadline <= self.now:
                    host.core.timeout(self.now)
            self.settle()


def alone(universe: str = "10.32.0.0/26", **options: object) -> Host:
    return Cluster(1, universe, **options).hosts[0]


def gossip(host: Host, entries: list[Entry], seeds: tuple[int, ...] = ()) -> None:
    ring = RingState(host.cluster.universe.range, int(name_of(2)), tuple(entries), seeds)
    host.core.on_gossip(wire.encode_state(GossipState(1, {}, None, ring)), 1.0)
    host.cluster.settle()
