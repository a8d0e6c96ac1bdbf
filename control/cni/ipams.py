"""Which IPAM a configuration means, and the two that are not Weave's own.

Source of truth: cni specification 9 and 10.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeVar

import anyio
import anyio.to_thread

from base.errors import CniError
from cni.codes import Code
from cni.config import BUILT_IN_IPAM, BaseConfig
from cni.hostlocal import plugin as host_local
from cni.hostlocal.config import DEFAULT_FOLDER
from cni.hostlocal.store import WouldBlockError
from cni.result import Result
from control.addresses import Addresses
from control.cni import delegate
from control.cni.call import Call, Plugin
from control.host.files import HostFiles

_T = TypeVar("_T")

#: Types that mean our own host-local; the first is the reference plugin's, which it replaces.
HOST_LOCAL_TYPES: Final = ("host-local", "weft-host-local")
_THREADS: Final = 8


class HostLocal:
    """host-local. What is quick is done at once: a thread's two wake-ups would be most of it."""

    def __init__(self, files: HostFiles) -> None:
        self._files = files
        self._threads = anyio.CapacityLimiter(_THREADS)

    def _base(self, call: Call) -> BaseConfig:
        """The call's configuration, its paths as they are seen from here."""
        if self._files == HostFiles() or not isinstance(given := call.base.raw.get("ipam"), dict):
            return call.base
        ipam = {"dataDir": DEFAULT_FOLDER} | given
        for key in ("dataDir", "resolvConf"):
            if isinstance(path := ipam.get(key), str):
                ipam[key] = self._files.path(path or (DEFAULT_FOLDER if key == "dataDir" else ""))
        return replace(call.base, raw={**call.base.raw, "ipam": ipam})

    async def _run(self, function: Callable[[], _T]) -> _T:
        return await anyio.to_thread.run_sync(function, limiter=self._threads)

    async def add(self, call: Call) -> Result:
        """One address from each set of ranges."""
        try:
            return host_local.add(self._base(call), call.environment, wait=False)
        except WouldBlockError:
            pass
        try:
            return await self._run(lambda: host_local.add(self._base(call), call.environment))
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await self.delete(call)
            raise

    async def delete(self, call: Call) -> None:
        """Give them back."""
        try:
            host_local.delete(self._base(call), call.environment, wait=False)
        except WouldBlockError:
            await self._run(lambda: host_local.delete(self._base(call), call.environment))

    async def check(self, call: Call) -> None:
        """Find that there is one."""
        await self._run(lambda: host_local.check(self._base(call), call.environment))

    async def collect(self, call: Call) -> None:
        """Drop those of attachments that are not valid."""
        await self._run(lambda: host_local.collect(self._base(call)))

    async def status(self, call: Call) -> None:
        """Find a free one in every set."""
        await self._run(lambda: host_local.status(self._base(call)))


class DelegateError(CniError):
    """Another plugin's error, which is passed up as it is."""


class Foreign:
    """An IPAM plugin found in CNI_PATH."""

    def __init__(self, plugin: str, files: HostFiles) -> None:
        self._plugin = plugin
        self._files = files

    async def add(self, call: Call) -> Result:
        """Its result; after a failure its DEL has been called."""
        try:
            return await delegate.add(call, self._plugin, self._files)
        except BaseException:
            with anyio.move_on_after(5, shield=True):
                try:
                    await delegate.execute(call, self._plugin, "DEL", self._files)
                except CniError as err:
                    call.notes.append(f"DEL after the failed ADD: {err}")
            raise

    async def delete(self, call: Call) -> None:
        """Its DEL."""
        await self._pass(call, "DEL")

    async def check(self, call: Call) -> None:
        """Its CHECK."""
        await self._pass(call, "CHECK")

    async def collect(self, call: Call) -> None:
        """Its GC."""
        await self._pass(call, "GC")

    async def status(self, call: Call) -> None:
        """Its STATUS."""
        await self._pass(call, "STATUS")

    async def _pass(self, call: Call, command: str) -> None:
        try:
            await delegate.execute(call, self._plugin, command, self._files)
        except CniError as err:
            raise DelegateError(err.code, err.message, err.details) from err


class Ipams:
    """All that there are. ``weave`` and ``addresses`` None: allocation is off."""

    def __init__(
        self,
        weave: Plugin | None,
        local: Plugin,
        addresses: Addresses | None,
        files: HostFiles,
    ) -> None:
        self._files = files
        self._weave = weave
        self._local = local
        self._addresses = addresses

    def addresses(self) -> Addresses:
        """Weave's own allocation.

        Raises:
            CniError: code 11, it is switched off.
        """
        if self._addresses is None:
            raise _off()
        return self._addresses

    def of_type(self, ipam_type: str) -> Plugin:
        """The IPAM of that name.

        Raises:
            CniError: code 11, Weave's own is switched off.
        """
        if ipam_type in BUILT_IN_IPAM:
            if self._weave is None:
                raise _off()
            return self._weave
        if ipam_type in HOST_LOCAL_TYPES:
            return self._local
        return Foreign(ipam_type, self._files)


def _off() -> CniError:
    return CniError(Code.TRY_AGAIN, "this node allocates no addresses", "name another ipam.type")
