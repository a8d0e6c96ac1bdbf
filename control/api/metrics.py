"""Prometheus metrics: the original's names as they were, then ours (``weft_…``), made on scrape.

Counters live in the router's C code; there is none here. What is not known is left out: without a
router there are no figures of the data path. Source of truth: node specification 12, vectors.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter as Tally
from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from base.counters import DROP_REASONS, Counter
from base.ipc import RouterReport
from control.api import host
from control.api.connections import own_connections
from control.attachment_tally import BUCKETS_S, AttachmentsView
from control.node import IpamView, NodeView

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

#: A line that is no comment, up to what its value need not have.
_WHOLE: Final = re.compile(rb"^([^#\n][^\n]* -?[0-9]+)\.0$", re.MULTILINE)
_PEER_LABELS: Final = ("peer", "nickname")
#: Counters of the native code that say how the port on the bridge fails.
_PORT_ERRORS: Final = (Counter.DROP_PORT_DOWN, Counter.DROP_PORT_BUSY)


def exposition(view: NodeView) -> bytes:
    """All metrics of the node in Prometheus' text format 0.0.4."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Node(view))
    ProcessCollector(registry=registry)
    # whole numbers as the original prints them, which its users' scripts compare as text
    return _WHOLE.sub(rb"\1", generate_latest(registry))


class _Node(Collector):
    def __init__(self, view: NodeView) -> None:
        self._view = view

    def collect(self) -> Iterator[Metric]:
        yield from _original(self._view)
        if self._view.ipam is not None:
            yield from _ipam(self._view.ipam)
        if self._view.containers is not None:
            yield from _containers(self._view.containers)
        yield from _node(self._view)
        if self._view.host is not None:
            yield from host.metrics(self._view.host)
        if self._view.report is not None:
            yield from _connections(self._view)
            yield from _peers(self._view.report)
            yield from _data_path(self._view.report)


def _containers(view: AttachmentsView) -> Iterator[Metric]:
    attached = GaugeMetricFamily("weft_attachments", "Interfaces of containers.", labels=("state",))
    attached.add_metric(("attached",), view.attached)
    attached.add_metric(("pending",), view.pending)
    yield attached
    times = HistogramMetricFamily(
        "weft_attach_seconds", "How long attaching and detaching took.", labels=("operation",)
    )
    failures = CounterMetricFamily(
        "weft_attach_failures", "Containers not attached or detached.", labels=("operation",)
    )
    for operation, durations in (("attach", view.attach), ("detach", view.detach)):
        bounds = (*map(str, BUCKETS_S), "+Inf")
        buckets = list(zip(bounds, itertools.accumulate(durations.counts), strict=True))
        times.add_metric((operation,), buckets, durations.sum_s)
        failures.add_metric((operation,), durations.failures)
    yield times
    yield failures


def _original(view: NodeView) -> Iterator[Metric]:
    """For each state and type that occur both encryption values, as the original does."""
    counts = Tally(
        (each.state, each.overlay if each.peer else "unknown", "yes" if each.sealed else "")
        for each in view.membership.connections
    )
    family = GaugeMetricFamily(
        "weave_connections",
        "Number of peer-to-peer connections.",
        labels=("state", "type", "encryption"),
    )
    for state, kind in sorted({key[:2] for key in counts}):
        for encryption in ("", "yes"):
            family.add_metric((state, kind, encryption), counts[state, kind, encryption])
    yield family
    yield _counter(
        "weave_connection_terminations",
        "Number of peer-to-peer connections terminated.",
        view.membership.terminations,
    )


def _ipam(view: IpamView) -> Iterator[Metric]:
    """The original's six, then ours."""
    known = view.status
    ips = GaugeMetricFamily("weave_ips", "Number of IP addresses.", labels=("state",))
    ips.add_metric(("local-used",), known.active_ips)
    yield ips
    yield _gauge(
        "weave_max_ips", "Size of IP address space used by allocator.", known.range_num_ips
    )
    yield _gauge(
        "weave_ipam_unreachable_count",
        "Number of unreachable peers.",
        known.unreachable_count,
    )
    yield _gauge(
        "weave_ipam_unreachable_percentage",
        "Percentage of IP addresses owned  by unreachable peers.",
        known.unreachable_percentage,
    )
    yield _gauge(
        "weave_ipam_pending_allocates",
        "Number of pending allocates.",
        len(known.pending_allocates),
    )
    yield _gauge(
        "weave_ipam_pending_claims", "Number of pending claims.", len(known.pending_claims)
    )
    yield _gauge("weft_ipam_has_ring", "1 once the range is divided.", int(bool(known.entries)))
    yield _gauge(
        "weft_ipam_owned_ips",
        "Addresses that this peer owns, handed out or free.",
        sum(share.ip_count for share in known.shares if share.is_ourself),
    )
    yield _counter("weft_ipam_commits", "Changes made durable.", view.commits)
    yield _counter("weft_ipam_commit_failures", "Changes that the disk refused.", view.failures)
    refused = CounterMetricFamily(
        "weft_ipam_refused", "Messages of other peers not acted on, by reason.", labels=("reason",)
    )
    for reason, count in sorted(view.counters.items()):
        refused.add_metric((reason,), count)
    yield refused


