"""``--pkt-debug``: what is said of each frame, and that it is bounded, and nothing without it."""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest

from base.ipc import Peer
from base.log import setup
from capture.fake import FakePort
from crypto.sealed import SealedBox
from router.intake import CaptureIntake, DatagramIntake
from router.packet_log import LINES_PER_S, PacketLog
from router.pipeline import build_egress, build_ingress
from router.stages import PortHolder
from tests.native.test_encap import ip4_frame
from tests.native.world import (
    BROADCAST,
    STP,
    World,
    datagram,
    frame_of,
    mac_of,
    name_of,
    record,
    vnet,
)
from tests.router.fakes import Arrival, FakeSocket

OURS, THEIRS, THIRD = 1, 11, 21
PEERS = {index: Peer(name_of(index), f"host{index}") for index in range(3)}


class Watched:
    """Both pipelines of a node with two neighbours, watched; THEIRS lives at peer 1."""

    def __init__(self, watch: PacketLog | None) -> None:
        self.world = World(3)
        self.world.now_s = int(time.monotonic())  # the stages ask the real clock
        self.world.learn(1, THEIRS)
        self.port = FakePort()
        self.socket = FakeSocket()
        datapath = self.world.datapath
        holder, box = PortHolder(self.port), SealedBox(datapath)
        parts: Any = (datapath, holder, self.socket, box, lambda _: None, watch)
        self._capture = CaptureIntake(datapath, holder, build_egress(*parts), lambda _: None)
        self._datagrams = DatagramIntake(datapath, self.socket, build_ingress(*parts))

    def capture(self, *frames: bytes, header: bytes = b"") -> None:
        for frame in frames:
            self.port.feed(frame, header)
        self._capture.turn(burst=True)

    def receive(self, *datagrams: bytes) -> None:
        self.socket.inbox.extend(map(Arrival, datagrams))
        self._datagrams.turn(burst=True)


class Lines:
    """What was logged, without time, level and logger."""

    def __init__(self) -> None:
        self._out = io.StringIO()
        setup("info", "kv", self._out)

    def take(self) -> list[str]:
        lines = self._out.getvalue().splitlines()
        self._out.seek(0)
        self._out.truncate()
        assert all(" DEBUG   router.packet_log " in line for line in lines)
        return [line.partition(" router.packet_log ")[2] for line in lines]


@pytest.fixture
def lines() -> Iterator[Lines]:
    root, ours = logging.getLogger(), logging.getLogger("router.packet_log")
    before = root.handlers[:], root.level, ours.level
    yield Lines()
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])


@pytest.fixture
def now() -> list[float]:
    return [1000.5]


@pytest.fixture
def node(lines: Lines, now: list[float]) -> Watched:
    watch = PacketLog(lambda: now[0])
    watch.peers = PEERS
    return Watched(watch)


def _between(src: int, dst: int | bytes) -> str:
    to = dst if isinstance(dst, bytes) else mac_of(dst)
    return f"src={mac_of(src).hex(':')} dst={to.hex(':')}"


def _peer(index: int) -> str:
    return f"{name_of(index).hex(':')}(host{index})"


def test_captured_frames(node: Watched, lines: Lines) -> None:
    node.capture(
        frame_of(OURS, THEIRS),
        frame_of(OURS, BROADCAST, ethertype=0x0806),
        frame_of(OURS, OURS),
        frame_of(OURS, STP),
        ip4_frame(1000, df=True),
        b"short",
    )
    dropped, zeros = "frame dropped dir=out", "00:00:00:00:00:00"
    assert lines.take() == [
        f"frame captured dir=out {_between(OURS, THEIRS)} type=0x88b5 bytes=60 peer={_peer(1)}",
        f"frame captured dir=out {_between(OURS, BROADCAST)} type=0x0806 bytes=60 flood=True",
        f"{dropped} {_between(OURS, OURS)} type=0x88b5 bytes=60 reason=drop_local_destination",
        f"{dropped} {_between(OURS, STP)} type=0x88b5 bytes=60 reason=drop_stp",
        f"frame captured dir=out {_between(OURS, THEIRS)} type=0x0800 bytes=1000 peer={_peer(1)}",
        f"{dropped} src={zeros} dst={zeros} type=0x0000 bytes=5 reason=drop_short_frame",
    ]


def test_frames_that_are_dropped_on_their_way(node: Watched, lines: Lines) -> None:
    frame = ip4_frame(3000, df=True)
    node.capture(frame)
    about = f"dir=out {_between(OURS, THEIRS)} type=0x0800 bytes=3000"
    assert lines.take() == [
        f"frame captured {about} peer={_peer(1)}",
        f"frame dropped {about} reason=drop_too_big peer={_peer(1)}",
    ]
    broken = vnet(start=5000)
    node.capture(frame_of(OURS, THEIRS), header=broken)
    (line,) = lines.take()
    assert line.startswith("frame dropped dir=out ")
    assert line.endswith("reason=drop_bad_offload")


def test_received_frames(node: Watched, lines: Lines) -> None:
    node.receive(
        datagram(1, record(1, 0, frame_of(THEIRS, OURS)), record(1, 2, frame_of(THEIRS, THIRD))),
        datagram(2, record(2, 0, frame_of(THIRD, BROADCAST))),
        b"garbage!",
    )
    injected, relayed, flooded = lines.take()
    assert injected == (
        f"frame injected dir=in {_between(THEIRS, OURS)} type=0x88b5 bytes=60 peer={_peer(1)}"
    )
    assert relayed == (
        f"frame relayed dir=in {_between(THEIRS, THIRD)} type=0x88b5 bytes=60 peer={_peer(1)} "
        f"to={_peer(2)}"
    )
    assert flooded.startswith(f"frame injected dir=in {_between(THIRD, BROADCAST)} type=0x88b5 ")
    node.receive(datagram(1, record(1, 2, ip4_frame(5000, df=True))))
    assert [line.split(" src=")[0] for line in lines.take()] == [
        "frame relayed dir=in",
        "frame dropped dir=in",
    ]


def test_peers_that_are_not_known_any_more(node: Watched, lines: Lines) -> None:
    watch = PacketLog()
    Watched(watch).capture(frame_of(OURS, THEIRS))
    (line,) = lines.take()
    assert line.endswith("peer=unknown")


def test_lines_are_bounded_and_the_rest_is_counted(
    node: Watched, lines: Lines, now: list[float]
) -> None:
    count = 100
    for _ in range(LINES_PER_S // count + 2):
        node.capture(*[frame_of(OURS, THEIRS)] * count)
    told = lines.take()
    assert len(told) == LINES_PER_S
    assert not any("suppressed" in line for line in told)
    now[0] += 1
    node.capture(frame_of(OURS, THEIRS), frame_of(OURS, THEIRS))
    first, second = lines.take()
    assert first.endswith(f"suppressed={2 * count}")
    assert "suppressed" not in second


def test_nothing_is_said_or_looked_at_without_it(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("looked_up", "encapsulated", "decapsulated"):
        monkeypatch.setattr(PacketLog, name, None)
    node = Watched(None)
    node.capture(frame_of(OURS, THEIRS))
    node.receive(datagram(1, record(1, 0, frame_of(THEIRS, OURS))))
    assert len(node.socket.sent) == 1
    assert len(node.port.delivered) == 1
    assert lines.take() == []
