"""TCP and UDP segments as a stack would send them, and what a cut of a super-frame must be.

Plain Python over :mod:`tests.native.wire`; shares nothing with the C code.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from tests.native import wire
from tests.native.world import GSO_TCP4, GSO_TCP6, GSO_UDP, vnet

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in range(8))
TIMESTAMPS = b"\x01\x01\x08\x0a" + struct.pack(">II", 7_000_001, 9)


@dataclass(slots=True, frozen=True)
class Segment:
    """Everything about one TCP segment or UDP datagram that a test may want to vary."""

    payload: bytes = b""
    version: int = 4
    tcp: bool = True
    src: bytes = wire.MAC_A
    dst: bytes = wire.MAC_B
    sport: int = 40_000
    dport: int = 80
    seq: int = 1000
    ack: int = 77
    flags: int = ACK
    window: int = 512
    urgent: int = 0
    reserved: int = 0
    options: bytes = b""
    """Of TCP."""
    ip_options: bytes = b""
    """IPv4 options, or whole IPv6 extension headers."""
    extension: int = 0
    """Next-header number of the first IPv6 extension header."""
    ip_flags: int = wire.DF
    ip_id: int = 1
    tos: int = 0
    ttl: int = 64
    flow_label: int = 0
    vlans: tuple[int, ...] = ()
    padding: bytes = b""
    broken: bool = False
    """The transport checksum is off by one."""
    no_checksum: bool = False
    """UDP only."""
    host: int = 0
    """Last byte added to both addresses."""

    @property
    def flow(self) -> tuple[object, ...]:
        """What a receiver tells flows apart by."""
        return (self.version, self.tcp, self.sport, self.dport, self.host, self.vlans)

    def addresses(self) -> bytes:
        """Source and destination address."""
        both = (wire.IP4_A, wire.IP4_B) if self.version == 4 else (wire.IP6_A, wire.IP6_B)
        return b"".join(addr[:-1] + bytes([addr[-1] + 2 * self.host]) for addr in both)

    def l4(self) -> bytes:
        """Transport header and payload with checksum."""
        if self.tcp:
            offset = ((20 + len(self.options)) // 4) << 4 | self.reserved
            body = struct.pack(
                ">HHIIBBHHH",
                self.sport,
                self.dport,
                self.seq & 0xFFFFFFFF,
                self.ack,
                offset,
                self.flags,
                self.window,
                0,
                self.urgent,
            )
            body += self.options + self.payload
            at = 16
        else:
            body = struct.pack(">HHHH", self.sport, self.dport, 8 + len(self.payload), 0)
            body += self.payload
            at = 6
        proto = 6 if self.tcp else 17
        value = wire.checksum(body, wire.ones_sum(self.pseudo(proto, len(body))))
        if not self.tcp:
            value = 0 if self.no_checksum else value or 0xFFFF
        if self.broken:
            value ^= 1
        return body[:at] + value.to_bytes(2, "big") + body[at + 2 :]

    def pseudo(self, proto: int, length: int) -> bytes:
        """The pseudo-header of either version."""
        return self.addresses() + struct.pack(">IHBB", length, 0, 0, proto)

    def packet(self) -> bytes:
        """The IP packet."""
        l4 = self.l4()
        proto = 6 if self.tcp else 17
        addrs = self.addresses()
        if self.version == 6:
            head = struct.pack(
                ">IHBB",
                6 << 28 | self.tos << 20 | self.flow_label,
                len(self.ip_options) + len(l4),
                self.extension if self.ip_options else proto,
                self.ttl,
            )
            return head + addrs + self.ip_options + l4
        ihl = 5 + len(self.ip_options) // 4
        head = struct.pack(
            ">BBHHHBBH",
            0x40 | ihl,
            self.tos,
            ihl * 4 + len(l4),
            self.ip_id & 0xFFFF,
            self.ip_flags,
            self.ttl,
            proto,
            0,
        )
        head += addrs + self.ip_options
        return head[:10] + wire.checksum(head).to_bytes(2, "big") + head[12:] + l4

    def frame(self) -> bytes:
        """The whole Ethernet frame."""
        tags = b"".join(struct.pack(">HH", 0x8100, vid) for vid in self.vlans)
        ethertype = 0x0800 if self.version == 4 else 0x86DD
        head = self.dst + self.src + tags + struct.pack(">H", ethertype)
        return head + self.packet() + self.padding

    @property
    def l4_offset(self) -> int:
        """Bytes before the transport header."""
        ip = 20 if self.version == 4 else 40
        return 14 + 4 * len(self.vlans) + ip + len(self.ip_options)

    @property
    def payload_offset(self) -> int:
        """Bytes before the payload."""
        return self.l4_offset + (20 + len(self.options) if self.tcp else 8)

    def super_frame(self, gso_size: int, *, ecn: bool = False) -> tuple[bytes, bytes]:
        """Virtio-net header and frame as the kernel hands them to a TAP: checksum still open."""
        gso_type = GSO_UDP
        if self.tcp:
            gso_type = GSO_TCP4 if self.version == 4 else GSO_TCP6
        at = 16 if self.tcp else 6
        header = vnet(
            gso_type | (0x80 if ecn else 0),
            gso_size,
            start=self.l4_offset,
            offset=at,
            hdr_len=self.payload_offset,
        )
        frame = bytearray(self.frame())
        partial = wire.ones_sum(self.pseudo(6 if self.tcp else 17, len(self.l4())))
        frame[self.l4_offset + at : self.l4_offset + at + 2] = partial.to_bytes(2, "big")
        return header, bytes(frame)

    def cut(self, size: int) -> list[Segment]:
        """What the sender's stack would have sent itself, ``size`` bytes of payload at a time."""
        count = max(1, -(-len(self.payload) // size))
        pieces = []
        for index in range(count):
            flags = self.flags
            if index < count - 1:
                flags &= ~(FIN | PSH)
            if index > 0:
                flags &= ~CWR
            pieces.append(
                self.changed(
                    payload=self.payload[index * size : (index + 1) * size],
                    seq=self.seq + index * size,
                    ip_id=self.ip_id + index,
                    flags=flags,
                )
            )
        return pieces

    def changed(self, **changes: object) -> Segment:
        """A copy with other fields."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return Segment(**{**fields, **changes})
