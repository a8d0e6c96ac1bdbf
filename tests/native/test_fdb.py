"""The FDB: each row of the MAC cache's table, its clock, its size, and a model of all of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from native import ffi, lib

pytestmark = pytest.mark.native

US, P1, P2 = 0, 1, 2
T0 = 5000
LIFETIME, REFRESH, TAKEOVER = 600, 1, 5
MAC = b"\x02\x42\x00\x00\x00\x01"


class Fdb:
    """The C table with Python's manners."""

    def __init__(self) -> None:
        self.c: Any = ffi.gc(lib.wn_fdb_new(), lib.wn_fdb_free)

    def local(self, mac: bytes, now_s: int) -> int:
        return int(lib.wn_fdb_learn_local(self.c, mac, US, now_s))

    def remote(self, mac: bytes, peer: int, now_s: int) -> int:
        return int(lib.wn_fdb_learn_remote(self.c, mac, peer, now_s))

    def lookup(self, mac: bytes, now_s: int) -> int | None:
        peer = int(lib.wn_fdb_lookup(self.c, mac, now_s))
        return None if peer == lib.WN_PEER_NONE else peer

    def dump(self) -> dict[bytes, tuple[int, int]]:
        size = lib.wn_fdb_size(self.c)
        entries = ffi.new("wn_fdb_entry[]", size + 1)
        assert lib.wn_fdb_dump(self.c, entries, size + 1) == size
        found = {
            bytes(entries[i].mac): (int(entries[i].peer), int(entries[i].last_seen_s))
            for i in range(size)
        }
        assert len(found) == size, "a MAC is stored twice"
        return found


def mac_number(number: int) -> bytes:
    return number.to_bytes(6, "big")


def test_constants_are_those_of_the_spec() -> None:
    assert lib.WN_FDB_LIFETIME_S == LIFETIME
    assert lib.WN_FDB_REFRESH_S == REFRESH
    assert lib.WN_FDB_SWEEP_S == 60


# ---- the table of sleeve 3: operation × existing entry ----


def test_local_learn_of_an_unknown_mac_inserts_ourselves() -> None:
    fdb = Fdb()
    assert fdb.local(MAC, T0) == lib.WN_LEARN_NEW
    assert fdb.dump() == {MAC: (US, T0)}


def test_local_learn_of_our_own_mac_refreshes() -> None:
    fdb = Fdb()
    fdb.local(MAC, T0)
    assert fdb.local(MAC, T0 + REFRESH + 1) == lib.WN_LEARN_REFRESHED
    assert fdb.dump() == {MAC: (US, T0 + REFRESH + 1)}


def test_local_learn_of_another_peers_mac_changes_nothing() -> None:
    fdb = Fdb()
    fdb.remote(MAC, P1, T0)
    assert fdb.local(MAC, T0 + TAKEOVER) == lib.WN_LEARN_CONFLICT
    assert fdb.local(MAC, T0 - 1) == lib.WN_LEARN_CONFLICT
    assert fdb.dump() == {MAC: (P1, T0)}


def test_remote_learn_of_an_unknown_mac_inserts_the_source() -> None:
    fdb = Fdb()
    assert fdb.remote(MAC, P1, T0) == lib.WN_LEARN_NEW
    assert fdb.dump() == {MAC: (P1, T0)}


def test_remote_learn_from_the_same_peer_refreshes() -> None:
    fdb = Fdb()
    fdb.remote(MAC, P1, T0)
    assert fdb.remote(MAC, P1, T0 + REFRESH + 1) == lib.WN_LEARN_REFRESHED
    assert fdb.dump() == {MAC: (P1, T0 + REFRESH + 1)}


@pytest.mark.parametrize("owner", [US, P1])
def test_remote_learn_from_another_peer_overwrites(owner: int) -> None:
    fdb = Fdb()
    fdb.remote(MAC, owner, T0)
    assert fdb.remote(MAC, P2, T0 + 1) == lib.WN_LEARN_MOVED
    assert fdb.dump() == {MAC: (P2, T0 + 1)}


# ---- time ----


@pytest.mark.parametrize("later_s", [0, REFRESH])
def test_a_young_stamp_is_not_written_again(later_s: int) -> None:
    fdb = Fdb()
    fdb.remote(MAC, P1, T0)
    assert fdb.remote(MAC, P1, T0 + later_s) == lib.WN_LEARN_REFRESHED
    assert fdb.dump() == {MAC: (P1, T0)}


