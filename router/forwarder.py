"""The datagram side of one mesh connection: heartbeats, acknowledgements, tests. Sans-IO.

    waiting ──heartbeat shows its address──▶ pending ──ours is acknowledged──▶ established
       │                                        │                                  │
       └───────────────60 s without a valid heartbeat, or the key is refused───────┴──▶ failed

Who was dialled does not know where datagrams go until a heartbeat shows it. Heartbeats go every
half second until the neighbour has acknowledged one over TCP, then every ten seconds, each with a
probe of the MTU in use: its answer, over TCP, gives the round-trip time. Only a heartbeat with the
connection's UID may change an address, be acknowledged, or keep the connection alive.

In go events with the time, out come actions (:meth:`Forwarder.take_actions`) and a deadline.
Source of truth: sleeve specification 6, 7, 9.
"""

from __future__ import annotations

import enum
import statistics
from collections import deque
from dataclasses import dataclass
from typing import Final

from native import lib
from router.path_mtu import PathMtu

FAST_HEARTBEAT_S: Final = 0.5
SLOW_HEARTBEAT_S: Final = 10.0
TIMEOUT_S: Final = 60.0
FRAG_TEST_S: Final = 300.0
#: Answers over TCP to one neighbour's tests, per second.
ANSWERS_PER_S: Final = 50
#: When silence is worth telling, and when a test's answer will not come any more.
SILENT_S: Final = 2.5 * SLOW_HEARTBEAT_S
PATIENCE_S: Final = 5.0
_RTT_SAMPLES: Final = 7

HEARTBEAT_ACK: Final = 1
FRAGMENTS_ACK: Final = 2
MTU_ACK: Final = 3


class State(enum.Enum):
    """See the diagram above."""

    WAITING = "waiting"
    PENDING = "pending"
    ESTABLISHED = "established"
    FAILED = "failed"


@dataclass(slots=True, frozen=True)
class SendSpecial:
    """Send a special frame of ``length`` bytes in a datagram of its own; ``uid`` in a heartbeat."""

    length: int
    df: bool
    uid: int | None = None


@dataclass(slots=True, frozen=True)
class Tell:
    """Say this to the neighbour over TCP."""

    kind: int
    data: bytes = b""


@dataclass(slots=True, frozen=True)
class SetAddress:
    """Send datagrams there from now on."""

    addr: str
    port: int


@dataclass(slots=True, frozen=True)
class SetMtu:
    """Cut and refuse frames by this overlay MTU; whether the underlay carries fragments."""

    mtu: int
    stack_frag: bool


@dataclass(slots=True, frozen=True)
class AskKernel:
    """Read the kernel's path MTU and report it by :meth:`Forwarder.believed`."""


@dataclass(slots=True, frozen=True)
class Established:
    """The neighbour has acknowledged our heartbeat."""


@dataclass(slots=True, frozen=True)
class Failed:
    """The connection is of no use any more."""

    reason: str


Action = SendSpecial | Tell | SetAddress | SetMtu | AskKernel | Established | Failed


