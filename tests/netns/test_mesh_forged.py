"""Datagrams that were altered, repeated or made up, in encrypted networks.

Source of truth: sleeve specification 5; docs/cipher.md.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from contextlib import ExitStack

import anyio
import pytest

from lab.decode import Datagram, decode
from lab.host import Host
from lab.lab import Lab
from tests.netns.support import counters, grown, netns, until

pytestmark = [*netns(120), pytest.mark.patient]


class Injector:
    """Sends Ethernet frames from a host's uplink, as they are."""

    def __init__(self, host: Host) -> None:
        def make() -> socket.socket:
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            made.bind((host.uplink, 0))
            return made

        self._socket = host.call(make)

    def send(self, frame: bytes) -> None:
        """One frame."""
        self._socket.send(frame)

    def close(self) -> None:
        """No more."""
        self._socket.close()


def unchecked(frame: bytes, payload: bytes) -> bytes:
    """The same UDP datagram with another payload of equal length, without a checksum."""
    head = 14 + (frame[14] & 15) * 4
    udp = bytearray(frame[head : head + 8])
    struct.pack_into("!H", udp, 6, 0)
    return frame[:head] + bytes(udp) + payload


def data_frames(packets: Sequence[bytes], sender: str, source: str) -> list[tuple[bytes, Datagram]]:
    """Captured frames that are one datagram of ``sender``, with what they are."""
    return [
        (packet, datagram)
        for packet in packets
        for datagram in decode([packet])
        if datagram.sender == sender and datagram.source == source
    ]


async def quiet(host: Host) -> dict[str, int]:
    """Counters once nothing moves by itself but heartbeats."""
    await anyio.sleep(0.3)
    return await counters(host)


async def test_a_flipped_bit_anywhere_is_dropped_and_counted(sealed_lab: Lab) -> None:
    one, other = sealed_lab.containers
    first, second = sealed_lab.hosts
    with second.capture() as capture:
        assert (await other.ping(one, count=1)).ok
        await anyio.sleep(0.1)
        frames = [packet.data for packet in capture.packets() if packet.outgoing]
    frame, datagram = data_frames(frames, second.peer_name, second.address)[-1]
    payload = datagram.payload
    before = await quiet(first)
    received = int(one.read("/sys/class/net/eth0/statistics/rx_packets"))
    with ExitStack() as stack:
        injector = Injector(second)
        stack.callback(injector.close)
        for bit in range(len(payload) * 8):
            altered = bytearray(payload)
            altered[bit // 8] ^= 1 << bit % 8
            injector.send(unchecked(frame, bytes(altered)))
            if bit % 100 == 99:
                await anyio.sleep(0.01)
    sent = len(payload) * 8
    name_bits = 6 * 8
    await until(lambda: _counted(first, before, "drop_decrypt", sent - name_bits), "all counted")
    moved = grown(before, await counters(first))
    # a name that nobody has is dropped before anything is opened
    assert moved["drop_decrypt"] == sent - name_bits
    assert moved["drop_unknown_sender"] == name_bits
    assert "drop_replay" not in moved
    assert int(one.read("/sys/class/net/eth0/statistics/rx_packets")) - received <= 2  # ARP of old
    assert (await one.ping(other, count=1)).ok


async def _counted(host: Host, before: dict[str, int], name: str, wanted: int) -> bool:
    return (await counters(host))[name] - before[name] >= wanted


async def test_replayed_datagrams_are_dropped_and_counted(sealed_lab: Lab) -> None:
    one, other = sealed_lab.containers
    first, second = sealed_lab.hosts
    with second.capture() as capture:
        assert (await other.ping(one, count=20)).ok
        await anyio.sleep(0.1)
        frames = [packet.data for packet in capture.packets() if packet.outgoing]
    replayed = data_frames(frames, second.peer_name, second.address)
    assert len(replayed) >= 20
    before = await quiet(first)
    injector = Injector(second)
    try:
        for frame, datagram in replayed:
            injector.send(unchecked(frame, datagram.payload))
    finally:
        injector.close()
    await until(lambda: _counted(first, before, "drop_replay", len(replayed)), "all counted")
    moved = grown(before, await counters(first))
    assert moved["drop_replay"] == len(replayed)
    assert moved.get("delivered_frames", 0) <= 2


async def test_datagrams_in_clear_are_dropped_and_counted(sealed_lab: Lab) -> None:
    one, other = sealed_lab.containers
    first, second = sealed_lab.hosts
    with second.capture() as capture:
        assert (await other.ping(one, count=1)).ok
        await anyio.sleep(0.1)
        frames = [packet.data for packet in capture.packets() if packet.outgoing]
    frame, datagram = data_frames(frames, second.peer_name, second.address)[-1]
    names = bytes.fromhex((second.peer_name + first.peer_name).replace(":", ""))
    record = names + struct.pack("!H", 60) + bytes.fromhex("ffffffffffff020304050607") + b"x" * 48
    payload = (datagram.payload[:6] + record).ljust(len(datagram.payload), b"\0")
    before = await quiet(first)
    injector = Injector(second)
    try:
        injector.send(unchecked(frame, payload[: len(datagram.payload)]))
    finally:
        injector.close()

    async def dropped() -> bool:
        moved = grown(before, await counters(first))
        return any(name.startswith("drop_") for name in moved)

    await until(dropped, "it is counted as dropped")
    assert "ffffffffffff" not in str((await first.report())["Router"]["MACs"])
    assert "02:03:04:05:06:07" not in str((await first.report())["Router"]["MACs"])
