"""What is attached to a bridge, by what the host's ends say of themselves.

Nothing here needs a path to a container's namespace: the kernel shows its interface and addresses
by the number under which it knows the namespace of the other end. So an attachment is found again
when the records are lost, and without a view of the host's processes.

Source of truth: node specification 6.4.
"""

from __future__ import annotations

import errno
import ipaddress
from dataclasses import dataclass
from typing import Any

from base.errors import NetlinkError
from cni import requests as req
from cni.links import Link, find_link, find_link_of, read_link
from cni.names import HOST_PREFIX, Alias, host_ifname
from cni.netns import Netns
from cni.requests import Interface
from cni.rtnetlink import RouteSocket


@dataclass(slots=True, frozen=True)
class HostEnd:
    """The host's end of a container's pair.

    ``alias`` None: not of our making, or made and never finished. ``bridge`` is "" for none.
    """

    link: Link
    alias: Alias | None
    bridge: str


@dataclass(slots=True, frozen=True)
class ContainerEnd:
    """The container's end, as seen from the host."""

    ifname: str
    mac: str
    mtu: int
    up: bool
    addresses: tuple[Interface, ...]


def host_ends(host: RouteSocket, bridge: str = "") -> list[HostEnd]:
    """Host's ends of containers, all or those on ``bridge``, in the order of their making.

    An end counts if its name is one that we give; its alias counts if it fits the name.

    Raises:
        NetlinkError: the kernel refused.
    """
    master: int | None = None
    if bridge:
        found = find_link(host, bridge)
        if found is None:
            return []
        master = found.index
    ends = []
    names: dict[int, str] = {}
    for message in host.one(req.list_links(master=master)).found:
        link = read_link(message)
        if not link.name.startswith(HOST_PREFIX):
            continue
        if link.bridge and link.bridge not in names:
            port_of = find_link_of(host, link.bridge)
            names[link.bridge] = "" if port_of is None else port_of.name
        ends.append(HostEnd(link, _alias_of(link), names.get(link.bridge, "")))
    return sorted(ends, key=lambda end: end.link.index)


def _alias_of(link: Link) -> Alias | None:
    alias = Alias.parse(link.alias)
    if alias is None:
        return None
    names = [host_ifname(alias.container, alias.ifname, legacy=each) for each in (False, True)]
    return alias if link.name in names else None


def container_end(host: RouteSocket, link: Link) -> ContainerEnd | None:
    """The other end of ``link``; None when it cannot be seen.

    Raises:
        NetlinkError: the kernel refused.
    """
    if not link.peer_index or link.peer_nsid is None or link.peer_nsid < 0:
        return None
    try:
        far = find_link_of(host, link.peer_index, netnsid=link.peer_nsid)
        if far is None:
            return None
        request = req.list_addresses(link.peer_index, netnsid=link.peer_nsid)
        found = host.one(request).found
    except NetlinkError as err:
        if err.errno in (errno.EINVAL, errno.ENONET, errno.ENODEV):
            return None  # its namespace is going at this moment
        raise
    return ContainerEnd(far.name, far.mac, far.mtu, far.up, read_addresses(found, far.index))


def is_other_end_in(host: RouteSocket, link: Link, netns: Netns) -> bool:
    """Whether the other end of ``link`` is in ``netns``.

    Raises:
        NetlinkError: the kernel refused.
    """
    (found,) = host.one(req.get_nsid(netns.fileno())).found
    number = found.get_attr("NETNSA_NSID")
    return number is not None and link.peer_nsid is not None and number == link.peer_nsid


def read_addresses(messages: list[Any], index: int) -> tuple[Interface, ...]:
    """Addresses of interface ``index`` from pyroute2's messages; those of the link left out."""
    found: list[Interface] = []
    for message in messages:
        text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        if message["index"] == index and text:
            address = ipaddress.ip_interface(f"{text}/{message['prefixlen']}")
            if not address.is_link_local:
                found.append(address)
    return tuple(found)
