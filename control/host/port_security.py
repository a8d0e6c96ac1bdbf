"""A container sends as itself only: rules of the bridge family, pure.

On a flat Ethernet whoever may send raw frames can speak in another's name: take over its traffic
by ARP, or get past a policy that goes by addresses. With these rules a frame from a container's
port passes if its source MAC is the container's own, and for ARP and IPv4 so is the address that
it claims to have. Without an address a container may still ask for one: ARP's probe (RFC 5227) and
DHCP come from 0.0.0.0. Of IPv6 the MAC alone is checked: nobody assigns those addresses here.

It is off unless asked for: containers that share an address among them (VRRP), or bridge for
others, are cut off by it. Source of truth: node specification 15.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from control.host.ports import Ports
from control.host.ruleset import Command, match, payload

SECURED_SET: Final = "secured"
MACS_SET: Final = "own-macs"
ADDRESSES_SET: Final = "own-addresses"
CHAIN: Final = "port-security"
#: Before whatever else sees bridged frames, conntrack included.
_PRIORITY: Final = -250
_UNSPECIFIED: Final = "0.0.0.0"
_DHCP_SERVER: Final = 67
_IIFNAME: Final[Command] = {"meta": {"key": "iifname"}}


def secure(where: Command, ports: Ports) -> list[Command]:
    """Sets and a chain in the table ``where`` (family and table), which must be new.

    A port whose MAC is not known is let be.
    """
    known = {name: port for name, port in sorted(ports.items()) if port.mac}
    macs = [{"concat": [name, port.mac]} for name, port in known.items()]
    addresses = [
        {"concat": [name, address]}
        for name, port in known.items()
        for address in dict.fromkeys(str(each.ip) for each in port.addresses)
    ]
    commands = [
        *_set(where, SECURED_SET, "ifname", list(known)),
        *_set(where, MACS_SET, ["ifname", "ether_addr"], macs),
        *_set(where, ADDRESSES_SET, ["ifname", "ipv4_addr"], addresses),
    ]
    hook = {"type": "filter", "hook": "prerouting", "prio": _PRIORITY, "policy": "accept"}
    commands.append({"add": {"chain": where | {"name": CHAIN} | hook}})
    commands += [
        {"add": {"rule": where | {"chain": CHAIN, "comment": comment, "expr": expression}}}
        for comment, expression in _rules()
    ]
    return commands


def _rules() -> Iterator[tuple[str, list[Any]]]:
    secured = match(_IIFNAME, f"@{SECURED_SET}")
    drop: list[Command] = [{"counter": None}, {"drop": None}]
    yield "frames of another's MAC", [secured, _not_own(payload("ether", "saddr"), MACS_SET), *drop]
    sender = payload("arp", "saddr ether")
    yield "ARP of another's MAC", [secured, _not_own(sender, MACS_SET), *drop]
    claimed = payload("arp", "saddr ip")
    yield (
        "ARP of another's address",
        [secured, match(claimed, _UNSPECIFIED, "!="), _not_own(claimed, ADDRESSES_SET), *drop],
    )
    source = payload("ip", "saddr")
    yield (
        "who has no address asks for one",
        [
            secured,
            match(source, _UNSPECIFIED),
            match(payload("udp", "dport"), _DHCP_SERVER),
            {"accept": None},
        ],
    )
    yield "packets of another's address", [secured, _not_own(source, ADDRESSES_SET), *drop]


def _not_own(field: Command, name: str) -> Command:
    return match({"concat": [_IIFNAME, field]}, f"@{name}", "!=")


def _set(where: Command, name: str, kind: str | list[str], elements: list[Any]) -> list[Command]:
    commands: list[Command] = [{"add": {"set": where | {"name": name, "type": kind}}}]
    if elements:
        commands.append({"add": {"element": where | {"name": name, "elem": elements}}})
    return commands
