"""A network of mesh cores in memory: fake time, latency, cuts, restarts; everything seeded.

Host ``n`` has the address ``10.0.0.n``, listens on 6783 and, unless told otherwise, bears the name
``ce:…:n``. The overlay is simulated by its outcome: an added connection sends heartbeats, the other
end acknowledges the first over TCP, and the acknowledgement establishes it.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from base.names import PeerName
from mesh import events
from mesh.connection import ConnectionState
from mesh.core import MeshCore, MeshOptions
from mesh.gossip import GossipData
from mesh.maker import DirectPeer

PORT = 6783
LATENCY_S = 0.001
HEARTBEAT_S = 0.5


def name_of(number: int) -> PeerName:
    return PeerName.from_int(0xCE_00_00_00_00_00 + number)


def ip_of(number: int) -> str:
    return f"10.0.{number // 250}.{number % 250 + 1}"


@dataclass(eq=False)
class Link:
    """One TCP connection: the two hosts and the number each core gave it."""

    dialler: Host
    dialler_conn: int
    acceptor: Host
    acceptor_conn: int
    open: bool = True

    def other(self, host: Host, conn: int) -> tuple[Host, int]:
        if host is self.dialler and conn == self.dialler_conn:
            return self.acceptor, self.acceptor_conn
        return self.dialler, self.dialler_conn


@dataclass(frozen=True)
class Items:
    """A set as channel state: the simplest that converges."""

    values: frozenset[str]

    def encode(self) -> list[bytes]:
        return [",".join(sorted(self.values)).encode()]

    def merge(self, other: GossipData) -> GossipData:
        assert isinstance(other, Items)
        return Items(self.values | other.values)


class SetChannel:
    """Owner of a channel whose state is a growing set; notes what it was given."""

    def __init__(self) -> None:
        self.values: frozenset[str] = frozenset()
        self.unicasts: list[tuple[PeerName, bytes]] = []
        self.broadcasts: list[tuple[PeerName, bytes]] = []

    def on_unicast(self, source: PeerName, data: bytes, now: float) -> None:
        self.unicasts.append((source, data))

    def on_broadcast(self, source: PeerName, data: bytes, now: float) -> GossipData | None:
        self.broadcasts.append((source, data))
        received = frozenset(data.decode().split(","))
        self.values |= received
        return Items(received)

    def on_gossip(self, data: bytes, now: float) -> GossipData | None:
        news = frozenset(data.decode().split(",")) - self.values
        self.values |= news
        return Items(news) if news else None

    def complete(self) -> GossipData | None:
        return Items(self.values) if self.values else None


class Host:
    """One router: a core and what its shell would do."""

    def __init__(self, net: Net, number: int, core: MeshCore) -> None:
        self.net = net
        self.number = number
        self.ip = ip_of(number)
        self.core = core
        self.links: dict[int, Link] = {}
        self.added: dict[int, events.ConnectionAdded] = {}
        self.log: list[events.Event] = []
        self.dials = 0
        self.bytes_sent = 0
        self.alive = True
        self._wake_at: float | None = None

    @property
    def name(self) -> PeerName:
        return self.core.options.name

    def sync(self) -> None:
        """Carry out events, send what is ready, arm the timer."""
        now = self.net.now
        while taken := self.core.take_events():
            for event in taken:
                self._act(event, now)
        for ident in list(self.core.ready()):
            data = self.core.bytes_to_send(ident, now)
            if data and ident in self.links:
                self.bytes_sent += len(data)
                link = self.links[ident]
                self.net.later(LATENCY_S, self.net.deliver, link, self, ident, data)
        deadline = self.core.next_deadline()
        if deadline is not None and deadline != self._wake_at:
            self._wake_at = deadline
            self.net.later(max(0.0, deadline - now), self.wake, deadline)

    def wake(self, deadline: float) -> None:
        if self.alive and self._wake_at == deadline:
            self._wake_at = None
            self.core.timeout(self.net.now)
            self.sync()

    def _act(self, event: events.Event, now: float) -> None:
        self.log.append(event)
        if isinstance(event, events.Dial):
            self.dials += 1
            self.net.later(LATENCY_S, self.net.dial, self, event)
        elif isinstance(event, events.Close):
            link = self.links.pop(event.conn, None)
            self.added.pop(event.conn, None)
            if link is not None and link.open:
                link.open = False
                if event.last_words:
                    said = event.last_words
                    self.net.later(LATENCY_S, self.net.deliver, link, self, event.conn, said)
                self.net.later(LATENCY_S, self.net.deliver_end, link, self, event.conn)
        elif isinstance(event, events.ConnectionAdded):
            self.added[event.conn] = event
            self.net.later(LATENCY_S, self.heartbeat, event.conn)
        elif isinstance(event, events.OverlayControl) and event.kind == 1:
            self.core.overlay_established(event.conn, now)

    def heartbeat(self, conn: int) -> None:
        """Send overlay heartbeats until the other end acknowledged one."""
        link = self.links.get(conn)
        if not self.alive or link is None or conn not in self.added:
            return
        other, other_conn = link.other(self, conn)
        if self.net.connected(self, other) and other_conn in other.added:
            other.core.send_overlay_control(other_conn, "sleeve", 1, b"", self.net.now)
            other.sync()
        states = {one.ident: one.state for one in self.core.connections()}
        if states.get(conn) is ConnectionState.PENDING:
            self.net.later(HEARTBEAT_S, self.heartbeat, conn)

    def connect(self, *numbers: int, replace: bool = False, port: int | None = None) -> None:
        peers = [DirectPeer(ip_of(number), ip_of(number), port) for number in numbers]
        self.core.connect(peers, self.net.now, replace=replace)
        self.sync()

    def neighbours(self) -> list[int]:
        return sorted(int(name) & 0xFFFF for name in self.core.peers.ourself.connections)

    def topology(self) -> dict[str, Any]:
        """All that gossip carries, in comparable form."""
        return {
            str(peer.name): (
                peer.nick,
                peer.uid,
                peer.version,
                peer.short_id,
                dict(peer.connections),
            )
            for peer in self.core.peers
        }

    def seen(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.log if isinstance(event, kind)]


class Net:
    """The hosts, what is under way between them, and the time."""

    def __init__(self, seed: int = 1) -> None:
        self.now = 1000.0
        self.hosts: dict[int, Host] = {}
        self.by_ip: dict[str, Host] = {}
        self.rng = random.Random(seed)
        self.messages = 0
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = itertools.count()
        self._ports = itertools.count(40_000)
        self._parts: dict[int, int] = {}

    def add(self, number: int, *, unnoticed: bool = False, **options: Any) -> Host:
        """Start (or start again, with another UID) the router of host ``number``.

        ``unnoticed``: nobody sees the end of the old one's connections.
        """
        if (old := self.hosts.get(number)) is not None:
            old.alive = False
            if not unnoticed:
                self.stop(old)
        options.setdefault("name", name_of(number))
        options.setdefault("nick", f"host{number}")
        options.setdefault("uid", self.rng.getrandbits(63) + 1)
        short_id = options.pop("short_id", None)
        rng = random.Random(self.rng.getrandbits(64))
        core = MeshCore(MeshOptions(**options), self.now, rng)
        if short_id is not None:
            core.peers.short_ids.delete(core.peers.ourself.short_id or 0, core.options.name)
            core.peers.ourself.short_id = short_id
            core.peers.short_ids.add(short_id, core.options.name)
        host = Host(self, number, core)
        self.hosts[number] = self.by_ip[host.ip] = host
        host.sync()
        return host

    def stop(self, host: Host) -> None:
        """Kill the process: its peers see the end of their connections."""
        host.alive = False
        for conn, link in host.links.items():
            if link.open:
                link.open = False
                self.later(LATENCY_S, self.deliver_end, link, host, conn)
        host.links.clear()

    def part(self, *groups: set[int]) -> None:
        """Hosts of different groups no longer hear each other; nothing tells them."""
        self._parts = {number: index for index, group in enumerate(groups) for number in group}

    def heal(self) -> None:
        self._parts = {}

    def connected(self, one: Host, two: Host) -> bool:
        return (
            one.alive
            and two.alive
            and self._parts.get(one.number, 0) == self._parts.get(two.number, 0)
        )

    # --- time ------------------------------------------------------------------------------------

    def later(self, delay_s: float, action: Callable[..., None], *arguments: Any) -> None:
        heapq.heappush(self._queue, (self.now + delay_s, next(self._count), action, arguments))

    def run(self, seconds: float) -> None:
        """Let that much time pass."""
        self.run_until(lambda: False, seconds)

    def run_until(self, done: Callable[[], bool], limit_s: float, *, every_s: float = 0.0) -> float:
        """Let time pass until ``done``: the seconds it took, or the limit."""
        end = self.now + limit_s
        start = check_at = self.now
        while True:
            if self.now >= check_at:
                check_at = self.now + max(every_s, 1e-9)
                if done():
                    return self.now - start
            upcoming = self._queue[0][0] if self._queue else end
            if upcoming > end:
                break
            if every_s and check_at < upcoming:
                self.now = check_at  # nothing happens until then, but enough may have
                continue
            if not self._queue:
                break
            self.now, _, action, arguments = heapq.heappop(self._queue)
            action(*arguments)
        self.now = end
        return limit_s

    # --- the wire --------------------------------------------------------------------------------

    def dial(self, host: Host, event: events.Dial) -> None:
        if not host.alive:
            return
        ip, _, port = event.addr.rpartition(":")
        target = self.by_ip.get(ip)
        if target is None or port != str(PORT) or not self.connected(host, target):
            host.core.dial_failed(event.conn, "connection refused", self.now)
            host.sync()
            return
        accepted = target.core.accepted(f"{host.ip}:{next(self._ports)}", self.now)
        link = Link(host, event.conn, target, accepted)
        host.links[event.conn] = target.links[accepted] = link
        host.core.dialled(event.conn, event.addr, self.now)
        target.sync()
        host.sync()

    def deliver(self, link: Link, sender: Host, sender_conn: int, data: bytes) -> None:
        host, conn = link.other(sender, sender_conn)
        if conn in host.links and self.connected(sender, host):
            self.messages += 1
            host.core.receive(conn, data, self.now)
            host.sync()

    def deliver_end(self, link: Link, sender: Host, sender_conn: int) -> None:
        host, conn = link.other(sender, sender_conn)
        parted = self._parts.get(sender.number, 0) != self._parts.get(host.number, 0)
        if host.alive and conn in host.links and not parted:
            del host.links[conn]
            host.added.pop(conn, None)
            host.core.closed(conn, self.now)
            host.sync()

    # --- what is looked at -----------------------------------------------------------------------

    def alive(self) -> list[Host]:
        return [host for host in self.hosts.values() if host.alive]

    def agree(self, *numbers: int) -> bool:
        """Whether these hosts (default: all) hold one and the same topology of them all."""
        hosts = [self.hosts[number] for number in numbers] if numbers else self.alive()
        first = hosts[0].topology()
        if set(first) != {str(host.name) for host in hosts}:
            return False
        return all(host.topology() == first for host in hosts[1:])

    def established(self) -> bool:
        """Whether every connection of every host is established on both sides."""
        return all(
            record.established
            for host in self.alive()
            for record in host.core.peers.ourself.connections.values()
        )

    def pairs(self) -> Counter[frozenset[int]]:
        """Open links per pair of hosts."""
        links = {id(link): link for host in self.alive() for link in host.links.values()}
        return Counter(
            frozenset({link.dialler.number, link.acceptor.number})
            for link in links.values()
            if link.open
        )
