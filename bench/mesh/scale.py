"""Figures of the mesh: handshakes, convergence, and what a stable mesh costs one router.

    python -m bench.mesh.scale      one JSON object on standard output

- ``handshakes_per_s``: both sides of encrypted introductions on one core.
- ``converge_300_intervals``: 300 simulated routers in a random mesh of about six connections each;
  after one of them is lost, how many gossip intervals until all hold the same topology.
- ``growth``: a router in the middle of a full mesh of N, everybody connected to everybody, nothing
  changing: CPU, bytes sent per second, and the time for all routes, for each N. ``received`` says
  which periodic gossip its neighbours send: ``complete`` as the original does, ``part`` as we do.

Time is the process's CPU time; the network is :mod:`tests.sim.mesh_net` or made of recorded cores.
"""

from __future__ import annotations

import random
import sys
import time
from typing import Final

import msgspec

from base import gob
from base.names import PeerName
from bench.mesh.result import Scale, Stable
from mesh.core import MeshCore, MeshOptions
from mesh.features import Features
from mesh.framing import frame
from mesh.gossip import GOSSIP_INTERVAL_S
from mesh.gossip_router import PART_RECORDS
from mesh.intro import Intro, IntroDone, encode_header
from mesh.peer import ConnectionRecord, Peer
from mesh.protocol import Envelope, Tag, encode_envelope
from mesh.topology import CHANNEL, encode_update
from tests.sim.mesh_net import Net, ip_of, name_of

PASSWORD: Final = b"a benchmark's password"
DEGREE: Final = 3
CONVERGE_PEERS: Final = 300
CONVERGE_SEEDS: Final = (1, 2, 3)


def handshakes_per_s(rounds: int = 5, count: int = 200) -> list[float]:
    """Complete introductions per second, both ends included, by round."""
    features = Features(name_of(1), "host1", 1, 2, 3, False, ("sleeve",))
    rates = []
    for _ in range(rounds):
        start = time.process_time()
        for _ in range(count):
            _introduce(features)
        rates.append(count / (time.process_time() - start))
    return rates


def _introduce(features: Features) -> None:
    dialler = Intro(features, outbound=True, password=PASSWORD)
    acceptor = Intro(features, outbound=False, password=PASSWORD)
    ends: list[IntroDone | None] = [None, None]
    while None in ends:
        to_acceptor, to_dialler = dialler.bytes_to_send(), acceptor.bytes_to_send()
        ends[0] = ends[0] or dialler.receive(to_dialler)
        ends[1] = ends[1] or acceptor.receive(to_acceptor)


def converge_intervals(count: int, seed: int = 1) -> float:
    """Gossip intervals from the loss of a router to one topology everywhere."""
    net, rng = Net(seed), random.Random(seed)
    for number in range(1, count + 1):
        host = net.add(number, discovery=False)
        if number > 1:
            host.connect(*rng.sample(range(1, number), min(DEGREE, number - 1)))
            if number % 10 == 0:
                net.run(0.5)
    net.run_until(lambda: net.agree() and net.established(), 300, every_s=1)
    net.stop(net.hosts[count // 2])
    return net.run_until(net.agree, 300, every_s=0.5) / GOSSIP_INTERVAL_S


def stable_mesh(count: int, received: str, intervals: int = 3) -> Stable:
    """A core that is connected to everybody, for some gossip intervals."""
    names = [name_of(number) for number in range(count)]
    now, rng = 1000.0, random.Random(1)
    core = MeshCore(MeshOptions(names[0], "host0", 1, conn_limit=0, discovery=False), now, rng)
    idents: dict[PeerName, int] = {}
    for number, name in enumerate(names[1:], 1):
        ident = core.accepted(f"{ip_of(number)}:40000", now)
        features = Features(name, f"host{number}", number + 1, number, number, False, ("sleeve",))
        core.receive(ident, encode_header(2, 2) + b"\0", now)
        core.receive(ident, frame(gob.string_map_stream(features.to_map())), now)
        idents[name] = ident
    others = [_everywhere(name, number, names) for number, name in enumerate(names)]
    for first in range(0, count, PART_RECORDS):
        update = encode_update(others[first : first + PART_RECORDS])
        core.receive(idents[names[1]], _gossip(names[1], update), now)
    for ident in idents.values():
        core.overlay_established(ident, now)
    _settle(core, now, now + 3)
    now += 3
    core.peers.generation += 1
    start = time.process_time()
    core.routes.recalculate()
    core.routes.frame_routes()
    core.routes.frame_broadcasts()
    routes_ms = (time.process_time() - start) * 1000
    senders = len(core.routes.random_neighbours(rng))
    sent = got = 0
    start = time.process_time()
    making = 0.0
    for _ in range(intervals):
        for sender in rng.sample(names[1:], senders):
            part_start = rng.randrange(count)
            records = (
                others
                if received == "complete"
                else [
                    others[(part_start + step) % count] for step in range(min(count, PART_RECORDS))
                ]
            )
            made = time.process_time()
            message = _gossip(sender, encode_update(records))
            making += time.process_time() - made
            got += len(message)
            core.receive(idents[sender], message, now)
            sent += _settle(core, now, now + GOSSIP_INTERVAL_S / senders)
            now += GOSSIP_INTERVAL_S / senders
    used = time.process_time() - start - making
    seconds = intervals * GOSSIP_INTERVAL_S
    return Stable(count, received, 100 * used / seconds, sent / seconds, got / seconds, routes_ms)


def _everywhere(name: PeerName, number: int, names: list[PeerName]) -> Peer:
    """A router that is connected to all others."""
    peer = Peer(name, f"host{number}", number + 1, 5, number % 4096)
    records = [
        ConnectionRecord(other, f"{ip_of(index)}:6783", outbound=True, established=True)
        for index, other in enumerate(names)
        if other != name
    ]
    peer.set_connections({record.remote: record for record in records})
    return peer


def _gossip(sender: PeerName, update: bytes) -> bytes:
    return frame(bytes((Tag.GOSSIP,)) + encode_envelope(Envelope(CHANNEL, sender, update)))


def _settle(core: MeshCore, now: float, until: float) -> int:
    """Let time pass, all neighbours' heartbeats included; bytes that the core sent."""
    sent = 0
    while (deadline := core.next_deadline()) is not None and deadline <= until:
        now = max(now, deadline)
        for connection in core.connections():
            if connection.deadline <= now:
                core.receive(connection.ident, b"\0\0\0\1\0", now)
        core.timeout(now)
        for ident in list(core.ready()):
            sent += len(core.bytes_to_send(ident, now))
        core.take_events()
    return sent


def measure() -> Scale:
    """All figures."""
    growth = [stable_mesh(size, "part") for size in (10, 30, 100, 300, 1000)]
    growth += [stable_mesh(size, "complete") for size in (10, 30, 100, 300)]
    intervals = [converge_intervals(CONVERGE_PEERS, seed) for seed in CONVERGE_SEEDS]
    return Scale(handshakes_per_s(), CONVERGE_PEERS, intervals, growth)


if __name__ == "__main__":
    sys.stdout.write(msgspec.json.encode(measure()).decode() + "\n")
