"""The CNI side of a node as one object, to start and stop with the daemon.

::

    cni = CniService(settings, attachments, addresses, exposure)
    async with anyio.create_task_group() as tasks:
        await tasks.start(cni.run)     # releases that waited are done, the socket answers

The attachments have to be served before. Source of truth: cni specification 5 and 8.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio
from anyio.abc import SocketListener, TaskStatus

from base.errors import ConfigError
from base.log import kv
from control.addresses import Addresses
from control.attachments import Attachments
from control.cni.bridges import Bridges
from control.cni.call import Plugin
from control.cni.dispatch import Dispatcher, Readiness
from control.cni.exposure import Exposure, PlainExposure
from control.cni.gateway import Gateways
from control.cni.ipams import HostLocal, Ipams
from control.cni.pending import PendingReleases
from control.cni.records import expose_records, ipam_records
from control.cni.server import CniServer
from control.cni.watch import FolderWatch
from control.cni.weave_ipam import WeaveIpam
from control.cni.weave_net import WeaveNet
from control.sockets import listen_unix

#: In the folder of the router's socket, by default /run/weave.
CNI_SOCKET: Final = "cni.sock"
_BACKLOG: Final = 1024
_RETRY_FIRST_S: Final = 5.0
_RETRY_MAX_S: Final = 60.0

log = logging.getLogger(__name__)


@dataclass(slots=True, frozen=True)
class CniSettings:
    """``state`` holds the folders ``pending-del`` (the stub writes there too) and ``cni``."""

    socket: Path
    state: Path


class CniService:
    """See the module's head. One use per object.

    ``addresses`` None: allocation is off. ``exposure`` None: the bridge gets its address without
    any rules. ``readiness``: what STATUS is to say of the node itself.

    Raises:
        ConfigError: the folders or the socket cannot be had.
    """

    def __init__(
        self,
        settings: CniSettings,
        attachments: Attachments,
        addresses: Addresses | None,
        exposure: Exposure | None = None,
        readiness: Readiness | None = None,
    ) -> None:
        self._held = ExitStack()
        with self._held:
            folder = settings.state / "cni"
            pending = settings.state / "pending-del"
            try:
                pending.mkdir(mode=0o700, parents=True, exist_ok=True)
                exposed, given = expose_records(folder), ipam_records(folder)
            except OSError as err:
                raise ConfigError(
                    f"--db-prefix: cannot use {settings.state}: {err.strerror}"
                ) from err
            self._pending = PendingReleases(pending)
            files = attachments.book.files
            local = HostLocal(files)
            weave = None
            if addresses is not None:
                weave = WeaveIpam(addresses, given, lambda ident: _is_attached(attachments, ident))
                attachments.book.taken_elsewhere = weave.has_ident
            ipams = Ipams(weave, local, addresses, files)
            bridges = Bridges(attachments.book.attacher.host, attachments.book.in_thread)
            gateways = Gateways(bridges, ipams, exposed, exposure or PlainExposure())
            plugins: dict[str, Plugin] = {
                "weave-net": WeaveNet(attachments, ipams, gateways, bridges),
                "weft-host-local": local,
            }
            if weave is not None:
                plugins["weave-ipam"] = weave
            self._dispatcher = Dispatcher(plugins, self._pending, readiness)
            listener = listen_unix(settings.socket, 0o600, "--control-socket", "control")
            self._held.callback(listener.remove)
            self._held.callback(listener.socket.close)
            listener.socket.listen(_BACKLOG)  # a node's pods may all start at once
            self._socket = listener.socket
            self._held = self._held.pop_all()

    def close(self) -> None:
        """Give everything back; attachments stay."""
        self._held.close()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. Releases that wait are tried before anybody is answered."""
        with FolderWatch(self._pending.folder) as watch:
            left = await self._dispatcher.drain()
            server = CniServer(self._dispatcher)
            async with anyio.create_task_group() as tasks:
                listener = await SocketListener.from_socket(self._socket)
                await tasks.start(server.serve, listener)
                task_status.started()
                await self._follow(watch, left)

    async def _follow(self, watch: FolderWatch, left: int) -> None:
        patience_s = _RETRY_FIRST_S
        while True:
            with anyio.move_on_after(patience_s if left else None):
                await watch.wait()
            before, left = left, await self._dispatcher.drain()
            if left:
                log.warning("releases wait", extra=kv(count=left))
            patience_s = min(2 * patience_s, _RETRY_MAX_S) if before and left else _RETRY_FIRST_S


def _is_attached(attachments: Attachments, ident: str) -> bool:
    return any(record.ident == ident for record in attachments.records)
