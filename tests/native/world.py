"""One node's data path with peers of known shape, fed and read without a kernel.

Peer ``n`` is called :func:`name_of` ``(n)``; a neighbour's forwarder index is its peer index plus
``FORWARDER_BASE``, so that whoever mixes the two up is found out. :class:`World` runs whole batches
through the stages until no work is left behind and says what came out, parsed by plain Python.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from base.counters import COUNTER_NAMES
from native import ffi, lib
from native.datapath import Batch, Datapath, Event, Message, Tables

FORWARDER_BASE = 100
PORT = 6783
MTU = 1438
NEEDS_CSUM = 1
GSO_TCP4, GSO_TCP6, GSO_UDP, GSO_ECN = 1, 4, 5, 0x80
BROADCAST = b"\xff" * 6
STP = bytes.fromhex("0180c2000000")

Captured = bytes | tuple[bytes, bytes]


def name_of(peer: int) -> bytes:
    """Six bytes that look like no MAC used in the tests."""
    return b"\xce" + peer.to_bytes(2, "big") + b"\0\0" + bytes([peer & 0xFF])


def mac_of(number: int) -> bytes:
    """A container's MAC."""
    return b"\x02\x42" + number.to_bytes(4, "big")


def address_of(peer: int) -> str:
    """Underlay address of a peer."""
    return f"192.0.{2 + (peer >> 8)}.{peer & 0xFF}"


def frame_of(src: int, dst: int | bytes, payload: bytes = b"", *, ethertype: int = 0x88B5) -> bytes:
    """A frame between two numbered MACs, of a type that nobody looks into, at least 60 bytes."""
    to = dst if isinstance(dst, bytes) else mac_of(dst)
    return (to + mac_of(src) + struct.pack(">H", ethertype) + payload).ljust(60, b"\0")


def vnet(
    gso_type: int = 0, gso_size: int = 0, *, start: int = 0, offset: int = 0, hdr_len: int = 0
) -> bytes:
    """A virtio-net header; a checksum is left open if ``start`` says where."""
    flags = NEEDS_CSUM if start else 0
    return struct.pack("=BBHHHH", flags, gso_type, hdr_len, gso_size, start, offset)


def record(src: int | bytes, dst: int | bytes, frame: bytes, length: int | None = None) -> bytes:
    """A sleeve record, with a lying length if asked."""
    names = [part if isinstance(part, bytes) else name_of(part) for part in (src, dst)]
    size = len(frame) if length is None else length
    return names[0] + names[1] + struct.pack(">H", size) + frame


def datagram(sender: int | bytes, *records: bytes) -> bytes:
    """A plain sleeve datagram."""
    start = sender if isinstance(sender, bytes) else name_of(sender)
    return start + b"".join(records)


def split_datagram(data: bytes) -> tuple[bytes, list[tuple[bytes, bytes, bytes]]]:
    """Sender name and (source, destination, frame) of each record; asserts it is well formed."""
    sender, at = data[:6], 6
    records = []
    while at < len(data):
        (length,) = struct.unpack_from(">H", data, at + 12)
        frame = data[at + 14 : at + 14 + length]
        assert len(frame) == length
        records.append((data[at : at + 6], data[at + 6 : at + 12], frame))
        at += 14 + length
    return sender, records


@dataclass(slots=True, frozen=True)
class Sent:
    """One record on its way to a neighbour."""

    to: int
    df: bool
    src: bytes
    dst: bytes
    frame: bytes


