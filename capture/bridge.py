"""The bridge and the port on it that leads to the router: checked, made, watched, mended.

Layout (spec: node 2 and 3): Linux bridge ``weave`` whose MAC is the peer name, and on it
``vethwe-bridge``, a TAP, or one end of a veth pair whose other end ``vethwe-pcap`` a packet socket
reads. Everything is idempotent: what is right is left alone, containers and addresses stay.
Blocking netlink; call it from a worker thread.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError as KernelRefusal

from base.errors import CaptureError, NetlinkError

log = logging.getLogger(__name__)

BRIDGE_PORT: Final = "vethwe-bridge"
PACKET_END: Final = "vethwe-pcap"
#: Weave Net's, of Open vSwitch.
FAST_DATAPATH: Final = "datapath"
#: A TAP takes no more: 65535 less its Ethernet header.
TAP_MTU_MAX: Final = 65521
MTU_MAX: Final = 65535
_NEIGHBOUR_MS: Final = {
    "base_reachable_time_ms": "5000",
    "delay_first_probe_time": "2",
    "ucast_solicit": "1",
}


@dataclass(slots=True, frozen=True)
class BridgeLayout:
    """What should be there. ``mac`` is the peer name with the multicast bit masked."""

    bridge: str
    mac: str
    mtu: int
    capture: str
    port: str = BRIDGE_PORT

    @property
    def port_mtu(self) -> int:
        """MTU of the port, whatever the bridge's: as large as it can be.

        A bridge drops without a word what is longer than the MTU of the port it leaves by, and a
        container may have another MTU than the bridge: by hand, or from the router before us.
        Here such packets are cut or answered.
        """
        return TAP_MTU_MAX if self.capture == "tap" else MTU_MAX


def check_foreign(layout: BridgeLayout, *, adopted: bool = False) -> None:
    """Refuse a host on which the names are taken by something that is not ours; changes nothing.

    ``adopted``: :func:`capture.adopt.adopt` was here before, so a datapath may be left.

    Raises:
        CaptureError: names the device and the remedy.
        NetlinkError: netlink itself failed.
    """
    with netlink(layout.bridge) as ip:
        if not adopted and find_link(ip, FAST_DATAPATH) is not None:
            raise CaptureError(
                "use",
                FAST_DATAPATH,
                "a Weave Net fast datapath exists on this host; stop Weave Net, then start with"
                " --adopt, which keeps its containers, or run `weave reset`, which does not",
            )
        bridge = find_link(ip, layout.bridge)
        if bridge is not None and kind_of(bridge) != "bridge":
            raise CaptureError(
                "use",
                layout.bridge,
                f"a device of that name exists and is a {kind_of(bridge) or 'plain link'}, not a"
                " bridge; name another with --weave-bridge",
            )
        port = find_link(ip, layout.port)
        if port is None:
            return
        wanted = "tun" if layout.capture == "tap" else "veth"
        if kind_of(port) != wanted:
            raise CaptureError(
                "use",
                layout.port,
                f"a device of that name exists and is a {kind_of(port) or 'plain link'}, not a"
                f" {wanted}; if it is of Weave Net, stop that and start with --adopt, or remove it"
                f" with `ip link delete {layout.port}`",
            )
        master = port.get_attr("IFLA_MASTER")
        if master and (bridge is None or master != bridge["index"]):
            owner = _name_of(ip, master)
            raise CaptureError(
                "use", layout.port, f"it is a port of {owner}; that bridge has a router already"
            )


def ensure_bridge(layout: BridgeLayout) -> list[str]:
    """Make or mend the bridge itself; what was changed, for log and counters.

    Raises:
        NetlinkError: the kernel refused.
    """
    changed: list[str] = []
    with netlink(layout.bridge) as ip:
        bridge = find_link(ip, layout.bridge)
        if bridge is None:
            # the MAC comes after creation: older kernels lack the local entry otherwise
            ip.link("add", ifname=layout.bridge, kind="bridge", br_mcast_snooping=0)
            changed.append("bridge created")
            bridge = find_link(ip, layout.bridge)
            if bridge is None:
                raise NetlinkError("find", layout.bridge, "gone just after it was made")
        index = bridge["index"]
        if bridge.get_attr("IFLA_ADDRESS") != layout.mac:
            ip.link("set", index=index, address=layout.mac)
        if bridge.get_attr("IFLA_MTU") != layout.mtu:
            # once set explicitly the bridge no longer follows its ports
            ip.link("set", index=index, mtu=layout.mtu)
        if _snoops(bridge):
            # snooping plus any querier would keep groups from the router's port
            ip.link("set", index=index, kind="bridge", br_mcast_snooping=0)
        _sysctls(layout.bridge)
        if not _is_up(bridge):
            ip.link("set", index=index, state="up")
            if not changed:
                changed.append("bridge set up")
    return changed


def ensure_port(layout: BridgeLayout) -> list[str]:
    """Join the port, which exists, to the bridge and bring it up; what was changed.

    Raises:
        NetlinkError: the port or the bridge is missing, or the kernel refused.
    """
    changed: list[str] = []
    mtu = layout.port_mtu
    with netlink(layout.port) as ip:
        port = find_link(ip, layout.port)
        bridge = find_link(ip, layout.bridge)
        if port is None or bridge is None:
            missing = layout.port if port is None else layout.bridge
            raise NetlinkError("find", missing, "no such device", errno.ENODEV)
        index = port["index"]
        if port.get_attr("IFLA_MTU") != mtu:
            ip.link("set", index=index, mtu=mtu)
        if port.get_attr("IFLA_MASTER") != bridge["index"]:
            ip.link("set", index=index, master=bridge["index"])
            changed.append("port joined to the bridge")
        _sysctls(layout.port)
        if not _is_up(port):
            ip.link("set", index=index, state="up")
            if not changed:
                changed.append("port set up")
        if layout.capture == "packet":
            changed += _ensure_far_end(ip, mtu)
        # a port that joined may have shrunk a bridge whose MTU was never set by hand
        bridge = find_link(ip, layout.bridge)
        if bridge is not None and bridge.get_attr("IFLA_MTU") != layout.mtu:
            ip.link("set", index=bridge["index"], mtu=layout.mtu)
    return changed


def ensure_pair(layout: BridgeLayout) -> list[str]:
    """Make the veth pair of the packet capture if it is missing.

    Raises:
        NetlinkError: the kernel refused.
    """
    with netlink(layout.port) as ip:
        if find_link(ip, layout.port) is not None:
            return []
        ip.link("add", ifname=layout.port, kind="veth", peer={"ifname": PACKET_END})
        return ["veth pair created"]


def remove_pair_if_new(layout: BridgeLayout, changed: list[str]) -> None:
    """Undo :func:`ensure_pair` after a failed start."""
    if "veth pair created" in changed:
        with netlink(layout.port) as ip:
            port = find_link(ip, layout.port)
            if port is not None:
                ip.link("del", index=port["index"])


def _ensure_far_end(ip: Any, mtu: int) -> list[str]:
    end = find_link(ip, PACKET_END)
    if end is None:
        raise NetlinkError("find", PACKET_END, "no such device", errno.ENODEV)
    if end.get_attr("IFLA_MTU") != mtu:
        ip.link("set", index=end["index"], mtu=mtu)
    _sysctls(PACKET_END)
    if _is_up(end):
        return []
    ip.link("set", index=end["index"], state="up")
    return [f"{PACKET_END} set up"]


@contextmanager
def netlink(subject: str) -> Iterator[Any]:
    """One netlink socket; kernel refusals become ours.

    Raises:
        NetlinkError: the kernel refused, or there is no socket.
    """
    try:
        with IPRoute() as ip:
            yield ip
    except KernelRefusal as err:
        reason = "permission denied; run as root" if err.code in (1, 13) else str(err.args[1])
        raise NetlinkError("configure", subject, reason, err.code) from err
    except OSError as err:
        raise NetlinkError("configure", subject, str(err.strerror), err.errno or 0) from err


def find_link(ip: Any, name: str) -> Any | None:
    """The link of that name, None if there is none."""
    try:
        found = ip.link("get", ifname=name)
    except KernelRefusal as err:
        if err.code == errno.ENODEV:
            return None
        raise
    return found[0] if found else None


def _name_of(ip: Any, index: int) -> str:
    found = ip.link("get", index=index)
    return str(found[0].get_attr("IFLA_IFNAME")) if found else f"device {index}"


def kind_of(link: Any) -> str:
    """``bridge``, ``veth``, ``tun``, ...; "" for a plain device."""
    info = link.get_attr("IFLA_LINKINFO")
    return str(info.get_attr("IFLA_INFO_KIND") or "") if info is not None else ""


def _snoops(bridge: Any) -> bool:
    info = bridge.get_attr("IFLA_LINKINFO")
    data = info.get_attr("IFLA_INFO_DATA") if info is not None else None
    return data is None or bool(data.get_attr("IFLA_BR_MCAST_SNOOPING"))


def _is_up(link: Any) -> bool:
    return bool(link["flags"] & 1)


def _sysctls(interface: str) -> None:
    """Neighbour timing, no router advertisements (CVE-2020-11091); what is missing is skipped."""
    for family in ("ipv4", "ipv6"):
        for key, value in _NEIGHBOUR_MS.items():
            _write(Path(f"/proc/sys/net/{family}/neigh/{interface}/{key}"), value)
    _write(Path(f"/proc/sys/net/ipv6/conf/{interface}/accept_ra"), "0")


def _write(path: Path, value: str) -> None:
    try:
        if path.read_text(encoding="ascii").strip() != value:
            path.write_text(value, encoding="ascii")
    except FileNotFoundError:
        return  # IPv6 is off, or a kernel without the setting
    except OSError as err:
        log.warning("sysctl not set", extra={"kv": {"path": str(path), "err": str(err)}})
