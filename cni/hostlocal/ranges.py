"""Ranges of addresses and in which order they are tried. Sans-IO.

A *range* is a part of a subnet with a gateway; a *set* is a list of ranges of one family, out of
which a container gets one address. Source of truth: cni specification 10, "Range rules".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from cni import fields
from cni.codes import invalid
from cni.fields import Address, Network

#: A smaller subnet has no room for a gateway and a container.
_HOST_BITS_MIN = 2


@dataclass(slots=True, frozen=True)
class Range:
    """``start`` to ``end``, both included. The gateway may lie outside of them."""

    subnet: Network
    start: Address
    end: Address
    gateway: Address

    def holds(self, address: Address) -> bool:
        """Whether the address lies from start to end."""
        return address.version == self.start.version and (
            int(self.start) <= int(address) <= int(self.end)
        )

    def overlaps(self, other: Range) -> bool:
        """Whether an address lies in both."""
        return self.start.version == other.start.version and not (
            int(self.end) < int(other.start) or int(other.end) < int(self.start)
        )

    def __str__(self) -> str:
        return f"{self.start}-{self.end}"


def parse_range(found: Mapping[str, Any]) -> Range:
    """A range with its defaults filled in.

    Raises:
        CniError: code 7.
    """
    where = "ipam range "
    subnet = fields.network(found.get("subnet"), where, "subnet")
    if subnet.max_prefixlen - subnet.prefixlen < _HOST_BITS_MIN:
        raise invalid(f"ipam range {subnet} is too small to allocate from")
    first = subnet.network_address + 1
    # an IPv6 subnet has no broadcast address
    last = subnet.broadcast_address - (1 if subnet.version == 4 else 0)
    gateway = fields.optional_address(found, "gateway", where) or first
    start = fields.optional_address(found, "rangeStart", where) or first
    end = fields.optional_address(found, "rangeEnd", where) or last
    for key, address in (("gateway", gateway), ("rangeStart", start), ("rangeEnd", end)):
        if address.version != subnet.version:
            raise fields.wrong(where, key, f"IPv{subnet.version} address", str(address))
    for key, address in (("rangeStart", start), ("rangeEnd", end)):
        if address not in subnet:
            raise invalid(f"ipam range {key} {address} is not in {subnet}")
    # the network's own address is never an interface's, nor is IPv4's broadcast
    start, end = max(start, first, key=int), min(end, last, key=int)
    if int(start) > int(end):
        raise invalid(f"ipam range of {subnet} is empty", f"{start}-{end}")
    return Range(subnet, start, end, gateway)


@dataclass(slots=True, frozen=True)
class RangeSet:
    """Ranges that give one address; ``index`` is the set's place in the configuration."""

    index: int
    ranges: tuple[Range, ...]

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.ranges[0].subnet.version

    def range_of(self, address: Address) -> Range | None:
        """The range that the address lies in."""
        return next((one for one in self.ranges if one.holds(address)), None)

    def is_gateway(self, address: Address) -> bool:
        """Whether it is the gateway of one of the ranges."""
        return any(one.gateway == address for one in self.ranges)

    def overlaps(self, other: RangeSet) -> bool:
        """Whether an address lies in both."""
        return any(mine.overlaps(theirs) for mine in self.ranges for theirs in other.ranges)

    def size(self) -> int:
        """Addresses that can be given out."""
        total = sum(int(one.end) - int(one.start) + 1 for one in self.ranges)
        gateways = {one.gateway for one in self.ranges}
        return total - sum(self.range_of(gateway) is not None for gateway in gateways)

    def candidates(self, last: Address | None) -> Iterator[tuple[Address, Range]]:
        """Every address once but the gateways, beginning behind ``last`` if that is one of ours."""
        begin = self.range_of(last) if last is not None else None
        first = 0
        offset = 0
        if begin is not None and last is not None:
            first = self.ranges.index(begin)
            offset = int(last) - int(begin.start) + 1
        for step in range(len(self.ranges) + 1):
            one = self.ranges[(first + step) % len(self.ranges)]
            length = int(one.end) - int(one.start) + 1
            low = offset if step == 0 else 0
            high = offset if step == len(self.ranges) else length
            for number in range(low, high):
                address = one.start + number
                if not self.is_gateway(address):
                    yield address, one

    def __str__(self) -> str:
        return ",".join(str(one) for one in self.ranges)


def parse_set(index: int, found: object) -> RangeSet:
    """A set of ranges.

    Raises:
        CniError: code 7.
    """
    if not isinstance(found, list) or not found:
        raise invalid(f"ipam range set {index} is no list of ranges, or has none")
    ranges = tuple(parse_range(fields.entry(item, f"ipam range set {index} ")) for item in found)
    if len({one.subnet.version for one in ranges}) > 1:
        raise invalid(f"ipam range set {index} mixes IPv4 and IPv6")
    for place, one in enumerate(ranges):
        for other in ranges[:place]:
            if one.overlaps(other):
                raise invalid(f"ipam range set {index} has ranges that overlap", f"{other}, {one}")
    return RangeSet(index, ranges)


def parse_address(text: str) -> Address | None:
    """An address as a file names it; None for other files."""
    try:
        return ip_address(text)
    except ValueError:
        return None
