"""What a connection of the mesh learns of its path: size, address, and that it is broken.

Source of truth: sleeve specification 6.4, 7, 8; node specification 13, rows 105, 190.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from lab.host import Host
from lab.lab import Lab
from tests.netns.support import PASSWORD, TcpFlow, netns, send, until

pytestmark = [*netns(120), pytest.mark.patient]

#: Row 105: the path's MTU is found within this.
FOUND_S = 35.0
#: IP, UDP, sender, record header, inner Ethernet; what a key adds.
OVERHEAD, SEALED = 62, 24
#: A bridge passes frames with a VLAN tag, and such as have other four bytes more than the MTU.
BRIDGE_SLACK = 4


async def forwarder(host: Host) -> dict[str, Any]:
    """The router's side of the only connection."""
    (only,) = (await host.report())["Forwarders"]
    return dict(only)


@pytest.mark.parametrize("password", [None, PASSWORD], ids=["plain", "encrypted"])
async def test_a_path_that_drops_large_packets(password: str | None) -> None:
    """Row 105; gossip over TCP has to cross it, too."""
    async with Lab(2, switch_mtu=700, underlay_offloads=False) as lab:
        await lab.start_weft(mesh=True, password=password)
        one, other = lab.containers
        room = 700 + BRIDGE_SLACK - OVERHEAD - (SEALED if password else 0)

        async def found() -> bool:
            return [(await forwarder(host))["MTU"] for host in lab.hosts] == [room, room]

        waited = await until(found, "the path's MTU is found", FOUND_S, poll_s=0.2)
        print(f"found after {waited:.1f} s")
        answers = [(await one.ping(other, count=1, size=10_000, wait_s=2.0)).ok for _ in range(2)]
        assert answers[1]
        text = await lab.hosts[0].weft_status("connections")
        assert f"mtu={room}" in text
        assert "degraded=" in text


async def test_a_path_that_becomes_narrow_without_a_word(stream_tool: Path) -> None:
    async with Lab(2, underlay_offloads=False) as lab:
        await lab.start_weft(mesh=True)
        one, other = lab.containers

        async def at_full() -> bool:
            return bool((await forwarder(lab.hosts[0]))["MTU"] == 1500 - OVERHEAD)

        await until(at_full, "the first MTU is found", 10.0)
        lab.set_switch_mtu(1000)

        async def large() -> bool:
            return (await one.ping(other, count=1, size=1372, wait_s=0.5)).ok

        assert not await large()
        # at most a heartbeat's interval, four probes, the search
        waited = await until(large, "packets of 1400 bytes pass again", 20.0)
        print(f"large packets pass again after {waited:.1f} s")
        sent = await send(stream_tool, TcpFlow(one, other, other.ipv4, bytes_=2_000_000), 60.0)
        assert sent.bytes == 2_000_000
        assert (await forwarder(lab.hosts[0]))["MTU"] == 1000 + BRIDGE_SLACK - OVERHEAD


async def test_jumbo_containers_over_a_common_underlay(stream_tool: Path) -> None:
    """Row 190."""
    async with Lab(2) as lab:
        await lab.start_weft(mesh=True, mtu=65535, password=PASSWORD)
        one, other = lab.containers
        assert one.mtu("eth0") == 65535
        sent = await send(stream_tool, TcpFlow(one, other, other.ipv4, bytes_=10_000_000))
        assert sent.bytes == 10_000_000


@pytest.mark.parametrize("password", [None, PASSWORD], ids=["plain", "encrypted"])
async def test_a_neighbour_behind_nat(password: str | None) -> None:
    async with Lab(2) as lab:
        first, second = lab.hosts
        rules = (
            "add table ip nat; "
            "add chain ip nat out { type nat hook postrouting priority 100; }; "
            f"add rule ip nat out oifname eth0 udp sport 6783 snat to {second.address}:20000"
        )
        await second.run("nft", rules)
        await first.start_weft(peers=[], password=password)
        await second.start_weft("--no-discovery", peers=[first.address], password=password)
        await lab.wait_connected()
        assert (await forwarder(first))["Address"] == f"{second.address}:20000"
        assert (await forwarder(second))["Address"] == f"{first.address}:6783"
        await first.wait_established(1)
        await second.wait_established(1)


async def test_a_silent_neighbour_is_given_up() -> None:
    """Its TCP connection lives on, its router does not answer: the overlay's time-out counts."""
    async with Lab(2) as lab:
        await lab.start_weft(mesh=True)
        first, second = lab.hosts
        second.kill_router(signal.SIGSTOP)
        try:

            async def warned() -> bool:
                return 'degraded="no heartbeat for' in await first.weft_status("connections")

            await until(warned, "status says that it is silent", 40.0, poll_s=0.5)

            async def ended() -> bool:
                return int((await first.report())["Router"]["TerminationCount"]) >= 1

            await until(ended, "the connection is ended", 45.0, poll_s=0.5)
        finally:
            second.kill_router(signal.SIGCONT)
        await lab.wait_connected(20.0)
