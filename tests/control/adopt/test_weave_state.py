"""What Weave Net 2.8.1 stored, value by value."""

from __future__ import annotations

import pytest

from base import gob
from base.names import PeerName
from control.adopt.weave_state import WeaveState
from control.bolt import BoltError
from ipam.address import Cidr
from ipam.store import Entry, Holding
from tests.control.bolt_file import CONTAINER, VALUES, VECTOR, bolt_file, owned


def held(cidr: str, ident: str, *, is_container: bool = False) -> Holding:
    addr, prefix_len = Cidr.parse(cidr)
    return Holding(addr, prefix_len, ident, is_container)


def decoded(**changed: bytes | None) -> WeaveState:
    values = VALUES | {key.encode(): value for key, value in changed.items() if value is not None}
    gone = {key.encode() for key, value in changed.items() if value is None}
    return WeaveState.decode(bolt_file({k: v for k, v in values.items() if k not in gone}))


def test_all_that_weave_net_stored() -> None:
    first, second = 0xCE0100000001, 0xCE0200000002
    state = decoded()
    assert state.name == PeerName.parse(VECTOR["name"])
    assert state.peers == ("192.0.2.1",)
    assert state.ring is not None
    assert state.ring.universe == Cidr.parse(VECTOR["range"]).range
    assert state.ring.seeds == (first,)
    assert state.ring.entries == (
        Entry(Cidr.parse("10.40.0.0/32").addr, first, 5, 49149),
        Entry(Cidr.parse("10.40.192.0/32").addr, second, 3, 2056),
        Entry(Cidr.parse("10.40.200.9/32").addr, first, 1, 0),
        Entry(Cidr.parse("10.40.200.10/32").addr, second, 0, 14326),
    )
    assert set(state.holdings) == {
        held("10.40.0.1/16", "weave:expose"),
        held("10.40.0.2/16", CONTAINER),
        held("10.40.0.3/16", "10.40.0.3"),
        held("10.40.200.9/24", "foo"),
    }


def test_our_writer_writes_what_weave_net_does() -> None:
    assert set(decoded(ownedAddresses=owned(list(decoded().holdings))).holdings) == set(
        decoded().holdings
    )


def test_several_addresses_and_containers_that_docker_knew() -> None:
    holdings = [
        held("10.40.0.9/16", "a", is_container=True),
        held("192.168.7.1/24", "a", is_container=True),
        held("0.0.0.0/0", "b"),
    ]
    assert list(decoded(ownedAddresses=owned(holdings)).holdings) == holdings


def test_an_address_has_one_holder() -> None:
    twice = owned([held("10.40.0.9/16", "a"), held("10.40.0.9/24", "b")])
    assert list(decoded(ownedAddresses=twice).holdings) == [held("10.40.0.9/16", "a")]


def test_before_the_first_division_nothing_is_held() -> None:
    fields = [("Start", gob.UINT), ("End", gob.UINT), ("Peer", gob.UINT)]
    kind = gob.FIRST_TYPE_ID
    numbers = map(gob.encode_uint, (0x0A280000, 0x0A290000, 0xCE0100000001))
    empty = gob.define_struct(kind, "Ring", fields)
    empty += gob.message(kind, gob.encode_fields(numbers))
    for state in (decoded(ring=None), decoded(ring=empty)):
        assert (state.ring, state.holdings) == (None, ())
        assert state.name is not None


@pytest.mark.parametrize("values", [{}, {b"version": b"\1\0"}])
def test_a_router_that_never_had_peers_or_addresses(values: dict[bytes, bytes]) -> None:
    assert WeaveState.decode(bolt_file(values)) == WeaveState()


def test_without_a_name_the_ring_tells_it() -> None:
    assert decoded(peername=None) == decoded()


def test_addresses_that_are_no_list() -> None:
    kinds = gob.define_map(65, gob.STRING, 66, "") + gob.define_struct(
        66, "", [("IsContainer", gob.BOOL), ("Cidrs", gob.INT)]
    )
    one = gob.encode_string("a") + gob.encode_fields((None, gob.encode_int(7)))
    with pytest.raises(gob.GobError, match="expected a list of addresses"):
        decoded(ownedAddresses=kinds + gob.message(65, b"\0\1" + one))


@pytest.mark.parametrize("version", [None, b"", b"\2\0"])
def test_a_format_that_nobody_knows(version: bytes | None) -> None:
    with pytest.raises(BoltError, match="format"):
        decoded(version=version)


@pytest.mark.parametrize("key", ["ring", "peername", "directPeers", "ownedAddresses"])
@pytest.mark.parametrize(
    "value", [b"", b"\xff", gob.bytes_value(b"x"), gob.int_value(-3), gob.uint_value(1 << 60)]
)
def test_values_that_are_something_else(key: str, value: bytes) -> None:
    with pytest.raises(gob.GobError):
        decoded(**{key: value})
