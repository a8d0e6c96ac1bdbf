"""The lab's handles on running routers. Needs root."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest

from lab.host import Host
from lab.lab import Lab
from lab.process import CommandError

pytestmark = [
    pytest.mark.netns,
    pytest.mark.anyio,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    """Two hosts with routers."""
    async with Lab(2, underlay_mtu=1400) as built:
        await built.start_weft()
        yield built


async def test_mtu_follows_the_underlay(lab: Lab) -> None:
    one, other = lab.containers
    assert (one.mtu("eth0"), other.mtu("eth0")) == (1338, 1338)
    assert (await one.ping(other, size=1310, dont_fragment=True)).received == 3


async def test_mtu_by_option() -> None:
    async with Lab(2) as lab:
        await lab.start_weft(mtu=1280)
        for host, container in zip(lab.hosts, lab.containers, strict=True):
            assert host.mtu("weave") == host.mtu(container.port) == container.mtu("eth0") == 1280
            assert container.port in host.ports()


async def test_report(lab: Lab) -> None:
    report = await lab.hosts[0].report()
    assert report["Router"]["Name"] == lab.hosts[0].peer_name
    assert report["Router"]["NickName"] == "h1"
    assert report["Counters"]["captured_frames"] > 0


async def test_processes_are_found_and_killed(lab: Lab) -> None:
    host = lab.hosts[0]
    (router,), (control,) = host.pids("router"), host.pids("control")
    assert host.pids("launch") == [host.weft.pid if host.weft else 0]
    assert not {router, control} & {*lab.hosts[1].pids("router"), *lab.hosts[1].pids("control")}
    assert host.kill_router() == router
    await lab.wait_connected(5.0)
    assert host.pids("router") != [router]
    assert host.kill_control() == control


async def test_stop(lab: Lab) -> None:
    host = lab.hosts[0]
    assert await host.stop_weft() == 0
    assert host.pids("router") == host.pids("control") == host.pids("launch") == []
    with pytest.raises(CommandError, match="no router process runs"):
        host.kill_router()
    await host.start_weft()
    await lab.wait_connected()


async def test_a_router_that_cannot_start_says_why(lab: Lab) -> None:
    host: Host = lab.hosts[0]
    await host.stop_weft()
    host.write_peers("[[peer]]\nname = 7\n")
    with pytest.raises(CommandError, match=r"weft is not ready: h1: .*peers\.toml"):
        await host.start_weft()
