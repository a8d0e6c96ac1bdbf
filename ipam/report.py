"""The allocator's state as records for status texts, reports and metrics.

Source of truth: ipam specification 12.
"""

from __future__ import annotations

from typing import Final

from base.names import PeerName, format_peer
from ipam.address import Cidr, format_address
from ipam.context import Context
from ipam.exchange import Exchange
from ipam.outside import Outside
from ipam.requests import Requests
from ipam.status import EntryStatus, IpamStatus, PaxosStatus, PeerShare, State

#: How many peers a line names.
_NAMES_MAX: Final = 8


def make_status(
    context: Context, requests: Requests, exchange: Exchange, outside: Outside
) -> IpamStatus:
    """A snapshot."""
    state = _state(context, requests)
    paxos = None if context.state.ring else _paxos(context)
    text = state.value
    if state is State.ELECTING and paxos is not None:
        text += f" (quorum: {paxos.quorum}, known: {paxos.known_nodes})"
    universe = context.options.universe
    claims = [(one.ident, one.cidr) for one in requests.claims.values() if one.cidr is not None]
    claims += [
        (held.ident, Cidr(held.addr, held.prefix_len))
        for addr in context.state.strays
        if (held := context.state.holdings.at(addr)) is not None
    ]
    return IpamStatus(
        state,
        text,
        paxos,
        universe,
        universe.size,
        context.state.space.ours_total,
        requests.default_subnet,
        _entries(context),
        _shares(context),
        tuple(claims),
        tuple((o.ident, o.cidr) for o in requests.allocates.values() if o.cidr is not None),
        (*_conflicts(context, exchange), *outside.conflicts()),
    )


def _state(context: Context, requests: Requests) -> State:
    ring, peers = context.state.ring, context.peers
    if context.stopped:
        return State.STOPPED
    if ring:
        owners = ring.peers()
        if not any(peer == ring.peer or peers.reachable(peer) for peer in owners):
            return State.UNREACHABLE
        return State.WAITING if requests.allocates else State.RUNNING
    if not context.election.awaiting:
        return State.IDLE
    return State.ELECTING if context.election.elector else State.OBSERVING


def _paxos(context: Context) -> PaxosStatus:
    election, peers = context.election, context.peers
    paxos = election.paxos
    voted = sorted({node.name for node in paxos.counted()})
    missing = sorted(peers.known.keys() - set(voted))
    unseen = max(0, election.others_expected - len(peers.known))
    return PaxosStatus(
        election.elector,
        len(paxos.known),
        paxos.quorum,
        tuple(map(PeerName.from_int, voted)),
        tuple(map(PeerName.from_int, missing)),
        unseen,
        _votes(context, voted, missing, unseen) if election.awaiting and voted else "",
    )


def _votes(context: Context, voted: list[int], missing: list[int], unseen: int) -> str:
    """Who has voted, who has not, and whom nobody has seen."""
    parts = [f"by {_names(context, voted)}"]
    if missing:
        parts.append(f"none by {_names(context, missing)}")
    if unseen:
        parts.append(f"{unseen} more peer{'s' * (unseen > 1)} expected, not connected")
    return "; ".join(parts)


def _names(context: Context, peers: list[int]) -> str:
    named = [format_peer(PeerName.from_int(peer), context.peers.nick(peer)) for peer in peers]
    more = len(named) - _NAMES_MAX
    return ", ".join(named[:_NAMES_MAX]) + (f" and {more} more" if more > 0 else "")


def _entries(context: Context) -> tuple[EntryStatus, ...]:
    peers, ourself = context.peers, context.state.peer
    return tuple(
        EntryStatus(
            piece.start,
            piece.size,
            PeerName.from_int(entry.peer),
            peers.nick(entry.peer),
            entry.peer == ourself or peers.reachable(entry.peer),
            entry.version,
        )
        for entry, piece in context.state.ring.all_pieces()
    )


def _shares(context: Context) -> tuple[PeerShare, ...]:
    counts: dict[int, int] = {}
    for entry, piece in context.state.ring.all_pieces():
        counts[entry.peer] = counts.get(entry.peer, 0) + piece.size
    ourself, peers = context.state.peer, context.peers
    return tuple(
        PeerShare(
            PeerName.from_int(peer),
            peers.nick(peer),
            counts[peer],
            peer == ourself or peers.reachable(peer),
            peer == ourself,
        )
        for peer in sorted(counts, key=lambda peer: (peer != ourself, peer))
    )


def _conflicts(context: Context, exchange: Exchange) -> tuple[str, ...]:
    """Rings of peers that we refuse, and held addresses that their owner refuses to give."""
    lines = list(exchange.refusals)
    for addr, peer in sorted(exchange.denied.items()):
        held = context.state.holdings.at(addr)
        if held is not None and addr in context.state.strays:
            name = PeerName.from_int(peer)
            lines.append(f"{format_address(addr)} of {held.ident} is in use at {name} too")
    return tuple(lines)
