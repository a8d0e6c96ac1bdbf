"""Which ``weft launch`` runs here: a lock on a file beside the control socket.

``weft launch`` holds a POSIX record lock on ``launch.lock`` for its life. The kernel drops it with
the process, however that ends, and names the holder to whoever asks; so there is no stale pid to be
taken in by, and the file may stay. Children don't inherit it. The file is root's alone: a lock that
anybody could take would let anybody keep the node from starting.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from base.errors import ConfigError

LOCK_NAME: Final = "launch.lock"
_OPTION: Final = "--control-socket"
#: struct flock of Linux: type, whence (short), start, len (off_t), pid (int), native alignment.
_FLOCK: Final = struct.Struct("@hhqqi")


class RunLock:
    """The lock beside ``control_socket``; a context manager that holds it."""

    def __init__(self, control_socket: Path) -> None:
        self.path = control_socket.parent / LOCK_NAME
        self._fd: int | None = None

    def acquire(self) -> None:
        """Take the lock; folder and file are made. Held until :meth:`release` or our end.

        No other code may open the file meanwhile: closing any descriptor of it drops the lock.

        Raises:
            ConfigError: another process holds it, or the file can't be made.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as err:
            raise self._no_access(err) from err
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            pid = _holder(self._fd)
            self.release()
            if not isinstance(err, BlockingIOError | PermissionError):  # EAGAIN, EACCES
                raise self._no_access(err) from err
            raise ConfigError(f"already running (pid {pid}); stop it with weft stop") from None

    def release(self) -> None:
        """Give the lock back; the file stays."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def forget(self) -> None:
        """Remove the file, by which others see that a node was launched here.

        Raises:
            ConfigError: it is held, or we are not allowed to.
        """
        if not os.path.lexists(self.path):
            return
        with self:
            self.path.unlink(missing_ok=True)

    def holder(self) -> int | None:
        """Pid of the process that holds the lock, None when nobody does. Not for the holder.

        Raises:
            ConfigError: not allowed to ask.
        """
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as err:
            raise self._no_access(err) from err
        try:
            return _holder(fd)
        finally:
            os.close(fd)

    def _no_access(self, err: OSError) -> ConfigError:
        reason = err.strerror or str(err)
        return ConfigError(
            f"{_OPTION}: cannot lock {self.path} ({reason}); run as root or name another path"
        )

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


def _holder(fd: int) -> int | None:
    """Who keeps us from a write lock on the whole file; 0 for one beyond our pid namespace."""
    question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, question))
    return None if kind == fcntl.F_UNLCK else int(pid)
