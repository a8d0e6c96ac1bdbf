"""Meshes in memory: every frame arrives once, by the right way, whatever the graph is."""

from __future__ import annotations

import random
from collections import Counter as Tally
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.native import wire
from tests.native.flows import Segment
from tests.native.test_coalesce import cut_again, plain
from tests.native.world import BROADCAST, frame_of, mac_of
from tests.sim.mesh import MTU, Hop, Mesh, full, line, random_graph, ring

pytestmark = pytest.mark.sim

ARP_REQUEST, ARP_REPLY = b"\0\1\x08\0\6\4\0\1", b"\0\1\x08\0\6\4\0\2"
#: A container's MAC has its node's number in the hundreds.
A, B, C = 1, 101, 201


def home(mac: int) -> int:
    """Node of a container."""
    return mac // 100


def everywhere_but(mesh: Mesh, number: int, frame: bytes) -> dict[int, Tally[bytes]]:
    return {
        node.number: Tally([frame]) if node.number != number else Tally() for node in mesh.nodes
    }


def introduce(mesh: Mesh, *macs: int) -> None:
    """Each container says hello, so that everybody knows where it lives."""
    for mac in macs:
        mesh.send(home(mac), frame_of(mac, BROADCAST, b"hello"))
    mesh.arrivals()
    mesh.take_hops()


def assert_quiet(mesh: Mesh) -> None:
    """Nothing dropped, every batch back in its pool."""
    for node in mesh.nodes:
        assert node.drops() == {}
        assert node.egress.pool.free == node.egress.pool.size
        assert node.ingress.pool.free == node.ingress.pool.size


# ---- two nodes ----


@pytest.mark.parametrize("offloads", [False, True])
def test_two_nodes_talk(offloads: bool) -> None:
    mesh = Mesh(2, [(0, 1)], offloads=offloads)
    request = frame_of(A, BROADCAST, ARP_REQUEST, ethertype=0x0806)
    mesh.send(0, request)
    assert mesh.arrivals() == {0: Tally(), 1: Tally([request])}
    reply = frame_of(B, A, ARP_REPLY, ethertype=0x0806)
    mesh.send(1, reply)
    assert mesh.arrivals() == {0: Tally([reply]), 1: Tally()}
    assert mesh.nodes[0].fdb() == mesh.nodes[1].fdb() == {mac_of(A): 0, mac_of(B): 1}
    assert mesh.take_hops() == [
        Hop(0, 1, 0, 1, False, request),
        Hop(1, 0, 1, 0, False, reply),
    ]
    assert_quiet(mesh)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("tcp", [True, False], ids=["tcp", "udp"])
@pytest.mark.parametrize("mtu", [1280, 1438, 8938, 60_000])
def test_super_frames_arrive_byte_for_byte(mtu: int, tcp: bool, version: int) -> None:
    mesh = Mesh(2, [(0, 1)])
    mesh.set_mtu(mtu)
    introduce(mesh, A, B)
    headers = 60 if version == 6 else 40
    size = min(mtu, 1438) - headers if not tcp else mtu - headers
    segments = [
        Segment(
            src=mac_of(A),
            dst=mac_of(B),
            tcp=tcp,
            version=version,
            payload=random.Random(n).randbytes(size * 3 if size > 20_000 else size * 20)[:60_000],
            seq=n * 60_000,
            ip_id=n * 100,
        )
        for n in range(6)
    ]
    for segment in segments:
        header, frame = segment.super_frame(size)
        mesh.nodes[0].port.feed(frame, header)
    mesh.run()
    expected = [piece.frame() for segment in segments for piece in segment.cut(size)]
    injects = mesh.nodes[1].take()
    assert [plain(piece) for one in injects for piece in cut_again(one)] == [
        plain(frame) for frame in expected
    ]
    if size < 20_000:
        assert len(injects) < len(expected) / 4, "not joined"
    assert_quiet(mesh)


# ---- the walk of the specification, appendix B ----


