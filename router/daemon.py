"""Wiring of the router process: settings, control link, bridge, sockets, pipelines, signals.

Order of a start: bind the sleeve port and look for foreign devices (either may refuse, and nothing
was changed yet), wait for control's first snapshot, set up bridge and port, pump. From then on the
process needs control only for news.
"""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import anyio
import anyio.to_thread
import msgspec

from base.counters import Counter
from base.errors import CaptureError, LocalProtocolError, RemoteProtocolError, WeftError
from base.ipc import (
    BridgeRepaired,
    Delta,
    ForwarderReport,
    MacReport,
    NeedSnapshot,
    OverlayMessage,
    PathMtuChanged,
    Peer,
    ReportRequest,
    RouterReady,
    RouterReport,
    Snapshot,
    ToRouter,
)
from base.log import kv, setup
from base.sdnotify import Notifier
from capture.adopt import adopt
from capture.bridge import BRIDGE_PORT, BridgeLayout, check_foreign
from crypto.ciphers import Cipher
from crypto.sealed import SealedBox
from native import lib
from native.datapath import Batch, Datapath, Event
from router.bridge_keeper import BridgeKeeper, open_port
from router.control_link import ControlLink
from router.express import Express
from router.intake import CaptureIntake, DatagramIntake
from router.lives import Life, Lives
from router.loops import BACKEND, Balancer, IngressThread
from router.paths import Paths
from router.peer_table import PeerTable
from router.pipeline import Pipeline, build_egress, build_ingress
from router.pump import Pump
from router.settings import RouterSettings, parse
from router.stages import PortHolder
from router.udp import SleeveSocket, path_mtu
from router.underlay import overlay_mtu, underlay_mtu

log = logging.getLogger(__name__)


