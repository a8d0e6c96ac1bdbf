"""Attachments as the daemon serves them: addresses, records, several at once, and failures."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import anyio
import pytest

from base.errors import AllocationError, ConfigError, NetlinkError, RequestCancelledError
from cni import attach
from cni.attach import Attacher
from cni.errors import NetnsGoneError
from cni.netns import Netns
from cni.requests import Route
from control.attaching import AttachRequest
from control.attachment_store import AttachmentStore
from control.host.address_spec import FromSubnet
from control.host.ports import Port
from control.ipam_addresses import IpamAddresses
from tests.cni.test_attach_failures import Fault
from tests.cni.wires import (
    addresses_in,
    answers,
    ip_json,
    links_here,
    links_in,
    make_bridge,
    new_netns,
    routes_in,
)
from tests.control.attached_node import on_a_host, running, until


@on_a_host
async def test_a_container_gets_an_address(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        with new_netns() as one, new_netns() as other:
            first = await node.attach("c1", one)
            second = await node.attach("c2", other)
            assert [str(each) for each in first.addresses] == ["10.32.1.1/24"]
            assert [str(each) for each in second.addresses] == ["10.32.1.2/24"]
            assert answers(one, "10.32.1.2")
            assert "224.0.0.0/4 dev ethwe scope link" in routes_in(one)
            assert node.store.load() == node.attachments.records == [first, second]
            assert node.attachments.get("c1", "ethwe") == first
            view = node.attachments.view()
            assert (view.attached, view.pending, sum(view.attach.counts)) == (2, 0, 2)
            await node.clean()


@on_a_host
async def test_fixed_default_and_named_subnet(tmp_path: Path) -> None:
    """Node specification 13, rows 100 and 500."""
    async with running(tmp_path) as node:
        with new_netns() as one:
            made = await node.attach(
                "c1", one, "192.168.7.1/24", "net:default", "net:10.32.2.0/24", "ip:10.32.3.3/24"
            )
            texts = ["192.168.7.1/24", "10.32.1.1/24", "10.32.2.1/24", "10.32.3.3/24"]
            assert [str(each) for each in made.addresses] == texts
            assert addresses_in(one) == texts
            assert set(node.owned()["c1"]) == set(texts)
            ((host_ifname, port),) = node.attachments.book.ports().items()
            assert (host_ifname, port.mac) == (made.host_ifname, made.mac)
            assert port.addresses == made.addresses
            await node.clean()


@on_a_host
async def test_without_allocation(tmp_path: Path) -> None:
    async with running(tmp_path, ipam=False) as node:
        with new_netns() as one:
            with pytest.raises(ConfigError, match="must be enabled to use 'net:'"):
                await node.attach("c1", one, "10.2.1.1/24", "net:10.2.2.0/24")
            assert links_in(one) == {"lo"}
            await node.attach("c1", one, "10.2.1.1/24", "ip:10.2.2.1/24")
            assert addresses_in(one) == ["10.2.1.1/24", "10.2.2.1/24"]
            with pytest.raises(ConfigError, match="must be enabled"):
                await node.detach("c1", "net:default")
            assert await node.detach("c1") == ["10.2.1.1/24", "10.2.2.1/24"]
            assert links_in(one) == {"lo"}
            await node.clean()


@on_a_host
async def test_attached_again_is_the_same_and_adds(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        with new_netns() as one:
            first = await node.attach("c1", one)
            assert (await node.attach("c1", one)).addresses == first.addresses
            more = await node.attach("c1", one, "net:10.32.2.0/24")
            assert [str(each) for each in more.addresses] == ["10.32.1.1/24", "10.32.2.1/24"]
            assert more.made_at_s == first.made_at_s
            assert addresses_in(one) == ["10.32.1.1/24", "10.32.2.1/24"]
            assert node.store.load() == [more]
            await node.clean()


@on_a_host
async def test_adding_by_hand_leaves_what_the_runtime_said(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        with new_netns() as one:
            route = Route(IPv4Network("10.9.0.0/16"), IPv4Address("10.32.1.254"))
            request = AttachRequest(
                "c1",
                one,
                addresses=(FromSubnet(None),),
                routes=(route,),
                network="pods",
                label="shop/app-1",
                memo="{}",
            )
            made = await node.attachments.attach(request)
            more = await node.attach("c1", one, "net:10.32.2.0/24")
            assert replace(more, addresses=made.addresses) == made
            assert more.routes == (route,)
            (link,) = ip_json("link", "show", made.host_ifname)
            assert link["ifalias"] == "c1 ethwe shop/app-1"
            await node.clean()


@on_a_host
async def test_a_container_started_again_has_its_address_back(tmp_path: Path) -> None:
    """Node specification 13, row 310; addresses that it does not ask for again are released."""
    async with running(tmp_path) as node:
        with new_netns() as before:
            await node.attach("c1", before, "net:default", "net:10.32.2.0/24")
        with new_netns() as after:
            made = await node.attach("c1", after)
            assert addresses_in(after) == ["10.32.1.1/24"]
            assert made.netns_id == after.ident
            assert node.owned() == {"c1": ["10.32.1.1/24"]}
            await node.clean()


@on_a_host
async def test_a_move_that_fails_leaves_the_container_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        if links_in(other) != {"lo"}:  # the old pair is gone, the new one is there
            raise NetlinkError("test", "sysctl", "injected")

    async with running(tmp_path) as node:
        with new_netns() as one, new_netns() as other:
            path = f"/proc/self/fd/{one.fileno()}"
            with Netns.open(path) as named:
                before = await node.attach("c1", named, "net:default", "net:10.32.2.0/24")
            routes, addresses = routes_in(one), addresses_in(one)
            with monkeypatch.context() as broken:
                broken.setattr(attach, "guard_host_end", refuse)
                with pytest.raises(NetlinkError, match="injected"):
                    await node.attach("c1", other, "net:10.32.3.0/24")
            assert links_in(other) == {"lo"}
            assert (routes_in(one), addresses_in(one)) == (routes, addresses)
            (link,) = one.run(lambda: ip_json("link", "show", "ethwe"))
            assert link["address"] == before.mac
            assert node.attachments.records == node.store.load() == [before]
            assert set(node.owned()["c1"]) == set(addresses)
            await node.clean()


@on_a_host
async def test_what_cannot_be_released_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container that is started again has what it asks for, though the disk is full."""

    async def refuse(*_: object) -> None:
        raise AllocationError("disk full")

    wide = ("net:default", "net:10.32.2.0/24")
    with new_netns() as one, new_netns() as other:
        async with running(tmp_path) as node:
            for container in ("c1", "c2", "c3"):
                await node.attach(container, one, *wide, ifname=f"{container}e")
            before = node.owned()
            with monkeypatch.context() as broken:
                broken.setattr(IpamAddresses, "free", refuse)
                for container in before:
                    made = await node.attach(container, other, ifname=f"{container}e")
                    assert [str(each) for each in made.addresses] == before[container][:1]
            assert node.owned() == before
            await node.attach("c1", other, ifname="c1e")
            assert node.owned()["c1"] == before["c1"][:1]
            await node.detach("c2", ifname="c2e", everything=True)
            assert "c2" not in node.owned()
        async with running(tmp_path) as node:  # what is left is settled at the start
            assert node.owned() == {each: before[each][:1] for each in ("c1", "c3")}
            await node.clean()


