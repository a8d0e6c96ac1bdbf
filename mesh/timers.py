"""Named deadlines of a sans-IO core, and a token bucket."""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

_Key = TypeVar("_Key", bound=Hashable)


class Timers(Generic[_Key]):
    """One deadline per key. Setting a key again replaces its deadline."""

    def __init__(self) -> None:
        self._when: dict[_Key, float] = {}
        self._heap: list[tuple[float, int, _Key]] = []
        self._count = itertools.count()

    def __contains__(self, key: _Key) -> bool:
        return key in self._when

    def set(self, key: _Key, when: float) -> None:
        """Arm ``key`` for ``when``."""
        self._when[key] = when
        heapq.heappush(self._heap, (when, next(self._count), key))

    def set_by(self, key: _Key, when: float) -> None:
        """Arm ``key`` for ``when`` unless it is armed for an earlier time already.

        For deadlines that are put off often: the early wake-up costs less than the many entries.
        """
        armed = self._when.get(key)
        if armed is None or armed > when:
            self.set(key, when)

    def cancel(self, key: _Key) -> None:
        """Disarm ``key``, if it is armed."""
        self._when.pop(key, None)

    def next_deadline(self) -> float | None:
        """The earliest deadline."""
        while self._heap and self._when.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> Iterator[_Key]:
        """Disarm and yield the keys whose time has come, earliest first."""
        while (when := self.next_deadline()) is not None and when <= now:
            key = heapq.heappop(self._heap)[2]
            del self._when[key]
            yield key


class RateLimits:
    """For each source apart: ``burst`` actions at once, and one more every ``interval_s``.

    Sources beyond ``sources_max`` push out those that were quiet longest; whoever is pushed out
    starts with a full burst again.
    """

    def __init__(self, burst: int, interval_s: float, sources_max: int) -> None:
        self._allowance_s = burst * interval_s
        self._interval_s = interval_s
        self._sources_max = sources_max
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def allow(self, source: str, now: float) -> bool:
        """Count an action of this source; False if it has had too many."""
        full_at = max(self._full_at.get(source, now), now) + self._interval_s
        if full_at - now > self._allowance_s + self._interval_s / 2:
            return False
        self._full_at[source] = full_at
        self._full_at.move_to_end(source)
        if len(self._full_at) > self._sources_max:
            self._full_at.popitem(last=False)
        return True
