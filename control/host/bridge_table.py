"""Our table of the bridge family, which sees the ports: one transaction for all that is in it.

Source of truth: node specification 6.1a, 15.
"""

from __future__ import annotations

from typing import Final

from control.host import multicast, port_security
from control.host.ports import Ports
from control.host.ruleset import Command

FAMILY: Final = "bridge"


def replace_table(table: str, ports: Ports, *, secured: bool = False) -> list[Command]:
    """The whole table, whatever was there before; none at all if there is nothing to be in it."""
    named = {"family": FAMILY, "name": table}
    where = {"family": FAMILY, "table": table}
    content = multicast.isolate(where, ports)
    if secured:
        content += port_security.secure(where, ports)
    commands: list[Command] = [{"add": {"table": named}}, {"delete": {"table": named}}]
    return [*commands, {"add": {"table": named}}, *content] if content else commands
