"""Waiting for files to appear in a folder, by inotify: no wake-up while nothing happens."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import anyio

from base.errors import PlatformError

_IN_MOVED_TO: Final = 0x80
_IN_CLOEXEC: Final = os.O_CLOEXEC
_IN_NONBLOCK: Final = os.O_NONBLOCK
_EVENTS_LEN: Final = 65536
_libc: Final = ctypes.CDLL(None, use_errno=True)


class FolderWatch:
    """Wakes up when a file is renamed into ``folder``, which has to exist.

    Raises:
        PlatformError: the kernel refused.
    """

    def __init__(self, folder: Path) -> None:
        self._fd = _libc.inotify_init1(_IN_CLOEXEC | _IN_NONBLOCK)
        if self._fd < 0:
            raise _refused(folder)
        if _libc.inotify_add_watch(self._fd, os.fsencode(folder), _IN_MOVED_TO) < 0:
            error = _refused(folder)
            os.close(self._fd)
            raise error

    async def wait(self) -> None:
        """Return when at least one file has appeared since the last call."""
        await anyio.wait_readable(self._fd)
        try:
            os.read(self._fd, _EVENTS_LEN)
        except BlockingIOError:
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._fd)


def _refused(folder: Path) -> PlatformError:
    number = ctypes.get_errno()
    return PlatformError("watch", str(folder), os.strerror(number), number)
