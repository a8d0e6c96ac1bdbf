"""Sealed TCP messages against the real Weave Net 2.8.1, and what happens to damaged ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from base.errors import DecryptError, NonceExhaustedError
from crypto.tcp import COUNTER_END, TAG_LEN, TcpOpener, TcpSealer

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parent.parent / "vectors" / "tcp_framing.json").read_text(encoding="utf-8")
)
KEY = bytes(range(32))


def wire_of(box: bytes) -> bytes:
    return len(box).to_bytes(4, "big") + box


@pytest.mark.parametrize("case", VECTORS["encrypted"], ids=["outbound", "inbound"])
def test_recorded_series_both_ways(case: dict[str, Any]) -> None:
    key = bytes.fromhex(case["session_key"])
    outbound = case["sender_is_outbound"]
    sealer, opener = TcpSealer(key, outbound), TcpOpener(key, not outbound)
    for message in case["messages"]:
        counter = int(message["counter"])
        if message.get("note"):
            sealer = TcpSealer(key, outbound, start=counter)
            opener = TcpOpener(key, not outbound, start=counter)
        assert sealer.counter == opener.counter == counter
        plain, wire = bytes.fromhex(message["plaintext"]), bytes.fromhex(message["wire"])
        assert wire_of(sealer.seal(plain)) == wire
        assert opener.open(wire[4:]) == plain


@pytest.mark.parametrize(
    ("outbound", "box"),
    [
        (True, "e713f1be8e102a1badd8549b54cf1a1b68"),
        (False, "259af9d099e3deceeee19a62bc58ae8f0c"),
    ],
)
def test_worked_example_of_the_specification(outbound: bool, box: str) -> None:
    key = bytes.fromhex("0d4b9a678ceac9d28537abc59c11b07b63823ced16e685c02dc8111a30064f87")
    assert TcpSealer(key, outbound).seal(b"\0").hex() == box


@given(st.lists(st.binary(max_size=200), max_size=20), st.booleans())
def test_what_is_sealed_in_order_opens_in_order(messages: list[bytes], outbound: bool) -> None:
    sealer, opener = TcpSealer(KEY, outbound), TcpOpener(KEY, not outbound)
    boxes = [sealer.seal(message) for message in messages]
    assert [len(box) for box in boxes] == [len(message) + TAG_LEN for message in messages]
    assert [opener.open(box) for box in boxes] == messages


@given(st.binary(max_size=60), st.integers(min_value=0), st.integers(0, 7))
def test_any_flipped_bit_is_noticed(message: bytes, place: int, bit: int) -> None:
    box = bytearray(TcpSealer(KEY, True).seal(message))
    box[place % len(box)] ^= 1 << bit
    opener = TcpOpener(KEY, False)
    with pytest.raises(DecryptError):
        opener.open(bytes(box))
    assert opener.counter == 0


def test_lost_repeated_and_reflected_messages_do_not_open() -> None:
    sealer = TcpSealer(KEY, True)
    first, second = sealer.seal(b"one"), sealer.seal(b"two")
    opener = TcpOpener(KEY, False)
    with pytest.raises(DecryptError, match="message 0"):
        opener.open(second)
    assert opener.open(first) == b"one"
    with pytest.raises(DecryptError, match="message 1"):
        opener.open(first)
    with pytest.raises(DecryptError):
        TcpOpener(KEY, True).open(first)


@pytest.mark.parametrize("length", range(TAG_LEN))
def test_too_short_for_a_box(length: int) -> None:
    with pytest.raises(DecryptError, match="no box"):
        TcpOpener(KEY, False).open(bytes(length))


def test_counters_never_wrap() -> None:
    sealer = TcpSealer(KEY, True, start=COUNTER_END - 1)
    opener = TcpOpener(KEY, False, start=COUNTER_END - 1)
    assert opener.open(sealer.seal(b"last")) == b"last"
    with pytest.raises(NonceExhaustedError):
        sealer.seal(b"one more")
    with pytest.raises(NonceExhaustedError):
        opener.open(bytes(32))
