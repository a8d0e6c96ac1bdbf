"""Sleeve datagrams taken apart, written only from the wire specification.

Deliberately shares no code with the router: tests use it as an independent reader, the demo shows
with it what a frame looks like on its way. Of an encrypted one only the outside can be told, by
:meth:`Datagram.describe_sealed`: read as a plain one it has an error or senseless records.

    Ethernet | IPv4 | UDP | sender (6) | records ...
    record:  source peer (6) | destination peer (6) | length L (2) | Ethernet frame (L)

Any bytes decode or yield a :attr:`Datagram.error`; nothing raises. Source of truth: sleeve
specification, sections 5 and 6; vectors ``sleeve_udp.json`` and the session captures.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Literal

from lab import frames

SLEEVE_PORT = 6783
NAME_LEN = 6
RECORD_HEADER_LEN = 14
#: Sender, DF bit and sequence number (8), tag (16).
SEALED_HEADER_LEN = NAME_LEN + 8 + 16
_HEARTBEAT_LEN = 22
_FRAGMENT_TEST_LEN = 60001

Kind = Literal["data", "heartbeat", "fragment-test", "pmtu-test"]


@dataclass(slots=True, frozen=True)
class Record:
    """One encapsulated frame; peers as ``ce:01:00:00:00:01``."""

    source: str
    destination: str
    frame: bytes

    @property
    def kind(self) -> Kind:
        """Special frames begin with 14 zero bytes and are told apart by length alone."""
        if self.frame[:14] != bytes(14):
            return "data"
        if len(self.frame) == _HEARTBEAT_LEN:
            return "heartbeat"
        return "fragment-test" if len(self.frame) == _FRAGMENT_TEST_LEN else "pmtu-test"

    def describe(self) -> str:
        """One line for people."""
        if self.kind == "heartbeat":
            what = f"heartbeat, connection {int.from_bytes(self.frame[14:]):#x}"
        elif self.kind == "data":
            what = frames.describe(self.frame)
        else:
            what = f"{self.kind}, {len(self.frame)} bytes"
        return f"{self.source} → {self.destination}: {what}"


@dataclass(slots=True, frozen=True)
class Datagram:
    """One UDP datagram of the overlay.

    ``ip_len`` is the IP packet's length on the wire (of the largest fragment, if it came in
    fragments); ``error`` says why the records end, None if they end well.
    """

    source: str
    destination: str
    source_port: int
    destination_port: int
    dont_fragment: bool
    fragments: int
    ip_len: int
    sender: str
    records: tuple[Record, ...]
    error: str | None
    payload: bytes

    def describe_sealed(self) -> list[str]:
        """Lines for people, if it is encrypted: name, number, tag, and how much cannot be read."""
        field = int.from_bytes(self.payload[NAME_LEN : NAME_LEN + 8])
        channel = "DF" if field >> 63 else "non-DF"
        tag = self.payload[NAME_LEN + 8 : SEALED_HEADER_LEN]
        return [
            *self.describe()[:2],
            f"sleeve from neighbour {self.sender}, {channel} channel, number {field & ~(1 << 63)}",
            f"  tag {tag.hex()}, {len(self.payload) - SEALED_HEADER_LEN} bytes of ciphertext",
        ]

    def describe(self) -> list[str]:
        """Lines for people: the outer headers, then a line for each record."""
        flags = ("DF" if self.dont_fragment else "no DF") + (
            f", {self.fragments} fragments" if self.fragments > 1 else ""
        )
        lines = [
            f"IPv4 {self.source} → {self.destination}, {self.ip_len} bytes, {flags}",
            f"UDP {self.source_port} → {self.destination_port}",
            f"sleeve from neighbour {self.sender}, {len(self.records)} record(s)",
        ]
        lines += [f"  {record.describe()}" for record in self.records]
        if self.error:
            lines.append(f"  error: {self.error}")
        return lines


def name(octets: bytes) -> str:
    """Peer name or MAC in colon form."""
    return octets.hex(":")


def decode_payload(payload: bytes) -> tuple[str, tuple[Record, ...], str | None]:
    """UDP payload → sender, records, error. Records before an error count, as for a router."""
    if len(payload) < NAME_LEN:
        return "", (), f"{len(payload)} bytes are too short for a sender name"
    records = []
    at = NAME_LEN
    error = None
    while at < len(payload):
        rest = len(payload) - at
        if rest < RECORD_HEADER_LEN:
            error = f"{rest} octets of trailing garbage"
            break
        (length,) = struct.unpack_from("!H", payload, at + 2 * NAME_LEN)
        frame = payload[at + RECORD_HEADER_LEN : at + RECORD_HEADER_LEN + length]
        if len(frame) < length:
            error = f"too short; expected frame of length {length}, got {len(frame)}"
            break
        source = name(payload[at : at + NAME_LEN])
        destination = name(payload[at + NAME_LEN : at + 2 * NAME_LEN])
        records.append(Record(source, destination, frame))
        at += RECORD_HEADER_LEN + length
    return name(payload[:NAME_LEN]), tuple(records), error


@dataclass(slots=True)
class _Partial:
    """IP fragments of one datagram, by payload offset."""

    pieces: dict[int, bytes]
    total: int | None = None
    longest: int = 0

    def whole(self) -> bytes | None:
        """All the payload, once it is there."""
        data = b""
        for offset in sorted(self.pieces):
            if offset > len(data):
                return None
            data = data[:offset] + self.pieces[offset]
        return data if self.total is not None and len(data) == self.total else None


class Decoder:
    """Ethernet frames of an underlay in, overlay datagrams out; puts IP fragments together.

    ``port`` is the UDP port that marks a datagram as sleeve, at either end.
    """

    def __init__(self, port: int = SLEEVE_PORT) -> None:
        self._port = port
        self._partial: dict[bytes, _Partial] = {}

    def feed(self, frame: bytes) -> Datagram | None:
        """The datagram that ``frame`` is, or completes; None for anything else."""
        ip = frame[14:]
        if frame[12:14] != b"\x08\x00" or len(ip) < 20 or ip[0] >> 4 != 4:
            return None
        header_len = (ip[0] & 0x0F) * 4
        total_len, _, flags = struct.unpack_from("!HHH", ip, 2)
        if ip[9] != frames.UDP or header_len < 20 or not header_len <= total_len <= len(ip):
            return None
        payload = ip[header_len:total_len]
        offset, more = (flags & 0x1FFF) * 8, bool(flags & 0x2000)
        fragments = 1
        if offset or more:
            key = ip[4:6] + ip[12:20]
            partial = self._partial.setdefault(key, _Partial({}))
            partial.pieces[offset] = payload
            partial.longest = max(partial.longest, total_len)
            if not more:
                partial.total = offset + len(payload)
            whole = partial.whole()
            if whole is None:
                return None
            del self._partial[key]
            payload, fragments, total_len = whole, len(partial.pieces), partial.longest
        return self._datagram(ip, payload, bool(flags & 0x4000), fragments, total_len)

    def _datagram(
        self, ip: bytes, udp: bytes, dont_fragment: bool, fragments: int, ip_len: int
    ) -> Datagram | None:
        if len(udp) < 8:
            return None
        source_port, destination_port, udp_len = struct.unpack_from("!HHH", udp)
        if self._port not in (source_port, destination_port):
            return None
        sender, records, error = decode_payload(udp[8:udp_len])
        if udp_len != len(udp):
            error = error or f"UDP length {udp_len} in {len(udp)} bytes"
        return Datagram(
            source=str(IPv4Address(ip[12:16])),
            destination=str(IPv4Address(ip[16:20])),
            source_port=source_port,
            destination_port=destination_port,
            dont_fragment=dont_fragment,
            fragments=fragments,
            ip_len=ip_len,
            sender=sender,
            records=records,
            error=error,
            payload=udp[8:udp_len],
        )


def decode(packets: Iterable[bytes], port: int = SLEEVE_PORT) -> Iterator[Datagram]:
    """Overlay datagrams among captured Ethernet frames, in order."""
    decoder = Decoder(port)
    for packet in packets:
        datagram = decoder.feed(packet)
        if datagram is not None:
            yield datagram
