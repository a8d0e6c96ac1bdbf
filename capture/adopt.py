"""Taking over a host from a Weave Net router that has stopped.

What containers are attached to, the bridge with its addresses and their pairs, stays and is used
on; what led from the bridge to that router goes, and the caller makes its own: the veth pair behind
``vethwe-bridge``, whose other end a packet socket read or an Open vSwitch datapath had, and that
datapath itself. A router that still reads its end is not robbed of it. Blocking netlink; call it
from a worker thread.

Source of truth: node specification 2.1.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError as KernelRefusal

from base.errors import CaptureError
from capture.bridge import (
    FAST_DATAPATH,
    PACKET_END,
    BridgeLayout,
    find_link,
    kind_of,
    netlink,
)


def adopt(layout: BridgeLayout) -> list[str]:
    """Remove the way to the router before us, if there is one; what was done, in words.

    Raises:
        CaptureError: that router still runs.
        NetlinkError: the kernel refused.
    """
    done: list[str] = []
    with netlink(layout.port) as ip:
        port = find_link(ip, layout.port)
        if port is not None and _is_theirs(ip, port, layout):
            _refuse_if_read(ip, layout)
            ip.link("del", index=port["index"])
            done.append(f"{layout.port} of the router before us removed")
        if (datapath := find_link(ip, FAST_DATAPATH)) is not None:
            done.append(_remove_datapath(ip, datapath))
    return done


def _is_theirs(ip: Any, port: Any, layout: BridgeLayout) -> bool:
    """Whether it is a veth on our bridge, or on none, that is not our own packet capture's."""
    if kind_of(port) != "veth":
        return False
    if layout.capture == "packet" and find_link(ip, PACKET_END) is not None:
        return False
    bridge = find_link(ip, layout.bridge)
    master = port.get_attr("IFLA_MASTER")
    return not master or (bridge is not None and master == bridge["index"])


def _refuse_if_read(ip: Any, layout: BridgeLayout) -> None:
    end = find_link(ip, PACKET_END)
    if end is not None and end["index"] in _indexes_read():
        raise CaptureError(
            "take over",
            layout.port,
            f"a router still reads {PACKET_END}; stop Weave Net first",
        )


def _indexes_read(table: Path = Path("/proc/thread-self/net/packet")) -> set[int]:
    """Interfaces that packet sockets of this network namespace are bound to."""
    rows = table.read_text(encoding="ascii").splitlines()[1:]
    return {int(row.split()[4]) for row in rows}


def _remove_datapath(ip: Any, datapath: Any) -> str:
    try:
        ip.link("del", index=datapath["index"])
    except KernelRefusal as err:
        if err.code != errno.EOPNOTSUPP:
            raise
        # nothing leads to it any more, so it does no harm
        return f"{FAST_DATAPATH} is left; remove it with `ovs-dpctl del-dp {FAST_DATAPATH}`"
    return f"{FAST_DATAPATH} removed"
