"""Another bridge of the host joined to ours by a veth pair, as by a cable.

Source of truth: node specification 1 (``vethwebl``, ``vethwebg``) and 6.3.
"""

from __future__ import annotations

import errno
import hashlib
from typing import Final

from base.errors import CaptureError
from cni import requests as req
from cni.errors import BridgeMissingError
from cni.links import Link, find_link, read_link
from cni.names import check_ifname
from cni.rtnetlink import RouteSocket
from cni.sysctl import guard_host_end

OUR_END: Final = "vethwebl"
THEIR_END: Final = "vethwebg"
_ROOM: Final = 7
_OURS: Final = "weft launch makes it, --weave-bridge names another"
_THEIRS: Final = "name one of this host"


def type_of_bridge(bridge: str) -> str:
    """What kind of layout the network's bridge has; there is one.

    Raises:
        BridgeMissingError: it is not there.
    """
    with RouteSocket() as host:
        _bridge(host, bridge, _OURS)
    return "bridge"


def join_bridges(bridge: str, other: str) -> None:
    """Join ``other`` to ``bridge``, unless they are already.

    Raises:
        BridgeMissingError: one of them is not there, or down.
        CaptureError: that would make a loop.
        NetlinkError: the kernel refused.
    """
    check_ifname(bridge)
    check_ifname(other)
    suffix = other if len(other) <= _ROOM else hashlib.sha256(other.encode()).hexdigest()[:_ROOM]
    names = (OUR_END + suffix, THEIR_END + suffix)
    with RouteSocket() as host:
        ours, theirs = _bridge(host, bridge, _OURS), _bridge(host, other, _THEIRS)
        if ours.index == theirs.index:
            raise CaptureError("join", other, "it is the network's own bridge")
        if not theirs.up:
            raise BridgeMissingError("join", other, "it is down; set it up first", errno.ENETDOWN)
        ports = [read_link(each) for each in host.one(req.list_links(master=theirs.index)).found]
        strangers = [
            port.name for port in ports if port.name.startswith("vethwe") and port.name not in names
        ]
        if strangers:
            raise CaptureError(
                "join", other, f"{strangers[0]} joins it to a network already; that makes a loop"
            )
        cable = find_link(host, names[0])
        if cable is not None and cable.bridge not in (0, ours.index):
            raise CaptureError("join", other, f"{cable.name} joins it to another network")
        if cable is None:
            mtu = min(ours.mtu, theirs.mtu)
            host.one(req.make_cable(*names, mtu=mtu))
        try:
            for name, master in zip(names, (ours, theirs), strict=True):
                _plug(host, name, master)
        except BaseException:
            if (made := find_link(host, names[0])) is not None:
                host.one(req.delete_link(made.index, made.name), errno.ENODEV)
            raise


def _bridge(host: RouteSocket, name: str, remedy: str) -> Link:
    found = find_link(host, name)
    if found is None or found.kind != "bridge":
        raise BridgeMissingError("use", name, f"no such bridge; {remedy}", errno.ENODEV)
    return found


def _plug(host: RouteSocket, name: str, bridge: Link) -> None:
    link = find_link(host, name)
    if link is None:
        raise BridgeMissingError("use", name, "no such interface", errno.ENODEV)
    if link.bridge != bridge.index:
        host.one(req.join(link.index, name, bridge.index))
    guard_host_end(name)
    if not link.up:
        host.one(req.set_up(link.index, name))
