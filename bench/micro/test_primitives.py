"""Functions without state: checksum, frame view, record codec, and the FDB alone."""

from __future__ import annotations

import itertools

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.rig import FRAME_SIZES, Rig, mac_of, record_rates
from native import ffi, lib

LOOKUPS = 1000


@pytest.mark.benchmark(group="checksum")
@pytest.mark.parametrize("size", FRAME_SIZES, ids=lambda size: f"{size}B")
@pytest.mark.parametrize("function", ["wn_csum_add", "wn_csum_add_portable"])
def test_checksum(benchmark: BenchmarkFixture, function: str, size: int) -> None:
    """Ones-complement sum of one frame; the best code of this CPU beside the portable one."""
    data = ffi.from_buffer(bytes(range(256)) * (size // 256 + 1))
    call = getattr(lib, function)
    benchmark.extra_info["backend"] = ffi.string(lib.wn_csum_backend()).decode()
    benchmark(call, data, size, 0)
    record_rates(benchmark, frames=1, frame_bytes=size)


@pytest.mark.benchmark(group="parse")
def test_frame_parse(benchmark: BenchmarkFixture) -> None:
    """Header walk of an IPv4/UDP frame, Python's call included."""
    frame = Rig(peers=1, macs=1).captured(1376, [0])[0]
    data, view = ffi.from_buffer(frame), ffi.new("wn_view *")
    benchmark(lib.wn_frame_parse, data, len(frame), view)
    record_rates(benchmark, frames=1, frame_bytes=len(frame))


@pytest.mark.benchmark(group="fdb")
@pytest.mark.parametrize("macs", [10, 1000, 100_000])
def test_fdb_lookup(benchmark: BenchmarkFixture, macs: int) -> None:
    """Find the peer of a MAC, all entries asked in turn, Python's call included."""
    rig = Rig(peers=10, macs=macs)
    fdb = lib.wn_datapath_fdb(rig.datapath.c)
    asked = itertools.cycle([ffi.from_buffer(mac_of(number)) for number in range(macs)])

    def work() -> None:
        for mac in itertools.islice(asked, LOOKUPS):
            lib.wn_fdb_lookup(fdb, mac, rig.now_s)

    benchmark(work)
    record_rates(benchmark, frames=LOOKUPS, frame_bytes=0)
