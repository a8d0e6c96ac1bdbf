"""Gratuitous ARP: whoever knew another MAC for this address learns ours at once.

The frame is that of :mod:`cni.announce`, which announces containers. A bridge port may not forward
yet just after it came up, so one is not enough. Source of truth: node specification 6.1 step 6 and
14.8.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from ipaddress import IPv4Address
from typing import Final

import anyio
import anyio.to_thread

from base.log import kv
from base.names import Mac
from cni.announce import gratuitous_arp

log = logging.getLogger(__name__)

#: Seconds from the start.
TIMES_S: Final = (0.001, 0.1, 1.0)
_ETH_P_ARP: Final = 0x0806


async def announce(interface: str, address: IPv4Address) -> None:
    """Send it at each of TIMES_S; never fails, a link that went away needs no announcement."""
    passed_s = 0.0
    for moment_s in TIMES_S:
        await anyio.sleep(moment_s - passed_s)
        passed_s = moment_s
        with contextlib.suppress(OSError):
            await anyio.to_thread.run_sync(_send, interface, address)
    log.debug("address announced", extra=kv(addr=str(address), interface=interface))


def _send(interface: str, address: IPv4Address) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((interface, _ETH_P_ARP))
        mac: bytes = raw.getsockname()[4]
        raw.send(gratuitous_arp(Mac(mac), address))
