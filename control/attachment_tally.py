"""How many attachments there were and how long they took, for metrics."""

from __future__ import annotations

import bisect
import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

#: Upper bounds of the histogram, in seconds; one without end follows.
BUCKETS_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


@dataclass(slots=True)
class Durations:
    """Of one kind of operation; ``counts`` by bucket, not summed up; ``failures`` beside them."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    sum_s: float = 0.0
    failures: int = 0

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Count what is done in this context."""
        start = time.monotonic()
        try:
            yield
        except BaseException:
            self.failures += 1
            raise
        took_s = time.monotonic() - start
        self.counts[bisect.bisect_left(BUCKETS_S, took_s)] += 1
        self.sum_s += took_s


@dataclass(slots=True, frozen=True)
class AttachmentsView:
    """Attachments at one moment: ``attached``, ``pending`` on their way, and what was done."""

    attached: int
    pending: int
    attach: Durations
    detach: Durations
