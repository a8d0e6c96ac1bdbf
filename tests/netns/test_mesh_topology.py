"""Networks that find their own shape: joining, relaying, loss, restarts, partitions.

Source of truth: mesh specification 6, 7, 10; node specification 13, rows 101, 120.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from functools import partial
from typing import Any

import anyio
import pytest

from lab import plan
from lab.container import Container
from lab.host import BRIDGE, Host, weft_environment
from lab.lab import Lab
from lab.process import CommandError
from tests.netns.support import Pinging, counters, has_interface, http_get, netns, until

pytestmark = [*netns(120), pytest.mark.patient]

#: Promised for two parts that see each other again.
HEAL_S = 15.0


async def peers_of(host: Host) -> list[dict[str, Any]]:
    """Everybody that a node knows, with the connections each reports."""
    found: list[dict[str, Any]] = (await host.report())["Router"]["Peers"]
    return found


async def topology(host: Host) -> set[tuple[str, str, bool]]:
    """Who is connected to whom, and whether established, as one node sees it."""
    return {
        (peer["Name"], link["Name"], link["Established"])
        for peer in await peers_of(host)
        for link in peer["Connections"] or ()
    }


async def full(hosts: Sequence[Host]) -> bool:
    """Whether each of these hosts sees all of them connected to all, and nobody else."""
    names = [host.peer_name for host in hosts]
    wanted = {(one, other, True) for one in names for other in names if one != other}
    try:
        return all([await topology(host) == wanted for host in hosts])
    except CommandError:
        return False  # one of them is just being restarted


async def reaches(one: Container, other: Container) -> bool:
    """Whether a single ping is answered soon."""
    return (await one.ping(other, count=1, wait_s=0.4)).ok


async def test_three_nodes_from_one_target() -> None:
    """Row 101: connections are found, established, counted."""
    async with Lab(3) as lab:
        await lab.start_weft(mesh=True)
        await until(lambda: full(lab.hosts), "everybody is connected to everybody")
        _, second, third = lab.hosts
        # the third was told of the first alone, and so was the second
        assert (await second.weft_status("targets")).split() == [lab.hosts[0].address]
        assert {each["Name"] for each in await third.connections()} == {
            lab.hosts[0].peer_name,
            second.peer_name,
        }
        routes = (await third.report())["Router"]["UnicastRoutes"]
        assert {
            (each["Dest"], each["Via"]) for each in routes if each["Dest"] != third.peer_name
        } == {(host.peer_name, host.peer_name) for host in lab.hosts[:2]}
        metrics = await http_get(third, "/metrics")
        assert 'weave_connections{encryption="",state="established",type="sleeve"} 2\n' in metrics


async def test_a_line_without_discovery_relays_frames_and_gossip() -> None:
    """Row 120, without discovery."""
    async with Lab(3, "line") as lab:
        await lab.start_weft(mesh=True)
        first, middle, last = lab.hosts
        assert [each["Name"] for each in await first.connections()] == [middle.peer_name]
        # gossip crosses: the ends know of each other's only connection
        assert (last.peer_name, middle.peer_name, True) in await topology(first)
        before = await counters(middle)
        ping = await lab.containers[0].ping(lab.containers[2], count=5)
        assert ping.ok
        assert (await counters(middle))["relayed_frames"] >= before["relayed_frames"] + 10

        assert await middle.stop_weft() == 0
        await until(lambda: alone(first), "the first has forgotten the others")
        assert not await reaches(lab.containers[0], lab.containers[2])
        assert [each["Name"] for each in await peers_of(first)] == [first.peer_name]
        assert all(each["State"] != "established" for each in await first.connections())


async def alone(host: Host) -> bool:
    """Whether a node knows of nobody."""
    return len(await peers_of(host)) == 1


async def test_a_line_with_discovery_survives_its_middle() -> None:
    """Row 120, with discovery."""
    async with Lab(3) as lab:
        first, middle, last = lab.hosts
        await first.start_weft(peers=[])
        await middle.start_weft(peers=[first.address])
        await last.start_weft(peers=[middle.address])
        await until(lambda: full(lab.hosts), "the line has become a mesh", 10.0)
        async with Pinging(lab.containers[0], lab.containers[2]) as ping:
            assert middle.weft is not None
            await middle.weft.stop(signal.SIGKILL)
            await anyio.sleep(1.0)
        assert ping.missing == []
        await until(lambda: full([first, last]), "the middle is forgotten")


async def test_twelve_at_once() -> None:
    async with Lab(12) as lab:
        await lab.start_weft(mesh=True, connect_timeout_s=None)
        waited = await until(lambda: full(lab.hosts), "all twelve agree", 30.0, poll_s=0.2)
        print(f"all agree {waited:.1f} s after the last was ready")
        for other in lab.containers[1:]:
            assert await reaches(lab.containers[0], other)
        assert not [line for host in lab.hosts for line in host.alarms() if " ERROR " in line]


async def test_a_node_restarted_with_its_name_is_taken_back() -> None:
    async with Lab(3) as lab:
        await lab.start_weft(mesh=True)
        await until(lambda: full(lab.hosts), "everybody is connected to everybody")
        first, second, third = lab.hosts

        def uid_of_second(peers: list[dict[str, Any]]) -> int:
            return next(int(p["UID"]) for p in peers if p["Name"] == second.peer_name)

        for how in (signal.SIGTERM, signal.SIGKILL):
            before = uid_of_second(await peers_of(third))
            assert second.weft is not None
            await second.weft.stop(how)
            second.weft.close()
            second.weft = None
            await second.start_weft(peers=[first.address])
            await until(lambda: full(lab.hosts), "it is back", 10.0)
            after = uid_of_second(await peers_of(third))
            assert after == uid_of_second(await peers_of(first)) != before
            for container in (lab.containers[0], lab.containers[2]):
                assert await reaches(container, lab.containers[1])


async def test_control_dies_and_frames_go_on() -> None:
    async with Lab(2) as lab:
        await lab.start_weft(mesh=True)
        one, other = lab.containers
        host = lab.hosts[0]
        routers = host.pids("router")
        killed = host.kill_control()
        await until(lambda: host.pids("control") not in ([], [killed]), "another control runs")
        await until(lambda: full(lab.hosts), "the mesh is whole again", 20.0)
        assert host.pids("router") == routers
        assert await reaches(one, other)


async def test_two_nodes_with_one_name() -> None:
    async with Lab(3) as lab:
        first, second, third = lab.hosts
        await first.start_weft(peers=[])
        await second.start_weft(peers=[first.address])
        third.peer_name = second.peer_name

        # its namesake itself is asked: the start is refused, and nothing is left of it
        argv = third.launch_argv(peers=[second.address])
        done = await third.run(*argv, check=False, env=weft_environment(), timeout_s=20.0)
        lines = [line for line in done.stderr.splitlines() if line.startswith("weft: ")]
        assert done.returncode == 1
        assert len(lines) == 1
        assert f"--name: another router at {second.address}:6783" in lines[0]
        assert not has_interface(third, BRIDGE)
        await until(lambda: full([first, second]), "the two are as before")

        # somebody else is asked, who sees both: its status names them
        await third.start_weft(peers=[first.address])
        where = f"{second.address} and {third.address}"
        text = f"routers at {where} share the name {second.peer_name}"
        await until(lambda: _says(first, text), "status names the two", 60.0, poll_s=0.5)

        async def told() -> bool:
            # the one that is refused just now
            said = [await host.weft_status("connections") for host in (second, third)]
            return any("another router has our name" in text for text in said)

        await until(told, "who is refused is told why", 30.0)


async def _says(host: Host, text: str) -> bool:
    return text in await host.weft_status()


async def test_two_nodes_with_one_name_hear_of_each_other() -> None:
    async with Lab(4, "line") as lab:
        lab.hosts[3].peer_name = lab.hosts[0].peer_name
        await lab.start_weft(mesh=True, connect_timeout_s=None)
        text = "another router in this network has the name of this one"
        for host in (lab.hosts[0], lab.hosts[3]):
            await until(lambda host=host: _says(host, text), "status names it", 60.0, poll_s=0.5)
        assert not await _says(lab.hosts[1], text)


async def test_both_dial_each_other_at_once() -> None:
    async with Lab(4) as lab:
        everybody = [plan.underlay_address(host.index) for host in lab.hosts]
        async with anyio.create_task_group() as group:
            for host in lab.hosts:
                others = [address for address in everybody if address != host.address]
                group.start_soon(partial(host.start_weft, peers=others))
        await until(lambda: full(lab.hosts), "one connection between any two", 10.0)
        for host in lab.hosts:
            await host.wait_established(3)
        # both ends mean the same connection: each is outbound at one end and inbound at the other
        ends = [
            (frozenset({host.peer_name, each["Name"]}), each["Outbound"])
            for host in lab.hosts
            for each in await host.connections()
        ]
        assert len(set(ends)) == len(ends) == 12
        await anyio.sleep(3.0)
        terminations = [(await host.report())["Router"]["TerminationCount"] for host in lab.hosts]
        await anyio.sleep(3.0)
        assert terminations == [
            (await host.report())["Router"]["TerminationCount"] for host in lab.hosts
        ]


async def test_a_partition_heals() -> None:
    async with Lab(5) as lab:
        await lab.start_weft(mesh=True)
        await until(lambda: full(lab.hosts), "everybody is connected to everybody", 10.0)
        left, right = lab.hosts[:2], lab.hosts[2:]
        lab.split(left, right)
        async with anyio.create_task_group() as group:
            for part in (left, right):
                group.start_soon(_until_full, part)
        assert not await reaches(lab.containers[0], lab.containers[4])
        lab.heal()
        one, other = lab.containers[0], lab.containers[4]
        waited = await until(lambda: reaches(one, other), "a ping between the parts", HEAL_S)
        print(f"ping between the parts {waited:.1f} s after healing")
        waited += await until(lambda: full(lab.hosts), "one topology everywhere", HEAL_S)
        print(f"topology equal everywhere {waited:.1f} s after healing")


async def _until_full(hosts: Sequence[Host]) -> None:
    # nobody tells of a path that drops everything: that takes the time-out of the connection
    await until(lambda: full(hosts), "each part knows only itself", 75.0, poll_s=0.5)
