"""The compact table of holders against a plain dict, with undoing."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ipam.holdings import Holdings
from ipam.journal import Journal
from ipam.store import Holding

IDENTS = ["a", "_", "", "weave:expose", "c0ffee0123456789", "C0FFEE0123456789", "é" * 9, "\udc80"]

steps = st.lists(
    st.tuples(
        st.sampled_from(["add", "remove", "seal", "commit", "rollback"]),
        st.integers(0, 40).map(lambda n: n * 64),
        st.sampled_from(IDENTS),
        st.booleans(),
    ),
    max_size=120,
)


@settings(max_examples=150, deadline=None)
@given(steps)
def test_is_a_dict_with_undo(script: list[tuple[str, int, str, bool]]) -> None:
    journal = Journal()
    table = Holdings(journal)
    model: dict[int, Holding] = {}
    committed: dict[int, Holding] = {}
    sealed: dict[int, Holding] = {}
    for op, addr, ident, flag in script:
        if op == "add" and addr not in model:
            model[addr] = Holding(addr, addr % 33, ident, flag)
            table.add(model[addr])
        elif op == "remove":
            assert table.remove(addr) == model.pop(addr, None)
        elif op == "seal":
            journal.commit()
            committed = sealed
            journal.seal()
            sealed = dict(model)
        elif op == "rollback":
            journal.rollback()
            model, sealed = dict(committed), dict(committed)
        assert len(table) == len(model)
        assert table.at(addr) == model.get(addr)
        assert {one.addr for one in table.of(ident)} == {
            one.addr for one in model.values() if one.ident == ident
        }
    assert {one.addr: one for one in table} == model
    assert sum(len(items) for _, items in table.by_ident()) == len(model)


def test_order_is_kept_through_growth_and_clearance() -> None:
    table = Holdings(Journal())
    for number in range(1000):
        table.add(Holding(number, 12, f"{number % 7}", False))
    for number in range(0, 1000, 2):
        table.remove(number)
    for number in range(1000, 1800):
        table.add(Holding(number, 12, "late", False))
    assert [one.addr for one in table.of("late")] == list(range(1000, 1800))
    assert [one.addr for one in table.of("1")] == [n for n in range(1, 1000, 2) if n % 7 == 1]
    assert [ident for ident, _ in table.by_ident()] == ["1", "3", "5", "0", "2", "4", "6", "late"]
