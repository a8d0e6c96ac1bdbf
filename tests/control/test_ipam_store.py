"""IPAM's tables: what is committed is what is loaded, in the order in which it came."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from base.errors import ConfigError
from base.names import PeerName
from control.ipam_store import IpamStore
from control.state import StateStore
from ipam.address import Cidr, Range
from ipam.store import Change, Entry, Holding, Identity, MemoryStore, Stored

NAME = PeerName.parse("ce:01:00:00:00:01")
IDENTITY = Identity(NAME, Cidr.parse("10.32.0.0/12").range)

_addr = st.integers(0, 0xFFFFFFFF)
_entry = st.builds(Entry, st.integers(0, 20), st.integers(0, (1 << 48) - 1), _addr, _addr)
_holding = st.builds(
    Holding,
    st.integers(0, 20) | _addr,
    st.integers(0, 32),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20),
    st.booleans(),
)


def _unique(items: list[Entry] | list[Holding]) -> tuple[object, ...]:
    return tuple({item[0]: item for item in items}.values())


_change = st.builds(
    Change,
    reset=st.booleans(),
    identity=st.sampled_from([None, IDENTITY, Identity(NAME, Range(256, 512))]),
    seeds=st.none() | st.lists(st.builds(PeerName, st.binary(min_size=6, max_size=6))).map(tuple),
    tokens_gone=st.lists(st.integers(0, 20)).map(tuple),
    entries=st.lists(_entry).map(_unique),
    addrs_gone=st.lists(st.integers(0, 20)).map(tuple),
    holdings=st.lists(_holding).map(_unique),
)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateStore]:
    with StateStore.open(f"{tmp_path}/weft-") as store:
        yield store


def everything(stored: Stored) -> tuple[object, ...]:
    return stored.identity, stored.seeds, stored.entries, tuple(stored.holdings)


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(_change, max_size=6))
def test_the_same_as_in_memory(state: StateStore, changes: list[Change]) -> None:
    with state.change() as connection:
        for table in ("ipam_ring", "ipam_seed", "ipam_owned", "setting"):
            connection.execute(f"DELETE FROM {table}")
    ours, memory = IpamStore(state), MemoryStore()
    for change in changes:
        ours.commit(change)
        memory.commit(change)
        assert everything(ours.load()) == everything(memory.load())
    assert everything(IpamStore(state).load()) == everything(memory.load())


def test_a_fresh_file_holds_nothing(state: StateStore) -> None:
    assert everything(IpamStore(state).load()) == (None, (), (), ())


def test_order_goes_on_after_a_restart(tmp_path: Path) -> None:
    for number in (30, 10, 20):
        with StateStore.open(f"{tmp_path}/weft-") as state:
            store = IpamStore(state)
            store.commit(Change(holdings=(Holding(number, 24, f"c{number}", True),)))
            store.commit(Change(holdings=(Holding(30, 24, "moved", False),)))
            found = [(held.addr, held.ident) for held in store.load().holdings]
    assert found == [(30, "moved"), (10, "c10"), (20, "c20")]


def test_a_change_that_fails_changes_nothing(state: StateStore) -> None:
    store = IpamStore(state)
    store.commit(Change(identity=IDENTITY, entries=(Entry(1, 2, 3, 4),)))
    before = everything(store.load())
    with state.change() as connection:
        connection.execute("PRAGMA max_page_count = 1")
    many = tuple(Holding(addr, 12, "x" * 200, True) for addr in range(5000))
    with pytest.raises(ConfigError, match=r"--db-prefix: cannot write .*full"):
        store.commit(Change(entries=(Entry(5, 6, 7, 8),), holdings=many))
    assert everything(store.load()) == before


@pytest.mark.parametrize(("key", "value"), [("ipam_name", "nobody"), ("ipam_range", "10.0.0.1/8")])
def test_what_makes_no_sense_is_refused(state: StateStore, key: str, value: str) -> None:
    store = IpamStore(state)
    store.commit(Change(identity=IDENTITY))
    with state.change() as connection:
        connection.execute("UPDATE setting SET value = ? WHERE key = ?", (value, key))
    with pytest.raises(ConfigError, match="is damaged"):
        store.load()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ipam_seed SET peer = -1",
        "UPDATE ipam_ring SET peer = 1 << 48",
        "UPDATE ipam_ring SET token = -1",
        "UPDATE ipam_ring SET version = 1 << 32",
        "UPDATE ipam_ring SET free = -1",
        "UPDATE ipam_owned SET address = 1 << 32",
        "UPDATE ipam_owned SET prefix_len = 33",
        "UPDATE ipam_owned SET is_container = 256",
    ],
)
def test_numbers_that_cannot_be_are_refused(state: StateStore, statement: str) -> None:
    store = IpamStore(state)
    entry, holding = Entry(1, 2, 3, 4), Holding(5, 12, "c1", True)
    store.commit(Change(identity=IDENTITY, seeds=(NAME,), entries=(entry,), holdings=(holding,)))
    store.load()
    with state.change() as connection:
        connection.execute(statement)
    with pytest.raises(ConfigError, match=r"is damaged: .*move it away"):
        store.load()