def test_the_worked_packet_walk() -> None:
    mesh = Mesh(3, line(3))
    a, b, c = mesh.nodes
    request = frame_of(A, BROADCAST, ARP_REQUEST, ethertype=0x0806)
    mesh.send(0, request)
    assert mesh.take_hops() == [
        Hop(0, 1, 0, 1, False, request),  # steps 1, 2
        Hop(1, 2, 0, 2, False, request),  # steps 3, 4
    ]
    assert mesh.arrivals() == {0: Tally(), 1: Tally([request]), 2: Tally([request])}
    assert a.fdb() == b.fdb() == c.fdb() == {mac_of(A): 0}
    reply = frame_of(C, A, ARP_REPLY, ethertype=0x0806)
    mesh.send(2, reply)
    assert mesh.take_hops() == [
        Hop(2, 1, 2, 0, False, reply),  # steps 6, 7
        Hop(1, 0, 2, 0, False, reply),  # step 8
    ]
    assert mesh.arrivals() == {0: Tally([reply]), 1: Tally(), 2: Tally()}
    assert mac_of(C) not in b.fdb(), "a pure relay learns nothing"
    assert a.fdb() == {mac_of(A): 0, mac_of(C): 2}
    assert b.counters()["relayed_frames"] == 1
    assert_quiet(mesh)


# ---- any graph ----

SHAPES = {
    "pair": (2, line(2)),
    "triangle": (3, full(3)),
    "line of 5": (5, line(5)),
    "ring of 5": (5, ring(5)),
    "star of 5": (5, [(2, n) for n in (0, 1, 3, 4)]),
    "full mesh of 5": (5, full(5)),
    "bow tie": (5, [(0, 1), (0, 2), (1, 2), (2, 3), (2, 4), (3, 4)]),
}


def distance(edges: Iterable[tuple[int, int]], start: int) -> dict[int, int]:
    """Hops from a node to every other."""
    far = {start: 0}
    level = [start]
    both = {pair for a, b in edges for pair in ((a, b), (b, a))}
    while level:
        level = sorted({b for a, b in both if a in level and b not in far})
        far.update(dict.fromkeys(level, max(far.values()) + 1))
    return far


def check_everything(count: int, edges: list[tuple[int, int]]) -> None:
    mesh = Mesh(count, edges)
    macs = [100 * number + 1 for number in range(count)]
    for mac in macs:
        hello = frame_of(mac, BROADCAST, b"hello %d" % mac)
        mesh.send(home(mac), hello)
        assert mesh.arrivals() == everywhere_but(mesh, home(mac), hello)
        hops = mesh.take_hops()
        assert len(hops) == count - 1, "a tree has one link less than nodes"
        assert all(hop.src == home(mac) and hop.dst == hop.receiver for hop in hops)
    for src in macs:
        far = distance(mesh.edges, home(src))
        for dst in macs:
            if src == dst:
                continue
            frame = frame_of(src, dst, b"%d to %d" % (src, dst))
            mesh.send(home(src), frame)
            arrived = mesh.arrivals()
            assert arrived.pop(home(dst)) == Tally([frame])
            assert not any(arrived.values())
            hops = mesh.take_hops()
            assert len(hops) == far[home(dst)], "not the shortest way"
            assert {(hop.src, hop.dst) for hop in hops} == {(home(src), home(dst))}
    stranger = frame_of(macs[0], 9999, b"who is that")
    mesh.send(0, stranger)
    assert mesh.arrivals() == everywhere_but(mesh, 0, stranger)
    assert_quiet(mesh)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_frame_arrives_once_by_the_right_way(shape: str) -> None:
    check_everything(*SHAPES[shape])


@settings(max_examples=80, deadline=None)
@given(count=st.integers(2, 8), extra=st.integers(0, 8), seed=st.integers(0, 10_000))
def test_every_frame_arrives_once_in_any_graph(count: int, extra: int, seed: int) -> None:
    check_everything(count, random_graph(count, extra, seed))


