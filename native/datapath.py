"""Handles of the C data path: batches, tables, the datapath itself.

The wrappers own their C memory and free it with themselves. ``.c`` is the raw handle for the one
call per batch that a stage makes; everything here runs at configuration or report time.
Ref: native/include/weft_datapath.h.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from native import ffi, lib

VNET_LEN: Final = 10
_COPY_MAX: Final = 128 * 1024


@dataclass(slots=True, frozen=True)
class Event:
    """Something in a batch that needs thought; fields as ``wn_event``, ``addr`` dotted."""

    kind: int
    special: int
    all_zero: bool
    forwarder: int
    addr: str
    port: int
    frame_len: int
    err: int
    uid: int


@dataclass(slots=True, frozen=True)
class Message:
    """One message ready to send: datagrams as they would leave, for fakes and tests."""

    forwarder: int
    df: bool
    frames: int
    datagrams: tuple[bytes, ...]


@dataclass(slots=True, frozen=True)
class ForwarderStats:
    """Counts and settings of one neighbour's datagram side."""

    tx_frames: int
    tx_datagrams: int
    tx_bytes: int
    rx_frames: int
    rx_datagrams: int
    rx_bytes: int
    mtu: int
    addr: str
    port: int


class Batch:
    """One arena with its descriptors; belongs to one thread at a time."""

    __slots__ = ("c", "more_frames", "more_relay")

    def __init__(self) -> None:
        handle = lib.wn_batch_new()
        if handle == ffi.NULL:
            raise MemoryError("no memory for a batch")
        self.c: Any = ffi.gc(handle, lib.wn_batch_free)
        #: The last decapsulation, or encapsulation, left work behind (WN_MORE).
        self.more_frames = False
        self.more_relay = False

    def reset(self) -> None:
        """Forget everything in it."""
        lib.wn_batch_reset(self.c)
        self.more_frames = self.more_relay = False

    @property
    def errno(self) -> int:
        """Of the last system call that failed while the batch was worked on."""
        return int(lib.wn_batch_errno(self.c))

    def put_captured(self, frame: bytes, vnet: bytes = b"") -> int:
        """Add a frame as if captured; ``vnet`` is a 10-byte virtio-net header or empty."""
        header = vnet or ffi.NULL
        return int(lib.wn_batch_put_captured(self.c, header, frame, len(frame)))

    def put_datagram(
        self, data: bytes, addr: str = "127.0.0.1", port: int = 6783, gso_size: int = 0
    ) -> int:
        """Add a datagram (or train of equal ones) as if received."""
        return int(
            lib.wn_batch_put_datagram(self.c, data, len(data), gso_size, addr_to_c(addr), port)
        )

    def events(self) -> list[Event]:
        """Copies of all events."""
        out = []
        event = ffi.new("wn_event *")
        for index in range(lib.wn_batch_events(self.c)):
            lib.wn_batch_event(self.c, index, event)
            out.append(
                Event(
                    kind=event.kind,
                    special=event.special,
                    all_zero=bool(event.all_zero),
                    forwarder=event.forwarder,
                    addr=addr_from_c(event.addr),
                    port=event.port,
                    frame_len=event.frame_len,
                    err=event.err,
                    uid=event.uid,
                )
            )
        return out

    def messages(self) -> list[Message]:
        """Copies of all messages ready to send, cut into their datagrams."""
        out = []
        info = ffi.new("wn_msg_info *")
        buffer = ffi.new("uint8_t[]", _COPY_MAX)
        for index in range(lib.wn_batch_msgs(self.c)):
            lib.wn_batch_msg_info(self.c, index, info)
            length = lib.wn_batch_msg_copy(self.c, index, buffer, _COPY_MAX)
            data = bytes(ffi.buffer(buffer, length))
            step = info.gso_size or max(len(data), 1)
            datagrams = tuple(data[at : at + step] for at in range(0, len(data), step))
            out.append(Message(info.forwarder, bool(info.df), info.frames, datagrams))
        return out

    def injects(self) -> list[tuple[bytes, bytes]]:
        """Copies of all frames ready for the bridge, each with its virtio-net header first."""
        out = []
        vnet = ffi.new("uint8_t[]", VNET_LEN)
        buffer = ffi.new("uint8_t[]", _COPY_MAX)
        for index in range(lib.wn_batch_injects(self.c)):
            length = lib.wn_batch_inject_copy(self.c, index, vnet, buffer, _COPY_MAX)
            out.append((bytes(ffi.buffer(vnet, VNET_LEN)), bytes(ffi.buffer(buffer, length))))
        return out


