"""What a result has to look like in each version: which keys there may and must be."""

from __future__ import annotations

import ipaddress
from typing import Any

from cni.versions import SUPPORTED

LINK = {"name", "mac", "sandbox"}
LINK_1_1 = LINK | {"mtu", "socketPath", "pciID"}
ROUTE = {"dst", "gw"}
ROUTE_1_1 = ROUTE | {"mtu", "advmss", "priority", "table", "scope"}


def check_result(shape: dict[str, Any], version: str) -> None:
    """Fail unless ``shape`` is a result of ``version``."""
    place = SUPPORTED.index(version)
    assert shape["cniVersion"] == version
    if place < SUPPORTED.index("0.3.0"):
        assert set(shape) <= {"cniVersion", "ip4", "ip6", "dns"}
        for key, family in (("ip4", 4), ("ip6", 6)):
            if key in shape:
                assert set(shape[key]) <= {"ip", "gateway", "routes"}
                assert ipaddress.ip_interface(shape[key]["ip"]).version == family
                for route in shape[key].get("routes", []):
                    assert {"dst"} <= set(route) <= ROUTE
        return
    assert set(shape) <= {"cniVersion", "interfaces", "ips", "routes", "dns"}
    newest = version == "1.1.0"
    for link in shape.get("interfaces", []):
        assert {"name"} <= set(link) <= (LINK_1_1 if newest else LINK)
    for ip in shape["ips"]:
        with_version = place < SUPPORTED.index("1.0.0")
        assert ("version" in ip) == with_version
        assert {"address"} <= set(ip) <= {"version", "address", "gateway", "interface"}
        if with_version:
            assert ip["version"] == str(ipaddress.ip_interface(ip["address"]).version)
        if "interface" in ip:
            assert 0 <= ip["interface"] < len(shape["interfaces"])
    for route in shape.get("routes", []):
        assert {"dst"} <= set(route) <= (ROUTE_1_1 if newest else ROUTE)
        ipaddress.ip_network(route["dst"])