class Router:
    """One router process from its first snapshot to its end."""

    def __init__(self, settings: RouterSettings) -> None:
        self._settings = settings
        self._buffer_bytes = settings.buffer_mb * 1024 * 1024
        self._datapath = Datapath()
        self._box = SealedBox(self._datapath)
        self._table = PeerTable(self._datapath)
        self._udp = SleeveSocket(settings.host, settings.port, self._buffer_bytes)
        self._paths = Paths(
            self._datapath, settings.host, lib.WN_OVERHEAD_PLAIN, self._path_changed
        )
        self._link = ControlLink(settings.control_socket, self._handle)
        self._lives = Lives(
            self._datapath, self._table, self._udp, self._box, self._link.emit, self._kernel_mtu
        )
        self._sealed = False
        self._table_changed = anyio.Event()
        self._first_snapshot = anyio.Event()
        self._keeper: BridgeKeeper | None = None
        self._layout: BridgeLayout | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started_s = time.monotonic()
        self._failed: str | None = None
        self._loop_failed: Callable[[], None] = _nothing

    async def run(self) -> None:
        """Until cancelled or until something can't be mended.

        Raises:
            WeftError: the host can't be used as asked.
        """
        self._loop = asyncio.get_running_loop()
        try:
            await anyio.to_thread.run_sync(self._look_at_host)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._link.run)
                await self._first_snapshot.wait()
                tasks.start_soon(self._paths.run)
                tasks.start_soon(self._lives.run)
                tasks.start_soon(self._let_go)
                await self._forward()
        finally:
            self._udp.close()

    def _look_at_host(self) -> None:
        layout = self._wanted_layout("", 0)
        if self._settings.adopt:
            for done in adopt(layout):
                log.warning("host taken over", extra=kv(what=done))
        check_foreign(layout, adopted=self._settings.adopt)

    async def _forward(self) -> None:
        mtu = await anyio.to_thread.run_sync(self._mtu)
        self._layout = self._wanted_layout(_bridge_mac(self._table.name), mtu)
        port = await anyio.to_thread.run_sync(open_port, self._layout, self._buffer_bytes)
        self._datapath.set_port_mtu(min(mtu, self._layout.port_mtu))
        holder = PortHolder(port)
        egress = build_egress(self._datapath, holder, self._udp, self._box, self._egress_events)
        express = Express(self._datapath, holder, self._udp, egress)
        capture = CaptureIntake(self._datapath, holder, egress, self._capture_failed, express)
        ingress, datagrams = self._ingress(holder)
        main_reads = self._settings.loops != "two"
        pump = Pump([capture, datagrams] if main_reads else [capture])
        self._keeper = BridgeKeeper(
            self._layout, holder, self._buffer_bytes, self._repaired, pump.rewatch
        )
        async with anyio.create_task_group() as tasks:
            # a reader that fails would fail for ever: better a restart than a silent stop
            self._loop_failed = tasks.cancel_scope.cancel
            asyncio.get_running_loop().set_exception_handler(self._callback_failed)
            thread = self._start_thread(holder, pump, datagrams)
            if main_reads:
                tasks.start_soon(ingress.serve)
            pump.start()
            tasks.start_soon(egress.serve)
            tasks.start_soon(self._keeper.run)
            self._announce()
            try:
                await anyio.sleep_forever()
            finally:
                pump.stop()
                if thread is not None:
                    thread.stop()
                holder.port.close()
        if self._failed is not None:
            raise LocalProtocolError(f"the data path failed: {self._failed}")

    def _ingress(self, holder: PortHolder) -> tuple[Pipeline, DatagramIntake]:
        pipeline = build_ingress(self._datapath, holder, self._udp, self._box, self._ingress_events)
        express = Express(self._datapath, holder, self._udp, pipeline)
        return pipeline, DatagramIntake(self._datapath, self._udp, pipeline, express)

    def _start_thread(
        self, holder: PortHolder, main: Pump, main_intake: DatagramIntake
    ) -> IngressThread | None:
        """The ingress thread, if the settings want one; see :mod:`router.loops`."""
        if self._settings.loops == "one":
            return None
        pipeline, datagrams = self._ingress(holder)
        pump = Pump([datagrams])
        balancer = None
        if self._settings.loops == "auto":
            balancer = Balancer(main, main_intake, pump, datagrams)
        thread = IngressThread(pipeline, pump, self._thread_failed)
        thread.start()
        if balancer is not None and thread.loop is not None:
            balancer.start(thread.loop)
        return thread

    def _callback_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        loop.default_exception_handler(context)
        self._fail(str(context.get("exception") or context.get("message")))

    def _thread_failed(self, reason: str) -> None:
        # runs on the ingress thread
        self._on_main(self._fail, reason)

    def _fail(self, reason: str) -> None:
        if self._failed is None:
            self._failed = reason
            self._loop_failed()

    # ---- what control says ---------------------------------------------------------------------

    def _handle(self, message: ToRouter) -> None:
        if isinstance(message, ReportRequest):
            self._link.emit(self._report(message))
        elif isinstance(message, Snapshot):
            self._apply_snapshot(message)
        elif isinstance(message, OverlayMessage):
            self._lives.control(message)
        elif message.seq != self._table.seq + 1:
            self._link.emit(NeedSnapshot(self._table.seq, message.seq))
        else:
            self._apply_delta(message)

    def _apply_snapshot(self, snapshot: Snapshot) -> None:
        renamed = self._table.name not in (b"", snapshot.name)
        changed = self._table.apply_snapshot(snapshot, time.monotonic())
        self._sealed = snapshot.sealed
        self._follow_table(changed, whole=True)
        log.debug("snapshot in force", extra=kv(seq=snapshot.seq, peers=len(snapshot.peers)))
        self._first_snapshot.set()
        if self._keeper is not None:
            if renamed and self._layout is not None:
                self._layout = self._wanted_layout(_bridge_mac(snapshot.name), self._layout.mtu)
                self._keeper.layout = self._layout
                self._keeper.check_soon()
            self._announce()

    def _apply_delta(self, delta: Delta) -> None:
        if self._table.seq < 0:
            raise RemoteProtocolError("control link: a delta before the first snapshot")
        changed = self._table.apply_delta(delta, time.monotonic())
        self._follow_table(changed, whole=False)
        log.debug("delta in force", extra=kv(seq=delta.seq))

    def _follow_table(self, changed: set[bytes], *, whole: bool) -> None:
        self._paths.update(self._table.neighbours, changed)
        self._lives.update(whole=whole)
        self._table_changed.set()

    async def _let_go(self) -> None:
        """Of neighbours whose control did not come back in time."""
        while True:
            self._table_changed = anyio.Event()
            deadline = self._table.deadline
            wait_s = math.inf if deadline is None else max(0.0, deadline - time.monotonic())
            with anyio.move_on_after(wait_s) as waiting:
                await self._table_changed.wait()
            if waiting.cancelled_caught:
                self._table.expire(time.monotonic())
                self._follow_table(set(), whole=False)

    # ---- what control is told ------------------------------------------------------------------

    def _announce(self) -> None:
        if self._layout is None:
            return
        self._link.emit(
            RouterReady(self._layout.bridge, BRIDGE_PORT, self._udp.port, self._layout.mtu)
        )
        log.info(
            "forwarding",
            extra=kv(
                bridge=self._layout.bridge,
                mtu=self._layout.mtu,
                capture=self._settings.capture,
                loops=self._settings.loops,
            ),
        )
        Notifier().ready("forwarding")

    def _path_changed(self, name: bytes, mtu: int, pmtu_bytes: int) -> None:
        self._link.emit(PathMtuChanged(name, mtu, pmtu_bytes))

    def _repaired(self, what: str, repairs: int) -> None:
        self._link.emit(BridgeRepaired(what, repairs))

    def _report(self, request: ReportRequest) -> RouterReport:
        counters = dict(zip((str(c) for c in Counter), self._datapath.counters(), strict=True))
        counters[Counter.DROP_SOCKET_BUFFER] = self._udp.drops()
        peers = self._table.peers_by_index()
        now_s = int(time.monotonic())
        entries, total = self._datapath.fdb_entries(request.macs_max)
        unknown = Peer(b"\0" * 6, "")
        return RouterReport(
            id=request.id,
            uptime_s=time.monotonic() - self._started_s,
            loops=self._settings.loops,
            capture=self._settings.capture,
            mtu=self._layout.mtu if self._layout else 0,
            seq=self._table.seq,
            bridge_repairs=self._keeper.repairs if self._keeper else 0,
            counters=counters,
            forwarders=tuple(self._forwarder_reports()),
            macs=tuple(
                MacReport(
                    mac,
                    peers.get(index, unknown).name,
                    peers.get(index, unknown).nick,
                    max(0, now_s - seen_s),
                )
                for mac, index, seen_s in entries
            ),
            macs_total=total,
        )

    def _forwarder_reports(self) -> list[ForwarderReport]:
        peers = {peer.name: peer for peer in self._table.peers_by_index().values()}
        now = time.monotonic()
        out = []
        for name, neighbour in self._table.neighbours.items():
            stats = self._datapath.forwarder_stats(neighbour.forwarder)
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
            life = self._lives.life(name)
            out.append(report if life is None else _with_life(report, life, now))
        return out

    # ---- what the data path noticed --------------------------------------------------------------

    def _on_main(self, call: object, *args: object) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(call, *args)  # type: ignore[arg-type]

    def _egress_events(self, batch: Batch) -> None:
        self._noticed(batch.events())

    def _ingress_events(self, batch: Batch) -> None:
        # may run on the ingress thread
        self._on_main(self._noticed, batch.events())

    def _noticed(self, events: list[Event]) -> None:
        refused = {event.forwarder for event in events if event.kind == lib.WN_EVENT_PATH_MTU}
        for forwarder in refused:
            if not self._lives.refused(forwarder):
                self._paths.refused(forwarder)
        for event in events:
            if event.kind == lib.WN_EVENT_SPECIAL:
                self._special(event)
            elif event.kind == lib.WN_EVENT_SEND_ERROR:
                log.warning("send failed", extra=kv(addr=event.addr, err=event.err))

    def _special(self, event: Event) -> None:
        name = self._table.neighbour_of_forwarder(event.forwarder)
        if name is not None:
            self._lives.special(name, event)

    def _capture_failed(self, err: CaptureError) -> None:
        log.warning("capture stopped", extra=kv(err=str(err)))
        if self._keeper is not None:
            self._keeper.check_soon()

    # ---- helpers --------------------------------------------------------------------------------

    def _wanted_layout(self, mac: str, mtu: int) -> BridgeLayout:
        return BridgeLayout(self._settings.bridge, mac, mtu, self._settings.capture)

    def _mtu(self) -> int:
        if self._settings.mtu:
            return self._settings.mtu
        known = self._paths.narrowest()
        underlay = known or underlay_mtu(self._settings.host, self._settings.bridge)
        cipher = Cipher.SECRETBOX if self._sealed else Cipher.NONE
        return overlay_mtu(underlay, cipher.overhead)

    def _kernel_mtu(self, addr: str, port: int) -> int:
        return path_mtu(addr, port, self._settings.host)


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


