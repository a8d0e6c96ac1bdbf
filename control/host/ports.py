"""Containers as the packet filter of bridged frames knows them: by the host end of their link."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network


@dataclass(slots=True, frozen=True)
class Port:
    """What a container has. ``mac`` "" if it is not known, as of one that Weave Net attached."""

    mac: str = ""
    addresses: tuple[IPv4Interface, ...] = ()

    @property
    def networks(self) -> tuple[IPv4Network, ...]:
        """The subnets that it is in, each once."""
        return tuple(dict.fromkeys(each.network for each in self.addresses))


#: Host end of a container's veth → the container.
Ports = Mapping[str, Port]
