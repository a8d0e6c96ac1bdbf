"""Reads the kernel's path MTU for each neighbour and sets the overlay MTU by it.

Of static links; those of the mesh have answers, and a life: :mod:`router.lives`. Shell around
:mod:`router.path_state`. Ref: spec sleeve 9.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import anyio

from base.errors import UnderlayError
from base.ipc import Connection
from base.log import kv
from base.names import PeerName
from native.datapath import Datapath
from router.path_state import RECHECK_S, PathState
from router.peer_table import Neighbour
from router.udp import path_mtu

log = logging.getLogger(__name__)


class Paths:
    """Path state of all neighbours. Lives on one event loop."""

    def __init__(
        self,
        datapath: Datapath,
        host: str,
        overhead: int,
        on_change: Callable[[bytes, int, int], None],
    ) -> None:
        self._datapath = datapath
        self._host = host
        self._overhead = overhead
        self._on_change = on_change
        self._neighbours: dict[bytes, Neighbour] = {}
        self._states: dict[bytes, PathState] = {}
        self._narrowed = anyio.Event()

    def update(self, neighbours: dict[bytes, Neighbour], changed: set[bytes]) -> None:
        """The neighbours now; those in ``changed`` are new or have another address."""
        static = {k: v for k, v in neighbours.items() if not v.connection.conn}
        self._neighbours = static
        self._states = {k: v for k, v in self._states.items() if k in static}
        for name in changed & static.keys():
            configured = neighbours[name].connection.mtu
            self._states[name] = PathState(self._overhead, configured)
            self._read(name, force=True)

    def refused(self, forwarder: int) -> None:
        """A datagram for this forwarder was longer than its path takes."""
        for name, neighbour in self._neighbours.items():
            if neighbour.forwarder == forwarder:
                self._read(name)
                return

    def narrowest(self) -> int:
        """Smallest underlay path MTU of all neighbours in bytes, 0 if none is known."""
        known = [state.pmtu_bytes for state in self._states.values() if state.pmtu_bytes]
        return min(known, default=0)

    async def run(self) -> None:
        """Ask again while a path is narrower than it was. Sleeps for good while none is."""
        while True:
            await self._narrowed.wait()
            await anyio.sleep(RECHECK_S)
            self._narrowed = anyio.Event()
            for name in [name for name, state in self._states.items() if state.narrowed]:
                self._read(name)

    def _read(self, name: bytes, *, force: bool = False) -> None:
        state = self._states[name]
        connection = self._neighbours[name].connection
        if not connection.addr:
            return  # it will come with another update
        try:
            pmtu_bytes = path_mtu(connection.addr, connection.port, self._host)
        except UnderlayError as err:
            log.warning("no path", extra=kv(peer=PeerName(name), err=str(err)))
            return
        changed = state.handle_path_mtu(pmtu_bytes)
        if state.narrowed:
            self._narrowed.set()
        if changed or force:
            self._set(name, connection, state, changed=changed and not force)

    def _set(self, name: bytes, connection: Connection, state: PathState, *, changed: bool) -> None:
        self._datapath.set_mtu(
            self._neighbours[name].forwarder,
            state.mtu,
            state.overhead,
            stack_frag=connection.stack_frag,
        )
        log.log(
            logging.INFO if changed else logging.DEBUG,  # the first reading is no news
            "overlay MTU set",
            extra=kv(peer=PeerName(name), mtu=state.mtu, pmtu_bytes=state.pmtu_bytes),
        )
        self._on_change(name, state.mtu, state.pmtu_bytes)
