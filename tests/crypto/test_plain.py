"""The box that is none: batches pass it untouched."""

from __future__ import annotations

from crypto.plain import PlainBox
from native.datapath import Batch
from router.stages import Box
from tests.native.world import World, captured_batch, datagram, frame_of, record


def test_its_overhead_is_that_of_the_specification() -> None:
    box: Box = PlainBox()
    assert PlainBox.overhead == 62
    assert box is not None


def test_sealing_and_opening_change_no_byte() -> None:
    world, box = World(2), PlainBox()
    outcome = world.capture(frame_of(1, 2))
    batch = captured_batch(frame_of(1, 2))
    box.seal(batch)
    assert world.capture(frame_of(1, 2)).datagrams == outcome.datagrams
    received = Batch()
    received.put_datagram(datagram(1, record(1, 0, frame_of(2, 1))))
    box.open(received)
    assert world.ingress(received).frames == [frame_of(2, 1)]
