"""Properties and facts of ring and merge."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from base.errors import LocalProtocolError
from ipam.address import Range, merge_adjacent
from ipam.merge import MergeConflictError, Outcome, merge
from ipam.ring import Ring, RingError
from ipam.store import Entry

WHOLE = Range(0x0A000000, 0x0A000100)
A, B, C = 1, 2, 3

seeds = st.integers(0, 1 << 32)


def at(last: int) -> int:
    return WHOLE.start + last


def ring(peer: int, *entries: tuple[int, int, int, int]) -> Ring:
    return Ring(WHOLE, peer, [Entry(at(t), p, v, f) for t, p, v, f in entries])


def rows(of: Ring) -> list[tuple[int, int, int, int]]:
    return [(e.token - WHOLE.start, e.peer, e.version, e.free) for e in of.entries]


def take(mine: Ring, theirs: Ring, used: set[int] | None = None) -> Outcome:
    def first(ranges: Sequence[Range]) -> int | None:
        inside = (addr for one in ranges for addr in range(*one))
        return next((addr for addr in inside if addr in (used or set())), None)

    outcome = merge(mine, theirs.universe, theirs.entries, theirs.seeds, first)
    mine.replace(outcome.entries, outcome.seeds, outcome.changed)
    mine.check()
    return outcome


def random_ring(rng: random.Random, peer: int, peers: int = 4) -> Ring:
    tokens = sorted({WHOLE.start, *rng.choices(range(*WHOLE), k=rng.randrange(6))})
    found = Ring(
        WHOLE, peer, [Entry(t, rng.randint(1, peers), rng.randrange(4), 0) for t in tokens]
    )
    for index, entry in enumerate(found.entries):
        room = sum(piece.size for piece in found.pieces(index))
        found.entries[index] = entry._replace(free=rng.randint(0, room))
    return found


@pytest.mark.parametrize(
    ("before", "grant", "to", "after"),
    [
        ([(0, A, 0, 256)], (0, 256), B, [(0, B, 1, 256)]),
        ([(0, A, 1, 256)], (10, 256), B, [(0, A, 2, 10), (10, B, 0, 246)]),
        (
            [(0, B, 2, 10), (10, A, 0, 246)],
            (245, 256),
            B,
            [(0, B, 2, 10), (10, A, 1, 235), (245, B, 0, 11)],
        ),
        (
            [(0, A, 2, 10), (10, A, 0, 235), (245, A, 0, 10)],
            (10, 256),
            B,
            [(0, A, 2, 10), (10, B, 1, 235), (245, B, 1, 10)],
        ),
        ([(0, A, 0, 256)], (10, 245), B, [(0, A, 1, 10), (10, B, 0, 235), (245, A, 0, 11)]),
        (
            [(0, A, 2, 10), (10, A, 0, 118), (128, A, 0, 127)],
            (10, 245),
            B,
            [(0, A, 2, 10), (10, B, 1, 118), (128, B, 1, 117), (245, A, 0, 11)],
        ),
    ],
)
def test_worked_grants(
    before: list[tuple[int, int, int, int]],
    grant: tuple[int, int],
    to: int,
    after: list[tuple[int, int, int, int]],
) -> None:
    mine = ring(A, *before)
    mine.grant(Range(at(grant[0]), at(grant[1])), to)
    assert rows(mine) == after


def test_a_grant_between_tokens_of_others_cuts_no_free_count_of_theirs() -> None:
    mine = ring(B, (0, B, 0, 250), (250, B, 0, 5))
    mine.grant(Range(at(10), at(245)), A)
    assert rows(mine) == [(0, B, 1, 10), (10, A, 0, 235), (245, B, 0, 5), (250, B, 0, 5)]


@settings(max_examples=80, deadline=None)
@given(seeds)
def test_grant_properties(seed: int) -> None:
    """Property 10: inside it is the new owner's, outside nothing changes."""
    rng = random.Random(seed)
    mine = random_ring(rng, A)
    owned = mine.owned_joined(A)
    if not owned:
        return
    piece = rng.choice(owned)
    low, high = sorted(rng.sample(range(piece.start, piece.end + 1), 2))
    before = [mine.owner(addr) for addr in range(*WHOLE)]
    mine.grant(Range(low, high), C)
    mine.check()
    for addr, owner in enumerate(before, WHOLE.start):
        assert mine.owner(addr) == (C if low <= addr < high else owner)
    assert sum(piece.size for _, piece in mine.all_pieces()) == WHOLE.size


