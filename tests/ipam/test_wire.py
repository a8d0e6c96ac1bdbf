"""Gossip and unicasts against bytes of the real program, and what hostile ones may do."""

from __future__ import annotations

from typing import Any

import pytest

from base import gob
from ipam import wire
from ipam.address import Range
from ipam.paxos import Claims, NodeId, ProposalId
from ipam.paxos import seeds_of as seeds_of_value
from ipam.store import Entry
from ipam.wire import GossipState, RingState
from tests.golden import load
from tests.ipam.shapes import entries_of, peer, range_of, seeds_of
from tests.ipam.test_paxos_vectors import claims_map, sorted_values

VECTORS = load("ipam_gossip")


def ring_state(item: dict[str, Any]) -> RingState:
    return RingState(range_of(item), peer(item["peer"]), tuple(entries_of(item)), seeds_of(item))


def wanted_state(case: dict[str, Any]) -> GossipState:
    return GossipState(
        case["now"],
        {peer(name): nick for name, nick in (case["nicknames"] or {}).items()},
        None if case["paxos"] is None else claims_map(case["paxos"]),
        None if case["ring"] is None else ring_state(case["ring"]),
    )


def comparable(state: GossipState) -> tuple[object, ...]:
    paxos = None if state.paxos is None else sorted_values(dict(state.paxos))
    return state.now, dict(state.nicknames), paxos, state.ring


@pytest.mark.parametrize("case", VECTORS["gossip"], ids=lambda case: case["name"])
def test_state(case: dict[str, Any]) -> None:
    wanted = comparable(wanted_state(case))
    found = wire.decode_state(bytes.fromhex(case["bytes"]))
    assert comparable(found) == wanted
    again = wire.decode_state(wire.encode_state(found))
    assert comparable(again) == wanted


@pytest.mark.parametrize("case", VECTORS["gossip"], ids=lambda case: case["name"])
def test_our_bytes_have_the_same_form(case: dict[str, Any]) -> None:
    """Which fields are present is part of the form: an empty map is not no map."""
    theirs = bytes.fromhex(case["bytes"])
    ours = wire.encode_state(wire.decode_state(theirs))
    value, wanted = gob.Decoder(ours).next(), gob.Decoder(theirs).next()
    wanted.setdefault("Nicknames", {})  # we always send some
    assert _sorted(value) == _sorted(wanted)


