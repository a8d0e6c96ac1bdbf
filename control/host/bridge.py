"""The bridge as the kernel has it: addresses, settings, the port to the router. Blocking netlink.

The router makes the bridge and its port, and sees to MAC, MTU, state, neighbour timing,
``accept_ra`` and multicast snooping. What only the packet filter and the host need is done here:
bridged frames pass iptables on this one bridge, no spanning tree, no hairpin towards the router.
Every function works in the network namespace of its calling thread.

Source of truth: node specification 2.2 to 2.5 and 4.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any, Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError as KernelRefusal

from base.errors import NetlinkError
from cni.bridges import OUR_END as CABLE
from control.host.devices import FAST_DATAPATH, PORT

#: Of the calling thread's namespace, a line for each device; names only, so cheap with thousands.
_DEVICES: Final = Path("/proc/thread-self/net/dev")
_GLOBAL_NF_CALL: Final = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
_AF_INET: Final = 2


@dataclass(slots=True, frozen=True)
class BridgeState:
    """``index`` differs once the bridge was made anew. ``nf_call``: bridged packets pass iptables,
    by the bridge's own setting or by that of all bridges. ``port_hairpin``: None without a port.
    ``joined``: a cable to another bridge of this host is plugged in.
    """

    index: int
    kind: str
    up: bool
    mac: str
    mtu: int
    stp: bool
    snooping: bool
    nf_call: bool
    port_hairpin: bool | None
    joined: bool
    addresses: tuple[IPv4Interface, ...]


def read(bridge: str, port: str = PORT) -> BridgeState | None:
    """How the bridge is; None if there is no device of that name.

    Raises:
        NetlinkError: netlink failed.
    """
    with netlink("read", bridge) as ip:
        link = find_link(ip, bridge)
        if link is None:
            return None
        data = _info(link, "IFLA_INFO_DATA")
        return BridgeState(
            index=link["index"],
            kind=kind_of(link),
            up=bool(link["flags"] & 1),
            mac=str(link.get_attr("IFLA_ADDRESS")),
            mtu=int(link.get_attr("IFLA_MTU")),
            stp=_flag(data, "IFLA_BR_STP_STATE"),
            snooping=_flag(data, "IFLA_BR_MCAST_SNOOPING"),
            nf_call=_flag(data, "IFLA_BR_NF_CALL_IPTABLES") or global_nf_call(),
            port_hairpin=_hairpin(find_link(ip, port), link["index"]),
            joined=_joined(ip, link["index"]),
            addresses=_addresses(ip, link["index"]),
        )


@dataclass(slots=True, frozen=True)
class Predecessor:
    """What may be of a Weave Net router: ``pair`` says that the port is a veth, ``other_end`` what
    this host has of its other end, ``is_read`` that a packet socket is bound to that, and
    ``datapath`` that there is a device of that name.
    """

    pair: bool
    other_end: str
    is_read: bool
    datapath: bool


def predecessor(port: str = PORT) -> Predecessor:
    """Look for traces of the router before us.

    Raises:
        NetlinkError: netlink failed.
    """
    with netlink("read", port) as ip:
        link = find_link(ip, port)
        pair = link is not None and kind_of(link) == "veth"
        other_end, is_read = "", False
        if link is not None and pair and (index := link.get_attr("IFLA_LINK")):
            found = ip.link("get", index=index)
            other_end = str(found[0].get_attr("IFLA_IFNAME")) if found else ""
            is_read = index in _indexes_read()
        return Predecessor(pair, other_end, is_read, find_link(ip, FAST_DATAPATH) is not None)


def _indexes_read(table: Path = Path("/proc/thread-self/net/packet")) -> set[int]:
    """Interfaces that packet sockets of this network namespace are bound to."""
    rows = table.read_text(encoding="ascii").splitlines()[1:]
    return {int(row.split()[4]) for row in rows}


def settle(bridge: str, port: str = PORT) -> list[str]:
    """Set what has to be set; what was changed, in words. No bridge: nothing.

    Raises:
        NetlinkError: the kernel refused.
    """
    state = read(bridge, port)
    if state is None or state.kind != "bridge":
        return []
    changed: list[str] = []
    with netlink("configure", bridge) as ip:
        if not state.nf_call:
            ip.link("set", index=state.index, kind="bridge", br_nf_call_iptables=1)
            changed.append("bridged packets pass iptables")
        if state.stp:
            ip.link("set", index=state.index, kind="bridge", br_stp_state=0)
            changed.append("spanning tree off")
        if state.port_hairpin and (link := find_link(ip, port)) is not None:
            ip.brport("set", index=link["index"], mode=0)
            changed.append(f"hairpin off on {port}")
    return changed


def add_address(bridge: str, address: IPv4Interface) -> bool:
    """Give the bridge an address; False if it has it.

    Raises:
        NetlinkError: there is no such bridge, or the kernel refused.
    """
    with netlink("add address to", bridge) as ip:
        index = _index(ip, bridge)
        if address in _addresses(ip, index):
            return False
        try:
            ip.addr(
                "add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen
            )
        except KernelRefusal as err:
            if err.code != errno.EEXIST:
                raise
            return False
        return True


def remove_address(bridge: str, address: IPv4Interface) -> bool:
    """Take an address from the bridge, leaving the others of its subnet; False if it has it not.

    Raises:
        NetlinkError: the kernel refused.
    """
    with netlink("remove address from", bridge) as ip:
        link = find_link(ip, bridge)
        if link is None:
            return False
        before = _addresses(ip, link["index"])
        if address not in before:
            return False
        prefix = {"prefixlen": address.network.prefixlen}
        ip.addr("del", index=link["index"], address=str(address.ip), **prefix)
        # the first address of a subnet takes the others with it
        after = set(_addresses(ip, link["index"]))
        for other in before:
            if other != address and other not in after:
                length = other.network.prefixlen
                ip.addr("add", index=link["index"], address=str(other.ip), prefixlen=length)
        return True


def global_nf_call(path: Path = _GLOBAL_NF_CALL) -> bool:
    """Whether the packets of every bridge pass iptables."""
    try:
        return path.read_text(encoding="ascii").strip() == "1"
    except OSError:
        return False  # br_netfilter is not loaded


@contextmanager
def netlink(operation: str, subject: str) -> Iterator[Any]:
    """One netlink socket; kernel refusals become ours."""
    with map_refusals(operation, subject), IPRoute() as ip:
        yield ip


@contextmanager
def map_refusals(operation: str, subject: str) -> Iterator[None]:
    """Raise NetlinkError for what netlink raises."""
    try:
        yield
    except KernelRefusal as err:
        denied = err.code in (errno.EPERM, errno.EACCES)
        reason = "permission denied; run as root" if denied else str(err.args[1])
        raise NetlinkError(operation, subject, reason, err.code) from err
    except OSError as err:
        raise NetlinkError(operation, subject, str(err.strerror), err.errno or 0) from err


def find_link(ip: Any, name: str) -> Any | None:
    """The link of that name, None if there is none."""
    try:
        found = ip.link("get", ifname=name)
    except KernelRefusal as err:
        if err.code == errno.ENODEV:
            return None
        raise
    return found[0] if found else None


def kind_of(link: Any) -> str:
    """``bridge``, ``veth``, ``tun``, ...; "" for a plain device."""
    info = link.get_attr("IFLA_LINKINFO")
    return str(info.get_attr("IFLA_INFO_KIND") or "") if info is not None else ""


def _index(ip: Any, bridge: str) -> int:
    link = find_link(ip, bridge)
    if link is None:
        raise NetlinkError("find", bridge, "no such bridge; is the router running?", errno.ENODEV)
    return int(link["index"])


def _addresses(ip: Any, index: int) -> tuple[IPv4Interface, ...]:
    return tuple(
        IPv4Interface((each.get_attr("IFA_LOCAL"), each["prefixlen"]))
        for each in ip.get_addr(index=index, family=_AF_INET)
    )


def _info(link: Any, part: str) -> Any | None:
    info = link.get_attr("IFLA_LINKINFO")
    return info.get_attr(part) if info is not None else None


def _flag(data: Any | None, name: str) -> bool:
    return data is not None and bool(data.get_attr(name))


def _hairpin(port: Any | None, bridge_index: int) -> bool | None:
    if port is None or port.get_attr("IFLA_MASTER") != bridge_index:
        return None
    return _flag(_info(port, "IFLA_INFO_SLAVE_DATA"), "IFLA_BRPORT_MODE")


def _joined(ip: Any, bridge_index: int) -> bool:
    lines = _DEVICES.read_text(encoding="utf-8", errors="replace").splitlines()
    names = (line.partition(":")[0].strip() for line in lines)
    cables = (find_link(ip, name) for name in names if name.startswith(CABLE))
    return any(
        cable is not None and cable.get_attr("IFLA_MASTER") == bridge_index for cable in cables
    )
