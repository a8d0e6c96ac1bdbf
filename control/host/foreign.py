"""Other people's chains that drop what is forwarded, opened for our bridge by one pair of rules.

Docker sets the policy of iptables' FORWARD chain to DROP, firewalld rejects at the end of its own;
an accept in our table cannot undo that. So, only where such a chain is found, two rules go on top
of it (in by the bridge, out by the bridge), through the tool that owns the chain: iptables-nft or
iptables-legacy for ``filter FORWARD``, nft for any other. What the policy would have dropped on its
way to the overlay is then dropped in our table (:attr:`~control.host.ruleset.HostRules.strict`).
The pair goes when the policy does, and at reset. Of legacy tables the kernel tells only that they
exist; they are looked at only if they do, since looking makes them.

Source of truth: node specification 5.2.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from base.errors import ConfigError, NftError
from control.host import nft
from control.host.ruleset import match, table_name

BACKEND_VARIABLE: Final = "IPTABLES_BACKEND"
_LEGACY_NAMES: Final = Path("/proc/thread-self/net/ip_tables_names")
_FIREWALLD: Final = ("inet", "firewalld", "filter_FORWARD")
_FAMILIES: Final = ("ip", "inet")
_CHAIN: Final = "FORWARD"
_WAIT: Final = ("-w", "5")
_WORD: Final = re.compile(r'"((?:[^"\\]|\\.)*)"|(\S+)')
_ESCAPED: Final = re.compile(r"\\(.)")


class Backend(StrEnum):
    """Whose chains are opened: all that are found, or those of one kind.

    NONE: we keep out of packet filters altogether; the user sees to masquerade and forwarding.
    """

    AUTO = "auto"
    NFT = "nft"
    LEGACY = "legacy"
    NONE = "none"

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Backend:
        """What IPTABLES_BACKEND says.

        Raises:
            ConfigError: nothing that we know.
        """
        text = environ.get(BACKEND_VARIABLE) or cls.AUTO
        try:
            return cls(text)
        except ValueError as err:
            known = ", ".join(cls)
            raise ConfigError(f"{BACKEND_VARIABLE}: {text!r} is not one of {known}") from err


# Pure --------------------------------------------------------------------------------------------


@dataclass(slots=True, frozen=True, order=True)
class Chain:
    """A chain that nft lists."""

    family: str
    table: str
    name: str

    @property
    def is_iptables(self) -> bool:
        """Whether iptables-nft owns it."""
        return (self.family, self.table, self.name) == ("ip", "filter", _CHAIN)

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.name}"


def forward_chains(listing: nft.Listing, bridge: str) -> dict[Chain, bool]:
    """Foreign chains of the forward hook → whether they drop what no rule of theirs accepts."""
    found: dict[Chain, bool] = {}
    for each in listing:
        chain = each.get("chain")
        if not chain or chain.get("hook") != "forward" or chain["family"] not in _FAMILIES:
            continue
        key = Chain(chain["family"], chain["table"], chain["name"])
        if key.table == table_name(bridge):
            continue
        firewalld = (key.family, key.table, key.name) == _FIREWALLD
        found[key] = chain.get("policy") == "drop" or firewalld
    return found


@dataclass(slots=True, frozen=True)
class IptablesState:
    """FORWARD of one iptables: its policy, and how many rules of the pair stand in it."""

    drops: bool
    ours: int


def parse_forward(text: str, bridge: str) -> IptablesState:
    """What ``iptables -S FORWARD`` printed."""
    drops, ours = False, 0
    pair = [tuple(rule) for rule in pair_rules(bridge)]
    for line in text.splitlines():
        if line.startswith("-P "):
            drops = line.split()[-1] == "DROP"
        else:
            ours += tuple(split_words(line)[2:]) in pair
    return IptablesState(drops, ours)


def split_words(line: str) -> list[str]:
    r"""Words of a line of ``iptables -S``: in double quotes ``\"``, ``\'`` and ``\\`` stand for
    one character. Not shlex, which leaves a backslash before ``'``.
    """
    return [
        _ESCAPED.sub(r"\1", quoted) if quoted else plain for quoted, plain in _WORD.findall(line)
    ]


def pair_rules(bridge: str) -> list[list[str]]:
    """The pair as arguments of iptables."""
    comment = ["-m", "comment", "--comment", f"weft {bridge}"]
    return [[flag, bridge, *comment, "-j", "ACCEPT"] for flag in ("-i", "-o")]


# Shell -------------------------------------------------------------------------------------------


async def open_chains(bridge: str, backend: Backend) -> list[str]:
    """Put the pair where it is needed, take it away where it no longer is; the chains that need it.

    Raises:
        NftError: a tool refused; chains before that one are done.
    """
    needing: list[str] = []
    if backend in (Backend.AUTO, Backend.NFT):
        for chain, drops in sorted(forward_chains(await nft.list_chains(), bridge).items()):
            tool = await find_iptables("nf_tables") if chain.is_iptables else None
            if tool is not None:
                await _settle_iptables(tool, bridge)
            elif drops:
                await _open_nft(chain, bridge)
            else:
                await _close_nft(chain, bridge)
            needing += [str(chain)] if drops else []
    if backend in (Backend.AUTO, Backend.LEGACY) and legacy_in_use():
        tool = await find_iptables("legacy")
        if tool is None:
            raise NftError("open", "legacy FORWARD", "iptables-legacy not found; install it")
        if await _settle_iptables(tool, bridge):
            needing.append(f"{tool} {_CHAIN}")
    return needing


async def close_chains(bridge: str) -> None:
    """Take the pair out of every chain that has it.

    Raises:
        NftError: a tool refused.
    """
    for chain in forward_chains(await nft.list_chains() if nft.have_nft() else [], bridge):
        tool = await find_iptables("nf_tables") if chain.is_iptables else None
        if tool is None:
            await _close_nft(chain, bridge)
        else:
            await _close_iptables(tool, bridge)
    if legacy_in_use() and (tool := await find_iptables("legacy")) is not None:
        await _close_iptables(tool, bridge)


async def closed_chains(bridge: str) -> list[str]:
    """Chains that drop and lack the pair; changes nothing.

    Raises:
        NftError: a tool refused.
    """
    closed: list[str] = []
    wanted = {_comment(bridge, side) for side in ("in", "out")}
    for chain, drops in forward_chains(
        await nft.list_chains() if nft.have_nft() else [], bridge
    ).items():
        tool = await find_iptables("nf_tables") if chain.is_iptables else None
        if drops and tool is not None:
            closed += [str(chain)] if await _is_closed(tool, bridge) else []
        elif drops and not wanted <= {text for _, text in nft.comments(await _rules(chain))}:
            closed.append(str(chain))
    if legacy_in_use() and (tool := await find_iptables("legacy")) is not None:
        closed += [f"{tool} {_CHAIN}"] if await _is_closed(tool, bridge) else []
    return closed


async def _is_closed(tool: str, bridge: str) -> bool:
    state = parse_forward(await run_iptables(tool, "-S", _CHAIN), bridge)
    return state.drops and state.ours < len(pair_rules(bridge))


def legacy_in_use() -> bool:
    """Whether somebody made the legacy filter table in this network namespace."""
    return "filter" in legacy_tables()


def legacy_tables(names: Path = _LEGACY_NAMES) -> frozenset[str]:
    """Legacy tables that somebody made in this network namespace."""
    try:
        return frozenset(names.read_text(encoding="ascii").split())
    except OSError:
        return frozenset()


async def find_iptables(kind: str) -> str | None:
    """Name of an iptables of this kind (``nf_tables``, ``legacy``), None if there is none."""
    own = {"nf_tables": "iptables-nft", "legacy": "iptables-legacy"}[kind]
    if shutil.which(own):
        return own
    if not shutil.which("iptables"):
        return None
    _, version, _ = await nft.run_tool(("iptables", "--version"))
    return "iptables" if kind in version else None


async def _settle_iptables(tool: str, bridge: str) -> bool:
    state = parse_forward(await run_iptables(tool, "-S", _CHAIN), bridge)
    if state.drops and state.ours < len(pair_rules(bridge)):
        await _close_iptables(tool, bridge)
        for rule in pair_rules(bridge):
            await run_iptables(tool, "-I", _CHAIN, *rule)
    elif not state.drops and state.ours:
        await _close_iptables(tool, bridge)
    return state.drops


async def _close_iptables(tool: str, bridge: str) -> None:
    text = await run_iptables(tool, "-S", _CHAIN)
    pair = [tuple(rule) for rule in pair_rules(bridge)]
    for line in text.splitlines():
        words = split_words(line)
        if tuple(words[2:]) in pair:
            await run_iptables(tool, "-D", _CHAIN, *words[2:])


async def run_iptables(tool: str, *words: str) -> str:
    """What it prints. Raises NftError when it refuses."""
    status, stdout, stderr = await nft.run_tool((tool, *_WAIT, *words))
    if status != 0:
        raise NftError("run", shlex.join((tool, *words)), " ".join(stderr.split()), status)
    return stdout


def _comment(bridge: str, side: str) -> str:
    return f"weft {bridge} {side}"


async def _open_nft(chain: Chain, bridge: str) -> None:
    sides = {"in": "iifname", "out": "oifname"}
    wanted = {_comment(bridge, side) for side in sides}
    present = {text for _, text in nft.comments(await _rules(chain))}
    if wanted <= present:
        return
    await _close_nft(chain, bridge)
    await nft.transact(
        [
            {
                "insert": {
                    "rule": _where(chain)
                    | {
                        "comment": _comment(bridge, side),
                        "expr": [match({"meta": {"key": key}}, bridge), {"accept": None}],
                    }
                }
            }
            for side, key in sides.items()
        ]
    )


async def _close_nft(chain: Chain, bridge: str) -> None:
    wanted = {_comment(bridge, side) for side in ("in", "out")}
    handles = [
        rule["handle"]
        for each in await _rules(chain)
        if (rule := each.get("rule")) is not None and rule.get("comment") in wanted
    ]
    await nft.transact(
        [{"delete": {"rule": _where(chain) | {"handle": handle}}} for handle in handles]
    )


async def _rules(chain: Chain) -> nft.Listing:
    return await nft.list_chain(chain.family, chain.table, chain.name)


def _where(chain: Chain) -> dict[str, Any]:
    return {"family": chain.family, "table": chain.table, "chain": chain.name}
