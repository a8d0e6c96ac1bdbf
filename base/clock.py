"""Time as an argument: what reads a clock takes one of these, so that tests can move it.

Only monotonic time; wall-clock time belongs to reports and logs.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """A source of monotonic time."""

    def now(self) -> float:
        """Seconds since an arbitrary, fixed moment; never goes back."""
        ...


class MonotonicClock:
    """The machine's CLOCK_MONOTONIC."""

    def now(self) -> float:
        """Seconds, not counting suspend."""
        return time.monotonic()


class FakeClock:
    """A clock that stands still until told otherwise."""

    def __init__(self, start_s: float = 1000.0) -> None:
        self._now_s = start_s

    def now(self) -> float:
        """The moment last set."""
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Move forward. Raises ValueError for a negative step."""
        if seconds < 0:
            raise ValueError("time does not go back")
        self._now_s += seconds
