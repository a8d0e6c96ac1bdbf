"""Cutting super-datagrams as a NIC would, and pcap files."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from lab.frames import checksum
from lab.sniff import Packet, cut_super_datagram, read_pcap, write_pcap


def _super_datagram(payload: bytes) -> bytes:
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 0, 0xFFFF, 0x4000, 64, 17, 0, b"\n\0\0\1", b"\n\0\0\2"
    )
    udp = struct.pack("!HHHH", 6783, 6783, 0, 0)
    return bytes(12) + b"\x08\x00" + header + udp + payload


def test_cut() -> None:
    payload = bytes(range(250)) * 10
    pieces = list(cut_super_datagram(_super_datagram(payload), 1000))
    assert [len(piece) for piece in pieces] == [1042, 1042, 542]
    assert b"".join(piece[42:] for piece in pieces) == payload
    for number, piece in enumerate(pieces):
        total_len, identification, flags = struct.unpack_from("!HHH", piece, 16)
        assert total_len == len(piece) - 14
        assert identification == (0xFFFF + number) & 0xFFFF
        assert flags == 0x4000
        assert checksum(piece[14:34]) == 0
        assert struct.unpack_from("!H", piece, 38)[0] == len(piece) - 34


def test_pcap_round_trip(tmp_path: Path) -> None:
    packets = [Packet(1_700_000_000_123_456_789, False, b"x" * 60), Packet(5, False, b"y" * 1500)]
    write_pcap(tmp_path / "a.pcap", packets)
    assert list(read_pcap(tmp_path / "a.pcap")) == packets


def test_not_a_pcap(tmp_path: Path) -> None:
    (tmp_path / "a.pcap").write_bytes(bytes(24))
    with pytest.raises(ValueError, match="not a pcap file"):
        list(read_pcap(tmp_path / "a.pcap"))
