"""Multicast keeps to its subnet: rules of the bridge family, pure.

Containers of different subnets share one wire, so each would hear the multicast of all. The
original drops it inside every container; here one table of the ``bridge`` family does, and only
while more than one subnet is in use. A frame to a group leaves by a container's port only if its
source is in a subnet of that container.

Source of truth: node specification 6.1 (steps 3 and 5) and 6.1a.
"""

from __future__ import annotations

from ipaddress import collapse_addresses
from typing import Final

from control.host.ports import Ports
from control.host.ruleset import MULTICAST, Command, match, payload, prefix

PORTS_SET: Final = "ports"
MEMBERS_SET: Final = "members"


def isolation_needed(ports: Ports) -> bool:
    """Whether more than one subnet is in use."""
    return len({network for port in ports.values() for network in port.networks}) > 1


def isolate(where: Command, ports: Ports) -> list[Command]:
    """Sets and chains in the table ``where`` (family and table), which must be new.

    With one subnet none.
    """
    if not isolation_needed(ports):
        return []
    names = sorted(ports)
    pairs = [
        {"concat": [name, prefix(network)]}
        for name in names
        # nested networks would overlap in the set
        for network in collapse_addresses(ports[name].networks)
    ]
    oifname = {"meta": {"key": "oifname"}}
    rule = [
        match(oifname, f"@{PORTS_SET}"),
        match(payload("ip", "daddr"), prefix(MULTICAST)),
        match({"concat": [oifname, payload("ip", "saddr")]}, f"@{MEMBERS_SET}", "!="),
        {"drop": None},
    ]
    commands: list[Command] = [
        {"add": {"set": where | {"name": PORTS_SET, "type": "ifname"}}},
        {"add": {"element": where | {"name": PORTS_SET, "elem": names}}},
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
