"""When a dead child comes back."""

from __future__ import annotations

from control.backoff import Backoff


def test_at_once_then_doubling_up_to_ten_seconds() -> None:
    backoff = Backoff()
    delays = [round(backoff.died(1.0), 3) for _ in range(10)]
    assert delays == [0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10]


def test_a_long_life_is_forgiven() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.died(0.0)
    assert backoff.died(29.9) > 1
    assert backoff.died(30.0) == 0
    assert backoff.died(1.0) == 0.1