@settings(max_examples=100, deadline=None)
@given(seeds)
def test_merge_properties(seed: int) -> None:
    """Properties 1, 2, 4, 5 and 8, and that nothing changes on an error."""
    rng = random.Random(seed)
    mine, theirs = random_ring(rng, A), random_ring(rng, B)
    before = list(mine.entries)
    assert take(mine, mine).changed == set()
    owned = [addr for piece in mine.owned(A) for addr in range(*piece)]
    used = set(rng.sample(owned, min(len(owned), rng.randrange(4))))
    try:
        outcome = take(mine, theirs, used)
    except MergeConflictError:
        assert mine.entries == before
        return
    after = {addr for piece in mine.owned(A) for addr in range(*piece)}
    assert used <= after
    lost = {addr for piece in outcome.lost for addr in range(*piece)}
    gained = {addr for piece in outcome.gained for addr in range(*piece)}
    assert after == set(owned) - lost | gained
    # a tie is broken by free counts, and those may have been cut in the first round
    take(mine, theirs)
    again = take(mine, theirs)
    assert (again.updated, again.lost, again.gained) == (False, [], [])


@settings(max_examples=80, deadline=None)
@given(seeds)
def test_two_rings_converge_where_nothing_is_in_use(seed: int) -> None:
    rng = random.Random(seed)
    one, two = random_ring(rng, A, 2), random_ring(rng, B, 2)
    for _ in range(6):
        take(one, two)
        take(two, one)
    assert [e[:3] for e in one.entries] == [e[:3] for e in two.entries]


def test_a_ring_comes_into_empty_ones() -> None:
    mine = ring(A, (0, A, 2, 60), (128, B, 0, 128))
    mine.seeds = (A, B)
    for peer in (B, C):
        copy = Ring(WHOLE, peer)
        outcome = take(copy, mine)
        assert outcome.updated
        assert (rows(copy), copy.seeds) == (rows(mine), mine.seeds)
        assert outcome.gained == copy.owned_joined(peer)
        assert take(copy, mine).changed == set()


@pytest.mark.parametrize("grant", [(0, 64), (32, 200), (128, 256), (64, 130)])
def test_the_other_side_follows_a_split(grant: tuple[int, int]) -> None:
    """At the beginning, in the middle, at the end, over a token."""
    for before in ([(0, A, 0, 256)], [(0, A, 3, 9), (130, A, 0, 126)]):
        mine, other = ring(A, *before), ring(B, *before)
        mine.grant(Range(at(grant[0]), at(grant[1])), B)
        gained = take(other, mine).gained
        assert rows(other) == rows(mine)
        assert gained == [Range(at(grant[0]), at(grant[1]))]
        assert take(mine, other).changed == set()


def test_newer_versions_of_our_token() -> None:
    mine = ring(A, (0, A, 3, 256))
    split = ring(B, (0, A, 4, 128), (128, B, 0, 128))
    assert take(mine, split).lost == [Range(at(128), at(256))]
    assert rows(mine) == [(0, A, 5, 128), (128, B, 0, 128)]
    mine = ring(A, (0, A, 3, 256))
    assert take(mine, ring(B, (0, B, 4, 256))).lost == [WHOLE]


def test_cross_grants_meet() -> None:
    one = ring(A, (0, A, 0, 128), (128, B, 0, 128))
    two = ring(B, (0, A, 0, 128), (128, B, 0, 128))
    one.grant(Range(at(0), at(64)), B)
    two.grant(Range(at(128), at(192)), A)
    take(one, two)
    take(two, one)
    assert rows(one) == rows(two)


