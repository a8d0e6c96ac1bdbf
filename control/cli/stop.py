"""``weft stop``: end the ``weft launch`` that holds the lock, and see it end."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

from base.errors import ConfigError
from control.run_lock import RunLock

QUIET_S: Final = 1.0
PATIENCE_S: Final = 20.0


def stop(
    control_socket: Path,
    say: Callable[[str], None],
    quiet_s: float = QUIET_S,
    patience_s: float = PATIENCE_S,
) -> bool:
    """Send SIGTERM to the holder of the lock beside ``control_socket`` and wait for its end.

    ``say`` gets a line when that takes longer than ``quiet_s``. False when nobody holds the lock.

    Raises:
        ConfigError: not allowed to, or it does not end within ``patience_s``.
    """
    lock = RunLock(control_socket)
    while (pid := lock.holder()) is not None:
        if pid <= 0:
            raise ConfigError("stop: the node runs in another pid namespace; stop it from there")
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue  # it ended just now
        try:
            if lock.holder() != pid:
                continue  # the number may be another process by now
            _end(pid, pidfd, say, quiet_s, patience_s)
            return True
        finally:
            os.close(pidfd)
    return False


def _end(
    pid: int, pidfd: int, say: Callable[[str], None], quiet_s: float, patience_s: float
) -> None:
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
    except ProcessLookupError:
        return
    except PermissionError as err:
        raise ConfigError(f"stop: not allowed to stop process {pid}; run as root") from err
    if _ended(pidfd, quiet_s):
        return
    say(f"weft: waiting for process {pid} to end")
    if not _ended(pidfd, patience_s - quiet_s):
        raise ConfigError(
            f"stop: process {pid} has not ended in {patience_s:g} s; see its log, "
            f"or end it with kill -9 {pid}"
        )


def _ended(pidfd: int, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))
