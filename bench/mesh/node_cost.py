"""What a real node costs in a large mesh in which nothing changes: control's CPU and memory.

The node is ``weft launch`` with a password in a lab; its neighbours are :mod:`bench.mesh.crowd`,
which say what those of a full mesh would say. CPU is the scheduler's run time of all threads of
control over whole gossip intervals.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

import anyio
import msgspec

from base.errors import WeftError
from bench.mesh import crowd
from bench.mesh.result import NodeCost
from bench.system import usage
from lab.lab import Lab
from mesh.gossip import GOSSIP_INTERVAL_S

PEERS = 100
SETTLE_S = 10.0
INTERVALS = 2
_JOIN_TIMEOUT_S = 60.0
_PASSWORD = "a benchmark's password"


async def measure(gossip: str, peers: int = PEERS) -> NodeCost:
    """One node and ``peers`` - 1 neighbours.

    Raises:
        WeftError: they do not come together.
    """
    async with Lab(nodes=1) as lab:
        host = lab.hosts[0]
        host.ip(*(f"addr add {crowd.address(n)}/32 dev lo" for n in range(1, peers)))
        await host.start_weft("--no-discovery", peers=[], password=_PASSWORD)
        file = host.write_password(_PASSWORD)
        argv = [sys.executable, "-m", "bench.mesh.crowd", host.address, str(peers - 1), file]
        neighbours = host.spawn(*argv, gossip)
        with anyio.move_on_after(_JOIN_TIMEOUT_S):
            while "ready" not in neighbours.stderr():
                if neighbours.returncode is not None:
                    raise WeftError(neighbours.describe())
                await anyio.sleep(0.1)
        if "ready" not in neighbours.stderr():
            raise WeftError(f"only some of {peers} came: {await host.weft_status()}")
        await host.wait_established(peers - 1, timeout_s=60.0)
        await anyio.sleep(SETTLE_S)
        (control,), (router,) = host.pids("control"), host.pids("router")
        ours, theirs = [], []
        for _ in range(INTERVALS):
            before, router_before = usage.usage([control]), usage.usage([router])
            start = anyio.current_time()
            await anyio.sleep(GOSSIP_INTERVAL_S)
            elapsed_s = anyio.current_time() - start
            ours.append(_percent(usage.usage([control]), before, elapsed_s))
            theirs.append(_percent(usage.usage([router]), router_before, elapsed_s))
        await host.wait_established(peers - 1)
        return NodeCost(peers, gossip, ours, theirs, usage.rss_peak_mb(control))


def _percent(after: usage.Usage, before: usage.Usage, elapsed_s: float) -> float:
    return round((after - before).cpu_ns / elapsed_s / 1e7, 3)


async def measure_all(kinds: Iterable[str] = ("part", "complete")) -> list[NodeCost]:
    """One measurement for each kind of gossip."""
    return [await measure(kind) for kind in kinds]


if __name__ == "__main__":
    for cost in anyio.run(measure_all, sys.argv[1:] or ("part",)):
        sys.stdout.write(f"{msgspec.json.encode(cost).decode()}\n")
