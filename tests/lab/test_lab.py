"""The lab on the real kernel: links, faults, references, captures. Needs root."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel
import pytest

from base.errors import ConfigError, PlatformError
from lab.lab import Lab
from lab.process import CommandError

pytestmark = [
    pytest.mark.netns,
    pytest.mark.anyio,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    """Two hosts."""
    async with Lab(2) as built:
        yield built


async def test_five_nodes_are_built_quickly() -> None:
    begun = time.monotonic()
    async with Lab(5, containers=2) as lab:
        assert time.monotonic() - begun < 2.0
        assert [container.name for container in lab.hosts[4].containers] == ["c5.1", "c5.2"]
        assert len(lab.containers) == 10
        for other in lab.hosts[1:]:
            await lab.hosts[0].run("ping", "-c1", "-W1", other.address)


async def test_raw_pair(lab: Lab) -> None:
    one, other = lab.raw_pair()
    assert lab.raw_pair() == (one, other)
    assert (await one.ping(other)).received == 3
    assert (await one.ping(other, ipv6=True)).received == 3
    assert (await one.ping(other, size=1472, dont_fragment=True)).received == 3
    lab.raw_pair(mtu=1410)
    assert other.mtu("eth0") == 1410
    assert (await one.iperf(other)).gbps > 0.1


async def test_vxlan_pair(lab: Lab) -> None:
    one, other = lab.vxlan_pair()
    assert one.mtu("eth0") == 1450
    assert (await one.ping(other, size=1422, dont_fragment=True)).received == 3
    udp = await one.iperf(other, udp=True, length=1000, bitrate="50M")
    assert udp.gbps == pytest.approx(0.05, rel=0.2)
    assert udp.lost_fraction < 0.1


async def test_loss_hits_both_directions_and_only_the_switch(lab: Lab) -> None:
    one, other = lab.raw_pair()
    await one.ping(other)
    lab.set_loss(0.5)
    result = await one.ping(other, count=100, interval_s=0.002, wait_s=0.3)
    assert 2 < result.received < 60  # a quarter is expected
    assert lab.dropped_by_switch() >= result.lost
    lab.set_loss(0.0)
    assert (await one.ping(other, count=20)).lost == 0


async def test_partition(lab: Lab) -> None:
    h1, h2 = lab.hosts
    await h1.run("ping", "-c1", "-W1", h2.address)
    lab.partition(h1, h2)
    cut = await h1.run("ping", "-c1", "-W1", h2.address, check=False)
    assert cut.returncode == 1
    lab.heal(h1, h2)
    await h1.run("ping", "-c1", "-W1", h2.address)


async def test_rate_limit(lab: Lab) -> None:
    one, other = lab.vxlan_pair()
    lab.hosts[1].set_rate(50)
    assert (await one.iperf(other)).gbps < 0.08
    lab.hosts[1].set_rate(None)
    assert (await one.iperf(other)).gbps > 0.3


async def test_underlay_mtu() -> None:
    async with Lab(2, underlay_mtu=9000, underlay_offloads=False) as lab:
        h1, h2 = lab.hosts
        big = ("ping", "-c1", "-W1", "-Mdo", "-s8972", h2.address)
        await h1.run(*big)
        lab.set_switch_mtu(1500)  # a path that drops silently
        assert (await h1.run(*big, check=False)).returncode == 1
        h1.set_underlay_mtu(1500)
        refused = await h1.run(*big, check=False)
        assert "message too long" in (refused.stdout + refused.stderr).lower()


async def test_vlan(lab: Lab) -> None:
    one, other = lab.vxlan_pair()
    assert one.add_vlan(5, "10.5.0.1/24", "fd05::1/64") == "eth0.5"
    other.add_vlan(5, "10.5.0.2/24", "fd05::2/64")
    one.add_vlan(6, "10.6.0.1/24")
    other.add_vlan(6, "10.6.0.2/24")
    with lab.hosts[0].capture("vxlan42") as capture:
        assert (await one.ping("10.5.0.2")).received == 3
        assert (await one.ping("fd05::2", ipv6=True)).received == 3
        assert (await one.ping("10.6.0.2")).received == 3
        tags = {packet.data[12:16].hex() for packet in capture.packets()}
    assert {"81000005", "81000006"} <= tags
    assert not (await one.ping("10.5.0.2", count=1)).lost
    assert (await one.iperf(other, address="10.5.0.2")).gbps > 0.1
    assert (await one.ping(other)).received == 3


async def test_offloads(lab: Lab) -> None:
    one, other = lab.raw_pair()
    await one.offloads(on=False)
    await other.offloads(on=False)
    state = (await one.run("ethtool", "-k", "eth0")).stdout
    assert "tcp-segmentation-offload: off" in state
    assert "tx-checksumming: off" in state
    with lab.hosts[0].capture("raw") as capture:
        await one.iperf(other, bitrate="20M")
        assert max(len(packet.data) for packet in capture.packets()) <= 1514
    await one.offloads(on=True)
    assert "tcp-segmentation-offload: on" in (await one.run("ethtool", "-k", "eth0")).stdout


async def test_capture_cuts_super_datagrams(lab: Lab) -> None:
    one, other = lab.hosts
    sender = one.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    await one.run("ping", "-c1", other.address)
    with sender, one.capture() as sent, other.capture() as arrived:
        sender.setsockopt(socket.IPPROTO_UDP, 103, 1000)  # UDP_SEGMENT
        sender.sendto(bytes(4500), (other.address, 6783))
        for capture, outgoing in ((sent, True), (arrived, False)):
            udp = [packet for packet in capture.packets() if packet.data[23:24] == b"\x11"]
            assert [len(packet.data) for packet in udp] == [1042] * 4 + [542]
            assert {packet.outgoing for packet in udp} == {outgoing}


async def test_a_command_that_fails_says_so(lab: Lab) -> None:
    with pytest.raises(CommandError, match=r"h1: sh -c .*→ 3: broken"):
        await lab.hosts[0].run("sh", "-c", "echo broken >&2; exit 3")


async def test_a_command_that_hangs_is_killed(lab: Lab) -> None:
    begun = time.monotonic()
    with pytest.raises(CommandError, match=r"no end within 0\.2 s"):
        await lab.hosts[0].run("sh", "-c", "sleep 100 & sleep 100", timeout_s=0.2)
    assert time.monotonic() - begun < 2
    with anyio.fail_after(2):  # orphans are reaped a moment later
        while (await lab.hosts[0].run("pgrep", "-x", "sleep", check=False)).stdout:
            await anyio.lowlevel.checkpoint()


async def test_a_program_that_is_not_there(lab: Lab) -> None:
    with pytest.raises(PlatformError, match="start no-such-program"):
        await lab.hosts[0].run("no-such-program")


async def test_an_ip_command_that_fails_is_named(lab: Lab) -> None:
    with pytest.raises(PlatformError, match=r"link set nowhere up \(in h1\)"):
        lab.hosts[0].ip("link set lo up", "link set nowhere up", "link set lo up")


async def test_two_labs_side_by_side() -> None:
    async with Lab(2) as first, Lab(2) as second:
        for lab in (first, second):
            lab.raw_pair()
        first.set_loss(1.0)
        one, other = second.raw_pair()
        assert (await one.ping(other)).received == 3
        one, other = first.raw_pair()
        assert (await one.ping(other, count=1, wait_s=0.2)).received == 0


async def test_facts(lab: Lab) -> None:
    facts = lab.facts()
    assert facts["net/bridge/bridge-nf-call-iptables"] == "0"
    assert facts["kernel"] == os.uname().release


async def test_a_host_sees_its_own_devices_and_processes(lab: Lab) -> None:
    listing = (await lab.hosts[0].run("ls", "/sys/class/net")).stdout.split()
    assert "vethwepl" + "c1" in listing
    assert "h1" not in listing


async def test_a_shell_from_outside_enters_a_host(lab: Lab) -> None:
    shell = [*lab.hosts[1].enter_command().split(), "ip", "-br", "addr"]
    done = await anyio.run_process(shell)
    assert lab.hosts[1].address in done.stdout.decode()


async def test_reference_needs_two_hosts() -> None:
    async with Lab(1) as lab:
        with pytest.raises(ConfigError, match="at least 2 nodes"):
            lab.raw_pair()
