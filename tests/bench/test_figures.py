"""Ratios, spreads and verdicts, from measurements made up for the purpose."""

from __future__ import annotations

from typing import Any

import pytest

from bench.attach.run import AttachResult
from bench.figures import (
    GOALS,
    Benchmark,
    BenchmarkFile,
    Figures,
    Goal,
    add_attach,
    add_ciphers,
    add_ipam,
    add_mesh,
    add_stages,
    add_startup,
    add_system,
    stage_table,
)
from bench.ipam.core import Merging
from bench.ipam.disk import Disk
from bench.ipam.full_range import FullRange
from bench.ipam.run import IpamResult, Load
from bench.mesh.result import MeshResult, NodeCost, Scale, Stable
from bench.startup.run import StartupResult
from bench.system.ciphers import CipherResult
from bench.system.run import Idle, SystemResult


def by_variant(raw: list[float], vxlan: list[float], weft: list[float]) -> dict[str, list[float]]:
    return {"raw": raw, "vxlan": vxlan, "weft": weft}


def system_result() -> SystemResult:
    return SystemResult(
        tcp1_gbps=by_variant([20, 22, 21], [20, 10, 30], [8, 9, 7]),
        tcp4_gbps=by_variant([20, 20, 20], [20, 20, 20], [6, 6, 6]),
        udp_pps={
            "raw": {64: [1e5, 1e5, 1e5], 512: [1.0]},
            "vxlan": {64: [1e5, 1e5, 1e5], 512: [1.0]},
            "weft": {64: [2e5, 3e5, 2.6e5], 512: [1.0]},
        },
        udp64_sent_pps=by_variant([1], [1], [1]),
        rtt_us=by_variant([30, 40, 35], [50, 50, 50], [130, 240, 135]),
        loss_gbps=by_variant([1, 1, 1], [], [0.4, 0.4, 0.5]),
        idle=[Idle(0.01, 1.0, {}), Idle(0.2, 3.0, {})],
        router_rss_mb=[45.0, 51.0],
        settings={},
    )


def goal(key: str) -> Goal:
    return next(one for one in GOALS if one.key == key)


def test_system_figures_are_ratios_of_medians_with_the_spread_of_rounds() -> None:
    figures = Figures()
    add_system(figures, system_result())
    assert figures.values["tcp1_over_vxlan"] == pytest.approx(8 / 20)
    assert list(figures.spread["tcp1_over_vxlan"]) == pytest.approx([7 / 30, 0.9])
    assert figures.values["udp64_pps_over_vxlan"] == pytest.approx(2.6)
    assert figures.values["rtt_added_us"] == pytest.approx(100)
    assert list(figures.spread["rtt_added_us"]) == pytest.approx([100, 200])
    assert figures.values["loss1_tcp_over_raw"] == pytest.approx(0.4)


def test_the_worse_node_counts() -> None:
    figures = Figures()
    add_system(figures, system_result())
    assert figures.values["idle_cpu_percent"] == pytest.approx(0.2)
    assert figures.values["idle_wakeups_per_s"] == pytest.approx(3)
    assert figures.values["router_rss_mb"] == pytest.approx(51)


def test_allocation_figures_are_medians_beside_what_the_disk_gave() -> None:
    figures = Figures()
    loads = {
        callers: [Load(9, 0, 1.0, rate, 50.0, 90.0) for rate in rates]
        for callers, rates in ((1, [900.0, 1200.0, 400.0]), (64, [9000.0, 2000.0, 12000.0]))
    }
    disk = [Disk(1000.0, 2000.0), Disk(3000.0, 4000.0), Disk(2000.0, 6000.0)]
    merging = Merging(3000, 80_000, [6.0, 9.0, 7.0], [5.0, 5.0, 5.0], [4.0, 4.0, 4.0])
    add_ipam(figures, IpamResult(disk, loads, 70.0, merging, FullRange(1022, 30.0, 200.0, 9)))
    assert figures.values["merge_1000_ms"] == pytest.approx(7)
    assert figures.values["allocs_per_s_1"] == 900
    assert list(figures.spread["allocs_per_s_1"]) == pytest.approx([400, 1200])
    assert figures.values["allocs_per_s_64"] == 9000
    assert figures.values["disk_commits_per_s"] == 2000
    assert figures.verdict(goal("allocs_per_s_1")) == "reach"
    assert figures.verdict(goal("full_range_s")) == "aim"
    assert figures.verdict(goal("full_range_rss_mb")) == "reach"


def test_ciphers_are_compared_with_the_plain_path_of_the_same_round() -> None:
    figures = Figures()
    add_ciphers(
        figures,
        CipherResult(
            tcp1_gbps={"plain": [10, 8, 9], "secretbox": [5, 6, 4], "gcm": [9, 8, 8]},
            udp64_pps={"plain": [100, 100, 100], "secretbox": [50, 50, 50], "gcm": [90, 80, 90]},
            ciphers={},
        ),
    )
    assert figures.values["tcp1_secretbox_over_plain"] == pytest.approx(5 / 9, abs=1e-4)
    assert figures.spread["tcp1_secretbox_over_plain"] == pytest.approx((4 / 9, 0.75))
    assert figures.values["tcp1_gcm_over_plain"] == pytest.approx(8 / 9, abs=1e-4)
    assert figures.values["udp64_gcm_over_plain"] == pytest.approx(0.9)


