"""Expose, hide, restarts and repairs on a real bridge, with the records in memory."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Interface, IPv4Network
from typing import Any

import anyio
import pytest

from base.errors import ConfigError, NetlinkError, RequestCancelledError
from control.addresses import EXPOSE_IDENT
from control.host import bridge as bridges
from control.host.address_spec import (
    AddressSpec,
    FixedAddress,
    FromSubnet,
    parse_spec,
    parse_specs,
)
from control.host.foreign import Backend
from control.host.ports import Port
from control.host.service import HostService, HostSettings, loopback_ports
from tests.control.fake_addresses import FakeAddresses
from tests.control.netns_host import in_netns, rule_comments, sh, until
from tests.control.netns_host import ruleset as text
from tests.native.namespace import in_new_netns

DEFAULT: list[AddressSpec] = [FromSubnet(None)]
BRIDGE = "ip link add weave type bridge; ip link set weave up"


@asynccontextmanager
async def running(
    addresses: FakeAddresses | None = None, **settings: Any
) -> AsyncIterator[HostService]:
    host = HostService(HostSettings(**settings), addresses)
    async with anyio.create_task_group() as tasks:
        await tasks.start(host.run)
        yield host
        tasks.cancel_scope.cancel()


def on_bridge() -> list[str]:
    lines = sh("ip -o -4 addr show dev weave 2>/dev/null || true").splitlines()
    return [line.split()[3] for line in lines]


def nat() -> list[str]:
    comments = rule_comments("ip", "weave")
    return [each for each in comments if each.startswith(("masq", "multi", "exposed"))]


SUBNET_RULES = [
    "multicast from 10.32.0.0/12",
    "masquerade to 10.32.0.0/12",
    "masquerade from 10.32.0.0/12",
    "exposed 10.32.0.0/12",
]


@in_netns
async def test_expose_and_hide() -> None:
    sh(BRIDGE)
    addresses = FakeAddresses()
    async with running(addresses) as host:
        clean = text()
        assert await host.expose(DEFAULT) == [IPv4Interface("10.32.0.1/12")]
        assert on_bridge() == ["10.32.0.1/12"]
        assert nat() == SUBNET_RULES
        after = text()
        assert await host.expose(DEFAULT) == [IPv4Interface("10.32.0.1/12")]
        assert text() == after
        assert await host.hide(DEFAULT) == [IPv4Interface("10.32.0.1/12")]
        assert (on_bridge(), text()) == ([], clean)
        assert addresses.held[EXPOSE_IDENT] == []
        assert await host.hide(DEFAULT) == []


@in_netns
async def test_nested_subnets_share_an_address() -> None:
    """As long as it is exposed in one of them, it is nobody else's."""
    sh(BRIDGE)
    addresses = FakeAddresses(default="10.32.0.0/16")
    async with running(addresses) as host:
        inner = [FromSubnet(IPv4Network("10.32.7.0/24"))]
        assert [str(each) for each in await host.expose(inner)] == ["10.32.7.1/24"]
        await host.expose_address(IPv4Interface("10.32.7.1/16"))
        await host.hide_address(IPv4Interface("10.32.7.1/16"))
        assert on_bridge() == ["10.32.7.1/24"]
        assert addresses.held == {"weave:expose": [IPv4Interface("10.32.7.1/24")]}
        await host.hide(inner)
        assert (on_bridge(), addresses.held) == ([], {"weave:expose": []})


class _Hiding(FakeAddresses):
    """Somebody hides what has just been allocated."""

    host: HostService | None = None

    async def allocate(self, ident: str, *rest: Any, **more: Any) -> IPv4Interface:
        found = await super().allocate(ident, *rest, **more)
        if self.host is not None:
            await self.host.hide(DEFAULT)
        return found


@in_netns
async def test_hidden_while_it_is_being_exposed() -> None:
    """The address may be another's by then: it must not get on the bridge any more."""
    sh(BRIDGE)
    addresses = _Hiding()
    async with running(addresses) as host:
        addresses.host = host
        with pytest.raises(RequestCancelledError, match="hidden while it was being exposed"):
            await host.expose(DEFAULT)
        assert (on_bridge(), nat(), host.exposed) == ([], [], [])
        addresses.host = None
        assert [str(each) for each in await host.expose(DEFAULT)] == ["10.32.0.1/12"]
        assert on_bridge() == ["10.32.0.1/12"]


