"""A datapath with peers, MACs and frames of known shape, for benchmarks without a kernel.

The rig is one node, "us", with ``peers`` neighbours and ``macs`` learned MACs spread over them.
Frames are IPv4/UDP with DF and valid checksums; every address and length is deterministic.

    egress    frames as captured      → lookup → encap   → messages
    ingress   datagrams as received   → decap → coalesce → frames for the bridge

Filling a batch is Python's work and never timed; what is timed are the C calls that a stage makes.
"""

from __future__ import annotations

import random
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Self

from pytest_benchmark.fixture import BenchmarkFixture

from base.counters import DROP_REASONS, Counter
from native import ffi, lib
from native.datapath import Batch, Datapath, Tables

FRAME_SIZES = (64, 512, 1376, 8916)
BATCH_SIZES = (1, 16, 64)
OVERLAY_MTU = 9000
MESSAGE_ROOM = 60_000
OUR_NAME = b"\xce\x00\x00\x00\xff\xff"
OUR_MAC = b"\x02\x01\x00\x00\x00\x01"
OUR_INDEX = 0
ROUNDS = 200
WARM_UP_ROUNDS = 20
READ_BUDGET_BYTES = 1 << 20
SOCKET_BUFFER_BYTES = 4 * 1024 * 1024


def peer_name(index: int) -> bytes:
    """Name of the neighbour with this index (from 1)."""
    return b"\xce\x01" + index.to_bytes(4, "big")


def peer_address(index: int) -> str:
    """Underlay address of the neighbour with this index."""
    return f"10.{100 + (index >> 16)}.{(index >> 8) & 255}.{index & 255}"


def mac_of(number: int) -> bytes:
    """Remote MAC number ``number``; spread like real ones, the vendor part equal."""
    return b"\x02\x77" + ((number * 2654435761) & 0xFFFFFFFF).to_bytes(4, "big")


def _checksum(data: bytes) -> int:
    return ~lib.wn_csum_fold(lib.wn_csum_add(data, len(data), 0)) & 0xFFFF


def udp_frame(size: int, *, dst_mac: bytes, src_mac: bytes, seed: int = 0) -> bytes:
    """An Ethernet frame of ``size`` bytes: IPv4 with DF, UDP, checksums set."""
    payload_len = size - 14 - 20 - 8
    payload = random.Random(seed).randbytes(payload_len)
    addrs = bytes([10, 32, 0, 1, 10, 32, seed >> 8 & 255, seed & 255])
    udp = struct.pack("!HHHH", 40000, 5000 + seed % 1000, 8 + payload_len, 0)
    pseudo = addrs + struct.pack("!BBH", 0, 17, 8 + payload_len)
    checksum = _checksum(pseudo + udp + payload) or 0xFFFF
    udp = udp[:6] + checksum.to_bytes(2, "big")
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 28 + payload_len, seed & 0xFFFF, 0x4000, 64, 17, 0)
    ip_sum = _checksum(ip + addrs).to_bytes(2, "big")
    return dst_mac + src_mac + b"\x08\x00" + ip[:10] + ip_sum + addrs + udp + payload


class Rig:
    """See the module's head."""

    def __init__(self, *, peers: int = 10, macs: int = 10) -> None:
        self.peers = peers
        self.macs = macs
        self.now_s = 1000
        self.datapath = Datapath()
        for index in range(1, peers + 1):
            address = peer_address(index)
            self.datapath.set_forwarder(index, index, peer_name(index), address, 6783)
            self.datapath.set_mtu(index, OVERLAY_MTU)
        tables = Tables(peers + 1, OUR_INDEX, peers)
        tables.set_peer(OUR_INDEX, OUR_NAME)
        for index in range(1, peers + 1):
            tables.set_peer(index, peer_name(index))
            tables.set_neighbour(index, index)
            tables.set_unicast(index, index)
        tables.set_broadcast(OUR_INDEX, range(1, peers + 1))
        self.datapath.swap(tables)
        self.datapath.fill_fdb(
            ((mac_of(number), self.peer_of(number)) for number in range(macs)), self.now_s
        )
        self.batch = Batch()

    def peer_of(self, mac_number: int) -> int:
        """Index of the neighbour behind a remote MAC."""
        return 1 + mac_number % self.peers

    def captured(self, size: int, mac_numbers: list[int], *, one_flow: bool = True) -> list[bytes]:
        """Frames from our container, one to each of these MACs."""
        return [
            udp_frame(size, dst_mac=mac_of(number), src_mac=OUR_MAC, seed=0 if one_flow else place)
            for place, number in enumerate(mac_numbers)
        ]

    def received(
        self, size: int, mac_numbers: list[int], *, one_flow: bool = True
    ) -> list[tuple[bytes, str]]:
        """The reverse traffic as datagrams with their source address, packed by neighbour."""
        by_peer: dict[int, list[bytes]] = {}
        for place, number in enumerate(mac_numbers):
            seed = 0 if one_flow else place
            frame = udp_frame(size, dst_mac=OUR_MAC, src_mac=mac_of(number), seed=seed)
            peer = self.peer_of(number)
            header = peer_name(peer) + OUR_NAME + len(frame).to_bytes(2, "big")
            by_peer.setdefault(peer, []).append(header + frame)
        return [
            (peer_name(peer) + b"".join(some), peer_address(peer))
            for peer, records in by_peer.items()
            for some in _packed(records)
        ]

    def fill_captured(self, frames: list[bytes]) -> None:
        """Make the batch look as after reading these frames from a TAP."""
        self.batch.reset()
        for frame in frames:
            if self.batch.put_captured(frame) < 0:
                raise ValueError("a batch does not hold that many frames")

    def fill_received(self, datagrams: list[tuple[bytes, str]]) -> None:
        """Make the batch look as after receiving these datagrams."""
        self.batch.reset()
        for data, address in datagrams:
            if self.batch.put_datagram(data, address) < 0:
                raise ValueError("a batch does not hold that many datagrams")

    def received_frames(self) -> int:
        """Frames so far that came out of neighbours' datagrams."""
        indices = range(1, self.peers + 1)
        return sum(self.datapath.forwarder_stats(index).rx_frames for index in indices)

    def encapsulated_frames(self) -> int:
        """Frames in the messages of the batch, sent or not."""
        return sum(message.frames for message in self.batch.messages())

    def drops(self) -> dict[str, int]:
        """Every drop counter that is not zero, by name."""
        named = zip(Counter, self.datapath.counters(), strict=True)
        return {name.value: count for name, count in named if count and name in DROP_REASONS}

    def egress(self) -> int:
        """Lookup and encapsulation of the batch; messages that came out."""
        handle = self.batch.c
        lib.wn_lookup(self.datapath.c, handle, self.now_s)
        messages = 0
        while True:
            done = lib.wn_encap(self.datapath.c, handle, self.now_s)
            messages += done & ~lib.WN_MORE
            if not done & lib.WN_MORE:
                return messages

    def ingress(self) -> int:
        """Decapsulation and joining of the batch; writes to the bridge that came out."""
        handle = self.batch.c
        injects = 0
        while True:
            done = lib.wn_decap(self.datapath.c, handle, self.now_s)
            injects += lib.wn_coalesce(self.datapath.c, handle, 1)
            if not done & lib.WN_MORE:
                return injects


