"""What STATUS says of a node. Pure. Source of truth: cni specification 6."""

from __future__ import annotations

from typing import Final

from cni.codes import Code
from control.node import IpamView, Membership
from ipam.status import State

_CANNOT_ALLOCATE: Final = (State.ELECTING, State.WAITING, State.UNREACHABLE, State.STOPPED)


def cni_problem(
    router_ready: bool, ipam: IpamView | None, membership: Membership
) -> tuple[Code, str] | None:
    """Code and sentence of what is wrong; None: containers can be added.

    ``ipam`` None: addresses come from elsewhere.
    """
    peers = len(membership.peers)
    established = sum(one.state == "established" for one in membership.connections)
    if peers > 1 and not established:
        return Code.LIMITED, f"none of the {peers - 1} other peers is connected"
    if not router_ready:
        return Code.UNAVAILABLE, "the router is not ready"
    if ipam is not None:
        if ipam.trouble is not None:
            return Code.UNAVAILABLE, f"addresses cannot be recorded: {ipam.trouble}"
        if ipam.status.state in _CANNOT_ALLOCATE:
            return Code.UNAVAILABLE, f"no address is to be had: {ipam.status.state.value}"
    return None