def test_everything_at_once() -> None:
    """All containers talk to all at the same time, in bursts, with broadcasts between."""
    mesh = Mesh(5, ring(5), offloads=False)
    macs = [100 * number + n for number in range(5) for n in (1, 2)]
    introduce(mesh, *macs)
    wanted: dict[int, Tally[bytes]] = {number: Tally() for number in range(5)}
    for turn in range(12):
        for src in macs:
            for dst in macs:
                frame = frame_of(src, dst, b"%d %d %d" % (turn, src, dst))
                mesh.nodes[home(src)].port.feed(frame)
                if home(src) != home(dst):
                    wanted[home(dst)][frame] += 1
            shout = frame_of(src, BROADCAST, b"%d %d" % (turn, src))
            mesh.nodes[home(src)].port.feed(shout)
            for number in range(5):
                wanted[number][shout] += number != home(src)
    mesh.run()
    got = mesh.arrivals()
    for number in range(5):
        assert got[number] == +wanted[number]
    for node in mesh.nodes:
        assert set(node.drops()) == {"drop_local_destination"}


# ---- MTUs along the way ----


def ip4_between(src: int, dst: int, size: int, *, df: bool) -> bytes:
    payload = random.Random(size).randbytes(size - 14 - 28)
    packet = wire.ip4(wire.udp(payload), flags=wire.DF if df else 0)
    return wire.eth(packet, 0x0800, mac_of(src), mac_of(dst))


@pytest.mark.parametrize("narrow", [0, 1, 2, 3])
def test_the_router_at_the_bottleneck_answers(narrow: int) -> None:
    mesh = Mesh(5, line(5))
    mesh.set_mtu(9000)
    mesh.set_mtu(1300, narrow, narrow + 1)
    e = 401
    introduce(mesh, A, e)
    frame = ip4_between(A, e, 1315, df=True)
    mesh.send(0, frame)
    arrived = mesh.arrivals()
    (answer,) = arrived.pop(0)
    assert not any(arrived.values())
    assert answer[:12] == mac_of(A) + mac_of(e)
    icmp = wire.Ip4.of(answer)
    assert icmp.payload[:2] == b"\3\4"
    assert icmp.payload[6:8] == (1300).to_bytes(2, "big")
    assert icmp.payload[8:] == frame[14:42]
    out = [hop for hop in mesh.take_hops() if hop.frame == answer]
    assert [(hop.sender, hop.receiver) for hop in out] == [
        (number, number - 1) for number in range(narrow, 0, -1)
    ]
    assert all((hop.src, hop.dst) == (4, 0) for hop in out)
    assert mesh.nodes[narrow].counters()["too_big_answers"] == 1
    assert mesh.nodes[narrow].drops() == {"drop_too_big": 1}
    fits = ip4_between(A, e, 1314, df=True)
    mesh.send(0, fits)
    assert mesh.arrivals()[4] == Tally([fits])


def test_ip6_too_big_across_a_relay() -> None:
    mesh = Mesh(3, line(3))
    mesh.set_mtu(9000)
    mesh.set_mtu(1400, 1, 2)
    introduce(mesh, A, C)
    packet = wire.ip6(wire.udp(bytes(1500)))
    mesh.send(0, wire.eth(packet, 0x86DD, mac_of(A), mac_of(C)))
    arrived = mesh.arrivals()
    (answer,) = arrived[0]
    assert answer[54:56] == b"\2\0"
    assert answer[58:62] == (1400).to_bytes(4, "big")
    assert not arrived[2]


