"""The sleeve sockets against the real kernel: who receives, what DF and a full buffer do."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from native import ffi, lib
from native.datapath import Batch, Datapath, addr_to_c
from tests.native.namespace import in_new_netns, set_mtu
from tests.native.test_encap import ip4_frame
from tests.native.world import (
    World,
    captured_batch,
    datagram,
    forwarder_of,
    frame_of,
    name_of,
    record,
)

pytestmark = pytest.mark.native

LOOPBACK = "127.0.0.1"
THEIRS = 11
BUFFER = 4 << 20


@dataclass(slots=True)
class Pair:
    """The two descriptors of one sleeve port."""

    df: int
    frag: int
    port: int


def udp_open(host: str, port: int, buffer_bytes: int = BUFFER) -> tuple[int, Pair, int]:
    """Code, descriptors and errno."""
    df, frag, err = ffi.new("int *"), ffi.new("int *"), ffi.new("int *")
    code = lib.wn_udp_open(addr_to_c(host), port, buffer_bytes, df, frag, err)
    return int(code), Pair(int(df[0]), int(frag[0]), port), int(err[0])


def open_descriptors() -> set[str]:
    """Numbers of this process's descriptors, that of the listing left out."""
    return {path.name for path in Path("/proc/self/fd").iterdir() if path.exists()}


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


@contextmanager
def sleeve(host: str = LOOPBACK, buffer_bytes: int = BUFFER) -> Iterator[Pair]:
    """An open sleeve port."""
    code, pair, err = udp_open(host, free_port(), buffer_bytes)
    assert code == lib.WN_OK, os.strerror(err)
    try:
        yield pair
    finally:
        os.close(pair.df)
        os.close(pair.frag)


def receive(pair: Pair, world: World, batch: Batch) -> int:
    """Everything that waits, once something does."""
    assert select.select([pair.frag], [], [], 2)[0], "nothing arrived"
    return int(lib.wn_udp_recv(world.datapath.c, batch.c, pair.frag, 64))


def receive_all(pair: Pair, world: World) -> list[bytes]:
    """Frames of every datagram that waits."""
    batch, frames = Batch(), []
    while select.select([pair.frag], [], [], 0.05)[0]:
        assert lib.wn_udp_recv(world.datapath.c, batch.c, pair.frag, 64) > 0
        frames += world.ingress(batch, join=False).frames
    return frames


def prepared(world: World, *frames: bytes) -> Batch:
    """A batch with its messages ready to be sent."""
    batch = captured_batch(*frames)
    world.lookup(batch)
    assert not lib.wn_encap(world.datapath.c, batch.c, world.now_s) & lib.WN_MORE
    return batch


def send(world: World, batch: Batch, pair: Pair) -> int:
    return int(lib.wn_udp_send(world.datapath.c, batch.c, pair.df, pair.frag))


def towards(pair: Pair, host: str = LOOPBACK, mtu: int = 1438) -> World:
    """A world whose peer 1, home of THEIRS, is at the other port."""
    world = World(2, mtu=mtu)
    world.datapath.set_forwarder(forwarder_of(1), 1, name_of(1), host, pair.port)
    world.learn(1, THEIRS)
    return world


# ---- opening ----


def test_both_sockets_have_the_port_and_their_own_df() -> None:
    with sleeve() as pair:
        for fd, discover in ((pair.df, 2), (pair.frag, 0)):
            with socket.socket(fileno=os.dup(fd)) as sock:
                assert sock.getsockname() == (LOOPBACK, pair.port)
                assert sock.getsockopt(socket.IPPROTO_IP, 10) == discover
            assert not os.get_blocking(fd)
            assert not os.get_inheritable(fd)


def test_a_used_port_is_refused_and_nothing_stays_open() -> None:
    with sleeve() as pair:
        before = open_descriptors()
        code, refused, err = udp_open(LOOPBACK, pair.port)
        assert (code, err) == (lib.WN_ERR_SYSCALL, errno.EADDRINUSE)
        assert (refused.df, refused.frag) == (-1, -1)
        assert udp_open("", pair.port)[2] == errno.EADDRINUSE
        assert open_descriptors() == before
        # and the first still gets its traffic
        world = towards(pair)
        send(world, prepared(world, frame_of(1, THEIRS)), pair)
        assert receive(pair, world, Batch()) == 1


def test_a_port_in_use_by_another_program_is_refused() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind((LOOPBACK, 0))
        assert udp_open(LOOPBACK, other.getsockname()[1])[2] == errno.EADDRINUSE


def test_an_address_of_another_host_is_refused() -> None:
    assert udp_open("192.0.2.1", free_port())[2] == errno.EADDRNOTAVAIL


