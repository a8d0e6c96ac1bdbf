"""Containers that are attached by command to running nodes, over hosts, restarts and deaths.

Source of truth: node specification 13 (rows 100, 195, 310, 500, 510).
"""

from __future__ import annotations

import signal
from functools import partial

import anyio
import pytest

from lab.guest import Guest
from lab.host import BRIDGE, Host
from lab.lab import Lab
from tests.netns.support import netns, until

pytestmark = [*netns(150), pytest.mark.patient]

RANGE = ("--ipalloc-range", "10.77.0.0/16", "--ipalloc-default-subnet", "10.77.1.0/24")


async def start(lab: Lab) -> None:
    options = ("--ipalloc-init", f"consensus={len(lab.hosts)}", *RANGE)
    await lab.start_weft(*options, mesh=True, connect_timeout_s=None)
    for host in lab.hosts:
        await host.wait_established(len(lab.hosts) - 1, 30.0)


async def pings(one: Guest, address: str) -> bool:
    return (await one.ping(address, count=1, wait_s=2.0)).ok


async def reaches(one: Guest, addresses: list[str]) -> None:
    for address in addresses:
        await until(partial(pings, one, address), f"{one.name} reaches {address}", 20.0)


async def clean(host: Host) -> None:
    found = await host.audit()
    assert (found["Leaks"], found["Unattached"]) == ([], []), found


async def test_containers_of_two_hosts_reach_each_other() -> None:
    async with Lab(2) as lab:
        await start(lab)
        first, second = lab.hosts
        one, other = lab.new_guest(first, "one"), lab.new_guest(second, "other")
        fixed = ("10.77.3.200/24", "net:default", "net:10.77.2.0/24")
        here = await one.attach(*fixed)
        theirs = ("10.77.3.201/24", *fixed[1:])
        there = await other.attach(*theirs)
        assert here[0] == "10.77.3.200"
        assert len({*here, *there}) == 6
        await reaches(one, there)
        await reaches(other, here)
        routes = (await one.run("ip", "route")).stdout
        assert "224.0.0.0/4 dev ethwe scope link" in routes

        # a container that is started again, elsewhere in memory and with the same name
        again = lab.new_guest(first, "again")
        words = ("--pid", str(again.pid), *fixed)
        assert await first.attach_guest("one", words) == here
        await until(partial(pings, again, there[0]), "again → other", 20.0)
        await reaches(other, here)

        # either process of the node dies: the containers stay, and so do their records
        listed = await first.ask_weft("ps")
        for kill in (first.kill_control, first.kill_router):
            kill(signal.SIGKILL)
            await until(lambda: _answers(first), "the API is back", 30.0)
            await until(lambda: _lists(first, listed), "same list", 30.0)
            await until(partial(pings, again, there[0]), "again → other", 30.0)
        await clean(first)
        await clean(second)

        assert await one.detach("--all") == here
        assert sorted(await other.detach("--all")) == sorted(there)
        for host in lab.hosts:
            await clean(host)
            labs_own = {each.port for each in lab.containers}
            assert not {port for port in host.ports() if port.startswith("vethwepl")} - labs_own


async def test_nothing_waits_for_a_ring_that_never_comes() -> None:
    """Rows 320 and 510: one of three nodes alone has no quorum."""
    async with Lab(1) as lab:
        (host,) = lab.hosts
        await host.start_weft("--ipalloc-init", "consensus=3", *RANGE, peers=[])
        one, two = lab.new_guest(host, "one"), lab.new_guest(host, "two")
        assert await two.attach("192.168.7.1/24") == ["192.168.7.1"]
        async with anyio.create_task_group() as tasks:
            ended = anyio.Event()

            async def attach() -> None:
                words = ("attach", "--pid", str(one.pid), "one", "--http-addr", host.http_socket)
                said = await host.weft_command(*words, check=False)
                assert said == ""
                ended.set()

            tasks.start_soon(attach)
            await until(lambda: _waits(host), "somebody waits for an address", 30.0)
            assert await one.detach("--all") == []
            await ended.wait()
        assert await two.detach("--all") == ["192.168.7.1"]
        await clean(host)


@pytest.mark.parametrize("with_router", [True, False])
async def test_a_bridge_made_anew_has_its_containers_back(*, with_router: bool) -> None:
    async with Lab(1) as lab:
        await start(lab)
        (host,) = lab.hosts
        one, two = lab.new_guest(host, "one"), lab.new_guest(host, "two")
        await one.attach()
        (address,) = await two.attach()
        assert await pings(one, address)
        host.ip(f"link del {BRIDGE}")
        if with_router:
            host.kill_router(signal.SIGKILL)
        await until(partial(pings, one, address), "one → two", 40.0)
        await clean(host)


async def test_another_bridge_made_anew_has_its_containers_back() -> None:
    async with Lab(1) as lab:
        await start(lab)
        (host,) = lab.hosts
        make = ("link add blue type bridge", "addr add 10.77.2.1/24 dev blue", "link set blue up")
        host.ip(*make)
        one = lab.new_guest(host, "one")
        await one.attach("--bridge", "blue", "--mtu", "1300", "10.77.2.2/24")
        await reaches(one, ["10.77.2.1"])
        host.ip("link del blue", *make)
        await reaches(one, ["10.77.2.1"])
        await clean(host)


async def test_a_reset_leaves_no_container_attached() -> None:
    """On a bridge of the user's, too: the bridge stays, and so does another node's container."""
    async with Lab(1) as lab:
        await start(lab)
        (host,) = lab.hosts
        host.ip("link add blue type bridge", "link set blue mtu 1300 up")
        one = lab.new_guest(host, "one")
        await one.attach()
        await one.attach("--bridge", "blue", "--name", "eth1", "net:10.77.2.0/24")
        host.ip("link add vethwepl0000000 type veth peer name other")
        host.ip("link set vethwepl0000000 alias x_ethwe master blue")
        await clean(host)
        await host.weft_command(
            *("reset", "--db-prefix", host.state_prefix, "--http-addr", host.http_socket),
            *("--control-socket", host.control_socket),
        )
        assert (await one.run("ip", "-o", "link")).stdout.count("\n") == 1
        assert host.ports("blue") == ["vethwepl0000000"]


async def _answers(host: Host) -> bool:
    words = ("ps", "--http-addr", host.http_socket)
    return "weave:expose" in await host.weft_command(*words, check=False)


async def _waits(host: Host) -> bool:
    report = await host.report()
    return bool(report["IPAM"]["PendingAllocates"])


async def _lists(host: Host, wanted: str) -> bool:
    return await host.ask_weft("ps") == wanted


async def test_host_ends_are_named_as_old_scripts_expect() -> None:
    async with Lab(1) as lab:
        (host,) = lab.hosts
        await host.start_weft("--ipalloc-init", "consensus=1", "--legacy-veth-names", peers=[])
        await lab.new_guest(host, "0123456789abcdef").attach()
        assert "vethwepl0123456" in host.ports()
