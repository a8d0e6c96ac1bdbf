"""How long to wait before a dead child is started again. Sans-IO: time comes in as numbers."""

from __future__ import annotations

from typing import Final

FIRST_DELAY_S: Final = 0.1
DELAY_MAX_S: Final = 10.0
STABLE_AFTER_S: Final = 30.0


class Backoff:
    """At once after the first death, then 0.1 s doubling to 10 s; forgiven after 30 s of life."""

    def __init__(self) -> None:
        self._next_delay_s = 0.0

    def died(self, lived_s: float) -> float:
        """Seconds to wait after a child that lived ``lived_s``."""
        if lived_s >= STABLE_AFTER_S:
            self._next_delay_s = 0.0
        delay_s = self._next_delay_s
        self._next_delay_s = min(max(FIRST_DELAY_S, 2 * delay_s), DELAY_MAX_S)
        return delay_s