def _nothing() -> None:
    """Before there is anything to end."""


def _bridge_mac(name: bytes) -> str:
    """The peer name as a MAC: a name given by hand may have the multicast bit set."""
    return ":".join(f"{octet:02x}" for octet in (name[0] & 0xFE, *name[1:]))


async def _serve(settings: RouterSettings) -> None:
    router = Router(settings)
    async with anyio.create_task_group() as tasks:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:

            async def wait_for_signal() -> None:
                async for number in signals:
                    log.info("stopping", extra=kv(reason=signal.Signals(number).name))
                    tasks.cancel_scope.cancel()
                    return

            tasks.start_soon(wait_for_signal)
            await router.run()
            tasks.cancel_scope.cancel()


def main(argv: Sequence[str] | None = None) -> int:
    """Entry of ``python -m router``; the exit code."""
    try:
        settings = parse(sys.argv[1:] if argv is None else argv)
        setup(settings.log_level, settings.log_format)
        anyio.run(_serve, settings, **BACKEND)
    except WeftError as err:
        return _refuse(err)
    except BaseExceptionGroup as group:
        ours, others = group.split(WeftError)
        if others is not None or ours is None:
            raise
        return _refuse(ours)
    return 0


def _refuse(err: BaseException) -> int:
    """One line for people; the innermost first error of nested groups."""
    while isinstance(err, BaseExceptionGroup):
        err = err.exceptions[0]
    print(f"weft: {err}", file=sys.stderr)  # noqa: T201
    return 1
