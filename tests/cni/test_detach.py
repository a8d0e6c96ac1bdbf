"""Detaching: with the namespace, without it, of what Weave Net made, and of nothing."""

from __future__ import annotations

import subprocess

import pytest

from base.errors import NetlinkError
from tests.cni.wires import (
    Wire,
    addresses_in,
    interface,
    links_here,
    links_in,
    new_netns,
    run_in,
)
from tests.native.namespace import in_new_netns


@in_new_netns
def test_both_ends_go() -> None:
    with Wire.up() as wire:
        inner = wire.container("c1", "10.32.0.2/12")
        assert wire.attacher.detach("c1", "ethwe", netns=inner)
        assert links_in(inner) == {"lo"}
        assert links_here() == {"lo", "weave"}
        assert not wire.attacher.detach("c1", "ethwe", netns=inner)


@in_new_netns
def test_the_namespace_need_not_be_there() -> None:
    with Wire.up() as wire:
        wire.container("c1", "10.32.0.2/12")
        assert wire.attacher.detach("c1", "ethwe")
        assert not wire.attacher.detach("c1", "ethwe")
        assert links_here() == {"lo", "weave"}


@in_new_netns
def test_only_that_interface_of_that_container() -> None:
    with Wire.up() as wire:
        one, other = wire.container("c1", "10.32.0.2/12"), wire.container("c2", "10.32.0.3/12")
        assert not wire.attacher.detach("c1", "eth0", netns=other)
        assert not wire.attacher.detach("c3", "ethwe", netns=other)
        assert links_in(one) == links_in(other) == {"lo", "ethwe"}


@in_new_netns
def test_an_interface_that_weave_net_made() -> None:
    with Wire.up() as wire, new_netns() as inner:
        path = f"/proc/self/fd/{inner.fileno()}"
        peer = f"peer name eth0 netns {path}"
        made = f"ip link add vethwepl0123456 type veth {peer}"
        subprocess.run(made.split(), check=True, pass_fds=[inner.fileno()])
        argv = ["ip", "link", "set", "vethwepl0123456", "master", "weave", "up"]
        subprocess.run(argv, check=True)
        assert not wire.attacher.detach("0123456789", "eth0")
        assert wire.attacher.detach("0123456789", "eth0", netns=inner)
        assert links_in(inner) == {"lo"}


@in_new_netns
def test_an_interface_of_others_stays() -> None:
    with Wire.up() as wire, new_netns() as inner:
        run_in(inner, "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
        assert not wire.attacher.detach("c1", "eth0", netns=inner)
        assert links_in(inner) == {"lo", "eth0", "eth1"}


@in_new_netns
def test_single_addresses() -> None:
    with Wire.up() as wire:
        inner = wire.container("c1", "10.32.0.2/12", "10.33.0.2/24")
        gone = [interface("10.33.0.2/24"), interface("10.34.0.2/24")]
        assert wire.attacher.remove_addresses(inner, "ethwe", gone) == (gone[0],)
        assert addresses_in(inner) == ["10.32.0.2/12"]
        with pytest.raises(NetlinkError, match="no such interface"):
            wire.attacher.remove_addresses(inner, "eth9", gone)
