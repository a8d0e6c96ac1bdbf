"""Space and its ranges against the real program and against sets."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from base.errors import LocalProtocolError
from ipam.address import Range, biggest_aligned, cidrs, parse_address
from ipam.journal import Journal
from ipam.rangeset import RangeSet
from ipam.space import Space
from tests.golden import load
from tests.ipam.shapes import range_of

VECTORS = load("ipam_space")


def bounds(items: list[str]) -> list[int]:
    return list(map(parse_address, items))


def space_of(state: dict[str, Any]) -> Space:
    space = Space(Journal())
    free, owned = bounds(state["free_boundaries"]), bounds(state["owned_boundaries"])
    for start, end in zip(free[::2], free[1::2], strict=True):
        space.add(Range(start, end))
    for start, end in zip(owned[::2], owned[1::2], strict=True):
        space.add(Range(start, end))
        for addr in range(start, end):
            space.claim(addr)
    return space


def has_state(space: Space, state: dict[str, Any]) -> bool:
    return space.free_boundaries == bounds(
        state["free_boundaries"]
    ) and space.ours_boundaries == bounds(state["owned_boundaries"])


def donate(space: Space, where: Range) -> Range | None:
    """What Weave's space does in one step, its grants in two."""
    chunk = space.biggest_to_give(where)
    if chunk is not None:
        space.drop(chunk)
    return chunk


@pytest.mark.parametrize("case", VECTORS["donate"])
def test_donate(case: dict[str, Any]) -> None:
    space = space_of(case["before"])
    found = donate(space, range_of(case["asked"]))
    assert found == (range_of(case["donated"]) if case["ok"] else None)
    assert has_state(space, case["after"])


def test_operation_sequence() -> None:
    space = Space(Journal())
    universe = Range(parse_address("10.32.0.0"), parse_address("10.33.0.0"))
    for step in VECTORS["operation_sequence"]:
        _apply(space, step["op"], step["args"], step["result"])
        assert has_state(space, step["state_after"]), step
        assert space.free_in(universe) == step["free_count"]
        assert space.ours_total == step["owned_count"]


def _apply(space: Space, op: str, args: dict[str, Any], result: dict[str, Any]) -> None:
    if op == "add":
        start = parse_address(args["start"])
        space.add(Range(start, start + args["size"]))
    elif op == "count_free_in_range":
        assert space.free_in(range_of(args)) == result["count"]
    elif op == "allocate":
        found = space.allocate(range_of(args), 0)
        assert found == (parse_address(result["address"]) if result["ok"] else None)
    elif op == "donate":
        chunk = donate(space, range_of(args))
        assert chunk == (range_of(result["donated"]) if result["ok"] else None)
    else:
        addr = parse_address(args["address"])
        if result["error"] != "<nil>":
            with pytest.raises(LocalProtocolError, match=f"^{re.escape(result['error'])}$"):
                _one(space, op, addr)
        else:
            _one(space, op, addr)


def _one(space: Space, op: str, addr: int) -> None:
    if op == "claim":
        space.claim(addr)
    else:
        assert op == "free"
        space.free(addr, 0, 0)


@pytest.mark.parametrize("case", VECTORS["ranges_to_cidrs"])
def test_ranges(case: dict[str, Any]) -> None:
    where = range_of(case["range"])
    assert where.as_cidr_text() == case["as_cidr_string"]
    assert list(map(str, cidrs(where))) == case["cidrs"]
    assert biggest_aligned(where) == range_of(case["biggest_aligned"])


# --- facts and properties ------------------------------------------------------------------------


def test_boundary_lists() -> None:
    ranges = RangeSet()
    for start in (100, 700, 300, 400, 600, 500):
        ranges.add(start, start + 100)
    assert ranges.boundaries == [100, 200, 300, 800]
    wanted = [
        [100, 200, 300, 500, 600, 800],
        [100, 200, 300, 500, 700, 800],
        [100, 200, 300, 400, 700, 800],
        [100, 200, 700, 800],
        [100, 200],
        [],
    ]
    for start, left in zip((500, 600, 400, 300, 700, 100), wanted, strict=True):
        ranges.remove(start, start + 100)
        assert ranges.boundaries == left


def test_empty_space_gives_nothing() -> None:
    space = Space(Journal())
    assert space.allocate(Range(0, 1000), 0) is None
    assert donate(space, Range(0, 1000)) is None


@pytest.mark.parametrize("where", [Range(150, 150), Range(150, 120), Range(250, 150)], ids=str)
def test_nothing_is_given_of_no_range(where: Range) -> None:
    space = Space(Journal())
    space.add(Range(100, 200))
    assert space.free_in(where) == 0
    assert space.allocate(where, 0) is None
    assert donate(space, where) is None


def test_first_steps() -> None:
    space = Space(Journal())
    space.add(Range(100, 200))
    assert space.allocate(Range(0, 1000), 0) == 100
    space.claim(150)
    space.free(100, 0, 0)
    with pytest.raises(LocalProtocolError):
        space.free(100, 0, 0)
    with pytest.raises(LocalProtocolError):
        space.free(99, 0, 0)
    assert donate(space, Range(0, 1000)) == Range(0xA0, 0xC0)


def test_one_of_three() -> None:
    space = Space(Journal())
    space.add(Range(1, 2))
    assert donate(space, Range(0, 3)) == Range(1, 2)
    assert donate(space, Range(0, 3)) is None


