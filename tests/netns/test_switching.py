"""The overlay as one Ethernet switch: everybody once, the right one only, and who moves is found.

Frames with an EtherType of their own, so that no stack answers or adds to them. Ref: sleeve
specification 3, 4.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack

import anyio
import pytest

from lab.container import Container
from lab.lab import Lab
from tests.netns.support import counters, grown, netns, new_container, until

pytestmark = [*netns(120), pytest.mark.patient]

#: IEEE's for experiments.
ETHERTYPE = bytes.fromhex("88b5")
COUNT = 50
#: Until a container that moved is heard from its new host.
MOVED_S = 10.0


def _frame(source: Container, destination: str, number: int) -> bytes:
    macs = destination.replace(":", "") + source.mac.replace(":", "")
    return bytes.fromhex(macs) + ETHERTYPE + number.to_bytes(4) + bytes(46)


def _send(source: Container, frames: Sequence[bytes]) -> None:
    sender = source.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
    with sender:
        sender.bind((source.interface, 0))
        for frame in frames:
            sender.send(frame)


async def _arrivals(
    lab: Lab, source: Container, destination: str, count: int = COUNT
) -> dict[str, Counter[bytes]]:
    """Which frames arrived at which container, and how often; all containers of the lab."""
    frames = [_frame(source, destination, number) for number in range(count)]
    with ExitStack() as stack:
        captures = {
            container.name: stack.enter_context(container.capture()) for container in lab.containers
        }
        _send(source, frames)
        await anyio.sleep(0.3)
        return {
            name: Counter(
                packet.data
                for packet in capture.packets()
                if packet.data[12:14] == ETHERTYPE and not packet.outgoing
            )
            for name, capture in captures.items()
        }


@pytest.mark.parametrize(
    ("nodes", "topology"), [(3, "mesh"), (3, "line"), (4, "ring"), (5, "line")]
)
async def test_groups_reach_everybody_once(nodes: int, topology: str) -> None:
    async with Lab(nodes, topology, containers=2) as lab:
        await lab.start_weft()
        groups = {
            "broadcast": "ff:ff:ff:ff:ff:ff",
            "multicast": "01:00:5e:01:02:03",
            "IPv6 multicast": "33:33:00:00:12:34",
            "unknown unicast": "02:00:00:00:99:99",
        }
        for source in (lab.containers[0], lab.containers[-1]):
            for what, group in groups.items():
                got = await _arrivals(lab, source, group)
                assert got.pop(source.name) == Counter(), f"{what}: back at its sender"
                for name, frames in got.items():
                    assert len(frames) == COUNT, f"{what} at {name}"
                    assert set(frames.values()) == {1}, f"{what} at {name}"


async def test_spanning_tree_frames_stay_on_the_host() -> None:
    """A bridge without STP passes them on to its ports; the router goes no further."""
    async with Lab(2, containers=2) as lab:
        await lab.start_weft()
        before = await counters(lab.hosts[0])
        kept = await _arrivals(lab, lab.containers[0], "01:80:c2:00:00:00")
        assert not kept["c2.1"]
        assert not kept["c2.2"]
        assert grown(before, await counters(lab.hosts[0]))["drop_stp"] == COUNT
        other_group = await _arrivals(lab, lab.containers[0], "01:80:c2:00:00:30")
        assert len(other_group["c2.1"]) == COUNT


@pytest.mark.parametrize("topology", ["mesh", "line"])
async def test_a_known_address_reaches_one_only(topology: str) -> None:
    async with Lab(3, topology, containers=2) as lab:
        await lab.start_weft()
        source, target = lab.containers[0], lab.containers[-1]
        assert (await source.ping(target)).lost == 0
        got = await _arrivals(lab, source, target.mac)
        assert set(got.pop(target.name).values()) == {1}
        assert all(not frames for frames in got.values()), "somebody else got it too"


async def test_local_traffic_stays_local() -> None:
    async with Lab(2, containers=2) as lab:
        await lab.start_weft()
        one, neighbour = lab.hosts[0].containers
        assert (await one.ping(neighbour)).lost == 0
        before = await counters(lab.hosts[0])
        assert (await one.ping(neighbour, count=50)).lost == 0
        found = grown(before, await counters(lab.hosts[0]))
        assert found.get("sent_frames", 0) < 10


async def test_a_relay_learns_nothing_of_what_is_not_for_it() -> None:
    async with Lab(3, "line") as lab:
        await lab.start_weft()
        first, _, last = lab.containers
        stranger = new_container(lab, lab.hosts[0], 7)
        stranger.ip(f"neigh replace {last.ipv4} lladdr {last.mac} dev eth0")
        last.ip(f"neigh replace {stranger.ipv4} lladdr {stranger.mac} dev eth0")
        assert (await first.ping(last)).lost == 0
        # Its frames cross h2 as unicast to a known peer only: address resolution never asks.
        frames = [_frame(stranger, last.mac, number) for number in range(5)]
        middle = lab.hosts[1]
        macs = {entry["Mac"] for entry in (await middle.report())["Router"]["MACs"] or ()}
        heard_before = stranger.mac in macs
        _send(stranger, frames)
        await anyio.sleep(0.2)
        macs = {entry["Mac"] for entry in (await middle.report())["Router"]["MACs"] or ()}
        assert (stranger.mac in macs) == heard_before
        far = {entry["Mac"] for entry in (await lab.hosts[2].report())["Router"]["MACs"] or ()}
        assert stranger.mac in far


async def _moves(lab: Lab, old: Container, host_index: int, witness: Container) -> float:
    """Remove ``old``, make it anew on another host; seconds until it and ``witness`` can talk."""
    number = int(old.mac.rpartition(":")[2], 16)
    old.host.ip(f"link delete {old.port}")
    old.host.containers.remove(old)
    moved = new_container(lab, lab.hosts[host_index], number, home=old.host.index)
    assert moved.mac == old.mac

    async def reached() -> bool:
        # As a container that starts does: say who and where one is.
        there = await moved.ping(witness, count=1, wait_s=0.3)
        back = await witness.ping(moved, count=1, wait_s=0.3)
        return there.ok and back.ok

    return await until(reached, "the moved container is reached", MOVED_S)


@pytest.mark.parametrize("topology", ["mesh", "line"])
async def test_a_container_that_moves_is_found(topology: str) -> None:
    async with Lab(3, topology, containers=2) as lab:
        await lab.start_weft()
        mover, witness = lab.hosts[0].containers[0], lab.hosts[1].containers[0]
        beside = lab.hosts[0].containers[1]
        assert (await mover.ping(witness)).lost == 0
        waited = await _moves(lab, mover, 2, witness)
        print(f"reached after {waited:.1f} s")
        # Also for those who shared a bridge with it before.
        moved_ip = mover.ipv4

        async def by_the_old_neighbour() -> bool:
            return (await beside.ping(moved_ip, count=1, wait_s=0.3)).ok

        await until(by_the_old_neighbour, "its old neighbour reaches it", MOVED_S)
