"""Attachment on real bridges: what is there afterwards, by the specification's steps."""

from __future__ import annotations

import ipaddress
import subprocess

import pytest

from base.errors import ConfigError, NetlinkError
from cni.attach import Wanted
from cni.errors import BridgeMissingError, InterfaceExistsError, NetnsError
from cni.netns import Netns
from cni.requests import Route
from tests.cni.wires import (
    BRIDGE_MTU,
    Wire,
    addresses_in,
    answers,
    brport,
    interface,
    ip_json,
    links_here,
    links_in,
    make_bridge,
    routes_in,
    run_in,
    sysctl_in,
)
from tests.native.namespace import in_new_netns

DEFAULT = ipaddress.ip_network("0.0.0.0/0")


@in_new_netns
def test_a_container_is_attached() -> None:
    with Wire.up("10.32.0.1/12") as wire:
        inner = wire.netns()
        made = wire.attacher.attach(inner, Wanted("c1", (interface("10.32.0.2/12"),)))
        assert made.created
        assert made.added == (interface("10.32.0.2/12"),)
        assert made.mtu == BRIDGE_MTU
        assert made.bridge_mac == "7a:9f:eb:b6:0c:6e"
        assert links_in(inner) == {"lo", "ethwe"}
        assert addresses_in(inner) == ["10.32.0.2/12"]
        assert routes_in(inner) == ["10.32.0.0/12 dev ethwe proto kernel scope link src 10.32.0.2"]
        assert f"link/ether {made.mac}" in run_in(inner, "ip", "link", "show", "ethwe")
        assert answers(inner, "10.32.0.1")


@in_new_netns
def test_what_is_set_on_both_ends() -> None:
    with Wire.up() as wire:
        inner = wire.container("c1", "10.32.0.2/12")
        (host_end,) = links_here() - {"lo", "weave"}
        for family in ("ipv4", "ipv6"):
            assert sysctl_in(inner, f"{family}/neigh/ethwe/base_reachable_time_ms") == "5000"
            assert sysctl_in(inner, f"{family}/neigh/ethwe/delay_first_probe_time") == "2"
            assert sysctl_in(inner, f"{family}/neigh/ethwe/ucast_solicit") == "1"
        assert sysctl_in(inner, "ipv6/conf/ethwe/accept_ra") == "0"
        with Netns.open("/proc/thread-self/ns/net") as own:
            assert sysctl_in(own, f"ipv6/conf/{host_end}/accept_ra") == "0"
        shown = subprocess.run(
            ["ip", "link", "show", host_end], capture_output=True, text=True, check=True
        ).stdout
        assert "alias c1 ethwe" in shown
        assert f"mtu {BRIDGE_MTU} " in shown


@in_new_netns
@pytest.mark.parametrize("hairpin", [True, False])
def test_hairpin(hairpin: bool) -> None:
    with Wire.up("10.32.0.1/12") as wire:
        wanted = Wanted("c1", (interface("10.32.0.2/12"),), hairpin=hairpin)
        made = wire.attacher.attach(wire.netns(), wanted)
        assert brport(made.host_ifname, "hairpin") == str(hairpin)
        assert brport(made.host_ifname, "state") == "forwarding"


@in_new_netns
@pytest.mark.parametrize("wanted", [True, False])
def test_the_multicast_route_as_asked(wanted: bool) -> None:
    """Node specification 13, row 195."""
    with Wire.up() as wire:
        inner = wire.netns()
        address = (interface("10.32.0.2/12"),)
        wire.attacher.attach(inner, Wanted("c1", address, multicast_route=wanted))
        assert ("224.0.0.0/4 dev ethwe scope link" in routes_in(inner)) is wanted


