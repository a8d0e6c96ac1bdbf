"""Ranges of addresses that this peer owns → networks in the packet filter's set, by difference.

Source of truth: ipam specification 9.6 (``no-masq-local``): neighbouring ranges are merged first,
then covered by the fewest networks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, summarize_address_range


@dataclass(slots=True, frozen=True)
class Delta:
    """``wanted``: all networks, in order; the other two: what differs from before."""

    wanted: tuple[IPv4Network, ...]
    added: tuple[IPv4Network, ...]
    removed: tuple[IPv4Network, ...]


class OwnedRanges:
    """Remembers what was last asked for."""

    def __init__(self) -> None:
        self._networks: tuple[IPv4Network, ...] = ()

    @property
    def networks(self) -> tuple[IPv4Network, ...]:
        """What was last asked for."""
        return self._networks

    def start_with(self, networks: Iterable[IPv4Network]) -> None:
        """Networks that the last process left."""
        self._networks = tuple(sorted(networks))

    def change(self, ranges: Iterable[tuple[int, int]]) -> Delta | None:
        """Now these ranges (start, end; end exclusive) are owned; None if nothing changes."""
        wanted = cover(ranges)
        if wanted == self._networks:
            return None
        before, after = set(self._networks), set(wanted)
        self._networks = wanted
        return Delta(
            wanted,
            tuple(each for each in wanted if each not in before),
            tuple(sorted(before - after)),
        )


def cover(ranges: Iterable[tuple[int, int]]) -> tuple[IPv4Network, ...]:
    """The fewest networks that hold exactly these addresses, in order; empty ranges count for none.

    Raises:
        ValueError: an end is outside of IPv4.
    """
    merged: list[list[int]] = []
    for start, end in sorted(ranges):
        if start >= end:
            continue
        if merged and start <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([start, end])
    return tuple(
        network
        for start, end in merged
        for network in summarize_address_range(IPv4Address(start), IPv4Address(end - 1))
    )
