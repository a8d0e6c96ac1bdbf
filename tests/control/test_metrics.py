"""Metrics: the original's names and label sets, ours, and nothing where nothing is known."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from base.counters import DROP_REASONS, Counter
from control.api.metrics import CONTENT_TYPE, exposition
from control.attachment_tally import AttachmentsView, Durations
from control.node import NodeView
from tests.control.views import THEM, forwarder, live, member, node, sample, target

_PEER = (("nickname", "host2"), ("peer", str(THEM)))


def _scrape(view: NodeView) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """(name, sorted labels) → value."""
    return {
        (each.name, tuple(sorted(each.labels.items()))): each.value
        for family in text_string_to_metric_families(exposition(view).decode())
        for each in family.samples
    }


def _of(view: NodeView, name: str) -> dict[tuple[tuple[str, str], ...], float]:
    return {labels: value for (found, labels), value in _scrape(view).items() if found == name}


def test_connections_of_the_vectors() -> None:
    """The lines of the two names that we share, as Weave wrote them."""
    theirs = sample("/metrics")["body"].splitlines()
    view = node(
        member(
            connections=(target("connecting"), target("failed", "x"), live(state="pending")),
            terminations=1,
        )
    )
    ours = exposition(view).decode().splitlines()
    for name in ("weave_connection_terminations_total", "weave_connections"):
        expected = sorted(line for line in theirs if line.startswith((name + " ", name + "{")))
        assert expected
        found = sorted(line for line in ours if line.startswith((name + " ", name + "{")))
        assert [_unordered(line) for line in found] == [_unordered(line) for line in expected]
        assert f"# TYPE {name} " in "\n".join(ours)
    assert sample("/metrics")["content_type"] == CONTENT_TYPE


def _unordered(line: str) -> tuple[list[str], float]:
    labels, _, value = line.partition("{")[2].rpartition("} ")
    return sorted(labels.split(",")), float(value or line.rsplit(maxsplit=1)[-1])


def test_sealed_connections() -> None:
    view = node(member(connections=(live(sealed=True), live(sealed=True), live(sealed=False))))
    key = {"state": "established", "type": "sleeve"}
    assert _of(view, "weave_connections") == {
        tuple(sorted((key | {"encryption": "yes"}).items())): 2,
        tuple(sorted((key | {"encryption": ""}).items())): 1,
    }


def test_per_peer() -> None:
    view = node(
        forwarders=(forwarder(rtt_us=1500, pmtu_bytes=1500, cipher="secretbox", degraded="x"),)
    )
    for name, value in {
        "weft_peer_mtu_bytes": 1438,
        "weft_peer_path_mtu_bytes": 1500,
        "weft_peer_rtt_seconds": 0.0015,
        "weft_peer_degraded": 1,
        "weft_peer_tx_bytes_total": 8000,
        "weft_peer_tx_datagrams_total": 9,
        "weft_peer_tx_frames_total": 10,
        "weft_peer_rx_bytes_total": 5000,
        "weft_peer_rx_datagrams_total": 6,
        "weft_peer_rx_frames_total": 7,
    }.items():
        assert _of(view, name) == {_PEER: value}, name
    assert _of(view, "weft_peer_cipher") == {(("cipher", "secretbox"), *_PEER): 1}


def test_what_is_not_known_is_left_out() -> None:
    names = {name for name, _ in _scrape(node())}
    assert not names & {"weft_peer_rtt_seconds", "weft_peer_path_mtu_bytes"}
    down = {name for name, _ in _scrape(node(up=False))}
    assert not [name for name in down if name.startswith(("weft_peer_", "weft_drops", "weft_tap"))]
    assert _of(node(up=False), "weft_ready") == {(): 0}
    assert _of(node(), "weft_ready") == {(): 1}
    assert not [name for name in names | down if "ipam" in name or "dns" in name]


def test_every_counter_is_exported_once() -> None:
    view = node()
    drops = _of(view, "weft_drops_total")
    assert len(drops) == len(DROP_REASONS)
    assert drops[(("reason", "stp"),)] == 2
    scraped = _scrape(view)
    for counter in Counter:
        if counter not in DROP_REASONS:
            assert (f"weft_{counter}_total", ()) in scraped
    assert scraped["weft_captured_frames_total", ()] == 15
    assert scraped["weft_bridge_repairs_total", ()] == 1
    assert scraped["weft_macs", ()] == 1
    assert len(_of(view, "weft_tap_errors_total")) == 2
    assert ("process_resident_memory_bytes", ()) in scraped


def test_hostile_nicknames_do_not_break_the_format() -> None:
    nick = 'a"}\nweft_ready 7\x1b\\'
    view = node(
        member(connections=(live(nick=nick),)), forwarders=(forwarder(nick=nick, rtt_us=1),)
    )
    scraped = _scrape(view)
    assert scraped["weft_ready", ()] == 1
    (labels,) = _of(view, "weft_peer_rtt_seconds")
    assert dict(labels)["nickname"] == nick


def test_containers() -> None:
    attach = Durations()
    attach.counts[0], attach.counts[2], attach.sum_s, attach.failures = 3, 1, 0.07, 2
    view = node(containers=AttachmentsView(4, 1, attach, Durations()))
    assert _of(view, "weft_attachments") == {
        (("state", "attached"),): 4,
        (("state", "pending"),): 1,
    }
    buckets = _of(view, "weft_attach_seconds_bucket")
    assert buckets[("le", "0.01"), ("operation", "attach")] == 3
    assert buckets[("le", "0.05"), ("operation", "attach")] == 4
    assert buckets[("le", "+Inf"), ("operation", "attach")] == 4
    assert _of(view, "weft_attach_seconds_count")[(("operation", "attach"),)] == 4
    assert _of(view, "weft_attach_failures_total") == {
        (("operation", "attach"),): 2,
        (("operation", "detach"),): 0,
    }
    assert _of(node(), "weft_attachments") == {}
