"""The TAP against the real kernel: opening, refusals, persistence, frames both ways."""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import pytun
from pyroute2 import IPRoute

from base.errors import CaptureError
from capture.tap import TapPort, open_tap
from native import lib
from native.datapath import Batch
from tests.native.flows import Segment
from tests.native.namespace import KernelSide, in_new_netns, no_ip6, set_mtu, set_up
from tests.native.test_port_io import delivering
from tests.native.world import (
    World,
    captured_batch,
    frame_infos,
    frame_of,
    mac_of,
    split_datagram,
)

OURS, THEIRS = 1, 11
NAME = "t0"
TUNSETOFFLOAD, TUNSETVNETHDRSZ = 0x400454D0, 0x400454D8


@contextmanager
def tap(name: str = NAME, mtu: int = 1500) -> Iterator[TapPort]:
    """An open TAP that is up."""
    no_ip6()
    port = open_tap(name)
    try:
        set_mtu(name, mtu)
        set_up(name)
        yield port
    finally:
        port.close()


def interfaces() -> set[str]:
    return {name for _, name in socket.if_nameindex()}


def leaving(world: World, port: TapPort, count: int) -> list[bytes]:
    """Frames that go to peers once ``count`` have been captured."""
    frames: list[bytes] = []
    deadline = time.monotonic() + 2
    batch = Batch()
    while count > 0:
        got = port.read(world.datapath, batch)
        assert got or time.monotonic() < deadline
        count -= got
        world.lookup(batch)
        lib.wn_encap(world.datapath.c, batch.c, world.now_s)
        for message in batch.messages():
            for data in message.datagrams:
                frames += [frame for _, _, frame in split_datagram(data)[1]]
    return frames


# ---- opening ----


@in_new_netns
def test_the_device_is_persistent_and_single_queue() -> None:
    with tap() as port:
        assert (port.kind, port.interface, port.offloads) == ("tap", NAME, True)
        with IPRoute() as ip:
            (link,) = ip.link("get", ifname=NAME)
        info = link.get_attr("IFLA_LINKINFO")
        data = info.get_attr("IFLA_INFO_DATA")
        assert info.get_attr("IFLA_INFO_KIND") == "tun"
        assert data.get_attr("IFLA_TUN_TYPE") == 2
        assert data.get_attr("IFLA_TUN_PERSIST") == 1
        assert data.get_attr("IFLA_TUN_VNET_HDR") == 1
        assert data.get_attr("IFLA_TUN_MULTI_QUEUE") == 0
        assert data.get_attr("IFLA_TUN_PI") == 0
    assert NAME in interfaces()
    with tap() as again:
        assert again.fileno() >= 0


@in_new_netns
def test_a_second_opener_is_told_that_a_router_runs() -> None:
    with tap():
        begun = time.monotonic()
        with pytest.raises(CaptureError, match="another router is running on this bridge") as err:
            open_tap(NAME)
        assert err.value.errno == errno.EBUSY
        assert 1 < time.monotonic() - begun < 3
        assert str(err.value).startswith(f"open TAP {NAME}: ")


@in_new_netns
def test_a_router_that_is_about_to_die_is_waited_for() -> None:
    first = open_tap(NAME)
    threading.Timer(0.3, first.close).start()
    second = open_tap(NAME)
    second.close()


@in_new_netns
def test_a_device_of_another_kind_is_refused_and_left_alone() -> None:
    with IPRoute() as ip:
        ip.link("add", ifname=NAME, kind="bridge")
    with pytest.raises(CaptureError, match="another kind") as err:
        open_tap(NAME)
    assert err.value.errno == errno.EINVAL
    with IPRoute() as ip:
        (link,) = ip.link("get", ifname=NAME)
    assert link.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_KIND") == "bridge"


@in_new_netns
def test_a_tun_of_that_name_is_another_kind_too() -> None:
    with IPRoute() as ip:
        ip.link("add", ifname=NAME, kind="tuntap", mode="tun")
    with pytest.raises(CaptureError, match="another kind"):
        open_tap(NAME)


# ---- frames both ways ----


@in_new_netns
def test_frames_are_read_as_the_host_sent_them() -> None:
    with tap() as port, KernelSide(NAME) as host:
        world = World(2)
        frames = [frame_of(OURS, THEIRS, bytes([n]) * (46 + 40 * n)) for n in range(20)]
        for frame in frames:
            host.send(frame)
        batch = Batch()
        assert port.read(world.datapath, batch, burst=False) == 1
        assert [info.length for info in frame_infos(batch)] == [60]
        assert leaving(world, port, 19) == frames[1:]
        assert port.read(world.datapath, batch) == 0