def _messages(stream: bytes) -> list[tuple[int, bytes]]:
    """Type id, negative for a definition, and body of each message; ids fit in a byte."""
    found = []
    while stream:
        length, stream = stream[0], stream[1:]
        if length > gob.SHORT_MAX:
            size = 256 - length
            length, stream = int.from_bytes(stream[:size], "big"), stream[size:]
        number = stream[1]
        assert stream[0] == 0xFF
        found.append((-(number + 1) // 2 if number & 1 else number // 2, stream[2:length]))
        stream = stream[length:]
    return found


@pytest.mark.parametrize("case", VECTORS["gossip"], ids=lambda case: case["name"])
def test_our_definitions_are_theirs(case: dict[str, Any]) -> None:
    """Byte for byte, but for the numbers of the types."""
    theirs = _messages(bytes.fromhex(case["bytes"]))
    ours = _messages(wire.encode_state(wire.decode_state(bytes.fromhex(case["bytes"]))))
    ids = {-one: -other for (one, _), (other, _) in zip(ours, theirs, strict=True) if one < 0}
    assert len(ids) == len(ours) - 1
    for (_, body), (_, wanted) in zip(ours[:-1], theirs[:-1], strict=True):
        assert len(body) == len(wanted)
        for at, (byte, other) in enumerate(zip(body, wanted, strict=True)):
            assert byte == other or (body[at - 1] == 0xFF and ids[byte // 2] == other // 2)


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return sorted((str(key), _sorted(item)) for key, item in value.items())
    return value


@pytest.mark.parametrize("case", VECTORS["unicast"])
def test_unicast(case: dict[str, Any]) -> None:
    payload = bytes.fromhex(case["payload"])
    if case["kind"] == "ring update":
        assert payload[0] == wire.RING_UPDATE
        assert wire.decode_state(payload[1:]).ring == ring_state(case["ring"])
        assert wire.encode_ring_update(payload[1:]) == payload
        return
    where = range_of(case)
    assert wire.decode_range(payload[1:]) == where
    ours = (
        wire.encode_space_request(where)
        if case["kind"] == "space request"
        else wire.encode_denial(where)
    )
    assert ours[0] == payload[0]
    assert wire.decode_range(ours[1:]) == where


@pytest.mark.parametrize("case", load("ipam_ring")["merge"], ids=lambda case: case["name"])
def test_a_ring_by_itself(case: dict[str, Any]) -> None:
    found = wire.decode_ring(bytes.fromhex(case["incoming_gob"]))
    assert found == ring_state(case["incoming"])


@pytest.mark.parametrize("run", load("ipam_paxos")["runs"], ids=lambda run: run["name"])
def test_claims_by_themselves(run: dict[str, Any]) -> None:
    for step in run["steps"]:
        if step["op"] == "deliver":
            found = wire._paxos(gob.Decoder(bytes.fromhex(step["message_gob"])).next())
            assert sorted_values(found) == claims_map(step["message"])


@pytest.mark.parametrize("case", VECTORS["normalize_consensus"])
def test_seeds_of_a_decision(case: dict[str, Any]) -> None:
    agreed = map(peer, case["consensus_value"] or ())
    assert seeds_of_value(agreed) == tuple(map(peer, case["ring_seeds"] or ()))


def _struct_of(*fields: str) -> bytes:
    """A stream with one struct of these unsigned fields, of which the first is sent, a 1."""
    kind = gob.define_struct(gob.FIRST_TYPE_ID, "T", [(field, gob.UINT) for field in fields])
    return kind + gob.message(gob.FIRST_TYPE_ID, gob.encode_fields([b"\1"]))


def test_fields_beside_the_known_ones_may_be_all_that_is_sent() -> None:
    assert wire.decode_state(_struct_of("Future", "Now")) == GossipState()
    assert wire.decode_range(_struct_of("Future", "End")) == Range(0, 0)


def test_a_struct_without_any_known_field_is_refused() -> None:
    for read in (wire.decode_state, wire.decode_range, wire.decode_ring):
        with pytest.raises(gob.GobError, match="none of the fields"):
            read(_struct_of("Future", "now"))


def test_an_empty_map_of_claims_is_sent() -> None:
    data = wire.encode_state(GossipState(1, {1: "one"}, {}))
    assert wire.decode_state(data).paxos == {}
    assert wire.decode_state(wire.encode_state(GossipState(1, {1: "one"}))).paxos is None


def test_extremes_survive() -> None:
    top = NodeId((1 << 48) - 1, (1 << 64) - 1)
    state = GossipState(
        -5,
        {(1 << 48) - 1: "é" * 255},
        {top: Claims()},
        RingState(Range(0, 1 << 31), 0, (Entry(0, 0, (1 << 32) - 1, 0),), (0,)),
    )
    assert wire.decode_state(wire.encode_state(state)) == state


BAD_STATES = {
    "peer of 49 bits": GossipState(nicknames={1 << 48: "x"}),
    "long nickname": GossipState(nicknames={1: "x" * 256}),
    "negative range": GossipState(ring=RingState(Range(9, 3), 1)),
    "more entries than addresses": GossipState(
        ring=RingState(Range(0, 1), 1, (Entry(0, 1, 0, 0), Entry(1, 1, 0, 0)))
    ),
    "token of 33 bits": GossipState(ring=RingState(Range(0, 99), 1, (Entry(1 << 32, 1, 0, 0),))),
    "version of 33 bits": GossipState(ring=RingState(Range(0, 99), 1, (Entry(1, 1, 1 << 32, 0),))),
    "end of 33 bits": GossipState(ring=RingState(Range(0, 1 << 32), 1)),
    "too many seeds": GossipState(
        ring=RingState(Range(0, 9), 1, (), tuple(range(wire.PEERS_MAX + 1)))
    ),
    "too many entries": GossipState(
        ring=RingState(
            Range(0, 1 << 20), 1, tuple(Entry(n, 1, 0, 0) for n in range(wire.ENTRIES_MAX + 1))
        )
    ),
    "too many nicknames": GossipState(nicknames=dict.fromkeys(range(wire.PEERS_MAX + 1), "")),
    "too many voters": GossipState(
        paxos=dict.fromkeys((NodeId(1, uid) for uid in range(wire.PEERS_MAX + 1)), Claims())
    ),
    "round of 64 bits": GossipState(
        paxos={NodeId(1, 1): Claims(promise=ProposalId(1 << 63, NodeId(1, 1)))}
    ),
}


@pytest.mark.parametrize("name", BAD_STATES)
def test_what_cannot_be_is_refused(name: str) -> None:
    with pytest.raises(gob.GobError):
        wire.decode_state(wire.encode_state(BAD_STATES[name]))


def test_other_values_are_refused() -> None:
    for data in (b"", b"\0", gob.uint_value(3), gob.string_value("x"), b"\xff" * 40):
        with pytest.raises(gob.GobError):
            wire.decode_state(data)
        with pytest.raises(gob.GobError):
            wire.decode_range(data)


def test_too_many_bytes_are_refused_unread() -> None:
    with pytest.raises(gob.GobError, match="gossip of"):
        wire.decode_state(bytes(wire.BYTES_MAX + 1))


def test_a_backward_range_is_refused() -> None:
    data = wire.encode_space_request(Range(5, 4))
    with pytest.raises(gob.GobError):
        wire.decode_range(data[1:])


def test_every_truncation_is_refused() -> None:
    for case in VECTORS["gossip"]:
        data = bytes.fromhex(case["bytes"])
        for length in range(0, len(data), 7):
            with pytest.raises(gob.GobError):
                wire.decode_state(data[:length])
