"""The replay window against the real Weave Net 2.8.1, and against a set that forgets nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from native import ffi, lib

pytestmark = pytest.mark.native

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parent.parent / "vectors" / "sleeve_replay.json").read_text(encoding="utf-8")
)
BITS = 20
SIZE = 1 << BITS


def new_window() -> Any:
    return ffi.gc(lib.wn_window_new(), lib.wn_window_free)


@pytest.mark.parametrize("case", VECTORS["window_cases"], ids=lambda case: case["name"])
def test_recorded_sequences(case: dict[str, Any]) -> None:
    assert case["window_size_bits"] == lib.WN_WINDOW_BITS == BITS
    window = new_window()
    for step in case["steps"]:
        assert bool(lib.wn_window_accept(window, int(step["seq"]))) == step["accepted"], step
        assert lib.wn_window_current(window) == int(step["current_window"])


class Model:
    """Section 5.4 with sets."""

    def __init__(self) -> None:
        self.current = 0
        self.used: set[int] = set()

    def accept(self, sequence: int) -> bool:
        number = sequence >> BITS
        if number < self.current - 1:
            return False
        self.current = max(self.current, number)
        fresh = sequence not in self.used
        self.used.add(sequence)
        return fresh


near = st.builds(
    lambda window, offset: window * SIZE + offset, st.integers(0, 6), st.integers(0, 5)
)
edges = st.builds(
    lambda window, back: window * SIZE - 1 - back, st.integers(1, 6), st.integers(0, 3)
)
far = st.integers(0, 2**63 - 1)


@given(st.lists(st.one_of(near, edges, far), max_size=60))
def test_same_as_the_model(sequences: list[int]) -> None:
    window, model = new_window(), Model()
    for sequence in sequences:
        assert bool(lib.wn_window_accept(window, sequence)) == model.accept(sequence)
        assert lib.wn_window_current(window) == model.current


def test_memory_follows_use() -> None:
    window = new_window()
    quiet = lib.wn_window_bytes(window)
    assert quiet < 2048
    for sequence in range(100):
        lib.wn_window_accept(window, sequence)
    assert lib.wn_window_bytes(window) - quiet == 2048
    for sequence in range(0, 2 * SIZE, 1 << 14):
        lib.wn_window_accept(window, sequence)
    full = lib.wn_window_bytes(window)
    assert full - quiet == 2 * SIZE // 8
    lib.wn_window_accept(window, 10 * SIZE)
    assert lib.wn_window_bytes(window) - quiet == 2048
