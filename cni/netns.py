"""A network namespace by path, process, name or descriptor: checked, told apart, entered.

A thread enters for the length of one function and ends with it: it never comes back into the host's
namespace, so nothing has to be restored, and no failure can leave a shared thread in the wrong
place. Sockets made inside stay inside and may be used from any thread afterwards.

The path may be chosen by somebody who is not root. It is opened with O_PATH, which has no effect on
devices and pipes, and opened for real only when it lies on the file system of namespaces.

Source of truth: node specification 6.1, cni specification 8 and 17.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

from base.errors import PlatformError
from cni.errors import NetnsError, NetnsGoneError

T = TypeVar("T")

#: Where ``ip netns`` keeps names.
NAMED: Final = Path("/var/run/netns")
_OWN: Final = "/proc/thread-self/ns/net"
_CLONE_NEWNET: Final = 0x40000000
_NS_GET_NSTYPE: Final = 0xB703
_libc: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(slots=True, frozen=True)
class NetnsId:
    """Which namespace it is; the kernel uses a number again once its namespace is gone."""

    device: int
    inode: int

    @classmethod
    def of_caller(cls) -> Self:
        """That of the calling thread."""
        found = os.stat(_OWN)  # noqa: PTH116 - the link's target, not a path
        return cls(found.st_dev, found.st_ino)


class Netns:
    """An open namespace. ``path`` is how it was named, for messages and records."""

    def __init__(self, fd: int, path: str, ident: NetnsId) -> None:
        self._fd = fd
        self.path = path
        self.ident = ident

    @classmethod
    def open(cls, path: str, *, at: str | None = None) -> Self:
        """Open ``path``, which this process sees elsewhere if ``at`` says so.

        Raises:
            NetnsGoneError: nothing is there.
            NetnsError: it is no network namespace.
            PlatformError: it may not be opened.
        """
        try:
            probe = os.open(path if at is None else at, os.O_PATH | os.O_CLOEXEC)
        except (OSError, ValueError) as err:
            raise _refusal(path, err) from err
        try:
            return cls._from_probe(probe, path)
        finally:
            os.close(probe)

    @classmethod
    def of_process(cls, pid: int) -> Self:
        """That of a process; raises as :meth:`open`."""
        return cls.open(f"/proc/{pid}/ns/net")

    @classmethod
    def named(cls, name: str) -> Self:
        """The one that ``ip netns`` calls so; raises as :meth:`open`."""
        if "/" in name or name in ("", ".", ".."):
            raise NetnsError(f'"{name}" is no name of a network namespace')
        return cls.open(str(NAMED / name))

    @classmethod
    def from_fd(cls, fd: int, path: str = "") -> Self:
        """From a descriptor, which stays the caller's; raises as :meth:`open`."""
        return cls._from_probe(fd, path or f"descriptor {fd}")

    @classmethod
    def _from_probe(cls, probe: int, path: str) -> Self:
        own_device = NetnsId.of_caller().device
        found = os.fstat(probe)
        if found.st_dev != own_device:
            raise NetnsError(f"{path} is no network namespace")
        fd = os.open(f"/proc/self/fd/{probe}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if fcntl.ioctl(fd, _NS_GET_NSTYPE) != _CLONE_NEWNET:
                raise NetnsError(f"{path} is a namespace of another kind, not a network namespace")
        except BaseException:
            os.close(fd)
            raise
        return cls(fd, path, NetnsId(found.st_dev, found.st_ino))

    def fileno(self) -> int:
        """The descriptor, ours until :meth:`close`."""
        return self._fd

    def refuse_own(self) -> None:
        """Raise NetnsError if it is that of the calling thread, that is the host's."""
        if self.ident == NetnsId.of_caller():
            raise NetnsError(f"{self.path} is the host's own network namespace")

    def run(self, function: Callable[[], T]) -> T:
        """What ``function`` returns or raises when a thread runs it inside."""
        visit = _Visit(self._fd, function)
        visit.start()
        visit.join()
        return visit.result()

    def close(self) -> None:
        """Let go of it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _Visit(threading.Thread, Generic[T]):
    """One function inside a namespace."""

    def __init__(self, fd: int, function: Callable[[], T]) -> None:
        super().__init__(name="netns", daemon=True)
        self._netns_fd = fd
        self._function = function
        self._results: list[T] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        """In the thread."""
        try:
            if _libc.setns(self._netns_fd, _CLONE_NEWNET) != 0:
                number = ctypes.get_errno()
                raise PlatformError("enter", "network namespace", os.strerror(number), number)
            self._results.append(self._function())
        except BaseException as err:  # noqa: BLE001 - handed to the caller
            self._error = err

    def result(self) -> T:
        """After the end."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return self._results.pop()


def _refusal(path: str, err: OSError | ValueError) -> Exception:
    if isinstance(err, ValueError):
        return NetnsError(f"{path!r} is no path")
    if err.errno in (errno.ENOENT, errno.ESRCH, errno.ENOTDIR):
        return NetnsGoneError("open", path, "no such network namespace", err.errno)
    if err.errno == errno.ENAMETOOLONG:
        return NetnsError("the path of the network namespace is too long")
    return PlatformError("open", path, err.strerror or str(err), err.errno or 0)
