"""Reading what ping and iperf3 print."""

from __future__ import annotations

import json
import math

import pytest

from lab.measure import MeasureError, parse_iperf, parse_ping

PING = """\
PING 10.32.2.1 (10.32.2.1) 56(84) bytes of data.
64 bytes from 10.32.2.1: icmp_seq=1 ttl=64 time=0.300 ms
64 bytes from 10.32.2.1: icmp_seq=2 ttl=64 time=0.100 ms
64 bytes from 10.32.2.1: icmp_seq=2 ttl=64 time=0.900 ms (DUP!)
64 bytes from 10.32.2.1: icmp_seq=4 ttl=64 time=0.200 ms

--- 10.32.2.1 ping statistics ---
4 packets transmitted, 3 received, +1 duplicates, 25% packet loss, time 3ms
"""

PING6 = """\
PING fd77:6566:7400::2:1(fd77:6566:7400::2:1) 56 data bytes
64 bytes from fd77:6566:7400::2:1: icmp_seq=1 ttl=64 time=0.046 ms

--- fd77:6566:7400::2:1 ping statistics ---
1 packets transmitted, 1 received, 0% packet loss, time 0ms
"""


def test_ping() -> None:
    result = parse_ping(PING)
    assert (result.sent, result.received, result.lost, result.ok) == (4, 3, 1, True)
    assert result.times_ms == (0.3, 0.1, 0.2)
    assert result.sequence_numbers == (1, 2, 4)
    assert (result.min_ms, result.median_ms) == (0.1, 0.2)
    assert result.mean_ms == pytest.approx(0.2)


def test_ping6() -> None:
    assert parse_ping(PING6).times_ms == (0.046,)


def test_ping_without_an_answer() -> None:
    result = parse_ping("PING x\n\n2 packets transmitted, 0 received, 100% packet loss\n")
    assert not result.ok
    assert math.isnan(result.median_ms)
    assert math.isnan(result.min_ms)


def test_ping_garbage() -> None:
    with pytest.raises(MeasureError, match="no summary"):
        parse_ping("connect: Network is unreachable")


def test_iperf_tcp() -> None:
    end = {
        "sum_sent": {"retransmits": 3, "bits_per_second": 2e9, "seconds": 1.0},
        "sum_received": {"bits_per_second": 1.5e9, "seconds": 1.0},
    }
    result = parse_iperf(json.dumps({"end": end}))
    assert (result.gbps, result.retransmits, result.lost_fraction) == (1.5, 3, 0.0)


def test_iperf_udp_counts_what_arrived() -> None:
    document = {
        "start": {"test_start": {"blksize": 1000}},
        "end": {"sum": {"packets": 1000, "lost_packets": 250, "seconds": 2.0}},
    }
    result = parse_iperf(json.dumps(document))
    assert result.lost_fraction == 0.25
    assert result.packets_per_second == 375
    assert result.gbps == pytest.approx(750 * 8000 / 2 / 1e9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no JSON"),
        ('{"end": {}, "error": "unable to connect"}', "unable to connect"),
        ('{"end": {}}', "without a sum"),
    ],
)
def test_iperf_garbage(text: str, message: str) -> None:
    with pytest.raises(MeasureError, match=message):
        parse_iperf(text)
