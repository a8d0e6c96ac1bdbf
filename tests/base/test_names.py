"""Peer names against the vectors of the real program; MACs and nicknames."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from base.names import UNKNOWN_PEER, Mac, PeerName, format_peer, parse_nickname

VECTORS = json.loads(
    (Path(__file__).parents[1] / "vectors" / "peer_names.json").read_text(encoding="utf-8")
)["peer_name_strings"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: repr(vector["input"]))
def test_peer_name_text(vector: dict[str, str | None]) -> None:
    text = vector["input"]
    assert text is not None
    if vector["error"] is not None:
        with pytest.raises(ValueError) as caught:
            PeerName.parse(text)
        assert str(caught.value) == vector["error"]
        return
    name = PeerName.parse(text)
    assert name.octets.hex() == vector["bytes"]
    assert str(name) == vector["string"]
    assert str(int(name)) == vector["uint64"]
    assert PeerName.from_int(int(name)) == name


def test_the_vectors_cover_both_outcomes() -> None:
    assert len(VECTORS) > 30
    assert {vector["error"] is None for vector in VECTORS} == {True, False}


@given(st.binary(min_size=6, max_size=6), st.binary(min_size=6, max_size=6))
def test_order_is_numeric_and_text_round_trips(left: bytes, right: bytes) -> None:
    one, two = PeerName(left), PeerName(right)
    assert (one < two) == (int(one) < int(two))
    assert PeerName.parse(str(one)) == one
    assert bytes(one) == left


@given(st.text(max_size=24))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        name = PeerName.parse(text)
    except ValueError:
        return
    assert PeerName.parse(str(name)) == name


@pytest.mark.parametrize("text", ["1:2:3:4::5", "1::2::3", ":::1", "1:::2", "::g", "1:2:3:4:5:6::"])
def test_peer_name_refused(text: str) -> None:
    with pytest.raises(ValueError, match="invalid peer name format"):
        PeerName.parse(text)


@pytest.mark.parametrize("octets", [b"", b"12345", b"1234567"])
def test_wrong_length(octets: bytes) -> None:
    with pytest.raises(ValueError):
        PeerName(octets)
    with pytest.raises(ValueError):
        Mac(octets)


@pytest.mark.parametrize("value", [-1, 1 << 48])
def test_number_out_of_range(value: int) -> None:
    with pytest.raises(ValueError):
        PeerName.from_int(value)


def test_mac() -> None:
    mac = Mac.parse("62:66:3F:b7:2e:c1")
    assert str(mac) == "62:66:3f:b7:2e:c1"
    assert not mac.is_multicast
    assert Mac.parse("ff:ff:ff:ff:ff:ff").is_multicast
    for text in ("6:66:3f:b7:2e:c1", "62-66-3f-b7-2e-c1", "62:66:3f:b7:2e", "::1", ""):
        with pytest.raises(ValueError):
            Mac.parse(text)


def test_bridge_mac_loses_the_multicast_bit() -> None:
    assert str(Mac.of_bridge(PeerName.parse("ff:01::"))) == "fe:01:00:00:00:00"
    assert str(Mac.of_bridge(PeerName.parse("ce::1"))) == "ce:00:00:00:00:01"


def test_nickname() -> None:
    assert parse_nickname("host-1.example") == "host-1.example"
    for text in ("", "a b", "a\nb", "x" * 256, "a(b)"):
        with pytest.raises(ValueError):
            parse_nickname(text)
    assert format_peer(UNKNOWN_PEER, "nobody") == "00:00:00:00:00:00(nobody)"