@in_new_netns
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("tcp", [True, False], ids=["tcp", "udp"])
def test_the_kernel_hands_over_super_frames(tcp: bool, version: int) -> None:
    with tap() as port, KernelSide(NAME) as host:
        assert port.uso, "no USO on this kernel"
        segment = Segment(
            tcp=tcp, version=version, dst=mac_of(THEIRS), payload=bytes(range(256)) * 100
        )
        header, frame = segment.super_frame(1000)
        host.send(frame, header)
        world = World(2)
        assert leaving(world, port, 1) == [piece.frame() for piece in segment.cut(1000)]
        assert world.counted()["captured_frames"] == 1


@in_new_netns
def test_an_open_checksum_is_finished_for_peers() -> None:
    with tap() as port, KernelSide(NAME) as host:
        segment = Segment(tcp=False, payload=b"hello", dst=mac_of(THEIRS))
        header, frame = segment.super_frame(0)
        host.send(frame, header[:1] + b"\0" + header[2:])
        assert leaving(World(2), port, 1) == [segment.frame()]


@in_new_netns
def test_frames_are_written_as_they_are() -> None:
    with tap() as port, KernelSide(NAME) as host:
        world = World(2)
        frames = [frame_of(THEIRS, OURS, bytes([n]) * 100 * n) for n in range(15)]
        assert port.write(world.datapath, delivering(world, *frames)) == 15
        assert [host.receive()[1] for _ in frames] == frames
        assert world.counted()["delivered_frames"] == 15


@in_new_netns
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("tcp", [True, False], ids=["tcp", "udp"])
def test_joined_frames_are_one_write_and_one_super_frame(tcp: bool, version: int) -> None:
    with tap() as port, KernelSide(NAME) as host:
        world = World(2)
        segment = Segment(
            tcp=tcp, version=version, dst=mac_of(OURS), payload=bytes(range(250)) * 160
        )
        world.lookup(captured_batch(frame_of(OURS, THEIRS)))
        pieces = [piece.frame() for piece in segment.cut(1000)]
        assert port.write(world.datapath, delivering(world, *pieces)) == 1
        header, frame = host.receive()
        expected_header, expected = segment.super_frame(1000)
        assert frame == expected
        assert header[1:2] + header[4:6] == expected_header[1:2] + expected_header[4:6]
        assert world.counted()["delivered_frames"] == 40


@in_new_netns
def test_a_port_that_is_down_drops_and_says_so() -> None:
    with tap() as port:
        world = World(2)
        set_up(NAME, up=False)
        assert port.write(world.datapath, delivering(world, frame_of(THEIRS, OURS))) == 0
        assert world.drops() == {"drop_port_down": 1}
        set_up(NAME)
        assert port.write(world.datapath, delivering(world, frame_of(THEIRS, OURS))) == 1


@in_new_netns
def test_a_port_that_was_deleted_raises() -> None:
    with tap() as port:
        world = World(2)
        with IPRoute() as ip:
            ip.link("del", index=ip.link_lookup(ifname=NAME)[0])
        with pytest.raises(CaptureError, match=f"read from {NAME}") as err:
            port.read(world.datapath, Batch())
        assert err.value.errno == errno.EBADFD
        assert port.write(world.datapath, delivering(world, frame_of(THEIRS, OURS))) == 0
        assert world.drops() == {"drop_port_down": 1}


@in_new_netns
def test_vlan_tags_pass_both_ways() -> None:
    tagged = frame_of(OURS, THEIRS)[:12] + b"\x81\0\x20\x2a\x88\xb5" + bytes(60)
    with tap() as port, KernelSide(NAME) as host:
        world = World(2)
        host.send(tagged)
        assert leaving(world, port, 1) == [tagged]
        inward = tagged[6:12] + tagged[:6] + tagged[12:]
        assert port.write(world.datapath, delivering(world, inward)) == 1
        header, frame = host.receive()
        # the receiving kernel has taken the tag off and keeps it beside the frame
        assert header[:2] == b"\0\0"
        assert frame in (inward, inward[:12] + inward[16:])


@in_new_netns
def test_offloads_are_set_anew_on_each_open() -> None:
    no_ip6()
    flags = pytun.IFF_TAP | pytun.IFF_NO_PI | pytun.IFF_VNET_HDR
    former = pytun.TunTapDevice(name=NAME, flags=flags)
    former.persist(True)
    fcntl.ioctl(former.fileno(), TUNSETOFFLOAD, 0)
    fcntl.ioctl(former.fileno(), TUNSETVNETHDRSZ, struct.pack("i", 12))
    former.close()
    with tap() as port, KernelSide(NAME) as host:
        segment = Segment(dst=mac_of(THEIRS), payload=bytes(range(256)) * 40)
        header, frame = segment.super_frame(1000)
        host.send(frame, header)
        world = World(2)
        assert leaving(world, port, 1) == [piece.frame() for piece in segment.cut(1000)]
        assert world.counted()["captured_frames"] == 1
