"""CPU time, wake-ups and memory of running processes, from /proc.

CPU time is the scheduler's own run time in nanoseconds (``schedstat``, per thread), which shows a
hundredth of a percent where the usual clock ticks of 10 ms would not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(slots=True, frozen=True)
class Usage:
    """Totals since the start of the threads alive now."""

    cpu_ns: int
    voluntary_switches: int
    involuntary_switches: int

    def __sub__(self, before: Usage) -> Usage:
        return Usage(
            self.cpu_ns - before.cpu_ns,
            self.voluntary_switches - before.voluntary_switches,
            self.involuntary_switches - before.involuntary_switches,
        )


def tree(pid: int) -> list[int]:
    """``pid`` and all its descendants that live now, parents first."""
    found = [pid]
    for parent in found:
        for task in sorted((_PROC / str(parent) / "task").glob("*")):
            try:
                found += [int(child) for child in (task / "children").read_text().split()]
            except OSError:
                continue
    return found


def command_line(pid: int) -> list[str]:
    """Arguments of a process, empty if it is gone."""
    try:
        raw = (_PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return []
    return [part.decode(errors="replace") for part in raw.split(b"\0") if part]


def usage(pids: Iterable[int]) -> Usage:
    """CPU time and context switches of all threads of ``pids`` together."""
    cpu_ns = voluntary = involuntary = 0
    for pid in pids:
        for task in (_PROC / str(pid) / "task").iterdir():
            try:
                cpu_ns += int((task / "schedstat").read_text().split()[0])
                status = (task / "status").read_text()
            except OSError:  # the thread ended meanwhile
                continue
            voluntary += _number(status, "voluntary_ctxt_switches")
            involuntary += _number(status, "nonvoluntary_ctxt_switches")
    return Usage(cpu_ns, voluntary, involuntary)


def rss_mb(pid: int) -> float:
    """Resident memory of one process in MB (10^6 bytes)."""
    status = (_PROC / str(pid) / "status").read_text(encoding="utf-8")
    return _number(status, "VmRSS") * 1024 / 1e6


def rss_peak_mb(pid: int) -> float:
    """Highest resident memory of one process so far in MB (10^6 bytes)."""
    status = (_PROC / str(pid) / "status").read_text(encoding="utf-8")
    return _number(status, "VmHWM") * 1024 / 1e6


def _number(status: str, key: str) -> int:
    found = re.search(rf"^{key}:\s*(\d+)", status, re.MULTILINE)
    return int(found.group(1)) if found else 0
