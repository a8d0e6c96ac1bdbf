"""Whether an attachment is still what it was when it was made, and mending what can be mended.

Source of truth: node specification 6.4, cni specification 6 (CHECK).
"""

from __future__ import annotations

import errno
import ipaddress
from typing import Any

from cni import requests as req
from cni.attach import Wanted
from cni.inventory import is_other_end_in, read_addresses
from cni.links import Link, find_link
from cni.names import Alias
from cni.netns import Netns
from cni.requests import Route
from cni.rtnetlink import RouteSocket
from cni.sysctl import guard_problems


def problems(
    host: RouteSocket, netns: Netns, wanted: Wanted, *, host_name: str = "", mac: str = ""
) -> list[str]:
    """What is missing or different, as sentences; none when all is well.

    More addresses and routes than wanted are no problem. ``mac`` "" and ``wanted.mtu`` None are not
    compared; ``host_name`` "" is what we would call the host's end.

    Raises:
        NetlinkError: the kernel refused to tell.
    """
    found: list[str] = []
    outer = find_link(host, host_name or wanted.host_ifname)
    with netns.run(RouteSocket) as inside:
        inner = find_link(inside, wanted.ifname)
        if inner is None:
            return [f"{wanted.ifname} is missing"]
        if mac and inner.mac != mac:
            found.append(f"{wanted.ifname} has MAC {inner.mac}, not {mac}")
        if wanted.mtu is not None and inner.mtu != wanted.mtu:
            found.append(f"{wanted.ifname} has MTU {inner.mtu}, not {wanted.mtu}")
        if not inner.up:
            found.append(f"{wanted.ifname} is down")
        here = read_addresses(inside.one(req.list_addresses(inner.index)).found, inner.index)
        found += [f"address {each} is missing" for each in wanted.addresses if each not in here]
        found += _missing_routes(inside, inner.index, wanted)
    found += netns.run(lambda: guard_problems(wanted.ifname))
    found += _host_problems(host, netns, wanted, outer, inner)
    return found


def host_problems(host: RouteSocket, wanted: Wanted, *, host_name: str = "") -> list[str]:
    """The part of :func:`problems` that can be told without the container's namespace.

    Raises:
        NetlinkError: the kernel refused to tell.
    """
    return _host_problems(host, None, wanted, find_link(host, host_name or wanted.host_ifname))


def _host_problems(
    host: RouteSocket,
    netns: Netns | None,
    wanted: Wanted,
    outer: Link | None,
    inner: Link | None = None,
) -> list[str]:
    if outer is None:
        return [f"the host's end of {wanted.ifname} is missing"]
    found = []
    if not _is_of(outer, wanted):
        found.append(f"{outer.name} is another's")
    elif (
        inner is not None
        and netns is not None
        and (outer.peer_index != inner.index or not is_other_end_in(host, outer, netns))
    ):
        found.append(f"{wanted.ifname} is not the other end of {outer.name}")
    bridge = find_link(host, wanted.bridge)
    if bridge is None:
        found.append(f"bridge {wanted.bridge} is missing")
    elif outer.bridge != bridge.index:
        found.append(f"{outer.name} is not on bridge {wanted.bridge}")
    elif outer.hairpin != wanted.hairpin:
        found.append(f"hairpin of {outer.name} is {'on' if outer.hairpin else 'off'}")
    if not outer.up:
        found.append(f"{outer.name} is down")
    return found


def mend_host_end(host: RouteSocket, wanted: Wanted, *, host_name: str = "") -> list[str]:
    """Put the host's end back on its bridge and up; what was changed.

    A bridge that was deleted and made again has lost its ports, the containers' ends included. One
    that somebody has put on another bridge stays there.

    Raises:
        NetlinkError: the kernel refused.
    """
    outer = find_link(host, host_name or wanted.host_ifname)
    bridge = find_link(host, wanted.bridge)
    if outer is None or bridge is None or not _is_of(outer, wanted):
        return []
    if outer.bridge not in (0, bridge.index):
        return []
    changed = []
    if not outer.bridge:
        host.one(req.join(outer.index, outer.name, bridge.index))
        changed.append(f"{outer.name} joined to {wanted.bridge}")
    if changed or not outer.up or outer.hairpin != wanted.hairpin:
        host.one(req.finish_host_end(outer.index, outer.name, outer.alias, hairpin=wanted.hairpin))
        changed = changed or [f"{outer.name} set up"]
    return changed


def _is_of(link: Link, wanted: Wanted) -> bool:
    alias = Alias.parse(link.alias)
    return alias is not None and alias.names(wanted.container, wanted.ifname)


def _missing_routes(inside: RouteSocket, index: int, wanted: Wanted) -> list[str]:
    routes: list[Route] = list(wanted.routes)
    if wanted.multicast_route:
        routes.append(Route(req.MULTICAST))
    if not routes:
        return []
    here = _routes_of(inside, index, {route.destination.version for route in routes})
    return [
        f"route {route.destination} is missing"
        for route in routes
        if (str(route.destination), _text(route.gateway)) not in here
    ]


def _routes_of(inside: RouteSocket, index: int, versions: set[int]) -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for version in versions:
        messages = inside.one(req.list_routes(index, version), errno.EAFNOSUPPORT).found
        found |= {_route_of(message, version) for message in messages}
    return found


def _route_of(message: Any, version: int) -> tuple[str, str]:
    everywhere = "0.0.0.0" if version == 4 else "::"
    destination = f"{message.get_attr('RTA_DST') or everywhere}/{message['dst_len']}"
    return str(ipaddress.ip_network(destination)), _text(message.get_attr("RTA_GATEWAY"))


def _text(gateway: object) -> str:
    return "" if gateway is None else str(gateway)