@on_a_host
async def test_two_networks_of_one_container(tmp_path: Path) -> None:
    make_bridge("blue")
    async with running(tmp_path) as node:
        with new_netns() as one:
            await node.attach("c1", one, "net:10.32.2.0/24")
            await node.attach("c1", one, "net:10.32.2.0/24", ifname="net1", bridge="blue")
            assert node.owned() == {"c1": ["10.32.2.1/24"], "c1:net1": ["10.32.2.2/24"]}
            assert links_in(one) == {"lo", "ethwe", "net1"}
            await node.clean()
            await node.detach("c1", everything=True)
            assert links_in(one) == {"lo", "net1"}
            assert node.owned() == {"c1:net1": ["10.32.2.2/24"]}
            await node.clean()


@on_a_host
async def test_an_address_has_one_prefix_length(tmp_path: Path) -> None:
    """Else detaching it with one would give it to others while it is used with the other."""
    async with running(tmp_path) as node:
        with new_netns() as one, new_netns() as again:
            await node.attach("c1", one, "net:10.32.2.0/24")
            for specs in (["10.32.2.1/25"], ["10.32.3.3/24", "10.32.3.3/25"]):
                with pytest.raises(ConfigError, match="take that one off first"):
                    await node.attach("c1", one, *specs)
            assert addresses_in(one) == ["10.32.2.1/24"]
            assert node.owned() == {"c1": ["10.32.2.1/24"]}
            # started again: nothing of the old is there
            await node.attach("c1", again, "10.32.2.1/25")
            assert addresses_in(again) == ["10.32.2.1/25"]
            assert list(node.owned()) == ["c1"]
            await node.detach("c1", everything=True)
            assert node.owned() == {}
            await node.clean()


