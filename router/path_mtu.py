"""Which overlay MTU a connection's frames may have, and the search for it. Sans-IO.

The kernel says what it believes when it refuses a datagram; a test frame of that size, answered
over TCP, proves it. While the answer stays away, bisection goes down to what is answered:

    refused ──▶ test what the kernel believes in ──answered──▶ done
                      │ 8 tries, 10 ms doubling
                      ▼
                bisect between 552 and the size that failed

Where answers are known to come soon, fewer tries are made: a size that does not get through costs
0.3 s then instead of 2.6 s.

Two cases that the original does not have. *Black hole*: a probe of the MTU in use (each slow
heartbeat has one) stays unanswered several times: if a small test is answered, the path has become
narrower without a word, and the search begins; if not, the path is down and the MTU stays. *Wider
path*: when the kernel believes in more, that size is tested, and taken when it is answered.

Source of truth: sleeve specification 9.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator
from typing import Final

MTU_FLOOR: Final = 552
#: Of an outer IP packet, bytes.
PACKET_MAX: Final = 65535
TRIES_MAX: Final = 8
FIRST_WAIT_S: Final = 0.010
#: Tests go on for so many round trips, and for this long at least.
PATIENCE_TRIPS: Final = 10
PATIENCE_S: Final = 0.3
#: A probe of the MTU in use is repeated after this long, and believed lost after so many.
PROBE_WAIT_S: Final = 1.0
PROBES_MAX: Final = 4
#: A path that the kernel believes to be wider is tested again after this long.
WIDER_AGAIN_S: Final = 300.0


class _Aim(enum.Enum):
    """What the test under way is to find out."""

    NOTHING = enum.auto()
    FIT = enum.auto()  # the largest size that gets through
    ALIVE = enum.auto()  # whether anything does
    WIDER = enum.auto()  # whether more does


class PathMtu:
    """MTU of one connection. Sizes that :meth:`take_tests` yields are overlay MTUs to be tested."""

    def __init__(self, overhead: int) -> None:
        self.overhead = overhead
        self.mtu = PACKET_MAX - overhead
        #: What the kernel last said, bytes of outer IP packet; 0: nothing yet.
        self.kernel_bytes = 0
        self.deadline: float | None = None
        #: How soon answers come, at most; None: not known.
        self.round_trip_s: float | None = None
        self._aim = _Aim.NOTHING
        self._candidate = 0
        self._good = 0
        self._bad = 0
        self._tries = 0
        self._probing = False
        self._probes = 0
        self._wider_at = 0.0
        self._tests: list[int] = []

    @property
    def searching(self) -> bool:
        """Whether the MTU in use is not settled."""
        return self._aim in (_Aim.FIT, _Aim.ALIVE)

    @property
    def narrower_than_believed(self) -> bool:
        """Whether less gets through than the kernel believes."""
        return not self.searching and 0 < self.mtu < self._fitting(self.kernel_bytes)

    def take_tests(self) -> Iterator[int]:
        """Sizes to send test frames of now."""
        tests, self._tests = self._tests, []
        yield from tests

    # --- what happens ----------------------------------------------------------------------------

    def refused(self, kernel_bytes: int, now: float) -> bool:
        """The kernel refused a datagram and believes in this; whether ``mtu`` changed."""
        self.kernel_bytes = kernel_bytes
        size = self._fitting(kernel_bytes)
        if self._aim is _Aim.FIT and size >= self._candidate:
            return False
        changed = self.mtu != size
        self.mtu = size
        self._search(min(MTU_FLOOR, size), size + 1, size, now)
        return changed

    def believed(self, kernel_bytes: int, now: float) -> bool:
        """The kernel was asked and believes in this; whether ``mtu`` changed.

        Less than now is taken at once; more is tested first.
        """
        size = self._fitting(kernel_bytes)
        if size < self.mtu:
            return self.refused(kernel_bytes, now)
        news = kernel_bytes != self.kernel_bytes
        self.kernel_bytes = kernel_bytes
        if size > self.mtu and self._aim is _Aim.NOTHING and (news or now >= self._wider_at):
            self._wider_at = now + WIDER_AGAIN_S
            self._begin(_Aim.WIDER, size, now)
        return False

    def probe(self, now: float) -> None:
        """Prove the MTU in use, unless a test is under way."""
        if self._aim is _Aim.NOTHING and not self._probing:
            self._probing, self._probes = True, 1
            self._tests.append(self.mtu)
            self.deadline = now + PROBE_WAIT_S

    def answered(self, size: int, now: float) -> bool:
        """A frame of this size got through; whether ``mtu`` changed."""
        if self._probing and size == self.mtu:
            self._probing = False
            self.deadline = None
        if self._aim is _Aim.NOTHING or size != self._candidate:
            return False
        if self._aim is _Aim.WIDER:
            return self._settle(size)
        if self._aim is _Aim.ALIVE:
            # small frames get through, those of the MTU in use do not
            return self._next(MTU_FLOOR, self.mtu, now)
        return self._next(size, self._bad, now)

    def timeout(self, now: float) -> bool:
        """The deadline has come; whether ``mtu`` changed."""
        if self.deadline is None or now < self.deadline:
            return False
        self.deadline = None
        if self._probing:
            self._probe_missed(now)
            return False
        if self._tries < self._tries_max:
            self._test(now)
            return False
        if self._aim is _Aim.FIT:
            return self._next(self._good, self._candidate, now)
        self._aim, self._candidate = _Aim.NOTHING, 0  # down, or no wider: all stays
        return False

    # --- the search ------------------------------------------------------------------------------

    @property
    def _tries_max(self) -> int:
        if self.round_trip_s is None:
            return TRIES_MAX
        patience_s = max(PATIENCE_S, PATIENCE_TRIPS * self.round_trip_s)
        return min(TRIES_MAX, math.ceil(math.log2(patience_s / FIRST_WAIT_S + 1)))

    def _fitting(self, kernel_bytes: int) -> int:
        # 68 is IPv4's own minimum
        return max(68, min(kernel_bytes, PACKET_MAX) - self.overhead) if kernel_bytes else 0

    def _probe_missed(self, now: float) -> None:
        if self._probes < PROBES_MAX:
            self._probes += 1
            self._tests.append(self.mtu)
            self.deadline = now + PROBE_WAIT_S
            return
        self._probing = False
        if self.mtu > MTU_FLOOR:
            self._begin(_Aim.ALIVE, MTU_FLOOR, now)

    def _search(self, good: int, bad: int, candidate: int, now: float) -> None:
        self._good, self._bad = good, bad
        self._begin(_Aim.FIT, candidate, now)

    def _next(self, good: int, bad: int, now: float) -> bool:
        if good + 1 >= bad:
            return self._settle(good)
        self._search(good, bad, (good + bad) // 2, now)
        return False

    def _begin(self, aim: _Aim, candidate: int, now: float) -> None:
        self._aim, self._candidate, self._tries = aim, candidate, 0
        self._probing = False
        self._test(now)

    def _test(self, now: float) -> None:
        self._tests.append(self._candidate)
        self.deadline = now + FIRST_WAIT_S * 2**self._tries
        self._tries += 1

    def _settle(self, size: int) -> bool:
        self._aim, self._candidate, self.deadline = _Aim.NOTHING, 0, None
        changed = self.mtu != size
        self.mtu = size
        return changed
