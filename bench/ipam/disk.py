"""What the disk gives: commits and syncs per second without anything of ours around them.

The same settings as the state file's; the figures of allocation are read beside these.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Final

import msgspec

SECONDS: Final = 1.0
_PAGE: Final = b"x" * 4096


class Disk(msgspec.Struct, frozen=True):
    """Per second: transactions of one row, and writes of a page with ``fdatasync``."""

    commits_per_s: float
    syncs_per_s: float


def measure(folder: Path, seconds: float = SECONDS) -> Disk:
    """Measure the file system of ``folder`` for twice ``seconds``; leaves nothing there."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        return Disk(_commits_per_s(Path(scratch), seconds), _syncs_per_s(Path(scratch), seconds))


def _commits_per_s(scratch: Path, seconds: float) -> float:
    with closing(sqlite3.connect(scratch / "raw.db", isolation_level=None)) as connection:
        for pragma in ("locking_mode = EXCLUSIVE", "synchronous = FULL", "journal_mode = WAL"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("CREATE TABLE row (number INTEGER PRIMARY KEY, text TEXT) STRICT")
        done, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO row (text) VALUES ('a container''s identifier')")
            connection.execute("COMMIT")
            done += 1
        return done / (time.perf_counter() - start)


def _syncs_per_s(scratch: Path, seconds: float) -> float:
    with (scratch / "raw").open("wb", buffering=0) as file:
        done, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            file.write(_PAGE)
            os.fdatasync(file.fileno())
            done += 1
        return done / (time.perf_counter() - start)