@on_a_host
async def test_nested_subnets_share_an_address(tmp_path: Path) -> None:
    """The original's rule: who has an address in a subnet gets that one. It stays while in use."""
    async with running(tmp_path) as node:
        path = f"/proc/self/fd/{(one := new_netns()).fileno()}"
        with one, Netns.open(path) as named:
            await node.attach("c1", named, "net:10.32.1.128/26", "net:default")
            assert addresses_in(one) == ["10.32.1.129/26", "10.32.1.129/24"]
            await node.clean()
            assert await node.detach("c1") == ["10.32.1.129/24"]
            assert node.owned() == {"c1": ["10.32.1.129/26"]}
            await node.clean()
            assert await node.detach("c1", everything=True) == ["10.32.1.129/26"]
            assert node.owned() == {}
            await node.clean()


@on_a_host
async def test_detach_takes_what_it_is_told(tmp_path: Path) -> None:
    """Node specification 6.2 and 13, row 500."""
    async with running(tmp_path) as node:
        path = f"/proc/self/fd/{(one := new_netns()).fileno()}"
        with one, Netns.open(path) as named:
            specs = ("net:default", "net:10.32.2.0/24", "10.32.3.3/24", "192.168.7.1/24")
            await node.attach("c1", named, *specs)
            assert await node.detach("c1", "net:10.32.9.0/24") == []
            assert await node.detach("c1") == ["10.32.1.1/24"]
            assert await node.detach("c1") == []
            assert addresses_in(one) == ["10.32.2.1/24", "10.32.3.3/24", "192.168.7.1/24"]
            assert await node.detach("c1", "10.32.3.3/24", "net:10.32.2.0/24") == [
                "10.32.2.1/24",
                "10.32.3.3/24",
            ]
            assert node.owned() == {"c1": ["192.168.7.1/24"]}
            await node.clean()
            assert await node.detach("c1", "ip:192.168.7.1/24") == ["192.168.7.1/24"]
            assert links_in(one) == {"lo"}
            assert node.store.load() == []
            await node.clean()


