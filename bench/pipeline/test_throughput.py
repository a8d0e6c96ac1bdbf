"""All stages in a row, and how their cost grows with the number of MACs and peers.

Fake TAP to fake UDP ("stages"): frames are put into a batch as if read, go through lookup and
encapsulation, and the messages are ready for the socket; the way back likewise. System calls are
left out, so what these numbers show is our own code. What the kernel adds, bench/system measures.

The scale runs come in that form too and, as "sockets", with the router's system calls: a socket
pair in place of the TAP, and UDP over loopback. The second is what packets per second mean to a
user; the first is the stricter look at the tables. They keep the shape of the traffic and change
only the size of the tables; every frame is a flow of its own, so that none are joined. The sizes
take turns, several times over, since a machine's mood changes by the second:

* MACs: every frame of a batch goes to (comes from) another MAC, drawn evenly from all known ones,
  behind ten peers. With 100,000 entries nearly every lookup misses the caches: the worst case.
* Peers: a batch goes to (comes from) ten peers, drawn anew for each batch from all known ones.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.rig import (
    BATCH_SIZES,
    FRAME_SIZES,
    READ_BUDGET_BYTES,
    ROUNDS,
    WARM_UP_ROUNDS,
    PortPair,
    Rig,
    SleeveSockets,
    drain,
    record_rates,
)
from native import lib

SCALE_SIZE = 64
SCALE_BATCH = 64
SCALE_ROUNDS = 400
SCALE_REPETITIONS = 3
PEERS_PER_BATCH = 10
PREPARED_BATCHES = 64


def run(
    benchmark: BenchmarkFixture,
    prepare: Callable[[], None],
    work: Callable[[], int],
    *,
    size: int,
    count: int,
    rounds: int,
) -> None:
    """Time ``work`` on freshly prepared batches."""
    benchmark.pedantic(  # type: ignore[no-untyped-call]
        work, setup=prepare, rounds=rounds, warmup_rounds=WARM_UP_ROUNDS, iterations=1
    )
    record_rates(benchmark, frames=count, frame_bytes=size)


@pytest.mark.benchmark(group="pipeline")
@pytest.mark.parametrize("count", BATCH_SIZES, ids=lambda count: f"batch{count}")
@pytest.mark.parametrize("size", FRAME_SIZES, ids=lambda size: f"{size}B")
@pytest.mark.parametrize("way", ["egress", "ingress"])
def test_pipeline(benchmark: BenchmarkFixture, way: str, size: int, count: int) -> None:
    """One flow between two containers, frame by frame (no super-frames)."""
    rig = Rig(peers=1, macs=1)
    if way == "egress":
        frames = rig.captured(size, [0] * count)
        prepare, work = (lambda: rig.fill_captured(frames)), rig.egress
    else:
        datagrams = rig.received(size, [0] * count)
        prepare, work = (lambda: rig.fill_received(datagrams)), rig.ingress
    benchmark.extra_info["way"] = way
    run(benchmark, prepare, work, size=size, count=count, rounds=ROUNDS)


@dataclass(slots=True, frozen=True)
class Path:
    """One way through the router. ``load`` brings one prepared batch and is not timed."""

    load: Callable[[int], None]
    work: Callable[[], int]


def stages_path(rig: Rig, way: str, batches: list[list[int]]) -> Path:
    """Without system calls."""
    if way == "egress":
        captured = [rig.captured(SCALE_SIZE, numbers, one_flow=False) for numbers in batches]
        return Path(lambda turn: rig.fill_captured(captured[turn]), rig.egress)
    received = [rig.received(SCALE_SIZE, numbers, one_flow=False) for numbers in batches]
    return Path(lambda turn: rig.fill_received(received[turn]), rig.ingress)


def sockets_path(
    rig: Rig, way: str, batches: list[list[int]], sockets: SleeveSockets, port_pair: PortPair
) -> Path:
    """With the system calls that the router makes for the same batch."""
    dp, batch = rig.datapath.c, rig.batch.c
    port = port_pair.ours.fileno()
    if way == "egress":
        sockets.lead_to(rig)
        captured = [rig.captured(SCALE_SIZE, numbers, one_flow=False) for numbers in batches]

        def load_port(turn: int) -> None:
            drain(sockets.neighbour)
            port_pair.drain()
            port_pair.send(captured[turn])

        def out() -> int:
            lib.wn_port_read(dp, batch, port, lib.WN_PORT_TAP, READ_BUDGET_BYTES)
            messages = rig.egress()
            lib.wn_udp_send(dp, batch, sockets.fd_df, sockets.fd_frag)
            return messages

        return Path(load_port, out)
    received = [rig.received(SCALE_SIZE, numbers, one_flow=False) for numbers in batches]

    def load_socket(turn: int) -> None:
        port_pair.drain()
        sockets.send(received[turn])

    def back() -> int:
        lib.wn_udp_recv(dp, batch, sockets.fd_frag, 64)  # the one that receives
        rig.ingress()
        return int(lib.wn_port_write(dp, batch, port))

    return Path(load_socket, back)


@pytest.fixture(params=["stages", "sockets"])
def make_path(
    request: pytest.FixtureRequest, sockets: SleeveSockets, port_pair: PortPair
) -> Callable[[Rig, str, list[list[int]]], Path]:
    """With or without system calls."""
    if request.param == "stages":
        return stages_path
    return lambda rig, way, batches: sockets_path(rig, way, batches, sockets, port_pair)


def run_scale(
    benchmark: BenchmarkFixture,
    request: pytest.FixtureRequest,
    rig: Rig,
    path: Path,
    batches: int,
) -> None:
    """Time one prepared batch after the other."""
    turns = itertools.cycle(range(batches))
    benchmark.extra_info.update(request.node.callspec.params)
    run(
        benchmark,
        lambda: path.load(next(turns)),
        path.work,
        size=SCALE_SIZE,
        count=SCALE_BATCH,
        rounds=SCALE_ROUNDS,
    )
    # the clock saw work, not losses
    before = rig.received_frames()
    path.load(0)
    path.work()
    frames = rig.received_frames() - before or rig.encapsulated_frames()
    assert frames == SCALE_BATCH
    assert rig.drops() == {}


@pytest.mark.benchmark(group="scale-macs")
@pytest.mark.parametrize("way", ["egress", "ingress"])
@pytest.mark.parametrize("macs", [10, 1000, 100_000])
@pytest.mark.parametrize("repetition", range(SCALE_REPETITIONS))
def test_scale_macs(
    benchmark: BenchmarkFixture,
    request: pytest.FixtureRequest,
    make_path: Callable[[Rig, str, list[list[int]]], Path],
    way: str,
    macs: int,
    repetition: int,
) -> None:
    """Packets per second as the FDB grows."""
    rig = Rig(peers=10, macs=macs)
    chance = random.Random(macs + repetition)
    prepared = SCALE_ROUNDS if benchmark.enabled else 1
    batches = [[chance.randrange(macs) for _ in range(SCALE_BATCH)] for _ in range(prepared)]
    run_scale(benchmark, request, rig, make_path(rig, way, batches), len(batches))


@pytest.mark.benchmark(group="scale-peers")
@pytest.mark.parametrize("way", ["egress", "ingress"])
@pytest.mark.parametrize("peers", [10, 100, 1000])
@pytest.mark.parametrize("repetition", range(SCALE_REPETITIONS))
def test_scale_peers(
    benchmark: BenchmarkFixture,
    request: pytest.FixtureRequest,
    make_path: Callable[[Rig, str, list[list[int]]], Path],
    way: str,
    peers: int,
    repetition: int,
) -> None:
    """Packets per second as the number of neighbours grows."""
    macs = 1000
    rig = Rig(peers=peers, macs=macs)
    chance = random.Random(peers + repetition)
    batches = []
    for _ in range(PREPARED_BATCHES):
        chosen = chance.sample(range(peers), PEERS_PER_BATCH)
        batches.append(
            [
                chance.choice(chosen) + peers * chance.randrange(macs // peers)
                for _ in range(SCALE_BATCH)
            ]
        )
    run_scale(benchmark, request, rig, make_path(rig, way, batches), len(batches))
