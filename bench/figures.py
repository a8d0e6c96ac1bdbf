"""From measurements to the figures that the project is judged by. Pure; no I/O.

A ratio is a median over a median, both from the same run; its spread is the smallest and the
largest ratio of a single round. Source of truth for keys and goals: docs/benchmarks.md.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any

import msgspec

from bench.attach.run import AttachResult
from bench.ipam.run import IpamResult
from bench.mesh.result import MeshResult
from bench.startup.run import StartupResult
from bench.system.ciphers import CipherResult
from bench.system.run import SystemResult

SMALL_PAYLOAD = 64


@dataclass(slots=True, frozen=True)
class Goal:
    """What a figure has to be. ``at_least`` False: at most. ``aim`` None: only one mark.

    ``aim_key`` names the figure that ``aim`` is about, if that is another one.
    """

    key: str
    label: str
    reach: float
    aim: float | None
    at_least: bool
    digits: int = 2
    unit: str = ""
    aim_key: str = ""
    aim_unit: str = ""

    def meets(self, value: float, mark: float) -> bool:
        """Whether ``value`` is on the right side of ``mark``."""
        return value >= mark if self.at_least else value <= mark


GOALS = (
    Goal("tcp1_over_vxlan", "TCP, 1 stream ÷ kernel VXLAN", 0.35, 0.5, at_least=True),
    Goal("tcp4_over_vxlan", "TCP, 4 streams ÷ kernel VXLAN", 0.35, 0.5, at_least=True),
    Goal("udp64_pps_over_vxlan", "UDP 64 B, packets/s ÷ kernel VXLAN", 1.7, 2.5, at_least=True),
    Goal(
        "rtt_added_us", "ping RTT added to raw veth", 200, 80, at_least=False, digits=0, unit="µs"
    ),
    Goal(
        "idle_cpu_percent",
        "idle CPU of a node",
        0.5,
        0.0,
        at_least=False,
        digits=3,
        unit="%",
        aim_key="idle_wakeups_per_s",
        aim_unit="wake-ups/s",
    ),
    Goal("router_rss_mb", "router RSS under load", 80, 50, at_least=False, digits=1, unit="MB"),
    Goal("loss1_tcp_over_raw", "TCP at 1 % loss ÷ raw veth at 1 %", 0.5, 0.9, at_least=True),
    Goal(
        "allocs_per_s_1",
        "durable allocations, 1 caller",
        500,
        1000,
        at_least=True,
        digits=0,
        unit="/s",
    ),
    Goal(
        "allocs_per_s_64",
        "durable allocations, 64 callers",
        3000,
        10_000,
        at_least=True,
        digits=0,
        unit="/s",
    ),
    Goal("stub_ms", "CNI stub alone", 5, 2, at_least=False, unit="ms"),
    Goal("add_median_ms", "CNI ADD, median", 40, 15, at_least=False, digits=1, unit="ms"),
    Goal("add_p99_ms", "CNI ADD, 99th percentile", 120, 40, at_least=False, digits=1, unit="ms"),
    Goal("add_over_bridge", "CNI ADD ÷ bridge + host-local", 4, 1.5, at_least=False),
    Goal("hostlocal_over_reference", "host-local ÷ the reference's", 3, 1, at_least=False),
    Goal("add_200_s", "200 pods at once", 12, 4, at_least=False, digits=1, unit="s"),
    Goal("full_range_s", "a whole /12 allocated", 120, 40, at_least=False, digits=1, unit="s"),
    Goal("full_range_rss_mb", "RSS after it", 400, 150, at_least=False, digits=0, unit="MB"),
    Goal("merge_1000_ms", "gossip of a ring of 1,000", 50, 10, at_least=False, digits=1, unit="ms"),
    Goal(
        "attach_median_ms",
        "attach of a container",
        60,
        25,
        at_least=False,
        digits=1,
        unit="ms",
    ),
    Goal("fdb_100k_pps_over_10", "packets/s, 100,000 ÷ 10 FDB entries", 0.8, None, at_least=True),
    Goal("peers_1000_pps_over_10", "packets/s, 1,000 ÷ 10 peers", 0.8, None, at_least=True),
    Goal("tcp1_secretbox_over_plain", "TCP, secretbox ÷ plain", 0.33, 0.55, at_least=True),
    Goal("tcp1_gcm_over_plain", "TCP, AES-256-GCM ÷ plain", 0.7, 0.9, at_least=True),
    Goal("udp64_gcm_over_plain", "UDP 64 B, AES-256-GCM ÷ plain", 0.7, 0.85, at_least=True),
    Goal("handshakes_per_s", "handshakes/s, both sides", 200, 500, at_least=True, digits=0),
    Goal(
        "converge_300_intervals", "300 peers agree after", 5, None, at_least=False, unit="intervals"
    ),
    Goal(
        "control_cpu_percent_100",
        "control's CPU among 100 peers",
        2,
        None,
        at_least=False,
        unit="%",
    ),
    Goal(
        "control_rss_mb_100", "control's RSS among 100 peers", 120, None, at_least=False, unit="MB"
    ),
)


class Benchmark(msgspec.Struct):
    """One entry of pytest-benchmark's JSON, as far as we read it."""

    name: str
    group: str | None
    extra_info: dict[str, Any]
    stats: dict[str, Any]

    @property
    def median_s(self) -> float:
        """Median time of a round."""
        return float(self.stats["median"])


