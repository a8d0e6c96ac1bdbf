"""The ring against states of the real program."""

from __future__ import annotations

from typing import Any

import pytest

from base.errors import LocalProtocolError
from ipam.address import Range, parse_address
from ipam.merge import Outcome, merge
from ipam.ring import Ring, RingError
from ipam.store import Entry
from tests.golden import load
from tests.ipam.shapes import entries_of, peer, range_of, ring_of, seeds_of, state

VECTORS = load("ipam_ring")

#: Merges whose outcome is deliberately not Weave's: the reason, our entries (None: as before).
OURS: dict[str, tuple[str, list[tuple[str, int, int, int]] | None]] = {
    "same_version_other_owner_of_our_token__no_allocations": (
        "R3: we win the tie by our name and say so by a higher version",
        [("10.0.0.0", 1, 1, 64), ("10.0.0.64", 2, 0, 64), ("10.0.0.128", 3, 0, 128)],
    ),
    "same_version_other_owner_of_our_token__with_allocations": (
        "R3: as above; nothing is lost, so nothing is refused",
        [("10.0.0.0", 1, 1, 64), ("10.0.0.64", 2, 0, 64), ("10.0.0.128", 3, 0, 128)],
    ),
    "same_version_other_owner_equal_free__no_allocations": (
        "H4, R3: equal on both sides, Weave's never agree",
        [("10.0.0.0", 1, 5, 5), ("10.0.0.64", 2, 0, 192)],
    ),
    "foreign_token_after_our_last_token__no_allocations": (
        "H3: nothing is allocated there",
        [
            ("10.0.0.0", 1, 0, 64),
            ("10.0.0.64", 2, 0, 64),
            ("10.0.0.128", 3, 0, 64),
            ("10.0.0.192", 2, 0, 64),
        ],
    ),
}


def number(index: int) -> int:
    return peer(f"ce:0{index}:00:00:00:0{index}")


def run_merge(ring: Ring, incoming: dict[str, Any], *, allocated: bool) -> Outcome:
    def used(ranges: object) -> int | None:
        assert isinstance(ranges, list)
        return ranges[0].start if ranges and allocated else None

    outcome = merge(ring, range_of(incoming), entries_of(incoming), seeds_of(incoming), used)
    ring.replace(outcome.entries, outcome.seeds, outcome.changed)
    return outcome


@pytest.mark.parametrize("case", VECTORS["merge"], ids=lambda case: case["name"])
def test_merge(case: dict[str, Any]) -> None:
    ring = ring_of(case["ours_before"])
    before = state(ring)
    if case["name"] in OURS:
        _, wanted = OURS[case["name"]]
        run_merge(ring, case["incoming"], allocated=case["we_have_allocations_everywhere"])
        assert wanted is not None
        assert ring.entries == [
            Entry(parse_address(token), number(owner), version, free)
            for token, owner, version, free in wanted
        ]
        return
    if case["error"]:
        with pytest.raises(RingError, match=_words(case["error"])):
            run_merge(ring, case["incoming"], allocated=case["we_have_allocations_everywhere"])
        assert state(ring) == before
        return
    outcome = run_merge(ring, case["incoming"], allocated=case["we_have_allocations_everywhere"])
    assert outcome.updated == case["updated"]
    assert state(ring) == state(ring_of(case["ours_after"]))


def _words(error: str) -> str:
    known = {
        "Received range differs from ours": "Incompatible IP allocation ranges",
        "Received ring was seeded differently from ours": "seeded by different peers",
    }
    return known.get(error, error)


def test_all_deliberate_differences_are_cases() -> None:
    assert set(OURS) <= {case["name"] for case in VECTORS["merge"]}


@pytest.mark.parametrize("case", VECTORS["claim_for_peers"])
def test_claim_for_peers(case: dict[str, Any]) -> None:
    wanted = ring_of(case["after"])
    ring = Ring(wanted.universe, wanted.peer)
    ring.claim_for_peers(wanted.seeds)
    assert state(ring) == state(wanted)
    ring.check()
    assert ring.owned(number(1)) == [range_of(one) for one in case["owned_by_peer_1"]]


@pytest.mark.parametrize("case", VECTORS["grant_range"], ids=lambda case: case["name"])
def test_grant(case: dict[str, Any]) -> None:
    ring = ring_of(case["before"])
    where = range_of(case, "grant_start", "grant_end_exclusive")
    if case["error"]:
        with pytest.raises(LocalProtocolError):
            ring.grant(where, peer(case["to"]))
        assert state(ring) == state(ring_of(case["before"]))
        return
    ring.grant(where, peer(case["to"]))
    assert state(ring) == state(ring_of(case["after"]))
    ring.check()
    for name, ranges in case["owned_ranges"].items():
        assert ring.owned(peer(name)) == [range_of(one) for one in ranges]


@pytest.mark.parametrize("case", VECTORS["transfer"], ids=lambda case: case["name"])
def test_transfer(case: dict[str, Any]) -> None:
    ring = ring_of(case["before"])
    gained = ring.transfer(peer(case["from"]), peer(case["to"]))
    assert sorted(gained) == sorted(range_of(one) for one in case["new_ranges"])
    assert state(ring) == state(ring_of(case["after"]))


@pytest.mark.parametrize("case", VECTORS["report_free"], ids=lambda case: case["name"])
def test_report_free(case: dict[str, Any]) -> None:
    ring = ring_of(case["before"])
    reported: dict[int, int] = {}
    last = ring.entries[-1].token
    for start, count in case["free"].items():
        # a wrapping piece is reported in halves by Weave, in one here
        token = parse_address(start)
        key = token if any(e.token == token for e in ring.entries) else last
        reported[key] = reported.get(key, 0) + count
    if case["error"]:
        with pytest.raises(LocalProtocolError):
            _report(ring, reported)
        return
    assert _report(ring, reported) == case["updated"]
    assert state(ring) == state(ring_of(case["after"]))


def _report(ring: Ring, reported: dict[int, int]) -> bool:
    changed = [ring.set_free(token, free) for token, free in reported.items()]
    return any(changed)


@pytest.mark.parametrize("case", VECTORS["queries"])
def test_queries(case: dict[str, Any]) -> None:
    ring = ring_of(case["ring"])
    assert [(e.peer, piece, e.version) for e, piece in ring.all_pieces()] == [
        (peer(one["peer"]), range_of(one), one["version"]) for one in case["all_ranges"]
    ]
    for name, ranges in case["owned_ranges"].items():
        assert ring.owned(peer(name)) == [range_of(one) for one in ranges]
    for addr, owner in case["owner_of"].items():
        assert ring.owner(parse_address(addr)) == peer(owner)
    for text, names in case["peers_with_space_sorted"].items():
        start, _, end = text.partition("-")
        where = Range(parse_address(start), parse_address(end))
        assert sorted(ring.donors(where, lambda: 0.5)) == [peer(name) for name in names]


@pytest.mark.parametrize("case", VECTORS["random_walk"])
def test_random_walk(case: dict[str, Any]) -> None:
    ring = ring_of(case["before"])
    if case["op"] == "merge":
        assert case["error"] is None
        outcome = run_merge(ring, case["incoming"], allocated=False)
        assert outcome.updated == case["updated"]
    else:
        ring.grant(range_of(case), peer(case["to"]))
    assert state(ring) == state(ring_of(case["after"]))
