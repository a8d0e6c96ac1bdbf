"""The independent decoder against bytes of the real program."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lab import frames
from lab.decode import Datagram, decode, decode_payload, name
from lab.sniff import read_pcap

VECTORS = Path(__file__).parent.parent / "vectors"
SLEEVE: dict[str, Any] = json.loads((VECTORS / "sleeve_udp.json").read_text())
PLAIN = [vector for vector in SLEEVE["plain"] if "bytes" in vector["udp_payload"]]


@pytest.mark.parametrize("vector", PLAIN, ids=lambda vector: vector["name"])
def test_plain_vectors(vector: dict[str, Any]) -> None:
    sender, records, error = decode_payload(bytes.fromhex(vector["udp_payload"]["bytes"]))
    assert error is None
    assert sender == name(bytes.fromhex(vector["sender"]))
    assert [
        (record.source.replace(":", ""), record.destination.replace(":", ""), len(record.frame))
        for record in records
    ] == [
        (frame["src_peer"], frame["dst_peer"], frame["frame_length"]) for frame in vector["frames"]
    ]
    for record, frame in zip(records, vector["frames"], strict=True):
        if "frame" in frame:
            assert record.frame.hex() == frame["frame"]


@pytest.mark.parametrize("number", range(len(SLEEVE["plain_decode_cases"])))
def test_malformed_vectors(number: int) -> None:
    case = SLEEVE["plain_decode_cases"][number]
    payload = bytes.fromhex("ce0100000001" + case["after_sender_name"])
    _, records, error = decode_payload(payload)
    assert len(records) == case["frames_delivered"]
    assert (error is None) == (case["error"] is None)
    if error is not None:
        assert case["error"].endswith(error)


def test_no_sender() -> None:
    assert decode_payload(b"\xce\x01")[1:] == ((), "2 bytes are too short for a sender name")


@pytest.fixture(scope="module")
def session() -> list[Datagram]:
    """Every datagram of ten seconds between two real routers."""
    return list(decode(packet.data for packet in read_pcap(VECTORS / "session_2nodes_plain.pcap")))


def test_session_decodes_without_error(session: list[Datagram]) -> None:
    assert len(session) == 36  # as many as the transcript of the same capture has
    assert {datagram.error for datagram in session} == {None}
    peers = {"ce:01:00:00:00:01", "ce:02:00:00:00:02"}
    assert {datagram.sender for datagram in session} == peers
    for datagram in session:
        for record in datagram.records:
            assert {record.source, record.destination} == peers


def test_session_kinds(session: list[Datagram]) -> None:
    kinds = Counter(record.kind for datagram in session for record in datagram.records)
    assert kinds == {"data": 34, "heartbeat": 2, "fragment-test": 2, "pmtu-test": 2}


def test_session_fragments_are_put_together(session: list[Datagram]) -> None:
    whole = [datagram for datagram in session if datagram.fragments > 1]
    assert [datagram.fragments for datagram in whole] == [41, 41, 3, 3]
    assert {datagram.ip_len for datagram in whole} == {1500}
    assert not any(datagram.dont_fragment for datagram in whole)
    assert whole[0].records[0].frame == bytes(60001)
    assert len(whole[2].records[0].frame) == 3042


def test_session_inner_checksums_are_right(session: list[Datagram]) -> None:
    inner = [record.frame for datagram in session for record in datagram.records]
    assert [frame for frame in inner if frames.bad_checksums(frame)] == []


def test_fragments_out_of_order() -> None:
    packets = [packet.data for packet in read_pcap(VECTORS / "session_2nodes_plain.pcap")]
    forward = [datagram for datagram in decode(packets) if datagram.fragments > 1]
    backward = [datagram for datagram in decode(reversed(packets)) if datagram.fragments > 1]
    assert sorted(forward, key=repr) == sorted(backward, key=repr)


def test_bad_checksums_are_found(session: list[Datagram]) -> None:
    found = set()
    for datagram in session:
        for record in datagram.records:
            kind, at, _ = frames.ethernet(record.frame)
            if kind in (0x0800, 0x86DD):
                damaged = bytearray(record.frame)
                header = (record.frame[at] & 15) * 4 if kind == 0x0800 else 40
                if len(damaged) > at + header + 9:
                    damaged[at + header + 8] ^= 1
                    found.update(frames.bad_checksums(bytes(damaged)))
                    damaged[at + 12] ^= 1  # a source address
                    found.update(frames.bad_checksums(bytes(damaged)))
    assert {"IPv4", "ICMP", "ICMPv6"} <= found


def test_descriptions() -> None:
    arp = bytes.fromhex(PLAIN[3]["frames"][0]["frame"])
    assert "ARP who has 10.32.128.0, tell 10.32.0.1" in frames.describe(arp)
    udp = bytes.fromhex(PLAIN[2]["frames"][0]["frame"])
    assert "10.32.0.1 → 10.32.128.0 UDP 1111 → 2222, 18 bytes" in frames.describe(udp)
    tagged = udp[:12] + bytes.fromhex("81000005") + udp[12:]
    assert frames.describe(tagged).startswith("VLAN 5, IPv4")
    assert frames.bad_checksums(tagged) == []


@pytest.mark.parametrize("length", range(60))
def test_any_cut_is_described(length: int) -> None:
    frame = bytes.fromhex(PLAIN[2]["frames"][0]["frame"])[:length]
    assert isinstance(frames.describe(frame), str)
    assert isinstance(frames.bad_checksums(frame), list)
