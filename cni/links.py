"""What the kernel says of one interface, as far as attachments need it."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Any, Final

from cni import requests as req
from cni.rtnetlink import RouteSocket

_FORWARDING: Final = 3


@dataclass(slots=True, frozen=True)
class Link:
    """An interface. Indexes are 0 and texts "" where there is none.

    ``peer_index`` is the other end's of a pair, in its own namespace, which we know as
    ``peer_nsid`` (None: ours). ``bridge`` is the bridge's index. ``hairpin`` and ``forwards`` are
    those of a bridge's port.
    """

    index: int
    name: str
    kind: str
    mac: str
    mtu: int
    up: bool
    alias: str
    bridge: int
    peer_index: int
    peer_nsid: int | None
    hairpin: bool
    forwards: bool


def read_link(message: Any) -> Link:
    """From pyroute2's message."""
    info = message.get_attr("IFLA_LINKINFO")
    port: Any = None
    if info is not None and info.get_attr("IFLA_INFO_SLAVE_KIND") == "bridge":
        port = info.get_attr("IFLA_INFO_SLAVE_DATA")
    return Link(
        index=message["index"],
        name=message.get_attr("IFLA_IFNAME"),
        kind=(info.get_attr("IFLA_INFO_KIND") or "") if info is not None else "",
        mac=message.get_attr("IFLA_ADDRESS") or "",
        mtu=message.get_attr("IFLA_MTU") or 0,
        up=bool(message["flags"] & 1),
        alias=message.get_attr("IFLA_IFALIAS") or "",
        bridge=message.get_attr("IFLA_MASTER") or 0,
        peer_index=message.get_attr("IFLA_LINK") or 0,
        peer_nsid=message.get_attr("IFLA_LINK_NETNSID"),
        hairpin=port is not None and bool(port.get_attr("IFLA_BRPORT_MODE")),
        forwards=port is not None and port.get_attr("IFLA_BRPORT_STATE") == _FORWARDING,
    )


def find_link(netlink: RouteSocket, name: str) -> Link | None:
    """A link by name, None when there is none.

    Raises:
        NetlinkError: the kernel refused.
    """
    answer = netlink.one(req.get_link(name), errno.ENODEV)
    return read_link(answer.found[0]) if answer.found else None


def find_link_of(netlink: RouteSocket, index: int, *, netnsid: int | None = None) -> Link | None:
    """A link by index, here or in the namespace that we know as ``netnsid``; raises as above."""
    answer = netlink.one(req.get_link_of(index, netnsid=netnsid), errno.ENODEV)
    return read_link(answer.found[0]) if answer.found else None
