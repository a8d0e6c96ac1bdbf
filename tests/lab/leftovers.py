"""Finding what a process of a test may have left behind."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GRACE_S = 5.0


def environment(token: str) -> dict[str, str]:
    """An environment that marks a process and all that descend from it with ``token``."""
    return {**os.environ, "WEFT_TEST_TOKEN": token, "PYTHONPATH": str(ROOT)}


def processes(token: str) -> list[int]:
    """Processes whose environment holds ``token``; zombies have none."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if token.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def eventually(holds: Callable[[], bool]) -> bool:
    """Whether ``holds`` becomes true within GRACE_S."""
    limit = time.monotonic() + GRACE_S
    while not holds():
        if time.monotonic() > limit:
            return False
        time.sleep(0.02)
    return True
