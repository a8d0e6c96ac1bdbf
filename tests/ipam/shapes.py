"""Vectors' shapes as our values."""

from __future__ import annotations

from typing import Any

from base.names import PeerName
from ipam.address import Range, parse_address
from ipam.ring import Ring
from ipam.store import Entry


def peer(text: str) -> int:
    return int(PeerName.parse(text))


def range_of(item: dict[str, Any], start: str = "start", end: str = "end_exclusive") -> Range:
    return Range(parse_address(item[start]), parse_address(item[end]))


def entries_of(item: dict[str, Any]) -> list[Entry]:
    return [
        Entry(parse_address(one["token"]), peer(one["peer"]), one["version"], one["free"])
        for one in item["entries"] or []
    ]


def seeds_of(item: dict[str, Any]) -> tuple[int, ...]:
    return tuple(map(peer, item["seeds"] or []))


def ring_of(item: dict[str, Any]) -> Ring:
    return Ring(range_of(item), peer(item["peer"]), entries_of(item), seeds_of(item))


def state(ring: Ring) -> tuple[object, ...]:
    return ring.universe, ring.entries, ring.seeds
