"""``--capture packet``: a packet socket instead of a TAP, with the same promises."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab.host import weft_environment
from lab.lab import Lab
from tests.netns import underlay
from tests.netns.support import Pinging, TcpFlow, UdpFlow, attachment, counters, netns, send, until

pytestmark = [*netns(120), pytest.mark.patient]

STREAM_BYTES = 64_000_000


@pytest.mark.parametrize("offloads", [True, False], ids=["offloads", "no-offloads"])
async def test_all_kinds_of_traffic(stream_tool: Path, *, offloads: bool) -> None:
    async with Lab(2) as lab:
        await lab.start_weft("--capture", "packet")
        one, other = lab.containers
        for container in (one, other):
            await container.offloads(on=offloads)
            number = container.host.index
            container.add_vlan(5, f"10.5.0.{number}/24", f"fd05::{number}/64")
        assert (await lab.hosts[0].report())["Capture"] == "packet"
        assert "vethwe-bridge" in lab.hosts[0].ports()
        with lab.hosts[0].capture() as capture:
            assert (await one.ping(other)).lost == 0
            assert (await one.ping(other, ipv6=True)).lost == 0
            assert (await one.ping(other, size=5000, dont_fragment=False)).lost == 0
            assert (await one.ping("10.5.0.2")).lost == 0
            assert (await one.ping("fd05::2", ipv6=True)).lost == 0
            await send(stream_tool, UdpFlow(one, other, other.ipv4, 500, 1400))
            seen = underlay.read(capture.packets())
            assert underlay.faults(seen) == []
            assert not underlay.oversized(capture.packets(), 1500)
        for address in (other.ipv4, other.ipv6, "10.5.0.2", "fd05::2"):
            sent = await send(stream_tool, TcpFlow(one, other, address, bytes_=STREAM_BYTES))
            print(f"{address}: {sent.gbps:.2f} Gbit/s")
        await send(stream_tool, UdpFlow(one, other, "10.5.0.2", 500, 1400))
        found = await counters(lab.hosts[1])
        assert found["drop_bad_offload"] == found["drop_frame_too_long"] == 0


async def test_jumbo_frames(stream_tool: Path) -> None:
    async with Lab(2) as lab:
        await lab.start_weft("--capture", "packet", mtu=65535)
        one, other = lab.containers
        assert one.mtu("eth0") == 65535
        for address in (other.ipv4, other.ipv6):
            await send(stream_tool, TcpFlow(one, other, address, bytes_=STREAM_BYTES))


@pytest.mark.parametrize("other_capture", ["tap", "packet"])
async def test_both_kinds_in_one_cluster(stream_tool: Path, other_capture: str) -> None:
    async with Lab(2) as lab:
        await lab.hosts[0].start_weft("--capture", "packet")
        await lab.hosts[1].start_weft("--capture", other_capture)
        await lab.wait_connected()
        one, other = lab.containers
        await send(stream_tool, TcpFlow(one, other, other.ipv4, bytes_=STREAM_BYTES))
        await send(stream_tool, TcpFlow(other, one, one.ipv4, bytes_=STREAM_BYTES))


async def test_a_killed_router_is_back_soon() -> None:
    async with Lab(2) as lab:
        await lab.start_weft("--capture", "packet")
        one, other = lab.containers
        before = attachment(one)
        async with Pinging(one, other) as ping:
            lab.hosts[0].kill_router()
            await ping.back(5.0)
        assert 0 < ping.longest_gap_s < 2.0
        assert attachment(one) == before


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param("link set vethwe-bridge nomaster", id="port-removed"),
        pytest.param("link set vethwe-pcap down", id="far-end-down"),
        pytest.param("link delete vethwe-bridge", id="pair-deleted"),
    ],
)
async def test_a_damaged_port_is_repaired(damage: str) -> None:
    async with Lab(2) as lab:
        await lab.start_weft("--capture", "packet")
        one, other = lab.containers
        host = lab.hosts[0]
        async with Pinging(one, other) as ping:
            host.ip(damage)
            await ping.back(5.0)
        assert ping.longest_gap_s < 2.0
        assert (await host.report())["BridgeRepairs"] >= 1


async def test_an_interface_that_blinks() -> None:
    """Down and up again before anybody could mend it: the socket has seen an error all the same."""
    async with Lab(2) as lab:
        await lab.start_weft("--capture", "packet")
        one, other = lab.containers
        async with Pinging(one, other) as ping:
            lab.hosts[0].ip("link set vethwe-pcap down", "link set vethwe-pcap up")
            await ping.back(5.0)
        assert ping.longest_gap_s < 2.0


@pytest.mark.parametrize(("first", "then"), [("tap", "packet"), ("packet", "tap")])
async def test_the_other_kind_on_the_same_host(first: str, then: str) -> None:
    """What the first left behind is named, with the remedy; after it the second one works."""
    async with Lab(2) as lab:
        await lab.start_weft("--capture", first)
        host = lab.hosts[0]
        await host.stop_weft()
        done = await host.run(
            *host.launch_argv(), "--capture", then, check=False, env=weft_environment()
        )
        assert done.returncode == 1
        remedy = re.search(r"`ip (link delete [a-z-]+)`", done.stderr)
        assert remedy is not None, done.stderr
        host.ip(remedy[1])
        await host.start_weft("--capture", then)
        one, other = lab.containers

        async def reached() -> bool:
            return (await one.ping(other, count=1, wait_s=0.3)).ok

        await until(reached, "traffic is back")
