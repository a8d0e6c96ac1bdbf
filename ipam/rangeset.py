"""A set of addresses as a flat, sorted list of boundaries ``[s0, e0, s1, e1, …]``.

Neighbours are always joined, so a number of boundaries ``<= x`` that is odd means that x is inside.
Four bytes a boundary, and a binary search an operation, however many addresses there are.

Source of truth: ipam specification 4; vectors ``ipam_space.json``.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from ipam.address import Range


class RangeSet:
    """See the module. ``ranges`` need not be sorted nor disjoint."""

    __slots__ = ("_bounds",)

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._bounds = array("I")
        for one in ranges:
            self.add(one.start, one.end)

    def __bool__(self) -> bool:
        return bool(self._bounds)

    def __contains__(self, addr: int) -> bool:
        return bool(bisect_right(self._bounds, addr) & 1)

    def __iter__(self) -> Iterator[Range]:
        bounds = self._bounds
        return (Range(bounds[i], bounds[i + 1]) for i in range(0, len(bounds), 2))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RangeSet) and self._bounds == other._bounds

    __hash__ = None  # type: ignore[assignment]

    @property
    def boundaries(self) -> list[int]:
        """The list."""
        return list(self._bounds)

    def add(self, start: int, end: int) -> None:
        """Put ``[start, end)`` in, whatever of it is there already."""
        if start >= end:
            return
        bounds = self._bounds
        low, high = bisect_left(bounds, start), bisect_right(bounds, end)
        new = array("I")
        if not low & 1:
            new.append(start)
        if not high & 1:
            new.append(end)
        bounds[low:high] = new

    def remove(self, start: int, end: int) -> None:
        """Take ``[start, end)`` out, whatever of it is there."""
        if start >= end:
            return
        bounds = self._bounds
        low, high = bisect_left(bounds, start), bisect_right(bounds, end)
        new = array("I")
        if low & 1:
            new.append(start)
        if high & 1:
            new.append(end)
        bounds[low:high] = new

    def clear(self) -> None:
        """Nothing is left."""
        self._bounds = array("I")

    def first_in(self, where: Range) -> int | None:
        """The lowest address inside ``where``; None when there is none."""
        bounds = self._bounds
        index = bisect_right(bounds, where.start)
        if index & 1:
            return where.start if where.start < where.end else None
        if index < len(bounds) and bounds[index] < where.end:
            return bounds[index]
        return None

    def clipped(self, where: Range) -> Iterator[Range]:
        """The runs inside ``where``, in order."""
        start, end = where
        if start >= end:
            return
        bounds = self._bounds
        index = bisect_right(bounds, start)
        if index & 1:
            yield Range(start, min(end, bounds[index]))
            index += 1
        while index < len(bounds) and bounds[index] < end:
            yield Range(bounds[index], min(end, bounds[index + 1]))
            index += 2

    def count_in(self, where: Range) -> int:
        """How many addresses lie inside ``where``."""
        start, end = where
        if start >= end:
            return 0
        bounds = self._bounds
        low, high = bisect_right(bounds, start), bisect_left(bounds, end)
        inside = bounds[low:high]
        if low & 1:
            inside.insert(0, start)
        if high & 1:
            inside.append(end)
        return sum(inside[1::2]) - sum(inside[::2])

    def covers(self, where: Range) -> bool:
        """Whether all of ``where`` is inside."""
        index = bisect_right(self._bounds, where.start)
        return where.start >= where.end or (bool(index & 1) and self._bounds[index] >= where.end)