@in_new_netns
def test_mtu_mac_and_name_as_asked() -> None:
    with Wire.up() as wire:
        inner = wire.netns()
        address = (interface("10.32.0.2/12"),)
        wanted = Wanted("c1", address, ifname="eth0.7", mtu=1300, mac="02:00:00:00:00:07")
        made = wire.attacher.attach(inner, wanted)
        assert (made.mtu, made.mac) == (1300, "02:00:00:00:00:07")
        shown = run_in(inner, "ip", "link", "show", "eth0.7")
        assert "mtu 1300 " in shown
        assert "link/ether 02:00:00:00:00:07" in shown
        assert sysctl_in(inner, "ipv4/neigh/eth0.7/ucast_solicit") == "1"


@in_new_netns
def test_a_gateway_on_the_link() -> None:
    with Wire.up("10.32.0.1/12") as wire:
        inner = wire.netns()
        routes = (
            Route(DEFAULT, ipaddress.ip_address("10.32.0.1")),
            Route(ipaddress.ip_network("192.0.2.0/24")),
        )
        wire.attacher.attach(inner, Wanted("c1", (interface("10.32.0.2/12"),), routes=routes))
        found = routes_in(inner)
        assert "default via 10.32.0.1 dev ethwe" in found
        assert "192.0.2.0/24 dev ethwe scope link" in found
        assert not any(line.startswith("10.32.0.1") for line in found)


@in_new_netns
def test_a_gateway_off_the_link_gets_a_route_of_its_own() -> None:
    with Wire.up("10.32.0.1/16") as wire:
        inner = wire.netns()
        gateway = ipaddress.ip_address("10.32.0.1")
        other = ipaddress.ip_network("172.16.0.0/12")
        routes = (Route(DEFAULT, gateway), Route(other, gateway))
        wire.attacher.attach(inner, Wanted("c1", (interface("10.40.7.2/24"),), routes=routes))
        found = routes_in(inner)
        assert "10.32.0.1 dev ethwe scope link" in found
        assert "default via 10.32.0.1 dev ethwe" in found
        assert "172.16.0.0/12 via 10.32.0.1 dev ethwe" in found


@in_new_netns
def test_an_ipv6_address_is_valid_at_once() -> None:
    with Wire.up() as wire:
        inner = wire.container("c1", "fd00::2/64", "10.32.0.2/12")
        shown = run_in(inner, "ip", "-6", "addr", "show", "ethwe")
        assert "inet6 fd00::2/64 scope global nodad" in shown


@in_new_netns
def test_several_addresses_of_several_subnets() -> None:
    with Wire.up("10.32.0.1/24", "10.33.0.1/24") as wire:
        inner = wire.container("c1", "10.32.0.2/24", "10.33.0.2/24", "10.32.0.3/24")
        assert addresses_in(inner) == ["10.32.0.2/24", "10.33.0.2/24", "10.32.0.3/24"]
        assert answers(inner, "10.32.0.1")
        assert answers(inner, "10.33.0.1")


@in_new_netns
def test_attached_again_only_adds() -> None:
    with Wire.up() as wire:
        inner = wire.container("c1", "10.32.0.2/12")
        before = run_in(inner, "ip", "-o", "link")
        run_in(inner, "ip", "route", "add", "192.0.2.0/24", "dev", "ethwe")
        wanted = Wanted("c1", (interface("10.32.0.2/12"), interface("10.33.0.2/24")))
        made = wire.attacher.attach(inner, wanted)
        assert not made.created
        assert made.added == (interface("10.33.0.2/24"),)
        assert addresses_in(inner) == ["10.32.0.2/12", "10.33.0.2/24"]
        assert run_in(inner, "ip", "-o", "link") == before
        assert any(line.startswith("192.0.2.0/24") for line in routes_in(inner))


@in_new_netns
def test_attached_again_is_put_back_on_its_bridge() -> None:
    with Wire.up("10.32.0.1/24") as wire:
        wanted = Wanted("c1", (interface("10.32.0.2/24"),))
        inner = wire.container("c1", "10.32.0.2/24")
        subprocess.run(["ip", "link", "set", wanted.host_ifname, "nomaster"], check=True)
        assert not wire.attacher.attach(inner, wanted).created
        assert answers(inner, "10.32.0.1")


