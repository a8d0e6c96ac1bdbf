"""Named deadlines of a sans-IO core, and a token bucket."""

from __future__ import annotations

import heapq
import itertools
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


class TokenBucket:
    """Lets ``capacity`` actions pass at once and one more every ``interval_s``."""

    def __init__(self, capacity: int, interval_s: float, now: float) -> None:
        self._capacity = capacity
        self._interval_s = interval_s
        self._full_at = now

    def take(self, now: float) -> float:
        """Take a token: seconds to wait before acting."""
        self._full_at = max(self._full_at, now) + self._interval_s
        return max(0.0, self._full_at - now - self._capacity * self._interval_s)
