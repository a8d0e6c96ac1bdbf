"""Configuration of host-local. Sans-IO, but for the resolver's file that it may name.

Source of truth: cni specification 10.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from base.errors import CniError
from cni import fields
from cni.codes import Code, invalid
from cni.config import BaseConfig, requested_ips
from cni.fields import Address
from cni.hostlocal.ranges import RangeSet, parse_set
from cni.result import Route, parse_routes
from cni.versions import at_least

DEFAULT_FOLDER: Final = "/var/lib/cni/networks"
_RESOLV_LEN_MAX: Final = 65536
_ONE_RANGE: Final = ("subnet", "rangeStart", "rangeEnd", "gateway")


@dataclass(slots=True, frozen=True)
class HostLocalConfig:
    """``folder`` is the network's own. ``resolv_conf`` empty: no DNS."""

    folder: Path
    sets: tuple[RangeSet, ...]
    routes: tuple[Route, ...]
    requested: tuple[Address, ...]
    resolv_conf: str


def folder_of(base: BaseConfig) -> Path:
    """Where the network's addresses are kept: all that DEL has to know.

    Raises:
        CniError: code 7.
    """
    folder = fields.text(fields.table(base.raw, "ipam"), "dataDir") or DEFAULT_FOLDER
    if not folder.startswith("/") or "\0" in folder:
        raise fields.wrong("ipam.", "dataDir", "absolute path", folder)
    return Path(folder, base.name)


def parse_host_local(base: BaseConfig, args: Mapping[str, str]) -> HostLocalConfig:
    """Read and check everything.

    Raises:
        CniError: code 7 or 4.
    """
    ipam = fields.table(base.raw, "ipam")
    runtime = fields.table(base.raw, "runtimeConfig")
    found: list[object] = list(fields.rows(runtime, "ipRanges", "runtimeConfig.") or ())
    if ipam.get("subnet") not in (None, ""):
        found.append([{key: ipam[key] for key in _ONE_RANGE if key in ipam}])
    found += fields.rows(ipam, "ranges", "ipam.") or ()
    if not found:
        raise invalid("ipam has no address ranges", "give ipam.subnet or ipam.ranges")
    sets = tuple(parse_set(index, item) for index, item in enumerate(found))
    for one in sets:
        for other in sets[: one.index]:
            if one.overlaps(other):
                raise invalid(f"ipam range set {one.index} overlaps with {other.index}")
    families = Counter(one.version for one in sets)
    if max(families.values()) > 1 and not at_least(base.version, "0.3.0"):
        raise invalid(
            f"cniVersion {base.version} does not support more than one address per family"
        )
    return HostLocalConfig(
        folder=folder_of(base),
        sets=sets,
        routes=parse_routes(fields.rows(ipam, "routes", "ipam."), "ipam.routes "),
        # a prefix length says nothing here: the range has one
        requested=tuple(getattr(one, "ip", one) for one in requested_ips(base.raw, args)),
        resolv_conf=fields.text(ipam, "resolvConf"),
    )


def read_resolver(path: str) -> dict[str, Any]:
    """The ``dns`` of a result from a resolver's file.

    Raises:
        CniError: code 5, it cannot be read.
    """
    if not path:
        return {}
    try:
        with Path(path).open(encoding="utf-8", errors="replace") as file:
            return parse_resolver(file.read(_RESOLV_LEN_MAX))
    except (OSError, ValueError) as err:
        raise CniError(Code.IO_FAILURE, "cannot read ipam.resolvConf", f"{path}: {err}") from err


def parse_resolver(text: str) -> dict[str, Any]:
    """``dns`` from the lines of a resolver's file."""
    dns: dict[str, Any] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0][0] in "#;":
            continue
        match words[0]:
            case "nameserver":
                dns.setdefault("nameservers", []).append(words[1])
            case "domain":
                dns["domain"] = words[1]
            case "search":
                dns.setdefault("search", []).extend(words[1:])
            case "options":
                dns.setdefault("options", []).extend(words[1:])
    return dns
