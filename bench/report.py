"""The results for people: a table of goals, one of stages, and the plot."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.figures import GOALS, Benchmark, Figures, Goal, stage_table
from bench.mesh.result import MeshResult
from bench.system.run import SystemResult

_STYLES = {"aim": "bold green", "reach": "green", "missed": "bold red", "not measured": "yellow"}
_UDP_HEADERS = 14 + 20 + 8


def _number(goal: Goal, value: float) -> str:
    return f"{value:.{goal.digits}f}{' ' + goal.unit if goal.unit else ''}"


def _aim(goal: Goal, sign: str) -> str:
    if goal.aim is None:
        return ""
    if goal.aim_key:
        return f"{goal.aim:g} {goal.aim_unit}"
    return f"{sign} {_number(goal, goal.aim)}"


def goals_table(figures: Figures, facts: Mapping[str, object]) -> Table:
    """Every goal with its figure, spread and verdict."""
    caption = "{cpu}, {cores} cores, kernel {kernel}, {runs} rounds, commit {commit}".format(
        **facts
    )
    table = Table(title="Weftnet beside kernel VXLAN and raw veth", caption=caption)
    table.add_column("Figure")
    for name in ("Measured", "Spread", "Reach", "Aim"):
        table.add_column(name, justify="right")
    table.add_column("Verdict")
    for goal in GOALS:
        verdict = figures.verdict(goal)
        value = figures.values.get(goal.key)
        low, high = figures.spread.get(goal.key, (None, None))
        sign = "≥" if goal.at_least else "≤"
        table.add_row(
            goal.label,
            "-" if value is None else _number(goal, value),
            "" if low is None or high is None else f"{low:.{goal.digits}f}..{high:.{goal.digits}f}",
            f"{sign} {_number(goal, goal.reach)}",
            _aim(goal, sign),
            f"[{_STYLES[verdict]}]{verdict}",
        )
    return table


def paths_table(result: SystemResult) -> Table:
    """Absolute medians of each path, side by side."""
    table = Table(
        title=f"Medians (lowest..highest), container MTU {result.settings['container_mtu']}"
    )
    table.add_column("Measurement")
    variants = list(result.tcp1_gbps)
    for variant in variants:
        table.add_column(variant, justify="right")
    rows = [
        ("TCP, 1 stream, Gbit/s", result.tcp1_gbps, 1.0, 2),
        ("TCP, 4 streams, Gbit/s", result.tcp4_gbps, 1.0, 2),
        ("TCP, 1 stream, 1 % loss, Gbit/s", result.loss_gbps, 1.0, 2),
        ("ping RTT, µs", result.rtt_us, 1.0, 0),
    ]
    rows += [
        (
            f"UDP {size} B, received kpps",
            {variant: result.udp_pps[variant][size] for variant in variants},
            1e-3,
            1,
        )
        for size in result.udp_pps[variants[0]]
    ]
    for label, values, factor, digits in rows:
        cells = []
        for variant in variants:
            scaled = [value * factor for value in values[variant]]
            if scaled:
                middle, low, high = statistics.median(scaled), min(scaled), max(scaled)
                cells.append(f"{middle:.{digits}f} ({low:.{digits}f}..{high:.{digits}f})")
            else:
                cells.append("-")
        table.add_row(label, *cells)
    return table


def growth_table(result: MeshResult) -> Table:
    """How gossip and routes grow with the mesh, with our neighbours and with the original's."""
    table = Table(title="One router of a full mesh in which nothing changes")
    table.add_column("peers", justify="right")
    table.add_column("neighbours gossip")
    for name in ("received, kB/s", "sent, kB/s", "CPU, % of a core", "all routes, ms"):
        table.add_column(name, justify="right")
    for one in result.scale.growth:
        table.add_row(
            f"{one.peers:,}",
            one.received,
            f"{one.received_bytes_per_s / 1e3:.2f}",
            f"{one.sent_bytes_per_s / 1e3:.2f}",
            f"{one.cpu_percent:.2f}",
            f"{one.routes_ms:.1f}",
        )
    return table


def stages_table(benchmarks: list[Benchmark]) -> Table:
    """Nanoseconds per frame of each stage, by frame size, in the largest batch."""
    stages = stage_table(benchmarks)
    sizes = sorted({size for cells in stages.values() for size, _ in cells})
    table = Table(title="ns per frame, batches of 64 (batch of 1)")
    table.add_column("Stage")
    for size in sizes:
        table.add_column(f"{size} B", justify="right")
    for stage, cells in stages.items():
        texts = []
        for size in sizes:
            shown = [
                f"{cells[size, frames].median_s / frames * 1e9:.0f}"
                for frames in (64, 1)
                if (size, frames) in cells
            ]
            texts.append(" (".join(shown) + (")" if len(shown) == 2 else ""))
        table.add_row(stage, *texts)
    return table


def print_report(
    figures: Figures,
    facts: Mapping[str, object],
    system: SystemResult | None,
    benchmarks: list[Benchmark],
    mesh: MeshResult | None,
) -> None:
    """All tables, on standard output."""
    console = Console(width=None if Console().is_terminal else 110)
    if benchmarks:
        console.print(stages_table(benchmarks))
    if system is not None:
        console.print(paths_table(system))
    if mesh is not None:
        console.print(growth_table(mesh))
    console.print(goals_table(figures, facts))


def plot(folder: Path, system: SystemResult | None, benchmarks: list[Benchmark]) -> list[Path]:
    """Throughput by frame size as SVG and PNG; the files written."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(12, 4.8), layout="constrained")
    pipeline = {
        stage: cells
        for stage, cells in stage_table(benchmarks).items()
        if stage.startswith("pipeline")
    }
    for stage, cells in pipeline.items():
        for frames in sorted({frames for _, frames in cells}):
            points = sorted(
                (size, size * 8 * count / one.median_s / 1e9)
                for (size, count), one in cells.items()
                if count == frames
            )
            label = f"{stage.removeprefix('pipeline ')}, batches of {frames}"
            style = "-" if "egress" in stage else "--"
            axes[0].plot(*zip(*points, strict=True), style, marker="o", label=label)
    axes[0].set_title("Our stages alone, no system calls")
    if system is not None:
        for variant, by_size in system.udp_pps.items():
            points = sorted(
                (size + _UDP_HEADERS, statistics.median(rates) * (size + _UDP_HEADERS) * 8 / 1e9)
                for size, rates in by_size.items()
            )
            axes[1].plot(*zip(*points, strict=True), marker="o", label=variant)
    axes[1].set_title("Between two containers: UDP, no segmentation offload")
    for axis in axes:
        axis.set_xlabel("Ethernet frame, bytes")
        axis.set_ylabel("Gbit/s")
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.grid(visible=True, which="major", alpha=0.3)
        sizes = sorted({float(x) for line in axis.lines for x in line.get_xdata()})
        axis.set_xticks(sizes, [f"{size:g}" for size in sizes])
        if axis.lines:
            axis.legend(fontsize="small")
    files = [folder / "throughput_by_frame_size.svg", folder / "throughput_by_frame_size.png"]
    for file in files:
        figure.savefig(file, dpi=120)
    plt.close(figure)
    return files
