"""Parts of the router's report that are lists: neighbours' datagram sides, and MAC addresses."""

from __future__ import annotations

import time

import msgspec

from base.ipc import ForwarderReport, MacReport, Peer
from native.datapath import Datapath
from router.lives import Life, Lives
from router.peer_table import PeerTable


def mac_reports(
    datapath: Datapath, table: PeerTable, most: int
) -> tuple[tuple[MacReport, ...], int]:
    """Up to ``most`` known MAC addresses with their peers, and how many there are in all."""
    peers = table.peers_by_index()
    now_s = int(time.monotonic())
    entries, total = datapath.fdb_entries(most)
    unknown = Peer(b"\0" * 6, "")
    found = tuple(
        MacReport(
            mac,
            peers.get(index, unknown).name,
            peers.get(index, unknown).nick,
            max(0, now_s - seen_s),
        )
        for mac, index, seen_s in entries
    )
    return found, total


def forwarder_reports(
    datapath: Datapath, table: PeerTable, lives: Lives
) -> tuple[ForwarderReport, ...]:
    """Every neighbour's datagram side."""
    peers = {peer.name: peer for peer in table.peers_by_index().values()}
    now = time.monotonic()
    out = []
    for name, neighbour in table.neighbours.items():
        stats = datapath.forwarder_stats(neighbour.forwarder)
        report = ForwarderReport(
            peer=name,
            nick=peers[name].nick,
            addr=f"{stats.addr}:{stats.port}" if stats.addr else "",
            mtu=stats.mtu,
            tx_frames=stats.tx_frames,
            tx_datagrams=stats.tx_datagrams,
            tx_bytes=stats.tx_bytes,
            rx_frames=stats.rx_frames,
            rx_datagrams=stats.rx_datagrams,
            rx_bytes=stats.rx_bytes,
            cipher=neighbour.connection.cipher,
        )
        life = lives.life(name)
        out.append(report if life is None else _with_life(report, life, now))
    return tuple(out)


def _with_life(report: ForwarderReport, life: Life, now: float) -> ForwarderReport:
    forwarder = life.forwarder
    heard_at = forwarder.heard_at
    return msgspec.structs.replace(
        report,
        conn=life.conn,
        state=forwarder.state.value,
        pmtu_bytes=forwarder.path.kernel_bytes,
        rtt_us=round(forwarder.rtt_s * 1e6),
        stack_frag=forwarder.stack_frag,
        heard_ago_s=-1.0 if heard_at is None else now - heard_at,
        degraded=forwarder.degraded(now),
    )