@in_new_netns
def test_an_interface_that_is_on_another_bridge() -> None:
    with Wire.up("10.32.0.1/24") as wire:
        make_bridge("blue")
        inner = wire.container("c1", "10.32.0.2/24")
        elsewhere = Wanted("c1", (interface("10.33.0.2/24"),), bridge="blue")
        with pytest.raises(InterfaceExistsError, match="is on bridge weave, not blue; detach it"):
            wire.attacher.attach(inner, elsewhere)
        assert addresses_in(inner) == ["10.32.0.2/24"]
        assert answers(inner, "10.32.0.1")


@in_new_netns
def test_two_networks_of_one_container_on_two_bridges() -> None:
    with Wire.up("10.32.0.1/24") as wire:
        make_bridge("blue", "10.33.0.1/24")
        inner = wire.container("c1", "10.32.0.2/24")
        second = Wanted("c1", (interface("10.33.0.2/24"),), ifname="net1", bridge="blue")
        wire.attacher.attach(inner, second)
        assert links_in(inner) == {"lo", "ethwe", "net1"}
        assert answers(inner, "10.32.0.1")
        assert answers(inner, "10.33.0.1")
        assert wire.attacher.detach("c1", "net1")
        assert links_in(inner) == {"lo", "ethwe"}


@in_new_netns
@pytest.mark.parametrize("container", ["a", "0" * 200, "similar-0000001", "similar-0000002"])
def test_ids_of_all_lengths(container: str) -> None:
    with Wire.up() as wire:
        wire.container("similar-0000000", "10.32.0.9/12")
        inner = wire.container(container, "10.32.0.2/12")
        assert links_in(inner) == {"lo", "ethwe"}
        assert wire.attacher.detach(container, "ethwe")
        assert links_in(inner) == {"lo"}


@in_new_netns
def test_a_label_of_any_length() -> None:
    """Namespace and name of a pod have up to 63 and 253 characters."""
    with Wire.up() as wire:
        wanted = Wanted("0" * 64, (interface("10.32.0.2/12"),), label=f"{'n' * 63}/{'p' * 253}")
        made = wire.attacher.attach(wire.netns(), wanted)
        (link,) = ip_json("link", "show", made.host_ifname)
        assert link["ifalias"] == f"{'0' * 64} ethwe {wanted.label}"[:254]
        assert wire.attacher.detach(wanted.container, "ethwe")


@in_new_netns
def test_legacy_names() -> None:
    with Wire.up() as wire:
        wanted = Wanted("0123456789ab", (interface("10.32.0.2/12"),), legacy_name=True)
        assert wire.attacher.attach(wire.netns(), wanted).host_ifname == "vethwepl0123456"
        assert wire.attacher.detach("0123456789ab", "ethwe")
        assert links_here() == {"lo", "weave"}


@in_new_netns
def test_a_reused_address_answers_at_once() -> None:
    """Node specification 13, row 300: neighbours learn of the new MAC before they are asked."""
    with Wire.up() as wire:
        witness = wire.container("witness", "10.32.0.2/12")
        wire.container("old", "10.32.0.3/12")
        assert answers(witness, "10.32.0.3")
        (before,) = run_in(witness, "ip", "neigh", "show", "10.32.0.3").splitlines()
        wire.attacher.detach("old", "ethwe")
        made = wire.attacher.attach(wire.netns(), Wanted("new", (interface("10.32.0.3/12"),)))
        (after,) = run_in(witness, "ip", "neigh", "show", "10.32.0.3").splitlines()
        assert made.mac in after
        assert made.mac not in before
        assert answers(witness, "10.32.0.3")


