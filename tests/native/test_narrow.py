"""Received frames that are longer than our bridge takes: cut, answered, or left alone.

A Weave bridge has an MTU of 65535 unless told otherwise: its containers send what ours can't take.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import ICMPv6PacketTooBig
from scapy.layers.l2 import Ether

from lab.frames import bad_checksums
from tests.native import wire
from tests.native.world import BROADCAST, World, datagram, frame_of, mac_of, name_of, record

pytestmark = pytest.mark.native

BRIDGE_MTU = 1438
OURS, THEIRS, NOBODYS = 1, 11, 99


def world_of(mtu: int = BRIDGE_MTU) -> World:
    """OURS lives on our bridge; frames come from THEIRS at neighbour 1."""
    world = World(3, broadcast={0: [1, 2], 1: []})
    world.datapath.set_port_mtu(mtu)
    world.learn(0, OURS)
    return world


def ip4(size: int, *, df: bool, dst: int | bytes = OURS, identity: int = 7) -> bytes:
    """An IPv4 frame with a packet of ``size`` bytes."""
    payload = bytes(number & 0xFF for number in range(size - 28))
    packet = wire.ip4(wire.udp(payload), flags=wire.DF if df else 0, ident=identity)
    return framed(packet, 0x0800, dst)


def ip6(size: int, dst: int | bytes = OURS) -> bytes:
    return framed(wire.ip6(wire.udp(bytes(size - 48))), 0x86DD, dst)


def framed(packet: bytes, ethertype: int, dst: int | bytes) -> bytes:
    to = dst if isinstance(dst, bytes) else mac_of(dst)
    return wire.eth(packet, ethertype, mac_of(THEIRS), to)


def arriving(frame: bytes) -> bytes:
    return datagram(1, record(1, 0, frame))


def joined(pieces: list[bytes]) -> bytes:
    """The payload of the packet that the fragments make."""
    parts = sorted((Ether(piece)[IP] for piece in pieces), key=lambda ip: ip.frag)
    whole = b""
    for part in parts:
        assert part.frag * 8 == len(whole)
        assert ("MF" in part.flags) == (part is not parts[-1])
        whole += bytes(part.payload)[: part.len - 20]
    return whole


@pytest.mark.parametrize("df", [False, True])
def test_what_fits_goes_as_it_is(df: bool) -> None:
    frame = ip4(BRIDGE_MTU, df=df)
    world = world_of()
    assert world.receive(arriving(frame)).frames == [frame]
    assert world.drops() == {}


@pytest.mark.parametrize("dst", [OURS, NOBODYS, BROADCAST], ids=["ours", "unknown", "broadcast"])
def test_ip4_without_df_is_cut(dst: int | bytes) -> None:
    world = world_of()
    frame = ip4(10_028, df=False, dst=dst)
    outcome = world.receive(arriving(frame))
    assert len(outcome.frames) == 8
    for piece in outcome.frames:
        assert bad_checksums(piece) == []
        assert len(piece) <= BRIDGE_MTU + 14
        assert Ether(piece)[IP].id == 7
    assert joined(outcome.frames) == frame[34:]
    assert outcome.sent == []
    assert world.counted()["fragmented_frames"] == 1


def test_ip4_with_df_is_told() -> None:
    world = world_of()
    outcome = world.receive(arriving(ip4(BRIDGE_MTU + 1, df=True)))
    assert outcome.frames == []
    (sent,) = outcome.sent
    assert (sent.to, sent.src, sent.dst) == (1, name_of(0), name_of(1))
    answer = Ether(sent.frame)
    assert bad_checksums(sent.frame) == []
    assert bytes.fromhex(answer.src.replace(":", "")) == mac_of(OURS)
    assert bytes.fromhex(answer.dst.replace(":", "")) == mac_of(THEIRS)
    assert (answer[ICMP].type, answer[ICMP].code, answer[ICMP].nexthopmtu) == (3, 4, BRIDGE_MTU)
    grown = world.counted()
    assert (grown["drop_too_big"], grown["too_big_answers"]) == (1, 1)
    assert "relayed_frames" not in grown


def test_ip6_is_told() -> None:
    outcome = world_of().receive(arriving(ip6(3000)))
    assert outcome.frames == []
    (sent,) = outcome.sent
    assert Ether(sent.frame)[ICMPv6PacketTooBig].mtu == BRIDGE_MTU


def test_ip6_below_its_minimum_stays() -> None:
    frame = ip6(1280)
    assert world_of(1200).receive(arriving(frame)).frames == [frame]


@pytest.mark.parametrize("dst", [NOBODYS, BROADCAST], ids=["unknown", "broadcast"])
@pytest.mark.parametrize("version", [4, 6])
def test_nobody_is_told_of_a_flooded_frame(version: int, dst: int | bytes) -> None:
    world = world_of()
    frame = ip4(3000, df=True, dst=dst) if version == 4 else ip6(3000, dst)
    outcome = world.receive(arriving(frame))
    assert (outcome.frames, outcome.sent) == ([], [])
    assert world.drops() == {"drop_too_big_flooded": 1}


@pytest.mark.parametrize(
    "frame",
    [
        frame_of(THEIRS, OURS, bytes(3000)),
        (tagged := ip4(3000, df=True))[:12] + b"\x81\0\0\x05" + tagged[12:],
    ],
    ids=["no IP", "tagged"],
)
def test_other_frames_stay(frame: bytes) -> None:
    assert world_of().receive(arriving(frame)).frames == [frame]


def test_answers_are_bounded() -> None:
    world = world_of()
    frame = arriving(ip4(2000, df=True))
    for _ in range(30):
        world.receive(*[frame] * 60)
    grown = world.counted()
    assert (grown["drop_too_big"], grown["too_big_answers"]) == (1800, 1000)


def test_a_relay_leaves_the_size_to_the_end() -> None:
    world = World(3, unicast={1: 1, 2: 2}, mtu=9000)
    world.datapath.set_port_mtu(BRIDGE_MTU)
    frame = ip4(5000, df=True)
    (sent,) = world.receive(datagram(1, record(1, 2, frame))).sent
    assert (sent.to, sent.frame) == (2, frame)


def test_order_within_a_flow_and_room() -> None:
    """More fragments than a batch has room for: counted, and what fits is whole and in order."""
    world = world_of(576)
    small = ip4(100, df=False, identity=1)
    frames = [small, *(ip4(60_000, df=False, identity=2 + n) for n in range(40)), small]
    outcome = world.receive(*(arriving(frame) for frame in frames))
    assert outcome.frames[0] == outcome.frames[-1] == small
    grown = world.counted()
    lost = grown.get("drop_batch_full", 0)
    assert grown["fragmented_frames"] + lost == 40
    assert lost > 0
    by_identity: dict[int, list[bytes]] = {}
    for piece in outcome.frames[1:-1]:
        by_identity.setdefault(Ether(piece)[IP].id, []).append(piece)
    assert list(by_identity) == sorted(by_identity)
    assert len(by_identity) == 40 - lost
    for pieces in by_identity.values():
        assert joined(pieces) == ip4(60_000, df=False)[34:]


@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(60, 9000), min_size=1, max_size=20),
    mtu=st.integers(576, 3000),
    df=st.booleans(),
)
def test_nothing_longer_ever_comes_out(sizes: list[int], mtu: int, df: bool) -> None:
    world = world_of(mtu)
    frames = [ip4(size, df=df, identity=number) for number, size in enumerate(sizes)]
    outcome = world.receive(*(arriving(frame) for frame in frames), join=False)
    assert all(len(frame) <= mtu + 14 for frame in outcome.frames)
    if not df:
        assert sum(len(frame) - 34 for frame in outcome.frames) == sum(sizes) - 20 * len(sizes)
