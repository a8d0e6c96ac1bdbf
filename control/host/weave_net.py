"""What Weave Net 2.x leaves on a host where it was stopped but not reset: iptables rules, ipsets.

Nodes are replaced in place, and its rules outlive it; those of its policy controller drop what goes
to the bridge. They are removed only with ``weft reset``, and only from tables in which chains of
its name exist. Rules outside of its chains are recognised by what they match, comments aside.

Source of truth: node specification 5.1 and 7 (reset); npc specification 2.1 (names of sets).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Final

import anyio.to_thread
from pyroute2 import IPSet

from control.host import foreign, nft
from control.host.bridge import map_refusals
from control.host.ruleset import LOCAL_SET

TABLES: Final = ("filter", "nat", "mangle")
CHAIN_PREFIX: Final = "WEAVE"
SET_PREFIX: Final = "weave-"
_PORTS: Final = ("6783", "6784")
_TARGETS: Final = ("-j", "-g")


# Pure --------------------------------------------------------------------------------------------


def plan(listing: str, bridge: str) -> list[list[str]]:
    """Commands of iptables that remove it from one table, which ``iptables -S`` showed.

    There are none if there is no chain of its name.
    """
    lines = [words for line in listing.splitlines() if (words := _words(line))]
    chains = [words[1] for words in lines if words[0] == "-N" and _is_chain(words[1])]
    if not chains:
        return []
    rules = [
        ["-D", *words[1:]]
        for words in lines
        if words[0] == "-A" and not _is_chain(words[1]) and _is_weaves(words, bridge)
    ]
    emptied = [["-F", chain] for chain in chains]
    return rules + emptied + [["-X", chain] for chain in chains]


def _words(line: str) -> list[str]:
    words = foreign.split_words(line)
    return words if len(words) >= 2 else []


def _is_chain(name: str) -> bool:
    return name.startswith(CHAIN_PREFIX)


def _is_weaves(words: list[str], bridge: str) -> bool:
    chain, rule = words[1], words[2:]
    if any(flag in _TARGETS and _is_chain(target) for flag, target in _pairs(rule)):
        return True
    return _matches(rule) in _known(chain, bridge, rule)


def _pairs(words: list[str]) -> Iterator[tuple[str, str]]:
    return itertools.pairwise(words)


def _matches(rule: list[str]) -> frozenset[str]:
    """What a rule says, without its comments, as ``option=value`` and ``!option=value``."""
    found: set[str] = set()
    negated, words = "", list(rule)
    while words:
        word = words.pop(0)
        if word == "!":
            negated = "!"
            continue
        value = words.pop(0) if words and not words[0].startswith("-") and words[0] != "!" else ""
        if word not in ("-m", "--comment"):
            found.add(f"{negated}{word}={value}")
        negated = ""
    return frozenset(found)


def _known(chain: str, bridge: str, rule: list[str]) -> list[frozenset[str]]:
    """Rules that it puts into a chain of others; another bridge in ``rule`` is Docker's."""
    other = next((name for flag, name in _pairs(rule) if flag == "-i" and name != bridge), "")
    into, out_of = f"-o={bridge}", f"-i={bridge}"
    match chain:
        case "FORWARD":
            return [
                frozenset({f"-i={other}", into, "-j=DROP"}),
                frozenset({into, "--state=NEW", "-j=NFLOG", "--nflog-group=86"}),
                frozenset({into, "-j=DROP"}),
                frozenset({out_of, into, "-j=ACCEPT"}),
                frozenset({out_of, f"!{into}", "-j=ACCEPT"}),
                frozenset({into, "--ctstate=RELATED,ESTABLISHED", "-j=ACCEPT"}),
            ]
        case "INPUT":
            address = next((to for flag, to in _pairs(rule) if flag == "-d"), "")
            control = {"-d=127.0.0.1/32", "-p=tcp", "--dport=6784", "!--src-type=LOCAL"}
            return [frozenset(control | {"!--ctstate=RELATED,ESTABLISHED", "-j=DROP"})] + [
                frozenset(
                    {f"-i={other}", f"-d={address}", f"-p={proto}", f"--dport={port}", "-j=DROP"}
                )
                for proto in ("tcp", "udp")
                for port in _PORTS
            ]
        case "POSTROUTING":
            return [frozenset({into, "-j=ACCEPT"})]
        case _:
            return []


def is_set(name: str) -> bool:
    """Whether an ipset is one of its own."""
    return name == LOCAL_SET or name.startswith(SET_PREFIX)


# Shell -------------------------------------------------------------------------------------------


async def leftovers() -> list[str]:
    """What is there, in words; changes nothing.

    Raises:
        PlatformError: a tool or the kernel refused.
    """
    found = [f"rules in {tool}" for tool, _ in await _tools_with_rules()]
    return found + [f"ipset {name}" for name in await anyio.to_thread.run_sync(_sets)]


async def remove(bridge: str) -> list[str]:
    """Remove it all; what was there, in words. Raises as :func:`leftovers`."""
    removed: list[str] = []
    for tool, listings in await _tools_with_rules():
        for table, listing in listings.items():
            for command in plan(listing, bridge):
                await foreign.run_iptables(tool, "-t", table, *command)
        removed.append(f"rules of Weave Net in {tool}")
    names = await anyio.to_thread.run_sync(_remove_sets)
    return removed + [f"ipset {name}" for name in names]


async def _tools_with_rules() -> list[tuple[str, dict[str, str]]]:
    """(tool, table → listing) of each kind of iptables in which there are chains of its name.

    A table is only asked for if it exists: asking would make it.
    """
    chains = [each["chain"] for each in (await nft.list_chains() if nft.have_nft() else [])]
    present = {
        "nf_tables": {each["table"] for each in chains if each["family"] == "ip"},
        "legacy": foreign.legacy_tables(),
    }
    found: list[tuple[str, dict[str, str]]] = []
    for kind, tables in present.items():
        wanted = [table for table in TABLES if table in tables]
        tool = await foreign.find_iptables(kind) if wanted else None
        if tool is None:
            continue
        listings = {table: await foreign.run_iptables(tool, "-t", table, "-S") for table in wanted}
        if any(f"-N {CHAIN_PREFIX}" in listing for listing in listings.values()):
            found.append((tool, listings))
    return found


def _sets() -> list[str]:
    with map_refusals("list", "ipsets"), IPSet() as ipset:
        return [name for each in ipset.list() if is_set(name := _name(each))]


def _remove_sets() -> list[str]:
    names = _sets()
    with map_refusals("remove", "ipsets"), IPSet() as ipset:
        for name in names:
            ipset.destroy(name)
    return names


def _name(described: Any) -> str:
    return str(described.get_attr("IPSET_ATTR_SETNAME"))
