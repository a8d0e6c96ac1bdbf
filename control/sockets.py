"""Unix sockets that a daemon listens on: stale files removed, live ones respected, modes set.

A socket file whose owner died refuses connections; it is removed. One that accepts belongs to a
running process and is an error. On the way out only our own file is removed.
"""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import Final

from base.errors import ConfigError

_PATH_LEN_MAX: Final = 107  # sun_path without its final zero


class UnixListener:
    """A listening stream socket bound to a path."""

    def __init__(self, sock: socket.socket, path: Path) -> None:
        self.socket = sock
        self.path = path
        self._identity = self._identify()

    def remove(self) -> None:
        """Remove the file unless another's stands there by now. Does not close the socket."""
        try:
            if self._identify() == self._identity:
                self.path.unlink()
        except FileNotFoundError:
            pass

    def _identify(self) -> tuple[int, int, int]:
        entry = self.path.stat()
        return entry.st_dev, entry.st_ino, entry.st_ctime_ns  # inode numbers are used again


def listen_unix(path: Path, mode: int, option: str, owner: str) -> UnixListener:
    """Listen on ``path`` with file mode ``mode``; missing folders are made (0755).

    ``option`` is the command-line option that named the path, ``owner`` says what would already be
    listening there; both only for messages. The socket is non-blocking; the caller closes it.

    Raises:
        ConfigError: path too long, taken by a live process or another kind of file, not allowed.
    """
    if len(os.fsencode(path)) > _PATH_LEN_MAX:
        raise ConfigError(f"{option}: {path} is longer than {_PATH_LEN_MAX} bytes; shorten it")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.setblocking(False)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        _remove_stale(path, option, owner)
        sock.bind(str(path))
        path.chmod(mode)  # before listen(): until then nobody can connect
        sock.listen(64)
        return UnixListener(sock, path)
    except OSError as err:
        sock.close()
        reason = err.strerror or str(err)
        raise ConfigError(
            f"{option}: cannot listen on {path} ({reason}); run as root or name another path"
        ) from err
    except ConfigError:
        sock.close()
        raise


def _remove_stale(path: Path, option: str, owner: str) -> None:
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise ConfigError(
            f"{option}: {path} exists and is no socket; remove it or name another path"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except FileNotFoundError:
            return
        except BlockingIOError:
            pass  # its backlog is full: alive
    raise ConfigError(
        f"{option}: {owner} is already running on {path}; stop it first or name another path"
    )
