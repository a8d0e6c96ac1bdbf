"""Files of bbolt in every shape that Weave Net's can have, whole and damaged."""

from __future__ import annotations

import contextlib
import random
import struct

import pytest

from control.bolt import BOLT_START_LEN, BoltError, is_bolt, read_bucket
from tests.control.bolt_file import BRANCH, LEAF, PAGE_SIZE, bolt_file, leaf_body, meta, page

VALUES = {b"ring": b"r" * 50, b"peername": b"\6\0\xff", b"empty": b""}


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize("size", [512, 4096, 16384, 65536])
def test_a_bucket_is_read_whole(inline: bool, size: int) -> None:
    assert read_bucket(bolt_file(VALUES, inline=inline, size=size), b"top", VALUES) == VALUES


def test_a_tree_of_pages() -> None:
    values = {b"key %03d" % number: b"v" * number for number in range(200)}
    assert read_bucket(bolt_file(values, split=True), b"top", values) == values


def test_a_value_longer_than_a_page() -> None:
    values = {b"a": b"short", b"b": random.Random(1).randbytes(3 * PAGE_SIZE), b"c": b"after"}
    assert read_bucket(bolt_file(values), b"top", values) == values
    assert read_bucket(bolt_file(values, split=True), b"top", values) == values


def test_what_was_committed_last_counts() -> None:
    file = bytearray(bolt_file(VALUES))
    high = len(file) // PAGE_SIZE
    file += page(high, LEAF, 1, leaf_body({b"top": (1, bytes(16) + leaf_page({b"k": b"new"}))}))
    file[PAGE_SIZE : 2 * PAGE_SIZE] = meta(1, high, 9, high + 1)
    assert read_bucket(bytes(file), b"top", [b"k"]) == {b"k": b"new"}


def leaf_page(values: dict[bytes, bytes]) -> bytes:
    """An inline page, without padding."""
    body = leaf_body({key: (0, value) for key, value in values.items()})
    return page(0, LEAF, len(values), body)[: 16 + len(body)]


@pytest.mark.parametrize("size", [512, 4096, 65536])
def test_a_commit_that_was_cut_short_leaves_the_one_before(size: int) -> None:
    file = bytearray(bolt_file(VALUES, size=size))
    file[16 + 20] ^= 1  # in the first meta
    assert read_bucket(bytes(file), b"top", VALUES) == VALUES
    file[size + 16 + 20] ^= 1
    with pytest.raises(BoltError, match="no valid meta page"):
        read_bucket(bytes(file), b"top", VALUES)


def test_what_is_not_there() -> None:
    assert read_bucket(bolt_file(VALUES), b"other", VALUES) == {}
    assert read_bucket(bolt_file(VALUES), b"top", [b"other"]) == {}


def _branch(*children: int) -> bytes:
    elements = b"".join(struct.pack("<IIQ", 16, 0, child) for child in children)
    return page(3, BRANCH, len(children), elements)


@pytest.mark.parametrize("children", [(3,), (4, 4), (4,) * 200])
def test_pages_in_a_circle_or_reached_twice(children: tuple[int, ...]) -> None:
    file = bytearray(bolt_file(VALUES))
    file[3 * PAGE_SIZE : 4 * PAGE_SIZE] = _branch(*children)
    with pytest.raises(BoltError, match="reached twice"):
        read_bucket(bytes(file), b"top", VALUES)


def test_elements_that_overlap_are_not_multiplied() -> None:
    values = {b"%04d" % number: (0, b"") for number in range(200)}
    body = bytearray(leaf_body(values))
    for at in range(0, 10 * 16, 16):
        body[at + 12 : at + 16] = (800).to_bytes(4, "little")
    file = bytearray(bolt_file({key: value for key, (_, value) in values.items()}))
    file[4 * PAGE_SIZE + 16 : 4 * PAGE_SIZE + 16 + len(body)] = body
    with pytest.raises(BoltError, match="overlap"):
        read_bucket(bytes(file), b"top", values)


def test_it_is_recognised_by_its_start() -> None:
    assert is_bolt(bolt_file(VALUES)[:BOLT_START_LEN])
    assert not is_bolt(b"SQLite format 3\0" * 2)
    assert not is_bolt(b"")


@pytest.mark.parametrize("kind", [{}, {"inline": True}, {"split": True}], ids=str)
def test_damage_is_an_error_and_nothing_else(kind: dict[str, bool]) -> None:
    whole = bolt_file(VALUES, size=512, **kind)  # type: ignore[arg-type]
    chance = random.Random(20)
    for length in range(0, len(whole), 61):
        with contextlib.suppress(BoltError):
            read_bucket(whole[:length], b"top", VALUES)
    for _ in range(3000):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            # the metas are checked by their sums: aim at what is behind them, too
            damaged[chance.randrange(chance.choice((0, 1024)), len(damaged))] = chance.choice(
                (0, 1, 2, 16, 0x7F, 0xFF, chance.randrange(256))
            )
        with contextlib.suppress(BoltError):
            read_bucket(bytes(damaged), b"top", VALUES)