class Tables:
    """Peers and routes under construction; :meth:`Datapath.swap` takes them over."""

    __slots__ = ("c",)

    def __init__(self, n_peers: int, ourself: int, broadcast_hops: int) -> None:
        handle = lib.wn_tables_new(n_peers, ourself, broadcast_hops)
        if handle == ffi.NULL:
            raise ValueError(f"no tables for {n_peers} peers")
        self.c: Any = ffi.gc(handle, lib.wn_tables_free)

    def set_peer(self, peer: int, name: bytes) -> None:
        """Name the peer of an index."""
        _check(lib.wn_tables_set_peer(self.c, peer, name), "peer")

    def set_neighbour(self, peer: int, forwarder: int) -> None:
        """Accept datagrams that name this peer as their sender."""
        _check(lib.wn_tables_set_neighbour(self.c, peer, forwarder), "neighbour")

    def set_unicast(self, peer: int, forwarder: int) -> None:
        """Next hop for frames addressed to the peer."""
        _check(lib.wn_tables_set_unicast(self.c, peer, forwarder), "unicast route")

    def set_broadcast(self, source: int, forwarders: Sequence[int]) -> None:
        """Next hops for frames that the peer flooded."""
        hops = ffi.new("uint16_t[]", list(forwarders))
        _check(
            lib.wn_tables_set_broadcast(self.c, source, hops, len(forwarders)), "broadcast route"
        )


class Datapath:
    """FDB, tables in force, forwarders and counters; safe to use from several threads."""

    __slots__ = ("c",)

    def __init__(self) -> None:
        handle = lib.wn_datapath_new()
        if handle == ffi.NULL:
            raise MemoryError("no memory for a datapath")
        self.c: Any = ffi.gc(handle, lib.wn_datapath_free)

    def swap(self, tables: Tables) -> None:
        """Put tables in force; they must not be used afterwards."""
        handle = tables.c
        tables.c = ffi.NULL
        ffi.gc(handle, None)  # the datapath frees them from now on
        lib.wn_datapath_swap(self.c, handle)

    def set_forwarder(self, forwarder: int, peer: int, name: bytes, addr: str, port: int) -> None:
        """Address of a neighbour; "" while it is not known."""
        _check(
            lib.wn_forwarder_set(self.c, forwarder, peer, name, addr_to_c(addr), port), "forwarder"
        )

    def set_mtu(
        self,
        forwarder: int,
        mtu: int,
        overhead: int = lib.WN_OVERHEAD_PLAIN,
        *,
        stack_frag: bool = False,
    ) -> None:
        """Overlay MTU (bytes of the largest inner IP packet) and encapsulation overhead."""
        _check(lib.wn_forwarder_set_mtu(self.c, forwarder, mtu, overhead, stack_frag), "mtu")

    def set_port_mtu(self, mtu: int) -> None:
        """Longest IP packet that the bridge takes; 0: whatever comes."""
        lib.wn_datapath_set_port_mtu(self.c, mtu)

    def clear_forwarder(self, forwarder: int) -> None:
        """Free its place; no table in force may name it any more."""
        _check(lib.wn_forwarder_clear(self.c, forwarder), "forwarder")

    def forwarder_stats(self, forwarder: int) -> ForwarderStats:
        """Counts and settings."""
        out = ffi.new("wn_forwarder_stats *")
        _check(lib.wn_forwarder_get_stats(self.c, forwarder, out), "forwarder")
        return ForwarderStats(
            out.tx_frames,
            out.tx_datagrams,
            out.tx_bytes,
            out.rx_frames,
            out.rx_datagrams,
            out.rx_bytes,
            out.mtu,
            addr_from_c(out.addr),
            out.port,
        )

    def counters(self) -> list[int]:
        """All counters in the order of weft_counters.h."""
        out = ffi.new("uint64_t[]", lib.WN_C__COUNT)
        lib.wn_datapath_counters(self.c, out)
        return list(out)

    def count(self, counter: int, amount: int) -> None:
        """Add to a counter that Python keeps."""
        lib.wn_datapath_count(self.c, counter, amount)

    def fdb_entries(self, most: int) -> tuple[list[tuple[bytes, int, int]], int]:
        """Up to ``most`` (MAC, peer index, last seen s), and how many there are in all."""
        entries = ffi.new("wn_fdb_entry[]", max(most, 1))
        total = ffi.new("size_t *")
        count = lib.wn_datapath_fdb_dump(self.c, entries, most, total)
        found = [
            (bytes(entries[i].mac), int(entries[i].peer), int(entries[i].last_seen_s))
            for i in range(count)
        ]
        return found, int(total[0])

    def fill_fdb(self, entries: Iterable[tuple[bytes, int]], now_s: int) -> None:
        """Learn (MAC, peer index) pairs by hand: benchmarks and tests."""
        fdb = lib.wn_datapath_fdb(self.c)
        for mac, peer in entries:
            lib.wn_fdb_learn_remote(fdb, mac, peer, now_s)


def addr_to_c(addr: str) -> int:
    """Dotted IPv4 → 32-bit value in network order as C holds it; "" → 0."""
    if not addr:
        return 0
    return int.from_bytes(ipaddress.IPv4Address(addr).packed, sys.byteorder)


def addr_from_c(value: int) -> str:
    """The reverse of :func:`addr_to_c`."""
    return str(ipaddress.IPv4Address(value.to_bytes(4, sys.byteorder))) if value else ""


def _check(code: int, what: str) -> None:
    if code < 0:
        raise ValueError(f"datapath refused {what}: code {code}")
