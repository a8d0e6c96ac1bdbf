"""The lives have teeth: without any one of the merge's rules some of them end badly.

And they are what they are said to be: nodes of Weave end themselves in them, nodes of ours refuse
and lose ranges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

import ipam.merge
from base.errors import WeftError
from ipam import exchange
from ipam.address import Range
from ipam.merge import Outcome, Used
from ipam.ring import Ring
from ipam.state import LocalState
from ipam.store import Entry
from tests.sim.ipam_lives import Plan, live
from tests.sim.ipam_net import Net
from tests.sim.test_ipam import KINDS
from tests.sim.weave_peer import WeaveNode

pytestmark = [pytest.mark.sim, pytest.mark.timeout(240)]

#: Few, so that what bites does so soon.
LIVES = 12

Disable = Callable[[pytest.MonkeyPatch], None]


def _without_r1(patch: pytest.MonkeyPatch) -> None:
    """Addresses in use are no reason to refuse."""
    patch.setattr(exchange, "merge", _merge_all)


def _merge_all(
    ours: Ring,
    universe: Range,
    theirs: Sequence[Entry],
    seeds: tuple[int, ...],
    _: Used,
    nick: Callable[[int], str],
) -> Outcome:
    return ipam.merge.merge(ours, universe, theirs, seeds, lambda _: None, nick)


def _without_r2(patch: pytest.MonkeyPatch) -> None:
    """What is lost stays in the space."""
    patch.setattr(LocalState, "_disown", lambda *_: None)


def _without_r3(patch: pytest.MonkeyPatch) -> None:
    """Weave's rule: both keep their own."""
    patch.setattr(ipam.merge, "tie_winner", lambda my, their, _: _as_weave(my, their))


def _as_weave(my: Entry, their: Entry) -> Entry:
    return my if my.free >= their.free else their


def _without_raising(patch: pytest.MonkeyPatch) -> None:
    """One wins, but does not tell Weave so."""
    rule = ipam.merge.tie_winner
    patch.setattr(ipam.merge, "tie_winner", lambda my, their, _: rule(my, their, -1))


def _without_clamping(patch: pytest.MonkeyPatch) -> None:
    """H7: a split leaves the free counts of others as they were."""
    patch.setattr(ipam.merge, "_clamp", lambda *_: None)


@pytest.mark.parametrize(
    ("disable", "kind"),
    [
        (_without_r1, "lies"),
        (_without_r2, "lies"),
        (_without_r2, "steals"),
        (_without_r3, "twice"),
        (_without_raising, "weave_twice"),
        (_without_clamping, "restores"),
    ],
)
def test_without_a_rule_some_life_fails(
    monkeypatch: pytest.MonkeyPatch, disable: Disable, kind: str
) -> None:
    disable(monkeypatch)
    with pytest.raises((AssertionError, WeftError)):
        _lives(kind)


def _lives(kind: str) -> list[Net]:
    return [live(Plan(seed, **KINDS[kind])) for seed in range(LIVES)]  # type: ignore[arg-type]


def test_what_the_lives_reach() -> None:
    refused = panics = 0
    for kind in ("lies", "weave_twice"):
        for net in _lives(kind):
            refused += sum(node.refused for node in net.nodes.values())
            panics += sum(n.panics for n in net.nodes.values() if isinstance(n, WeaveNode))
    assert refused
    assert panics
