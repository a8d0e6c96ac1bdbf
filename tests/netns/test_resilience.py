"""Processes die, links change, the bridge is tampered with: traffic goes on or comes back.

What the containers have (namespace, veth, addresses, bridge port) must never be touched. Ref: node
specification 2.2 (7), architecture "Either restart loses no address".
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import anyio
import pytest

from lab.host import Host, weft_argv, weft_environment
from lab.lab import Lab
from lab.process import Process
from tests.netns.support import (
    OVERHEAD,
    Pinging,
    TcpFlow,
    attachment,
    has_interface,
    netns,
    received_bytes,
    send,
    until,
)

pytestmark = netns(60)

#: Promised by the issue of this data plane.
ROUTER_BACK_S = 2.0
UNDERLAY_MTU = 1500
LOWER_MTU = 1400
#: The router asks again for a path's MTU this often while it is narrower than it was.
RECHECK_S = 30.0


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    """Two hosts with running routers."""
    async with Lab(2) as built:
        await built.start_weft()
        yield built


async def test_a_killed_control_costs_no_frame(lab: Lab) -> None:
    one, other = lab.containers
    host = lab.hosts[0]
    routers = host.pids("router")
    async with Pinging(one, other) as ping:
        await anyio.sleep(0.5)
        killed = host.kill_control()

        def replaced() -> bool:
            return host.pids("control") not in ([], [killed])

        await until(replaced, "another control runs")

        async def whole() -> bool:
            return (await host.run("test", "-S", host.http_socket, check=False)).returncode == 0

        await until(whole, "the API is back")
        await anyio.sleep(1.0)
    assert ping.sent > 100
    assert ping.missing == []
    assert host.pids("router") == routers
    # The new control has its router again, and the table is in force as before.
    await until(lambda: _is_ready(host), "the report is whole again")


async def _is_ready(host: Host) -> bool:
    report = await host.report()
    return bool(report["Ready"]) and bool(report["Counters"])


async def test_a_router_without_control_forwards_on(lab: Lab) -> None:
    """Both run alone, as two systemd units; control stays away for a while."""
    one, other = lab.containers
    host = lab.hosts[0]
    assert await host.stop_weft() == 0
    control = _alone(host, "control")
    router = _alone(host, "router")
    await lab.wait_connected()
    async with Pinging(one, other) as ping:
        control.kill(signal.SIGKILL)
        await anyio.sleep(2.0)
        assert host.pids("control") == []
        control = _alone(host, "control")
        await until(lambda: _answers(host), "control is back")
        await until(lambda: _is_ready(host), "the report is whole again")
    assert ping.missing == []
    assert await router.stop() == 0
    assert await control.stop() == 0


def _alone(host: Host, role: Literal["control", "router"]) -> Process:
    argv = [*weft_argv(), role, "--control-socket", host.control_socket]
    if role == "control":
        argv += ["--static", host.peers_path, "--nickname", host.name]
        argv += ["--http-addr", host.http_socket]
    else:
        argv += ["--host", host.address]
    return host.spawn(*argv, env=weft_environment())


async def _answers(host: Host) -> bool:
    argv = (*weft_argv(), "status", "--http-addr", host.http_socket)
    return (await host.run(*argv, check=False, env=weft_environment())).returncode == 0


@pytest.mark.parametrize("victim", [0, 1], ids=["sender", "receiver"])
async def test_a_killed_router_is_back_soon(lab: Lab, victim: int) -> None:
    one, other = lab.containers
    host = lab.hosts[victim]
    before = [attachment(container) for container in lab.containers]
    async with Pinging(one, other) as ping:
        await anyio.sleep(0.3)
        killed = host.kill_router()
        await until(lambda: host.pids("router") not in ([], [killed]), "another router runs")
        await ping.back(ROUTER_BACK_S + 3)
    print(f"longest gap {ping.longest_gap_s:.2f} s")
    assert 0 < ping.longest_gap_s < ROUTER_BACK_S
    assert [attachment(container) for container in lab.containers] == before
    assert await _is_ready(host)


async def test_a_router_killed_again_and_again(lab: Lab) -> None:
    """The back-off must not make the third restart of a busy day a long one."""
    one, other = lab.containers
    host = lab.hosts[0]
    async with Pinging(one, other) as ping:
        for _ in range(3):
            host.kill_router()
            await ping.back(10.0)
    print(f"longest gap {ping.longest_gap_s:.2f} s")
    assert ping.longest_gap_s < 5.0


async def test_tcp_survives_a_killed_router(lab: Lab, stream_tool: Path) -> None:
    one, other = lab.containers
    async with anyio.create_task_group() as group:
        group.start_soon(send, stream_tool, TcpFlow(one, other, other.ipv4, seconds=4.0))
        await anyio.sleep(1.0)
        lab.hosts[0].kill_router()


async def test_underlay_mtu_lowered_and_raised_while_tcp_runs(lab: Lab, stream_tool: Path) -> None:
    one, other = lab.containers

    async def goes_on(what: str) -> None:
        before = received_bytes(other)
        await until(lambda: received_bytes(other) > before + 10_000_000, what, 4.0)

    async with anyio.create_task_group() as group:
        group.start_soon(send, stream_tool, TcpFlow(one, other, other.ipv4, seconds=10.0))
        await goes_on("TCP flows")
        for host in lab.hosts:
            host.set_underlay_mtu(LOWER_MTU)
        await goes_on("TCP goes on over a narrower underlay")
        await until(lambda: _mtu_towards(lab.hosts[0], LOWER_MTU - OVERHEAD), "the MTU is known")
        for host in lab.hosts:
            host.set_underlay_mtu(UNDERLAY_MTU)
        await goes_on("TCP goes on over the wider underlay")
    answer = await one.ping(other, size=1300, dont_fragment=True)
    assert answer.received >= 1


async def _mtu_towards(host: Host, mtu: int) -> bool:
    found = {forwarder["MTU"] for forwarder in (await host.report())["Forwarders"]}
    return found == {mtu}


@pytest.mark.slow
async def test_a_wider_underlay_is_noticed(lab: Lab) -> None:
    host = lab.hosts[0]
    one, other = lab.containers
    host.set_underlay_mtu(LOWER_MTU)
    await one.ping(other, size=1380, dont_fragment=True)
    await until(lambda: _mtu_towards(host, LOWER_MTU - OVERHEAD), "the MTU has fallen")
    host.set_underlay_mtu(UNDERLAY_MTU)
    await until(
        lambda: _mtu_towards(host, UNDERLAY_MTU - OVERHEAD),
        "the MTU has risen",
        RECHECK_S + 10,
        poll_s=1.0,
    )


async def _repairs(host: Host) -> int:
    return int((await host.report())["BridgeRepairs"])


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param("link set weave down", id="bridge-down"),
        pytest.param("link set vethwe-bridge nomaster", id="port-removed"),
        pytest.param("link set vethwe-bridge down", id="port-down"),
        pytest.param("link delete vethwe-bridge", id="tap-deleted"),
    ],
)
async def test_a_damaged_bridge_is_repaired_and_counted(lab: Lab, damage: str) -> None:
    one, other = lab.containers
    host = lab.hosts[0]
    before = [attachment(container) for container in lab.containers]
    repairs = await _repairs(host)
    async with Pinging(one, other) as ping:
        host.ip(damage)
        await ping.back(5.0)
    print(f"{damage}: longest gap {ping.longest_gap_s:.2f} s")
    assert ping.longest_gap_s < ROUTER_BACK_S
    assert await _repairs(host) > repairs
    assert [attachment(container) for container in lab.containers] == before
    assert host.weft is not None
    assert "bridge repaired" in host.weft.stderr()
    # Both directions work, and super-frames too: offloads are set on a port made anew.
    assert (await other.ping(one)).lost == 0
    assert (await one.iperf(other)).gbps > 0.05


async def test_a_deleted_bridge_is_made_anew(lab: Lab) -> None:
    """Its container ports are gone with it; whoever attached them attaches them again."""
    one, other = lab.containers
    host = lab.hosts[0]
    mac = host.read("/sys/class/net/weave/address")
    host.ip("link delete weave")
    await until(lambda: has_interface(host, "weave"), "the bridge is back")
    await until(lambda: "vethwe-bridge" in host.ports(), "its port is back")
    assert host.read("/sys/class/net/weave/address") == mac
    host.attach()
    assert (await one.ping(other)).received >= 1
    assert await _repairs(host) >= 1


async def test_an_idle_bridge_is_left_alone(lab: Lab) -> None:
    """Links that come and go beside ours are no reason for a repair."""
    host = lab.hosts[0]
    repairs = await _repairs(host)
    for number in range(3):
        host.ip(f"link add other{number} type bridge", f"link delete other{number}")
    await anyio.sleep(0.3)
    assert await _repairs(host) == repairs
