"""Results of CNI plugins in every version's shape. Sans-IO.

Inside there is one shape, the newest. Source of truth: cni specification 4 and the CNI documents
0.1.0 to 1.1.0:

    0.1.0, 0.2.0   ip4, ip6: {ip, gateway, routes}; no interfaces; one address of each family
    0.3.0–0.4.0    ips[] with "version" "4" or "6"
    1.0.0          without it
    1.1.0          interfaces with mtu, socketPath, pciID; routes with mtu, advmss, priority, table,
                   scope

What a runtime or another plugin hands us raises CniError when it cannot be read: code 7.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from cni import fields
from cni.codes import invalid
from cni.fields import Address, Interface, Network
from cni.versions import at_least, version_of

_ROUTE_NUMBERS: Final = ("mtu", "advmss", "priority", "table", "scope")
_LIST_MAX: Final = 10_000


@dataclass(slots=True, frozen=True)
class Link:
    """An interface; ``sandbox`` empty: it is the host's."""

    name: str
    mac: str = ""
    sandbox: str = ""
    mtu: int | None = None
    socket_path: str = ""
    pci_id: str = ""


@dataclass(slots=True, frozen=True)
class Ip:
    """An address; ``link`` is the index of its interface in the result."""

    address: Interface
    gateway: Address | None = None
    link: int | None = None


@dataclass(slots=True, frozen=True)
class Route:
    """A route; ``gateway`` None: the address's own. ``numbers`` by their names in version 1.1.0."""

    destination: Network
    gateway: Address | None = None
    numbers: Mapping[str, int] = field(default_factory=dict)


