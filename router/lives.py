"""The lives of mesh connections' datagram sides on a real router: clock, socket, link.

Shell around :mod:`router.forwarder`: one forwarder per mesh connection, on the main loop. Special
frames leave in a batch of their own, sealed like everything else. Ref: spec sleeve 6 to 9.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import anyio

from base.counters import COUNTER_NAMES, Counter
from base.errors import UnderlayError
from base.ipc import (
    Connection,
    OverlayEstablished,
    OverlayFailed,
    OverlayMessage,
    PathMtuChanged,
    RemoteAddress,
    ToControl,
)
from base.log import kv
from base.names import PeerName
from crypto.ciphers import Cipher
from crypto.sealed import put_records
from native import lib
from native.datapath import Batch, Datapath, Event
from router.forwarder import (
    Action,
    AskKernel,
    Established,
    Failed,
    Forwarder,
    SendSpecial,
    SetAddress,
    SetMtu,
    Tell,
)
from router.peer_table import Neighbour, PeerTable
from router.stages import Box, DatagramSocket

_STRAY: Final = COUNTER_NAMES.index(Counter.DROP_STRAY_SPECIAL)
_ETH_ZEROS: Final = bytes(lib.WN_ETH_LEN)

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Life:
    """A forwarder with what it is the forwarder of; ``index`` is its place in the data path."""

    conn: int
    index: int
    cipher: Cipher
    forwarder: Forwarder


class Lives:
    """All mesh connections of a router. Lives on one event loop.

    ``kernel_mtu`` asks the kernel for its path MTU to an address and port (UnderlayError: none).
    """

    def __init__(
        self,
        datapath: Datapath,
        table: PeerTable,
        udp: DatagramSocket,
        box: Box,
        emit: Callable[[ToControl], None],
        kernel_mtu: Callable[[str, int], int],
    ) -> None:
        self._datapath = datapath
        self._table = table
        self._udp = udp
        self._box = box
        self._emit = emit
        self._kernel_mtu = kernel_mtu
        self._batch = Batch()
        self._lives: dict[bytes, Life] = {}
        self._rearm = anyio.Event()

    def life(self, name: bytes) -> Life | None:
        """The life of the connection to a neighbour; None for a static link."""
        return self._lives.get(name)

    # --- from control ----------------------------------------------------------------------------

    def update(self, *, whole: bool) -> None:
        """The table has changed: begin and end lives. ``whole``: control sent a snapshot.

        A snapshot may come from a control that did not hear our last events: they are repeated.
        """
        now = time.monotonic()
        neighbours = self._table.neighbours
        gone = [name for name, life in self._lives.items() if not _same(life, neighbours.get(name))]
        for name in gone:
            del self._lives[name]
        for name, neighbour in neighbours.items():
            if not neighbour.connection.conn:
                continue
            life = self._lives.get(name)
            if life is None:
                self._begin(name, neighbour, now)
            elif whole:
                self._remind(name, life, neighbour.connection)
        self._rearm.set()

    def control(self, message: OverlayMessage) -> None:
        """What a neighbour said over TCP."""
        life = self._lives.get(message.peer)
        if life is None or life.conn != message.conn:
            log.debug("message for a connection that is gone", extra=kv(conn=message.conn))
            return
        now = time.monotonic()
        life.forwarder.control(message.kind, message.data, now)
        self._carry_out(message.peer, life, now)

    def _begin(self, name: bytes, neighbour: Neighbour, now: float) -> None:
        connection = neighbour.connection
        cipher = Cipher.of_label(connection.cipher)
        forwarder = Forwarder(
            connection.uid,
            cipher.overhead,
            now,
            addr=connection.addr,
            port=connection.port,
            established=connection.established,
            acked=connection.acked,
        )
        life = self._lives[name] = Life(connection.conn, neighbour.forwarder, cipher, forwarder)
        if name in self._table.keys_refused:
            forwarder.fail("the session key was used before")
        forwarder.timeout(now)
        self._carry_out(name, life, now)

    def _remind(self, name: bytes, life: Life, connection: Connection) -> None:
        forwarder = life.forwarder
        match forwarder.state.value:
            case "failed":
                self._emit(OverlayFailed(name, life.conn, "datagrams do not get through"))
            case "established" if not connection.established:
                self._emit(OverlayEstablished(name, life.conn))
        if forwarder.acked and not connection.acked:
            self._emit(OverlayMessage(name, life.conn, 1))
        if (forwarder.addr, forwarder.port) != (connection.addr, connection.port):
            self._emit(RemoteAddress(name, life.conn, forwarder.addr, forwarder.port))

    # --- from the data path ----------------------------------------------------------------------

    def special(self, name: bytes, event: Event) -> None:
        """A special frame came from a neighbour."""
        life = self._lives.get(name)
        if life is None:
            return  # a static link has no life
        now = time.monotonic()
        forwarder = life.forwarder
        if event.special == lib.WN_SPECIAL_HEARTBEAT:
            if not forwarder.heartbeat(event.uid, event.addr, event.port, now):
                self._datapath.count(_STRAY, 1)
        elif event.special == lib.WN_SPECIAL_FRAG_TEST:
            forwarder.frag_test(event.all_zero, now)
        else:
            forwarder.mtu_test(event.frame_len, now)
        self._carry_out(name, life, now)

    def refused(self, index: int) -> bool:
        """A datagram of this forwarder was longer than its path takes; False: not one of ours."""
        for name, life in self._lives.items():
            if life.index == index:
                now = time.monotonic()
                if (kernel_bytes := self._ask_kernel(name, life)) is not None:
                    life.forwarder.refused(kernel_bytes, now)
                    self._carry_out(name, life, now)
                return True
        return False

    # --- time ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Do what is due, until cancelled."""
        while True:
            self._rearm = anyio.Event()
            deadlines = (life.forwarder.deadline for life in self._lives.values())
            earliest = min((at for at in deadlines if at is not None), default=math.inf)
            with anyio.move_on_after(max(0.0, earliest - time.monotonic())):
                await self._rearm.wait()
            now = time.monotonic()
            for name, life in list(self._lives.items()):
                deadline = life.forwarder.deadline
                if deadline is not None and deadline <= now:
                    life.forwarder.timeout(now)
                    self._carry_out(name, life, now)

    # --- what forwarders want --------------------------------------------------------------------

    def _carry_out(self, name: bytes, life: Life, now: float) -> None:
        while actions := life.forwarder.take_actions():
            for action in actions:
                self._do(name, life, action, now)
        self._rearm.set()

    def _do(self, name: bytes, life: Life, action: Action, now: float) -> None:
        match action:
            case SendSpecial():
                self._send(name, life, action, now)
            case Tell(kind, data):
                self._emit(OverlayMessage(name, life.conn, kind, data))
            case SetAddress(addr, port):
                self._table.set_address(name, addr, port)
                self._emit(RemoteAddress(name, life.conn, addr, port))
                log.info("address heard", extra=kv(peer=PeerName(name), addr=f"{addr}:{port}"))
            case SetMtu(mtu, stack_frag):
                overhead = life.cipher.overhead
                self._datapath.set_mtu(life.index, mtu, overhead, stack_frag=stack_frag)
                self._emit(PathMtuChanged(name, mtu, life.forwarder.path.kernel_bytes))
            case AskKernel():
                if (kernel_bytes := self._ask_kernel(name, life)) is not None:
                    life.forwarder.believed(kernel_bytes, now)
            case Established():
                log.info("neighbour hears us", extra=kv(peer=PeerName(name), conn=life.conn))
                self._emit(OverlayEstablished(name, life.conn))
            case Failed(reason):
                log.warning("neighbour lost", extra=kv(peer=PeerName(name), reason=reason))
                self._emit(OverlayFailed(name, life.conn, reason))

    def _send(self, name: bytes, life: Life, frame: SendSpecial, now: float) -> None:
        """One special frame; what the socket does not take now is lost, and repeated in time."""
        body = _ETH_ZEROS + (b"" if frame.uid is None else frame.uid.to_bytes(8, "big"))
        header = self._table.name + name + frame.length.to_bytes(2, "big")
        batch = self._batch
        batch.reset()
        records = header + body.ljust(frame.length, b"\0")
        put_records(self._datapath, batch, life.index, records, df=frame.df)
        self._box.seal(batch)
        self._udp.send(self._datapath, batch)
        if any(event.kind == lib.WN_EVENT_PATH_MTU for event in batch.events()):
            kernel_bytes = self._ask_kernel(name, life)
            if kernel_bytes is not None:
                life.forwarder.refused(kernel_bytes, now)

    def _ask_kernel(self, name: bytes, life: Life) -> int | None:
        try:
            return self._kernel_mtu(life.forwarder.addr, life.forwarder.port)
        except UnderlayError as err:
            log.debug("no path", extra=kv(peer=PeerName(name), err=str(err)))
            return None


def _same(life: Life, neighbour: Neighbour | None) -> bool:
    return (
        neighbour is not None
        and neighbour.connection.conn == life.conn
        and neighbour.forwarder == life.index
    )
