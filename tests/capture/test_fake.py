"""The in-memory port behaves as a real one as far as the pipeline can see."""

from __future__ import annotations

from capture.device import FramePort
from capture.fake import FakePort
from native import lib
from native.datapath import Batch, Datapath
from tests.native.world import frame_infos, frame_of


def test_it_is_a_port() -> None:
    port: FramePort = FakePort()
    assert (port.kind, port.fileno()) == ("fake", -1)
    assert port.offloads
    assert not FakePort(offloads=False).offloads


def test_what_is_fed_is_read_in_order() -> None:
    port, batch = FakePort(), Batch()
    for size in (60, 61, 62):
        port.feed(bytes(size))
    assert port.read(Datapath(), batch) == 3
    assert [info.length for info in frame_infos(batch)] == [60, 61, 62]
    assert port.read(Datapath(), batch) == 0
    assert lib.wn_batch_frames(batch.c) == 0


def test_one_frame_when_no_burst_is_wanted() -> None:
    port, batch = FakePort(), Batch()
    for _ in range(3):
        port.feed(frame_of(1, 2))
    assert [port.read(Datapath(), batch, burst=False) for _ in range(4)] == [1, 1, 1, 0]


def test_what_does_not_fit_waits() -> None:
    port, batch = FakePort(), Batch()
    for _ in range(80):
        port.feed(bytes(65_000))
    first = port.read(Datapath(), batch)
    assert 0 < first < 80
    assert first + port.read(Datapath(), batch) == 80


def test_closing() -> None:
    port = FakePort()
    port.close()
    assert port.closed