def test_conflicts_and_their_words() -> None:
    mine = ring(B, (0, B, 3, 256))
    for other, words in (
        (ring(A, (0, A, 3, 256)), "Inconsistent entries for 10.0.0.0"),
        (ring(A, (0, A, 4, 0)), "Received update for IP range I own at 10.0.0.0 v3"),
        (ring(A, (0, B, 3, 7), (128, A, 0, 7)), "says it owns the IP range from 10.0.0.128"),
    ):
        with pytest.raises(MergeConflictError, match=words):
            take(mine, other, set(range(*WHOLE)))
        assert rows(mine) == [(0, B, 3, 256)]


def test_our_own_newer_entry() -> None:
    mine = ring(A, (0, A, 3, 200))
    outcome = take(mine, ring(B, (0, A, 9, 4)))
    assert (outcome.updated, rows(mine)) == (False, [(0, A, 10, 200)])


def test_a_split_clamps_the_free_count_of_all() -> None:
    """H7, #3767."""
    mine = ring(A, (0, C, 2, 256))
    take(mine, ring(B, (0, C, 1, 100), (128, B, 0, 128)))
    assert rows(mine) == [(0, C, 2, 128), (128, B, 0, 128)]


def test_an_old_ring_changes_nothing() -> None:
    mine, old = ring(A, (0, A, 0, 256)), ring(B, (0, A, 0, 256))
    mine.grant(Range(at(128), at(256)), B)
    before = rows(mine)
    assert take(mine, old).changed == set()
    assert rows(mine) == before
    assert take(mine, ring(B)).changed == set()


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([(9, A, 0, 0), (3, A, 0, 0)], "not sorted"),
        ([(3, A, 0, 0), (3, B, 0, 0)], "appears twice"),
        ([(-1, A, 0, 0)], "out of range"),
        ([(256, A, 0, 0)], "out of range"),
        ([(0, A, 0, 300)], "too much free space"),
    ],
)
def test_malformed(entries: list[tuple[int, int, int, int]], words: str) -> None:
    with pytest.raises(RingError, match=words):
        ring(A, *entries).check()


def test_where_an_address_lies() -> None:
    one = ring(A, (10, B, 0, 256))
    assert one.index_of(at(9)) == one.index_of(at(255)) == one.index_of(at(10)) == 0
    assert one.pieces(0) == [Range(at(0), at(10)), Range(at(10), at(256))]
    two = ring(A, (10, A, 0, 0), (245, B, 0, 0))
    found = [two.index_of(at(last)) for last in (10, 244, 245, 255, 0, 9)]
    assert found == [0, 0, 1, 1, 1, 1]


def test_what_was_owned_through_grants() -> None:
    mine = ring(A, (0, A, 0, 256))
    assert mine.owned(A) == [WHOLE]
    mine.grant(WHOLE, B)
    assert (mine.owned(A), mine.owned(B)) == ([], [WHOLE])
    assert mine.transfer(B, A) == [WHOLE]
    assert mine.peers() == {A}
    assert rows(mine) == [(0, A, 101, 256)]
    mine.grant(Range(at(10), at(128)), B)
    assert mine.owned(A) == [Range(at(0), at(10)), Range(at(128), at(256))]
    around = ring(A, (128, A, 0, 0))
    assert around.owned(A) == [Range(at(0), at(128)), Range(at(128), at(256))]
    around = ring(A, (10, A, 0, 0), (128, A, 0, 0))
    assert len(around.owned(A)) == 3


def test_queries() -> None:
    assert Ring(WHOLE, A).owner(at(3)) == 0
    mine = ring(A, (10, A, 0, 9), (128, B, 0, 5), (245, C, 0, 7))
    assert mine.owned(C) == [Range(at(0), at(10)), Range(at(245), at(256))]
    assert mine.owner(at(0)) == C
    with pytest.raises(LocalProtocolError):
        mine.owner(WHOLE.end)
    assert mine.heir(lambda peer: peer == C) == C
    assert mine.heir(lambda _: False) == 0
    assert mine.donors(WHOLE, lambda: 0.5) == [C, B]
    assert mine.donors(Range(at(10), at(128)), lambda: 0.5) == []
    assert ring(A, (0, B, 0, 0)).donors(WHOLE, lambda: 0.5) == []


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_any_ring_of_others(seed: int) -> None:
    """Weave's fuzz test: whatever comes is merged or refused, and what we have stays sound."""
    rng = random.Random(seed)
    mine = random_ring(rng, A, 25)
    for _ in range(8):
        theirs = random_ring(rng, B, 25)
        for _ in range(rng.randrange(3)):
            index = rng.randrange(len(theirs.entries))
            field = rng.choice(Entry._fields)
            value = rng.choice([0, 1, at(7), WHOLE.end, 1 << 31, (1 << 32) - 1])
            theirs.entries[index] = theirs.entries[index]._replace(**{field: value})
        before = list(mine.entries)
        try:
            take(mine, theirs, {at(rng.randrange(256))})
        except RingError:
            assert mine.entries == before
        mine.check()


