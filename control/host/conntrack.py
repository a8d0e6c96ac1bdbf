"""What the kernel remembers of the data path's flows, to be forgotten when a node stops.

Address translation on the way is decided with the first datagram of a flow and kept while datagrams
come: a decision that has become wrong, as after the host moved to another network, would keep a
restarted node from its peers. Source of truth: node specification 7.
"""

from __future__ import annotations

import errno
import logging
import socket
from typing import Final

from pyroute2.netlink.exceptions import NetlinkError as KernelRefusal
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple, NFCTSocket

from base.log import kv

log = logging.getLogger(__name__)

_GONE: Final = errno.ENOENT


def forget_flows(port: int) -> int:
    """Remove the entries of UDP flows to ``port`` in this network namespace; how many there were.

    Blocking, in a thread without an event loop. What goes wrong is logged, no more.
    """
    # the kernel picks them; one before 5.8 lists all
    wanted = NFCTAttrTuple(proto=socket.IPPROTO_UDP, dport=port)
    count = 0
    try:
        with NFCTSocket() as kernel:
            for entry in list(kernel.dump(tuple_orig=wanted)):
                flow = NFCTAttrTuple.from_netlink(socket.AF_INET, entry.get_attr("CTA_TUPLE_ORIG"))
                if (flow.proto, flow.dport) == (socket.IPPROTO_UDP, port):
                    count += _delete(kernel, flow)
    except (KernelRefusal, OSError) as err:
        log.debug("flows not forgotten", extra=kv(err=str(err)))
    return count


def _delete(kernel: NFCTSocket, flow: NFCTAttrTuple) -> bool:
    try:
        kernel.entry("del", tuple_orig=flow)
    except KernelRefusal as err:
        if err.code != _GONE:  # it ended by itself
            raise
        return False
    return True
