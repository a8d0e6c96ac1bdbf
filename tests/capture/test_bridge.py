"""Bridge and port against the real kernel: made once, mended when broken, foreign ones refused."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from pyroute2 import IPRoute

from base.errors import CaptureError, NetlinkError
from capture import bridge
from capture.bridge import (
    MTU_MAX,
    PACKET_END,
    TAP_MTU_MAX,
    BridgeLayout,
    check_foreign,
    ensure_bridge,
    ensure_pair,
    ensure_port,
    remove_pair_if_new,
)
from capture.tap import open_tap
from tests.native.namespace import in_new_netns

TAP = BridgeLayout("weave", "7a:9f:eb:b6:0c:6e", 1410, "tap")
PACKET = BridgeLayout("weave", "7a:9f:eb:b6:0c:6e", 1410, "packet")


def link(name: str) -> Any:
    with IPRoute() as ip:
        (found,) = ip.link("get", ifname=name)
    return found


def attributes(name: str) -> dict[str, Any]:
    found = link(name)
    return {
        "mac": found.get_attr("IFLA_ADDRESS"),
        "mtu": found.get_attr("IFLA_MTU"),
        "master": found.get_attr("IFLA_MASTER"),
        "up": bool(found["flags"] & 1),
    }


def change(name: str, **what: Any) -> None:
    with IPRoute() as ip:
        ip.link("set", index=ip.link_lookup(ifname=name)[0], **what)


def add(name: str, **what: Any) -> None:
    with IPRoute() as ip:
        ip.link("add", ifname=name, **what)


def sysctl(path: str) -> str:
    return Path("/proc/sys/net", path).read_text(encoding="ascii").strip()


def links() -> set[str]:
    with IPRoute() as ip:
        return {found.get_attr("IFLA_IFNAME") for found in ip.get_links()}


# ---- the bridge ----


@in_new_netns
def test_the_bridge_is_made_once() -> None:
    assert ensure_bridge(TAP) == ["bridge created"]
    found = attributes("weave")
    assert found == {"mac": TAP.mac, "mtu": 1410, "master": None, "up": True}
    data = link("weave").get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_DATA")
    assert data.get_attr("IFLA_BR_MCAST_SNOOPING") == 0
    index = link("weave")["index"]
    assert ensure_bridge(TAP) == []
    assert link("weave")["index"] == index


@in_new_netns
def test_the_bridges_sysctls() -> None:
    ensure_bridge(TAP)
    for family in ("ipv4", "ipv6"):
        assert sysctl(f"{family}/neigh/weave/base_reachable_time_ms") == "5000"
        assert sysctl(f"{family}/neigh/weave/delay_first_probe_time") == "2"
        assert sysctl(f"{family}/neigh/weave/ucast_solicit") == "1"
    assert sysctl("ipv6/conf/weave/accept_ra") == "0"


@in_new_netns
def test_a_bridge_that_was_there_is_put_right_and_keeps_its_addresses() -> None:
    add("weave", kind="bridge")
    with IPRoute() as ip:
        index = ip.link_lookup(ifname="weave")[0]
        ip.addr("add", index=index, address="10.32.0.1", prefixlen=12)
    assert ensure_bridge(TAP) == ["bridge set up"]
    assert attributes("weave")["mac"] == TAP.mac
    assert attributes("weave")["mtu"] == 1410
    data = link("weave").get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_DATA")
    assert data.get_attr("IFLA_BR_MCAST_SNOOPING") == 0
    with IPRoute() as ip:
        addresses = [addr.get_attr("IFA_ADDRESS") for addr in ip.get_addr(index=index, family=2)]
    assert addresses == ["10.32.0.1"]


@in_new_netns
def test_a_bridge_set_down_is_mended() -> None:
    ensure_bridge(TAP)
    change("weave", state="down")
    assert ensure_bridge(TAP) == ["bridge set up"]
    assert attributes("weave")["up"]


@in_new_netns
@pytest.mark.parametrize("mtu", [1280, 1410, 9000, 65535])
def test_the_bridges_mtu_is_its_own_whatever_joins(mtu: int) -> None:
    layout = BridgeLayout("weave", TAP.mac, mtu, "tap")
    ensure_bridge(layout)
    add("v0", kind="veth", peer={"ifname": "v1"})
    change("v0", mtu=1000)
    change("v0", master=link("weave")["index"])
    assert attributes("weave")["mtu"] == mtu
    change("v0", mtu=1100)
    assert attributes("weave")["mtu"] == mtu


# ---- the port ----


@in_new_netns
@pytest.mark.parametrize("mtu", [1410, 65535])
def test_the_tap_joins_once(mtu: int) -> None:
    layout = BridgeLayout("weave", TAP.mac, mtu, "tap")
    port = open_tap(layout.port)
    ensure_bridge(layout)
    assert ensure_port(layout) == ["port joined to the bridge"]
    found = attributes(layout.port)
    assert found["master"] == link("weave")["index"]
    assert (found["mtu"], found["up"]) == (TAP_MTU_MAX, True)
    assert attributes("weave")["mtu"] == mtu
    assert ensure_port(layout) == []
    assert ensure_bridge(layout) == []
    port.close()
    # the router is gone, the port and the bridge are as they were
    assert ensure_port(layout) == []


@in_new_netns
def test_a_port_that_was_taken_out_or_down_is_mended() -> None:
    port = open_tap(TAP.port)
    ensure_bridge(TAP)
    ensure_port(TAP)
    change(TAP.port, master=0)
    assert ensure_port(TAP) == ["port joined to the bridge"]
    change(TAP.port, state="down")
    assert ensure_port(TAP) == ["port set up"]
    change(TAP.port, mtu=900)
    assert ensure_port(TAP) == []
    assert attributes(TAP.port)["mtu"] == TAP_MTU_MAX
    assert attributes("weave")["mtu"] == 1410
    port.close()


@in_new_netns
def test_a_missing_port_or_bridge_is_named() -> None:
    with pytest.raises(NetlinkError, match="find vethwe-bridge: no such device") as err:
        ensure_port(TAP)
    assert err.value.errno == errno.ENODEV
    port = open_tap(TAP.port)
    with pytest.raises(NetlinkError, match="find weave: no such device"):
        ensure_port(TAP)
    port.close()


@in_new_netns
def test_the_packet_pair() -> None:
    assert ensure_pair(PACKET) == ["veth pair created"]
    assert ensure_pair(PACKET) == []
    ensure_bridge(PACKET)
    assert ensure_port(PACKET) == ["port joined to the bridge", f"{PACKET_END} set up"]
    assert attributes(PACKET.port)["master"] == link("weave")["index"]
    far = attributes(PACKET_END)
    assert (far["master"], far["mtu"], far["up"]) == (None, MTU_MAX, True)
    assert sysctl(f"ipv6/conf/{PACKET_END}/accept_ra") == "0"
    assert ensure_port(PACKET) == []
    change(PACKET_END, state="down")
    assert ensure_port(PACKET) == [f"{PACKET_END} set up"]


@in_new_netns
def test_a_failed_start_takes_back_only_what_it_made() -> None:
    made = ensure_pair(PACKET)
    remove_pair_if_new(PACKET, made)
    assert links() == {"lo"}
    ensure_pair(PACKET)
    remove_pair_if_new(PACKET, ensure_pair(PACKET))
    assert {PACKET.port, PACKET_END} <= links()


# ---- what is not ours ----


@in_new_netns
def test_a_clean_host_and_our_own_devices_are_fine() -> None:
    check_foreign(TAP)
    assert links() == {"lo"}
    port = open_tap(TAP.port)
    check_foreign(TAP)
    ensure_bridge(TAP)
    ensure_port(TAP)
    check_foreign(TAP)
    port.close()
    check_foreign(TAP)


@in_new_netns
def test_foreign_devices_are_refused_with_a_remedy() -> None:
    add("weave", kind="veth", peer={"ifname": "x"})
    with pytest.raises(CaptureError, match=r"weave: .* is a veth, not a bridge; .*--weave-bridge"):
        check_foreign(TAP)


@in_new_netns
def test_a_port_of_the_wrong_kind() -> None:
    ensure_pair(PACKET)
    check_foreign(PACKET)
    with pytest.raises(CaptureError, match=r"not a tun; .* start with --adopt, or") as err:
        check_foreign(TAP)
    assert "\n" not in str(err.value)


@in_new_netns
def test_a_tap_where_a_pair_is_wanted() -> None:
    port = open_tap(TAP.port)
    with pytest.raises(CaptureError, match="is a tun, not a veth"):
        check_foreign(PACKET)
    port.close()


@in_new_netns
def test_the_port_of_another_bridge() -> None:
    port = open_tap(TAP.port)
    ensure_bridge(TAP)
    ensure_port(TAP)
    other = BridgeLayout("other", TAP.mac, 1410, "tap")
    with pytest.raises(CaptureError, match="it is a port of weave; that bridge has a router"):
        check_foreign(other)
    assert "other" not in links()
    port.close()


@in_new_netns
def test_a_fast_datapath_of_weave_net() -> None:
    add("datapath", kind="veth", peer={"ifname": "x"})
    with pytest.raises(CaptureError, match=r"fast datapath .* start with --adopt"):
        check_foreign(TAP)
    check_foreign(TAP, adopted=True)


@in_new_netns
def test_an_impossible_mtu_is_the_kernels_refusal() -> None:
    with pytest.raises(NetlinkError, match="configure weave: ") as err:
        ensure_bridge(BridgeLayout("weave", TAP.mac, 70_000, "tap"))
    assert err.value.errno in (errno.EINVAL, errno.ERANGE)


@in_new_netns
def test_a_missing_sysctl_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "_NEIGHBOUR_MS", {"no_such_setting": "1"})
    assert ensure_bridge(TAP) == ["bridge created"]