def _packed(records: list[bytes]) -> Iterator[list[bytes]]:
    """Records in groups that fit one datagram."""
    group: list[bytes] = []
    room = MESSAGE_ROOM
    for record in records:
        if group and (len(record) > room or len(group) == lib.WN_AGGREGATE_MAX):
            yield group
            group, room = [], MESSAGE_ROOM
        group.append(record)
        room -= len(record)
    if group:
        yield group


class PortPair:
    """A pair of sockets that act as a TAP: ``ours`` for the router, ``theirs`` for the bridge."""

    def __init__(self, ours: socket.socket, theirs: socket.socket) -> None:
        self.ours = ours
        self.theirs = theirs
        for end in (ours, theirs):
            end.setblocking(False)
            for option in (socket.SO_SNDBUF, getattr(socket, "SO_SNDBUFFORCE", 32)):
                with suppress(PermissionError):
                    end.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER_BYTES)

    def send(self, frames: list[bytes]) -> None:
        """Frames from the bridge, each behind an empty virtio-net header."""
        for frame in frames:
            self.theirs.send(bytes(10) + frame)

    def drain(self) -> None:
        """Forget what waits at both ends."""
        for end in (self.ours, self.theirs):
            drain(end)


class SleeveSockets:
    """Our sleeve sockets on loopback, and the socket of a neighbour that only takes and gives."""

    def __init__(self) -> None:
        self.neighbour = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.neighbour.bind(("127.0.0.1", 0))
        self.neighbour.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
        self.neighbour.setblocking(False)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        df, frag, err = ffi.new("int *"), ffi.new("int *"), ffi.new("int *")
        loopback = int.from_bytes(socket.inet_aton("127.0.0.1"), sys.byteorder)
        opened = lib.wn_udp_open(loopback, self.port, SOCKET_BUFFER_BYTES, df, frag, err)
        if opened != lib.WN_OK:
            raise OSError(err[0], "wn_udp_open")
        self.fd_df, self.fd_frag = int(df[0]), int(frag[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.neighbour.close()
        for fd in {self.fd_df, self.fd_frag}:
            socket.close(fd)

    def lead_to(self, rig: Rig) -> None:
        """Make the neighbour's socket the address of every neighbour of the rig."""
        address, port = self.neighbour.getsockname()
        for index in range(1, rig.peers + 1):
            rig.datapath.set_forwarder(index, index, peer_name(index), address, port)

    def send(self, datagrams: list[tuple[bytes, str]]) -> None:
        """Datagrams from the neighbour to our socket."""
        for data, _ in datagrams:
            self.neighbour.sendto(data, ("127.0.0.1", self.port))


def drain(end: socket.socket) -> None:
    """Read until nothing is left."""
    with suppress(BlockingIOError):
        while True:
            end.recv(70_000)


def record_rates(benchmark: BenchmarkFixture, *, frames: int, frame_bytes: int) -> None:
    """Put the rates that follow from the median round into the result's extra_info."""
    if benchmark.stats is None:  # benchmarks are disabled
        return
    seconds = benchmark.stats.stats.median
    benchmark.extra_info["frames"] = frames
    benchmark.extra_info["frame_bytes"] = frame_bytes
    benchmark.extra_info["ns_per_frame"] = seconds / frames * 1e9
    benchmark.extra_info["pps"] = frames / seconds
    benchmark.extra_info["gbps"] = frames * frame_bytes * 8 / seconds / 1e9
