"""The direct way: the same frames as through the channels, which take over when it gets difficult.

Two routers on real loopback sockets; a datagram socket pair stands for each one's bridge port, and
its far end plays the bridge.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from base.errors import CaptureError
from crypto.sealed import SealedBox
from native import lib
from native.datapath import Batch, Datapath, Tables
from router.express import Express
from router.intake import CaptureIntake, DatagramIntake, Turn
from router.pipeline import build_egress, build_ingress
from router.stages import PortHolder
from router.udp import SleeveSocket

NAMES = (bytes.fromhex("ce0100000001"), bytes.fromhex("ce0200000002"))
MACS = (bytes.fromhex("02000000000a"), bytes.fromhex("02000000000b"))
VNET = bytes(10)


class PairPort:
    """A bridge port on one end of a socket pair."""

    kind = "tap"
    interface = "pair"
    offloads = True

    def __init__(self) -> None:
        self._ours, self.bridge = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._ours.setblocking(False)
        self.bridge.setblocking(False)

    def fileno(self) -> int:
        return self._ours.fileno()

    def read(self, datapath: Datapath, batch: Batch, *, burst: bool = True) -> int:
        most = 1024 if burst else 1
        count = lib.wn_port_read(datapath.c, batch.c, self.fileno(), lib.WN_PORT_TAP, most)
        if count < 0:
            raise CaptureError("read from", self.interface, "gone", batch.errno)
        return count

    def write(self, datapath: Datapath, batch: Batch) -> int:
        return lib.wn_port_write(datapath.c, batch.c, self.fileno())

    def close(self) -> None:
        self._ours.close()
        self.bridge.close()

    def delivered(self) -> list[bytes]:
        out = []
        while True:
            try:
                out.append(self.bridge.recv(70000)[len(VNET) :])
            except BlockingIOError:
                return out


@dataclass
class Node:
    """One router and its two intakes."""

    index: int
    sock: SleeveSocket
    port: PairPort
    datapath: Datapath
    capture: CaptureIntake
    datagrams: DatagramIntake
    specials: list[int] = field(default_factory=list)
    troubles: list[CaptureError] = field(default_factory=list)


def make_node(index: int, ports: tuple[int, int]) -> Node:
    datapath, other = Datapath(), 1 - index
    datapath.set_forwarder(0, other, NAMES[other], "127.0.0.1", ports[other])
    datapath.set_mtu(0, 1438)
    tables = Tables(2, index, 1)
    for peer, name in enumerate(NAMES):
        tables.set_peer(peer, name)
    tables.set_neighbour(other, 0)
    tables.set_unicast(other, 0)
    tables.set_broadcast(index, [0])
    datapath.swap(tables)
    sock = SleeveSocket("127.0.0.1", ports[index], 1 << 20)
    port = PairPort()
    holder = PortHolder(port)
    specials: list[int] = []
    troubles: list[CaptureError] = []

    def on_events(batch: Batch) -> None:
        specials.extend(event.frame_len for event in batch.events())

    egress = build_egress(datapath, holder, sock, SealedBox(datapath), on_events)
    ingress = build_ingress(datapath, holder, sock, SealedBox(datapath), on_events)
    return Node(
        index,
        sock,
        port,
        datapath,
        CaptureIntake(
            datapath, holder, egress, troubles.append, Express(datapath, holder, sock, egress)
        ),
        DatagramIntake(datapath, sock, ingress, Express(datapath, holder, sock, ingress)),
        specials=specials,
        troubles=troubles,
    )


def free_ports() -> tuple[int, int]:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as two,
    ):
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]


@pytest.fixture
def nodes() -> Iterator[tuple[Node, Node]]:
    ports = free_ports()
    pair = make_node(0, ports), make_node(1, ports)
    yield pair
    for node in pair:
        node.sock.close()
        node.port.close()


def frame(src: bytes, dst: bytes, payload: bytes) -> bytes:
    return dst + src + b"\x88\xb5" + payload


@pytest.mark.parametrize("burst", [False, True])
def test_a_frame_goes_all_the_way_in_two_calls(nodes: tuple[Node, Node], burst: bool) -> None:
    a, b = nodes
    sent = frame(MACS[0], MACS[1], b"hello")
    a.port.bridge.send(VNET + sent)
    assert a.capture.turn(burst=burst) is Turn.LAST
    assert b.datagrams.turn(burst=burst) is Turn.LAST
    assert b.port.delivered() == [sent]
    answer = frame(MACS[1], MACS[0], b"hello yourself")
    b.port.bridge.send(VNET + answer)
    b.capture.turn(burst=burst)
    a.datagrams.turn(burst=burst)
    assert a.port.delivered() == [answer]
    assert a.capture.pool.free == a.capture.pool.size
    assert b.datagrams.pool.free == b.datagrams.pool.size


def test_without_burst_one_frame_is_taken_and_the_rest_stays(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    for number in range(3):
        a.port.bridge.send(VNET + frame(MACS[0], MACS[1], bytes([number])))
    a.capture.turn(burst=False)
    b.datagrams.turn(burst=True)
    assert len(b.port.delivered()) == 1
    a.capture.turn(burst=True)
    b.datagrams.turn(burst=True)
    assert len(b.port.delivered()) == 2


def test_nothing_there_is_dry_and_frees_the_batch(nodes: tuple[Node, Node]) -> None:
    a, _ = nodes
    assert a.capture.turn(burst=True) is Turn.DRY
    assert a.datagrams.turn(burst=False) is Turn.DRY
    assert a.capture.pool.free == a.capture.pool.size
    assert a.datagrams.pool.free == a.datagrams.pool.size


def test_a_special_frame_reaches_the_event_handler_and_the_others_the_bridge(
    nodes: tuple[Node, Node],
) -> None:
    a, b = nodes
    heartbeat = bytes(14) + bytes(8)
    plain = frame(MACS[0], MACS[1], b"beside it")
    records = b"".join(
        NAMES[0] + NAMES[1] + len(data).to_bytes(2, "big") + data for data in (heartbeat, plain)
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outside:
        outside.sendto(NAMES[0] + records, ("127.0.0.1", b.sock.port))
    b.datagrams.turn(burst=True)
    assert b.specials == [22]
    assert b.port.delivered() == [plain]
    assert b.datagrams.pool.free == b.datagrams.pool.size
    assert a.specials == []


def test_more_records_than_a_batch_holds_all_arrive(nodes: tuple[Node, Node]) -> None:
    _, b = nodes
    frames = [frame(MACS[0], MACS[1], number.to_bytes(2, "big")) for number in range(2100)]
    records = b"".join(NAMES[0] + NAMES[1] + len(f).to_bytes(2, "big") + f for f in frames)
    delivered: list[bytes] = []
    write = b.port.write

    def write_and_drain(datapath: Datapath, batch: Batch) -> int:
        delivered.extend(data for _, data in batch.injects())
        return write(datapath, batch)

    b.port.write = write_and_drain  # type: ignore[method-assign]  # the pair holds a few hundred
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outside:
        outside.sendto(NAMES[0] + records, ("127.0.0.1", b.sock.port))
    b.datagrams.turn(burst=True)
    assert delivered == frames
    assert b.datagrams.pool.free == b.datagrams.pool.size


def test_a_gone_port_is_reported_by_the_long_way(nodes: tuple[Node, Node]) -> None:
    a, _ = nodes
    a.port.close()
    assert a.capture.turn(burst=True) is Turn.DRY
    assert [str(err) for err in a.troubles] == ["read from pair: gone"]
    assert a.capture.pool.free == a.capture.pool.size
