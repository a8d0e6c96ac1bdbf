"""What travels on the channel: our state by gossip, three kinds of unicast.

Gob streams that a Weave 2.8 peer reads and writes; type ids are arbitrary, structure is what
counts. Zero numbers and absent parts are left out, an empty Paxos map is sent as an empty map:
without any Weave takes us for an observer that wants an election. An empty unicast, or one of a
kind it does not know, would end a Weave process or hang its connection: nothing here makes one.

Every number is checked against what it may be and every collection against a cap, so a decoded
value can be used without another look. Source of truth: ipam specification 7, 19; vectors
``ipam_gossip.json``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from base import gob
from ipam.address import ADDRESS_MAX, Range
from ipam.paxos import NO_NODE, NO_PROPOSAL, Claims, NodeId, ProposalId
from ipam.store import Entry

SPACE_REQUEST, RING_UPDATE, SPACE_DENIED = range(3)

BYTES_MAX: Final = 16 << 20
ENTRIES_MAX: Final = 65_536
PEERS_MAX: Final = 16_384
NICK_LEN_MAX: Final = 255
_PEER_MAX: Final = (1 << 48) - 1
_UINT32: Final = (1 << 32) - 1

_STATE, _NICKS, _PAXOS, _NODE, _CLAIMS, _PROPOSAL, _VALUE, _NAMES = range(
    gob.FIRST_TYPE_ID, gob.FIRST_TYPE_ID + 8
)
_RING, _ENTRIES, _ENTRY, _SEEDS = range(gob.FIRST_TYPE_ID + 8, gob.FIRST_TYPE_ID + 12)
_RANGE: Final = gob.FIRST_TYPE_ID

_ENTRY_FIELDS: Final = ("Token", "Peer", "Version", "Free")
_STATE_FIELDS: Final = frozenset(("Now", "Nicknames", "Paxos", "Ring"))
_RING_FIELDS: Final = frozenset(("Start", "End", "Peer", "Entries", "Seeds"))
_RANGE_FIELDS: Final = frozenset(("Start", "End"))
# types that Go met first as an element have no name
_STATE_TYPES: Final = b"".join(
    (
        gob.define_struct(
            _STATE,
            "gossipState",
            [("Now", gob.INT), ("Nicknames", _NICKS), ("Paxos", _PAXOS), ("Ring", _RING)],
        ),
        gob.define_map(_NICKS, gob.UINT, gob.STRING, "map[mesh.PeerName]string"),
        gob.define_map(_PAXOS, _NODE, _CLAIMS, "GossipState"),
        gob.define_struct(_NODE, "", [("Name", gob.UINT), ("UID", gob.UINT)]),
        gob.define_struct(
            _CLAIMS,
            "",
            [("Promise", _PROPOSAL), ("Accepted", _PROPOSAL), ("AcceptedVal", _VALUE)],
        ),
        gob.define_struct(_PROPOSAL, "ProposalID", [("Round", gob.UINT), ("Proposer", _NODE)]),
        gob.define_struct(_VALUE, "AcceptedValue", [("Value", _NAMES), ("Origin", _PROPOSAL)]),
        gob.define_slice(_NAMES, gob.UINT, "Value"),
        gob.define_struct(
            _RING,
            "Ring",
            [
                ("Start", gob.UINT),
                ("End", gob.UINT),
                ("Peer", gob.UINT),
                ("Entries", _ENTRIES),
                ("Seeds", _SEEDS),
            ],
        ),
        gob.define_slice(_ENTRIES, _ENTRY, "entries"),
        gob.define_struct(
            _ENTRY,
            "",
            [(name, gob.UINT) for name in _ENTRY_FIELDS],
        ),
        gob.define_slice(_SEEDS, gob.UINT, "[]mesh.PeerName"),
    )
)
_RANGE_TYPE: Final = gob.define_struct(_RANGE, "Range", [("Start", gob.UINT), ("End", gob.UINT)])


@dataclass(slots=True, frozen=True)
class RingState:
    """A ring as it travels; ``peer`` is who sent it."""

    universe: Range
    peer: int
    entries: tuple[Entry, ...] = ()
    seeds: tuple[int, ...] = ()


@dataclass(slots=True, frozen=True)
class GossipState:
    """A peer's state. ``now`` is its wall clock in seconds; peers are 48-bit numbers.

    ``paxos`` None: it has a ring, or does not vote.
    """

    now: int = 0
    nicknames: Mapping[int, str] = field(default_factory=dict)
    paxos: Mapping[NodeId, Claims] | None = None
    ring: RingState | None = None


# --- encoding ----------------------------------------------------------------------------------


def _uint(value: int) -> bytes | None:
    return gob.encode_uint(value) if value else None


def _uints(values: Iterable[int]) -> bytes | None:
    encoded = [gob.encode_uint(value) for value in values]
    return gob.encode_uint(len(encoded)) + b"".join(encoded) if encoded else None


def _node(node: NodeId) -> bytes:
    return gob.encode_fields((_uint(node.name), _uint(node.uid)))


def _proposal(proposal: ProposalId) -> bytes:
    return gob.encode_fields((_uint(proposal.round), _node(proposal.proposer)))


def _claims(claims: Claims) -> bytes:
    value = gob.encode_fields((_uints(claims.value), _proposal(claims.origin)))
    return gob.encode_fields((_proposal(claims.promise), _proposal(claims.accepted), value))


def _ring(ring: RingState) -> bytes:
    entries = None
    if ring.entries:
        body = [gob.encode_fields(map(_uint, entry)) for entry in ring.entries]
        entries = gob.encode_uint(len(body)) + b"".join(body)
    start, end = ring.universe
    return gob.encode_fields(
        (_uint(start), _uint(end), _uint(ring.peer), entries, _uints(ring.seeds))
    )


def encode_state(state: GossipState) -> bytes:
    """A gossip payload."""
    nicks = [
        gob.encode_uint(peer) + gob.encode_string(nick) for peer, nick in state.nicknames.items()
    ]
    paxos = None
    if state.paxos is not None:
        nodes = [_node(node) + _claims(claims) for node, claims in state.paxos.items()]
        paxos = gob.encode_uint(len(nodes)) + b"".join(nodes)
    body = gob.encode_fields(
        (
            gob.encode_int(state.now) if state.now else None,
            gob.encode_uint(len(nicks)) + b"".join(nicks),
            paxos,
            _ring(state.ring) if state.ring is not None else None,
        )
    )
    return _STATE_TYPES + gob.message(_STATE, body)


def encode_space_request(where: Range) -> bytes:
    """A unicast that asks for free addresses inside ``where``."""
    return bytes((SPACE_REQUEST,)) + _range(where)


def encode_denial(where: Range) -> bytes:
    """A unicast that refuses such a request, repeating it."""
    return bytes((SPACE_DENIED,)) + _range(where)


def encode_ring_update(state: bytes) -> bytes:
    """A unicast that tells one peer an encoded state."""
    return bytes((RING_UPDATE,)) + state


def encode_inquiry(now: int, nicknames: Mapping[int, str]) -> bytes:
    """A unicast that has a peer with a ring tell it: a state without one.

    Its map of votes is empty: without any, a peer that has no ring would begin an election.
    """
    return encode_ring_update(encode_state(GossipState(now, nicknames, {})))


def _range(where: Range) -> bytes:
    return _RANGE_TYPE + gob.message(_RANGE, gob.encode_fields(map(_uint, where)))


# --- decoding ----------------------------------------------------------------------------------


def decode_state(data: bytes) -> GossipState:
    """A gossip payload.

    Raises:
        GobError: damaged, or beyond a cap.
    """
    if len(data) > BYTES_MAX:
        raise gob.GobError(f"gossip of {len(data)} bytes")
    found = _top(data, _STATE_FIELDS)
    paxos, ring = found.get("Paxos"), found.get("Ring")
    return GossipState(
        _number(found, "Now", -(1 << 63), (1 << 63) - 1),
        _nicknames(found.get("Nicknames", {})),
        None if paxos is None else _paxos(paxos),
        None if ring is None else _ring_state(_struct(ring)),
    )


def decode_ring(data: bytes) -> RingState:
    """A ring by itself, as Weave Net stores it (ipam specification 9.1).

    Raises:
        GobError: damaged, or beyond a cap.
    """
    return _ring_state(_top(data, _RING_FIELDS))


def decode_range(data: bytes) -> Range:
    """The range of a space request or denial, after its first byte. Raises GobError."""
    found = _top(data, _RANGE_FIELDS)
    where = Range(_number(found, "Start", 0, ADDRESS_MAX), _number(found, "End", 0, ADDRESS_MAX))
    if where.start > where.end:
        raise gob.GobError("range ends before it starts")
    return where


def _top(data: bytes, known: frozenset[str]) -> dict[str, Any]:
    """The struct that is the stream's first value. Fields beside the ``known`` ones may be sent;
    one that could never hold any of them is something else.
    """
    decoder = gob.Decoder(data, _ENTRY_FIELDS)
    raw = decoder.next_raw()
    fields = decoder.field_names(raw)
    if fields and known.isdisjoint(fields):
        raise gob.GobError("gob: none of the fields is known")
    return _struct(decoder.resolve(raw))


def _struct(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise gob.GobError("gob: expected a struct")
    return value


def _number(found: Mapping[str, Any], name: str, low: int, high: int) -> int:
    value = found.get(name, 0)
    if type(value) is not int or not low <= value <= high:
        raise gob.GobError(f"gob: bad {name}")
    return value


def _numbers(value: Any, high: int) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > PEERS_MAX:
        raise gob.GobError("gob: expected a list of peers")
    if not all(type(item) is int and 0 <= item <= high for item in value):
        raise gob.GobError("gob: bad peer name")
    return tuple(value)


def _nicknames(value: Any) -> dict[int, str]:
    if not isinstance(value, dict) or len(value) > PEERS_MAX:
        raise gob.GobError("gob: expected a map of nicknames")
    for peer, nick in value.items():
        if type(peer) is not int or not 0 <= peer <= _PEER_MAX or not isinstance(nick, str):
            raise gob.GobError("gob: bad nickname")
        if len(nick) > NICK_LEN_MAX:
            raise gob.GobError("gob: nickname too long")
    return value


def _paxos(value: Any) -> dict[NodeId, Claims]:
    if not isinstance(value, dict) or len(value) > PEERS_MAX:
        raise gob.GobError("gob: expected a map of claims")
    known: dict[NodeId, Claims] = {}
    for key, item in value.items():
        if not isinstance(key, tuple):
            raise gob.GobError("gob: bad node")
        claims = _struct(item)
        accepted = _struct(claims.get("AcceptedVal", {}))
        known[_node_id(dict(key))] = Claims(
            _proposal_id(claims.get("Promise")),
            _proposal_id(claims.get("Accepted")),
            _numbers(accepted.get("Value", []), _PEER_MAX),
            _proposal_id(accepted.get("Origin")),
        )
    return known


def _node_id(found: dict[str, Any]) -> NodeId:
    return NodeId(_number(found, "Name", 0, _PEER_MAX), _number(found, "UID", 0, (1 << 64) - 1))


def _proposal_id(value: Any) -> ProposalId:
    if value is None:
        return NO_PROPOSAL
    found = _struct(value)
    proposer = found.get("Proposer")
    node = NO_NODE if proposer is None else _node_id(_struct(proposer))
    # the last round that somebody can still outbid
    return ProposalId(_number(found, "Round", 0, (1 << 63) - 1), node)


def _ring_state(found: dict[str, Any]) -> RingState:
    rows = found.get("Entries", [])
    if not isinstance(rows, list) or len(rows) > ENTRIES_MAX:
        raise gob.GobError("gob: bad ring entries")
    universe = Range(_number(found, "Start", 0, ADDRESS_MAX), _number(found, "End", 0, ADDRESS_MAX))
    if universe.start > universe.end or len(rows) > universe.size:
        raise gob.GobError("gob: bad range of the ring")
    entries = tuple(map(_entry, rows))
    if entries and (
        max(entry[1] for entry in entries) > _PEER_MAX
        or max(max(entry[0], entry[2], entry[3]) for entry in entries) > _UINT32
    ):
        raise gob.GobError("gob: bad ring entry")
    return RingState(
        universe,
        _number(found, "Peer", 0, _PEER_MAX),
        entries,
        _numbers(found.get("Seeds", []), _PEER_MAX),
    )


def _entry(row: Any) -> Entry:
    if not isinstance(row, tuple):
        raise gob.GobError("gob: bad ring entry")
    return Entry._make(row)
