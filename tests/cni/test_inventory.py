"""What is found again without records, whether it is as it was, and what is mended."""

from __future__ import annotations

import dataclasses
import ipaddress
import subprocess

from cni.attach import Attacher, Wanted
from cni.inventory import container_end, host_ends, is_other_end_in
from cni.names import Alias
from cni.netns import Netns
from cni.requests import Route
from cni.verify import host_problems, mend_host_end, problems
from tests.cni.wires import Wire, answers, brport, interface, make_bridge, run_in
from tests.native.namespace import in_new_netns

WANTED = Wanted(
    "c1",
    (interface("10.32.0.2/12"),),
    routes=(Route(ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_address("10.32.0.1")),),
    multicast_route=True,
)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@in_new_netns
def test_attachments_are_found_by_the_hosts_ends() -> None:
    with Wire.up() as wire:
        make_bridge("blue")
        wire.container("c1", "10.32.0.2/12", "10.33.0.2/24", "fd00::2/64")
        blue = Wanted("c1", (interface("10.34.0.2/24"),), ifname="net1", bridge="blue", label="p/q")
        wire.attacher.attach(wire.netns(), blue)
        ip("link", "add", "vethwepl0000000", "type", "veth", "peer", "name", "other")
        first, second, third = host_ends(wire.attacher.host)
        assert (first.alias, first.bridge) == (Alias("c1", "ethwe"), "weave")
        assert (second.alias, second.bridge) == (Alias("c1", "net1", "p/q"), "blue")
        assert (third.alias, third.bridge) == (None, "")
        assert [end.link.name for end in host_ends(wire.attacher.host, "blue")] == [
            second.link.name
        ]
        assert host_ends(wire.attacher.host, "green") == []


@in_new_netns
def test_the_other_end_is_seen_without_a_path() -> None:
    with Wire.up() as wire:
        inner = wire.container("c1", "10.32.0.2/12", "10.33.0.2/24", "fd00::2/64")
        (end,) = host_ends(wire.attacher.host)
        found = container_end(wire.attacher.host, end.link)
        assert found is not None
        assert (found.ifname, found.mtu, found.up) == ("ethwe", 1410, True)
        assert {str(each) for each in found.addresses} == {
            "10.32.0.2/12",
            "10.33.0.2/24",
            "fd00::2/64",
        }
        assert found.mac in run_in(inner, "ip", "link", "show", "ethwe")
        assert is_other_end_in(wire.attacher.host, end.link, inner)
        assert not is_other_end_in(wire.attacher.host, end.link, wire.netns())
        wire.attacher.detach("c1", "ethwe")
        assert container_end(wire.attacher.host, end.link) is None


def found_problems(wire: Wire, inner: Netns, wanted: Wanted = WANTED) -> list[str]:
    return problems(wire.attacher.host, inner, wanted)


@in_new_netns
def test_a_good_attachment_has_no_problems() -> None:
    with Wire.up("10.32.0.1/12") as wire:
        inner = wire.netns()
        made = wire.attacher.attach(inner, WANTED)
        assert problems(wire.attacher.host, inner, WANTED, mac=made.mac) == []
        assert host_problems(wire.attacher.host, WANTED) == []
        run_in(inner, "ip", "addr", "add", "10.50.0.1/24", "dev", "ethwe")
        assert found_problems(wire, inner) == []


@in_new_netns
def test_every_problem_is_told() -> None:
    with Wire.up("10.32.0.1/12") as wire:
        inner = wire.netns()
        made = wire.attacher.attach(inner, WANTED)
        other = "02:00:00:00:00:01"
        assert problems(wire.attacher.host, inner, WANTED, mac=other) == [
            f"ethwe has MAC {made.mac}, not {other}"
        ]
        wanted = dataclasses.replace(WANTED, mtu=1300)
        assert found_problems(wire, inner, wanted) == ["ethwe has MTU 1410, not 1300"]
        wanted = dataclasses.replace(WANTED, hairpin=False)
        assert found_problems(wire, inner, wanted) == [f"hairpin of {made.host_ifname} is on"]
        run_in(inner, "ip", "route", "del", "default")
        run_in(inner, "ip", "route", "del", "224.0.0.0/4")
        run_in(inner, "sysctl", "-q", "-w", "net.ipv6.conf.ethwe.accept_ra=1")
        assert found_problems(wire, inner) == [
            "route 0.0.0.0/0 is missing",
            "route 224.0.0.0/4 is missing",
            "accept_ra is 1, not 0",
        ]
        run_in(inner, "ip", "addr", "flush", "dev", "ethwe")
        assert "address 10.32.0.2/12 is missing" in found_problems(wire, inner)
        run_in(inner, "ip", "link", "set", "ethwe", "down")
        assert "ethwe is down" in found_problems(wire, inner)
        wire.attacher.detach("c1", "ethwe")
        assert found_problems(wire, inner) == ["ethwe is missing"]
        assert host_problems(wire.attacher.host, WANTED) == ["the host's end of ethwe is missing"]


@in_new_netns
def test_the_interface_of_another_pair() -> None:
    with Wire.up("10.32.0.1/12") as wire:
        wire.attacher.attach(wire.netns(), WANTED)
        wrong = wire.container("c2", "10.32.0.2/12")
        (text,) = [each for each in found_problems(wire, wrong) if "other end" in each]
        assert text == f"ethwe is not the other end of {WANTED.host_ifname}"


@in_new_netns
def test_ports_of_a_bridge_that_was_made_again() -> None:
    with Wire.up("10.32.0.1/12") as wire:
        inner = wire.netns()
        wire.attacher.attach(inner, WANTED)
        ip("link", "del", "weave")
        assert "bridge weave is missing" in host_problems(wire.attacher.host, WANTED)
        assert mend_host_end(wire.attacher.host, WANTED) == []
        make_bridge("weave", "10.32.0.1/12")
        name = WANTED.host_ifname
        assert host_problems(wire.attacher.host, WANTED) == [f"{name} is not on bridge weave"]
        assert mend_host_end(wire.attacher.host, WANTED) == [f"{name} joined to weave"]
        assert host_problems(wire.attacher.host, WANTED) == []
        assert brport(name, "hairpin") == "True"
        assert answers(inner, "10.32.0.1")
        assert mend_host_end(wire.attacher.host, WANTED) == []


@in_new_netns
def test_who_was_put_on_another_bridge_stays_there() -> None:
    with Wire.up() as wire:
        wire.attacher.attach(wire.netns(), WANTED)
        make_bridge("blue")
        ip("link", "set", WANTED.host_ifname, "master", "blue")
        problem = f"{WANTED.host_ifname} is not on bridge weave"
        assert host_problems(wire.attacher.host, WANTED) == [problem]
        assert mend_host_end(wire.attacher.host, WANTED) == []
        assert host_problems(wire.attacher.host, WANTED) == [problem]


@in_new_netns
def test_a_host_end_that_is_down() -> None:
    with Wire.up() as wire:
        wire.container("c1", "10.32.0.2/12")
        wanted = Wanted("c1")
        ip("link", "set", wanted.host_ifname, "down")
        assert host_problems(wire.attacher.host, wanted) == [f"{wanted.host_ifname} is down"]
        assert mend_host_end(wire.attacher.host, wanted) == [f"{wanted.host_ifname} set up"]
        assert host_problems(wire.attacher.host, wanted) == []


@in_new_netns
def test_another_attacher_sees_the_same() -> None:
    with Wire.up() as wire:
        wire.container("c1", "10.32.0.2/12")
        again = Attacher()
        assert [end.alias for end in host_ends(again.host)] == [Alias("c1", "ethwe")]
        again.close()
