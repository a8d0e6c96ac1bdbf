"""Taking over from Weave Net, against the real kernel: what goes, what stays, what is refused."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from pyroute2 import IPRoute

from base.errors import CaptureError
from capture.adopt import adopt
from capture.bridge import (
    PACKET_END,
    check_foreign,
    ensure_bridge,
    ensure_pair,
    ensure_port,
)
from capture.tap import open_tap
from tests.capture.test_bridge import PACKET, TAP, add, attributes, change, link, links
from tests.native.namespace import in_new_netns

REMOVED = ["vethwe-bridge of the router before us removed"]


def weave_net(far_end: str = PACKET_END) -> None:
    """What a Weave Net router leaves: its pair, the bridge with an address, and a container's."""
    ensure_bridge(TAP)
    add(TAP.port, kind="veth", peer={"ifname": far_end})
    add("vethweplc1", kind="veth", peer={"ifname": "c1"})
    for name in (TAP.port, "vethweplc1"):
        change(name, master=link("weave")["index"], state="up")
    change("weave", mtu=65535)
    with IPRoute() as ip:
        ip.addr("add", index=link("weave")["index"], address="10.32.0.1", prefixlen=12)


@contextmanager
def reader(name: str) -> Iterator[None]:
    """A packet socket on an interface, as that router has one."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as opened:
        opened.bind((name, 0x0300))
        yield


@in_new_netns
def test_the_pair_goes_and_everything_else_stays() -> None:
    weave_net()
    bridge, container = link("weave")["index"], link("vethweplc1")["index"]
    assert adopt(TAP) == REMOVED
    assert not {TAP.port, PACKET_END} & links()
    check_foreign(TAP)
    port = open_tap(TAP.port)
    ensure_bridge(TAP)
    ensure_port(TAP)
    assert link("weave")["index"] == bridge
    assert link("vethweplc1")["index"] == container
    assert attributes("vethweplc1")["master"] == attributes(TAP.port)["master"] == bridge
    with IPRoute() as ip:
        (address,) = ip.get_addr(index=bridge, family=socket.AF_INET)
    assert address.get_attr("IFA_LOCAL") == "10.32.0.1"
    assert adopt(TAP) == []  # as after a restart
    assert TAP.port in links()
    port.close()


@in_new_netns
def test_a_router_that_still_reads_keeps_its_pair() -> None:
    weave_net()
    with reader(PACKET_END), pytest.raises(CaptureError, match="still reads vethwe-pcap; stop"):
        adopt(TAP)
    with reader("c1"):
        assert adopt(TAP) == REMOVED


@in_new_netns
def test_a_pair_of_the_fast_datapath_goes_with_it() -> None:
    for layout in (TAP, PACKET):
        weave_net("vethwe-datapath")
        add("datapath", kind="bridge")
        assert adopt(layout) == [*REMOVED, "datapath removed"]
        assert not {TAP.port, "vethwe-datapath", "datapath"} & links()
        for name in ("vethweplc1", "weave"):
            change_away(name)


@in_new_netns
def test_a_datapath_that_cannot_be_removed_is_told() -> None:
    weave_net("vethwe-datapath")
    change("lo", ifname="datapath")  # the kernel deletes neither
    (_, told) = adopt(TAP)
    assert told == "datapath is left; remove it with `ovs-dpctl del-dp datapath`"
    check_foreign(TAP, adopted=True)


@in_new_netns
def test_nothing_to_take_over() -> None:
    assert adopt(TAP) == []
    ensure_pair(PACKET)
    assert adopt(PACKET) == []  # our own packet capture's
    assert PACKET_END in links()


@in_new_netns
def test_the_port_of_another_bridge_is_left_alone() -> None:
    weave_net()
    other = replace(TAP, bridge="other")
    assert adopt(other) == []
    with pytest.raises(CaptureError):
        check_foreign(other)


def change_away(name: str) -> None:
    with IPRoute() as ip:
        ip.link("del", index=link(name)["index"])
