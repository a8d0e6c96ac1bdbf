"""Nodes that die, parts that lose each other, state that is lost: no address is given twice.

Source of truth: node specification 13, rows 320, 335; ipam specification 9, 11.
"""

from __future__ import annotations

import json
import os
import signal
from functools import partial

import anyio
import httpx
import pytest

from lab.host import Host
from lab.lab import Lab
from tests.netns.addresses import (
    PATIENCE_S,
    RANGE,
    allocate,
    allocate_many,
    ask,
    attach_all,
    clean,
    client,
    kill,
    owned,
    seeds,
    shares,
    status,
    until_all_reach,
    until_one_ring,
)
from tests.netns.support import netns, until

pytestmark = [*netns(180), pytest.mark.patient]

#: Promised for what a dead node owned to be somebody else's everywhere.
TAKE_OVER_S = 5.0


async def test_a_node_killed_among_a_thousand_allocations() -> None:
    async with Lab(2, containers=0) as lab:
        first, second = lab.hosts
        options = (*RANGE, *seeds(lab.hosts))
        await lab.start_weft(*options, mesh=True, connect_timeout_s=None)
        idents = [f"c{number}" for number in range(1000)]
        promised = await _until_killed(first, idents, 300)
        assert 300 <= len(promised) < 1000
        elsewhere = await allocate_many(second, [f"d{number}" for number in range(100)])
        await first.start_weft(*options, peers=[second.address])
        everybody = await allocate_many(first, idents)
        assert {ident: everybody[ident] for ident in promised} == promised
        assert await owned(first) == {ident: [address] for ident, address in everybody.items()}
        addresses = [*everybody.values(), *elsewhere.values()]
        assert len(set(addresses)) == len(addresses) == 1100
        await until_one_ring(lab.hosts)


async def _until_killed(host: Host, idents: list[str], after: int) -> dict[str, str]:
    """What was promised by a node that is killed once ``after`` clients have their answers."""
    given: dict[str, str] = {}
    limit = anyio.CapacityLimiter(64)
    (control,) = host.pids("control")

    async def one(asking: httpx.AsyncClient, ident: str) -> None:
        async with limit:
            try:
                answer = await asking.post(f"/ip/{ident}")
            except httpx.HTTPError:
                return  # nothing was promised
        assert answer.status_code == 200, answer.text
        given[ident] = answer.text
        if len(given) == after:
            os.kill(control, signal.SIGKILL)

    async with client(host) as asking, anyio.create_task_group() as tasks:
        for ident in idents:
            tasks.start_soon(one, asking, ident)
    await kill(host)
    return given


async def test_335_what_a_dead_node_owned_is_free_on_all_soon() -> None:
    async with Lab(3, containers=0) as lab:
        first, second, third = lab.hosts
        options = ("--ipalloc-range", "10.32.0.0/24", *seeds(lab.hosts))
        await lab.start_weft(*options, mesh=True, connect_timeout_s=None)
        await until_one_ring(lab.hosts)
        for host in lab.hosts:  # with seeds there is a ring before anybody has met
            await host.wait_established(2, PATIENCE_S)
        dead = third.peer_name
        lost = (await shares(first))[dead]
        assert lost > 0
        await allocate_many(third, [f"c{number}" for number in range(10)])
        await kill(third)
        for host in (first, second):
            await until(partial(_unreachable, host), "its absence", PATIENCE_S, poll_s=0.2)
        said = await first.ask_weft("rmpeer", third.name)
        assert said == f"{lost} IPs taken over from {third.name}\n"
        for host in (first, second):
            waited = await until(partial(_without, host, dead), "nothing is its", TAKE_OVER_S)
            print(f"{host.name}: {waited:.2f} s after the command")
        # all of it can be given out
        async with anyio.create_task_group() as tasks:
            for host in (first, second):
                idents = [f"{host.name}-{number}" for number in range(127)]
                tasks.start_soon(allocate_many, host, idents)
        given = [each for host in (first, second) for each in (await owned(host)).values()]
        assert len({address for each in given for address in each}) == 254


async def _unreachable(host: Host) -> bool:
    return "unreachable!" in await status(host, "ipam")


async def _without(host: Host, peer: str) -> bool:
    return peer not in await shares(host)


