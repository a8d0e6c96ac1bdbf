"""The netlink requests that an attachment consists of, as :mod:`cni.rtnetlink` takes them."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final

from pyroute2.netlink import nlmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.nsidmsg import nsidmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from cni import rtnetlink as rt
from cni.rtnetlink import Request

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MULTICAST: Final = ipaddress.IPv4Network("224.0.0.0/4")

_IFF_UP: Final = 1
_SKIP_STATS: Final = 8
_NODAD: Final = 0x02
_SCOPE_LINK: Final = 253
_TABLE_MAIN: Final = 254
#: As by hand and by Weave Net.
_PROTO_BOOT: Final = 3
_UNICAST: Final = 1


@dataclass(slots=True, frozen=True)
class Route:
    """Into ``destination``, by ``gateway`` or directly."""

    destination: Network
    gateway: Address | None = None


def host_network(address: Address) -> Network:
    """The network that holds only ``address``."""
    if isinstance(address, ipaddress.IPv4Address):
        return ipaddress.IPv4Network(address)
    return ipaddress.IPv6Network(address)


class _AddressesOf(nlmsg):  # type: ignore[misc]
    """A request for addresses of another namespace, whose number pyroute2 0.9 takes for text."""

    fields = ifaddrmsg.fields
    nla_map = ((10, "IFA_TARGET_NETNSID", "int32"),)


def _link(attributes: list[tuple[str, Any]], **fields: int) -> Any:
    body = ifinfmsg()
    for name, value in fields.items():
        body[name] = value
    body["attrs"] = attributes
    return body


def get_link(name: str) -> Request:
    """A link by its name."""
    return Request(rt.GETLINK, _link([("IFLA_IFNAME", name), ("IFLA_EXT_MASK", _SKIP_STATS)]), name)


def get_link_of(index: int, *, netnsid: int | None = None) -> Request:
    """A link by its index, here or in the namespace that we know as ``netnsid``."""
    attributes: list[tuple[str, Any]] = [("IFLA_EXT_MASK", _SKIP_STATS)]
    if netnsid is not None:
        attributes.append(("IFLA_IF_NETNSID", netnsid))
    return Request(rt.GETLINK, _link(attributes, index=index), f"device {index}")


def list_links(*, master: int | None = None) -> Request:
    """All veths, or those on one bridge."""
    attributes: list[tuple[str, Any]] = [
        ("IFLA_EXT_MASK", _SKIP_STATS),
        ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "veth")]}),
    ]
    if master is not None:
        attributes.append(("IFLA_MASTER", master))
    return Request(rt.GETLINK, _link(attributes), "links", rt.DUMP)


@dataclass(slots=True, frozen=True)
class Pair:
    """A pair of interfaces to make: the host's end on ``bridge``, the other in ``netns_fd``."""

    host_ifname: str
    ifname: str
    bridge: int
    netns_fd: int
    mtu: int
    mac: str | None = None


def make_pair(pair: Pair) -> Request:
    """Both ends at once, the far one born in its namespace under its final name; both down."""
    far: list[tuple[str, Any]] = [
        ("IFLA_IFNAME", pair.ifname),
        ("IFLA_MTU", pair.mtu),
        ("IFLA_NET_NS_FD", pair.netns_fd),
    ]
    if pair.mac is not None:
        far.append(("IFLA_ADDRESS", pair.mac))
    info = [
        ("IFLA_INFO_KIND", "veth"),
        ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", {"attrs": far})]}),
    ]
    attributes = [
        ("IFLA_IFNAME", pair.host_ifname),
        ("IFLA_MTU", pair.mtu),
        ("IFLA_MASTER", pair.bridge),
        ("IFLA_LINKINFO", {"attrs": info}),
    ]
    return Request(rt.NEWLINK, _link(attributes), pair.host_ifname, rt.MAKE)


def make_cable(name: str, other: str, *, mtu: int) -> Request:
    """A pair with both ends here, both down."""
    far = [("IFLA_IFNAME", other), ("IFLA_MTU", mtu)]
    info = [
        ("IFLA_INFO_KIND", "veth"),
        ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", {"attrs": far})]}),
    ]
    attributes = [("IFLA_IFNAME", name), ("IFLA_MTU", mtu), ("IFLA_LINKINFO", {"attrs": info})]
    return Request(rt.NEWLINK, _link(attributes), name, rt.MAKE)


