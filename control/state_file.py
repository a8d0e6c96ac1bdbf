"""The state file as a file: its mode, which one it is, and whether it lost what it held.

Source of truth: :mod:`control.state`.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


def make_private(path: Path) -> None:
    """Make the file if it is missing. In one that is there others shall not write.

    Raises:
        OSError: it cannot be had.
    """
    fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        mode = stat.S_IMODE(os.fstat(fd).st_mode)
        if mode & _OTHERS_WRITE:
            os.fchmod(fd, mode & ~_OTHERS_WRITE)
    finally:
        os.close(fd)


def log_of(path: Path) -> Path:
    """Where sqlite keeps what is not in the file yet."""
    return path.with_name(f"{path.name}-wal")


def was_emptied(path: Path) -> bool:
    """Whether a file lost what it held: sqlite would take it for new, and drop its log."""
    sizes = [each.stat().st_size if each.exists() else None for each in (path, log_of(path))]
    return sizes[0] == 0 and bool(sizes[1])


def file_at(path: Path) -> tuple[int, int]:
    """Which file it is: device and inode. Raises OSError."""
    found = path.stat()
    return found.st_dev, found.st_ino
