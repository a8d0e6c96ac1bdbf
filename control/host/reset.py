"""Takes away what a node has made on its host: links, tables, rules. Runs without the node.

So goes what a Weave Net before it left (:mod:`control.host.weave_net`).

Settings of the kernel stay as they are: whatever else runs here may rely on them by now. What
belongs to another bridge stays, and foreign tables and chains do.

Source of truth: node specification 7 (reset).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import anyio
import anyio.to_thread

from base.errors import NetlinkError, PlatformError
from cni.bridges import THEIR_END
from control.host import bridge_table, foreign, nft, ruleset, weave_net
from control.host.bridge import netlink

#: Both ends of everything that is plugged into a bridge of ours.
PREFIX: Final = "vethwe"
DEFAULT_BRIDGE: Final = "weave"
_POLICY_TABLE: Final = ("inet", "weave_npc")


def clean(bridge: str) -> list[str]:
    """Remove it all; what was there, in words. Blocking; not to be called from an event loop.

    Everything is tried, whatever fails. A router that still runs would make it all anew: end it
    first.

    Raises:
        PlatformError: the first that failed.
    """
    return anyio.run(remove, bridge)


async def remove(bridge: str) -> list[str]:
    """The same as :func:`clean` from an event loop."""
    removed: list[str] = []
    errors: list[PlatformError] = []
    try:
        removed += await anyio.to_thread.run_sync(_remove_links, bridge)
    except PlatformError as err:
        errors.append(err)
    if nft.have_nft():
        table = ruleset.table_name(bridge)
        tables = [(ruleset.FAMILY, table), (bridge_table.FAMILY, table)]
        tables += [_POLICY_TABLE] if bridge == DEFAULT_BRIDGE else []
        for family, name in tables:
            try:
                removed += await _remove_table(family, name)
            except PlatformError as err:
                errors.append(err)
    try:
        await foreign.close_chains(bridge)
    except PlatformError as err:
        errors.append(err)
    if bridge == DEFAULT_BRIDGE:  # what Weave Net leaves does not say of which bridge it was
        try:
            removed += await weave_net.remove(bridge)
        except PlatformError as err:
            errors.append(err)
    if errors:
        raise errors[0]
    return removed


async def _remove_table(family: str, name: str) -> list[str]:
    if await nft.list_table(family, name) is None:
        return []
    table = {"family": family, "name": name}
    # somebody may be quicker
    await nft.transact([{"add": {"table": table}}, {"delete": {"table": table}}])
    return [f"table {family} {name}"]


def _remove_links(bridge: str) -> list[str]:
    removed: list[str] = []
    with netlink("remove links of", bridge) as ip:
        for name in _ours(list(ip.get_links()), bridge):
            # one end of a pair takes the other with it
            index = ip.link_lookup(ifname=name)
            if index:
                ip.link("del", index=index[0])
                removed.append(f"link {name}")
    return removed


def _ours(links: list[Any], bridge: str) -> Iterator[str]:
    """Names of what to delete: ports first, the bridge last."""
    by_index = {link["index"]: link for link in links}
    names = {index: str(link.get_attr("IFLA_IFNAME")) for index, link in by_index.items()}
    found = next((index for index, name in names.items() if name == bridge), 0)
    if found and not _is_bridge(by_index[found]):
        raise NetlinkError("remove", bridge, "it is no bridge; it is left alone")
    for index, link in by_index.items():
        if not names[index].startswith(PREFIX):
            continue
        # of a cable between bridges (cni.bridges) the far end is in a bridge that is not ours
        ends = [each for each in (index, _peer(link)) if each in by_index]
        near = [each for each in ends if not names[each].startswith(THEIR_END)]
        masters = {_master(by_index[each]) for each in near} - {0}
        if not masters or found in masters:
            yield names[index]
    if found:
        yield bridge


def _is_bridge(link: Any) -> bool:
    info = link.get_attr("IFLA_LINKINFO")
    return info is not None and info.get_attr("IFLA_INFO_KIND") == "bridge"


def _master(link: Any) -> int:
    return int(link.get_attr("IFLA_MASTER") or 0)


def _peer(link: Any) -> int:
    """Index of a veth's other end if that is in this namespace."""
    if link.get_attr("IFLA_LINK_NETNSID") is not None:
        return 0
    return int(link.get_attr("IFLA_LINK") or 0)