@dataclass(slots=True, frozen=True)
class Result:
    """What a plugin made. ``dns`` is passed on as it came."""

    links: tuple[Link, ...] = ()
    ips: tuple[Ip, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: Mapping[str, Any] = field(default_factory=dict)


# Reading ----------------------------------------------------------------------------------------


def parse_routes(found: Iterable[Any] | None, where: str) -> tuple[Route, ...]:
    """Routes as configurations and results have them."""
    routes = []
    for item in found or ():
        one = fields.entry(item, where)
        destination = fields.network(one.get("dst"), where, "dst", strict=False)
        gateway = fields.optional_address(one, "gw", where)
        if gateway is not None and gateway.version != destination.version:
            raise fields.wrong(where, "gw", f"IPv{destination.version} address", str(gateway))
        numbers = {
            name: value
            for name in _ROUTE_NUMBERS
            if (value := fields.number(one, name, where)) is not None
        }
        routes.append(Route(destination, gateway, numbers))
    return tuple(routes)


def decode(shape: Mapping[str, Any], fallback_version: str) -> Result:
    """Read a result; without ``cniVersion`` it is one of ``fallback_version``.

    Raises:
        CniError: code 1 or 7.
    """
    said = shape.get("cniVersion")
    version = version_of({"cniVersion": said}) if said else fallback_version
    dns = fields.table(shape, "dns", "result ")
    if not at_least(version, "0.3.0"):
        return _decode_old(shape, dns)
    links = tuple(
        _decode_link(fields.entry(item, "interfaces "))
        for item in _bounded(fields.rows(shape, "interfaces", "result "))
    )
    ips = []
    for item in _bounded(fields.rows(shape, "ips", "result ")):
        one = fields.entry(item, "ips ")
        ips.append(
            Ip(
                fields.interface(one.get("address"), "ips ", "address"),
                fields.optional_address(one, "gateway", "ips "),
                fields.number(one, "interface", "ips "),
            )
        )
    routes = parse_routes(_bounded(fields.rows(shape, "routes", "result ")), "routes ")
    for ip in ips:
        if links and ip.link is not None and ip.link >= len(links):
            raise invalid("ips interface is no index of interfaces", str(ip.link))
    return Result(links, tuple(ips), routes, dns)


def _bounded(found: list[Any] | None) -> list[Any]:
    if found is not None and len(found) > _LIST_MAX:
        raise invalid("a list of the result is too long", f"{len(found)} entries")
    return found or []


def _decode_link(one: Mapping[str, Any]) -> Link:
    return Link(
        name=fields.text(one, "name"),
        mac=fields.text(one, "mac"),
        sandbox=fields.text(one, "sandbox"),
        mtu=fields.number(one, "mtu", "interfaces "),
        socket_path=fields.text(one, "socketPath"),
        pci_id=fields.text(one, "pciID"),
    )


def _decode_old(shape: Mapping[str, Any], dns: Mapping[str, Any]) -> Result:
    ips: list[Ip] = []
    routes: tuple[Route, ...] = ()
    for key in ("ip4", "ip6"):
        one = fields.table(shape, key, "result ")
        if one:
            where = f"{key} "
            gateway = fields.optional_address(one, "gateway", where)
            ips.append(Ip(fields.interface(one.get("ip"), where, "ip"), gateway))
            routes += parse_routes(_bounded(fields.rows(one, "routes", where)), where)
    return Result((), tuple(ips), routes, dns)


# Writing ----------------------------------------------------------------------------------------


def encode(result: Result, version: str) -> dict[str, Any]:
    """The JSON object of ``result`` in the shape of ``version``, which it names."""
    shape: dict[str, Any] = {"cniVersion": version}
    if not at_least(version, "0.3.0"):
        _encode_old(shape, result)
    else:
        if result.links:
            shape["interfaces"] = [_encode_link(link, version) for link in result.links]
        if result.ips:
            shape["ips"] = [_encode_ip(ip, version) for ip in result.ips]
        if result.routes:
            shape["routes"] = [_encode_route(route, version) for route in result.routes]
    shape["dns"] = dict(result.dns)
    return shape


def _encode_link(link: Link, version: str) -> dict[str, Any]:
    shape: dict[str, Any] = {"name": link.name}
    shape |= {key: value for key, value in (("mac", link.mac), ("sandbox", link.sandbox)) if value}
    if at_least(version, "1.1.0"):
        new = (("mtu", link.mtu), ("socketPath", link.socket_path), ("pciID", link.pci_id))
        shape |= {key: value for key, value in new if value}
    return shape


def _encode_ip(ip: Ip, version: str) -> dict[str, Any]:
    shape: dict[str, Any] = {}
    if not at_least(version, "1.0.0"):
        shape["version"] = str(ip.address.version)
    if ip.link is not None:
        shape["interface"] = ip.link
    shape["address"] = str(ip.address)
    if ip.gateway is not None:
        shape["gateway"] = str(ip.gateway)
    return shape


def _encode_route(route: Route, version: str) -> dict[str, Any]:
    shape: dict[str, Any] = {"dst": str(route.destination)}
    if route.gateway is not None:
        shape["gw"] = str(route.gateway)
    if at_least(version, "1.1.0"):
        shape |= route.numbers
    return shape


def _encode_old(shape: dict[str, Any], result: Result) -> None:
    for family, key in ((4, "ip4"), (6, "ip6")):
        found = next((ip for ip in result.ips if ip.address.version == family), None)
        if found is None:
            continue
        one: dict[str, Any] = {"ip": str(found.address)}
        if found.gateway is not None:
            one["gateway"] = str(found.gateway)
        routes = [route for route in result.routes if route.destination.version == family]
        if routes:
            one["routes"] = [_encode_route(route, "0.2.0") for route in routes]
        shape[key] = one


# Chaining ---------------------------------------------------------------------------------------


def merge(previous: Result, ours: Result) -> Result:
    """What a plugin returns that was called with a previous result: everything of it, then ours.

    Interfaces that both name (same name, same sandbox) stay at their place with our facts; our
    addresses and routes that are already there are not repeated.
    """
    links = list(previous.links)
    places: list[int] = []
    for link in ours.links:
        same = [
            index
            for index, known in enumerate(links)
            if (known.name, known.sandbox) == (link.name, link.sandbox)
        ]
        if same:
            links[same[0]] = link
            places.append(same[0])
        else:
            links.append(link)
            places.append(len(links) - 1)
    moved = [
        replace(ip, link=places[ip.link] if ip.link is not None and places else ip.link)
        for ip in ours.ips
    ]
    ips = [*previous.ips, *(ip for ip in moved if ip not in previous.ips)]
    routes = [*previous.routes, *(one for one in ours.routes if one not in previous.routes)]
    return Result(tuple(links), tuple(ips), tuple(routes), {**previous.dns, **ours.dns})
