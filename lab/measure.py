"""What ping and iperf3 say, as numbers. Pure functions over their output; no I/O.

Sources of truth: iputils ping's reply lines, iperf3's JSON (``-J``, version 3.9 and later).
"""

from __future__ import annotations

import re
import statistics
from dataclasses import dataclass
from typing import Any

import msgspec

from base.errors import WeftError

_REPLY = re.compile(r"(?m)^\d+ bytes from .*?[:,] icmp_seq=(\d+) .*?time=([0-9.]+) ms(.*)$")
_SENT = re.compile(r"(?m)^(\d+) packets transmitted, (\d+) received")


class MeasureError(WeftError):
    """A measuring program's output is not what we can read."""


@dataclass(slots=True, frozen=True)
class PingResult:
    """One run of ping. Times are round trips in milliseconds, in order of arrival."""

    sent: int
    received: int
    times_ms: tuple[float, ...]
    sequence_numbers: tuple[int, ...]

    @property
    def ok(self) -> bool:
        """At least one answer came."""
        return self.received > 0

    @property
    def lost(self) -> int:
        """Requests without an answer."""
        return self.sent - self.received

    @property
    def min_ms(self) -> float:
        """Shortest round trip; NaN without answers."""
        return min(self.times_ms, default=float("nan"))

    @property
    def median_ms(self) -> float:
        """Median round trip; NaN without answers."""
        return statistics.median(self.times_ms) if self.times_ms else float("nan")

    @property
    def mean_ms(self) -> float:
        """Mean round trip; NaN without answers."""
        return statistics.fmean(self.times_ms) if self.times_ms else float("nan")


@dataclass(slots=True, frozen=True)
class IperfResult:
    """One run of iperf3. ``gbps`` is goodput at the receiver; ``lost_fraction`` is 0 for TCP."""

    gbps: float
    seconds: float
    retransmits: int
    lost_fraction: float
    packets: int
    raw: dict[str, Any]

    @property
    def packets_per_second(self) -> float:
        """UDP datagrams that arrived, per second; 0 for TCP."""
        return self.packets * (1.0 - self.lost_fraction) / self.seconds if self.seconds else 0.0


def parse_ping(output: str) -> PingResult:
    """Read ping's text; a line marked DUP! counts for neither times nor answers.

    Raises:
        MeasureError: no summary line.
    """
    summary = _SENT.search(output)
    if summary is None:
        raise MeasureError(f"ping printed no summary: {output[-200:]!r}")
    replies = [match for match in _REPLY.finditer(output) if "DUP!" not in match[3]]
    return PingResult(
        sent=int(summary[1]),
        received=int(summary[2]),
        times_ms=tuple(float(match[2]) for match in replies),
        sequence_numbers=tuple(int(match[1]) for match in replies),
    )


def parse_iperf(output: str | bytes) -> IperfResult:
    """Read the *client's* JSON of a TCP or UDP run.

    Raises:
        MeasureError: not iperf3 JSON, or iperf3 reports an error.
    """
    try:
        document: dict[str, Any] = msgspec.json.decode(output, type=dict[str, Any])
    except msgspec.DecodeError as err:
        raise MeasureError(f"iperf3 printed no JSON: {output[-200:]!r}") from err
    if "error" in document:
        raise MeasureError(f"iperf3: {document['error']}")
    end = document.get("end", {})
    if "sum_received" not in end and "sum" not in end:
        raise MeasureError("iperf3: JSON without a sum")
    if "sum" not in end:  # TCP
        received = end["sum_received"]
        return IperfResult(
            gbps=received["bits_per_second"] / 1e9,
            seconds=received["seconds"],
            retransmits=end["sum_sent"].get("retransmits", 0),
            lost_fraction=0.0,
            packets=0,
            raw=document,
        )
    total = end["sum"]
    packets = int(total.get("packets", 0))
    lost = total.get("lost_packets", 0) / packets if packets else 0.0
    seconds = total["seconds"]
    payload_bytes = document["start"]["test_start"]["blksize"]
    arrived_bits = packets * (1.0 - lost) * payload_bytes * 8
    return IperfResult(
        gbps=arrived_bits / seconds / 1e9 if seconds else 0.0,
        seconds=seconds,
        retransmits=0,
        lost_fraction=lost,
        packets=packets,
        raw=document,
    )