def test_an_entry_lives_for_its_lifetime_and_not_longer() -> None:
    fdb = Fdb()
    fdb.remote(MAC, P1, T0)
    assert fdb.lookup(MAC, T0 + LIFETIME) == P1
    assert lib.wn_fdb_expire(fdb.c, T0 + LIFETIME) == 0
    assert fdb.lookup(MAC, T0 + LIFETIME + 1) is None
    assert lib.wn_fdb_expire(fdb.c, T0 + LIFETIME + 1) == 1
    assert fdb.dump() == {}


def test_a_container_that_moved_here_speaks_once_its_old_host_is_silent() -> None:
    fdb = Fdb()
    fdb.remote(MAC, P1, T0)
    fdb.remote(MAC, P1, T0 + TAKEOVER)
    assert fdb.local(MAC, T0 + 2 * TAKEOVER) == lib.WN_LEARN_CONFLICT
    assert fdb.local(MAC, T0 + 2 * TAKEOVER + 1) == lib.WN_LEARN_NEW
    assert fdb.dump() == {MAC: (US, T0 + 2 * TAKEOVER + 1)}


def test_a_clock_read_before_another_threads_update_expires_nothing() -> None:
    fdb = Fdb()
    fdb.remote(MAC, P1, T0)
    assert fdb.lookup(MAC, T0 - 1) == P1
    assert lib.wn_fdb_expire(fdb.c, T0 - 1) == 0


def test_forgetting_a_peer_leaves_the_others() -> None:
    fdb = Fdb()
    for number in range(300):
        fdb.remote(mac_number(number), P1 + number % 2, T0)
    assert lib.wn_fdb_forget_peer(fdb.c, P1) == 150
    assert fdb.dump() == {mac_number(n): (P2, T0) for n in range(1, 300, 2)}
    assert lib.wn_fdb_forget_peer(fdb.c, P1) == 0


# ---- size ----


def test_growth_keeps_every_entry() -> None:
    fdb = Fdb()
    expected = {}
    for number in range(20_000):
        mac = mac_number(number * 0x10001)
        assert fdb.remote(mac, number % 50, T0) == lib.WN_LEARN_NEW
        expected[mac] = (number % 50, T0)
    assert fdb.dump() == expected
    assert all(fdb.lookup(mac, T0) == peer for mac, (peer, _) in expected.items())


def test_dump_stops_at_the_room_it_is_given() -> None:
    fdb = Fdb()
    for number in range(10):
        fdb.remote(mac_number(number), P1, T0)
    entries = ffi.new("wn_fdb_entry[4]")
    assert lib.wn_fdb_dump(fdb.c, entries, 3) == 3
    assert bytes(entries[3].mac) == bytes(6)
    assert entries[3].last_seen_s == 0


@pytest.mark.slow
def test_a_full_table_refuses_new_macs_and_serves_the_old() -> None:
    fdb = Fdb()
    learn, table = lib.wn_fdb_learn_remote, fdb.c
    capacity = lib.WN_FDB_CAPACITY
    assert capacity >= 200_000
    for number in range(capacity):
        learn(table, number.to_bytes(6, "little"), number & 1, T0)
    assert lib.wn_fdb_size(table) == capacity
    stranger = b"\xfe" * 6
    assert fdb.remote(stranger, P1, T0) == lib.WN_LEARN_FULL
    assert fdb.local(stranger, T0) == lib.WN_LEARN_FULL
    assert fdb.lookup(stranger, T0) is None
    known = (1).to_bytes(6, "little")
    assert fdb.remote(known, P2, T0) == lib.WN_LEARN_MOVED
    assert lib.wn_fdb_forget_peer(table, P1) == capacity // 2 - 1
    assert fdb.remote(stranger, P1, T0) == lib.WN_LEARN_NEW
    assert lib.wn_fdb_size(table) == capacity // 2 + 2


# ---- deletion from clusters, and the whole against a dict ----