class BenchmarkFile(msgspec.Struct):
    """pytest-benchmark's JSON."""

    benchmarks: list[Benchmark]


@dataclass(slots=True)
class Figures:
    """``values`` by key, with ``spread`` (lowest, highest) where rounds were repeated."""

    values: dict[str, float] = field(default_factory=dict)
    spread: dict[str, tuple[float, float]] = field(default_factory=dict)

    def put(self, key: str, value: float, singles: list[float] | None = None) -> None:
        """Add one figure; ``singles`` are what single rounds gave."""
        self.values[key] = round(value, 4)
        if singles:
            self.spread[key] = (min(singles), max(singles))

    def verdict(self, goal: Goal) -> str:
        """``aim``, ``reach``, ``missed``, or ``not measured``."""
        value = self.values.get(goal.key)
        if value is None:
            return "not measured"
        aimed = self.values[goal.aim_key or goal.key]
        if goal.aim is not None and goal.meets(aimed, goal.aim):
            return "aim"
        return "reach" if goal.meets(value, goal.reach) else "missed"


def _ratio(figures: Figures, key: str, ours: list[float], theirs: list[float]) -> None:
    singles = [one / other for one, other in zip(ours, theirs, strict=True)]
    figures.put(key, statistics.median(ours) / statistics.median(theirs), singles)


def add_system(figures: Figures, result: SystemResult) -> None:
    """Figures of the whole, and the medians they come from."""
    small = {variant: by_size[SMALL_PAYLOAD] for variant, by_size in result.udp_pps.items()}
    _ratio(figures, "tcp1_over_vxlan", result.tcp1_gbps["weft"], result.tcp1_gbps["vxlan"])
    _ratio(figures, "tcp4_over_vxlan", result.tcp4_gbps["weft"], result.tcp4_gbps["vxlan"])
    _ratio(figures, "udp64_pps_over_vxlan", small["weft"], small["vxlan"])
    added = [
        ours - raw for ours, raw in zip(result.rtt_us["weft"], result.rtt_us["raw"], strict=True)
    ]
    medians = {name: statistics.median(values) for name, values in result.rtt_us.items()}
    figures.put("rtt_added_us", medians["weft"] - medians["raw"], added)
    busiest = max(result.idle, key=lambda idle: idle.cpu_percent)
    figures.put("idle_cpu_percent", busiest.cpu_percent, [one.cpu_percent for one in result.idle])
    figures.put("idle_wakeups_per_s", max(idle.wakeups_per_s for idle in result.idle))
    figures.put("router_rss_mb", max(result.router_rss_mb), result.router_rss_mb)
    _ratio(figures, "loss1_tcp_over_raw", result.loss_gbps["weft"], result.loss_gbps["raw"])
    _ratio(figures, "tcp1_over_raw", result.tcp1_gbps["weft"], result.tcp1_gbps["raw"])
    for measured, unit, name in (
        (result.tcp1_gbps, "gbps", "tcp1"),
        (result.tcp4_gbps, "gbps", "tcp4"),
        (small, "pps", "udp64"),
        (result.rtt_us, "us", "rtt"),
        (result.loss_gbps, "gbps", "loss1_tcp1"),
    ):
        for variant, values in measured.items():
            if values:
                figures.put(f"{name}_{variant}_{unit}", statistics.median(values), values)