class Forwarder:
    """One connection's life. ``addr`` "" while it is not known.

    ``established`` and ``acked`` say how far it had got under another router process.
    """

    def __init__(
        self,
        uid: int,
        overhead: int,
        now: float,
        *,
        addr: str = "",
        port: int = 0,
        established: bool = False,
        acked: bool = False,
    ) -> None:
        self.uid = uid
        self.addr, self.port = addr, port
        self.acked = acked
        self.stack_frag = False
        self.path = PathMtu(overhead)
        self.heard_at: float | None = None
        self.state = State.PENDING if addr else State.WAITING
        self._began_at = now
        self._expires_at = now + TIMEOUT_S
        self._heartbeat_at: float | None = now if addr else None
        self._first_heartbeat_at: float | None = None
        self._frag_test_at: float | None = None
        self._frag_tested_at: float | None = None
        self._probed: tuple[int, float | None] | None = None
        self._rtts: deque[float] = deque(maxlen=_RTT_SAMPLES)
        self._answers = (now, 0)
        self._actions: list[Action] = [SetMtu(self.path.mtu, False)]
        if addr and established:
            self._send_heartbeat_frame()
            self._establish(now)

    # --- what comes out --------------------------------------------------------------------------

    def take_actions(self) -> list[Action]:
        """Actions since the last call, in order."""
        actions, self._actions = self._actions, []
        return actions

    @property
    def deadline(self) -> float | None:
        """When :meth:`timeout` has something to do."""
        if self.state is State.FAILED:
            return None
        others = (self._heartbeat_at, self._frag_test_at, self.path.deadline)
        return min((at for at in others if at is not None), default=self._expires_at)

    @property
    def rtt_s(self) -> float:
        """Median of the last probes' times; 0 before the first answer."""
        return statistics.median(self._rtts) if self._rtts else 0.0

    def degraded(self, now: float) -> str:
        """What is worse than it could be, in words; "" if nothing."""
        heard_ago_s = None if self.heard_at is None else now - self.heard_at
        if self.state is State.FAILED:
            return "datagrams do not get through"
        if self.state is not State.ESTABLISHED:
            if now - self._began_at < PATIENCE_S:
                return ""
            if heard_ago_s is None:
                return "no heartbeat has come: is UDP blocked?"
            return "heartbeats are not acknowledged: is UDP blocked one way?"
        if heard_ago_s is None and now - self._began_at > SILENT_S:
            # it hears us, so its connection to us never becomes more than pending
            return "no heartbeat has come: is UDP blocked one way?"
        if heard_ago_s is not None and heard_ago_s > SILENT_S:
            return f"no heartbeat for {heard_ago_s:.0f} s"
        if self.path.searching:
            return "searching for the path MTU"
        if self.path.narrower_than_believed:
            return f"the path drops what is larger than {self.path.mtu}, without a word"
        tested_at = self._frag_tested_at
        if not self.stack_frag and tested_at is not None and now - tested_at > PATIENCE_S:
            return "IP fragments do not get through"
        return ""

    # --- from the neighbour's datagrams ----------------------------------------------------------

    def heartbeat(self, uid: int, addr: str, port: int, now: float) -> bool:
        """A heartbeat came from ``addr``; False when it is of another connection."""
        if uid != self.uid or self.state is State.FAILED:
            return False
        self.heard_at = now
        self._expires_at = now + TIMEOUT_S
        if (addr, port) != (self.addr, self.port):
            self.addr, self.port = addr, port
            self._actions.append(SetAddress(addr, port))
            if self.state is State.WAITING:
                self.state = State.PENDING
                self._send_heartbeat(now)
        if not self.acked:
            self.acked = True
            self._actions.append(Tell(HEARTBEAT_ACK))
        return True

    def frag_test(self, all_zero: bool, now: float) -> None:
        """A fragmentation test came whole."""
        if all_zero and self._may_answer(now):
            self._actions.append(Tell(FRAGMENTS_ACK))

    def mtu_test(self, frame_len: int, now: float) -> None:
        """A test or probe of ``frame_len`` bytes came."""
        size = frame_len - lib.WN_ETH_LEN
        if 0 <= size <= 0xFFFF and self._may_answer(now):
            self._actions.append(Tell(MTU_ACK, size.to_bytes(2, "big")))

    # --- from the neighbour over TCP -------------------------------------------------------------

    def control(self, kind: int, data: bytes, now: float) -> None:
        """A control message; what makes no sense is ignored."""
        if self.state is State.FAILED:
            return
        if kind == HEARTBEAT_ACK:
            if self.addr:  # it cannot have heard us otherwise
                if self._first_heartbeat_at is not None and self.path.round_trip_s is None:
                    self.path.round_trip_s = now - self._first_heartbeat_at
                self._establish(now)
        elif kind == FRAGMENTS_ACK:
            if not self.stack_frag and self._frag_tested_at is not None:
                self.stack_frag = True
                self._set_mtu()
        elif kind == MTU_ACK and len(data) >= 2:
            size = int.from_bytes(data[:2], "big")
            self._measure(size, now)
            self._path_did(self.path.answered(size, now), now)

    # --- from the kernel -------------------------------------------------------------------------

    def refused(self, kernel_bytes: int, now: float) -> None:
        """A datagram was too long for a path that takes ``kernel_bytes``."""
        if self.addr:
            self._path_did(self.path.refused(kernel_bytes, now), now)

    def believed(self, kernel_bytes: int, now: float) -> None:
        """Answer to :class:`AskKernel`."""
        if self.addr:
            self._path_did(self.path.believed(kernel_bytes, now), now)

    # --- time ------------------------------------------------------------------------------------

    def fail(self, reason: str) -> None:
        """Nothing more is done for this connection."""
        if self.state is not State.FAILED:
            self.state = State.FAILED
            self._actions.append(Failed(reason))

    def timeout(self, now: float) -> None:
        """Do what is due."""
        if self.state is State.FAILED:
            return
        if now >= self._expires_at:
            self.fail(f"no heartbeat for {TIMEOUT_S:.0f} s")
            return
        if self._heartbeat_at is not None and now >= self._heartbeat_at:
            self._send_heartbeat(now)
        if self._frag_test_at is not None and now >= self._frag_test_at:
            self._test_fragments(now)
        self._path_did(self.path.timeout(now), now)

    # --- inside ----------------------------------------------------------------------------------

    def _establish(self, now: float) -> None:
        if self.state is not State.ESTABLISHED:
            self.state = State.ESTABLISHED
            self._actions.append(Established())
        self._heartbeat_at = now + SLOW_HEARTBEAT_S
        self._test_fragments(now)
        # longer than most paths carry: the kernel then says what it believes in
        self._actions.append(SendSpecial(lib.WN_PMTU_PROBE_LEN, df=True))

    def _send_heartbeat(self, now: float) -> None:
        if self._first_heartbeat_at is None:
            self._first_heartbeat_at = now
        established = self.state is State.ESTABLISHED
        self._heartbeat_at = now + (SLOW_HEARTBEAT_S if established else FAST_HEARTBEAT_S)
        self._send_heartbeat_frame()
        if established:
            self._actions.append(AskKernel())
            self.path.probe(now)

    def _send_heartbeat_frame(self) -> None:
        self._actions.append(SendSpecial(lib.WN_HEARTBEAT_LEN, df=True, uid=self.uid))

    def _test_fragments(self, now: float) -> None:
        self._frag_test_at = now + FRAG_TEST_S
        self._frag_tested_at = now
        if self.stack_frag:
            self.stack_frag = False
            self._set_mtu()
        self._actions.append(SendSpecial(lib.WN_FRAG_TEST_LEN, df=False))

    def _path_did(self, changed: bool, now: float) -> None:
        if changed:
            self._set_mtu()
            if self.stack_frag and self.path.narrower_than_believed:
                # the kernel cuts by what it believes: such fragments get lost as well
                self._test_fragments(now)
        for size in self.path.take_tests():
            again = self._probed is not None and self._probed[0] == size
            self._probed = (size, None if again else now)
            length = _test_length(size)
            if length is not None:
                self._actions.append(SendSpecial(length, df=True))

    def _measure(self, size: int, now: float) -> None:
        """Take the time of an answer, unless it may be that of a repeated test (Karn)."""
        if self._probed is not None and self._probed[0] == size:
            if self._probed[1] is not None:
                self._rtts.append(now - self._probed[1])
                self.path.round_trip_s = max(self._rtts)
            self._probed = None

    def _set_mtu(self) -> None:
        self._actions.append(SetMtu(self.path.mtu, self.stack_frag))

    def _may_answer(self, now: float) -> bool:
        second, count = self._answers
        if now - second >= 1:
            second, count = now, 0
        self._answers = (second, count + 1)
        return self.state is not State.FAILED and count < ANSWERS_PER_S


def _test_length(size: int) -> int | None:
    """Length of the frame that tests an overlay MTU; None for one that would mean another thing."""
    length = size + lib.WN_ETH_LEN
    if length > lib.WN_FRAME_MAX or length in (lib.WN_HEARTBEAT_LEN, lib.WN_FRAG_TEST_LEN):
        return None
    return length