@pytest.mark.parametrize("narrow", [0, 1])
def test_what_may_be_fragmented_is_where_it_gets_narrow(narrow: int) -> None:
    mesh = Mesh(3, line(3))
    mesh.set_mtu(9000)
    mesh.set_mtu(1300, narrow, narrow + 1)
    introduce(mesh, A, C)
    frame = ip4_between(A, C, 5000, df=False)
    mesh.send(0, frame)
    pieces = mesh.nodes[2].frames()
    assert len(pieces) == 4
    assert wire.reassemble(pieces) == (0, wire.Ip4.of(frame).payload, 0)
    hops = mesh.take_hops()
    assert all(hop.df for hop in hops)
    assert [len(hop.frame) for hop in hops if hop.receiver == 1] == (
        [5000] if narrow == 1 else list(map(len, pieces))
    )


def test_fragments_are_fragmented_again() -> None:
    mesh = Mesh(3, line(3))
    mesh.set_mtu(1400, 0, 1)
    mesh.set_mtu(700, 1, 2)
    introduce(mesh, A, C)
    frame = ip4_between(A, C, 4000, df=False)
    mesh.send(0, frame)
    assert wire.reassemble(mesh.nodes[2].frames()) == (0, wire.Ip4.of(frame).payload, 0)


# ---- changes while it runs ----


def test_a_link_that_goes_is_gone_around() -> None:
    mesh = Mesh(5, ring(5))
    introduce(mesh, A, 401)
    frame = frame_of(A, 401, b"1")
    mesh.send(0, frame)
    assert len(mesh.take_hops()) == 1
    mesh.set_edges(line(5))
    mesh.set_mtu(MTU)
    mesh.send(0, frame)
    assert mesh.arrivals()[4] == Tally([frame] * 2)
    assert len(mesh.take_hops()) == 4
    shout = frame_of(A, BROADCAST, b"2")
    mesh.send(0, shout)
    assert mesh.arrivals() == everywhere_but(mesh, 0, shout)
    assert_quiet(mesh)


def test_a_partition_is_counted_and_healed() -> None:
    mesh = Mesh(4, line(4))
    introduce(mesh, A, 301)
    mesh.set_edges([(0, 1), (2, 3)])
    frame, shout = frame_of(A, 301, b"1"), frame_of(A, BROADCAST, b"2")
    mesh.send(0, frame, shout)
    assert mesh.arrivals() == {0: Tally(), 1: Tally([shout]), 2: Tally(), 3: Tally()}
    assert mesh.nodes[0].drops() == {"drop_no_route": 1}
    mesh.set_edges(line(4))
    mesh.send(0, frame)
    assert mesh.arrivals()[3] == Tally([frame])


# ---- bad wires ----


@pytest.mark.parametrize("seed", range(8))
def test_bad_wires_lose_and_repeat_frames_but_change_none(seed: int) -> None:
    rng = random.Random(seed)
    mesh = Mesh(5, random_graph(5, 3, seed))
    macs = [100 * number + 1 for number in range(5)]
    introduce(mesh, *macs)
    mesh.fate = lambda: rng.choice([0, 1, 1, 1, 1, 1, 2, None])
    sent: set[bytes] = set()
    for turn in range(60):
        for src in macs:
            dst = rng.choice([*macs, 999])
            size = rng.randrange(100, 1400)
            if turn % 2:
                segment = Segment(
                    src=mac_of(src),
                    dst=mac_of(dst),
                    payload=rng.randbytes(size * 4),
                    seq=turn * 10_000,
                    ip_id=turn * 10,
                )
                header, frame = segment.super_frame(1000)
                mesh.nodes[home(src)].port.feed(frame, header)
                sent.update(plain(piece.frame()) for piece in segment.cut(1000))
            else:
                frame = frame_of(src, dst, rng.randbytes(size))
                mesh.nodes[home(src)].port.feed(frame)
                sent.add(frame)
        mesh.run()
    arrived = 0
    for node in mesh.nodes:
        for inject in node.take():
            for piece in cut_again(inject):
                arrived += 1
                assert plain(piece) in sent, f"seed {seed}: a frame nobody sent"
        assert set(node.drops()) <= {"drop_local_destination"}, f"seed {seed}"
        assert node.ingress.pool.free == node.ingress.pool.size
    assert arrived > len(sent) / 2