@dataclass(slots=True)
class Outcome:
    """What a batch became. ``rounds`` is the number of calls that the slowest stage needed."""

    messages: list[Message] = field(default_factory=list)
    #: Frames for our own bridge, each behind its virtio-net header.
    injects: list[tuple[bytes, bytes]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    rounds: int = 0

    @property
    def frames(self) -> list[bytes]:
        """The frames for our own bridge."""
        return [frame for _, frame in self.injects]

    @property
    def datagrams(self) -> list[bytes]:
        """Every datagram, in the order of sending."""
        return [data for message in self.messages for data in message.datagrams]

    @property
    def sent(self) -> list[Sent]:
        """Every record in every datagram; asserts that sizes and counts add up."""
        out = []
        for message in self.messages:
            sizes = {len(data) for data in message.datagrams[:-1]}
            assert len(sizes) <= 1, "only the last datagram of a message may differ"
            assert not sizes or len(message.datagrams[-1]) <= sizes.pop()
            count = 0
            for data in message.datagrams:
                sender, records = split_datagram(data)
                assert sender == self._sender
                count += len(records)
                to = message.forwarder - FORWARDER_BASE
                out += [Sent(to, message.df, *parts) for parts in records]
            assert count == message.frames
        return out

    _sender: bytes = b""


class World:
    """A data path and its peers. By default all peers are neighbours in a full mesh."""

    def __init__(
        self,
        peers: int = 3,
        *,
        us: int = 0,
        neighbours: Iterable[int] | None = None,
        unicast: Mapping[int, int] | None = None,
        broadcast: Mapping[int, Sequence[int]] | None = None,
        mtu: int = MTU,
        stack_frag: bool = False,
        names: Callable[[int], bytes] = name_of,
    ) -> None:
        self.name = names
        others = [peer for peer in range(peers) if peer != us]
        self.us = us
        self.now_s = 10_000
        self.neighbours = others if neighbours is None else list(neighbours)
        self.unicast = dict(unicast or {peer: peer for peer in self.neighbours})
        self.broadcast = dict(broadcast if broadcast is not None else {us: self.neighbours})
        self.datapath = Datapath()
        for peer in self.neighbours:
            self.datapath.set_forwarder(
                forwarder_of(peer), peer, names(peer), address_of(peer), PORT
            )
            self.set_mtu(peer, mtu, stack_frag=stack_frag)
        self.peers = peers
        self.swap()
        self._before = self.datapath.counters()

    def tables(self) -> Tables:
        """Tables of the state as it is now, not yet in force."""
        tables = Tables(self.peers, self.us, sum(len(via) for via in self.broadcast.values()))
        for peer in range(self.peers):
            tables.set_peer(peer, self.name(peer))
        for peer in self.neighbours:
            tables.set_neighbour(peer, forwarder_of(peer))
        for peer, via in self.unicast.items():
            tables.set_unicast(peer, forwarder_of(via))
        for source, via_all in self.broadcast.items():
            tables.set_broadcast(source, [forwarder_of(via) for via in via_all])
        return tables

    def swap(self) -> None:
        """Put :meth:`tables` in force."""
        self.datapath.swap(self.tables())

    def set_mtu(self, peer: int, mtu: int, *, stack_frag: bool = False) -> None:
        """Overlay MTU of a neighbour's path."""
        self.datapath.set_mtu(forwarder_of(peer), mtu, stack_frag=stack_frag)

    def learn(self, peer: int, *macs: int) -> None:
        """MACs that live at the peer."""
        self.datapath.fill_fdb([(mac_of(mac), peer) for mac in macs], self.now_s)

    def fdb(self) -> dict[bytes, int]:
        """MAC → peer index, everything that is stored."""
        entries, total = self.datapath.fdb_entries(4096)
        assert total == len(entries)
        return {mac: peer for mac, peer, _ in entries}

    def counted(self) -> dict[str, int]:
        """Counters that grew since the last call, and by how much."""
        now = self.datapath.counters()
        grown = {
            name: after - before
            for name, before, after in zip(COUNTER_NAMES, self._before, now, strict=True)
            if after != before
        }
        self._before = now
        return grown

    def drops(self) -> dict[str, int]:
        """As :meth:`counted`, only what was dropped."""
        return {key: count for key, count in self.counted().items() if key.startswith("drop_")}

    def capture(self, *frames: Captured) -> Outcome:
        """Look up and encapsulate one batch of captured frames."""
        batch = captured_batch(*frames)
        self.lookup(batch)
        return self._encap(batch, Outcome(_sender=self.name(self.us)))

    def lookup(self, batch: Batch) -> int:
        """Just the first stage."""
        return int(lib.wn_lookup(self.datapath.c, batch.c, self.now_s))

    def receive(
        self, *datagrams: bytes, sender: int = 1, gso_size: int = 0, join: bool = True
    ) -> Outcome:
        """Split, deliver and relay one batch of datagrams."""
        batch = Batch()
        for data in datagrams:
            assert batch.put_datagram(data, address_of(sender), PORT, gso_size) == lib.WN_OK
        return self.ingress(batch, join=join)

    def ingress(self, batch: Batch, *, join: bool = True) -> Outcome:
        """All stages of a received batch."""
        outcome = Outcome(_sender=self.name(self.us))
        while True:
            got = lib.wn_decap(self.datapath.c, batch.c, self.now_s)
            outcome.events += batch.events()
            outcome.rounds += 1
            lib.wn_coalesce(self.datapath.c, batch.c, join)
            outcome.injects += batch.injects()
            rounds = outcome.rounds
            self._encap(batch, outcome)
            outcome.rounds = max(rounds, outcome.rounds - rounds)
            if not got & lib.WN_MORE:
                return outcome

    def _encap(self, batch: Batch, outcome: Outcome) -> Outcome:
        while True:
            got = lib.wn_encap(self.datapath.c, batch.c, self.now_s)
            outcome.rounds += 1
            messages = batch.messages()
            assert got & ~lib.WN_MORE == len(messages)
            outcome.messages += messages
            outcome.injects += batch.injects()
            if not got & lib.WN_MORE:
                return outcome
            assert messages, "work left behind, but nothing done"


def forwarder_of(peer: int) -> int:
    """Forwarder index of a neighbour."""
    return peer + FORWARDER_BASE


def captured_batch(*frames: Captured) -> Batch:
    """A batch as after reading these frames, some behind a virtio-net header, from a TAP."""
    batch = Batch()
    for item in frames:
        header, frame = item if isinstance(item, tuple) else (b"", item)
        assert batch.put_captured(frame, header) == lib.WN_OK
    return batch


@dataclass(slots=True, frozen=True)
class FrameInfo:
    """A descriptor of a batch."""

    length: int
    src_peer: int
    dst_peer: int
    drop: str
    deliver: bool
    flood: bool
    relay: bool


def frame_infos(batch: Batch) -> list[FrameInfo]:
    """Every descriptor of the batch; ``drop`` is "" for none."""
    info = ffi.new("wn_frame_info *")
    out = []
    for index in range(lib.wn_batch_frames(batch.c)):
        assert lib.wn_batch_frame_info(batch.c, index, info) == lib.WN_OK
        drop = "" if info.drop == 0xFFFF else COUNTER_NAMES[info.drop]
        out.append(
            FrameInfo(
                info.len,
                info.src_peer,
                info.dst_peer,
                drop,
                bool(info.deliver),
                bool(info.flood),
                bool(info.relay),
            )
        )
    return out
