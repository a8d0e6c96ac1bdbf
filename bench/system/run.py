"""The system benchmark: weft, kernel VXLAN and raw veth, measured in turns in one lab.

Noise between runs is larger than most differences, so only what was measured side by side is
compared: every round visits each path once, in an order that rotates, and figures are medians over
rounds. All paths have the same container MTU and end in the same two cores.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import msgspec

from base.errors import ConfigError
from bench import environment
from bench.system import load, usage
from bench.system.load import Pair
from lab import preflight
from lab.host import Host
from lab.lab import Lab

CONTAINER_MTU = 1410
SETTLE_S = 3.0
LOSS = 0.01
#: Beside the headline of 64 bytes: payloads for the plot, the largest fills the container's MTU.
UDP_PLOT_PAYLOADS = (512, CONTAINER_MTU - 28)
VARIANTS = ("raw", "vxlan", "weft")


@dataclass(slots=True, frozen=True)
class Settings:
    """How long and how often; the defaults take about three and a half minutes."""

    rounds: int = 5
    tcp_s: int = 2
    loss_s: int = 3
    udp_s: float = 1.0
    udp_plot_s: float = 0.5
    pings: int = 200
    ping_interval_s: float = 0.005
    idle_s: float = 12.0

    @classmethod
    def from_environment(cls) -> Settings:
        """``BENCH_ROUNDS`` changes the number of rounds.

        Raises:
            ConfigError: not a number above 0.
        """
        text = os.environ.get("BENCH_ROUNDS", "")
        if not text:
            return cls()
        if not text.isdigit() or int(text) < 1:
            raise ConfigError(f"BENCH_ROUNDS={text}: give a number of rounds above 0")
        return cls(rounds=int(text))


class Idle(msgspec.Struct, frozen=True):
    """One node without traffic: CPU of one core in percent, and wake-ups, by process."""

    cpu_percent: float
    wakeups_per_s: float
    wakeups_by_process: dict[str, float]


class SystemResult(msgspec.Struct):
    """Everything measured, by round; units in the names, ``udp`` keyed by payload bytes."""

    tcp1_gbps: dict[str, list[float]]
    tcp4_gbps: dict[str, list[float]]
    udp_pps: dict[str, dict[int, list[float]]]
    udp64_sent_pps: dict[str, list[float]]
    rtt_us: dict[str, list[float]]
    loss_gbps: dict[str, list[float]]
    idle: list[Idle]
    router_rss_mb: list[float]
    settings: dict[str, Any]


def _empty() -> dict[str, list[float]]:
    return {variant: [] for variant in VARIANTS}


class SystemBench:
    """One run in one lab; prints a line for each step."""

    def __init__(self, lab: Lab, tool: Path, settings: Settings) -> None:
        self.lab = lab
        self.tool = tool
        self.settings = settings
        weft = (lab.hosts[0].containers[0], lab.hosts[1].containers[0])
        ends = {
            "raw": lab.raw_pair(CONTAINER_MTU),
            "vxlan": lab.vxlan_pair(CONTAINER_MTU),
            "weft": weft,
        }
        self.pairs = {name: Pair(name, *ends[name]) for name in VARIANTS}
        self.result = SystemResult(
            tcp1_gbps=_empty(),
            tcp4_gbps=_empty(),
            udp_pps={
                name: {size: [] for size in (load.UDP_PAYLOAD_BYTES, *UDP_PLOT_PAYLOADS)}
                for name in VARIANTS
            },
            udp64_sent_pps=_empty(),
            rtt_us=_empty(),
            loss_gbps=_empty(),
            idle=[],
            router_rss_mb=[],
            settings={},
        )

    async def run(self) -> SystemResult:
        """All of it."""
        self.result.settings = await self._describe()
        for pair in self.pairs.values():  # resolve addresses, start flows, fault pages in
            await load.rtt_us(pair, count=20, interval_s=0.01)
            await load.tcp_gbps(pair, streams=1, seconds=1)
        for number in range(self.settings.rounds):
            print(f"  round {number + 1} of {self.settings.rounds}", flush=True)
            for pair in self._in_turn(number, VARIANTS):
                await self._measure(pair)
        self.result.router_rss_mb = [
            max(usage.rss_peak_mb(pid) for pid in host.pids("router")) for host in self.lab.hosts
        ]
        print("  loss", flush=True)
        self.lab.set_loss(LOSS)
        for number in range(self.settings.rounds):
            for pair in self._in_turn(number, ("raw", "weft")):
                gbps = await load.tcp_gbps(pair, streams=1, seconds=self.settings.loss_s)
                self.result.loss_gbps[pair.variant].append(gbps)
        self.lab.set_loss(0.0)
        print("  idle", flush=True)
        self.result.idle = await self._idle()
        return self.result

    def _in_turn(self, number: int, variants: tuple[str, ...]) -> list[Pair]:
        start = number % len(variants)
        return [self.pairs[name] for name in variants[start:] + variants[:start]]

    async def _measure(self, pair: Pair) -> None:
        name, settings, result = pair.variant, self.settings, self.result
        result.rtt_us[name].append(
            await load.rtt_us(pair, count=settings.pings, interval_s=settings.ping_interval_s)
        )
        for streams, into in ((1, result.tcp1_gbps), (4, result.tcp4_gbps)):
            gbps = await load.tcp_gbps(pair, streams=streams, seconds=settings.tcp_s)
            into[name].append(gbps)
        for payload, rates in result.udp_pps[name].items():
            small = payload == load.UDP_PAYLOAD_BYTES
            seconds = settings.udp_s if small else settings.udp_plot_s
            rate = await load.udp_pps(pair, self.tool, payload=payload, seconds=seconds)
            rates.append(rate.received_pps)
            if small:
                result.udp64_sent_pps[name].append(rate.sent_pps)

    async def _idle(self) -> list[Idle]:
        await anyio.sleep(SETTLE_S)
        nodes = [_processes(host) for host in self.lab.hosts]
        before = [{role: usage.usage(pids) for role, pids in node.items()} for node in nodes]
        if not all(one.cpu_ns for node in before for one in node.values()):
            raise load.LoadError("/proc shows no CPU time at all: the kernel lacks schedstat")
        start = anyio.current_time()
        await anyio.sleep(self.settings.idle_s)
        elapsed_s = anyio.current_time() - start
        found = []
        for node, earlier in zip(nodes, before, strict=True):
            spent = {role: usage.usage(pids) - earlier[role] for role, pids in node.items()}
            wakeups = {role: one.voluntary_switches / elapsed_s for role, one in spent.items()}
            cpu_ns = sum(one.cpu_ns for one in spent.values())
            found.append(Idle(cpu_ns / elapsed_s / 1e7, sum(wakeups.values()), wakeups))
        return found

    async def _describe(self) -> dict[str, Any]:
        """The settings that bend results, as found."""
        client = self.pairs["weft"].client
        shown = (await client.run("ethtool", "-k", client.interface)).stdout
        uplink = (await client.host.run("ethtool", "-k", client.host.uplink)).stdout
        return {
            **self.lab.facts(),
            "congestion_control": load.CONGESTION_CONTROL,
            "container_mtu": client.mtu(client.interface),
            "container_offloads": environment.parse_offloads(shown),
            "underlay_offloads_found": environment.parse_offloads(uplink),
            "loss_fraction": LOSS,
            "sysctls_outside": environment.sysctls(),
            "rounds": self.settings.rounds,
            "tcp_s": self.settings.tcp_s,
            "udp_s": self.settings.udp_s,
            "idle_s": self.settings.idle_s,
        }


def _processes(host: Host) -> dict[str, list[int]]:
    """Every process of the node by role; each id once.

    Raises:
        LoadError: a role is missing.
    """
    roles = {
        "supervisor": host.pids("launch"),
        "control": host.pids("control"),
        "router": host.pids("router"),
    }
    missing = [role for role, pids in roles.items() if not pids]
    if missing:
        raise load.LoadError(f"{host.name}: no {' and no '.join(missing)} process")
    return roles


async def run(build_dir: Path) -> SystemResult:
    """Build the lab, measure, and leave nothing behind.

    Raises:
        ConfigError: not root, a tool is missing.
        WeftError: something in the lab does not work.
    """
    settings = Settings.from_environment()
    preflight.check((*preflight.ALWAYS, "iperf3", "nft"))
    tool = load.build_tool("udp_blast", build_dir)
    async with Lab(nodes=2) as lab:
        await lab.start_weft(mtu=CONTAINER_MTU)
        return await SystemBench(lab, tool, settings).run()