def _node(view: NodeView) -> Iterator[Metric]:
    info = GaugeMetricFamily(
        "weft_info", "Always 1; what runs here.", labels=("version", "name", "nickname")
    )
    info.add_metric((view.version, view.snapshot.name.hex(":"), view.snapshot.nick), 1)
    yield info
    yield _gauge("weft_ready", "1 when the node does its work.", int(view.is_ready))
    yield _gauge("weft_peers", "Routers known, this one included.", len(view.membership.peers))
    yield _gauge("weft_targets", "Peers that the user wants.", len(view.membership.targets))


def _connections(view: NodeView) -> Iterator[Metric]:
    mtu = _of_peer("weft_peer_mtu_bytes", "Overlay MTU: largest packet in a frame to this peer.")
    pmtu = _of_peer("weft_peer_path_mtu_bytes", "Path MTU of the underlay to this peer.")
    rtt = _of_peer("weft_peer_rtt_seconds", "Round trip of a probe to this peer.")
    degraded = _of_peer("weft_peer_degraded", "1 when the connection is worse than it could be.")
    cipher = GaugeMetricFamily(
        "weft_peer_cipher",
        "Always 1; cipher of the datagrams to this peer.",
        labels=(*_PEER_LABELS, "cipher"),
    )
    for each in own_connections(view):
        if each.is_target:
            continue
        labels = (str(each.view.peer), each.view.nick)
        degraded.add_metric(labels, int(bool(each.degraded)))
        cipher.add_metric((*labels, each.cipher), 1)
        if each.mtu:
            mtu.add_metric(labels, each.mtu)
        if each.pmtu_bytes:
            pmtu.add_metric(labels, each.pmtu_bytes)
        if each.rtt_us:
            rtt.add_metric(labels, each.rtt_us / 1e6)
    yield from (mtu, pmtu, rtt, degraded, cipher)


def _peers(report: RouterReport) -> Iterator[Metric]:
    """Traffic per neighbour, both directions; from the start of each connection."""
    for unit, what in (
        ("bytes", "UDP payload bytes"),
        ("datagrams", "Datagrams"),
        ("frames", "Frames"),
    ):
        for side, direction in (("tx", "sent to"), ("rx", "received from")):
            family = CounterMetricFamily(
                f"weft_peer_{side}_{unit}",
                f"{what} {direction} this peer since the connection's start.",
                labels=_PEER_LABELS,
            )
            for each in report.forwarders:
                value = getattr(each, f"{side}_{unit}")
                family.add_metric((each.peer.hex(":"), each.nick), value)
            yield family


def _data_path(report: RouterReport) -> Iterator[Metric]:
    counters = report.counters
    drops = CounterMetricFamily(
        "weft_drops", "Frames and datagrams thrown away, by reason.", labels=("reason",)
    )
    for reason in Counter:
        if reason in DROP_REASONS and reason.value in counters:
            drops.add_metric((reason.value.removeprefix("drop_"),), counters[reason.value])
    yield drops
    port = CounterMetricFamily(
        "weft_tap_errors", "Frames that the port on the bridge did not take.", labels=("error",)
    )
    for reason in _PORT_ERRORS:
        if reason.value in counters:
            port.add_metric((reason.value.removeprefix("drop_port_"),), counters[reason.value])
    yield port
    for counter in Counter:
        if counter not in DROP_REASONS and counter.value in counters:
            help_text = f"{counter.meaning[0].upper()}{counter.meaning[1:]}."
            yield _counter(f"weft_{counter.value}", help_text, counters[counter.value])
    yield _counter(
        "weft_bridge_repairs",
        "Times the bridge or its port was set up again.",
        report.bridge_repairs,
    )
    yield _gauge("weft_macs", "MAC addresses known.", report.macs_total)
    yield _gauge("weft_bridge_mtu_bytes", "MTU of the bridge.", report.mtu)
    yield _gauge("weft_router_uptime_seconds", "Age of the router process.", report.uptime_s)


def _of_peer(name: str, documentation: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, documentation, labels=_PEER_LABELS)


def _gauge(name: str, documentation: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, documentation, value=value)


def _counter(name: str, documentation: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(name, documentation, value=value)
