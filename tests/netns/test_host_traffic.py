"""What packets do on a host: exposed, masqueraded, kept out, and again after somebody meddled.

Rows of the node specification's section 13 are in the tests' names.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from ipaddress import IPv4Interface
from typing import Any

import pytest

from cni.bridges import join_bridges
from control.addresses import EXPOSE_IDENT
from control.host.address_spec import parse_specs
from control.host.ports import Port
from control.host.service import HostSettings
from lab.namespaces import Namespace
from tests.control.fake_addresses import FakeAddresses
from tests.netns.hosted import HOST, OUTSIDE, PATIENCE_S, SILENCE_S, Served, World, until

pytestmark = [
    pytest.mark.netns,
    pytest.mark.patient,
    pytest.mark.timeout(120),
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]

GATEWAY = "10.32.0.1"
POD = "10.32.0.10"


@pytest.fixture
def world() -> Iterator[World]:
    with World() as made:
        yield made


def expose(served: Served, *specs: str, masquerade: bool = True) -> list[str]:
    async def run() -> list[IPv4Interface]:
        return await served.service.expose(parse_specs(list(specs)), masquerade=masquerade)

    return [str(each) for each in served.call(run)]


def hide(served: Served, *specs: str) -> list[str]:
    async def run() -> list[IPv4Interface]:
        return await served.service.hide(parse_specs(list(specs)))

    return [str(each) for each in served.call(run)]


def patience(wish: bool) -> float:
    """How long to wait for what is to come, or for what is not."""
    return PATIENCE_S if wish else SILENCE_S


def publish(world: World, port: int, target: str) -> None:
    """DNAT on the host, as a port of a container is published."""
    world.sh(
        "nft add table ip publish; nft add chain ip publish p"
        " '{ type nat hook prerouting priority dstnat; }';"
        f"nft add rule ip publish p tcp dport {port} dnat to {target}"
    )


def test_130_no_reachability_before_expose(world: World) -> None:
    pod = world.container(1, f"{POD}/12", gateway=GATEWAY)
    other = world.container(2, "10.32.0.11/12")
    world.listen(pod, POD, 80)
    served = world.serve(FakeAddresses())
    assert world.connect(other, POD, 80)
    assert not world.connect(world.host, POD, 80, SILENCE_S)
    for _ in range(2):
        assert expose(served) == ["10.32.0.1/12"]
        assert world.connect(world.host, POD, 80)
        assert world.connect(other, POD, 80)
    for again in (["10.32.0.1/12"], []):
        assert hide(served) == again
        assert not world.connect(world.host, POD, 80, SILENCE_S)
        assert world.connect(other, POD, 80)


def test_130_subnets_are_exposed_one_by_one(world: World) -> None:
    first = world.container(1, "10.2.1.10/24", gateway="10.2.1.1")
    second = world.container(2, "10.2.2.10/24", gateway="10.2.2.1")
    world.listen(first, "10.2.1.10", 80)
    world.listen(second, "10.2.2.10", 80)

    def check(*wanted: bool) -> None:
        for address, wish in zip(("10.2.1.10", "10.2.2.10"), wanted, strict=True):
            assert world.connect(world.host, address, 80, patience(wish)) is wish

    served = world.serve()
    expose(served, "10.2.1.1/24")
    check(True, False)
    expose(served, "10.2.2.1/24")
    check(True, True)
    hide(served, "10.2.1.1/24")
    check(False, True)


def test_130_translation_from_outside_reaches_an_exposed_subnet(world: World) -> None:
    pod = world.container(1, f"{POD}/12", gateway=GATEWAY)
    server = world.listen(pod, POD, 80)
    publish(world, 8080, f"{POD}:80")
    served = world.serve(FakeAddresses())
    assert not world.connect(world.outside, HOST, 8080, SILENCE_S)
    expose(served)
    assert world.source_seen(server, world.outside, HOST, 8080) == GATEWAY
    hide(served)
    assert not world.connect(world.outside, HOST, 8080, SILENCE_S)


def test_masquerade_as_seen_from_outside(world: World) -> None:
    pod = world.container(1, f"{POD}/12", gateway=GATEWAY)
    server = world.listen(world.outside, OUTSIDE, 80)
    world.sh(f"ip route add 10.32.0.0/12 via {HOST}", world.outside)
    served = world.serve(FakeAddresses())
    expose(served)
    assert world.source_seen(server, pod, OUTSIDE, 80) == HOST
    expose(served, masquerade=False)
    assert world.source_seen(server, pod, OUTSIDE, 80) == POD
    expose(served)
    assert world.source_seen(server, pod, OUTSIDE, 80) == HOST


def test_owned_ranges_keep_the_clients_address(world: World) -> None:
    near = world.container(1, f"{POD}/12", gateway=GATEWAY)
    far = world.container(2, "10.40.0.10/12", gateway=GATEWAY)
    servers = world.listen(near, POD, 80), world.listen(far, "10.40.0.10", 80)
    publish(world, 8081, f"{POD}:80")
    publish(world, 8082, "10.40.0.10:80")
    served = world.serve(FakeAddresses(), HostSettings(no_masq_local=True))
    expose(served)

    def seen() -> list[str | None]:
        return [
            world.source_seen(server, world.outside, HOST, 8081 + number, 2)
            for number, server in enumerate(servers)
        ]

    assert seen() == [GATEWAY, GATEWAY]
    start = int(IPv4Interface("10.32.0.0/13").ip)
    served.tell(served.service.set_local_ranges, [(start, start + (1 << 19))])
    until(lambda: seen() == [OUTSIDE, GATEWAY], "our own only")
    served.tell(served.service.set_local_ranges, [(start + (1 << 19), start + (1 << 20))])
    until(lambda: seen() == [GATEWAY, OUTSIDE], "the other half")


@pytest.mark.parametrize("tool", ["iptables-nft", "iptables-legacy"])
def test_a_joined_bridge_is_not_masqueraded(world: World, tool: str) -> None:
    guest = world.spaces.create("guest")
    world.spaces.ip(
        world.host,
        [
            "link add docker0 type bridge",
            "addr add 172.17.0.1/16 dev docker0",
            "link set docker0 up",
            f"link add veth0 type veth peer name eth0 netns {guest.net_path}",
            "link set veth0 master docker0 up",
            # as the service sets it: so the packet filter sees what crosses
            "link set weave type bridge nf_call_iptables 1",
        ],
    )
    world.spaces.sysctl(world.host, {"net/bridge/bridge-nf-call-iptables": 0})
    world.spaces.ip(guest, ["addr add 172.17.0.5/16 dev eth0", "link set eth0 up"])
    pod = world.container(1, f"{POD}/12", "172.17.9.9/16", gateway=GATEWAY)
    servers = world.listen(pod, "172.17.9.9", 80), world.listen(pod, POD, 80)
    world.sh(f"{tool} -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE")

    def seen(patience_s: float = PATIENCE_S) -> str | None:
        return world.source_seen(servers[0], guest, "172.17.9.9", 80, patience_s)

    world.spaces.call(world.host, lambda: join_bridges("weave", "docker0"))
    assert seen(SILENCE_S) is None  # without us: answers go to the host's address, nowhere
    served = world.serve(FakeAddresses())
    expose(served)
    until(lambda: seen() == "172.17.0.5", "its own address")
    world.sh("nft flush chain ip weave joined")
    until(lambda: "joined bridges" in world.sh("nft list table ip weave"), "restored")
    assert seen() == "172.17.0.5"
    publish(world, 8080, f"{POD}:80")
    assert world.source_seen(servers[1], world.outside, HOST, 8080) == GATEWAY
    world.sh("ip link del vethwebldocker0")
    until(lambda: "joined bridges" not in world.sh("nft list table ip weave"), "cable gone")


@pytest.mark.parametrize("exposed", [True, False])
def test_135_whatever_is_deleted_comes_back(world: World, exposed: bool) -> None:
    pod = world.container(1, f"{POD}/12", gateway=GATEWAY)
    server = world.listen(world.outside, OUTSIDE, 80)
    served = world.serve(FakeAddresses())
    if exposed:
        expose(served)
    before = world.sh("nft list ruleset")
    for damage in (
        "nft delete table ip weave",
        "nft flush ruleset",
        "nft flush chain ip weave postrouting; nft delete chain ip weave postrouting",
    ):
        world.sh(damage)
        until(lambda: world.sh("nft list ruleset") == before, damage)
        if exposed:
            assert world.source_seen(server, pod, OUTSIDE, 80) == HOST


def test_191_killed_with_the_bridge_down_and_without_rules(world: World) -> None:
    pod = world.container(1, f"{POD}/12", gateway=GATEWAY)
    server = world.listen(world.outside, OUTSIDE, 80)
    addresses = FakeAddresses()
    served = world.serve(addresses)
    expose(served)
    before = world.sh("nft list ruleset")
    served.stop()
    world.sh("nft delete table ip weave; ip link set weave down; ip link set weave up")
    world.serve(addresses)
    assert world.sh("nft list ruleset") == before
    until(lambda: world.source_seen(server, pod, OUTSIDE, 80, 2) == HOST, "as before")


def test_191_a_bridge_made_anew_gets_its_addresses(world: World) -> None:
    addresses = FakeAddresses()
    served = world.serve(addresses)
    expose(served)
    served.stop()
    world.sh("ip link delete weave; ip link add weave type bridge; ip link set weave up")
    world.serve(addresses)
    until(lambda: "inet 10.32.0.1/12" in world.sh("ip addr show dev weave"), "address")
    pod = world.container(1, f"{POD}/12")
    world.listen(pod, POD, 80)
    assert world.connect(world.host, POD, 80)


def test_370_the_exposed_address_is_kept(world: World) -> None:
    addresses = FakeAddresses()
    served = world.serve(addresses)
    assert expose(served, "net:10.33.0.0/16") == ["10.33.0.1/16"]
    for _ in range(2):
        served.stop()
        assert "inet 10.33.0.1/16" in world.sh("ip addr show dev weave")
        served = world.serve(addresses)
        assert expose(served, "net:10.33.0.0/16") == ["10.33.0.1/16"]
        assert [str(each) for each in addresses.held[EXPOSE_IDENT]] == ["10.33.0.1/16"]


def test_510_hide_never_waits(world: World) -> None:
    """Without consensus nothing can be allocated, but everything given back."""
    addresses = NoConsensus()
    addresses.held[EXPOSE_IDENT] = [IPv4Interface("10.32.0.1/12")]
    served = world.serve(addresses)
    until(lambda: "inet 10.32.0.1/12" in world.sh("ip addr show dev weave"), "restored")
    assert expose(served, "10.2.0.1/16") == ["10.2.0.1/16"]
    assert hide(served, "net:default", "10.2.0.1/16") == ["10.32.0.1/12", "10.2.0.1/16"]
    assert "inet 10." not in world.sh("ip addr show dev weave")


class NoConsensus(FakeAddresses):
    """Nothing can be allocated."""

    async def allocate(self, *_: Any, **__: Any) -> IPv4Interface:
        raise AssertionError("nothing here has to be allocated")


def test_705_hairpin_on_the_port_is_logged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.sh("ip tuntap add vethwe-bridge mode tap; ip link set vethwe-bridge master weave up")
    world.sh("bridge link set dev vethwe-bridge hairpin on")
    line = 'Hairpin mode enabled on "vethwe-bridge"'
    world.serve()
    for times in (1, 2):
        until(lambda wanted=times: caplog.messages.count(line) == wanted, "logged")  # type: ignore[misc]
        until(lambda: "hairpin off" in world.sh("bridge -d link show dev vethwe-bridge"), "off")
        world.sh("bridge link set dev vethwe-bridge hairpin on")


@pytest.mark.parametrize("tool", ["iptables-nft", "iptables-legacy"])
def test_a_host_that_drops_what_it_forwards(world: World, tool: str) -> None:
    """As Docker leaves it."""
    pod = world.container(1, f"{POD}/12", gateway=GATEWAY)
    other = world.container(2, "10.32.0.11/12")
    inside, outside = world.listen(pod, POD, 80), world.listen(world.outside, OUTSIDE, 80)
    publish(world, 8080, f"{POD}:80")
    world.sh(f"{tool} -P FORWARD DROP")
    served = world.serve(FakeAddresses())
    expose(served)
    assert world.source_seen(outside, pod, OUTSIDE, 80) == HOST
    assert world.source_seen(inside, world.outside, HOST, 8080) == GATEWAY
    assert world.connect(other, POD, 80)
    # opened for what is exposed, not for more
    world.sh("ip route add 10.99.0.0/16 dev weave")
    world.container(3, "10.99.0.10/16")
    world.sh(f"ip route add 10.99.0.0/16 via {HOST}", world.outside)
    assert not world.connect(world.outside, "10.99.0.10", 80, SILENCE_S)


def test_pods_do_not_reach_the_router(world: World) -> None:
    pod = world.container(1, f"{POD}/12", gateway=GATEWAY)
    for port in (6783, 6784, 7000):
        world.listen(world.host, "0.0.0.0", port)
    served = world.serve(FakeAddresses())
    expose(served)

    def check(*wanted: bool) -> None:
        for port, wish in zip((6783, 6784, 7000), wanted, strict=True):
            assert world.connect(pod, GATEWAY, port, patience(wish)) is wish

    check(False, False, True)
    assert world.connect(world.host, GATEWAY, 6783)
    assert world.connect(world.outside, HOST, 6783)
    served.stop()
    world.serve(FakeAddresses(), HostSettings(pods_to_router=True))
    check(True, True, True)


def test_loopback_port_is_not_for_neighbours(world: World) -> None:
    """CVE-2020-8558."""
    for port in (6784, 7000):
        world.listen(world.host, "127.0.0.1", port)
    world.spaces.sysctl(world.host, {"net/ipv4/conf/all/route_localnet": 1})
    world.spaces.sysctl(world.outside, {"net/ipv4/conf/all/route_localnet": 1})
    world.sh(
        "ip addr del 127.0.0.1/8 dev lo; ip route del local 127.0.0.0/8 dev lo table local || true;"
        f"ip route add 127.0.0.1 via {HOST}",
        world.outside,
    )
    world.serve()
    assert world.connect(world.outside, "127.0.0.1", 7000)  # so the way is open
    assert not world.connect(world.outside, "127.0.0.1", 6784, SILENCE_S)
    assert world.connect(world.host, "127.0.0.1", 6784)


def test_a_container_sends_as_itself_only(world: World) -> None:
    pods = {number: world.container(number, f"10.32.0.{number}/12") for number in (1, 2, 3)}
    world.listen(pods[2], "10.32.0.2", 80)
    macs = {n: world.sh("ip -br link show eth0", pod).split()[2] for n, pod in pods.items()}
    served = world.serve(settings=HostSettings(port_security=True))
    ports = {
        f"vethwepl{number}": Port(mac, (IPv4Interface(f"10.32.0.{number}/12"),))
        for number, mac in macs.items()
    }

    def reached(source: str, patience_s: float = PATIENCE_S) -> bool:
        """Whether the first container gets through with this source address."""

        def connect() -> bool:
            try:
                socket.create_connection(("10.32.0.2", 80), patience_s, (source, 0)).close()
            except OSError:
                return False
            return True

        return world.spaces.call(pods[1], connect)

    world.sh("ip addr add 10.32.0.9/12 dev eth0", pods[1])
    assert reached("10.32.0.9"), "so it would be"
    served.tell(served.service.set_ports, ports)
    until(lambda: not reached("10.32.0.9", SILENCE_S), "another address is refused")
    assert reached("10.32.0.1")
    # by ARP: the address of a neighbour claimed, at our MAC
    world.sh("ip neigh flush dev eth0", pods[2])
    arp = f"ff:ff:ff:ff:ff:ff {macs[1]} 0806 0001 0800 06 04 0001"
    arp += f" {macs[1]} 0a200003 000000000000 0a200002"
    send_raw(world, pods[1], arp)
    assert world.connect(pods[3], "10.32.0.2", 80)
    assert macs[3] in world.sh("ip neigh show 10.32.0.3", pods[2])
    # by MAC: frames in the neighbour's name
    world.sh(f"ip link set eth0 address {macs[3]}", pods[1])
    assert not reached("10.32.0.1", SILENCE_S)
    listed = world.sh("nft list chain bridge weave port-security").splitlines()
    for rule in ("packets of another's address", "ARP of another's address", "another's MAC"):
        assert any(rule in line and "counter packets 0 " not in line for line in listed), rule
    world.sh(f"ip link set eth0 address {macs[1]}", pods[1])
    assert reached("10.32.0.1")


def send_raw(world: World, where: Namespace, text: str) -> None:
    """One frame, written in hexadecimal."""

    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind(("eth0", 0))
            raw.send(bytes.fromhex(text.replace(":", "")))

    world.spaces.call(where, send)


def test_multicast_keeps_to_its_subnet(world: World) -> None:
    addresses = {1: "10.1.0.10", 2: "10.1.0.11", 3: "10.2.0.10"}
    pods = {number: world.container(number, f"{each}/16") for number, each in addresses.items()}
    for pod in pods.values():
        world.sh("ip route add 224.0.0.0/4 dev eth0", pod)
    ears = {n: world.multicast(pods[n], addresses[n], listen=True) for n in (2, 3)}
    mouth = world.multicast(pods[1], addresses[1], listen=False)
    served = world.serve()

    def heard() -> dict[int, bool]:
        mouth.sendto(b"hello", ("224.1.2.3", 5000))
        found = {}
        for number, ear in ears.items():
            ear.settimeout(SILENCE_S)
            try:
                found[number] = ear.recv(100) == b"hello"
            except TimeoutError:
                found[number] = False
        return found

    until(lambda: heard() == {2: True, 3: True}, "no isolation before it is asked for")
    ports = {
        f"vethwepl{n}": Port(addresses=(IPv4Interface(f"{each}/16"),))
        for n, each in addresses.items()
    }
    served.tell(served.service.set_ports, ports)
    until(lambda: heard() == {2: True, 3: False}, "isolated")
    # a container in both subnets hears both
    ports["vethwepl3"] = Port(
        addresses=(IPv4Interface("10.1.0.12/16"), *ports["vethwepl3"].addresses)
    )
    served.tell(served.service.set_ports, ports)
    until(lambda: heard() == {2: True, 3: True}, "a member of both")
    world.sh("nft delete table bridge weave")
    until(lambda: "table bridge weave" in world.sh("nft list ruleset"), "restored")


def test_two_hosts_side_by_side() -> None:
    with World() as one, World() as other:
        pods = [world.container(1, f"{POD}/12", gateway=GATEWAY) for world in (one, other)]
        servers = [world.listen(world.outside, OUTSIDE, 80) for world in (one, other)]
        for world in (one, other):
            expose(world.serve(FakeAddresses()))
        before = other.sh("nft list ruleset")
        one.sh("nft delete table ip weave")
        until(lambda: one.source_seen(servers[0], pods[0], OUTSIDE, 80, 2) == HOST, "healed")
        assert other.source_seen(servers[1], pods[1], OUTSIDE, 80) == HOST
        assert other.sh("nft list ruleset") == before


def test_services_of_one_bridge_need_bridge_netfilter(world: World) -> None:
    """A reply that is bridged back has its address translation undone (14.1)."""
    world.sh("echo 0 > /proc/sys/net/bridge/bridge-nf-call-iptables")
    server_pod = world.container(1, f"{POD}/12", gateway=GATEWAY)
    client = world.container(2, "10.32.0.11/12", gateway=GATEWAY)
    world.listen(server_pod, POD, 80)
    publish(world, 8080, f"{POD}:80")
    served = world.serve(FakeAddresses())
    expose(served)
    assert world.connect(client, GATEWAY, 8080)
    world.sh("ip link set weave type bridge nf_call_iptables 0")
    until(lambda: served.service.bridge_changes >= 2, "set again")
    assert world.connect(client, GATEWAY, 8080)
