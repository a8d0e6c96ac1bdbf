"""On the underlay: every datagram by the specification, whatever the containers send.

Three nodes as a mesh and as a line, all kinds of traffic between all of them, every uplink
recorded. Ref: sleeve specification 4.3, 5.1, 8.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import anyio
import pytest

from lab.container import Container
from lab.decode import Record
from lab.frames import ethernet
from lab.lab import Lab
from lab.sniff import Capture, Packet
from tests.netns import underlay
from tests.netns.support import TcpFlow, UdpFlow, netns, send

pytestmark = netns(60)

MTU = 1500
BROADCAST = b"\xff" * 6
Captured = dict[str, list[Packet]]


async def _traffic(lab: Lab, tool: Path) -> None:
    """ARP, ping small and large, IPv6 with its neighbour discovery, TCP, UDP, VLAN."""
    containers = lab.containers
    first, second, last = containers[0], containers[1], containers[-1]
    for container in containers:
        container.ip("neigh flush all")
    for other in (second, last):
        assert (await first.ping(other)).lost == 0
        assert (await first.ping(other, ipv6=True)).lost == 0
    assert (await first.ping(last, size=1410, dont_fragment=True)).lost == 0
    assert (await first.ping(last, size=4000, dont_fragment=False)).lost == 0
    assert (await first.ping(last, size=4000, ipv6=True, count=5)).received >= 3
    await first.run("ping", "-b", "-c1", "-W0.1", "10.47.255.255", check=False)
    flows: list[TcpFlow | UdpFlow] = [
        TcpFlow(first, last, last.ipv4, bytes_=6_000_000),
        TcpFlow(last, first, first.ipv6, bytes_=3_000_000),
        UdpFlow(first, last, last.ipv4, count=300, size_max=1400),
        UdpFlow(last, first, first.ipv4, count=100, size_max=6000, df=False),
    ]
    for flow in flows:
        await send(tool, flow)
    await _vlan(first, last, tool)


async def _vlan(first: Container, last: Container, tool: Path) -> None:
    first.add_vlan(7, "10.7.0.1/24")
    last.add_vlan(7, "10.7.0.2/24")
    assert (await first.ping("10.7.0.2", count=3, size=1400)).received == 3
    await send(tool, TcpFlow(first, last, "10.7.0.2", bytes_=1_000_000))


async def _record(lab: Lab, tool: Path) -> Captured:
    """All traffic, and what each host's uplink saw of it."""
    with ExitStack() as stack:
        captures: dict[str, Capture] = {
            host.name: stack.enter_context(host.capture()) for host in lab.hosts
        }
        await _traffic(lab, tool)
        await anyio.sleep(0.2)
        return {name: list(capture.packets()) for name, capture in captures.items()}


def _assert_by_the_book(captured: Captured) -> None:
    for name, packets in captured.items():
        assert not underlay.oversized(packets, MTU), name
        seen = underlay.read(packets)
        assert len(seen) > 20, name
        assert underlay.faults(seen) == [], name
        assert underlay.scapy_disagrees(underlay.one_of_each_kind(seen)) == [], name


def _assert_every_kind_was_there(captured: Captured) -> None:
    kinds: Counter[str] = Counter()
    for one in underlay.read(captured["h1"]):
        for record in one.datagram.records:
            kind, at, vlan = ethernet(record.frame)
            kinds["vlan" if vlan else f"{kind:04x}"] += 1
            if kind == 0x0800 and vlan is None:
                kinds[f"ipv4/{record.frame[at + 9]}"] += 1
                (flags,) = struct.unpack_from("!H", record.frame, at + 6)
                kinds["df" if flags & 0x4000 else "no df"] += 1
                kinds["fragment"] += bool(flags & 0x3FFF)
        kinds["several records"] += len(one.datagram.records) > 1
        kinds["underlay fragments"] += one.datagram.fragments > 1
    wanted = {"0806", "86dd", "vlan", "ipv4/1", "ipv4/6", "ipv4/17", "df", "no df", "fragment"}
    assert wanted <= {kind for kind, count in kinds.items() if count}, kinds