def finish_host_end(index: int, name: str, alias: str, *, hairpin: bool) -> Request:
    """Alias, hairpin and up; the link is on its bridge already."""
    port = {"attrs": [("IFLA_BRPORT_MODE", int(hairpin))]}
    info = [("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", port)]
    attributes: list[tuple[str, Any]] = [
        ("IFLA_IFALIAS", alias),
        ("IFLA_LINKINFO", {"attrs": info}),
    ]
    return Request(rt.NEWLINK, _link(attributes, index=index, flags=_IFF_UP, change=_IFF_UP), name)


def join(index: int, name: str, bridge: int) -> Request:
    """Make a link a port of a bridge; 0 for none."""
    return Request(rt.NEWLINK, _link([("IFLA_MASTER", bridge)], index=index), name)


def set_up(index: int, name: str) -> Request:
    """Set a link up."""
    return Request(rt.NEWLINK, _link([], index=index, flags=_IFF_UP, change=_IFF_UP), name)


def delete_link(index: int, name: str) -> Request:
    """Delete a link, and with one end of a pair the other."""
    return Request(rt.DELLINK, _link([], index=index), name)


def _address(index: int, address: Interface) -> Any:
    body = ifaddrmsg()
    body["index"] = index
    body["family"] = socket.AF_INET if address.version == 4 else socket.AF_INET6
    body["prefixlen"] = address.network.prefixlen
    body["attrs"] = [("IFA_LOCAL", str(address.ip)), ("IFA_ADDRESS", str(address.ip))]
    return body


def add_address(index: int, address: Interface) -> Request:
    """Add an address; of IPv6 at once valid, since no two peers hand out the same."""
    body = _address(index, address)
    if address.version == 6:
        body["flags"] = _NODAD
    elif address.network.prefixlen < 31:
        broadcast = ("IFA_BROADCAST", str(address.network.broadcast_address))
        body["attrs"] = [*body["attrs"], broadcast]
    return Request(rt.NEWADDR, body, str(address), rt.MAKE)


def delete_address(index: int, address: Interface) -> Request:
    """Take an address away."""
    return Request(rt.DELADDR, _address(index, address), str(address))


def list_addresses(index: int, *, netnsid: int | None = None) -> Request:
    """Addresses of a link, here or in the namespace that we know as ``netnsid``."""
    body = ifaddrmsg() if netnsid is None else _AddressesOf()
    body["index"] = index
    body["attrs"] = [] if netnsid is None else [("IFA_TARGET_NETNSID", netnsid)]
    return Request(rt.GETADDR, body, f"addresses of device {index}", rt.DUMP)


def add_route(index: int, route: Route, *, on_link: bool = False) -> Request:
    """A route in the main table; ``on_link``: no gateway, reachable on this very link."""
    body = rtmsg()
    body["family"] = socket.AF_INET if route.destination.version == 4 else socket.AF_INET6
    body["dst_len"] = route.destination.prefixlen
    body["table"] = _TABLE_MAIN
    body["proto"] = _PROTO_BOOT
    body["type"] = _UNICAST
    attributes: list[tuple[str, Any]] = [("RTA_OIF", index)]
    if route.destination.prefixlen:
        attributes.append(("RTA_DST", str(route.destination.network_address)))
    if route.gateway is not None:
        attributes.append(("RTA_GATEWAY", str(route.gateway)))
    if on_link or route.gateway is None:
        body["scope"] = _SCOPE_LINK
    body["attrs"] = attributes
    return Request(rt.NEWROUTE, body, f"route {route.destination}", rt.MAKE)


def add_routes(index: int, routes: Iterable[Route], networks: Collection[Network]) -> list[Request]:
    """``routes`` by a link with addresses of ``networks``; to a gateway outside a route first."""
    made: list[Request] = []
    reachable: set[Address] = set()
    for route in routes:
        gateway = route.gateway
        if (
            gateway is not None
            and gateway not in reachable
            and not any(gateway in network for network in networks)
        ):
            reachable.add(gateway)
            made.append(add_route(index, Route(host_network(gateway)), on_link=True))
        made.append(add_route(index, route))
    return made


def list_routes(index: int, version: int) -> Request:
    """Routes of the main table that leave by a link; ``version`` 4 or 6."""
    body = rtmsg()
    body["family"] = socket.AF_INET if version == 4 else socket.AF_INET6
    body["table"] = _TABLE_MAIN
    body["attrs"] = [("RTA_OIF", index)]
    return Request(rt.GETROUTE, body, f"routes of device {index}", rt.DUMP)


def get_nsid(netns_fd: int) -> Request:
    """Our number for a namespace; -1 when it has none."""
    body = nsidmsg()
    body["rtgen_family"] = socket.AF_UNSPEC
    body["attrs"] = [("NETNSA_FD", netns_fd)]
    return Request(rt.GETNSID, body, "the namespace's number")