def test_a_closed_port_can_be_opened_again() -> None:
    with sleeve() as pair:
        port = pair.port
    code, again, _ = udp_open(LOOPBACK, port)
    assert code == lib.WN_OK
    os.close(again.df)
    os.close(again.frag)


# ---- receiving ----


def test_the_first_socket_receives_everything() -> None:
    with sleeve() as pair:
        for _ in range(50):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                stranger.sendto(b"x", (LOOPBACK, pair.port))
        with pytest.raises(BlockingIOError), socket.socket(fileno=os.dup(pair.df)) as second:
            second.recv(10)
        world = World(2)
        batch = Batch()
        assert receive(pair, world, batch) == 50
        world.ingress(batch)
        assert world.drops() == {"drop_short_datagram": 50}


def test_nothing_there_is_no_error() -> None:
    with sleeve() as pair:
        batch = Batch()
        assert lib.wn_udp_recv(Datapath().c, batch.c, pair.frag, 64) == 0
    assert lib.wn_udp_recv(Datapath().c, batch.c, pair.frag, 64) == lib.WN_ERR_SYSCALL
    assert batch.errno == errno.EBADF


def test_one_call_takes_a_batch_and_the_next_the_rest() -> None:
    world = World(2)
    frames = [frame_of(1, 2, bytes([n])) for n in range(150)]
    with sleeve() as pair, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        for frame in frames:
            peer.sendto(datagram(1, record(1, 0, frame)), (LOOPBACK, pair.port))
        assert receive_all(pair, world) == frames


def test_events_carry_the_datagrams_source() -> None:
    world = World(2)
    with sleeve() as pair, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.9", 0))
        heartbeat = bytes(14) + b"12345678"
        peer.sendto(datagram(1, record(1, 0, heartbeat)), (LOOPBACK, pair.port))
        batch = Batch()
        assert receive(pair, world, batch) == 1
        (event,) = world.ingress(batch).events
        assert (event.addr, event.port) == peer.getsockname()


def test_the_kernels_drops_are_known() -> None:
    with sleeve(buffer_bytes=1) as pair, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        assert lib.wn_udp_drops(pair.frag) == 0
        for _ in range(100):
            peer.sendto(bytes(1000), (LOOPBACK, pair.port))
        assert 80 <= lib.wn_udp_drops(pair.frag) < 100


# ---- sending ----


