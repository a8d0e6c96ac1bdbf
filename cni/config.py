"""A network's configuration as a plugin gets it on standard input. Sans-IO.

:func:`parse_base` reads what every plugin and command needs, :func:`parse_weave_net` what
``weave-net`` does, :func:`parse_weave_ipam` what Weave's own IPAM does. Unknown keys are ignored.
Source of truth: cni specification 2, 3 and 6.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any, Final

import msgspec

from base.errors import CniError
from cni import fields
from cni.codes import Code, invalid, unsupported
from cni.environment import NAME_PATTERN
from cni.fields import Address, Interface
from cni.result import Result, Route, decode, parse_routes
from cni.versions import version_of

CONFIG_LEN_MAX: Final = 1 << 20
DEFAULT_BRIDGE: Final = "weave"
DEFAULT_TIMEOUT_S: Final = 25.0
_TIMEOUT_MAX_S: Final = 3600
_PATIENCE_SHARE: Final = 0.9
_MTU_MAX: Final = 65535
#: Names of Weave's own allocator.
BUILT_IN_IPAM: Final = ("", "weave-ipam")
_MAC: Final = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")
_ATTACHMENTS_MAX: Final = 100_000
#: The second is what the specification's text once called it; libcni sends both.
_VALID_KEYS: Final = ("cni.dev/valid-attachments", "cni.dev/attachments")


@dataclass(slots=True, frozen=True)
class BaseConfig:
    """What all plugins share. ``raw`` is the whole object, ``given`` the bytes it came in."""

    version: str
    name: str
    type: str
    ipam_type: str
    raw: Mapping[str, Any]
    given: bytes


@dataclass(slots=True, frozen=True)
class WeaveIpamConfig:
    """Weave's allocator. ``routes`` None: none were said; empty: none are wanted."""

    subnet: IPv4Network | None
    gateway: IPv4Address | None
    routes: tuple[Route, ...] | None
    static: tuple[IPv4Address | IPv4Interface, ...]
    timeout_s: float


@dataclass(slots=True, frozen=True)
class WeaveNetConfig:
    """``weave-net``. ``mtu`` 0: the bridge's. ``mac`` empty: any."""

    base: BaseConfig
    bridge: str
    mtu: int
    hairpin: bool
    multicast_route: bool
    mac: str
    dns: Mapping[str, Any]
    timeout_s: float
    previous: Result | None


def decode_object(given: bytes) -> dict[str, Any]:
    """Standard input as an object.

    Raises:
        CniError: code 6.
    """
    if len(given) > CONFIG_LEN_MAX:
        raise CniError(Code.UNDECODABLE, "configuration is too long", f"{len(given)} bytes")
    try:
        found = msgspec.json.decode(given)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as err:
        raise CniError(Code.UNDECODABLE, "configuration is no JSON", str(err)) from err
    if not isinstance(found, dict):
        raise CniError(Code.UNDECODABLE, "configuration is no JSON object")
    return found


def parse_base(given: bytes) -> BaseConfig:
    """Read and check what every plugin needs.

    Raises:
        CniError: code 6, no JSON; 1, version; 7, name.
    """
    raw = decode_object(given)
    version = version_of(raw)
    name = fields.text(raw, "name")
    if NAME_PATTERN.fullmatch(name) is None:
        raise invalid(
            "name is missing" if not name else "name is no network name",
            f'"{name[:64]}"; letters, digits, "_", "." and "-", beginning with a letter or digit',
        )
    ipam_type = fields.text(fields.table(raw, "ipam"), "type")
    if "/" in ipam_type:
        raise invalid("ipam.type has a slash", f'"{ipam_type[:64]}"')
    return BaseConfig(version, name, fields.text(raw, "type"), ipam_type, raw, given)


def patience(timeout_s: float) -> float:
    """How long to wait for an address, so that there is time left to say that it never came."""
    return timeout_s * _PATIENCE_SHARE


def timeout_of(raw: Mapping[str, Any]) -> float:
    """Seconds that a call may take."""
    value = raw.get("timeout")
    if value is None:
        return DEFAULT_TIMEOUT_S
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise fields.wrong("", "timeout", "number of seconds", value)
    if not 0 < value <= _TIMEOUT_MAX_S:
        raise fields.wrong("", "timeout", f"number from above 0 to {_TIMEOUT_MAX_S}", value)
    return float(value)


def previous_result(base: BaseConfig) -> Result | None:
    """The result of the plugin before, None without.

    Raises:
        CniError: code 7.
    """
    shape = base.raw.get("prevResult")
    return None if shape is None else decode(fields.entry(shape, "prevResult "), base.version)


