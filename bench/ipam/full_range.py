"""``python -m bench.ipam.full_range FOLDER``: one peer hands out a whole /12, every address of it.

Through the service that control runs, with a state file in FOLDER, from many callers. Prints
one JSON object; a process of its own, so that its peak memory is that of this work.
"""

from __future__ import annotations

import random
import resource
import sys
import time
from pathlib import Path
from typing import Final

import anyio
import msgspec

from base.errors import NoAddressError
from base.names import PeerName
from control.ipam_service import IpamService
from control.ipam_settings import DEFAULT_RANGE, parse_ipam
from control.ipam_store import IpamStore
from control.state import StateStore

CALLERS: Final = 256


class FullRange(msgspec.Struct, frozen=True):
    """What it took; ``commits`` is in how many transactions."""

    addresses: int
    seconds: float
    rss_mb: float
    commits: int


async def allocate_all(store: StateStore, range_text: str = DEFAULT_RANGE) -> FullRange:
    """Ask until nothing is left.

    Raises:
        AssertionError: an address came twice, or one is missing.
    """
    settings = parse_ipam(range_text, "", "consensus=1")
    assert settings is not None
    options = settings.options(PeerName.parse("ce:01:00:00:00:01"), "host1", 1)
    service = IpamService(options, IpamStore(store), rng=random.Random(1))
    service.allocator.set_targets(0, 0.0)  # no mesh will tell
    host_range = settings.universe.host_range
    seen = bytearray(host_range.size)
    number = 0

    async def call() -> None:
        nonlocal number
        while number < host_range.size:
            number += 1
            found = await service.allocate(f"container-{number:016x}", is_container=True)
            assert not seen[found.addr - host_range.start], f"{found} twice"
            seen[found.addr - host_range.start] = 1

    async with anyio.create_task_group() as tasks:
        await tasks.start(service.run)
        await service.prime()
        start = time.perf_counter()
        async with anyio.create_task_group() as callers:
            for _ in range(CALLERS):
                callers.start_soon(call)
        seconds = time.perf_counter() - start
        assert all(seen), "an address was never handed out"
        try:
            await service.allocate("one too many", timeout_s=0.01)
        except NoAddressError:
            pass
        else:
            raise AssertionError("an address too many")
        tasks.cancel_scope.cancel()
    rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return FullRange(host_range.size, seconds, rss_mb, service.commits)


def main(folder: str) -> None:
    """Measure and print."""
    with StateStore.open(str(Path(folder).resolve() / "full-")) as store:
        result = anyio.run(allocate_all, store, backend_options={"use_uvloop": True})
    print(msgspec.json.encode(result).decode())


if __name__ == "__main__":
    main(sys.argv[1])