def test_trains_of_both_channels_arrive_whole() -> None:
    with sleeve() as here, sleeve() as there:
        world, other = towards(there), World(2, us=1)
        with_df = [ip4_frame(1452 - n // 30, df=True, tos=n % 256) for n in range(90)]
        without = [frame_of(1, THEIRS, bytes([n]) * 1400) for n in range(50)]
        batch = prepared(world, *with_df, *without)
        messages = batch.messages()
        assert max(len(message.datagrams) for message in messages) >= 40
        assert send(world, batch, here) == lib.WN_OK
        frames = receive_all(there, other)
        assert sorted(frames) == sorted(with_df + without)
        assert [frame for frame in frames if frame in set(with_df)] == with_df
        assert [frame for frame in frames if frame in set(without)] == without
        counted = world.counted()
        datagrams = sum(len(message.datagrams) for message in messages)
        assert counted["sent_datagrams"] == datagrams
        assert counted["sent_frames"] == 140
        assert counted["sent_bytes"] == sum(
            len(data) for message in messages for data in message.datagrams
        )
        stats = world.datapath.forwarder_stats(forwarder_of(1))
        assert (stats.tx_datagrams, stats.tx_frames) == (datagrams, 140)
        assert other.counted()["received_datagrams"] == datagrams


def test_a_received_train_says_the_size_of_its_datagrams() -> None:
    with sleeve() as here, sleeve() as there:
        world, other = towards(there), World(2, us=1)
        frames = [ip4_frame(1400, df=True, tos=n) for n in range(40)]
        assert send(world, prepared(world, *frames), here) == lib.WN_OK
        batch = Batch()
        # on the loopback the kernel keeps a GSO train in one piece: fewer slots than datagrams
        assert receive(there, other, batch) < 40
        assert other.ingress(batch, join=False).frames == frames
        assert other.counted()["received_datagrams"] == 40


def test_the_source_port_is_ours_on_both_channels() -> None:
    with sleeve() as here, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind((LOOPBACK, 0))
        peer.settimeout(2)
        world = towards(Pair(-1, -1, peer.getsockname()[1]))
        send(world, prepared(world, ip4_frame(100, df=True), frame_of(1, THEIRS)), here)
        assert [peer.recvfrom(2000)[1] for _ in range(2)] == [(LOOPBACK, here.port)] * 2


@in_new_netns
def test_df_datagrams_above_the_path_mtu_are_refused_and_told() -> None:
    set_mtu("lo", 1500)
    with sleeve() as here, sleeve() as there:
        world, other = towards(there, mtu=8938), World(2, us=1)
        big, small = ip4_frame(4000, df=True), ip4_frame(1452, df=True, tos=9)
        assert small != big
        batch = prepared(world, big, big)
        assert len(batch.messages()) == 1  # 8034 bytes fit what we believe of the path
        assert send(world, batch, here) == lib.WN_OK
        (event,) = batch.events()
        assert (event.kind, event.forwarder) == (lib.WN_EVENT_PATH_MTU, forwarder_of(1))
        assert (event.err, event.frame_len) == (errno.EMSGSIZE, 8034)
        assert world.drops() == {"drop_path_mtu": 2}
        # what fits is sent, also in the same call
        assert send(world, prepared(world, small, big, small), here) == lib.WN_OK
        world.set_mtu(1, 1438)
        assert send(world, prepared(world, small), here) == lib.WN_OK
        assert receive_all(there, other)[-1] == small


@in_new_netns
def test_a_df_train_above_the_path_mtu_is_refused_as_a_whole() -> None:
    set_mtu("lo", 1500)
    with sleeve() as here, sleeve() as there:
        world, other = towards(there, mtu=2938), World(2, us=1)
        batch = prepared(world, *[ip4_frame(2000, df=True)] * 5)
        assert [len(message.datagrams) for message in batch.messages()] == [5]
        assert send(world, batch, here) == lib.WN_OK
        (event,) = batch.events()
        assert event.kind == lib.WN_EVENT_PATH_MTU
        assert world.drops() == {"drop_path_mtu": 5}
        assert receive_all(there, other) == []


@in_new_netns
def test_without_df_the_kernel_fragments() -> None:
    set_mtu("lo", 1500)
    with sleeve() as here, sleeve() as there:
        world, other = towards(there), World(2, us=1)
        frames = [frame_of(1, THEIRS, bytes([n]) * size) for n, size in enumerate((4000, 60_000))]
        batch = prepared(world, *frames)
        assert send(world, batch, here) == lib.WN_OK
        assert batch.events() == []
        assert receive_all(there, other) == frames


@in_new_netns
def test_a_refused_destination_does_not_stop_the_others() -> None:
    with sleeve() as here, sleeve() as there:
        world, other = World(3), World(3, us=2)
        world.datapath.set_forwarder(forwarder_of(1), 1, name_of(1), "198.51.100.1", 6783)
        world.datapath.set_forwarder(forwarder_of(2), 2, name_of(2), LOOPBACK, there.port)
        batch = prepared(world, frame_of(1, 99))
        assert send(world, batch, here) == lib.WN_OK
        (event,) = batch.events()
        assert event.kind == lib.WN_EVENT_SEND_ERROR
        assert event.err in (errno.ENETUNREACH, errno.EINVAL)
        assert (event.addr, event.port, event.forwarder) == ("198.51.100.1", 6783, forwarder_of(1))
        assert world.drops() == {"drop_send_error": 1}
        assert receive_all(there, other) == [frame_of(1, 99)]


@in_new_netns
def test_a_full_socket_takes_the_rest_later() -> None:
    """Datagrams for a host whose MAC is not known yet fill the socket's buffer."""
    with IPRoute() as ip, sleeve("0.0.0.0", buffer_bytes=1) as here:
        ip.link("add", ifname="a", kind="veth", peer={"ifname": "b"})
        near, far = (ip.link_lookup(ifname=name)[0] for name in ("a", "b"))
        for index in (near, far):
            ip.link("set", index=index, state="up")
        ip.addr("add", index=near, address="10.77.0.1", prefixlen=24)
        world = towards(Pair(-1, -1, 6783), host="10.77.0.2")
        # longer than the path, so that each is a message of its own
        world.set_mtu(1, 1000)
        frames = [frame_of(1, THEIRS, bytes([n]) * 1400) for n in range(60)]
        batch = prepared(world, *frames)
        assert len(batch.messages()) == 60
        assert send(world, batch, here) == lib.WN_ERR_AGAIN
        assert batch.errno == errno.EAGAIN
        assert 0 < world.counted()["sent_datagrams"] < 60
        assert not select.select([], [here.frag], [], 0)[1]
        assert send(world, batch, here) == lib.WN_ERR_AGAIN
        assert world.counted() == {}
        ip.neigh("replace", ifindex=near, dst="10.77.0.2", lladdr="02:00:00:00:00:09", state=0x80)
        assert select.select([], [here.frag], [], 5)[1]
        assert send(world, batch, here) == lib.WN_OK
        assert batch.events() == []
        assert world.datapath.forwarder_stats(forwarder_of(1)).tx_datagrams == 60
        assert world.drops() == {}