def requested_ips(raw: Mapping[str, Any], args: Mapping[str, str]) -> list[Address | Interface]:
    """Addresses asked for: by CNI_ARGS, args.cni.ips and runtimeConfig.ips; each once, in order.

    Raises:
        CniError: code 4 or 7, one is no address.
    """
    found: dict[str, Address | Interface] = {}
    for word in filter(None, args.get("IP", "").split(",")):
        try:
            found.setdefault(word, _loose(word, "", "IP"))
        except CniError as err:
            raise CniError(
                Code.BAD_ENVIRONMENT, "environment variable CNI_ARGS has a bad IP", word
            ) from err
    cni_args = fields.table(fields.table(raw, "args"), "cni", "args.")
    runtime = fields.table(raw, "runtimeConfig")
    for where, source in (("args.cni.", cni_args), ("runtimeConfig.", runtime)):
        for word in fields.rows(source, "ips", where) or ():
            value = _loose(word, where, "ips entry")
            found.setdefault(str(value), value)
    return list(found.values())


def _loose(value: object, where: str, key: str) -> Address | Interface:
    if isinstance(value, str) and "/" in value:
        return fields.interface(value, where, key)
    return fields.address(value, where, key)


def parse_weave_net(base: BaseConfig) -> WeaveNetConfig:
    """Read and check what ``weave-net`` needs.

    Raises:
        CniError: code 7 or 2.
    """
    raw = base.raw
    if fields.flag(raw, "isGateway", default=False):
        raise unsupported("isGateway", raw["isGateway"], "give the bridge an address: weft expose")
    if fields.flag(raw, "ipMasq", default=False):
        raise unsupported("ipMasq", raw["ipMasq"], "weft expose masquerades")
    runtime = fields.table(raw, "runtimeConfig")
    if any(fields.table(runtime, "bandwidth", "runtimeConfig.").values()):
        raise unsupported(
            "runtimeConfig.bandwidth", runtime["bandwidth"], "chain the bandwidth plugin behind"
        )
    if fields.rows(runtime, "ipRanges", "runtimeConfig.") and base.ipam_type in BUILT_IN_IPAM:
        raise unsupported(
            "runtimeConfig.ipRanges", runtime["ipRanges"], "only the host-local IPAM has ranges"
        )
    mac = fields.text(runtime, "mac") or fields.text(
        fields.table(fields.table(raw, "args"), "cni", "args."), "mac"
    )
    if mac and _MAC.fullmatch(mac) is None:
        raise fields.wrong("runtimeConfig.", "mac", "MAC address", mac)
    bridge = fields.text(raw, "bridge") or DEFAULT_BRIDGE
    if len(bridge.encode()) > 15 or "/" in bridge:
        raise fields.wrong("", "bridge", "interface name", bridge)
    return WeaveNetConfig(
        base=base,
        bridge=bridge,
        mtu=fields.number(raw, "mtu", high=_MTU_MAX) or 0,
        hairpin=fields.flag(raw, "hairpinMode", default=True),
        multicast_route=fields.flag(raw, "multicastRoute", default=False),
        mac=mac.lower(),
        dns=fields.table(raw, "dns"),
        timeout_s=timeout_of(raw),
        previous=previous_result(base),
    )


def parse_weave_ipam(base: BaseConfig, args: Mapping[str, str]) -> WeaveIpamConfig:
    """Read and check what Weave's own IPAM needs.

    Raises:
        CniError: code 7.
    """
    ipam = fields.table(base.raw, "ipam")
    subnet: IPv4Network | None = None
    if ipam.get("subnet") not in (None, ""):
        found = fields.network(ipam["subnet"], "ipam.", "subnet")
        if not isinstance(found, IPv4Network):
            raise fields.wrong("ipam.", "subnet", "IPv4 network", str(found))
        subnet = found
    gateway = fields.optional_address(ipam, "gateway", "ipam.")
    if gateway is not None and not isinstance(gateway, IPv4Address):
        raise fields.wrong("ipam.", "gateway", "IPv4 address", str(gateway))
    routes = fields.rows(ipam, "routes", "ipam.")
    static = []
    for one in requested_ips(base.raw, args):
        if not isinstance(one, IPv4Address | IPv4Interface):
            raise fields.wrong("", "requested ip", "IPv4 address", str(one))
        static.append(one)
    return WeaveIpamConfig(
        subnet,
        gateway,
        None if routes is None else parse_routes(routes, "ipam.routes "),
        tuple(static),
        timeout_of(base.raw),
    )


def valid_attachments(base: BaseConfig) -> frozenset[tuple[str, str]]:
    """Container id and interface name of what GC has to spare.

    Raises:
        CniError: code 7, the list is missing or is none.
    """
    key = next((key for key in _VALID_KEYS if base.raw.get(key) is not None), None)
    if key is None:
        raise invalid(f"{_VALID_KEYS[0]} is missing", "an empty list would mean: remove everything")
    found = fields.rows(base.raw, key) or []
    if len(found) > _ATTACHMENTS_MAX:
        raise invalid(f"{key} is too long", f"{len(found)} entries")
    pairs = set()
    for item in found:
        one = fields.entry(item, f"{key} ")
        container_id, ifname = fields.text(one, "containerID"), fields.text(one, "ifname")
        if not container_id or not ifname:
            raise invalid(f"{key} has an entry without containerID or ifname")
        pairs.add((container_id, ifname))
    return frozenset(pairs)
