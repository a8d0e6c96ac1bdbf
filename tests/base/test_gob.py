"""Gob against streams of Go's own encoder, and against bytes that nobody encoded."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from base import gob
from mesh.topology import encode_update
from tests.golden import load

SCALARS = load("gob_basics")["scalars"]
COMPOSITES = {entry["what"]: entry for entry in load("gob_basics")["composites"]}


def _scalar(vector: dict[str, Any]) -> Any:
    if vector["go_kind"] == "bytes":
        return bytes.fromhex(vector["value_hex"])
    value = vector["value"]
    return int(value) if vector["go_kind"] in ("uint", "int") else value


def _read_all(stream: bytes) -> list[Any]:
    decoder = gob.Decoder(stream)
    values = []
    while True:
        try:
            values.append(decoder.next())
        except gob.GobEndError:
            return values


@pytest.mark.parametrize("vector", SCALARS, ids=lambda vector: vector["stream"][:24])
def test_scalars_both_ways(vector: dict[str, Any]) -> None:
    stream = bytes.fromhex(vector["stream"])
    value = _scalar(vector)
    assert _read_all(stream) == [value]
    encode = getattr(gob, f"{vector['go_kind']}_value")
    assert encode(value) == stream


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return f"hex:{value.hex()}"
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


@pytest.mark.parametrize(
    "what",
    [
        "slice of strings",
        "empty slice of strings",
        "slice of uint64",
        "map string to string, one pair",
        "slice of struct inner with an all-zero element",
    ],
)
def test_one_composite(what: str) -> None:
    vector = COMPOSITES[what]
    (value,) = _read_all(bytes.fromhex(vector["stream"]))
    assert _plain(value) == vector["value"]


def test_several_values_in_one_stream() -> None:
    mixed = COMPOSITES["two strings then a uint then a bytes in one stream"]
    assert _read_all(bytes.fromhex(mixed["stream"])) == ["ab", "cd", 5, b"\1\2"]
    twice = COMPOSITES["the same map type twice in one stream (type described once)"]
    assert _read_all(bytes.fromhex(twice["stream"])) == twice["value"]


def test_struct_with_every_kind_of_field() -> None:
    vector = COMPOSITES["struct outer, all fields set"]
    (value,) = _read_all(bytes.fromhex(vector["stream"]))
    assert value["KMap"] == {(("A", 1), ("B", "q")): 9}
    assert value["UMap"] == {7: "x"}
    expected = {key: item for key, item in vector["value"].items() if key not in ("KMap", "UMap")}
    assert {key: _plain(value[key]) for key in expected} == expected


def test_zero_fields_are_left_out_but_structs() -> None:
    vector = COMPOSITES["struct outer, all zero (all type descriptions still sent)"]
    assert _read_all(bytes.fromhex(vector["stream"])) == [{"In": {}}]


def test_every_composite_decodes() -> None:
    for vector in COMPOSITES.values():
        assert _read_all(bytes.fromhex(vector["stream"]))


def test_map_encoder_writes_what_go_writes() -> None:
    vector = COMPOSITES["map string to string, one pair"]
    # Go's id in the vector is 64, ours 65
    ours = gob.string_map_stream({"k": "v"}).hex()
    assert ours.replace("0eff81", "0d7f").replace("ff82", "ff80") == vector["stream"]


def test_clean_end_and_cut_are_told_apart() -> None:
    stream = bytes.fromhex(COMPOSITES["slice of strings"]["stream"])
    for length in range(1, len(stream)):
        decoder = gob.Decoder(stream[:length])
        with pytest.raises(gob.GobError) as caught:
            decoder.next()
        at_border = length == 13
        assert isinstance(caught.value, gob.GobEndError) == at_border
        if not at_border:
            assert str(caught.value) == "unexpected EOF"


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        ("0cff83020102ff840001060000" * 2, "duplicate type"),
        ("0a05020102060001060000", "duplicate type"),  # id 3 is predefined
        ("0dff83020102ff84000106000000", "extra data"),
        ("04ff840000", "not defined"),
        ("03060105", "non-zero delta"),
        ("0406000505", "extra data"),
        ("02f700", "out of range"),
        ("03100000", "not defined"),  # an interface value
        ("03060080", "out of range"),
    ],
)
def test_damaged_streams(stream: str, reason: str) -> None:
    with pytest.raises(gob.GobError, match=reason):
        gob.Decoder(bytes.fromhex(stream)).next()


def test_text_that_is_no_text_can_still_be_printed() -> None:
    stream = gob.message(gob.STRING, b"\0" + gob.encode_bytes(b"a\xff\xed\xa0\x80"))
    text = gob.Decoder(stream).next_string()
    assert text.startswith("a\ufffd")
    text.encode("utf-8")
    assert gob.Decoder(gob.string_value("\udcff")).next_string() == "?"


def test_nesting_is_limited() -> None:
    recursive = gob.define_slice(65, 65) + gob.message(65, b"\0" + b"\1" * 1000 + b"\0")
    with pytest.raises(gob.GobError, match="nested too deeply"):
        gob.Decoder(recursive).next()


def test_a_map_of_numbers_without_order_can_be_a_key() -> None:
    one, two = gob.encode_uint(0xF03F), gob.encode_uint(0x40)  # 1.0 and 2.0
    zero = gob.encode_uint(0)
    inner = gob.encode_uint(2) + two + zero + gob.encode_int(5) + one + zero + gob.encode_int(6)
    body = b"\0" + gob.encode_uint(1) + inner + gob.encode_int(7)
    stream = gob.define_map(65, 66, gob.INT) + gob.define_map(66, gob.COMPLEX, gob.INT)
    decoded = gob.Decoder(stream + gob.message(65, body)).next()
    assert decoded == {((2 + 0j, 5), (1 + 0j, 6)): 7}


def test_count_beyond_the_bytes_costs_nothing() -> None:
    stream = gob.define_slice(65, gob.UINT) + gob.message(65, b"\0" + gob.encode_uint(1 << 40))
    with pytest.raises(gob.GobError, match="unexpected EOF"):
        gob.Decoder(stream).next()


def test_wrong_kinds_are_refused() -> None:
    with pytest.raises(gob.GobError):
        gob.Decoder(gob.uint_value(1)).next_string()
    with pytest.raises(gob.GobError):
        gob.Decoder(gob.bool_value(True)).next_uint()
    with pytest.raises(gob.GobError):
        gob.Decoder(gob.int_value(-1)).next_uint()
    with pytest.raises(gob.GobError):
        gob.string_map(gob.Decoder(gob.string_value("x")).next())


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_raise_the_remote_error(data: bytes) -> None:
    try:
        _read_all(data)
    except gob.GobError:
        pass


@given(st.data())
def test_damaged_real_streams_decode_or_raise_the_remote_error(data: st.DataObject) -> None:
    vector = data.draw(st.sampled_from([entry["stream"] for entry in COMPOSITES.values()]))
    stream = bytearray(bytes.fromhex(vector))
    for _ in range(data.draw(st.integers(1, 3))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    try:
        _read_all(bytes(stream))
    except gob.GobError:
        pass


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_signed_numbers_survive(value: int) -> None:
    assert gob.Decoder(gob.int_value(value)).next() == value


def test_no_peer_no_bytes() -> None:
    assert encode_update([]) == b""
