"""MTU of the underlay before any neighbour is known. Ref: spec node 2.3."""

from __future__ import annotations

import socket
from typing import Final

from pyroute2 import IPRoute

from native import lib

#: Of plain Ethernet, where nothing better is known.
DEFAULT_MTU: Final = 1500
_PACKET_MAX: Final = 65535
_MAIN_TABLE: Final = 254


def overlay_mtu(pmtu_bytes: int, overhead: int = lib.WN_OVERHEAD_PLAIN) -> int:
    """Largest inner IP packet on a path, never below IPv6's minimum of 1280 (spec: node 2.3)."""
    return max(1280, min(_PACKET_MAX, pmtu_bytes - overhead))


def underlay_mtu(host: str, bridge: str) -> int:
    """Lowest MTU in bytes of the interfaces that datagrams may leave by.

    That is the interface with the address ``host``, or without one all that carry IPv4 routes but
    the overlay's own ``bridge``.
    """
    with IPRoute() as netlink:
        if host:
            found = netlink.get_addr(family=socket.AF_INET, address=host)
            indices = {address["index"] for address in found}
        else:
            routes = netlink.get_routes(family=socket.AF_INET, table=_MAIN_TABLE)
            indices = {route.get_attr("RTA_OIF") for route in routes} - {None}
        mtus = [
            int(link.get_attr("IFLA_MTU"))
            for link in netlink.get_links()
            if link["index"] in indices and link.get_attr("IFLA_IFNAME") != bridge
        ]
    return min(mtus, default=DEFAULT_MTU)
