"""The search for the path MTU against paths that drop what is too large. Ref: spec sleeve 9.2."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.path_mtu import (
    FIRST_WAIT_S,
    MTU_FLOOR,
    PROBE_WAIT_S,
    PROBES_MAX,
    TRIES_MAX,
    WIDER_AGAIN_S,
    PathMtu,
)

PLAIN = 62


class Path:
    """A search on a path that carries overlay packets of ``carries`` bytes, with a fake clock."""

    def __init__(self, carries: int, now: float = 0.0) -> None:
        self.search = PathMtu(PLAIN)
        self.carries = carries
        self.now = now
        self.sent: list[int] = []

    def step(self) -> bool:
        """Answer what gets through, else wait for the deadline; False when nothing is due."""
        tests = list(self.search.take_tests())
        self.sent += tests
        answers = [size for size in tests if size <= self.carries]
        for size in answers:
            self.search.answered(size, self.now)
        if answers:
            return True
        if self.search.deadline is None:
            return False
        self.now = self.search.deadline
        self.search.timeout(self.now)
        return True

    def settle(self) -> int:
        while self.step():
            pass
        return self.search.mtu


def test_the_kernel_is_right() -> None:
    path = Path(1438)
    assert path.search.refused(1500, 0.0)
    assert path.search.mtu == 1438  # at once
    assert path.search.searching
    assert path.settle() == 1438
    assert path.sent == [1438]
    assert not path.search.narrower_than_believed


@pytest.mark.parametrize("carries", [552, 553, 700, 1000, 1376, 1437])
def test_the_kernel_is_too_hopeful(carries: int) -> None:
    path = Path(carries)
    path.search.refused(1500, 0.0)
    assert path.settle() == carries
    assert path.search.narrower_than_believed
    # each size that fails takes 8 tries, 10 ms doubling: 2.55 s
    failures = len({size for size in path.sent if size > carries})
    assert path.now == pytest.approx(failures * FIRST_WAIT_S * (2**TRIES_MAX - 1))


@pytest.mark.parametrize(
    ("round_trip_s", "tries"), [(0.001, 5), (0.03, 5), (0.05, 6), (0.2, 8), (5.0, TRIES_MAX)]
)
def test_known_round_trips_shorten_it(round_trip_s: float, tries: int) -> None:
    path = Path(1000)
    path.search.round_trip_s = round_trip_s
    path.search.refused(1500, 0.0)
    assert path.settle() == 1000
    assert path.sent[:tries] == [1438] * tries
    assert path.sent[tries] != 1438
    failures = len({size for size in path.sent if size > 1000})
    assert path.now == pytest.approx(failures * FIRST_WAIT_S * (2**tries - 1))


@given(carries=st.integers(MTU_FLOOR, 9000), kernel=st.integers(MTU_FLOOR + PLAIN, 9062))
@settings(max_examples=200, deadline=None)
def test_it_ends_at_the_largest_size_that_gets_through(carries: int, kernel: int) -> None:
    path = Path(carries)
    path.search.refused(kernel, 0.0)
    assert path.settle() == min(carries, kernel - PLAIN)


def test_below_the_floor_the_kernel_is_believed() -> None:
    path = Path(100)
    path.search.refused(576, 0.0)
    assert path.settle() == 576 - PLAIN


def test_a_refusal_at_the_candidate_or_above_changes_nothing() -> None:
    path = Path(1000)
    path.search.refused(1500, 0.0)
    assert not path.search.refused(1500, 1.0)
    assert not path.search.refused(9000, 1.0)
    assert path.search.mtu == 1438
    assert path.search.refused(1400, 1.0)
    assert path.settle() == 1000


@pytest.mark.parametrize("size", [0, 551, 1437, 1439, 59986])
def test_answers_to_other_sizes_are_ignored(size: int) -> None:
    search = PathMtu(PLAIN)
    search.refused(1500, 0.0)
    assert not search.answered(size, 0.0)
    assert search.searching


def test_without_a_refusal_nothing_is_searched() -> None:
    search = PathMtu(PLAIN)
    assert not search.answered(59986, 0.0)
    assert (search.mtu, search.deadline, list(search.take_tests())) == (65473, None, [])


def test_a_path_that_narrows_without_a_word_is_noticed() -> None:
    path = Path(1438)
    path.search.refused(1500, 0.0)
    path.settle()
    path.carries = 650
    began = path.now = 100.0
    path.search.probe(path.now)
    assert path.settle() == 650
    assert path.search.narrower_than_believed
    assert path.now - began < 25  # with the 10 s to the probe this is within 35 s


def test_a_path_that_is_down_keeps_its_mtu() -> None:
    path = Path(1438)
    path.search.refused(1500, 0.0)
    path.settle()
    path.carries = 0
    path.search.probe(path.now)
    assert path.settle() == 1438
    assert path.sent[1:] == [1438] * PROBES_MAX + [MTU_FLOOR] * TRIES_MAX
    path.carries = 1438
    path.search.probe(path.now)
    assert path.settle() == 1438


def test_one_lost_probe_means_nothing() -> None:
    search = PathMtu(PLAIN)
    search.refused(1500, 0.0)
    assert list(search.take_tests()) == [1438]
    search.answered(1438, 0.0)
    search.probe(10.0)
    assert list(search.take_tests()) == [1438]
    search.timeout(10.0 + PROBE_WAIT_S)
    assert list(search.take_tests()) == [1438]
    search.answered(1438, 11.1)
    assert search.deadline is None
    assert search.mtu == 1438


def test_a_wider_path_is_tested_before_it_is_used() -> None:
    path = Path(1438)
    path.search.refused(1500, 0.0)
    path.settle()
    assert not path.search.believed(9000, path.now)
    assert path.settle() == 1438  # the kernel's news was not true
    assert not path.search.believed(9000, path.now)
    assert path.search.deadline is None  # and is not tried at once again
    path.carries = 8938
    assert not path.search.believed(9000, path.now + WIDER_AGAIN_S)
    assert path.settle() == 8938


def test_what_the_kernel_believes_when_asked_counts_at_once_if_it_is_less() -> None:
    path = Path(1338)
    path.search.refused(1500, 0.0)
    path.carries = 1438
    path.settle()
    assert path.search.believed(1400, path.now)
    assert path.search.mtu == 1338
    path.carries = 1338
    assert path.settle() == 1338


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(("refused", "believed", "probe", "answered", "timeout")),
        st.integers(0, 70_000),
        st.floats(0, 20),
    ),
    max_size=60,
)


@given(_STEPS)
@settings(max_examples=300, deadline=None)
def test_whatever_happens_the_mtu_stays_within_bounds(steps: list[tuple[str, int, float]]) -> None:
    search, now = PathMtu(PLAIN), 0.0
    for what, number, wait_s in steps:
        now += wait_s
        match what:
            case "refused":
                search.refused(max(68, number), now)
            case "believed":
                search.believed(max(68, number), now)
            case "probe":
                search.probe(now)
            case "answered":
                search.answered(number, now)
            case _:
                search.timeout(now)
        assert 1 <= search.mtu <= 65473
        for size in search.take_tests():
            assert 1 <= size <= 65473
        if search.searching:
            assert search.deadline is not None
