"""The ranges that are ours, followed by changes, against the ring's own reckoning."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from base.names import PeerName
from control.ipam_ranges import OwnedTokens
from ipam.address import Range
from ipam.store import Change, Entry

US, THEM = 1, 2
UNIVERSE = Range(100, 200)


def _tokens(entries: dict[int, Entry]) -> set[int]:
    """Every address of ours, one by one."""
    ours = set()
    order = sorted(entries)
    for address in range(*UNIVERSE):
        below = [token for token in order if token <= address]
        if order and entries[below[-1] if below else order[-1]].peer == US:
            ours.add(address)
    return ours


_entry = st.builds(
    Entry, st.integers(100, 199), st.sampled_from([US, THEM]), st.integers(0, 3), st.just(0)
)
_change = st.builds(
    Change,
    reset=st.booleans(),
    tokens_gone=st.lists(st.integers(100, 199), max_size=3).map(tuple),
    entries=st.lists(_entry, max_size=4, unique_by=lambda entry: entry.token).map(tuple),
)


@given(st.lists(_entry, max_size=4, unique_by=lambda entry: entry.token), st.lists(_change))
def test_changes_are_followed(start: list[Entry], changes: list[Change]) -> None:
    known = {entry.token: entry for entry in start}
    owned = OwnedTokens(PeerName.from_int(US), UNIVERSE, start)
    for change in [Change(), *changes]:
        before = owned.ranges()
        moved = owned.apply(change)
        known = {} if change.reset else known
        for token in change.tokens_gone:
            known.pop(token, None)
        known |= {entry.token: entry for entry in change.entries}
        ranges = owned.ranges()
        assert {each for found in ranges for each in range(*found)} == _tokens(known)
        assert all(one.end < other.start for one, other in itertools.pairwise(ranges))
        assert moved or ranges == before


def test_what_is_merely_free_moves_nothing() -> None:
    owned = OwnedTokens(PeerName.from_int(US), UNIVERSE, [Entry(100, US, 0, 100)])
    assert not owned.apply(Change(entries=(Entry(100, US, 1, 99),)))
    assert owned.apply(Change(entries=(Entry(150, THEM, 0, 50),)))
    assert owned.ranges() == [Range(100, 150)]
