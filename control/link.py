"""Control's end of the control link: the shell around :class:`control.link_core.LinkCore`.

One task accepts, and per connection one reads and one writes. A router that does not read what it
is sent (WRITE_QUEUE_LEN messages behind) is cut off; it dials again and gets a fresh snapshot.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import anyio
from anyio.abc import ByteStream, SocketListener, TaskStatus
from anyio.streams.memory import MemoryObjectSendStream

from base.ipc import BridgeRepaired, OverlayMessage, PathMtuChanged, RouterReport, Snapshot
from base.log import kv
from control.link_core import (
    Action,
    BecameReady,
    Close,
    Happened,
    LinkCore,
    OverlayNews,
    ReportArrived,
    RouterJoined,
    RouterLost,
    Send,
)

WRITE_QUEUE_LEN: Final = 256
_CHUNK_BYTES: Final = 256 * 1024

log = logging.getLogger(__name__)


class RouterUnavailableError(Exception):
    """No router is connected, or it did not answer in time."""


@dataclass(slots=True)
class _Connection:
    outgoing: MemoryObjectSendStream[bytes]
    scope: anyio.CancelScope


@dataclass(slots=True)
class _Waiter:
    answered: anyio.Event = field(default_factory=anyio.Event)
    report: RouterReport | None = None


class LinkServer:
    """Serves routers on one listener. Use from one event loop."""

    def __init__(
        self,
        snapshot: Snapshot,
        on_readiness: Callable[[bool], None],
        on_news: Callable[[RouterJoined | OverlayNews], None] | None = None,
    ) -> None:
        self._core = LinkCore(snapshot)
        self._on_readiness = on_readiness
        self._on_news = on_news
        self._connections: dict[int, _Connection] = {}
        self._waiters: dict[int, _Waiter] = {}

    @property
    def core(self) -> LinkCore:
        """What is known of the router; read only."""
        return self._core

    async def serve(
        self,
        listener: SocketListener,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept routers until cancelled; closes the listener and every connection."""
        async with listener:
            task_status.started()
            await listener.serve(self._serve_connection)

    def publish(self, state: Snapshot) -> bool:
        """Make ``state`` the truth; True when that changed anything.

        Raises:
            ValueError: it is another router's state.
        """
        before = self._core.snapshot
        self._carry_out(self._core.replace(state))
        return self._core.snapshot is not before

    def tell(self, message: OverlayMessage) -> None:
        """Pass on to the router what a neighbour said over TCP."""
        self._carry_out(self._core.tell(message))

    async def request_report(self, macs_max: int = 10_000, timeout_s: float = 2.0) -> RouterReport:
        """The router's own report.

        Raises:
            RouterUnavailableError: none is connected, it went away, or time is up.
        """
        ident, actions = self._core.request_report(macs_max)
        if not actions:
            raise RouterUnavailableError("no router is connected")
        waiter = self._waiters[ident] = _Waiter()
        try:
            self._carry_out(actions)
            with anyio.move_on_after(timeout_s):
                await waiter.answered.wait()
        finally:
            del self._waiters[ident]
        if waiter.report is None:
            raise RouterUnavailableError("the router went away or did not answer in time")
        return waiter.report

    async def _serve_connection(self, stream: ByteStream) -> None:
        session = self._core.open()
        outgoing, queued = anyio.create_memory_object_stream[bytes](WRITE_QUEUE_LEN)
        try:
            async with stream, outgoing, queued, anyio.create_task_group() as tasks:
                self._connections[session] = _Connection(outgoing, tasks.cancel_scope)
                tasks.start_soon(_write_all, stream, queued, tasks.cancel_scope)
                await self._read_all(session, stream)
                tasks.cancel_scope.cancel()
        finally:
            self._connections.pop(session, None)
            self._carry_out(self._core.closed(session))

    async def _read_all(self, session: int, stream: ByteStream) -> None:
        try:
            while True:
                data = await stream.receive(_CHUNK_BYTES)
                self._carry_out(self._core.receive(session, data))
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return

    def _carry_out(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Send(session, data):
                    self._send(session, data)
                case Close(session, reason, fault):
                    self._close(session, reason, fault)
                case BecameReady(pid, ready):
                    log.info(
                        "router ready",
                        extra=kv(
                            pid=pid,
                            bridge=ready.bridge,
                            interface=ready.interface,
                            port=ready.udp_port,
                            mtu=ready.mtu,
                        ),
                    )
                    self._on_readiness(True)
                case RouterJoined() | OverlayNews():
                    if self._on_news is not None:
                        self._on_news(action)
                case RouterLost(pid, was_ready):
                    self._lost(pid, was_ready)
                case ReportArrived(report):
                    waiter = self._waiters.get(report.id)
                    if waiter is not None:
                        waiter.report = report
                        waiter.answered.set()
                case Happened(event):
                    _log_event(event, started=self._core.ready is not None)

    def _send(self, session: int, data: bytes) -> None:
        connection = self._connections.get(session)
        if connection is None:
            return
        try:
            connection.outgoing.send_nowait(data)
        except anyio.WouldBlock:
            self._close(session, "does not read what it is sent", True)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass  # it is being closed already

    def _close(self, session: int, reason: str, fault: bool) -> None:
        level = logging.ERROR if fault else logging.WARNING
        log.log(level, "router connection closed", extra=kv(reason=reason))
        connection = self._connections.get(session)
        if connection is not None:
            connection.scope.cancel()

    def _lost(self, pid: int, was_ready: bool) -> None:
        if was_ready:
            log.warning("router gone", extra=kv(pid=pid))
        self._on_readiness(False)
        for waiter in self._waiters.values():
            waiter.answered.set()


async def _write_all(
    stream: ByteStream,
    queued: anyio.abc.ObjectReceiveStream[bytes],
    scope: anyio.CancelScope,
) -> None:
    try:
        async for data in queued:
            await stream.send(data)
    except anyio.BrokenResourceError:
        scope.cancel()


def _log_event(event: BridgeRepaired | PathMtuChanged, *, started: bool) -> None:
    """Quiet while the router starts: if that fails, its one line is what people should read."""
    if isinstance(event, BridgeRepaired):
        log.warning("bridge repaired", extra=kv(reason=event.what, repairs=event.repairs))
    else:
        log.log(
            logging.INFO if started else logging.DEBUG,
            "path MTU changed",
            extra=kv(peer=event.peer.hex(":"), mtu=event.mtu, pmtu_bytes=event.pmtu_bytes),
        )
