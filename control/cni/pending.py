"""Releases that wait on disk: one file for each container and interface, written by stub or us.

A file's name is ``<container id>@<interface>.<hash of plugin and network>``; names with a dot first
are unfinished. Source of truth: cni specification 5.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio.to_thread
import msgspec

from base.errors import RemoteProtocolError
from base.log import kv
from control.cni.wire import REQUEST_LEN_MAX, Request, decode_request, encode_request

DEFAULT_FOLDER: Final = Path("/var/lib/weave/pending-del")
_FNV_OFFSET: Final = 0xCBF29CE484222325
_FNV_PRIME: Final = 0x100000001B3

log = logging.getLogger(__name__)


@dataclass(slots=True, frozen=True)
class Pending:
    """A release that waits."""

    path: Path
    request: Request


def file_name(request: Request) -> str:
    """Name of a request's file; the stub makes the same."""
    try:
        config = msgspec.json.decode(request.config)
    except msgspec.DecodeError:
        config = None
    network = config.get("name") if isinstance(config, dict) else None
    words = [request.personality, network if isinstance(network, str) else ""]
    digest = _FNV_OFFSET
    for byte in b"".join(word.encode() + b"\0" for word in words):
        digest = (digest ^ byte) * _FNV_PRIME % 2**64
    variables = request.variables
    return f"{variables['CNI_CONTAINERID']}@{variables['CNI_IFNAME']}.{digest:016x}"


class PendingReleases:
    """The folder of them. Files that are not ours stay."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def entries(self) -> list[Pending]:
        """All that wait, oldest first."""
        return await anyio.to_thread.run_sync(self._read, self._names())

    async def of_container(self, container_id: str) -> list[Pending]:
        """Those of one container. Costs one look into the folder when there are none."""
        names = [name for name in self._names() if name.partition("@")[0] == container_id]
        return await anyio.to_thread.run_sync(self._read, names) if names else []

    def _names(self) -> list[str]:
        try:
            # a folder that is almost always empty: quicker than a thread
            return [name for name in os.listdir(self.folder) if not name.startswith(".")]  # noqa: PTH208
        except FileNotFoundError:
            return []

    def _read(self, names: Iterable[str]) -> list[Pending]:
        found: list[tuple[float, Pending]] = []
        for name in names:
            path = self.folder / name
            try:
                with path.open("rb") as file:
                    body = file.read(REQUEST_LEN_MAX + 1)
                found.append((path.stat().st_mtime, Pending(path, decode_request(body))))
            except FileNotFoundError:
                continue
            except (OSError, RemoteProtocolError) as err:
                log.error("not a pending release, left alone", extra=kv(file=name, err=err))
        return [entry for _, entry in sorted(found, key=lambda pair: pair[0])]

    async def write(self, request: Request) -> None:
        """Write a release down; it is on the disk when this returns.

        Raises:
            OSError: it is not.
        """
        await anyio.to_thread.run_sync(self._write, file_name(request), encode_request(request))

    def _write(self, name: str, body: bytes) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self.folder / f".{name}.control"
        try:
            with fresh.open("wb") as file:
                os.chmod(file.fileno(), 0o600)  # noqa: PTH101
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.folder / name)
            self._sync()
        except OSError:
            fresh.unlink(missing_ok=True)
            raise

    async def done(self, entry: Pending) -> None:
        """Forget one that was carried out; were it to come again, that would do no harm."""
        await anyio.to_thread.run_sync(lambda: entry.path.unlink(missing_ok=True))

    def _sync(self) -> None:
        fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