@pytest.mark.parametrize("how", ["forget", "expire"])
@settings(max_examples=30, deadline=None)
@given(
    owners=st.dictionaries(
        st.binary(min_size=6, max_size=6), st.sampled_from([P1, P2]), min_size=50, max_size=750
    )
)
def test_deletion_keeps_what_probed_past_it(how: str, owners: dict[bytes, int]) -> None:
    # up to 750 of 1024 slots: long clusters, also around the table's end
    fdb = Fdb()
    later_s = T0 + LIFETIME + 1
    for mac, peer in owners.items():
        fdb.remote(mac, peer, later_s if peer == P2 else T0)
    gone = sum(peer == P1 for peer in owners.values())
    if how == "forget":
        assert lib.wn_fdb_forget_peer(fdb.c, P1) == gone
    else:
        assert lib.wn_fdb_expire(fdb.c, later_s) == gone
    assert fdb.dump() == {mac: (peer, later_s) for mac, peer in owners.items() if peer == P2}
    for mac, peer in owners.items():
        assert fdb.lookup(mac, later_s) == (peer if peer == P2 else None)


MACS = st.integers(0, 39).map(mac_number)
PEERS = st.integers(1, 4)


class FdbModel(RuleBasedStateMachine):
    """Everything one can do to the table, beside a dict that obeys the spec's words."""

    def __init__(self) -> None:
        super().__init__()
        self.fdb = Fdb()
        self.model: dict[bytes, tuple[int, int]] = {}
        self.now_s = T0

    def alive(self, mac: bytes) -> bool:
        return mac in self.model and self.now_s - self.model[mac][1] <= LIFETIME

    def refreshed(self, mac: bytes) -> int:
        peer, seen_s = self.model[mac]
        if self.now_s - seen_s > REFRESH:
            self.model[mac] = (peer, self.now_s)
        return int(lib.WN_LEARN_REFRESHED)

    @initialize(crowd=st.sampled_from([0, 500, 760]))
    def crowd_the_table(self, crowd: int) -> None:
        """Neighbours in the hash table, so that probing and growth happen."""
        for number in range(1000, 1000 + crowd):
            self.fdb.remote(mac_number(number), 9, self.now_s)
            self.model[mac_number(number)] = (9, self.now_s)

    @rule(mac=MACS)
    def learn_local(self, mac: bytes) -> None:
        if mac not in self.model:
            expected = lib.WN_LEARN_NEW
            self.model[mac] = (US, self.now_s)
        elif self.model[mac][0] == US:
            expected = self.refreshed(mac)
        elif self.now_s - self.model[mac][1] <= TAKEOVER:
            expected = lib.WN_LEARN_CONFLICT
        else:
            expected = lib.WN_LEARN_NEW
            self.model[mac] = (US, self.now_s)
        assert self.fdb.local(mac, self.now_s) == expected

    @rule(mac=MACS, peer=PEERS)
    def learn_remote(self, mac: bytes, peer: int) -> None:
        if mac not in self.model:
            expected = lib.WN_LEARN_NEW
            self.model[mac] = (peer, self.now_s)
        elif self.model[mac][0] == peer:
            expected = self.refreshed(mac)
        else:
            expected = lib.WN_LEARN_MOVED
            self.model[mac] = (peer, self.now_s)
        assert self.fdb.remote(mac, peer, self.now_s) == expected

    @rule(mac=MACS)
    def look_up(self, mac: bytes) -> None:
        expected = self.model[mac][0] if self.alive(mac) else None
        assert self.fdb.lookup(mac, self.now_s) == expected

    @rule(peer=st.integers(0, 9))
    def forget_peer(self, peer: int) -> None:
        gone = [mac for mac, entry in self.model.items() if entry[0] == peer]
        assert lib.wn_fdb_forget_peer(self.fdb.c, peer) == len(gone)
        for mac in gone:
            del self.model[mac]

    @rule()
    def expire(self) -> None:
        gone = [mac for mac in self.model if not self.alive(mac)]
        assert lib.wn_fdb_expire(self.fdb.c, self.now_s) == len(gone)
        for mac in gone:
            del self.model[mac]

    @rule(seconds=st.sampled_from([1, 59, 60, 61, 299, 540, 600, 601]))
    def wait(self, seconds: int) -> None:
        self.now_s += seconds

    @invariant()
    def same_content(self) -> None:
        assert self.fdb.dump() == self.model


FdbModel.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestFdbModel = FdbModel.TestCase
