r"""The folder of a network's addresses, file for file as the reference plugin has it.

    <address>                 "<container id>\r\n<interface>", made exclusively, mode 0600
    last_reserved_ip.<set>    the address given last from that set
    lock                      flock'ed while addresses are searched or given back

An empty address file is what a plugin left that died between making and writing it. After a minute
nobody will write it any more, and it counts as free.

Blocking; every method is short. Source of truth: cni specification 10, "On disk".
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from cni.fields import Address
from cni.hostlocal.ranges import parse_address

_SEPARATOR: Final = "\r\n"
_EMPTY_AGE_S: Final = 60
_CONTENT_LEN_MAX: Final = 1024
#: A search reads them all, some 10 µs each.
_QUICK_FILES_MAX: Final = 64
_LAST: Final = "last_reserved_ip."


class WouldBlockError(Exception):
    """Asked not to wait, and there is something to wait for."""


class Store:
    """An open, locked folder. Methods raise OSError as the calls behind them do."""

    def __init__(self, folder: Path, lock_fd: int, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._prefix = f"{folder}/"
        self._lock_fd = lock_fd
        self._clock = clock

    @classmethod
    def open(cls, folder: Path, *, wait: bool = True) -> Self:
        """Make the folder if it is missing, and wait for its lock.

        Raises:
            OSError: it cannot be had.
            WouldBlockError: not to wait, and another has the lock, or there are many files to read.
        """
        lock = f"{folder}/lock"
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        try:
            fd = os.open(lock, flags, 0o644)
        except FileNotFoundError:
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            fd = os.open(lock, flags, 0o644)
        try:
            if not wait and len(os.listdir(folder)) > _QUICK_FILES_MAX:  # noqa: PTH208
                raise WouldBlockError
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as err:
            os.close(fd)
            raise WouldBlockError from err
        except BaseException:
            os.close(fd)
            raise
        return cls(folder, fd)

    @classmethod
    def open_existing(cls, folder: Path, *, wait: bool = True) -> Self | None:
        """The same, but None where there is no folder: nothing was ever given out."""
        return cls.open(folder, wait=wait) if folder.is_dir() else None

    def close(self) -> None:
        """Unlock."""
        os.close(self._lock_fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def reserve(self, container_id: str, ifname: str, address: Address, set_index: int) -> bool:
        """Give an address out unless it is taken."""
        path = f"{self._prefix}{address}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            fd = os.open(path, flags, 0o600)
        except FileExistsError:
            if not self._is_abandoned(path):
                return False
            os.unlink(path)  # noqa: PTH108 - this is called for every address tried
            fd = os.open(path, flags, 0o600)
        try:
            os.write(fd, _owner(container_id, ifname).encode())
        except OSError:
            os.unlink(path)  # noqa: PTH108
            raise
        finally:
            os.close(fd)
        self._remember(set_index, address)
        return True

    def _is_abandoned(self, path: str) -> bool:
        found = os.stat(path, follow_symlinks=False)  # noqa: PTH116
        return found.st_size == 0 and self._clock() - found.st_mtime > _EMPTY_AGE_S

    def _remember(self, set_index: int, address: Address) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        fd = os.open(f"{self._prefix}{_LAST}{set_index}", flags, 0o600)
        try:
            os.write(fd, str(address).encode())
        finally:
            os.close(fd)

    def last_reserved(self, set_index: int) -> Address | None:
        """The address given last from a set, if one was."""
        try:
            return parse_address(self._read(f"{_LAST}{set_index}"))
        except FileNotFoundError:
            return None

    def _read(self, name: str) -> str:
        fd = os.open(f"{self._prefix}{name}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            return os.read(fd, _CONTENT_LEN_MAX).decode(errors="replace").strip()
        finally:
            os.close(fd)

    def records(self) -> Iterator[tuple[str, str, str]]:
        """(file name, container id, interface or nothing) of every address that is given out."""
        for name in os.listdir(self._folder):  # noqa: PTH208 - names are all we want
            if name[0] not in "0123456789abcdef:" or parse_address(name) is None:
                continue  # "lock" and "last_reserved_ip.0" fall at the first test
            try:
                content = self._read(name)
            except OSError:
                continue  # gone, or no file
            container_id, _, ifname = content.partition("\n")
            yield name, container_id.strip(), ifname.strip()

    def names_of(self, container_id: str, ifname: str) -> list[str]:
        """Address files of an interface; else those of the old form, of its whole container."""
        found = list(self.records())
        exact = [name for name, owner, inner in found if (owner, inner) == (container_id, ifname)]
        return exact or [
            name for name, owner, inner in found if (owner, inner) == (container_id, "")
        ]

    def release(self, container_id: str, ifname: str) -> None:
        """Take back every address of an interface; none is no error."""
        self.remove(self.names_of(container_id, ifname))

    def remove(self, names: list[str]) -> None:
        """Delete address files."""
        for name in names:
            Path(self._folder, name).unlink(missing_ok=True)

    def is_free(self, address: Address) -> bool:
        """Whether nobody has an address."""
        try:
            return self._is_abandoned(f"{self._prefix}{address}")
        except FileNotFoundError:
            return True


def _owner(container_id: str, ifname: str) -> str:
    return f"{container_id}{_SEPARATOR}{ifname}"
