"""Who is called what and has which address in a lab; no I/O.

    underlay   10.99.0.H/24          host H on the switch
    overlay    10.32.H.C/12          container C of host H
               fd77:6566:7400::H:C/64
    peers      ce:HH:00:00:00:HH     nickname hH

Source of truth: node specification (default range 10.32.0.0/12); the rest is our choice.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Literal

from base.errors import ConfigError

Topology = Literal["mesh", "line", "ring"]
TOPOLOGIES: tuple[Topology, ...] = ("mesh", "line", "ring")

NODES_MAX = 200
UNDERLAY_PREFIX_LEN = 24
OVERLAY_PREFIX_LEN = 12
OVERLAY6_PREFIX_LEN = 64


def check(nodes: int, topology: str) -> Topology:
    """Validate and narrow what a user gave.

    Raises:
        ConfigError: naming the option and the remedy.
    """
    if not 1 <= nodes <= NODES_MAX:
        raise ConfigError(f"--nodes {nodes}: give a number from 1 to {NODES_MAX}")
    for known in TOPOLOGIES:
        if topology == known:
            return known
    raise ConfigError(f"--topology {topology}: give one of {', '.join(TOPOLOGIES)}")


def host_name(host: int) -> str:
    """Nickname of host number ``host`` (from 1)."""
    return f"h{host}"


def peer_name(host: int) -> str:
    """Weave peer name of a host."""
    return f"ce:{host:02x}:00:00:00:{host:02x}"


def underlay_address(host: int) -> str:
    """IPv4 address on the switch."""
    return f"10.99.0.{host}"


def container_name(host: int, container: int, per_host: int) -> str:
    """``c2`` with one container per host, ``c2.1`` with more."""
    return f"c{host}" if per_host == 1 else f"c{host}.{container}"


def container_address(host: int, container: int) -> str:
    """IPv4 address on the overlay."""
    return f"10.32.{host}.{container}"


def container_address6(host: int, container: int) -> str:
    """IPv6 address on the overlay."""
    return f"fd77:6566:7400::{host:x}:{container:x}"


def container_mac(host: int, container: int) -> str:
    """Locally administered MAC, readable in captures."""
    return f"02:77:65:00:{host:02x}:{container:02x}"


def links(nodes: int, topology: Topology) -> Iterator[tuple[int, int]]:
    """Pairs of hosts that are neighbours; none for a mesh, where the peers file needs no links."""
    if topology == "mesh":
        return
    yield from pairwise(range(1, nodes + 1))
    if topology == "ring" and nodes > 2:
        yield nodes, 1


def peers_file(nodes: int, topology: Topology) -> str:
    """TOML for ``weft launch --static``."""
    parts = [
        f'[[peer]]\nname = "{peer_name(host)}"\nnickname = "{host_name(host)}"\n'
        f'address = "{underlay_address(host)}"\n'
        for host in range(1, nodes + 1)
    ]
    parts += [
        f'[[link]]\nbetween = ["{host_name(one)}", "{host_name(other)}"]\n'
        for one, other in links(nodes, topology)
    ]
    return "\n".join(parts)
