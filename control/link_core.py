"""Control's end of the control link as a sans-IO machine: sessions, numbering, events.

A *session* is one accepted connection. It counts for nothing until its RouterHello; then it is
*the* router, and an earlier one is closed: a restarted router must not wait for its ghost. The
router gets a snapshot, then one delta per change, numbered without a gap. Requests for reports are
matched to answers by id.

Bytes and commands go in, actions come out in the order in which they must be carried out. Nothing
here knows sockets, tasks or time. Source of truth: base/ipc.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from base.errors import RemoteProtocolError
from base.ipc import (
    SCHEMA_VERSION,
    BridgeRepaired,
    BroadcastRoute,
    MessageReader,
    NeedSnapshot,
    OverlayEstablished,
    OverlayFailed,
    OverlayMessage,
    PathMtuChanged,
    RemoteAddress,
    ReportRequest,
    RouterHello,
    RouterReady,
    RouterReport,
    Snapshot,
    decode_for_control,
    encode,
)
from control.diff import diff


@dataclass(slots=True, frozen=True)
class Send:
    """Write ``data`` to the connection of ``session``."""

    session: int
    data: bytes


@dataclass(slots=True, frozen=True)
class Close:
    """Close the connection of ``session``; ``reason`` for the log, ``fault``: it broke a rule."""

    session: int
    reason: str
    fault: bool = False


@dataclass(slots=True, frozen=True)
class BecameReady:
    """The router said that it forwards."""

    pid: int
    ready: RouterReady


@dataclass(slots=True, frozen=True)
class RouterLost:
    """The router's connection ended; ``was_ready`` says whether it had ever been ready."""

    pid: int
    was_ready: bool


@dataclass(slots=True, frozen=True)
class RouterJoined:
    """A router said hello; ``fresh``: another process than the one before, which knew nothing."""

    pid: int
    fresh: bool


@dataclass(slots=True, frozen=True)
class Happened:
    """An event of the router worth a log line."""

    event: BridgeRepaired | PathMtuChanged


@dataclass(slots=True, frozen=True)
class OverlayNews:
    """What the router says of a mesh connection's sleeve side."""

    event: OverlayMessage | OverlayEstablished | OverlayFailed | RemoteAddress


@dataclass(slots=True, frozen=True)
class ReportArrived:
    """The answer to the request with this id."""

    report: RouterReport


Action = (
    Send | Close | RouterJoined | BecameReady | RouterLost | Happened | OverlayNews | ReportArrived
)


@dataclass(slots=True)
class _Session:
    reader: MessageReader = field(default_factory=MessageReader)
    hello: RouterHello | None = None
    ready: RouterReady | None = None
    path_mtus: dict[bytes, PathMtuChanged] = field(default_factory=dict)


