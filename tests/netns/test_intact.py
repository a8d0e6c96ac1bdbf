"""Every byte arrives as it was sent: offloads, MTUs, families, VLANs, many flows at once.

Not the full product of all values, but each value with each family. WEFT_TEST_STREAM_MB sets the
size of the one large TCP stream (1000), WEFT_TEST_SMALL_STREAM_MB that of each other one (64).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import anyio
import pytest

from lab.container import Container
from lab.lab import Lab
from tests.netns.support import TcpFlow, UdpFlow, counters, netns, send

pytestmark = netns(180)

LARGE_BYTES = int(os.environ.get("WEFT_TEST_STREAM_MB", "1000")) * 1_000_000
SMALL_BYTES = int(os.environ.get("WEFT_TEST_SMALL_STREAM_MB", "64")) * 1_000_000
UDP_COUNT = 1000
VID = 9
#: Largest UDP payload, less sender, record header, Ethernet and tag.
VLAN_MTU_MAX = 65507 - 6 - 14 - 18
#: What a lost window at the discovery of the path's MTU may cost.
RESENT_MAX = UDP_COUNT // 10

Family = Literal["ipv4", "ipv6", "vlan ipv4", "vlan ipv6"]


@dataclass(slots=True, frozen=True)
class Case:
    """One row of the matrix: who has offloads, and what travels."""

    family: Family
    sender_offloads: bool
    receiver_offloads: bool


#: MTU of the bridge → rows. Each MTU meets each family, each family each state of the offloads.
MATRIX: dict[int, tuple[Case, ...]] = {
    1280: (
        Case("ipv4", True, True),
        Case("ipv6", True, False),
        Case("vlan ipv4", False, True),
        Case("vlan ipv6", False, False),
    ),
    1376: (
        Case("ipv4", True, False),
        Case("ipv6", False, True),
        Case("vlan ipv4", False, False),
        Case("vlan ipv6", True, True),
    ),
    1500: (
        Case("ipv4", False, True),
        Case("ipv6", False, False),
        Case("vlan ipv4", True, True),
        Case("vlan ipv6", True, False),
    ),
    9000: (
        Case("ipv4", False, False),
        Case("ipv6", True, True),
        Case("vlan ipv4", True, False),
        Case("vlan ipv6", False, True),
    ),
    65535: (
        Case("ipv4", True, True),
        Case("ipv6", False, True),
        Case("vlan ipv4", False, False),
        Case("vlan ipv6", True, True),
    ),
}


def _address(target: Container, family: Family) -> str:
    number = target.host.index
    return {
        "ipv4": target.ipv4,
        "ipv6": target.ipv6,
        "vlan ipv4": f"10.9.0.{number}",
        "vlan ipv6": f"fd09::{number}",
    }[family]


def _add_vlans(*containers: Container) -> None:
    """Tagged frames are not IP to the router: nobody is told of one that no datagram can hold."""
    for container in containers:
        number = container.host.index
        name = container.add_vlan(VID, f"10.9.0.{number}/24", f"fd09::{number}/64")
        mtu = min(container.mtu(container.interface), VLAN_MTU_MAX)
        container.ip(f"link set {name} mtu {mtu}")


async def _offloads(case: Case, sender: Container, receiver: Container) -> None:
    await sender.offloads(on=case.sender_offloads)
    await receiver.offloads(on=case.receiver_offloads)


@pytest.mark.parametrize("mtu", MATRIX)
async def test_tcp_and_udp(stream_tool: Path, mtu: int) -> None:
    async with Lab(2) as lab:
        await lab.start_weft(mtu=mtu)
        one, other = lab.containers
        assert one.mtu("eth0") == mtu
        _add_vlans(one, other)
        for number, case in enumerate(MATRIX[mtu], start=1):
            sender, receiver = (one, other) if number % 2 else (other, one)
            await _offloads(case, sender, receiver)
            address = _address(receiver, case.family)
            tcp = TcpFlow(sender, receiver, address, bytes_=SMALL_BYTES, seed=number)
            sent = await send(stream_tool, tcp)
            udp = UdpFlow(sender, receiver, address, UDP_COUNT, mtu_payload(mtu, case), number)
            confirmed = await send(stream_tool, udp)
            print(f"mtu {mtu} {case}: {sent.gbps:.2f} Gbit/s, {confirmed.resent} resent")
            assert confirmed.resent <= RESENT_MAX
        found = await counters(lab.hosts[0])
        assert found["drop_bad_offload"] == found["drop_truncated_record"] == 0


def mtu_payload(mtu: int, case: Case) -> int:
    """UDP payload of the largest datagram in one IP packet of the container."""
    headers = 48 if case.family.endswith("ipv6") else 28
    return min(mtu, 9000) - headers


async def test_a_large_file(stream_tool: Path) -> None:
    async with Lab(2) as lab:
        await lab.start_weft()
        one, other = lab.containers
        sent = await send(
            stream_tool, TcpFlow(one, other, other.ipv4, bytes_=LARGE_BYTES), timeout_s=170
        )
        print(f"{sent.bytes} bytes in {sent.seconds} s: {sent.gbps:.2f} Gbit/s")
        assert sent.bytes == LARGE_BYTES


@pytest.mark.parametrize("offloads", [True, False], ids=["offloads", "no-offloads"])
async def test_mixed_flows_at_once(stream_tool: Path, *, offloads: bool) -> None:
    """Segments of many flows, sizes and families side by side in every batch."""
    async with Lab(2) as lab:
        await lab.start_weft(mtu=9000)
        one, other = lab.containers
        _add_vlans(one, other)
        for container in (one, other):
            await container.offloads(on=offloads)
        families: tuple[Family, ...] = ("ipv4", "ipv6", "vlan ipv4", "vlan ipv6")
        flows: list[TcpFlow | UdpFlow] = []
        for seed, family in enumerate(families * 2, start=1):
            source, target = (one, other) if seed <= len(families) else (other, one)
            address = _address(target, family)
            flows.append(TcpFlow(source, target, address, bytes_=SMALL_BYTES // 4, seed=seed))
            flows.append(UdpFlow(source, target, address, 300, 8900, seed, df=seed % 2 == 0))
        async with anyio.create_task_group() as group:
            for number, flow in enumerate(flows):
                group.start_soon(send, stream_tool, flow, 120.0, str(7100 + number))


async def test_datagrams_that_may_be_fragmented(stream_tool: Path) -> None:
    """IPv4 without DF, longer than the path takes: cut by the router, joined by the container."""
    async with Lab(3, "line") as lab:
        await lab.start_weft(mtu=9000)
        first, _, last = lab.containers
        before = await counters(lab.hosts[0])
        flow = UdpFlow(first, last, last.ipv4, 400, 8972, df=False)
        assert (await send(stream_tool, flow)).resent <= 40
        whole = UdpFlow(first, last, last.ipv4, 200, 60000, df=False)
        assert (await send(stream_tool, whole)).resent <= 40
        after = await counters(lab.hosts[0])
        assert after["fragmented_frames"] > before["fragmented_frames"]
        assert after["drop_bad_fragment"] == 0
