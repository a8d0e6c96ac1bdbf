"""The system benchmark, as short as it gets: it measures every path and the node at rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.figures import Figures, add_system
from bench.system import load
from bench.system.run import CONTAINER_MTU, Settings, SystemBench
from lab.lab import Lab

SHORT = Settings(
    rounds=1,
    tcp_s=1,
    loss_s=1,
    udp_s=0.3,
    udp_plot_s=0.1,
    pings=20,
    ping_interval_s=0.002,
    idle_s=0.5,
)


@pytest.mark.netns
@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.anyio
async def test_every_path_is_measured(tmp_path: Path) -> None:
    tool = load.build_tool("udp_blast", tmp_path)
    async with Lab(nodes=2) as lab:
        await lab.start_weft(mtu=CONTAINER_MTU)
        result = await SystemBench(lab, tool, SHORT).run()
    for variant in ("raw", "vxlan", "weft"):
        assert result.tcp1_gbps[variant][0] > 0.01
        assert result.tcp4_gbps[variant][0] > 0.01
        assert result.rtt_us[variant][0] > 1
        assert all(rates[0] > 100 for rates in result.udp_pps[variant].values())
    assert result.settings["container_mtu"] == CONTAINER_MTU
    assert len(result.idle) == len(result.router_rss_mb) == 2
    figures = Figures()
    add_system(figures, result)
    assert figures.values["tcp1_over_vxlan"] > 0
