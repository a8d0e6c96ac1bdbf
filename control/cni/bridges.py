"""What bridges have: MAC and addresses, looked up once for all who ask at the same time.

Two hundred pods that start at once would otherwise ask the kernel as often for the same, through
the one socket that all of them attach by.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

import anyio

from cni import requests as req
from cni.fields import Interface
from cni.inventory import read_addresses
from cni.links import find_link
from cni.rtnetlink import RouteSocket

_T = TypeVar("_T")

#: How old an answer may be.
_FRESH_S: Final = 0.1


class Work(Protocol):
    """Runs what blocks in a worker thread."""

    def __call__(self, function: Callable[[], _T], /) -> Awaitable[_T]:
        """What ``function`` returns or raises."""


@dataclass(slots=True, frozen=True)
class Bridge:
    """A bridge as it is; all empty when there is none."""

    mac: str = ""
    addresses: tuple[Interface, ...] = ()


class Bridges:
    """For the loop's thread."""

    def __init__(self, host: RouteSocket, work: Work) -> None:
        self._host = host
        self._work = work
        self._lock = anyio.Lock()
        self._known: dict[str, tuple[float, Bridge]] = {}

    async def get(self, name: str) -> Bridge:
        """What a bridge has.

        Raises:
            NetlinkError: the kernel refused to tell.
        """
        async with self._lock:
            found_s, bridge = self._known.get(name, (0.0, Bridge()))
            if time.monotonic() - found_s > _FRESH_S:
                bridge = await self._work(lambda: _look(self._host, name))
                self._known = {name: (time.monotonic(), bridge)}
            return bridge

    def changed(self) -> None:
        """Ask anew the next time."""
        self._known.clear()


def _look(host: RouteSocket, name: str) -> Bridge:
    link = find_link(host, name)
    if link is None:
        return Bridge()
    found = host.one(req.list_addresses(link.index)).found
    return Bridge(link.mac, read_addresses(found, link.index))
