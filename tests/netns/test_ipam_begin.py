"""How the range is first divided, by whole nodes.

Source of truth: node specification 13, rows 340, 350, 380; ipam specification 5, 20.1.
"""

from __future__ import annotations

from functools import partial

import anyio
import pytest

from lab.guest import Guest
from lab.host import Host
from lab.lab import Lab
from tests.netns.addresses import (
    PATIENCE_S,
    RANGE,
    allocate,
    attach_all,
    client,
    host_reaches,
    ring,
    seeds,
    status,
    until_all_reach,
    until_one_ring,
)
from tests.netns.support import netns, until

pytestmark = [*netns(150), pytest.mark.patient]


async def test_three_nodes_by_consensus() -> None:
    async with Lab(3, containers=0) as lab:
        options = (*RANGE, "--ipalloc-init", "consensus=3")
        await lab.start_weft(*options, mesh=True, connect_timeout_s=None)
        guests = await attach_all(lab)
        assert len({guest.ipv4 for guest in guests}) == 3
        owners = {peer for _, peer in await until_one_ring(lab.hosts)}
        assert owners <= {host.peer_name for host in lab.hosts}
        await until_all_reach(guests)


async def test_380_by_seed_before_they_meet_and_with_another_name() -> None:
    async with Lab(3, containers=0) as lab:
        options = (*RANGE, *seeds(lab.hosts))
        for host in lab.hosts:
            await host.start_weft(*options, peers=[])
        guests = await attach_all(lab)
        first, second, third = lab.hosts
        await second.connect(first.address)
        await third.connect(first.address)
        whole = await until_one_ring(lab.hosts)
        assert {peer for _, peer in whole} == {host.peer_name for host in lab.hosts}
        await until_all_reach(guests)

        # with another name it is somebody else, whom nothing of the old one belongs to
        old = third.peer_name
        await third.stop_weft()
        third.ip("link del weave")
        third.peer_name = "ce:33:00:00:00:33"
        await third.start_weft(*options, peers=[first.address])
        assert third.weft is not None
        assert f"stored allocations are those of peer {old}" in third.weft.stderr()
        assert (third.peer_name, old) not in [(peer, old) for _, peer in await ring(third)]
        given = await allocate(third, "new")
        assert given.partition("/")[0] not in {guest.ipv4 for guest in guests}
        assert third.peer_name in {peer for _, peer in await until_one_ring(lab.hosts)}


async def test_340_350_an_observer_has_no_vote_and_may_ask_for_one() -> None:
    async with Lab(3, containers=0) as lab:
        first, second, observer = lab.hosts
        consensus = (*RANGE, "--ipalloc-init", "consensus=2")
        await first.start_weft(*consensus, peers=[])
        await observer.start_weft(*RANGE, "--ipalloc-init", "observer", peers=[first.address])
        guest = lab.new_guest(observer, "g3")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(guest.attach)
            await until(
                partial(_says, first, "awaiting consensus (quorum: 2, known: 1)"),
                "asked to elect",
                PATIENCE_S,
            )
            assert " Status: priming" in await status(observer)
            assert await ring(observer) == []
            await second.start_weft(*consensus, peers=[first.address])
        assert guest.addresses() == [f"{guest.ipv4}/16"]
        whole = await until_one_ring(lab.hosts)
        # what the observer owns it was given
        assert {peer for _, peer in whole} >= {first.peer_name, second.peer_name}


async def _says(host: Host, text: str) -> bool:
    return text in await status(host)


async def test_two_nodes_as_kubernetes_starts_them() -> None:
    """Its script counts the peers without the node itself: nobody may begin alone by that."""
    async with Lab(2, containers=0) as lab:
        first, second = lab.hosts
        options = (*RANGE, "--ipalloc-init", "consensus=1")
        guests = [lab.new_guest(host, f"g{host.index}") for host in lab.hosts]

        async def begin(host: Host, other: Host, guest: Guest) -> None:
            await host.start_weft(*options, peers=[other.address])
            await guest.attach()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(begin, first, second, guests[0])
            tasks.start_soon(begin, second, first, guests[1])
        await until_one_ring(lab.hosts)
        assert len({guest.ipv4 for guest in guests}) == 2
        await until_all_reach(guests)
        assert "seeded by different peers" not in await status(first, "connections")


async def test_expose_at_once_everywhere() -> None:
    async with Lab(4, containers=0) as lab:
        await lab.start_weft(
            *RANGE, "--ipalloc-init", "consensus=4", mesh=True, connect_timeout_s=None
        )
        exposed: dict[Host, list[str]] = {}

        async def expose(host: Host) -> None:
            exposed[host] = await host.expose()

        async with anyio.create_task_group() as tasks:
            for host in lab.hosts:
                tasks.start_soon(expose, host)
        addresses = [address for found in exposed.values() for address in found]
        assert len(set(addresses)) == len(addresses) == 4
        for host in lab.hosts:
            for address in addresses:
                await until(partial(host_reaches, host, address), f"{host.name} {address}", 30.0)
            assert await host.expose() == exposed[host]
        await until_one_ring(lab.hosts)


async def test_prime_waits_for_the_ring() -> None:
    async with Lab(2, containers=0) as lab:
        first, second = lab.hosts
        options = (*RANGE, "--ipalloc-init", "consensus=2")
        await first.start_weft(*options, peers=[])
        async with client(first) as asking:
            answer = await asking.get("/ring", params={"timeout": "0.2"})
            assert answer.status_code == 503
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(first.weft_command, "prime", "--http-addr", first.http_socket))
            await second.start_weft(*options, peers=[first.address])
        assert await ring(first)