@in_netns
async def test_several_subnets() -> None:
    sh(BRIDGE)
    async with running(FakeAddresses(default="10.32.0.0/16")) as host:
        specs = parse_specs(["net:10.33.1.0/24", "10.2.1.7/24", "ip:10.2.1.8/24", "net:default"])
        assert [str(each) for each in await host.expose(specs)] == [
            "10.33.1.1/24",
            "10.2.1.7/24",
            "10.2.1.8/24",
            "10.32.0.1/16",
        ]
        with pytest.raises(ConfigError, match="take that one off first"):
            await host.expose([parse_spec("10.2.1.7/25")])
        # the first address of a subnet goes, the other stays
        await host.hide([parse_spec("10.2.1.7/24")])
        assert set(on_bridge()) == {"10.33.1.1/24", "10.2.1.8/24", "10.32.0.1/16"}
        assert "masquerade to 10.2.1.0/24" in nat()
        await host.hide([parse_spec("10.2.1.8/24")])
        assert not [each for each in nat() if "10.2.1" in each]
        await host.hide([parse_spec("net:10.33.1.0/24")])
        assert nat() == [each.replace("/12", "/16") for each in SUBNET_RULES]


@in_netns
async def test_without_masquerade_is_remembered_by_the_kernel() -> None:
    sh(BRIDGE)
    addresses = FakeAddresses()
    async with running(addresses) as host:
        await host.expose(DEFAULT, masquerade=False)
        assert nat() == ["exposed 10.32.0.0/12"]
        before = text()
    for _ in range(2):
        async with running(addresses) as host:
            await until(lambda: nat() == ["exposed 10.32.0.0/12"], "the same again")
            assert [each.masquerade for each in host.exposed] == [False]
        assert text() == before
    async with running(addresses) as host:
        await host.expose(DEFAULT)
        assert nat() == SUBNET_RULES


@in_netns
async def test_a_restart_keeps_every_rule_all_the_time() -> None:
    sh(BRIDGE)
    addresses = FakeAddresses()
    async with running(addresses, no_masq_local=True) as host:
        await host.expose(DEFAULT)
        start = int(IPv4Interface("10.32.0.0/12").ip)
        host.set_local_ranges([(start, start + 4096)])
        await until(lambda: "10.32.0.0/20" in text(), "owned range")
        before = text()
    async with running(addresses, no_masq_local=True) as host:
        assert text() == before
        host.set_local_ranges([(start, start + 8192)])
        await until(lambda: "10.32.0.0/19" in text(), "owned range")
        assert host.view().counters["failures"] == 0


@in_netns
async def test_records_without_an_address_and_addresses_without_a_record() -> None:
    sh(f"{BRIDGE}; ip addr add 10.40.0.9/12 dev weave; ip addr add 10.3.0.1/16 dev weave")
    addresses = FakeAddresses()
    await addresses.allocate(EXPOSE_IDENT)
    async with running(addresses) as host:
        await until(lambda: len(host.exposed) == 3, "restored")
        assert set(on_bridge()) == {"10.40.0.9/12", "10.3.0.1/16", "10.32.0.1/12"}
        assert {str(each) for each in addresses.held[EXPOSE_IDENT]} == set(on_bridge())


@in_netns
async def test_an_address_of_somebody_else_leaves_the_bridge() -> None:
    sh(f"{BRIDGE}; ip addr add 10.32.0.1/12 dev weave")
    addresses = FakeAddresses()
    await addresses.allocate("0123456789abcdef")
    async with running(addresses) as host:
        await until(lambda: not on_bridge(), "taken off")
        await until(lambda: nat() == [], "no rules of it")
        assert host.exposed == []


@in_netns
async def test_a_bridge_that_comes_late_or_again() -> None:
    addresses = FakeAddresses()
    await addresses.allocate(EXPOSE_IDENT)
    async with running(addresses) as host:
        with pytest.raises(NetlinkError, match="no such bridge"):
            await host.expose([parse_spec("10.2.0.1/16")])
        assert [str(each) for each in addresses.held[EXPOSE_IDENT]] == ["10.32.0.1/12"]
        for number in range(2):
            sh(BRIDGE)
            await until(lambda: on_bridge() == ["10.32.0.1/12"], f"put back {number}")
            await until(lambda: nat() == SUBNET_RULES, "rules")
            sh("ip link delete weave")


@in_netns
async def test_an_address_that_somebody_flushed_is_put_back() -> None:
    sh(BRIDGE)
    async with running(FakeAddresses()) as host:
        both = [*DEFAULT, parse_spec("10.2.0.1/16")]
        await host.expose(both)
        for flush in ("ip addr flush dev weave", "ip addr del 10.32.0.1/12 dev weave"):
            sh(flush)
            await until(lambda: sorted(on_bridge()) == ["10.2.0.1/16", "10.32.0.1/12"], flush)
        await host.hide(both)
        sh("ip addr add 192.0.2.9/24 dev weave")  # something to look at
        await anyio.sleep(1)
        assert on_bridge() == ["192.0.2.9/24"]


