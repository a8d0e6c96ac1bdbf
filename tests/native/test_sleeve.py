"""The sleeve codec against datagrams of the real Weave Net 2.8.1."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from native import ffi, lib

pytestmark = pytest.mark.native

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parent.parent / "vectors" / "sleeve_udp.json").read_text(encoding="utf-8")
)

Record = tuple[bytes, bytes, bytes]
names = st.binary(min_size=6, max_size=6)


def encode(records: list[Record]) -> bytes:
    """Records as the C code writes them."""
    out = b""
    header = ffi.new("uint8_t[]", lib.WN_RECORD_LEN)
    for src, dst, frame in records:
        lib.wn_sleeve_put_record(header, src, dst, len(frame))
        out += bytes(ffi.buffer(header)) + frame
    return out


def decode(data: bytes) -> tuple[list[Record], int]:
    """Records as the C code reads them, and the code that ended the walk."""
    buffer = ffi.new("uint8_t[]", len(data))  # exact, so that a sanitizer sees every overrun
    ffi.memmove(buffer, data, len(data))
    record = ffi.new("wn_record *")
    records = []
    at = 0
    while (code := lib.wn_sleeve_next(buffer + at, len(data) - at, record)) == 1:
        records.append(
            (
                bytes(ffi.buffer(record.src, 6)),
                bytes(ffi.buffer(record.dst, 6)),
                bytes(ffi.buffer(record.frame, record.frame_len)),
            )
        )
        at += record.next
    return records, code


def vector_frame(item: dict[str, Any]) -> bytes:
    """The bytes of a vector's frame, spelled out or described."""
    if "frame" in item:
        frame = bytes.fromhex(item["frame"])
    else:
        assert item["frame_all_zero"]
        frame = bytes(item["frame_length"])
        assert hashlib.sha256(frame).hexdigest() == item["frame_sha256"]
    assert len(frame) == item["frame_length"]
    return frame


@pytest.mark.parametrize("case", VECTORS["plain"], ids=lambda case: case["name"])
def test_plain_datagrams_both_ways(case: dict[str, Any]) -> None:
    records = [
        (bytes.fromhex(item["src_peer"]), bytes.fromhex(item["dst_peer"]), vector_frame(item))
        for item in case["frames"]
    ]
    payload = bytes.fromhex(case["sender"]) + encode(records)
    expected = case["udp_payload"]
    assert len(payload) == expected["length"]
    if "bytes" in expected:
        assert payload == bytes.fromhex(expected["bytes"])
    else:
        assert hashlib.sha256(payload).hexdigest() == expected["sha256"]
    assert decode(payload[lib.WN_NAME_LEN :]) == (records, 0)


def error_code(text: str | None) -> int:
    """What Weave's message for a malformed datagram is in our codes."""
    if text is None:
        return 0
    if "trailing garbage" in text:
        return int(lib.WN_ERR_TRAILING)
    assert "too short" in text
    return int(lib.WN_ERR_TRUNCATED)


@pytest.mark.parametrize("case", VECTORS["plain_decode_cases"])
def test_malformed_datagrams(case: dict[str, Any]) -> None:
    records, code = decode(bytes.fromhex(case["after_sender_name"]))
    assert len(records) == case["frames_delivered"]
    assert code == error_code(case["error"])


@pytest.mark.parametrize(
    "case", VECTORS["special_frame_classification"], ids=lambda case: case["frame"]["note"]
)
def test_special_frames(case: dict[str, Any]) -> None:
    frame = vector_frame(case["frame"])
    kind = lib.wn_sleeve_special(frame, len(frame), ffi.NULL)
    assert (kind != lib.WN_SPECIAL_NONE) == case["is_special"]
    view = ffi.new("wn_view *")
    lib.wn_frame_parse(frame, len(frame), view)
    assert bool(view.flags & lib.WN_VIEW_DF) == case["df"]
    assert bool(view.flags & lib.WN_VIEW_IPV4) == (case["layers_decoded"] == 2)


@pytest.mark.parametrize(
    ("size", "kind"),
    [
        (13, "NONE"),
        (14, "PMTU"),
        (21, "PMTU"),
        (22, "HEARTBEAT"),
        (23, "PMTU"),
        (60000, "PMTU"),
        (60001, "FRAG_TEST"),
        (60002, "PMTU"),
    ],
)
def test_special_kinds_by_length(size: int, kind: str) -> None:
    expected = getattr(lib, f"WN_SPECIAL_{kind}")
    all_zero = ffi.new("int *", 7)
    assert lib.wn_sleeve_special(bytes(size), size, all_zero) == expected
    assert all_zero[0] == int(size >= 14)
    if size > 14:  # content behind the 14 zero bytes does not change the kind
        assert lib.wn_sleeve_special(bytes(size - 1) + b"\1", size, all_zero) == expected
        assert all_zero[0] == 0


@pytest.mark.parametrize("place", range(14))
def test_one_bit_makes_a_frame_ordinary(place: int) -> None:
    frame = bytearray(22)
    frame[place] = 0x80
    all_zero = ffi.new("int *", 7)
    assert lib.wn_sleeve_special(bytes(frame), 22, all_zero) == lib.WN_SPECIAL_NONE
    assert all_zero[0] == 0


@given(st.lists(st.tuples(names, names, st.binary(max_size=200)), max_size=20))
def test_round_trip(records: list[Record]) -> None:
    assert decode(encode(records)) == (records, 0)


@given(st.lists(st.tuples(names, names, st.binary(max_size=50)), max_size=6), st.data())
def test_a_cut_keeps_the_records_before_it(records: list[Record], data: st.DataObject) -> None:
    whole = encode(records)
    cut = data.draw(st.integers(0, len(whole)))
    got, code = decode(whole[:cut])
    assert got == records[: len(got)]
    left = cut - len(encode(got))
    if left == 0:
        assert code == 0
    else:
        assert code == (lib.WN_ERR_TRAILING if left < 14 else lib.WN_ERR_TRUNCATED)


@given(st.binary(max_size=300))
def test_any_bytes_decode_or_say_why(data: bytes) -> None:
    records, code = decode(data)
    assert code in (0, lib.WN_ERR_TRAILING, lib.WN_ERR_TRUNCATED)
    assert data.startswith(encode(records))
    assert (code == 0) == (len(encode(records)) == len(data))


def test_overheads_of_the_vectors() -> None:
    plain = VECTORS["overheads"]["plain"]
    assert plain["packet_overhead"] == lib.WN_NAME_LEN
    assert plain["frame_overhead"] == lib.WN_RECORD_LEN
    total = lib.WN_IP_UDP_LEN + lib.WN_NAME_LEN + lib.WN_RECORD_LEN + lib.WN_ETH_LEN
    assert total == plain["overlay_overhead_incl_ip_udp_eth"]