@settings(max_examples=50, deadline=None)
@given(seeds, st.integers(1, 4))
def test_transfer_leaves_nothing(seed: int, gone: int) -> None:
    """Property 11."""
    mine = random_ring(random.Random(seed), A)
    before = mine.owned_joined(gone)
    assert merge_adjacent(sorted(mine.transfer(gone, 7))) == before
    assert gone not in mine.peers()
    assert mine.owned_joined(7) == before


@pytest.mark.parametrize("size", [8, 9, 13])
@pytest.mark.parametrize("count", range(1, 13))
def test_division(size: int, count: int) -> None:
    where = Range(WHOLE.start, WHOLE.start + size)
    mine = Ring(where, A)
    mine.claim_for_peers(range(1, count + 1))
    mine.check()
    assert sum(piece.size for _, piece in mine.all_pieces()) == size
    if count <= size == 8:
        sizes = [piece.size for _, piece in mine.all_pieces()]
        assert max(sizes) <= 2 * min(sizes)


def test_a_hundred_peers_trade() -> None:
    """Weave's fuzz test: grants of tails and gossip at random, a peer removed now and then."""
    rng = random.Random(11)
    whole = Range(0x0A000000, 0x0A010000)
    peers = list(range(1, 101))
    rings = {peer: Ring(whole, peer) for peer in peers}
    for one in rings.values():
        one.claim_for_peers(peers)
    for step in range(600):
        mine = rings[rng.choice(sorted(rings))]
        owned = mine.owned(mine.peer)
        if owned:
            piece = rng.choice(owned)
            if piece.size > 1:
                start = rng.randrange(piece.start + 1, piece.end)
                mine.grant(Range(start, piece.end), rng.choice(sorted(rings)))
        take(rings[rng.choice(sorted(rings))], mine)
        if step % 150 == 149:
            gone = rng.choice(sorted(rings))
            everybody = list(rings.values())
            for _ in range(2):
                for other in everybody:
                    take(everybody[0], other)
                for other in everybody:
                    take(other, everybody[0])
            del rings[gone]
            heir = rings[rng.choice(sorted(rings))]
            heir.transfer(gone, heir.peer)


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ((0, 0, 9, 4), "Ring not sorted"),
        ((0, 300, 4), "Ring not sorted"),
        ((300, 300), "Token appears twice in ring"),
        ((-1, 7, 7), "Token appears twice in ring"),
        ((-1, 7), "Token is out of range"),
        ((7, 256), "Token is out of range"),
    ],
)
def test_of_several_faults_the_same_is_told_as_by_weave(tokens: tuple[int, ...], text: str) -> None:
    """It is what operators compare between the two ends: order, then repetition, then range."""
    with pytest.raises(RingError, match=f"^{text}$"):
        ring(A, *((token, B, 0, 0) for token in tokens)).check()


def test_odd_ranges_are_divided_as_weave_does() -> None:
    """Subnets never are odd; a ring alone does not know that its range is one."""
    mine = Ring(Range(at(0), at(7)), A)
    mine.claim_for_peers([A, B, C])
    assert rows(mine) == [(0, A, 0, 3), (4, B, 0, 1), (6, C, 0, 1)]
    mine.check()


def test_a_transfer_tells_ranges_in_order() -> None:
    """Also when the last piece wraps: its beginning is the first of all."""
    mine = ring(A, (16, B, 0, 0), (32, A, 0, 0), (64, B, 0, 0))
    assert mine.transfer(B, A) == [
        Range(at(0), at(16)),
        Range(at(16), at(32)),
        Range(at(64), at(256)),
    ]