async def test_allocations_on_both_sides_of_a_partition() -> None:
    async with Lab(4, containers=0) as lab:
        options = ("--ipalloc-range", "10.32.0.0/24", *seeds(lab.hosts))
        await lab.start_weft(*options, mesh=True, connect_timeout_s=None)
        await until_one_ring(lab.hosts)
        lab.split(lab.hosts[:2], lab.hosts[2:])
        # more than its own quarter for one on either side: the neighbour gives, or after healing
        # somebody else
        given: dict[str, dict[str, str]] = {}

        async def crowd(host: Host, count: int) -> None:
            idents = [f"{host.name}-{number}" for number in range(count)]
            given[host.name] = await allocate_many(host, idents)

        async with anyio.create_task_group() as tasks:
            for host, count in zip(lab.hosts, (75, 30, 75, 30), strict=True):
                tasks.start_soon(crowd, host, count)

            async def enough() -> bool:
                return all([len(await owned(host)) >= 30 for host in lab.hosts])

            await until(enough, "both sides give out", PATIENCE_S, poll_s=0.2)
            lab.heal()
        addresses = [address for each in given.values() for address in each.values()]
        assert len(set(addresses)) == len(addresses) == 210
        await until_one_ring(lab.hosts)
        for host in lab.hosts:
            known = {ident: [address] for ident, address in given[host.name].items()}
            assert await owned(host) == known
        assert sum((await shares(lab.hosts[0])).values()) == 256


async def test_320_state_deleted_under_a_running_container() -> None:
    """One node loses its state: the others know the ring, and the interface the address."""
    async with Lab(2, containers=0) as lab:
        first, second = lab.hosts
        options = ("--ipalloc-range", "10.32.0.0/27", *seeds(lab.hosts))
        await lab.start_weft(*options, mesh=True, connect_timeout_s=None)
        guests = await attach_all(lab)
        await until_one_ring(lab.hosts)
        await kill(first)
        await first.run("sh", "-c", f"rm {first.state_prefix}data.db*")
        await first.start_weft(*options, peers=[second.address])
        kept = guests[0].ipv4
        assert guests[0].addresses() == [f"{kept}/27"]
        await until_one_ring(lab.hosts)
        assert (await owned(first))[guests[0].name] == [f"{kept}/27"]
        # all others can be had, on both, and that one not
        given = [await allocate(host, f"{host.name}-{n}") for host in lab.hosts for n in range(14)]
        assert f"{kept}/27" not in given
        assert len(set(given)) == 28
        await until_all_reach(guests)
        assert clean(await first.audit())
        assert await guests[0].detach() == [kept]
        assert await allocate(second, "at last") == f"{kept}/27"


async def test_320_state_deleted_everywhere() -> None:
    """Allocation waits for a ring, addresses outside the range do not; nothing in use is lost."""
    async with Lab(2, containers=0) as lab:
        first, second = lab.hosts
        options = ("--ipalloc-range", "10.32.0.0/27", "--ipalloc-init", "consensus=2")
        await lab.start_weft(*options, mesh=True, connect_timeout_s=None)
        guests = await attach_all(lab)
        for host in lab.hosts:
            await kill(host)
            await host.run("sh", "-c", f"rm {host.state_prefix}data.db*")
        await first.start_weft(*options, peers=[second.address])
        late = lab.new_guest(first, "late")
        answer = await ask(
            first, "POST", "/attach/late", content=json.dumps({"pid": late.pid, "timeout_s": 1.0})
        )
        assert answer.status_code == 503, answer.text
        assert late.addresses() == []
        assert await late.attach("192.168.7.1/24") == ["192.168.7.1"]
        assert guests[0].addresses() == [f"{guests[0].ipv4}/27"]
        await second.start_weft(*options, peers=[first.address])
        assert len(await late.attach("net:default")) == 1
        await until_one_ring(lab.hosts)
        for guest in guests:
            await until(
                partial(_holds, guest.host, guest.name, f"{guest.ipv4}/27"), "claimed", PATIENCE_S
            )
        given = [await allocate(host, f"{host.name}-{n}") for host in lab.hosts for n in range(13)]
        assert not {f"{guest.ipv4}/27" for guest in guests} & set(given)
        assert len(set(given)) == 26
        await until_all_reach(guests)


async def _holds(host: Host, ident: str, address: str) -> bool:
    pending = await status(host, "ipam")
    return (await owned(host)).get(ident) == [address] and bool(pending)
