"""What travelled on the underlay, judged against the wire specification.

Sources of truth: sleeve specification 4.3, 5.1, 8.1 and 8.2. Reads with lab/decode.py and, as a
second opinion on the inner frames, with scapy; shares no code with the router.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from scapy.layers.l2 import Ether

from lab import plan
from lab.decode import Datagram, Decoder, Record
from lab.frames import bad_checksums, ethernet
from lab.sniff import Packet

_IPV4 = 0x0800
_MORE_OR_OFFSET = 0x3FFF
_IP_DF = 0x4000
_IPV6_FRAGMENT = 44
_BY_ADDRESS = {plan.underlay_address(host): plan.peer_name(host) for host in range(1, 10)}


@dataclass(slots=True, frozen=True)
class Seen:
    """A datagram as one host's uplink saw it; ``outgoing``: this host sent it."""

    outgoing: bool
    datagram: Datagram


def read(packets: Iterable[Packet]) -> list[Seen]:
    """All overlay datagrams of a capture, IP fragments put together."""
    decoder = Decoder()
    found = []
    for packet in packets:
        datagram = decoder.feed(packet.data)
        if datagram is not None:
            found.append(Seen(packet.outgoing, datagram))
    return found


def records(seen: Iterable[Seen], *, outgoing: bool) -> Iterator[Record]:
    """Records of one direction."""
    for one in seen:
        if one.outgoing == outgoing:
            yield from one.datagram.records


def oversized(packets: Iterable[Packet], mtu: int) -> list[int]:
    """Lengths of the IP packets that exceed ``mtu``, whatever they carry."""
    lengths = [
        struct.unpack_from("!H", packet.data, 16)[0]
        for packet in packets
        if packet.data[12:14] == b"\x08\x00"
    ]
    assert lengths, "nothing was captured"
    return [length for length in lengths if length > mtu]


def faults(seen: Iterable[Seen]) -> list[str]:
    """Everything about the datagrams that the specification does not allow, in words."""
    return [f"{fault}: {one.datagram.describe()}" for one in seen for fault in _faults(one)]


def _faults(one: Seen) -> Iterator[str]:
    datagram = one.datagram
    if datagram.error is not None:
        yield datagram.error
    if not datagram.records:
        yield "no record"
    if datagram.sender != _BY_ADDRESS.get(datagram.source):
        yield "sender is not the peer at this address"
    if (datagram.source_port, datagram.destination_port) != (6783, 6783):
        yield "not from sleeve port to sleeve port"
    if datagram.dont_fragment and datagram.fragments > 1:
        yield "DF, and yet in fragments"
    known = set(_BY_ADDRESS.values())
    for record in datagram.records:
        if not {record.source, record.destination} <= known:
            yield f"unknown peer in {record.describe()}"
        yield from _channel_faults(record.frame, df=datagram.dont_fragment)
        wrong = bad_checksums(record.frame)
        if wrong:
            yield f"inner checksum {wrong} wrong"


def _channel_faults(frame: bytes, *, df: bool) -> Iterator[str]:
    """Which of the two channels a frame must take (8.2)."""
    kind, at, vlan = ethernet(frame)
    if kind != _IPV4 or vlan is not None:
        if df:
            yield "not IPv4, but on the DF channel"
        return
    (flags,) = struct.unpack_from("!H", frame, at + 6)
    if flags & _IP_DF and not df:
        yield "inner DF, but on the non-DF channel"


def scapy_disagrees(frames: Iterable[bytes]) -> list[str]:
    """Frames whose checksums scapy would have written differently."""
    wrong = []
    for frame in frames:
        packet = Ether(frame)
        for number in range(len(packet.layers())):
            layer = packet.getlayer(number)
            assert layer is not None
            for field in ("chksum", "cksum"):
                if field in layer.fields:
                    delattr(layer, field)
        if bytes(packet) != frame:
            wrong.append(f"{Ether(frame).summary()}: {frame.hex()}")
    return wrong


def one_of_each_kind(seen: Iterable[Seen], per_kind: int = 20) -> list[bytes]:
    """A few whole (not fragmented) inner frames of every type and protocol."""
    taken: Counter[tuple[int, int, bool]] = Counter()
    chosen = []
    for one in seen:
        for record in one.datagram.records:
            kind, at, vlan = ethernet(record.frame)
            protocol = 0
            if kind == _IPV4:
                if struct.unpack_from("!H", record.frame, at + 6)[0] & _MORE_OR_OFFSET:
                    continue
                protocol = record.frame[at + 9]
            elif kind == 0x86DD:
                protocol = record.frame[at + 6]
                if protocol == _IPV6_FRAGMENT:
                    continue
            key = (kind, protocol, vlan is not None)
            if taken[key] < per_kind:
                taken[key] += 1
                chosen.append(record.frame)
    return chosen
