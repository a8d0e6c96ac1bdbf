"""Each stage of the pipeline alone: frame sizes by batch sizes.

A round is one batch. It is prepared outside the clock, then one stage's C calls are timed.
"""

from __future__ import annotations

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
from native.datapath import Batch


@dataclass(slots=True, frozen=True)
class Stage:
    """``prepare`` makes the batch ready and is not timed; ``work`` is."""

    prepare: Callable[[], None]
    work: Callable[[], object]


def run(
    benchmark: BenchmarkFixture, stage: Stage, *, size: int, count: int, rounds: int = ROUNDS
) -> None:
    """Time ``stage`` and note the rates."""
    benchmark.pedantic(  # type: ignore[no-untyped-call]
        stage.work, setup=stage.prepare, rounds=rounds, warmup_rounds=WARM_UP_ROUNDS, iterations=1
    )
    record_rates(benchmark, frames=count, frame_bytes=size)


@pytest.fixture(params=FRAME_SIZES, ids=lambda size: f"{size}B")
def size(request: pytest.FixtureRequest) -> int:
    """Bytes of an Ethernet frame."""
    value: int = request.param
    return value


@pytest.fixture(params=BATCH_SIZES, ids=lambda count: f"batch{count}")
def count(request: pytest.FixtureRequest) -> int:
    """Frames in a batch."""
    value: int = request.param
    return value


@pytest.fixture
def rig() -> Rig:
    """One neighbour, one remote MAC: a single flow."""
    return Rig(peers=1, macs=1)


@pytest.mark.benchmark(group="lookup")
def test_lookup(benchmark: BenchmarkFixture, rig: Rig, size: int, count: int) -> None:
    """Decide where captured frames go."""
    frames = rig.captured(size, [0] * count)
    work = lambda: lib.wn_lookup(rig.datapath.c, rig.batch.c, rig.now_s)  # noqa: E731
    run(benchmark, Stage(lambda: rig.fill_captured(frames), work), size=size, count=count)


@pytest.mark.benchmark(group="encap")
def test_encap(benchmark: BenchmarkFixture, rig: Rig, size: int, count: int) -> None:
    """Records and messages from frames that were looked up."""
    frames = rig.captured(size, [0] * count)

    def prepare() -> None:
        rig.fill_captured(frames)
        lib.wn_lookup(rig.datapath.c, rig.batch.c, rig.now_s)

    work = lambda: lib.wn_encap(rig.datapath.c, rig.batch.c, rig.now_s)  # noqa: E731
    run(benchmark, Stage(prepare, work), size=size, count=count)


@pytest.mark.benchmark(group="decap")
def test_decap(benchmark: BenchmarkFixture, rig: Rig, size: int, count: int) -> None:
    """Frames from datagrams."""
    datagrams = rig.received(size, [0] * count)
    work = lambda: lib.wn_decap(rig.datapath.c, rig.batch.c, rig.now_s)  # noqa: E731
    run(benchmark, Stage(lambda: rig.fill_received(datagrams), work), size=size, count=count)


@pytest.mark.benchmark(group="coalesce")
def test_coalesce(benchmark: BenchmarkFixture, rig: Rig, size: int, count: int) -> None:
    """Super-frames for the bridge, every inner checksum verified on the way."""
    datagrams = rig.received(size, [0] * count)

    def prepare() -> None:
        rig.fill_received(datagrams)
        lib.wn_decap(rig.datapath.c, rig.batch.c, rig.now_s)

    work = lambda: lib.wn_coalesce(rig.datapath.c, rig.batch.c, 1)  # noqa: E731
    run(benchmark, Stage(prepare, work), size=size, count=count)


def _encapsulated(rig: Rig, frames: list[bytes]) -> None:
    rig.fill_captured(frames)
    rig.egress()


@pytest.mark.benchmark(group="udp_send")
def test_udp_send(
    benchmark: BenchmarkFixture, rig: Rig, sockets: SleeveSockets, size: int, count: int
) -> None:
    """Messages into a real socket, segmented by the kernel."""
    sockets.lead_to(rig)
    frames = rig.captured(size, [0] * count)

    def prepare() -> None:
        drain(sockets.neighbour)
        _encapsulated(rig, frames)

    def work() -> int:
        return int(lib.wn_udp_send(rig.datapath.c, rig.batch.c, sockets.fd_df, sockets.fd_frag))

    run(benchmark, Stage(prepare, work), size=size, count=count)


@pytest.mark.benchmark(group="udp_recv")
def test_udp_recv(
    benchmark: BenchmarkFixture, rig: Rig, sockets: SleeveSockets, size: int, count: int
) -> None:
    """Datagrams from a real socket, joined by the kernel where it can."""
    sockets.lead_to(rig)
    frames = rig.captured(size, [0] * count)
    taken = Batch()
    peer_fd = sockets.neighbour.fileno()

    def prepare() -> None:
        drain(sockets.neighbour)
        _encapsulated(rig, frames)
        lib.wn_udp_send(rig.datapath.c, rig.batch.c, sockets.fd_df, sockets.fd_frag)

    def work() -> int:
        return int(lib.wn_udp_recv(rig.datapath.c, taken.c, peer_fd, 64))

    run(benchmark, Stage(prepare, work), size=size, count=count)


@pytest.mark.benchmark(group="port_read")
def test_port_read(
    benchmark: BenchmarkFixture,
    rig: Rig,
    port_pair: PortPair,
    size: int,
    count: int,
) -> None:
    """Frames from a descriptor that acts like a TAP: one read each."""
    frames = rig.captured(size, [0] * count)
    fd = port_pair.ours.fileno()

    def prepare() -> None:
        port_pair.drain()
        port_pair.send(frames)

    def work() -> int:
        return int(
            lib.wn_port_read(rig.datapath.c, rig.batch.c, fd, lib.WN_PORT_TAP, READ_BUDGET_BYTES)
        )

    run(benchmark, Stage(prepare, work), size=size, count=count)


@pytest.mark.benchmark(group="port_write")
def test_port_write(
    benchmark: BenchmarkFixture,
    rig: Rig,
    port_pair: PortPair,
    size: int,
    count: int,
) -> None:
    """Frames to a descriptor that acts like a TAP: one write per super-frame."""
    datagrams = rig.received(size, [0] * count)
    fd = port_pair.ours.fileno()

    def prepare() -> None:
        port_pair.drain()
        rig.fill_received(datagrams)
        rig.ingress()

    work = lambda: lib.wn_port_write(rig.datapath.c, rig.batch.c, fd)  # noqa: E731
    run(benchmark, Stage(prepare, work), size=size, count=count)
