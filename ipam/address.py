"""IPv4 addresses, half-open ranges and CIDRs, all as plain numbers.

An address is the 32-bit number its octets spell, first octet most significant. A range is
``[start, end)``. Sums never wrap here: a range that would end at 2^32 is refused where it comes in.

Source of truth: ipam specification 1; vectors ``ipam_space.json`` (ranges) and ``ipam_gossip.json``
(subnets).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv6Address
from typing import Final, NamedTuple, Self

from base.errors import ConfigError

ADDRESS_MAX: Final = 0xFFFFFFFF
BITS: Final = 32
_BITS_V6: Final = 128
#: The smallest subnet that addresses are handed out in: /30.
SUBNET_SIZE_MIN: Final = 4


class AddressError(ConfigError):
    """A text that is not the address, CIDR or subnet it ought to be."""


def parse_address(text: str) -> int:
    """Address from dotted decimal. Raises AddressError.

    A leading zero is refused: some readers take it for octal.
    """
    value = _octets(text)
    if value is None:
        raise AddressError(f"invalid IP Address: {text}")
    return value


def _octets(text: str) -> int | None:
    parts = text.split(".")
    if len(parts) != 4:
        return None
    value = 0
    for part in parts:
        if not (part.isascii() and part.isdecimal() and len(part) <= 3):
            return None
        if int(part) > 255 or (len(part) > 1 and part[0] == "0"):
            return None
        value = value << 8 | int(part)
    return value


def _is_v6(text: str) -> bool:
    try:
        return IPv6Address(text).scope_id is None
    except ValueError:
        return False


def format_address(value: int) -> str:
    """Dotted decimal."""
    return f"{value >> 24}.{value >> 16 & 255}.{value >> 8 & 255}.{value & 255}"


def reverse(value: int) -> int:
    """The address with its four octets swapped, as names for reverse lookups need it."""
    return int.from_bytes(value.to_bytes(4, "little"), "big")


class Range(NamedTuple):
    """``[start, end)``, ``start <= end``."""

    start: int
    end: int

    @property
    def size(self) -> int:
        """Number of addresses."""
        return self.end - self.start

    def contains(self, value: int) -> bool:
        """Whether the address lies inside."""
        return self.start <= value < self.end

    def overlaps(self, other: Range) -> bool:
        """Whether the two share an address."""
        return self.start < other.end and other.start < self.end

    def as_cidr_text(self) -> str:
        """``start/prefix`` when the size is a power of two, else ``first-last``.

        An empty range has no last address; it is told as its start, as Weave does.
        """
        size = self.size
        if size & (size - 1) == 0:
            return f"{format_address(self.start)}/{BITS + 1 - max(size, 1).bit_length()}"
        return str(self)

    def __str__(self) -> str:
        """``first-last``, the last one inclusive."""
        return f"{format_address(self.start)}-{format_address(self.end - 1)}"


class Cidr(NamedTuple):
    """An address (host bits allowed) and a prefix length."""

    addr: int
    prefix_len: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """CIDR from ``a.b.c.d/len``.

        Raises:
            AddressError: anything else; the text is the one Weave's clients look for.
        """
        head, _, tail = text.partition("/")
        value = _octets(head)
        # zeros may lead the length: nobody takes it for octal
        digits = tail.lstrip("0") or tail[:1]
        if not (digits.isascii() and digits.isdecimal() and len(digits) <= 3):
            raise AddressError(f"invalid CIDR address: {text}")
        if value is None and int(digits) <= _BITS_V6 and _is_v6(head):
            raise AddressError(f"invalid Non-IPv4 address not supported: {text}")
        if value is None or int(digits) > BITS:
            raise AddressError(f"invalid CIDR address: {text}")
        return cls(value, int(digits))

    @classmethod
    def parse_subnet(cls, text: str) -> Self:
        """CIDR that addresses can be handed out in: no host bits, /30 or larger, not /0.

        Raises:
            AddressError: which rule is broken; the size comes first.
        """
        found = cls.parse(text)
        if found.prefix_len == 0 or found.size < SUBNET_SIZE_MIN:
            raise AddressError(f"invalid subnet - smaller than minimum size 4: {text}")
        if not found.is_subnet:
            raise AddressError(
                f"invalid subnet - bits after network prefix are not all zero: {text}"
            )
        return found

    @property
    def size(self) -> int:
        """Number of addresses; of a /0 it is 2^32."""
        return 1 << (BITS - self.prefix_len)

    @property
    def is_subnet(self) -> bool:
        """Whether all host bits are zero."""
        return self.addr & (self.size - 1) == 0

    @property
    def range(self) -> Range:
        """From the address as written, as many as the prefix says."""
        return Range(self.addr, self.addr + self.size)

    @property
    def host_range(self) -> Range:
        """The same without the first and the last address, which are never handed out."""
        return Range(self.addr + 1, self.addr + self.size - 1)

    def __str__(self) -> str:
        return f"{format_address(self.addr)}/{self.prefix_len}"


def parse_universe(text: str) -> Cidr:
    """The range to allocate from, as the user gave it.

    Raises:
        AddressError: not a usable subnet, or it holds 255.255.255.255.
    """
    found = Cidr.parse_subnet(text)
    if found.range.end > ADDRESS_MAX:
        raise AddressError(f"invalid range - must not hold 255.255.255.255: {found}")
    return found


def biggest_aligned(where: Range) -> Range:
    """The block to give away out of ``where``: a power of two, aligned, over a quarter of it."""
    size = where.size
    if size == 0:
        return where
    block = 1 << (size.bit_length() - 1)
    over = size - block
    lead = where.start % block
    if lead == 0:
        return Range(where.start, where.start + block)
    if block - lead <= over:
        start = where.start + (block - lead)
        return Range(start, start + block)
    block >>= 1
    start = where.start + ((block - lead) if block >= lead else (2 * block - lead))
    return Range(start, start + block)


def cidrs(where: Range) -> Iterator[Cidr]:
    """The fewest aligned blocks that cover exactly ``where``, in order."""
    start, end = where
    while start < end:
        size = 1 << ((end - start).bit_length() - 1)
        if start:
            size = min(size, start & -start)
        yield Cidr(start, BITS + 1 - size.bit_length())
        start += size


def merge_adjacent(ranges: Iterable[Range]) -> list[Range]:
    """Sorted, disjoint ranges with neighbours that touch joined."""
    out: list[Range] = []
    for one in ranges:
        if out and out[-1].end == one.start:
            out[-1] = Range(out[-1].start, one.end)
        else:
            out.append(one)
    return out


def remove_common(one: Sequence[Cidr], two: Sequence[Cidr]) -> tuple[list[Cidr], list[Cidr]]:
    """What each of two lists of CIDRs has and the other has not."""
    in_one, in_two = set(one), set(two)
    return [item for item in one if item not in in_two], [
        item for item in two if item not in in_one
    ]


def subtract(ranges: Iterable[Range], minus: Iterable[Range]) -> list[Range]:
    """Sorted, disjoint ``ranges`` without anything in sorted, disjoint ``minus``."""
    out: list[Range] = []
    holes = list(minus)
    index = 0
    for one in ranges:
        start, end = one
        while index < len(holes) and holes[index].end <= start:
            index += 1
        at = index
        while at < len(holes) and holes[at].start < end:
            if holes[at].start > start:
                out.append(Range(start, holes[at].start))
            start = max(start, holes[at].end)
            at += 1
        if start < end:
            out.append(Range(start, end))
    return out
