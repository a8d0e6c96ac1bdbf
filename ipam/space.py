"""What we own in detail: addresses handed out (*ours*) and *free* ones, disjoint.

A freed address rests: it is free, counted and given to other peers as such, but handed out only
when there is no other, the one that has rested longest first. Weave hands it out at once, and
whoever still has the former holder in a cache talks to the new one.

Source of truth: ipam specification 4, 20.10; vectors ``ipam_space.json``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from base.errors import LocalProtocolError
from ipam.address import Range, biggest_aligned, format_address, merge_adjacent
from ipam.journal import Journal
from ipam.rangeset import RangeSet


class Space:
    """See the module. Every step is noted in ``journal``."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._ours = RangeSet()
        self._free = RangeSet()
        self._fresh = RangeSet()
        # until when they rest; the line may hold some that do so no longer
        self._resting: dict[int, float] = {}
        self._line: deque[tuple[float, int]] = deque()
        #: Number of addresses handed out.
        self.ours_total = 0

    @property
    def ours_boundaries(self) -> list[int]:
        """Handed out, as boundaries."""
        return self._ours.boundaries

    @property
    def free_boundaries(self) -> list[int]:
        """Free, as boundaries."""
        return self._free.boundaries

    def is_ours(self, addr: int) -> bool:
        """Whether it is handed out."""
        return addr in self._ours

    def is_free(self, addr: int) -> bool:
        """Whether we own it and it is not handed out."""
        return addr in self._free

    def free_in(self, where: Range) -> int:
        """Number of free addresses inside ``where``."""
        return self._free.count_in(where)

    def first_used(self, ranges: Iterable[Range]) -> int | None:
        """The lowest handed-out address inside any of ``ranges``."""
        for one in ranges:
            if (found := self._ours.first_in(one)) is not None:
                return found
        return None

    def used_in(self, where: Range) -> list[int]:
        """All handed-out addresses inside ``where``."""
        return [addr for run in self._ours.clipped(where) for addr in range(*run)]

    def owned_ranges(self) -> list[Range]:
        """Both sets together, neighbours joined."""
        return merge_adjacent(sorted([*self._ours, *self._free]))

    # --- one address -----------------------------------------------------------------------------

    def allocate(self, where: Range, now: float) -> int | None:
        """Hand out the lowest rested free address inside ``where``, or None."""
        self._wake(now)
        addr = self._fresh.first_in(where)
        if addr is None:
            addr = self._longest_resting(where)
        if addr is not None:
            self._take(addr)
        return addr

    def claim(self, addr: int) -> None:
        """Hand out this one. Raises LocalProtocolError if it is not free."""
        if addr not in self._free:
            raise LocalProtocolError(f"Address {format_address(addr)} is not free to claim")
        self._take(addr)

    def free(self, addr: int, rest_until: float, now: float) -> None:
        """Take one back, to rest. Raises LocalProtocolError if it is not handed out."""
        if addr not in self._ours:
            raise LocalProtocolError(f"Address {format_address(addr)} is not ours")
        self._wake(now)
        self._journal.note(self._raw_take, addr)
        self._raw_free(addr)
        if rest_until > now:
            self._fresh.remove(addr, addr + 1)
            self._resting[addr] = rest_until
            self._line.append((rest_until, addr))

    def _take(self, addr: int) -> None:
        self._journal.note(self._raw_free, addr)
        self._raw_take(addr)

    def _raw_take(self, addr: int) -> None:
        self._free.remove(addr, addr + 1)
        if self._resting.pop(addr, None) is None:
            self._fresh.remove(addr, addr + 1)
        self._ours.add(addr, addr + 1)
        self.ours_total += 1

    def _raw_free(self, addr: int) -> None:
        self._ours.remove(addr, addr + 1)
        self._free.add(addr, addr + 1)
        self._fresh.add(addr, addr + 1)
        self.ours_total -= 1

    def _wake(self, now: float) -> None:
        line = self._line
        while line and (line[0][0] <= now or self._resting.get(line[0][1]) != line[0][0]):
            until, addr = line.popleft()
            if self._resting.get(addr) == until:
                del self._resting[addr]
                self._fresh.add(addr, addr + 1)

    def _longest_resting(self, where: Range) -> int | None:
        return next(
            (
                addr
                for until, addr in self._line
                if where.contains(addr) and self._resting.get(addr) == until
            ),
            None,
        )

    # --- ranges ----------------------------------------------------------------------------------

    def add(self, gained: Range) -> None:
        """Own these too, all free. They must not be ours already."""
        self._journal.note(self._raw_drop, gained)
        self._raw_add(gained)

    def drop(self, lost: Range) -> None:
        """Own these no more. Raises LocalProtocolError if any is not free."""
        if not self._free.covers(lost):
            raise LocalProtocolError(f"{lost} is not free to drop")
        self._journal.note(self._raw_add, lost)
        self._raw_drop(lost)

    def _raw_add(self, gained: Range) -> None:
        self._free.add(*gained)
        self._fresh.add(*gained)

    def _raw_drop(self, lost: Range) -> None:
        self._free.remove(*lost)
        self._fresh.remove(*lost)
        for addr in [one for one in self._resting if lost.contains(one)]:
            del self._resting[addr]

    def biggest_to_give(self, where: Range) -> Range | None:
        """What to give to a peer that asks for ``where``: free, aligned, at most half of what is
        free there (rounded up), from the upper side; None when nothing is free.
        """
        best: Range | None = None
        for run in self._free.clipped(where):
            if best is None or run.size >= best.size:
                block = biggest_aligned(run)
                if best is None or block.size >= best.size:
                    best = block
        if best is None:
            return None
        if best.size > self.free_in(where) // 2:
            return Range(best.start + best.size // 2, best.end)
        return best

    def blocks(self, where: Range, size: int) -> Iterator[Range]:
        """Free, aligned blocks of ``size``, a power of two, inside ``where``: the first and the
        last of each run.
        """
        for start, end in self._free.clipped(where):
            first = (start + size - 1) // size * size
            last = (end - size) // size * size
            if start <= first <= last:
                yield Range(first, first + size)
                if last != first:
                    yield Range(last, last + size)
