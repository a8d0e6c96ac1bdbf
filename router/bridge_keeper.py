"""Keeps bridge and port as they should be while the router runs.

The kernel says on a netlink socket when any link changes; then everything is checked and mended in
a worker thread. Nothing polls. A port that was deleted is made anew and handed to the pipelines.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Final

import anyio
import anyio.from_thread
import anyio.to_thread

from base.errors import PlatformError
from base.log import kv
from capture.bridge import (
    BRIDGE_PORT,
    PACKET_END,
    BridgeLayout,
    ensure_bridge,
    ensure_pair,
    ensure_port,
    remove_pair_if_new,
)
from capture.device import FramePort
from capture.packet import open_packet
from capture.tap import open_tap
from router.stages import PortHolder

log = logging.getLogger(__name__)

_RTMGRP_LINK: Final = 1
#: Changes come in bursts; look once they have settled.
_SETTLE_S: Final = 0.02
_RETRY_S: Final = 1.0
#: Another thread may still be writing to the descriptor of a replaced port.
_GRACE_S: Final = 1.0


def open_port(layout: BridgeLayout, buffer_bytes: int) -> FramePort:
    """Bridge, port and the router's end of it, ready for frames. Blocking.

    Raises:
        CaptureError: the port can't be had; what was made for it is gone again.
        NetlinkError: the kernel refused.
    """
    if layout.capture == "packet":
        made = ensure_pair(layout)
        try:
            ensure_bridge(layout)
            ensure_port(layout)
            return open_packet(PACKET_END, buffer_bytes)
        except PlatformError:
            remove_pair_if_new(layout, made)
            raise
    port = open_tap(layout.port)  # first: it fails while another router runs, and changes nothing
    try:
        ensure_bridge(layout)
        ensure_port(layout)
    except PlatformError:
        port.close()
        raise
    return port


class BridgeKeeper:
    """Watches links and mends the layout. One per router, on the egress loop."""

    def __init__(
        self,
        layout: BridgeLayout,
        holder: PortHolder,
        buffer_bytes: int,
        on_repair: Callable[[str, int], None],
        rewatch: Callable[[], None],
    ) -> None:
        self.layout = layout
        self._holder = holder
        self._buffer_bytes = buffer_bytes
        self._on_repair = on_repair
        self._rewatch = rewatch
        self._index = _index_of(layout.port)
        self._check = anyio.Event()
        #: Times that something had to be mended.
        self.repairs = 0

    def check_soon(self) -> None:
        """Something looks wrong: look now."""
        self._check.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._listen)
            while True:
                await self._check.wait()
                await anyio.sleep(_SETTLE_S)
                self._check = anyio.Event()
                await self._mend()

    async def _listen(self) -> None:
        with socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        ) as links:
            links.bind((0, _RTMGRP_LINK))
            self.check_soon()  # for what changed before we listened
            while True:
                await anyio.wait_readable(links.fileno())
                try:
                    while links.recv(65536):
                        pass
                except BlockingIOError:
                    pass
                except OSError as err:  # ENOBUFS: events were lost, which is an event too
                    log.debug("link events lost", extra=kv(err=str(err)))
                self.check_soon()

    async def _mend(self) -> None:
        try:
            changed = await anyio.to_thread.run_sync(self._mend_blocking)
        except PlatformError as err:
            log.error("bridge is broken", extra=kv(err=str(err)))
            await anyio.sleep(_RETRY_S)
            self.check_soon()
            return
        # The event loop gives up a descriptor that reported an error, as that of a packet socket
        # does whose interface was down for a moment.
        self._rewatch()
        if changed:
            self.repairs += 1
            what = ", ".join(changed)
            log.warning("bridge repaired", extra=kv(reason=what, attempt=self.repairs))
            self._on_repair(what, self.repairs)

    def _mend_blocking(self) -> list[str]:
        changed = ensure_bridge(self.layout)
        # another device may have taken the name since: only ours will do
        if self._index and _index_of(self.layout.port) == self._index:
            return changed + ensure_port(self.layout)
        old = self._holder.port
        self._holder.port = open_port(self.layout, self._buffer_bytes)
        self._index = _index_of(self.layout.port)
        anyio.from_thread.run_sync(self._replaced, old)
        return [*changed, f"{BRIDGE_PORT} made anew"]

    def _replaced(self, old: FramePort) -> None:
        self._rewatch()
        asyncio.get_running_loop().call_later(_GRACE_S, old.close)


def _index_of(interface: str) -> int:
    """Interface index, 0 if there is none of that name."""
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        return 0