@in_new_netns
def test_a_moved_address_answers_at_once() -> None:
    """The old container keeps running, with its address and without its interface's cable."""
    with Wire.up() as wire:
        witness = wire.container("witness", "10.32.0.2/12")
        old = wire.container("old", "10.32.0.3/12")
        assert answers(witness, "10.32.0.3")
        run_in(old, "ip", "link", "set", "ethwe", "down")
        wire.container("new", "10.32.0.3/12")
        assert answers(witness, "10.32.0.3")


# ---- refusals ----


@in_new_netns
def test_the_hosts_own_namespace_is_refused() -> None:
    with Wire.up() as wire, Netns.open("/proc/thread-self/ns/net") as own:
        with pytest.raises(NetnsError, match="host's own"):
            wire.attacher.attach(own, Wanted("c1", (interface("10.32.0.2/12"),)))
        assert links_here() == {"lo", "weave"}


@in_new_netns
def test_no_bridge() -> None:
    with Wire.up() as wire:
        with pytest.raises(BridgeMissingError, match="no such bridge"):
            wire.attacher.attach(wire.netns(), Wanted("c1", bridge="green"))
        with pytest.raises(BridgeMissingError, match="not a bridge"):
            wire.attacher.attach(wire.netns(), Wanted("c1", bridge="lo"))


@in_new_netns
@pytest.mark.parametrize("mtu", [0, 67, BRIDGE_MTU + 1, 70000])
def test_an_mtu_that_the_bridge_has_not(mtu: int) -> None:
    with Wire.up() as wire, pytest.raises(ConfigError, match=f"MTU of bridge weave, {BRIDGE_MTU}"):
        wire.attacher.attach(wire.netns(), Wanted("c1", mtu=mtu))


@in_new_netns
def test_an_interface_of_somebody_else() -> None:
    with Wire.up() as wire:
        inner = wire.netns()
        run_in(inner, "ip", "link", "add", "ethwe", "type", "veth", "peer", "name", "other")
        with pytest.raises(InterfaceExistsError, match="was not made for this container"):
            wire.attacher.attach(inner, Wanted("c1", (interface("10.32.0.2/12"),)))
        assert links_in(inner) == {"lo", "ethwe", "other"}
        assert links_here() == {"lo", "weave"}


@in_new_netns
def test_an_interface_of_another_container() -> None:
    with Wire.up() as wire:
        inner = wire.container("c1", "10.32.0.2/12")
        with pytest.raises(InterfaceExistsError):
            wire.attacher.attach(inner, Wanted("c2", (interface("10.32.0.3/12"),)))
        assert addresses_in(inner) == ["10.32.0.2/12"]


@in_new_netns
def test_a_name_on_the_host_that_is_not_ours() -> None:
    with Wire.up() as wire:
        wanted = Wanted("c1", (interface("10.32.0.2/12"),))
        argv = ["ip", "link", "add", wanted.host_ifname, "type", "veth", "peer", "name", "x"]
        subprocess.run(argv, check=True)
        inner = wire.netns()
        with pytest.raises(InterfaceExistsError, match="not of this container"):
            wire.attacher.attach(inner, wanted)
        assert links_in(inner) == {"lo"}


@in_new_netns
def test_a_container_with_a_new_namespace() -> None:
    """The runtime made it again under the same id before the old namespace was gone."""
    with Wire.up() as wire:
        old = wire.container("c1", "10.32.0.2/12")
        new = wire.container("c1", "10.32.0.2/12")
        assert links_in(old) == {"lo"}
        assert addresses_in(new) == ["10.32.0.2/12"]


@in_new_netns
def test_what_the_kernel_refuses_leaves_nothing() -> None:
    with Wire.up() as wire:
        inner = wire.netns()
        nobody = Route(DEFAULT, ipaddress.ip_address("10.47.255.255"))
        wanted = Wanted("c1", (interface("10.32.0.2/12"),), routes=(nobody,))
        with pytest.raises(NetlinkError, match=r"route 0\.0\.0\.0/0: .*gateway"):
            wire.attacher.attach(inner, wanted)
        assert links_in(inner) == {"lo"}
        assert links_here() == {"lo", "weave"}
