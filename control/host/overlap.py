"""Does a range of the overlay collide with what this host can already reach?

Only routes with a destination count, of every table but that of local addresses; those of our own
bridge never. Source of truth: node specification 10 (overlap check).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any, Final

from base.errors import ConfigError
from control.host.bridge import netlink

_AF_INET: Final = 2
_TABLE_LOCAL: Final = 255
#: unicast, blackhole, unreachable, prohibit, throw, nat
_ROUTE_TYPES: Final = (1, 6, 7, 8, 9, 10)
#: Where suggestions come from: private, shared (RFC 6598) and benchmark (RFC 2544) addresses.
_BLOCKS: Final = tuple(
    IPv4Network(text)
    for text in (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "198.18.0.0/15",
    )
)
SUGGESTIONS: Final = 3


class OverlapError(ConfigError):
    """The range, or the address, is one that the host has a route to."""


@dataclass(slots=True, frozen=True)
class HostRoute:
    """Where the host sends what is for ``network``; ``device`` "" for none."""

    network: IPv4Network
    device: str


def host_routes(ignored: Iterable[str] = ()) -> list[HostRoute]:
    """The host's routes but those by the interfaces ``ignored``. Blocking.

    Raises:
        NetlinkError: netlink failed.
    """
    skipped = set(ignored)
    with netlink("list", "routes") as ip:
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in ip.get_links()}
        found = [
            HostRoute(network, names.get(_device(route), ""))
            for route in ip.get_routes(family=_AF_INET)
            if (network := _destination(route)) is not None
        ]
    return [route for route in found if route.device not in skipped]


def find_overlap(
    range_: IPv4Network, routes: Iterable[HostRoute], allowed: Sequence[IPv4Network] = ()
) -> HostRoute | None:
    """The first route that shares addresses with the range and is not inside of ``allowed``."""
    for route in routes:
        if range_.overlaps(route.network) and not _is_allowed(route.network, allowed):
            return route
    return None


def check_range(
    range_: IPv4Network,
    routes: Sequence[HostRoute],
    allowed: Sequence[IPv4Network] = (),
    option: str = "--ipalloc-range",
) -> None:
    """Refuse a range that overlaps.

    Raises:
        OverlapError: it does; with ranges of that size which do not.
    """
    route = find_overlap(range_, routes, allowed)
    if route is None:
        return
    free = ", ".join(str(each) for each in free_ranges(range_.prefixlen, routes))
    other = f"give {option} one of those that are free here: {free}" if free else "none is free"
    raise OverlapError(
        f"Network {range_} overlaps with existing route {route.network} on host;"
        f" {other}; or accept it with --allow-overlap {route.network}"
    )


def check_address(
    address: IPv4Interface, routes: Iterable[HostRoute], allowed: Sequence[IPv4Network] = ()
) -> None:
    """Refuse an address that lies inside of a route.

    Raises:
        OverlapError: it does.
    """
    for route in routes:
        if address.ip in route.network and not _is_allowed(route.network, allowed):
            raise OverlapError(
                f"Address {address} overlaps with existing route {route.network} on host"
            )


def free_ranges(
    prefix_len: int, routes: Iterable[HostRoute], count: int = SUGGESTIONS
) -> list[IPv4Network]:
    """Up to ``count`` ranges of that length without a route into them, from different blocks."""
    taken = sorted(route.network for route in routes)
    searches = [_free(block, prefix_len, taken) for block in _BLOCKS]
    found: list[IPv4Network] = []
    while searches and len(found) < count:
        for search in list(searches):
            candidate = next(search, None)
            if candidate is None:
                searches.remove(search)
            elif len(found) < count:
                found.append(candidate)
    return found


def _free(
    block: IPv4Network, prefix_len: int, taken: Sequence[IPv4Network]
) -> Iterator[IPv4Network]:
    """Free ranges of one block, in order; steps over each route at once."""
    size = 1 << (32 - prefix_len)
    start, end = int(block.network_address), int(block.broadcast_address) + 1
    while start + size <= end:
        candidate = IPv4Network((start, prefix_len))
        clash = next((each for each in taken if each.overlaps(candidate)), None)
        if clash is None:
            yield candidate
            start += size
        else:
            after = int(clash.broadcast_address) + 1
            start = max(start + size, -(-after // size) * size)


def _is_allowed(network: IPv4Network, allowed: Iterable[IPv4Network]) -> bool:
    return any(network.subnet_of(each) for each in allowed)


def _destination(route: Any) -> IPv4Network | None:
    table = route.get_attr("RTA_TABLE") or route["table"]
    if table == _TABLE_LOCAL or route["type"] not in _ROUTE_TYPES or not route["dst_len"]:
        return None
    address = IPv4Address(route.get_attr("RTA_DST"))
    return IPv4Network((address, route["dst_len"]), strict=False)


def _device(route: Any) -> int:
    index = route.get_attr("RTA_OIF")
    if index is None:
        hops = route.get_attr("RTA_MULTIPATH") or ()
        index = hops[0]["oif"] if hops else 0
    return int(index)
