"""The packet socket against the real kernel: what is captured, VLAN tags, super-frames."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pyroute2 import IPRoute

from base.errors import CaptureError
from capture.packet import PacketPort, open_packet
from native import lib
from native.datapath import Batch
from tests.native.flows import Segment
from tests.native.namespace import KernelSide, in_new_netns, no_ip6, set_up
from tests.native.test_port_io import delivering
from tests.native.world import World, captured_batch, frame_of, mac_of, split_datagram

OURS, THEIRS = 1, 11
BUFFER = 8 << 20


@contextmanager
def packet_port(*, near: str = "pcap", far: str = "bridged") -> Iterator[tuple[PacketPort, str]]:
    """A port on one end of a veth pair, and the name of the other end."""
    no_ip6()
    with IPRoute() as ip:
        ip.link("add", ifname=far, kind="veth", peer={"ifname": near})
    for name in (near, far):
        set_up(name)
    port = open_packet(near, BUFFER)
    try:
        yield port, far
    finally:
        port.close()


def captured(world: World, port: PacketPort, count: int) -> list[bytes]:
    """Frames that go to peers once ``count`` have been captured."""
    frames: list[bytes] = []
    batch = Batch()
    deadline = time.monotonic() + 2
    while count > 0:
        got = port.read(world.datapath, batch)
        assert got or time.monotonic() < deadline, "frames are missing"
        count -= got
        world.lookup(batch)
        lib.wn_encap(world.datapath.c, batch.c, world.now_s)
        for message in batch.messages():
            for data in message.datagrams:
                frames += [frame for _, _, frame in split_datagram(data)[1]]
    assert port.read(world.datapath, batch) == 0
    return frames


@in_new_netns
def test_what_the_bridge_sends_is_captured_in_order() -> None:
    with packet_port() as (port, far), KernelSide(far) as host:
        assert (port.kind, port.interface, port.offloads) == ("packet", "pcap", True)
        frames = [frame_of(OURS, THEIRS, bytes([n]) * (46 + n * 10)) for n in range(100)]
        for frame in frames:
            host.send(frame)
        assert captured(World(2), port, 100) == frames


@in_new_netns
@pytest.mark.parametrize(
    "tags",
    ["8100002a", "8100ffff", "8100e000", "88a80007", "88a800078100002a", "8100002a8100002b"],
)
def test_vlan_tags_are_put_back(tags: str) -> None:
    frame = frame_of(OURS, THEIRS)
    tagged = frame[:12] + bytes.fromhex(tags) + frame[12:]
    with packet_port() as (port, far), KernelSide(far) as host:
        host.send(frame)
        host.send(tagged)
        host.send(frame)
        assert captured(World(2), port, 3) == [frame, tagged, frame]


@in_new_netns
@pytest.mark.parametrize("vlans", [(), (42,)])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("tcp", [True, False], ids=["tcp", "udp"])
def test_super_frames_and_open_checksums_are_finished(
    tcp: bool, version: int, vlans: tuple[int, ...]
) -> None:
    segment = Segment(
        tcp=tcp,
        version=version,
        vlans=vlans,
        dst=mac_of(THEIRS),
        payload=bytes(range(256)) * 100,
    )
    with packet_port() as (port, far), KernelSide(far) as host:
        header, frame = segment.super_frame(1000)
        host.send(frame, header)
        world = World(2)
        pieces = captured(world, port, 1)
        assert pieces == [piece.frame() for piece in segment.cut(1000)]
        assert world.counted()["captured_frames"] == 1
        lone = segment.changed(payload=b"only a checksum")
        header, frame = lone.super_frame(0)
        host.send(frame, header[:1] + b"\0" + header[2:])
        assert captured(world, port, 1) == [lone.frame()]


@in_new_netns
def test_our_own_frames_are_not_captured() -> None:
    with packet_port() as (port, far), KernelSide(far) as host:
        world = World(2)
        frames = [frame_of(THEIRS, OURS, bytes([n])) for n in range(5)]
        assert port.write(world.datapath, delivering(world, *frames)) == 5
        assert [host.receive()[1] for _ in frames] == frames
        assert port.read(world.datapath, Batch()) == 0


@in_new_netns
def test_joined_frames_are_written_as_one_super_frame() -> None:
    with packet_port() as (port, far), KernelSide(far) as host:
        world = World(2)
        segment = Segment(dst=mac_of(OURS), payload=bytes(range(250)) * 160)
        world.lookup(captured_batch(frame_of(OURS, THEIRS)))
        pieces = [piece.frame() for piece in segment.cut(1000)]
        assert port.write(world.datapath, delivering(world, *pieces)) == 1
        assert host.receive()[1] == segment.super_frame(1000)[1]


@in_new_netns
def test_frames_for_other_macs_are_captured_too() -> None:
    with packet_port() as (port, far), KernelSide(far) as host:
        frames = [frame_of(OURS, mac_of(n)) for n in (THEIRS, 12)]
        for frame in frames:
            host.send(frame)
        assert captured(World(2), port, 2) == frames


@in_new_netns
def test_a_missing_interface_is_named() -> None:
    with pytest.raises(CaptureError, match="capture on nowhere: No such device") as err:
        open_packet("nowhere", BUFFER)
    assert err.value.errno == errno.ENODEV


@in_new_netns
def test_an_end_that_goes_down_raises_once() -> None:
    with packet_port() as (port, _):
        set_up("pcap", up=False)
        with pytest.raises(CaptureError, match="read from pcap") as err:
            port.read(World(2).datapath, Batch())
        assert err.value.errno == errno.ENETDOWN


@in_new_netns
def test_closing_leaves_the_pair() -> None:
    with packet_port() as (port, far):
        port.close()
        with IPRoute() as ip:
            assert ip.link_lookup(ifname=far)
            assert ip.link_lookup(ifname="pcap")
