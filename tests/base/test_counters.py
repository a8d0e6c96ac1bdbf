"""The Python list of counters is the C header's list."""

from __future__ import annotations

import re
from pathlib import Path

from base.counters import COUNTER_NAMES, DROP_REASONS, Counter

HEADER = Path(__file__).parents[2] / "native" / "include" / "weft_counters.h"


def test_same_names_in_the_same_order_as_the_header() -> None:
    pairs = re.findall(r"\bX\((\w+),\s*(\w+)\)", HEADER.read_text(encoding="ascii"))
    assert pairs, "the header's list was not found"
    assert tuple(name for _, name in pairs) == COUNTER_NAMES
    assert [c_name for c_name, _ in pairs] == [counter.name for counter in Counter]


def test_every_counter_says_what_it_means() -> None:
    for counter in Counter:
        assert counter.value == counter.name.lower()
        assert 10 < len(counter.meaning) < 100
        assert "\n" not in counter.meaning


def test_drop_reasons() -> None:
    assert Counter.DROP_NO_ROUTE in DROP_REASONS
    assert Counter.FDB_FULL not in DROP_REASONS
    assert all(reason.value.startswith("drop_") for reason in DROP_REASONS)
