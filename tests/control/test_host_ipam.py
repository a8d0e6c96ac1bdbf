"""The host's side with the real allocator and its state file: what the two have to agree on."""

from __future__ import annotations

import random
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Interface, IPv4Network

import anyio
import pytest

from base.errors import ClaimConflictError, OutOfBoundsError
from base.names import PeerName
from control.addresses import EXPOSE_IDENT
from control.host.address_spec import parse_specs
from control.host.service import HostService, HostSettings
from control.ipam_addresses import IpamAddresses
from control.ipam_service import IpamService
from control.ipam_settings import parse_ipam
from control.ipam_store import IpamStore
from control.state import StateStore
from tests.control.netns_host import in_netns, sh, until

NAME = PeerName.parse("ce:01:00:00:00:01")
BRIDGE = "ip link add weave type bridge; ip link set weave up"


@asynccontextmanager
async def node(folder: str, init: str = f"seed={NAME}") -> AsyncIterator[Node]:
    settings = parse_ipam("10.32.0.0/16", "", init)
    assert settings is not None
    with StateStore.open(f"{folder}/weft-") as state:
        ipam = IpamService(
            settings.options(NAME, "host1", 1), IpamStore(state), (), rng=random.Random(1)
        )
        addresses = IpamAddresses(ipam)
        host = HostService(HostSettings(), addresses)
        async with anyio.create_task_group() as tasks:
            await tasks.start(ipam.run)
            await tasks.start(host.run)
            yield Node(host, addresses)
            tasks.cancel_scope.cancel()


class Node:
    def __init__(self, host: HostService, addresses: IpamAddresses) -> None:
        self.host = host
        self.addresses = addresses

    async def expose(self, *specs: str) -> list[str]:
        return [str(each) for each in await self.host.expose(parse_specs(list(specs)))]

    async def hide(self, *specs: str) -> list[str]:
        return [str(each) for each in await self.host.hide(parse_specs(list(specs)))]

    async def held(self) -> list[str]:
        found = await self.addresses.lookup(EXPOSE_IDENT, IPv4Network("0.0.0.0/0"))
        return sorted(str(each) for each in found)


def on_bridge() -> list[str]:
    return sorted(line.split()[3] for line in sh("ip -o -4 addr show dev weave").splitlines())


@in_netns
async def test_the_gateway_stays_over_restarts_and_the_loss_of_the_bridge() -> None:
    sh(BRIDGE)
    with tempfile.TemporaryDirectory() as folder:
        async with node(folder) as it:
            assert await it.expose() == ["10.32.0.1/16"]
            assert str(await it.addresses.allocate("c1")) == "10.32.0.2/16"
        sh(f"ip link delete weave; {BRIDGE}")
        async with node(folder) as it:
            await until(lambda: on_bridge() == ["10.32.0.1/16"], "put back")
            assert await it.expose() == ["10.32.0.1/16"]
            assert await it.hide() == ["10.32.0.1/16"]
            assert (await it.held(), on_bridge()) == ([], [])
            # not at once what was given back: somebody may still know its MAC
            assert await it.expose() == ["10.32.0.3/16"]


@in_netns
async def test_a_subnet_of_the_default_one_is_exposed_beside_it() -> None:
    """The allocator gives one address for both, and records it once."""
    sh(BRIDGE)
    inner, both = "net:10.32.5.0/24", ["10.32.5.1/16", "10.32.5.1/24"]
    with tempfile.TemporaryDirectory() as folder:
        async with node(folder) as it:
            assert await it.expose(inner) == ["10.32.5.1/24"]
            assert await it.expose(inner, "net:default") == both[::-1]
            assert (on_bridge(), await it.held()) == (both, ["10.32.5.1/24"])
        async with node(folder) as it:
            await until(lambda: len(it.host.exposed) == 2, "put back")
            assert await it.hide(inner) == ["10.32.5.1/24"]
            assert (on_bridge(), await it.held()) == (both[:1], ["10.32.5.1/24"])
            assert await it.expose(inner) == both[1:]
            assert await it.hide("net:default") == both
            assert (on_bridge(), await it.held()) == ([], [])


@in_netns
async def test_what_is_on_the_bridge_and_free_is_recorded() -> None:
    sh(f"{BRIDGE}; ip addr add 10.32.9.9/16 dev weave; ip addr add 10.2.0.1/16 dev weave")
    with tempfile.TemporaryDirectory() as folder:
        async with node(folder) as it:
            await until(lambda: len(it.host.exposed) == 2, "adopted")
            with anyio.fail_after(20):
                while await it.held() != ["10.2.0.1/16", "10.32.9.9/16"]:  # noqa: ASYNC110
                    await anyio.sleep(0.02)
            with pytest.raises(ClaimConflictError):
                await it.addresses.claim("c1", IPv4Interface("10.32.9.9/16"))


@in_netns
async def test_what_is_a_containers_leaves_the_bridge() -> None:
    sh(BRIDGE)
    with tempfile.TemporaryDirectory() as folder:
        async with node(folder) as it:
            await it.addresses.claim("c1", IPv4Interface("10.32.0.7/16"))
        sh("ip addr add 10.32.0.7/16 dev weave")
        async with node(folder) as it:
            await until(lambda: on_bridge() == [], "taken off")
            assert await it.held() == []


@in_netns
async def test_without_consensus() -> None:
    """Row 510: what needs no new address does not wait."""
    sh(BRIDGE)
    with tempfile.TemporaryDirectory() as folder:
        async with node(folder, "observer") as it:
            assert await it.expose("10.2.0.1/16") == ["10.2.0.1/16"]
            assert await it.hide("10.2.0.1/16", "net:default") == ["10.2.0.1/16"]
            assert on_bridge() == []
            with anyio.move_on_after(0.1) as scope:
                await it.expose()
            assert scope.cancelled_caught
            assert (await it.held(), on_bridge()) == ([], [])


@in_netns
async def test_outside_of_the_range() -> None:
    sh(BRIDGE)
    with tempfile.TemporaryDirectory() as folder:
        async with node(folder) as it:
            with pytest.raises(OutOfBoundsError):
                await it.expose("net:10.99.0.0/24")
            assert on_bridge() == []
