"""How much of its rate real traffic keeps beside hostile datagrams.

A host that belongs to no cluster sends garbage, truncated and forged datagrams (see
bench/tools/hostile_blast.c) to the sleeve port of one router, while TCP runs through that router.
With and without alternate, round by round, for weft and for raw veth between the same hosts: what
raw veth loses is the cost of sending and receiving the flood on the same two cores, which no router
can avoid.

    python -m bench.system.hostile [ROUNDS]
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import anyio
import msgspec

from base.errors import WeftError
from bench import environment
from bench.system import load
from bench.system.load import LoadError, Pair
from lab.lab import SWITCH, Lab
from lab.node import Node

ATTACKER_ADDRESS = "10.99.0.200"
SLEEVE_PORT = 6783
FLOOD_PER_SECOND = 200_000
TCP_S = 2
#: The flood runs a little before and after what is measured.
MARGIN_S = 0.3
ROUNDS = 3


class HostileResult(msgspec.Struct, frozen=True):
    """Gbit/s by round, without and with the flood; ``sent_per_s`` is the flood's true rate."""

    weft_calm_gbps: list[float]
    weft_flooded_gbps: list[float]
    raw_calm_gbps: list[float]
    raw_flooded_gbps: list[float]
    sent_per_s: list[float]
    counters: dict[str, int]

    @property
    def weft_kept(self) -> float:
        """Share of its rate that traffic through the attacked router keeps."""
        return statistics.median(self.weft_flooded_gbps) / statistics.median(self.weft_calm_gbps)

    @property
    def raw_kept(self) -> float:
        """The same for traffic that passes no router."""
        return statistics.median(self.raw_flooded_gbps) / statistics.median(self.raw_calm_gbps)


def add_attacker(lab: Lab) -> Node:
    """A host on the underlay that nobody knows."""
    node = lab.new_node("attacker")
    peer = f"name eth0 netns {node.namespace.net_path}"
    lab.switch.ip(
        f"link add attacker type veth peer {peer}", f"link set attacker master {SWITCH} up"
    )
    node.ip(f"addr add {ATTACKER_ADDRESS}/24 dev eth0", "link set eth0 up")
    return node


async def _flooded(pair: Pair, lab: Lab, attacker: Node, tool: Path) -> tuple[float, float]:
    """TCP goodput beside the flood, and the flood's rate.

    Raises:
        LoadError: a tool failed.
    """
    neighbour, victim = lab.hosts
    names = [host.peer_name.replace(":", "") for host in (neighbour, victim, neighbour)]
    target = [victim.address, str(SLEEVE_PORT), f"{TCP_S + 4 * MARGIN_S:g}", str(FLOOD_PER_SECOND)]
    flood = attacker.spawn(str(tool), *target, *names)
    try:
        await anyio.sleep(MARGIN_S)
        gbps = await load.tcp_gbps(pair, streams=1, seconds=TCP_S)
        if await flood.wait(10.0) != 0:
            raise LoadError(flood.describe())
        sent = msgspec.json.decode(flood.stdout(), type=dict[str, float])
    finally:
        flood.close()
    return gbps, sent["per_second"]


async def run(build_dir: Path, rounds: int = ROUNDS) -> HostileResult:
    """Measure in a lab of two hosts and an attacker; the second host is the attacked one.

    Raises:
        WeftError: it cannot run here, or a tool failed.
    """
    tool = load.build_tool("hostile_blast", build_dir)
    result = HostileResult([], [], [], [], [], {})
    async with Lab(2) as lab:
        await lab.start_weft()
        attacker = add_attacker(lab)
        one, other = lab.hosts[0].containers[0], lab.hosts[1].containers[0]
        weft, raw = Pair("weft", one, other), Pair("raw", *lab.raw_pair())
        for pair in (weft, raw):
            await load.tcp_gbps(pair, streams=1, seconds=1)
        for _ in range(rounds):
            for pair, calm, flooded in (
                (weft, result.weft_calm_gbps, result.weft_flooded_gbps),
                (raw, result.raw_calm_gbps, result.raw_flooded_gbps),
            ):
                calm.append(await load.tcp_gbps(pair, streams=1, seconds=TCP_S))
                gbps, per_second = await _flooded(pair, lab, attacker, tool)
                flooded.append(gbps)
                result.sent_per_s.append(per_second)
        report = await lab.hosts[1].report()
        drops = {k: v for k, v in report["Counters"].items() if v and k.startswith("drop_")}
        result.counters.update(drops)
    return result


def main() -> int:
    """Measure and print; the exit code."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    try:
        result = anyio.run(run, environment.ROOT / "build" / "bench", rounds)
    except WeftError as err:
        print(f"bench: {err}", file=sys.stderr)
        return 1
    print(f"flood: {statistics.median(result.sent_per_s):.0f} datagrams/s")
    for name, calm, flooded, kept in (
        ("weft", result.weft_calm_gbps, result.weft_flooded_gbps, result.weft_kept),
        ("raw", result.raw_calm_gbps, result.raw_flooded_gbps, result.raw_kept),
    ):
        calm_gbps, flooded_gbps = statistics.median(calm), statistics.median(flooded)
        print(f"{name:5} {calm_gbps:6.2f} → {flooded_gbps:6.2f} Gbit/s, keeps {kept:.2f}")
    print(msgspec.json.encode(result.counters).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
