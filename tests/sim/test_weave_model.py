"""The model of Weave that the simulations live beside is Weave: the vectors of the real program."""

from __future__ import annotations

from typing import Any

import pytest

from ipam.address import Range
from ipam.ring import RingError
from tests.golden import load
from tests.ipam.shapes import entries_of, range_of, ring_of, seeds_of, state
from tests.sim.weave_merge import weave_merge

VECTORS = load("ipam_ring")
MERGES = VECTORS["merge"] + [case for case in VECTORS["random_walk"] if case["op"] == "merge"]


@pytest.mark.parametrize("case", MERGES)
def test_merge(case: dict[str, Any]) -> None:
    before = case.get("ours_before") or case["before"]
    ring = ring_of(before)
    incoming = case["incoming"]
    everywhere = bool(case.get("we_have_allocations_everywhere"))

    def allocated(ranges: list[Range]) -> bool:
        return everywhere and bool(ranges)

    given = range_of(incoming), entries_of(incoming), seeds_of(incoming)
    if case["error"]:
        with pytest.raises(RingError):
            weave_merge(ring, *given, allocated)
        assert state(ring) == state(ring_of(before))
        return
    assert weave_merge(ring, *given, allocated) == case["updated"]
    assert state(ring) == state(ring_of(case.get("ours_after") or case["after"]))