def add_ciphers(figures: Figures, result: CipherResult) -> None:
    """What encryption leaves of the plain path's figures, and the medians they come from."""
    tcp, udp = result.tcp1_gbps, result.udp64_pps
    for cipher in ("secretbox", "gcm"):
        _ratio(figures, f"tcp1_{cipher}_over_plain", tcp[cipher], tcp["plain"])
        _ratio(figures, f"udp64_{cipher}_over_plain", udp[cipher], udp["plain"])
    for variant in tcp:
        # not "plain" beside "weft" of the other run: these are compared with one another only
        figures.put(f"cipher_{variant}_tcp1_gbps", statistics.median(tcp[variant]), tcp[variant])
        figures.put(f"cipher_{variant}_udp64_pps", statistics.median(udp[variant]), udp[variant])


def add_mesh(figures: Figures, result: MeshResult) -> None:
    """Figures of membership: a real node among many, and how the protocol grows."""
    for cost in result.node:
        suffix = "" if cost.gossip == "part" else f"_{cost.gossip}"
        key = f"control_cpu_percent_{cost.peers}{suffix}"
        figures.put(key, statistics.median(cost.cpu_percent), cost.cpu_percent)
        figures.put(f"control_rss_mb_{cost.peers}{suffix}", cost.rss_mb)
    scale = result.scale
    figures.put(
        "handshakes_per_s", statistics.median(scale.handshakes_per_s), scale.handshakes_per_s
    )
    figures.put(
        f"converge_{scale.converge_peers}_intervals",
        statistics.median(scale.converge_intervals),
        scale.converge_intervals,
    )
    for stable in scale.growth:
        suffix = f"{stable.peers}_{stable.received}"
        figures.put(f"gossip_sent_bytes_per_s_{suffix}", stable.sent_bytes_per_s)
        figures.put(f"gossip_received_bytes_per_s_{suffix}", stable.received_bytes_per_s)
        figures.put(f"gossip_cpu_percent_{suffix}", stable.cpu_percent)
        figures.put(f"routes_ms_{suffix}", stable.routes_ms)


def add_ipam(figures: Figures, result: IpamResult) -> None:
    """Figures of address allocation, and what the disk gave meanwhile."""
    for callers, loads in result.loads.items():
        rates = [load.per_second for load in loads]
        figures.put(f"allocs_per_s_{callers}", statistics.median(rates), rates)
        waits = [load.median_us for load in loads]
        figures.put(f"alloc_wait_{callers}_us", statistics.median(waits), waits)
    for key, values in (
        ("disk_commits_per_s", [disk.commits_per_s for disk in result.disk]),
        ("disk_syncs_per_s", [disk.syncs_per_s for disk in result.disk]),
    ):
        figures.put(key, statistics.median(values), values)
    figures.put("allocs_control_rss_mb", result.control_rss_mb)
    merging = result.merging
    figures.put("merge_1000_ms", statistics.median(merging.news), merging.news)
    figures.put("merge_1000_same_ms", statistics.median(merging.same), merging.same)
    figures.put("encode_1000_ms", statistics.median(merging.encode), merging.encode)
    if result.full_range is not None:
        figures.put("full_range_s", result.full_range.seconds)
        figures.put("full_range_rss_mb", result.full_range.rss_mb)


