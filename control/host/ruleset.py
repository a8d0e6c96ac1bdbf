"""The packet filter of a node as one nftables transaction. Pure: records in, commands out.

One table of our own, family ``ip``, replaced as a whole: the transaction adds, deletes and adds the
table again, so the kernel goes from the old rules to the new ones at once, whatever was there. An
*accept* ends only the base chain that it stands in, a *drop* is final; so a foreign chain that
drops forwarded packets has to be asked separately (:mod:`control.host.foreign`).

Every rule has a comment of its own, by which :mod:`control.host.nft` sees that all are there.

Source of truth: node specification 4 and 5; ``man 5 libnftables-json``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network
from typing import Any, Final

FAMILY: Final = "ip"
#: As the original's ipset: ranges that this peer owns.
LOCAL_SET: Final = "weaver-no-masq-local"
#: Bridge addresses exposed without masquerade. No rule uses it; it tells the next process.
PLAIN_SET: Final = "exposed-without-masquerade"
MULTICAST: Final = IPv4Network("224.0.0.0/4")
_SRCNAT: Final = 100
_FILTER: Final = 0

#: One command or expression of libnftables' JSON.
Command = dict[str, Any]


@dataclass(slots=True, frozen=True)
class Exposed:
    """One address of the bridge that opens its subnet to the host and beyond."""

    address: IPv4Interface
    masquerade: bool = True


@dataclass(slots=True, frozen=True)
class HostRules:
    """What the packet filter has to do.

    ``local_ranges``: CIDRs that this peer owns, to which no masquerade applies; None: off.
    ``control_ports``: TCP ports of the HTTP API on 127.0.0.1. ``router_port``: mesh and data path;
    the next one is its companion. ``expect_npc``: a network policy controller decides about what
    goes to containers. ``docker_bridge``: "" for none. ``strict``: a foreign chain that drops was
    opened for the bridge, so what it would have dropped is ours to drop. ``joined``: another bridge
    of this host is joined to ours, and its owner's masquerade must not touch what crosses.
    ``port_security``: see :mod:`control.host.port_security`.
    """

    bridge: str = "weave"
    exposed: tuple[Exposed, ...] = ()
    local_ranges: tuple[IPv4Network, ...] | None = None
    control_ports: tuple[int, ...] = (6784,)
    router_port: int = 6783
    pods_to_router: bool = False
    expect_npc: bool = False
    docker_bridge: str = ""
    strict: bool = False
    joined: bool = False
    port_security: bool = False

    @property
    def table(self) -> str:
        """Name of our tables: ``weave`` for the usual bridge; a foreign name never."""
        return table_name(self.bridge)


def table_name(bridge: str) -> str:
    """The table that belongs to a bridge."""
    return bridge if bridge == "weave" else f"weave-{bridge}"


def replace_table(rules: HostRules) -> list[Command]:
    """The whole table, whatever was there before; one transaction."""
    table = {"family": FAMILY, "name": rules.table}
    commands: list[Command] = [
        {"add": {"table": table}},
        {"delete": {"table": table}},
        {"add": {"table": table}},
        _set(rules, LOCAL_SET, interval=True),
        _set(rules, PLAIN_SET, interval=False),
    ]
    plain = [str(each.address.ip) for each in rules.exposed if not each.masquerade]
    commands += _elements(rules.table, "add", PLAIN_SET, plain)
    commands += local_elements(rules.table, "add", rules.local_ranges or ())
    commands += _chain(rules, "joined", "postrouting", "nat", _SRCNAT - 1, _from_joined(rules))
    commands += _chain(rules, "postrouting", "postrouting", "nat", _SRCNAT, _postrouting(rules))
    commands += _chain(rules, "forward", "forward", "filter", _FILTER, _forward(rules))
    commands += _chain(rules, "input", "input", "filter", _FILTER, _input(rules))
    return commands


def local_elements(table: str, verb: str, networks: Iterable[IPv4Network]) -> list[Command]:
    """``add`` or ``delete`` networks in the set of owned ranges; no command for none."""
    return _elements(table, verb, LOCAL_SET, [prefix(network) for network in networks])


def prefix(network: IPv4Network) -> Any:
    """A network as an expression; nft wants a lone address without its prefix length."""
    address = str(network.network_address)
    if network.prefixlen == network.max_prefixlen:
        return address
    return {"prefix": {"addr": address, "len": network.prefixlen}}


# Chains ------------------------------------------------------------------------------------------

#: Comment and statements.
_Rule = tuple[str, list[Any]]


def _postrouting(rules: HostRules) -> Iterator[_Rule]:
    if rules.local_ranges is not None:
        yield "no masquerade to owned ranges", [_daddr(f"@{LOCAL_SET}"), {"return": None}]
    for network in _networks(each for each in rules.exposed if each.masquerade):
        inside = prefix(network)
        yield (
            f"multicast from {network}",
            [_saddr(inside), _daddr(prefix(MULTICAST)), {"return": None}],
        )
        yield f"masquerade to {network}", [_saddr(inside, "!="), _daddr(inside), _MASQUERADE]
        yield f"masquerade from {network}", [_saddr(inside), _daddr(inside, "!="), _MASQUERADE]


def _from_joined(rules: HostRules) -> Iterator[_Rule]:
    """An accept would not keep a later chain, such as Docker's, from masquerading. What is
    translated once is not translated again, so it is translated: to the source that it has.
    """
    if not rules.joined:
        return
    for network in _networks(each for each in rules.exposed if each.masquerade):
        inside = prefix(network)
        yield (
            f"masquerade to {network} all the same",
            [_saddr(inside, "!="), _daddr(inside), {"return": None}],
        )
    source = {"snat": {"addr": payload("ip", "saddr")}}
    yield "joined bridges keep their sources", [_meta("oifname", rules.bridge), source]


def _forward(rules: HostRules) -> Iterator[_Rule]:
    into, out_of = _meta("oifname", rules.bridge), _meta("iifname", rules.bridge)
    if rules.docker_bridge and rules.docker_bridge != rules.bridge:
        yield "docker to overlay", [_meta("iifname", rules.docker_bridge), into, {"drop": None}]
    if not rules.expect_npc:
        yield "overlay to overlay", [out_of, into, {"accept": None}]
        for network in _networks(rules.exposed):
            yield f"exposed {network}", [into, _daddr(prefix(network)), {"accept": None}]
    elsewhere = _meta("oifname", rules.bridge, "!=")
    yield "overlay to elsewhere", [out_of, elsewhere, {"accept": None}]
    yield "answers to overlay", [into, _ESTABLISHED, {"accept": None}]
    if rules.strict and not rules.expect_npc:
        yield "what the host's policy drops", [into, {"drop": None}]


def _input(rules: HostRules) -> Iterator[_Rule]:
    yield "answers", [_ESTABLISHED, {"accept": None}]
    # route_localnet lets neighbours on the wire reach 127.0.0.1 (CVE-2020-8558)
    for port in rules.control_ports:
        yield (
            f"control port {port} from elsewhere",
            [_daddr("127.0.0.1"), _port("tcp", port), _FROM_ELSEWHERE, {"drop": None}],
        )
    if rules.pods_to_router:
        return
    ports = {"set": [rules.router_port, rules.router_port + 1]}
    for bridge in dict.fromkeys((rules.bridge, rules.docker_bridge)):
        if not bridge:
            continue
        for protocol in ("tcp", "udp"):
            yield (
                f"{bridge} to router, {protocol}",
                [_meta("iifname", bridge), _port(protocol, ports), {"drop": None}],
            )


def _networks(exposed: Iterable[Exposed]) -> list[IPv4Network]:
    """Each subnet once, in the order of exposure."""
    return list(dict.fromkeys(each.address.network for each in exposed))


# Expressions -------------------------------------------------------------------------------------

_MASQUERADE: Final[Command] = {"masquerade": {"flags": "fully-random"}}
_ESTABLISHED: Final[Command] = {
    "match": {
        "op": "in",
        "left": {"ct": {"key": "state"}},
        "right": ["established", "related"],
    }
}
_FROM_ELSEWHERE: Final[Command] = {
    "match": {
        "op": "!=",
        "left": {"fib": {"result": "type", "flags": ["saddr"]}},
        "right": "local",
    }
}


def match(left: Any, right: Any, op: str = "==") -> Command:
    """A match statement."""
    return {"match": {"op": op, "left": left, "right": right}}


def payload(protocol: str, field: str) -> Command:
    """A header field."""
    return {"payload": {"protocol": protocol, "field": field}}


def _saddr(right: Any, op: str = "==") -> Command:
    return match(payload("ip", "saddr"), right, op)


def _daddr(right: Any, op: str = "==") -> Command:
    return match(payload("ip", "daddr"), right, op)


def _port(protocol: str, right: Any) -> Command:
    return match(payload(protocol, "dport"), right)


def _meta(key: str, right: Any, op: str = "==") -> Command:
    return match({"meta": {"key": key}}, right, op)


def _set(rules: HostRules, name: str, *, interval: bool) -> Command:
    made = {"family": FAMILY, "table": rules.table, "name": name, "type": "ipv4_addr"}
    return {"add": {"set": made | ({"flags": ["interval"]} if interval else {})}}


def _elements(table: str, verb: str, name: str, elements: list[Any]) -> list[Command]:
    if not elements:
        return []
    return [{verb: {"element": {"family": FAMILY, "table": table, "name": name, "elem": elements}}}]


def _chain(
    rules: HostRules, name: str, hook: str, kind: str, priority: int, content: Iterable[_Rule]
) -> list[Command]:
    where = {"family": FAMILY, "table": rules.table}
    hooked = {"type": kind, "hook": hook, "prio": priority, "policy": "accept"}
    return [{"add": {"chain": where | {"name": name} | hooked}}] + [
        {"add": {"rule": where | {"chain": name, "comment": comment, "expr": statements}}}
        for comment, statements in content
    ]
