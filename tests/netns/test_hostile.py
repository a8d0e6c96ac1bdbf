"""A host on the underlay that nobody invited: garbage, truncated and forged datagrams.

Here: no crash, every datagram accounted for under its reason, real traffic intact. How much of its
rate real traffic keeps is a figure: bench/system/hostile.py, with the same program.
"""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import msgspec
import pytest

from lab.host import Host
from lab.lab import Lab
from lab.node import Node
from native import lib
from tests.netns.support import (
    TcpFlow,
    counters,
    grown,
    netns,
    new_container,
    send,
    stray_host,
    until,
)

pytestmark = netns(60)

PORT = 6783
EVIL_ADDRESS = "10.99.0.200"
FLOOD_PER_SECOND = 200_000
#: What each kind of datagram counts as at the router that gets it.
REASONS: dict[str, tuple[str, ...]] = {
    "drop_short_datagram": ("empty", "short"),
    "drop_unknown_sender": ("garbage", "unknown_sender"),
    "drop_truncated_record": ("truncated",),
    "drop_trailing_bytes": ("trailing",),
    "drop_unknown_peer": ("trailing", "unknown_peer", "unknown_peer"),
    "drop_own_source": ("own_source",),
    "drop_short_frame": ("short_frame",),
    "drop_stray_special": ("stray_special",),
    "special_frames": ("heartbeat",),
}
FDB_CAPACITY: int = lib.WN_FDB_CAPACITY


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    """Three hosts with running routers."""
    async with Lab(3) as built:
        await built.start_weft()
        yield built


@pytest.fixture
async def evil(lab: Lab) -> Node:
    """A host of no cluster on the same underlay."""
    node = lab.new_node("evil")
    stray_host(lab.switch, node, EVIL_ADDRESS)
    return node


def _argv(tool: Path, lab: Lab, seconds: float, per_second: int) -> list[str]:
    neighbour, victim, third = (host.peer_name.replace(":", "") for host in lab.hosts)
    target = [lab.hosts[1].address, str(PORT), f"{seconds:g}", str(per_second)]
    return [str(tool), *target, neighbour, victim, third]


async def test_everything_is_counted_under_its_reason(
    lab: Lab, evil: Node, hostile_tool: Path
) -> None:
    victim = lab.hosts[1]
    before = await counters(victim)
    done = await evil.run(*_argv(hostile_tool, lab, 1.0, 10_000))
    sent = msgspec.json.decode(done.stdout, type=dict[str, float])
    assert sent["datagrams"] > 5000

    async def all_there() -> bool:
        found = grown(before, await counters(victim))
        return found.get("received_datagrams", 0) >= sent["datagrams"]

    await until(all_there, "every datagram was read", poll_s=0.2)
    found = grown(before, await counters(victim))
    assert found.get("drop_socket_buffer", 0) == 0
    # whether a forged heartbeat is looked at depends on how many came before it in its second
    heartbeats = found.get("special_frames", 0) + found.pop("drop_special_flood", 0)
    found["special_frames"] = heartbeats
    expected = {name: sum(sent[kind] for kind in kinds) for name, kinds in REASONS.items()}
    assert {name: found.get(name, 0) for name in expected} == expected
    # Nothing of it went further, to the bridge or to other peers.
    other = {name for name in found if name.startswith("drop_")} - expected.keys()
    assert other == set()
    assert found.get("relayed_frames", 0) == 0
    assert found["delivered_frames"] < 100, "only what the hosts' own stacks chat about"


async def test_real_traffic_goes_on_beside_a_flood(
    lab: Lab, evil: Node, hostile_tool: Path, stream_tool: Path
) -> None:
    one, other, _ = lab.containers
    victim = lab.hosts[1]
    routers = [host.pids("router") for host in lab.hosts]
    calm = await send(stream_tool, TcpFlow(one, other, other.ipv4, seconds=2.0))
    before = await counters(victim)
    flood = evil.spawn(*_argv(hostile_tool, lab, 5.0, FLOOD_PER_SECOND))
    try:
        await anyio.sleep(0.5)
        hard = await send(stream_tool, TcpFlow(one, other, other.ipv4, seconds=3.0))
        back = await send(stream_tool, TcpFlow(other, one, one.ipv4, bytes_=1_000_000))
        await flood.wait(15.0)
        sent = msgspec.json.decode(flood.stdout(), type=dict[str, float])
    finally:
        flood.close()
    print(
        f"{sent['per_second']:.0f} hostile datagrams/s; TCP {calm.gbps:.2f} Gbit/s without, "
        f"{hard.gbps:.2f} with (x {hard.gbps / calm.gbps:.2f})"
    )
    assert hard.bytes > 1_000_000
    assert back.bytes == 1_000_000
    assert [host.pids("router") for host in lab.hosts] == routers
    found = grown(before, await counters(victim))
    # What the router did not get to read is counted too.
    assert found["received_datagrams"] + found.get("drop_socket_buffer", 0) > sent["datagrams"]
    for name in REASONS:
        assert found.get(name, 0) > 0, name
    assert (await one.ping(other, count=20)).lost == 0
    assert (await victim.report())["Ready"]


def _forge(evil: Node, victim: Host, datagrams: list[bytes]) -> None:
    sender = evil.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with sender:
        for datagram in datagrams:
            sender.sendto(datagram, (victim.address, PORT))


def _name(host: Host) -> bytes:
    return bytes.fromhex(host.peer_name.replace(":", ""))


async def test_datagrams_of_every_length(lab: Lab, evil: Node) -> None:
    """Random bytes behind a known sender's name, from nothing to the longest, in IP fragments."""
    seeded = random.Random(1)
    victim, neighbour = lab.hosts[1], _name(lab.hosts[0])
    lengths = [*range(200), *range(1000, 65502, 1500), 65500, 65501]
    routers = victim.pids("router")
    _forge(evil, victim, [neighbour + seeded.randbytes(length) for length in lengths])
    one, other, _ = lab.containers
    assert (await one.ping(other, count=10)).lost == 0
    assert victim.pids("router") == routers


async def test_more_forged_addresses_than_the_fdb_takes(lab: Lab, evil: Node) -> None:
    """Well-formed frames can't be told from real ones; what they teach is bounded."""
    victim, neighbour, ourself = lab.hosts[1], _name(lab.hosts[0]), _name(lab.hosts[1])
    one, other, third = lab.containers
    before = await counters(victim)
    wanted = FDB_CAPACITY + 5000
    per_datagram = 50
    for first in range(0, wanted, per_datagram * 100):
        _forge(
            evil,
            victim,
            [
                neighbour
                + b"".join(
                    neighbour
                    + ourself
                    + struct.pack("!H6sHI2s", 14, b"\x02" * 6, 0x0600, number, b"\x88\xb5")
                    for number in range(start, start + per_datagram)
                )
                for start in range(first, first + per_datagram * 100, per_datagram)
            ],
        )
        await anyio.sleep(0.01)

    async def full() -> bool:
        return grown(before, await counters(victim)).get("fdb_full", 0) > 0

    await until(full, "the FDB is full", 10.0, poll_s=0.2)
    report = await victim.report()
    assert report["Router"]["MACsTotal"] <= FDB_CAPACITY
    assert (await one.ping(other, count=20)).lost == 0
    # An address that no longer fits is reached by flooding.
    container = new_container(lab, victim, 9)
    assert (await third.ping(container, count=5)).lost == 0
