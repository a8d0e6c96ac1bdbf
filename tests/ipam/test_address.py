"""Addresses, ranges and subnets: vectors, facts, properties."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipam.address import (
    AddressError,
    Cidr,
    Range,
    biggest_aligned,
    cidrs,
    format_address,
    merge_adjacent,
    parse_address,
    parse_universe,
    remove_common,
    reverse,
    subtract,
)
from tests.golden import load
from tests.ipam.shapes import range_of

ranges = st.tuples(st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 32) - 1)).map(
    lambda pair: Range(min(pair), max(pair))
)


@pytest.mark.parametrize("case", load("ipam_gossip")["parse_subnet"], ids=lambda c: c["input"])
def test_subnets(case: dict[str, Any]) -> None:
    if case["error"]:
        with pytest.raises(AddressError) as caught:
            Cidr.parse_subnet(case["input"])
        assert str(caught.value) == case["error"]
        return
    found = Cidr.parse_subnet(case["input"])
    assert found.range == range_of(case, "range_start", "range_end_exclusive")
    assert found.host_range == range_of(case, "host_range_start", "host_range_end_exclusive")


@pytest.mark.parametrize(
    "text", ["", "1.2.3", "1.2.3.4.5", "1.2.3.256", "1.2.3.-4", "01.2.3.4", "٣.1.1.1"]
)
def test_bad_addresses(text: str) -> None:
    with pytest.raises(AddressError):
        parse_address(text)
    with pytest.raises(AddressError, match="invalid CIDR address"):
        Cidr.parse(f"{text}/24")
    with pytest.raises(AddressError, match="invalid CIDR address"):
        Cidr.parse(f"{text}:/24")  # a colon does not make it IPv6


@pytest.mark.parametrize(
    "text", ["::g/64", "1:2:3:4:5:6:7:8:9/24", "::1/129", "fe80::1%eth0/64", "10.0.0.1:80/8", "::/"]
)
def test_what_only_looks_like_v6_is_no_cidr(text: str) -> None:
    with pytest.raises(AddressError, match=r"^invalid CIDR address: "):
        Cidr.parse(text)


def test_zeros_may_lead_a_prefix_length() -> None:
    """As in Go, and the text of an error is the user's."""
    assert Cidr.parse("10.32.0.0/0012") == Cidr(0x0A200000, 12)
    assert Cidr.parse("10.32.0.0/00").prefix_len == 0
    for text in ("10.32.0.0/0033", "10.32.0.0/", "10.32.0.0/0x8", "10.32.0.0/٨"):
        with pytest.raises(AddressError, match=r"^invalid CIDR address: "):
            Cidr.parse(text)
    with pytest.raises(AddressError, match=r"not all zero: 10\.0\.0\.1/024$"):
        Cidr.parse_subnet("10.0.0.1/024")


def test_size_comes_before_bits() -> None:
    with pytest.raises(AddressError, match="smaller than minimum"):
        Cidr.parse_subnet("10.0.0.1/31")


def test_the_end_of_all_addresses() -> None:
    with pytest.raises(AddressError, match=r"255\.255\.255\.255"):
        parse_universe("255.255.255.0/24")
    assert parse_universe("10.32.0.0/12").size == 1_048_576


def test_blocks() -> None:
    for start, end, wanted in (
        (0, 1, (0, 1)),
        (1, 3, (1, 2)),
        (1, 4, (2, 4)),
        (0, 0x7FFFFFFF, (0, 0x40000000)),
        (0xFFFFFFFE, 0xFFFFFFFF, (0xFFFFFFFE, 0xFFFFFFFF)),
        (5, 5, (5, 5)),
    ):
        assert biggest_aligned(Range(start, end)) == wanted


@settings(max_examples=300, deadline=None)
@given(ranges)
def test_block_properties(where: Range) -> None:
    block = biggest_aligned(where)
    assert where.start <= block.start <= block.end <= where.end
    if where.size:
        assert block.size & (block.size - 1) == 0
        assert block.start % block.size == 0
        assert block.size * 4 > where.size


@settings(max_examples=300, deadline=None)
@given(ranges)
def test_cover_properties(where: Range) -> None:
    blocks = list(cidrs(where))
    assert all(block.is_subnet for block in blocks)
    joined = merge_adjacent([block.range for block in blocks])
    assert joined == ([where] if where.size else [])
    assert [Cidr.parse(str(block)) for block in blocks] == blocks


def test_cover() -> None:
    where = Range(parse_address("10.0.0.1"), parse_address("10.0.0.9"))
    assert [str(one) for one in cidrs(where)] == [
        *("10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/30", "10.0.0.8/32"),
    ]
    assert Cidr.parse("10.0.0.0/24").range.end == parse_address("10.0.1.0")


def test_helpers() -> None:
    low, mid, high = (Cidr.parse(f"10.0.{n}.0/24") for n in range(3))
    assert remove_common([low, mid], [mid, high]) == ([low], [high])
    one, two, three = Range(0, 128), Range(128, 256), Range(512, 768)
    assert merge_adjacent([one, two, three]) == [Range(0, 256), three]
    assert one.overlaps(Range(127, 130))
    assert not one.overlaps(two)
    assert str(one) == "0.0.0.0-0.0.0.127"
    assert Range(1, 4).as_cidr_text() == "0.0.0.1-0.0.0.3"
    assert Range(0, 0).as_cidr_text() == "0.0.0.0/32"  # of a ring that tells no range
    assert format_address(reverse(parse_address("10.1.2.3"))) == "3.2.1.10"


@settings(max_examples=300, deadline=None)
@given(st.sets(st.integers(0, 40)), st.sets(st.integers(0, 40)))
def test_subtract(one: set[int], two: set[int]) -> None:
    def runs(values: set[int]) -> list[Range]:
        return merge_adjacent([Range(value, value + 1) for value in sorted(values)])

    assert merge_adjacent(subtract(runs(one), runs(two))) == runs(one - two)
