"""How a bridge gets its own address. Source of truth: cni specification 4, step 3."""

from __future__ import annotations

import errno
from ipaddress import IPv4Interface
from typing import Protocol

import anyio.to_thread

from cni import requests as req
from cni.errors import BridgeMissingError
from cni.links import find_link
from cni.rtnetlink import RouteSocket
from control.host.service import HostService


class Exposure(Protocol):
    """Gives a bridge an address, and the packet filter the rules that go with it."""

    async def expose(self, bridge: str, address: IPv4Interface) -> None:
        """Put the address on the bridge; that it is there already is no error.

        Raises:
            WeftError: it cannot be put there.
        """


class PlainExposure:
    """An address and nothing else: for bridges that no packet filter of ours looks after."""

    async def expose(self, bridge: str, address: IPv4Interface) -> None:
        """See :class:`Exposure`."""
        await anyio.to_thread.run_sync(_add, bridge, address)


class HostExposure:
    """The node's own bridge through the host's service, which makes the rules; others plainly."""

    def __init__(self, host: HostService, bridge: str) -> None:
        self._host = host
        self._bridge = bridge
        self._plain = PlainExposure()

    async def expose(self, bridge: str, address: IPv4Interface) -> None:
        """See :class:`Exposure`."""
        if bridge == self._bridge:
            await self._host.expose_address(address)
        else:
            await self._plain.expose(bridge, address)


def _add(bridge: str, address: IPv4Interface) -> None:
    with RouteSocket() as host:
        link = find_link(host, bridge)
        if link is None:
            raise BridgeMissingError("use", bridge, "no such bridge; did you launch the node?")
        host.one(req.add_address(link.index, address), errno.EEXIST)