class LinkCore:
    """State of the link. ``snapshot`` is what the router should have now."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._sessions: dict[int, _Session] = {}
        self._next_session = 1
        self._next_report = 1
        self._router: int | None = None
        self._instance: int | None = None

    # What is known of the router -----------------------------------------------------------------

    @property
    def router_pid(self) -> int | None:
        """Process id of the connected router."""
        session = self._current()
        return session.hello.pid if session and session.hello else None

    @property
    def ready(self) -> RouterReady | None:
        """What the connected router said when it was ready; None before and without one."""
        session = self._current()
        return session.ready if session else None

    @property
    def path_mtus(self) -> dict[bytes, PathMtuChanged]:
        """Latest path MTU by neighbour, as the connected router measured it."""
        session = self._current()
        return dict(session.path_mtus) if session else {}

    def _current(self) -> _Session | None:
        return None if self._router is None else self._sessions[self._router]

    # Connections ---------------------------------------------------------------------------------

    def open(self) -> int:
        """A connection was accepted; returns the number by which actions name it."""
        session = self._next_session
        self._next_session += 1
        self._sessions[session] = _Session()
        return session

    def closed(self, session: int) -> list[Action]:
        """The connection of ``session`` ended, whoever ended it. Harmless when repeated."""
        gone = self._sessions.pop(session, None)
        if gone is None or self._router != session:
            return []
        self._router = None
        assert gone.hello is not None
        return [RouterLost(gone.hello.pid, gone.ready is not None)]

    def receive(self, session: int, data: bytes) -> list[Action]:
        """Bytes arrived; any bytes are acceptable input."""
        state = self._sessions.get(session)
        if state is None:
            return []
        actions: list[Action] = []
        try:
            for body in state.reader.feed(data):
                actions += self._handle(session, state, body)
                if session not in self._sessions:
                    break
        except RemoteProtocolError as err:
            actions += self._refuse(session, str(err))
        return actions

    def _refuse(self, session: int, reason: str) -> list[Action]:
        return [Close(session, reason, fault=True), *self.closed(session)]

    def _handle(self, session: int, state: _Session, body: bytes) -> list[Action]:
        message = decode_for_control(body)
        if isinstance(message, RouterHello):
            return self._handle_hello(session, state, message)
        if state.hello is None:
            return self._refuse(session, "spoke before its hello")
        if isinstance(message, NeedSnapshot):
            return [Send(session, encode(self.snapshot))]
        if isinstance(message, RouterReady):
            state.ready = message
            return [BecameReady(state.hello.pid, message)]
        if isinstance(message, RouterReport):
            return [ReportArrived(message)]
        if isinstance(message, PathMtuChanged):
            state.path_mtus[message.peer] = message
        if isinstance(message, BridgeRepaired | PathMtuChanged):
            return [Happened(message)]
        return [OverlayNews(message)]

    def _handle_hello(self, session: int, state: _Session, hello: RouterHello) -> list[Action]:
        if state.hello is not None:
            return self._refuse(session, "said hello twice")
        if hello.schema != SCHEMA_VERSION:
            return self._refuse(
                session,
                f"router speaks schema {hello.schema}, control {SCHEMA_VERSION}: "
                "install the same release for both and restart them",
            )
        actions: list[Action] = []
        if self._router is not None:
            old = self._router
            actions += [Close(old, f"replaced by router with pid {hello.pid}"), *self.closed(old)]
        state.hello = hello
        self._router = session
        fresh = hello.instance != self._instance
        if fresh and self._instance is not None:
            # an earlier router has used these keys from number 0 on; nobody may do that again
            self.snapshot = without_keys(self.snapshot)
        self._instance = hello.instance
        return [*actions, Send(session, encode(self.snapshot)), RouterJoined(hello.pid, fresh)]

    # Commands ------------------------------------------------------------------------------------

    def replace(self, state: Snapshot) -> list[Action]:
        """``state`` is the truth from now on (its ``seq`` is ignored): number it and pass it on.

        Raises:
            ValueError: it is another router's.
        """
        old = self.snapshot
        if state.name != old.name:
            raise ValueError("the name of a running router cannot change")
        if state.nick != old.nick:  # no delta can say this
            self.snapshot = msgspec.structs.replace(state, seq=old.seq + 1)
            return self._to_router(encode(self.snapshot))
        delta = diff(old, state)
        self.snapshot = msgspec.structs.replace(state, seq=old.seq if delta is None else delta.seq)
        if delta is None:
            return []
        return self._to_router(encode(delta))

    def request_report(self, macs_max: int) -> tuple[int, list[Action]]:
        """Id to wait for, and how to ask; no action when no router is connected."""
        ident = self._next_report
        self._next_report += 1
        return ident, self._to_router(encode(ReportRequest(ident, macs_max)))

    def tell(self, message: OverlayMessage) -> list[Action]:
        """Pass on what a neighbour said; lost when no router is connected."""
        return self._to_router(encode(message))

    def _to_router(self, data: bytes) -> list[Action]:
        return [] if self._router is None else [Send(self._router, data)]


def without_keys(state: Snapshot) -> Snapshot:
    """The state less its encrypted connections and all that leads over them; a new number."""
    kept = tuple(each for each in state.connections if not each.key)
    names = {each.peer for each in kept}
    return msgspec.structs.replace(
        state,
        seq=state.seq + 1,
        connections=kept,
        unicast=tuple(route for route in state.unicast if route.via in names),
        broadcast=tuple(
            BroadcastRoute(route.src, tuple(via for via in route.via if via in names))
            for route in state.broadcast
        ),
    )