def add_attach(figures: Figures, result: AttachResult) -> None:
    """Figures of attaching containers: over all rounds, with the rounds' medians as spread."""
    for name, key in (
        ("weft", "attach_median_ms"),
        ("ip", "attach_ip_ms"),
        ("bridge", "attach_bridge_plugin_ms"),
    ):
        if rounds := result.ways.get(name):
            figures.put(key, _pooled(rounds), list(map(statistics.median, rounds)))
    ours = sorted(value for one in result.ways["weft"] for value in one)
    figures.put("attach_p99_ms", ours[min(len(ours) - 1, len(ours) * 99 // 100)])
    figures.put(
        "detach_median_ms", _pooled(result.detach), list(map(statistics.median, result.detach))
    )
    for name, key in (("ip", "attach_over_ip"), ("bridge", "attach_over_bridge_plugin")):
        if theirs := result.ways.get(name):
            medians = [list(map(statistics.median, each)) for each in (result.ways["weft"], theirs)]
            _ratio(figures, key, *medians)


def _pooled(rounds: list[list[float]]) -> float:
    return statistics.median(value for one in rounds for value in one)


def add_startup(figures: Figures, result: StartupResult) -> None:
    """Figures of a pod's start. A round's value is its median call."""
    rounds = {
        "stub": result.stub,
        "add": result.add,
        "bridge": result.bridge,
        "hostlocal": result.host_local,
        "reference_hostlocal": result.reference_host_local,
    }
    medians = {name: [statistics.median(one) for one in calls] for name, calls in rounds.items()}
    for name, key in (
        ("stub", "stub_ms"),
        ("add", "add_median_ms"),
        ("bridge", "bridge_add_median_ms"),
        ("hostlocal", "hostlocal_add_median_ms"),
        ("reference_hostlocal", "reference_hostlocal_add_median_ms"),
    ):
        in_ms = [value * 1e3 for value in medians[name]]
        figures.put(key, statistics.median(in_ms), in_ms)
    calls = sorted(value for one in result.add for value in one)
    figures.put("add_p99_ms", calls[int(len(calls) * 0.99) - 1] * 1e3)
    _ratio(figures, "add_over_bridge", medians["add"], medians["bridge"])
    _ratio(
        figures,
        "hostlocal_over_reference",
        medians["hostlocal"],
        medians["reference_hostlocal"],
    )
    figures.put(f"add_{result.many}_s", result.many_s)


def _seconds(found: list[Benchmark], parameter: str, amount: int) -> dict[int, float]:
    """Median time of a batch there and back, by repetition.

    Raises:
        ValueError: one of the two ways is missing.
    """
    by_repetition: dict[int, dict[str, float]] = {}
    for one in found:
        if one.extra_info[parameter] == amount:
            ways = by_repetition.setdefault(int(one.extra_info["repetition"]), {})
            ways[str(one.extra_info["way"])] = one.median_s
    if not by_repetition or any(len(ways) != 2 for ways in by_repetition.values()):
        raise ValueError(f"incomplete measurements for {amount} {parameter}")
    return {number: sum(ways.values()) for number, ways in by_repetition.items()}


def _scale(
    figures: Figures, key: str, found: list[Benchmark], parameter: str, few: int, many: int
) -> None:
    """Packets per second of many over few, both ways through the router taken together."""
    small, large = _seconds(found, parameter, few), _seconds(found, parameter, many)
    ratios = [small[number] / large[number] for number in small]
    figures.put(key, statistics.median(small.values()) / statistics.median(large.values()), ratios)


def add_stages(figures: Figures, measured: BenchmarkFile) -> None:
    """Figures of the stages and of the tables' size."""
    for path, suffix in (("sockets", ""), ("stages", "_stages_only")):
        for group, key, parameter, few, many in (
            ("scale-macs", "fdb_100k_pps_over_10", "macs", 10, 100_000),
            ("scale-peers", "peers_1000_pps_over_10", "peers", 10, 1000),
        ):
            found = [
                one
                for one in measured.benchmarks
                if one.group == group and one.extra_info["make_path"] == path
            ]
            if found:
                _scale(figures, key + suffix, found, parameter, few, many)


def stage_table(benchmarks: list[Benchmark]) -> dict[str, dict[tuple[int, int], Benchmark]]:
    """Stage → (frame bytes, frames in the batch) → measurement, for the plain stages."""
    table: dict[str, dict[tuple[int, int], Benchmark]] = {}
    for one in benchmarks:
        info = one.extra_info
        if one.group is None or one.group.startswith("scale") or info.get("frames", 1000) > 64:
            continue
        if one.group in ("checksum", "parse"):
            continue
        stage = f"{one.group} {info['way']}" if "way" in info else one.group
        table.setdefault(stage, {})[int(info["frame_bytes"]), int(info["frames"])] = one
    return table