def _directed(records: Sequence[Record], source: str, *, broadcast: bool) -> list[Record]:
    """Records captured at peer ``source`` whose MAC is (not) a group's."""
    return [
        record
        for record in records
        if record.source == source and bool(record.frame[0] & 1) == broadcast
    ]


async def test_mesh(stream_tool: Path) -> None:
    async with Lab(3, "mesh", underlay_mtu=MTU) as lab:
        await lab.start_weft()
        captured = await _record(lab, stream_tool)
        _assert_by_the_book(captured)
        _assert_every_kind_was_there(captured)
        h1, h2, h3 = (host.peer_name for host in lab.hosts)
        for host in lab.hosts:
            sent = list(underlay.records(underlay.read(captured[host.name]), outgoing=True))
            # Nobody relays in a mesh, and a broadcast names each neighbour once.
            assert {record.source for record in sent} == {host.peer_name}
            groups = Counter(r.destination for r in _directed(sent, host.peer_name, broadcast=True))
            others = {h1, h2, h3} - {host.peer_name}
            assert groups.keys() == others
            assert len(set(groups.values())) == 1, groups


async def test_line_relays_and_keeps_the_source(stream_tool: Path) -> None:
    async with Lab(3, "line", underlay_mtu=MTU) as lab:
        await lab.start_weft()
        captured = await _record(lab, stream_tool)
        _assert_by_the_book(captured)
        _assert_every_kind_was_there(captured)
        h1, h2, h3 = (host.peer_name for host in lab.hosts)
        middle = underlay.read(captured["h2"])
        arrived = list(underlay.records(middle, outgoing=False))
        left = list(underlay.records(middle, outgoing=True))
        for here, there in ((h1, h3), (h3, h1)):
            unicast = [
                record
                for record in _directed(arrived, here, broadcast=False)
                if record.destination != h2
            ]
            passed_on = _directed(left, here, broadcast=False)
            # Source, destination and every byte of the frame are as they came.
            assert len(unicast) > 100
            assert Counter(unicast) == Counter(passed_on)
            assert {record.destination for record in passed_on} == {there}
            flooded = _directed(arrived, here, broadcast=True)
            reflooded = _directed(left, here, broadcast=True)
            assert {record.destination for record in flooded} == {h2}
            assert {record.destination for record in reflooded} == {there}
            assert Counter(r.frame for r in flooded) == Counter(r.frame for r in reflooded)
            assert flooded
        assert any(r.frame[:6] == BROADCAST for r in _directed(arrived, h1, broadcast=True))
        # The ends of the line send to the middle only.
        for host in (lab.hosts[0], lab.hosts[2]):
            for one in underlay.read(captured[host.name]):
                ends = {one.datagram.source, one.datagram.destination}
                assert lab.hosts[1].address in ends


@pytest.mark.parametrize("underlay_offloads", [False, True], ids=["no-offloads", "offloads"])
async def test_jumbo_underlay(stream_tool: Path, *, underlay_offloads: bool) -> None:
    """Another MTU, and datagrams as a network card without offloads would carry them."""
    async with Lab(2, underlay_mtu=4000, underlay_offloads=underlay_offloads) as lab:
        await lab.start_weft()
        one, other = lab.containers
        assert one.mtu("eth0") == 4000 - 62
        with lab.hosts[0].capture() as capture:
            await send(stream_tool, TcpFlow(one, other, other.ipv4, bytes_=5_000_000))
            await send(stream_tool, TcpFlow(other, one, one.ipv6, bytes_=5_000_000))
            await send(stream_tool, UdpFlow(one, other, other.ipv4, count=200, size_max=3900))
            packets = list(capture.packets())
        assert not underlay.oversized(packets, 4000)
        assert max(len(packet.data) for packet in packets) > 3900
        seen = underlay.read(packets)
        assert underlay.faults(seen) == []
