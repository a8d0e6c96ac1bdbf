"""Recording packets of an interface in a lab, as they would look on a real wire.

A packet socket with virtio headers instead of tcpdump: on veth the kernel passes 64 KiB
super-packets with unfinished checksums, and only the virtio header tells how they would have been
cut. UDP super-datagrams are cut here, so that "no datagram exceeds the MTU" can be asserted on
offloaded paths. TCP super-packets are left whole. 802.1Q tags that the kernel strips are put back.

No thread: the kernel queues up to BUFFER_BYTES, :meth:`Capture.packets` takes what is there. If the
queue overflowed, that raises instead of showing half of the truth.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from base.errors import WeftError

BUFFER_BYTES = 256 * 1024 * 1024

_ETH_P_ALL = 0x0003
_SOL_PACKET = 263
_PACKET_STATISTICS = 6
_PACKET_AUXDATA = 8
_PACKET_VNET_HDR = 15
_PACKET_OUTGOING = 4
_STATUS_VLAN_VALID = 1 << 4
_SO_RCVBUFFORCE = 33
_SO_TIMESTAMPNS = 35
_GSO_UDP_L4 = 5
_GSO_KIND_MASK = 0x7F

_VNET = struct.Struct("=BBHHHH")
_AUX = struct.Struct("=IIIHHHH")
_PCAP_HEADER = struct.Struct("=IHHiIII")
_PCAP_RECORD = struct.Struct("=IIII")
_PCAP_MAGIC_NS = 0xA1B23C4D
_LINKTYPE_ETHERNET = 1


class CaptureOverflowError(WeftError):
    """Packets came faster than they were taken: the record has holes."""


@dataclass(slots=True, frozen=True)
class Packet:
    """One Ethernet frame as on the wire; ``time_ns`` is wall clock.."""

    time_ns: int
    outgoing: bool
    data: bytes


class Capture:
    """Records from construction to ``close()``; also a context manager.

    Raises:
        OSError: no such interface.
    """

    def __init__(
        self,
        interface: str,
        label: str,
        inside: Callable[[Callable[[], socket.socket]], socket.socket],
    ) -> None:
        """``inside`` runs a function in the namespace of ``interface``; see Node.capture."""
        self._label = label
        self._packets: list[Packet] = []
        self._socket = inside(lambda: _open(interface))

    def packets(self) -> list[Packet]:
        """All packets so far, in order.

        Raises:
            CaptureOverflowError: some were lost.
        """
        while True:
            try:
                data, control, _, address = self._socket.recvmsg(
                    _VNET.size + 256 * 1024, 512, socket.MSG_DONTWAIT
                )
            except BlockingIOError:
                break
            self._packets.extend(_unpack(data, control, address[2] == _PACKET_OUTGOING))
        _, drops = struct.unpack("=II", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        if drops:
            raise CaptureOverflowError(f"capture on {self._label}: {drops} packets lost")
        return self._packets

    def clear(self) -> None:
        """Forget what was recorded so far."""
        self.packets()
        self._packets = []

    def close(self) -> None:
        """Stop; what was taken stays readable by nobody: take it first."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _open(interface: str) -> socket.socket:
    # Protocol 0 receives nothing: no packet slips in before the options are set.
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER_BYTES)
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        sock.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        sock.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        sock.bind((interface, _ETH_P_ALL))
    except BaseException:
        sock.close()
        raise
    return sock


def _unpack(data: bytes, control: list[tuple[int, int, bytes]], outgoing: bool) -> Iterator[Packet]:
    _, gso_kind, _, gso_size, _, _ = _VNET.unpack_from(data)
    frame = data[_VNET.size :]
    time_ns = 0
    for level, kind, body in control:
        if level == _SOL_PACKET and kind == _PACKET_AUXDATA:
            status, _, _, _, _, tci, tpid = _AUX.unpack_from(body)
            if status & _STATUS_VLAN_VALID:
                frame = frame[:12] + struct.pack("!HH", tpid or 0x8100, tci) + frame[12:]
        elif level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
            seconds, nanoseconds = struct.unpack_from("=qq", body)
            time_ns = seconds * 1_000_000_000 + nanoseconds
    if gso_kind & _GSO_KIND_MASK == _GSO_UDP_L4:
        for piece in cut_super_datagram(frame, gso_size):
            yield Packet(time_ns, outgoing, piece)
    else:
        yield Packet(time_ns, outgoing, frame)


def cut_super_datagram(frame: bytes, payload_bytes: int) -> Iterator[bytes]:
    """Cut an Ethernet/IPv4/UDP super-datagram into those that a NIC would have sent.

    Each gets ``payload_bytes`` of UDP payload (the last what is left), its own lengths, the next IP
    identification and a right IP checksum. The UDP checksum is set to "none".
    """
    ip_at = 14
    header_len = (frame[ip_at] & 0x0F) * 4
    udp_at = ip_at + header_len
    payload_at = udp_at + 8
    (first_id,) = struct.unpack_from("!H", frame, ip_at + 4)
    for number, start in enumerate(range(payload_at, len(frame), payload_bytes)):
        payload = frame[start : start + payload_bytes]
        header = bytearray(frame[ip_at:udp_at])
        length = header_len + 8 + len(payload)
        struct.pack_into("!HH", header, 2, length, (first_id + number) & 0xFFFF)
        header[10:12] = b"\0\0"
        header[10:12] = struct.pack("!H", _checksum(header))
        ports = frame[udp_at : udp_at + 4]
        udp = ports + struct.pack("!HH", 8 + len(payload), 0)
        yield frame[:ip_at] + bytes(header) + udp + payload


def _checksum(data: bytes | bytearray) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def write_pcap(path: str | os.PathLike[str], packets: Iterable[Packet]) -> None:
    """Write a pcap file (nanosecond stamps) that tcpdump and Wireshark open."""
    with Path(path).open("wb") as file:
        file.write(_PCAP_HEADER.pack(_PCAP_MAGIC_NS, 2, 4, 0, 0, 262144, _LINKTYPE_ETHERNET))
        for packet in packets:
            seconds, nanoseconds = divmod(packet.time_ns, 1_000_000_000)
            length = len(packet.data)
            file.write(_PCAP_RECORD.pack(seconds, nanoseconds, length, length) + packet.data)


def read_pcap(path: str | os.PathLike[str]) -> Iterator[Packet]:
    """Packets of a pcap file of either byte order and time resolution.

    Raises:
        ValueError: not a pcap file of Ethernet.
    """
    data = Path(path).read_bytes()
    for order in "<>":
        magic = struct.unpack_from(f"{order}I", data)[0]
        if magic in (_PCAP_MAGIC_NS, 0xA1B2C3D4):
            break
    else:
        raise ValueError(f"{path}: not a pcap file")
    if struct.unpack_from(f"{order}I", data, 20)[0] != _LINKTYPE_ETHERNET:
        raise ValueError(f"{path}: not Ethernet")
    unit_ns = 1 if magic == _PCAP_MAGIC_NS else 1000
    at = _PCAP_HEADER.size
    while at + 16 <= len(data):
        seconds, fraction, length, _ = struct.unpack_from(f"{order}IIII", data, at)
        at += 16
        yield Packet(seconds * 10**9 + fraction * unit_ns, False, data[at : at + length])
        at += length
