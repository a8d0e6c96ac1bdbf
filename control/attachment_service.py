"""The attachments as a part of the daemon: found at the start, served, mended with the bridge."""

from __future__ import annotations

import socket
from collections.abc import Callable

import anyio
from anyio.abc import TaskStatus

from cni.attach import Attacher
from control.addresses import Addresses
from control.attachment_start import mend, prepare, settle
from control.attachment_store import AttachmentStore
from control.attachments import Attachments
from control.host.files import HostFiles
from control.state import StateStore
from ipam.store import Holding


class AttachmentService:
    """Make it before addresses are allocated, :meth:`run` it once they can be, and close it.

    ``bridge`` is the node's own: containers on others are another node's, unless there is a record
    of them here.
    """

    def __init__(
        self,
        state: StateStore,
        bridge: str,
        files: HostFiles | None = None,
        *,
        holder: Callable[[int], str | None] = lambda _: None,
        legacy_names: bool = False,
    ) -> None:
        """Look at the host; blocks. ``holder``: as :func:`prepare`.

        Raises:
            ConfigError: the records cannot be read.
            NetlinkError: the kernel refused to tell.
        """
        self._attacher = Attacher()
        try:
            store = AttachmentStore(state)
            self._found = prepare(store, self._attacher, bridge, holder)
            self.attachments = Attachments(store, self._attacher, files, legacy_names=legacy_names)
        except BaseException:
            self._attacher.close()
            raise
        self._mend = anyio.Event()
        #: Indexes of the bridges that containers are on.
        self._bridges: dict[str, int] = {}

    def close(self) -> None:
        """Let go of the kernel; containers stay attached."""
        self._attacher.close()

    def holdings(self) -> list[Holding]:
        """Addresses in use on this host, for the allocator to begin with."""
        return [
            Holding(int(each.ip), each.network.prefixlen, ident, is_container=False)
            for ident, each in self._found.in_use()
        ]

    def mend_soon(self) -> None:
        """The bridge is there, perhaps anew: put the containers back on it."""
        self._mend.set()

    def look_at_bridges(self) -> None:
        """Links of the host have changed: mend where a bridge was made anew."""
        names = {record.bridge for record in self.attachments.records}
        found = {name: _index_of(name) for name in names}
        if any(index not in (0, self._bridges.get(name)) for name, index in found.items()):
            self.mend_soon()
        self._bridges = found

    async def run(
        self,
        addresses: Addresses | None,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled; started when containers can be attached.

        Raises:
            ConfigError: what was found cannot be recorded.
        """
        await settle(self._found, self.attachments, addresses)
        task_status.started()
        while True:
            await self._mend.wait()
            self._mend = anyio.Event()
            await mend(self.attachments)


def _index_of(link: str) -> int:
    """The kernel's number for a link, 0 if it is not there."""
    try:
        return socket.if_nametoindex(link)
    except OSError:
        return 0