@on_a_host
async def test_detach_after_the_namespace(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        with new_netns() as one:
            await node.attach("c1", one, "net:default", "net:10.32.2.0/24")
        # its interface may outlive it for a moment; either way
        assert len(await node.detach("c1", everything=True)) == 2
        assert await node.detach("c1", everything=True) == []
        assert node.owned() == {}
        await node.clean()


@on_a_host
async def test_some_addresses_of_a_namespace_that_has_no_path_any_more(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        with new_netns(path="/run/no/such/path") as one:
            await node.attach("c1", one, "net:default", "net:10.32.2.0/24")
            with pytest.raises(NetnsGoneError):
                await node.detach("c1")
            assert addresses_in(one) == ["10.32.1.1/24", "10.32.2.1/24"]
            assert [str(each) for each in node.attachments.records[0].addresses] == addresses_in(
                one
            )
            gone = await node.attachments.detach("c1", "ethwe", netns=one)
            assert [str(each) for each in gone] == ["10.32.1.1/24"]
            await node.clean()


@on_a_host
async def test_detach_never_waits_for_consensus(tmp_path: Path) -> None:
    """Node specification 13, rows 510 and 320; who waits for an address is told."""
    async with running(tmp_path, init="observer") as node:
        with new_netns() as one, new_netns() as other:
            await node.attach("plain", other, "192.168.7.1/24")  # outside the range
            told: list[BaseException] = []

            async def wait() -> None:
                with pytest.raises(RequestCancelledError, match="detached meanwhile") as caught:
                    await node.attach("c1", one, timeout_s=None)
                told.append(caught.value)

            with anyio.fail_after(60):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(wait)
                    await until(lambda: ("c1", "ethwe") in node.attachments.book.waiting)
                    assert await node.detach("c1", everything=True) == []
                assert told
                await node.detach("plain", "192.168.7.1/24")
            assert node.store.load() == []
            assert links_in(one) == {"lo"}


@on_a_host
async def test_no_address_in_time_leaves_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, init="observer") as node:
        with new_netns() as one:
            with pytest.raises(AllocationError):
                await node.attach("c1", one, timeout_s=0.05)
            assert node.store.load() == []
            assert node.attachments.records == []
            await node.clean()


@on_a_host
async def test_an_address_of_another(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        with new_netns() as one, new_netns() as other:
            await node.attach("c1", one, "10.32.1.7/24")
            with pytest.raises(AllocationError):
                await node.attach("c2", other, "net:10.32.2.0/24", "10.32.1.7/24")
            assert links_in(other) == {"lo"}
            assert node.owned() == {"c1": ["10.32.1.7/24"]}
            await node.clean()


@on_a_host
async def test_many_at_once(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        namespaces = [new_netns() for _ in range(24)]
        async with anyio.create_task_group() as tasks:
            for number, netns in enumerate(namespaces):
                tasks.start_soon(node.attach, f"c{number}", netns)
                tasks.start_soon(node.attach, f"c{number}", netns, "net:10.32.2.0/24")
        addresses = [str(each) for record in node.attachments.records for each in record.addresses]
        assert len(set(addresses)) == len(addresses) == 48
        await node.clean()
        async with anyio.create_task_group() as tasks:
            for number in range(len(namespaces)):
                tasks.start_soon(lambda name: node.detach(name, everything=True), f"c{number}")
        assert links_here() == {"lo", "weave"}
        assert node.owned() == {}
        await node.clean()
        for netns in namespaces:
            netns.close()


@on_a_host
async def test_whoever_watches_is_told(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        told: list[dict[str, Port]] = []
        node.attachments.watch(lambda ports: told.append(dict(ports)))
        with new_netns() as one:
            made = await node.attach("c1", one)
            await node.detach("c1")
        assert [list(ports) for ports in told] == [[], [made.host_ifname], []]
        assert told[1][made.host_ifname].addresses == made.addresses


@on_a_host
async def test_what_cannot_be(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        with new_netns() as one:
            for container in ("", "ä", "c" * 201, "../x"):
                with pytest.raises(ConfigError, match="container id"):
                    await node.attach(container, one)
                with pytest.raises(ConfigError, match="container id"):
                    await node.detach(container)
            with pytest.raises(ConfigError, match="interface name"):
                await node.attach("c1", one, ifname="x" * 16)
            many = [f"10.32.2.{number}/24" for number in range(1, 66)]
            with pytest.raises(ConfigError, match="1 to 64 addresses"):
                await node.attach("c1", one, *many)
        assert node.store.load() == []


@on_a_host
async def test_a_fault_anywhere_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = Fault()
    async with running(tmp_path) as node:
        monkeypatch.setattr(AttachmentStore, "put", fault.around(AttachmentStore.put, late=True))
        monkeypatch.setattr(Attacher, "attach", fault.around(Attacher.attach))
        with new_netns() as one:
            for step in range(1, 10):
                fault.arm(step)
                try:
                    await node.attach("c1", one, "net:default", "10.32.2.7/24")
                except NetlinkError:
                    fault.arm(0)
                    assert links_in(one) == {"lo"}, step
                    assert node.owned() == {}, step
                    assert node.store.load() == [], step
                    await node.clean()
                else:
                    break
            assert step == 4
            addresses = addresses_in(one)
            for step in range(1, 10):
                before = node.attachments.records
                fault.arm(step)
                try:
                    await node.attach("c1", one, "net:10.32.3.0/24")
                except NetlinkError:
                    fault.arm(0)
                    assert node.attachments.records == node.store.load() == before, step
                    assert addresses_in(one) == addresses, step
                    await node.clean()
                else:
                    break
            assert step == 4


@on_a_host
async def test_a_caller_that_leaves(tmp_path: Path) -> None:
    """What was begun is ended or undone, never left."""
    async with running(tmp_path) as node:
        for delay in (0.0, 0.001, 0.003, 0.006, 0.012):
            with new_netns() as one:
                with anyio.move_on_after(delay):
                    await node.attach("c1", one)
                assert len(node.store.load()) == len(node.attachments.records)
                await until(node.is_clean)  # the allocator may still be withdrawing an answer
                await node.detach("c1", everything=True)
                await node.clean()
