"""Multicast keeps to its subnet: rules of the bridge family, pure.

Containers of different subnets share one wire, so each would hear the multicast of all. The
original drops it inside every container; here one table of the ``bridge`` family does, and only
while more than one subnet is in use. A frame to a group leaves by a container's port only if its
source is in a subnet of that container.

Source of truth: node specification 6.1 (steps 3 and 5) and 6.1a.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, collapse_addresses
from typing import Final

from control.host.ruleset import MULTICAST, Command, match, payload, prefix

FAMILY: Final = "bridge"
PORTS_SET: Final = "ports"
MEMBERS_SET: Final = "members"

#: Host end of a container's veth → subnets that the container has addresses in.
Members = Mapping[str, Iterable[IPv4Network]]


def isolation_needed(members: Members) -> bool:
    """Whether more than one subnet is in use."""
    return len({network for networks in members.values() for network in networks}) > 1


def replace_isolation(table: str, members: Members) -> list[Command]:
    """The whole table, whatever was there before; with one subnet none at all."""
    named = {"family": FAMILY, "name": table}
    commands: list[Command] = [{"add": {"table": named}}, {"delete": {"table": named}}]
    if not isolation_needed(members):
        return commands
    where = {"family": FAMILY, "table": table}
    ports = sorted(members)
    pairs = [
        {"concat": [port, prefix(network)]}
        for port in ports
        # nested networks would overlap in the set
        for network in collapse_addresses(members[port])
    ]
    oifname = {"meta": {"key": "oifname"}}
    rule = [
        match(oifname, f"@{PORTS_SET}"),
        match(payload("ip", "daddr"), prefix(MULTICAST)),
        match({"concat": [oifname, payload("ip", "saddr")]}, f"@{MEMBERS_SET}", "!="),
        {"drop": None},
    ]
    commands += [
        {"add": {"table": named}},
        {"add": {"set": where | {"name": PORTS_SET, "type": "ifname"}}},
        {"add": {"element": where | {"name": PORTS_SET, "elem": ports}}},
        {
            "add": {
                "set": where
                | {"name": MEMBERS_SET, "type": ["ifname", "ipv4_addr"], "flags": ["interval"]}
            }
        },
    ]
    if pairs:
        commands.append({"add": {"element": where | {"name": MEMBERS_SET, "elem": pairs}}})
    for hook in ("forward", "output"):  # from other ports, from the host itself
        chain = {"name": hook, "type": "filter", "hook": hook, "prio": 0, "policy": "accept"}
        comment = f"multicast of other subnets, {hook}"
        commands += [
            {"add": {"chain": where | chain}},
            {"add": {"rule": where | {"chain": hook, "comment": comment, "expr": rule}}},
        ]
    return commands
