"""Whole nodes, from bridge and name to packet filter.

Source of truth: node specification 13, rows 120, 130, 135, 191, 330, 390, in the tests' names.
"""

from __future__ import annotations

from functools import partial

import pytest

from lab.host import BRIDGE, Host
from lab.lab import Lab
from tests.netns.addresses import (
    PATIENCE_S,
    RANGE,
    allocate,
    attach_all,
    clean,
    host_reaches,
    kill,
    owned,
    report,
    seeds,
    shares,
    until_all_reach,
    until_one_ring,
)
from tests.netns.support import has_interface, netns, until

pytestmark = [*netns(180), pytest.mark.patient]

ALONE = (*RANGE, "--ipalloc-init", "consensus=1")
#: Within which the original has its rules again.
RULES_BACK_S = 12.0


async def test_120_addresses_are_divided_along_a_line_without_discovery() -> None:
    async with Lab(3, "line", containers=0) as lab:
        first, middle, last = lab.hosts
        options = (*RANGE, "--ipalloc-init", "consensus=3")
        await lab.start_weft(*options, mesh=True, connect_timeout_s=None)
        guests = await attach_all(lab)
        whole = await until_one_ring(lab.hosts)
        assert {peer for _, peer in whole} <= {host.peer_name for host in lab.hosts}
        await until_all_reach(guests)
        assert await middle.stop_weft() == 0

        async def cut() -> bool:
            return not (await guests[0].ping(guests[2], count=1, wait_s=0.5)).ok

        await until(cut, "the ends are cut off", PATIENCE_S)
        # what is one's own can still be given out
        given = [await allocate(host, "more") for host in (first, last) if await _owns(host)]
        assert len(set(given)) == len(given)


async def _owns(host: Host) -> bool:
    return (await shares(host)).get(host.peer_name, 0) > 2


async def _rules(host: Host) -> str:
    return (await host.run("nft", "list", "table", "ip", BRIDGE, check=False)).stdout


async def _same_rules(host: Host, rules: str) -> bool:
    return await _rules(host) == rules


async def test_130_135_191_exposed_meddled_with_and_killed() -> None:
    async with Lab(2, containers=0) as lab:
        host, outside = lab.hosts
        host.sysctl({"net/ipv4/ip_forward": 1})
        await host.start_weft(*ALONE, peers=[])
        guests = [lab.new_guest(host, f"g{number}") for number in (1, 2)]
        for guest in guests:
            await guest.attach()
        await until_all_reach(guests)
        inside = guests[0].ipv4
        outside.ip(f"route add 10.32.0.0/16 via {host.address}")
        assert not await host_reaches(host, inside)
        assert not await host_reaches(outside, inside)
        (gateway,) = await host.expose()
        assert await host.expose() == [gateway]
        guests[0].ip(f"route add default via {gateway}")
        for each in (host, outside):
            await until(partial(host_reaches, each, inside), f"{each.name} reaches it", PATIENCE_S)
        await until_all_reach(guests)
        rules = await _rules(host)
        assert "masquerade fully-random" in rules

        # 135
        for damage in (("delete", "table", "ip", BRIDGE), ("flush", "ruleset")):
            await host.run("nft", *damage)
            await until(partial(_same_rules, host, rules), "the rules are back", RULES_BACK_S)
        await until(partial(host_reaches, outside, inside), "as before", PATIENCE_S)

        # 191
        await kill(host)
        host.ip(f"link set {BRIDGE} down")
        await host.run("nft", "delete", "table", "ip", BRIDGE)
        await host.start_weft(*ALONE, peers=[])
        assert await _rules(host) == rules
        assert "vethwe-bridge" in host.ports()
        for each in (host, outside):
            await until(partial(host_reaches, each, inside), f"{each.name} reaches it", PATIENCE_S)
        await until_all_reach(guests)

        # 191, with the bridge gone: containers are put back, by whoever attached them
        await kill(host)
        host.ip(f"link del {BRIDGE}")
        await host.start_weft(*ALONE, peers=[])
        await until(partial(host_reaches, host, inside), "the host reaches it", PATIENCE_S)
        await until_all_reach(guests)
        assert await host.hide() == [gateway]
        assert await host.hide() == []
        assert not await host_reaches(host, inside)
        await until_all_reach(guests)
        assert "masquerade fully-random" not in await _rules(host)
        assert clean(await host.audit())


async def _reset(host: Host) -> None:
    """``weft reset``, which ends the node, too."""
    await host.weft_command(
        *("reset", "--db-prefix", host.state_prefix, "--weave-bridge", BRIDGE),
        *("--control-socket", host.control_socket, "--http-addr", host.http_socket),
    )
    assert host.weft is not None
    assert await host.weft.wait(10.0) == 0
    host.weft.close()
    host.weft = None
    assert not has_interface(host, BRIDGE)
    assert BRIDGE not in (await host.run("nft", "list", "ruleset")).stdout


async def test_330_both_nodes_reset_one_after_the_other() -> None:
    async with Lab(2, containers=0) as lab:
        first, second = lab.hosts
        options = (*RANGE, *seeds(lab.hosts))
        await lab.start_weft(*options, mesh=True, connect_timeout_s=None)
        await until_one_ring(lab.hosts)
        given = []
        for host, other in ((first, second), (second, first)):
            given.append(await allocate(host, f"before {host.name}"))
            await _reset(host)
            # all of it is the other's
            await until(partial(_has_all, other), "the heir has it", PATIENCE_S)
            await host.start_weft(*options, peers=[other.address])
            await until_one_ring(lab.hosts)
            given.append(await allocate(host, f"after {host.name}"))
            assert await owned(host) == {f"after {host.name}": [given[-1]]}
        guests = await attach_all(lab)
        await until_all_reach(guests)
        assert sum((await shares(first)).values()) == 1 << 16
        assert len({*given[1::2], *(f"{guest.ipv4}/16" for guest in guests)}) == 4
        for host in lab.hosts:
            assert clean(await host.audit())


async def _has_all(host: Host) -> bool:
    return await shares(host) == {host.peer_name: 1 << 16}


async def test_390_the_name_of_the_bridge_the_remembered_and_a_new_one() -> None:
    async with Lab(1, containers=0) as lab:
        host = lab.hosts[0]
        argv = host.launch_argv(peers=[])
        at = argv.index("--name")
        del argv[at : at + 2]
        host.launch_argv = lambda **_: argv  # type: ignore[method-assign]

        async def name() -> str:
            await host.start_weft(*ALONE)
            return str((await report(host))["Router"]["Name"])

        mac = "ce:12:34:56:78:9a"
        host.ip(f"link add {BRIDGE} address {mac} type bridge")
        assert await name() == mac
        await host.stop_weft()
        host.ip(f"link del {BRIDGE}")
        assert await name() == mac
        assert host.read(f"/sys/class/net/{BRIDGE}/address") == mac
        await _reset(host)
        fresh = await name()
        assert fresh != mac
        assert host.read(f"/sys/class/net/{BRIDGE}/address") == fresh