@in_netns
async def test_allocation_off() -> None:
    sh(BRIDGE)
    async with running() as host:
        with pytest.raises(ConfigError, match="must be enabled to use 'net:'"):
            await host.expose(DEFAULT)
        with pytest.raises(ConfigError, match="must be enabled to use 'net:'"):
            await host.hide(DEFAULT)
        assert await host.expose([parse_spec("10.2.0.1/16")]) == [IPv4Interface("10.2.0.1/16")]
        assert await host.hide([parse_spec("10.2.0.1/16")]) == [IPv4Interface("10.2.0.1/16")]


@in_netns
async def test_settings_of_the_bridge() -> None:
    sh(f"{BRIDGE}; ip link set weave type bridge stp_state 1")
    sh("echo 0 > /proc/sys/net/bridge/bridge-nf-call-iptables")
    async with running() as host:
        await until(lambda: host.bridge_changes == 2, "both set")
        assert "stp_state 0" in (found := sh("ip -d link show weave"))
        assert "nf_call_iptables 1" in found
        assert not bridges.global_nf_call()


@in_new_netns
def test_a_global_setting_is_left_alone() -> None:
    sh("echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables")
    sh(BRIDGE)
    assert bridges.settle("weave") == []
    assert "nf_call_iptables 0" in sh("ip -d link show weave")


@in_netns
async def test_wishes() -> None:
    start = int(IPv4Interface("10.32.0.0/12").ip)
    async with running() as host:
        host.set_local_ranges([(start, start + 256)])  # not asked for: no rule
        ports = [Port(addresses=(IPv4Interface(f"10.{n}.0.1/24"),)) for n in (1, 2)]
        host.set_ports({"vethwepl1": ports[0], "vethwepl2": ports[1]})
        await until(lambda: "table bridge weave" in text(), "isolation")
        assert "no masquerade" not in text()
        host.set_ports({})
        await until(lambda: "table bridge weave" not in text(), "no isolation")


@in_netns
async def test_without_privilege_it_says_so() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "/nonexistent")
        async with running() as host:
            assert any("packet filter" in each for each in host.view().warnings)


@in_netns
async def test_an_exposed_address_is_announced() -> None:
    sh(f"{BRIDGE}; ip link add va type veth peer name vb; ip link set va master weave up")
    sh("ip link set vb up")
    mac = sh("ip -o link show weave").partition("link/ether ")[2][:17]
    own = mac.replace(":", "")
    wanted = bytes.fromhex(f"{'ff' * 6}{own}0806 0001080006040001 {own}0a020001 {'00' * 6}0a020001")
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806)) as sniffer:
        sniffer.bind(("vb", 0x0806))
        sniffer.setblocking(False)
        async with running() as host:
            await host.expose([parse_spec("10.2.0.1/16")])
            seen = 0
            with anyio.fail_after(20):
                while seen < 2:  # the port may not forward yet for the first
                    await anyio.wait_readable(sniffer)
                    seen += sniffer.recv(100)[:42] == wanted


# ---- plain ----


def test_specs() -> None:
    assert parse_specs([]) == [FromSubnet(None)]
    assert parse_spec("10.2.1.1/24") == FixedAddress(IPv4Interface("10.2.1.1/24"))
    assert parse_spec("ip:10.2.1.1/24") == FixedAddress(IPv4Interface("10.2.1.1/24"))
    assert parse_spec("net:10.2.1.0/24") == FromSubnet(IPv4Network("10.2.1.0/24"))


@pytest.mark.parametrize(
    "bad",
    [
        "", "net:", "10.2.1.1", "10.2.1.1/", "10.2.1.1/33", "10.2.1.1/0", "fe80::1/64", "a/24",
        "10.2.1.1/255.255.255.0", "10.2.1.1/٢", "net:10.2.1.1/24", "net:10.2.1.0/31",
        "net:10.2.1.1/32", "224.0.0.1/24", "0.0.0.0/8", "127.0.0.1/8", "10.2.1.1/24\n",
    ],
)  # fmt: skip
def test_bad_specs(bad: str) -> None:
    with pytest.raises(ConfigError, match=r"^address: "):
        parse_spec(bad)


def test_too_many_specs() -> None:
    with pytest.raises(ConfigError, match="more than"):
        parse_specs(["net:default"] * 1000)


def test_settings_become_rules() -> None:
    rules = HostSettings(bridge="b", no_masq_local=True, backend=Backend.NONE).rules()
    assert (rules.bridge, rules.local_ranges) == ("b", ())


def test_ports_of_the_api() -> None:
    both = "/run/weave/weave.sock,127.0.0.1:6784,192.0.2.1:80"
    assert loopback_ports(both) == (6784,)
    assert loopback_ports("") == ()
