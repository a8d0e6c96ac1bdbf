"""The service over a real state file: what is promised is kept, what fails changes nothing."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from base.errors import (
    AllocationError,
    ClaimConflictError,
    ConfigError,
    NoAddressError,
    NotHeldError,
    NotStoredError,
    OutOfBoundsError,
    RequestCancelledError,
)
from base.names import PeerName
from control.addresses import Addresses
from control.ipam_addresses import IpamAddresses
from control.ipam_service import IDENT_LEN_MAX, IpamService
from control.ipam_settings import parse_ipam
from control.ipam_store import IpamStore
from control.state import StateStore
from ipam.address import Cidr
from ipam.store import Holding

pytestmark = pytest.mark.anyio

NAME = PeerName.parse("ce:01:00:00:00:01")


@asynccontextmanager
async def serving(
    folder: Path,
    universe: str = "10.32.0.0/16",
    init: str = f"seed={NAME}",
    name: PeerName = NAME,
    in_use: tuple[Holding, ...] = (),
) -> AsyncIterator[tuple[IpamService, StateStore]]:
    settings = parse_ipam(universe, "", init)
    assert settings is not None
    with StateStore.open(f"{folder}/weft-") as state:
        service = IpamService(
            settings.options(name, "host1", 1), IpamStore(state), in_use, rng=random.Random(1)
        )
        async with anyio.create_task_group() as tasks:
            await tasks.start(service.run)
            yield service, state
            tasks.cancel_scope.cancel()


def held(service: IpamService) -> dict[str, list[str]]:
    return {ident: [str(cidr) for cidr in cidrs] for ident, cidrs in service.owned()}


async def test_what_was_given_is_given_again_after_a_restart(tmp_path: Path) -> None:
    async with serving(tmp_path) as (service, _):
        first = await service.allocate("c1")
        assert await service.allocate("c1") == first
        second = await service.allocate("c2", Cidr.parse("10.32.7.0/24"), is_container=True)
        await service.claim("c3", Cidr.parse("192.168.9.9/24"))
        before = held(service)
    assert (str(first), str(second)) == ("10.32.0.1/16", "10.32.7.1/24")
    async with serving(tmp_path) as (service, _):
        assert held(service) == before
        assert await service.allocate("c1") == first
        assert await service.lookup("c1") == (first,)
        await service.delete("c1")
        with pytest.raises(NotHeldError, match="Delete: no addresses for c1"):
            await service.delete("c1")
        with pytest.raises(ClaimConflictError):
            await service.claim("c9", Cidr.parse("10.32.7.1/16"))
    async with serving(tmp_path) as (service, _):
        assert "c1" not in held(service)


async def test_a_crowd_shares_commits(tmp_path: Path) -> None:
    async with serving(tmp_path) as (service, state):
        before = service.commits
        found: list[Cidr] = []

        async def ask(number: int) -> None:
            found.append(await service.allocate(f"c{number}"))

        async with anyio.create_task_group() as tasks:
            for number in range(200):
                tasks.start_soon(ask, number)
        assert len(set(found)) == 200
        assert service.commits - before <= 20
        assert state.rows("SELECT count(*) FROM ipam_owned") == [(200,)]


async def test_who_leaves_gets_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path, init="observer") as (service, _):
        for _ in range(3):
            with anyio.move_on_after(0.02):
                await service.allocate("c1")
        with anyio.move_on_after(0.02):
            await service.claim("c2", Cidr.parse("10.32.0.9/16"))
        assert service.view().status.pending_allocates == ()
        assert service.view().status.pending_claims == ()
        assert held(service) == {}


async def test_who_leaves_in_the_moment_of_the_answer_gets_it(tmp_path: Path) -> None:
    """Else nobody would know what to give back."""
    async with serving(tmp_path) as (service, _):
        scopes: list[anyio.CancelScope] = []
        release = service._release

        def leave_and_release() -> None:
            for scope in scopes:
                scope.cancel()
            release()

        service._release = leave_and_release  # type: ignore[method-assign]
        got: list[Cidr] = []
        went_on = False
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            got.append(await service.allocate("c1"))
            await anyio.lowlevel.checkpoint()
            went_on = True
        assert not went_on, "it is cancelled all the same"
        assert held(service) == {"c1": [str(each) for each in got]}


async def test_a_limit_of_time(tmp_path: Path) -> None:
    async with serving(tmp_path, init="observer") as (service, _):
        with pytest.raises(NoAddressError):
            await service.allocate("c1", timeout_s=0.02)
        with pytest.raises(NoAddressError):
            await service.prime(0.02)
        assert held(service) == {}


async def test_a_full_disk_is_told_and_the_service_goes_on(tmp_path: Path) -> None:
    async with serving(tmp_path) as (service, state):
        first = await service.allocate("c1")
        with state.change() as connection:
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            connection.execute(f"PRAGMA max_page_count = {pages}")
        long = "x" * (IDENT_LEN_MAX - 4)
        reasons = []
        for number in range(40):
            try:
                await service.allocate(f"{long}{number}")
            except NotStoredError as err:
                reasons.append(str(err))
        failed = len(reasons)
        assert failed
        assert all("disk is full" in reason for reason in reasons)
        assert "disk is full" in (service.view().trouble or "")
        assert service.failures == failed
        assert await service.lookup("c1") == (first,)
        assert await service.allocate("c1") == first
        given = held(service)
        assert len(given) == 1 + 40 - failed
        assert {row[0] for row in state.rows("SELECT ident FROM ipam_owned")} == set(given)
        with state.change() as connection:
            connection.execute("PRAGMA max_page_count = 100000")
        await service.allocate(f"{long}z")
        assert service.view().trouble is None
        promised = held(service)
    async with serving(tmp_path) as (service, _):
        assert held(service) == promised


@pytest.mark.parametrize(
    ("universe", "name"), [("10.40.0.0/16", NAME), ("10.32.0.0/16", PeerName(b"\xce" * 6))]
)
async def test_another_range_or_name_begins_afresh(
    tmp_path: Path, universe: str, name: PeerName, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tmp_path) as (service, _):
        await service.allocate("c1")
    caplog.clear()
    caplog.set_level("INFO", "control.ipam_service")
    async with serving(tmp_path, universe, f"seed={name}", name) as (service, state):
        assert held(service) == {}
        assert state.rows("SELECT * FROM ipam_owned") == []
        found = await service.allocate("c2")
        assert found.addr == service.universe.addr + 1
    assert [record for record in caplog.records if record.name == "control.ipam_service"]
    async with serving(tmp_path, universe, "observer", name) as (service, _):
        assert held(service) == {"c2": [str(found)]}


async def test_what_is_in_use_is_claimed_at_the_start(tmp_path: Path) -> None:
    found = (Holding(Cidr.parse("10.32.0.1/16").addr, 16, "weave:expose", False),)
    async with serving(tmp_path, in_use=found) as (service, _):
        assert str(await service.allocate("c1")) == "10.32.0.2/16"
        assert held(service)["weave:expose"] == ["10.32.0.1/16"]


async def test_ranges_of_ours_are_told_when_they_change(tmp_path: Path) -> None:
    told: list[list[str]] = []
    settings = parse_ipam("10.32.0.0/16", "", "consensus=1")
    assert settings is not None
    with StateStore.open(f"{tmp_path}/weft-") as state:
        service = IpamService(settings.options(NAME, "host1", 1), IpamStore(state))
        service.allocator.set_targets(0, 0.0)
        service.on_ranges = lambda ranges: told.append([str(each) for each in ranges])
        async with anyio.create_task_group() as tasks:
            await tasks.start(service.run)
            await service.prime()
            await service.allocate("c1")
            await service.allocate("c2")
            tasks.cancel_scope.cancel()
    assert told == [[], ["10.32.0.0-10.32.255.255"]]


async def test_shut_down(tmp_path: Path) -> None:
    async with serving(tmp_path, init="observer") as (service, _):

        async def wait() -> None:
            with pytest.raises(RequestCancelledError):
                await service.allocate("c1")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await anyio.lowlevel.checkpoint()
            await service.shutdown()
        with pytest.raises(RequestCancelledError):
            await service.allocate("c2")


@pytest.mark.parametrize("ident", ["", "a\nb", "x" * (IDENT_LEN_MAX + 1), "\udc80", "a\0"])
async def test_identifiers_that_cannot_be_recorded(tmp_path: Path, ident: str) -> None:
    async with serving(tmp_path) as (service, _):
        for ask in (
            lambda: service.allocate(ident),
            lambda: service.claim(ident, Cidr.parse("10.32.0.9/16")),
        ):
            with pytest.raises(AllocationError, match="no identifier"):
                await ask()
        assert held(service) == {}


async def test_the_face_for_the_rest_of_control(tmp_path: Path) -> None:
    async with serving(tmp_path) as (service, _):
        addresses: Addresses = IpamAddresses(service)
        assert addresses.universe == addresses.default_subnet == IPv4Network("10.32.0.0/16")
        subnet = IPv4Network("10.32.8.0/24")
        found = await addresses.allocate("c1", subnet, is_container=True, timeout_s=5)
        assert found == IPv4Interface("10.32.8.1/24")
        await addresses.claim("c1", IPv4Interface("10.32.9.5/16"))
        assert await addresses.lookup("c1") == [found, IPv4Interface("10.32.9.5/16")]
        assert await addresses.lookup("c1", subnet) == [found]
        await addresses.free("c1", IPv4Address("10.32.9.5"))
        with pytest.raises(NotHeldError):
            await addresses.free("c1", IPv4Address("10.32.9.5"))
        with pytest.raises(OutOfBoundsError):
            await addresses.allocate("c1", IPv4Network("10.99.0.0/24"))
        await addresses.delete("c1")
        assert await addresses.lookup("c1") == []


async def test_a_ring_that_contradicts_itself_ends_the_start(tmp_path: Path) -> None:
    async with serving(tmp_path) as (service, state):
        await service.allocate("c1")
    with StateStore.open(f"{tmp_path}/weft-") as state:
        with state.change() as connection:
            connection.execute("UPDATE ipam_ring SET free = 1 << 17")
        settings = parse_ipam("10.32.0.0/16", "", f"seed={NAME}")
        assert settings is not None
        with pytest.raises(ConfigError, match=r"--db-prefix: .* is damaged: .*move it away"):
            IpamService(settings.options(NAME, "host1", 1), IpamStore(state))