def test_mesh_figures() -> None:
    figures = Figures()
    node = [
        NodeCost(100, "part", [1.0, 1.4], [0.1, 0.1], 60.0),
        NodeCost(100, "complete", [3.0, 3.0], [0.1, 0.1], 70.0),
    ]
    scale = Scale([600.0, 500.0, 700.0], 300, [1.0, 2.0, 1.5], [Stable(10, "part", 0.1, 5, 6, 7)])
    add_mesh(figures, MeshResult(node, scale))
    assert figures.values["control_cpu_percent_100"] == pytest.approx(1.2)
    assert figures.values["control_cpu_percent_100_complete"] == pytest.approx(3.0)
    assert figures.values["control_rss_mb_100"] == pytest.approx(60)
    assert figures.values["handshakes_per_s"] == pytest.approx(600)
    assert figures.spread["handshakes_per_s"] == pytest.approx((500, 700))
    assert figures.values["converge_300_intervals"] == pytest.approx(1.5)
    assert figures.values["gossip_received_bytes_per_s_10_part"] == pytest.approx(6)


def test_attachments_are_pooled_and_compared_by_rounds() -> None:
    figures = Figures()
    ways = {"weft": [[10.0, 20.0, 30.0], [20.0, 40.0, 60.0]], "ip": [[10.0], [10.0]]}
    add_attach(figures, AttachResult(ways, [[5.0], [7.0]]))
    assert figures.values["attach_median_ms"] == pytest.approx(25)
    assert list(figures.spread["attach_median_ms"]) == pytest.approx([20, 40])
    assert figures.values["attach_p99_ms"] == pytest.approx(60)
    assert figures.values["detach_median_ms"] == pytest.approx(6)
    assert figures.values["attach_over_ip"] == pytest.approx(3)
    assert list(figures.spread["attach_over_ip"]) == pytest.approx([2, 4])
    assert "attach_over_bridge_plugin" not in figures.values
    assert figures.verdict(goal("attach_median_ms")) == "aim"


def test_startup_figures() -> None:
    figures = Figures()
    rounds = [[0.01, 0.02, 0.03], [0.03, 0.04, 0.05]]
    half = [[value / 2 for value in one] for one in rounds]
    add_startup(figures, StartupResult([[0.001], [0.002]], rounds, half, half, rounds, 3.5, 200))
    assert figures.values["stub_ms"] == pytest.approx(1.5)
    assert figures.values["add_median_ms"] == pytest.approx(30)
    assert figures.values["add_p99_ms"] == pytest.approx(40)
    assert figures.values["add_over_bridge"] == pytest.approx(2)
    assert figures.values["hostlocal_over_reference"] == pytest.approx(0.5)
    assert figures.values["add_200_s"] == pytest.approx(3.5)
    assert figures.verdict(goal("add_over_bridge")) == "reach"


def test_verdicts() -> None:
    figures = Figures()
    add_system(figures, system_result())
    assert figures.verdict(goal("tcp1_over_vxlan")) == "reach"
    assert figures.verdict(goal("tcp4_over_vxlan")) == "missed"
    assert figures.verdict(goal("udp64_pps_over_vxlan")) == "aim"
    assert figures.verdict(goal("router_rss_mb")) == "reach"
    assert figures.verdict(goal("fdb_100k_pps_over_10")) == "not measured"


def test_idle_reaches_its_aim_only_without_any_wake_up() -> None:
    idle = goal("idle_cpu_percent")
    asleep = Figures({"idle_cpu_percent": 0.0, "idle_wakeups_per_s": 0.0})
    restless = Figures({"idle_cpu_percent": 0.0, "idle_wakeups_per_s": 0.1})
    assert (asleep.verdict(idle), restless.verdict(idle)) == ("aim", "reach")


def scale(group: str, way: str, repetition: int, median_s: float, **size: int) -> Benchmark:
    info: dict[str, Any] = {"make_path": "sockets", "way": way, "repetition": repetition, **size}
    return Benchmark("", group, info, {"median": median_s})


def test_scale_takes_both_ways_together_and_the_median_of_repetitions() -> None:
    found = []
    for repetition, slower in enumerate((1.0, 1.25, 5.0)):
        for way, seconds in (("egress", 1.0), ("ingress", 3.0)):
            found.append(scale("scale-macs", way, repetition, seconds, macs=10))
            found.append(scale("scale-macs", way, repetition, seconds * slower, macs=100_000))
    figures = Figures()
    add_stages(figures, BenchmarkFile(found))
    assert figures.values == {"fdb_100k_pps_over_10": pytest.approx(0.8)}
    assert list(figures.spread["fdb_100k_pps_over_10"]) == pytest.approx([0.2, 1])


def test_half_a_scale_measurement_is_refused() -> None:
    found = [scale("scale-peers", "egress", 0, 1.0, peers=amount) for amount in (10, 1000)]
    with pytest.raises(ValueError, match="incomplete measurements for 10 peers"):
        add_stages(Figures(), BenchmarkFile(found))


def test_stage_table_keeps_the_stages_and_leaves_the_rest() -> None:
    plain: dict[str, Any] = {"frames": 16, "frame_bytes": 64}
    found = [
        Benchmark("", "encap", plain, {"median": 1.0}),
        Benchmark("", "pipeline", {**plain, "way": "egress"}, {"median": 2.0}),
        Benchmark("", "checksum", {"frames": 1, "frame_bytes": 64}, {"median": 1.0}),
        scale("scale-macs", "egress", 0, 1.0, macs=10),
    ]
    table = stage_table(found)
    assert {stage: list(cells) for stage, cells in table.items()} == {
        "encap": [(64, 16)],
        "pipeline egress": [(64, 16)],
    }