def test_counting() -> None:
    base = parse_address("10.0.3.4")
    space = Space(Journal())
    space.add(Range(base, base + 20))
    space.allocate(Range(base, base + 20), 0)
    space.allocate(Range(base, base + 20), 0)
    assert space.free_in(Range(base, base + 15)) == 13
    assert space.free_in(Range(base, base + 20)) == 18


def test_biggest_of_what_was_freed() -> None:
    base = parse_address("10.0.3.16")
    space = Space(Journal())
    whole = Range(base, base + 16)
    space.add(whole)
    for _ in range(16):
        space.allocate(whole, 0)

    def freed(*lasts: int) -> tuple[int, int]:
        for last in lasts:
            space.free(base - 16 + last, 0, 0)
        chunk = space.biggest_to_give(whole)
        assert chunk is not None
        # the whole block before the halving that donating does
        runs = [biggest_aligned(run) for run in RangeSet(_free(space)).clipped(whole)]
        best = max(reversed(runs), key=lambda run: run.size)
        return best.start - base + 16, best.size

    assert freed(23) == (23, 1)
    assert freed(31) == (31, 1)
    assert freed(29, 30) == (30, 2)
    assert freed(21, 22, 24) == (30, 2)
    assert space.owned_ranges() == [whole]


def _free(space: Space) -> list[Range]:
    edges = space.free_boundaries
    return [Range(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def test_all_is_given_away_in_the_end() -> None:
    base = parse_address("10.0.1.0")
    space = Space(Journal())
    whole = Range(base, base + 64)
    space.add(whole)
    given = []
    while (chunk := donate(space, whole)) is not None:
        given.append(chunk)
    assert given[0] == Range(base + 32, base + 64)
    assert [one.size for one in given] == [32, 16, 8, 4, 2, 1, 1]


def test_donation_beside_a_used_address() -> None:
    base = parse_address("10.0.1.0")
    space = Space(Journal())
    space.add(Range(base, base + 48))
    space.claim(base + 47)
    assert donate(space, Range(base, base + 48)) == Range(base + 16, base + 32)
    assert space.free_in(Range(base, base + 48)) == 31
    assert [run.size for run in _free(space)] == [16, 15]


def test_freed_addresses_rest_while_there_are_others() -> None:
    space = Space(Journal())
    where = Range(0, 4)
    space.add(where)
    assert [space.allocate(where, 0) for _ in range(2)] == [0, 1]
    space.free(0, 60, 0)
    space.free(1, 61, 1)
    assert space.free_in(where) == 4
    assert [space.allocate(where, 2) for _ in range(3)] == [2, 3, 0]
    space.free(0, 62, 2)
    assert space.allocate(where, 61) == 1
    assert space.allocate(where, 63) == 0
    assert space.allocate(where, 63) is None


sets = st.lists(st.tuples(st.booleans(), st.integers(0, 70), st.integers(0, 20)), max_size=30)


@settings(max_examples=200, deadline=None)
@given(sets, st.integers(0, 70), st.integers(0, 30))
def test_range_sets_are_sets(script: list[tuple[bool, int, int]], start: int, size: int) -> None:
    ranges, model = RangeSet(), set()
    for add, low, count in script:
        if add:
            ranges.add(low, low + count)
            model |= set(range(low, low + count))
        else:
            ranges.remove(low, low + count)
            model -= set(range(low, low + count))
    where = Range(start, start + size)
    inside = sorted(model & set(range(*where)))
    assert [addr for run in ranges for addr in range(*run)] == sorted(model)
    assert [addr for run in ranges.clipped(where) for addr in range(*run)] == inside
    assert ranges.count_in(where) == len(inside)
    assert ranges.first_in(where) == (inside[0] if inside else None)
    assert ranges.covers(where) == (len(inside) == size)
    edges = ranges.boundaries
    assert edges == sorted(set(edges))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 1 << 30))
def test_spaces(seed: int) -> None:
    """Properties 7 and 13, and that undoing leads back."""
    rng = random.Random(seed)
    journal = Journal()
    space = Space(journal)
    space.add(Range(10, 100))
    now = 0.0
    for _ in range(60):
        now += rng.random()
        where = Range(*sorted(rng.sample(range(110), 2)))
        before = space.free_in(where)
        journal.seal()
        snapshot = space.free_boundaries, space.ours_boundaries, space.ours_total
        match rng.randrange(3):
            case 0:
                addr = space.allocate(where, now)
                assert (addr is None) == (before == 0)
            case 1 if space.ours_total:
                space.free(rng.choice(space.used_in(Range(0, 110))), now + rng.random() * 9, now)
            case _:
                chunk = donate(space, where)
                assert (chunk is None) == (before == 0)
                if chunk is not None:
                    assert where.start <= chunk.start < chunk.end <= where.end
                    assert chunk.size & (chunk.size - 1) == 0
                    assert chunk.start % chunk.size == 0
                    assert chunk.size <= (before + 1) // 2
                    assert space.free_in(where) == before - chunk.size
        free = set()
        for run in RangeSet(_free(space)):
            free |= set(range(*run))
        ours = set(space.used_in(Range(0, 200)))
        assert not ours & free
        assert len(ours) == space.ours_total
        if rng.random() < 0.3:
            journal.commit()
            journal.rollback()
            assert (space.free_boundaries, space.ours_boundaries, space.ours_total) == snapshot
